// Putting kernels on streams, for both libraries, and errors.
#pragma once

#include "device.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace lr {

// Keeps the text for lr_gpu_error; returns 1.
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct Launch {
    unsigned blocks_x = 1, blocks_y = 1, threads = 32;
    size_t shared_bytes = 0;
};

const lr_gpu_properties &properties(const lr_stream *stream);

// What can be left out, to measure what it brings, or to go on without it: each by a variable that is 0.
struct Settings {
    bool overlaps = false; // LONGREWARD_GPU_OVERLAP: a kernel may begin while the one before it ends (programmatic dependent launch; begin_after_earlier)
    bool in_turns = true;  // LONGREWARD_GPU_TURNS: groups of wide attention ask for products in turns
    bool by_groups = true; // LONGREWARD_GPU_WGMMA: wide attention by wgmma and the copy engine, where a device has them
    bool narrow = true;    // LONGREWARD_GPU_NARROW: products of few rows by a kernel of our own; else by the library
};

const Settings &settings(const lr_stream *stream);

// `compiled_for`: the compute capability that the kernels were compiled for, which a newer device may run: what they
// lack, waiting for the kernel before (9.0), may not be asked for.
inline Settings read_settings(uint32_t compiled_for) {
    auto is_off = [](const char *name) {
        const char *value = getenv(name);
        return value && !strcmp(value, "0");
    };
    return {compiled_for >= 90 && !is_off("LONGREWARD_GPU_OVERLAP"), !is_off("LONGREWARD_GPU_TURNS"), !is_off("LONGREWARD_GPU_WGMMA"),
            !is_off("LONGREWARD_GPU_NARROW")};
}

// What both libraries support.
inline int check_gemm(const lr_gemm_args &a) {
    if (a.type != LR_BF16 && a.type != LR_E4M3) return fail("matrix product: factors of type %u", a.type);
    if (a.type == LR_E4M3 && (a.n % 16 || a.k % 16)) return fail("matrix product: n = %u, k = %u; in e4m3 both must be multiples of 16", a.n, a.k);
    if (a.k % 8) return fail("matrix product: k = %u, which is no multiple of 8", a.k);
    if (a.bias && a.out_type != LR_BF16) return fail("matrix product: a bias needs a result in bf16");
    return 0;
}

#if LR_EMULATED

// Put at the end of the stream: `work` returns false, with the reason in `error`, if it went wrong.
int enqueue(lr_stream *stream, std::function<bool(char *error, size_t n)> work);

template <class... Parameters, class... Arguments>
int launch(lr_stream *stream, const Launch &l, const char *name, void (*kernel)(Parameters...), Arguments... arguments) {
    if (l.blocks_x == 0 || l.blocks_y == 0) return 0;
    const std::function<void()> run = [=] { kernel(arguments...); };
    return enqueue(stream, [=](char *error, size_t n) {
        char reason[512];
        if (emulated::run_grid({l.blocks_x, l.blocks_y, 1}, l.threads, l.shared_bytes, run, reason, sizeof reason)) return true;
        snprintf(error, n, "%s: %s", name, reason);
        return false;
    });
}

#else

// Keeps the text of an error; 0 if there is none.
int cuda(const char *what, cudaError_t error);
// Its device becomes the thread's current one.
cudaStream_t handle(lr_stream *stream);
// Allows a kernel more shared memory than it has by default.
int allow_shared(lr_stream *stream, const void *kernel, size_t bytes);

template <class... Parameters, class... Arguments>
int launch(lr_stream *stream, const Launch &l, const char *name, void (*kernel)(Parameters...), Arguments... arguments) {
    if (l.blocks_x == 0 || l.blocks_y == 0) return 0;
    if (l.shared_bytes > 48 * 1024) {
        if (const int error = allow_shared(stream, reinterpret_cast<const void *>(kernel), l.shared_bytes)) return error;
    }
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(l.blocks_x, l.blocks_y);
    config.blockDim = dim3(l.threads);
    config.dynamicSmemBytes = l.shared_bytes;
    config.stream = handle(stream);
    config.attrs = &overlap;
    config.numAttrs = settings(stream).overlaps ? 1 : 0;
    return cuda(name, cudaLaunchKernelEx(&config, kernel, arguments...));
}

#endif

} // namespace lr
