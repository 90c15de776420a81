// Scatters on a GPU: indexed[where the indices say] = or += plain[row], after the tensor was copied.
//
// Where several positions name one place the result is that of doing them in order. Assignments: each place first learns its last
// position (a maximum of integers, which has no order), then only that one writes. Sums: positions are sorted by place (stable), and one
// thread for each place and column adds its positions in order, in float32 for halves. No atomic touches a float.

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/index.cuh"
#include "gpu_worker/kernels/cuda/scatter.h"

enum { SCATTER_THREADS = 256, AHEAD = 4 };
static const uint64_t NO_PLACE = ~(uint64_t)0;

struct alignas(16) entry {
    uint64_t key;
    int64_t at;
};

DJ_KERNEL(scatter_clear, struct scatter_clear_args, SCATTER_THREADS)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < args->count; i += stride)
        args->winner[i] = 0;
}

DJ_KERNEL(scatter_contend, struct scatter_put_args, SCATTER_THREADS)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    struct index_spot spot;
    for (int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; row < args->walk.rows; row += stride)
        if (index_find(&args->walk, row, &spot))
            dj_atomic_max(args->winner + spot.number, (int)spot.position + 1);
}

template <typename Unit>
DJ_FN void put_units(const struct scatter_put_args *args, const char *plain, unsigned long long *fault, unsigned task)
{
    const struct index_walk *walk = &args->walk;
    const int64_t in_row = walk->row_bytes / (int64_t)sizeof(Unit), count = walk->rows * in_row,
                  stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        int64_t row = i, unit = in_row == 1 ? 0 : index_split(&row, in_row);
        struct index_spot spot;
        if (!index_find(walk, row, &spot)) {
            index_fail(walk, row, fault, task);
            continue;
        }
        if (args->winner != nullptr && args->winner[spot.number] != (int)spot.position + 1)
            continue;
        const Unit *from = args->plain == nullptr ? (const Unit *)plain : (const Unit *)(plain + spot.plain) + unit;
        ((Unit *)((char *)args->indexed + spot.indexed))[unit] = *from;
    }
}

DJ_KERNEL(scatter_put, struct scatter_put_args, SCATTER_THREADS)
{
    const char *plain = args->plain == nullptr ? (const char *)args->value : (const char *)args->plain;
    switch (index_unit(&args->walk, args->indexed, plain)) {
    case 16: put_units<bytes16>(args, plain, fault, task); break;
    case 8: put_units<uint64_t>(args, plain, fault, task); break;
    case 4: put_units<uint32_t>(args, plain, fault, task); break;
    case 2: put_units<uint16_t>(args, plain, fault, task); break;
    default: put_units<uint8_t>(args, plain, fault, task); break;
    }
}

DJ_KERNEL(scatter_keys, struct scatter_keys_args, SCATTER_THREADS)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < args->walk.rows; i += stride) {
        struct index_spot spot;
        uint64_t key = NO_PLACE;
        if (!index_find(&args->walk, i, &spot))
            index_fail(&args->walk, i, fault, task);
        else if (spot.number != args->ignored)
            key = (uint64_t)spot.number;
        ((struct entry *)args->entry)[i] = {key, i};
    }
}

// How each dtype is added: bool is or, integers wrap, halves are summed in float32 and rounded once.
template <typename T> struct adding {
    typedef typename dj_math<T>::type Number;
    DJ_FN static Number load(const T *at)
    {
        return dj_load(at);
    }
    DJ_FN static void store(T *at, Number value)
    {
        dj_store(at, value);
    }
    DJ_FN static Number scaled(Number x, double scale)
    {
        return (Number)((double)x * scale);
    }
    DJ_FN static Number share(Number x, int64_t count)
    {
        return x * ((Number)1 / (Number)count);
    }
    DJ_FN static Number add(Number a, Number b)
    {
        return a + b;
    }
};
template <typename T> struct adding_wrapped {
    typedef uint64_t Number;
    DJ_FN static Number load(const T *at)
    {
        return (Number)(int64_t)*at;
    }
    DJ_FN static void store(T *at, Number value)
    {
        *at = (T)value;
    }
    DJ_FN static Number scaled(Number x, double scale)
    {
        return (Number)(int64_t)(T)(int64_t)((double)(int64_t)x * scale);
    }
    DJ_FN static Number share(Number x, int64_t count)
    {
        return x * (Number)(1 / count);
    }
    DJ_FN static Number add(Number a, Number b)
    {
        return a + b;
    }
};
template <> struct adding<uint8_t> : adding_wrapped<uint8_t> {
};
template <> struct adding<int8_t> : adding_wrapped<int8_t> {
};
template <> struct adding<int16_t> : adding_wrapped<int16_t> {
};
template <> struct adding<int32_t> : adding_wrapped<int32_t> {
};
template <> struct adding<int64_t> : adding_wrapped<int64_t> {
};
template <> struct adding<bool> {
    typedef uint32_t Number;
    DJ_FN static Number load(const bool *at)
    {
        return *(const uint8_t *)at != 0;
    }
    DJ_FN static void store(bool *at, Number value)
    {
        *(uint8_t *)at = (uint8_t)value;
    }
    DJ_FN static Number scaled(Number x, double scale)
    {
        return x && scale != 0;
    }
    DJ_FN static Number share(Number x, int64_t)
    {
        return x;
    }
    DJ_FN static Number add(Number a, Number b)
    {
        return a | b;
    }
};

// A thread for each entry and column; those whose entry is the first of its place work.
template <typename T> DJ_FN void sum_places(const struct scatter_sum_args *args)
{
    typedef adding<T> Adding;
    const struct entry *entry = (const struct entry *)args->entry;
    const int64_t columns = args->free.rows, count = args->entries * columns, stride = (int64_t)gridDim.x * blockDim.x;
    const char *plain = args->plain == nullptr ? (const char *)args->value : (const char *)args->plain;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        int64_t first = i, column = columns == 1 ? 0 : index_split(&first, columns);
        const uint64_t key = entry[first].key;
        if (key == NO_PLACE || (first > 0 && entry[first - 1].key == key))
            continue;
        struct index_spot place, along;
        index_find(&args->free, column, &along);
        if (!index_find(&args->walk, entry[first].at, &place))
            continue;
        T *to = (T *)((char *)args->indexed + place.indexed + along.indexed);
        typename Adding::Number sum = Adding::load(to);
        int64_t named = 1;
        while (args->by_frequency && first + named < args->entries && entry[first + named].key == key)
            named++;
        bool is_through = false;
        for (int64_t e = first; !is_through; e += AHEAD) {
            typename Adding::Number x[AHEAD];
            bool is_named[AHEAD];
            for (int u = 0; u < AHEAD; u++) {    // loads that wait for each other's memory together
                is_named[u] = e + u < args->entries && entry[e + u].key == key;
                x[u] = is_named[u] ? Adding::load((const T *)(plain + index_plain(&args->walk, entry[e + u].at) + along.plain))
                                   : 0;
            }
            for (int u = 0; u < AHEAD; u++) {
                if (!is_named[u])
                    continue;
                typename Adding::Number value = args->is_scaled ? Adding::scaled(x[u], args->scale) : x[u];
                sum = Adding::add(sum, args->by_frequency ? Adding::share(value, named) : value);
            }
            is_through = !is_named[AHEAD - 1];
        }
        Adding::store(to, sum);
    }
}

DJ_KERNEL(scatter_sum_bool, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<bool>(args);
}
DJ_KERNEL(scatter_sum_u8, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<uint8_t>(args);
}
DJ_KERNEL(scatter_sum_i8, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<int8_t>(args);
}
DJ_KERNEL(scatter_sum_i16, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<int16_t>(args);
}
DJ_KERNEL(scatter_sum_i32, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<int32_t>(args);
}
DJ_KERNEL(scatter_sum_i64, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<int64_t>(args);
}
DJ_KERNEL(scatter_sum_f16, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<dj_half>(args);
}
DJ_KERNEL(scatter_sum_bf16, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<dj_bfloat>(args);
}
DJ_KERNEL(scatter_sum_f32, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<float>(args);
}
DJ_KERNEL(scatter_sum_f64, struct scatter_sum_args, SCATTER_THREADS)
{
    sum_places<double>(args);
}
