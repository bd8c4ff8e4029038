// Elementwise functions.  A block does EACH elements for each of its threads, which are a block's
// width apart.  What is written is nothing that is read, says __restrict__: so a thread may load
// several elements before it stores one.

const int EACH = 4;

#define FOR_EACH_ELEMENT                                                               \
    long long begin = (long long)blockIdx.x * blockDim.x * EACH;                       \
    long long end = min(begin + blockDim.x * EACH, (long long)n);                      \
    _Pragma("unroll 4")                                                                \
    for (long long i = begin + threadIdx.x; i < end; i += blockDim.x)

extern "C" __global__ void relu(const T *x, T *__restrict__ y, int n) {
    FOR_EACH_ELEMENT {
        float value = x[i];
        y[i] = value < 0 ? 0 : value;  // NaN stays NaN
    }
}

extern "C" __global__ void relu_gradient(const T *y, const T *gy, T *__restrict__ gx, int n) {
    FOR_EACH_ELEMENT {
        float value = y[i], gradient = gy[i];
        gx[i] = value > 0 ? gradient : 0;
    }
}

extern "C" __global__ void add(const T *a, const T *b, T *__restrict__ sum, int n) {
    FOR_EACH_ELEMENT
        sum[i] = a[i] + b[i];
}

// The factor is read from memory where there is a pointer to it.
extern "C" __global__ void scale(
        const T *x, T *__restrict__ y, float value, const float *factor, int n) {
    float by = factor ? *factor : value;
    FOR_EACH_ELEMENT
        y[i] = by * x[i];
}
