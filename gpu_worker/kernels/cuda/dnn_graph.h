// Dnn graph: what graphs for cuDNN's backend API (its documentation: "Graph API") share: descriptors that live until a plan is made, the
// choice of an engine, plans kept by shape, and calls of them. conv_dnn.c and attention_dnn.c say which operations there are. Device
// thread only.
//
// The engine: the first that the heuristics name which is deterministic, keeps the inputs' precision and needs no more than the workspace.
// That there is none is kept too: then kernels of our own serve. Only when memory ran out is nothing kept, and the step asks again and
// says why.
//
// An engine that compiles its kernels takes half a second, so problems may name a family of shapes that share them (cuDNN's "kernel
// cache"): milliseconds from the second shape on.
//
// Calls hold a problem and no plan, so one that was evicted between the two is made again; never while a graph is captured, when nothing
// may be loaded.

#ifndef GPU_WORKER_KERNELS_CUDA_DNN_GRAPH_H
#define GPU_WORKER_KERNELS_CUDA_DNN_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/ops/dtype.h"
#include "gpu_worker/kernels/cuda/cudnn.h"
#include "gpu_worker/kernels/cuda/libraries.h"

enum { DNN_RANK = 4, DNN_OBJECTS_MAX = 64, DNN_OPERATIONS_MAX = 16, DNN_POINTERS_MAX = 8, DNN_ALIGNMENT = 16 };

struct dnn_builder {
    const struct cudnn_api *dnn;
    void *object[DNN_OBJECTS_MAX];
    uint32_t objects;
    int code;                   // the first error: then nothing else is called
};

// Sizes and strides in elements.
struct dnn_plane { int64_t size[DNN_RANK], stride[DNN_RANK]; };

struct dnn_tensor {
    struct dnn_plane plane;
    int64_t uid;                // told in the call's list of pointers, unless it is virtual
    int type;                   // CUDNN_DATA_...
    bool is_virtual;            // between two operations; in no memory
    bool is_by_value;           // its pointer is the host's
};

enum dnn_graph { DNN_CONVOLUTION = 1, DNN_ATTENTION = 2 };

// What a plan is made of.
struct dnn_problem {
    const void *shape;          // everything that the plan depends on; hashed, so without padding. Begins with an int64_t of enum dnn_graph
    uint32_t shape_bytes;
    const void *family;         // what its kernels' code depends on, likewise: problems of a family share it. NULL: of this shape alone
    uint32_t family_bytes;
    bool is_exact;              // engines with tensor cores are not taken: they would round fp32 inputs to 10 bits
    // Makes the operations, in their order; returns how many of DNN_OPERATIONS_MAX.
    uint32_t (*operate)(struct dnn_builder *b, const void *shape, void **ret);
};

// Of the tensors that are not virtual.
struct dnn_pointers {
    uint32_t count;
    int64_t uid[DNN_POINTERS_MAX];
    const void *data[DNN_POINTERS_MAX];
};

void *dnn_make(struct dnn_builder *b, enum cudnn_descriptor type);      // NULL after an error
void dnn_set(struct dnn_builder *b, void *object, enum cudnn_attribute name, enum cudnn_type type, int64_t count, const void *values);
void dnn_set_object(struct dnn_builder *b, void *object, enum cudnn_attribute name, void *value);
void dnn_finalize(struct dnn_builder *b, void *object);
void *dnn_make_tensor(struct dnn_builder *b, const struct dnn_tensor *tensor);

int dnn_data_type(int64_t dtype);               // of a float dtype that cuDNN has
bool dnn_is_aligned(const void *data);
// A dimension of one element has the stride of a dense tensor: cuDNN wants none of 0, and plans are the same.
struct dnn_plane dnn_plane_make(const int64_t size[DNN_RANK], const int64_t stride[DNN_RANK]);

// Whether a call of dnn_run serves: cuDNN is there and has an engine.
bool dnn_serves(const struct cuda_libraries *libraries, const struct dnn_problem *problem);
// The step: DJ_E_DEVICE or DJ_E_DEVICE_MEMORY with cuDNN's words.
DJ_MUST_USE enum dj_error dnn_run(const struct cuda_libraries *libraries, const struct dnn_problem *problem,
                                  const struct dnn_pointers *pointers, cuda_stream stream, struct fault *fault);

#endif
