// Elementwise functions.  A thread does EACH elements, a block's width apart, and loads them before
// it stores one, for memory takes its time.

const int EACH = BYTES / sizeof(T);

#define EACH_ELEMENT                                                                          \
    _Pragma("unroll")                                                                         \
    for (int k = 0; k < EACH; ++k)                                                            \
        if (long long i = ((long long)blockIdx.x * EACH + k) * blockDim.x + threadIdx.x; i < n)

extern "C" __global__ void relu(const T *x, T *y, int n) {
    float values[EACH];
    EACH_ELEMENT
        values[k] = x[i];
    EACH_ELEMENT
        y[i] = values[k] < 0 ? 0 : values[k];  // NaN stays NaN
}

extern "C" __global__ void relu_gradient(const T *y, const T *gy, T *gx, int n) {
    float gradients[EACH];
    EACH_ELEMENT {
        gradients[k] = gy[i];
        gradients[k] = y[i] > 0 ? gradients[k] : 0;
    }
    EACH_ELEMENT
        gx[i] = gradients[k];
}

extern "C" __global__ void add(const T *a, const T *b, T *sum, int n) {
    float values[EACH];
    EACH_ELEMENT
        values[k] = a[i] + b[i];
    EACH_ELEMENT
        sum[i] = values[k];
}

// The first `size` elements by the first factor, the next by the second, and so on.
extern "C" __global__ void scale(const T *x, const T *factors, T *y, int size, int n) {
    float values[EACH];
    EACH_ELEMENT {
        values[k] = x[i];
        values[k] = factors[i / size] * values[k];
    }
    EACH_ELEMENT
        y[i] = values[k];
}
