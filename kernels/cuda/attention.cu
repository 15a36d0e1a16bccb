#include "runtime.cuh"

extern "C" int lr_gpu_attention(lr_stream *, const lr_attention_args *) {
    return lr::fail("attention: not yet");
}
