// Dnn graph: see dnn_graph.h.

#include "gpu_worker/kernels/cuda/dnn_graph.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"

enum {
    CONFIGS_MAX = 32,
    FAMILIES_MAX = 64,
    RULES_VERSION = 1
};    // RULES_VERSION counts changes of what is taken: thresholds, engines

struct dnn_plan {
    uint64_t used;          // the cache's clock
    void *plan, *config;    // NULL: no engine serves
};

// Code that plans share. Never evicted: there are as many as a program has heads, dtypes and masks.
struct dnn_family {
    struct hash128 key;
    void *kernels;
};

// Keys lie together: they are searched one after the other.
struct dnn_cache {
    struct dnn_family family[FAMILIES_MAX];
    uint32_t families;
    struct hash128 key[DNN_PLANS_MAX];
    struct dnn_plan plan[DNN_PLANS_MAX];
    uint32_t plans;
    uint64_t clock;
};

enum dj_error dnn_cache_make(struct dnn_cache **ret)
{
    struct dnn_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return DJ_E_NO_MEMORY;
    *ret = cache;
    return DJ_OK;
}

static void plan_free(struct dnn_plan *plan, const struct cudnn_api *dnn)
{
    if (plan->plan != NULL)
        dnn->cudnnBackendDestroyDescriptor(plan->plan);
    if (plan->config != NULL)
        dnn->cudnnBackendDestroyDescriptor(plan->config);
    *plan = (struct dnn_plan){0};
}

void dnn_cache_free(struct dnn_cache *cache, const struct cudnn_api *dnn)
{
    for (uint32_t i = 0; cache != NULL && i < cache->plans; i++)
        plan_free(&cache->plan[i], dnn);
    for (uint32_t i = 0; cache != NULL && i < cache->families; i++)
        dnn->cudnnBackendDestroyDescriptor(cache->family[i].kernels);
    free(cache);
}

uint32_t dnn_cache_plans(const struct dnn_cache *cache)
{
    return cache->plans;
}

uint64_t dnn_numerics(const struct cuda_libraries *libraries)
{
    if (libraries->dnn == NULL)
        return 0;
    const uint64_t facts[] = {libraries->dnn->cudnnGetVersion(),
                              libraries->workspace_bytes,
                              libraries->allows_tf32,
                              libraries->processors,
                              libraries->capability,
                              RULES_VERSION};
    return hash64(facts, sizeof facts);
}

// Descriptors ---------------------------------------------------------------------------------------------------------------

void *dnn_make(struct dnn_builder *b, enum cudnn_descriptor type)
{
    void *object = NULL;
    if (b->code == 0)
        b->code = b->objects == DNN_OBJECTS_MAX ? CUDNN_STATUS_NOT_SUPPORTED
                                                : b->dnn->cudnnBackendCreateDescriptor((int)type, &object);
    if (b->code != 0)
        return NULL;
    return b->object[b->objects++] = object;
}

void dnn_set(struct dnn_builder *b, void *object, enum cudnn_attribute name, enum cudnn_type type, int64_t count,
             const void *values)
{
    if (b->code == 0)
        b->code = b->dnn->cudnnBackendSetAttribute(object, (int)name, (int)type, count, values);
}

void dnn_set_object(struct dnn_builder *b, void *object, enum cudnn_attribute name, void *value)
{
    dnn_set(b, object, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void dnn_finalize(struct dnn_builder *b, void *object)
{
    if (b->code == 0)
        b->code = b->dnn->cudnnBackendFinalize(object);
}

static void clear(struct dnn_builder *b)
{
    while (b->objects > 0)
        b->dnn->cudnnBackendDestroyDescriptor(b->object[--b->objects]);
}

void *dnn_make_tensor(struct dnn_builder *b, const struct dnn_tensor *tensor)
{
    void *made = dnn_make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t alignment = DNN_ALIGNMENT;
    dnn_set(b, made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &tensor->type);
    dnn_set(b, made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, DNN_RANK, tensor->plane.size);
    dnn_set(b, made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, DNN_RANK, tensor->plane.stride);
    dnn_set(b, made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &tensor->uid);
    dnn_set(b, made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (tensor->is_virtual)
        dnn_set(b, made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &tensor->is_virtual);
    if (tensor->is_by_value)
        dnn_set(b, made, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &tensor->is_by_value);
    dnn_finalize(b, made);
    return made;
}

int dnn_data_type(int64_t dtype)
{
    return dtype == DTYPE_F16 ? CUDNN_DATA_HALF : dtype == DTYPE_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

bool dnn_is_aligned(const void *data)
{
    return ((uintptr_t)data & (DNN_ALIGNMENT - 1)) == 0;
}

struct dnn_plane dnn_plane_make(const int64_t size[DNN_RANK], const int64_t stride[DNN_RANK])
{
    struct dnn_plane plane;
    int64_t dense = 1;
    for (int d = DNN_RANK - 1; d >= 0; d--) {
        plane.size[d] = size[d];
        plane.stride[d] = size[d] == 1 ? dense : stride[d];
        dense *= size[d];
    }
    return plane;
}

// The choice of an engine -----------------------------------------------------------------------------------------------------

static bool is_out_of_memory(int code)
{
    return code == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
           code == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
}

static bool is_note_good(int note, bool is_exact)
{
    return note != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC && note != CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS &&
           note != CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION && !(is_exact && note == CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
}

// 0 and whether the configuration's engine keeps our promises.
static int judge(const struct cudnn_api *dnn, void *config, bool is_exact, bool *ret)
{
    int notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0, got = 0;
    void *engine = NULL;

    int code = dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine);
    if (code != 0)
        return code;
    code = dnn->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &got, &engine);
    if (code == 0)
        code = dnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                             CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes);
    *ret = code == 0;
    for (int64_t i = 0; *ret && i < count && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++)
        *ret = is_note_good(notes[i], is_exact);
    dnn->cudnnBackendDestroyDescriptor(engine);
    return code;
}

// What the plans of a problem are chosen by.
struct choice {
    bool is_exact;
    void *kernels;    // of its family; NULL: none
};

// The plan of an engine's configuration; NULL when it does not serve. 0 or why there is none.
static int plan_of(const struct cuda_libraries *libraries, const struct choice *by, void *config, void **ret)
{
    const struct cudnn_api *dnn = libraries->dnn;
    int64_t bytes = -1, got = 0;
    void *plan = NULL;

    int code = dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
    if (code != 0)
        return code;
    code = dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &libraries->dnn_handle);
    if (code == 0)
        code = dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                             &config);
    if (code == 0 && by->kernels != NULL)
        code = dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_KERNEL_CACHE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                             &by->kernels);
    if (code == 0)
        code = dnn->cudnnBackendFinalize(plan);
    if (code == 0)
        code = dnn->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &got, &bytes);
    if (code == 0 && bytes >= 0 && (uint64_t)bytes <= libraries->workspace_bytes) {
        *ret = plan;
        return 0;
    }
    dnn->cudnnBackendDestroyDescriptor(plan);
    return code;
}

// Tries configurations in their order. An engine that fails is passed over, unless memory ran out: then that is the answer.
static int try_all(const struct cuda_libraries *libraries, const struct choice *by, void **config, int64_t count,
                   struct dnn_plan *ret)
{
    int code = 0;
    for (int64_t i = 0; i < count && ret->plan == NULL && !is_out_of_memory(code); i++) {
        bool is_good = false;
        code = judge(libraries->dnn, config[i], by->is_exact, &is_good);
        if (code == 0 && is_good)
            code = plan_of(libraries, by, config[i], &ret->plan);
        if (ret->plan != NULL) {
            ret->config = config[i];
            config[i] = NULL;
        }
    }
    return is_out_of_memory(code) ? code : 0;
}

// Asks the heuristics in one mode; keeps the first configuration that serves, and its plan.
static int choose(const struct cuda_libraries *libraries, const struct choice *by, struct dnn_builder *b, void *graph, int mode,
                  struct dnn_plan *ret)
{
    const struct cudnn_api *dnn = libraries->dnn;
    void *config[CONFIGS_MAX], *heuristics = dnn_make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    int64_t made = 0, count = 0;

    dnn_set_object(b, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    dnn_set(b, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    dnn_finalize(b, heuristics);
    int code = b->code;
    while (code == 0 && made < CONFIGS_MAX) {
        code = dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[made]);
        made += code == 0;
    }
    if (code == 0)
        code = dnn->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, made,
                                             &count, config);
    if (code == 0)
        code = try_all(libraries, by, config, count < made ? count : made, ret);
    for (int64_t i = 0; i < made; i++)
        if (config[i] != NULL)
            dnn->cudnnBackendDestroyDescriptor(config[i]);
    return code;
}

static void *make_graph(struct dnn_builder *b, const struct dnn_problem *problem, void *handle)
{
    void *operation[DNN_OPERATIONS_MAX];
    uint32_t operations = problem->operate(b, problem->shape, operation);
    void *graph = dnn_make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    dnn_set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations, operation);
    dnn_set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    bool is_dynamic = problem->family != NULL;
    if (is_dynamic)
        dnn_set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_IS_DYNAMIC_SHAPE_ENABLED, CUDNN_TYPE_BOOLEAN, 1, &is_dynamic);
    dnn_finalize(b, graph);
    return graph;
}

// The code of the problem's family, made from its first graph. NULL also when there is no room for more: then the plan has its own.
static int kernels_get(const struct cuda_libraries *libraries, const struct dnn_problem *problem, void *graph, void **ret)
{
    struct dnn_cache *cache = libraries->plans;
    void *kernels = NULL;

    if (problem->family == NULL)
        return 0;
    struct hash128 key = hash128(problem->family, problem->family_bytes);
    for (uint32_t i = 0; i < cache->families; i++)
        if (hash128_equal(cache->family[i].key, key)) {
            *ret = cache->family[i].kernels;
            return 0;
        }
    if (cache->families == FAMILIES_MAX)
        return 0;
    int code = libraries->dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_KERNEL_CACHE_DESCRIPTOR, &kernels);
    if (code != 0)
        return code;
    code = libraries->dnn->cudnnBackendSetAttribute(kernels, CUDNN_ATTR_KERNEL_CACHE_OPERATION_GRAPH,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    if (code == 0)
        code = libraries->dnn->cudnnBackendFinalize(kernels);
    if (code != 0) {
        libraries->dnn->cudnnBackendDestroyDescriptor(kernels);
        return code;
    }
    cache->family[cache->families++] = (struct dnn_family){.key = key, .kernels = kernels};
    *ret = kernels;
    return 0;
}

// 0 also when no engine serves, which the plan says; else memory ran out.
static int plan_make(const struct cuda_libraries *libraries, const struct dnn_problem *problem, struct dnn_plan *ret)
{
    static const int modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    struct dnn_builder b = {.dnn = libraries->dnn};
    void *graph = make_graph(&b, problem, libraries->dnn_handle);
    struct choice by = {.is_exact = problem->is_exact};

    int code = b.code == 0 ? kernels_get(libraries, problem, graph, &by.kernels) : b.code;
    if (code == 0)
        for (uint32_t i = 0; i < sizeof modes / sizeof modes[0] && b.code == 0 && !is_out_of_memory(code) && ret->plan == NULL;
             i++)
            code = choose(libraries, &by, &b, graph, modes[i], ret);
    clear(&b);
    return is_out_of_memory(code) ? code : 0;
}

// Plans ------------------------------------------------------------------------------------------------------------------------

// The place for one more plan; the one used longest ago makes room.
static uint32_t find_place(const struct cuda_libraries *libraries)
{
    struct dnn_cache *cache = libraries->plans;
    uint32_t oldest = 0;

    if (cache->plans < DNN_PLANS_MAX)
        return cache->plans++;
    for (uint32_t i = 1; i < DNN_PLANS_MAX; i++)
        if (cache->plan[i].used < cache->plan[oldest].used)
            oldest = i;
    // A plan may own the code of its kernels, which run now, or stand in captured graphs.
    if (cache->plan[oldest].plan != NULL && libraries->evicting != NULL)
        libraries->evicting(libraries->evicting_self);
    plan_free(&cache->plan[oldest], libraries->dnn);
    return oldest;
}

// The plan of a problem, made if it is not there. On failure nothing is kept and *ret is untouched.
static int plan_get(const struct cuda_libraries *libraries, const struct dnn_problem *problem, const struct dnn_plan **ret)
{
    struct dnn_cache *cache = libraries->plans;
    struct hash128 key = hash128(problem->shape, problem->shape_bytes);
    struct dnn_plan made = {.plan = NULL};

    for (uint32_t i = 0; i < cache->plans; i++)
        if (hash128_equal(cache->key[i], key)) {
            cache->plan[i].used = ++cache->clock;
            *ret = &cache->plan[i];
            return 0;
        }
    if (libraries->is_capturing)
        return CUDNN_STATUS_NOT_SUPPORTED;
    int code = plan_make(libraries, problem, &made);
    if (code != 0) {
        plan_free(&made, libraries->dnn);
        return code;
    }
    uint32_t place = find_place(libraries);
    made.used = ++cache->clock;
    cache->key[place] = key;
    cache->plan[place] = made;
    *ret = &cache->plan[place];
    return 0;
}

bool dnn_serves(const struct cuda_libraries *libraries, const struct dnn_problem *problem)
{
    const struct dnn_plan *plan = NULL;
    if (libraries == NULL || libraries->dnn == NULL || libraries->plans == NULL)
        return false;
    // If asking fails, the step says why.
    return plan_get(libraries, problem, &plan) != 0 || plan->plan != NULL;
}

static enum dj_error failed(const struct cuda_libraries *libraries, int code, const char *what, struct fault *fault)
{
    char text[256] = "";
    libraries->dnn->cudnnGetLastErrorString(text, sizeof text);
    text[sizeof text - 1] = '\0';
    return fault_set(fault, is_out_of_memory(code) ? DJ_E_DEVICE_MEMORY : DJ_E_DEVICE,
                     "cuDNN %zu could not %s: %s (status %d) %s", libraries->dnn->cudnnGetVersion(), what,
                     libraries->dnn->cudnnGetErrorString(code), code, text);
}

enum dj_error dnn_run(const struct cuda_libraries *libraries, const struct dnn_problem *problem,
                      const struct dnn_pointers *pointers, cuda_stream stream, struct fault *fault)
{
    const struct cudnn_api *dnn = libraries->dnn;
    const struct dnn_plan *plan = NULL;
    struct dnn_builder b = {.dnn = dnn};

    int code = plan_get(libraries, problem, &plan);
    if (code == 0 && plan->plan == NULL)
        code = CUDNN_STATUS_NOT_SUPPORTED;
    if (code != 0)
        return failed(libraries, code, libraries->is_capturing ? "make a plan while a graph is captured" : "make a plan", fault);
    b.code = dnn->cudnnSetStream(libraries->dnn_handle, stream);
    void *pack = dnn_make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    dnn_set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, pointers->count, pointers->uid);
    dnn_set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers->count, pointers->data);
    dnn_set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &libraries->workspace);
    dnn_finalize(&b, pack);
    if (b.code == 0)
        b.code = dnn->cudnnBackendExecute(libraries->dnn_handle, plan->plan, pack);
    clear(&b);
    return b.code == 0 ? DJ_OK : failed(libraries, b.code, "run a plan", fault);
}
