// Matrix products by cuBLASLt, which is opened when a device is: bf16 or e4m3 in, sums in f32, bf16 or f32 out.
//
// cuBLASLt counts columns first, so out [m, n] = x [m, k] . w [n, k]^T is, to it, out^T (n by m) = w^T' . x^T with
// A = w (k by n, to be transposed), B = x (k by m), nothing to be copied.
//
// What it recommends is asked once for each shape; m counts in steps, so that ragged batches need few questions.
// If an algorithm does not run at an m of its step, the exact m is asked for, then and later.
// `same_for_all_m` takes what it recommends for REFERENCE_M and no sums in parts, at every m: then a row's bits do not
// depend on its neighbours. (Else they may, as other m get other tiles.)

#include "cublaslt.h"
#include "runtime_cuda.cuh"

#include <dlfcn.h>

#include <cstdlib>
#include <initializer_list>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace {

constexpr uint32_t REFERENCE_M = 256;

uint32_t step(uint32_t m) {
    const uint32_t step = m <= 128 ? 8 : m <= 1024 ? 64 : 512;
    return (m + step - 1) / step * step;
}

using Key = std::tuple<uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, bool, bool>;

// The functions of the library that are used.
struct Functions {
    cublasStatus_t (*create)(cublasLtHandle_t *);
    cublasStatus_t (*destroy)(cublasLtHandle_t);
    cublasStatus_t (*desc_create)(cublasLtMatmulDesc_t *, int, int);
    cublasStatus_t (*desc_destroy)(cublasLtMatmulDesc_t);
    cublasStatus_t (*desc_set)(cublasLtMatmulDesc_t, int, const void *, size_t);
    cublasStatus_t (*layout_create)(cublasLtMatrixLayout_t *, int, uint64_t, uint64_t, int64_t);
    cublasStatus_t (*layout_destroy)(cublasLtMatrixLayout_t);
    cublasStatus_t (*preference_create)(cublasLtMatmulPreference_t *);
    cublasStatus_t (*preference_destroy)(cublasLtMatmulPreference_t);
    cublasStatus_t (*preference_set)(cublasLtMatmulPreference_t, int, const void *, size_t);
    cublasStatus_t (*heuristic)(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,
                                cublasLtMatmulHeuristicResult_t *, int *);
    cublasStatus_t (*matmul)(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *, cublasLtMatrixLayout_t, const void *,
                             cublasLtMatrixLayout_t, const void *, const void *, cublasLtMatrixLayout_t, void *, cublasLtMatrixLayout_t,
                             const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t);
};

} // namespace

struct lr_matrix_library {
    void *library = nullptr;
    Functions call = {};
    cublasLtHandle_t handle = nullptr;
    std::mutex mutex;
    std::map<Key, cublasLtMatmulAlgo_t> algorithms;
};

namespace lr {
namespace {

int status(const char *what, cublasStatus_t number) {
    return number == 0 ? 0 : fail("matrix product: %s: cuBLASLt status %d", what, number);
}

// A handle of cuBLASLt that is destroyed at the end of its scope.
template <class T> struct Scoped {
    T value = nullptr;
    cublasStatus_t (*destroy)(T);
    explicit Scoped(cublasStatus_t (*destroy)(T)) : destroy(destroy) {}
    ~Scoped() {
        if (value) destroy(value);
    }
    Scoped(const Scoped &) = delete;
    Scoped &operator=(const Scoped &) = delete;
};

std::vector<std::string> places() {
    std::vector<std::string> list;
    if (const char *named = getenv("LONGREWARD_CUBLASLT")) list.push_back(named);
    for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
        list.push_back(name); // where the loader looks
        for (const char *variable : {"CUDA_HOME", "CUDA_PATH"}) {
            if (const char *home = getenv(variable)) list.push_back(std::string(home) + "/lib64/" + name);
        }
        list.push_back(std::string("/usr/local/cuda/lib64/") + name);
        if (const char *home = getenv("HOME")) list.push_back(std::string(home) + "/.cache/longreward/cuda-13.0/lib/" + name);
    }
    return list;
}

template <class F> bool find(void *library, const char *name, F *&function) {
    function = reinterpret_cast<F *>(dlsym(library, name));
    return function != nullptr;
}

bool find_all(void *l, Functions &f) {
    return find(l, "cublasLtCreate", f.create) && find(l, "cublasLtDestroy", f.destroy) &&
           find(l, "cublasLtMatmulDescCreate", f.desc_create) && find(l, "cublasLtMatmulDescDestroy", f.desc_destroy) &&
           find(l, "cublasLtMatmulDescSetAttribute", f.desc_set) && find(l, "cublasLtMatrixLayoutCreate", f.layout_create) &&
           find(l, "cublasLtMatrixLayoutDestroy", f.layout_destroy) &&
           find(l, "cublasLtMatmulPreferenceCreate", f.preference_create) &&
           find(l, "cublasLtMatmulPreferenceDestroy", f.preference_destroy) &&
           find(l, "cublasLtMatmulPreferenceSetAttribute", f.preference_set) &&
           find(l, "cublasLtMatmulAlgoGetHeuristic", f.heuristic) && find(l, "cublasLtMatmul", f.matmul);
}

// What a product is to cuBLASLt.
struct Product {
    Scoped<cublasLtMatmulDesc_t> desc;
    Scoped<cublasLtMatrixLayout_t> w, x, out;

    explicit Product(const Functions &f)
        : desc(f.desc_destroy), w(f.layout_destroy), x(f.layout_destroy), out(f.layout_destroy) {}

    template <class T> cublasStatus_t set(const Functions &f, int attribute, T value) {
        return f.desc_set(desc.value, attribute, &value, sizeof value);
    }

    cublasStatus_t make(const Functions &f, const lr_gemm_args &a, uint32_t m) {
        const int in_type = a.type == LR_E4M3 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
        const int out_type = a.out_type == LR_F32 ? CUDA_R_32F : CUDA_R_16BF;
        cublasStatus_t s = f.desc_create(&desc.value, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        s = s ? s : set<int32_t>(f, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
        s = s ? s : f.layout_create(&w.value, in_type, a.k, a.n, a.k);
        s = s ? s : f.layout_create(&x.value, in_type, a.k, m, a.k);
        s = s ? s : f.layout_create(&out.value, out_type, a.n, m, a.n);
        if (a.bias) {
            s = s ? s : set<int32_t>(f, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
            s = s ? s : set(f, CUBLASLT_MATMUL_DESC_BIAS_POINTER, a.bias);
        }
        if (a.type == LR_E4M3) {
            for (const int mode : {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_DESC_B_SCALE_MODE}) {
                s = s ? s : set<int32_t>(f, mode, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
            }
            s = s ? s : set(f, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, a.w_scale);
            s = s ? s : set(f, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, a.x_scale);
        }
        return s;
    }
};

int recommend(lr_matrix_library &l, const lr_gemm_args &a, uint32_t m, cublasLtMatmulAlgo_t &algorithm) {
    const Functions &f = l.call;
    Product product(f);
    if (const int failed = status("description", product.make(f, a, m))) return failed;
    Scoped<cublasLtMatmulPreference_t> preference(f.preference_destroy);
    const uint64_t workspace = WORKSPACE_BYTES;
    cublasStatus_t s = f.preference_create(&preference.value);
    s = s ? s : f.preference_set(preference.value, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    // Parts of buffers begin at multiples of sixteen bytes.
    for (int which = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; which <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; ++which) {
        const uint32_t sixteen = 16;
        s = s ? s : f.preference_set(preference.value, which, &sixteen, sizeof sixteen);
    }
    if (a.same_for_all_m) {
        const uint32_t none = 0;
        s = s ? s : f.preference_set(preference.value, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none, sizeof none);
    }
    cublasLtMatmulHeuristicResult_t result = {};
    int count = 0;
    s = s ? s : f.heuristic(l.handle, product.desc.value, product.w.value, product.x.value, product.out.value, product.out.value,
                            preference.value, 1, &result, &count);
    if (s || count == 0 || result.state) {
        return fail("cuBLASLt has no product of [%u, %u] and [%u, %u] (types %u and %u, status %d)", m, a.k, a.n, a.k, a.type, a.out_type, s);
    }
    algorithm = result.algo;
    return 0;
}

// For the first of `counts` of rows for which one is known, else what is recommended for the last.
int algorithm_for(lr_matrix_library &l, const lr_gemm_args &a, std::initializer_list<uint32_t> counts, cublasLtMatmulAlgo_t &algorithm) {
    auto key = [&](uint32_t m) { return Key{m, a.n, a.k, a.type, a.out_type, a.bias != nullptr, a.same_for_all_m != 0}; };
    const std::lock_guard<std::mutex> lock(l.mutex);
    for (const uint32_t m : counts) {
        const auto known = l.algorithms.find(key(m));
        if (known == l.algorithms.end()) continue;
        algorithm = known->second;
        return 0;
    }
    const uint32_t m = *(counts.end() - 1);
    if (const int failed = recommend(l, a, m, algorithm)) return failed;
    l.algorithms[key(m)] = algorithm;
    return 0;
}

} // namespace

int open_gemm(lr_gpu *gpu) {
    auto *opened = new lr_matrix_library;
    std::string tried;
    for (const std::string &place : places()) {
        opened->library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (opened->library) break;
        tried += tried.empty() ? place : ", " + place;
    }
    int failed = 0;
    if (!opened->library) {
        failed = fail("cuBLASLt is missing; tried %s. Install the CUDA libraries, or name the file in LONGREWARD_CUBLASLT", tried.c_str());
    } else if (!find_all(opened->library, opened->call)) {
        failed = fail("the cuBLASLt that was found lacks functions: %s", dlerror());
    } else {
        failed = status("start", opened->call.create(&opened->handle));
    }
    gpu->matrices = opened;
    if (failed) close_gemm(gpu);
    return failed;
}

void close_gemm(lr_gpu *gpu) {
    if (gpu->matrices->handle) gpu->matrices->call.destroy(gpu->matrices->handle);
    // The library stays: what it has registered with the driver outlives its handle.
    delete gpu->matrices;
    gpu->matrices = nullptr;
}

} // namespace lr

extern "C" int lr_gpu_gemm(lr_stream *stream, const lr_gemm_args *args) {
    using namespace lr;
    const lr_gemm_args &a = *args;
    if (const int failed = check_gemm(a)) return failed;
    if (a.m == 0) return 0;
    lr_matrix_library &l = *stream->gpu->matrices;
    Product product(l.call);
    if (const int failed = status("description", product.make(l.call, a, a.m))) return failed;
    const cudaStream_t on = handle(stream);
    auto launched = [&](const cublasLtMatmulAlgo_t &algorithm) {
        const float one = 1.f, zero = 0.f;
        return l.call.matmul(l.handle, product.desc.value, &one, a.w, product.w.value, a.x, product.x.value, &zero, a.out,
                             product.out.value, a.out, product.out.value, &algorithm, stream->workspace, WORKSPACE_BYTES, on);
    };
    cublasLtMatmulAlgo_t algorithm;
    if (a.same_for_all_m) {
        if (const int failed = algorithm_for(l, a, {REFERENCE_M}, algorithm)) return failed;
        return status("launch", launched(algorithm));
    }
    if (const int failed = algorithm_for(l, a, {a.m, step(a.m)}, algorithm)) return failed;
    const cublasStatus_t first = launched(algorithm);
    if (first == 0 || step(a.m) == a.m) return status("launch", first);
    if (const int failed = algorithm_for(l, a, {a.m}, algorithm)) return failed;
    return status("launch", launched(algorithm));
}
