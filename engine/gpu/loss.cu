// Softmax cross-entropy of (n, classes) logits.

// By one block: y is the softmax, loss the mean over the examples whose label is not `ignored`, and
// coefficient 1 over their number.
extern "C" __global__ void softmax_cross_entropy(
        const T *x, const int *t, float *y, T *loss, float *coefficient, int n, int classes,
        int ignored) {
    __shared__ float sums[THREADS], counts[THREADS];
    float sum = 0, count = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        const T *logits = x + (long long)i * classes;
        float *probabilities = y + (long long)i * classes;
        float largest = logits[0], total = 0;
        for (int c = 1; c < classes; ++c)
            largest = fmaxf(logits[c], largest);
        for (int c = 0; c < classes; ++c)
            total += expf(logits[c] - largest);
        float log_total = logf(total);
        for (int c = 0; c < classes; ++c)
            probabilities[c] = expf(logits[c] - largest - log_total);
        if (t[i] != ignored) {
            sum += log_total - (logits[t[i]] - largest);
            count += 1;
        }
    }
    sums[threadIdx.x] = sum;
    counts[threadIdx.x] = count;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
            counts[threadIdx.x] += counts[threadIdx.x + half];
        }
    }
    if (threadIdx.x == 0) {
        *coefficient = 1 / fmaxf(counts[0], 1);
        *loss = sums[0] * *coefficient;
    }
}

// Of x, given that of the loss, one thread for each element.
extern "C" __global__ void softmax_cross_entropy_gradient(
        const float *y, const int *t, const T *gloss, const float *coefficient, T *gx, int n,
        int classes, int ignored) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)n * classes)
        return;
    int label = t[i / classes];
    float difference = y[i] - (label == i % classes);
    gx[i] = label == ignored ? 0 : *gloss * *coefficient * difference;
}
