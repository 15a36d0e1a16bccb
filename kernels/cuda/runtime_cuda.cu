// The library of gpu.h on CUDA's runtime: devices, memory, streams, events, graphs. One context per process and device;
// each call makes its device the thread's current one.

#include "runtime_cuda.cuh"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace lr {

namespace {

thread_local char error_text[1024];

// Held while a thread records: waiting for the whole device would spoil the recording (a device has one context in a
// process, so this is one for the process, too).
std::recursive_mutex recording;

// Does nothing; says whether this build has kernels for the device, and for which capability they were compiled.
__global__ void probe_kernel() {}

int check_kernels(const lr_gpu_properties &p, uint32_t *compiled_for) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
    if (error == cudaSuccess) {
        *compiled_for = static_cast<uint32_t>(attributes.ptxVersion);
        return 0;
    }
    cudaGetLastError();
    return fail("%s has compute capability %u.%u, and this build has kernels for %s (CUDA_COMPUTE_CAPS at build time): %s", p.name,
                p.capability / 10, p.capability % 10, LR_CAPABILITIES, cudaGetErrorString(error));
}

int describe(int index, lr_gpu_properties *p) {
    cudaDeviceProp device;
    if (const int failed = cuda("cudaGetDeviceProperties", cudaGetDeviceProperties(&device, index))) return failed;
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", device.name);
    p->multiprocessors = static_cast<uint32_t>(device.multiProcessorCount);
    p->capability = static_cast<uint32_t>(10 * device.major + device.minor);
    p->shared_memory = static_cast<uint32_t>(device.sharedMemPerBlockOptin);
    p->l2_bytes = static_cast<uint64_t>(device.l2CacheSize);
    return 0;
}

} // namespace

int fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(error_text, sizeof error_text, format, list);
    va_end(list);
    return 1;
}

int cuda(const char *what, cudaError_t error) {
    if (error == cudaSuccess) return 0;
    cudaGetLastError(); // else the next launch would report it once more
    return fail("%s: %s", what, cudaGetErrorString(error));
}

cudaStream_t handle(lr_stream *stream) {
    cudaSetDevice(stream->gpu->index);
    return stream->handle;
}

const Settings &settings(const lr_stream *stream) {
    return stream->gpu->settings;
}

const lr_gpu_properties &properties(const lr_stream *stream) {
    return stream->gpu->properties;
}

int allow_shared(lr_stream *stream, const void *kernel, size_t bytes) {
    lr_gpu &gpu = *stream->gpu;
    const std::lock_guard<std::mutex> lock(gpu.mutex);
    if (gpu.allowed.count({kernel, bytes})) return 0;
    cudaSetDevice(gpu.index);
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error == cudaSuccess) gpu.allowed.insert({kernel, bytes});
    return cuda("more shared memory", error);
}

} // namespace lr

using lr::cuda;
using lr::fail;

struct lr_event {
    int device;
    cudaEvent_t handle;
};

struct lr_graph {
    int device;
    cudaGraphExec_t handle;
};

extern "C" {

const char *lr_gpu_error(void) {
    return lr::error_text;
}

int lr_gpu_open(int index, lr_gpu **gpu) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        return fail("no CUDA device can be used: %s (is the NVIDIA driver, 580 or newer, installed?)", cudaGetErrorString(error));
    }
    if (index < 0 || index >= count) return fail("device %d of %d", index, count);
    lr_gpu *opened = new lr_gpu{};
    opened->index = index;
    uint32_t compiled_for = 0;
    int failed = cuda("cudaSetDevice", cudaSetDevice(index)) || lr::describe(index, &opened->properties) ||
                 lr::check_kernels(opened->properties, &compiled_for) || lr::open_gemm(opened);
    if (failed) {
        delete opened;
        return failed;
    }
    opened->settings = lr::read_settings(compiled_for);
    *gpu = opened;
    return 0;
}

void lr_gpu_close(lr_gpu *gpu) {
    cudaSetDevice(gpu->index);
    lr::close_gemm(gpu);
    delete gpu;
}

int lr_gpu_describe(lr_gpu *gpu, lr_gpu_properties *properties) {
    *properties = gpu->properties;
    return 0;
}

int lr_gpu_memory(lr_gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes) {
    size_t free = 0, total = 0;
    const int failed = cuda("cudaSetDevice", cudaSetDevice(gpu->index)) || cuda("cudaMemGetInfo", cudaMemGetInfo(&free, &total));
    *free_bytes = free;
    *total_bytes = total;
    return failed;
}

int lr_gpu_alloc(lr_gpu *gpu, uint64_t bytes, void **memory) {
    if (const int failed = cuda("cudaSetDevice", cudaSetDevice(gpu->index))) return failed;
    if (cudaMalloc(memory, bytes) == cudaSuccess) return 0;
    cudaGetLastError();
    uint64_t free = 0, total = 0;
    lr_gpu_memory(gpu, &free, &total);
    return fail("out of device memory: %llu bytes wanted, %llu of %llu free", static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(free), static_cast<unsigned long long>(total));
}

void lr_gpu_free(lr_gpu *gpu, void *memory) {
    cudaSetDevice(gpu->index);
    cudaFree(memory);
}

int lr_gpu_alloc_pinned(lr_gpu *gpu, uint64_t bytes, void **memory) {
    return cuda("cudaSetDevice", cudaSetDevice(gpu->index)) || cuda("pinned memory", cudaMallocHost(memory, bytes));
}

void lr_gpu_free_pinned(lr_gpu *gpu, void *memory) {
    cudaSetDevice(gpu->index);
    {
        const std::lock_guard<std::recursive_mutex> lock(lr::recording);
        cudaDeviceSynchronize(); // a copy may still be on its way
    }
    cudaFreeHost(memory);
}

int lr_gpu_stream_create(lr_gpu *gpu, lr_stream **stream) {
    cudaStream_t handle = nullptr;
    void *workspace = nullptr;
    if (const int failed = lr_gpu_alloc(gpu, lr::WORKSPACE_BYTES, &workspace)) return failed;
    const int failed = cuda("cudaStreamCreate", cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking));
    if (failed) cudaFree(workspace);
    else *stream = new lr_stream{gpu, handle, workspace};
    return failed;
}

void lr_gpu_stream_destroy(lr_stream *stream) {
    cudaSetDevice(stream->gpu->index);
    cudaStreamSynchronize(stream->handle);
    cudaStreamDestroy(stream->handle);
    cudaFree(stream->workspace);
    delete stream;
}

int lr_gpu_stream_wait(lr_stream *stream) {
    return cuda("work on the GPU", cudaStreamSynchronize(lr::handle(stream)));
}

int lr_gpu_copy(lr_stream *stream, void *to, const void *from, uint64_t bytes) {
    if (bytes == 0) return 0;
    return cuda("copy", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, lr::handle(stream)));
}

int lr_gpu_fill(lr_stream *stream, void *to, uint8_t value, uint64_t bytes) {
    if (bytes == 0) return 0;
    return cuda("fill", cudaMemsetAsync(to, value, bytes, lr::handle(stream)));
}

int lr_gpu_event_create(lr_gpu *gpu, lr_event **event) {
    cudaEvent_t handle = nullptr;
    const int failed = cuda("cudaSetDevice", cudaSetDevice(gpu->index)) || cuda("cudaEventCreate", cudaEventCreate(&handle));
    if (!failed) *event = new lr_event{gpu->index, handle};
    return failed;
}

void lr_gpu_event_destroy(lr_event *event) {
    cudaSetDevice(event->device);
    cudaEventDestroy(event->handle);
    delete event;
}

int lr_gpu_event_record(lr_stream *stream, lr_event *event) {
    return cuda("cudaEventRecord", cudaEventRecord(event->handle, lr::handle(stream)));
}

int lr_gpu_event_follow(lr_stream *stream, lr_event *event) {
    return cuda("cudaStreamWaitEvent", cudaStreamWaitEvent(lr::handle(stream), event->handle, 0));
}

int lr_gpu_event_wait(lr_event *event) {
    cudaSetDevice(event->device);
    return cuda("work on the GPU", cudaEventSynchronize(event->handle));
}

int lr_gpu_event_done(lr_event *event, int *done) {
    cudaSetDevice(event->device);
    const cudaError_t state = cudaEventQuery(event->handle);
    *done = state == cudaSuccess;
    if (state != cudaErrorNotReady) return cuda("work on the GPU", state);
    cudaGetLastError(); // no error
    return 0;
}

int lr_gpu_event_milliseconds(lr_event *from, lr_event *to, float *milliseconds) {
    return cuda("cudaEventElapsedTime", cudaEventElapsedTime(milliseconds, from->handle, to->handle));
}

int lr_gpu_capture_begin(lr_stream *stream) {
    lr::recording.lock();
    const int failed = cuda("recording", cudaStreamBeginCapture(lr::handle(stream), cudaStreamCaptureModeThreadLocal));
    if (failed) lr::recording.unlock();
    return failed;
}

int lr_gpu_capture_end(lr_stream *stream, lr_graph **graph) {
    cudaGraph_t recorded = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(lr::handle(stream), &recorded);
    lr::recording.unlock();
    if (const int failed = cuda("recording", ended)) return failed;
    cudaGraphExec_t handle = nullptr;
    const int failed = cuda("making a graph", cudaGraphInstantiate(&handle, recorded, 0));
    cudaGraphDestroy(recorded);
    if (!failed) *graph = new lr_graph{stream->gpu->index, handle};
    return failed;
}

int lr_gpu_graph_launch(lr_stream *stream, lr_graph *graph) {
    return cuda("running a graph", cudaGraphLaunch(graph->handle, lr::handle(stream)));
}

void lr_gpu_graph_destroy(lr_graph *graph) {
    cudaSetDevice(graph->device);
    cudaGraphExecDestroy(graph->handle); // one that still runs ends first
    delete graph;
}

} // extern "C"
