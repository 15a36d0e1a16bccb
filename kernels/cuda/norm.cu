// RMS norm with what stands before it: adding to the residual stream, and the norm of what is added (GLM-4-0414).
//
// Bytes of a row: reads x (2 hidden) and the residual (2 or 4 hidden), writes the residual and the result; for hidden
// 4096 and a bf16 residual 32 KiB. Operations: about 8 for each number. So it runs at the speed of memory: a block
// takes a row, keeps it in registers (16 bytes a load), and passes over it once.
//
// A row's bits depend on the row alone: sums run over the same threads in the same order in every launch.

#include "quantise.cuh"
#include "runtime.cuh"

namespace lr {
namespace {

constexpr unsigned MAX_VECTORS = 4; // of eight numbers, for each thread
constexpr unsigned MAX_THREADS = 512;

struct NormShared {
    float scratch[MAX_THREADS / WARP];
};

template <class Residual, unsigned VECTORS> __global__ void __launch_bounds__(MAX_THREADS) norm_kernel(lr_norm_args a) {
    begin_after_earlier();
    NormShared &s = shared<NormShared>();
    const size_t start = static_cast<size_t>(blockIdx.x) * a.hidden;
    float row[VECTORS][8] = {}, added[VECTORS][8];
    auto for_each = [&](auto work) {
#pragma unroll
        for (unsigned v = 0; v < VECTORS; ++v) {
            const unsigned column = (v * blockDim.x + threadIdx.x) * 8;
            if (column < a.hidden) work(row[v], added[v], column);
        }
    };
    auto factor_of = [&](float squares) {
        return rsqrtf(block_sum(squares, s.scratch) / static_cast<float>(a.hidden) + a.eps);
    };

    float post = 1.f;
    if (a.x) {
        const Bf16 *x = static_cast<const Bf16 *>(a.x) + start;
        float squares = 0.f;
        for_each([&](auto &, auto &add, unsigned column) {
            load8(x + column, add);
            for (float y : add) squares += y * y;
        });
        if (a.post_weight) post = factor_of(squares);
    }

    Residual *residual = static_cast<Residual *>(a.residual) + start;
    float squares = 0.f;
    for_each([&](auto &r, auto &add, unsigned column) {
        load8(residual + column, r);
        if (a.x) {
            float weight[8];
            if (a.post_weight) load8(a.post_weight + column, weight);
            for (int i = 0; i < 8; ++i) r[i] += a.post_weight ? add[i] * post * weight[i] : add[i];
            store8(residual + column, r);
        }
        for (float y : r) squares += y * y;
    });

    const float factor = factor_of(squares);
    float largest = 0.f;
    for_each([&](auto &r, auto &, unsigned column) {
        float weight[8];
        load8(a.weight + column, weight);
        for (int i = 0; i < 8; ++i) {
            r[i] *= factor * weight[i];
            largest = fmaxf(largest, fabsf(r[i]));
        }
        if (!a.out_scale) store8(static_cast<Bf16 *>(a.out) + start + column, r);
    });
    if (!a.out_scale) return;
    const float scale = e4m3_scale(block_max(largest, s.scratch));
    if (threadIdx.x == 0) a.out_scale[blockIdx.x] = scale;
    for_each([&](auto &r, auto &, unsigned column) {
        store8_e4m3(static_cast<uint8_t *>(a.out) + start + column, r, 1.f / scale);
    });
}

// A thread that holds fewer numbers needs fewer registers, and more blocks run at a time.
template <class Residual> int launch_norm(lr_stream *stream, const Launch &l, const lr_norm_args &a) {
    switch ((a.hidden / 8 + l.threads - 1) / l.threads) {
    case 1: return launch(stream, l, "norm", norm_kernel<Residual, 1>, a);
    case 2: return launch(stream, l, "norm", norm_kernel<Residual, 2>, a);
    default: return launch(stream, l, "norm", norm_kernel<Residual, MAX_VECTORS>, a);
    }
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_norm(lr_stream *stream, const lr_norm_args *args) {
    using namespace lr;
    const unsigned vectors = args->hidden / 8;
    if (args->hidden % 8 || vectors == 0 || vectors > MAX_VECTORS * MAX_THREADS) {
        return fail("norm: rows of %u numbers; possible are multiples of 8 up to %u", args->hidden, MAX_VECTORS * MAX_THREADS * 8);
    }
    const unsigned threads = vectors < MAX_THREADS ? (vectors + WARP - 1) / WARP * WARP : MAX_THREADS;
    const Launch l{args->rows, 1, threads, sizeof(NormShared)};
    return args->residual_type == LR_F32 ? launch_norm<float>(stream, l, *args) : launch_norm<Bf16>(stream, l, *args);
}
