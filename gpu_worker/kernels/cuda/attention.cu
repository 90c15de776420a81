// Attention on a GPU: out = softmax(scale q k^T + mask) v, and the logarithm of each row's sum, never a whole matrix of scores (online
// softmax: Milakov and Gimelshein 2018; tiles as in FlashAttention, Dao et al. 2022).
//
// Few queries (decoding) are bound by reading the cache: 4.8 TB/s for 0.7 us are 26 KB on their way a multiprocessor. So the keys are split
// into parts until there are blocks for all multiprocessors, and a thread has 8 loads of 16 bytes of keys and values on their way, 16 KB a
// block, of which a multiprocessor holds four. A block walks one part for one query; a second kernel adds up the parts, where there are
// several. Sizes come from the arguments, so one captured graph serves a growing cache as long as the number of blocks, which is rounded
// up, stays the same; blocks behind the last part leave at once. What cannot be read 16 bytes at a time is read by elements, in the same
// places and order (the kernels `apart`).
//
// Many queries: a block keeps 32 queries and walks the keys 32 at a time through shared memory; four threads share a query.
//
// A query that may see no key gives 0 and -inf.

#include "gpu_worker/kernels/cuda/attention.h"
#include "gpu_worker/kernels/cuda/device.cuh"

// What is added to the score of (query, key); -inf hides the key.
DJ_FN float mask_at(const struct attention_args *args, int64_t batch, int64_t head, int64_t query, int64_t key)
{
    int64_t at = batch * args->mask_stride[0] + head * args->mask_stride[1] + query * args->mask_stride[2] +
                 key * args->mask_stride[3];
    switch (args->mask_kind) {
    case MASK_BOOL: return ((const uint8_t *)args->mask)[at] != 0 ? 0.0f : -INFINITY;
    case MASK_F32: return ((const float *)args->mask)[at];
    case MASK_F16: return dj_load((const dj_half *)args->mask + at);
    case MASK_BF16: return dj_load((const dj_bfloat *)args->mask + at);
    default: return 0.0f;
    }
}

DJ_FN int64_t attention_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// What a weight beside the score `top` is worth beside the larger score `all`.
DJ_FN float worth(float top, float all)
{
    return exp(top == -INFINITY ? top : top - all);    // no branch around exp
}

// A query's row of the output.
template <typename T> struct attention_row {
    T *at;
    int64_t step, depth;
    float *lse;
    DJ_FN attention_row(const struct attention_args *args, int64_t both, int64_t query)
        : step(args->out_stride[3]), depth(args->value_depth), lse(args->lse)
    {
        int64_t batch = (uint32_t)both / (uint32_t)args->heads, head = both - batch * args->heads;
        at = (T *)args->out + batch * args->out_stride[0] + head * args->out_stride[1] + query * args->out_stride[2];
        lse += lse == nullptr ? 0 : batch * args->lse_stride[0] + head * args->lse_stride[1] + query * args->lse_stride[2];
    }
    DJ_FN void put(int64_t d, float value, float top, float sum) const
    {
        if (d < depth)
            dj_store(at + d * step, sum == 0 ? 0.0f : value / sum);
        if (d == 0 && lse != nullptr)
            *lse = top + log(sum);
    }
};

// Few queries ------------------------------------------------------------------------------------------------------------------

// How a block walks its keys: LANES neighbouring threads hold a row, each PIECES pieces of 16 bytes; BESIDE rows lie side by side, and a
// thread reads ROWS of them, keys and values, at once.
template <typename T, int DEPTH> struct few_shape {
    enum {
        LENGTH = 16 / sizeof(T),
        PIECES = DEPTH / LENGTH > 32 ? DEPTH / LENGTH / 32 : 1,
        LANES = DEPTH / LENGTH / PIECES,
        ROWS = ATTENTION_FEW_LOADS / PIECES,
        BESIDE = ATTENTION_FEW_THREADS / LANES,
        ROUND = ROWS * BESIDE
    };
};

struct few_place {
    int64_t batch, head, query, first, end;
};

template <typename T> struct alignas(16) attention_piece {
    T at[16 / sizeof(T)];
};

template <typename T> DJ_FN float piece_value(const dj_bytes16 &bytes, int i)
{
    attention_piece<T> piece;
    __builtin_memcpy(&piece, &bytes, sizeof piece);
    return dj_load(&piece.at[i]);
}

// Elements of a row from `d` on. What is beyond its end is anything where rows are read 16 bytes at a time.
template <typename T, bool IS_WIDE> DJ_FN dj_bytes16 piece_read(const T *row, int64_t step, int64_t d, int64_t depth)
{
    if constexpr (IS_WIDE) {
        return dj_read_once(row + (d < depth ? d : 0));
    } else {
        attention_piece<T> piece;
        DJ_UNROLL
        for (int i = 0; i < (int)(16 / sizeof(T)); i++)
            piece.at[i] = d + i < depth ? row[(d + i) * step] : T{};
        dj_bytes16 bytes;
        __builtin_memcpy(&bytes, &piece, sizeof bytes);
        return bytes;
    }
}

// A lane of a row: its share of the query and of the sums, and what is on its way.
template <typename T, int DEPTH, bool IS_WIDE> struct few_lane {
    typedef few_shape<T, DEPTH> Shape;
    enum { LENGTH = Shape::LENGTH, PIECES = Shape::PIECES, ROWS = Shape::ROWS };
    const struct attention_args *args;
    const struct few_place *at;
    const T *k, *v;
    int lane;
    float q[PIECES * LENGTH], sums[PIECES * LENGTH], top, sum;
    dj_bytes16 keys[ROWS][PIECES], values[ROWS][PIECES];
    float mask[ROWS];

    DJ_FN int64_t first_of(int piece) const
    {
        return (piece * (int)Shape::LANES + lane) * (int)LENGTH;
    }

    template <typename M> DJ_FN void read_mask(const M *from, int64_t key)
    {
        M raw[ROWS];
        from += at->batch * args->mask_stride[0] + at->head * args->mask_stride[1] + at->query * args->mask_stride[2];
        DJ_UNROLL
        for (int r = 0; r < ROWS; r++)
            raw[r] = from[attention_least(key + r * Shape::BESIDE, at->end - 1) * args->mask_stride[3]];
        DJ_UNROLL
        for (int r = 0; r < ROWS; r++)
            if constexpr (sizeof(M) == 1)
                mask[r] = raw[r] != 0 ? 0.0f : -INFINITY;
            else
                mask[r] = dj_load(&raw[r]);
    }

    // Starts reading keys and values of ROWS rows from `key` on; rows behind the last one repeat it. No load has a condition, else the
    // compiler lets it wait for those before.
    DJ_FN void read(int64_t key)
    {
        DJ_UNROLL
        for (int i = 0; i < ROWS * PIECES; i++) {
            int64_t row = attention_least(key + i / PIECES * Shape::BESIDE, at->end - 1);
            keys[i / PIECES][i % PIECES] = piece_read<T, IS_WIDE>(k + row * args->k_stride[2], args->k_stride[3],
                                                                  first_of(i % PIECES), args->depth);
        }
        DJ_UNROLL
        for (int i = 0; i < ROWS * PIECES; i++) {
            int64_t row = attention_least(key + i / PIECES * Shape::BESIDE, at->end - 1);
            values[i / PIECES][i % PIECES] = piece_read<T, IS_WIDE>(v + row * args->v_stride[2], args->v_stride[3],
                                                                    first_of(i % PIECES), args->value_depth);
        }
        switch (args->mask_kind) {
        case MASK_BOOL: read_mask((const uint8_t *)args->mask, key); break;
        case MASK_F32: read_mask((const float *)args->mask, key); break;
        case MASK_F16: read_mask((const dj_half *)args->mask, key); break;
        case MASK_BF16: read_mask((const dj_bfloat *)args->mask, key); break;
        default: break;
        }
    }

    DJ_FN void take_query()
    {
        const T *from = (const T *)args->q + at->batch * args->q_stride[0] + at->head * args->q_stride[1] +
                        at->query * args->q_stride[2];
        DJ_UNROLL
        for (int p = 0; p < PIECES; p++) {
            dj_bytes16 bytes = piece_read<T, IS_WIDE>(from, args->q_stride[3], first_of(p), args->depth);
            DJ_UNROLL
            for (int i = 0; i < LENGTH; i++)
                q[p * LENGTH + i] = piece_value<T>(bytes, i) * args->scale;
        }
    }

    DJ_FN float score_of(int r, int64_t key) const
    {
        float score = 0;
        DJ_UNROLL
        for (int p = 0; p < PIECES; p++) {
            float product = 0;
            DJ_UNROLL
            for (int i = 0; i < LENGTH; i++)
                product = fmaf(q[p * LENGTH + i], piece_value<T>(keys[r][p], i), product);
            score += first_of(p) < args->depth ? product : 0.0f;
        }
        DJ_UNROLL
        for (int step = Shape::LANES / 2; step > 0; step /= 2)
            score += dj_shuffle_xor(score, (unsigned)step);
        if (args->mask_kind != MASK_NONE)
            score += mask[r];
        return key + r * Shape::BESIDE < at->end ? score : -INFINITY;
    }

    // Adds what was read.
    DJ_FN void add(int64_t key)
    {
        float weight[ROWS], larger = top;
        DJ_UNROLL
        for (int r = 0; r < ROWS; r++) {
            weight[r] = score_of(r, key);
            larger = weight[r] > larger ? weight[r] : larger;
        }
        float before = worth(top, larger);
        top = larger;
        sum *= before;
        DJ_UNROLL
        for (int i = 0; i < PIECES * LENGTH; i++)
            sums[i] *= before;
        DJ_UNROLL
        for (int r = 0; r < ROWS; r++) {
            weight[r] = worth(weight[r], larger);
            sum += weight[r];
            DJ_UNROLL
            for (int p = 0; p < PIECES; p++) {
                dj_bytes16 bytes = values[r][p];
                DJ_UNROLL
                for (int i = 0; i < 4; i++)    // a row that is not there adds nothing, whatever the one in its place holds
                    bytes.word[i] = key + r * Shape::BESIDE < at->end ? bytes.word[i] : 0;
                DJ_UNROLL
                for (int i = 0; i < LENGTH; i++)
                    sums[p * LENGTH + i] = fmaf(weight[r], piece_value<T>(bytes, i), sums[p * LENGTH + i]);
            }
        }
    }
};

// Walks the part's keys; leaves in shared memory what each of the rows beside each other came to.
template <typename T, int DEPTH, bool IS_WIDE>
DJ_FN void few_walk(const struct attention_args *args, const struct few_place *at, float *shared_sums, float *shared_top,
                    float *shared_sum)
{
    typedef few_shape<T, DEPTH> Shape;
    few_lane<T, DEPTH, IS_WIDE> own;
    int beside = (int)threadIdx.x / Shape::LANES;

    own.args = args;
    own.at = at;
    own.k = (const T *)args->k + at->batch * args->k_stride[0] + at->head * args->k_stride[1];
    own.v = (const T *)args->v + at->batch * args->v_stride[0] + at->head * args->v_stride[1];
    own.lane = (int)threadIdx.x % Shape::LANES;
    own.top = -INFINITY;
    own.sum = 0;
    DJ_UNROLL
    for (int i = 0; i < Shape::PIECES * Shape::LENGTH; i++)
        own.sums[i] = 0;
    DJ_ROLLED
    for (int64_t start = at->first; start < at->end; start += Shape::ROUND) {
        own.read(start + beside);
        if (start == at->first)    // what is read first does not wait for the query
            own.take_query();
        own.add(start + beside);
    }
    DJ_UNROLL
    for (int i = 0; i < Shape::PIECES * Shape::LENGTH; i++)
        shared_sums[beside * DEPTH + own.first_of(i / Shape::LENGTH) + i % Shape::LENGTH] = own.sums[i];
    if (own.lane == 0) {
        shared_top[beside] = own.top;
        shared_sum[beside] = own.sum;
    }
}

// Blocks: parts, batches and heads, queries.
template <typename T, int DEPTH, bool IS_WIDE> DJ_FN void few(const struct attention_args *args)
{
    enum { BESIDE = few_shape<T, DEPTH>::BESIDE };
    DJ_SHARED(float, shared_sums, BESIDE *DEPTH);
    DJ_SHARED(float, shared_top, BESIDE);
    DJ_SHARED(float, shared_sum, BESIDE);
    int64_t part = blockIdx.x, both = blockIdx.y, query = blockIdx.z;
    if (part >= args->parts)
        return;
    int64_t visible = args->is_causal ? attention_least(query + 1, args->keys) : args->keys;
    struct few_place at;
    at.batch = blockIdx.y / (uint32_t)args->heads;
    at.head = both - at.batch * args->heads;
    at.query = query;
    at.first = part * args->part_keys;
    at.end = attention_least(at.first + args->part_keys, visible);
    few_walk<T, DEPTH, IS_WIDE>(args, &at, shared_sums, shared_top, shared_sum);
    attention_row<T> out(args, both, query);
    int64_t at_part = (both * args->queries + query) * args->parts + part;
    dj_sync();
    DJ_ROLLED
    for (int64_t d = threadIdx.x; d < args->value_depth || d == 0; d += blockDim.x) {
        float top = -INFINITY, sum = 0, all = 0;
        DJ_UNROLL
        for (int g = 0; g < BESIDE; g++)
            top = shared_top[g] > top ? shared_top[g] : top;
        DJ_UNROLL
        for (int g = 0; g < BESIDE; g++) {
            float factor = worth(shared_top[g], top);
            sum = fmaf(shared_sum[g], factor, sum);
            all = fmaf(shared_sums[g * DEPTH + d], factor, all);
        }
        if (args->parts == 1) {
            out.put(d, all, top, sum);
            continue;
        }
        if (d < args->value_depth)
            args->part[at_part * args->part_pitch + d] = all;
        if (d == 0) {
            args->part_top[at_part * 2] = top;
            args->part_top[at_part * 2 + 1] = sum;
        }
    }
}

// Adds up the parts of a query: neighbouring threads take four elements each, those further away take other parts. Blocks: batches and
// heads, queries.
template <typename T> DJ_FN void join(const struct attention_args *args)
{
    enum { ROUND = 4, SLOTS = ATTENTION_PARTS_MOST / 32 };
    DJ_SHARED(float, shared, ATTENTION_JOIN_THREADS * 4);
    int64_t both = blockIdx.x, query = blockIdx.y, row = both * args->queries + query;
    int lanes = 1 << args->join_lane_bits, quad = (int)threadIdx.x & (lanes - 1),
        share = (int)threadIdx.x >> args->join_lane_bits, shares = ATTENTION_JOIN_THREADS >> args->join_lane_bits,
        parts = (int)args->parts, lane = (int)threadIdx.x % 32;
    const float *tops = args->part_top + row * parts * 2;
    const float *sums = args->part + row * parts * args->part_pitch + (quad * 4 < args->part_pitch ? quad * 4 : 0);
    float slot_top[SLOTS], slot_sum[SLOTS], top = -INFINITY, sum = 0, mine[4] = {};

    DJ_UNROLL
    for (int i = 0; i < SLOTS; i++) {    // every warp looks at all parts
        int p = lane + 32 * i < parts ? lane + 32 * i : parts - 1;
        slot_top[i] = tops[p * 2];
        slot_sum[i] = tops[p * 2 + 1];
    }
    DJ_ROLLED
    for (int first = share; first - share < parts; first += ROUND * shares) {
        dj_bytes16 bytes[ROUND];
        float part_top[ROUND];
        DJ_UNROLL
        for (int r = 0; r < ROUND; r++) {
            int p = first + r * shares < parts ? first + r * shares : parts - 1;
            bytes[r] = dj_read_once(sums + p * args->part_pitch);
            part_top[r] = tops[p * 2];
        }
        if (first == share) {
            DJ_UNROLL
            for (int i = 0; i < SLOTS; i++)
                top = slot_top[i] > top ? slot_top[i] : top;
            top = dj_warp_all(top, dj_largest());
        }
        DJ_UNROLL
        for (int r = 0; r < ROUND; r++) {
            float factor = worth(part_top[r], top);
            DJ_UNROLL
            for (int i = 0; i < 4; i++)
                mine[i] = first + r * shares < parts ? fmaf(piece_value<float>(bytes[r], i), factor, mine[i]) : mine[i];
        }
    }
    DJ_UNROLL
    for (int i = 0; i < SLOTS; i++)
        sum += lane + 32 * i < parts ? slot_sum[i] * worth(slot_top[i], top) : 0.0f;
    sum = dj_warp_all(sum, dj_add());
    DJ_UNROLL
    for (int i = 0; i < 4; i++)
        shared[threadIdx.x * 4 + i] = mine[i];
    attention_row<T> out(args, both, query);
    dj_sync();
    DJ_ROLLED
    for (int d = (int)threadIdx.x; d < args->value_depth || d == 0; d += (int)blockDim.x) {
        float all = 0;
        for (int other = 0; other < shares; other++)
            all += shared[other * lanes * 4 + d];
        out.put(d, all, top, sum);
    }
}

// Many queries -----------------------------------------------------------------------------------------------------------------

// Rows [first, first + COUNT) of a tensor, times `scale`, into shared memory; 0 beyond its rows and their ends.
template <typename T, int DEPTH, int COUNT>
DJ_FN void many_place(float *to, const T *from, const int64_t *stride, int64_t first, int64_t rows, int64_t depth, float scale)
{
    for (int i = (int)threadIdx.x; i < COUNT * DEPTH; i += ATTENTION_MANY_THREADS) {
        int64_t row = first + i / DEPTH, d = i % DEPTH;
        to[i / DEPTH * (DEPTH + 1) + d] = row < rows && d < depth ? dj_load(from + row * stride[2] + d * stride[3]) * scale
                                                                  : 0.0f;
    }
}

// A thread's scores: of its query and every fourth key of the tile that begins at `key`.
template <int ROW, int COLUMNS>
DJ_FN void many_scores(const struct attention_args *args, int64_t both, int64_t query, int64_t key, const float *own_q,
                       const float *shared_k, float (&score)[COLUMNS])
{
    int64_t batch = both / args->heads, head = both % args->heads;
    int quarter = (int)threadIdx.x % 4;
    for (int j = 0; j < COLUMNS; j++)
        score[j] = 0;
    for (int64_t d = 0; d < args->depth; d++)
        for (int j = 0; j < COLUMNS; j++)
            score[j] += own_q[d] * shared_k[(quarter + 4 * j) * ROW + d];
    for (int j = 0; j < COLUMNS; j++) {
        int64_t at = key + quarter + 4 * j;
        bool is_seen = at < args->keys && query < args->queries && !(args->is_causal && at > query);
        score[j] = !is_seen                       ? -INFINITY
                   : args->mask_kind == MASK_NONE ? score[j]
                                                  : score[j] + mask_at(args, batch, head, query, at);
    }
}

// Makes weights of scores: leaves them at `weights`, joins them to (top, sum), and returns what the sums before are to be multiplied with.
template <int COLUMNS> DJ_FN float many_weights(const float (&score)[COLUMNS], float *weights, float *top, float *sum)
{
    float tile_top = -INFINITY, tile_sum = 0;
    for (int j = 0; j < COLUMNS; j++)
        tile_top = dj_largest()(score[j], tile_top);
    tile_top = dj_largest()(dj_shuffle_xor(tile_top, 1), tile_top);
    tile_top = dj_largest()(dj_shuffle_xor(tile_top, 2), tile_top);
    float larger = dj_largest()(tile_top, *top), before = *top == -INFINITY ? 0.0f : exp(*top - larger);
    for (int j = 0; j < COLUMNS; j++) {
        float weight = score[j] == -INFINITY ? 0.0f : exp(score[j] - larger);
        weights[(int)threadIdx.x % 4 + 4 * j] = weight;
        tile_sum += weight;
    }
    tile_sum += dj_shuffle_xor(tile_sum, 1);
    tile_sum += dj_shuffle_xor(tile_sum, 2);
    *sum = *sum * before + tile_sum;
    *top = larger;
    return before;
}

// Shared memory: queries [32][DEPTH + 1], keys [32][DEPTH + 1], values [32][DEPTH + 1], weights [32][33].
template <typename T, int DEPTH> DJ_FN void many(const struct attention_args *args)
{
    enum { ROW = DEPTH + 1, SHARE = DEPTH / 4, COLUMNS = ATTENTION_KEYS / 4, WEIGHTS = ATTENTION_KEYS + 1 };
    DJ_DYNAMIC(float, memory);
    float *shared_q = memory, *shared_k = shared_q + ATTENTION_QUERIES * ROW, *shared_v = shared_k + ATTENTION_KEYS * ROW;
    int64_t both = blockIdx.y, batch = both / args->heads, head = both % args->heads,
            first = (int64_t)blockIdx.x * ATTENTION_QUERIES;
    int own = (int)threadIdx.x / 4, quarter = (int)threadIdx.x % 4;
    float *weights = shared_v + ATTENTION_KEYS * ROW + own * WEIGHTS;
    int64_t query = first + own;
    if (first >= args->queries)
        return;
    const T *q = (const T *)args->q + batch * args->q_stride[0] + head * args->q_stride[1];
    const T *k = (const T *)args->k + batch * args->k_stride[0] + head * args->k_stride[1];
    const T *v = (const T *)args->v + batch * args->v_stride[0] + head * args->v_stride[1];
    many_place<T, DEPTH, ATTENTION_QUERIES>(shared_q, q, args->q_stride, first, args->queries, args->depth, args->scale);
    float sums[SHARE], top = -INFINITY, sum = 0;
    for (int i = 0; i < SHARE; i++)
        sums[i] = 0;
    int64_t visible = args->is_causal ? attention_least(attention_least(first + ATTENTION_QUERIES, args->queries), args->keys)
                                      : args->keys;
    for (int64_t key = 0; key < visible; key += ATTENTION_KEYS) {
        dj_sync();    // the tile before is used up
        many_place<T, DEPTH, ATTENTION_KEYS>(shared_k, k, args->k_stride, key, args->keys, args->depth, 1.0f);
        many_place<T, DEPTH, ATTENTION_KEYS>(shared_v, v, args->v_stride, key, args->keys, args->value_depth, 1.0f);
        dj_sync();
        float score[COLUMNS];
        many_scores<ROW, COLUMNS>(args, both, query, key, shared_q + own * ROW, shared_k, score);
        float before = many_weights<COLUMNS>(score, weights, &top, &sum);
        dj_warp_sync();    // the weights of a query are written and read by four threads of one warp
        for (int i = 0; i < SHARE; i++)
            sums[i] *= before;
        for (int j = 0; j < ATTENTION_KEYS; j++)
            for (int i = 0; i < SHARE; i++)
                sums[i] += weights[j] * shared_v[j * ROW + quarter + 4 * i];
        dj_warp_sync();
    }
    if (query >= args->queries)
        return;
    attention_row<T> row(args, both, query);
    DJ_UNROLL
    for (int i = 0; i < SHARE; i++)
        row.put(quarter + 4 * i, sums[i], top, sum);
}

#define OF_DEPTH(depth, suffix, T) \
    DJ_KERNEL_OF(attention_few_##depth##_##suffix, struct attention_args, ATTENTION_FEW_THREADS, ATTENTION_FEW_BLOCKS) \
    { \
        few<T, depth, true>(args); \
    } \
    DJ_KERNEL_OF(attention_apart_##depth##_##suffix, struct attention_args, ATTENTION_FEW_THREADS, 1) \
    { \
        few<T, depth, false>(args); \
    } \
    DJ_KERNEL(attention_many_##depth##_##suffix, struct attention_args, ATTENTION_MANY_THREADS) \
    { \
        many<T, depth>(args); \
    }
#define ATTENTION(suffix, T) \
    OF_DEPTH(64, suffix, T) \
    OF_DEPTH(128, suffix, T) \
    OF_DEPTH(256, suffix, T) \
    DJ_KERNEL(attention_join_##suffix, struct attention_args, ATTENTION_JOIN_THREADS) \
    { \
        join<T>(args); \
    }
ATTENTION(f32, float)
ATTENTION(f16, dj_half)
ATTENTION(bf16, dj_bfloat)
