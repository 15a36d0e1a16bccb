#include "runtime.cuh"

extern "C" int lr_gpu_merge(lr_stream *, const lr_merge_args *) {
    return lr::fail("merge: not yet");
}
