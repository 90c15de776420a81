// Dnn world: see dnn_world.h.

#include "tests/gpu_worker/kernels/cuda/dnn_world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/kernels/half.h"
#include "tests/lib/cuda/steps.h"

enum { WORKSPACE_BYTES = 1 << 20, ALIGNMENT = 256 };

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

struct world *world_make(void **state)
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

void emit(struct world *world, struct run *run, bool by_library)
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

void run_steps(struct world *world, struct run *run)
{
    struct cuda_report report = {0};
    if (run->error == DJ_OK)
        run->error = steps_run(&world->program, 1, &report, &world->fault);
}

void blank(const struct run *run)
{
    for (uint32_t i = 0; i < run->call.n_out; i++)
        memset(run->out[i].data, 0x7b, (size_t)span(&run->out[i].meta) * dtype_bytes(run->out[i].meta.dtype));
}

struct expected expect(struct world *world, struct run *run)
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

void assert_expected(const struct run *run, const struct expected *expected)
{
    double tolerance = run->in[0].meta.dtype == DTYPE_F16 ? 2e-3 : run->in[0].meta.dtype == DTYPE_BF16 ? 1.6e-2 : 1e-5;
    for (uint32_t i = 0; i < run->call.n_out; i++)
        for (int64_t k = 0; k < expected->count[i]; k++) {
            double theirs = number_at(&run->out[i], k), ours = expected->number[(i == 0 ? 0 : expected->count[0]) + k];
            if (theirs != ours && !(fabs(theirs - ours) <= tolerance * (1 + fabs(ours))))
                fail_msg("output %u, element %lld: %.9g by cuDNN, %.9g by us", i, (long long)k, theirs, ours);
        }
}

void check(struct world *world, struct run *run, uint32_t calls, uint32_t launches)
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

const struct window windows[WINDOWS] = {
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
static struct tensor plane(struct world *world, enum dtype dtype, const int64_t size[4], bool is_channels_last)
{
    struct tensor tensor = dense(world, dtype, 4, size);
    const int64_t last[4] = {size[1] * size[2] * size[3], 1, size[3] * size[1], size[1]};
    if (is_channels_last)
        memcpy(tensor.meta.stride, last, sizeof last);
    return tensor;
}

void convolution(struct world *world, enum op op, enum dtype dtype, const struct window *w, struct run *run)
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

static struct tensor part(struct world *world, const struct attended *a, int64_t rows, int64_t depth, bool is_out)
{
    struct tensor tensor = {.meta = {.dtype = a->dtype, .rank = 4, .size = {a->batch, a->heads, rows, depth}}};
    int64_t row = a->heads * depth * (a->layout == IN_ONE && !is_out ? 3 : 1);
    const int64_t by_head[] = {a->heads * rows * depth, rows * depth, depth, 1}, by_row[] = {rows * row, depth, row, 1};
    memcpy(tensor.meta.stride, a->layout == BY_HEAD ? by_head : by_row, sizeof by_row);
    fill(world, &tensor, is_out ? 0 : a->shift);
    return tensor;
}

void attention(struct world *world, const struct attended *a, struct run *run)
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
