// What all kernels share: 16-bit numbers, 16-byte loads, sums over a warp, and copies to shared memory. Each helper
// that stands for an instruction has two bodies: the instruction, and what it does, for the emulation.
#pragma once

#include "gpu.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#include <limits>
#else
#define LR_EMULATED 1
#define LR_HAS_WGMMA 1
#include "emulation.h"
#endif

namespace lr {

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xFFFFFFFFu;
constexpr float INFINITE = std::numeric_limits<float>::infinity();

// ---- numbers ----

struct Bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float bits_to_float(uint32_t bits) {
#if LR_EMULATED
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
#else
    return __uint_as_float(bits);
#endif
}

__device__ __forceinline__ uint32_t float_to_bits(float x) {
#if LR_EMULATED
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
#else
    return __float_as_uint(x);
#endif
}

// Two numbers in one word, the first in the low half, rounded to the nearest, ties to even.
__device__ __forceinline__ uint32_t pack(float low, float high) {
#if LR_EMULATED
    auto round = [](float x) -> uint32_t {
        const uint32_t bits = float_to_bits(x);
        if (x != x) return 0x7FFF;
        return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
#else
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#endif
}

__device__ __forceinline__ float low(uint32_t word) {
    return bits_to_float(word << 16);
}

__device__ __forceinline__ float high(uint32_t word) {
    return bits_to_float(word & 0xFFFF0000u);
}

__device__ __forceinline__ float to_float(Bf16 x) {
    return bits_to_float(static_cast<uint32_t>(x.bits) << 16);
}

__device__ __forceinline__ Bf16 to_bf16(float x) {
    return Bf16{static_cast<uint16_t>(pack(x, 0.f))};
}

__device__ __forceinline__ float rounded(float x) {
    return low(pack(x, 0.f));
}

// 2^x; 0 for -inf.
__device__ __forceinline__ float exp2_fast(float x) {
#if LR_EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// ---- sixteen bytes at once ----

struct alignas(16) Words {
    uint32_t w[4];
};

__device__ __forceinline__ void check_aligned([[maybe_unused]] const void *p) {
#if LR_EMULATED
    if (reinterpret_cast<uintptr_t>(p) % 16) emulated::fail("sixteen bytes at %p, which is not a multiple of 16", p);
#endif
}

__device__ __forceinline__ Words load16(const void *p) {
    check_aligned(p);
    return *static_cast<const Words *>(p);
}

__device__ __forceinline__ void store16(void *p, const Words &words) {
    check_aligned(p);
    *static_cast<Words *>(p) = words;
}

// Eight numbers from bf16, or from f32 (two loads).
__device__ __forceinline__ void load8(const Bf16 *p, float (&x)[8]) {
    const Words words = load16(p);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = low(words.w[i]);
        x[2 * i + 1] = high(words.w[i]);
    }
}

__device__ __forceinline__ void load8(const float *p, float (&x)[8]) {
    const Words a = load16(p), b = load16(p + 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[i] = bits_to_float(a.w[i]);
        x[4 + i] = bits_to_float(b.w[i]);
    }
}

// Stores eight numbers; those of x become what was stored.
__device__ __forceinline__ void store8(Bf16 *p, float (&x)[8]) {
    Words words;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        words.w[i] = pack(x[2 * i], x[2 * i + 1]);
        x[2 * i] = low(words.w[i]);
        x[2 * i + 1] = high(words.w[i]);
    }
    store16(p, words);
}

__device__ __forceinline__ void store8(float *p, float (&x)[8]) {
    Words a, b;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        a.w[i] = float_to_bits(x[i]);
        b.w[i] = float_to_bits(x[4 + i]);
    }
    store16(p, a);
    store16(p + 4, b);
}

// ---- kernels in a row ----

// Every thread of every kernel makes this call, and before it reads nothing that a kernel writes, and writes nothing: where
// launches may overlap (runtime.cuh), a kernel's blocks come to the device as soon as all blocks of the one before have
// begun, and here they wait until it has ended.
__device__ __forceinline__ void begin_after_earlier() {
#if LR_EMULATED
    emulated::began();
#elif __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- a warp ----

__device__ __forceinline__ unsigned lane_id() {
    return threadIdx.x % WARP;
}

__device__ __forceinline__ unsigned warp_id() {
    return threadIdx.x / WARP;
}

#if LR_EMULATED
// One value from each lane; `take` chooses what lane `i` gets of them.
template <class T, class Take> T exchange(const char *what, T value, Take take) {
    struct Slot {
        T value, result;
        Take take;
    } slot{value, value, take};
    emulated::collective(what, &slot, [](void **data) {
        T values[WARP];
        for (unsigned i = 0; i < WARP; ++i) values[i] = static_cast<Slot *>(data[i])->value;
        for (unsigned i = 0; i < WARP; ++i) {
            auto *s = static_cast<Slot *>(data[i]);
            s->result = s->take(values, i);
        }
    });
    return slot.result;
}
#endif

template <class T> __device__ __forceinline__ T shuffle_xor(T x, unsigned mask) {
#if LR_EMULATED
    return exchange("shuffle_xor", x, [mask](const T *values, unsigned i) { return values[i ^ mask]; });
#else
    return __shfl_xor_sync(ALL_LANES, x, mask);
#endif
}

template <class T> __device__ __forceinline__ T shuffle(T x, unsigned from) {
#if LR_EMULATED
    return exchange("shuffle", x, [from](const T *values, unsigned) { return values[from % WARP]; });
#else
    return __shfl_sync(ALL_LANES, x, from);
#endif
}

__device__ __forceinline__ uint32_t ballot(bool x) {
#if LR_EMULATED
    return exchange("ballot", x ? 1u : 0u, [](const uint32_t *values, unsigned) {
        uint32_t bits = 0;
        for (unsigned i = 0; i < WARP; ++i) bits |= values[i] << i;
        return bits;
    });
#else
    return __ballot_sync(ALL_LANES, x);
#endif
}

__device__ __forceinline__ void sync_warp() {
#if LR_EMULATED
    exchange("sync_warp", 0, [](const int *, unsigned) { return 0; });
#else
    __syncwarp();
#endif
}

__device__ __forceinline__ unsigned count_ones(uint32_t x) {
#if LR_EMULATED
    return static_cast<unsigned>(__builtin_popcount(x));
#else
    return __popc(x);
#endif
}

template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (unsigned mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (unsigned mask = 16; mask > 0; mask /= 2) x = fmaxf(x, shuffle_xor(x, mask));
    return x;
}

// Sum over the block, for every thread, always in the same order; `scratch` is shared and has one entry for each warp.
template <class T> __device__ __forceinline__ T block_sum(T x, T *scratch) {
    x = warp_sum(x);
    __syncthreads(); // an earlier use of scratch is over
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    T sum = 0;
    for (unsigned i = 0; i < blockDim.x / WARP; ++i) sum += scratch[i];
    return sum;
}

__device__ __forceinline__ float block_max(float x, float *scratch) {
    x = warp_max(x);
    __syncthreads();
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    float max = -INFINITE;
    for (unsigned i = 0; i < blockDim.x / WARP; ++i) max = fmaxf(max, scratch[i]);
    return max;
}

// ---- shared memory ----

// All shared memory of a block is one structure, whose size the launch gives.
template <class T> __device__ __forceinline__ T &shared() {
#if LR_EMULATED
    return *reinterpret_cast<T *>(emulated::shared_memory());
#else
    extern __shared__ __align__(1024) unsigned char shared_bytes[];
    return *reinterpret_cast<T *>(shared_bytes);
#endif
}

// Copies sixteen bytes from device to shared memory, later; `there` false writes zeros and reads nothing.
__device__ __forceinline__ void copy16_async(void *to, const void *from, bool there = true) {
#if LR_EMULATED
    emulated::copy_later(to, from, 16, !there);
#else
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
#endif
}

// What this thread asked for since the last call is a group.
__device__ __forceinline__ void commit_copies() {
#if LR_EMULATED
    emulated::close_copy_group();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most LEFT of this thread's groups are under way.
template <int LEFT> __device__ __forceinline__ void wait_for_copies() {
#if LR_EMULATED
    emulated::wait_for_copy_groups(LEFT);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

} // namespace lr
