// What the files of the CUDA library share.
#pragma once

#include "runtime.cuh"

#include <mutex>
#include <set>
#include <utility>

struct lr_matrix_library; // gemm_cuda.cu

struct lr_gpu {
    int index;
    lr_gpu_properties properties;
    lr_matrix_library *matrices;
    lr::Settings settings;
    std::mutex mutex;
    std::set<std::pair<const void *, size_t>> allowed; // shared memory that kernels have been allowed
};

struct lr_stream {
    lr_gpu *gpu;
    cudaStream_t handle;
    void *workspace; // of matrix products
};

namespace lr {

// As cuBLAS recommends for Hopper; each stream has its own, as work on two may run at once.
constexpr size_t WORKSPACE_BYTES = 32 << 20;

int open_gemm(lr_gpu *gpu);
void close_gemm(lr_gpu *gpu);

} // namespace lr
