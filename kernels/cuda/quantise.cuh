// Eight-bit floating point numbers (e4m3: sign, 4 bits of exponent with bias 7, 3 of mantissa; largest 448, no
// infinity), with a factor for each row.
#pragma once

#include "device.cuh"

namespace lr {

constexpr float E4M3_MAX = 448.f;

// The factor that maps the largest magnitude to the largest number.
__device__ __forceinline__ float e4m3_scale(float largest) {
    return largest > 0.f ? largest / E4M3_MAX : 1.f;
}

// Rounded to the nearest, ties to even; beyond 448 to 448. What cvt.rn.satfinite.e4m3x2 does, for devices without it.
__device__ inline uint32_t software_e4m3(float x) {
    const uint32_t sign = float_to_bits(x) >> 24 & 0x80;
    if (x != x) return sign | 0x7F;
    const float magnitude = fminf(fabsf(x), E4M3_MAX);
    const int power = static_cast<int>(float_to_bits(magnitude) >> 23) - 127;
    const int exponent = power < -6 ? -6 : power;
    // In steps of 2^(exponent - 3): 8 to 16 of them (16 carries into the exponent), fewer only for subnormal numbers.
    const float steps = rintf(magnitude * bits_to_float(static_cast<uint32_t>(127 + 3 - exponent) << 23));
    return sign | (static_cast<uint32_t>(exponent + 6) * 8 + static_cast<uint32_t>(steps));
}

// Two numbers in sixteen bits, the first in the low half.
__device__ __forceinline__ uint32_t pack_e4m3(float low, float high) {
#if !defined(LR_EMULATED) && __CUDA_ARCH__ >= 890
    uint16_t pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return software_e4m3(low) | software_e4m3(high) << 8;
#endif
}

// Two e4m3 in the low half of a word as two bf16, exactly: the exponent's bits are put where bf16 has its own, and a
// product with 2^120 makes up for the other bias.
__device__ __forceinline__ uint32_t e4m3_pair_to_bf16(uint32_t pair) {
    const uint32_t spread = (pair & 0xFF) | (pair & 0xFF00) << 8;
    const uint32_t small = (spread & 0x00800080) << 8 | (spread & 0x007F007F) << 4;
    constexpr uint32_t TWO_TO_120 = 0x7B807B80;
#if LR_EMULATED
    return pack(low(small) * low(TWO_TO_120), high(small) * high(TWO_TO_120));
#else
    uint32_t word;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(small), "r"(TWO_TO_120), "r"(0x80008000)); // plus -0: a product
    return word;
#endif
}

struct alignas(8) Bytes8 {
    uint32_t w[2];
};

// Eight numbers times `factor`.
__device__ __forceinline__ void store8_e4m3(uint8_t *p, const float (&x)[8], float factor) {
    Bytes8 bytes;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        bytes.w[i] = pack_e4m3(x[4 * i] * factor, x[4 * i + 1] * factor) |
                     pack_e4m3(x[4 * i + 2] * factor, x[4 * i + 3] * factor) << 16;
    }
    *reinterpret_cast<Bytes8 *>(p) = bytes;
}

} // namespace lr
