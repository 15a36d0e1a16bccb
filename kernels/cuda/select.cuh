// Finding the best of a row: the k likeliest, or as many as have a given share of the weight.
//
// Numbers become keys whose order as integers is theirs. Four bits of the key at a time, from the highest, every thread
// counts (and weighs) what it sees into bins of its own, so that there are no atomic operations, no conflicts and one
// order of summation; the bin in which the goal falls is searched further. As soon as few numbers are left in it, they are
// sorted by (number, id) and the last one that belongs to the best is known. Nearly always that takes two or three
// passes over the row; ties in thousands take eight, and one more.
#pragma once

#include "device.cuh"

namespace lr {

constexpr unsigned SELECT_THREADS = 512;
constexpr unsigned SELECT_WARPS = SELECT_THREADS / WARP;
constexpr unsigned BINS = 16; // one for each warp to add up
constexpr unsigned CANDIDATES = 512;
static_assert(BINS == SELECT_WARPS && CANDIDATES == SELECT_THREADS, "a warp for each bin, a thread for each candidate");

// Ascending with x; -0 and 0 are one.
__device__ __forceinline__ uint32_t key_of(float x) {
    const uint32_t bits = float_to_bits(x + 0.f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The best of a row: all above `key`, and of those at it the ones up to id `last`.
struct Best {
    uint32_t key = 0, last = 0xFFFFFFFFu;

    __device__ __forceinline__ bool holds(uint32_t key_of_x, uint32_t id) const {
        return key_of_x > key || (key_of_x == key && id <= last);
    }
};

// A row of logits as tokens are drawn from it.
struct Row {
    const float *x;
    const uint32_t *allowed; // a bit for each id, or null
    unsigned size;
    float max, scale; // of the weights, to base 2

    __device__ __forceinline__ float at(unsigned id) const {
        if (allowed && !(allowed[id / 32] >> id % 32 & 1)) return -INFINITE;
        return x[id];
    }

    // Those from `id` on, a multiple of four; -inf beyond the end. (Rows begin at multiples of sixteen bytes if their size is
    // a multiple of four.)
    __device__ __forceinline__ void four(unsigned id, float (&y)[4]) const {
        const bool whole = size % 4 == 0 && !allowed;
        const Words words = whole && id < size ? load16(x + id) : Words{};
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            if (whole) y[i] = id < size ? bits_to_float(words.w[i]) : -INFINITE;
            else y[i] = id + i < size ? at(id + i) : -INFINITE;
        }
    }

    __device__ __forceinline__ float weight(float y) const { return exp2_fast((y - max) * scale); }
};

struct SelectShared {
    union {
        struct {
            uint32_t counts[BINS][SELECT_THREADS];
            float weights[BINS][SELECT_THREADS];
        } bins;
        struct {
            uint64_t keys[CANDIDATES]; // best first: ~key, then id
            float weights[CANDIDATES];
        } list;
    };
    uint32_t bin_counts[BINS];
    double bin_weights[BINS];
    uint32_t filled;
    uint32_t bin, left_in_bin;
    double weight_above;
    uint32_t count_above;
    Best best;
    uint32_t warp_counts[SELECT_WARPS];
};

__device__ __forceinline__ uint64_t candidate(uint32_t key, uint32_t id) {
    return static_cast<uint64_t>(~key) << 32 | id;
}

__device__ __forceinline__ uint32_t next_place(uint32_t *counter) {
#if LR_EMULATED
    return (*counter)++;
#else
    return atomicAdd(counter, 1u);
#endif
}

// Ascending; the list is padded with the largest number.
__device__ inline void sort_candidates(uint64_t *keys) {
    const unsigned i = threadIdx.x;
    for (unsigned size = 2; size <= CANDIDATES; size *= 2) {
        for (unsigned stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            const unsigned j = i ^ stride;
            const bool up = (i & size) == 0;
            if (j > i && (keys[i] > keys[j]) == up) {
                const uint64_t other = keys[i];
                keys[i] = keys[j];
                keys[j] = other;
            }
        }
    }
    __syncthreads();
}

// The candidates that `wanted(key, id)` says, sorted, best first; there are at most CANDIDATES.
template <class Wanted> __device__ void list_candidates(const Row &row, SelectShared &s, Wanted wanted) {
    __syncthreads();
    if (threadIdx.x == 0) s.filled = 0;
    s.list.keys[threadIdx.x] = ~uint64_t{0};
    __syncthreads();
    for (unsigned id = threadIdx.x; id < row.size; id += SELECT_THREADS) {
        const uint32_t key = key_of(row.at(id));
        if (wanted(key, id)) s.list.keys[next_place(&s.filled)] = candidate(key, id);
    }
    sort_candidates(s.list.keys);
}

// The id of the n-th (from 1) number with this key.
__device__ inline uint32_t nth_of_key(const Row &row, SelectShared &s, uint32_t key, uint32_t n) {
    uint32_t before = 0;
    for (unsigned start = 0; start < row.size; start += SELECT_THREADS) {
        const unsigned id = start + threadIdx.x;
        const uint32_t mine = ballot(id < row.size && key_of(row.at(id)) == key);
        __syncthreads();
        if (lane_id() == 0) s.warp_counts[warp_id()] = count_ones(mine);
        __syncthreads();
        uint32_t here = 0, before_warp = 0;
        for (unsigned w = 0; w < SELECT_WARPS; ++w) {
            if (w < warp_id()) before_warp += s.warp_counts[w];
            here += s.warp_counts[w];
        }
        if (before + here >= n) {
            const uint32_t rank = before + before_warp + count_ones(mine & ((1u << lane_id()) - 1)) + 1;
            if ((mine >> lane_id() & 1) && rank == n) s.filled = id;
            __syncthreads();
            return s.filled;
        }
        before += here;
    }
    return row.size - 1;
}

// What the best are to reach: `count` of them, or the weight `weight`.
struct Goal {
    bool by_weight;
    uint32_t count;
    double weight;
};

// Adds up the bins of all threads, and finds the one in which the goal falls; thread 0 decides for all.
__device__ inline void choose_bin(SelectShared &s, const Goal &goal) {
    __syncthreads();
    uint32_t count = 0;
    double weight = 0;
    for (unsigned i = lane_id(); i < SELECT_THREADS; i += WARP) {
        count += s.bins.counts[warp_id()][i];
        weight += s.bins.weights[warp_id()][i];
    }
    count = warp_sum(count);
    weight = warp_sum(weight);
    if (lane_id() == 0) {
        s.bin_counts[warp_id()] = count;
        s.bin_weights[warp_id()] = weight;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t above = s.count_above;
        double above_weight = s.weight_above;
        // Sums in another order may miss the goal by rounding; the lowest bin that is not empty then holds the end.
        unsigned lowest = 0;
        for (unsigned bin = BINS; bin-- > 0;) {
            if (s.bin_counts[bin] > 0) lowest = bin;
        }
        unsigned bin = BINS - 1;
        for (; bin > lowest; --bin) {
            const bool reached = goal.by_weight ? above_weight + s.bin_weights[bin] >= goal.weight : above + s.bin_counts[bin] >= goal.count;
            if (s.bin_counts[bin] > 0 && reached) break;
            above += s.bin_counts[bin];
            above_weight += s.bin_weights[bin];
        }
        s.bin = bin;
        s.left_in_bin = s.bin_counts[bin];
        s.count_above = above;
        s.weight_above = above_weight;
    }
    __syncthreads();
}

// Where the goal falls among sorted candidates.
__device__ inline void choose_candidate(const Row &row, SelectShared &s, const Goal &goal) {
    const uint64_t mine = s.list.keys[threadIdx.x];
    const bool there = threadIdx.x < s.left_in_bin;
    s.list.weights[threadIdx.x] = there ? row.weight(row.at(static_cast<uint32_t>(mine))) : 0.f;
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned last = s.left_in_bin - 1;
        if (goal.by_weight) {
            double sum = s.weight_above;
            for (unsigned i = 0; i < s.left_in_bin; ++i) {
                sum += s.list.weights[i];
                if (sum >= goal.weight) {
                    last = i;
                    break;
                }
            }
        } else if (goal.count - s.count_above <= last) {
            last = goal.count - s.count_above - 1;
        }
        s.best.key = ~static_cast<uint32_t>(s.list.keys[last] >> 32);
        s.best.last = static_cast<uint32_t>(s.list.keys[last]);
    }
    __syncthreads();
}

// The fewest of the best of `within` that reach the goal; all of them if they do not. Every thread gets the result.
__device__ inline Best select_best(const Row &row, SelectShared &s, const Best &within, const Goal &goal) {
    __syncthreads();
    if (threadIdx.x == 0) {
        s.count_above = 0;
        s.weight_above = 0;
    }
    uint32_t prefix = 0;
    for (unsigned shift = 28;; shift -= 4) {
        __syncthreads();
        for (unsigned bin = 0; bin < BINS; ++bin) {
            s.bins.counts[bin][threadIdx.x] = 0;
            s.bins.weights[bin][threadIdx.x] = 0.f;
        }
        for (unsigned id = threadIdx.x; id < row.size; id += SELECT_THREADS) {
            const float y = row.at(id);
            const uint32_t key = key_of(y);
            if (shift < 28 && key >> (shift + 4) != prefix) continue;
            if (!within.holds(key, id)) continue;
            const unsigned bin = key >> shift & (BINS - 1);
            s.bins.counts[bin][threadIdx.x] += 1;
            s.bins.weights[bin][threadIdx.x] += row.weight(y);
        }
        choose_bin(s, goal);
        prefix = prefix << 4 | s.bin;
        if (s.left_in_bin <= CANDIDATES) {
            if (s.left_in_bin == 0) return within;
            list_candidates(row, s, [&](uint32_t key, uint32_t id) { return key >> shift == prefix && within.holds(key, id); });
            choose_candidate(row, s, goal);
            return s.best;
        }
        if (shift == 0) break;
    }
    // Hundreds of equal numbers.
    uint32_t needed = goal.count - s.count_above;
    if (goal.by_weight) {
        const uint32_t bits = prefix & 0x80000000u ? prefix & 0x7FFFFFFFu : ~prefix;
        const double each = row.weight(bits_to_float(bits));
        const double missing = (goal.weight - s.weight_above) / each;
        needed = missing < 1 ? 1 : missing < s.left_in_bin ? static_cast<uint32_t>(ceil(missing)) : s.left_in_bin;
    }
    if (needed > s.left_in_bin) needed = s.left_in_bin;
    // Equal numbers that count are those with the lowest ids in `within` as well.
    Best best;
    best.key = prefix;
    best.last = nth_of_key(row, s, prefix, needed);
    return best;
}

} // namespace lr
