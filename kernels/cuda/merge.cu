// Puts together the results of rows whose keys were split: a weighted mean, weighted by the sums of exponentials, in the
// order of the parts. Bytes: 4 D and 4 for each part and head, 2 D for the result; it takes a few microseconds.

#include "runtime.cuh"

namespace lr {
namespace {

// A warp takes a head of a row; four columns for each lane at a time.
constexpr unsigned WARPS = 4;

__global__ void __launch_bounds__(WARPS *WARP) merge_kernel(lr_merge_args a) {
    begin_after_earlier();
    const uint32_t row = a.rows[blockIdx.x];
    const unsigned head = blockIdx.y * WARPS + warp_id();
    if (row == LR_NONE || head >= a.q_heads) return;
    const uint32_t begin = a.starts[blockIdx.x], end = a.starts[blockIdx.x + 1];
    auto sum_of = [&](uint32_t i) { return a.part_sums[static_cast<size_t>(a.part_ids[i]) * a.q_heads + head]; };
    float max = -INFINITE;
    for (uint32_t i = begin; i < end; ++i) max = fmaxf(max, sum_of(i));
    const float base = max == -INFINITE ? 0.f : max; // parts of no keys are zeros, and weigh nothing
    for (unsigned column = 4 * lane_id(); column < a.head_dim; column += 4 * WARP) {
        float total = 0.f, out[4] = {};
#pragma unroll 4
        for (uint32_t i = begin; i < end; ++i) {
            const float weight = exp2_fast(sum_of(i) - base);
            const Words part = load16(a.parts + (static_cast<size_t>(a.part_ids[i]) * a.q_heads + head) * a.head_dim + column);
            total += weight;
            for (int j = 0; j < 4; ++j) out[j] += weight * bits_to_float(part.w[j]);
        }
        const float factor = total > 0.f ? 1.f / total : 0.f;
        uint32_t *to = reinterpret_cast<uint32_t *>(static_cast<Bf16 *>(a.out) + (static_cast<size_t>(row) * a.q_heads + head) * a.head_dim + column);
        to[0] = pack(out[0] * factor, out[1] * factor);
        to[1] = pack(out[2] * factor, out[3] * factor);
    }
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_merge(lr_stream *stream, const lr_merge_args *args) {
    using namespace lr;
    if (args->head_dim % 4) return fail("merge: heads of %u columns, which is no multiple of 4", args->head_dim);
    return launch(stream, {args->max_merges, (args->q_heads + WARPS - 1) / WARPS, WARPS * WARP, 0}, "merge", merge_kernel, *args);
}
