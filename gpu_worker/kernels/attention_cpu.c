// Attention: out = softmax(scale * q k^T + mask) v for each batch and head, and logsumexp of the scores.
//
// Never a whole matrix of scores: a part takes nr queries of one head and walks the keys in blocks, keeping for each query the largest
// score, the sum of weights and the weighted sum of values so far, and rescaling what it has when a larger score appears. Scores are
// kept transposed, [key][query], so that the softmax of nr queries is one loop over keys without sums across lanes, and so that the
// weights are already laid out as the left operand of the second product. Up to FEW queries (decoding) take the plain way: one gemv
// for the scores, one for the values. A query that may see no key gives 0, as in PyTorch.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>
#include <string.h>

enum {
    FEW = 4,
    BLOCK_PANELS = 16,    // key panels (of mr keys) in a block of scores
    HEAD_MAX = 256,       // the sums of one part live on the stack
    BLOCK_KEYS_MAX = BLOCK_PANELS * SIMD_MR_MAX,
};

struct attention {
    const struct simd *simd;
    int64_t batch, heads, queries, keys, depth, value_depth, padded;    // padded: value_depth up to a multiple of nr
    const float *q, *k, *v;
    int64_t q_step[3], k_step[3], v_step[3];    // batch, head, row; elements
    float *out, *lse;
    int64_t out_step[3];
    const char *mask;
    enum dtype mask_dtype;
    int64_t mask_step[4];    // bytes
    bool is_causal;
    float scale;
    float *k_pack, *v_pack, *scores;
    int64_t k_panels, query_tiles;
};

static const float *head_of(const float *data, const int64_t step[3], const struct attention *p, int64_t head)
{
    return data + head / p->heads * step[0] + head % p->heads * step[1];
}

static float mask_at(const struct attention *p, int64_t head, int64_t query, int64_t key)
{
    const char *at = p->mask + head / p->heads * p->mask_step[0] + head % p->heads * p->mask_step[1] + query * p->mask_step[2] +
                     key * p->mask_step[3];
    if (p->mask_dtype == DTYPE_BOOL)
        return *at ? 0.0f : -INFINITY;
    return *(const float *)(const void *)at;
}

// Decoding: `queries` rows against all keys of one head.
static void few_part(void *context, uint32_t head)
{
    const struct attention *p = context;
    const struct simd *s = p->simd;
    const float *q = head_of(p->q, p->q_step, p, head), *k = head_of(p->k, p->k_step, p, head),
                *v = head_of(p->v, p->v_step, p, head);
    float *scores = p->scores + head * p->queries * p->keys;
    float *out = p->out + head / p->heads * p->out_step[0] + head % p->heads * p->out_step[1];

    s->gemv_nk((int)p->queries, p->keys, p->depth, q, p->q_step[2], k, p->k_step[2], scores, p->keys);
    for (int64_t i = 0; i < p->queries; i++) {
        float *row = scores + i * p->keys;
        int64_t visible = p->is_causal ? i64_least(p->keys, i + 1) : p->keys;
        s->scale(row, row, visible, p->scale, 0.0f);
        if (p->mask != NULL)
            for (int64_t j = 0; j < visible; j++)
                row[j] += mask_at(p, head, i, j);
        float top = s->max(row, visible), total = 0;
        if (top != -INFINITY)
            total = s->exp_sum(row, row, visible, top);
        s->scale(row, row, visible, total == 0 ? 0.0f : 1.0f / total, 0.0f);
        if (top == -INFINITY)
            memset(row, 0, (size_t)visible * sizeof(float));
        memset(row + visible, 0, (size_t)(p->keys - visible) * sizeof(float));
        memset(out + i * p->out_step[2], 0, (size_t)p->value_depth * sizeof(float));
        p->lse[head * p->queries + i] = top + logf(total);
    }
    s->gemv_kn((int)p->queries, p->keys, p->value_depth, scores, p->keys, v, p->v_step[2], out, p->out_step[2]);
}

static void pack_part(void *context, uint32_t head)
{
    const struct attention *p = context;
    const int64_t mr = p->simd->mr, lanes = p->simd->lanes;
    const float *k = head_of(p->k, p->k_step, p, head), *v = head_of(p->v, p->v_step, p, head);
    float *to = p->k_pack + head * p->k_panels * p->depth * lanes;
    for (int64_t i = 0; i < p->k_panels; i++)
        p->simd->pack(k + i * mr * p->k_step[2], p->k_step[2], (int)i64_least(mr, p->keys - i * mr), p->depth,
                      to + i * p->depth * lanes, lanes);
    if (p->v_pack == NULL)
        return;
    float *values = p->v_pack + head * p->keys * p->padded;
    for (int64_t i = 0; i < p->keys; i++) {
        memcpy(values + i * p->padded, v + i * p->v_step[2], (size_t)p->value_depth * sizeof(float));
        memset(values + i * p->padded + p->value_depth, 0, (size_t)(p->padded - p->value_depth) * sizeof(float));
    }
}

// The mask of rows x keys as [key][query] floats: each query's row is widened if it has to be, then all are transposed.
static void mask_tile(const struct attention *p, int64_t head, int64_t query, int64_t rows, int64_t key, int64_t keys,
                      float *tile)
{
    const int64_t nr = p->simd->nr, lanes = p->simd->lanes;
    float wide[SIMD_LANES_MAX * BLOCK_KEYS_MAX];
    for (int64_t half = 0; half < nr; half += lanes) {
        int64_t count = i64_most(0, i64_least(lanes, rows - half));
        for (int64_t j = 0; j < count; j++) {
            const char *at = p->mask + head / p->heads * p->mask_step[0] + head % p->heads * p->mask_step[1] +
                             (query + half + j) * p->mask_step[2] + key * p->mask_step[3];
            float *row = wide + j * keys;
            if (p->mask_dtype == DTYPE_F32 && p->mask_step[3] == 4)
                memcpy(row, at, (size_t)keys * sizeof(float));
            else if (p->mask_dtype == DTYPE_BOOL)
                for (int64_t i = 0; i < keys; i++)
                    row[i] = at[i * p->mask_step[3]] ? 0.0f : -INFINITY;
            else
                for (int64_t i = 0; i < keys; i++)
                    row[i] = *(const float *)(const void *)(at + i * p->mask_step[3]);
        }
        p->simd->pack(wide, keys, (int)count, keys, tile + half, nr);
    }
}

// scores[key][query] = scale * scores + mask, with the future hidden when causal.
static void mask_block(const struct attention *p, int64_t head, int64_t query, int64_t rows, int64_t key, int64_t keys,
                       float *scores)
{
    const int64_t nr = p->simd->nr;
    const bool is_uniform = p->mask != NULL && p->mask_step[2] == 0, is_full = p->mask != NULL && !is_uniform;
    _Alignas(64) float tile[BLOCK_KEYS_MAX * SIMD_NR_MAX];
    if (is_full)
        mask_tile(p, head, query, rows, key, keys, tile);
    for (int64_t i = 0; i < keys; i++) {
        float *row = scores + i * nr;
        p->simd->scale(row, row, nr, p->scale, 0.0f);
        if (is_uniform)    // rounded twice, as where each query has its own: a mask may be expanded or copied
            p->simd->scale(row, row, nr, 1.0f, mask_at(p, head, 0, key + i));
        if (is_full)
            p->simd->axpy(row, tile + i * nr, 1.0f, nr);
        for (int64_t j = 0; j < rows && p->is_causal && query + j < key + i; j++)
            row[j] = -INFINITY;
    }
}

// sums[query][depth] += weights[key][query] * v[key][depth]
static void add_values(const struct attention *p, const float *weights, int64_t keys, const float *v, int64_t ldv, int64_t rows,
                       float *sums, bool accumulate)
{
    const int64_t nr = p->simd->nr, panels = ceil_div(rows, p->simd->mr);
    for (int64_t i = 0; i < panels; i++) {
        int64_t first = i * rows / panels, count = (i + 1) * rows / panels - first;
        for (int64_t d = 0; d < p->padded; d += nr)
            p->simd->tile[count](keys, weights + first, nr, v + d, ldv, sums + first * p->padded + d, p->padded, accumulate);
    }
}

static void query_part(void *context, uint32_t part)
{
    const struct attention *p = context;
    const struct simd *s = p->simd;
    const int64_t nr = s->nr, lanes = s->lanes, mr = s->mr, block = BLOCK_PANELS * mr;
    int64_t head = part / p->query_tiles, query = part % p->query_tiles * nr, rows = i64_least(nr, p->queries - query);
    _Alignas(64) float queries[HEAD_MAX * SIMD_NR_MAX], scores[BLOCK_KEYS_MAX * SIMD_NR_MAX], sums[SIMD_NR_MAX * HEAD_MAX];
    _Alignas(64) float top[SIMD_NR_MAX], total[SIMD_NR_MAX] = {0}, rescale[SIMD_NR_MAX];
    const float *q = head_of(p->q, p->q_step, p, head) + query * p->q_step[2];
    const float *k = p->k_pack + head * p->k_panels * p->depth * lanes;
    const float *v = p->v_pack != NULL ? p->v_pack + head * p->keys * p->padded : head_of(p->v, p->v_step, p, head);
    int64_t ldv = p->v_pack != NULL ? p->padded : p->v_step[2];
    int64_t visible = p->is_causal ? i64_least(p->keys, query + rows) : p->keys;

    for (int64_t half = 0; half < nr; half += lanes) {
        int count = (int)i64_most(0, i64_least(lanes, rows - half));
        s->pack(count > 0 ? q + half * p->q_step[2] : q, p->q_step[2], count, p->depth, queries + half, nr);
    }
    for (int64_t j = 0; j < nr; j++)
        top[j] = -INFINITY;
    for (int64_t key = 0; key < visible; key += block) {
        int64_t keys = i64_least(block, visible - key);
        for (int64_t i = 0; i < keys; i += mr)
            s->tile[i64_least(mr, keys - i)](p->depth, k + (key + i) / mr * p->depth * lanes, lanes, queries, nr, scores + i * nr,
                                             nr, false);
        bool is_masked = p->mask != NULL || (p->is_causal && key + keys > query + 1);
        if (is_masked)
            mask_block(p, head, query, rows, key, keys, scores);
        s->attend(scores, keys, is_masked ? 1.0f : p->scale, top, total, rescale);
        for (int64_t j = 0; j < rows && key > 0; j++)
            s->scale(sums + j * p->padded, sums + j * p->padded, p->padded, rescale[j], 0.0f);
        add_values(p, scores, keys, v + key * ldv, ldv, rows, sums, key > 0);
    }
    float *out = p->out + head / p->heads * p->out_step[0] + head % p->heads * p->out_step[1] + query * p->out_step[2];
    for (int64_t j = 0; j < rows; j++) {
        if (visible == 0 || total[j] == 0)
            memset(out + j * p->out_step[2], 0, (size_t)p->value_depth * sizeof(float));
        else
            s->scale(sums + j * p->padded, out + j * p->out_step[2], p->value_depth, 1.0f / total[j], 0.0f);
        p->lse[head * p->queries + query + j] = top[j] + logf(total[j]);
    }
}

// A 4-dimensional float32 operand with dense rows: its own memory, or a dense twin.
static float *rows_of(struct scratch *scratch, const struct tensor *tensor, bool fill, struct team *team, int64_t step[3])
{
    struct tensor_meta meta = tensor->meta;
    float *data = tensor->data;
    if (meta.dtype != DTYPE_F32 || (meta.size[3] > 1 && meta.stride[3] != 1)) {
        data = dense_take(scratch, tensor, DTYPE_F32, fill, team);
        tensor_make_contiguous(&meta);
    }
    for (int d = 0; d < 3; d++)
        step[d] = meta.stride[d];
    return data;
}

static void mask_of(const struct kernel_call *call, struct scratch *scratch, struct attention *p)
{
    const struct tensor *mask = &call->in[3];
    if (call->n_in < 4 || !is_present(mask))
        return;
    struct tensor_meta meta = mask->meta;
    p->mask = mask->data;
    if (meta.dtype != DTYPE_BOOL && meta.dtype != DTYPE_F32) {
        p->mask = dense_take(scratch, mask, DTYPE_F32, scratch->data != NULL, call->team);
        tensor_make_contiguous(&meta);
        meta.dtype = DTYPE_F32;
    }
    p->mask_dtype = meta.dtype;
    for (uint32_t d = 0; d < meta.rank; d++)
        p->mask_step[4 - meta.rank + d] = meta.size[d] == 1 ? 0 : meta.stride[d] * (int64_t)dtype_bytes(meta.dtype);
}

static struct attention plan_of(const struct kernel_call *call, struct scratch *scratch)
{
    const struct tensor_meta *q = &call->in[0].meta, *k = &call->in[1].meta;
    bool fill = scratch->data != NULL;
    struct attention p = {.simd = simd(),
                          .batch = q->size[0],
                          .heads = q->size[1],
                          .queries = q->size[2],
                          .keys = k->size[2],
                          .depth = q->size[3],
                          .value_depth = call->in[2].meta.size[3]};
    p.q = rows_of(scratch, &call->in[0], fill, call->team, p.q_step);
    p.k = rows_of(scratch, &call->in[1], fill, call->team, p.k_step);
    p.v = rows_of(scratch, &call->in[2], fill, call->team, p.v_step);
    p.out = rows_of(scratch, &call->out[0], false, call->team, p.out_step);
    p.lse = call->n_out > 1 ? dense_take(scratch, &call->out[1], DTYPE_F32, false, call->team)
                            : scratch_take(scratch, (size_t)(p.batch * p.heads * p.queries) * sizeof(float));
    mask_of(call, scratch, &p);
    p.is_causal = attr_int(&call->attr[0]) != 0;
    p.scale = call->attr[1].kind == ATTR_ABSENT ? (float)(1.0 / sqrt((double)p.depth)) : (float)attr_double(&call->attr[1]);
    p.k_panels = ceil_div(p.keys, p.simd->mr);
    p.query_tiles = ceil_div(p.queries, p.simd->nr);
    p.padded = ceil_div(p.value_depth, p.simd->nr) * p.simd->nr;
    int64_t all = p.batch * p.heads;
    if (p.queries <= FEW) {
        p.scores = scratch_take(scratch, (size_t)(all * p.queries * p.keys) * sizeof(float));
        return p;
    }
    p.k_pack = scratch_take(scratch, (size_t)(all * p.k_panels * p.depth * p.simd->lanes) * sizeof(float));
    if (p.padded != p.value_depth)
        p.v_pack = scratch_take(scratch, (size_t)(all * p.keys * p.padded) * sizeof(float));
    return p;
}

static size_t sdpa_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    plan_of(call, &scratch);
    return scratch.used;
}

static enum dj_error sdpa_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct attention p = plan_of(call, &scratch);
    uint32_t heads = (uint32_t)(p.batch * p.heads);
    if (heads == 0 || p.queries == 0)
        return DJ_OK;

    if (p.queries <= FEW) {
        team_run(call->team, heads, few_part, &p);
    } else {
        team_run(call->team, heads, pack_part, &p);
        team_run(call->team, (uint32_t)(heads * p.query_tiles), query_part, &p);
    }
    struct tensor out = call->out[0];
    if (p.out != out.data)
        dense_return(p.out, DTYPE_F32, &out, call->team);
    if (call->n_out > 1)
        dense_return(p.lse, DTYPE_F32, &call->out[1], call->team);
    return DJ_OK;
}

static bool sdpa_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < 3; i++)
        if (!dtype_is_float(call->in[i].meta.dtype) || call->in[i].meta.dtype == DTYPE_F64 || call->in[i].meta.rank != 4)
            return false;
    if (call->n_in > 3 && is_present(&call->in[3]) &&
        ((call->in[3].meta.dtype != DTYPE_BOOL && !dtype_is_float(call->in[3].meta.dtype)) || call->in[3].meta.rank > 4))
        return false;
    const struct tensor_meta *q = &call->in[0].meta, *k = &call->in[1].meta, *v = &call->in[2].meta;
    return q->size[3] <= HEAD_MAX && v->size[3] <= HEAD_MAX && q->size[1] == k->size[1] && q->size[1] == v->size[1];
}

void table_attention(struct kernel *kernel)
{
    kernel[OP_SDPA] = (struct kernel){.run = sdpa_run, .scratch = sdpa_scratch, .can = sdpa_can};
}
