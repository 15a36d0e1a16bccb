// Attention of wide tiles on Hopper: the tasks and the arithmetic of attention.cuh, the products by wgmma.
//
// Two groups of four warps have 64 rows each, and pass over the keys in tiles of 128 together. A product of 64 rows keeps
// the tensor cores busy while its warps do something else, so each group has two under way: the scores of the next
// tile, and the sum over the values of this one, behind which the softmax of the next tile runs:
//
//   fetch        K0    K1 V0      K2 V1      K3 V2         (cp.async, a tile ahead; two places each)
//   tensor       S0    S1 + O0    S2 + O1    S3 + O2
//   softmax         0       1          2          3
//
// Operations of a tile of 128 rows and keys with 128 columns: 8.4 M, 1.9 us at a 132nd of 600 TFLOP/s; its 64 KiB at a
// 132nd of 3 TB/s take 2.9 us from memory, but blocks of threads at the same head and sequence read the same keys from
// the second-level cache. Shared memory: 32 KiB of q and 2 x 64 KiB, so one block of threads a multiprocessor.
#pragma once

#include "attention.cuh"
#include "hopper.cuh"

namespace lr {

constexpr unsigned WIDE_ROWS = 128, WIDE_KEYS = 128, WIDE_THREADS = 256;

template <unsigned D> struct WideShared {
    Panels<WIDE_ROWS, D> q;
    Panels<WIDE_KEYS, D> keys[2], values[2];
};

template <unsigned D> struct AttendWide {
    static constexpr unsigned KEY_TILES = WIDE_KEYS / 8;
    static constexpr unsigned CHUNKS = D / 8, KEYS_AT_ONCE = WIDE_THREADS / CHUNKS; // 16 or 32: whole blocks
    static constexpr unsigned FETCHES = WIDE_KEYS / KEYS_AT_ONCE;
    static_assert(KEYS_AT_ONCE % LR_BLOCK_TOKENS == 0, "each fetch of a thread is of another block");

    const TaskAtHead<D> t;
    WideShared<D> &s;
    SixteenRows<D> own;

    __device__ __forceinline__ AttendWide(const lr_attention_args &a, WideShared<D> &s, unsigned index) : t(a, index), s(s) {}

    __device__ __forceinline__ unsigned tiles() const { return (t.task.end - t.task.begin + WIDE_KEYS - 1) / WIDE_KEYS; }

    __device__ __forceinline__ void fetch_q() {
        for (unsigned i = threadIdx.x; i < WIDE_ROWS * CHUNKS; i += WIDE_THREADS) {
            copy16_async(s.q.at(i / CHUNKS, i % CHUNKS), t.q_chunk(i / CHUNKS, i % CHUNKS), i / CHUNKS < t.rows);
        }
    }

    // A tile of keys or of values; keys beyond the end become zeros, as they would else be poison for the sums.
    __device__ __forceinline__ void fetch(Panels<WIDE_KEYS, D> (&to)[2], const void *pages, unsigned tile) {
        if (tile >= tiles()) return;
        const unsigned chunk = threadIdx.x % CHUNKS, first = threadIdx.x / CHUNKS;
        uint32_t blocks[FETCHES];
#pragma unroll
        for (unsigned i = 0; i < FETCHES; ++i) {
            const unsigned position = t.task.begin + tile * WIDE_KEYS + i * KEYS_AT_ONCE + first;
            blocks[i] = position < t.task.end ? t.a.tables[t.task.table + position / LR_BLOCK_TOKENS] : LR_NONE;
        }
#pragma unroll
        for (unsigned i = 0; i < FETCHES; ++i) {
            const unsigned key = i * KEYS_AT_ONCE + first;
            const bool there = blocks[i] != LR_NONE;
            const size_t at = (t.token(there ? blocks[i] : 0, key) * CHUNKS + chunk) * 16;
            copy16_async(to[tile % 2].at(key, chunk), static_cast<const unsigned char *>(pages) + at, there);
        }
    }

    // What was fetched is there for all.
    __device__ __forceinline__ void arrive() {
        wait_for_copies<0>();
        fence_for_products();
        __syncthreads();
    }

    // Asks for the scores of a tile.
    __device__ __forceinline__ void score(float (&scores)[KEY_TILES][4], unsigned tile) {
        const unsigned char *q = reinterpret_cast<const unsigned char *>(&s.q) + warp_id() / 4 * 64 * 128;
        const unsigned char *keys = reinterpret_cast<const unsigned char *>(&s.keys[tile % 2]);
#pragma unroll
        for (unsigned step = 0; step < D / 16; ++step) {
            const unsigned in_panel = step % 4 * 32, panel = step / 4 * 128;
            multiply_transposed(scores, descriptor(q + panel * WIDE_ROWS + in_panel, 16), descriptor(keys + panel * WIDE_KEYS + in_panel, 16), step > 0);
        }
        commit_products();
    }

    // Asks for the sum over the values of a tile.
    __device__ __forceinline__ void add_values(const uint32_t (&left)[KEY_TILES / 2][4], unsigned tile) {
        const unsigned char *values = reinterpret_cast<const unsigned char *>(&s.values[tile % 2]);
#pragma unroll
        for (unsigned step = 0; step < KEY_TILES / 2; ++step) {
            multiply_add(own.out, left[step], descriptor(values + step * 16 * 128, Panels<WIDE_KEYS, D>::PANEL_BYTES));
        }
        commit_products();
    }

    __device__ __forceinline__ void soften(float (&scores)[KEY_TILES][4], unsigned tile, float (&factors)[2]) {
        own.soften(scores, t.task.begin + tile * WIDE_KEYS, t.a.scale * LOG2_E, factors);
    }

    __device__ __forceinline__ static void to_left_factor(uint32_t (&left)[KEY_TILES / 2][4], const float (&scores)[KEY_TILES][4]) {
#pragma unroll
        for (unsigned step = 0; step < KEY_TILES / 2; ++step) to_left(left[step], scores[2 * step], scores[2 * step + 1]);
    }

    __device__ __forceinline__ void run() {
        const unsigned first_row = warp_id() * 16;
        float scores[KEY_TILES][4], factors[2];
        uint32_t left[KEY_TILES / 2][4];
        own.start(t, first_row);
        fetch_q();
        fetch(s.keys, t.a.keys, 0);
        commit_copies();
        arrive();
        fetch(s.keys, t.a.keys, 1);
        fetch(s.values, t.a.values, 0);
        commit_copies();
        begin_products();
        score(scores, 0);
        wait_for_products<0>();
        settle(scores);
        soften(scores, 0, factors);
        to_left_factor(left, scores);
        const unsigned count = tiles();
        for (unsigned tile = 0; tile + 1 < count; ++tile) {
            arrive(); // of keys tile + 1 and values `tile`; all are done with the tiles before them
            settle(own.out);
            settle(left);
            settle(scores);
            begin_products();
            score(scores, tile + 1);
            add_values(left, tile);
            // While the tensor cores work: looking up blocks takes a while.
            fetch(s.keys, t.a.keys, tile + 2);
            fetch(s.values, t.a.values, tile + 1);
            commit_copies();
            wait_for_products<1>();
            settle(scores);
            soften(scores, tile + 1, factors);
            wait_for_products<0>();
            settle(own.out);
            settle(left);
            own.rescale(factors);
            to_left_factor(left, scores);
        }
        arrive();
        settle(own.out);
        settle(left);
        begin_products();
        add_values(left, count - 1);
        wait_for_products<0>();
        settle(own.out);
        own.add_up();
        own.store(t, first_row);
        __syncthreads(); // the next task may use shared memory
    }
};

template <unsigned D> __global__ void __launch_bounds__(WIDE_THREADS, 1) attention_wide_kernel(lr_attention_args a) {
#if defined(LR_EMULATED) || (defined(__CUDA_ARCH_FEAT_SM90_ALL))
    auto &s = shared<WideShared<D>>();
    const unsigned count = *a.task_count * a.kv_heads;
    for (unsigned index = blockIdx.x; index < count; index += gridDim.x) AttendWide<D>(a, s, index).run();
#else
    (void)a; // never launched
#endif
}

} // namespace lr
