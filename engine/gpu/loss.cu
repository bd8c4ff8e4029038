// Softmax cross-entropy of (n, classes) logits.

// Softmax y and loss, by a single block.  With a coefficient the loss is the mean over the
// examples whose label is not `ignored`, and the coefficient 1 over their number; without one
// there is a loss for each example.
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
        bool ignore = t[i] == ignored;
        float own = ignore ? 0 : log_total - (logits[t[i]] - largest);
        sum += own;
        count += !ignore;
        if (!coefficient)
            loss[i] = own;
    }
    if (!coefficient)
        return;
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

// Gradient of the logits, given that of the loss or of each example's; a thread for each element.
extern "C" __global__ void softmax_cross_entropy_gradient(
        const float *y, const int *t, const T *gloss, const float *coefficient, T *gx, int n,
        int classes, int ignored) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)n * classes)
        return;
    int example = i / classes, label = t[example];
    float difference = y[i] - (label == i % classes);
    float factor = gloss[coefficient ? 0 : example];
    if (coefficient)
        factor *= *coefficient;
    gx[i] = label == ignored ? 0 : factor * difference;
}
