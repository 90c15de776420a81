// Convolutions by cuDNN, and plans of all kinds (gpu_worker/kernels/cuda/dnn_graph.c, conv_dnn.c), on a fake of it: what it is told, the
// choice of an engine, plans kept and evicted. Results are compared with our own kernels', which are compared with PyTorch's elsewhere.

#include <string.h>

#include "tests/gpu_worker/kernels/cuda/dnn_world.h"

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
      a_plan_is_made_once_a_shape, the_plan_used_longest_ago_makes_room,
      a_step_whose_plan_is_gone_makes_it_again_but_not_while_capturing, equal_calls_have_equal_keys_and_other_addresses_others,
      what_decides_bits_is_in_the_numerics_class, a_cache_without_memory_is_a_typed_error)
