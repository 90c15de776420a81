// Matrix products by cuBLASLt (gpu_worker/kernels/cuda/matmul_blas.c) on a fake of it: what it is told, what is left to kernels of
// ours, the cache, failures. Results are compared with the plain sum; numbers are multiples of 1/8, so short sums are exact in any order.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/libraries.h"
#include "gpu_worker/kernels/half.h"
#include "tests/lib/case.h"
#include "tests/lib/cuda/steps.h"
#include "tests/lib/cuda/fake_cublaslt.h"

enum { WORKSPACE_BYTES = 1 << 20, ROWS = 17, COLUMNS = 12, DEPTH = 40 };

struct world {
    struct cuda_libraries libraries;
    struct cuda_program program;
    struct arena *arena;
    struct fault fault;
};

static void world_end(void *object)
{
    struct world *world = object;
    alloc_fail_stop();
    cuda_program_free(&world->program);
    matmul_cache_free(world->libraries.matmuls, world->libraries.blas);
    fake_cublaslt_api()->cublasLtDestroy(world->libraries.blas_handle);
    free(world->libraries.workspace);
    free(world);
}

static struct world *world_make(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    ops_init();
    fake_cublaslt_reset();
    world->arena = case_arena(state);
    world->libraries = (struct cuda_libraries){.processors = 132,
                                               .capability = 90,
                                               .blas = fake_cublaslt_api(),
                                               .workspace = malloc(WORKSPACE_BYTES),
                                               .workspace_bytes = WORKSPACE_BYTES};
    assert_int_equal(world->libraries.blas->cublasLtCreate(&world->libraries.blas_handle), CUBLAS_OK);
    assert_ok(matmul_cache_make(&world->libraries.matmuls));
    world->program.libraries = &world->libraries;
    fake_cublaslt.calls = 0;
    case_later(state, world_end, world);
    return world;
}

// One product. Sizes 0 mean the usual ones.
enum added { NOTHING, VECTOR, MATRIX, COLUMN };
struct problem {
    enum dtype dtype;
    int64_t batch, m, n, k;     // batch 0: matrices of two dimensions
    bool x_turned, y_turned;    // stored the other way round
    bool is_x_strided;          // every second column of a larger matrix
    bool is_x_shared;           // one matrix for the whole batch
    int64_t shift;              // elements from an aligned address to x
    enum added added;
    double alpha, beta;
};

struct run {
    struct tensor in[3], out;
    struct attr attr[2];
    uint32_t n_in;
    enum op op;
    uint32_t calls, launches;    // steps of the program
    enum dj_error error;
};

static double number_at(const struct tensor *tensor, int64_t at)
{
    switch (tensor->meta.dtype) {
    case DTYPE_F64: return ((const double *)tensor->data)[at];
    case DTYPE_F16: return half_to_float(((const uint16_t *)tensor->data)[at]);
    case DTYPE_BF16: return brain_to_float(((const uint16_t *)tensor->data)[at]);
    default: return ((const float *)tensor->data)[at];
    }
}

static void number_put(const struct tensor *tensor, int64_t at, double x)
{
    switch (tensor->meta.dtype) {
    case DTYPE_F64: ((double *)tensor->data)[at] = x; return;
    case DTYPE_F16: ((uint16_t *)tensor->data)[at] = half_from_float((float)x); return;
    case DTYPE_BF16: ((uint16_t *)tensor->data)[at] = brain_from_float((float)x); return;
    default: ((float *)tensor->data)[at] = (float)x;
    }
}

// Sizes are [batch, rows, columns], the last `rank` of them.
static struct tensor tensor_of(struct world *world, enum dtype dtype, uint32_t rank, const int64_t size[3], bool turned,
                               int64_t step, int64_t shift)
{
    struct tensor tensor = {.meta = {.dtype = dtype, .rank = rank}};
    struct prng prng = prng_make((uint64_t)(size[1] * 100 + size[2]));
    int64_t stride[3] = {size[1] * size[2] * step, turned ? step : size[2] * step, turned ? size[1] * step : step};
    int64_t count = size[0] * stride[0] + shift;
    for (uint32_t d = 0; d < rank; d++) {
        tensor.meta.size[d] = size[3 - rank + d];
        tensor.meta.stride[d] = stride[3 - rank + d];
    }
    tensor.data = arena_zero(world->arena, (size_t)count * dtype_bytes(dtype));
    assert_non_null(tensor.data);
    for (int64_t i = 0; i < count; i++)
        number_put(&tensor, i, ((double)prng_between(&prng, 0, 16) - 8) / 8);
    tensor.data = (uint8_t *)tensor.data + (size_t)shift * dtype_bytes(dtype);
    return tensor;
}

static void added_make(struct world *world, const struct problem *p, const int64_t out[3], struct run *run)
{
    bool is_column = p->added == COLUMN;
    uint32_t rank = p->added == VECTOR ? 1 : is_column ? 2 : run->out.meta.rank;
    const int64_t size[3] = {rank < 3 ? 1 : out[0], p->added == VECTOR ? 1 : out[1], is_column ? 1 : out[2]};
    run->in[0] = tensor_of(world, p->dtype, rank, size, false, 1, 0);
    run->attr[0] = (struct attr){.kind = ATTR_FLOAT, .f = p->beta};
    run->attr[1] = (struct attr){.kind = ATTR_FLOAT, .f = p->alpha};
}

static struct run run_make(struct world *world, const struct problem *p)
{
    uint32_t rank = p->batch == 0 ? 2 : 3, first = p->added == NOTHING ? 0 : 1;
    int64_t batch = p->batch == 0 ? 1 : p->batch, m = p->m == 0 ? ROWS : p->m, n = p->n == 0 ? COLUMNS : p->n,
            k = p->k == 0 ? DEPTH : p->k;
    struct run run = {.n_in = first + 2};
    run.op = p->batch == 0 ? (first ? OP_ADDMM : OP_MM) : first ? OP_BADDBMM : OP_BMM;
    run.in[first] = tensor_of(world, p->dtype, rank, (const int64_t[]){p->is_x_shared ? 1 : batch, m, k}, p->x_turned,
                              p->is_x_strided ? 2 : 1, p->shift);
    run.in[first + 1] = tensor_of(world, p->dtype, rank, (const int64_t[]){batch, k, n}, p->y_turned, 1, 0);
    run.out = tensor_of(world, p->dtype, rank, (const int64_t[]){batch, m, n}, false, 1, 0);
    if (p->is_x_shared) {
        run.in[first].meta.size[0] = batch;
        run.in[first].meta.stride[0] = 0;
    }
    if (first)
        added_make(world, p, (const int64_t[]){batch, m, n}, &run);
    return run;
}

static void run_emit(struct world *world, struct run *run)
{
    struct kernel_call call = {
        .op = op_info(run->op), .in = run->in, .n_in = run->n_in, .out = &run->out, .n_out = 1, .attr = run->attr};
    const struct cuda_entry *entry = &kernels_cuda()->entry[run->op];
    assert_true(entry->can(&call));
    assert_int_equal(entry->scratch(&call), 0);
    cuda_program_reset(&world->program);
    assert_ok(entry->emit(&call, &world->program));
    assert_ok(world->program.error);
    for (uint32_t i = 0; i < world->program.steps; i++) {
        run->calls += world->program.step[i].function == CUDA_FUNCTION_NONE;
        run->launches += world->program.step[i].function != CUDA_FUNCTION_NONE;
    }
}

static void run_steps(struct world *world, struct run *run)
{
    struct cuda_report report = {0};
    if (run->error == DJ_OK)
        run->error = steps_run(&world->program, 1, &report, &world->fault);
}

// Element [batch, row, column] of a tensor that is broadcast from the right.
static double element(const struct tensor *tensor, int64_t batch, int64_t row, int64_t column)
{
    const int64_t at[3] = {batch, row, column};
    int64_t offset = 0;
    for (uint32_t d = 0; d < tensor->meta.rank; d++)
        offset += tensor->meta.size[d] == 1 ? 0 : at[3 - tensor->meta.rank + d] * tensor->meta.stride[d];
    return number_at(tensor, offset);
}

static void assert_is_the_plain_sum(const struct problem *p, const struct run *run)
{
    const struct tensor *x = &run->in[run->n_in - 2], *y = &run->in[run->n_in - 1];
    uint32_t rank = run->out.meta.rank;
    double tolerance = p->dtype == DTYPE_F16 ? 1e-3 : p->dtype == DTYPE_BF16 ? 8e-3 : 1e-6;
    for (int64_t batch = 0; batch < (rank == 3 ? run->out.meta.size[0] : 1); batch++)
        for (int64_t i = 0; i < run->out.meta.size[rank - 2]; i++)
            for (int64_t j = 0; j < run->out.meta.size[rank - 1]; j++) {
                double sum = 0;
                for (int64_t k = 0; k < x->meta.size[rank - 1]; k++)
                    sum += element(x, batch, i, k) * element(y, batch, k, j);
                if (p->added != NOTHING)
                    sum = p->alpha * sum + p->beta * element(&run->in[0], batch, i, j);
                double ours = element(&run->out, batch, i, j);
                if (!(fabs(ours - sum) <= tolerance * fmax(1, fabs(sum))))    // NaN too
                    fail_msg("[%ld, %ld, %ld] is %g and not %g", (long)batch, (long)i, (long)j, ours, sum);
            }
}

// Emits and runs the problem, with so many library calls and launches; the result is the plain sum's.
static void check(struct world *world, const struct problem *p, uint32_t calls, uint32_t launches)
{
    struct run run = run_make(world, p);
    run_emit(world, &run);
    run_steps(world, &run);
    assert_ok(run.error);
    assert_int_equal(run.calls, calls);
    assert_int_equal(run.launches, launches);
    assert_is_the_plain_sum(p, &run);
    // Nothing of it may be read again.
    for (int64_t i = 0; i < tensor_count(&run.in[0].meta); i++)
        number_put(&run.in[0], i, NAN);
}

static const enum dtype FLOATS[] = {DTYPE_F32, DTYPE_F64, DTYPE_F16, DTYPE_BF16};

static void products_of_every_layout_and_float_dtype_are_the_plain_sums(void **state)
{
    struct world *world = world_make(state);
    for (uint32_t i = 0; i < 4 * 4 * 2; i++) {
        struct problem p = {.dtype = FLOATS[i % 4], .x_turned = i & 4, .y_turned = i & 8, .batch = i & 16 ? 3 : 0};
        check(world, &p, 1, 0);
    }
    assert_int_equal(fake_cublaslt.products, 32);
}

static void a_batch_may_share_one_matrix(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32, .batch = 4, .is_x_shared = true};
    check(world, &p, 1, 0);
}

static void a_vector_is_added_by_the_epilogue_and_a_matrix_by_beta(void **state)
{
    struct world *world = world_make(state);
    for (uint32_t i = 0; i < 8; i++) {
        struct problem p = {.dtype = FLOATS[i % 4], .added = VECTOR, .alpha = 1, .beta = 1, .y_turned = i & 4};
        check(world, &p, 1, 0);
        assert_int_equal(fake_cublaslt.last_epilogue, CUBLASLT_BIAS);
        p.added = MATRIX;
        p.alpha = 2;
        p.beta = 0.5;
        check(world, &p, 1, 0);
        assert_int_equal(fake_cublaslt.last_epilogue, CUBLASLT_PLAIN);
        p.batch = 3;
        check(world, &p, 1, 0);
    }
}

static void a_beta_of_zero_leaves_the_added_tensor_unread(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32, .added = MATRIX, .alpha = 2, .beta = 0};
    struct run run = run_make(world, &p);
    float *added = run.in[0].data;
    for (int i = 0; i < ROWS * COLUMNS; i++)
        added[i] = NAN;
    run_emit(world, &run);
    run_steps(world, &run);
    assert_ok(run.error);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        added[i] = 0;
    assert_is_the_plain_sum(&p, &run);
}

static void what_the_library_does_not_take_is_left_to_our_tiles(void **state)
{
    struct world *world = world_make(state);
    const struct problem problems[] = {
        {.dtype = DTYPE_F32, .is_x_strided = true},
        {.dtype = DTYPE_F32, .added = COLUMN, .alpha = 1, .beta = 1},
        {.dtype = DTYPE_F32, .added = VECTOR, .alpha = 1, .beta = 0.5},
    };
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        check(world, &problems[i], 0, 1);
    assert_int_equal(fake_cublaslt.calls, 0);
    struct problem p = {.dtype = DTYPE_F32};
    fake_cublaslt.finds_nothing = true;
    check(world, &p, 0, 1);
    check(world, &p, 0, 1);
    assert_int_equal(fake_cublaslt.heuristics, 1);    // the answer that there is nothing is kept too
    world->libraries.blas = NULL;
    check(world, &p, 0, 1);
    world->libraries.blas = fake_cublaslt_api();
    world->program.libraries = NULL;
    check(world, &p, 0, 1);
}

static void few_rows_are_always_ours(void **state)
{
    struct world *world = world_make(state);
    for (int64_t m = 1; m <= 8; m++) {
        struct problem p = {.dtype = DTYPE_F32, .m = m, .y_turned = m & 1};
        check(world, &p, 0, 1);
        check(world, &(struct problem){.dtype = DTYPE_BF16, .n = m, .x_turned = m & 2}, 0, 1);
    }
    assert_int_equal(fake_cublaslt.calls, 0);
}

static void an_algorithm_is_asked_for_once_a_shape(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32, .added = VECTOR, .alpha = 1, .beta = 1};
    for (int i = 0; i < 5; i++)
        check(world, &p, 1, 0);    // other addresses each time
    assert_int_equal(fake_cublaslt.heuristics, 1);
    p.m = ROWS + 1;
    check(world, &p, 1, 0);
    assert_int_equal(fake_cublaslt.heuristics, 2);
    p.shift = 1;    // less aligned
    check(world, &p, 1, 0);
    assert_int_equal(fake_cublaslt.heuristics, 3);
    p.x_turned = true;
    check(world, &p, 1, 0);
    assert_int_equal(fake_cublaslt.heuristics, 4);
    p.dtype = DTYPE_F16;
    check(world, &p, 1, 0);
    assert_int_equal(fake_cublaslt.heuristics, 5);
}

static void the_cache_is_bounded_and_gives_everything_back(void **state)
{
    struct world *world = world_make(state);
    for (int64_t m = 9; m < 9 + 2 * MATMUL_CACHE_ENTRIES; m++) {
        struct problem p = {.dtype = DTYPE_F32, .m = m, .n = 9, .k = 1};
        struct run run = run_make(world, &p);
        run_emit(world, &run);
        assert_int_equal(run.calls, 1);
        assert_true(fake_cublaslt.live <=
                    1 + 5 * MATMUL_CACHE_ENTRIES);    // the handle; a product's and four matrices' descriptors
    }
    assert_int_equal(fake_cublaslt.heuristics, 2 * MATMUL_CACHE_ENTRIES);
    matmul_cache_free(world->libraries.matmuls, world->libraries.blas);
    world->libraries.matmuls = NULL;
    assert_int_equal(fake_cublaslt.live, 1);
}

static void a_step_whose_entry_was_replaced_asks_again(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32};
    struct run run = run_make(world, &p);
    run_emit(world, &run);
    matmul_cache_free(world->libraries.matmuls, world->libraries.blas);
    assert_ok(matmul_cache_make(&world->libraries.matmuls));
    run_steps(world, &run);
    assert_ok(run.error);
    assert_is_the_plain_sum(&p, &run);
    assert_int_equal(fake_cublaslt.heuristics, 2);
}

static void every_call_that_fails_is_a_typed_error_and_leaks_nothing(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32, .batch = 2, .added = VECTOR, .alpha = 1, .beta = 1};
    static const int statuses[] = {CUBLAS_ALLOC_FAILED, CUBLAS_EXECUTION_FAILED};
    // Emitted, and run, with an empty cache; asking fails at both times, or the product does.
    for (uint64_t n = 1, more = 1; more; n++)
        for (int i = 0; i < 2; i++) {
            struct run run = run_make(world, &p);
            run_emit(world, &run);
            assert_int_equal(run.calls, 1);
            matmul_cache_free(world->libraries.matmuls, world->libraries.blas);
            assert_ok(matmul_cache_make(&world->libraries.matmuls));
            fake_cublaslt.calls = 0;
            fake_cublaslt.fail_at = n;
            fake_cublaslt.fail_status = statuses[i];
            run_steps(world, &run);
            more = fake_cublaslt.calls >= n;
            fake_cublaslt.fail_at = 0;
            assert_error(!more ? DJ_OK : i == 0 ? DJ_E_DEVICE_MEMORY : DJ_E_DEVICE, run.error);
            if (more)
                assert_non_null(strstr(world->fault.text, "[17, 40] by [40, 12]"));
            run.error = DJ_OK;
            run_steps(world, &run);    // the next time it works
            assert_ok(run.error);
            assert_is_the_plain_sum(&p, &run);
        }
    assert_int_equal(fake_cublaslt.live, 1 + 5);
}

static void asking_that_fails_when_emitted_is_told_by_the_step(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32};
    struct run run = run_make(world, &p);
    fake_cublaslt.fail_at = 1;
    fake_cublaslt.fail_status = CUBLAS_INTERNAL_ERROR;
    run_emit(world, &run);
    assert_int_equal(run.calls, 1);
    run_steps(world, &run);
    assert_ok(run.error);    // it was for a moment
    assert_is_the_plain_sum(&p, &run);
}

static void equal_products_have_equal_keys_and_other_addresses_others(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32, .added = VECTOR, .alpha = 1, .beta = 1};
    struct run run = run_make(world, &p);
    run_emit(world, &run);
    struct hash128 first = cuda_program_key(&world->program);
    run_emit(world, &run);
    assert_true(hash128_equal(first, cuda_program_key(&world->program)));
    run = run_make(world, &p);
    run_emit(world, &run);
    assert_false(hash128_equal(first, cuda_program_key(&world->program)));
}

static void tf32_is_used_only_where_it_is_allowed_and_is_another_class(void **state)
{
    struct world *world = world_make(state);
    struct problem p = {.dtype = DTYPE_F32};
    uint64_t class = matmul_numerics(&world->libraries);
    check(world, &p, 1, 0);
    assert_int_equal(fake_cublaslt.last_compute, CUBLAS_COMPUTE_F32);
    assert_int_equal(matmul_numerics(&world->libraries), class);
    world->libraries.allows_tf32 = true;
    check(world, &p, 1, 0);
    assert_int_equal(fake_cublaslt.last_compute, CUBLAS_COMPUTE_TF32);
    assert_int_not_equal(matmul_numerics(&world->libraries), class);
    p.dtype = DTYPE_F64;
    check(world, &p, 1, 0);
    assert_int_equal(fake_cublaslt.last_compute, CUBLAS_COMPUTE_F64);
    world->libraries.blas = NULL;
    assert_int_equal(matmul_numerics(&world->libraries), 0);
    world->libraries.blas = fake_cublaslt_api();
}

static void a_cache_without_memory_is_a_typed_error(void **state)
{
    struct matmul_cache *cache = NULL;
    (void)state;
    alloc_fail_after(0);
    enum dj_error error = matmul_cache_make(&cache);
    assert_true(alloc_fail_stop());
    assert_error(DJ_E_NO_MEMORY, error);
    assert_null(cache);
    matmul_cache_free(NULL, NULL);
}

CASES(products_of_every_layout_and_float_dtype_are_the_plain_sums, a_batch_may_share_one_matrix,
      a_vector_is_added_by_the_epilogue_and_a_matrix_by_beta, a_beta_of_zero_leaves_the_added_tensor_unread,
      what_the_library_does_not_take_is_left_to_our_tiles, few_rows_are_always_ours, an_algorithm_is_asked_for_once_a_shape,
      the_cache_is_bounded_and_gives_everything_back, a_step_whose_entry_was_replaced_asks_again,
      every_call_that_fails_is_a_typed_error_and_leaks_nothing, asking_that_fails_when_emitted_is_told_by_the_step,
      equal_products_have_equal_keys_and_other_addresses_others, tf32_is_used_only_where_it_is_allowed_and_is_another_class,
      a_cache_without_memory_is_a_typed_error)
