// Products by a group of four warps on Hopper (wgmma m64nNk16, bf16 in, f32 sums). They run beside other instructions:
// operands must stay as they are, and results be left alone, until the product was waited for.
//
// Warp w of the group has rows 16 w .. 16 w + 16 of the result, in the layout of mma (matrix.cuh). A lies in shared
// memory or in registers; B, and A there, in panels of 64 columns, whose rows of 128 bytes are swizzled as
// the hardware wants it (chunks of 16 bytes exchanged by the low three bits of the row):
//
//   panel 0                panel 1
//   [row 0, 64 columns]    [row 0, 64 columns]      a panel of R rows takes R * 128 bytes
//   [row 1, 64 columns]    ...
//
// A descriptor of such a matrix says where it begins (in 16 bytes), how far apart groups of eight rows are (1024 bytes),
// and, where its rows are the common dimension, how far apart panels are. Panels begin at multiples of 1024 bytes.
#pragma once

#include "matrix.cuh"

#if LR_EMULATED
#include <utility>
#include <vector>
#endif

namespace lr {

template <unsigned ROWS, unsigned COLUMNS> struct alignas(1024) Panels {
    static constexpr unsigned CHUNKS = COLUMNS / 8;
    static constexpr unsigned PANEL_BYTES = ROWS * 128;
    Words chunks[ROWS * CHUNKS];

    __device__ __forceinline__ Words *at(unsigned row, unsigned chunk) {
        return &chunks[chunk / 8 * (ROWS * 8) + row * 8 + (chunk % 8 ^ row % 8)];
    }
};

// Of `panel_bytes` only the second kind of matrix makes use.
__device__ __forceinline__ uint64_t descriptor(const void *start, unsigned panel_bytes) {
#if LR_EMULATED
    const uint64_t address = static_cast<const unsigned char *>(start) - emulated::shared_memory();
#else
    const uint64_t address = __cvta_generic_to_shared(start);
#endif
    constexpr uint64_t GROUP_OF_ROWS = 1024, SWIZZLE_128 = uint64_t{1} << 62;
    return (address & 0x3FFFF) >> 4 | static_cast<uint64_t>(panel_bytes >> 4) << 16 | GROUP_OF_ROWS >> 4 << 32 | SWIZZLE_128;
}

// Shared memory that was written by ordinary stores or cp.async may be read by products after this, and a barrier.
__device__ __forceinline__ void fence_for_products() {
#if !LR_EMULATED
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Registers that a product is about to use are as they should be.
__device__ __forceinline__ void begin_products() {
#if !LR_EMULATED
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

#if LR_EMULATED
// A product that was asked for and runs when it is waited for.
struct Pending {
    float *c;
    unsigned tiles;
    bool from_shared, add;
    uint32_t a[4];
    uint64_t a_descriptor, b_descriptor;
};

struct PendingOfLane {
    std::vector<std::vector<Pending>> groups;
    std::vector<Pending> open;
    unsigned warp_of_group;
};

inline PendingOfLane &pending() {
    static thread_local PendingOfLane lanes[1024];
    return lanes[threadIdx.x];
}

// The number at (row, column) of what a descriptor points at, whose columns run through the 128 bytes of a row.
inline float described(uint64_t d, unsigned row, unsigned column) {
    const uint64_t start = (d & 0x3FFF) << 4, panel = (d >> 16 & 0x3FFF) << 4, group = (d >> 32 & 0x3FFF) << 4;
    uint64_t address = start + column / 64 * panel + row / 8 * group + row % 8 * 128 + column % 64 * 2;
    address ^= (address >> 7 & 7) << 4;
    uint16_t bits;
    memcpy(&bits, emulated::shared_memory() + address, sizeof bits);
    return to_float(Bf16{bits});
}

// Both kinds of product for the sixteen rows of one warp. With A in shared memory, B is transposed: its rows are the
// columns of the result; with A in registers, they are the common dimension.
inline void run_pending(void **data) {
    auto lane = [data](unsigned l) -> PendingOfLane & { return *static_cast<PendingOfLane *>(data[l]); };
    const unsigned warp_of_group = lane(0).warp_of_group;
    for (size_t i = 0; i < lane(0).groups.front().size(); ++i) {
        const Pending &first = lane(0).groups.front()[i];
        float A[16][16];
        for (unsigned l = 0; l < WARP; ++l) {
            const unsigned g = l / 4, t = l % 4;
            for (unsigned j = 0; j < 4; ++j) {
                const uint32_t word = lane(l).groups.front()[i].a[j];
                A[g + j % 2 * 8][2 * t + j / 2 * 8] = low(word);
                A[g + j % 2 * 8][2 * t + j / 2 * 8 + 1] = high(word);
            }
        }
        for (unsigned row = 0; first.from_shared && row < 16; ++row) {
            for (unsigned k = 0; k < 16; ++k) A[row][k] = described(first.a_descriptor, 16 * warp_of_group + row, k);
        }
        for (unsigned column = 0; column < 8 * first.tiles; ++column) {
            float b[16];
            for (unsigned k = 0; k < 16; ++k) {
                b[k] = first.from_shared ? described(first.b_descriptor, column, k) : described(first.b_descriptor, k, column);
            }
            for (unsigned row = 0; row < 16; ++row) {
                float sum = 0.f;
                for (unsigned k = 0; k < 16; ++k) sum += A[row][k] * b[k];
                float &c = lane(row % 8 * 4 + column % 8 / 2).groups.front()[i].c[column / 8 * 4 + row / 8 * 2 + column % 2];
                c = (first.add ? c : 0.f) + sum;
            }
        }
    }
    for (unsigned l = 0; l < WARP; ++l) lane(l).groups.erase(lane(l).groups.begin());
}
#endif

// What was asked for since the last call is a group.
__device__ __forceinline__ void commit_products() {
#if LR_EMULATED
    pending().groups.push_back(std::move(pending().open));
    pending().open.clear();
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most LEFT groups run.
template <unsigned LEFT> __device__ __forceinline__ void wait_for_products() {
#if LR_EMULATED
    while (pending().groups.size() > LEFT) {
        pending().warp_of_group = warp_id() % 4;
        emulated::collective("wgmma.wait", &pending(), run_pending);
    }
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
#endif
}

// The compiler knows nothing of products under way: what is done to these registers before stays before, and what is done
// after stays after.
template <unsigned N> __device__ __forceinline__ void settle(float (&registers)[N][4]) {
#if !LR_EMULATED
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
        asm volatile("" : "+f"(registers[i][0]), "+f"(registers[i][1]), "+f"(registers[i][2]), "+f"(registers[i][3])::"memory");
    }
#else
    (void)registers;
#endif
}

template <unsigned N> __device__ __forceinline__ void settle(uint32_t (&registers)[N][4]) {
#if !LR_EMULATED
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
        asm volatile("" : "+r"(registers[i][0]), "+r"(registers[i][1]), "+r"(registers[i][2]), "+r"(registers[i][3])::"memory");
    }
#else
    (void)registers;
#endif
}

#define LR_TILE(tile) "+f"((tile)[0]), "+f"((tile)[1]), "+f"((tile)[2]), "+f"((tile)[3])

// c = a . b^T (+ c): 64 rows of sixteen columns at `a`, 8 TILES rows of sixteen columns at `b`.
template <unsigned TILES> __device__ __forceinline__ void multiply_transposed(float (&c)[TILES][4], uint64_t a, uint64_t b, int add) {
    static_assert(TILES == 16, "an instruction for each number of columns");
#if LR_EMULATED
    pending().open.push_back({&c[0][0], TILES, true, add != 0, {}, a, b});
#else
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
                 : LR_TILE(c[0]), LR_TILE(c[1]), LR_TILE(c[2]), LR_TILE(c[3]),
                   LR_TILE(c[4]), LR_TILE(c[5]), LR_TILE(c[6]), LR_TILE(c[7]),
                   LR_TILE(c[8]), LR_TILE(c[9]), LR_TILE(c[10]), LR_TILE(c[11]),
                   LR_TILE(c[12]), LR_TILE(c[13]), LR_TILE(c[14]), LR_TILE(c[15])
                 : "l"(a), "l"(b), "r"(add));
#endif
}

// c += a . b: 16 rows a warp in registers, sixteen rows of 8 TILES columns at `b`.
__device__ __forceinline__ void multiply_add(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b) {
#if LR_EMULATED
    pending().open.push_back({&c[0][0], 16, false, true, {a[0], a[1], a[2], a[3]}, 0, b});
#else
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
                 : LR_TILE(c[0]), LR_TILE(c[1]), LR_TILE(c[2]), LR_TILE(c[3]),
                   LR_TILE(c[4]), LR_TILE(c[5]), LR_TILE(c[6]), LR_TILE(c[7]),
                   LR_TILE(c[8]), LR_TILE(c[9]), LR_TILE(c[10]), LR_TILE(c[11]),
                   LR_TILE(c[12]), LR_TILE(c[13]), LR_TILE(c[14]), LR_TILE(c[15])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}

__device__ __forceinline__ void multiply_add(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b) {
#if LR_EMULATED
    pending().open.push_back({&c[0][0], 8, false, true, {a[0], a[1], a[2], a[3]}, 0, b});
#else
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
                 : LR_TILE(c[0]), LR_TILE(c[1]), LR_TILE(c[2]), LR_TILE(c[3]),
                   LR_TILE(c[4]), LR_TILE(c[5]), LR_TILE(c[6]), LR_TILE(c[7])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}

#undef LR_TILE

} // namespace lr
