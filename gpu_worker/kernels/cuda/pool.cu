// Pools on a GPU: the largest or the mean value of each window of a plane, and their gradients. A thread makes one output (a warp
// where windows are large): forwards gather a window, backwards the outputs whose windows have a value in them, in the order of
// outputs. So nothing is added by two threads at once, and a sum has one order.
//
// A mean's window is [o stride - padding, + kernel) cut to the plane, or [o in / out, (o + 1) in / out rounded up) where it is
// adaptive. The last NaN of a window is its largest; where all is -inf, its first value.

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/pool.h"

struct pool_place {
    int64_t at[4];
};    // image, channel, row, column

// Takes the last digit of base `size` off *index.
DJ_FN int64_t pool_digit(int64_t *index, int64_t size, bool is_small)
{
    int64_t above = is_small ? (int64_t)((uint32_t)*index / (uint32_t)size) : *index / size;
    int64_t result = *index - above * size;
    *index = above;
    return result;
}

DJ_FN pool_place place_of(const struct pool_args *args, const struct pool_tensor *tensor, int64_t index)
{
    pool_place place;
    bool is_small = args->is_small;
    if (args->is_channels_last)
        place.at[1] = pool_digit(&index, tensor->size[1], is_small);
    place.at[3] = pool_digit(&index, tensor->size[3], is_small);
    place.at[2] = pool_digit(&index, tensor->size[2], is_small);
    if (!args->is_channels_last)
        place.at[1] = pool_digit(&index, tensor->size[1], is_small);
    place.at[0] = index;
    return place;
}

DJ_FN int64_t plane_of(const struct pool_tensor *tensor, const pool_place *place)
{
    return place->at[0] * tensor->stride[0] + place->at[1] * tensor->stride[1];
}

DJ_FN int64_t offset_of(const struct pool_tensor *tensor, const pool_place *place)
{
    return plane_of(tensor, place) + place->at[2] * tensor->stride[2] + place->at[3] * tensor->stride[3];
}

DJ_FN int64_t count_of(const struct pool_tensor *tensor)
{
    return tensor->size[0] * tensor->size[1] * tensor->size[2] * tensor->size[3];
}

DJ_FN int64_t pool_quotient_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
DJ_FN int64_t pool_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
DJ_FN int64_t pool_most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// What a window of a mean covers along one dimension of `in` values and `out` windows: [from, to) and its size for the divisor.
struct pool_span {
    int64_t from, to, size;
};
DJ_FN pool_span span_of(const struct pool_args *args, int d, int64_t o, int64_t in, int64_t out)
{
    pool_span span;
    if (args->is_adaptive) {
        span.from = o * in / out;
        span.to = pool_quotient_up((o + 1) * in, out);
        span.size = span.to - span.from;
        return span;
    }
    const struct pool_window *window = &args->window[d];
    int64_t from = o * window->stride - window->padding, to = pool_least(from + window->kernel, in + window->padding);
    span.from = pool_most(from, 0);
    span.to = pool_least(to, in);
    span.size = args->counts_padding ? to - from : pool_most(0, span.to - span.from);
    return span;
}

// The windows [from, to) that may have value i of a dimension in them; their number is `out`.
DJ_FN void windows_of(const struct pool_args *args, int d, int64_t i, int64_t in, int64_t out, int64_t *from, int64_t *to)
{
    if (args->is_adaptive) {
        *from = i * out / in;
        *to = pool_quotient_up((i + 1) * out, in);
        return;
    }
    const struct pool_window *window = &args->window[d];
    int64_t reach = (window->kernel - 1) * window->dilation;
    *from = i + window->padding <= reach ? 0 : pool_quotient_up(i + window->padding - reach, window->stride);
    *to = pool_least(out, (i + window->padding) / window->stride + 1);
}

template <typename T> DJ_FN void max_pool(const struct pool_args *args)
{
    int64_t count = count_of(&args->to), columns = args->from.size[3];
    DJ_ROLLED
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (int64_t)gridDim.x * blockDim.x) {
        pool_place place = place_of(args, &args->to, i);
        const T *x = (const T *)args->x + plane_of(&args->from, &place);
        int64_t first[2], last[2];
        DJ_UNROLL
        for (int d = 0; d < 2; d++) {
            const struct pool_window *window = &args->window[d];
            int64_t start = place.at[2 + d] * window->stride - window->padding;
            last[d] = pool_least(start + (window->kernel - 1) * window->dilation + 1, args->from.size[2 + d]);
            first[d] = start < 0 ? start + pool_quotient_up(-start, window->dilation) * window->dilation : start;
        }
        float best = -INFINITY;
        int64_t at = first[0] * columns + first[1];
        T result;
        dj_store(&result, best);
        DJ_ROLLED
        for (int64_t r = first[0]; r < last[0]; r += args->window[0].dilation) {
            DJ_ROLLED
            for (int64_t c = first[1]; c < last[1]; c += args->window[1].dilation) {
                T here = x[r * args->from.stride[2] + c * args->from.stride[3]];
                float value = dj_load(&here);
                if (value > best || value != value) {
                    best = value;
                    result = here;
                    at = r * columns + c;
                }
            }
        }
        ((T *)args->out)[offset_of(&args->to, &place)] = result;
        args->ret_index[offset_of(&args->at, &place)] = at;
    }
}

template <typename T> DJ_FN void mean_pool(const struct pool_args *args)
{
    int64_t count = count_of(&args->to), lanes = args->by_warps ? 32 : 1, lane = args->by_warps ? threadIdx.x % 32 : 0;
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    DJ_ROLLED
    for (int64_t i = first; i < count; i += (int64_t)gridDim.x * blockDim.x / lanes) {
        pool_place place = place_of(args, &args->to, i);
        const T *x = (const T *)args->x + plane_of(&args->from, &place);
        pool_span down = span_of(args, 0, place.at[2], args->from.size[2], args->to.size[2]);
        pool_span along = span_of(args, 1, place.at[3], args->from.size[3], args->to.size[3]);
        int64_t width = along.to - along.from;
        double sum = 0;
        if (args->by_warps) {
            int64_t cells = width <= 0 || down.to <= down.from ? 0 : (down.to - down.from) * width;
            DJ_ROLLED
            for (int64_t cell = lane; cell < cells; cell += lanes) {
                int64_t r = cell, c = pool_digit(&r, width, args->is_small);
                sum += (double)dj_load(x + (down.from + r) * args->from.stride[2] + (along.from + c) * args->from.stride[3]);
            }
            sum = dj_warp_all(sum, dj_add());
        } else {
            DJ_ROLLED
            for (int64_t r = down.from; r < down.to; r++) {
                DJ_ROLLED
                for (int64_t c = along.from; c < along.to; c++)
                    sum += (double)dj_load(x + r * args->from.stride[2] + c * args->from.stride[3]);
            }
        }
        int64_t divisor = args->divisor != 0 ? args->divisor : down.size * along.size;
        bool is_empty = width <= 0 || down.to <= down.from;
        if (lane == 0)
            dj_store((T *)args->out + offset_of(&args->to, &place), is_empty ? 0.0f : (float)(sum / (double)divisor));
    }
}

// A place that is given must lie within its window: then only the windows around a value need be asked.
template <typename T> DJ_FN void max_pool_backward(const struct pool_args *args, unsigned long long *fault, unsigned task)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x, start = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t outputs = count_of(&args->from), count = count_of(&args->to), rows = args->to.size[2], columns = args->to.size[3];
    DJ_ROLLED
    for (int64_t i = start; i < outputs; i += step) {
        pool_place place = place_of(args, &args->from, i);
        int64_t at = offset_of(&args->at, &place), index = args->index[at], row = index;
        bool is_place = row >= 0 && row < rows * columns, is_inside = is_place;
        int64_t column = is_inside ? pool_digit(&row, columns, args->is_small) : 0, from, to;
        windows_of(args, 0, is_inside ? row : 0, rows, args->from.size[2], &from, &to);
        is_inside = is_inside && place.at[2] >= from && place.at[2] < to;
        windows_of(args, 1, column, columns, args->from.size[3], &from, &to);
        if (!is_inside || place.at[3] < from || place.at[3] >= to)
            dj_fail(fault, task, is_place ? FAILURE_WINDOW : FAILURE_INDEX, (uint64_t)at, index, rows * columns);
    }
    DJ_ROLLED
    for (int64_t i = start; i < count; i += step) {
        pool_place place = place_of(args, &args->to, i);
        const T *g = (const T *)args->x + plane_of(&args->from, &place);
        const int64_t *index = args->index + plane_of(&args->at, &place);
        int64_t own = place.at[2] * columns + place.at[3], from[2], to[2];
        DJ_UNROLL
        for (int d = 0; d < 2; d++)
            windows_of(args, d, place.at[2 + d], args->to.size[2 + d], args->from.size[2 + d], &from[d], &to[d]);
        float sum = 0;
        DJ_ROLLED
        for (int64_t r = from[0]; r < to[0]; r++) {
            DJ_ROLLED
            for (int64_t c = from[1]; c < to[1]; c++)
                if (index[r * args->at.stride[2] + c * args->at.stride[3]] == own)
                    sum += dj_load(g + r * args->from.stride[2] + c * args->from.stride[3]);
        }
        dj_store((T *)args->out + offset_of(&args->to, &place), sum);
    }
}

template <typename T> DJ_FN void mean_pool_backward(const struct pool_args *args)
{
    int64_t count = count_of(&args->to);
    DJ_ROLLED
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (int64_t)gridDim.x * blockDim.x) {
        pool_place place = place_of(args, &args->to, i);
        const T *g = (const T *)args->x + plane_of(&args->from, &place);
        int64_t from[2], to[2];
        DJ_UNROLL
        for (int d = 0; d < 2; d++)
            windows_of(args, d, place.at[2 + d], args->to.size[2 + d], args->from.size[2 + d], &from[d], &to[d]);
        float sum = 0;
        DJ_ROLLED
        for (int64_t r = from[0]; r < to[0]; r++) {
            pool_span down = span_of(args, 0, r, args->to.size[2], args->from.size[2]);
            DJ_ROLLED
            for (int64_t c = from[1]; c < to[1]; c++) {
                pool_span along = span_of(args, 1, c, args->to.size[3], args->from.size[3]);
                int64_t divisor = args->divisor != 0 ? args->divisor : down.size * along.size;
                sum += dj_load(g + r * args->from.stride[2] + c * args->from.stride[3]) / (float)divisor;
            }
        }
        dj_store((T *)args->out + offset_of(&args->to, &place), sum);
    }
}

#define POOL_KERNELS(suffix, T) \
    DJ_KERNEL(max_pool_##suffix, struct pool_args, POOL_THREADS) \
    { \
        max_pool<T>(args); \
    } \
    DJ_KERNEL(mean_pool_##suffix, struct pool_args, POOL_THREADS) \
    { \
        mean_pool<T>(args); \
    } \
    DJ_KERNEL(max_pool_backward_##suffix, struct pool_args, POOL_THREADS) \
    { \
        max_pool_backward<T>(args, fault, task); \
    } \
    DJ_KERNEL(mean_pool_backward_##suffix, struct pool_args, POOL_THREADS) \
    { \
        mean_pool_backward<T>(args); \
    }
POOL_KERNELS(f32, float)
POOL_KERNELS(f16, dj_half)
POOL_KERNELS(bf16, dj_bfloat)
