// Sorting on a GPU. Elements become entries: a key, a 64-bit integer in the order of the values (NaN above everything, as PyTorch
// orders), and a position. A block sorts a tile of up to 2048 in its shared memory (bitonic); tiles are merged pairwise, each entry
// finding its place by binary search in the other run. The largest k of a row are the largest k of what each tile keeps, until one tile
// is left.
//
// No two entries are equal, so the result is one, and stable, whatever the network does.

#include "gpu_worker/kernels/cuda/elements.cuh"
#include "gpu_worker/kernels/cuda/sort.h"

enum { SORT_THREADS = 256, MERGE_THREADS = 256 };

struct alignas(16) entry {
    uint64_t key;
    int64_t at;
};

DJ_FN bool comes_before(const struct entry &a, const struct entry &b)
{
    return a.key < b.key || (a.key == b.key && a.at < b.at);
}

#if defined(__CUDACC__)
DJ_FN uint64_t double_bits(double x)
{
    return (uint64_t)__double_as_longlong(x);
}
#else
DJ_FN uint64_t double_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
#endif

// -0 and 0 are equal.
DJ_FN uint64_t key_of(const void *base, uint32_t dtype, bool is_float, int64_t index)
{
    const uint64_t top = (uint64_t)1 << 63;
    if (!is_float)
        return (uint64_t)dj_load_any<int64_t>(base, dtype, index) ^ top;
    double x = dj_load_any<double>(base, dtype, index);
    if (x != x)
        return ~(uint64_t)0;
    uint64_t bits = double_bits(x == 0 ? 0.0 : x);
    return bits & top ? ~bits : bits | top;
}

DJ_FN bool is_floating(uint32_t dtype)
{
    return dtype >= DTYPE_F16 && dtype <= DTYPE_F64;
}

// An entry in its last place.
DJ_FN void put_entry(const struct sort_args *args, int64_t row, int64_t place, const struct entry &entry)
{
    if (args->to != nullptr) {
        ((struct entry *)args->to)[row * args->kept_length + place] = entry;
        return;
    }
    int64_t from = dj_at(&args->places, 0, row) + entry.at * args->in_stride,
            to = dj_at(&args->places, 1, row) + place * args->value_stride;
    switch (args->bytes) {
    case 1: ((uint8_t *)args->values)[to] = ((const uint8_t *)args->in)[from]; break;
    case 2: ((uint16_t *)args->values)[to] = ((const uint16_t *)args->in)[from]; break;
    case 4: ((uint32_t *)args->values)[to] = ((const uint32_t *)args->in)[from]; break;
    default: ((uint64_t *)args->values)[to] = ((const uint64_t *)args->in)[from]; break;
    }
    args->indices[dj_at(&args->places, 2, row) + place * args->index_stride] = entry.at;
}

DJ_FN struct entry get_entry(const struct sort_args *args, int64_t row, int64_t i)
{
    if (i >= args->length)
        return {~(uint64_t)0, INT64_MAX};
    if (args->from != nullptr)
        return ((const struct entry *)args->from)[row * args->length + i];
    uint64_t key = key_of(args->in, args->dtype, is_floating(args->dtype), dj_at(&args->places, 0, row) + i * args->in_stride);
    return {args->is_descending ? ~key : key, i};
}

// One comparison of a bitonic network: of entries `half` apart in runs of `size` that are to ascend and descend in turn.
DJ_FN void order_pair(struct entry *shared, unsigned pair, unsigned size, unsigned half)
{
    unsigned a = (pair & ~(half - 1)) * 2 + (pair & (half - 1)), b = a + half;
    struct entry low = shared[a], high = shared[b];
    if (comes_before(high, low) != ((a & size) == 0))
        return;
    shared[a] = high;
    shared[b] = low;
}

DJ_KERNEL(sort_tiles, struct sort_args, SORT_THREADS)
{
    DJ_SHARED(struct entry, shared, SORT_TILE_MAX);
    const unsigned tile = args->tile, pairs = tile / 2;
    for (int64_t block = blockIdx.x; block < args->rows * args->tiles; block += gridDim.x) {
        const int64_t row = block / args->tiles, first = (block - row * args->tiles) * tile;
        dj_sync();    // the tile before has been written out
        for (unsigned i = threadIdx.x; i < tile; i += blockDim.x)
            shared[i] = get_entry(args, row, first + i);
        for (unsigned size = 2; size <= tile; size *= 2)
            for (unsigned half = size / 2; half > 0; half /= 2) {
                dj_sync();
                for (unsigned pair = threadIdx.x; pair < pairs; pair += blockDim.x)
                    order_pair(shared, pair, size, half);
            }
        dj_sync();
        int64_t rest = args->length - first, keep = rest < args->keep ? rest : args->keep, place = first / tile * args->keep;
        for (unsigned i = threadIdx.x; i < tile && (int64_t)i < keep; i += blockDim.x)
            put_entry(args, row, place + i, shared[i]);
    }
}

// How many of n sorted entries come before `entry`.
DJ_FN int64_t count_before(const struct entry *sorted, int64_t n, const struct entry &entry)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (comes_before(sorted[middle], entry))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Runs of `run` entries become runs of twice as many; `keep` of a row are written.
DJ_KERNEL(sort_merge, struct sort_args, MERGE_THREADS)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x, length = args->length, count = args->rows * length, run = args->run;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const int64_t row = i / length, at = i - row * length, own = at / run, other = (own ^ 1) * run, rest = length - other;
        const struct entry *entries = (const struct entry *)args->from + row * length, entry = entries[at];
        int64_t before = rest > 0 ? count_before(entries + other, rest < run ? rest : run, entry) : 0;
        int64_t place = (own & ~(int64_t)1) * run + (at - own * run) + before;
        if (place < args->keep)
            put_entry(args, row, place, entry);
    }
}

DJ_KERNEL(isin_keys, struct isin_args, MERGE_THREADS)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < args->test_places.count; i += stride)
        ((struct entry *)args->entry)[i] = {
            key_of(args->tests, args->test_dtype, args->is_float, dj_at(&args->test_places, 0, i)), i};
}

// NaN equals nothing.
DJ_KERNEL(isin_find, struct isin_args, MERGE_THREADS)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x, tests = args->test_places.count;
    const struct entry *sorted = (const struct entry *)args->entry;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < args->places.count; i += stride) {
        struct entry entry = {key_of(args->elements, args->element_dtype, args->is_float, dj_at(&args->places, 0, i)), -1};
        int64_t place = count_before(sorted, tests, entry);
        bool is_nan = args->is_float && entry.key == ~(uint64_t)0,
             is_in = place < tests && sorted[place].key == entry.key && !is_nan;
        args->out[dj_at(&args->places, 1, i)] = is_in != (args->is_inverted != 0);
    }
}
