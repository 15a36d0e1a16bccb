// Which of the attention kernels runs.

#include "attention_hopper.cuh"
#include "runtime.cuh"

namespace lr {
namespace {

// Blocks of threads that a launch has for each multiprocessor at most. Tasks beyond that are taken in turns, so that a
// recorded launch that is made for many tasks costs little where there are few.
constexpr unsigned WAVES = 16;

template <class S, unsigned D, bool EIGHT_BITS> int launch_shape(lr_stream *stream, const lr_attention_args &a) {
    if (a.q_heads / a.kv_heads > S::ROWS) return fail("attention: %u heads of q share one of k; a tile has %u rows", a.q_heads / a.kv_heads, S::ROWS);
    const unsigned wanted = a.max_tasks * a.kv_heads, most = WAVES * properties(stream).multiprocessors;
    const size_t bytes = sizeof(AttentionShared<S, D, EIGHT_BITS>);
    return launch(stream, {wanted < most ? wanted : most, 1, THREADS, bytes}, "attention", attention_kernel<S, D, EIGHT_BITS>, a);
}

template <unsigned D> int launch_wide(lr_stream *stream, const lr_attention_args &a) {
    if (a.q_heads / a.kv_heads > WIDE_ROWS) return fail("attention: %u heads of q share one of k; a tile has %u rows", a.q_heads / a.kv_heads, WIDE_ROWS);
    const unsigned wanted = a.max_tasks * a.kv_heads, most = properties(stream).multiprocessors;
    const Launch l{wanted < most ? wanted : most, 1, WIDE_THREADS, sizeof(WideShared<D>)};
    return settings(stream).in_turns ? launch(stream, l, "attention", attention_wide_kernel<D, true>, a)
                                     : launch(stream, l, "attention", attention_wide_kernel<D, false>, a);
}

template <unsigned D, bool EIGHT_BITS> int launch_tile(lr_stream *stream, const lr_attention_args &a) {
    const bool has_room = properties(stream).shared_memory >= 160 * 1024;
    switch (a.tile) {
    case 16: return has_room ? launch_shape<Shape<1, 1, 3>, D, EIGHT_BITS>(stream, a) : launch_shape<Shape<1, 1, 2>, D, EIGHT_BITS>(stream, a);
    case 64: return launch_shape<Shape<1, 4, 2>, D, EIGHT_BITS>(stream, a);
    case 128:
        if (LR_HAS_WGMMA && !EIGHT_BITS && properties(stream).capability == 90 && settings(stream).by_groups) return launch_wide<D>(stream, a);
        return launch_shape<Shape<2, 4, 2>, D, EIGHT_BITS>(stream, a);
    default: return fail("attention: tiles of %u rows; possible are 16, 64 and 128", a.tile);
    }
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_attention(lr_stream *stream, const lr_attention_args *args) {
    using namespace lr;
    const lr_attention_args &a = *args;
    if (a.kv_heads == 0 || a.q_heads % a.kv_heads) return fail("attention: %u heads of q on %u of k", a.q_heads, a.kv_heads);
    if (a.q_stride % 8) return fail("attention: rows of q are %u numbers apart, which is no multiple of 8", a.q_stride);
    const bool eight = a.kv_type == LR_E4M3;
    switch (a.head_dim) {
    case 64: return eight ? launch_tile<64, true>(stream, a) : launch_tile<64, false>(stream, a);
    case 128: return eight ? launch_tile<128, true>(stream, a) : launch_tile<128, false>(stream, a);
    default: return fail("attention: heads of %u columns; possible are 64 and 128", a.head_dim);
    }
}
