// Graph: a thin layer over the plan builder that keeps the sizes of what it added. The manual is graph.h; models are graph_models.c.

#include "tests/lib/graph.h"

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/ops/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_MAX = 1 << 13, INPUTS_MAX = 1 << 12, PENDING_MAX = 10, INTS_MAX = 8 };

struct pending {
    const char *name;
    struct attr attr;
    int64_t ints[INTS_MAX];
};

struct bound {
    struct attr attr[OP_ATTRS_MAX];
    int64_t ints[OP_ATTRS_MAX][INTS_MAX];
    int64_t scalar[8];
};

struct graph {
    struct plan_builder *builder;
    struct tensor_meta input[INPUTS_MAX];
    bool is_leaf[INPUTS_MAX];
    uint32_t inputs;
    struct tensor_meta out[NODES_MAX * 2];
    uint8_t keep[NODES_MAX / 4];
    uint32_t first_output[NODES_MAX];
    struct bound bound[NODES_MAX];
    uint32_t nodes, outputs;
    struct pending pending[PENDING_MAX];
    uint32_t pendings;
    double scalar;    // of the latest graph_scalar
    uint16_t module;
};

static void must(enum dj_error error, const char *what, const struct fault *fault)
{
    if (error == DJ_OK)
        return;
    fprintf(stderr, "graph: %s: %s: %s\n", what, dj_error_name(error), fault == NULL ? "" : fault->text);
    abort();
}

struct graph *graph_make(void)
{
    ops_init();
    struct graph *graph = calloc(1, sizeof *graph);
    assert(graph != NULL);
    must(plan_builder_make(&graph->builder), "builder", NULL);
    return graph;
}

void graph_free(struct graph *graph)
{
    plan_builder_free(graph->builder);
    free(graph);
}

struct srg_ref graph_input(struct graph *graph, bool is_leaf, enum dtype dtype, uint32_t rank, const int64_t *size)
{
    struct tensor_meta meta = {.dtype = dtype, .rank = rank};
    memcpy(meta.size, size, rank * sizeof *size);
    tensor_make_contiguous(&meta);
    struct srg_input input = {
        .is_leaf = is_leaf, .is_contiguous = true, .dtype = (uint8_t)dtype, .rank = (uint8_t)rank, .device = 255};
    uint32_t index;
    assert(graph->inputs < INPUTS_MAX);
    must(plan_add_input(graph->builder, &input, &index), "input", NULL);
    graph->input[index] = meta;
    graph->is_leaf[index] = is_leaf;
    graph->inputs = index + 1;
    return (struct srg_ref){.kind = REF_INPUT, .index = index};
}

void graph_module(struct graph *graph, const char *path, const char *type)
{
    must(plan_add_module(graph->builder, path, type, false, &graph->module), "module", NULL);
}

static struct pending *pend(struct graph *graph, const char *name)
{
    assert(graph->pendings < PENDING_MAX);
    struct pending *pending = &graph->pending[graph->pendings++];
    *pending = (struct pending){.name = name};
    return pending;
}

void graph_int(struct graph *graph, const char *name, int64_t value)
{
    pend(graph, name)->attr = (struct attr){.kind = ATTR_INT, .i = value};
}

void graph_bool(struct graph *graph, const char *name, bool value)
{
    pend(graph, name)->attr = (struct attr){.kind = ATTR_BOOL, .i = value};
}

void graph_float(struct graph *graph, const char *name, double value)
{
    pend(graph, name)->attr = (struct attr){.kind = ATTR_FLOAT, .f = value};
}

void graph_ints(struct graph *graph, const char *name, uint32_t count, const int64_t *values)
{
    assert(count <= INTS_MAX);
    struct pending *pending = pend(graph, name);
    memcpy(pending->ints, values, count * sizeof *values);
    pending->attr = (struct attr){.kind = ATTR_INTS, .count = (uint8_t)count};
}

struct srg_ref graph_scalar(struct graph *graph, double value)
{
    graph->scalar = value;
    return (struct srg_ref){.kind = REF_SCALAR, .dtype = DTYPE_F64};
}

const struct tensor_meta *graph_meta(const struct graph *graph, struct srg_ref ref)
{
    return ref.kind == REF_INPUT ? &graph->input[ref.index] : &graph->out[graph->first_output[ref.index] + ref.output];
}

void graph_keep(struct graph *graph, struct srg_ref ref)
{
    assert(ref.kind == REF_NODE);
    bit_set(graph->keep, graph->first_output[ref.index] + ref.output);
}

static void take_pending(struct graph *graph, const struct op_info *op, struct bound *bound)
{
    for (uint32_t p = 0; p < graph->pendings; p++) {
        const struct pending *pending = &graph->pending[p];
        uint32_t i = 0;
        while (i < op->args && (op->arg[i].attr < 0 || strcmp(op->arg[i].name, pending->name) != 0))
            i++;
        if (i == op->args)
            must(DJ_E_INVALID, pending->name, NULL);
        uint32_t at = (uint8_t)op->arg[i].attr;
        bound->attr[at] = pending->attr;
        memcpy(bound->ints[at], pending->ints, sizeof pending->ints);
        if (pending->attr.kind == ATTR_INTS)
            bound->attr[at].ints = bound->ints[at];
    }
    graph->pendings = 0;
}

struct srg_ref graph_op_as(struct graph *graph, enum op number, enum dtype dtype, uint32_t refs, const struct srg_ref *ref)
{
    const struct op_info *op = op_info(number);
    assert(op != NULL && refs <= 8 && graph->nodes < NODES_MAX);
    struct bound *bound = &graph->bound[graph->nodes];
    take_pending(graph, op, bound);
    struct tensor_meta in[8] = {0};
    bool is_scalar[8] = {0};
    uint32_t scalars = 0;
    for (uint32_t r = 0; r < refs; r++) {
        is_scalar[r] = ref[r].kind == REF_SCALAR;
        in[r] = ref[r].kind == REF_SCALAR   ? (struct tensor_meta){.dtype = DTYPE_F64}
                : ref[r].kind == REF_ABSENT ? in[r]
                                            : *graph_meta(graph, ref[r]);
        if (is_scalar[r])
            memcpy(&bound->scalar[scalars++], &graph->scalar, sizeof graph->scalar);
    }
    struct op_call call = {.op = op, .in = in, .in_is_scalar = is_scalar, .n_in = refs, .attr = bound->attr, .dtype = dtype};
    struct op_result result = {0};
    struct fault fault = {0};
    must(op_infer(&call, &result, &fault), op->name, &fault);
    uint8_t dtypes[OP_OUTPUTS_MAX] = {0};
    graph->first_output[graph->nodes] = graph->outputs;
    for (uint32_t o = 0; o < op->outputs; o++) {
        dtypes[o] = (uint8_t)result.out[o].dtype;
        assert(graph->outputs < NODES_MAX * 2);
        graph->out[graph->outputs++] = result.out[o];
    }
    uint32_t index;
    must(plan_add_node(graph->builder, op, ref, refs, bound->attr, dtypes, graph->module, 255, &index), op->name, NULL);
    graph->nodes = index + 1;
    return (struct srg_ref){.kind = REF_NODE, .index = index};
}

struct graph_result graph_finish(struct graph *graph)
{
    struct graph_result result = {0};
    struct fault fault = {0};
    must(plan_finish(graph->builder, &result.plan, &fault), "finish", &fault);
    struct srg_plan *plan = result.plan;
    result.word = calloc(plan->words + 1, sizeof *result.word);
    result.out = malloc((plan->outputs + 1) * sizeof *result.out);
    result.keep = malloc(plan->outputs / 8 + 1);
    assert(result.word != NULL && result.out != NULL && result.keep != NULL);
    memcpy(result.out, graph->out, plan->outputs * sizeof *result.out);
    memcpy(result.keep, graph->keep, plan->outputs / 8 + 1);
    for (uint32_t i = 0; i < plan->inputs; i++) {
        if (graph->is_leaf[i])
            binding_set_leaf(plan, result.word, i, hash128(&i, sizeof i));
        else
            binding_set_handle(plan, result.word, i, 1, i);
        binding_set_meta(plan, result.word, i, &graph->input[i]);
    }
    for (uint32_t n = 0; n < plan->nodes; n++)
        binding_set_node(plan, result.word, n, graph->bound[n].attr, graph->bound[n].scalar);
    graph_free(graph);
    return result;
}

void graph_result_free(struct graph_result *result)
{
    plan_drop(result->plan);
    free(result->word);
    free(result->out);
    free(result->keep);
}
