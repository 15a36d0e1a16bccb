// Products of up to sixteen rows, as one token of each of a few sequences needs them: the weights pass once, at the speed of
// memory, and nothing else counts.
//
// out [m, n] = x [m, k] . w [n, k]^T. To the tensor cores w is the left factor, so that a tile of them is 16 rows of w by
// 8 or 16 rows of x; a block of threads takes 16 or 32 rows of w, and its eight warps an eighth of k each:
//
//              k ->   warp 0     warp 1     ...   warp 7
//   w row 0           [ spans of 32, four or two at once under way ]
//   w row 1           ...
//
// Numbers go from memory to registers, sixteen bytes a load: of a span lane (g, t) has k = 8 t .. 8 t + 7 of rows g and g + 8
// (matrix.cuh). The tensor core would have it hold 2t, 2t+1, 2t+8, 2t+9; but a sum does not mind which k is which, as long as
// x is held in the same way. So eight numbers of a row of w and eight of a row of x are two products, and neither passes
// through shared memory. x comes from the first-level cache: 16 rows of 4,096 are 128 KiB.
//
// Bytes: 2 n k; in flight are 8 loads of 16 bytes for each of 512 threads of a multiprocessor, 64 KiB, where 25 KiB cover
// the latency of an H100's memory. A block asks for its next weights before it computes with those it has, across the ends
// of tiles, and for the first ones before the kernel ahead of it has ended: nobody writes weights.
//
// A row's bits do not depend on m nor on the other rows: k is summed in the same order for all.

#include "matrix.cuh"
#include "runtime.cuh"

namespace lr {
namespace {

constexpr unsigned WARPS = 8, THREADS = WARPS * WARP;
constexpr unsigned SPAN = 32; // of k: eight for each of four lanes
constexpr unsigned RESIDENT = 2; // blocks of threads a multiprocessor

// ROW_TILES of 16 rows of w, COLUMN_TILES of 8 rows of x.
template <unsigned ROW_TILES_, unsigned COLUMN_TILES_> struct Tile {
    static constexpr unsigned ROW_TILES = ROW_TILES_, COLUMN_TILES = COLUMN_TILES_;
    static constexpr unsigned ROWS = 16 * ROW_TILES, COLUMNS = 8 * COLUMN_TILES;
    static constexpr unsigned SPANS = 4 / ROW_TILES; // at once under way
};

// What the warps have summed, of two tiles in turn. A row of x has four numbers more, so that lanes write to different banks.
template <class T> struct NarrowShared {
    float sums[2][WARPS][T::COLUMNS][T::ROWS + 4];
};

// Sixteen bytes that are read once in a kernel; zeros where there are none.
__device__ __forceinline__ Words load16_once(const void *p, bool there) {
    Words words = {};
#if LR_EMULATED
    if (there) words = load16(p);
#else
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n"
                 "@p ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n}\n"
                 : "+r"(words.w[0]), "+r"(words.w[1]), "+r"(words.w[2]), "+r"(words.w[3])
                 : "l"(p), "r"(static_cast<int>(there)));
#endif
    return words;
}

// A warp's part of k, in spans.
struct Slice {
    unsigned begin, end;

    __device__ __forceinline__ explicit Slice(unsigned k) {
        const unsigned spans = (k + SPAN - 1) / SPAN;
        begin = spans * warp_id() / WARPS;
        end = spans * (warp_id() + 1) / WARPS;
    }
};

// A lane's numbers of SPANS spans of a tile of w: rows g and g + 8 of each 16.
template <class T> struct WeightsOfLane {
    Words words[T::SPANS][T::ROW_TILES][2];

    __device__ __forceinline__ void load(const lr_gemm_args &a, unsigned tile, unsigned span, unsigned end) {
#pragma unroll
        for (unsigned r = 0; r < T::ROW_TILES; ++r) {
#pragma unroll
            for (unsigned half = 0; half < 2; ++half) {
                const unsigned row = tile * T::ROWS + 16 * r + 8 * half + lane_id() / 4;
                const Bf16 *from = static_cast<const Bf16 *>(a.w) + static_cast<size_t>(row) * a.k;
#pragma unroll
                for (unsigned s = 0; s < T::SPANS; ++s) {
                    const unsigned column = (span + s) * SPAN + 8 * (lane_id() % 4);
                    words[s][r][half] = load16_once(from + column, row < a.n && span + s < end && column < a.k);
                }
            }
        }
    }
};

template <class T> struct Sums {
    float c[T::ROW_TILES][T::COLUMN_TILES][4];

    __device__ __forceinline__ void add(const lr_gemm_args &a, const WeightsOfLane<T> &w, unsigned span, unsigned end) {
#pragma unroll
        for (unsigned s = 0; s < T::SPANS; ++s) {
            const unsigned column = (span + s) * SPAN + 8 * (lane_id() % 4);
#pragma unroll
            for (unsigned n = 0; n < T::COLUMN_TILES; ++n) {
                const unsigned row = 8 * n + lane_id() / 4;
                Words x = {};
                if (row < a.m && span + s < end && column < a.k) {
                    x = load16(static_cast<const Bf16 *>(a.x) + static_cast<size_t>(row) * a.k + column);
                }
#pragma unroll
                for (unsigned r = 0; r < T::ROW_TILES; ++r) {
                    const Words &top = w.words[s][r][0], &bottom = w.words[s][r][1];
                    multiply(c[r][n], {top.w[0], bottom.w[0], top.w[1], bottom.w[1]}, x.w[0], x.w[1]);
                    multiply(c[r][n], {top.w[2], bottom.w[2], top.w[3], bottom.w[3]}, x.w[2], x.w[3]);
                }
            }
        }
    }

    __device__ __forceinline__ void put(float (&sums)[T::COLUMNS][T::ROWS + 4]) const {
        const unsigned g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
        for (unsigned r = 0; r < T::ROW_TILES; ++r) {
#pragma unroll
            for (unsigned n = 0; n < T::COLUMN_TILES; ++n) {
#pragma unroll
                for (unsigned i = 0; i < 4; ++i) sums[8 * n + 2 * t + i % 2][16 * r + 8 * (i / 2) + g] = c[r][n][i];
            }
        }
    }
};

// Adds up what the warps have, in their order, and writes it.
template <class T> __device__ __forceinline__ void finish(const lr_gemm_args &a, unsigned tile, const float (&sums)[WARPS][T::COLUMNS][T::ROWS + 4]) {
    for (unsigned i = threadIdx.x; i < T::ROWS * T::COLUMNS; i += THREADS) {
        const unsigned row = i % T::ROWS, column = i / T::ROWS, n = tile * T::ROWS + row;
        if (n >= a.n || column >= a.m) continue;
        float sum = 0.f;
#pragma unroll
        for (unsigned w = 0; w < WARPS; ++w) sum += sums[w][column][row];
        if (a.bias) sum += to_float(static_cast<const Bf16 *>(a.bias)[n]);
        const size_t at = static_cast<size_t>(column) * a.n + n;
        if (a.out_type == LR_F32) static_cast<float *>(a.out)[at] = sum;
        else static_cast<Bf16 *>(a.out)[at] = to_bf16(sum);
    }
}

template <class T> __global__ void __launch_bounds__(THREADS, RESIDENT) narrow_kernel(lr_gemm_args a) {
    auto &s = shared<NarrowShared<T>>();
    const unsigned tiles = (a.n + T::ROWS - 1) / T::ROWS;
    const Slice slice(a.k);
    WeightsOfLane<T> next;
    next.load(a, blockIdx.x, slice.begin, slice.end);
    begin_after_earlier();
    unsigned turn = 0;
    for (unsigned tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn ^= 1) {
        Sums<T> own = {};
        for (unsigned span = slice.begin; span < slice.end; span += T::SPANS) {
            const WeightsOfLane<T> now = next;
            const bool is_last = span + T::SPANS >= slice.end;
            next.load(a, is_last ? tile + gridDim.x : tile, is_last ? slice.begin : span + T::SPANS, slice.end);
            own.add(a, now, span, slice.end);
        }
        own.put(s.sums[turn][warp_id()]);
        // Whoever is ahead writes to the other half until all have been here again.
        __syncthreads();
        finish<T>(a, tile, s.sums[turn]);
    }
}

template <class T> int launch_narrow(lr_stream *stream, const lr_gemm_args &a) {
    const unsigned tiles = (a.n + T::ROWS - 1) / T::ROWS, most = RESIDENT * properties(stream).multiprocessors;
    return launch(stream, {tiles < most ? tiles : most, 1, THREADS, sizeof(NarrowShared<T>)}, "narrow product", narrow_kernel<T>, a);
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_gemm_narrow(lr_stream *stream, const lr_gemm_args *args) {
    using namespace lr;
    const lr_gemm_args &a = *args;
    if (const int failed = check_gemm(a)) return failed;
    if (a.type != LR_BF16) return fail("narrow product: factors of type %u, of which only bf16 is possible", a.type);
    if (a.m > LR_NARROW_ROWS) return fail("narrow product: %u rows, of at most %u", a.m, static_cast<unsigned>(LR_NARROW_ROWS));
    if (a.m == 0) return 0;
    if (!settings(stream).narrow) return lr_gpu_gemm(stream, args);
    return a.m <= 8 ? launch_narrow<Tile<1, 1>>(stream, a) : launch_narrow<Tile<2, 2>>(stream, a);
}
