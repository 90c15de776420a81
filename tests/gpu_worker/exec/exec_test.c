// What the executor promises, against its twin (twin.h): whatever is kept, donated, retained, released, appended to or in flight, every
// value that can be read has the twin's bytes, and at the end no byte of the region is lost.

#include "gpu_worker/exec/exec.h"

#include "core/base/bits.h"
#include "tests/gpu_worker/exec/twin.h"
#include "tests/lib/random_plan.h"

#include <stdio.h>
#include <string.h>

enum { VALUES_MAX = 512, PENDING_MAX = 64 };

static const uint64_t CAPACITY = 8 << 20;

struct pending {    // a run in flight, and what it must answer
    struct exec_run *run;
    struct blob *expected[16];
};

struct bed {
    struct fake_device device;
    struct exec *exec;
    struct arena *arena;
    struct prng prng;
    uint64_t counter;
    struct twin_value value[VALUES_MAX];
    uint32_t values;
    struct pending pending[PENDING_MAX];
    uint32_t head, tail;
};

static struct bed bed;

static uint64_t pick(uint64_t below)
{
    return prng_between(&bed.prng, 0, below - 1);
}

static void bed_make(void **state, uint64_t seed, uint64_t capacity)
{
    ops_init();
    memset(&bed, 0, sizeof bed);
    bed.prng = case_prng(state, seed);
    fake_init(&bed.device, capacity);
    assert_ok(exec_make(&bed.device.port, &bed.exec));
    assert_ok(arena_make(1 << 20, 0, &bed.arena));
}

static struct exec_id id_of(uint64_t counter)
{
    return (struct exec_id){.session = 5, .counter = counter};
}

static void submit(struct exec_run *run, struct blob *const *expected)
{
    bed.device.port.submit(&bed.device, &run->list);
    struct pending *pending = &bed.pending[bed.tail++ % PENDING_MAX];
    memset(pending, 0, sizeof *pending);
    pending->run = run;
    for (uint32_t i = 0; i < run->answers; i++)
        pending->expected[i] = expected[i];
}

// Carries out the oldest list and checks its answers. False when nothing is in flight.
static bool step(void)
{
    struct device_list *list = fake_step(&bed.device);
    if (list == NULL)
        return false;
    struct pending *pending = &bed.pending[bed.head++ % PENDING_MAX];
    struct exec_run *run = pending->run;
    assert_ptr_equal(list, &run->list);
    exec_complete(bed.exec, run);
    for (uint32_t i = 0; i < run->answers; i++) {
        const struct exec_answer *answer = &run->answer[i];
        if (run->error == DJ_OK)
            assert_memory_equal(run->blob->data + answer->offset, pending->expected[i]->data, answer->bytes);
        blob_drop(pending->expected[i]);
    }
    exec_run_free(bed.exec, run);
    return true;
}

static void drain(void)
{
    while (step()) {
    }
}

static struct fake_tensor random_tensor(const struct tensor_meta *meta)
{
    struct fake_tensor tensor = {.data = twin_memory(bed.arena, meta), .meta = *meta};
    uint64_t seed = pick(64);    // few contents, so that leaves are shared
    size_t bytes = (size_t)tensor_span(meta) * dtype_bytes(meta->dtype);
    for (size_t i = 0; i < bytes; i++)
        tensor.data[i] = (uint8_t)hash_mix(seed, meta->dtype == DTYPE_BOOL ? 1 : i) & (meta->dtype == DTYPE_BOOL ? 1 : 0xff);
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

static struct fake_tensor import_value(struct handle handle, const struct tensor_meta *meta)
{
    struct tensor_meta dense = *meta;
    tensor_make_contiguous(&dense);
    struct fake_tensor tensor = random_tensor(&dense);
    struct blob *blob = blob_copy(tensor.data, (size_t)tensor_bytes(&dense));
    struct exec_run *run;
    assert_ok(exec_import(bed.exec, handle, &dense, blob, &run, NULL));
    blob_drop(blob);
    submit(run, NULL);
    return tensor;
}

static void remember(struct handle handle, struct fake_tensor tensor)
{
    assert_true(bed.values < VALUES_MAX);
    bed.value[bed.values++] = (struct twin_value){.handle = handle, .tensor = tensor};
}

static void forget(uint32_t at)
{
    bed.value[at] = bed.value[--bed.values];
}

static void forget_handle(struct handle handle)
{
    for (uint32_t i = 0; i < bed.values; i++) {
        if (handle_equal(bed.value[i].handle, handle))
            forget(i--);
    }
}

// Binds a handle input to a value of the same sizes and dtype, if there is one, else to an imported one.
static struct twin_value bind_handle(const struct srg_plan *plan, int64_t *word, uint32_t input, const struct tensor_meta *meta)
{
    uint32_t start = bed.values == 0 ? 0 : (uint32_t)pick(bed.values);
    for (uint32_t i = 0; i < bed.values && !prng_chance(&bed.prng, 1, 6); i++) {
        struct twin_value *value = &bed.value[(start + i) % bed.values];
        if (value->tensor.meta.dtype != meta->dtype || !tensor_same_sizes(&value->tensor.meta, meta))
            continue;
        binding_set_handle(plan, word, input, bed.counter - value->handle.execution.counter, value->handle.output);
        return *value;
    }
    struct handle handle = {.execution = id_of(bed.counter - 1), .output = input};
    binding_set_handle(plan, word, input, 1, input);
    struct twin_value made = {.handle = handle, .tensor = import_value(handle, meta)};
    remember(handle, made.tensor);
    return made;
}

struct wishes {
    uint8_t kept[512], donated[512];
    uint32_t answer[16], answers;
};

// Prepares and submits one execution, and lets the twin run it.
static enum dj_error execute(const struct srg_plan *plan, int64_t *word, struct fake_tensor *in, struct handle *used,
                             struct wishes *wishes)
{
    struct fake_tensor *out = arena_zero(bed.arena, (plan->outputs + 1) * sizeof *out);
    struct exec_plan *held = exec_plan_find(bed.exec, plan->fingerprint);
    struct exec_request request = {.id = id_of(bed.counter),
                                   .plan = held,
                                   .word = word,
                                   .kept = wishes->kept,
                                   .donated = wishes->donated,
                                   .kept_bytes = (plan->outputs + 7) / 8,
                                   .donated_bytes = (plan->inputs + 7) / 8,
                                   .answer = wishes->answer,
                                   .answers = wishes->answers};
    struct exec_run *run;
    struct fault fault = {.text = ""};
    int64_t node = -1;
    enum dj_error error = exec_prepare(bed.exec, &request, &run, &node, &fault);
    if (error != DJ_OK)
        return error;
    twin_run(bed.arena, plan, word, in, out);
    struct blob *expected[16];
    for (uint32_t i = 0; i < wishes->answers; i++)
        expected[i] = twin_bytes(&out[wishes->answer[i]]);
    submit(run, expected);
    for (uint32_t i = 0; i < plan->inputs; i++) {
        if (!plan->input[i].is_leaf && bit_get(wishes->donated, i))
            forget_handle(used[i]);
    }
    for (uint32_t o = 0; o < plan->outputs; o++) {
        if (bit_get(wishes->kept, o))
            remember((struct handle){.execution = request.id, .output = o}, out[o]);
    }
    return DJ_OK;
}

static void run_random_plan(uint32_t nodes)
{
    struct random_plan random = random_plan_make(&bed.prng, (struct random_plan_options){.nodes = nodes});
    struct srg_plan *plan = random.plan;
    bed.counter += 2;
    assert_ok(exec_plan_put(bed.exec, plan));
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
    static struct wishes wishes;
    memset(&wishes, 0, sizeof wishes);
    for (uint32_t o = 0; o < plan->outputs; o++) {
        if (prng_chance(&bed.prng, 1, 4) && bed.values < VALUES_MAX / 2)
            bit_set(wishes.kept, o);
    }
    for (uint32_t i = 0; i < plan->inputs; i++) {
        if (!plan->input[i].is_leaf && prng_chance(&bed.prng, 1, 2))
            bit_set(wishes.donated, i);
    }
    wishes.answers = (uint32_t)pick(4);
    for (uint32_t i = 0; i < wishes.answers; i++)
        wishes.answer[i] = (uint32_t)pick(plan->outputs);
    assert_ok(execute(plan, random.word, in, used, &wishes));
    random_plan_free(&random);
}

static void fetch(uint32_t at)
{
    struct exec_run *run;
    assert_ok(exec_fetch(bed.exec, bed.value[at].handle, &run, NULL));
    struct blob *expected = twin_bytes(&bed.value[at].tensor);
    submit(run, &expected);
}

static void release(uint32_t at)
{
    assert_true(exec_release(bed.exec, bed.value[at].handle));
    forget(at);
}

static void random_interlude(void)
{
    while (bed.tail - bed.head > 16 || prng_chance(&bed.prng, 1, 2)) {
        if (!step())
            break;
    }
    for (int i = 0; i < 4 && bed.values > 0; i++) {
        if (prng_chance(&bed.prng, 1, 2))
            fetch((uint32_t)pick(bed.values));
        else
            release((uint32_t)pick(bed.values));
    }
}

// Everything is read once more, then released; then one value as large as the whole region must fit.
static void bed_end(void)
{
    for (uint32_t i = 0; i < bed.values; i++) {
        fetch(i);
        if (i % 16 == 0)
            drain();
    }
    while (bed.values > 0)
        release(0);
    drain();
    assert_int_equal(exec_stats(bed.exec).values, 0);
    assert_int_equal(exec_stats(bed.exec).in_flight, 0);
    uint64_t capacity = exec_stats(bed.exec).capacity_bytes;
    struct tensor_meta all = {.dtype = DTYPE_U8, .rank = 1, .size = {(int64_t)capacity}, .stride = {1}};
    struct blob *blob = blob_make(capacity);
    struct exec_run *run;
    assert_ok(exec_import(bed.exec, (struct handle){.execution = id_of(1), .output = 0}, &all, blob, &run, NULL));
    blob_drop(blob);
    submit(run, NULL);
    drain();
    exec_free(bed.exec);
    fake_free(&bed.device);
    arena_free(bed.arena);
}

static void random_plans_with_random_keeping_donating_and_releasing_equal_the_twin(void **state)
{
    uint64_t executions = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        bed_make(state, seed, CAPACITY);
        uint32_t plans = (uint32_t)prng_between(&bed.prng, 2, 12);
        for (uint32_t i = 0; i < plans; i++) {
            run_random_plan((uint32_t)prng_between(&bed.prng, 1, 80));
            random_interlude();
        }
        struct exec_stats stats = exec_stats(bed.exec);
        executions += stats.executions;
        bed_end();
    }
    assert_true(executions > 1000);
}

// A plan of one cat: a handle and a leaf along `dim`, with a view of the result kept too when asked.
static struct srg_plan *cat_plan(const struct tensor_meta *c, bool c_is_leaf, const struct tensor_meta *x, int64_t dim)
{
    struct plan_builder *builder;
    assert_ok(plan_builder_make(&builder));
    struct srg_input input = {
        .is_leaf = c_is_leaf, .is_contiguous = true, .dtype = (uint8_t)c->dtype, .rank = (uint8_t)c->rank, .device = 255};
    uint32_t index;
    assert_ok(plan_add_input(builder, &input, &index));
    input.is_leaf = true;
    input.rank = (uint8_t)x->rank;
    assert_ok(plan_add_input(builder, &input, &index));
    struct srg_ref ref[2] = {{.kind = REF_INPUT, .index = 0}, {.kind = REF_INPUT, .index = 1}};
    struct attr attr = {.kind = ATTR_INT, .i = dim};
    uint8_t dtype[OP_OUTPUTS_MAX] = {(uint8_t)c->dtype};
    assert_ok(plan_add_node(builder, op_info(OP_CAT), ref, 2, &attr, dtype, 0, 255, &index));
    struct srg_ref own = {.kind = REF_NODE, .index = index};
    assert_ok(plan_add_node(builder, op_info(OP_NEG), &own, 1, NULL, dtype, 0, 255, &index));
    struct srg_plan *plan;
    struct fault fault;
    assert_ok(plan_finish(builder, &plan, &fault));
    plan_builder_free(builder);
    return plan;
}

static void grow_one(uint32_t at, int64_t dim, int64_t rows, bool donate)
{
    struct twin_value c = bed.value[at];
    struct tensor_meta x = c.tensor.meta, c_meta = c.tensor.meta;
    x.size[dim < 0 ? dim + x.rank : dim] = rows;
    tensor_make_contiguous(&x);
    tensor_make_contiguous(&c_meta);
    struct srg_plan *plan = cat_plan(&c_meta, false, &x, dim);
    assert_ok(exec_plan_put(bed.exec, plan));
    bed.counter++;
    int64_t *word = arena_zero(bed.arena, plan->words * sizeof *word);
    binding_set_meta(plan, word, 0, &c_meta);
    binding_set_meta(plan, word, 1, &x);
    struct attr attr = {.kind = ATTR_INT, .i = dim};
    binding_set_node(plan, word, 0, &attr, NULL);
    binding_set_handle(plan, word, 0, bed.counter - c.handle.execution.counter, c.handle.output);
    struct fake_tensor in[2] = {c.tensor, random_tensor(&x)};
    put_leaf(plan, word, 1, &in[1]);
    struct wishes wishes = {.kept = {1}, .donated = {donate ? 1 : 0}, .answer = {1}, .answers = 1};
    struct handle used[2] = {c.handle};
    assert_ok(execute(plan, word, in, used, &wishes));
    plan_drop(plan);
}

static void grown_values_with_branches_and_retained_ancestors_equal_the_twin(void **state)
{
    uint64_t appends = 0, copies = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        bed_make(state, seed, CAPACITY);
        bed.counter = 1;
        struct tensor_meta first = {.dtype = DTYPE_F32, .rank = 4, .size = {1, 2, 3, 4}};
        tensor_make_contiguous(&first);
        struct handle handle = {.execution = id_of(1)};
        remember(handle, import_value(handle, &first));
        for (int i = 0; i < 40 && bed.values > 0; i++) {
            uint32_t at = prng_chance(&bed.prng, 2, 3) ? bed.values - 1 : (uint32_t)pick(bed.values);
            int64_t dim = prng_chance(&bed.prng, 5, 6) ? -2 : (int64_t)pick(4);
            if (tensor_count(&bed.value[at].tensor.meta) < 20000)
                grow_one(at, dim, (int64_t)pick(4), prng_chance(&bed.prng, 1, 2));
            while (prng_chance(&bed.prng, 1, 2) && step()) {
            }
            while (bed.tail - bed.head > 16)
                step();
            if (bed.values > 3 && prng_chance(&bed.prng, 1, 4))
                release((uint32_t)pick(bed.values - 1));
            if (bed.values > 0 && prng_chance(&bed.prng, 1, 3))
                fetch((uint32_t)pick(bed.values));
        }
        appends += exec_stats(bed.exec).appends;
        copies += exec_stats(bed.exec).cat_copies;
        bed_end();
    }
    assert_true(appends > 1000);
    assert_true(copies > 200);
}

static void a_cache_that_grows_by_one_row_copies_seldom_and_a_branch_from_it_copies_once(void **state)
{
    bed_make(state, 1, CAPACITY);
    bed.counter = 1;
    struct tensor_meta first = {.dtype = DTYPE_F32, .rank = 4, .size = {1, 2, 8, 4}};
    tensor_make_contiguous(&first);
    struct handle handle = {.execution = id_of(1)};
    remember(handle, import_value(handle, &first));
    for (int i = 0; i < 60; i++) {
        grow_one(bed.values - 1, -2, 1, true);
        drain();
        assert_int_equal(bed.values, 1);
    }
    assert_int_equal(exec_stats(bed.exec).appends, 59);
    assert_int_equal(exec_stats(bed.exec).cat_copies, 1);

    // Two continuations of the retained value: the first appends, the second finds the mark advanced and copies.
    grow_one(0, -2, 1, false);
    grow_one(0, -2, 1, false);
    drain();
    assert_int_equal(exec_stats(bed.exec).appends, 60);
    assert_int_equal(exec_stats(bed.exec).cat_copies, 2);
    bed_end();
}

static void what_builds_on_a_failed_execution_fails_with_its_error(void **state)
{
    bed_make(state, 3, CAPACITY);
    bed.counter = 1;
    struct tensor_meta first = {.dtype = DTYPE_F32, .rank = 2, .size = {3, 4}};
    tensor_make_contiguous(&first);
    struct handle handle = {.execution = id_of(1)};
    remember(handle, import_value(handle, &first));
    drain();
    bed.device.fail_task = 2;    // the next execution's second kernel
    grow_one(0, 0, 1, false);
    grow_one(1, 0, 1, false);    // prepared before anybody knows
    struct exec_run *late;
    assert_ok(exec_fetch(bed.exec, bed.value[2].handle, &late, NULL));
    struct blob *expected = blob_make(4096);
    submit(late, &expected);
    drain();
    struct fault fault;
    struct exec_run *run;
    assert_error(DJ_E_INDEX, exec_fetch(bed.exec, bed.value[1].handle, &run, &fault));
    assert_string_equal(fault.text, "the test said so");
    assert_error(DJ_E_INDEX, exec_fetch(bed.exec, bed.value[2].handle, &run, &fault));
    release(2);
    release(1);
    bed_end();
}

static void without_memory_nothing_changes_and_the_error_says_sizes(void **state)
{
    bed_make(state, 3, 1 << 16);
    bed.counter = 1;
    struct tensor_meta first = {.dtype = DTYPE_F32, .rank = 2, .size = {3000, 4}};
    tensor_make_contiguous(&first);
    struct handle handle = {.execution = id_of(1)};
    remember(handle, import_value(handle, &first));
    drain();
    uint64_t used = exec_stats(bed.exec).used_bytes;
    struct tensor_meta x = {.dtype = DTYPE_F32, .rank = 2, .size = {1, 4}, .stride = {4, 1}};
    struct srg_plan *plan = cat_plan(&first, false, &x, 0);
    assert_ok(exec_plan_put(bed.exec, plan));
    bed.counter++;
    int64_t *word = arena_zero(bed.arena, plan->words * sizeof *word);
    binding_set_meta(plan, word, 0, &first);
    binding_set_meta(plan, word, 1, &x);
    binding_set_handle(plan, word, 0, 1, 0);
    struct fake_tensor in[2] = {bed.value[0].tensor, random_tensor(&x)};
    put_leaf(plan, word, 1, &in[1]);
    struct exec_request request = {.id = id_of(2),
                                   .plan = exec_plan_find(bed.exec, plan->fingerprint),
                                   .word = word,
                                   .kept = (const uint8_t[]){1},
                                   .kept_bytes = 1,
                                   .donated = (const uint8_t[]){1},
                                   .donated_bytes = 1};
    struct exec_run *run;
    struct fault fault;
    assert_error(DJ_E_DEVICE_MEMORY, exec_prepare(bed.exec, &request, &run, NULL, &fault));
    assert_non_null(strstr(fault.text, "65536"));
    assert_int_equal(exec_stats(bed.exec).used_bytes, used);
    assert_true(exec_has(bed.exec, handle));
    plan_drop(plan);
    bed_end();
}

static void a_leaf_in_pieces_is_there_when_the_last_is_written_and_a_wrong_hash_drops_it(void **state)
{
    bed_make(state, 3, CAPACITY);
    uint8_t bytes[1000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    struct hash128 content = hash128(bytes, sizeof bytes), wrong = content;
    wrong.lo ^= 1;
    for (int is_wrong = 0; is_wrong < 2; is_wrong++) {
        struct hash128 name = is_wrong ? wrong : content;
        struct fault fault;
        assert_ok(exec_leaf_begin(bed.exec, name, sizeof bytes, &fault));
        enum dj_error error = DJ_OK;
        for (uint64_t at = 0; at < sizeof bytes && error == DJ_OK; at += 250) {
            assert_int_equal(exec_leaf_state(bed.exec, name), LEAF_FILLING);
            struct blob *blob = blob_copy(bytes + at, 250);
            struct exec_run *run;
            error = exec_leaf_chunk(bed.exec, name, at, blob, &run, &fault);
            blob_drop(blob);
            if (error == DJ_OK)
                submit(run, NULL);
        }
        assert_error(is_wrong ? DJ_E_FRAME_CORRUPT : DJ_OK, error);
        drain();
        assert_int_equal(exec_leaf_state(bed.exec, name), is_wrong ? LEAF_ABSENT : LEAF_READY);
    }
    struct exec_run *run;
    assert_ok(exec_leaf_read(bed.exec, content, 100, 500, &run));
    bed.device.port.submit(&bed.device, &run->list);
    assert_ptr_equal(fake_step(&bed.device), &run->list);
    exec_complete(bed.exec, run);
    assert_memory_equal(run->blob->data, bytes + 100, 500);
    exec_run_free(bed.exec, run);
    exec_leaf_set_durable(bed.exec, content);
    bed_end();
}

// y = -x, z = y + y.t(): y dies at the sum, but its memory cannot become z's, since every element is read again in another place.
static void a_dying_input_that_is_read_through_two_views_is_not_overwritten(void **state)
{
    bed_make(state, 4, CAPACITY);
    bed.counter = 1;
    struct tensor_meta square = {.dtype = DTYPE_F32, .rank = 2, .size = {3, 3}, .stride = {3, 1}};
    struct handle handle = {.execution = id_of(1)};
    remember(handle, import_value(handle, &square));
    drain();
    struct plan_builder *builder;
    struct srg_plan *plan;
    struct fault fault;
    uint32_t x, y, t, z;
    uint8_t dtype[OP_OUTPUTS_MAX] = {DTYPE_F32};
    struct srg_input input = {.is_contiguous = true, .dtype = DTYPE_F32, .rank = 2, .device = 255};
    assert_ok(plan_builder_make(&builder));
    assert_ok(plan_add_input(builder, &input, &x));
    struct srg_ref ref[2] = {{.kind = REF_INPUT, .index = x}};
    assert_ok(plan_add_node(builder, op_info(OP_NEG), ref, 1, NULL, dtype, 0, 255, &y));
    ref[0] = (struct srg_ref){.kind = REF_NODE, .index = y};
    assert_ok(plan_add_node(builder, op_info(OP_T), ref, 1, NULL, dtype, 0, 255, &t));
    ref[1] = (struct srg_ref){.kind = REF_NODE, .index = t};
    struct attr alpha = {.kind = ATTR_INT, .i = 1};
    assert_ok(plan_add_node(builder, op_info(OP_ADD), ref, 2, &alpha, dtype, 0, 255, &z));
    assert_ok(plan_finish(builder, &plan, &fault));
    plan_builder_free(builder);
    assert_ok(exec_plan_put(bed.exec, plan));
    bed.counter++;
    int64_t *word = arena_zero(bed.arena, plan->words * sizeof *word);
    binding_set_meta(plan, word, 0, &square);
    binding_set_handle(plan, word, 0, 1, 0);
    binding_set_node(plan, word, z, &alpha, NULL);
    struct wishes wishes = {.donated = {1}, .answer = {z}, .answers = 1};
    assert_ok(execute(plan, word, &bed.value[0].tensor, &handle, &wishes));
    drain();
    assert_int_equal(exec_stats(bed.exec).in_place, 1);    // x's memory became y's
    plan_drop(plan);
    bed_end();
}

CASES(random_plans_with_random_keeping_donating_and_releasing_equal_the_twin,
      grown_values_with_branches_and_retained_ancestors_equal_the_twin,
      a_cache_that_grows_by_one_row_copies_seldom_and_a_branch_from_it_copies_once,
      what_builds_on_a_failed_execution_fails_with_its_error, without_memory_nothing_changes_and_the_error_says_sizes,
      a_dying_input_that_is_read_through_two_views_is_not_overwritten,
      a_leaf_in_pieces_is_there_when_the_last_is_written_and_a_wrong_hash_drops_it)
