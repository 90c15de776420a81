// Reductions on a GPU: out[kept] = fold over the reduced dimensions of in[kept, reduced].
//
// An output is folded by `lanes` threads: lane l takes groups l, l + lanes, ... of 16 bytes of elements, a chain for each element of a
// group; chains are joined in order, lanes by halves. So the order depends on lanes alone, which follow from sizes, also where a group
// cannot be loaded as one. Lanes are neighbouring threads where the reduced elements are neighbours, and outputs are where those are. Few
// outputs of many elements are cut into splits (blockIdx.y), whose states a second kernel joins the same way.

#include "gpu_worker/kernels/cuda/elements.cuh"
#include "gpu_worker/kernels/cuda/index.cuh"
#include "gpu_worker/kernels/cuda/reduce.h"
#include "gpu_worker/kernels/cuda/reduce_rules.cuh"

// Elements ---------------------------------------------------------------------------------------------------------------------

template <typename T> struct read_as {
    enum { group = 16 / sizeof(T) };
    typedef typename dj_math<T>::type Number;
    struct alignas(16) Pack {
        T value[group];
    };
    DJ_FN static Number load(const struct reduce_args *args, int64_t at)
    {
        return dj_load((const T *)args->in + at);
    }
    DJ_FN static bool is_aligned(const struct reduce_args *args, int64_t at)
    {
        return (uintptr_t)((const T *)args->in + at) % 16 == 0;
    }
    DJ_FN static Pack load_pack(const struct reduce_args *args, int64_t at)
    {
        return *(const Pack *)((const T *)args->in + at);
    }
    DJ_FN static bool load_group(const struct reduce_args *args, int64_t at, Number *x)
    {
        if (!is_aligned(args, at))
            return false;
        const Pack pack = load_pack(args, at);
        for (int u = 0; u < group; u++)
            x[u] = dj_load(&pack.value[u]);
        return true;
    }
};
template <typename N> struct read_any {
    enum { group = 1 };
    typedef N Number;
    DJ_FN static Number load(const struct reduce_args *args, int64_t at)
    {
        return dj_load_any<N>(args->in, args->in_dtype, at);
    }
    DJ_FN static bool load_group(const struct reduce_args *, int64_t, Number *)
    {
        return false;
    }
};

DJ_COLD int64_t place_at(const struct loop *loop, uint32_t which, int64_t index)
{
    return dj_at(loop, which, index);
}

// The offset of element `index` of the reduced space; *run elements from there on lie one innermost stride apart.
DJ_COLD int64_t group_far(const struct loop *loop, int64_t index, int64_t *run)
{
    int64_t offset = 0;
    *run = 1;
    for (int d = (int)loop->rank - 1; d >= 0; d--) {
        int64_t coordinate = d == 0 ? index : index_split(&index, loop->size[d]);
        offset += coordinate * loop->stride[0][d];
        if (d == (int)loop->rank - 1)
            *run = loop->size[d] - coordinate;
    }
    return offset;
}

DJ_FN int64_t group_at(const struct loop *loop, int64_t index, int64_t *run)
{
    if (loop->rank != 1)
        return group_far(loop, index, run);
    *run = loop->size[0] - index;
    return index * loop->stride[0][0];
}

// Reads the group of elements that begins with `i`, of which `count` are there.
template <typename Read>
DJ_FN void read_group(const struct reduce_args *args, int64_t base, int64_t i, int64_t count, typename Read::Number *x)
{
    enum { group = Read::group };
    int64_t run, at = base + group_at(&args->reduced, i, &run),
                 step = args->reduced.rank == 0 ? 0 : args->reduced.stride[0][args->reduced.rank - 1];
    if (run >= group && count >= group && step == 1 && Read::load_group(args, at, x))
        return;
    for (int u = 0; u < group; u++)
        x[u] = u >= count ? 0
               : u < run  ? Read::load(args, at + u * step)
                          : Read::load(args, base + place_at(&args->reduced, 0, i + u));
}

// Folds groups of a dense reduced space from `i` on, AHEAD at a time, whose reads are on their way together, then fewer; returns where it
// ended.
template <typename Rule, typename Read, int AHEAD>
DJ_FN int64_t fold_ahead(const struct reduce_args *args, int64_t base, int64_t i, int64_t last, typename Rule::State *chain)
{
    enum { group = Read::group };
    const int64_t step = (int64_t)args->lanes * group;
    for (; i + (AHEAD - 1) * step + group <= last; i += AHEAD * step) {
        typename Read::Pack pack[AHEAD];
        DJ_UNROLL
        for (int a = 0; a < AHEAD; a++)
            pack[a] = Read::load_pack(args, base + i + a * step);
        DJ_UNROLL
        for (int a = 0; a < AHEAD; a++) {
            DJ_UNROLL
            for (int u = 0; u < group; u++)
                Rule::fold(chain[u], dj_load(&pack[a].value[u]), i + a * step + u, args);
        }
    }
    if constexpr (AHEAD > 1)
        i = fold_ahead<Rule, Read, AHEAD / 2>(args, base, i, last, chain);
    return i;
}

// Lane `lane`'s share of elements [first, last).
template <typename Rule, typename Read>
DJ_FN typename Rule::State fold_lane(const struct reduce_args *args, int64_t base, int64_t first, int64_t last, int64_t lane)
{
    enum { group = Read::group };
    typename Rule::State chain[group];
    for (int u = 0; u < group; u++)
        chain[u] = Rule::start(args);
    int64_t i = first + lane * group;
    if constexpr (Read::group > 1)
        if (args->reduced.rank == 1 && args->reduced.stride[0][0] == 1 && Read::is_aligned(args, base + i))
            i = fold_ahead<Rule, Read, 4>(args, base, i, last, chain);
    for (; i < last; i += (int64_t)args->lanes * group) {
        typename Read::Number x[group];
        read_group<Read>(args, base, i, last - i, x);
        for (int u = 0; u < group; u++)
            if (i + u < last)
                Rule::fold(chain[u], x[u], i + u, args);
    }
    for (int u = 1; u < group; u++)
        Rule::join(chain[0], chain[u], args);
    return chain[0];
}

// Joins the lanes' states of each of the block's outputs; lane 0 gets the result. `pitch` lies between the threads of neighbouring lanes.
template <typename Rule>
DJ_FN typename Rule::State join_lanes(const struct reduce_args *args, typename Rule::State own, unsigned lane, unsigned lanes,
                                      unsigned pitch, void *memory)
{
    typename Rule::State *shared = (typename Rule::State *)memory;
    for (unsigned half = lanes / 2; half > 0; half /= 2) {
        const bool is_in_warp = half < 32 && pitch == 1;    // whoever reads and whom it reads from
        is_in_warp ? dj_warp_sync() : dj_sync();            // whoever read in the round before is through
        shared[threadIdx.x] = own;
        is_in_warp ? dj_warp_sync() : dj_sync();
        if (lane < half)
            Rule::join(own, shared[threadIdx.x + half * pitch], args);
    }
    return own;
}

template <typename Rule, typename Number>
DJ_FN void put_result(const struct reduce_args *args, const typename Rule::State &s, int64_t output)
{
    if (args->value != nullptr)
        dj_store_any<Number>(args->value, args->out_dtype, place_at(&args->kept, 1, output), Rule::finish(s, args));
    if (args->index != nullptr)
        args->index[place_at(&args->kept, 2, output)] = Rule::at(s);
}

template <typename Rule> DJ_FN typename Rule::State *partial_of(const struct reduce_args *args, int64_t output, int64_t split)
{
    static_assert(sizeof(typename Rule::State) <= REDUCE_STATE_BYTES, "a state has its place");
    return (typename Rule::State *)((char *)args->partial + (output * args->splits + split) * REDUCE_STATE_BYTES);
}

// Which output and lane a thread is.
struct place {
    unsigned lanes, outputs, lane, output, pitch;
};

DJ_FN struct place place_of(unsigned lanes, bool is_column)
{
    unsigned outputs = blockDim.x / lanes;
    if (is_column)
        return {lanes, outputs, threadIdx.x / outputs, threadIdx.x % outputs, outputs};
    return {lanes, outputs, threadIdx.x % lanes, threadIdx.x / lanes, 1};
}

template <typename Rule, typename Read> DJ_FN void reduce_with(const struct reduce_args *args, void *memory)
{
    const struct place place = place_of(args->lanes, args->is_column);
    const int64_t first = (int64_t)blockIdx.y * args->piece, end = first + args->piece,
                  last = end < args->length ? end : args->length;
    for (int64_t base = (int64_t)blockIdx.x * place.outputs; base < args->outputs; base += (int64_t)gridDim.x * place.outputs) {
        int64_t output = base + place.output;
        typename Rule::State s = Rule::start(args);
        if (output < args->outputs)
            s = fold_lane<Rule, Read>(args, place_at(&args->kept, 0, output), first, last, place.lane);
        s = join_lanes<Rule>(args, s, place.lane, place.lanes, place.pitch, memory);
        if (place.lane != 0 || output >= args->outputs)
            continue;
        if (args->partial == nullptr)
            put_result<Rule, typename Read::Number>(args, s, output);
        else
            *partial_of<Rule>(args, output, blockIdx.y) = s;
    }
}

// The splits' states become results: a warp an output.
template <typename Rule, typename Number> DJ_FN void join_with(const struct reduce_args *args, void *memory)
{
    const struct place place = place_of(32, false);
    for (int64_t base = (int64_t)blockIdx.x * place.outputs; base < args->outputs; base += (int64_t)gridDim.x * place.outputs) {
        int64_t output = base + place.output;
        typename Rule::State s = Rule::start(args);
        for (int64_t split = place.lane; output < args->outputs && split < args->splits; split += place.lanes)
            Rule::join(s, *partial_of<Rule>(args, output, split), args);
        s = join_lanes<Rule>(args, s, place.lane, place.lanes, place.pitch, memory);
        if (place.lane == 0 && output < args->outputs)
            put_result<Rule, Number>(args, s, output);
    }
}

// Kernels ----------------------------------------------------------------------------------------------------------------------

enum { STATE_WORDS = REDUCE_THREADS * REDUCE_STATE_BYTES / 8 };

// Sums and extremes of the common dtypes have code of their own; the rest reads through dj_load_any.
#define FREQUENT(call, Number) \
    case REDUCE_SUM: call(rule_sum<Number>); break; \
    case REDUCE_MAX: \
    case REDUCE_MIN: \
        call(rule_best<Number>); \
        break;
#define FOR_ALL(call, Number) \
    FREQUENT(call, Number) \
    case REDUCE_PROD: call(rule_prod<Number>); break; \
    case REDUCE_ANY: \
    case REDUCE_ALL: \
        call(rule_logic<Number>); \
        break;
#define FOR_FLOATS(call, Number) \
    FOR_ALL(call, Number) \
    case REDUCE_VAR: call(rule_var<Number>); break; \
    case REDUCE_NORM: \
        call(rule_norm<Number>); \
        break;

#define REDUCE_CALL(...) reduce_with<__VA_ARGS__, Reader>(args, memory)
#define JOIN_CALL(...) join_with<__VA_ARGS__, Reader::Number>(args, memory)
#define REDUCE(name, Read, rules, call) \
    DJ_KERNEL_OF(name, struct reduce_args, REDUCE_THREADS, REDUCE_BLOCKS) \
    { \
        DJ_SHARED(double, memory, STATE_WORDS); \
        typedef Read Reader; \
        switch (args->rule) { \
            rules(call, Reader::Number) default : break; \
        } \
    }

REDUCE(reduce_f32, read_as<float>, FREQUENT, REDUCE_CALL)
REDUCE(reduce_f16, read_as<dj_half>, FREQUENT, REDUCE_CALL)
REDUCE(reduce_bf16, read_as<dj_bfloat>, FREQUENT, REDUCE_CALL)
REDUCE(reduce_to_f32, read_any<float>, FOR_FLOATS, REDUCE_CALL)
REDUCE(reduce_to_f64, read_any<double>, FOR_FLOATS, REDUCE_CALL)
REDUCE(reduce_to_i64, read_any<int64_t>, FOR_ALL, REDUCE_CALL)
REDUCE(reduce_join_f32, read_any<float>, FOR_FLOATS, JOIN_CALL)
REDUCE(reduce_join_f64, read_any<double>, FOR_FLOATS, JOIN_CALL)
REDUCE(reduce_join_i64, read_any<int64_t>, FOR_ALL, JOIN_CALL)

// Running sums ----------------------------------------------------------------------------------------------------------------- Floats
// are summed in double, integers wrap in 64 bits. Rows whose neighbours are neighbours in memory are summed by a thread each; others by a
// block each, which scans as many elements as it has threads at a time. Few long rows are cut into pieces (blockIdx.y): their sums first,
// then each piece from what stands before it.

template <typename Wide> DJ_FN Wide plus(Wide a, Wide b)
{
    return a + b;
}
template <> DJ_FN int64_t plus(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

// The sum of the threads' values up to this one's, by doubling.
template <typename Wide> DJ_FN Wide scan_block(Wide value, Wide *shared)
{
    for (unsigned by = 1; by < blockDim.x; by *= 2) {
        dj_sync();
        shared[threadIdx.x] = value;
        dj_sync();
        if (threadIdx.x >= by)
            value = plus(shared[threadIdx.x - by], value);
    }
    dj_sync();
    shared[threadIdx.x] = value;
    dj_sync();
    return value;
}

template <typename Wide> DJ_FN void scan_columns(const struct scan_args *args)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; row < args->rows.count; row += stride) {
        int64_t from = place_at(&args->rows, 0, row), to = place_at(&args->rows, 1, row);
        Wide sum = 0;
        for (int64_t i = 0; i < args->length; i++) {
            sum = plus(sum, dj_load_any<Wide>(args->in, args->in_dtype, from + i * args->in_stride));
            dj_store_any<Wide>(args->out, args->out_dtype, to + i * args->out_stride, sum);
        }
    }
}

template <typename Wide> DJ_FN void scan_rows(const struct scan_args *args)
{
    DJ_SHARED(Wide, shared, REDUCE_THREADS);
    for (int64_t row = blockIdx.x; row < args->rows.count; row += gridDim.x) {
        int64_t from = place_at(&args->rows, 0, row), to = place_at(&args->rows, 1, row);
        int64_t first = (int64_t)blockIdx.y * args->piece, end = first + args->piece,
                last = end < args->length ? end : args->length;
        Wide sum = args->carry == nullptr ? (Wide)0 : ((const Wide *)args->carry)[row * args->pieces + blockIdx.y];
        for (; first < last; first += blockDim.x) {
            int64_t i = first + threadIdx.x;
            Wide value = i < last ? dj_load_any<Wide>(args->in, args->in_dtype, from + i * args->in_stride) : (Wide)0;
            value = plus(sum, scan_block(value, shared));
            if (i < last)
                dj_store_any<Wide>(args->out, args->out_dtype, to + i * args->out_stride, value);
            sum = plus(sum, shared[blockDim.x - 1]);
        }
    }
}

// carry[row][piece] = the sum of the piece; then, by scan_carries, of all before it.
template <typename Wide> DJ_FN void scan_sums(const struct scan_args *args)
{
    DJ_SHARED(Wide, shared, REDUCE_THREADS);
    for (int64_t row = blockIdx.x; row < args->rows.count; row += gridDim.x) {
        int64_t from = place_at(&args->rows, 0, row), first = (int64_t)blockIdx.y * args->piece, end = first + args->piece;
        int64_t last = end < args->length ? end : args->length;
        Wide sum = 0;
        for (int64_t i = first + threadIdx.x; i < last; i += blockDim.x)
            sum = plus(sum, dj_load_any<Wide>(args->in, args->in_dtype, from + i * args->in_stride));
        scan_block(sum, shared);
        if (threadIdx.x == 0)
            ((Wide *)args->carry)[row * args->pieces + blockIdx.y] = shared[blockDim.x - 1];
    }
}

template <typename Wide> DJ_FN void scan_carries(const struct scan_args *args)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; row < args->rows.count; row += stride) {
        Wide *carry = (Wide *)args->carry + row * args->pieces, sum = 0;
        for (uint32_t piece = 0; piece < args->pieces; piece++) {
            Wide next = plus(sum, carry[piece]);
            carry[piece] = sum;
            sum = next;
        }
    }
}

DJ_KERNEL(scan_f64, struct scan_args, REDUCE_THREADS)
{
    args->is_column ? scan_columns<double>(args) : scan_rows<double>(args);
}
DJ_KERNEL(scan_i64, struct scan_args, REDUCE_THREADS)
{
    args->is_column ? scan_columns<int64_t>(args) : scan_rows<int64_t>(args);
}
DJ_KERNEL(scan_sums_f64, struct scan_args, REDUCE_THREADS)
{
    scan_sums<double>(args);
}
DJ_KERNEL(scan_sums_i64, struct scan_args, REDUCE_THREADS)
{
    scan_sums<int64_t>(args);
}
DJ_KERNEL(scan_carries_f64, struct scan_args, REDUCE_THREADS)
{
    scan_carries<double>(args);
}
DJ_KERNEL(scan_carries_i64, struct scan_args, REDUCE_THREADS)
{
    scan_carries<int64_t>(args);
}
