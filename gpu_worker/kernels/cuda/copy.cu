// Copies on a GPU: rectangles that are moved or filled (copy_move: clones, concatenations, mirrors, tiles, fills), transposed
// (copy_turn), masked by position (copy_triangle), and numbers in a row (copy_range).
//
// A copy knows no dtypes, only units of up to 16 bytes: as many as lie together in both tensors and at both addresses. Conversions are
// pointwise's.

#include "gpu_worker/kernels/cuda/copy.h"
#include "gpu_worker/kernels/cuda/elements.cuh"
#include "gpu_worker/kernels/cuda/sweep.cuh"

struct alignas(16) sixteen {
    uint64_t half[2];
};

template <typename T> DJ_FN void move_units(const struct copy_part *part)
{
    enum { UNITS = sizeof(T) == 16 ? 2 : 16 / sizeof(T) };    // reads in flight: 16 bytes a thread are too few
    const int64_t count = part->sweep.loop.count, tile = (int64_t)blockDim.x * UNITS;
    const T *from = (const T *)part->from;
    T *to = (T *)part->to;
    for (int64_t start = blockIdx.x * tile; start < count; start += gridDim.x * tile) {
        const int64_t first = start + threadIdx.x;
        T value[UNITS];
        for (int j = 0; j < UNITS; j++) {
            int64_t index = first + (int64_t)j * blockDim.x;
            if (index < count)
                value[j] = from == nullptr ? *(const T *)part->pattern : from[sweep_at(&part->sweep, 1, index)];
        }
        for (int j = 0; j < UNITS; j++) {
            int64_t index = first + (int64_t)j * blockDim.x;
            if (index < count)
                to[sweep_at(&part->sweep, 0, index)] = value[j];
        }
    }
}

DJ_KERNEL(copy_move, struct copy_part, COPY_THREADS)
{
    const struct copy_part *part = args + blockIdx.y;
    if (dj_fetch_all(part, sizeof *part) != 0)
        return;
    switch (part->unit) {
    case 1: move_units<uint8_t>(part); break;
    case 2: move_units<uint16_t>(part); break;
    case 4: move_units<uint32_t>(part); break;
    case 8: move_units<uint64_t>(part); break;
    default: move_units<sixteen>(part); break;
    }
}

template <typename T> DJ_FN void triangle(const struct triangle_args *args)
{
    const int64_t area = args->rows * args->columns, count = args->batch.count * area;
    const T *from = (const T *)args->from;
    T *to = (T *)args->to;
    for (int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; index < count;
         index += (int64_t)gridDim.x * blockDim.x) {
        int64_t batch = index / area, rest = index - batch * area, row = rest / args->columns,
                column = rest - row * args->columns;
        bool keeps = args->is_lower ? column <= row + args->diagonal : column >= row + args->diagonal;
        T value = 0;
        if (keeps)
            value = from[dj_at(&args->batch, 1, batch) + row * args->row_stride[1] + column * args->column_stride[1]];
        to[dj_at(&args->batch, 0, batch) + row * args->row_stride[0] + column * args->column_stride[0]] = value;
    }
}

DJ_KERNEL(copy_triangle, struct triangle_args, COPY_THREADS)
{
    switch (args->unit) {
    case 1: triangle<uint8_t>(args); break;
    case 2: triangle<uint16_t>(args); break;
    case 4: triangle<uint32_t>(args); break;
    default: triangle<uint64_t>(args); break;
    }
}

// Integers count exactly; floats are start + step * i in float64, each of the two rounded, and then converted.
DJ_KERNEL(copy_range, struct range_args, COPY_THREADS)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < args->count; i += (int64_t)gridDim.x * blockDim.x) {
        const double real = args->from + dj_product(args->by, (double)i);
        const int64_t integer = (int64_t)((uint64_t)args->start + (uint64_t)args->step * (uint64_t)i);
        dj_with_dtype(args->dtype, [&](auto *type) {
            typedef typename dj_pointee<decltype(type)>::type T;
            ((T *)args->to)[i * args->stride] = args->is_float ? dj_make<T>::of(real) : dj_make<T>::of(integer);
        });
    }
}

// A block has TURN_TILE * TURN_ROWS threads and turns tile after tile. Reads run along rows, writes along columns; the odd width of the
// shared tile keeps its columns on different banks.
template <typename T> DJ_FN void turn(const struct turn_args *args)
{
    DJ_SHARED(T, tile, TURN_TILE * (TURN_TILE + 1));
    const int64_t across = (args->columns + TURN_TILE - 1) / TURN_TILE, down = (args->rows + TURN_TILE - 1) / TURN_TILE;
    const int64_t tiles = args->batch.count * across * down;
    const int x = (int)(threadIdx.x % TURN_TILE), y = (int)(threadIdx.x / TURN_TILE);
    for (int64_t at = blockIdx.x; at < tiles; at += gridDim.x) {
        int64_t batch = at / (across * down), rest = at - batch * across * down;
        int64_t row = rest / across * TURN_TILE, column = rest % across * TURN_TILE;
        const T *from = (const T *)args->from + dj_at(&args->batch, 1, batch);
        T *to = (T *)args->to + dj_at(&args->batch, 0, batch);
        dj_sync();    // the tile before is written out
        for (int i = y; i < TURN_TILE; i += TURN_ROWS)
            if (row + x < args->rows && column + i < args->columns)
                tile[i * (TURN_TILE + 1) + x] = from[(row + x) * args->row_stride[1] + (column + i) * args->column_stride[1]];
        dj_sync();
        for (int i = y; i < TURN_TILE; i += TURN_ROWS)
            if (row + i < args->rows && column + x < args->columns)
                to[(row + i) * args->row_stride[0] + (column + x) * args->column_stride[0]] = tile[x * (TURN_TILE + 1) + i];
    }
}

DJ_KERNEL(copy_turn, struct turn_args, TURN_TILE *TURN_ROWS)
{
    switch (args->unit) {
    case 1: turn<uint8_t>(args); break;
    case 2: turn<uint16_t>(args); break;
    case 4: turn<uint32_t>(args); break;
    default: turn<uint64_t>(args); break;
    }
}
