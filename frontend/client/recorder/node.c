// Nodes: inferring and appending one op. All of a node lies in one piece of the recorder's arena, which a flush empties.

#include "frontend/client/recorder/graph.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"

enum { CALL_INPUTS_FAST = 8 };

enum dj_error node_infer(const struct node_call *call, struct op_result *result, struct fault *fault)
{
    struct tensor_meta fast[CALL_INPUTS_FAST], *meta = fast;
    bool fast_scalar[CALL_INPUTS_FAST], *is_scalar = fast_scalar;
    void *memory = NULL;
    if (call->n_in > CALL_INPUTS_FAST) {
        memory = malloc(call->n_in * (sizeof *meta + sizeof *is_scalar));
        if (memory == NULL)
            return fault_set(fault, DJ_E_NO_MEMORY, "%s: no memory for %u inputs", call->op->name, call->n_in);
        meta = memory;
        is_scalar = (bool *)(meta + call->n_in);
    }
    for (uint32_t i = 0; i < call->n_in; i++) {
        const struct node_in *in = &call->in[i];
        is_scalar[i] = in->kind == REF_SCALAR;
        if (in->kind == REF_NODE) {
            meta[i] = in->value->meta;
        } else {
            meta[i].dtype = in->kind == REF_SCALAR ? (enum dtype)in->dtype : DTYPE_NONE;
            meta[i].rank = 0;
        }
    }
    struct op_call ask = {
        .op = call->op,
        .in = meta,
        .in_is_scalar = is_scalar,
        .n_in = call->n_in,
        .attr = call->attr,
        .dtype = call->dtype,
    };
    enum dj_error error = op_infer(&ask, result, fault);
    free(memory);
    return error;
}

void node_call_drop(struct recorder *recorder, const struct node_call *call)
{
    for (uint32_t i = 0; i < call->n_in; i++)
        value_drop(recorder, call->in[i].value);
}

static bool nodes_reserve(struct recorder *recorder)
{
    if (recorder->nodes < recorder->nodes_capacity)
        return true;
    uint32_t capacity = recorder->nodes_capacity == 0 ? RECORDER_NODES_MAX + 64 : 2 * recorder->nodes_capacity;
    struct node **grown = realloc(recorder->node, capacity * sizeof(struct node *));
    if (grown == NULL)
        return false;
    recorder->node = grown;
    recorder->nodes_capacity = capacity;
    return true;
}

// One allocation: node, inputs, attributes, and the ints that these point to.
static struct node *node_alloc(struct recorder *recorder, const struct node_call *call)
{
    uint32_t attrs = call->op->attrs;
    size_t ints = 0;
    for (uint32_t i = 0; i < attrs; i++)
        ints += call->attr[i].kind == ATTR_INTS ? call->attr[i].count : 0;
    size_t bytes = sizeof(struct node) + call->n_in * sizeof(struct node_in) + attrs * sizeof(struct attr) +
                   ints * sizeof(int64_t);
    struct node *node = arena_alloc(recorder->arena, bytes);
    if (node == NULL)
        return NULL;
    memset(node, 0, sizeof *node);
    node->in = (struct node_in *)(void *)(node + 1);
    node->attr = (struct attr *)(void *)(node->in + call->n_in);
    int64_t *at = (int64_t *)(void *)(node->attr + attrs);
    for (uint32_t i = 0; i < attrs; i++) {
        node->attr[i] = call->attr[i];
        if (call->attr[i].kind == ATTR_INTS) {
            if (call->attr[i].count > 0)
                memcpy(at, call->attr[i].ints, call->attr[i].count * sizeof *at);
            node->attr[i].ints = at;
            at += call->attr[i].count;
        }
    }
    memcpy(node->in, call->in, call->n_in * sizeof *node->in);
    node->n_in = call->n_in;
    return node;
}

enum dj_error node_append(struct recorder *recorder, const struct node_call *call, const struct op_result *result,
                          struct value *outs[OP_OUTPUTS_MAX])
{
    struct node *node = nodes_reserve(recorder) ? node_alloc(recorder, call) : NULL;
    if (node == NULL) {
        node_call_drop(recorder, call);
        return DJ_E_NO_MEMORY;
    }
    node->op = call->op;
    node->module = call->at.module;
    node->site = call->at.site;
    node->device = (int16_t)call->device;
    for (uint32_t o = 0; o < call->op->outputs; o++) {
        struct value *value = value_make(recorder, VALUE_PENDING, &result->out[o]);
        if (value == NULL) {
            while (o-- > 0)
                pool_give(recorder->values, node->out[o]);
            node_call_drop(recorder, call);
            return DJ_E_NO_MEMORY;
        }
        value->node = node;
        value->output = (uint8_t)o;
        node->out[o] = outs[o] = value;
        node->dtype[o] = (uint8_t)result->out[o].dtype;
        node->live++;
    }
    recorder->node[recorder->nodes++] = node;
    recorder->stats.ops_recorded++;
    return DJ_OK;
}

enum dj_error node_emit(struct recorder *recorder, enum op op, struct value *first, struct value *second, const struct attr *attr,
                        enum dtype dtype, int device, struct recorded_at at, struct value **ret, struct fault *fault)
{
    struct node_in in[2];
    uint32_t n_in = 0;
    if (first != NULL)
        in[n_in++] = (struct node_in){.kind = REF_NODE, .value = value_hold(first)};
    if (second != NULL)
        in[n_in++] = (struct node_in){.kind = REF_NODE, .value = value_hold(second)};
    struct node_call call = {.op = op_info(op), .in = in, .attr = attr, .n_in = n_in, .dtype = dtype, .device = device, .at = at};
    assert(call.op != NULL && call.op->outputs == 1);

    struct op_result result;
    enum dj_error error = node_infer(&call, &result, fault);
    if (error != DJ_OK) {
        node_call_drop(recorder, &call);
        return error;
    }
    struct value *outs[OP_OUTPUTS_MAX];
    error = node_append(recorder, &call, &result, outs);
    if (error != DJ_OK)
        return fault_set(fault, error, "%s: no memory to record it", call.op->name);
    *ret = outs[0];
    return DJ_OK;
}

void node_kill(struct recorder *recorder, struct node *node)
{
    uint32_t n_in = node->n_in;
    node->n_in = 0;    // so that a drop which comes back here finds nothing
    for (uint32_t i = 0; i < n_in; i++)
        value_drop(recorder, node->in[i].value);
}
