// Rows of a table by their ids (embedding, rows that need logits), copies of KV blocks.
//
// Rows and blocks move once in and once out, sixteen bytes at a time.

#include "runtime.cuh"

namespace lr {
namespace {

constexpr unsigned THREADS = 128;

template <class From, class To> __global__ void __launch_bounds__(THREADS) gather_kernel(lr_gather_args a) {
    begin_after_earlier();
    const unsigned column = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (column >= a.width) return;
    const uint32_t id = a.ids[blockIdx.x];
    float x[8] = {};
    if (id < a.table_rows) load8(static_cast<const From *>(a.table) + static_cast<size_t>(id) * a.width + column, x);
    store8(static_cast<To *>(a.out) + static_cast<size_t>(blockIdx.x) * a.width + column, x);
}

// blockIdx.x: the pair, blockIdx.y: the array.
__global__ void __launch_bounds__(THREADS) copy_units_kernel(lr_copy_units_args a) {
    begin_after_earlier();
    unsigned char *array = static_cast<unsigned char *>(a.base) + blockIdx.y * a.array_bytes;
    const unsigned char *from = array + static_cast<size_t>(a.pairs[2 * blockIdx.x]) * a.unit_bytes;
    unsigned char *to = array + static_cast<size_t>(a.pairs[2 * blockIdx.x + 1]) * a.unit_bytes;
    for (unsigned i = threadIdx.x * 16; i < a.unit_bytes; i += THREADS * 16) store16(to + i, load16(from + i));
}

} // namespace
} // namespace lr

extern "C" int lr_gpu_gather(lr_stream *stream, const lr_gather_args *args) {
    using namespace lr;
    if (args->width % 8) return fail("gather: a width of %u, which is no multiple of 8", args->width);
    const Launch l{args->rows, (args->width / 8 + THREADS - 1) / THREADS, THREADS, 0};
    if (args->type == LR_F32) {
        if (args->out_type != LR_F32) return fail("gather: from f32 to another type");
        return launch(stream, l, "gather", gather_kernel<float, float>, *args);
    }
    return args->out_type == LR_F32 ? launch(stream, l, "gather", gather_kernel<Bf16, float>, *args)
                                    : launch(stream, l, "gather", gather_kernel<Bf16, Bf16>, *args);
}

extern "C" int lr_gpu_copy_units(lr_stream *stream, const lr_copy_units_args *args) {
    using namespace lr;
    if (args->unit_bytes % 16) return fail("copy_units: units of %u bytes, which is no multiple of 16", args->unit_bytes);
    return launch(stream, {args->count, args->arrays, THREADS, 0}, "copy_units", copy_units_kernel, *args);
}
