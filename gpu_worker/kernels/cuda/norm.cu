// Norms on a GPU: y = (x - mean) / sqrt(var + eps) * weight + bias, and their gradients. loss.cuh is part of this image.
//
// Layer norm and group norm: a block a row (norm_rows.cuh).
//
// Batch norm in training, and all gradients of weights, are two sums a channel: norm_sums cuts each into parts by shape alone,
// norm_finish adds these in order, in double; norm_apply then makes each value from its channel's numbers.

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/index.cuh"
#include "gpu_worker/kernels/cuda/loss.cuh"
#include "gpu_worker/kernels/cuda/norm.h"
#include "gpu_worker/kernels/cuda/norm_rows.cuh"

// Sums of channels -----------------------------------------------------------------------------------------------------------

// A channel's first value, about which its moments are taken; 0 where it is no number, so that infinities stay what they are.
template <typename T> DJ_FN float norm_pivot(const T *x)
{
    float value = dj_load(x);
    return value - value == 0 ? value : 0.0f;
}

// The two sums of one channel over items first, first + step, ... before `last`.
template <typename T>
DJ_FN void channel_sums(const struct norm_sums_args *args, int64_t channel, int64_t first, int64_t last, int64_t step,
                        double *ret_a, double *ret_b)
{
    const struct loop *item = &args->item;
    const T *x = (const T *)args->x + place_cold(&args->channel, 0, channel);
    const T *g = (const T *)args->gradient + place_cold(&args->channel, 1, channel);
    // Place (outer, inner) of an item where there are at most two dimensions, kept up to date without divisions.
    uint32_t top = item->rank < 2 ? 0 : item->rank - 1;
    int64_t size = item->rank < 2 ? INT64_MAX : item->size[1], outer = first / size, inner = first % size;
    int64_t outer_step = step / size, inner_step = step % size;
    bool is_moments = args->sum == NORM_SUM_MOMENTS, is_rows = args->sum == NORM_SUM_ROWS;
    float mean = is_moments ? (first < last ? norm_pivot(x) : 0.0f)
                 : is_rows  ? 0.0f
                            : vector_cold(&args->mean, channel, 0.0f),
          rstd = 1;
    int64_t group = is_rows ? channel / args->per_group : 0;
    double a = 0, b = 0;

    DJ_ROLLED
    for (int64_t i = first; i < last; i += step) {
        int64_t x_at = outer * item->stride[0][0] + inner * item->stride[0][top];
        int64_t g_at = outer * item->stride[1][0] + inner * item->stride[1][top];
        if (item->rank > 2) {
            x_at = place_cold(item, 0, i);
            g_at = place_cold(item, 1, i);
        }
        if (is_rows) {
            int64_t row = (args->per_row == 1 ? i : i / args->per_row) * args->groups + group;
            mean = vector_at(&args->mean, row, 0.0f);
            rstd = vector_at(&args->rstd, row, 1.0f);
        }
        float right = (dj_load(x + x_at) - mean) * rstd, left = is_moments ? right : dj_load(g + g_at);
        a += (double)left;
        b += (double)left * (double)right;
        outer += outer_step;
        inner += inner_step;
        if (inner >= size) {
            inner -= size;
            outer++;
        }
    }
    *ret_a = a;
    *ret_b = b;
}

template <typename T> DJ_FN void norm_sums(const struct norm_sums_args *args)
{
    DJ_SHARED(double, partial, 2 * NORM_SUM_THREADS);
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int64_t start = blockIdx.y * args->items_per_split, end = start + args->items_per_split;
    int64_t tiles = args->is_by_lanes ? (args->channels + 31) / 32 : args->channels;
    double *ret_a = args->partial + blockIdx.y * args->channels, *ret_b = ret_a + gridDim.y * args->channels;
    if (end > args->items)
        end = args->items;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        double a = 0, b = 0;
        if (!args->is_by_lanes) {
            channel_sums<T>(args, tile, start + threadIdx.x, end, blockDim.x, &a, &b);
            a = dj_block_all(a, dj_add(), 0.0);
            b = dj_block_all(b, dj_add(), 0.0);
            if (threadIdx.x == 0) {
                ret_a[tile] = a;
                ret_b[tile] = b;
            }
            continue;
        }
        int64_t channel = tile * 32 + lane;
        if (channel < args->channels)
            channel_sums<T>(args, channel, start + warp, end, warps, &a, &b);
        dj_sync();    // whoever read `partial` of the tile before is through
        partial[threadIdx.x] = a;
        partial[NORM_SUM_THREADS + threadIdx.x] = b;
        dj_sync();
        if (warp == 0 && channel < args->channels) {
            for (unsigned w = 1; w < warps; w++) {
                a += partial[w * 32 + lane];
                b += partial[NORM_SUM_THREADS + w * 32 + lane];
            }
            ret_a[channel] = a;
            ret_b[channel] = b;
        }
    }
}

DJ_FN float first_value(const struct norm_finish_args *args, int64_t channel)
{
    int64_t at = channel * args->step;
    switch (args->x_kind) {
    case NORM_F16: return norm_pivot((const dj_half *)args->x + at);
    case NORM_BF16: return norm_pivot((const dj_bfloat *)args->x + at);
    default: return norm_pivot((const float *)args->x + at);
    }
}

DJ_FN void norm_finish_channels(const struct norm_finish_args *args)
{
    double count = (double)args->items;
    for (int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; c < args->channels; c += (int64_t)gridDim.x * blockDim.x) {
        double a = 0, b = 0;
        for (int64_t s = 0; s < args->splits; s++) {
            a += args->partial[s * args->channels + c];
            b += args->partial[(args->splits + s) * args->channels + c];
        }
        if (args->sum == NORM_SUM_MOMENTS) {
            double squares = b - a * a / count;
            if (args->items == 0)
                squares = (double)NAN;
            else if (squares < 0)
                squares = 0;
            vector_set(&args->first, c, args->items == 0 ? NAN : (float)((double)first_value(args, c) + a / count));
            vector_set(&args->second, c, (float)(1.0 / sqrt(squares / count + args->eps)));
            vector_set(&args->variance, c, (float)(squares / (count - 1.0)));
            continue;
        }
        if (args->sum == NORM_SUM_CHANNELS) {
            double rstd = (double)vector_at(&args->rstd, c, 1.0f), factor = rstd * (double)vector_at(&args->weight, c, 1.0f);
            args->coefficients[c] = (float)factor;
            args->coefficients[args->channels + c] = args->is_training ? (float)(-factor * rstd * rstd * b / count) : 0.0f;
            args->coefficients[2 * args->channels + c] = args->is_training ? (float)(-factor * a / count) : 0.0f;
            b *= rstd;
        }
        vector_set(&args->first, c, (float)b);
        vector_set(&args->second, c, (float)a);
    }
}

// Value by value -------------------------------------------------------------------------------------------------------------

// A channel's numbers: out = (x - mean) * slope + shift + g * factor.
struct norm_line {
    float mean, slope, shift, factor;
};

DJ_FN float norm_slope(const struct norm_apply_args *args, float weight, float spread)
{
    return args->apply == NORM_APPLY_GRADIENT ? weight
           : args->apply == NORM_APPLY_RSTD   ? weight * spread
                                              : weight * (1.0f / sqrtf(spread + (float)args->eps));
}

DJ_FN norm_line line_of(const struct norm_apply_args *args, int64_t channel)
{
    float mean = vector_at(&args->mean, channel, 0.0f), weight = vector_at(&args->weight, channel, 1.0f),
          shift = vector_at(&args->bias, channel, 0.0f), spread = vector_at(&args->spread, channel, 0.0f);
    return {mean, norm_slope(args, weight, spread), shift, spread};
}
DJ_COLD norm_line line_cold(const struct norm_apply_args *args, int64_t channel)
{
    return line_of(args, channel);
}

DJ_FN float norm_applied(float x, float g, const norm_line &line, bool is_gradient)
{
    float value = fmaf(x - line.mean, line.slope, line.shift);
    return is_gradient ? fmaf(g, line.factor, value) : value;
}

template <typename T> DJ_FN T norm_applied(T x, T g, const norm_line &line, bool is_gradient)
{
    T y;
    dj_store(&y, norm_applied(dj_load(&x), dj_load(&g), line, is_gradient));
    return y;
}

// A piece that begins at `first`, where neighbours are of one channel for `inner` values; *line is that of *channel, of which `left` values
// are still to come.
template <typename T>
DJ_FN void apply_planes(const struct norm_apply_args *args, norm_chunk<T> *x, const norm_chunk<T> &g, int64_t *channel,
                        int64_t *left, norm_line *line)
{
    bool is_gradient = args->apply == NORM_APPLY_GRADIENT;
    DJ_UNROLL
    for (int j = 0; j < norm_chunk<T>::LENGTH; j++) {
        if (*left == 0) {
            *channel = *channel + 1 == args->channels ? 0 : *channel + 1;
            *left = args->inner;
            *line = line_cold(args, *channel);
        }
        x->run.at[j] = norm_applied<T>(x->run.at[j], g.run.at[j], *line, is_gradient);
        --*left;
    }
}

// The same where neighbours are of neighbouring channels.
template <typename T>
DJ_FN void apply_channels(const struct norm_apply_args *args, norm_chunk<T> *x, const norm_chunk<T> &g, int64_t first)
{
    enum { LENGTH = norm_chunk<T>::LENGTH };
    float mean[LENGTH], weight[LENGTH], shift[LENGTH], spread[LENGTH];
    vector_chunk<LENGTH>(&args->mean, 0, first, 1, args->channels, 0.0f, mean);
    vector_chunk<LENGTH>(&args->weight, 0, first, 1, args->channels, 1.0f, weight);
    vector_chunk<LENGTH>(&args->bias, 0, first, 1, args->channels, 0.0f, shift);
    vector_chunk<LENGTH>(&args->spread, 0, first, 1, args->channels, 0.0f, spread);
    DJ_UNROLL
    for (int j = 0; j < LENGTH; j++) {
        norm_line line = {mean[j], norm_slope(args, weight[j], spread[j]), shift[j], spread[j]};
        x->run.at[j] = norm_applied<T>(x->run.at[j], g.run.at[j], line, args->apply == NORM_APPLY_GRADIENT);
    }
}

// NORM_APPLY_PIECES pieces of dense tensors from element `first` on.
template <typename T> DJ_FN void apply_wide(const struct norm_apply_args *args, int64_t first)
{
    enum { LENGTH = norm_chunk<T>::LENGTH };
    const T *x = (const T *)args->x + first, *g = (const T *)args->gradient + first;
    norm_chunk<T> a[NORM_APPLY_PIECES], b[NORM_APPLY_PIECES];
    DJ_UNROLL
    for (int k = 0; k < NORM_APPLY_PIECES; k++)
        a[k] = b[k] = chunk_load(x + k * LENGTH);
    DJ_UNROLL
    for (int k = 0; k < NORM_APPLY_PIECES && args->apply == NORM_APPLY_GRADIENT; k++)
        b[k] = chunk_load(g + k * LENGTH);
    if (args->inner == 1) {
        DJ_UNROLL
        for (int k = 0; k < NORM_APPLY_PIECES; k++)
            apply_channels<T>(args, &a[k], b[k], (first + k * LENGTH) % args->channels);
    } else {
        int64_t plane = first, left = args->inner - index_split(&plane, args->inner),
                channel = index_split(&plane, args->channels);
        norm_line line = line_of(args, channel);
        DJ_UNROLL
        for (int k = 0; k < NORM_APPLY_PIECES; k++)
            apply_planes<T>(args, &a[k], b[k], &channel, &left, &line);
    }
    DJ_UNROLL
    for (int k = 0; k < NORM_APPLY_PIECES; k++)
        chunk_store(a[k], (T *)args->out + first + k * LENGTH);
}

template <typename T> DJ_FN void norm_apply(const struct norm_apply_args *args)
{
    enum { LENGTH = norm_chunk<T>::LENGTH * NORM_APPLY_PIECES };
    int64_t count = args->all.count, step = (int64_t)gridDim.x * blockDim.x * LENGTH, round = args->inner * args->channels;
    const T *x = (const T *)args->x, *g = (const T *)args->gradient;
    T *out = (T *)args->out;
    DJ_ROLLED
    for (int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * LENGTH; first < count; first += step) {
        if (args->is_wide && count - first >= LENGTH) {
            apply_wide<T>(args, first);
            continue;
        }
        DJ_ROLLED
        for (int64_t i = first; i < first + LENGTH && i < count; i++) {
            int64_t channel = args->is_dense ? i % round / args->inner : place_cold(&args->all, 3, i);
            int64_t x_at = args->is_dense ? i : place_cold(&args->all, 0, i),
                    g_at = args->is_dense ? i : place_cold(&args->all, 2, i);
            out[args->is_dense ? i : place_cold(&args->all, 1, i)] = norm_applied<T>(x[x_at], g[g_at], line_cold(args, channel),
                                                                                     args->apply == NORM_APPLY_GRADIENT);
        }
    }
}

#define NORM_KERNELS(suffix, T) \
    DJ_KERNEL_OF(norm_rows_##suffix, struct norm_rows_args, NORM_ROW_THREADS, 1) \
    { \
        norm_rows<T, false>(args); \
    } \
    DJ_KERNEL(norm_rows_backward_##suffix, struct norm_rows_args, NORM_ROW_THREADS) \
    { \
        norm_rows<T, true>(args); \
    } \
    DJ_KERNEL(norm_sums_##suffix, struct norm_sums_args, NORM_SUM_THREADS) \
    { \
        norm_sums<T>(args); \
    } \
    DJ_KERNEL_OF(norm_apply_##suffix, struct norm_apply_args, NORM_APPLY_THREADS, NORM_APPLY_BLOCKS) \
    { \
        norm_apply<T>(args); \
    }
NORM_KERNELS(f32, float)
NORM_KERNELS(f16, dj_half)
NORM_KERNELS(bf16, dj_bfloat)
DJ_KERNEL(norm_finish, struct norm_finish_args, NORM_APPLY_THREADS)
{
    norm_finish_channels(args);
}
