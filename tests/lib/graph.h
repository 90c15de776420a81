// Graph: plans by hand, for tests. Each call adds one input or node and infers its sizes at once; a mistake aborts and says where.
// graph_gpt2 and its kin add what a forward of a model of that family records.

#ifndef TESTS_LIB_GRAPH_H
#define TESTS_LIB_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/srg/bindings.h"
#include "core/srg/plan.h"

struct graph;

struct graph *graph_make(void);
void graph_free(struct graph *graph);

struct srg_ref graph_input(struct graph *graph, bool is_leaf, enum dtype dtype, uint32_t rank, const int64_t *size);
#define LEAF(graph, dtype, ...) \
    graph_input((graph), true, (dtype), sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})
#define HANDLE(graph, dtype, ...) \
    graph_input((graph), false, (dtype), sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

// The module of the nodes that follow.
void graph_module(struct graph *graph, const char *path, const char *type);

// Attributes of the next node, by name.
void graph_int(struct graph *graph, const char *name, int64_t value);
void graph_bool(struct graph *graph, const char *name, bool value);
void graph_float(struct graph *graph, const char *name, double value);
void graph_ints(struct graph *graph, const char *name, uint32_t count, const int64_t *values);
#define INTS(graph, name, ...) \
    graph_ints((graph), (name), sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

// A node with these operands; a scalar operand is made by graph_scalar. Result dtypes are derived; `dtype` is for ops that ask for one.
struct srg_ref graph_scalar(struct graph *graph, double value);
struct srg_ref graph_op_as(struct graph *graph, enum op op, enum dtype dtype, uint32_t refs, const struct srg_ref *ref);
#define OP1(graph, op, a) graph_op_as((graph), (op), DTYPE_NONE, 1, (struct srg_ref[]){(a)})
#define OP2(graph, op, a, b) graph_op_as((graph), (op), DTYPE_NONE, 2, (struct srg_ref[]){(a), (b)})
#define OP3(graph, op, a, b, c) graph_op_as((graph), (op), DTYPE_NONE, 3, (struct srg_ref[]){(a), (b), (c)})
#define OP4(graph, op, a, b, c, d) graph_op_as((graph), (op), DTYPE_NONE, 4, (struct srg_ref[]){(a), (b), (c), (d)})

const struct tensor_meta *graph_meta(const struct graph *graph, struct srg_ref ref);
void graph_keep(struct graph *graph, struct srg_ref ref);

struct graph_result {
    struct srg_plan *plan;
    int64_t *word;
    struct tensor_meta *out;
    uint8_t *keep;    // a bit a flat output
};
struct graph_result graph_finish(struct graph *graph);    // frees the graph
void graph_result_free(struct graph_result *result);

// Models: what Hugging Face's and torchvision's modules record, thinned of what no pattern looks at.
void graph_gpt2(struct graph *graph, uint32_t layers, int64_t hidden, int64_t heads, int64_t past, int64_t tokens, bool has_cache,
                bool is_fused);
void graph_bert(struct graph *graph, uint32_t layers, int64_t hidden, int64_t heads, int64_t tokens);
void graph_vit(struct graph *graph, uint32_t layers, int64_t hidden, int64_t heads);
void graph_resnet(struct graph *graph, uint32_t blocks);
void graph_dlrm(struct graph *graph, uint32_t tables);

#endif
