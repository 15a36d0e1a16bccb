// silu(gate) * up, on the two halves of one product.
//
// Bytes of a row: reads 4 width, writes 2 width (84 KiB for width 14336); about 10 operations a number: the speed of
// memory. With bf16 results each thread makes eight numbers; with e4m3 a block takes a row, whose largest number it needs.

#include "quantise.cuh"
#include "runtime.cuh"

namespace lr {
namespace {

constexpr unsigned THREADS = 256;
constexpr unsigned ROW_THREADS = 512;
constexpr unsigned VECTORS = 4; // of eight numbers, for each thread of a row

struct SwigluShared {
    float scratch[ROW_THREADS / WARP];
};

__device__ __forceinline__ void gated(const lr_swiglu_args &a, size_t row, unsigned column, float (&out)[8]) {
    const Bf16 *gate = static_cast<const Bf16 *>(a.gate_up) + row * 2 * a.width + column;
    float up[8];
    load8(gate, out);
    load8(gate + a.width, up);
    constexpr float LOG2_E = 1.4426950408889634f;
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = out[i] / (1.f + exp2_fast(-out[i] * LOG2_E)) * up[i];
}

__global__ void __launch_bounds__(THREADS) swiglu_kernel(lr_swiglu_args a) {
    begin_after_earlier();
    const unsigned column = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (column >= a.width) return;
    float out[8];
    gated(a, blockIdx.x, column, out);
    store8(static_cast<Bf16 *>(a.out) + static_cast<size_t>(blockIdx.x) * a.width + column, out);
}

__global__ void __launch_bounds__(ROW_THREADS) swiglu_e4m3_kernel(lr_swiglu_args a) {
    begin_after_earlier();
    SwigluShared &s = shared<SwigluShared>();
    float out[VECTORS][8] = {};
    float largest = 0.f;
#pragma unroll
    for (unsigned v = 0; v < VECTORS; ++v) {
        const unsigned column = (v * blockDim.x + threadIdx.x) * 8;
        if (column < a.width) gated(a, blockIdx.x, column, out[v]);
        for (float x : out[v]) largest = fmaxf(largest, fabsf(x));
    }
    const float scale = e4m3_scale(block_max(largest, s.scratch));
    if (threadIdx.x == 0) a.out_scale[blockIdx.x] = scale;
    uint8_t *row = static_cast<uint8_t *>(a.out) + static_cast<size_t>(blockIdx.x) * a.width;
#pragma unroll
    for (unsigned v = 0; v < VECTORS; ++v) {
        const unsigned column = (v * blockDim.x + threadIdx.x) * 8;
        if (column < a.width) store8_e4m3(row + column, out[v], 1.f / scale);
    }
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_swiglu(lr_stream *stream, const lr_swiglu_args *args) {
    using namespace lr;
    const unsigned vectors = args->width / 8;
    if (args->width % 8 || vectors == 0 || (args->out_scale && vectors > VECTORS * ROW_THREADS)) {
        return fail("swiglu: a width of %u; possible are multiples of 8, in e4m3 up to %u", args->width, VECTORS * ROW_THREADS * 8);
    }
    if (args->out_scale) return launch(stream, {args->rows, 1, ROW_THREADS, sizeof(SwigluShared)}, "swiglu", swiglu_e4m3_kernel, *args);
    return launch(stream, {args->rows, (vectors + THREADS - 1) / THREADS, THREADS, 0}, "swiglu", swiglu_kernel, *args);
}
