// Matrix products on a GPU, out = alpha * a b + beta * add, in three forms (matmul.c chooses by shape):
//
// - few rows of a, b stored [n][k]: a warp takes a few columns, its lanes run along k with 16-byte loads, several in flight; b is read
//   once, a comes from the first-level cache. Warps of a block may share columns, and blocks (splits) too.
// - few rows of a, b stored [k][n]: a block takes the columns that 2, 4 or 8 neighbouring threads cover with 16-byte loads, its other
//   threads take other rows of b; sums are folded within warps (each step halves what a lane holds) and then across warps.
//   Both read b at the memory's speed only if enough of it is on its way: 4.8 TB/s for 0.7 us are 26 KB a multiprocessor. So with one
//   row a thread has 8 loads of 16 bytes on their way, which is 64 to 96 KB at the numbers of blocks that the bounds below let run.
// - anything: tiles of 64 x 64 in shared memory, 4 x 4 sums a thread.
//
// Which elements a thread adds, and how sums are combined, follows from sizes only. What cannot be read as 16 bytes (alignment, strides,
// ends) is read by elements, in the same places and order. Floats of 16 bits are summed in float32.

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/matmul.h"

// What sums: integers wrap, so an unsigned type of at least their size does for all.
template <typename T> struct matmul_sum {
    typedef typename dj_math<T>::type type;
};
template <> struct matmul_sum<uint8_t> {
    typedef uint32_t type;
};
template <> struct matmul_sum<uint16_t> {
    typedef uint32_t type;
};

template <typename Number> DJ_FN Number matmul_scale(double, int64_t whole)
{
    return (Number)whole;
}
template <> DJ_FN float matmul_scale<float>(double real, int64_t)
{
    return (float)real;
}
template <> DJ_FN double matmul_scale<double>(double real, int64_t)
{
    return real;
}

template <typename T> DJ_FN const T *matmul_added(const struct matmul_args *args, int64_t batch, int64_t i, int64_t j)
{
    return (const T *)args->add + batch * args->add_batch + i * args->add_m + j * args->add_n;
}

// What is added is on its way while a sum is made. Gives 0.
template <typename T> DJ_FN unsigned matmul_fetch_added(const struct matmul_args *args, int64_t batch, int64_t i, int64_t j)
{
    return args->add != nullptr && i < args->m && j < args->n ? dj_fetch(matmul_added<T>(args, batch, i, j)) : 0;
}

template <typename T>
DJ_FN void matmul_finish(const struct matmul_args *args, int64_t batch, int64_t i, int64_t j, typename matmul_sum<T>::type sum)
{
    typedef typename matmul_sum<T>::type Number;
    Number value = matmul_scale<Number>(args->alpha, args->alpha_int) * sum;
    if (args->add != nullptr)
        value += matmul_scale<Number>(args->beta, args->beta_int) * (Number)dj_load(matmul_added<T>(args, batch, i, j));
    T *out = (T *)args->out + batch * args->out_batch + i * args->out_m + j * args->out_n;
    dj_store(out, (typename dj_math<T>::type)value);
}

// A finished sum of one split: the whole sum where there is one split only.
template <typename T>
DJ_FN void matmul_put(const struct matmul_args *args, int64_t batch, int64_t i, int64_t j, typename matmul_sum<T>::type sum)
{
    if (i >= args->m || j >= args->n)
        return;
    if (args->splits == 1)
        return matmul_finish<T>(args, batch, i, j, sum);
    typename matmul_sum<T>::type *partial = (typename matmul_sum<T>::type *)args->partial;
    partial[((blockIdx.y * args->batch + batch) * args->m + i) * args->n + j] = sum;
}

// Adds the splits' sums in their order.
template <typename T> DJ_FN void matmul_splits(const struct matmul_args *args)
{
    typedef typename matmul_sum<T>::type Number;
    int64_t count = args->batch * args->m * args->n;
    DJ_ROLLED
    for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += (int64_t)gridDim.x * blockDim.x) {
        Number sum = 0;
        DJ_ROLLED
        for (int32_t split = 0; split < args->splits; split++)
            sum += ((const Number *)args->partial)[split * count + at];
        int64_t row = at / args->n, batch = row / args->m;
        matmul_finish<T>(args, batch, row - batch * args->m, at - row * args->n, sum);
    }
}

// b in rows of k ---------------------------------------------------------------------------------------------------------------

// 16 bytes of a tensor: what a thread reads at a time where alignment and strides allow it.
template <typename T> struct alignas(MATMUL_VECTOR_BYTES) matmul_vector {
    T at[MATMUL_VECTOR_BYTES / sizeof(T)];
};

template <typename T> DJ_FN typename dj_math<T>::type matmul_element(dj_bytes16 bytes, int i)
{
    matmul_vector<T> vector;
    __builtin_memcpy(&vector, &bytes, sizeof vector);
    return dj_load(&vector.at[i]);
}

DJ_FN int64_t matmul_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// Adds UNROLL vectors, `hop` apart, of C columns for M rows; a_row is the step between rows. All loads of b come first and none has a
// condition, else the compiler lets each wait for the one before: what a thread has on its way is what the memory's latency is divided by.
template <int UNROLL, typename T, int M, int C, typename Number>
DJ_FN void matmul_nk_round(const T *a, const int64_t (&a_row)[M], const T *const (&b)[C], int64_t k, int64_t hop,
                           Number (&sum)[M][C])
{
    enum { V = MATMUL_VECTOR_BYTES / sizeof(T) };
    dj_bytes16 weights[UNROLL][C];
    DJ_UNROLL
    for (int i = 0; i < UNROLL * C; i++)
        weights[i / C][i % C] = dj_read_once(b[i % C] + k + i / C * hop);
    DJ_UNROLL
    for (int i = 0; i < UNROLL * M; i++) {
        int u = i / M, m = i % M;
        dj_bytes16 x = dj_read_again(a + a_row[m] + k + u * hop);
        DJ_UNROLL
        for (int j = 0; j < V * C; j++)
            sum[m][j % C] += matmul_element<T>(x, j / C) * matmul_element<T>(weights[u][j % C], j / C);
    }
}

// Whole rounds, then shorter ones; returns where it ended.
template <int UNROLL, typename T, int M, int C, typename Number>
DJ_FN int64_t matmul_nk_rounds(const T *a, const int64_t (&a_row)[M], const T *const (&b)[C], int64_t k, int64_t end, int64_t hop,
                               Number (&sum)[M][C])
{
    DJ_ROLLED
    for (; k + (UNROLL - 1) * hop < end; k += UNROLL * hop)
        matmul_nk_round<UNROLL, T, M, C>(a, a_row, b, k, hop, sum);
    if constexpr (UNROLL > 1)
        k = matmul_nk_rounds<UNROLL / 2, T, M, C>(a, a_row, b, k, end, hop, sum);
    return k;
}

// What a lane adds up of columns [column, + C) for rows [0, M), from `k` to `end`. Rows and columns beyond the last one repeat it.
template <typename T, int M, int C, typename Number>
DJ_FN void matmul_nk_sums(const struct matmul_args *args, int64_t batch, int64_t column, int64_t k, int64_t end, int64_t hop,
                          Number (&sum)[M][C])
{
    enum { V = MATMUL_VECTOR_BYTES / sizeof(T), UNROLL = M == 1 ? 4 : 2 };
    const T *a = (const T *)args->a + batch * args->a_batch;
    const T *b[C];
    int64_t a_row[M];
    DJ_UNROLL
    for (int c = 0; c < C; c++)
        b[c] = (const T *)args->b + batch * args->b_batch + matmul_least(column + c, args->n - 1) * args->b_n;
    DJ_UNROLL
    for (int m = 0; m < M; m++)
        a_row[m] = matmul_least(m, args->m - 1) * args->a_m;
    if (args->a_is_wide && args->b_is_wide)
        k = matmul_nk_rounds<UNROLL, T, M, C>(a, a_row, b, k, end, hop, sum);
    DJ_ROLLED
    for (; k < end; k += hop) {
        DJ_ROLLED
        for (int64_t at = k; at < k + V && at < end; at++) {
            DJ_UNROLL
            for (int i = 0; i < M * C; i++)
                sum[i / C][i % C] += dj_load(a + a_row[i / C] + at * args->a_k) * dj_load(b[i % C] + at * args->b_k);
        }
    }
}

template <typename T, int M> DJ_FN void matmul_nk(const struct matmul_args *args)
{
    typedef typename matmul_sum<T>::type Number;
    enum { C = MATMUL_NK_COLUMNS(M), V = MATMUL_VECTOR_BYTES / sizeof(T) };
    DJ_SHARED(Number, parts, MATMUL_NK_WARPS * M * C);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, share = warp % args->k_warps,
        per_block = MATMUL_NK_WARPS / args->k_warps;
    int64_t across = (args->n + C - 1) / C, groups = across * args->batch;
    int64_t begin = blockIdx.y * args->k_part, end = matmul_least(args->k, begin + args->k_part);

    DJ_ROLLED
    for (int64_t first = (int64_t)blockIdx.x * per_block; first < groups; first += (int64_t)gridDim.x * per_block) {
        int64_t group = matmul_least(first + warp / args->k_warps, groups - 1);
        int64_t batch = args->batch == 1 ? 0 : group / across, column = (group - batch * across) * C;
        Number sum[M][C] = {}, mine = 0;
        if (share == 0 && lane < M * C)
            end += matmul_fetch_added<T>(args, batch, lane / C, column + lane % C);
        matmul_nk_sums<T, M, C>(args, batch, column, begin + (share * 32 + lane) * V, end, args->k_warps * 32 * V, sum);
        DJ_UNROLL
        for (int i = 0; i < M * C; i++) {
            Number whole = dj_warp_all(sum[i / C][i % C], dj_add());
            mine = lane == i ? whole : mine;
        }
        if (args->k_warps > 1) {
            dj_sync();    // whoever read the parts of the groups before is through
            if (lane < M * C)
                parts[warp * M * C + lane] = mine;
            dj_sync();
            DJ_ROLLED
            for (int other = 1; other < args->k_warps && share == 0 && lane < M * C; other++)
                mine += parts[(warp + other) * M * C + lane];
        }
        if (share == 0 && lane < M * C && first + warp / args->k_warps < groups)
            matmul_put<T>(args, batch, lane / C, column + lane % C, mine);
    }
}

// b in rows of n ---------------------------------------------------------------------------------------------------------------

// What a lane holds of the values that it adds up together with others: `count` of them from `first` on, the same ones as the lanes
// that differ in `twins`.
struct matmul_held {
    int first, count, twins;
};

// Adds R values over the lanes that differ in the bits from MASK down to `lanes`. Each step a lane gives half of its values away, while
// it has several.
template <int R, int MASK, typename Number> DJ_FN void matmul_fold(Number *value, int lane, int lanes, struct matmul_held *held)
{
    if (MASK < lanes)
        return;
    if constexpr (R > 1) {
        bool is_upper = lane & MASK;
        DJ_UNROLL
        for (int i = 0; i < R / 2; i++) {
            Number given = is_upper ? value[i] : value[i + R / 2], kept = is_upper ? value[i + R / 2] : value[i];
            value[i] = kept + dj_shuffle_xor(given, MASK);
        }
        held->first += is_upper ? R / 2 : 0;
        held->count = R / 2;
    } else {
        value[0] += dj_shuffle_xor(value[0], MASK);
        held->twins |= MASK;
    }
    if constexpr (MASK > MATMUL_LANES_LEAST)
        matmul_fold<(R > 1 ? R / 2 : 1), MASK / 2>(value, lane, lanes, held);
}

// Adds UNROLL rows of b, `hop` apart, at V columns. Loads come first, as above.
template <int UNROLL, typename T, int M, int R, typename Number>
DJ_FN void matmul_kn_round(const struct matmul_args *args, const T *a, const T *b, int64_t k, int64_t hop, Number (&sum)[R])
{
    enum { V = R / M };
    dj_bytes16 weights[UNROLL];
    T x[UNROLL][M];
    DJ_UNROLL
    for (int u = 0; u < UNROLL; u++)
        weights[u] = dj_read_once(b + (k + u * hop) * args->b_k);
    DJ_UNROLL
    for (int i = 0; i < UNROLL * M; i++)
        x[i / M][i % M] = a[(i % M < args->m ? i % M : 0) * args->a_m + (k + i / M * hop) * args->a_k];
    DJ_UNROLL
    for (int i = 0; i < UNROLL * M; i++) {
        Number factor = dj_load(&x[i / M][i % M]);
        DJ_UNROLL
        for (int v = 0; v < V; v++)
            sum[i % M * V + v] += factor * matmul_element<T>(weights[i / M], v);
    }
}

template <int UNROLL, typename T, int M, int R, typename Number>
DJ_FN int64_t matmul_kn_rounds(const struct matmul_args *args, const T *a, const T *b, int64_t k, int64_t end, int64_t hop,
                               Number (&sum)[R])
{
    DJ_ROLLED
    for (; k + (UNROLL - 1) * hop < end; k += UNROLL * hop)
        matmul_kn_round<UNROLL, T, M>(args, a, b, k, hop, sum);
    if constexpr (UNROLL > 1)
        k = matmul_kn_rounds<UNROLL / 2, T, M>(args, a, b, k, end, hop, sum);
    return k;
}

// The same for one row, by elements, of which `left` exist.
template <typename T, int M, int R, typename Number>
DJ_FN void matmul_kn_slowly(const struct matmul_args *args, const T *a, const T *b, int64_t k, int64_t left, Number (&sum)[R])
{
    enum { V = R / M };
    matmul_vector<T> weights;
    DJ_UNROLL
    for (int v = 0; v < V; v++)
        weights.at[v] = v < left ? b[k * args->b_k + v * args->b_n] : T{};
    DJ_UNROLL
    for (int m = 0; m < M; m++) {
        Number factor = dj_load(a + (m < args->m ? m : 0) * args->a_m + k * args->a_k);
        DJ_UNROLL
        for (int v = 0; v < V; v++)
            sum[m * V + v] += factor * dj_load(&weights.at[v]);
    }
}

// One group of columns, by a block.
template <typename T, int M, typename Number>
DJ_FN void matmul_kn_columns(const struct matmul_args *args, int64_t batch, int64_t first, Number *parts)
{
    enum { V = MATMUL_VECTOR_BYTES / sizeof(T), UNROLL = 8 / M > 2 ? 8 / M : 2, HELD_MOST = M * V * MATMUL_LANES_MOST / 32 };
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, lanes = args->lanes, beside = (int)threadIdx.x % lanes,
        width = lanes * V;
    int64_t column = first + beside * V, left = args->n - column, hop = (int)blockDim.x / lanes;
    int64_t k = blockIdx.y * args->k_part, end = matmul_least(args->k, k + args->k_part);
    const T *a = (const T *)args->a + batch * args->a_batch, *b = (const T *)args->b + batch * args->b_batch + column * args->b_n;
    struct matmul_held held = {0, M * V, 0};
    Number sum[M * V] = {};

    if ((int)threadIdx.x < M * width)
        end += matmul_fetch_added<T>(args, batch, (int)threadIdx.x / width, first + (int)threadIdx.x % width);
    k += (int)threadIdx.x / lanes;
    if (args->b_is_wide && left >= V)
        k = matmul_kn_rounds<UNROLL, T, M>(args, a, b, k, end, hop, sum);
    DJ_ROLLED
    for (; k < end; k += hop)
        matmul_kn_slowly<T, M>(args, a, b, k, left, sum);
    matmul_fold<M * V, 16>(sum, lane, lanes, &held);
    dj_sync();    // whoever read the parts of the columns before is through
    DJ_UNROLL
    for (int i = 0; i < (HELD_MOST > 0 ? HELD_MOST : 1); i++) {
        int value = held.first + i;
        if (i < held.count && (lane & held.twins) == 0)
            parts[(warp * M + value / V) * width + beside * V + value % V] = sum[i];
    }
    dj_sync();
    DJ_ROLLED
    for (int at = (int)threadIdx.x; at < M * width; at += (int)blockDim.x) {
        Number whole = 0;
        DJ_ROLLED
        for (int other = 0; other < (int)blockDim.x / 32; other++)
            whole += parts[other * M * width + at];
        matmul_put<T>(args, batch, at / width, first + at % width, whole);
    }
}

template <typename T, int M> DJ_FN void matmul_kn(const struct matmul_args *args)
{
    typedef typename matmul_sum<T>::type Number;
    enum { V = MATMUL_VECTOR_BYTES / sizeof(T) };
    DJ_SHARED(Number, parts, MATMUL_KN_THREADS_MOST / 32 * M * MATMUL_LANES_MOST * V);
    int64_t width = args->lanes * V, across = (args->n + width - 1) / width, groups = across * args->batch;

    DJ_ROLLED
    for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
        int64_t batch = args->batch == 1 ? 0 : group / across;
        matmul_kn_columns<T, M>(args, batch, (group - batch * across) * width, parts);
    }
}

// Tiles ------------------------------------------------------------------------------------------------------------------------

template <typename Number> struct alignas(16) matmul_quad {
    Number at[4];
};
enum {
    TILE_K = 16,
    TILE_QUADS = MATMUL_TILE / 4,
    TILE_PITCH = TILE_QUADS + 1,
    TILE_READS = MATMUL_TILE * TILE_K / MATMUL_TILE_THREADS
};

// One side's share of a thread: elements of a piece [64 rows][16 of k]. Threads run along whichever of both is closer together in memory.
template <typename T, typename Number> struct matmul_side {
    const T *base;
    int64_t row, rows, row_step, k_step;
    bool runs_along_k;
    Number held[TILE_READS];

    DJ_FN int row_of(int i) const
    {
        int at = (int)threadIdx.x + i * MATMUL_TILE_THREADS;
        return runs_along_k ? at / TILE_K : at % MATMUL_TILE;
    }
    DJ_FN int k_of(int i) const
    {
        int at = (int)threadIdx.x + i * MATMUL_TILE_THREADS;
        return runs_along_k ? at % TILE_K : at / MATMUL_TILE;
    }
    DJ_FN void read(int64_t k, int64_t end)
    {
        DJ_UNROLL
        for (int i = 0; i < TILE_READS; i++) {
            int64_t r = row + row_of(i), at = k + k_of(i);
            held[i] = r < rows && at < end ? (Number)dj_load(base + r * row_step + at * k_step) : (Number)0;
        }
    }
    DJ_FN void place(matmul_quad<Number> *tile) const
    {
        DJ_UNROLL
        for (int i = 0; i < TILE_READS; i++)
            tile[k_of(i) * TILE_PITCH + row_of(i) / 4].at[row_of(i) % 4] = held[i];
    }
};

template <typename T> DJ_FN void matmul_tiles(const struct matmul_args *args)
{
    typedef typename matmul_sum<T>::type Number;
    DJ_SHARED(matmul_quad<Number>, tile_a, TILE_K * TILE_PITCH);
    DJ_SHARED(matmul_quad<Number>, tile_b, TILE_K * TILE_PITCH);
    int64_t down = (args->m + MATMUL_TILE - 1) / MATMUL_TILE, across = (args->n + MATMUL_TILE - 1) / MATMUL_TILE;
    int x = (int)threadIdx.x % TILE_QUADS, y = (int)threadIdx.x / TILE_QUADS;

    DJ_ROLLED
    for (int64_t tile = blockIdx.x; tile < down * across * args->batch; tile += gridDim.x) {
        int64_t above = tile / across, batch = above / down, row = (above - batch * down) * MATMUL_TILE,
                column = (tile - above * across) * MATMUL_TILE;
        matmul_side<T, Number> a = {
            (const T *)args->a + batch * args->a_batch, row, args->m, args->a_m, args->a_k, args->a_k <= args->a_m, {}};
        matmul_side<T, Number> b = {
            (const T *)args->b + batch * args->b_batch, column, args->n, args->b_n, args->b_k, args->b_k <= args->b_n, {}};
        Number sum[4][4] = {};
        a.read(0, args->k);
        b.read(0, args->k);
        DJ_ROLLED
        for (int64_t k = 0; k < args->k; k += TILE_K) {
            dj_sync();    // whoever read the pieces before is through
            a.place(tile_a);
            b.place(tile_b);
            dj_sync();
            a.read(k + TILE_K, args->k);
            b.read(k + TILE_K, args->k);
            DJ_UNROLL
            for (int at = 0; at < TILE_K; at++) {
                matmul_quad<Number> p = tile_a[at * TILE_PITCH + y], q = tile_b[at * TILE_PITCH + x];
                DJ_UNROLL
                for (int i = 0; i < 16; i++)
                    sum[i / 4][i % 4] += p.at[i / 4] * q.at[i % 4];
            }
        }
        DJ_UNROLL
        for (int i = 0; i < 16; i++) {
            int64_t at_row = row + y * 4 + i / 4, at_column = column + x * 4 + i % 4;
            if (at_row < args->m && at_column < args->n)
                matmul_finish<T>(args, batch, at_row, at_column, sum[i / 4][i % 4]);
        }
    }
}

#define FLOAT_KERNELS(T, suffix) \
    DJ_KERNEL_OF(matmul_nk_1_##suffix, struct matmul_args, MATMUL_NK_THREADS, 3) \
    { \
        matmul_nk<T, 1>(args); \
    } \
    DJ_KERNEL_OF(matmul_nk_4_##suffix, struct matmul_args, MATMUL_NK_THREADS, 2) \
    { \
        matmul_nk<T, 4>(args); \
    } \
    DJ_KERNEL_OF(matmul_nk_8_##suffix, struct matmul_args, MATMUL_NK_THREADS, 1) \
    { \
        matmul_nk<T, 8>(args); \
    } \
    DJ_KERNEL_OF(matmul_kn_1_##suffix, struct matmul_args, MATMUL_KN_THREADS_MOST, 1) \
    { \
        matmul_kn<T, 1>(args); \
    } \
    DJ_KERNEL_OF(matmul_kn_4_##suffix, struct matmul_args, MATMUL_KN_THREADS_MOST, 1) \
    { \
        matmul_kn<T, 4>(args); \
    } \
    DJ_KERNEL_OF(matmul_kn_8_##suffix, struct matmul_args, MATMUL_KN_THREADS_MOST, 1) \
    { \
        matmul_kn<T, 8>(args); \
    } \
    DJ_KERNEL(matmul_splits_##suffix, struct matmul_args, MATMUL_SUM_THREADS) \
    { \
        matmul_splits<T>(args); \
    } \
    DJ_KERNEL(matmul_tiles_##suffix, struct matmul_args, MATMUL_TILE_THREADS) \
    { \
        matmul_tiles<T>(args); \
    }

FLOAT_KERNELS(float, f32)
FLOAT_KERNELS(dj_half, f16)
FLOAT_KERNELS(dj_bfloat, bf16)

DJ_KERNEL_OF(matmul_nk_1_f64, struct matmul_args, MATMUL_NK_THREADS, 3)
{
    matmul_nk<double, 1>(args);
}
DJ_KERNEL_OF(matmul_kn_1_f64, struct matmul_args, MATMUL_KN_THREADS_MOST, 1)
{
    matmul_kn<double, 1>(args);
}
DJ_KERNEL(matmul_splits_f64, struct matmul_args, MATMUL_SUM_THREADS)
{
    matmul_splits<double>(args);
}
DJ_KERNEL(matmul_tiles_f64, struct matmul_args, MATMUL_TILE_THREADS)
{
    matmul_tiles<double>(args);
}
DJ_KERNEL(matmul_tiles_i8, struct matmul_args, MATMUL_TILE_THREADS)
{
    matmul_tiles<uint8_t>(args);
}
DJ_KERNEL(matmul_tiles_i16, struct matmul_args, MATMUL_TILE_THREADS)
{
    matmul_tiles<uint16_t>(args);
}
DJ_KERNEL(matmul_tiles_i32, struct matmul_args, MATMUL_TILE_THREADS)
{
    matmul_tiles<uint32_t>(args);
}
DJ_KERNEL(matmul_tiles_i64, struct matmul_args, MATMUL_TILE_THREADS)
{
    matmul_tiles<uint64_t>(args);
}
