// The library of gpu.h without a GPU: device memory is memory that ends at a guard page, streams are lists of work that
// run when somebody waits, and a matrix product is three loops. See emulation.h.

#include "quantise.cuh"
#include "runtime.cuh"

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <sys/mman.h>
#include <vector>

using Work = std::function<bool(char *error, size_t n)>;

namespace {

thread_local char error_text[1024];
constexpr size_t PAGE = 4096;

} // namespace

struct lr_graph {
    std::vector<Work> work;
};

struct lr_stream {
    lr_gpu *gpu;
    std::deque<Work> queue;
    uint64_t put = 0, done = 0;
    lr_graph *capture = nullptr;
    std::string error; // of the first work that failed; all that follows fails, too

    bool run(uint64_t until);
};

struct lr_event {
    lr_gpu *gpu;
    lr_stream *stream = nullptr;    // dead if it is not among the device's
    uint64_t place = 0;
    std::chrono::steady_clock::time_point time;
};

struct lr_gpu {
    struct Memory {
        void *pages;
        size_t mapped;
        uint64_t bytes;
    };
    std::map<void *, Memory> memory;
    std::set<lr_stream *> streams;
    uint64_t total, used = 0;

    // The stream of an event, unless it is gone and with it all its work done.
    lr_stream *alive(const lr_event *event) const { return streams.count(event->stream) ? event->stream : nullptr; }
};

bool lr_stream::run(uint64_t until) {
    while (done < until && error.empty()) {
        char reason[800];
        Work work = std::move(queue.front());
        queue.pop_front();
        ++done;
        if (!work(reason, sizeof reason)) error = reason;
    }
    return error.empty();
}

namespace lr {

int fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(error_text, sizeof error_text, format, list);
    va_end(list);
    return 1;
}

int enqueue(lr_stream *stream, Work work) {
    if (stream->capture) {
        stream->capture->work.push_back(std::move(work));
        return 0;
    }
    stream->queue.push_back(std::move(work));
    ++stream->put;
    return stream->error.empty() ? 0 : fail("%s", stream->error.c_str());
}

const lr_gpu_properties &properties(const lr_stream *) {
    static const lr_gpu_properties properties = [] {
        lr_gpu_properties p = {};
        snprintf(p.name, sizeof p.name, "emulated on the processor");
        p.multiprocessors = 4;
        const char *capability = getenv("LR_EMULATED_CAPABILITY"); // which of the kernels run
        p.capability = capability ? static_cast<uint32_t>(atoi(capability)) : 90;
        p.shared_memory = 227 << 10;
        p.emulated = 1;
        p.l2_bytes = 1 << 20;
        return p;
    }();
    return properties;
}

const Settings &settings(const lr_stream *) {
    static const Settings settings = read_settings(properties(nullptr).capability);
    return settings;
}

} // namespace lr

using lr::enqueue;
using lr::fail;

extern "C" {

const char *lr_gpu_error(void) {
    return error_text;
}

int lr_gpu_open(int index, lr_gpu **gpu) {
    if (index != 0) return fail("device %d of 1 emulated device", index);
    const char *bytes = getenv("LR_EMULATED_MEMORY");
    *gpu = new lr_gpu;
    (*gpu)->total = bytes ? strtoull(bytes, nullptr, 10) : uint64_t{1} << 30;
    return 0;
}

void lr_gpu_close(lr_gpu *gpu) {
    for (auto &entry : gpu->memory) munmap(entry.second.pages, entry.second.mapped);
    delete gpu;
}

int lr_gpu_describe(lr_gpu *, lr_gpu_properties *properties) {
    *properties = lr::properties(nullptr);
    return 0;
}

int lr_gpu_memory(lr_gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes) {
    *total_bytes = gpu->total;
    *free_bytes = gpu->total - gpu->used;
    return 0;
}

int lr_gpu_alloc(lr_gpu *gpu, uint64_t bytes, void **memory) {
    if (bytes > gpu->total - gpu->used) {
        return fail("out of device memory: %llu bytes wanted, %llu of %llu free", static_cast<unsigned long long>(bytes),
                    static_cast<unsigned long long>(gpu->total - gpu->used), static_cast<unsigned long long>(gpu->total));
    }
    // Ends where the guard page begins, but for what alignment to sixteen bytes leaves.
    const size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    const size_t mapped = whole + 2 * PAGE;
    auto *pages = static_cast<unsigned char *>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages == MAP_FAILED) return fail("the host has no %zu bytes for an emulated device", mapped);
    memset(pages + PAGE, 0xFF, whole);
    mprotect(pages, PAGE, PROT_NONE);
    mprotect(pages + PAGE + whole, PAGE, PROT_NONE);
    *memory = pages + PAGE + whole - (bytes + 15) / 16 * 16;
    gpu->memory[*memory] = {pages, mapped, bytes};
    gpu->used += bytes;
    return 0;
}

void lr_gpu_free(lr_gpu *gpu, void *memory) {
    for (lr_stream *stream : gpu->streams) stream->run(stream->put);
    const auto entry = gpu->memory.find(memory);
    if (entry == gpu->memory.end()) abort();
    gpu->used -= entry->second.bytes;
    munmap(entry->second.pages, entry->second.mapped);
    gpu->memory.erase(entry);
}

int lr_gpu_alloc_pinned(lr_gpu *, uint64_t bytes, void **memory) {
    *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *memory || !bytes ? 0 : fail("the host has no %llu bytes", static_cast<unsigned long long>(bytes));
}

void lr_gpu_free_pinned(lr_gpu *gpu, void *memory) {
    for (lr_stream *stream : gpu->streams) stream->run(stream->put);
    free(memory);
}

int lr_gpu_stream_create(lr_gpu *gpu, lr_stream **stream) {
    *stream = new lr_stream;
    (*stream)->gpu = gpu;
    gpu->streams.insert(*stream);
    return 0;
}

void lr_gpu_stream_destroy(lr_stream *stream) {
    stream->run(stream->put);
    stream->gpu->streams.erase(stream);
    delete stream->capture;
    delete stream;
}

int lr_gpu_stream_wait(lr_stream *stream) {
    if (stream->capture) return fail("waiting for a stream that records");
    return stream->run(stream->put) ? 0 : fail("%s", stream->error.c_str());
}

int lr_gpu_copy(lr_stream *stream, void *to, const void *from, uint64_t bytes) {
    return enqueue(stream, [=](char *, size_t) {
        memcpy(to, from, bytes);
        return true;
    });
}

int lr_gpu_fill(lr_stream *stream, void *to, uint8_t value, uint64_t bytes) {
    return enqueue(stream, [=](char *, size_t) {
        memset(to, value, bytes);
        return true;
    });
}

int lr_gpu_event_create(lr_gpu *gpu, lr_event **event) {
    *event = new lr_event;
    (*event)->gpu = gpu;
    return 0;
}

void lr_gpu_event_destroy(lr_event *event) {
    lr_gpu_event_wait(event);
    delete event;
}

int lr_gpu_event_record(lr_stream *stream, lr_event *event) {
    if (stream->capture) return fail("an event can't be recorded in a graph");
    const int failed = enqueue(stream, [=](char *, size_t) {
        event->time = std::chrono::steady_clock::now();
        return true;
    });
    event->stream = stream;
    event->place = stream->put;
    return failed;
}

int lr_gpu_event_follow(lr_stream *stream, lr_event *event) {
    lr_stream *other = event->gpu->alive(event);
    const uint64_t place = event->place;
    if (!other || other == stream) return 0;
    return enqueue(stream, [=](char *error, size_t n) {
        if (other->run(place)) return true;
        snprintf(error, n, "%s", other->error.c_str());
        return false;
    });
}

int lr_gpu_event_wait(lr_event *event) {
    lr_stream *stream = event->gpu->alive(event);
    if (!stream || stream->run(event->place)) return 0;
    return fail("%s", stream->error.c_str());
}

// Whoever asks lets one piece of work run, so that a loop of questions ends.
int lr_gpu_event_done(lr_event *event, int *done) {
    lr_stream *stream = event->gpu->alive(event);
    *done = !stream || stream->done >= event->place;
    if (*done || stream->run(stream->done + 1)) return 0;
    return fail("%s", stream->error.c_str());
}

int lr_gpu_event_milliseconds(lr_event *from, lr_event *to, float *milliseconds) {
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return 0;
}

int lr_gpu_capture_begin(lr_stream *stream) {
    if (stream->capture) return fail("the stream records already");
    stream->capture = new lr_graph;
    return 0;
}

int lr_gpu_capture_end(lr_stream *stream, lr_graph **graph) {
    if (!stream->capture) return fail("the stream does not record");
    *graph = stream->capture;
    stream->capture = nullptr;
    return 0;
}

// What is put on the stream outlives the graph.
int lr_gpu_graph_launch(lr_stream *stream, lr_graph *graph) {
    return enqueue(stream, [work = graph->work](char *error, size_t n) {
        for (const Work &one : work) {
            if (!one(error, n)) return false;
        }
        return true;
    });
}

void lr_gpu_graph_destroy(lr_graph *graph) {
    delete graph;
}

int lr_gpu_gemm(lr_stream *stream, const lr_gemm_args *args) {
    const lr_gemm_args a = *args;
    const bool eight = a.type == LR_E4M3;
    if (const int failed = lr::check_gemm(a)) return failed;
    return enqueue(stream, [=](char *, size_t) {
        auto widen = [eight](const void *from, size_t count) {
            std::vector<float> out(count);
            for (size_t i = 0; i < count; ++i) {
                out[i] = eight ? lr::low(lr::e4m3_pair_to_bf16(static_cast<const uint8_t *>(from)[i])) : lr::to_float(static_cast<const lr::Bf16 *>(from)[i]);
            }
            return out;
        };
        const std::vector<float> x = widen(a.x, size_t{a.m} * a.k), w = widen(a.w, size_t{a.n} * a.k);
        for (size_t i = 0; i < a.m; ++i) {
            for (size_t j = 0; j < a.n; ++j) {
                float lanes[8] = {};
                for (size_t l = 0; l < a.k; ++l) lanes[l % 8] += x[i * a.k + l] * w[j * a.k + l];
                float sum = 0.f;
                for (float lane : lanes) sum += lane;
                if (eight) sum *= a.x_scale[i] * a.w_scale[j];
                if (a.bias) sum += lr::to_float(static_cast<const lr::Bf16 *>(a.bias)[j]);
                const size_t at = i * a.n + j;
                if (a.out_type == LR_F32) static_cast<float *>(a.out)[at] = sum;
                else static_cast<lr::Bf16 *>(a.out)[at] = lr::to_bf16(sum);
            }
        }
        return true;
    });
}

} // extern "C"
