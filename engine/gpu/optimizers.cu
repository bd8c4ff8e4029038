// One step of an optimizer for all parameters at once.
//
// A block does one chunk of one parameter.  `factors` are what varies from step to step.

struct Tensor {
    float *w;
    const float *g;
    float *first, *second;  // states of the update rule
    long long size;
    float decay;            // of the weights, added to the gradient
    float unused;
};

struct Chunk {
    int tensor, number;
};

const int CHUNK = 16384;

#define FOR_EACH_ELEMENT                                                   \
    const Tensor p = tensors[chunks[blockIdx.x].tensor];                   \
    long long begin = (long long)chunks[blockIdx.x].number * CHUNK;        \
    long long end = min(begin + CHUNK, p.size);                            \
    _Pragma("unroll 4")                                                    \
    for (long long i = begin + threadIdx.x; i < end; i += blockDim.x)

// factors: alpha_t * eta, 1 - beta1, 1 - beta2, eps, eta * weight_decay_rate
extern "C" __global__ void adam(const Tensor *tensors, const Chunk *chunks, const float *factors) {
    float alpha = factors[0], rate1 = factors[1], rate2 = factors[2];
    float eps = factors[3], decoupled = factors[4];
    FOR_EACH_ELEMENT {
        float w = p.w[i], g = p.g[i] + p.decay * w;
        float m = p.first[i], v = p.second[i];
        m += rate1 * (g - m);
        v += rate2 * (g * g - v);
        p.first[i] = m;
        p.second[i] = v;
        p.w[i] = w - (alpha * m / (sqrtf(v) + eps) + decoupled * w);
    }
}

// factors: lr, momentum
extern "C" __global__ void momentum_sgd(
        const Tensor *tensors, const Chunk *chunks, const float *factors) {
    float lr = factors[0], momentum = factors[1];
    FOR_EACH_ELEMENT {
        float w = p.w[i], g = p.g[i] + p.decay * w;
        float v = momentum * p.first[i] - lr * g;
        p.first[i] = v;
        p.w[i] = w + v;
    }
}

extern "C" __global__ void nesterov_ag(
        const Tensor *tensors, const Chunk *chunks, const float *factors) {
    float lr = factors[0], momentum = factors[1];
    FOR_EACH_ELEMENT {
        float w = p.w[i], g = p.g[i] + p.decay * w;
        float v = p.first[i], next = momentum * v - lr * g;
        p.first[i] = next;
        p.w[i] = w - momentum * v + (1 + momentum) * next;
    }
}
