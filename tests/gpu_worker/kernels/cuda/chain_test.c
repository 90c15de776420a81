// Chains of pointwise ops and of copies (gpu_worker/kernels/cuda/chain.h): as one launch they give the bytes that a launch of each gives, whatever memory they
// share, in any order of threads.

#include <math.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"
#include "tests/lib/case.h"
#include "tests/lib/cuda/steps.h"

enum {
    ROWS = 20,
    COLUMNS = 40,
    COUNT = ROWS * COLUMNS,
    SLOT_BYTES = COUNT * 4,
    MEMORY_BYTES = 5 * SLOT_BYTES,
    OPS_MAX = 12,
    ATTRS_MAX = 4
};

// One op with its operands, as a call.
struct part {
    struct tensor in[3], out;
    struct attr attr[ATTRS_MAX];
    float number;
    struct kernel_call call;
};

static _Alignas(16) uint8_t memory[MEMORY_BYTES];

static void part_make(struct part *part, uint32_t op, uint32_t inputs)
{
    memset(part, 0, sizeof *part);
    part->number = 0.75f;
    for (uint32_t i = 0; i < ATTRS_MAX; i++)
        part->attr[i] = (struct attr){.kind = op == OP_GELU ? ATTR_INT : ATTR_FLOAT, .f = op == OP_GELU ? 0 : 1.5};
    part->call = (struct kernel_call){.op = op_info((uint16_t)op),
                                      .in = part->in,
                                      .n_in = inputs,
                                      .out = &part->out,
                                      .n_out = 1,
                                      .attr = part->attr,
                                      .compute = DTYPE_F32};
}

static struct tensor dense(void *data, enum dtype dtype)
{
    return (struct tensor){.data = data, .meta = {.dtype = dtype, .rank = 2, .size = {ROWS, COLUMNS}, .stride = {COLUMNS, 1}}};
}

static void emit(struct part *part, struct cuda_program *program)
{
    assert_ok(kernels_cuda()->entry[part->call.op->number].emit(&part->call, program));
    assert_ok(program->error);
}

static void run(const struct cuda_program *program, uint64_t seed)
{
    struct cuda_report report = {0};
    assert_int_equal(program->context_bytes, 0);    // no library's call
    assert_ok(steps_run(program, seed, &report, NULL));
    assert_int_equal(report.first, 0);
}

static void fill(struct prng *prng)
{
    for (size_t i = 0; i < MEMORY_BYTES; i += 4) {
        float x = (float)(prng_unit(prng) * 4 - 2);
        memcpy(memory + i, &x, sizeof x);
    }
}

// Random operands ------------------------------------------------------------------------------------------------------------------

static void extent(const struct tensor *tensor, uintptr_t *ret_from, uintptr_t *ret_to)
{
    int64_t last = 0;
    for (uint32_t d = 0; d < tensor->meta.rank; d++)
        last += (tensor->meta.size[d] - 1) * tensor->meta.stride[d];
    *ret_from = (uintptr_t)tensor->data;
    *ret_to = *ret_from + (uintptr_t)(last + 1) * dtype_bytes(tensor->meta.dtype);
}

// What kernel.h allows: an output that shares memory with an input only as the same view.
static bool is_allowed(const struct part *part)
{
    uintptr_t from, to, in_from, in_to;
    extent(&part->out, &from, &to);
    for (uint32_t i = 0; i < part->call.n_in; i++) {
        const struct tensor *in = &part->in[i];
        if (in->is_scalar)
            continue;
        extent(in, &in_from, &in_to);
        bool is_same = in->data == part->out.data && memcmp(&in->meta, &part->out.meta, sizeof in->meta) == 0;
        if (in_from < to && from < in_to && !is_same)
            return false;
    }
    return true;
}

// NOLINTNEXTLINE(readability-non-const-parameter): a tensor's data is written in general
static struct tensor random_tensor(struct prng *prng, bool is_output, float *number)
{
    enum dtype dtype = prng_chance(prng, 1, 6) ? DTYPE_BF16 : DTYPE_F32;
    struct tensor tensor = dense(memory + prng_between(prng, 0, 8) * SLOT_BYTES / 2, dtype);
    struct tensor_meta *meta = &tensor.meta;

    switch (prng_between(prng, 0, is_output ? 9 : 12)) {
    case 0:
        meta->stride[0] = 1;
        meta->stride[1] = ROWS;
        break;
    case 1: tensor.data = (uint8_t *)tensor.data + 4; break;    // not aligned for vectors, and overlaps with its neighbours
    case 10: meta->size[0] = 1; break;                          // a row for all
    case 11: meta->size[1] = 1; break;
    case 12: tensor = (struct tensor){.data = number, .meta = {.dtype = DTYPE_F32}, .is_scalar = true}; break;
    default: break;
    }
    if (tensor.data > (void *)(memory + MEMORY_BYTES - SLOT_BYTES))
        tensor.data = memory;
    return tensor;
}

static void random_part(struct prng *prng, struct part *part)
{
    static const struct {
        uint16_t op;
        uint8_t inputs;
    } ops[] = {{OP_ADD, 2},       {OP_MUL, 2},     {OP_TANH, 1},  {OP_RELU, 1},  {OP_GELU, 1},  {OP_POW_SCALAR, 1},
               {OP_GT_SCALAR, 1}, {OP_ADDCMUL, 3}, {OP_CLONE, 1}, {OP_CLONE, 1}, {OP_CLONE, 1}, {OP_SIN, 1}};

    do {
        uint64_t which = prng_between(prng, 0, sizeof ops / sizeof ops[0] - 1);
        part_make(part, ops[which].op, ops[which].inputs);
        if (ops[which].op == OP_POW_SCALAR)
            part->attr[0].f = prng_chance(prng, 1, 2) ? 3 : 2.5;
        for (uint32_t i = 0; i < ops[which].inputs; i++)
            part->in[i] = random_tensor(prng, false, &part->number);
        part->out = random_tensor(prng, true, NULL);
        if (ops[which].op == OP_GT_SCALAR)
            part->out.meta.dtype = DTYPE_BOOL;
        if (ops[which].op == OP_CLONE && prng_chance(prng, 3, 4))
            part->out.meta.dtype = part->in[0].meta.dtype;
    } while (!is_allowed(part));
}

static bool is_equal(const uint8_t *a, const uint8_t *b)
{
    for (size_t i = 0; i < MEMORY_BYTES; i += 4) {
        float x, y;
        memcpy(&x, a + i, 4);
        memcpy(&y, b + i, 4);
        if (memcmp(a + i, b + i, 4) != 0 && !(isnan(x) && isnan(y)))
            return false;
    }
    return true;
}

static void chained_ops_give_the_bytes_of_single_ones_whatever_memory_they_share(void **state)
{
    enum { ROUNDS = 150 };
    static struct part part[OPS_MAX];
    static uint8_t before[MEMORY_BYTES], expected[MEMORY_BYTES];
    struct cuda_program program = {0};
    struct prng prng = case_prng(state, 1);
    uint32_t joined = 0, apart = 0;

    ops_init();
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t ops = (uint32_t)prng_between(&prng, 2, OPS_MAX);
        fill(&prng);
        memcpy(before, memory, sizeof memory);
        for (uint32_t i = 0; i < ops; i++) {
            random_part(&prng, &part[i]);
            cuda_program_reset(&program);
            emit(&part[i], &program);
            assert_int_equal(program.steps, 1);
            run(&program, round);
        }
        memcpy(expected, memory, sizeof memory);
        memcpy(memory, before, sizeof memory);
        cuda_program_reset(&program);
        for (uint32_t i = 0; i < ops; i++)
            emit(&part[i], &program);
        run(&program, prng_next(&prng));
        assert_true(is_equal(memory, expected));
        joined += ops - program.steps;
        apart += program.steps - 1;
    }
    assert_in_range(joined, ROUNDS / 2, ROUNDS * OPS_MAX);
    assert_in_range(apart, ROUNDS / 2, ROUNDS * OPS_MAX);
    cuda_program_free(&program);
}

// What joins -----------------------------------------------------------------------------------------------------------------------

// a = one(x), b = other(y): the steps that they become.
static uint32_t steps_of_two(uint32_t one, struct tensor x, struct tensor a, uint32_t other, struct tensor y, struct tensor b)
{
    struct cuda_program program = {0};
    struct part first, second;

    ops_init();
    part_make(&first, one, 1);
    part_make(&second, other, 1);
    first.in[0] = x;
    first.out = a;
    second.in[0] = y;
    second.out = b;
    emit(&first, &program);
    emit(&second, &program);
    uint32_t steps = program.steps;
    cuda_program_free(&program);
    return steps;
}

static uint32_t steps_of(struct tensor x, struct tensor a, struct tensor y, struct tensor b)
{
    return steps_of_two(OP_RELU, x, a, OP_TANH, y, b);
}

static struct tensor slot(uint32_t at)
{
    return dense(memory + at * SLOT_BYTES, DTYPE_F32);
}

static void ops_over_the_same_elements_join(void **state)
{
    (void)state;
    assert_int_equal(steps_of(slot(0), slot(1), slot(1), slot(2)), 1);    // the second reads what the first wrote
    assert_int_equal(steps_of(slot(0), slot(1), slot(2), slot(3)), 1);    // or something else
    assert_int_equal(steps_of(slot(0), slot(1), slot(1), slot(0)), 1);    // and writes where the first has read
    assert_int_equal(steps_of(slot(0), slot(1), slot(1), slot(1)), 1);    // or in place
    struct tensor flat = {.data = memory + SLOT_BYTES, .meta = {.dtype = DTYPE_F32, .rank = 1, .size = {COUNT}, .stride = {1}}};
    assert_int_equal(steps_of(slot(0), slot(1), flat, flat), 1);    // also as another shape of the same memory
}

static void ops_whose_threads_would_meet_do_not_join(void **state)
{
    (void)state;
    struct tensor turned = slot(1), row = slot(1), narrow = slot(1), shifted = slot(1), few = slot(3);
    turned.meta.size[0] = turned.meta.stride[1] = COLUMNS;
    turned.meta.size[1] = turned.meta.stride[0] = ROWS;
    turned.meta.stride[0] = 1;
    struct tensor as_turned = slot(2);
    as_turned.meta.size[0] = COLUMNS;
    as_turned.meta.size[1] = as_turned.meta.stride[0] = ROWS;
    assert_int_equal(steps_of(slot(0), slot(1), turned, as_turned), 2);    // reads another thread's element
    row.meta.size[0] = 1;
    assert_int_equal(steps_of(slot(0), slot(1), row, slot(2)), 2);
    assert_int_equal(steps_of(row, slot(2), slot(0), slot(1)), 2);    // writes what others still read
    narrow.meta.dtype = DTYPE_BF16;
    assert_int_equal(steps_of(slot(0), slot(1), slot(2), narrow), 2);    // item sizes differ
    assert_int_equal(steps_of(slot(1), slot(2), slot(3), narrow), 2);
    shifted.data = memory + SLOT_BYTES + 8;
    assert_int_equal(steps_of(slot(0), slot(1), slot(3), shifted), 2);
    few.meta.size[0] = 1;
    assert_int_equal(steps_of(slot(0), slot(1), few, few), 2);    // other elements
}

static void copies_join_when_nothing_that_one_writes_concerns_the_other(void **state)
{
    (void)state;
    assert_int_equal(steps_of_two(OP_CLONE, slot(0), slot(1), OP_CLONE, slot(2), slot(3)), 1);
    assert_int_equal(steps_of_two(OP_CLONE, slot(0), slot(1), OP_CLONE, slot(0), slot(3)), 1);    // both read it
    assert_int_equal(steps_of_two(OP_CLONE, slot(0), slot(1), OP_CLONE, slot(1), slot(2)), 2);
    assert_int_equal(steps_of_two(OP_CLONE, slot(0), slot(1), OP_CLONE, slot(2), slot(0)), 2);
    assert_int_equal(steps_of_two(OP_CLONE, slot(0), slot(1), OP_CLONE, slot(2), slot(1)), 2);
    assert_int_equal(steps_of_two(OP_CLONE, slot(0), slot(1), OP_RELU, slot(2), slot(3)), 2);    // kinds do not mix
    assert_int_equal(steps_of_two(OP_RELU, slot(0), slot(1), OP_CLONE, slot(2), slot(3)), 2);
}

static void a_chain_ends_where_something_else_stands_between(void **state)
{
    (void)state;
    struct cuda_program program = {0};
    struct part part;

    ops_init();
    for (uint32_t i = 0; i < CHAIN_PARTS_MAX + 2; i++) {
        part_make(&part, OP_RELU, 1);
        part.in[0] = part.out = slot(0);
        emit(&part, &program);
    }
    assert_int_equal(program.steps, 2);    // one full chain, and the next
    struct part sine;
    part_make(&sine, OP_SIN, 1);
    sine.in[0] = sine.out = slot(0);
    emit(&sine, &program);
    emit(&part, &program);
    assert_int_equal(program.steps, 4);
    cuda_program_free(&program);
}

CASES(chained_ops_give_the_bytes_of_single_ones_whatever_memory_they_share, ops_over_the_same_elements_join,
      ops_whose_threads_would_meet_do_not_join, copies_join_when_nothing_that_one_writes_concerns_the_other,
      a_chain_ends_where_something_else_stands_between)
