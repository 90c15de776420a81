// Convolution by cuDNN's backend API (its documentation: "cuDNN Graph API"): tensors, a convolution and one operation make a graph; heuristics name engines; the first engine
// that is deterministic, keeps the inputs' precision and needs no more than the workspace is kept as the shape's plan. Also that there is none is kept.
//
// fp32 is computed without tensor cores unless TF32 is allowed: there they would round the inputs to 10 bits.

#include "gpu_worker/kernels/cuda/conv_dnn.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "gpu_worker/kernels/cuda/cudnn.h"
#include "gpu_worker/kernels/cuda/libraries.h"

enum { PLANE = 4, OBJECTS_MAX = 16, CONFIGS_MAX = 32, ALIGNMENT = 16, UID_X = 'x', UID_W = 'w', UID_Y = 'y' };

// What a plan depends on; no padding, so that it can be hashed.
struct conv_shape {
    int64_t kind, dtype, allows_tf32;
    int64_t x[2][PLANE], w[2][PLANE], y[2][PLANE];    // dimensions, strides
    int64_t padding[2], stride[2], dilation[2];
};

struct conv_plan {
    struct hash128 key;
    void *plan, *config;    // NULL: no engine serves
};

struct conv_cache {
    struct conv_plan plan[CONV_PLANS_MAX];
    uint32_t plans, next;    // next: the one that makes room when all are taken
};

struct conv_call {
    void *plan;
    const void *x, *w, *y;
};

// Descriptors that live until the plan is made; `code` is the first error.
struct builder {
    const struct cudnn_api *dnn;
    void *object[OBJECTS_MAX];
    uint32_t objects;
    int code;
};

enum dj_error conv_cache_make(struct conv_cache **ret)
{
    *ret = calloc(1, sizeof **ret);
    return *ret == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

static void plan_free(struct conv_plan *plan, const struct cudnn_api *dnn)
{
    if (plan->plan != NULL)
        dnn->cudnnBackendDestroyDescriptor(plan->plan);
    if (plan->config != NULL)
        dnn->cudnnBackendDestroyDescriptor(plan->config);
    *plan = (struct conv_plan){0};
}

void conv_cache_free(struct conv_cache *cache, const struct cudnn_api *dnn)
{
    for (uint32_t i = 0; cache != NULL && i < cache->plans; i++)
        plan_free(&cache->plan[i], dnn);
    free(cache);
}

uint32_t conv_cache_plans(const struct conv_cache *cache)
{
    return cache->plans;
}

static void *make(struct builder *b, enum cudnn_descriptor type)
{
    void *object = NULL;
    if (b->code == 0)
        b->code = b->objects == OBJECTS_MAX ? -1 : b->dnn->cudnnBackendCreateDescriptor((int)type, &object);
    if (b->code != 0)
        return NULL;
    return b->object[b->objects++] = object;
}

static void set(struct builder *b, void *object, enum cudnn_attribute name, enum cudnn_type type, int64_t count,
                const void *values)
{
    if (b->code == 0)
        b->code = b->dnn->cudnnBackendSetAttribute(object, (int)name, (int)type, count, values);
}

static void finalize(struct builder *b, void *object)
{
    if (b->code == 0)
        b->code = b->dnn->cudnnBackendFinalize(object);
}

static void clear(struct builder *b)
{
    while (b->objects > 0)
        b->dnn->cudnnBackendDestroyDescriptor(b->object[--b->objects]);
}

static int data_type(int64_t dtype)
{
    return dtype == DTYPE_F16 ? CUDNN_DATA_HALF : dtype == DTYPE_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

static void *make_tensor(struct builder *b, const struct conv_shape *shape, const int64_t plane[2][PLANE], int64_t uid)
{
    void *tensor = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int type = data_type(shape->dtype);
    int64_t alignment = ALIGNMENT;
    set(b, tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, PLANE, plane[0]);
    set(b, tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, PLANE, plane[1]);
    set(b, tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(b, tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    finalize(b, tensor);
    return tensor;
}

static void *make_convolution(struct builder *b, const struct conv_shape *shape)
{
    void *convolution = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    int compute = CUDNN_DATA_FLOAT, mode = CUDNN_CROSS_CORRELATION;
    int64_t dimensions = 2;
    set(b, convolution, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dimensions);
    set(b, convolution, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    set(b, convolution, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(b, convolution, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, shape->padding);
    set(b, convolution, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, shape->padding);
    set(b, convolution, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, shape->dilation);
    set(b, convolution, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, shape->stride);
    finalize(b, convolution);
    return convolution;
}

static void *make_graph(struct builder *b, const struct conv_shape *shape, void *handle)
{
    static const struct {
        enum cudnn_descriptor type;
        enum cudnn_attribute x, w, y, convolution, alpha, beta;
    } operations[] = {
        [CONV_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
        [CONV_INPUT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
        [CONV_WEIGHT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
    };
    float one = 1.0f, none = 0.0f;
    void *x = make_tensor(b, shape, shape->x, UID_X), *w = make_tensor(b, shape, shape->w, UID_W),
         *y = make_tensor(b, shape, shape->y, UID_Y);
    void *convolution = make_convolution(b, shape), *operation = make(b, operations[shape->kind].type);
    set(b, operation, operations[shape->kind].x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    set(b, operation, operations[shape->kind].w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w);
    set(b, operation, operations[shape->kind].y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    set(b, operation, operations[shape->kind].convolution, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &convolution);
    set(b, operation, operations[shape->kind].alpha, CUDNN_TYPE_FLOAT, 1, &one);
    set(b, operation, operations[shape->kind].beta, CUDNN_TYPE_FLOAT, 1, &none);
    finalize(b, operation);
    void *graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &operation);
    set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    finalize(b, graph);
    return graph;
}

static bool is_fit(const struct cudnn_api *dnn, const struct conv_shape *shape, void *config)
{
    int notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0, got = 0;
    void *engine = NULL;

    if (dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != 0)
        return false;
    bool is_good = dnn->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &got,
                                                 &engine) == 0 &&
                   dnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) == 0;
    for (int64_t i = 0; is_good && i < count && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++) {
        bool rounds_inputs = notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE && shape->dtype == DTYPE_F32 && !shape->allows_tf32;
        is_good = !rounds_inputs && notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC &&
                  notes[i] != CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS &&
                  notes[i] != CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    }
    dnn->cudnnBackendDestroyDescriptor(engine);
    return is_good;
}

// The plan of an engine's configuration; NULL when it does not serve.
static void *plan_of(const struct cuda_libraries *libraries, void *config)
{
    const struct cudnn_api *dnn = libraries->dnn;
    int64_t bytes = 0, got = 0;
    void *plan = NULL;

    if (dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) != 0)
        return NULL;
    if (dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &libraries->dnn_handle) ==
            0 &&
        dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config) ==
            0 &&
        dnn->cudnnBackendFinalize(plan) == 0 &&
        dnn->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &got, &bytes) == 0 &&
        bytes >= 0 && (uint64_t)bytes <= libraries->workspace_bytes)
        return plan;
    dnn->cudnnBackendDestroyDescriptor(plan);
    return NULL;
}

// Asks the heuristics in one mode; keeps the first configuration that fits and its plan.
static void choose(const struct cuda_libraries *libraries, const struct conv_shape *shape, struct builder *b, void *graph,
                   int mode, struct conv_plan *ret)
{
    const struct cudnn_api *dnn = libraries->dnn;
    void *config[CONFIGS_MAX], *heuristics = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    int64_t made = 0, count = 0;

    set(b, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    set(b, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finalize(b, heuristics);
    if (b->code != 0)
        return;
    while (made < CONFIGS_MAX && dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[made]) == 0)
        made++;
    if (dnn->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &count,
                                      config) != 0)
        count = 0;
    for (int64_t i = 0; i < count && i < made && ret->plan == NULL; i++)
        if (is_fit(dnn, shape, config[i]) && (ret->plan = plan_of(libraries, config[i])) != NULL) {
            ret->config = config[i];
            config[i] = NULL;
        }
    for (int64_t i = 0; i < made; i++)
        if (config[i] != NULL)
            dnn->cudnnBackendDestroyDescriptor(config[i]);
}

static void plan_make(const struct cuda_libraries *libraries, const struct conv_shape *shape, struct conv_plan *ret)
{
    static const int modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    struct builder b = {.dnn = libraries->dnn};
    void *graph = make_graph(&b, shape, libraries->dnn_handle);

    for (uint32_t i = 0; i < sizeof modes / sizeof modes[0] && b.code == 0 && ret->plan == NULL; i++)
        choose(libraries, shape, &b, graph, modes[i], ret);
    clear(&b);
}

static const struct conv_plan *plan_get(const struct cuda_libraries *libraries, const struct conv_shape *shape)
{
    struct conv_cache *cache = libraries->convs;
    struct hash128 key = hash128(shape, sizeof *shape);
    struct conv_plan *plan;

    for (uint32_t i = 0; i < cache->plans; i++)
        if (hash128_equal(cache->plan[i].key, key))
            return &cache->plan[i];
    if (cache->plans < CONV_PLANS_MAX) {
        plan = &cache->plan[cache->plans++];
    } else {
        plan = &cache->plan[cache->next++ % CONV_PLANS_MAX];
        plan_free(plan, libraries->dnn);
    }
    plan->key = key;
    plan_make(libraries, shape, plan);
    return plan;
}

static void plane_set(int64_t ret[2][PLANE], int64_t images, int64_t channels, int64_t height, int64_t width,
                      const struct conv_plane *stride)
{
    const int64_t size[PLANE] = {images, channels, height, width},
                  step[PLANE] = {stride->image, stride->channel, stride->row, stride->column};
    int64_t dense = 1;
    for (int d = PLANE - 1; d >= 0; d--) {
        ret[0][d] = size[d];
        ret[1][d] = size[d] == 1 && step[d] == 0 ? dense : step[d];    // cuDNN wants no stride of 0
        dense *= size[d];
    }
}

static enum dj_error run(const void *context, const struct cuda_libraries *libraries, cuda_stream stream, struct fault *fault)
{
    const struct conv_call *call = context;
    const struct cudnn_api *dnn = libraries->dnn;
    const int64_t uid[] = {UID_X, UID_W, UID_Y};
    const void *pointer[] = {call->x, call->w, call->y};
    struct builder b = {.dnn = dnn};

    b.code = dnn->cudnnSetStream(libraries->dnn_handle, stream);
    void *pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, uid);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointer);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &libraries->workspace);
    finalize(&b, pack);
    if (b.code == 0)
        b.code = dnn->cudnnBackendExecute(libraries->dnn_handle, call->plan, pack);
    clear(&b);
    return b.code == 0 ? DJ_OK : fault_set(fault, DJ_E_DEVICE, "cuDNN: %s", dnn->cudnnGetErrorString(b.code));
}

static bool is_aligned(const void *data)
{
    return ((uintptr_t)data & (ALIGNMENT - 1)) == 0;
}

bool conv_dnn_emit(struct cuda_program *program, enum conv_kind kind, enum dtype dtype, const struct conv_args *args)
{
    const struct cuda_libraries *libraries = program->libraries;
    struct conv_shape shape = {.kind = kind, .dtype = dtype};
    struct conv_call call = {
        .x = kind == CONV_INPUT ? args->out : args->x, .w = kind == CONV_WEIGHT ? args->out : args->weight, .y = args->y};

    if (libraries == NULL || libraries->dnn == NULL || libraries->convs == NULL || !is_aligned(call.x) || !is_aligned(call.w) ||
        !is_aligned(call.y))
        return false;
    shape.allows_tf32 = libraries->allows_tf32;
    plane_set(shape.x, args->images, args->channels * args->groups, args->in_h, args->in_w, &args->x_stride);
    plane_set(shape.w, args->outputs * args->groups, args->channels, args->kernel_h, args->kernel_w, &args->weight_stride);
    plane_set(shape.y, args->images, args->outputs * args->groups, args->out_h, args->out_w, &args->y_stride);
    memcpy(shape.padding, (int64_t[]){args->pad_h, args->pad_w}, sizeof shape.padding);
    memcpy(shape.stride, (int64_t[]){args->stride_h, args->stride_w}, sizeof shape.stride);
    memcpy(shape.dilation, (int64_t[]){args->step_h, args->step_w}, sizeof shape.dilation);
    const struct conv_plan *plan = plan_get(libraries, &shape);
    if (plan->plan == NULL)
        return false;
    call.plan = plan->plan;
    cuda_emit_call(program, run, &call, sizeof call);
    return true;
}
