/* The one seam between Rust and the GPU: memory, streams, graphs, matrix products and the decoder's operations.
 *
 * Two libraries stand behind it, made of the same kernels: one for CUDA devices (nvcc), and one that runs the
 * kernels on the processor, thread by thread, to test them (emulation.h).
 *
 * Every function that can fail returns 0 or an error number; the text is in lr_gpu_error(). Operations check their
 * arguments, put work on a stream and return; they read and write device memory only. Matrices are row-major.
 * "bf16" are 16-bit numbers, "e4m3" 8-bit ones (OCP FP8, no infinities); positions and ids are u32. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lr_gpu lr_gpu;       /* a device, its matrix library and its workspace */
typedef struct lr_stream lr_stream; /* work in order */
typedef struct lr_event lr_event;   /* a place in a stream */
typedef struct lr_graph lr_graph;   /* recorded work */

enum { LR_BLOCK_TOKENS = 16 };      /* tokens of a KV block */
#define LR_NONE 0xFFFFFFFFu         /* no slot, no id, no partial result */

/* What went wrong in this thread's last call that failed. */
const char *lr_gpu_error(void);

/* ---- the device ---- */

typedef struct {
    char name[256];
    uint32_t multiprocessors;
    uint32_t capability;            /* 10 * major + minor */
    uint32_t shared_memory;         /* bytes that one block of threads can have */
    uint32_t emulated;
    uint64_t l2_bytes;
} lr_gpu_properties;

int lr_gpu_open(int index, lr_gpu **gpu);
void lr_gpu_close(lr_gpu *gpu);
int lr_gpu_describe(lr_gpu *gpu, lr_gpu_properties *properties);
int lr_gpu_memory(lr_gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes);
int lr_gpu_alloc(lr_gpu *gpu, uint64_t bytes, void **memory);          /* contents undefined; aligned to 256 bytes */
void lr_gpu_free(lr_gpu *gpu, void *memory);                           /* waits for work under way */
int lr_gpu_alloc_pinned(lr_gpu *gpu, uint64_t bytes, void **memory);   /* of the host; copies can run beside it */
void lr_gpu_free_pinned(lr_gpu *gpu, void *memory);

/* ---- streams, events, graphs ---- */

int lr_gpu_stream_create(lr_gpu *gpu, lr_stream **stream);
void lr_gpu_stream_destroy(lr_stream *stream);
int lr_gpu_stream_wait(lr_stream *stream);                             /* the host waits until all is done */
int lr_gpu_copy(lr_stream *stream, void *to, const void *from, uint64_t bytes);  /* any of host and device */
int lr_gpu_fill(lr_stream *stream, void *to, uint8_t value, uint64_t bytes);

int lr_gpu_event_create(lr_gpu *gpu, lr_event **event);
void lr_gpu_event_destroy(lr_event *event);
int lr_gpu_event_record(lr_stream *stream, lr_event *event);
int lr_gpu_event_follow(lr_stream *stream, lr_event *event);           /* the stream goes on after the event */
int lr_gpu_event_wait(lr_event *event);                                /* the host goes on after the event */
int lr_gpu_event_done(lr_event *event, int *done);
int lr_gpu_event_milliseconds(lr_event *from, lr_event *to, float *milliseconds);

int lr_gpu_capture_begin(lr_stream *stream);                           /* records instead of running */
int lr_gpu_capture_end(lr_stream *stream, lr_graph **graph);
int lr_gpu_graph_launch(lr_stream *stream, lr_graph *graph);
void lr_gpu_graph_destroy(lr_graph *graph);

/* ---- operations; each is explained where its kernel stands ---- */

enum { LR_BF16 = 0, LR_F32 = 1, LR_E4M3 = 2 };                         /* types of numbers */

/* out [m, n] = x [m, k] . w [n, k]^T (+ bias [n], into bf16 only), sums in f32. k is a multiple of 8, in e4m3 n and k of 16. */
typedef struct {
    const void *x, *w;
    const void *bias;               /* bf16, or null */
    void *out;
    uint32_t m, n, k;
    uint32_t type;                  /* of x and w: LR_BF16 or LR_E4M3 */
    uint32_t out_type;              /* LR_BF16 or LR_F32 */
    uint32_t same_for_all_m;        /* 1: a row's bits do not depend on m */
    const float *x_scale, *w_scale; /* LR_E4M3: [m] and [n], the factors that give back the values */
} lr_gemm_args;
int lr_gpu_gemm(lr_stream *stream, const lr_gemm_args *args);

enum { LR_NARROW_ROWS = 16 };
/* The same for bf16 and up to LR_NARROW_ROWS rows, by a kernel that reads the weights once; a row's bits do not depend on m
   (unless LONGREWARD_GPU_NARROW=0 gives it to the library). It may begin to read weights while work that was put on the
   stream before it still runs: what writes weights must have been waited for. */
int lr_gpu_gemm_narrow(lr_stream *stream, const lr_gemm_args *args);

/* residual [rows, hidden] += x, or += norm(x) * post_weight; out = norm(residual) * weight. */
typedef struct {
    const void *x;                  /* bf16, or null: nothing is added */
    const float *post_weight;       /* or null */
    void *residual;                 /* bf16 or f32 */
    const float *weight;
    void *out;                      /* bf16, or e4m3 with out_scale */
    float *out_scale;               /* e4m3: [rows], the factors that give back the values; null: out is bf16 */
    uint32_t rows, hidden;
    float eps;
    uint32_t residual_type;         /* LR_BF16 or LR_F32 */
} lr_norm_args;
int lr_gpu_norm(lr_stream *stream, const lr_norm_args *args);

/* Adds the bias to qkv [rows, (q_heads + 2 kv_heads) * head_dim], norms the heads of q and k if they have norms, rotates q
 * in place, and rotates and writes k and v to the pages of one layer. */
typedef struct {
    void *qkv;                      /* bf16 */
    const void *bias;               /* bf16 [(q_heads + 2 kv_heads) * head_dim], or null */
    const float *head_norms;        /* [(q_heads + kv_heads) * head_dim], or null: x becomes x / sqrt(mean x^2 + eps) * this */
    const uint32_t *positions;      /* [rows] rows of the tables */
    const uint32_t *slots;          /* [rows] block * 16 + place; LR_NONE: not written */
    const float *cos, *sin;         /* [positions, rotated / 2] */
    void *keys, *values;            /* [blocks, kv_heads] pages of kv_type (pages.cuh) */
    float *key_scales, *value_scales; /* [blocks, kv_heads, 16], for LR_E4M3 */
    uint32_t rows, q_heads, kv_heads, head_dim, rotated, interleaved, kv_type;
    uint32_t norm_columns;          /* of a head, that are no filling: the mean is over so many */
    float eps;
} lr_rope_args;
int lr_gpu_rope(lr_stream *stream, const lr_rope_args *args);

/* out [rows, width] = silu(gate) * up of gate_up [rows, 2 width], gate first. */
typedef struct {
    const void *gate_up;            /* bf16 */
    void *out;                      /* bf16, or e4m3 with out_scale */
    float *out_scale;               /* as of lr_norm_args */
    uint32_t rows, width;
} lr_swiglu_args;
int lr_gpu_swiglu(lr_stream *stream, const lr_swiglu_args *args);

/* out[i] = table[ids[i]]; an id beyond the table gives a row of zeros. */
typedef struct {
    const void *table;              /* [table_rows, width] */
    const uint32_t *ids;            /* [rows] */
    void *out;                      /* [rows, width] */
    uint32_t rows, width, table_rows;
    uint32_t type, out_type;        /* LR_BF16 or LR_F32 */
} lr_gather_args;
int lr_gpu_gather(lr_stream *stream, const lr_gather_args *args);

/* Copies parts of arrays: in each of `arrays` (which lie `array_bytes` apart) unit `to` becomes unit `from`. */
typedef struct {
    void *base;
    const uint32_t *pairs;          /* [count, 2]: from, to */
    uint64_t array_bytes;
    uint32_t unit_bytes;            /* a multiple of 16 */
    uint32_t arrays, count;
} lr_copy_units_args;
int lr_gpu_copy_units(lr_stream *stream, const lr_copy_units_args *args);

/* Attention. A task is a range of keys for some rows, at all heads; what it computes is either the result of its rows
 * or a part of it, for lr_gpu_merge. See attention.cuh. */
typedef struct {
    uint32_t first_query;           /* of its rows, in `queries` */
    uint32_t query_count;
    uint32_t table;                 /* where its block table begins in `tables` */
    uint32_t begin, end;            /* positions; begin is a multiple of 16 */
    uint32_t part;                  /* part of its first row (those of its other rows follow), or LR_NONE: whole result */
} lr_attention_task;

typedef struct {
    uint32_t row;                   /* of q and out */
    uint32_t visible;               /* it sees positions below this */
} lr_attention_query;

typedef struct {
    const void *q;                  /* bf16 [rows, q_stride], of which q_heads * head_dim numbers are used */
    const void *keys, *values;
    const float *key_scales, *value_scales;
    const lr_attention_task *tasks; /* [max_tasks] */
    const uint32_t *task_count;     /* on the device: how many there are this time */
    const lr_attention_query *queries;
    const uint32_t *tables;
    void *out;                      /* bf16 [rows, q_heads * head_dim] */
    float *parts;                   /* [part, q_heads, head_dim] */
    float *part_sums;               /* [part, q_heads]: log2 of the sum of exponentials, -inf for none */
    float scale;                    /* of the products, 1 / sqrt(head_dim) */
    uint32_t max_tasks;
    uint32_t q_stride, q_heads, kv_heads, head_dim, kv_type;
    uint32_t tile;                  /* rows * heads of a group that a task can have at most: 16, 64 or 128 */
} lr_attention_args;
int lr_gpu_attention(lr_stream *stream, const lr_attention_args *args);

/* out of rows that were computed in parts: part ids of merge i are part_ids[starts[i] .. starts[i + 1]]. */
typedef struct {
    const float *parts, *part_sums;
    const uint32_t *rows;           /* [max_merges] rows of out; LR_NONE: nothing to do */
    const uint32_t *starts;         /* [max_merges + 1] */
    const uint32_t *part_ids;
    void *out;                      /* bf16 [rows, q_heads * head_dim] */
    uint32_t max_merges, q_heads, head_dim;
} lr_merge_args;
int lr_gpu_merge(lr_stream *stream, const lr_merge_args *args);

/* Sampling; see sample.cu. */
typedef struct {
    uint32_t row;                   /* of logits; LR_NONE: nothing to do */
    uint32_t first_draw, draw_count;/* random numbers of this row */
    uint32_t first_change, change_count; /* of its logits, in `changes` */
    uint32_t first_score, score_count;   /* ids whose log-probability is wanted, in `score_ids` */
    uint32_t allowed;               /* first word of its bit set in `allowed`, or LR_NONE: all tokens */
    uint32_t top_k;                 /* 0: all */
    uint32_t top_logprobs;          /* how many of the likeliest tokens to report, at most 512 */
    float temperature, top_p, min_p;
    float penalty;                  /* of changes that say so */
    uint32_t first_top;             /* where the likeliest are written in `top_ids`, `top_values` */
    uint32_t reserved;
} lr_sample_row;

typedef struct {
    uint32_t token;
    uint32_t penalised;             /* 1: the logit is divided (if positive) or multiplied by the penalty first */
    float added;                    /* then */
} lr_logit_change;

typedef struct {
    float *logits;                  /* [.., vocab]; those of `changes` are changed, so such a row stands in one entry only */
    const lr_sample_row *rows;      /* [max_rows] */
    const double *uniforms;         /* in 0..1, one for each draw */
    const lr_logit_change *changes; /* ascending tokens within a row */
    float *originals;               /* one for each change, for the kernel's own use */
    const uint32_t *allowed;        /* (vocab + 31) / 32 words for each set */
    const uint32_t *score_ids;
    uint32_t *tokens;               /* one for each draw; LR_NONE where the logits are not finite numbers */
    float *logprobs;                /* one for each draw: of the unchanged distribution */
    float *scores;                  /* one for each score id */
    float *log_sums;                /* [max_rows] log of the sum of all exponentials; NaN for rows not finite */
    uint32_t *top_ids;
    float *top_logprobs;
    uint32_t max_rows, vocab;
} lr_sample_args;
int lr_gpu_sample(lr_stream *stream, const lr_sample_args *args);

#ifdef __cplusplus
}
#endif
