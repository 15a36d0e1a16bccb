// Attention over paged keys and values, for all cases in one kernel: chunks of prompts, single tokens, and tokens of
// many sequences that share a prefix. What differs is the list of tasks, which the host plans.
//
// A task is a range of positions of one block table, and the rows that look at it. A block of threads takes a task at
// one head of k; the rows of its tile are its tokens times the heads of q that share the head of k:
//
//              heads of the group (G = 4)
//   query 0    row 0   row 1   row 2   row 3
//   query 1    row 4   ...
//
//   keys in tiles of 64, by cp.async, STAGES tiles ahead; scores, probabilities and sums stay in registers:
//
//   S [rows, 64] = Q . K^T          each warp: its rows (ROW_WARPS), or 64 / KEY_WARPS of the keys
//   m, l, O      = online softmax   in f32, to base 2
//   O [rows, D] += P . V
//
// Operations: 4 D for each row and position. Bytes: a tile of keys and values is read once for the tile's rows: 4 D
// a position in bf16, so rows operations a byte. Tensor cores at 800 TFLOP/s and memory at 3 TB/s balance at 270 rows:
// prefill (128 rows; tiles of several blocks of threads meet in the second-level cache) is bound by arithmetic, a single
// token (G rows) by memory, and sequences that share a prefix are stacked to come nearer to the middle.
//
// In shared memory a warp of 16 rows reads 256 bytes of K or V for each mma of 4096 operations, and a multiprocessor of
// an H100 would do four of them in the time of that read; with 32 rows a warp it is two. Hence ROW_TILES = 2 for prefill.
//
// A row's bits depend on the task's begin and end, and on whether the warps share the rows or the keys; not on what else
// is in the tile or in the launch.
#pragma once

#include "matrix.cuh"
#include "pages.cuh"
#include "quantise.cuh"

namespace lr {

constexpr unsigned KEYS = 64; // of a tile
constexpr unsigned BLOCKS = KEYS / LR_BLOCK_TOKENS;
constexpr unsigned WARPS = 4;
constexpr unsigned THREADS = WARPS * WARP;
constexpr float LOG2_E = 1.4426950408889634f;

// How the four warps share a tile: ROW_WARPS * KEY_WARPS = 4.
template <unsigned ROW_TILES_, unsigned ROW_WARPS_, unsigned STAGES_> struct Shape {
    static constexpr unsigned ROW_TILES = ROW_TILES_; // of 16 rows, for each warp
    static constexpr unsigned ROW_WARPS = ROW_WARPS_;
    static constexpr unsigned KEY_WARPS = WARPS / ROW_WARPS_;
    static constexpr unsigned STAGES = STAGES_;
    static constexpr unsigned ROWS = 16 * ROW_TILES * ROW_WARPS;
    static constexpr unsigned WARP_KEYS = KEYS / KEY_WARPS;
};

// A tile of keys and values as it comes from memory.
template <unsigned D, bool EIGHT_BITS> struct Stage {
    Matrix<KEYS, D> keys, values;
};

template <unsigned D> struct Stage<D, true> {
    Words keys[KEYS * D / 16], values[KEYS * D / 16]; // sixteen e4m3 each
    alignas(16) float key_scales[KEYS], value_scales[KEYS];
};

template <unsigned D, bool EIGHT_BITS> struct Widened {};

template <unsigned D> struct Widened<D, true> {
    Stage<D, false> stage;
};

template <class S, unsigned D, bool EIGHT_BITS> struct AttentionShared {
    Matrix<S::ROWS, D> q;
    // After the last tile, where warps share the rows: what each found.
    union {
        Stage<D, EIGHT_BITS> stages[S::STAGES];
        struct {
            float results[S::KEY_WARPS][S::ROWS][D + 8]; // rows begin in different banks
            float maxima[S::KEY_WARPS][S::ROWS], sums[S::KEY_WARPS][S::ROWS];
        } ends;
    };
    Widened<D, EIGHT_BITS> widened;
};

// A task at one head of k, and where its results go.
template <unsigned D> struct TaskAtHead {
    const lr_attention_args &a;
    const lr_attention_task task;
    const unsigned kv_head, group, rows;

    __device__ __forceinline__ TaskAtHead(const lr_attention_args &a, unsigned index)
        : a(a), task(a.tasks[index / a.kv_heads]), kv_head(index % a.kv_heads), group(a.q_heads / a.kv_heads),
          rows(task.query_count * group) {}

    __device__ __forceinline__ const lr_attention_query &query(unsigned row) const { return a.queries[task.first_query + row / group]; }
    __device__ __forceinline__ unsigned head(unsigned row) const { return kv_head * group + row % group; }

    // Number of a block's page among the pages of all heads of all blocks.
    __device__ __forceinline__ size_t page(uint32_t block) const { return static_cast<size_t>(block) * a.kv_heads + kv_head; }

    // Where sixteen bytes of keys or values lie, in bf16: chunk `chunk` of a position in `block`.
    __device__ __forceinline__ size_t chunk_at(uint32_t block, unsigned position, unsigned chunk) const {
        return (page(block) * LR_BLOCK_TOKENS * (D / 8) + place_in_page(position % LR_BLOCK_TOKENS, chunk, D / 8)) * 16;
    }

    // Eight numbers of a row of q; of none for rows that are not there.
    __device__ __forceinline__ const Bf16 *q_chunk(unsigned row, unsigned chunk) const {
        const Bf16 *from = static_cast<const Bf16 *>(a.q);
        return row < rows ? from + static_cast<size_t>(query(row).row) * a.q_stride + head(row) * D + chunk * 8 : from;
    }

    // Where the columns of a row go: to the results, or to a part.
    struct Target {
        Bf16 *whole; // or null
        float *part;

        __device__ __forceinline__ void store_pair(unsigned column, float x, float y) const {
            if (whole) {
                *reinterpret_cast<uint32_t *>(whole + column) = pack(x, y);
            } else {
                part[column] = x;
                part[column + 1] = y;
            }
        }
    };

    __device__ __forceinline__ Target target(unsigned row) const {
        if (task.part == LR_NONE) return {static_cast<Bf16 *>(a.out) + (static_cast<size_t>(query(row).row) * a.q_heads + head(row)) * D, nullptr};
        const size_t part = static_cast<size_t>(task.part) + row / group;
        return {nullptr, a.parts + (part * a.q_heads + head(row)) * D};
    }

    __device__ __forceinline__ void store_sum(unsigned row, float max, float sum) const {
        if (task.part == LR_NONE) return;
        const size_t part = static_cast<size_t>(task.part) + row / group;
        a.part_sums[part * a.q_heads + head(row)] = sum > 0.f ? max * a.scale * LOG2_E + log2f(sum) : -INFINITE;
    }
};

// A thread's share of sixteen rows: of rows g and g + 8, with g = lane / 4, those columns that mma gives it.
template <unsigned D> struct SixteenRows {
    static constexpr unsigned COLUMN_TILES = D / 8;

    uint32_t visible[2];
    float maxima[2], sums[2];
    float out[COLUMN_TILES][4];

    __device__ __forceinline__ void start(const TaskAtHead<D> &t, unsigned first_row) {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned row = first_row + i * 8 + lane_id() / 4;
            const uint32_t seen = row < t.rows ? t.query(row).visible : t.task.end;
            // A tile may reach beyond the task's keys, into what is another task's.
            visible[i] = seen < t.task.end ? seen : t.task.end;
            maxima[i] = -INFINITE;
            sums[i] = 0.f;
        }
#pragma unroll
        for (unsigned n = 0; n < COLUMN_TILES; ++n) {
            for (unsigned i = 0; i < 4; ++i) out[n][i] = 0.f;
        }
    }

    // Scores to probabilities (times a power of two that the sums share), and the running maximum; what `out` has to be
    // multiplied by. A row that has seen nothing yet has a maximum of -inf, for which 0 stands in, as -inf - -inf is no
    // number.
    template <unsigned KEY_TILES>
    __device__ __forceinline__ void soften(float (&scores)[KEY_TILES][4], unsigned first_position, float scale, float (&factors)[2]) {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            if (first_position + 8 * KEY_TILES > visible[i]) {
#pragma unroll
                for (unsigned n = 0; n < KEY_TILES; ++n) {
                    for (unsigned j = 0; j < 2; ++j) {
                        const unsigned position = first_position + 8 * n + lane_id() % 4 * 2 + j;
                        if (position >= visible[i]) scores[n][2 * i + j] = -INFINITE;
                    }
                }
            }
            float max = maxima[i];
#pragma unroll
            for (unsigned n = 0; n < KEY_TILES; ++n) max = fmaxf(max, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
            max = fmaxf(max, shuffle_xor(max, 1));
            max = fmaxf(max, shuffle_xor(max, 2));
            // The difference first: where the maximum stays, the factor is exactly 1, also if what follows a product is
            // fused with it. A tile that a row sees nothing of then leaves its bits as they are.
            const float seen = max == -INFINITE ? 0.f : max, base = seen * scale;
            factors[i] = exp2_fast((maxima[i] - seen) * scale);
            maxima[i] = max;
            float sum = sums[i] * factors[i];
#pragma unroll
            for (unsigned n = 0; n < KEY_TILES; ++n) {
#pragma unroll
                for (unsigned j = 0; j < 2; ++j) {
                    const float p = exp2_fast(scores[n][2 * i + j] * scale - base);
                    scores[n][2 * i + j] = p;
                    sum += p;
                }
            }
            sums[i] = sum;
        }
    }

    __device__ __forceinline__ void rescale(const float (&factors)[2]) {
#pragma unroll
        for (unsigned n = 0; n < COLUMN_TILES; ++n) {
            for (unsigned i = 0; i < 4; ++i) out[n][i] *= factors[i / 2];
        }
    }

    // The four lanes of a row have summed different columns.
    __device__ __forceinline__ void add_up() {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            sums[i] += shuffle_xor(sums[i], 1);
            sums[i] += shuffle_xor(sums[i], 2);
        }
    }

    __device__ __forceinline__ void store(const TaskAtHead<D> &t, unsigned first_row) const {
        const unsigned g = lane_id() / 4, four = lane_id() % 4;
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned row = first_row + i * 8 + g;
            if (row >= t.rows) continue;
            const typename TaskAtHead<D>::Target to = t.target(row);
            const float factor = sums[i] > 0.f ? 1.f / sums[i] : 0.f;
#pragma unroll
            for (unsigned n = 0; n < COLUMN_TILES; ++n) to.store_pair(8 * n + 2 * four, out[n][2 * i] * factor, out[n][2 * i + 1] * factor);
            if (four == 0) t.store_sum(row, maxima[i], sums[i]);
        }
    }
};

// Probabilities of sixteen keys (two tiles of eight) as the left factor of a product.
__device__ __forceinline__ void to_left(uint32_t (&left)[4], const float (&first)[4], const float (&second)[4]) {
    left[0] = pack(first[0], first[1]);
    left[1] = pack(first[2], first[3]);
    left[2] = pack(second[0], second[1]);
    left[3] = pack(second[2], second[3]);
}

// One task at one head of k.
template <class S, unsigned D, bool EIGHT_BITS> struct Attend {
    using Shared = AttentionShared<S, D, EIGHT_BITS>;
    static constexpr unsigned STEPS = D / 16;               // of a product over columns
    static constexpr unsigned KEY_TILES = S::WARP_KEYS / 8; // of eight keys, for each warp
    static constexpr unsigned COLUMN_TILES = D / 8;
    static constexpr bool Q_IN_REGISTERS = S::ROW_TILES == 1;

    const TaskAtHead<D> t;
    Shared &s;

    SixteenRows<D> own[S::ROW_TILES];
    uint32_t q[Q_IN_REGISTERS ? STEPS : 1][4];
    // A thread fetches the same chunk of sixteen bytes of every KEYS_AT_ONCE-th key, and knows the blocks of these keys
    // for the tile that is fetched next.
    static constexpr unsigned CHUNKS = EIGHT_BITS ? D / 16 : D / 8;
    static constexpr unsigned KEYS_AT_ONCE = THREADS / CHUNKS;
    static constexpr bool KEY_A_BLOCK = KEYS_AT_ONCE > LR_BLOCK_TOKENS;
    static constexpr unsigned OWN_BLOCKS = KEY_A_BLOCK ? KEYS / KEYS_AT_ONCE : BLOCKS;
    uint32_t blocks[OWN_BLOCKS];

    __device__ __forceinline__ Attend(const lr_attention_args &a, Shared &s, unsigned index) : t(a, index), s(s) {}

    __device__ __forceinline__ unsigned tiles() const { return (t.task.end - t.task.begin + KEYS - 1) / KEYS; }
    __device__ __forceinline__ unsigned first_row() const { return warp_id() / S::KEY_WARPS * S::ROW_TILES * 16; }
    __device__ __forceinline__ unsigned first_key() const { return warp_id() % S::KEY_WARPS * S::WARP_KEYS; }

    // Fetching. Rows of q and keys that are not there become zeros: a zero probability times what lies in memory that
    // was never written need not be zero.

    __device__ __forceinline__ void fetch_q() {
        for (unsigned i = threadIdx.x; i < S::ROWS * (D / 8); i += THREADS) {
            const unsigned row = i / (D / 8), chunk = i % (D / 8);
            copy16_async(s.q.at(row, chunk), t.q_chunk(row, chunk), row < t.rows);
        }
    }

    __device__ __forceinline__ void look_up_blocks(unsigned tile) {
        constexpr unsigned APART = KEY_A_BLOCK ? KEYS_AT_ONCE : unsigned{LR_BLOCK_TOKENS};
        const unsigned first = t.task.begin + tile * KEYS + (KEY_A_BLOCK ? threadIdx.x / CHUNKS : 0);
#pragma unroll
        for (unsigned i = 0; i < OWN_BLOCKS; ++i) {
            const unsigned position = first + i * APART;
            blocks[i] = position < t.task.end ? t.a.tables[t.task.table + position / LR_BLOCK_TOKENS] : 0;
        }
    }

    __device__ __forceinline__ void fetch(unsigned tile) {
        if (tile < tiles()) {
#pragma unroll
            for (unsigned i = 0; i < KEYS / KEYS_AT_ONCE; ++i) {
                const unsigned key = i * KEYS_AT_ONCE + threadIdx.x / CHUNKS;
                const bool there = t.task.begin + tile * KEYS + key < t.task.end;
                const uint32_t block = blocks[KEY_A_BLOCK ? i : i * KEYS_AT_ONCE / LR_BLOCK_TOKENS];
                fetch_key(s.stages[tile % S::STAGES], key, block, there);
            }
        }
        commit_copies();
        look_up_blocks(tile + 1);
    }

    __device__ __forceinline__ void fetch_key(Stage<D, EIGHT_BITS> &stage, unsigned key, uint32_t block, bool there) {
        const unsigned chunk = threadIdx.x % CHUNKS;
        const size_t token = t.page(block) * LR_BLOCK_TOKENS + key % LR_BLOCK_TOKENS;
        const size_t at = EIGHT_BITS ? (token * CHUNKS + chunk) * 16 : t.chunk_at(block, key, chunk);
        const unsigned char *keys = static_cast<const unsigned char *>(t.a.keys) + at, *values = static_cast<const unsigned char *>(t.a.values) + at;
        if constexpr (EIGHT_BITS) {
            copy16_async(&stage.keys[key * CHUNKS + chunk], keys, there);
            copy16_async(&stage.values[key * CHUNKS + chunk], values, there);
            if (chunk == 0 && key % 4 == 0) {
                copy16_async(&stage.key_scales[key], t.a.key_scales + token, there);
                copy16_async(&stage.value_scales[key], t.a.value_scales + token, there);
            }
        } else {
            copy16_async(stage.keys.at(key, chunk), keys, there);
            copy16_async(stage.values.at(key, chunk), values, there);
        }
    }

    // The tile as bf16, without its factors: those of keys are left for the scores, those of values for the probabilities.
    // Factors of keys beyond the end were never written, and become zero.
    __device__ __forceinline__ Stage<D, false> &stage_of(unsigned tile) {
        if constexpr (!EIGHT_BITS) {
            return s.stages[tile % S::STAGES];
        } else {
            auto &from = s.stages[tile % S::STAGES];
            auto &to = s.widened.stage;
            for (unsigned i = threadIdx.x; i < KEYS * (D / 16); i += THREADS) {
                widen(from.keys[i], to.keys, i / (D / 16), i % (D / 16));
                widen(from.values[i], to.values, i / (D / 16), i % (D / 16));
            }
            const unsigned left = t.task.end - t.task.begin - tile * KEYS;
            if (threadIdx.x >= left && threadIdx.x < KEYS) from.key_scales[threadIdx.x] = from.value_scales[threadIdx.x] = 0.f;
            __syncthreads();
            return to;
        }
    }

    __device__ __forceinline__ static void widen(const Words &bytes, Matrix<KEYS, D> &to, unsigned key, unsigned chunk) {
#pragma unroll
        for (unsigned half = 0; half < 2; ++half) {
            Words words;
#pragma unroll
            for (unsigned i = 0; i < 4; ++i) words.w[i] = e4m3_pair_to_bf16(bytes.w[2 * half + i / 2] >> 16 * (i % 2));
            *to.at(key, 2 * chunk + half) = words;
        }
    }

    // Scores, or probabilities, times the factors of this lane's keys.
    __device__ __forceinline__ void scale_keys(float (&scores)[KEY_TILES][4], const float *factors) const {
#pragma unroll
        for (unsigned n = 0; n < KEY_TILES; ++n) {
            const float *own = factors + first_key() + 8 * n + 2 * (lane_id() % 4);
#pragma unroll
            for (unsigned i = 0; i < 4; ++i) scores[n][i] *= own[i % 2];
        }
    }

    // Computing.

    __device__ __forceinline__ void load_q() {
        if constexpr (Q_IN_REGISTERS) {
#pragma unroll
            for (unsigned step = 0; step < STEPS; ++step) s.q.load_a(q[step], first_row(), step);
        }
    }

    __device__ __forceinline__ void compute(Stage<D, false> &stage, unsigned tile) {
        float scores[S::ROW_TILES][KEY_TILES][4] = {};
#pragma unroll
        for (unsigned step = 0; step < STEPS; ++step) {
            uint32_t left[S::ROW_TILES][4];
#pragma unroll
            for (unsigned m = 0; m < S::ROW_TILES; ++m) {
                if constexpr (Q_IN_REGISTERS) {
                    for (unsigned i = 0; i < 4; ++i) left[m][i] = q[step][i];
                } else {
                    s.q.load_a(left[m], first_row() + 16 * m, step);
                }
            }
#pragma unroll
            for (unsigned n = 0; n < KEY_TILES; n += 2) {
                uint32_t right[4];
                stage.keys.load_b_transposed(right, first_key() + 8 * n, step);
#pragma unroll
                for (unsigned m = 0; m < S::ROW_TILES; ++m) {
                    multiply(scores[m][n], left[m], right[0], right[1]);
                    multiply(scores[m][n + 1], left[m], right[2], right[3]);
                }
            }
        }
#pragma unroll
        for (unsigned m = 0; m < S::ROW_TILES; ++m) {
            float factors[2];
            if constexpr (EIGHT_BITS) scale_keys(scores[m], s.stages[tile % S::STAGES].key_scales);
            own[m].soften(scores[m], t.task.begin + tile * KEYS + first_key(), t.a.scale * LOG2_E, factors);
            own[m].rescale(factors);
            if constexpr (EIGHT_BITS) scale_keys(scores[m], s.stages[tile % S::STAGES].value_scales);
        }
#pragma unroll
        for (unsigned step = 0; step < KEY_TILES / 2; ++step) {
            uint32_t left[S::ROW_TILES][4];
#pragma unroll
            for (unsigned m = 0; m < S::ROW_TILES; ++m) to_left(left[m], scores[m][2 * step], scores[m][2 * step + 1]);
#pragma unroll
            for (unsigned n = 0; n < COLUMN_TILES; n += 2) {
                uint32_t right[4];
                stage.values.load_b(right, first_key() + 16 * step, n / 2);
#pragma unroll
                for (unsigned m = 0; m < S::ROW_TILES; ++m) {
                    multiply(own[m].out[n], left[m], right[0], right[1]);
                    multiply(own[m].out[n + 1], left[m], right[2], right[3]);
                }
            }
        }
    }

    // Writing.

    __device__ __forceinline__ void finish() {
#pragma unroll
        for (unsigned m = 0; m < S::ROW_TILES; ++m) {
            own[m].add_up();
            if constexpr (S::KEY_WARPS == 1) own[m].store(t, first_row() + 16 * m);
        }
        if constexpr (S::KEY_WARPS > 1) store_together();
    }

    // Warps that had different keys of the same rows put together what they found.
    __device__ __forceinline__ void store_together() {
        const unsigned g = lane_id() / 4, four = lane_id() % 4, mine = warp_id() % S::KEY_WARPS;
        __syncthreads(); // nobody reads the stages any more
#pragma unroll
        for (unsigned m = 0; m < S::ROW_TILES; ++m) {
#pragma unroll
            for (unsigned i = 0; i < 2; ++i) {
                const unsigned row = first_row() + m * 16 + i * 8 + g;
#pragma unroll
                for (unsigned n = 0; n < COLUMN_TILES; ++n) {
                    for (unsigned j = 0; j < 2; ++j) s.ends.results[mine][row][8 * n + 2 * four + j] = own[m].out[n][2 * i + j];
                }
                if (four == 0) {
                    s.ends.maxima[mine][row] = own[m].maxima[i];
                    s.ends.sums[mine][row] = own[m].sums[i];
                }
            }
        }
        __syncthreads();
        for (unsigned i = threadIdx.x; i < S::ROWS * D / 2; i += THREADS) {
            const unsigned row = i / (D / 2), column = i % (D / 2) * 2;
            if (row >= t.rows) break;
            float max = -INFINITE, sum = 0.f, x = 0.f, y = 0.f;
            for (unsigned w = 0; w < S::KEY_WARPS; ++w) max = fmaxf(max, s.ends.maxima[w][row]);
            for (unsigned w = 0; w < S::KEY_WARPS; ++w) {
                if (s.ends.sums[w][row] == 0.f) continue;
                const float factor = exp2_fast((s.ends.maxima[w][row] - max) * t.a.scale * LOG2_E);
                sum += s.ends.sums[w][row] * factor;
                x += s.ends.results[w][row][column] * factor;
                y += s.ends.results[w][row][column + 1] * factor;
            }
            const float factor = sum > 0.f ? 1.f / sum : 0.f;
            t.target(row).store_pair(column, x * factor, y * factor);
            if (column == 0) t.store_sum(row, max, sum);
        }
    }

    // Tile t is computed while tiles t + 1 .. t + STAGES - 1 are on their way; the one that is asked for takes the place
    // of tile t - 1, which everybody is done with once all have come to tile t.
    __device__ __forceinline__ void run() {
#pragma unroll
        for (unsigned m = 0; m < S::ROW_TILES; ++m) own[m].start(t, first_row() + 16 * m);
        fetch_q();
        look_up_blocks(0);
#pragma unroll
        for (unsigned tile = 0; tile < S::STAGES - 1; ++tile) fetch(tile);
        for (unsigned tile = 0; tile < tiles(); ++tile) {
            wait_for_copies<S::STAGES - 2>();
            __syncthreads();
            if (tile == 0) load_q();
            fetch(tile + S::STAGES - 1);
            compute(stage_of(tile), tile);
        }
        finish();
        wait_for_copies<0>();
        __syncthreads(); // the next task may use shared memory
    }
};

template <class S, unsigned D, bool EIGHT_BITS> __global__ void __launch_bounds__(THREADS, 2) attention_kernel(lr_attention_args a) {
    begin_after_earlier();
    auto &s = shared<AttentionShared<S, D, EIGHT_BITS>>();
    const unsigned count = *a.task_count * a.kv_heads;
    for (unsigned index = blockIdx.x; index < count; index += gridDim.x) Attend<S, D, EIGHT_BITS>(a, s, index).run();
}

} // namespace lr
