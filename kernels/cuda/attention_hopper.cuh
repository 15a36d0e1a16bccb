// Attention of wide tiles on Hopper: the tasks and the arithmetic of attention.cuh, the products by wgmma, keys and values
// brought by the copy engine.
//
// Two groups of four warps multiply, with 64 rows each; a warp of a third group asks for keys and values, in tiles of 128,
// ahead of them. They tell each other of places that are full and places that are free. The groups ask for their products in
// turns (FlashAttention-3, arXiv 2407.08608, section 3.1), so that one multiplies while the other is at its softmax:
//
//   asks         K0    K1 V0    K2 V1    K3 V2      STAGES places each; goes on to the next task by itself
//   tensor       S0    S1 + O0    S2 + O1    S3 + O2        each group; two products under way at a time:
//   softmax         0       1          2          3         the scores of the next tile, and the sum over this one's values
//
// Operations of a tile of 128 rows and keys with 128 columns: 8.4 M, 1.9 us at a 132nd of 600 TFLOP/s; its 64 KiB at a
// 132nd of 3 TB/s take 2.9 us from memory, but blocks of threads at the same head and sequence read the same keys from
// the second-level cache. Shared memory: 32 KiB of q and 2 x 64 KiB, so one block of threads a multiprocessor.
//
// Registers: 384 threads can have 168 each. Those who ask need few, and give the rest to those who multiply.
#pragma once

#include "attention.cuh"
#include "copy_engine.cuh"
#include "hopper.cuh"

namespace lr {

constexpr unsigned WIDE_ROWS = 128, WIDE_KEYS = 128;
constexpr unsigned GROUP_THREADS = 128, GROUP_ROWS = 64, GROUPS = WIDE_ROWS / GROUP_ROWS;
constexpr unsigned WIDE_THREADS = (1 + GROUPS) * GROUP_THREADS; // the group that asks comes first
constexpr unsigned WIDE_STAGES = 2;
constexpr unsigned ASKING_REGISTERS = 24, MULTIPLYING_REGISTERS = 240;

// Places for tiles, and who may use them.
template <unsigned D> struct Ring {
    PhaseBarrier full[WIDE_STAGES], free[WIDE_STAGES];

    __device__ __forceinline__ void start() {
        for (unsigned i = 0; i < WIDE_STAGES; ++i) {
            init(full[i], 1);
            init(free[i], GROUPS * GROUP_THREADS / WARP);
        }
    }

    // Of the n-th tile.
    __device__ __forceinline__ void wait_until_free(unsigned n) const { wait_for_phase(free[n % WIDE_STAGES], n / WIDE_STAGES % 2 ^ 1); }
    __device__ __forceinline__ void wait_until_full(unsigned n) const { wait_for_phase(full[n % WIDE_STAGES], n / WIDE_STAGES % 2); }

    // By each warp, when its products with the tile are done.
    __device__ __forceinline__ void give_back(unsigned n) {
        if (lane_id() == 0) arrive(free[n % WIDE_STAGES]);
    }
};

template <unsigned D> struct WideShared {
    Panels<WIDE_ROWS, D> q;
    Panels<WIDE_KEYS, D> keys[WIDE_STAGES], values[WIDE_STAGES];
    Ring<D> key_ring, value_ring;
    PhaseBarrier turns[GROUPS]; // of asking for products
};

template <unsigned D> __device__ __forceinline__ unsigned wide_tiles(const TaskAtHead<D> &t) {
    return (t.task.end - t.task.begin + WIDE_KEYS - 1) / WIDE_KEYS;
}

// One warp: asks for the keys and values of all tasks of the block, in the order in which they are used.
template <unsigned D> struct AskForTiles {
    static constexpr unsigned PANEL_BYTES = LR_BLOCK_TOKENS * 128; // of a page
    static constexpr unsigned PAGE_BYTES = D / 64 * PANEL_BYTES;

    const lr_attention_args &a;
    WideShared<D> &s;
    unsigned done = 0; // tiles of earlier tasks

    // A lane a page; those beyond the end are not read. What is in their place then is left to those who multiply.
    __device__ __forceinline__ void ask(const TaskAtHead<D> &t, unsigned tile, Ring<D> &ring, Panels<WIDE_KEYS, D> (&to)[WIDE_STAGES], const void *pages) {
        const unsigned n = done + tile, first = t.task.begin + tile * WIDE_KEYS;
        const unsigned left = t.task.end - first, keys = left < WIDE_KEYS ? left : WIDE_KEYS;
        const unsigned count = (keys + LR_BLOCK_TOKENS - 1) / LR_BLOCK_TOKENS, lane = lane_id();
        const uint32_t block = lane < count ? a.tables[t.task.table + first / LR_BLOCK_TOKENS + lane] : 0;
        ring.wait_until_free(n);
        PhaseBarrier &full = ring.full[n % WIDE_STAGES];
        if (lane == 0) arrive_announcing(full, count * PAGE_BYTES);
        sync_warp();
        if (lane >= count) return;
        const unsigned char *from = static_cast<const unsigned char *>(pages) + t.page(block) * PAGE_BYTES;
#pragma unroll
        for (unsigned panel = 0; panel < D / 64; ++panel) {
            copy_by_engine(to[n % WIDE_STAGES].at(lane * LR_BLOCK_TOKENS, panel * PANEL_CHUNKS), from + panel * PANEL_BYTES, PANEL_BYTES, full);
        }
    }

    __device__ __forceinline__ void run(unsigned index) {
        const TaskAtHead<D> t(a, index);
        const unsigned count = wide_tiles(t);
        ask(t, 0, s.key_ring, s.keys, a.keys);
        for (unsigned tile = 0; tile < count; ++tile) {
            if (tile + 1 < count) ask(t, tile + 1, s.key_ring, s.keys, a.keys);
            ask(t, tile, s.value_ring, s.values, a.values);
        }
        done += count;
    }
};

// A group of four warps: its 64 rows of each task.
template <unsigned D, bool IN_TURNS> struct MultiplyTiles {
    static constexpr unsigned KEY_TILES = WIDE_KEYS / 8;
    static constexpr unsigned CHUNKS = D / 8;

    const lr_attention_args &a;
    WideShared<D> &s;
    const unsigned group; // 0 or 1
    unsigned done = 0;    // tiles of earlier tasks
    unsigned steps = 0;   // in which products were asked for in turns

    // Step n of group 0 comes after step n - 1 of group 1, and that of group 1 after step n of group 0.
    __device__ __forceinline__ void wait_for_turn() const {
        if constexpr (IN_TURNS) wait_for_phase(s.turns[group], (steps + group + 1) % 2);
    }
    __device__ __forceinline__ void give_turn() {
        if constexpr (IN_TURNS) {
            if (lane_id() == 0) arrive(s.turns[1 - group]);
            ++steps;
        }
    }

    __device__ __forceinline__ unsigned first_row() const { return group * GROUP_ROWS; }
    __device__ __forceinline__ void sync() const { sync_some(1 + group, GROUP_THREADS); }

    __device__ __forceinline__ void fetch_q(const TaskAtHead<D> &t) {
        sync(); // all are done with the rows of the task before
        for (unsigned i = threadIdx.x % GROUP_THREADS; i < GROUP_ROWS * CHUNKS; i += GROUP_THREADS) {
            const unsigned row = first_row() + i / CHUNKS, chunk = i % CHUNKS;
            copy16_async(s.q.at(row, chunk), t.q_chunk(row, chunk), row < t.rows);
        }
        commit_copies();
        wait_for_copies<0>();
        fence_for_products();
        sync();
    }

    // Asks for the scores of a tile.
    __device__ __forceinline__ void score(float (&scores)[KEY_TILES][4], unsigned tile) {
        const unsigned char *q = reinterpret_cast<const unsigned char *>(&s.q) + first_row() * 128;
        const unsigned char *keys = reinterpret_cast<const unsigned char *>(&s.keys[(done + tile) % WIDE_STAGES]);
        s.key_ring.wait_until_full(done + tile);
        begin_products();
#pragma unroll
        for (unsigned step = 0; step < D / 16; ++step) {
            const unsigned in_panel = step % 4 * 32, panel = step / 4 * 128;
            multiply_transposed(scores, descriptor(q + panel * WIDE_ROWS + in_panel, 16), descriptor(keys + panel * WIDE_KEYS + in_panel, 16), step > 0);
        }
        commit_products();
    }

    // Asks for the sum over the values of a tile.
    __device__ __forceinline__ void add_values(float (&out)[D / 8][4], const uint32_t (&left)[KEY_TILES / 2][4], unsigned tile) {
        const unsigned char *values = reinterpret_cast<const unsigned char *>(&s.values[(done + tile) % WIDE_STAGES]);
        begin_products();
#pragma unroll
        for (unsigned step = 0; step < KEY_TILES / 2; ++step) {
            multiply_add(out, left[step], descriptor(values + step * 16 * 128, Panels<WIDE_KEYS, D>::PANEL_BYTES));
        }
        commit_products();
    }

    // Values beyond the end are whatever was in memory, and zero times that need not be zero. (Each group does it, and
    // neither waits for the other: both write the same.)
    __device__ __forceinline__ void clear_beyond(unsigned end, unsigned tile) {
        for (unsigned i = end * CHUNKS + threadIdx.x % GROUP_THREADS; i < WIDE_KEYS * CHUNKS; i += GROUP_THREADS) {
            *s.values[(done + tile) % WIDE_STAGES].at(i / CHUNKS, i % CHUNKS) = Words{};
        }
        fence_for_products();
        sync();
    }

    __device__ __forceinline__ static void to_left_factor(uint32_t (&left)[KEY_TILES / 2][4], const float (&scores)[KEY_TILES][4]) {
#pragma unroll
        for (unsigned step = 0; step < KEY_TILES / 2; ++step) to_left(left[step], scores[2 * step], scores[2 * step + 1]);
    }

    __device__ __forceinline__ void run(unsigned index) {
        const TaskAtHead<D> t(a, index);
        const unsigned count = wide_tiles(t), last = count - 1, row = first_row() + warp_id() % 4 * 16;
        const float scale = a.scale * LOG2_E;
        SixteenRows<D> own;
        float scores[KEY_TILES][4], factors[2];
        uint32_t left[KEY_TILES / 2][4];
        own.start(t, row);
        fetch_q(t);
        score(scores, 0);
        wait_for_products<0>();
        settle(scores);
        s.key_ring.give_back(done);
        own.soften(scores, t.task.begin, scale, factors);
        to_left_factor(left, scores);
        for (unsigned tile = 0; tile < last; ++tile) {
            settle(own.out);
            settle(left);
            settle(scores);
            wait_for_turn();
            score(scores, tile + 1);
            s.value_ring.wait_until_full(done + tile);
            add_values(own.out, left, tile);
            give_turn();
            wait_for_products<1>();
            settle(scores);
            s.key_ring.give_back(done + tile + 1);
            own.soften(scores, t.task.begin + (tile + 1) * WIDE_KEYS, scale, factors);
            wait_for_products<0>();
            settle(own.out);
            settle(left);
            s.value_ring.give_back(done + tile);
            own.rescale(factors);
            to_left_factor(left, scores);
        }
        s.value_ring.wait_until_full(done + last);
        const unsigned end = t.task.end - t.task.begin - last * WIDE_KEYS;
        if (end < WIDE_KEYS) clear_beyond(end, last);
        settle(own.out);
        settle(left);
        add_values(own.out, left, last);
        wait_for_products<0>();
        settle(own.out);
        settle(left);
        s.value_ring.give_back(done + last);
        own.add_up();
        own.store(t, row);
        done += count;
    }
};

// The tasks of a block of threads, of which there is one for each multiprocessor: those who ask are then ahead by a task,
// too. Tasks come by falling length; every other round goes from the last block to the first, so that no block has the
// longest of all rounds.
template <class Work> __device__ __forceinline__ void for_each_task(unsigned count, Work work) {
    for (unsigned round = 0; round * gridDim.x < count; ++round) {
        const unsigned index = round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
        if (index < count) work(index);
    }
}

template <unsigned D, bool IN_TURNS> __global__ void __launch_bounds__(WIDE_THREADS, 1) attention_wide_kernel(lr_attention_args a) {
    begin_after_earlier();
#if defined(LR_EMULATED) || (defined(__CUDA_ARCH_FEAT_SM90_ALL))
    const unsigned count = *a.task_count * a.kv_heads;
    if (blockIdx.x >= count) return;
    auto &s = shared<WideShared<D>>();
    if (threadIdx.x == 0) {
        s.key_ring.start();
        s.value_ring.start();
        for (auto &turn : s.turns) init(turn, GROUP_THREADS / WARP);
        publish_barriers();
    }
    __syncthreads();
    const unsigned group = threadIdx.x / GROUP_THREADS;
    if (group == 0) {
        keep_registers<ASKING_REGISTERS>();
        if (warp_id() > 0) return;
        AskForTiles<D> ask{a, s};
        for_each_task(count, [&](unsigned index) { ask.run(index); });
    } else {
        take_registers<MULTIPLYING_REGISTERS>();
        MultiplyTiles<D, IN_TURNS> multiply{a, s, group - 1};
        for_each_task(count, [&](unsigned index) { multiply.run(index); });
    }
#else
    (void)a; // never launched
#endif
}

} // namespace lr
