// Attention by cuDNN (gpu_worker/kernels/cuda/attention_dnn.c) on a fake of it: what it takes, what is left to kernels of ours, code that
// lengths share; and what comes of failures, of convolutions too.

#include <string.h>

#include "tests/gpu_worker/kernels/cuda/dnn_world.h"

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

// Failures --------------------------------------------------------------------------------------------------------------------

// The call number `at` of making and running fails: our own kernels serve, or the error has a type; nothing is lost, and the next time all
// is well.
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
            // Every call with the first status, and every fifth with the others.
            uint64_t at = 1, step = s == 0 ? 1 : 5;
            while (refuse(world, &run[r], &expected, at, statuses[s]))
                at += step;
            assert_true(at > 60);
        }
    }
}

CASES(attention_of_prompts_is_our_own_kernels_result, attention_that_cudnn_does_not_take_is_ours,
      lengths_of_one_family_share_their_code, every_call_that_fails_gives_our_own_kernel_or_a_typed_error)
