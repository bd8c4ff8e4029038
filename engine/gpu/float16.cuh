// A float16 number in memory that is converted to float32 for every computation.
#include <cuda_fp16.h>

struct float16 {
    __half value;

    float16() = default;
    __device__ float16(float number) : value(__float2half_rn(number)) {}
    __device__ operator float() const { return __half2float(value); }
};
