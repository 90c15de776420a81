// What the table promises: every op that is not a view has a kernel, views have none, and products do not depend on threads.

#include "gpu_worker/kernels/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "tests/lib/case.h"

static void every_op_but_views_has_a_kernel(void **state)
{
    (void)state;
    ops_init();
    const struct kernel_table *table = kernels_cpu();
    for (uint32_t row = 0; row < op_count(); row++) {
        const struct op_info *op = op_at(row);
        bool is_view = (op->flags & OP_IS_VIEW) != 0;
        if ((table->kernel[op->number].run != NULL) == is_view)
            fail_msg("%s %s", op->name, is_view ? "is a view but has a kernel" : "has no kernel");
    }
    assert_string_equal(table->backend, "cpu");
    assert_non_null(strstr(table->numerics, "cpu "));
}

static struct tensor matrix(float *data, int64_t rows, int64_t columns)
{
    return (struct tensor){.data = data,
                           .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {rows, columns}, .stride = {columns, 1}}};
}

static void multiply(struct team *team, struct tensor in[2], struct tensor *out)
{
    const struct kernel *kernel = &kernels_cpu()->kernel[OP_MM];
    struct kernel_call call = {
        .op = op_info(OP_MM), .in = in, .n_in = 2, .out = out, .n_out = 1, .compute = DTYPE_F32, .team = team};
    call.scratch_bytes = kernel->scratch(&call);
    void *scratch = aligned_alloc(64, (call.scratch_bytes + 127) / 64 * 64);
    memset(scratch, 0xff, call.scratch_bytes);    // NaNs: what is used before it is written shows
    call.scratch = scratch;
    assert_true(kernel->can == NULL || kernel->can(&call));
    assert_ok(kernel->run(&call));
    free(scratch);
}

static void release_team(void *team)
{
    team_free(team);
}

// Expected values from the definition, in double; bits from one thread.
static void a_product_has_the_same_bits_with_any_number_of_threads(void **state)
{
    struct prng prng = case_prng(state, 7);
    ops_init();
    for (int round = 0; round < 12; round++) {
        int64_t m = (int64_t)prng_between(&prng, 1, 70), n = (int64_t)prng_between(&prng, 1, 300),
                k = (int64_t)prng_between(&prng, 1, 900);
        float *memory = malloc((size_t)(m * k + k * n + 2 * m * n + 1) * sizeof *memory);
        assert_non_null(memory);
        float *a = memory, *b = a + m * k, *first = b + k * n, *c = first + m * n;
        for (int64_t i = 0; i < m * k + k * n; i++)
            memory[i] = (float)(prng_unit(&prng) - 0.5);
        for (uint32_t threads = 1; threads <= 4; threads++) {
            struct team *team;
            assert_ok(team_make(threads, &team));
            case_later(state, release_team, team);
            struct tensor in[2] = {matrix(a, m, k), matrix(b, k, n)}, out = matrix(threads == 1 ? first : c, m, n);
            multiply(team, in, &out);
            if (threads > 1)
                assert_memory_equal(c, first, (size_t)(m * n) * sizeof *c);
        }
        for (int64_t i = 0; i < m; i++) {
            int64_t j = (int64_t)prng_between(&prng, 0, (uint64_t)n - 1);
            double exact = 0;
            for (int64_t l = 0; l < k; l++)
                exact += (double)a[i * k + l] * (double)b[l * n + j];
            assert_true((double)first[i * n + j] - exact < 1e-4 && exact - (double)first[i * n + j] < 1e-4);
        }
        free(memory);
    }
}

// The limit holds, and a product is the same packed, packed anew and not packed at all.
static void packs_stay_within_their_limit(void **state)
{
    enum { ROWS = 40, SIDE = 96 };
    struct prng prng = case_prng(state, 8);
    ops_init();
    float *memory = malloc((ROWS * SIDE + 5 * SIDE * SIDE + 2 * ROWS * SIDE) * sizeof *memory);
    assert_non_null(memory);
    case_later(state, free, memory);
    float *weights = memory + ROWS * SIDE, *c = weights + 5 * SIDE * SIDE, *expected = c + ROWS * SIDE;
    for (int i = 0; i < ROWS * SIDE + 5 * SIDE * SIDE; i++)
        memory[i] = (float)(prng_unit(&prng) - 0.5);

    const size_t pack = SIDE * SIDE * sizeof(float);
    kernels_cpu_pack_limit(0);
    assert_int_equal(kernels_cpu_pack_bytes(), 0);
    for (int limit = 0; limit <= 3; limit++) {
        kernels_cpu_pack_limit((size_t)limit * pack);
        for (int round = 0; round < 20; round++) {
            int which = round % 5;
            struct tensor in[2] = {matrix(memory, ROWS, SIDE), matrix(weights + which * SIDE * SIDE, SIDE, SIDE)};
            struct tensor out = matrix(expected, ROWS, SIDE);
            multiply(NULL, in, &out);
            in[1].is_constant = true;
            in[1].constant_key = (uint64_t)which + 1;
            out.data = c;
            multiply(NULL, in, &out);
            assert_memory_equal(c, expected, ROWS * SIDE * sizeof *c);
            assert_true(kernels_cpu_pack_bytes() <= (size_t)limit * pack);
            assert_true(limit == 0 || kernels_cpu_pack_bytes() > 0);
        }
    }
    kernels_cpu_pack_limit((size_t)1 << 30);
}

// A circle through twice as many weights as fit keeps those that it has, and a weight that nothing asks for any more makes room.
static void packs_in_use_stay_and_idle_ones_make_room(void **state)
{
    enum { ROWS = 33, SIDE = 32, WEIGHTS = 6, KEPT = 3, LONG = 5000 };
    static float x[ROWS * SIDE], weights[WEIGHTS][SIDE * SIDE], c[ROWS * SIDE];
    (void)state;
    ops_init();
    kernels_cpu_pack_limit(0);
    kernels_cpu_pack_limit(KEPT * sizeof weights[0]);
    struct tensor in[2] = {matrix(x, ROWS, SIDE)}, out = matrix(c, ROWS, SIDE);
    for (int round = 0; round < LONG; round++) {
        // A pack that is kept holds the weight as it was: a changed weight that shows in the product was packed again.
        int which = round < 10 * WEIGHTS ? round % WEIGHTS : WEIGHTS - 1;
        in[1] = matrix(weights[which], SIDE, SIDE);
        in[1].is_constant = true;
        in[1].constant_key = 7000 + (uint64_t)which;
        x[0] = 1;
        weights[which][0] = (float)round;
        multiply(NULL, in, &out);
        bool is_kept = c[0] != (float)round;
        if (round >= WEIGHTS && round < 10 * WEIGHTS)
            assert_int_equal(is_kept, which < KEPT);
        if (round == LONG - 1)
            assert_true(is_kept);
    }
    kernels_cpu_pack_limit(0);
    kernels_cpu_pack_limit((size_t)1 << 30);
}

CASES(every_op_but_views_has_a_kernel, a_product_has_the_same_bits_with_any_number_of_threads, packs_stay_within_their_limit,
      packs_in_use_stay_and_idle_ones_make_room)
