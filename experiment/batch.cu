// A training batch out of the whole data set: gathered, augmented and normalised.
//
// sources has seven numbers for each image of the batch: its index in the set, then a, b, c, d, e,
// f.  Pixel (row, column) is that at (a row + b column + c, d row + e column + f) of the original,
// and black where there is none.  x is (N, H, W, C), one thread for each element.
extern "C" __global__ void batch(
        const unsigned char *images, const int *labels, const int *sources, const float *scale,
        const float *shift, float *x, int *t, int n, int channels, int h, int w, int reverse) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)n * h * w * channels)
        return;
    int c = i % channels, column = i / channels % w;
    int row = i / channels / w % h, image = i / channels / w / h;
    const int *source = sources + 7 * image;
    int from_row = source[1] * row + source[2] * column + source[3];
    int from_column = source[4] * row + source[5] * column + source[6];
    float value = 0;
    if (0 <= from_row && from_row < h && 0 <= from_column && from_column < w) {
        int channel = reverse ? channels - 1 - c : c;
        value = images[(((long long)source[0] * channels + channel) * h + from_row) * w
                       + from_column];
    }
    x[i] = __fadd_rn(__fmul_rn(value, scale[c]), shift[c]);  // rounded twice, as NumPy does
    if (row == 0 && column == 0 && c == 0)
        t[image] = labels[source[0]];
}
