// One step of an optimizer for all parameters at once, from tensor lists.
//
// Each block updates one chunk of one parameter.  `factors` holds the numbers that vary from step
// to step; the first is 1 over the loss scale.  If *found_inf is not 0, nothing is changed.

struct Tensor {
    float *w;
    const void *g;          // points to T if there is a copy, otherwise to float
    float *first, *second;  // states of the update rule
    T *copy;                // float16 weights, rounded from w; may be null
    long long size;         // elements
    float decay;            // rate of weight decay: decay * w is added to the gradient
    float unused;
};

struct Chunk {
    int tensor, number;
};

#define FOR_EACH_ELEMENT                                                   \
    long long begin = (long long)chunks[blockIdx.x].number * CHUNK;        \
    long long end = min(begin + CHUNK, p.size);                            \
    _Pragma("unroll 4")                                                    \
    for (long long i = begin + threadIdx.x; i < end; i += blockDim.x)

#define FOR_EACH_WEIGHT                                                    \
    if (found_inf && *found_inf)                                           \
        return;                                                            \
    const Tensor p = tensors[chunks[blockIdx.x].tensor];                   \
    float unscale = factors[0];                                            \
    FOR_EACH_ELEMENT

__device__ float gradient(const Tensor &p, long long i) {
    return p.copy ? float(((const T *)p.g)[i]) : ((const float *)p.g)[i];
}

__device__ void store(const Tensor &p, long long i, float w) {
    p.w[i] = w;
    if (p.copy)
        p.copy[i] = w;
}

// Sets *found_inf to 1 if an element of a gradient is infinite or NaN.
extern "C" __global__ void find_inf(
        const Tensor *tensors, const Chunk *chunks, int *found_inf) {
    const Tensor p = tensors[chunks[blockIdx.x].tensor];
    bool found = false;
    FOR_EACH_ELEMENT
        found |= !(fabsf(gradient(p, i)) <= 3.4028235e38f);
    if (found)
        *found_inf = 1;
}

// factors: 1 / loss scale, alpha_t * eta, 1 - beta1, 1 - beta2, eps, eta * weight_decay_rate
extern "C" __global__ void adam(
        const Tensor *tensors, const Chunk *chunks, const float *factors, const int *found_inf) {
    float alpha = factors[1], rate1 = factors[2], rate2 = factors[3];
    float eps = factors[4], decoupled = factors[5];
    FOR_EACH_WEIGHT {
        float w = p.w[i], g = gradient(p, i) * unscale + p.decay * w;
        float m = p.first[i], v = p.second[i];
        m += rate1 * (g - m);
        v += rate2 * (g * g - v);
        p.first[i] = m;
        p.second[i] = v;
        store(p, i, w - (alpha * m / (sqrtf(v) + eps) + decoupled * w));
    }
}

// factors: 1 / loss scale, lr, momentum; those of nesterov_ag too
extern "C" __global__ void momentum_sgd(
        const Tensor *tensors, const Chunk *chunks, const float *factors, const int *found_inf) {
    float lr = factors[1], momentum = factors[2];
    FOR_EACH_WEIGHT {
        float w = p.w[i], g = gradient(p, i) * unscale + p.decay * w;
        float v = momentum * p.first[i] - lr * g;
        p.first[i] = v;
        store(p, i, w + v);
    }
}

extern "C" __global__ void nesterov_ag(
        const Tensor *tensors, const Chunk *chunks, const float *factors, const int *found_inf) {
    float lr = factors[1], momentum = factors[2];
    FOR_EACH_WEIGHT {
        float w = p.w[i], g = gradient(p, i) * unscale + p.decay * w;
        float v = p.first[i], next = momentum * v - lr * g;
        p.first[i] = next;
        store(p, i, w - momentum * v + (1 + momentum) * next);
    }
}
