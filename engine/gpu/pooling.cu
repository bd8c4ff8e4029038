// Pooling of (N, H, W, C) arrays without padding; each thread writes one element.

// `places` gets the place of each maximum in its window, counted row by row; of equal maxima the
// first counts.
extern "C" __global__ void maximum(
        const T *x, T *y, int *places, int n, int h, int w, int channels, int out_h,
        int out_w, int kh, int kw, int stride_y, int stride_x) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)n * out_h * out_w * channels)
        return;
    int c = i % channels, column = i / channels % out_w;
    int row = i / channels / out_w % out_h, image = i / channels / out_w / out_h;
    int top = row * stride_y, left = column * stride_x;
    float best = -__int_as_float(0x7f800000);  // -infinity: a whole window may lie beyond x
    int place = 0;
    for (int dy = 0; dy < min(kh, h - top); ++dy)
        for (int dx = 0; dx < min(kw, w - left); ++dx) {
            float value = x[(((long long)image * h + top + dy) * w + left + dx) * channels + c];
            if (value > best) {
                best = value;
                place = dy * kw + dx;
            }
        }
    y[i] = best;
    places[i] = place;
}

// Each element of gx is the sum over the windows that it lies in and whose maximum it is.
extern "C" __global__ void maximum_gradient(
        const T *gy, const int *places, T *gx, int n, int h, int w, int channels, int out_h,
        int out_w, int kh, int kw, int stride_y, int stride_x) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)n * h * w * channels)
        return;
    int c = i % channels, x = i / channels % w;
    int y = i / channels / w % h, image = i / channels / w / h;
    float sum = 0;
    for (int row = max(0, (y - kh + stride_y) / stride_y);
            row <= min(y / stride_y, out_h - 1); ++row)
        for (int column = max(0, (x - kw + stride_x) / stride_x);
                column <= min(x / stride_x, out_w - 1); ++column) {
            long long o = (((long long)image * out_h + row) * out_w + column) * channels + c;
            if (places[o] == (y - row * stride_y) * kw + x - column * stride_x)
                sum += gy[o];
        }
    gx[i] = sum;
}

// The mean over all pixels: y is (N, C).
extern "C" __global__ void average(const T *x, T *y, int n, int pixels, int channels) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * channels)
        return;
    const T *first = x + (long long)(i / channels) * pixels * channels + i % channels;
    float sum = 0;
    for (int pixel = 0; pixel < pixels; ++pixel)
        sum += first[(long long)pixel * channels];
    y[i] = sum / pixels;
}

// Each pixel gets an equal part of the gradient of the mean.
extern "C" __global__ void average_gradient(
        const T *gy, T *gx, int n, int pixels, int channels) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)n * pixels * channels)
        return;
    gx[i] = float(gy[i / channels / pixels * channels + i % channels]) / pixels;
}
