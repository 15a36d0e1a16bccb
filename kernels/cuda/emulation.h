// Runs CUDA kernels on the processor, to test their logic: every thread of a block is a fiber.
//
// What is strict here is what a GPU leaves undefined, so that mistakes show:
// * device memory ends at a page that can't be touched, and is filled with 0xFF (NaN in every type) when it is given
//   out, as is shared memory at the start of each block;
// * a fiber runs until it has to wait, so that it is as far ahead of the others as synchronisation lets it be;
//   LR_EMULATED_ORDER=backward|random changes who goes first;
// * asynchronous copies poison their target when they are issued and write it when they are waited for, those of the
//   copy engine when no thread can go on without them (LR_EMULATED_ORDER=random: some earlier);
// * a thread that ends without having waited for earlier kernels is an error;
// * lanes that meet in different collective operations, and barriers that not all threads reach, are errors;
// * work put on a stream runs when somebody waits for it, and not before.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulated {

struct Lane;
extern thread_local Lane *running;

struct Place {
    dim3 thread, block, block_size, grid_size;
    unsigned lane, warp;
};
const Place &place();

// The thread has waited for earlier kernels.
void began();
// The kernel goes on when all threads of barrier `id` are there.
void barrier(unsigned id, unsigned threads);
// All lanes of the warp hand in `data`; the last one does `work` for all of them.
void collective(const char *what, void *data, void (*work)(void **data));
// Ends the launch with an error.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

void copy_later(void *to, const void *from, unsigned bytes, bool zero);
void close_copy_group();
void wait_for_copy_groups(unsigned left_open);

// A barrier in shared memory, of phases that end when so many arrivals and all bytes that were announced are there.
struct PhaseBarrier {
    uint16_t phase, wanted, missing, magic;
    int64_t bytes;
};
void phase_init(PhaseBarrier &barrier, unsigned arrivals);
void phase_arrive(PhaseBarrier &barrier, unsigned bytes);
// The kernel goes on when the phase of this parity is over.
void phase_wait(const PhaseBarrier &barrier, unsigned parity);
// A copy by the copy engine, which tells `barrier` of its bytes when it is done: not before all threads wait.
void engine_copy(void *to, const void *from, unsigned bytes, PhaseBarrier &barrier);

unsigned char *shared_memory();

// Runs a kernel; false, with the reason in `error`, if it went wrong.
bool run_grid(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()> &kernel, char *error, size_t n);

} // namespace emulated

#define threadIdx (emulated::place().thread)
#define blockIdx (emulated::place().block)
#define blockDim (emulated::place().block_size)
#define gridDim (emulated::place().grid_size)

inline float rsqrtf(float x) {
    return 1.f / sqrtf(x);
}

inline void __syncthreads() {
    emulated::barrier(0, blockDim.x);
}
