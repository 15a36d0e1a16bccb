// From rows of logits to tokens and log-probabilities.
//
// A block of threads takes a row. It passes over it once for the maximum, once for the sum of exponentials, a few times
// for each filter (select.cuh) and once for the sums of stripes that tokens are drawn by: four times without filters.
// A row of 128,256 logits (0.5 MB) stays in the second-level cache meanwhile, from which a multiprocessor reads about 64
// bytes a clock, sixteen at a time: 5 us a pass, so 20 to 70 us for up to as many rows as there are multiprocessors. A step of an
// 8B model takes 5 ms at least.
//
// Everything depends on the row alone, sums run in one order, and ids stand for ties: the lowest first.

#include "runtime.cuh"
#include "select.cuh"

namespace lr {
namespace {

constexpr unsigned THREADS = SELECT_THREADS;
constexpr unsigned STRIPE = 256; // logits whose weights are added up
constexpr unsigned MAX_STRIPES = 1024;
constexpr float LOG2_E = 1.4426950408889634f;

struct SampleShared {
    SelectShared select;
    double stripes[MAX_STRIPES];
    double sums[SELECT_WARPS];
    float maxima[SELECT_WARPS];
    uint32_t ids[SELECT_WARPS];
};

__device__ __forceinline__ bool is_finite(float x) {
    return fabsf(x) < INFINITE; // false for NaN
}

// The largest number, or NaN if one is NaN.
__device__ float maximum(const Row &row, SampleShared &s) {
    float max = -INFINITE, nan = 0.f;
    for (unsigned id = 4 * threadIdx.x; id < row.size; id += 4 * THREADS) {
        float y[4];
        row.four(id, y);
#pragma unroll
        for (float one : y) {
            max = fmaxf(max, one);
            nan += one != one ? 1.f : 0.f;
        }
    }
    max = block_max(max, s.maxima);
    return block_max(nan, s.maxima) > 0.f ? INFINITE - INFINITE : max;
}

// Sum of all weights, in f64 but for eight at a time.
__device__ double sum_of_weights(const Row &row, SampleShared &s) {
    double sum = 0;
    for (unsigned id = 4 * threadIdx.x; id < row.size; id += 8 * THREADS) {
        float y[2][4], part = 0.f;
        row.four(id, y[0]);
        row.four(id + 4 * THREADS, y[1]);
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) part += row.weight(y[i / 4][i % 4]);
        sum += part;
    }
    return block_sum(sum, s.sums);
}

// The lowest id among the largest numbers.
__device__ uint32_t first_at(const Row &row, float value, SampleShared &s) {
    uint32_t first = 0xFFFFFFFFu;
    for (unsigned id = 4 * threadIdx.x; id < row.size && first == 0xFFFFFFFFu; id += 4 * THREADS) {
        float y[4];
        row.four(id, y);
#pragma unroll
        for (unsigned i = 4; i > 0; --i) first = y[i - 1] == value ? id + i - 1 : first;
    }
#pragma unroll
    for (unsigned mask = 16; mask > 0; mask /= 2) {
        const uint32_t other = shuffle_xor(first, mask);
        first = other < first ? other : first;
    }
    __syncthreads();
    if (lane_id() == 0) s.ids[warp_id()] = first;
    __syncthreads();
    for (unsigned w = 0; w < SELECT_WARPS; ++w) first = s.ids[w] < first ? s.ids[w] : first;
    return first;
}

// Changes logits in place and keeps what they were.
__device__ void change(const lr_sample_args &a, const lr_sample_row &r, float *logits) {
    for (unsigned i = threadIdx.x; i < r.change_count; i += THREADS) {
        const lr_logit_change c = a.changes[r.first_change + i];
        if (c.token >= a.vocab) continue;
        float x = logits[c.token];
        a.originals[r.first_change + i] = x;
        if (c.penalised) x = x > 0.f ? x / r.penalty : x * r.penalty;
        logits[c.token] = x + c.added;
    }
    __syncthreads();
}

// The logit of a token before it was changed.
__device__ float original(const lr_sample_args &a, const lr_sample_row &r, const float *logits, uint32_t token) {
    uint32_t low = 0, high = r.change_count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (a.changes[r.first_change + middle].token < token) low = middle + 1;
        else high = middle;
    }
    const bool changed = low < r.change_count && a.changes[r.first_change + low].token == token;
    return changed ? a.originals[r.first_change + low] : logits[token];
}

// What tokens are drawn from.
struct Drawn {
    Best best;
    float min_weight;

    __device__ __forceinline__ float weight(const Row &row, unsigned id) const {
        const float y = row.at(id), w = row.weight(y);
        return best.holds(key_of(y), id) && w >= min_weight ? w : 0.f;
    }
};

__device__ Drawn filter(const Row &row, const lr_sample_row &r, SampleShared &s) {
    Drawn drawn;
    drawn.min_weight = r.min_p;
    const bool some = r.top_k > 0 && r.top_k < row.size;
    if (some) drawn.best = select_best(row, s.select, drawn.best, {false, r.top_k, 0});
    if (r.top_p < 1.f) {
        double total = 0;
        for (unsigned id = threadIdx.x; id < row.size; id += THREADS) {
            const float y = row.at(id);
            if (drawn.best.holds(key_of(y), id)) total += row.weight(y);
        }
        total = block_sum(total, s.sums);
        drawn.best = select_best(row, s.select, drawn.best, {true, 0, static_cast<double>(r.top_p) * total});
    }
    return drawn;
}

// The weight of each stripe.
__device__ void add_stripes(const Row &row, const Drawn &drawn, SampleShared &s) {
    __syncthreads();
    for (unsigned stripe = warp_id(); stripe * STRIPE < row.size; stripe += SELECT_WARPS) {
        double sum = 0;
#pragma unroll
        for (unsigned i = 0; i < STRIPE / WARP; ++i) {
            const unsigned id = stripe * STRIPE + i * WARP + lane_id();
            if (id < row.size) sum += drawn.weight(row, id);
        }
        sum = warp_sum(sum);
        if (lane_id() == 0) s.stripes[stripe] = sum;
    }
    __syncthreads();
}

// x and those of all lower lanes.
__device__ __forceinline__ double sum_up_to_lane(double x) {
#pragma unroll
    for (unsigned step = 1; step < WARP; step *= 2) {
        const double other = shuffle(x, (lane_id() + WARP - step) % WARP);
        if (lane_id() >= step) x += other;
    }
    return x;
}

// The first lane that says yes, or else the last one that says maybe.
__device__ __forceinline__ unsigned pick_lane(bool yes, bool maybe) {
    const uint32_t sure = ballot(yes), possible = ballot(maybe);
    const uint32_t bits = sure ? sure & (~sure + 1) : possible;
    unsigned lane = 0;
    for (unsigned i = 0; i < WARP; ++i) lane = bits >> i & 1 ? i : lane;
    return lane;
}

// The token at `share` of the whole weight, by a warp: first 32 runs of stripes, then the stripes of a run, then the
// tokens of a stripe. Rounding may leave a little at an end: it counts to the last that weighs something.
__device__ uint32_t draw(const Row &row, const Drawn &drawn, const SampleShared &s, double share) {
    const unsigned stripes = (row.size + STRIPE - 1) / STRIPE, run = (stripes + WARP - 1) / WARP;
    double mine = 0;
    for (unsigned i = lane_id() * run; i < (lane_id() + 1) * run && i < stripes; ++i) mine += s.stripes[i];
    const double up_to = sum_up_to_lane(mine);
    double left = share * shuffle(up_to, WARP - 1);
    const unsigned lane = pick_lane(mine > 0 && left < up_to, mine > 0);
    left -= shuffle(up_to - mine, lane);

    unsigned stripe = 0;
    bool found = false;
    for (unsigned i = lane * run; i < (lane + 1) * run && i < stripes && !found; ++i) {
        if (s.stripes[i] <= 0) continue;
        stripe = i;
        found = left < s.stripes[i];
        if (!found) left -= s.stripes[i];
    }
    uint32_t token = 0;
    for (unsigned i = 0; i < STRIPE / WARP; ++i) {
        const unsigned id = stripe * STRIPE + i * WARP + lane_id();
        const double weight = id < row.size ? drawn.weight(row, id) : 0.f;
        const double sums = sum_up_to_lane(weight);
        const bool here = weight > 0 && left < sums;
        if (ballot(weight > 0)) token = shuffle(id, pick_lane(here, weight > 0));
        if (ballot(here)) break;
        left -= shuffle(sums, WARP - 1);
    }
    return token;
}

// The likeliest of the unchanged row, with their log-probabilities.
__device__ void report_top(const lr_sample_args &a, const lr_sample_row &r, const Row &row, double log_sum, SampleShared &s) {
    if (r.top_logprobs == 0) return;
    const uint32_t count = r.top_logprobs < row.size ? r.top_logprobs : row.size;
    const Best best = select_best(row, s.select, Best(), {false, count, 0});
    list_candidates(row, s.select, [&](uint32_t key, uint32_t id) { return best.holds(key, id); });
    if (threadIdx.x < r.top_logprobs) {
        const bool there = threadIdx.x < count;
        const uint32_t id = there ? static_cast<uint32_t>(s.select.list.keys[threadIdx.x]) : LR_NONE;
        a.top_ids[r.first_top + threadIdx.x] = id;
        a.top_logprobs[r.first_top + threadIdx.x] = there ? static_cast<float>(row.x[id] - log_sum) : -INFINITE;
    }
    __syncthreads();
}

__device__ void refuse(const lr_sample_args &a, const lr_sample_row &r) {
    for (unsigned i = threadIdx.x; i < r.draw_count; i += THREADS) {
        a.tokens[r.first_draw + i] = LR_NONE;
        a.logprobs[r.first_draw + i] = INFINITE - INFINITE;
    }
}

__global__ void __launch_bounds__(THREADS) sample_kernel(lr_sample_args a) {
    begin_after_earlier();
    SampleShared &s = shared<SampleShared>();
    const lr_sample_row r = a.rows[blockIdx.x];
    if (r.row == LR_NONE) return;
    float *logits = a.logits + static_cast<size_t>(r.row) * a.vocab;

    Row row{logits, nullptr, a.vocab, 0.f, LOG2_E};
    row.max = maximum(row, s);
    if (!is_finite(row.max)) {
        if (threadIdx.x == 0) a.log_sums[blockIdx.x] = INFINITE - INFINITE;
        return refuse(a, r);
    }
    const double log_sum = row.max + log(sum_of_weights(row, s));
    if (threadIdx.x == 0) a.log_sums[blockIdx.x] = static_cast<float>(log_sum);
    for (unsigned i = threadIdx.x; i < r.score_count; i += THREADS) {
        const uint32_t id = a.score_ids[r.first_score + i];
        a.scores[r.first_score + i] = id < a.vocab ? static_cast<float>(logits[id] - log_sum) : -INFINITE;
    }
    report_top(a, r, row, log_sum, s);
    if (r.draw_count == 0) return;

    __syncthreads(); // everybody has read what is changed now
    change(a, r, logits);
    if (r.allowed != LR_NONE) row.allowed = a.allowed + r.allowed;
    if (r.change_count > 0 || row.allowed) row.max = maximum(row, s);
    if (!is_finite(row.max)) return refuse(a, r);

    uint32_t token = 0;
    Drawn drawn;
    const bool greedy = r.temperature <= 0.f;
    if (greedy) {
        token = first_at(row, row.max, s);
    } else {
        const float scale = LOG2_E / r.temperature;
        row.scale = scale < 3e38f ? scale : 3e38f;
        drawn = filter(row, r, s);
        add_stripes(row, drawn, s);
    }
    for (unsigned i = warp_id(); i < r.draw_count; i += SELECT_WARPS) {
        if (!greedy) token = draw(row, drawn, s, a.uniforms[r.first_draw + i]);
        if (lane_id() == 0) {
            a.tokens[r.first_draw + i] = token;
            a.logprobs[r.first_draw + i] = static_cast<float>(original(a, r, logits, token) - log_sum);
        }
    }
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_sample(lr_stream *stream, const lr_sample_args *args) {
    using namespace lr;
    if (args->vocab == 0 || args->vocab > STRIPE * MAX_STRIPES) return fail("sample: a vocabulary of %u; possible are up to %u", args->vocab, STRIPE * MAX_STRIPES);
    return launch(stream, {args->max_rows, 1, THREADS, sizeof(SampleShared)}, "sample", sample_kernel, *args);
}
