// Bias, norm of heads and rotary embedding of q and k, and the write of k and v to their pages.
//
// Bytes of a row of Llama-3.1-8B (32 q, 8 kv heads of 128): reads 12 KiB, writes 8 KiB of q and 4 KiB of keys and values;
// the tables of cosines and sines (0.5 KiB a row) come from the caches. Operations: 6 for a pair. The speed of memory.
//
// A thread owns eight numbers of a head (16 bytes), or eight pairs where partners lie apart:
//
//   half-split, 16 of 24 rotated        0 .. 7 | 8 .. 15 | 16 .. 23
//   unit 0: pairs (0, 8) .. (7, 15)     ^^^^^^   ^^^^^^^            unit 1: 16 .. 23 as they are
//   interleaved, 16 of 24 rotated       unit 0: 0 .. 7, unit 1: 8 .. 15, unit 2: 16 .. 23 as they are
//
// The norm of a head, and the factor that a head of k or v in e4m3 has for each token, need all of its numbers: the
// threads of a head are lanes of one warp, side by side.

#include "pages.cuh"
#include "quantise.cuh"
#include "runtime.cuh"

namespace lr {
namespace {

constexpr unsigned LANES_OF_HEAD = 16; // 128 columns at most
constexpr unsigned HEADS_OF_BLOCK = 16;
constexpr unsigned THREADS = LANES_OF_HEAD * HEADS_OF_BLOCK;

// Eight numbers and, for a half-split unit, their eight partners.
struct Unit {
    float x[8], partner[8];
    unsigned column, partner_column;
    bool there, has_partner;
};

__device__ __forceinline__ Unit unit_of(const lr_rope_args &a, unsigned i, bool rotates) {
    Unit u{};
    const unsigned half = a.rotated / 2;
    const bool split = rotates && !a.interleaved;
    u.has_partner = split && i * 8 < half;
    u.column = split && !u.has_partner ? half + i * 8 : i * 8;
    u.partner_column = u.column + half;
    u.there = u.column < a.head_dim;
    return u;
}

__device__ __forceinline__ void load_biased(const Bf16 *p, const Bf16 *bias, float (&x)[8]) {
    load8(p, x);
    if (!bias) return;
    float b[8];
    load8(bias, b);
    for (int i = 0; i < 8; ++i) x[i] = rounded(x[i] + b[i]);
}

__device__ __forceinline__ void turn(float &x, float &y, float cos, float sin) {
    const float a = x, b = y;
    x = a * cos - b * sin;
    y = b * cos + a * sin;
}

__device__ __forceinline__ void rotate(const lr_rope_args &a, uint32_t position, Unit &u) {
    const float *cos = a.cos + static_cast<size_t>(position) * (a.rotated / 2);
    const float *sin = a.sin + static_cast<size_t>(position) * (a.rotated / 2);
    if (u.has_partner) {
        float c[8], s[8];
        load8(cos + u.column, c);
        load8(sin + u.column, s);
#pragma unroll
        for (int i = 0; i < 8; ++i) turn(u.x[i], u.partner[i], c[i], s[i]);
    } else if (a.interleaved && u.column < a.rotated) {
        const Words c = load16(cos + u.column / 2), s = load16(sin + u.column / 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) turn(u.x[2 * i], u.x[2 * i + 1], bits_to_float(c.w[i]), bits_to_float(s.w[i]));
    }
}

// The head divided by its root mean square, and scaled by `weight`; all lanes of the warp come here.
__device__ __forceinline__ void norm_head(const lr_rope_args &a, const float *weight, Unit &u, bool wanted) {
    float squares = 0.f;
    for (int i = 0; i < 8; ++i) squares += u.x[i] * u.x[i] + u.partner[i] * u.partner[i];
#pragma unroll
    for (unsigned mask = LANES_OF_HEAD / 2; mask > 0; mask /= 2) squares += shuffle_xor(squares, mask);
    if (!wanted) return;
    const float factor = rsqrtf(squares / static_cast<float>(a.norm_columns) + a.eps);
    auto scale = [&](float (&x)[8], unsigned column) {
        float w[8];
        load8(weight + column, w);
        for (int i = 0; i < 8; ++i) x[i] *= factor * w[i];
    };
    if (u.there) scale(u.x, u.column);
    if (u.has_partner) scale(u.partner, u.partner_column);
}

// A head of k or v to its place; all lanes of the warp come here.
__device__ __forceinline__ void write_page(const lr_rope_args &a, bool is_key, unsigned head, uint32_t slot, Unit &u, bool wanted) {
    const size_t page = static_cast<size_t>(slot / LR_BLOCK_TOKENS) * a.kv_heads + head;
    const unsigned in_page = slot % LR_BLOCK_TOKENS;
    void *pages = is_key ? a.keys : a.values;
    if (a.kv_type == LR_BF16) {
        if (!wanted) return;
        Bf16 *to = static_cast<Bf16 *>(pages) + page * LR_BLOCK_TOKENS * a.head_dim;
        const unsigned chunks = a.head_dim / 8;
        if (u.there) store8(to + 8 * place_in_page(in_page, u.column / 8, chunks), u.x);
        if (u.has_partner) store8(to + 8 * place_in_page(in_page, u.partner_column / 8, chunks), u.partner);
        return;
    }
    const size_t token = page * LR_BLOCK_TOKENS + in_page;
    float largest = 0.f;
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fmaxf(fabsf(u.x[i]), fabsf(u.partner[i])));
#pragma unroll
    for (unsigned mask = LANES_OF_HEAD / 2; mask > 0; mask /= 2) largest = fmaxf(largest, shuffle_xor(largest, mask));
    if (!wanted) return;
    const float scale = e4m3_scale(largest);
    if (threadIdx.x % LANES_OF_HEAD == 0) (is_key ? a.key_scales : a.value_scales)[token] = scale;
    uint8_t *to = static_cast<uint8_t *>(pages) + token * a.head_dim;
    if (u.there) store8_e4m3(to + u.column, u.x, 1.f / scale);
    if (u.has_partner) store8_e4m3(to + u.partner_column, u.partner, 1.f / scale);
}

// blockIdx.x: the row, blockIdx.y: sixteen of its heads (those of q, then k, then v).
__global__ void __launch_bounds__(THREADS) rope_kernel(lr_rope_args a) {
    begin_after_earlier();
    const unsigned head = blockIdx.y * HEADS_OF_BLOCK + threadIdx.x / LANES_OF_HEAD;
    const unsigned heads = a.q_heads + 2 * a.kv_heads;
    const bool is_value = head >= a.q_heads + a.kv_heads;
    Unit u = unit_of(a, threadIdx.x % LANES_OF_HEAD, !is_value);
    u.there &= head < heads;
    u.has_partner &= head < heads;
    Bf16 *from = static_cast<Bf16 *>(a.qkv) + (static_cast<size_t>(blockIdx.x) * heads + head) * a.head_dim;
    const Bf16 *bias = a.bias ? static_cast<const Bf16 *>(a.bias) + head * a.head_dim : nullptr;
    if (u.there) load_biased(from + u.column, bias ? bias + u.column : nullptr, u.x);
    if (u.has_partner) load_biased(from + u.partner_column, bias ? bias + u.partner_column : nullptr, u.partner);
    if (a.head_norms) norm_head(a, a.head_norms + head * a.head_dim, u, head < heads && !is_value);
    if (u.there && !is_value) rotate(a, a.positions[blockIdx.x], u);

    if (head < a.q_heads) {
        if (u.there) store8(from + u.column, u.x);
        if (u.has_partner) store8(from + u.partner_column, u.partner);
    }
    const uint32_t slot = a.slots[blockIdx.x];
    const bool is_kv = head >= a.q_heads && head < heads;
    const unsigned kv_head = is_kv ? (head - a.q_heads) % a.kv_heads : 0;
    write_page(a, !is_value, kv_head, slot, u, is_kv && slot != LR_NONE);
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_rope(lr_stream *stream, const lr_rope_args *args) {
    using namespace lr;
    const lr_rope_args &a = *args;
    const unsigned unit = a.interleaved ? 8 : 16;
    if (a.head_dim % 8 || a.head_dim > 8 * LANES_OF_HEAD || a.rotated > a.head_dim || a.rotated % unit) {
        return fail("rope: heads of %u columns with %u rotated; possible are multiples of 8 up to %u, and rotated multiples of %u",
                    a.head_dim, a.rotated, 8 * LANES_OF_HEAD, unit);
    }
    if (a.kv_type != LR_BF16 && a.kv_type != LR_E4M3) return fail("rope: keys and values of type %u", a.kv_type);
    const unsigned heads = a.q_heads + 2 * a.kv_heads;
    return launch(stream, {a.rows, (heads + HEADS_OF_BLOCK - 1) / HEADS_OF_BLOCK, THREADS, 0}, "rope", rope_kernel, a);
}
