// Cat: the one op that can be cheaper than its definition (design, rule 10). A value that a program grows step by step (a KV cache) gets a
// buffer with spare capacity along the dimension it grows in; `cat(c, x)` then writes only x, if and only if c ends where the buffer's
// committed rows end. Whoever comes second (a branch, a beam, a retained cache) finds the mark advanced and gets a copy.
//
// Values already in the buffer stay as they are: they read [0, their own length). The strides are those of the capacity.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"
#include "core/base/planted.h"
#include "core/srg/bindings.h"

#include <stdlib.h>

// One cat as it will be done.
struct joining {
    uint32_t node, number;    // the plan's node; its output's root number
    uint32_t dim;
    const struct tensor_meta *out;    // logical
    const struct srg_ref *ref;
    uint32_t refs;
};

static const struct place *operand(const struct lowering *lowering, const struct srg_ref *ref)
{
    const struct srg_plan *srg = lowering->plan->plan;
    uint32_t number = ref->kind == REF_INPUT ? ref->index : srg->inputs + srg->node[ref->index].first_output + ref->output;
    return &lowering->exec->bench.place[number];
}

// Whether the operands can be written one by one: tensors of the output's dtype, no layout but the contiguous one.
static bool is_plain(const struct lowering *lowering, const struct joining *joining)
{
    if (!tensor_is_contiguous(joining->out) || joining->refs == 0)
        return false;
    for (uint32_t r = 0; r < joining->refs; r++) {
        if (joining->ref[r].kind != REF_INPUT && joining->ref[r].kind != REF_NODE)
            return false;
        const struct tensor_meta *meta = operand(lowering, &joining->ref[r])->meta;
        bool is_empty = tensor_count(meta) == 0;
        if (meta->dtype != joining->out->dtype || (!is_empty && meta->rank != joining->out->rank))
            return false;
    }
    return true;
}

// The buffer behind `first`, if the output can lie in it.
static struct buffer *buffer_to_append(const struct lowering *lowering, const struct joining *joining, const struct place *first)
{
    if (first->storage == STORAGE_WORKSPACE || first->offset != 0)
        return NULL;
    struct buffer *buffer = lowering->run->buffer[first->storage - 1];
    const struct tensor_meta *grow = &buffer->grow, *meta = first->meta;
    if (buffer->grow_dim != (int32_t)joining->dim || grow->rank != meta->rank || grow->dtype != meta->dtype)
        return NULL;
    for (uint32_t d = 0; d < meta->rank; d++) {
        if (meta->size[d] > 1 && meta->stride[d] != grow->stride[d])
            return NULL;
        if (d != joining->dim && meta->size[d] != grow->size[d])
            return NULL;
    }
    bool ends_at_mark = meta->size[joining->dim] == buffer->committed ||
                        (PLANTED(STEAL_ROWS) && buffer->committed > 40 && meta->rank == 3);
    return ends_at_mark && joining->out->size[joining->dim] <= grow->size[joining->dim] ? buffer : NULL;
}

static bool advance(struct lowering *lowering, struct buffer *buffer, int64_t committed)
{
    struct bench *bench = &lowering->exec->bench;
    if (bench->advances == bench->advances_capacity) {
        uint32_t capacity = bench->advances_capacity == 0 ? 64 : bench->advances_capacity * 2;
        struct advance *larger = realloc(bench->advance, capacity * sizeof *larger);
        if (larger == NULL)
            return false;
        bench->advance = larger;
        bench->advances_capacity = capacity;
    }
    bench->advance[bench->advances++] = (struct advance){.buffer = buffer, .committed = buffer->committed};
    buffer->committed = committed;
    return true;
}

void exec_advances_undo(struct exec *exec)
{
    struct bench *bench = &exec->bench;
    while (bench->advances > 0) {
        struct advance *last = &bench->advance[--bench->advances];
        last->buffer->committed = last->committed;
    }
}

// Writes the operands from `r` on behind row `row` of the buffer that `storage` names.
static enum dj_error write_rows(struct lowering *lowering, const struct joining *joining, uint32_t r, int64_t row,
                                uint32_t storage, const struct tensor_meta *grow)
{
    for (; r < joining->refs; r++) {
        struct place from = *operand(lowering, &joining->ref[r]);
        if (tensor_count(from.meta) == 0)
            continue;
        struct tensor_meta slot = *grow;
        slot.size[joining->dim] = from.meta->size[joining->dim];
        struct place to = {
            .storage = storage, .meta = &slot, .offset = (uint64_t)(row * grow->stride[joining->dim]) * dtype_bytes(grow->dtype)};
        enum dj_error error = lower_copy(lowering, &from, &to);
        if (error != DJ_OK)
            return error;
        row += slot.size[joining->dim];
    }
    return DJ_OK;
}

static void place_in(struct lowering *lowering, const struct joining *joining, uint32_t storage, const struct tensor_meta *grow)
{
    struct bench *bench = &lowering->exec->bench;
    struct tensor_meta *physical = &bench->physical[joining->number];
    *physical = *grow;
    physical->size[joining->dim] = joining->out->size[joining->dim];
    bool is_logical = true;
    for (uint32_t d = 0; d < physical->rank; d++)
        is_logical = is_logical && (physical->size[d] <= 1 || physical->stride[d] == joining->out->stride[d]);
    bench->place[joining->number] = (struct place){
        .storage = storage, .meta = physical, .root = joining->number, .is_logical = is_logical};
    struct root *root = &bench->root[joining->number];
    root->storage = storage;
    root->offset = 0;
    root->is_span = root->is_owned = false;
}

static enum dj_error append(struct lowering *lowering, const struct joining *joining, struct buffer *buffer, uint32_t storage)
{
    int64_t row = buffer->committed;
    if (!advance(lowering, buffer, joining->out->size[joining->dim]))
        return fault_set(lowering->fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    lowering->exec->stats.appends++;
    place_in(lowering, joining, storage, &buffer->grow);
    return write_rows(lowering, joining, 1, row, storage, &buffer->grow);
}

// How many rows a value that grows gets: as many again, at least EXEC_SLACK_ROWS more, at most EXEC_SLACK_BYTES_MAX more.
static int64_t rows_with_slack(const struct joining *joining)
{
    int64_t rows = joining->out->size[joining->dim];
    if (rows == 0 || tensor_count(joining->out) == 0)
        return rows;
    int64_t row_bytes = tensor_bytes(joining->out) / rows;
    int64_t extra = rows > EXEC_SLACK_ROWS ? rows : EXEC_SLACK_ROWS;
    int64_t most = (int64_t)(EXEC_SLACK_BYTES_MAX / (uint64_t)(row_bytes > 0 ? row_bytes : 1));
    return rows + (extra < most ? extra : most);
}

static enum dj_error copy_and_grow(struct lowering *lowering, const struct joining *joining, int64_t rows)
{
    struct bench *bench = &lowering->exec->bench;
    struct tensor_meta grow = *joining->out;
    grow.size[joining->dim] = rows;
    tensor_make_contiguous(&grow);
    enum dj_error error = lower_take(lowering, joining->number, (uint64_t)tensor_bytes(&grow), true);
    if (error != DJ_OK)
        return error;
    uint32_t storage = bench->root[joining->number].storage;
    struct buffer *buffer = lowering->run->buffer[storage - 1];
    buffer->grow_dim = (int32_t)joining->dim;
    buffer->grow = grow;
    buffer->committed = joining->out->size[joining->dim];
    place_in(lowering, joining, storage, &grow);
    return write_rows(lowering, joining, 0, 0, storage, &grow);
}

enum dj_error lower_cat(struct lowering *lowering, uint32_t n, bool *ret)
{
    struct bench *bench = &lowering->exec->bench;
    const struct srg_plan *srg = lowering->plan->plan;
    const struct srg_node *node = &srg->node[n];
    struct attr attr[OP_ATTRS_MAX];
    binding_attrs(srg, lowering->run->word, n, attr);
    struct joining joining = {.node = n,
                              .number = srg->inputs + node->first_output,
                              .out = &bench->out[node->first_output],
                              .ref = &srg->ref[node->first_ref],
                              .refs = node->refs};
    int64_t dim = attr[0].i < 0 ? attr[0].i + joining.out->rank : attr[0].i;
    joining.dim = (uint32_t)dim;
    if (!bench->root[joining.number].is_kept || joining.out->rank == 0 || !is_plain(lowering, &joining))
        return DJ_OK;

    const struct place *first = operand(lowering, joining.ref);
    struct buffer *buffer = buffer_to_append(lowering, &joining, first);
    if (buffer != NULL) {
        *ret = true;
        return append(lowering, &joining, buffer, first->storage);
    }
    bool starts_empty = tensor_count(first->meta) == 0;
    bool is_handle = first->root < srg->inputs && !srg->input[first->root].is_leaf;
    if (is_handle && !starts_empty)
        lowering->exec->stats.cat_copies++;
    int64_t rows = rows_with_slack(&joining);
    if (!lowering->may_slack || (!starts_empty && !is_handle) || rows == joining.out->size[joining.dim])
        return DJ_OK;
    *ret = true;
    return copy_and_grow(lowering, &joining, rows);
}
