// Products of small matrices by a warp (mma.sync m16n8k16, bf16 in, f32 sums), and the loads of their operands.
//
// Lane l holds, with g = l / 4 and t = l % 4 (two numbers in a word, the first in the low half):
//
//   A 16 x 16   a[0]: row g, columns 2t 2t+1    a[1]: row g + 8, same columns    a[2], a[3]: columns 2t+8 2t+9
//   B 16 x 8    b[0]: rows 2t 2t+1, column g    b[1]: rows 2t+8 2t+9, column g
//   C 16 x 8    c[0], c[1]: row g, columns 2t 2t+1                               c[2], c[3]: row g + 8
//
// So two C side by side, rounded to bf16, are an A: that is how probabilities become a factor without leaving registers.
#pragma once

#include "device.cuh"

namespace lr {

// c += a . b
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if LR_EMULATED
    struct Lane {
        float *c;
        uint32_t a[4], b[2];
    } mine{c, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulated::collective("mma", &mine, [](void **data) {
        float A[16][16], B[16][8];
        auto lane = [data](unsigned l) { return static_cast<Lane *>(data[l]); };
        for (unsigned l = 0; l < WARP; ++l) {
            const unsigned g = l / 4, t = l % 4;
            for (unsigned i = 0; i < 4; ++i) {
                float *to = &A[g + i % 2 * 8][2 * t + i / 2 * 8];
                to[0] = low(lane(l)->a[i]);
                to[1] = high(lane(l)->a[i]);
            }
            for (unsigned i = 0; i < 2; ++i) {
                B[2 * t + i * 8][g] = low(lane(l)->b[i]);
                B[2 * t + i * 8 + 1][g] = high(lane(l)->b[i]);
            }
        }
        float C[16][8] = {};
        for (unsigned row = 0; row < 16; ++row) {
            for (unsigned k = 0; k < 16; ++k) {
                for (unsigned column = 0; column < 8; ++column) C[row][column] += A[row][k] * B[k][column];
            }
        }
        for (unsigned l = 0; l < WARP; ++l) {
            for (unsigned i = 0; i < 4; ++i) lane(l)->c[i] += C[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
        }
    });
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Four matrices of 8 x 8 numbers. Lane l names row l % 8 of matrix l / 8, sixteen bytes of shared memory; it gets the
// numbers (g, 2t) and (g, 2t + 1) of each matrix, or TRANSPOSED (2t, g) and (2t + 1, g).
template <bool TRANSPOSED> __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void *row) {
#if LR_EMULATED
    struct Lane {
        const uint16_t *row;
        uint32_t *r;
    } mine{static_cast<const uint16_t *>(row), r};
    check_aligned(row);
    emulated::collective(TRANSPOSED ? "ldmatrix.trans" : "ldmatrix", &mine, [](void **data) {
        auto lane = [data](unsigned l) { return static_cast<Lane *>(data[l]); };
        for (unsigned l = 0; l < WARP; ++l) {
            const unsigned g = l / 4, t = l % 4;
            for (unsigned i = 0; i < 4; ++i) {
                auto at = [&](unsigned y, unsigned x) -> uint32_t { return lane(8 * i + y)->row[x]; };
                lane(l)->r[i] = TRANSPOSED ? at(2 * t, g) | at(2 * t + 1, g) << 16 : at(g, 2 * t) | at(g, 2 * t + 1) << 16;
            }
        }
    });
#else
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
    }
#endif
}

// A matrix of ROWS rows of COLUMNS bf16 in shared memory. Chunks of sixteen bytes of a row are exchanged so that the
// same chunk of eight rows, which ldmatrix reads at once, lies in different banks:
//
//   row 0   0 1 2 3 4 5 6 7      row 1   1 0 3 2 5 4 7 6      row 2   2 3 0 1 6 7 4 5      ...
template <unsigned ROWS, unsigned COLUMNS> struct alignas(128) Matrix {
    static constexpr unsigned CHUNKS = COLUMNS / 8;
    Words chunks[ROWS * CHUNKS];

    __device__ __forceinline__ Words *at(unsigned row, unsigned chunk) {
        return &chunks[row * CHUNKS + (chunk ^ (row % 8))];
    }

    // Rows row .. row + 16, columns 16 step .. + 16 as an A.
    __device__ __forceinline__ void load_a(uint32_t (&a)[4], unsigned row, unsigned step) {
        const unsigned l = lane_id();
        load_matrices<false>(a, at(row + l % 16, 2 * step + l / 16));
    }

    // The transposed of rows row .. row + 16, columns 16 step .. + 16, as two B: b[0], b[1] for the first eight rows.
    __device__ __forceinline__ void load_b_transposed(uint32_t (&b)[4], unsigned row, unsigned step) {
        const unsigned l = lane_id();
        load_matrices<false>(b, at(row + l % 8 + l / 16 * 8, 2 * step + l / 8 % 2));
    }

    // Rows row .. row + 16, columns 16 step .. + 16 as two B: b[0], b[1] for the first eight columns.
    __device__ __forceinline__ void load_b(uint32_t (&b)[4], unsigned row, unsigned step) {
        const unsigned l = lane_id();
        load_matrices<true>(b, at(row + l % 16, 2 * step + l / 16));
    }
};

} // namespace lr
