// The copy engine of Hopper, and the barriers that tell of its copies.
//
// A barrier lies in shared memory and goes through phases. A phase ends when all arrivals that it was made for, and all
// bytes that were announced in it, are there; whoever waits for phase 0, 1, 2, ... waits with its parity. Waiting for
// parity 1 before the first phase has ended succeeds at once, as if a phase had gone before.
#pragma once

#include "device.cuh"

namespace lr {

#if LR_EMULATED
using PhaseBarrier = emulated::PhaseBarrier;
#else
struct PhaseBarrier {
    uint64_t state;
};

__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
#endif

__device__ __forceinline__ void init(PhaseBarrier &barrier, unsigned arrivals) {
#if LR_EMULATED
    emulated::phase_init(barrier, arrivals);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
#endif
}

// By the thread that initialised barriers, before others, and the copy engine, may use them: then all meet.
__device__ __forceinline__ void publish_barriers() {
#if !LR_EMULATED
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

__device__ __forceinline__ void arrive(PhaseBarrier &barrier) {
#if LR_EMULATED
    emulated::phase_arrive(barrier, 0);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
#endif
}

// Arrives, and announces bytes that the copy engine will bring in this phase.
__device__ __forceinline__ void arrive_announcing(PhaseBarrier &barrier, unsigned bytes) {
#if LR_EMULATED
    emulated::phase_arrive(barrier, bytes);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ void wait_for_phase(const PhaseBarrier &barrier, unsigned parity) {
#if LR_EMULATED
    emulated::phase_wait(barrier, parity);
#else
    asm volatile("{\n.reg .pred p;\n"
                 "AGAIN:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra DONE;\n"
                 "bra AGAIN;\n"
                 "DONE:\n}\n" ::"r"(shared_address(&barrier)), "r"(parity) : "memory");
#endif
}

// Copies `bytes`, a multiple of sixteen, from device to shared memory, later; `barrier` is told. One thread asks.
__device__ __forceinline__ void copy_by_engine(void *to, const void *from, unsigned bytes, PhaseBarrier &barrier) {
#if LR_EMULATED
    emulated::engine_copy(to, from, bytes, barrier);
#else
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(&barrier))
                 : "memory");
#endif
}

// ---- warps with work of their own ----

// `threads` of the block, a multiple of 32, that come to barrier `id` (1 to 15; 0 is __syncthreads') wait for each other.
__device__ __forceinline__ void sync_some(unsigned id, unsigned threads) {
#if LR_EMULATED
    emulated::barrier(id, threads);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// Gives registers of a group of four warps to others, or takes some that others gave.
template <unsigned REGISTERS> __device__ __forceinline__ void keep_registers() {
#if !LR_EMULATED
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
#endif
}

template <unsigned REGISTERS> __device__ __forceinline__ void take_registers() {
#if !LR_EMULATED
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
#endif
}

} // namespace lr
