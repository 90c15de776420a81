// Random plans: operands first, then an op that might take them; op_infer says whether it does. What it refuses is tried anew.

#include "tests/lib/random_plan.h"

#include "core/base/assert.h"
#include "core/ops/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES_MAX = 1 << 14, TRIES_MAX = 2000 };

struct value {
    struct srg_ref ref;
    struct tensor_meta meta;
};

// One attempt at a node.
struct attempt {
    const struct op_info *op;
    struct srg_ref ref[8];
    struct tensor_meta in[8];
    bool is_scalar[8];
    int64_t scalar[8];
    uint32_t refs;
    struct attr attr[OP_ATTRS_MAX];
    int64_t ints[OP_ATTRS_MAX][ATTR_INTS_MAX];
};

// What to bind when the plan is finished.
struct bound {
    int64_t scalar[8];
    struct attr attr[OP_ATTRS_MAX];
    int64_t ints[OP_ATTRS_MAX][ATTR_INTS_MAX];
};

struct maker {
    struct prng *prng;
    struct random_plan_options options;
    struct plan_builder *builder;
    struct value *value;
    uint32_t values;
    struct tensor_meta *input_meta;
    uint32_t inputs;
    struct bound *bound;    // a node each
    struct tensor_meta *out;
    uint32_t outputs, nodes;
};

static uint64_t pick(struct maker *maker, uint64_t below)
{
    return prng_between(maker->prng, 0, below - 1);
}

static void must(enum dj_error error)
{
    assert(error == DJ_OK);
}

static void permute(struct maker *maker, struct tensor_meta *meta)
{
    uint32_t a = (uint32_t)pick(maker, meta->rank), b = (uint32_t)pick(maker, meta->rank);
    int64_t size = meta->size[a], stride = meta->stride[a];
    meta->size[a] = meta->size[b];
    meta->stride[a] = meta->stride[b];
    meta->size[b] = size;
    meta->stride[b] = stride;
}

// A new input with these sizes (rank and size of *meta), in a random layout.
static struct value *add_input(struct maker *maker, struct tensor_meta meta)
{
    tensor_make_contiguous(&meta);
    struct srg_input input = {
        .is_leaf = prng_chance(maker->prng, 2, 3), .dtype = (uint8_t)meta.dtype, .rank = (uint8_t)meta.rank};
    input.device = prng_chance(maker->prng, 1, 4) ? (uint8_t)pick(maker, 4) : 255;
    if (meta.rank >= 2 && prng_chance(maker->prng, 1, 5)) {
        struct tensor_meta permuted = meta;
        permute(maker, &permuted);
        // Only if the sizes stay what was asked for.
        if (tensor_same_sizes(&permuted, &meta))
            meta = permuted;
    }
    input.is_contiguous = tensor_is_contiguous(&meta);
    uint32_t index;
    must(plan_add_input(maker->builder, &input, &index));
    maker->input_meta[index] = meta;
    maker->inputs = index + 1;
    assert(maker->values < VALUES_MAX);
    struct value *value = &maker->value[maker->values++];
    *value = (struct value){.ref = {.kind = REF_INPUT, .index = index}, .meta = meta};
    return value;
}

static enum dtype any_dtype(struct maker *maker)
{
    static const enum dtype mostly[] = {DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_I64, DTYPE_BOOL, DTYPE_I32, DTYPE_F64};
    return maker->options.is_runnable ? DTYPE_F32 : mostly[pick(maker, sizeof mostly / sizeof mostly[0])];
}

static int64_t any_size(struct maker *maker)
{
    static const int64_t sizes[] = {0, 1, 1, 2, 3, 4, 5, 8};
    return sizes[pick(maker, 8)];
}

static struct value *any_input(struct maker *maker)
{
    struct tensor_meta meta = {.dtype = any_dtype(maker), .rank = (uint32_t)pick(maker, 5)};
    for (uint32_t d = 0; d < meta.rank; d++)
        meta.size[d] = any_size(maker);
    return add_input(maker, meta);
}

static struct value *any_value(struct maker *maker)
{
    if (maker->values == 0 || prng_chance(maker->prng, 1, 12))
        return any_input(maker);
    // The latest ones more often, so that chains grow.
    uint32_t back = prng_chance(maker->prng, 1, 2) && maker->values > 4 ? 4 : maker->values;
    return &maker->value[maker->values - 1 - pick(maker, back)];
}

// A value with the sizes and dtype of *meta: one that is there, or a new input.
static struct value value_like(struct maker *maker, const struct tensor_meta *meta)
{
    uint32_t start = (uint32_t)pick(maker, maker->values);
    for (uint32_t i = 0; i < maker->values; i++) {
        const struct value *value = &maker->value[(start + i) % maker->values];
        if (value->meta.dtype == meta->dtype && tensor_same_sizes(&value->meta, meta))
            return *value;
    }
    return *add_input(maker, *meta);
}

// Operands -----------------------------------------------------------------------------------------------------------------------

static void use(struct attempt *attempt, struct value value)
{
    attempt->ref[attempt->refs] = value.ref;
    attempt->in[attempt->refs] = value.meta;
    attempt->is_scalar[attempt->refs] = false;
    attempt->refs++;
}

static void use_scalar(struct maker *maker, struct attempt *attempt)
{
    static const enum dtype kinds[] = {DTYPE_F64, DTYPE_I64, DTYPE_BOOL};
    enum dtype dtype = kinds[pick(maker, 3)];
    double number = 0.5 + (double)pick(maker, 8);
    int64_t bits = (int64_t)pick(maker, dtype == DTYPE_BOOL ? 2 : 9);
    if (dtype == DTYPE_F64)
        memcpy(&bits, &number, sizeof bits);
    attempt->ref[attempt->refs] = (struct srg_ref){.kind = REF_SCALAR, .dtype = (uint8_t)dtype};
    attempt->in[attempt->refs] = (struct tensor_meta){.dtype = dtype};
    attempt->is_scalar[attempt->refs] = true;
    attempt->scalar[attempt->refs] = bits;
    attempt->refs++;
}

static void use_absent(struct attempt *attempt)
{
    attempt->ref[attempt->refs] = (struct srg_ref){.kind = REF_ABSENT};
    attempt->in[attempt->refs] = (struct tensor_meta){.dtype = DTYPE_NONE};
    attempt->is_scalar[attempt->refs] = false;
    attempt->refs++;
}

static struct value matrix(struct maker *maker, uint32_t rank, int64_t batch, int64_t rows, int64_t columns)
{
    struct tensor_meta meta = {
        .dtype = DTYPE_F32, .rank = rank, .size = {rank == 3 ? batch : rows, rank == 3 ? rows : columns, columns}};
    return value_like(maker, &meta);
}

// Attributes: filled by name, whatever the order in the table. -----------------------------------------------------------------

static uint32_t attr_of(const struct op_info *op, const char *name)
{
    for (uint32_t i = 0; i < op->args; i++) {
        if (op->arg[i].attr >= 0 && strcmp(op->arg[i].name, name) == 0)
            return (uint8_t)op->arg[i].attr;
    }
    fprintf(stderr, "%s has no attribute %s\n", op->name, name);
    abort();
}

static void set_int(struct attempt *attempt, const char *name, int64_t value)
{
    attempt->attr[attr_of(attempt->op, name)] = (struct attr){.kind = ATTR_INT, .i = value};
}

static void set_bool(struct attempt *attempt, const char *name, bool value)
{
    attempt->attr[attr_of(attempt->op, name)] = (struct attr){.kind = ATTR_BOOL, .i = value};
}

static void set_float(struct attempt *attempt, const char *name, double value)
{
    attempt->attr[attr_of(attempt->op, name)] = (struct attr){.kind = ATTR_FLOAT, .f = value};
}

static void set_ints(struct attempt *attempt, const char *name, const int64_t *values, uint32_t count)
{
    uint32_t at = attr_of(attempt->op, name);
    memcpy(attempt->ints[at], values, count * sizeof *values);
    attempt->attr[at] = (struct attr){.kind = ATTR_INTS, .count = (uint8_t)count, .ints = attempt->ints[at]};
}

static int64_t any_dim(struct maker *maker, const struct tensor_meta *meta)
{
    int64_t rank = meta->rank == 0 ? 1 : meta->rank;
    int64_t dim = (int64_t)pick(maker, (uint64_t)rank);
    return prng_chance(maker->prng, 1, 3) ? dim - rank : dim;
}

static void try_pointwise(struct maker *maker, struct attempt *attempt)
{
    static const uint16_t two[] = {OP_ADD, OP_SUB, OP_MUL, OP_MAXIMUM, OP_MINIMUM, OP_ATAN2, OP_LT, OP_EQ, OP_LOGICAL_AND};
    static const uint16_t one[] = {OP_NEG, OP_ABS, OP_EXP, OP_TANH, OP_RELU, OP_GELU, OP_SIGMOID, OP_SILU, OP_CLONE, OP_CLAMP};
    struct value a = *any_value(maker);
    if (prng_chance(maker->prng, 1, 2)) {
        attempt->op = op_info(one[pick(maker, sizeof one / sizeof one[0])]);
        use(attempt, a);
        if (attempt->op->number == OP_GELU)
            set_int(attempt, "approximate", (int64_t)pick(maker, 2));
        if (attempt->op->number == OP_CLAMP)
            set_float(attempt, "max", 3.5);
        if (attempt->op->number == OP_CLONE && prng_chance(maker->prng, 1, 2))
            set_int(attempt, "format", FORMAT_CONTIGUOUS);
        return;
    }
    attempt->op = op_info(two[pick(maker, sizeof two / sizeof two[0])]);
    use(attempt, a);
    if (prng_chance(maker->prng, 1, 4))
        use_scalar(maker, attempt);
    else
        use(attempt, prng_chance(maker->prng, 1, 4) ? *any_value(maker) : value_like(maker, &a.meta));
    if (attempt->op->attrs == 1)
        set_int(attempt, "alpha", 1);
}

static void try_view(struct maker *maker, struct attempt *attempt)
{
    static const uint16_t ops[] = {OP_VIEW_SIZES, OP_PERMUTE, OP_TRANSPOSE, OP_T,           OP_EXPAND, OP_SLICE,
                                   OP_SLICE,      OP_SELECT,  OP_UNSQUEEZE, OP_SQUEEZE_DIM, OP_ALIAS};
    attempt->op = op_info(ops[pick(maker, sizeof ops / sizeof ops[0])]);
    struct value a = *any_value(maker);
    use(attempt, a);
    int64_t list[DJ_RANK_MAX + 1];
    switch (attempt->op->number) {
    case OP_VIEW_SIZES:
        list[0] = prng_chance(maker->prng, 1, 2) || tensor_count(&a.meta) == 0 ? tensor_count(&a.meta) : -1;
        set_ints(attempt, "size", list, 1);
        break;
    case OP_PERMUTE:
        for (uint32_t d = 0; d < a.meta.rank; d++)
            list[d] = d;
        for (uint32_t d = a.meta.rank; d > 1; d--) {
            uint32_t other = (uint32_t)pick(maker, d);
            int64_t swap = list[d - 1];
            list[d - 1] = list[other];
            list[other] = swap;
        }
        set_ints(attempt, "dims", list, a.meta.rank);
        break;
    case OP_TRANSPOSE:
        set_int(attempt, "dim0", any_dim(maker, &a.meta));
        set_int(attempt, "dim1", any_dim(maker, &a.meta));
        break;
    case OP_EXPAND:
        list[0] = (int64_t)pick(maker, 3) + 1;
        for (uint32_t d = 0; d < a.meta.rank; d++)
            list[d + 1] = -1;
        set_ints(attempt, "size", list, a.meta.rank + 1);
        break;
    case OP_SLICE:
        set_int(attempt, "dim", any_dim(maker, &a.meta));
        if (prng_chance(maker->prng, 3, 4))
            set_int(attempt, "start", (int64_t)pick(maker, 4));
        if (prng_chance(maker->prng, 3, 4))
            set_int(attempt, "end", (int64_t)pick(maker, 9) - 2);
        set_int(attempt, "step", (int64_t)pick(maker, 2) + 1);
        break;
    case OP_SELECT:
        set_int(attempt, "dim", any_dim(maker, &a.meta));
        set_int(attempt, "index", (int64_t)pick(maker, 3));
        break;
    case OP_UNSQUEEZE:
    case OP_SQUEEZE_DIM: set_int(attempt, "dim", any_dim(maker, &a.meta)); break;
    }
}

static void try_reduce(struct maker *maker, struct attempt *attempt)
{
    static const uint16_t ops[] = {OP_SUM,    OP_SUM_DIM, OP_MEAN_DIM, OP_AMAX, OP_MAX_DIM,
                                   OP_ARGMAX, OP_SOFTMAX, OP_SORT,     OP_TOPK, OP_CUMSUM};
    attempt->op = op_info(ops[pick(maker, sizeof ops / sizeof ops[0])]);
    struct value a = *any_value(maker);
    use(attempt, a);
    int64_t dim = any_dim(maker, &a.meta);
    switch (attempt->op->number) {
    case OP_SUM_DIM:
    case OP_MEAN_DIM:
        if (prng_chance(maker->prng, 3, 4))
            set_ints(attempt, "dims", &dim, 1);
        set_bool(attempt, "keepdim", prng_chance(maker->prng, 1, 2));
        break;
    case OP_AMAX:
        set_ints(attempt, "dims", &dim, 1);
        set_bool(attempt, "keepdim", prng_chance(maker->prng, 1, 2));
        break;
    case OP_MAX_DIM:
    case OP_ARGMAX:
        if (attempt->op->number == OP_MAX_DIM || prng_chance(maker->prng, 1, 2))
            set_int(attempt, "dim", dim);
        set_bool(attempt, "keepdim", prng_chance(maker->prng, 1, 2));
        break;
    case OP_SOFTMAX:
        set_int(attempt, "dim", dim);
        set_bool(attempt, "half_to_float", false);
        break;
    case OP_SORT:
        set_int(attempt, "dim", dim);
        set_bool(attempt, "descending", prng_chance(maker->prng, 1, 2));
        break;
    case OP_TOPK:
        set_int(attempt, "k", (int64_t)pick(maker, 3));
        set_int(attempt, "dim", dim);
        set_bool(attempt, "largest", true);
        set_bool(attempt, "sorted", true);
        break;
    case OP_CUMSUM: set_int(attempt, "dim", dim); break;
    }
}

static void try_matmul(struct maker *maker, struct attempt *attempt)
{
    static const uint16_t ops[] = {OP_MM, OP_ADDMM, OP_BMM, OP_BADDBMM};
    attempt->op = op_info(ops[pick(maker, 4)]);
    bool is_batched = attempt->op->number == OP_BMM || attempt->op->number == OP_BADDBMM;
    uint32_t rank = is_batched ? 3 : 2;
    int64_t batch = any_size(maker), m = any_size(maker), k = any_size(maker), n = any_size(maker);
    struct value a = *any_value(maker);
    if (a.meta.rank == rank && a.meta.dtype == DTYPE_F32) {
        batch = a.meta.size[0];
        m = a.meta.size[rank - 2];
        k = a.meta.size[rank - 1];
    } else {
        a = matrix(maker, rank, batch, m, k);
    }
    bool has_bias = attempt->op->number == OP_ADDMM || attempt->op->number == OP_BADDBMM;
    if (has_bias)
        use(attempt, matrix(maker, rank, batch, m, n));
    use(attempt, a);
    use(attempt, matrix(maker, rank, batch, k, n));
    if (has_bias) {
        set_int(attempt, "beta", 1);
        set_int(attempt, "alpha", 1);
    }
}

static void try_join(struct maker *maker, struct attempt *attempt)
{
    attempt->op = op_info(OP_CAT);
    struct value a = *any_value(maker);
    uint32_t count = (uint32_t)pick(maker, 3) + 1;
    int64_t dim = any_dim(maker, &a.meta);
    use(attempt, a);
    for (uint32_t i = 0; i < count; i++) {
        struct tensor_meta other = a.meta;
        if (a.meta.rank != 0)
            other.size[dim < 0 ? dim + a.meta.rank : dim] = any_size(maker);
        use(attempt, value_like(maker, &other));
    }
    set_int(attempt, "dim", dim);
}

static void try_network(struct maker *maker, struct attempt *attempt)
{
    static const uint16_t ops[] = {OP_LAYER_NORM, OP_SDPA, OP_WHERE, OP_MASKED_FILL};
    attempt->op = op_info(ops[pick(maker, 4)]);
    struct value a = *any_value(maker);
    struct tensor_meta other = a.meta;
    switch (attempt->op->number) {
    case OP_LAYER_NORM: {
        if (a.meta.rank == 0)
            return;
        int64_t last = a.meta.size[a.meta.rank - 1];
        struct tensor_meta weight = {.dtype = a.meta.dtype, .rank = 1, .size = {last}};
        use(attempt, a);
        for (int i = 0; i < 2; i++) {
            if (prng_chance(maker->prng, 3, 4))
                use(attempt, value_like(maker, &weight));
            else
                use_absent(attempt);
        }
        set_ints(attempt, "shape", &last, 1);
        set_float(attempt, "eps", 1e-5);
        break;
    }
    case OP_SDPA:
        other = (struct tensor_meta){.dtype = DTYPE_F32, .rank = 4, .size = {1, 2, (int64_t)pick(maker, 4) + 1, 4}};
        use(attempt, value_like(maker, &other));
        other.size[2] = (int64_t)pick(maker, 4) + 1;
        use(attempt, value_like(maker, &other));
        use(attempt, value_like(maker, &other));
        use_absent(attempt);
        set_bool(attempt, "is_causal", prng_chance(maker->prng, 1, 2));
        if (prng_chance(maker->prng, 1, 2))
            set_float(attempt, "scale", 0.5);
        break;
    case OP_WHERE:
        other.dtype = DTYPE_BOOL;
        use(attempt, value_like(maker, &other));
        use(attempt, a);
        use_scalar(maker, attempt);
        break;
    case OP_MASKED_FILL:
        use(attempt, a);
        other.dtype = DTYPE_BOOL;
        use(attempt, value_like(maker, &other));
        set_float(attempt, "value", -1.5);
        break;
    }
}

static void try_gather(struct maker *maker, struct attempt *attempt)
{
    static const uint16_t ops[] = {OP_EMBEDDING, OP_INDEX_SELECT};
    attempt->op = op_info(ops[pick(maker, 2)]);
    struct tensor_meta index = {.dtype = DTYPE_I64, .rank = 1, .size = {any_size(maker)}};
    struct value a = *any_value(maker);
    use(attempt, attempt->op->number == OP_EMBEDDING ? matrix(maker, 2, 0, 5, 4) : a);
    use(attempt, value_like(maker, &index));
    if (attempt->op->number == OP_INDEX_SELECT)
        set_int(attempt, "dim", any_dim(maker, &a.meta));
}

static void try_create(struct maker *maker, struct attempt *attempt)
{
    static const uint16_t ops[] = {OP_FULL, OP_ARANGE, OP_UNIFORM};
    attempt->op = op_info(ops[pick(maker, 3)]);
    int64_t size[2] = {any_size(maker), any_size(maker)};
    switch (attempt->op->number) {
    case OP_FULL:
        set_ints(attempt, "size", size, 2);
        set_float(attempt, "value", 1.25);
        break;
    case OP_ARANGE:
        set_int(attempt, "start", 0);
        set_int(attempt, "end", size[0]);
        set_int(attempt, "step", 1);
        break;
    case OP_UNIFORM:
        set_ints(attempt, "size", size, 2);
        set_float(attempt, "low", -1);
        set_float(attempt, "high", 1);
        set_int(attempt, "seed", (int64_t)pick(maker, 1 << 20) << 30);
        set_int(attempt, "offset", (int64_t)pick(maker, 100));
        break;
    }
}

// Attributes that no family set: optional ones stay absent, required ones make the attempt fail in plan_check's terms.
static bool is_complete(const struct attempt *attempt)
{
    for (uint32_t i = 0; i < attempt->op->args; i++) {
        const struct op_arg *arg = &attempt->op->arg[i];
        if (arg->attr >= 0 && !arg->is_optional && attempt->attr[arg->attr].kind == ATTR_ABSENT)
            return false;
    }
    return attempt->refs > 0 || (attempt->op->flags & OP_CREATES);
}

static bool is_small(const struct op_info *op, const struct op_result *result)
{
    for (uint32_t o = 0; o < op->outputs; o++) {
        if (tensor_check(&result->out[o], NULL) != DJ_OK || tensor_count(&result->out[o]) > RANDOM_PLAN_COUNT_MAX)
            return false;
    }
    return true;
}

static void keep(struct maker *maker, const struct attempt *attempt, const struct op_result *result)
{
    uint8_t dtype[OP_OUTPUTS_MAX] = {0};
    for (uint32_t o = 0; o < attempt->op->outputs; o++)
        dtype[o] = (uint8_t)result->out[o].dtype;
    uint16_t module;
    char path[64];
    snprintf(path, sizeof path, "block.%u.\xC3\xA9tage%s", maker->nodes / 8, maker->nodes % 3 == 0 ? "" : ".attn");
    must(plan_add_module(maker->builder, path, maker->nodes % 3 == 0 ? "Block" : "Attention", maker->nodes % 5 == 0, &module));
    uint32_t index;
    must(plan_add_node(maker->builder, attempt->op, attempt->ref, attempt->refs, attempt->attr, dtype, module,
                       prng_chance(maker->prng, 1, 8) ? 1 : 255, &index));
    struct bound *bound = &maker->bound[index];
    memcpy(bound->attr, attempt->attr, sizeof bound->attr);
    memcpy(bound->ints, attempt->ints, sizeof bound->ints);
    uint32_t scalars = 0;
    for (uint32_t r = 0; r < attempt->refs; r++) {
        if (attempt->is_scalar[r])
            bound->scalar[scalars++] = attempt->scalar[r];
    }
    for (uint32_t o = 0; o < attempt->op->outputs; o++) {
        assert(maker->values < VALUES_MAX);
        maker->value[maker->values++] = (struct value){.ref = {.kind = REF_NODE, .output = (uint8_t)o, .index = index},
                                                       .meta = result->out[o]};
        maker->out[maker->outputs++] = result->out[o];
    }
    maker->nodes = index + 1;
}

static bool try_node(struct maker *maker)
{
    static void (*const families[])(struct maker *, struct attempt *) = {
        try_pointwise, try_pointwise, try_view, try_view, try_reduce, try_matmul, try_join, try_network, try_create, try_gather};
    struct attempt attempt = {0};
    uint32_t count = sizeof families / sizeof families[0] - (maker->options.is_runnable ? 1 : 0);
    families[pick(maker, count)](maker, &attempt);
    if (!is_complete(&attempt))
        return false;
    struct op_call call = {
        .op = attempt.op, .in = attempt.in, .in_is_scalar = attempt.is_scalar, .n_in = attempt.refs, .attr = attempt.attr};
    if (attempt.op->flags & OP_CREATES)
        call.dtype = DTYPE_F32;
    struct op_result result = {0};
    if (op_infer(&call, &result, NULL) != DJ_OK || !is_small(attempt.op, &result))
        return false;
    // A worker is told the result dtype: it must give the same again.
    call.dtype = result.out[0].dtype;
    struct op_result again = {0};
    must(op_infer(&call, &again, NULL));
    keep(maker, &attempt, &result);
    return true;
}

static int64_t *bind(struct maker *maker, const struct srg_plan *plan)
{
    int64_t *word = calloc(plan->words + 1, sizeof *word);
    assert(word != NULL);
    for (uint32_t i = 0; i < plan->inputs; i++) {
        if (plan->input[i].is_leaf)
            binding_set_leaf(plan, word, i, (struct hash128){.hi = prng_next(maker->prng), .lo = prng_next(maker->prng)});
        else
            binding_set_handle(plan, word, i, 1, i);
        binding_set_meta(plan, word, i, &maker->input_meta[i]);
    }
    for (uint32_t n = 0; n < plan->nodes; n++) {
        struct bound *bound = &maker->bound[n];
        for (uint32_t a = 0; a < OP_ATTRS_MAX; a++) {
            if (bound->attr[a].kind == ATTR_INTS)
                bound->attr[a].ints = bound->ints[a];
        }
        binding_set_node(plan, word, n, bound->attr, bound->scalar);
    }
    return word;
}

struct random_plan random_plan_make(struct prng *prng, struct random_plan_options options)
{
    ops_init();
    struct maker maker = {.prng = prng, .options = options};
    uint32_t nodes_max = options.nodes + 1;
    must(plan_builder_make(&maker.builder));
    maker.value = malloc(VALUES_MAX * sizeof *maker.value);
    maker.input_meta = malloc(VALUES_MAX * sizeof *maker.input_meta);
    maker.bound = malloc(nodes_max * sizeof *maker.bound);
    maker.out = malloc(nodes_max * OP_OUTPUTS_MAX * sizeof *maker.out);
    assert(maker.value != NULL && maker.input_meta != NULL && maker.bound != NULL && maker.out != NULL);
    for (uint64_t i = 0, first = pick(&maker, 3) + 1; i < first; i++)
        any_input(&maker);
    for (uint32_t tries = 0; maker.nodes < options.nodes; tries++) {
        if (try_node(&maker))
            tries = 0;
        assert(tries < TRIES_MAX);
    }
    struct random_plan random = {0};
    struct fault fault = {0};
    if (plan_finish(maker.builder, &random.plan, &fault) != DJ_OK) {
        fprintf(stderr, "random_plan: %s\n", fault.text);
        abort();
    }
    random.word = bind(&maker, random.plan);
    random.out = maker.out;
    plan_builder_free(maker.builder);
    free(maker.value);
    free(maker.input_meta);
    free(maker.bound);
    return random;
}

void random_plan_free(struct random_plan *random)
{
    plan_drop(random->plan);
    free(random->word);
    free(random->out);
}
