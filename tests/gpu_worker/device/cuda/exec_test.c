// The executor on the CUDA device, over the fake runtime: random plans whose values are kept, donated, released and built upon
// while earlier ones are in flight give the bits that the same kernels give when each node has memory of its own. So whatever
// the device reorders, overlaps, captures or forgets to wait for shows.

#include "gpu_worker/exec/exec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bits.h"
#include "core/srg/bindings.h"
#include "gpu_worker/device/cuda/cuda_device.h"
#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/libraries.h"
#include "tests/gpu_worker/device/port_suite.h"
#include "tests/gpu_worker/exec/twin.h"
#include "tests/lib/cuda/emulator.h"
#include "tests/lib/cuda/fake_runtime.h"
#include "tests/lib/random_plan.h"

enum { VALUES_MAX = 256, PENDING_MAX = 64, ANSWERS_MAX = 16, REGION_BYTES = 8 << 20 };

struct pending {
    struct exec_run *run;
    struct blob *expected[ANSWERS_MAX];
    bool is_done;
};

static struct bed {
    struct device_port *port;
    struct exec *exec;
    struct arena *arena;
    struct prng prng;
    uint64_t counter, ticket;
    struct twin_value value[VALUES_MAX];
    uint32_t values;
    struct pending pending[PENDING_MAX];
    uint32_t out;          // of pending
    uint32_t looked_at;    // of what came back
    uint64_t plans, skipped;
} bed;

static uint64_t seed;

static struct device_port *make(const struct io_sink *sink)
{
    struct cuda_device_config config = {
        .memory_bytes = REGION_BYTES, .api = fake_runtime_api(), .image = fake_runtime_images(), .sink = sink};
    struct device_port *port;
    struct fault fault;
    fake_runtime_begin(++seed, 256 << 20);
    assert_ok(cuda_device_make(&config, &port, &fault));
    return port;
}

static void check_end(void)
{
    assert_int_equal(fake_runtime_end(), 0);
}

const struct port_subject port_subject = {.make = make, .check_end = check_end};

// The kernels on fresh memory -------------------------------------------------------------------------------------------------

static void run_steps(const struct cuda_program *program)
{
    struct cuda_report report = {0};
    for (uint32_t i = 0; i < program->steps; i++) {
        const struct cuda_step *step = &program->step[i];
        assert_int_not_equal(step->function, CUDA_FUNCTION_NONE);
        struct emulator_launch launch = {.grid = {step->grid_x, step->grid_y, step->grid_z},
                                         .block = step->block,
                                         .shared_bytes = step->shared_bytes,
                                         .args = program->args + step->args_offset,
                                         .fault = &report.first,
                                         .task = step->task};
        fake_runtime_run(step->function, &launch);
    }
    assert_int_equal(report.first, 0);
}

static void run_kernel(const struct op_info *op, const struct attr *attr, const struct tensor *in, uint32_t n_in,
                       struct tensor *out)
{
    static const struct cuda_libraries libraries = {.processors = 132, .capability = 90};
    static struct cuda_program program;
    const struct cuda_entry *entry = &kernels_cuda()->entry[op->number];
    struct tensor_meta meta[FAKE_OPERANDS_MAX];
    bool is_scalar[FAKE_OPERANDS_MAX];

    for (uint32_t i = 0; i < n_in; i++) {
        meta[i] = in[i].meta;
        is_scalar[i] = in[i].is_scalar;
    }
    struct op_call op_call = {
        .op = op, .in = meta, .in_is_scalar = is_scalar, .n_in = n_in, .attr = attr, .dtype = out[0].meta.dtype};
    struct kernel_call call = {
        .op = op, .in = in, .n_in = n_in, .out = out, .n_out = op->outputs, .attr = attr, .compute = op_compute_dtype(&op_call)};
    call.scratch_bytes = entry->scratch == NULL ? 0 : entry->scratch(&call);
    call.scratch = arena_zero(bed.arena, call.scratch_bytes + 256);
    call.scratch = (void *)(((uintptr_t)call.scratch + 255) & ~(uintptr_t)255);
    cuda_program_reset(&program);
    program.libraries = &libraries;
    assert_ok(entry->emit(&call, &program));
    assert_ok(program.error);
    run_steps(&program);
}

static struct tensor operand(const struct srg_plan *plan, const int64_t *word, uint32_t n, uint32_t r,
                             const struct fake_tensor *in, const struct fake_tensor *out)
{
    const struct srg_ref *ref = &plan->ref[plan->node[n].first_ref + r];
    const struct fake_tensor *from = ref->kind == REF_INPUT ? &in[ref->index] : NULL;
    if (ref->kind == REF_NODE)
        from = &out[plan->node[ref->index].first_output + ref->output];
    if (from != NULL)
        return (struct tensor){.data = from->data, .meta = from->meta};
    if (ref->kind != REF_SCALAR)
        return (struct tensor){.meta = {.dtype = DTYPE_NONE}};
    int64_t *bits = arena_zero(bed.arena, sizeof *bits);
    *bits = binding_scalar(plan, word, n, r);
    return (struct tensor){.data = bits, .meta = {.dtype = ref->dtype}, .is_scalar = true};
}

// As twin_run, with the CUDA backend's kernels.
static void run_plan(const struct srg_plan *plan, const int64_t *word, const struct fake_tensor *in, struct fake_tensor *out)
{
    struct tensor_meta *meta = arena_zero(bed.arena, (plan->outputs + 1) * sizeof *meta);
    int64_t *offset = arena_zero(bed.arena, (plan->outputs + 1) * sizeof *offset);
    assert_ok(plan_infer(plan, word, meta, offset, NULL, NULL));
    for (uint32_t n = 0; n < plan->nodes; n++) {
        const struct srg_node *node = &plan->node[n];
        const struct op_info *op = op_info(node->op);
        struct tensor tensor[FAKE_OPERANDS_MAX], made[OP_OUTPUTS_MAX] = {0};
        struct attr attr[OP_ATTRS_MAX];
        for (uint32_t r = 0; r < node->refs; r++)
            tensor[r] = operand(plan, word, n, r, in, out);
        for (uint32_t o = 0; o < node->outputs; o++) {
            struct fake_tensor *result = &out[node->first_output + o];
            result->meta = meta[node->first_output + o];
            result->data = (op->flags & OP_IS_VIEW) != 0
                               ? (uint8_t *)tensor[0].data + (size_t)offset[node->first_output] * dtype_bytes(result->meta.dtype)
                               : twin_memory(bed.arena, &result->meta);
            made[o] = (struct tensor){.data = result->data, .meta = result->meta};
        }
        binding_attrs(plan, word, n, attr);
        if ((op->flags & OP_IS_VIEW) == 0)
            run_kernel(op, attr, tensor, node->refs, made);
    }
}

// Lists out and back ------------------------------------------------------------------------------------------------------------

static void submit(struct exec_run *run, struct blob *const *expected, uint32_t count)
{
    assert_true(bed.out < PENDING_MAX && count <= ANSWERS_MAX);
    struct pending *pending = &bed.pending[bed.out++];
    *pending = (struct pending){.run = run};
    for (uint32_t i = 0; i < count; i++)
        pending->expected[i] = expected[i];
    run->list.ticket = ++bed.ticket;
    bed.port->submit(bed.port->self, &run->list);
}

static void complete(uint32_t at)
{
    struct pending *pending = &bed.pending[at];
    struct exec_run *run = pending->run;
    exec_complete(bed.exec, run);
    if (run->error != DJ_OK)
        fail_msg("%s", run->fault.text);
    for (uint32_t i = 0; i < run->answers; i++) {
        assert_memory_equal(run->blob->data + run->answer[i].offset, pending->expected[i]->data, run->answer[i].bytes);
        blob_drop(pending->expected[i]);
    }
    exec_run_free(bed.exec, run);
    memmove(pending, pending + 1, (--bed.out - at) * sizeof *pending);
}

// Completes what has come back, in any order that the executor allows.
static void take_done(void)
{
    for (uint32_t done = port_done(); bed.looked_at < done; bed.looked_at++)
        for (uint32_t i = 0; i < bed.out; i++)
            if (&bed.pending[i].run->list == port_done_at(bed.looked_at))
                bed.pending[i].is_done = true;
    for (uint32_t i = 0; i < bed.out;) {
        if (bed.pending[i].is_done && exec_may_complete(bed.pending[i].run)) {
            complete(i);
            i = 0;
        } else {
            i++;
        }
    }
}

static void drain(uint32_t left)
{
    while (bed.out > left) {
        port_wait_for(bed.looked_at + 1);
        take_done();
    }
}

// Random plans --------------------------------------------------------------------------------------------------------------------

static struct fake_tensor random_tensor(const struct tensor_meta *meta)
{
    struct fake_tensor tensor = {.data = twin_memory(bed.arena, meta), .meta = *meta};
    size_t count = (size_t)tensor_span(meta);
    for (size_t i = 0; i < count; i++) {
        float number = (float)(int64_t)prng_between(&bed.prng, 0, 32) / 8 - 2;
        if (meta->dtype == DTYPE_F32)
            memcpy(tensor.data + i * 4, &number, sizeof number);
        else
            memset(tensor.data + i * dtype_bytes(meta->dtype), meta->dtype == DTYPE_BOOL && prng_chance(&bed.prng, 1, 2) ? 1 : 0,
                   dtype_bytes(meta->dtype));
    }
    return tensor;
}

static void put_leaf(const struct srg_plan *plan, int64_t *word, uint32_t input, const struct fake_tensor *tensor)
{
    size_t bytes = (size_t)tensor_span(&tensor->meta) * dtype_bytes(tensor->meta.dtype);
    struct hash128 content = hash128(tensor->data, bytes);
    struct blob *blob = blob_copy(tensor->data, bytes);
    binding_set_leaf(plan, word, input, content);
    assert_ok(exec_leaf_put(bed.exec, content, blob, 0, bytes));
    exec_leaf_set_durable(bed.exec, content);
    blob_drop(blob);
}

static void remember(struct handle handle, struct fake_tensor tensor)
{
    assert_true(bed.values < VALUES_MAX);
    bed.value[bed.values++] = (struct twin_value){.handle = handle, .tensor = tensor};
}

static void forget_handle(struct handle handle)
{
    for (uint32_t i = 0; i < bed.values; i++)
        if (handle_equal(bed.value[i].handle, handle))
            bed.value[i--] = bed.value[--bed.values];
}

// A handle input is bound to a value that is there, or an imported one.
static struct twin_value bind_handle(const struct srg_plan *plan, int64_t *word, uint32_t input, const struct tensor_meta *meta)
{
    for (uint32_t i = 0; i < bed.values && prng_chance(&bed.prng, 5, 6); i++) {
        struct twin_value *value = &bed.value[i];
        if (value->tensor.meta.dtype != meta->dtype || !tensor_same_sizes(&value->tensor.meta, meta))
            continue;
        binding_set_handle(plan, word, input, bed.counter - value->handle.execution.counter, value->handle.output);
        return *value;
    }
    struct handle handle = {.execution = {.session = 5, .counter = bed.counter - 1}, .output = input};
    struct tensor_meta dense = *meta;
    tensor_make_contiguous(&dense);
    struct fake_tensor tensor = random_tensor(&dense);
    struct blob *blob = blob_copy(tensor.data, (size_t)tensor_bytes(&dense));
    struct exec_run *run;
    assert_ok(exec_import(bed.exec, handle, &dense, blob, &run, NULL));
    blob_drop(blob);
    submit(run, NULL, 0);
    binding_set_handle(plan, word, input, 1, input);
    remember(handle, tensor);
    return bed.value[bed.values - 1];
}

struct wishes {
    uint8_t kept[64], donated[64];
    uint32_t answer[ANSWERS_MAX], answers;
};

static void choose(const struct srg_plan *plan, struct wishes *wishes)
{
    memset(wishes, 0, sizeof *wishes);
    for (uint32_t o = 0; o < plan->outputs; o++)
        if (prng_chance(&bed.prng, 1, 4) && bed.values < VALUES_MAX / 2)
            bit_set(wishes->kept, o);
    for (uint32_t i = 0; i < plan->inputs; i++)
        if (!plan->input[i].is_leaf && prng_chance(&bed.prng, 1, 2))
            bit_set(wishes->donated, i);
    wishes->answers = (uint32_t)prng_between(&bed.prng, 1, 6);
    for (uint32_t i = 0; i < wishes->answers; i++)
        wishes->answer[i] = (uint32_t)prng_between(&bed.prng, 0, plan->outputs - 1);
}

// False: the device takes not all of its ops.
static bool execute(const struct srg_plan *plan, int64_t *word, struct fake_tensor *in, const struct handle *used)
{
    static struct wishes wishes;
    choose(plan, &wishes);
    struct exec_request request = {.id = {.session = 5, .counter = bed.counter},
                                   .plan = exec_plan_find(bed.exec, plan->fingerprint),
                                   .word = word,
                                   .kept = wishes.kept,
                                   .donated = wishes.donated,
                                   .kept_bytes = (plan->outputs + 7) / 8,
                                   .donated_bytes = (plan->inputs + 7) / 8,
                                   .answer = wishes.answer,
                                   .answers = wishes.answers};
    struct exec_run *run;
    struct fault fault = {.text = ""};
    int64_t node = -1;
    enum dj_error error = exec_prepare(bed.exec, &request, &run, &node, &fault);
    if (error == DJ_E_OP_UNSUPPORTED) {
        fprintf(stderr, "skipped: %s\n", fault.text);
        return false;
    }
    if (error != DJ_OK)
        fail_msg("%s", fault.text);
    struct fake_tensor *out = arena_zero(bed.arena, (plan->outputs + 1) * sizeof *out);
    struct blob *expected[ANSWERS_MAX];
    run_plan(plan, word, in, out);
    for (uint32_t i = 0; i < wishes.answers; i++)
        expected[i] = twin_bytes(&out[wishes.answer[i]]);
    submit(run, expected, wishes.answers);
    for (uint32_t i = 0; i < plan->inputs; i++)
        if (!plan->input[i].is_leaf && bit_get(wishes.donated, i))
            forget_handle(used[i]);
    for (uint32_t o = 0; o < plan->outputs; o++)
        if (bit_get(wishes.kept, o))
            remember((struct handle){.execution = request.id, .output = o}, out[o]);
    return true;
}

// Executes the plan `times` over, each time with other inputs: the later ones replay a graph.
static void run_random_plan(uint32_t nodes, uint32_t times)
{
    struct random_plan random = random_plan_make(&bed.prng, (struct random_plan_options){.nodes = nodes, .is_runnable = true});
    struct srg_plan *plan = random.plan;
    assert_ok(exec_plan_put(bed.exec, plan));
    bool is_run = true;
    for (uint32_t t = 0; t < times && is_run; t++) {
        bed.counter += 2;
        struct fake_tensor *in = arena_zero(bed.arena, (plan->inputs + 1) * sizeof *in);
        struct handle *used = arena_zero(bed.arena, (plan->inputs + 1) * sizeof *used);
        for (uint32_t i = 0; i < plan->inputs; i++) {
            struct tensor_meta meta;
            assert_ok(binding_meta(plan, random.word, i, &meta, NULL));
            if (plan->input[i].is_leaf) {
                in[i] = random_tensor(&meta);
                put_leaf(plan, random.word, i, &in[i]);
            } else {
                struct twin_value value = bind_handle(plan, random.word, i, &meta);
                in[i] = twin_copy(bed.arena, &value.tensor, &meta);
                used[i] = value.handle;
            }
        }
        is_run = execute(plan, random.word, in, used);
        bed.plans += is_run;
        bed.skipped += !is_run;
        drain(PENDING_MAX / 4);
    }
    random_plan_free(&random);
}

static void interlude(void)
{
    take_done();
    for (int i = 0; i < 4 && bed.values > 0; i++) {
        uint32_t at = (uint32_t)prng_between(&bed.prng, 0, bed.values - 1);
        if (prng_chance(&bed.prng, 1, 2)) {
            struct exec_run *run;
            assert_ok(exec_fetch(bed.exec, bed.value[at].handle, &run, NULL));
            struct blob *expected = twin_bytes(&bed.value[at].tensor);
            submit(run, &expected, 1);
        } else {
            assert_true(exec_release(bed.exec, bed.value[at].handle));
            bed.value[at] = bed.value[--bed.values];
        }
    }
}

static void random_plans_give_the_bits_of_their_nodes_run_one_by_one(void **state)
{
    enum { BEDS = 16, PLANS = 6 };
    uint64_t plans = 0, skipped = 0, replayed = 0;
    for (uint64_t number = 1; number <= BEDS; number++) {
        memset(&bed, 0, sizeof bed);
        bed.prng = case_prng(state, number);
        bed.port = port_make(state);
        assert_ok(exec_make(bed.port, &bed.exec));
        assert_ok(arena_make(1 << 20, 0, &bed.arena));
        for (uint32_t i = 0; i < PLANS; i++) {
            run_random_plan((uint32_t)prng_between(&bed.prng, 1, 24), (uint32_t)prng_between(&bed.prng, 1, 5));
            interlude();
        }
        drain(0);
        plans += bed.plans;
        skipped += bed.skipped;
        replayed += cuda_device_stats(bed.port).graph_launches;
        port_stop(bed.port);
        exec_free(bed.exec);
        arena_free(bed.arena);
    }
    assert_true(plans > 150);
    assert_true(replayed > 20);
    assert_int_equal(skipped, 0);
}

CASES(random_plans_give_the_bits_of_their_nodes_run_one_by_one)
