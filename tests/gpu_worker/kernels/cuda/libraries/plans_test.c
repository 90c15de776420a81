// Our graphs before the real cuDNN, and our descriptors before the real cuBLASLt, without a GPU. cuDNN makes plans for a GPU that is not
// there when it is told its properties ("deviceless ahead-of-time compilation"): graphs are judged, the heuristics name engines, and plans
// are made, with code generated and compiled where the engine does so. Nothing is run.
//
// kernels/cuda/dnn_graph.c works as it does on a GPU. Only what would be told of a handle is told of the properties, in the table of
// functions.
//
// cuBLASLt makes no handle without a GPU, so there only descriptors are judged; the heuristic is not asked.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/device/cuda/load.h"
#include "gpu_worker/kernels/cuda/attention_dnn.h"
#include "gpu_worker/kernels/cuda/conv_dnn.h"
#include "gpu_worker/kernels/cuda/dnn_graph.h"
#include "gpu_worker/kernels/cuda/matmul_blas.h"
#include "tests/lib/case.h"

enum {
    DEVICEPROP_DESCRIPTOR = 38,
    ATTR_HEURISTICS_DEVICEPROP = 204,
    ATTR_PLAN_DEVICEPROP = 407,
    ATTR_DEVICEPROP_JSON = 2702,
    TYPE_CHAR = 24,
    WORKSPACE_BYTES = 64 << 20,
    FAKE_ADDRESS = 1 << 20,
};

// An H200, as its properties are written out.
static const char h200[] = "{\"deviceName\": \"NVIDIA H200\", \"deviceVer\": 900, \"driverVer\": 13000, \"cudaDeviceId\": 0, "
                           "\"pciDeviceId\": 1, \"isTccDriver\": 0, \"supportCoopLaunch\": 1, \"multiProcessorCount\": 132, "
                           "\"warpSize\": 32, \"maxGridSize\": [2147483647, 65535, 65535], \"maxBlockSize\": [1024, 1024, 64], "
                           "\"regsPerBlock\": 65536, \"maxSharedMemoryPerBlock\": 49152, "
                           "\"maxSharedMemoryPerBlockOptin\": 232448, \"reservedSharedMemoryPerBlock\": 1024, "
                           "\"maxRegistersPerSM\": 65536, \"maxCtasPerSM\": 32, \"maxThreadsPerBlock\": 1024, "
                           "\"maxThreadsPerSM\": 2048, \"totalGlobalMem\": 150754820096, \"smClockRateKHz\": 1980000, "
                           "\"memClockRateKHz\": 3201000, \"l2CacheSize\": 62914560}";

static struct cuda_load load;
static struct cudnn_api deviceless;
static void *properties;
static uint64_t plans_made;
static char first_refusal[1024];

static void note_refusal(int code, const char *what)
{
    char text[768] = "";
    if (code == 0 || first_refusal[0] != '\0')
        return;
    load.dnn.cudnnGetLastErrorString(text, sizeof text);
    snprintf(first_refusal, sizeof first_refusal, "%s: status %d %s", what, code, text);
}

static int set_attribute(void *object, int name, int type, int64_t count, const void *values)
{
    if (name == CUDNN_ATTR_OPERATIONGRAPH_HANDLE && type == CUDNN_TYPE_HANDLE)
        return 0;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_HANDLE && type == CUDNN_TYPE_HANDLE)
        return load.dnn.cudnnBackendSetAttribute(object, ATTR_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &properties);
    int code = 0;
    if (name == CUDNN_ATTR_ENGINEHEUR_MODE)
        code = load.dnn.cudnnBackendSetAttribute(object, ATTR_HEURISTICS_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                                 &properties);
    if (code == 0)
        code = load.dnn.cudnnBackendSetAttribute(object, name, type, count, values);
    note_refusal(code, "an attribute");
    return code;
}

static int finalize(void *object)
{
    int code = load.dnn.cudnnBackendFinalize(object);
    note_refusal(code, "finalizing");
    return code;
}

static int get_attribute(void *object, int name, int type, int64_t room, int64_t *ret_count, void *ret)
{
    int code = load.dnn.cudnnBackendGetAttribute(object, name, type, room, ret_count, ret);
    plans_made += code == 0 && name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE;
    return code;
}

struct world {
    struct cuda_libraries libraries;
    struct cuda_program program;
};

static void world_end(void *object)
{
    struct world *world = object;
    cuda_program_free(&world->program);
    dnn_cache_free(world->libraries.plans, &deviceless);
    free(world);
}

static void open_libraries(void)
{
    struct fault fault;
    if (load.parts > 0)
        return;
    // What it says of the GPU is no matter here.
    enum dj_error error = cuda_load(&load, &fault);
    print_message("%s\n", error == DJ_OK ? "there is a GPU" : fault.text);
    for (uint32_t i = 0; i < load.parts; i++)
        print_message("%s %u: %s %s\n", load.part[i].name, load.part[i].version, load.part[i].path, load.part[i].fault.text);
}

static struct world *world_make(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    case_later(state, world_end, world);
    open_libraries();
    assert_true(load.has_dnn);
    if (properties == NULL) {
        deviceless = load.dnn;
        deviceless.cudnnBackendSetAttribute = set_attribute;
        deviceless.cudnnBackendGetAttribute = get_attribute;
        deviceless.cudnnBackendFinalize = finalize;
        assert_int_equal(load.dnn.cudnnBackendCreateDescriptor(DEVICEPROP_DESCRIPTOR, &properties), 0);
        assert_int_equal(load.dnn.cudnnBackendSetAttribute(properties, ATTR_DEVICEPROP_JSON, TYPE_CHAR, sizeof h200 - 1, h200),
                         0);
        assert_int_equal(load.dnn.cudnnBackendFinalize(properties), 0);
    }
    world->libraries = (struct cuda_libraries){
        .processors = 132, .capability = 90, .dnn = &deviceless, .dnn_handle = world, .workspace_bytes = WORKSPACE_BYTES};
    assert_ok(dnn_cache_make(&world->libraries.plans));
    world->program.libraries = &world->libraries;
    first_refusal[0] = '\0';
    plans_made = 0;
    return world;
}

static void *address(int n)
{
    return (void *)(uintptr_t)(FAKE_ADDRESS * n);
}

static void assert_serves(const struct world *world, bool serves)
{
    if (!serves || plans_made == 0)
        print_message("%s\n", first_refusal);
    assert_true(serves);
    assert_true(plans_made > 0);
    assert_int_equal(world->program.steps, 1);
    assert_int_equal(world->program.step[0].function, CUDA_FUNCTION_NONE);
}

// The second layers of ResNet-50: 64 channels of 56 x 56, a kernel of 3 x 3.
static struct conv_args conv(int64_t images)
{
    struct conv_args args = {.x = address(1), .weight = address(2), .y = address(3), .out = address(4), .slices = 1};
    args.images = images;
    args.groups = 1;
    args.channels = args.outputs = 64;
    args.in_h = args.in_w = args.out_h = args.out_w = 56;
    args.kernel_h = args.kernel_w = 3;
    args.stride_h = args.stride_w = args.pad_h = args.pad_w = args.step_h = args.step_w = 1;
    args.x_stride = args.y_stride = (struct conv_plane){.image = 64 * 56 * 56, .channel = 56 * 56, .row = 56, .column = 1};
    args.weight_stride = (struct conv_plane){.image = 64 * 9, .channel = 9, .row = 3, .column = 1};
    return args;
}

static void convolve(void **state, enum conv_kind kind)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    struct world *world = world_make(state);
    for (size_t i = 0; i < 3; i++) {
        struct conv_args args = conv(8);
        cuda_program_reset(&world->program);
        plans_made = 0;
        assert_serves(world, conv_dnn_emit(&world->program, kind, dtypes[i], &args));
    }
    assert_int_equal(dnn_cache_plans(world->libraries.plans), 3);
}

static void forward_convolutions_have_plans(void **state)
{
    convolve(state, CONV_FORWARD);
}
static void gradients_of_inputs_have_plans(void **state)
{
    convolve(state, CONV_INPUT);
}
static void gradients_of_weights_have_plans(void **state)
{
    convolve(state, CONV_WEIGHT);
}

// q, k and v as parts of one row of 3 * heads * depth elements, as models with one product for all three have them.
static struct attention_args attention(int64_t queries, int64_t keys, int64_t depth, bool is_causal)
{
    struct attention_args args = {.q = address(1), .k = address(2), .v = address(3), .out = address(4), .lse = address(5)};
    int64_t row = 3 * 12 * depth, part[] = {row * keys, depth, row, 1}, out[] = {12 * depth * queries, depth, 12 * depth, 1};
    memcpy(args.q_stride, part, sizeof part);
    memcpy(args.k_stride, part, sizeof part);
    memcpy(args.v_stride, part, sizeof part);
    memcpy(args.out_stride, out, sizeof out);
    args.lse_stride[0] = 12 * queries;
    args.lse_stride[1] = queries;
    args.lse_stride[2] = 1;
    args.heads = 12;
    args.queries = queries;
    args.keys = keys;
    args.depth = args.value_depth = depth;
    args.is_causal = is_causal;
    args.scale = 0.125f;
    return args;
}

static void attend(void **state, bool is_causal)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};
    static const int64_t shapes[][3] = {{64, 64, 64}, {197, 197, 64}, {128, 640, 64}, {512, 512, 128}};
    struct world *world = world_make(state);
    for (size_t i = 0; i < 2; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (int has_lse = 0; has_lse < 2; has_lse++) {
                struct attention_args args = attention(shapes[s][0], shapes[s][1], shapes[s][2], is_causal);
                if (!has_lse)
                    args.lse = NULL;
                cuda_program_reset(&world->program);
                plans_made = 0;
                assert_serves(world, attention_dnn_emit(&world->program, dtypes[i], 2, &args));
            }
}

static void attention_to_every_key_has_plans(void **state)
{
    attend(state, false);
}
static void causal_attention_has_plans(void **state)
{
    attend(state, true);
}

// Descriptors of products ---------------------------------------------------------------------------------------------------

static uint64_t asked;

static int ask_nobody(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted,
                      struct cublaslt_heuristic *ret, int *ret_count)
{
    (void)handle, (void)wanted, (void)ret;
    assert_true(desc != NULL && a != NULL && b != NULL && c != NULL && d != NULL && preference != NULL);
    asked++;
    *ret_count = 0;
    return CUBLAS_OK;
}

static void products_of_every_dtype_have_descriptors(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64};
    struct cuda_program program = {0};
    (void)state;
    open_libraries();
    assert_true(load.has_blas);
    struct cublaslt_api blas = load.blas;
    blas.cublasLtMatmulAlgoGetHeuristic = ask_nobody;
    struct cuda_libraries libraries = {.blas = &blas, .blas_handle = &blas, .workspace_bytes = WORKSPACE_BYTES};
    assert_ok(matmul_cache_make(&libraries.matmuls));
    program.libraries = &libraries;
    asked = 0;
    for (uint32_t i = 0; i < 4; i++)
        for (int64_t batch = 1; batch <= 4; batch += 3)
            for (int has_bias = 0; has_bias < 2; has_bias++) {
                struct matmul_args args = {
                    .a = address(1), .b = address(2), .out = address(3), .batch = batch, .m = 64, .n = 32, .k = 128};
                args.a_m = 128;
                args.a_k = args.b_n = args.out_n = args.add_n = 1;
                args.b_k = args.out_m = 32;
                args.a_batch = 64 * 128;
                args.b_batch = 128 * 32;
                args.out_batch = 64 * 32;
                args.alpha = args.beta = 1;
                args.add = has_bias ? address(4) : NULL;
                // No algorithm was found, so our own kernel serves; but the question was asked.
                assert_false(matmul_blas_emit(&program, dtypes[i], &args));
            }
    assert_int_equal(asked, 16);
    matmul_cache_free(libraries.matmuls, &blas);
    cuda_program_free(&program);
}

CASES(forward_convolutions_have_plans, gradients_of_inputs_have_plans, gradients_of_weights_have_plans,
      attention_to_every_key_has_plans, causal_attention_has_plans, products_of_every_dtype_have_descriptors)
