// Batch normalization of the columns of a (rows, channels) matrix.
//
// A block has CHANNELS x LANES threads: threadIdx.x is the channel and threadIdx.y the row, so that
// a warp reads 128 consecutive bytes of float.  gridDim.y blocks share the rows of their channels.
//
// A reduction is one kernel: each block writes its partial sums, and the block that finishes last
// adds them, always in the same order.  `finished` counts the finished blocks for each tile of
// channels; it is zero before and after.
//
// To hide the latency of memory a thread loads ROWS rows before it stores one, and the launch
// bounds let several blocks run on a multiprocessor.  If a matrix has few rows, a block holds all
// rows of its channels in registers, so that one kernel does what takes two for longer matrices.
// Such a block has CHANNELS_OF_FEW x LANES_OF_FEW threads: the fewer its channels, the more blocks
// share the work; eight are 32 bytes of float, the smallest piece in which memory is read.

struct Sums {
    float first, second;
};

__device__ Sums operator+(Sums a, Sums b) {
    return {a.first + b.first, a.second + b.second};
}

// Returns the sums over the lanes of a block to each of its threads.
template <int lanes = LANES, int channels = CHANNELS>
__device__ Sums over_lanes(Sums sums) {
    __shared__ Sums all[lanes][channels];
    __syncthreads();
    all[threadIdx.y][threadIdx.x] = sums;
    for (int half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half)
            all[threadIdx.y][threadIdx.x] = all[threadIdx.y][threadIdx.x]
                                            + all[threadIdx.y + half][threadIdx.x];
    }
    __syncthreads();
    return all[0][threadIdx.x];
}

// Adds up `sums` over all blocks that share the channels.  Returns true only in lane 0 of the block
// that finishes last, where `sums` is then the total.
__device__ bool over_blocks(Sums *sums, Sums *parts, int *finished, int channel, int channels) {
    __shared__ bool is_last;
    *sums = over_lanes(*sums);
    if (gridDim.y == 1)
        return threadIdx.y == 0;
    if (threadIdx.y == 0 && channel < channels)
        parts[blockIdx.y * channels + channel] = *sums;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0)
        is_last = atomicAdd(&finished[blockIdx.x], 1) == int(gridDim.y) - 1;
    __syncthreads();
    if (!is_last)
        return false;
    __threadfence();
    Sums total = {0, 0};
    if (channel < channels)
        for (int block = threadIdx.y; block < int(gridDim.y); block += LANES) {
            const volatile Sums *part = parts + block * channels + channel;  // not from L1
            total = total + Sums{part->first, part->second};
        }
    *sums = over_lanes(total);
    if (threadIdx.x == 0 && threadIdx.y == 0)
        finished[blockIdx.x] = 0;
    return threadIdx.y == 0;
}

__device__ int my_channel() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Loops over the rows of a thread, ROWS at a time; and over these rows, of which the k-th has its
// element of channel c at index i.
#define MY_ROWS                                                                    \
    const int step = gridDim.y * LANES;                                            \
    for (int first = blockIdx.y * LANES + threadIdx.y; first < rows; first += ROWS * step)
#define EACH_ROW                                                                   \
    _Pragma("unroll")                                                              \
    for (int k = 0; k < ROWS; ++k)                                                 \
        if (long long i = (long long)(first + k * step) * channels + c;            \
            first + k * step < rows)

// Loops over the rows that a thread holds where a block holds all rows of its channels.
#define EACH_HELD_ROW                                                              \
    _Pragma("unroll")                                                              \
    for (int k = 0; k < HELD; ++k)                                                 \
        if (int row = k * LANES_OF_FEW + threadIdx.y; row < rows && c < channels)  \
            if (long long i = (long long)row * channels + c; true)

// Returns the sums over the lanes of such a block.
__device__ Sums over_few(Sums sums) { return over_lanes<LANES_OF_FEW, CHANNELS_OF_FEW>(sums); }

// Updates running statistics as Chainer does, with the unbiased variance.
__device__ void update_running(
        float *running_mean, float *running_var, int c, float mean, float var, int rows,
        float decay) {
    float unbiased = var * (rows / fmaxf(rows - 1.f, 1.f));
    running_mean[c] = decay * running_mean[c] + (1 - decay) * mean;
    running_var[c] = decay * running_var[c] + (1 - decay) * unbiased;
}

// The mean and 1 / sqrt(variance + eps); running statistics are updated if there are any.
extern "C" __launch_bounds__(CHANNELS * LANES, 4) __global__ void statistics(
        const T *x, float *mean, float *inv_std, float *running_mean, float *running_var,
        Sums *parts, int *finished, int rows, int channels, float eps, float decay) {
    int c = my_channel();
    // Sums of deviations from one value of the channel: squares of values far from zero would
    // cancel.
    float near = c < channels ? float(x[c]) : 0;
    Sums sums = {0, 0};
    if (c < channels) {
        MY_ROWS {
            float values[ROWS];
            EACH_ROW
                values[k] = x[i];
            EACH_ROW {
                float deviation = values[k] - near;
                sums.first += deviation;
                sums.second += deviation * deviation;
            }
        }
    }
    if (!over_blocks(&sums, parts, finished, c, channels) || c >= channels)
        return;
    float deviation = sums.first / rows;
    float var = fmaxf(sums.second / rows - deviation * deviation, 0);
    mean[c] = near + deviation;
    inv_std[c] = 1 / sqrtf(var + eps);
    if (running_mean)
        update_running(running_mean, running_var, c, near + deviation, var, rows, decay);
}

// gamma * (x - mean) * inv_std + beta, plus the residual if there is one, then a ReLU if asked.
extern "C" __launch_bounds__(CHANNELS * LANES, 3) __global__ void normalize(
        const T *x, const float *mean, const float *inv_std, const float *gamma,
        const float *beta, const T *residual, T *y, int rows, int channels, int relu) {
    int c = my_channel();
    if (c >= channels)
        return;
    float m = mean[c], scale = gamma[c] * inv_std[c], b = beta[c];
    MY_ROWS {
        float values[ROWS];
        EACH_ROW
            values[k] = (x[i] - m) * scale + b + (residual ? float(residual[i]) : 0);
        EACH_ROW
            y[i] = relu && values[k] < 0 ? 0 : values[k];  // NaN stays NaN
    }
}

// `statistics` and `normalize` in one, for a matrix of few rows.
extern "C" __launch_bounds__(CHANNELS_OF_FEW * LANES_OF_FEW) __global__ void normalize_few(
        const T *x, float *mean, float *inv_std, float *running_mean, float *running_var,
        const float *gamma, const float *beta, const T *residual, T *y, int rows, int channels,
        float eps, float decay, int relu) {
    int c = my_channel();
    float values[HELD];
    Sums sums = {0, 0};
    EACH_HELD_ROW
        values[k] = x[i];
    EACH_HELD_ROW
        sums.first += values[k];
    float m = over_few(sums).first / rows;
    EACH_HELD_ROW
        sums.second += (values[k] - m) * (values[k] - m);
    float var = over_few(sums).second / rows;
    if (c >= channels)
        return;
    float deviation = 1 / sqrtf(var + eps), scale = gamma[c] * deviation, b = beta[c];
    if (threadIdx.y == 0) {
        mean[c] = m;
        inv_std[c] = deviation;
        if (running_mean)
            update_running(running_mean, running_var, c, m, var, rows, decay);
    }
    EACH_HELD_ROW
        values[k] = (values[k] - m) * scale + b + (residual ? float(residual[i]) : 0);
    EACH_HELD_ROW
        y[i] = relu && values[k] < 0 ? 0 : values[k];
}

// The gradient before the ReLU whose output is y: gy where y > 0, otherwise 0.  Without y, gy.
__device__ float before_relu(const T *gy, const T *y, long long i) {
    float gradient = gy[i];  // loaded whatever y is, so that neither load waits for the other
    return y && !(y[i] > 0) ? 0 : gradient;
}

// The gradients of gamma and beta.
extern "C" __launch_bounds__(CHANNELS * LANES, 4) __global__ void parameter_gradients(
        const T *x, const T *gy, const T *y, const float *mean, const float *inv_std,
        float *ggamma, float *gbeta, Sums *parts, int *finished, int rows, int channels) {
    int c = my_channel();
    Sums sums = {0, 0};
    if (c < channels) {
        float m = mean[c];
        MY_ROWS {
            float values[ROWS], gradients[ROWS];
            EACH_ROW {
                values[k] = x[i];
                gradients[k] = before_relu(gy, y, i);
            }
            EACH_ROW {
                sums.first += gradients[k] * (values[k] - m);
                sums.second += gradients[k];
            }
        }
    }
    if (!over_blocks(&sums, parts, finished, c, channels) || c >= channels)
        return;
    ggamma[c] = sums.first * inv_std[c];
    gbeta[c] = sums.second;
}

// The gradient of x, and that of the residual if there is room for it.
extern "C" __launch_bounds__(CHANNELS * LANES, 2) __global__ void input_gradient(
        const T *x, const T *gy, const T *y, const float *mean, const float *inv_std,
        const float *gamma, const float *ggamma, const float *gbeta, T *gx, T *gresidual, int rows,
        int channels) {
    int c = my_channel();
    if (c >= channels)
        return;
    float m = mean[c], scale = gamma[c] * inv_std[c];
    float slope = inv_std[c] * ggamma[c] / rows, offset = gbeta[c] / rows;
    MY_ROWS {
        float values[ROWS], gradients[ROWS];
        EACH_ROW {
            values[k] = x[i];
            gradients[k] = before_relu(gy, y, i);
        }
        EACH_ROW {
            gx[i] = scale * (gradients[k] - (values[k] - m) * slope - offset);
            if (gresidual)
                gresidual[i] = gradients[k];
        }
    }
}

// `parameter_gradients` and `input_gradient` in one, for a matrix of few rows.
extern "C" __launch_bounds__(CHANNELS_OF_FEW * LANES_OF_FEW) __global__ void gradients_of_few(
        const T *x, const T *gy, const T *y, const float *mean, const float *inv_std,
        const float *gamma, float *ggamma, float *gbeta, T *gx, T *gresidual, int rows,
        int channels) {
    int c = my_channel();
    float values[HELD], gradients[HELD], m = c < channels ? mean[c] : 0;
    Sums sums = {0, 0};
    EACH_HELD_ROW {
        values[k] = x[i];
        gradients[k] = before_relu(gy, y, i);
    }
    EACH_HELD_ROW {
        sums.first += gradients[k] * (values[k] - m);
        sums.second += gradients[k];
    }
    sums = over_few(sums);
    if (c >= channels)
        return;
    float deviation = inv_std[c], scale = gamma[c] * deviation;
    float slope = deviation * sums.first * deviation / rows, offset = sums.second / rows;
    if (threadIdx.y == 0) {
        ggamma[c] = sums.first * deviation;
        gbeta[c] = sums.second;
    }
    EACH_HELD_ROW {
        gx[i] = scale * (gradients[k] - (values[k] - m) * slope - offset);
        if (gresidual)
            gresidual[i] = gradients[k];
    }
}

// The sum of each channel.
extern "C" __launch_bounds__(CHANNELS * LANES, 4) __global__ void channel_sums(
        const T *x, T *sum, Sums *parts, int *finished, int rows, int channels) {
    int c = my_channel();
    Sums sums = {0, 0};
    if (c < channels) {
        MY_ROWS {
            float values[ROWS];
            EACH_ROW
                values[k] = x[i];
            EACH_ROW
                sums.first += values[k];
        }
    }
    if (over_blocks(&sums, parts, finished, c, channels) && c < channels)
        sum[c] = sums.first;
}
