// Fake cuDNN: descriptors, engines, calls. See fake_cudnn.h.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/cuda/fake_cudnn_object.h"

enum { MAGIC = 0xd11a, HANDLE_MAGIC = 0x4a11d, NOT_FINALIZED = 2004, HUGE_BYTES = 1 << 30 };

struct fake_cudnn_state fake_cudnn;

struct handle {
    uint32_t magic;
    cuda_stream stream;
};

static struct object *plans;    // all since the reset, those that are gone too

_Noreturn void fake_cudnn_die(const char *what)
{
    fprintf(stderr, "fake cuDNN: %s\n", what);
    abort();
}

// The status with which this call fails, or success.
static int count_call(void)
{
    return ++fake_cudnn.calls == fake_cudnn.fail_at ? fake_cudnn.fail_status : CUDNN_STATUS_SUCCESS;
}

// Attributes ------------------------------------------------------------------------------------------------------------------

struct rule {
    int descriptor, name, type, least, most;    // least 0: it need not be there
};

static const struct rule rules[] = {
    {TENSOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1},
    {TENSOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, RANK, RANK},
    {TENSOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, RANK, RANK},
    {TENSOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1},
    {TENSOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1},
    {TENSOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 0, 1},
    {TENSOR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 0, 1},
    {CONVOLUTION, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, 1},
    {CONVOLUTION, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1},
    {CONVOLUTION, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1},
    {CONVOLUTION, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, 2},
    {CONVOLUTION, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, 2},
    {CONVOLUTION, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, 2},
    {CONVOLUTION, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, 2},
    {FORWARD, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, OBJECT, 1, 1},
    {FORWARD, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, OBJECT, 1, 1},
    {FORWARD, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, OBJECT, 1, 1},
    {FORWARD, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, OBJECT, 1, 1},
    {FORWARD, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, 1},
    {FORWARD, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, 1},
    {DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, OBJECT, 1, 1},
    {DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, OBJECT, 1, 1},
    {DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, OBJECT, 1, 1},
    {DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, OBJECT, 1, 1},
    {DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_TYPE_FLOAT, 1, 1},
    {DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, CUDNN_TYPE_FLOAT, 1, 1},
    {FILTER, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, OBJECT, 1, 1},
    {FILTER, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, OBJECT, 1, 1},
    {FILTER, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, OBJECT, 1, 1},
    {FILTER, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, OBJECT, 1, 1},
    {FILTER, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_TYPE_FLOAT, 1, 1},
    {FILTER, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, CUDNN_TYPE_FLOAT, 1, 1},
    {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1},
    {MATMUL, CUDNN_ATTR_OPERATION_MATMUL_ADESC, OBJECT, 1, 1},
    {MATMUL, CUDNN_ATTR_OPERATION_MATMUL_BDESC, OBJECT, 1, 1},
    {MATMUL, CUDNN_ATTR_OPERATION_MATMUL_CDESC, OBJECT, 1, 1},
    {MATMUL, CUDNN_ATTR_OPERATION_MATMUL_DESC, OBJECT, 1, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 0, 1},
    {POINTWISE, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, OBJECT, 1, 1},
    {POINTWISE, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, OBJECT, 1, 1},
    {POINTWISE, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, OBJECT, 0, 1},
    {POINTWISE, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, OBJECT, 0, 1},
    {POINTWISE, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, OBJECT, 1, 1},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, 1},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1},
    {REDUCTION, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, OBJECT, 1, 1},
    {REDUCTION, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, OBJECT, 1, 1},
    {REDUCTION, CUDNN_ATTR_OPERATION_REDUCTION_DESC, OBJECT, 1, 1},
    {GRAPH, CUDNN_ATTR_OPERATIONGRAPH_OPS, OBJECT, 1, OPERATIONS_MAX},
    {GRAPH, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1},
    {GRAPH, CUDNN_ATTR_OPERATIONGRAPH_IS_DYNAMIC_SHAPE_ENABLED, CUDNN_TYPE_BOOLEAN, 0, 1},
    {CUDNN_BACKEND_KERNEL_CACHE_DESCRIPTOR, CUDNN_ATTR_KERNEL_CACHE_OPERATION_GRAPH, OBJECT, 1, 1},
    {HEURISTICS, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, OBJECT, 1, 1},
    {HEURISTICS, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1},
    {PLAN, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1},
    {PLAN, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, OBJECT, 1, 1},
    {PLAN, CUDNN_ATTR_EXECUTION_PLAN_KERNEL_CACHE, OBJECT, 0, 1},
    {PACK, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, POINTERS_MAX},
    {PACK, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, POINTERS_MAX},
    {PACK, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1},
};
enum { RULES = sizeof rules / sizeof rules[0] };

static size_t bytes_of(int type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN: return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case OBJECT: return 8;
    default: return 4;
    }
}

const struct attribute *object_find(const struct object *object, int name)
{
    for (uint32_t i = 0; i < object->attributes; i++)
        if (object->attribute[i].name == name)
            return &object->attribute[i];
    return NULL;
}

int32_t object_number(const struct object *object, int name, int32_t otherwise)
{
    const struct attribute *found = object_find(object, name);
    return found == NULL ? otherwise : found->value.i32[0];
}

struct object *object_at(const struct object *object, int name)
{
    const struct attribute *found = object_find(object, name);
    return found == NULL ? NULL : found->value.object[0];
}

static struct object *object_of(void *pointer)
{
    struct object *object = pointer;
    if (object == NULL || object->magic != MAGIC || object->is_dead)
        fake_cudnn_die("a descriptor that is not there");
    return object;
}

static struct handle *handle_of(void *pointer)
{
    struct handle *handle = pointer;
    if (handle == NULL || handle->magic != HANDLE_MAGIC)
        fake_cudnn_die("a handle that is not there");
    return handle;
}

// Descriptors ---------------------------------------------------------------------------------------------------------------

static int create(int type, void **ret)
{
    int code = count_call();
    if (code != 0)
        return code;
    struct object *object = calloc(1, sizeof *object);
    if (object == NULL)
        return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    *object = (struct object){.magic = MAGIC, .type = type, .references = 1};
    if (type == PLAN) {
        object->next = plans;
        plans = object;
    }
    fake_cudnn.live++;
    *ret = object;
    return 0;
}

// A plan's own bytes stay until the reset: whoever still holds it is told.
static void drop(struct object *object)
{
    if (object == NULL || --object->references > 0)
        return;
    drop(object->graph);
    for (uint32_t i = 0; i < object->attributes; i++)
        for (int64_t k = 0; object->attribute[i].type == OBJECT && k < object->attribute[i].count; k++)
            drop(object->attribute[i].value.object[k]);
    object->is_dead = true;
    if (object->type != PLAN)
        free(object);
}

static int destroy(void *pointer)
{
    drop(object_of(pointer));
    fake_cudnn.live--;
    return 0;
}

static const struct rule *rule_of(int descriptor, int name)
{
    for (int i = 0; i < RULES; i++)
        if (rules[i].descriptor == descriptor && rules[i].name == name)
            return &rules[i];
    return NULL;
}

static int set_attribute(void *pointer, int name, int type, int64_t count, const void *values)
{
    int code = count_call();
    struct object *object = object_of(pointer);
    const struct rule *rule = rule_of(object->type, name);

    if (code != 0)
        return code;
    if (object->is_final || rule == NULL || type != rule->type || count < 1 || count > rule->most || values == NULL ||
        object_find(object, name) != NULL || object->attributes == ATTRIBUTES_MAX)
        return CUDNN_STATUS_BAD_PARAM;
    struct attribute attribute = {.name = name, .type = type, .count = count};
    memcpy(&attribute.value, values, (size_t)count * bytes_of(type));
    for (int64_t i = 0; type == OBJECT && i < count; i++)
        if (!object_of(attribute.value.object[i])->is_final)
            return NOT_FINALIZED;
    for (int64_t i = 0; type == OBJECT && i < count; i++)
        attribute.value.object[i]->references++;
    if (type == CUDNN_TYPE_HANDLE)
        (void)handle_of(attribute.value.pointer[0]);
    object->attribute[object->attributes++] = attribute;
    return 0;
}

// Plans and calls -------------------------------------------------------------------------------------------------------------

static int check_plan(struct object *plan)
{
    struct object *config = object_at(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG),
                  *kernels = object_at(plan, CUDNN_ATTR_EXECUTION_PLAN_KERNEL_CACHE);
    if (kernels != NULL) {
        struct object *first = object_at(kernels, CUDNN_ATTR_KERNEL_CACHE_OPERATION_GRAPH);
        if (!tensor_is(config->graph, CUDNN_ATTR_OPERATIONGRAPH_IS_DYNAMIC_SHAPE_ENABLED) ||
            !graph_is_family(config->graph, first))
            return CUDNN_STATUS_BAD_PARAM;
    }
    plan->graph = config->graph;
    plan->graph->references++;
    plan->engine = config->engine;
    if (plan->engine == FAKE_CUDNN_HUGE)
        return 0;    // nobody keeps it
    fake_cudnn.compiled += kernels == NULL || kernels->engine == 0;
    if (kernels != NULL)
        kernels->engine = 1;    // something is in it
    fake_cudnn.last_engine = plan->engine;
    fake_cudnn.plans++;
    return 0;
}

static int finalize(void *pointer)
{
    int code = count_call();
    struct object *object = object_of(pointer);

    if (code != 0)
        return code;
    if (object->is_final)
        return CUDNN_STATUS_BAD_PARAM;
    for (int i = 0; i < RULES; i++) {
        const struct attribute *found = rules[i].descriptor == object->type ? object_find(object, rules[i].name) : NULL;
        if (rules[i].descriptor == object->type && rules[i].least > 0 && (found == NULL || found->count < rules[i].least))
            return CUDNN_STATUS_BAD_PARAM;
    }
    code = object->type == PLAN ? check_plan(object) : graph_check(object);
    object->is_final = code == 0;
    return code;
}

struct engine {
    int64_t workspace_bytes;
    bool is_for_all;    // not only for convolutions
    int notes, note[2];
};

static const struct engine engines[FAKE_CUDNN_ENGINES] = {
    [FAKE_CUDNN_UNORDERED] = {.is_for_all = true,
                              .notes = 2,
                              .note = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}},
    [FAKE_CUDNN_LOSSY] = {.is_for_all = true, .notes = 1, .note = {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}},
    [FAKE_CUDNN_HUGE] = {.is_for_all = true, .workspace_bytes = HUGE_BYTES},
    [FAKE_CUDNN_TENSOR_CORES] = {.is_for_all = true,
                                 .workspace_bytes = FAKE_CUDNN_WORKSPACE,
                                 .notes = 1,
                                 .note = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}},
};

// Fills configurations that the user made with the engines of a mode.
static int name_engines(const struct object *heuristics, int64_t room, int64_t *ret_count, struct object **ret)
{
    struct object *graph = object_at(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    bool is_fallback = object_number(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, -1) == CUDNN_HEUR_MODE_FALLBACK,
         is_convolution = object_find(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS)->count == 1;
    *ret_count = 0;
    if (fake_cudnn.finds_nothing || (fake_cudnn.lacks_first && !is_fallback))
        return 0;
    for (int e = is_fallback ? FAKE_CUDNN_LAST : 0; e < (is_fallback ? FAKE_CUDNN_ENGINES : FAKE_CUDNN_LAST); e++) {
        if (*ret_count == room || (!is_convolution && !engines[e].is_for_all))
            continue;
        struct object *config = object_of(ret[(*ret_count)++]);
        if (config->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || config->is_final)
            return CUDNN_STATUS_BAD_PARAM;
        config->graph = graph;
        graph->references++;
        config->engine = e;
        config->is_final = true;
    }
    return 0;
}

static int get_attribute(void *pointer, int name, int type, int64_t room, int64_t *ret_count, void *ret)
{
    int code = count_call();
    struct object *object = object_of(pointer);

    if (code != 0)
        return code;
    if (!object->is_final)
        return NOT_FINALIZED;
    *ret_count = 1;
    if (object->type == HEURISTICS && name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == OBJECT)
        return name_engines(object, room, ret_count, ret);
    if (object->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR && name == CUDNN_ATTR_ENGINECFG_ENGINE && type == OBJECT &&
        room == 1) {
        struct object *engine = object_of(*(void **)ret);
        engine->engine = object->engine;
        engine->is_final = true;
        return engine->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR ? 0 : CUDNN_STATUS_BAD_PARAM;
    }
    if (object->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE &&
        type == CUDNN_TYPE_NUMERICAL_NOTE && room >= 2) {
        *ret_count = engines[object->engine].notes;
        memcpy(ret, engines[object->engine].note, sizeof engines[object->engine].note);
        return 0;
    }
    if (object->type != PLAN || name != CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE || type != CUDNN_TYPE_INT64 || room != 1)
        return CUDNN_STATUS_BAD_PARAM;
    *(int64_t *)ret = engines[object->engine].workspace_bytes;
    return 0;
}

struct execution {
    const struct object *plan;
    struct binding binding;
};

static void run(const void *context)
{
    struct execution execution;
    memcpy(&execution, context, sizeof execution);
    if (execution.plan->magic != MAGIC || execution.plan->is_dead)
        fake_cudnn_die("a plan was destroyed before its kernels ran");
    graph_compute(execution.plan->graph, &execution.binding);
}

// Every tensor of the graph that is in memory has an address as aligned as promised; numbers given by value are read now.
static int bind(const struct object *graph, struct binding *binding)
{
    const struct attribute *operations = object_find(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    uint32_t used = 0;
    for (int64_t i = 0; i < operations->count; i++) {
        struct operation operation = operation_of(operations->value.object[i]);
        const struct object *tensors[] = {operation.in[0], operation.in[1], operation.in[2], operation.out};
        for (int k = 0; k < 4; k++) {
            uint32_t at = 0;
            if (tensors[k] == NULL || tensor_is(tensors[k], CUDNN_ATTR_TENSOR_IS_VIRTUAL))
                continue;
            while (at < binding->count && binding->uid[at] != tensor_uid(tensors[k]))
                at++;
            if (at == binding->count || binding->data[at] == NULL)
                return CUDNN_STATUS_BAD_PARAM;
            int64_t alignment = object_find(tensors[k], CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)->value.i64[0];
            if (tensor_is(tensors[k], CUDNN_ATTR_TENSOR_IS_BY_VALUE))
                memcpy(&binding->value[at], binding->data[at], sizeof(float));
            else if ((int64_t)((uintptr_t)binding->data[at] % (uint64_t)alignment) != 0)
                return CUDNN_STATUS_BAD_PARAM;
            used |= 1u << at;
        }
    }
    return used == (1u << binding->count) - 1 ? 0 : CUDNN_STATUS_BAD_PARAM;
}

static int execute(void *handle, void *plan_pointer, void *pack_pointer)
{
    int code = count_call();
    cuda_stream stream = handle_of(handle)->stream;
    struct object *plan = object_of(plan_pointer), *pack = object_of(pack_pointer);

    if (code != 0)
        return code;
    if (plan->type != PLAN || pack->type != PACK || !plan->is_final || !pack->is_final)
        return NOT_FINALIZED;
    const struct attribute *uids = object_find(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS),
                           *pointers = object_find(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    struct execution execution = {.plan = plan, .binding = {.count = (uint32_t)uids->count}};
    if (uids->count != pointers->count ||
        (engines[plan->engine].workspace_bytes > 0 && object_at(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE) == NULL))
        return CUDNN_STATUS_BAD_PARAM;
    memcpy(execution.binding.uid, uids->value.i64, sizeof execution.binding.uid);
    memcpy(execution.binding.data, pointers->value.pointer, sizeof execution.binding.data);
    code = bind(plan->graph, &execution.binding);
    if (code != 0)
        return code;
    fake_cudnn.executions++;
    if (fake_cudnn.enqueue != NULL)
        fake_cudnn.enqueue(stream, run, &execution, sizeof execution);
    else
        run(&execution);
    return 0;
}

// The library -------------------------------------------------------------------------------------------------------------------

static size_t version(void)
{
    return fake_cudnn.version != 0 ? fake_cudnn.version : FAKE_CUDNN_VERSION;
}

static const char *error_string(int status)
{
    return status == 0                            ? "CUDNN_STATUS_SUCCESS"
           : status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
                                                  : "an error of the fake";
}

static void last_error(char *ret, size_t bytes)
{
    snprintf(ret, bytes, "the fake says no more");
}

static int handle_make(void **ret)
{
    int code = count_call();
    if (code != 0)
        return code;
    struct handle *handle = calloc(1, sizeof *handle);
    if (handle == NULL)
        return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    handle->magic = HANDLE_MAGIC;
    fake_cudnn.live++;
    *ret = handle;
    return 0;
}

static int handle_destroy(void *pointer)
{
    struct handle *handle = handle_of(pointer);
    handle->magic = 0;
    free(handle);
    fake_cudnn.live--;
    return 0;
}

static int set_stream(void *handle, cuda_stream stream)
{
    int code = count_call();
    if (code == 0)
        handle_of(handle)->stream = stream;
    return code;
}

void fake_cudnn_reset(void)
{
    while (plans != NULL) {
        struct object *next = plans->next;
        if (plans->is_dead)
            free(plans);
        plans = next;
    }
    memset(&fake_cudnn, 0, sizeof fake_cudnn);
}

const struct cudnn_api *fake_cudnn_api(void)
{
    static const struct cudnn_api api = {.cudnnGetVersion = version,
                                         .cudnnGetErrorString = error_string,
                                         .cudnnCreate = handle_make,
                                         .cudnnDestroy = handle_destroy,
                                         .cudnnSetStream = set_stream,
                                         .cudnnGetLastErrorString = last_error,
                                         .cudnnBackendCreateDescriptor = create,
                                         .cudnnBackendDestroyDescriptor = destroy,
                                         .cudnnBackendFinalize = finalize,
                                         .cudnnBackendSetAttribute = set_attribute,
                                         .cudnnBackendGetAttribute = get_attribute,
                                         .cudnnBackendExecute = execute};
    return &api;
}
