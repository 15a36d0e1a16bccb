// Where numbers lie in a page: the sixteen tokens of a block at one head of k, of keys or of values.
//
// In bf16 a page is cut into panels of 64 columns, whose rows of 128 bytes are swizzled as products on Hopper want them
// in shared memory (hopper.cuh), so that a panel is copied there as it lies, in one piece of 2 KiB:
//
//   panel 0 (columns 0 .. 63)                  panel 1 (columns 64 .. 127)
//   token 0: chunks 0 1 2 3 4 5 6 7            ...
//   token 1: chunks 1 0 3 2 5 4 7 6            a chunk is eight numbers, sixteen bytes;
//   token 2: chunks 2 3 0 1 6 7 4 5            chunk c of token t stands at place c ^ t % 8
//   ...
//   token 15
//
// A last panel of fewer columns is not swizzled. In e4m3 columns lie in their order: they are widened on the way.
#pragma once

#include "device.cuh"

namespace lr {

constexpr unsigned PANEL_CHUNKS = 8; // 64 columns

// Chunks of a page before chunk `chunk` of a token, of `chunks` that a token has.
__device__ __forceinline__ unsigned place_in_page(unsigned token, unsigned chunk, unsigned chunks) {
    const unsigned first = chunk / PANEL_CHUNKS * PANEL_CHUNKS, in_panel = chunk - first;
    const unsigned width = chunks - first < PANEL_CHUNKS ? chunks - first : PANEL_CHUNKS;
    return first * LR_BLOCK_TOKENS + token * width + (width == PANEL_CHUNKS ? in_panel ^ token % 8 : in_panel);
}

} // namespace lr
