// Attention on a GPU: out = softmax(scale q k^T + mask) v, and the logarithm of each row's sum, never a whole matrix of scores (online softmax: Milakov and
// Gimelshein 2018; tiles as in FlashAttention, Dao et al. 2022).
//
// Few queries (decoding): the keys are split into parts so that every multiprocessor reads some of the cache; a block walks one part for one query, a warp a key at a
// time with the head's elements over its lanes; a second kernel joins the parts in their order. Sizes come from the arguments, so one captured graph serves a
// growing cache as long as the number of blocks, which is rounded up, stays the same; blocks behind the last part leave at once.
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

// Joins (top, sum) of two sets of scores; returns what the first's sums are to be multiplied with, and the second's in *ret_other.
DJ_FN float join_scale(float *top, float *sum, float other_top, float other_sum, float *ret_other)
{
    float larger = other_top > *top ? other_top : *top;
    float own = *top == -INFINITY ? 0.0f : exp(*top - larger), other = other_top == -INFINITY ? 0.0f : exp(other_top - larger);
    *sum = *sum * own + other_sum * other;
    *top = larger;
    *ret_other = other;
    return own;
}

template <typename T, int DEPTH> DJ_FN void few(const struct attention_args *args)
{
    enum { LANE = DEPTH / 32, WARPS = ATTENTION_FEW_THREADS / 32, BATCH = 4 };
    DJ_SHARED(float, shared_sums, WARPS *DEPTH);
    DJ_SHARED(float, shared_top, WARPS);
    DJ_SHARED(float, shared_sum, WARPS);
    int64_t part = blockIdx.x, row = blockIdx.y, query = row % args->queries, both = row / args->queries;
    int64_t batch = both / args->heads, head = both % args->heads;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    if (part >= args->parts)
        return;
    int64_t visible = args->is_causal && query + 1 < args->keys ? query + 1 : args->keys;
    int64_t first = part * args->part_keys, end = first + args->part_keys < visible ? first + args->part_keys : visible;
    const T *q = (const T *)args->q + batch * args->q_stride[0] + head * args->q_stride[1] + query * args->q_stride[2];
    const T *k = (const T *)args->k + batch * args->k_stride[0] + head * args->k_stride[1];
    const T *v = (const T *)args->v + batch * args->v_stride[0] + head * args->v_stride[1];

    float own_q[LANE], sums[LANE], top = -INFINITY, sum = 0;
    for (int i = 0; i < LANE; i++) {
        int64_t d = lane + 32 * i;
        own_q[i] = d < args->depth ? dj_load(q + d * args->q_stride[3]) * args->scale : 0.0f;
        sums[i] = 0;
    }
    for (int64_t key = first + warp * BATCH; key < end; key += WARPS * BATCH) {
        float score[BATCH];
        for (int j = 0; j < BATCH; j++) {
            score[j] = 0;
            for (int i = 0; i < LANE; i++) {
                int64_t d = lane + 32 * i;
                if (key + j < end && d < args->depth)
                    score[j] += own_q[i] * dj_load(k + (key + j) * args->k_stride[2] + d * args->k_stride[3]);
            }
        }
        for (int j = 0; j < BATCH; j++)
            score[j] = dj_warp_all(score[j], dj_add());
        for (int j = 0; j < BATCH; j++) {
            if (key + j >= end)
                break;
            float weight,
                masked = args->mask_kind == MASK_NONE ? score[j] : score[j] + mask_at(args, batch, head, query, key + j);
            float before = join_scale(&top, &sum, masked, 1.0f, &weight);
            for (int i = 0; i < LANE; i++) {
                int64_t d = lane + 32 * i;
                float value = d < args->value_depth ? dj_load(v + (key + j) * args->v_stride[2] + d * args->v_stride[3]) : 0.0f;
                sums[i] = sums[i] * before + weight * value;
            }
        }
    }
    if (lane == 0) {
        shared_top[warp] = top;
        shared_sum[warp] = sum;
    }
    for (int i = 0; i < LANE; i++)
        shared_sums[warp * DEPTH + lane + 32 * i] = sums[i];
    dj_sync();
    // The warps' parts of the keys, joined in the warps' order.
    float *to = args->part + (row * args->parts + part) * (args->value_depth + 2);
    for (int64_t d = threadIdx.x; d < args->value_depth; d += blockDim.x) {
        float all_top = -INFINITY, all_sum = 0, all = 0;
        for (int w = 0; w < WARPS; w++) {
            float other, own = join_scale(&all_top, &all_sum, shared_top[w], shared_sum[w], &other);
            all = all * own + shared_sums[w * DEPTH + d] * other;
        }
        to[2 + d] = all;
        if (d == 0) {
            to[0] = all_top;
            to[1] = all_sum;
        }
    }
}

// A block a query: the parts in their order.
template <typename T> DJ_FN void join(const struct attention_args *args)
{
    int64_t row = blockIdx.x, query = row % args->queries, both = row / args->queries;
    int64_t batch = both / args->heads, head = both % args->heads, step = args->value_depth + 2;
    const float *part = args->part + row * args->parts * step;
    T *out = (T *)args->out + batch * args->out_stride[0] + head * args->out_stride[1] + query * args->out_stride[2];
    for (int64_t d = threadIdx.x; d < args->value_depth; d += blockDim.x) {
        float top = -INFINITY, sum = 0, all = 0;
        for (int64_t p = 0; p < args->parts; p++) {
            float other, own = join_scale(&top, &sum, part[p * step], part[p * step + 1], &other);
            all = all * own + part[p * step + 2 + d] * other;
        }
        dj_store(out + d * args->out_stride[3], sum == 0 ? 0.0f : all / sum);
        if (d == 0 && args->lse != nullptr)
            args->lse[batch * args->lse_stride[0] + head * args->lse_stride[1] + query * args->lse_stride[2]] = top + log(sum);
    }
}

// Shared memory: queries [32][DEPTH + 1], keys [32][DEPTH + 1], values [32][DEPTH + 1], weights [32][33].
template <typename T, int DEPTH> DJ_FN void many(const struct attention_args *args)
{
    enum { ROW = DEPTH + 1, SHARE = DEPTH / 4, COLUMNS = ATTENTION_KEYS / 4, WEIGHTS = ATTENTION_KEYS + 1 };
    DJ_DYNAMIC(float, memory);
    float *shared_q = memory, *shared_k = shared_q + ATTENTION_QUERIES * ROW, *shared_v = shared_k + ATTENTION_KEYS * ROW;
    float *weights = shared_v + ATTENTION_KEYS * ROW;
    int64_t both = blockIdx.y, batch = both / args->heads, head = both % args->heads,
            first = (int64_t)blockIdx.x * ATTENTION_QUERIES;
    int own = (int)threadIdx.x / 4, quarter = (int)threadIdx.x % 4;
    int64_t query = first + own;
    if (first >= args->queries)
        return;
    const T *q = (const T *)args->q + batch * args->q_stride[0] + head * args->q_stride[1];
    const T *k = (const T *)args->k + batch * args->k_stride[0] + head * args->k_stride[1];
    const T *v = (const T *)args->v + batch * args->v_stride[0] + head * args->v_stride[1];
    for (int i = (int)threadIdx.x; i < ATTENTION_QUERIES * DEPTH; i += ATTENTION_MANY_THREADS) {
        int64_t row = first + i / DEPTH, d = i % DEPTH;
        bool is_in = row < args->queries && d < args->depth;
        shared_q[i / DEPTH * ROW + d] = is_in ? dj_load(q + row * args->q_stride[2] + d * args->q_stride[3]) * args->scale : 0.0f;
    }
    float sums[SHARE], top = -INFINITY, sum = 0;
    for (int i = 0; i < SHARE; i++)
        sums[i] = 0;
    int64_t last = first + ATTENTION_QUERIES < args->queries ? first + ATTENTION_QUERIES : args->queries;
    int64_t visible = args->is_causal && last < args->keys ? last : args->keys;
    for (int64_t key = 0; key < visible; key += ATTENTION_KEYS) {
        dj_sync();    // the tile before is used up
        for (int i = (int)threadIdx.x; i < ATTENTION_KEYS * DEPTH; i += ATTENTION_MANY_THREADS) {
            int64_t row = key + i / DEPTH, d = i % DEPTH;
            bool is_in = row < args->keys;
            shared_k[i / DEPTH * ROW + d] = is_in && d < args->depth
                                                ? dj_load(k + row * args->k_stride[2] + d * args->k_stride[3])
                                                : 0.0f;
            shared_v[i / DEPTH * ROW + d] = is_in && d < args->value_depth
                                                ? dj_load(v + row * args->v_stride[2] + d * args->v_stride[3])
                                                : 0.0f;
        }
        dj_sync();
        float score[COLUMNS], tile_top = -INFINITY, tile_sum = 0;
        for (int j = 0; j < COLUMNS; j++)
            score[j] = 0;
        for (int64_t d = 0; d < args->depth; d++)
            for (int j = 0; j < COLUMNS; j++)
                score[j] += shared_q[own * ROW + d] * shared_k[(quarter + 4 * j) * ROW + d];
        for (int j = 0; j < COLUMNS; j++) {
            int64_t at = key + quarter + 4 * j;
            bool is_seen = at < args->keys && query < args->queries && !(args->is_causal && at > query);
            score[j] = !is_seen                       ? -INFINITY
                       : args->mask_kind == MASK_NONE ? score[j]
                                                      : score[j] + mask_at(args, batch, head, query, at);
            tile_top = dj_largest()(score[j], tile_top);
        }
        tile_top = dj_largest()(dj_shuffle_xor(tile_top, 1), tile_top);
        tile_top = dj_largest()(dj_shuffle_xor(tile_top, 2), tile_top);
        float larger = dj_largest()(tile_top, top), before = top == -INFINITY ? 0.0f : exp(top - larger);
        for (int j = 0; j < COLUMNS; j++) {
            float weight = score[j] == -INFINITY ? 0.0f : exp(score[j] - larger);
            weights[own * WEIGHTS + quarter + 4 * j] = weight;
            tile_sum += weight;
        }
        tile_sum += dj_shuffle_xor(tile_sum, 1);
        tile_sum += dj_shuffle_xor(tile_sum, 2);
        sum = sum * before + tile_sum;
        top = larger;
        dj_warp_sync();    // the weights of a query are written and read by four threads of one warp
        for (int i = 0; i < SHARE; i++)
            sums[i] *= before;
        for (int j = 0; j < ATTENTION_KEYS; j++) {
            float weight = weights[own * WEIGHTS + j];
            for (int i = 0; i < SHARE; i++)
                sums[i] += weight * shared_v[j * ROW + quarter + 4 * i];
        }
        dj_warp_sync();
    }
    if (query >= args->queries)
        return;
    T *out = (T *)args->out + batch * args->out_stride[0] + head * args->out_stride[1] + query * args->out_stride[2];
    for (int i = 0; i < SHARE; i++)
        if (quarter + 4 * i < args->value_depth)
            dj_store(out + (quarter + 4 * i) * args->out_stride[3], sum == 0 ? 0.0f : sums[i] / sum);
    if (quarter == 0 && args->lse != nullptr)
        args->lse[batch * args->lse_stride[0] + head * args->lse_stride[1] + query * args->lse_stride[2]] = top + log(sum);
}

#define ATTENTION(suffix, T) \
    DJ_KERNEL(attention_few_64_##suffix, struct attention_args, ATTENTION_FEW_THREADS) \
    { \
        few<T, 64>(args); \
    } \
    DJ_KERNEL(attention_few_128_##suffix, struct attention_args, ATTENTION_FEW_THREADS) \
    { \
        few<T, 128>(args); \
    } \
    DJ_KERNEL(attention_few_256_##suffix, struct attention_args, ATTENTION_FEW_THREADS) \
    { \
        few<T, 256>(args); \
    } \
    DJ_KERNEL(attention_join_##suffix, struct attention_args, ATTENTION_FEW_THREADS) \
    { \
        join<T>(args); \
    } \
    DJ_KERNEL(attention_many_64_##suffix, struct attention_args, ATTENTION_MANY_THREADS) \
    { \
        many<T, 64>(args); \
    } \
    DJ_KERNEL(attention_many_128_##suffix, struct attention_args, ATTENTION_MANY_THREADS) \
    { \
        many<T, 128>(args); \
    } \
    DJ_KERNEL(attention_many_256_##suffix, struct attention_args, ATTENTION_MANY_THREADS) \
    { \
        many<T, 256>(args); \
    }
ATTENTION(f32, float)
ATTENTION(f16, dj_half)
ATTENTION(bf16, dj_bfloat)
