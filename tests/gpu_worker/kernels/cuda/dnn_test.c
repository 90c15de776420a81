// Convolutions and attention by cuDNN (gpu_worker/kernels/cuda/dnn_graph.c, conv_dnn.c, attention_dnn.c) on a fake of it: what it is told, what is left to kernels of
// ours, the choice of an engine, plans, failures. Results are compared with our own kernels', which are compared with PyTorch's elsewhere.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/libraries.h"
#include "gpu_worker/kernels/half.h"
#include "tests/lib/case.h"
#include "tests/lib/cuda/emulator.h"
#include "tests/lib/cuda/fake_cudnn.h"

enum { WORKSPACE_BYTES = 1 << 20, ALIGNMENT = 256, TENSORS_MAX = 6 };

struct world {
    struct cuda_libraries libraries;
    struct cuda_program program;
    struct arena *arena;
    struct fault fault;
    uint32_t evictions;
};

static void world_end(void *object)
{
    struct world *world = object;
    alloc_fail_stop();
    cuda_program_free(&world->program);
    dnn_cache_free(world->libraries.plans, world->libraries.dnn);
    fake_cudnn_api()->cudnnDestroy(world->libraries.dnn_handle);
    assert_int_equal(fake_cudnn.live, 0);
    fake_cudnn_reset();
    free(world->libraries.workspace);
    free(world);
}

static void evicting(void *self)
{
    struct world *world = self;
    world->evictions++;
}

static struct world *world_make(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    ops_init();
    fake_cudnn_reset();
    world->arena = case_arena(state);
    world->libraries = (struct cuda_libraries){.processors = 132,
                                               .capability = 90,
                                               .dnn = fake_cudnn_api(),
                                               .workspace = malloc(WORKSPACE_BYTES),
                                               .workspace_bytes = WORKSPACE_BYTES,
                                               .evicting = evicting,
                                               .evicting_self = world};
    assert_int_equal(world->libraries.dnn->cudnnCreate(&world->libraries.dnn_handle), 0);
    assert_ok(dnn_cache_make(&world->libraries.plans));
    fake_cudnn.calls = 0;
    case_later(state, world_end, world);
    return world;
}

// A call of an op, its tensors in the arena.
struct run {
    struct tensor in[TENSORS_MAX], out[2];
    struct attr attr[8];
    struct kernel_call call;
    uint32_t calls, launches;    // steps of the program
    enum dj_error error;
};

static double number_at(const struct tensor *tensor, int64_t at)
{
    switch (tensor->meta.dtype) {
    case DTYPE_F16: return half_to_float(((const uint16_t *)tensor->data)[at]);
    case DTYPE_BF16: return brain_to_float(((const uint16_t *)tensor->data)[at]);
    default: return ((const float *)tensor->data)[at];
    }
}

static void number_put(const struct tensor *tensor, int64_t at, double x)
{
    switch (tensor->meta.dtype) {
    case DTYPE_F16: ((uint16_t *)tensor->data)[at] = half_from_float((float)x); return;
    case DTYPE_BF16: ((uint16_t *)tensor->data)[at] = brain_from_float((float)x); return;
    default: ((float *)tensor->data)[at] = (float)x;
    }
}

static int64_t span(const struct tensor_meta *meta)
{
    int64_t last = 0;
    for (uint32_t d = 0; d < meta->rank; d++)
        last += (meta->size[d] - 1) * meta->stride[d];
    return last + 1;
}

// Memory for the tensor's strides, filled with small numbers; `shift` elements from an aligned address.
static void fill(struct world *world, struct tensor *tensor, int64_t shift)
{
    struct prng prng = prng_make((uint64_t)(tensor->meta.size[0] * 1000 + tensor->meta.size[1] * 10 + tensor->meta.stride[0]));
    uintptr_t bytes = (uintptr_t)(span(&tensor->meta) + shift) * dtype_bytes(tensor->meta.dtype);
    uint8_t *memory = arena_zero(world->arena, bytes + ALIGNMENT);
    assert_non_null(memory);
    tensor->data = memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT +
                   (uintptr_t)shift * dtype_bytes(tensor->meta.dtype);
    for (int64_t i = 0; i < span(&tensor->meta); i++)
        number_put(tensor, i, ((double)prng_between(&prng, 0, 16) - 8) / 8);
}

static struct tensor dense(struct world *world, enum dtype dtype, uint32_t rank, const int64_t *size)
{
    struct tensor tensor = {.meta = {.dtype = dtype, .rank = rank}};
    int64_t stride = 1;
    for (uint32_t d = rank; d-- > 0;) {
        tensor.meta.size[d] = size[d];
        tensor.meta.stride[d] = stride;
        stride *= size[d];
    }
    fill(world, &tensor, 0);
    return tensor;
}

static void emit(struct world *world, struct run *run, bool by_library)
{
    const struct cuda_entry *entry = &kernels_cuda()->entry[run->call.op->number];
    run->calls = run->launches = 0;
    run->error = DJ_OK;
    cuda_program_reset(&world->program);
    world->program.libraries = by_library ? &world->libraries : NULL;
    assert_true(entry->can(&run->call));
    size_t scratch = entry->scratch == NULL ? 0 : entry->scratch(&run->call);
    run->call.scratch = scratch == 0 ? NULL : arena_zero(world->arena, scratch);
    assert_ok(entry->emit(&run->call, &world->program));
    assert_ok(world->program.error);
    for (uint32_t i = 0; i < world->program.steps; i++) {
        run->calls += world->program.step[i].function == CUDA_FUNCTION_NONE;
        run->launches += world->program.step[i].function != CUDA_FUNCTION_NONE;
    }
}

static void run_steps(struct world *world, struct run *run)
{
    const struct cuda_program *program = &world->program;
    unsigned long long fault_word = 0;
    for (uint32_t i = 0; i < program->steps && run->error == DJ_OK; i++) {
        const struct cuda_step *step = &program->step[i];
        if (step->function == CUDA_FUNCTION_NONE) {
            run->error = step->call(program->context + step->args_offset, program->libraries, NULL, &world->fault);
            continue;
        }
        struct emulator_launch launch = {.grid = {step->grid_x, step->grid_y, step->grid_z},
                                         .block = step->block,
                                         .shared_bytes = step->shared_bytes,
                                         .args = program->args + step->args_offset,
                                         .fault = &fault_word};
        emulator_run(emulator_find(step->function), &launch, 1);
    }
}

static void blank(const struct run *run)
{
    for (uint32_t i = 0; i < run->call.n_out; i++)
        memset(run->out[i].data, 0x7b, (size_t)span(&run->out[i].meta) * dtype_bytes(run->out[i].meta.dtype));
}

// What our own kernels make of it, as floats: both outputs one after the other.
struct expected {
    double *number;
    int64_t count[2];
};

static struct expected expect(struct world *world, struct run *run)
{
    struct expected ret = {.count = {0}};
    blank(run);
    emit(world, run, false);
    assert_int_equal(run->calls, 0);
    run_steps(world, run);
    assert_ok(run->error);
    for (uint32_t i = 0; i < run->call.n_out; i++)
        ret.count[i] = span(&run->out[i].meta);
    ret.number = arena_zero(world->arena, (size_t)(ret.count[0] + ret.count[1]) * sizeof(double));
    assert_non_null(ret.number);
    for (uint32_t i = 0; i < run->call.n_out; i++)
        for (int64_t k = 0; k < ret.count[i]; k++)
            ret.number[(i == 0 ? 0 : ret.count[0]) + k] = number_at(&run->out[i], k);
    return ret;
}

static void assert_expected(const struct run *run, const struct expected *expected)
{
    double tolerance = run->in[0].meta.dtype == DTYPE_F16 ? 2e-3 : run->in[0].meta.dtype == DTYPE_BF16 ? 1.6e-2 : 1e-5;
    for (uint32_t i = 0; i < run->call.n_out; i++)
        for (int64_t k = 0; k < expected->count[i]; k++) {
            double theirs = number_at(&run->out[i], k), ours = expected->number[(i == 0 ? 0 : expected->count[0]) + k];
            if (theirs != ours && !(fabs(theirs - ours) <= tolerance * (1 + fabs(ours))))
                fail_msg("output %u, element %lld: %.9g by cuDNN, %.9g by us", i, (long long)k, theirs, ours);
        }
}

// By the library, in `calls` calls and `launches` of our own kernels, and as our kernels compute it.
static void check(struct world *world, struct run *run, uint32_t calls, uint32_t launches)
{
    struct expected expected = expect(world, run);
    blank(run);
    emit(world, run, true);
    assert_int_equal(run->calls, calls);
    assert_int_equal(run->launches, launches);
    run_steps(world, run);
    if (run->error != DJ_OK)
        fail_msg("%s", world->fault.text);
    assert_expected(run, &expected);
}

// Convolutions ------------------------------------------------------------------------------------------------------------------

struct window {
    int64_t images, channels, outputs, groups, height, width, kernel, stride, padding, dilation;
    bool has_bias, is_channels_last;
};

static const struct window windows[] = {
    {.images = 2,
     .channels = 4,
     .outputs = 6,
     .groups = 1,
     .height = 7,
     .width = 9,
     .kernel = 3,
     .stride = 1,
     .padding = 1,
     .dilation = 1},
    {.images = 1,
     .channels = 6,
     .outputs = 4,
     .groups = 2,
     .height = 8,
     .width = 5,
     .kernel = 3,
     .stride = 2,
     .padding = 2,
     .dilation = 2,
     .has_bias = true},
    {.images = 3,
     .channels = 5,
     .outputs = 5,
     .groups = 5,
     .height = 6,
     .width = 6,
     .kernel = 2,
     .stride = 2,
     .padding = 0,
     .dilation = 1,
     .is_channels_last = true},
    {.images = 1,
     .channels = 3,
     .outputs = 2,
     .groups = 1,
     .height = 5,
     .width = 5,
     .kernel = 1,
     .stride = 1,
     .padding = 0,
     .dilation = 1,
     .has_bias = true},
};
enum { WINDOWS = sizeof windows / sizeof windows[0] };

static struct tensor plane(struct world *world, enum dtype dtype, const int64_t size[4], bool is_channels_last)
{
    struct tensor tensor = dense(world, dtype, 4, size);
    const int64_t last[4] = {size[1] * size[2] * size[3], 1, size[3] * size[1], size[1]};
    if (is_channels_last)
        memcpy(tensor.meta.stride, last, sizeof last);
    return tensor;
}

static void convolution(struct world *world, enum op op, enum dtype dtype, const struct window *w, struct run *run)
{
    int64_t reach = w->dilation * (w->kernel - 1) + 1, rows = (w->height + 2 * w->padding - reach) / w->stride + 1,
            columns = (w->width + 2 * w->padding - reach) / w->stride + 1;
    const int64_t xs[] = {w->images, w->channels, w->height, w->width}, ys[] = {w->images, w->outputs, rows, columns},
                  ws[] = {w->outputs, w->channels / w->groups, w->kernel, w->kernel}, bs[] = {w->outputs};
    struct tensor x = plane(world, dtype, xs, w->is_channels_last), y = plane(world, dtype, ys, w->is_channels_last),
                  weight = dense(world, dtype, 4, ws), bias = {.meta = {.dtype = DTYPE_NONE}};
    const int64_t numbers[3] = {w->stride, w->padding, w->dilation};

    memset(run, 0, sizeof *run);
    if (op == OP_CONVOLUTION && w->has_bias)
        bias = dense(world, dtype, 1, bs);
    run->in[0] = op == OP_CONVOLUTION ? x : y;
    run->in[1] = op == OP_CONVOLUTION ? weight : x;
    run->in[2] = op == OP_CONVOLUTION ? bias : weight;
    run->out[0] = op == OP_CONVOLUTION ? y : op == OP_CONVOLUTION_BACKWARD_INPUT ? x : weight;
    if (op != OP_CONVOLUTION)
        fill(world, &run->out[0], 0);    // not the memory of an input
    for (int i = 0; i < 3; i++) {
        int64_t *pair = arena_zero(world->arena, 2 * sizeof *pair);
        assert_non_null(pair);
        pair[0] = pair[1] = numbers[i];
        run->attr[i] = (struct attr){.kind = ATTR_INTS, .count = 2, .ints = pair};
    }
    run->attr[5] = (struct attr){.kind = ATTR_INT, .i = w->groups};
    run->call = (struct kernel_call){.op = op_info(op), .in = run->in, .n_in = 3, .out = run->out, .n_out = 1, .attr = run->attr};
}

static void convolutions_of_every_kind_and_dtype_are_our_own_kernels_results(void **state)
{
    static const enum op ops[] = {OP_CONVOLUTION, OP_CONVOLUTION_BACKWARD_INPUT, OP_CONVOLUTION_BACKWARD_WEIGHT};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    struct world *world = world_make(state);
    for (int k = 0; k < 3; k++)
        for (int d = 0; d < 3; d++)
            for (int w = 0; w < WINDOWS; w++) {
                struct run run;
                convolution(world, ops[k], dtypes[d], &windows[w], &run);
                check(world, &run, 1, ops[k] == OP_CONVOLUTION && windows[w].has_bias);
            }
    assert_int_equal(fake_cudnn.executions, 9 * WINDOWS);
    assert_int_equal(dnn_cache_plans(world->libraries.plans), 9 * WINDOWS);
}

static void the_first_engine_that_keeps_our_promises_is_taken(void **state)
{
    struct world *world = world_make(state);
    struct run run;
    convolution(world, OP_CONVOLUTION, DTYPE_F16, &windows[0], &run);
    check(world, &run, 1, 0);
    assert_int_equal(fake_cudnn.last_engine, FAKE_CUDNN_TENSOR_CORES);
    convolution(world, OP_CONVOLUTION, DTYPE_F32, &windows[0], &run);
    check(world, &run, 1, 0);
    assert_int_equal(fake_cudnn.last_engine, FAKE_CUDNN_PLAIN);    // tensor cores would round fp32
    world->libraries.allows_tf32 = true;
    check(world, &run, 1, 0);
    assert_int_equal(fake_cudnn.last_engine, FAKE_CUDNN_TENSOR_CORES);
    fake_cudnn.lacks_first = true;
    convolution(world, OP_CONVOLUTION, DTYPE_F16, &windows[1], &run);
    check(world, &run, 1, 1);
    assert_int_equal(fake_cudnn.last_engine, FAKE_CUDNN_LAST);
    fake_cudnn.lacks_first = false;
    world->libraries.workspace_bytes = FAKE_CUDNN_WORKSPACE - 1;
    convolution(world, OP_CONVOLUTION, DTYPE_BF16, &windows[0], &run);
    check(world, &run, 1, 0);
    assert_int_equal(fake_cudnn.last_engine, FAKE_CUDNN_PLAIN);
}

// Attention -----------------------------------------------------------------------------------------------------------------

enum layout { BY_HEAD, BY_ROW, IN_ONE };    // [b, h, rows, d]; [b, rows, h, d]; q, k and v in rows of [3, h, d]

struct attended {
    enum dtype dtype;
    int64_t batch, heads, queries, keys, depth, values;    // values 0: as depth
    bool is_causal, has_mask, is_without_lse;
    enum layout layout;
    double scale;    // 0: none said
    int64_t shift;
};

static struct tensor part(struct world *world, const struct attended *a, int64_t rows, int64_t depth, bool is_out)
{
    struct tensor tensor = {.meta = {.dtype = a->dtype, .rank = 4, .size = {a->batch, a->heads, rows, depth}}};
    int64_t row = a->heads * depth * (a->layout == IN_ONE && !is_out ? 3 : 1);
    const int64_t by_head[] = {a->heads * rows * depth, rows * depth, depth, 1}, by_row[] = {rows * row, depth, row, 1};
    memcpy(tensor.meta.stride, a->layout == BY_HEAD ? by_head : by_row, sizeof by_row);
    fill(world, &tensor, is_out ? 0 : a->shift);
    return tensor;
}

static void attention(struct world *world, const struct attended *a, struct run *run)
{
    const int64_t lse[] = {a->batch, a->heads, a->queries}, mask[] = {a->queries, a->keys};
    int64_t values = a->values == 0 ? a->depth : a->values;

    memset(run, 0, sizeof *run);
    run->in[0] = part(world, a, a->queries, a->depth, false);
    run->in[1] = part(world, a, a->keys, a->depth, false);
    run->in[2] = part(world, a, a->keys, values, false);
    run->in[3].meta.dtype = DTYPE_NONE;
    if (a->has_mask)
        run->in[3] = dense(world, a->dtype, 2, mask);
    run->out[0] = part(world, a, a->queries, values, true);
    run->out[1] = dense(world, DTYPE_F32, 3, lse);
    run->attr[0] = (struct attr){.kind = ATTR_BOOL, .i = a->is_causal};
    if (a->scale != 0)
        run->attr[1] = (struct attr){.kind = ATTR_FLOAT, .f = a->scale};
    run->call = (struct kernel_call){.op = op_info(OP_SDPA), .in = run->in, .n_in = 4, .out = run->out, .attr = run->attr};
    run->call.n_out = a->is_without_lse ? 1 : 2;
}

static void attention_of_prompts_is_our_own_kernels_result(void **state)
{
    static const struct attended shapes[] = {
        {.batch = 1, .heads = 2, .queries = 64, .keys = 64, .depth = 16},
        {.batch = 2, .heads = 3, .queries = 70, .keys = 70, .depth = 8, .layout = BY_ROW, .scale = 0.5},
        {.batch = 2, .heads = 2, .queries = 65, .keys = 33, .depth = 24, .layout = IN_ONE},
        {.batch = 1, .heads = 1, .queries = 64, .keys = 100, .depth = 16, .values = 32, .is_without_lse = true},
        {.batch = 1, .heads = 1, .queries = 64, .keys = 1, .depth = 128},
    };
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};
    struct world *world = world_make(state);
    for (int d = 0; d < 2; d++)
        for (int causal = 0; causal < 2; causal++)
            for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
                struct attended a = shapes[s];
                struct run run;
                a.dtype = dtypes[d];
                a.is_causal = causal;
                attention(world, &a, &run);
                check(world, &run, 1, 0);
                assert_int_equal(fake_cudnn.last_engine, FAKE_CUDNN_TENSOR_CORES);
            }
}

static void attention_that_cudnn_does_not_take_is_ours(void **state)
{
    static const struct attended usual = {.dtype = DTYPE_F16, .batch = 1, .heads = 2, .queries = 64, .keys = 64, .depth = 16};
    struct world *world = world_make(state);
    struct attended others[8];
    struct run run;
    for (int i = 0; i < 8; i++)
        others[i] = usual;
    others[0].dtype = DTYPE_F32;
    others[1].has_mask = true;
    others[2].queries = 63;
    others[3].depth = 20;
    others[4].depth = 136;
    others[5].values = 12;
    others[6].shift = 4;    // 8 bytes off
    others[7].keys = 0;
    for (int i = 0; i < 8; i++) {
        attention(world, &others[i], &run);
        check(world, &run, 0, 1);
    }
    attention(world, &usual, &run);
    run.in[1].meta.stride[1] = 0;    // one head's keys for all
    check(world, &run, 0, 1);
    fake_cudnn.version = 91801;
    attention(world, &usual, &run);
    check(world, &run, 0, 1);
    assert_int_equal(fake_cudnn.calls, 0);    // it was not even asked
    fake_cudnn.version = 0;
    fake_cudnn.finds_nothing = true;
    check(world, &run, 0, 1);
    uint64_t calls = fake_cudnn.calls;
    check(world, &run, 0, 1);
    assert_int_equal(fake_cudnn.calls, calls);    // that there is none is kept too
}

static void lengths_of_one_family_share_their_code(void **state)
{
    struct attended a = {.dtype = DTYPE_F16, .batch = 1, .heads = 2, .queries = 64, .keys = 64, .depth = 16};
    struct world *world = world_make(state);
    struct run run;
    for (int64_t more = 0; more < 3; more++) {
        a.queries = a.keys = 64 + more;
        attention(world, &a, &run);
        check(world, &run, 1, 0);
    }
    assert_int_equal(fake_cudnn.plans, 3);
    assert_int_equal(fake_cudnn.compiled, 1);
    a.depth = 24;
    attention(world, &a, &run);
    check(world, &run, 1, 0);
    a.dtype = DTYPE_BF16;
    attention(world, &a, &run);
    check(world, &run, 1, 0);
    a.is_causal = true;
    attention(world, &a, &run);
    check(world, &run, 1, 0);
    a.heads = 4;
    attention(world, &a, &run);
    check(world, &run, 1, 0);
    assert_int_equal(fake_cudnn.compiled, 5);
}

// Plans ---------------------------------------------------------------------------------------------------------------------------

static struct window window_of(int64_t width)
{
    struct window w = windows[3];
    w.has_bias = false;
    w.width = width;
    return w;
}

static void emit_width(struct world *world, int64_t width, struct run *run)
{
    struct window w = window_of(width);
    convolution(world, OP_CONVOLUTION, DTYPE_F32, &w, run);
    emit(world, run, true);
    assert_int_equal(run->calls, 1);
}

static void a_plan_is_made_once_a_shape(void **state)
{
    struct world *world = world_make(state);
    struct run run;
    emit_width(world, 5, &run);
    uint64_t calls = fake_cudnn.calls;
    emit_width(world, 5, &run);
    assert_int_equal(fake_cudnn.calls, calls);
    emit_width(world, 6, &run);
    assert_int_equal(fake_cudnn.plans, 2);
    world->libraries.allows_tf32 = true;
    emit_width(world, 6, &run);
    assert_int_equal(fake_cudnn.plans, 3);
}

static void the_plan_used_longest_ago_makes_room(void **state)
{
    struct world *world = world_make(state);
    struct run run;
    for (int64_t width = 1; width <= DNN_PLANS_MAX; width++)
        emit_width(world, width, &run);
    emit_width(world, 1, &run);
    assert_int_equal(fake_cudnn.plans, DNN_PLANS_MAX);
    assert_int_equal(world->evictions, 0);
    int64_t live = fake_cudnn.live;
    emit_width(world, DNN_PLANS_MAX + 1, &run);    // in the place of 2
    assert_int_equal(world->evictions, 1);
    assert_int_equal(fake_cudnn.live, live);
    emit_width(world, 1, &run);
    assert_int_equal(fake_cudnn.plans, DNN_PLANS_MAX + 1);
    emit_width(world, 2, &run);
    assert_int_equal(fake_cudnn.plans, DNN_PLANS_MAX + 2);
    assert_int_equal(world->evictions, 2);
    assert_int_equal(dnn_cache_plans(world->libraries.plans), DNN_PLANS_MAX);
}

static void a_step_whose_plan_is_gone_makes_it_again_but_not_while_capturing(void **state)
{
    struct world *world = world_make(state);
    struct run run;
    struct window w = window_of(5);
    convolution(world, OP_CONVOLUTION, DTYPE_F32, &w, &run);
    struct expected expected = expect(world, &run);
    emit(world, &run, true);
    dnn_cache_free(world->libraries.plans, world->libraries.dnn);
    world->libraries.plans = NULL;
    assert_ok(dnn_cache_make(&world->libraries.plans));
    world->libraries.is_capturing = true;
    run_steps(world, &run);
    assert_error(DJ_E_DEVICE, run.error);
    assert_non_null(strstr(world->fault.text, "make a plan while a graph is captured"));
    world->libraries.is_capturing = false;
    run.error = DJ_OK;
    blank(&run);
    run_steps(world, &run);
    assert_ok(run.error);
    assert_expected(&run, &expected);
    assert_int_equal(fake_cudnn.plans, 2);
}

// The call number `at` of making and running fails: our own kernels serve, or the error has a type; nothing is lost, and the next time all is well.
static bool refuse(struct world *world, struct run *run, const struct expected *expected, uint64_t at, int status)
{
    dnn_cache_free(world->libraries.plans, world->libraries.dnn);
    world->libraries.plans = NULL;
    assert_ok(dnn_cache_make(&world->libraries.plans));
    fake_cudnn.calls = 0;
    fake_cudnn.fail_at = at;
    fake_cudnn.fail_status = status;
    blank(run);
    emit(world, run, true);
    run_steps(world, run);
    bool has_failed = fake_cudnn.calls >= at;
    if (run->error == DJ_OK)
        assert_expected(run, expected);
    else
        assert_error(status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ? DJ_E_DEVICE_MEMORY : DJ_E_DEVICE, run->error);
    // Memory that ran out for a moment does not decide what kernels serve.
    if (status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED)
        assert_int_equal(run->calls, 1);
    fake_cudnn.fail_at = 0;
    blank(run);
    emit(world, run, true);
    run_steps(world, run);
    assert_ok(run->error);
    assert_expected(run, expected);
    return has_failed;
}

static void every_call_that_fails_gives_our_own_kernel_or_a_typed_error(void **state)
{
    static const int statuses[] = {CUDNN_STATUS_NOT_SUPPORTED, CUDNN_STATUS_INTERNAL_ERROR,
                                   CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, CUDNN_STATUS_EXECUTION_FAILED};
    struct world *world = world_make(state);
    struct attended a = {.dtype = DTYPE_F16, .batch = 1, .heads = 1, .queries = 64, .keys = 8, .depth = 8, .is_causal = true};
    struct run run[2];
    convolution(world, OP_CONVOLUTION, DTYPE_F16, &windows[3], &run[0]);
    attention(world, &a, &run[1]);
    for (int r = 0; r < 2; r++) {
        struct expected expected = expect(world, &run[r]);
        for (size_t s = 0; s < sizeof statuses / sizeof statuses[0]; s++) {
            uint64_t at = 1;
            while (refuse(world, &run[r], &expected, at, statuses[s]))
                at++;
            assert_true(at > 60);
        }
    }
}

static void equal_calls_have_equal_keys_and_other_addresses_others(void **state)
{
    struct world *world = world_make(state);
    struct run run;
    emit_width(world, 5, &run);
    struct hash128 first = cuda_program_key(&world->program);
    emit(world, &run, true);
    assert_true(hash128_equal(first, cuda_program_key(&world->program)));
    emit_width(world, 5, &run);
    assert_false(hash128_equal(first, cuda_program_key(&world->program)));
}

static void what_decides_bits_is_in_the_numerics_class(void **state)
{
    struct world *world = world_make(state);
    uint64_t class = dnn_numerics(&world->libraries);
    assert_int_equal(class, dnn_numerics(&world->libraries));
    fake_cudnn.version = FAKE_CUDNN_VERSION + 1;
    assert_int_not_equal(class, dnn_numerics(&world->libraries));
    fake_cudnn.version = 0;
    world->libraries.workspace_bytes /= 2;
    assert_int_not_equal(class, dnn_numerics(&world->libraries));
    world->libraries.dnn = NULL;
    assert_int_equal(dnn_numerics(&world->libraries), 0);
    world->libraries.dnn = fake_cudnn_api();
}

static void a_cache_without_memory_is_a_typed_error(void **state)
{
    struct dnn_cache *cache = NULL;
    (void)state;
    alloc_fail_after(0);
    enum dj_error error = dnn_cache_make(&cache);
    assert_true(alloc_fail_stop());
    assert_error(DJ_E_NO_MEMORY, error);
    assert_null(cache);
    dnn_cache_free(NULL, NULL);
}

CASES(convolutions_of_every_kind_and_dtype_are_our_own_kernels_results, the_first_engine_that_keeps_our_promises_is_taken,
      attention_of_prompts_is_our_own_kernels_result, attention_that_cudnn_does_not_take_is_ours,
      lengths_of_one_family_share_their_code, a_plan_is_made_once_a_shape, the_plan_used_longest_ago_makes_room,
      a_step_whose_plan_is_gone_makes_it_again_but_not_while_capturing,
      every_call_that_fails_gives_our_own_kernel_or_a_typed_error, equal_calls_have_equal_keys_and_other_addresses_others,
      what_decides_bits_is_in_the_numerics_class, a_cache_without_memory_is_a_typed_error)
