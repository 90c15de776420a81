// Rows of norms: layer norm and group norm with their gradients, and how norms read numbers of channels. Part of norm.cu.
//
// A block takes a row. A thread holds up to NORM_CHUNKS pieces of 16 bytes of it in registers, so a row of up to 8192 float32 is read
// once; longer ones are read again for each pass. Variances are of centred values. A thread's values are the same ones, added in the
// same order, whether it reads them 16 bytes at a time or through strides: bits do not depend on alignment.

#ifndef GPU_WORKER_KERNELS_CUDA_NORM_ROWS_CUH
#define GPU_WORKER_KERNELS_CUDA_NORM_ROWS_CUH

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/norm.h"

template <typename T, unsigned COUNT> struct alignas(COUNT * sizeof(T) < 16 ? COUNT * sizeof(T) : 16) norm_run {
    T at[COUNT];
};

// 16 bytes of a row.
template <typename T> struct norm_chunk {
    enum { LENGTH = 16 / sizeof(T) };
    norm_run<T, LENGTH> run;
    DJ_FN float value(int j) const
    {
        return dj_load(&run.at[j]);
    }
};

DJ_FN float vector_at(const struct norm_vector *vector, int64_t i, float if_none)
{
    i *= vector->stride;
    switch (vector->kind) {
    case NORM_F32: return dj_load((const float *)vector->data + i);
    case NORM_F16: return dj_load((const dj_half *)vector->data + i);
    case NORM_BF16: return dj_load((const dj_bfloat *)vector->data + i);
    default: return if_none;
    }
}

DJ_FN void vector_set(const struct norm_vector *vector, int64_t i, float value)
{
    i *= vector->stride;
    switch (vector->kind) {
    case NORM_F32: dj_store((float *)vector->data + i, value); break;
    case NORM_F16: dj_store((dj_half *)vector->data + i, value); break;
    case NORM_BF16: dj_store((dj_bfloat *)vector->data + i, value); break;
    default: break;
    }
}

// Starts reading what vector_chunk will from `first` on, where they are a run in memory. Gives 0.
DJ_FN unsigned vector_fetch(const struct norm_vector *vector, int64_t first)
{
    return vector->is_wide ? dj_fetch((const char *)vector->data + first * (vector->kind == NORM_F32 ? 4 : 2)) : 0;
}

DJ_COLD float vector_cold(const struct norm_vector *vector, int64_t i, float if_none)
{
    return vector_at(vector, i, if_none);
}
DJ_COLD int64_t place_cold(const struct loop *loop, uint32_t which, int64_t index)
{
    return dj_at(loop, which, index);
}

template <typename S, int COUNT> DJ_FN void norm_run_load(const void *from, int64_t first, float *ret)
{
    norm_run<S, COUNT> run = *(const norm_run<S, COUNT> *)((const S *)from + first);
    DJ_UNROLL
    for (int j = 0; j < COUNT; j++)
        ret[j] = dj_load(&run.at[j]);
}

// One after the other, where they are no run in memory.
template <int COUNT>
DJ_COLD norm_run<float, COUNT> walk_cold(const struct norm_vector *vector, int64_t base, int64_t first, int64_t plane,
                                         int64_t channels)
{
    norm_run<float, COUNT> ret;
    int64_t channel = base + first / plane, left = plane - first % plane;
    float value = vector_cold(vector, channel, 0.0f);
    DJ_UNROLL
    for (int j = 0; j < COUNT; j++) {
        if (left == 0) {
            channel = channel + 1 == channels ? 0 : channel + 1;
            value = vector_cold(vector, channel, 0.0f);
            left = plane;
        }
        ret.at[j] = value;
        left--;
    }
    return ret;
}

// The vector's numbers for COUNT values from value `first` on, which change every `plane` values; `base` is the channel of value 0.
// At `channels` they begin anew.
template <int COUNT>
DJ_FN void vector_chunk(const struct norm_vector *vector, int64_t base, int64_t first, int64_t plane, int64_t channels,
                        float if_none, float *ret)
{
    bool is_run = plane == 1 && vector->is_wide && (base + first) % COUNT == 0 &&
                  base + first + COUNT <= channels;
    bool is_one = vector->kind == NORM_NONE || (plane % COUNT == 0 && first % COUNT == 0);
    if (is_one) {
        float value = vector->kind == NORM_NONE ? if_none : vector_cold(vector, base + first / plane, if_none);
        DJ_UNROLL
        for (int j = 0; j < COUNT; j++)
            ret[j] = value;
    } else if (is_run && vector->kind == NORM_F32) {
        norm_run_load<float, COUNT>(vector->data, base + first, ret);
    } else if (is_run && vector->kind == NORM_F16) {
        norm_run_load<dj_half, COUNT>(vector->data, base + first, ret);
    } else if (is_run) {
        norm_run_load<dj_bfloat, COUNT>(vector->data, base + first, ret);
    } else {
        norm_run<float, COUNT> run = walk_cold<COUNT>(vector, base, first, plane, channels);
        DJ_UNROLL
        for (int j = 0; j < COUNT; j++)
            ret[j] = run.at[j];
    }
}

template <typename T> DJ_FN norm_chunk<T> chunk_load(const T *from)
{
    norm_chunk<T> chunk;
    chunk.run = *(const norm_run<T, norm_chunk<T>::LENGTH> *)from;
    return chunk;
}

template <typename T> DJ_FN void chunk_store(norm_chunk<T> chunk, T *to) { *(norm_run<T, norm_chunk<T>::LENGTH> *)to = chunk.run; }

// Sums over the block of two numbers at once; every thread gets them.
struct norm_pair {
    float a, b;
};
DJ_FN norm_pair pair_all(norm_pair pair)
{
    DJ_SHARED(float, partial, 64);
    unsigned warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    pair.a = dj_warp_all(pair.a, dj_add());
    pair.b = dj_warp_all(pair.b, dj_add());
    if (warps == 1)
        return pair;
    dj_sync();    // whoever read `partial` of the call before is through
    if (lane == 0) {
        partial[warp] = pair.a;
        partial[32 + warp] = pair.b;
    }
    dj_sync();
    pair.a = dj_warp_all(lane < warps ? partial[lane] : 0.0f, dj_add());
    pair.b = dj_warp_all(lane < warps ? partial[32 + lane] : 0.0f, dj_add());
    return pair;
}

// Steps of the formulas, in one form each, so that rows read in either way get the same bits.
DJ_FN float norm_square_step(float sum, float x, float mean) { return fmaf(x - mean, x - mean, sum); }
DJ_FN float norm_forward_value(float x, float mean, float rstd, float weight, float bias) { return fmaf((x - mean) * rstd, weight, bias); }
// With h = g * weight, rounded, and xhat = (x - mean) * rstd: dx = rstd * (h - mean of h - xhat * mean of h xhat).
DJ_FN float norm_weighted(float g, float weight) { return fmaf(g, weight, 0.0f); }
DJ_FN float norm_product_step(float sum, float x, float h, float mean, float rstd) { return fmaf(h, (x - mean) * rstd, sum); }
DJ_FN float norm_backward_value(float x, float h, float mean, float rstd, float shift, float slope)
{
    return rstd * fmaf((mean - x) * rstd, slope, h - shift);
}

DJ_FN float rstd_of(double squares, const struct norm_rows_args *args)
{
    norm_pair all = {(float)squares, 0};
    return (float)(1.0 / sqrt((double)(pair_all(all).a / (float)args->length) + args->eps));
}

DJ_FN void statistics_store(const struct norm_rows_args *args, int64_t row, float mean, float rstd)
{
    if (threadIdx.x > 0)
        return;
    ((float *)args->ret_mean)[place_cold(&args->rows, 2, row)] = mean;
    ((float *)args->ret_rstd)[place_cold(&args->rows, 3, row)] = rstd;
}

// A thread's walk over its block's row, 16 bytes at a time: piece k begins at element (k * threads + thread) * LENGTH. Held rows have
// NORM_CHUNKS pieces a thread at most: their loops unroll, and what is held stays in registers. Others are read again.
template <typename T, bool IS_HELD> struct norm_walk {
    enum { LENGTH = norm_chunk<T>::LENGTH, HELD = IS_HELD ? NORM_CHUNKS : 1 };
    int64_t length;
    DJ_FN bool more(int k) const { return IS_HELD ? k < NORM_CHUNKS : first(k) < length; }
    DJ_FN bool has(int k) const { return first(k) < length; }
    DJ_FN int64_t first(int k) const { return ((int64_t)k * blockDim.x + threadIdx.x) * LENGTH; }
};

DJ_FN int64_t row_of(const struct norm_rows_args *args, uint32_t which, int64_t row)
{
    return args->rows.rank < 2 ? row * args->rows.stride[which][0] : place_cold(&args->rows, which, row);
}

template <typename T, bool IS_HELD> DJ_FN void forward_row(const struct norm_rows_args *args, int64_t row)
{
    typedef norm_walk<T, IS_HELD> Walk;
    const T *x = (const T *)args->x + row_of(args, 0, row);
    T *y = (T *)args->out + row_of(args, 1, row);
    Walk walk = {args->length};
    norm_chunk<T> held[Walk::HELD];
    double total = 0, squares = 0;

    DJ_UNROLL
    for (int k = 0; IS_HELD && k < NORM_CHUNKS; k++)    // all on their way before the first is waited for
        held[k] = chunk_load(x + (walk.has(k) ? walk.first(k) : 0));
    DJ_UNROLL
    for (int k = 0; IS_HELD && k < NORM_CHUNKS && args->plane == 1 && args->groups == 1; k++)
        if (walk.has(k))
            walk.length += vector_fetch(&args->weight, walk.first(k)) + vector_fetch(&args->bias, walk.first(k));
    DJ_UNROLL
    for (int k = 0; walk.more(k); k++) {
        norm_chunk<T> &chunk = held[IS_HELD ? k : 0];
        if (!walk.has(k))
            continue;
        if (!IS_HELD)
            chunk = chunk_load(x + walk.first(k));
        float sum = 0;
        DJ_UNROLL
        for (int j = 0; j < Walk::LENGTH; j++)
            sum += chunk.value(j);
        total += (double)sum;
    }
    norm_pair all = {(float)total, 0};
    float mean = pair_all(all).a / (float)args->length;
    DJ_UNROLL
    for (int k = 0; walk.more(k); k++) {
        norm_chunk<T> &chunk = held[IS_HELD ? k : 0];
        if (!walk.has(k))
            continue;
        if (!IS_HELD)
            chunk = chunk_load(x + walk.first(k));
        float sum = 0;
        DJ_UNROLL
        for (int j = 0; j < Walk::LENGTH; j++)
            sum = norm_square_step(sum, chunk.value(j), mean);
        squares += (double)sum;
    }
    float rstd = rstd_of(squares, args);
    statistics_store(args, row, mean, rstd);
    int64_t base = args->groups == 1 ? 0 : row % args->groups * args->channels, end = args->groups * args->channels;
    DJ_UNROLL
    for (int k = 0; walk.more(k); k++) {
        norm_chunk<T> &chunk = held[IS_HELD ? k : 0];
        if (!walk.has(k))
            continue;
        if (!IS_HELD)
            chunk = chunk_load(x + walk.first(k));
        float weight[Walk::LENGTH], bias[Walk::LENGTH];
        vector_chunk<Walk::LENGTH>(&args->weight, base, walk.first(k), args->plane, end, 1.0f, weight);
        vector_chunk<Walk::LENGTH>(&args->bias, base, walk.first(k), args->plane, end, 0.0f, bias);
        DJ_UNROLL
        for (int j = 0; j < Walk::LENGTH; j++)
            dj_store(&chunk.run.at[j], norm_forward_value(chunk.value(j), mean, rstd, weight[j], bias[j]));
        chunk_store(chunk, y + walk.first(k));
    }
}

template <typename T, bool IS_HELD> DJ_FN void backward_row(const struct norm_rows_args *args, int64_t row)
{
    typedef norm_walk<T, IS_HELD> Walk;
    const T *x = (const T *)args->x + place_cold(&args->rows, 0, row), *g = (const T *)args->gradient + place_cold(&args->rows, 2, row);
    T *dx = (T *)args->out + place_cold(&args->rows, 1, row);
    float mean = vector_cold(&args->mean, row, 0.0f), rstd = vector_cold(&args->rstd, row, 1.0f);
    Walk walk = {args->length};
    norm_chunk<T> held_x[Walk::HELD], held_g[Walk::HELD];
    double total = 0, product = 0;
    int64_t base = args->groups == 1 ? 0 : row % args->groups * args->channels, end = args->groups * args->channels;
    float weight[Walk::LENGTH];

    DJ_UNROLL
    for (int k = 0; walk.more(k); k++) {
        norm_chunk<T> &a = held_x[IS_HELD ? k : 0], &b = held_g[IS_HELD ? k : 0];
        if (!walk.has(k))
            continue;
        a = chunk_load(x + walk.first(k));
        b = chunk_load(g + walk.first(k));
        vector_chunk<Walk::LENGTH>(&args->weight, base, walk.first(k), args->plane, end, 1.0f, weight);
        float sum = 0, products = 0;
        DJ_UNROLL
        for (int j = 0; j < Walk::LENGTH; j++) {
            float h = norm_weighted(b.value(j), weight[j]);
            sum += h;
            products = norm_product_step(products, a.value(j), h, mean, rstd);
        }
        total += (double)sum;
        product += (double)products;
    }
    norm_pair all = {(float)total, (float)product};
    all = pair_all(all);
    float shift = all.a / (float)args->length, slope = all.b / (float)args->length;
    DJ_UNROLL
    for (int k = 0; walk.more(k); k++) {
        norm_chunk<T> &a = held_x[IS_HELD ? k : 0], &b = held_g[IS_HELD ? k : 0];
        if (!walk.has(k))
            continue;
        if (!IS_HELD) {
            a = chunk_load(x + walk.first(k));
            b = chunk_load(g + walk.first(k));
        }
        vector_chunk<Walk::LENGTH>(&args->weight, base, walk.first(k), args->plane, end, 1.0f, weight);
        DJ_UNROLL
        for (int j = 0; j < Walk::LENGTH; j++)
            dj_store(&a.run.at[j], norm_backward_value(a.value(j), norm_weighted(b.value(j), weight[j]), mean, rstd, shift, slope));
        chunk_store(a, dx + walk.first(k));
    }
}

// Rows that are not dense, not aligned or not of whole pieces: value by value, each thread the values that it would have had in pieces.
DJ_FN int64_t column_of(const struct norm_rows_args *args, uint32_t which, int64_t i)
{
    return args->columns.rank < 2 ? i * args->columns.stride[which][0] : place_cold(&args->columns, which, i);
}

template <typename T> DJ_COLD void forward_values(const struct norm_rows_args *args, int64_t row)
{
    const T *x = (const T *)args->x + place_cold(&args->rows, 0, row);
    T *y = (T *)args->out + place_cold(&args->rows, 1, row);
    int64_t step = (int64_t)blockDim.x * norm_chunk<T>::LENGTH, start = (int64_t)threadIdx.x * norm_chunk<T>::LENGTH;
    double total = 0, squares = 0;
    DJ_ROLLED
    for (int64_t first = start; first < args->length; first += step) {
        float sum = 0;
        DJ_ROLLED
        for (int64_t i = first; i < first + norm_chunk<T>::LENGTH && i < args->length; i++)
            sum += dj_load(x + column_of(args, 0, i));
        total += (double)sum;
    }
    norm_pair all = {(float)total, 0};
    float mean = pair_all(all).a / (float)args->length;
    DJ_ROLLED
    for (int64_t first = start; first < args->length; first += step) {
        float sum = 0;
        DJ_ROLLED
        for (int64_t i = first; i < first + norm_chunk<T>::LENGTH && i < args->length; i++)
            sum = norm_square_step(sum, dj_load(x + column_of(args, 0, i)), mean);
        squares += (double)sum;
    }
    float rstd = rstd_of(squares, args);
    statistics_store(args, row, mean, rstd);
    // Nothing is added up any more: neighbouring threads take neighbouring values.
    DJ_ROLLED
    for (int64_t i = threadIdx.x; i < args->length; i += blockDim.x) {
        int64_t channel = row % args->groups * args->channels + (args->plane == 1 ? i : i / args->plane);
        float weight = vector_cold(&args->weight, channel, 1.0f), bias = vector_cold(&args->bias, channel, 0.0f);
        dj_store(y + column_of(args, 1, i), norm_forward_value(dj_load(x + column_of(args, 0, i)), mean, rstd, weight, bias));
    }
}

template <typename T> DJ_COLD void backward_values(const struct norm_rows_args *args, int64_t row)
{
    const T *x = (const T *)args->x + place_cold(&args->rows, 0, row), *g = (const T *)args->gradient + place_cold(&args->rows, 2, row);
    T *dx = (T *)args->out + place_cold(&args->rows, 1, row);
    float mean = vector_cold(&args->mean, row, 0.0f), rstd = vector_cold(&args->rstd, row, 1.0f);
    int64_t step = (int64_t)blockDim.x * norm_chunk<T>::LENGTH, base = row % args->groups * args->channels;
    double total = 0, product = 0;
    DJ_ROLLED
    for (int64_t first = (int64_t)threadIdx.x * norm_chunk<T>::LENGTH; first < args->length; first += step) {
        float sum = 0, products = 0;
        DJ_ROLLED
        for (int64_t i = first; i < first + norm_chunk<T>::LENGTH && i < args->length; i++) {
            float weight = vector_cold(&args->weight, base + (args->plane == 1 ? i : i / args->plane), 1.0f);
            float h = norm_weighted(dj_load(g + column_of(args, 2, i)), weight);
            sum += h;
            products = norm_product_step(products, dj_load(x + column_of(args, 0, i)), h, mean, rstd);
        }
        total += (double)sum;
        product += (double)products;
    }
    norm_pair all = {(float)total, (float)product};
    all = pair_all(all);
    float shift = all.a / (float)args->length, slope = all.b / (float)args->length;
    DJ_ROLLED
    for (int64_t i = threadIdx.x; i < args->length; i += blockDim.x) {
        float weight = vector_cold(&args->weight, base + (args->plane == 1 ? i : i / args->plane), 1.0f);
        float value = dj_load(x + column_of(args, 0, i)), h = norm_weighted(dj_load(g + column_of(args, 2, i)), weight);
        dj_store(dx + column_of(args, 1, i), norm_backward_value(value, h, mean, rstd, shift, slope));
    }
}

template <typename T, bool IS_BACKWARD> DJ_FN void norm_rows(const struct norm_rows_args *args)
{
    bool is_held = args->length <= (int64_t)NORM_CHUNKS * blockDim.x * norm_chunk<T>::LENGTH;
    DJ_ROLLED
    for (int64_t row = blockIdx.x; row < args->rows.count; row += gridDim.x) {
        if (!args->is_wide)
            IS_BACKWARD ? backward_values<T>(args, row) : forward_values<T>(args, row);
        else if (is_held)
            IS_BACKWARD ? backward_row<T, true>(args, row) : forward_row<T, true>(args, row);
        else
            IS_BACKWARD ? backward_row<T, false>(args, row) : forward_row<T, false>(args, row);
    }
}

#endif
