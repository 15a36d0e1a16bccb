#include "runtime.cuh"

extern "C" int lr_gpu_sample(lr_stream *, const lr_sample_args *) {
    return lr::fail("sample: not yet");
}
