// What the two halves of the fake cuDNN share: its descriptors (fake_cudnn.c), computed by fake_cudnn_compute.c.

#ifndef TESTS_LIB_CUDA_FAKE_CUDNN_OBJECT_H
#define TESTS_LIB_CUDA_FAKE_CUDNN_OBJECT_H

#include "tests/lib/cuda/fake_cudnn.h"

enum { ATTRIBUTES_MAX = 8, ATTRIBUTE_BYTES_MAX = 128, RANK = 4, OPERATIONS_MAX = 16, TENSORS_MAX = 40, POINTERS_MAX = 8 };

#define TENSOR CUDNN_BACKEND_TENSOR_DESCRIPTOR
#define CONVOLUTION CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR
#define FORWARD CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR
#define DATA CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR
#define FILTER CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR
#define MATMUL CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR
#define POINTWISE CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR
#define REDUCTION CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR
#define GRAPH CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR
#define PLAN CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR
#define PACK CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR
#define HEURISTICS CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR
#define OBJECT CUDNN_TYPE_BACKEND_DESCRIPTOR

struct object;
struct attribute {
    int name, type;
    int64_t count;
    union {
        uint8_t byte[ATTRIBUTE_BYTES_MAX];
        int32_t i32[ATTRIBUTE_BYTES_MAX / 4];
        int64_t i64[ATTRIBUTE_BYTES_MAX / 8];
        struct object *object[ATTRIBUTE_BYTES_MAX / 8];
        void *pointer[ATTRIBUTE_BYTES_MAX / 8];
    } value;
};

struct object {
    uint32_t magic;
    int type;
    uint32_t references;            // the user's, and those of descriptors that were given it
    bool is_final;
    uint32_t attributes;
    struct attribute attribute[ATTRIBUTES_MAX];
    struct object *graph;           // of engines and what they are found by
    int engine;
    struct object *next;            // of plans
    bool is_dead;
};

// NULL: it was not set.
const struct attribute *object_find(const struct object *object, int name);
int32_t object_number(const struct object *object, int name, int32_t otherwise);
struct object *object_at(const struct object *object, int name);        // a descriptor that was set, or NULL

// Tensors.
const int64_t *tensor_sizes(const struct object *tensor);
const int64_t *tensor_strides(const struct object *tensor);
int64_t tensor_uid(const struct object *tensor);
bool tensor_is(const struct object *tensor, int flag);
int64_t tensor_elements(const struct object *tensor);

// What an operation reads and makes: operands in the order x, b, t; NULL where there is none.
struct operation { const struct object *self, *description, *in[3], *out; };
struct operation operation_of(const struct object *self);

// fake_cudnn_graph.c: what finalizing says of a tensor, an operation or a graph.
int graph_check(const struct object *object);
// Whether code of the one is the other's: heads and types are the same.
bool graph_is_family(const struct object *graph, const struct object *other);

// Addresses of the tensors that are in memory, by their unique ids.
struct binding {
    uint32_t count;
    int64_t uid[POINTERS_MAX];
    void *data[POINTERS_MAX];
    float value[POINTERS_MAX];      // of those given by value
};
// fake_cudnn_compute.c.
void graph_compute(const struct object *graph, const struct binding *binding);

_Noreturn void fake_cudnn_die(const char *what);

#endif
