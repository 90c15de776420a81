// Values under their handles: names, second names, what stays and what is replaced; pins, and reading a piece at a time while the program
// goes on.

#include "gpu_worker/exec/exec.h"

#include "tests/gpu_worker/exec/twin.h"

#include <stdio.h>
#include <string.h>

static struct {
    struct fake_device device;
    struct exec *exec;
    struct arena *arena;
    struct exec_run *run[64];
    uint32_t head, tail;
} bed;

static void bed_end(void *unused)
{
    (void)unused;
    exec_free(bed.exec);
    fake_free(&bed.device);
    arena_free(bed.arena);
}

static void bed_make(void **state)
{
    ops_init();
    memset(&bed, 0, sizeof bed);
    fake_init(&bed.device, 1 << 20);
    assert_ok(exec_make(&bed.device.port, &bed.exec));
    assert_ok(arena_make(1 << 16, 0, &bed.arena));
    case_later(state, bed_end, NULL);
}

static struct handle handle_of(uint64_t counter, uint32_t output)
{
    return (struct handle){.execution = {.session = 5, .counter = counter}, .output = output};
}

static void submit(struct exec_run *run)
{
    bed.device.port.submit(&bed.device, &run->list);
    bed.run[bed.tail++ % 64] = run;
}

// Carries out everything; the last run's error. *ret_blob (may be NULL) gets a hold of its bytes.
static enum dj_error drain(struct blob **ret_blob)
{
    enum dj_error error = DJ_OK;
    while (fake_step(&bed.device) != NULL) {
        struct exec_run *run = bed.run[bed.head++ % 64];
        exec_complete(bed.exec, run);
        error = run->error;
        if (ret_blob != NULL && bed.head == bed.tail)
            *ret_blob = blob_hold(run->blob);
        exec_run_free(bed.exec, run);
    }
    return error;
}

static void put(uint64_t counter, const struct tensor_meta *meta, const void *bytes)
{
    struct blob *blob = blob_copy(bytes, (size_t)tensor_bytes(meta));
    struct exec_run *run;
    assert_ok(exec_import(bed.exec, handle_of(counter, 0), meta, blob, &run, NULL));
    blob_drop(blob);
    submit(run);
    assert_ok(drain(NULL));
}

// NEG of one handle, whose output is kept `outputs` times (views of it count too).
static struct srg_plan *neg_plan(const struct tensor_meta *meta, bool with_other)
{
    struct plan_builder *builder;
    struct srg_plan *plan;
    struct fault fault;
    uint32_t index;
    uint8_t dtype[OP_OUTPUTS_MAX] = {(uint8_t)meta->dtype};
    struct srg_input input = {.is_contiguous = true, .dtype = (uint8_t)meta->dtype, .rank = (uint8_t)meta->rank, .device = 255};
    struct srg_ref ref = {.kind = REF_INPUT};
    assert_ok(plan_builder_make(&builder));
    assert_ok(plan_add_input(builder, &input, &index));
    assert_ok(plan_add_node(builder, op_info(OP_NEG), &ref, 1, NULL, dtype, 0, 255, &index));
    if (with_other)
        assert_ok(plan_add_node(builder, op_info(OP_ABS), &ref, 1, NULL, dtype, 0, 255, &index));
    assert_ok(plan_finish(builder, &plan, &fault));
    plan_builder_free(builder);
    assert_ok(exec_plan_put(bed.exec, plan));
    return plan;
}

struct ask {
    uint64_t counter, distance;
    uint8_t kept, donated;
    const uint32_t *name;
    uint32_t names;
};

static enum dj_error run(const struct srg_plan *plan, const struct tensor_meta *meta, struct ask ask, struct fault *fault)
{
    int64_t word[64] = {0};
    struct exec_run *made;
    binding_set_meta(plan, word, 0, meta);
    binding_set_handle(plan, word, 0, ask.distance, 0);
    struct exec_request request = {.id = {.session = 5, .counter = ask.counter},
                                   .plan = exec_plan_find(bed.exec, plan->fingerprint),
                                   .word = word,
                                   .kept = &ask.kept,
                                   .kept_bytes = 1,
                                   .donated = &ask.donated,
                                   .donated_bytes = 1,
                                   .name = ask.name,
                                   .names = ask.names};
    enum dj_error error = exec_prepare(bed.exec, &request, &made, NULL, fault);
    if (error != DJ_OK)
        exec_fail(bed.exec, &request, -1, fault);
    else
        submit(made);
    return error;
}

static struct blob *fetch(struct handle handle)
{
    struct exec_run *made;
    struct blob *blob = NULL;
    assert_ok(exec_fetch(bed.exec, handle, &made, NULL));
    submit(made);
    assert_ok(drain(&blob));
    return blob;
}

static struct tensor_meta grid(int64_t a, int64_t b, int64_t c)
{
    struct tensor_meta meta = {.dtype = DTYPE_F32, .rank = 3, .size = {a, b, c}};
    tensor_make_contiguous(&meta);
    return meta;
}

static void kept_outputs_have_the_names_they_are_given_and_all_of_them_are_checked(void **state)
{
    bed_make(state);
    struct tensor_meta meta = grid(1, 1, 4);
    const float bytes[4] = {1, 2, 3, 4};
    put(1, &meta, bytes);
    struct srg_plan *plan = neg_plan(&meta, true);
    struct fault fault = {0};
    const uint32_t name[] = {9, 4}, twice[] = {4, 4};
    assert_error(DJ_E_BINDINGS_INVALID, run(plan, &meta, (struct ask){2, 1, 3, 0, twice, 2}, &fault));
    assert_error(DJ_E_BINDINGS_INVALID, run(plan, &meta, (struct ask){3, 2, 3, 0, name, 1}, &fault));
    assert_ok(run(plan, &meta, (struct ask){5, 4, 3, 0, name, 2}, &fault));
    assert_ok(run(plan, &meta, (struct ask){6, 5, 3, 0, NULL, 0}, &fault));
    assert_int_equal(exec_value_state(bed.exec, handle_of(5, 9)), VALUE_COMING);
    drain(NULL);
    assert_int_equal(exec_value_state(bed.exec, handle_of(5, 0)), VALUE_ABSENT);
    for (uint32_t o = 0; o < 2; o++) {
        struct blob *named = fetch(handle_of(5, name[o])), *plain = fetch(handle_of(6, o));
        assert_memory_equal(named->data, plain->data, 16);
        blob_drop(named);
        blob_drop(plain);
    }
    plan_drop(plan);
}

static void a_value_stays_when_its_execution_comes_again_and_a_failed_one_is_replaced(void **state)
{
    bed_make(state);
    struct tensor_meta meta = grid(1, 1, 4);
    const float bytes[4] = {1, 2, 3, 4}, other[4] = {5, 6, 7, 8};
    struct srg_plan *plan = neg_plan(&meta, false);
    struct fault fault = {0};
    assert_error(DJ_E_HANDLE_UNKNOWN, run(plan, &meta, (struct ask){.counter = 3, .distance = 2, .kept = 1}, &fault));
    assert_int_equal(exec_value_state(bed.exec, handle_of(3, 0)), VALUE_FAILED);
    put(1, &meta, bytes);
    assert_ok(run(plan, &meta, (struct ask){.counter = 3, .distance = 2, .kept = 1}, &fault));
    drain(NULL);
    assert_int_equal(exec_value_state(bed.exec, handle_of(3, 0)), VALUE_HERE);
    struct blob *first = fetch(handle_of(3, 0));
    put(2, &meta, other);
    uint64_t used = exec_stats(bed.exec).used_bytes;
    assert_ok(run(plan, &meta, (struct ask){.counter = 3, .distance = 1, .kept = 1}, &fault));    // same name, other input
    drain(NULL);
    struct blob *again = fetch(handle_of(3, 0));
    assert_memory_equal(first->data, again->data, 16);
    assert_int_equal(exec_stats(bed.exec).used_bytes, used);
    bed.device.fail_task = 1;
    assert_ok(run(plan, &meta, (struct ask){.counter = 3, .distance = 1, .kept = 1}, &fault));
    assert_error(DJ_E_INDEX, drain(NULL));
    assert_int_equal(exec_value_state(bed.exec, handle_of(3, 0)), VALUE_HERE);
    blob_drop(first);
    blob_drop(again);
    plan_drop(plan);
}

static void a_second_name_outlives_the_first(void **state)
{
    bed_make(state);
    struct tensor_meta meta = grid(1, 1, 4);
    const float bytes[4] = {1, 2, 3, 4};
    put(1, &meta, bytes);
    struct fault fault = {0};
    assert_ok(exec_alias(bed.exec, handle_of(1, 0), handle_of(7, 2), &fault));
    assert_error(DJ_E_HANDLE_UNKNOWN, exec_alias(bed.exec, handle_of(2, 0), handle_of(7, 3), &fault));
    assert_true(exec_release(bed.exec, handle_of(1, 0)));
    struct blob *blob = fetch(handle_of(7, 2));
    assert_memory_equal(blob->data, bytes, 16);
    blob_drop(blob);
    assert_int_equal(exec_session_drop(bed.exec, 5), 1);
    assert_int_equal(exec_stats(bed.exec).used_bytes, 0);
}

static void a_pinned_value_can_be_read_after_another_execution_took_it(void **state)
{
    bed_make(state);
    struct tensor_meta meta = grid(2, 3, 4);
    float bytes[24];
    for (int i = 0; i < 24; i++)
        bytes[i] = (float)i;
    put(1, &meta, bytes);
    struct exec_pin pin;
    assert_ok(exec_pin(bed.exec, handle_of(1, 0), &pin));
    struct srg_plan *plan = neg_plan(&meta, false);
    struct fault fault = {0};
    assert_ok(run(plan, &meta, (struct ask){.counter = 2, .distance = 1, .kept = 1, .donated = 1}, &fault));
    drain(NULL);
    assert_false(exec_has(bed.exec, handle_of(1, 0)));
    for (uint32_t dim = 0; dim < 3; dim++) {
        for (int64_t start = 0; start < meta.size[dim]; start++) {
            for (int64_t rows = 0; rows <= meta.size[dim] - start; rows++) {
                struct exec_run *read;
                struct blob *blob = NULL;
                assert_ok(exec_read(bed.exec, &pin, dim, start, rows, &read));
                assert_int_equal(read->list.stream, DEVICE_TRANSFER);
                submit(read);
                assert_ok(drain(&blob));
                int64_t count[3] = {meta.size[0], meta.size[1], meta.size[2]}, from[3] = {0};
                count[dim] = rows;
                from[dim] = start;
                const float *at = (const float *)(const void *)blob->data;
                assert_int_equal(blob->bytes, count[0] * count[1] * count[2] * 4);
                for (int64_t i = 0; i < count[0] * count[1] * count[2]; i++) {
                    int64_t a = i / (count[1] * count[2]) + from[0], b = i / count[2] % count[1] + from[1],
                            c = i % count[2] + from[2];
                    assert_true(at[i] == bytes[(a * 3 + b) * 4 + c]);
                }
                blob_drop(blob);
            }
        }
    }
    struct exec_run *never;
    assert_error(DJ_E_INVALID, exec_read(bed.exec, &pin, 1, 2, 2, &never));
    assert_error(DJ_E_INVALID, exec_read(bed.exec, &pin, 3, 0, 1, &never));
    exec_unpin(bed.exec, &pin);
    assert_int_equal(exec_session_drop(bed.exec, 5), 1);
    assert_int_equal(exec_stats(bed.exec).used_bytes, 0);
    plan_drop(plan);
}

static struct srg_plan *cat_plan(uint32_t rank, int64_t along)
{
    struct plan_builder *builder;
    struct srg_plan *plan;
    struct fault fault;
    uint32_t index;
    uint8_t dtype[OP_OUTPUTS_MAX] = {DTYPE_F32};
    struct srg_input input = {.is_contiguous = true, .dtype = DTYPE_F32, .rank = (uint8_t)rank, .device = 255};
    struct srg_ref ref[2] = {{.kind = REF_INPUT, .index = 0}, {.kind = REF_INPUT, .index = 1}};
    struct attr dim = {.kind = ATTR_INT, .i = along};
    assert_ok(plan_builder_make(&builder));
    assert_ok(plan_add_input(builder, &input, &index));
    assert_ok(plan_add_input(builder, &input, &index));
    assert_ok(plan_add_node(builder, op_info(OP_CAT), ref, 2, &dim, dtype, 0, 255, &index));
    assert_ok(plan_finish(builder, &plan, &fault));
    plan_builder_free(builder);
    assert_ok(exec_plan_put(bed.exec, plan));
    return plan;
}

static void cat(const struct srg_plan *plan, uint64_t counter, uint64_t old, const struct tensor_meta *old_meta, uint64_t more,
                const struct tensor_meta *more_meta)
{
    int64_t word[64] = {0};
    const uint8_t kept = 1;
    struct exec_run *made;
    binding_set_meta(plan, word, 0, old_meta);
    binding_set_meta(plan, word, 1, more_meta);
    binding_set_handle(plan, word, 0, counter - old, 0);
    binding_set_handle(plan, word, 1, counter - more, 0);
    struct exec_request request = {.id = {.session = 5, .counter = counter},
                                   .plan = exec_plan_find(bed.exec, plan->fingerprint),
                                   .word = word,
                                   .kept = &kept,
                                   .kept_bytes = 1};
    assert_ok(exec_prepare(bed.exec, &request, &made, NULL, NULL));
    submit(made);
    drain(NULL);
}

static void values_that_grow_say_in_what_and_which_share_their_first_rows(void **state)
{
    bed_make(state);
    float bytes[64];
    for (int i = 0; i < 64; i++)
        bytes[i] = (float)i;
    struct tensor_meta two = grid(2, 2, 4), one = grid(2, 1, 4), three = grid(2, 3, 4), four = grid(2, 4, 4);
    put(1, &two, bytes);
    put(2, &one, bytes + 16);
    struct srg_plan *plan = cat_plan(3, 1);
    cat(plan, 3, 1, &two, 2, &one);      // a copy with room to grow
    cat(plan, 4, 3, &three, 2, &one);    // appended
    cat(plan, 5, 3, &three, 2, &one);    // a branch: a copy
    struct exec_pin plain, grown, appended, branch;
    assert_ok(exec_pin(bed.exec, handle_of(1, 0), &plain));
    assert_ok(exec_pin(bed.exec, handle_of(3, 0), &grown));
    assert_ok(exec_pin(bed.exec, handle_of(4, 0), &appended));
    assert_ok(exec_pin(bed.exec, handle_of(5, 0), &branch));
    assert_int_equal(plain.grow_dim, -1);
    assert_int_equal(plain.memory, 0);
    assert_int_equal(grown.grow_dim, 1);
    assert_true(grown.memory != 0 && grown.memory == appended.memory);
    assert_true(branch.memory != grown.memory);
    assert_true(tensor_same_sizes(&appended.meta, &four) && tensor_is_contiguous(&appended.meta));
    struct exec_run *read;
    struct blob *blob = NULL;
    assert_ok(exec_read(bed.exec, &appended, 1, 1, 2, &read));    // not dense: the strides are the capacity's
    assert_int_equal(read->list.stream, DEVICE_TRANSFER);
    submit(read);
    assert_ok(drain(&blob));
    for (int a = 0; a < 2; a++) {
        assert_memory_equal(blob->data + a * 32, bytes + a * 8 + 4, 16);
        assert_memory_equal(blob->data + a * 32 + 16, bytes + 16 + a * 4, 16);
    }
    blob_drop(blob);
    exec_unpin(bed.exec, &plain);
    exec_unpin(bed.exec, &grown);
    exec_unpin(bed.exec, &appended);
    exec_unpin(bed.exec, &branch);
    plan_drop(plan);
}

// A plan of one leaf input: NEG of it.
static void a_small_leaf_whose_first_write_failed_is_written_again(void **state)
{
    bed_make(state);
    struct plan_builder *builder;
    struct srg_plan *plan;
    struct fault fault;
    uint32_t index;
    uint8_t dtype[OP_OUTPUTS_MAX] = {DTYPE_F32};
    struct tensor_meta meta = grid(1, 1, 4);
    struct srg_input input = {.is_leaf = true, .is_contiguous = true, .dtype = DTYPE_F32, .rank = 3, .device = 255};
    struct srg_ref ref = {.kind = REF_INPUT};
    assert_ok(plan_builder_make(&builder));
    assert_ok(plan_add_input(builder, &input, &index));
    assert_ok(plan_add_node(builder, op_info(OP_NEG), &ref, 1, NULL, dtype, 0, 255, &index));
    assert_ok(plan_finish(builder, &plan, &fault));
    plan_builder_free(builder);
    assert_ok(exec_plan_put(bed.exec, plan));
    const float bytes[4] = {1, 2, 3, 4};
    struct blob *blob = blob_copy(bytes, 16);
    struct hash128 content = hash128(bytes, 16);
    assert_ok(exec_leaf_put(bed.exec, content, blob, 0, 16));
    blob_drop(blob);
    int64_t word[64] = {0};
    binding_set_meta(plan, word, 0, &meta);
    binding_set_leaf(plan, word, 0, content);
    const uint8_t kept = 1;
    struct exec_run *made[2];
    for (uint64_t i = 0; i < 2; i++) {
        struct exec_request request = {.id = {.session = 5, .counter = 1 + i},
                                       .plan = exec_plan_find(bed.exec, plan->fingerprint),
                                       .word = word,
                                       .kept = &kept,
                                       .kept_bytes = 1};
        assert_ok(exec_prepare(bed.exec, &request, &made[i], NULL, &fault));
    }
    made[0]->list.error = DJ_E_DEVICE_MEMORY;    // before it wrote anything
    exec_complete(bed.exec, made[0]);
    assert_error(DJ_E_DEVICE, made[0]->error);    // everything that it needed was reserved: it is not for want of room
    exec_run_free(bed.exec, made[0]);
    submit(made[1]);
    assert_error(DJ_E_DEVICE, drain(NULL));    // it read what was never written
    struct exec_run *read;
    assert_ok(exec_leaf_read(bed.exec, content, 0, 16, &read));
    submit(read);
    assert_ok(drain(&blob));
    assert_memory_equal(blob->data, bytes, 16);
    blob_drop(blob);
    plan_drop(plan);
}

CASES(a_small_leaf_whose_first_write_failed_is_written_again,
      kept_outputs_have_the_names_they_are_given_and_all_of_them_are_checked,
      a_value_stays_when_its_execution_comes_again_and_a_failed_one_is_replaced, a_second_name_outlives_the_first,
      a_pinned_value_can_be_read_after_another_execution_took_it, values_that_grow_say_in_what_and_which_share_their_first_rows)
