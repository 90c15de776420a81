// Convolution on a GPU without a library: products whose left operand is gathered from the picture on the fly (implicit GEMM: Chetlur et al. 2014), grid z over groups.
//
//     forward        pixels of y     x  output channels   over  channel, tap
//     gradient of x  pixels of x     x  channels          over  output channel, tap (those that reach the pixel)
//     gradient of w  output channels x  channel and tap   over  pixels of y, in slices of CONV_SLICE that a second kernel adds in their order

#include "gpu_worker/kernels/cuda/conv.h"
#include "gpu_worker/kernels/cuda/tile.cuh"

struct pixel {
    int64_t image, row, column;
};

DJ_FN struct pixel pixel_of(int64_t index, int64_t height, int64_t width)
{
    struct pixel pixel;
    pixel.column = index % width;
    index /= width;
    pixel.row = index % height;
    pixel.image = index / height;
    return pixel;
}

DJ_FN int64_t place(const struct conv_plane *stride, int64_t image, int64_t channel, int64_t row, int64_t column)
{
    return image * stride->image + channel * stride->channel + row * stride->row + column * stride->column;
}

struct tap {
    int64_t channel, row, column;
};

DJ_FN struct tap tap_of(const struct conv_args *args, int64_t index)
{
    struct tap tap;
    tap.column = index % args->kernel_w;
    index /= args->kernel_w;
    tap.row = index % args->kernel_h;
    tap.channel = index / args->kernel_h;
    return tap;
}

// x under a tap of an output pixel; outside the picture 0.
template <typename T>
DJ_FN float under(const struct conv_args *args, const struct pixel &y, const struct tap &tap, int64_t channel)
{
    int64_t row = y.row * args->stride_h - args->pad_h + tap.row * args->step_h;
    int64_t column = y.column * args->stride_w - args->pad_w + tap.column * args->step_w;
    if (row < 0 || row >= args->in_h || column < 0 || column >= args->in_w)
        return 0.0f;
    return dj_load((const T *)args->x + place(&args->x_stride, y.image, channel, row, column));
}

template <typename T> DJ_FN float weight_at(const struct conv_args *args, int64_t output, const struct tap &tap)
{
    return dj_load((const T *)args->weight + place(&args->weight_stride, output, tap.channel, tap.row, tap.column));
}

template <typename T> struct forward_a {
    typedef struct pixel Row;
    const struct conv_args *args;
    int64_t group;
    DJ_FN Row row(int64_t m) const
    {
        return pixel_of(m, args->out_h, args->out_w);
    }
    DJ_FN float at(const Row &y, int64_t k) const
    {
        struct tap tap = tap_of(args, k);
        return under<T>(args, y, tap, group * args->channels + tap.channel);
    }
};
template <typename T> struct forward_b {
    const struct conv_args *args;
    int64_t group;
    DJ_FN float at(int64_t n, int64_t k) const
    {
        return weight_at<T>(args, group * args->outputs + n, tap_of(args, k));
    }
};
template <typename T> struct forward_c {
    const struct conv_args *args;
    int64_t group;
    DJ_FN void put(int64_t m, int64_t n, float sum) const
    {
        struct pixel y = pixel_of(m, args->out_h, args->out_w);
        int64_t output = group * args->outputs + n;
        if (args->bias != nullptr)
            sum += dj_load((const T *)args->bias + output * args->bias_stride);
        dj_store((T *)args->y + place(&args->y_stride, y.image, output, y.row, y.column), sum);
    }
};
template <typename T> DJ_FN void forward(const struct conv_args *args)
{
    for (int64_t group = blockIdx.z; group < args->groups; group += gridDim.z)
        dj_tiles(args->images * args->out_h * args->out_w, args->outputs, args->channels * args->kernel_h * args->kernel_w,
                 forward_a<T>{args, group}, forward_b<T>{args, group}, forward_c<T>{args, group});
}

// Gradient of x: the gradient of y where a tap of it lies on the pixel.
template <typename T> struct input_a {
    typedef struct pixel Row;
    const struct conv_args *args;
    int64_t group;
    DJ_FN Row row(int64_t m) const
    {
        return pixel_of(m, args->in_h, args->in_w);
    }
    DJ_FN float at(const Row &x, int64_t k) const
    {
        struct tap tap = tap_of(args, k);    // its channel is the output's
        int64_t row = x.row + args->pad_h - tap.row * args->step_h, column = x.column + args->pad_w - tap.column * args->step_w;
        if (row < 0 || column < 0 || row % args->stride_h != 0 || column % args->stride_w != 0)
            return 0.0f;
        row /= args->stride_h;
        column /= args->stride_w;
        if (row >= args->out_h || column >= args->out_w)
            return 0.0f;
        return dj_load((const T *)args->y + place(&args->y_stride, x.image, group * args->outputs + tap.channel, row, column));
    }
};
template <typename T> struct input_b {
    const struct conv_args *args;
    int64_t group;
    DJ_FN float at(int64_t n, int64_t k) const
    {
        struct tap tap = tap_of(args, k);
        int64_t output = group * args->outputs + tap.channel;
        tap.channel = n;
        return weight_at<T>(args, output, tap);
    }
};
template <typename T> struct input_c {
    const struct conv_args *args;
    int64_t group;
    DJ_FN void put(int64_t m, int64_t n, float sum) const
    {
        struct pixel x = pixel_of(m, args->in_h, args->in_w);
        dj_store((T *)args->out + place(&args->x_stride, x.image, group * args->channels + n, x.row, x.column), sum);
    }
};
template <typename T> DJ_FN void input(const struct conv_args *args)
{
    for (int64_t group = blockIdx.z; group < args->groups; group += gridDim.z)
        dj_tiles(args->images * args->in_h * args->in_w, args->channels, args->outputs * args->kernel_h * args->kernel_w,
                 input_a<T>{args, group}, input_b<T>{args, group}, input_c<T>{args, group});
}

// Gradient of the weight, one slice of the pixels.
template <typename T> struct weight_a {
    typedef int64_t Row;
    const struct conv_args *args;
    int64_t group, first;
    DJ_FN Row row(int64_t m) const
    {
        return group * args->outputs + m;
    }
    DJ_FN float at(const Row &output, int64_t k) const
    {
        struct pixel y = pixel_of(first + k, args->out_h, args->out_w);
        return dj_load((const T *)args->y + place(&args->y_stride, y.image, output, y.row, y.column));
    }
};
template <typename T> struct weight_b {
    const struct conv_args *args;
    int64_t group, first;
    DJ_FN float at(int64_t n, int64_t k) const
    {
        struct tap tap = tap_of(args, n);
        return under<T>(args, pixel_of(first + k, args->out_h, args->out_w), tap, group * args->channels + tap.channel);
    }
};
template <typename T> DJ_FN void put_weight(const struct conv_args *args, int64_t output, int64_t index, float sum)
{
    struct tap tap = tap_of(args, index);
    dj_store((T *)args->out + place(&args->weight_stride, output, tap.channel, tap.row, tap.column), sum);
}
template <typename T> struct weight_c {
    const struct conv_args *args;
    int64_t group, slice;
    DJ_FN void put(int64_t m, int64_t n, float sum) const
    {
        int64_t taps = args->channels * args->kernel_h * args->kernel_w, output = group * args->outputs + m;
        if (args->slice == nullptr)
            put_weight<T>(args, output, n, sum);
        else
            args->slice[(slice * args->groups * args->outputs + output) * taps + n] = sum;
    }
};
template <typename T> DJ_FN void weight(const struct conv_args *args)
{
    int64_t pixels = args->images * args->out_h * args->out_w;
    for (int64_t both = blockIdx.z; both < args->groups * args->slices; both += gridDim.z) {
        int64_t group = both / args->slices, slice = both % args->slices, first = slice * CONV_SLICE;
        int64_t left = pixels - first, count = args->slices == 1 || left < CONV_SLICE ? left : (int64_t)CONV_SLICE;
        dj_tiles(args->outputs, args->channels * args->kernel_h * args->kernel_w, count, weight_a<T>{args, group, first},
                 weight_b<T>{args, group, first}, weight_c<T>{args, group, slice});
    }
}

template <typename T> DJ_FN void weight_join(const struct conv_args *args)
{
    int64_t taps = args->channels * args->kernel_h * args->kernel_w, all = args->groups * args->outputs * taps;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
        float sum = 0;
        for (int64_t slice = 0; slice < args->slices; slice++)
            sum += args->slice[slice * all + i];
        put_weight<T>(args, i / taps, i % taps, sum);
    }
}

// The bias behind a library's product.
template <typename T> DJ_FN void add_bias(const struct conv_args *args)
{
    int64_t outputs = args->groups * args->outputs, all = args->images * outputs * args->out_h * args->out_w;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
        struct pixel y = pixel_of(i, args->out_h, args->out_w);
        int64_t output = y.image % outputs;
        T *at = (T *)args->y + place(&args->y_stride, y.image / outputs, output, y.row, y.column);
        dj_store(at, dj_load(at) + dj_load((const T *)args->bias + output * args->bias_stride));
    }
}

#define CONV(suffix, T) \
    DJ_KERNEL(conv_forward_##suffix, struct conv_args, TILE_THREADS) \
    { \
        forward<T>(args); \
    } \
    DJ_KERNEL(conv_bias_##suffix, struct conv_args, TILE_THREADS) \
    { \
        add_bias<T>(args); \
    } \
    DJ_KERNEL(conv_input_##suffix, struct conv_args, TILE_THREADS) \
    { \
        input<T>(args); \
    } \
    DJ_KERNEL(conv_weight_##suffix, struct conv_args, TILE_THREADS) \
    { \
        weight<T>(args); \
    } \
    DJ_KERNEL(conv_weight_join_##suffix, struct conv_args, TILE_THREADS) \
    { \
        weight_join<T>(args); \
    }
CONV(f32, float)
CONV(f16, dj_half)
CONV(bf16, dj_bfloat)
