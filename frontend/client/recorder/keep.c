// Keep: values as checkpoints name them: by handle on the way out, by content on the way in.

#include "frontend/client/recorder/graph.h"

#include <stdlib.h>

enum dj_error recorder_keepable(struct recorder *recorder, const struct dj_tensor *tensor, struct recorded_at at,
                                struct value **ret, struct fault *fault)
{
    struct value *value;
    enum dj_error error = window_resolve(recorder, tensor, at, &value, fault);
    if (error != DJ_OK)
        return error;
    bool is_named = value->kind == VALUE_LEAF ? value->leaf->is_durable : true;
    if (tensor_count(&value->meta) > 0 && (!is_named || !tensor_is_contiguous(&value->meta))) {
        struct attr format = attr_int(FORMAT_CONTIGUOUS);
        struct value *clone;
        error = node_emit(recorder, OP_CLONE, value, NULL, &format, DTYPE_NONE, tensor->cell->device, at, &clone, fault);
        value_drop(recorder, value);
        if (error != DJ_OK)
            return error;
        value = clone;
    }
    value->roots++;    // the reference from resolving becomes the caller's
    *ret = value;
    return DJ_OK;
}

bool recorder_value_failed(const struct recorder *recorder, const struct value *value, struct dj_fault *ret)
{
    const struct dj_fault *fault = value_fault(recorder, value);
    if (fault != NULL)
        *ret = *fault;
    return fault != NULL;
}

const struct tensor_meta *recorder_value_meta(const struct value *value)
{
    return &value->meta;
}

bool recorder_value_leaf(const struct value *value, struct hash128 *ret_content)
{
    if (value->kind != VALUE_LEAF)
        return false;
    *ret_content = value->leaf->content;
    return true;
}

static enum dj_error leaf_value(struct recorder *recorder, const struct tensor_meta *meta, uint32_t dim,
                                const struct recorder_piece *piece, struct value **ret)
{
    struct tensor_meta own = *meta;
    struct leaf *leaf;
    if (own.rank > 0)
        own.size[dim] = piece->rows;
    tensor_make_contiguous(&own);
    if ((uint64_t)tensor_bytes(&own) != piece->bytes)
        return DJ_E_MALFORMED;
    enum dj_error error = leaf_named(recorder->leaves, piece->content, piece->bytes, &leaf);
    if (error != DJ_OK)
        return error;
    struct value *value = value_make(recorder, VALUE_LEAF, &own);
    if (value == NULL) {
        leaf_drop(leaf);
        return DJ_E_NO_MEMORY;
    }
    value->leaf = leaf;
    *ret = value;
    return DJ_OK;
}

// The pieces side by side; takes their references over.
static enum dj_error join(struct recorder *recorder, int device, uint32_t dim, struct node_in *in, uint32_t pieces,
                          struct recorded_at at, struct value **ret, struct fault *fault)
{
    struct attr along = attr_int(dim);
    struct node_call call = {
        .op = op_info(OP_CAT), .in = in, .attr = &along, .n_in = pieces, .dtype = DTYPE_NONE, .device = device, .at = at};
    struct op_result result;
    struct value *outs[OP_OUTPUTS_MAX];
    enum dj_error error = node_infer(&call, &result, fault);
    if (error != DJ_OK) {
        node_call_drop(recorder, &call);
        return error;
    }
    error = node_append(recorder, &call, &result, outs);
    if (error == DJ_OK)
        *ret = outs[0];
    return error;
}

enum dj_error recorder_restore(struct recorder *recorder, int device, const struct tensor_meta *meta, uint32_t dim,
                               const struct recorder_piece *piece, uint32_t pieces, struct recorded_at at, struct dj_tensor *out,
                               struct fault *fault)
{
    struct value *value = NULL;
    enum dj_error error = tensor_check(meta, fault);
    if (error != DJ_OK)
        return error;
    if (tensor_count(meta) == 0) {
        struct attr attr[2] = {attr_ints(meta->size, meta->rank), attr_int(0)};
        error = node_emit(recorder, OP_FULL, NULL, NULL, attr, meta->dtype, device, at, &value, fault);
        return error != DJ_OK ? error : cell_of(recorder, device, value, out, fault);
    }
    if (pieces == 0 || pieces > OP_INPUTS_MAX || (meta->rank > 0 && dim >= meta->rank))
        return fault_set(fault, DJ_E_MALFORMED, "a checkpoint of %u pieces cannot be put together", pieces);
    struct node_in *in = calloc(pieces, sizeof *in);
    uint32_t made = 0;
    error = in == NULL ? DJ_E_NO_MEMORY : DJ_OK;
    while (error == DJ_OK && made < pieces) {
        error = leaf_value(recorder, meta, dim, &piece[made], &value);
        if (error == DJ_OK)
            in[made++] = (struct node_in){.kind = REF_NODE, .value = value};
    }
    if (error != DJ_OK) {
        while (made > 0)
            value_drop(recorder, in[--made].value);
        fault_set(fault, error, "a checkpoint's leaves cannot be taken");
    } else if (pieces > 1) {
        error = join(recorder, device, dim, in, pieces, at, &value, fault);
    }
    free(in);
    return error != DJ_OK ? error : cell_of(recorder, device, value, out, fault);
}
