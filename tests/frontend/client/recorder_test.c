// What the recorder promises, one behaviour at a time: views and in-place writes mean what PyTorch means by them, dead work is dropped, the same step is the same plan, and memory that nobody sees any more is donated.

#include "frontend/client/recorder/recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/srg/bindings.h"
#include "tests/frontend/client/bench.h"
#include "tests/lib/case.h"

static const struct recorded_at nowhere;
static const struct dj_attr alpha_1 = {.kind = DJ_ATTR_INT, .value.i = 1};

static struct dj_tensor add(struct bench *bench, const struct dj_tensor *a, const struct dj_tensor *b)
{
    return bench_op(bench, OP_ADD, a, b, &alpha_1, 1);
}

static struct dj_tensor slice(struct bench *bench, const struct dj_tensor *a, int64_t dim, int64_t start, int64_t end,
                              int64_t step)
{
    struct dj_attr attr[4] = {BENCH_INT(dim), BENCH_INT(start), BENCH_INT(end), BENCH_INT(step)};
    return bench_op(bench, OP_SLICE, a, NULL, attr, 4);
}

static void write_to(struct bench *bench, const struct dj_tensor *to, const struct dj_tensor *from)
{
    struct fault fault = {0};
    enum dj_error error = recorder_write(bench->recorder, to, from, nowhere, &fault);
    if (error != DJ_OK)
        fail_msg("write: %s %s", dj_error_name(error), fault.text);
}

static void expect(struct bench *bench, const struct dj_tensor *tensor, const float *expected, size_t count)
{
    float data[64];
    bench_read(bench, tensor, data);
    for (size_t i = 0; i < count; i++)
        if (data[i] != expected[i])
            fail_msg("element %zu is %g, not %g", i, (double)data[i], (double)expected[i]);
}

static struct dj_tensor upload_range(struct bench *bench, uint32_t rank, const int64_t *size)
{
    float data[64];
    for (int i = 0; i < 64; i++)
        data[i] = (float)i;
    return bench_upload(bench, data, rank, size);
}

// Single behaviours -----------------------------------------------------------------------------------------------------------

static void a_sum_is_read_back(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 2, (int64_t[]){2, 3}), y = add(bench, &x, &x);
    expect(bench, &y, (float[]){0, 2, 4, 6, 8, 10}, 6);
    assert_int_equal(bench->fetches, 0);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

static void a_write_through_a_slice_is_seen_by_the_whole(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 2, (int64_t[]){4, 2}),
                     ones = bench_upload(bench, (float[]){1, 1, 1, 1}, 2, (int64_t[]){2, 2});
    struct dj_tensor part = slice(bench, &x, 0, 1, 3, 1), sum = add(bench, &part, &ones);
    write_to(bench, &part, &sum);
    expect(bench, &x, (float[]){0, 1, 3, 4, 5, 6, 6, 7}, 8);
    assert_int_equal(recorder_stats(bench->recorder).views_restrided, 0);
    bench_drop(bench, &x);
    bench_drop(bench, &ones);
    bench_drop(bench, &sum);
}

static void a_view_made_before_a_write_sees_it_through_the_same_ops(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 2, (int64_t[]){2, 3});
    struct dj_attr dims[2] = {BENCH_INT(0), BENCH_INT(1)};
    struct dj_tensor t = bench_op(bench, OP_TRANSPOSE, &x, NULL, dims, 2), y = add(bench, &x, &x);
    write_to(bench, &x, &y);
    bench_flush(bench);
    expect(bench, &t, (float[]){0, 6, 2, 8, 4, 10}, 6);
    assert_int_equal(recorder_stats(bench->recorder).views_restrided, 0);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

static void a_fresh_storage_reads_as_zeros_and_keeps_what_is_written_to_a_part(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = {.cell = recorder_cell(bench->recorder, 0), .dtype = DTYPE_F32, .rank = 1, .size = {6}, .stride = {1}};
    struct dj_tensor two = upload_range(bench, 1, (int64_t[]){2});
    expect(bench, &x, (float[]){0, 0, 0, 0, 0, 0}, 6);
    struct dj_tensor part = slice(bench, &x, 0, 3, 5, 1);
    write_to(bench, &part, &two);
    expect(bench, &x, (float[]){0, 0, 0, 0, 1, 0}, 6);
    bench_drop(bench, &x);
    bench_drop(bench, &two);
}

static void a_storage_assigned_from_a_part_can_be_written_in_part(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 2, (int64_t[]){4, 4}), nine = bench_upload(bench, (float[]){9}, 1, (int64_t[]){1});
    struct dj_attr row[2] = {BENCH_INT(0), BENCH_INT(2)};
    struct dj_tensor y = bench_op(bench, OP_SELECT, &x, NULL, row, 2);
    y.cell = recorder_cell(bench->recorder, 0);
    struct dj_tensor from = y;
    from.cell = x.cell;
    assert_ok(recorder_assign(bench->recorder, y.cell, &from, nowhere, NULL));
    struct dj_tensor strided = {
        .cell = y.cell, .dtype = DTYPE_F32, .rank = 1, .offset = y.offset + 1, .size = {2}, .stride = {2}};
    write_to(bench, &strided, &nine);    // a window that no op made
    expect(bench, &y, (float[]){8, 9, 10, 9}, 4);
    strided.offset = 0;    // outside what was assigned: zeros, and then what is written there
    write_to(bench, &strided, &nine);
    expect(bench, &y, (float[]){8, 9, 10, 9}, 4);
    expect(bench, &strided, (float[]){9, 9}, 2);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
    bench_drop(bench, &nine);
}

static void a_storage_assigned_from_columns_is_zero_between_them(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 2, (int64_t[]){2, 4}), y = slice(bench, &x, 1, 1, 3, 1), from = y;
    y.cell = recorder_cell(bench->recorder, 0);
    assert_ok(recorder_assign(bench->recorder, y.cell, &from, nowhere, NULL));
    struct dj_tensor flat = {.cell = y.cell, .dtype = DTYPE_F32, .rank = 1, .size = {6}, .stride = {1}, .offset = 1};
    expect(bench, &flat, (float[]){1, 2, 0, 0, 5, 6}, 6);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

static void a_write_keeps_the_order_of_dimensions_of_its_storage(void **state)
{
    struct bench *bench = bench_make(state);
    float data[24];
    for (int i = 0; i < 24; i++)
        data[i] = (float)i;
    struct dj_tensor shape = {.dtype = DTYPE_F32, .rank = 3, .size = {2, 3, 4}, .stride = {1, 8, 2}}, x;
    assert_ok(recorder_upload(bench->recorder, 0, data, &shape, nowhere, &x, NULL));
    struct dj_tensor y = bench_upload(bench, data, 3, (int64_t[]){2, 3, 4});
    write_to(bench, &x, &y);
    expect(bench, &x, data, 24);
    assert_int_equal(recorder_stats(bench->recorder).views_restrided, 0);
    struct dj_tensor flat = {.cell = x.cell, .dtype = DTYPE_F32, .rank = 1, .size = {3}, .stride = {1}};
    expect(bench, &flat, (float[]){0, 12, 1}, 3);    // neighbours in memory: dimension 0 first, then 2
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

static void a_write_converts_the_dtype_and_broadcasts(void **state)
{
    struct bench *bench = bench_make(state);
    int64_t number = 7;
    struct dj_tensor meta = {.dtype = DTYPE_I64, .rank = 0}, seven;
    assert_ok(recorder_upload(bench->recorder, 0, &number, &meta, nowhere, &seven, NULL));
    struct dj_tensor x = upload_range(bench, 2, (int64_t[]){2, 2});
    write_to(bench, &x, &seven);
    expect(bench, &x, (float[]){7, 7, 7, 7}, 4);
    bench_drop(bench, &x);
    bench_drop(bench, &seven);
}

static void reading_bits_as_another_dtype_is_refused_by_name(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), bits = x;
    bits.dtype = DTYPE_I32;
    struct value *value;
    struct fault fault;
    assert_error(DJ_E_UNSUPPORTED, recorder_want(bench->recorder, &bits, nowhere, &value, &fault));
    assert_non_null(strstr(fault.text, "int32"));
    bench_drop(bench, &x);
}

static void dead_work_is_not_submitted(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), dead = add(bench, &x, &x), deader = add(bench, &dead, &x);
    struct dj_tensor part = slice(bench, &x, 0, 1, 3, 1), alive = add(bench, &x, &x);
    (void)part;    // a view that nobody reads
    bench_drop(bench, &dead);
    bench_drop(bench, &deader);
    bench_flush(bench);
    assert_int_equal(bench->nodes, 1);
    assert_int_equal(bench->kept, 1);
    assert_int_equal(recorder_stats(bench->recorder).ops_dropped, 3);
    bench_drop(bench, &x);
    bench_drop(bench, &alive);
}

static void a_long_chain_of_dead_ops_does_not_overflow_the_stack(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x);
    for (int i = 0; i < 200000; i++) {
        struct dj_tensor next = add(bench, &y, &x);
        bench_drop(bench, &y);
        y = next;
    }
    bench_drop(bench, &y);
    bench_flush(bench);
    assert_int_equal(bench->submissions, 0);
    bench_drop(bench, &x);
}

// A loop as a program writes it: a state that every step replaces, a scalar that it looks at.
static void every_step_of_a_loop_is_the_same_plan_and_a_few_bytes(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x);
    bench_flush(bench);
    struct binding_history history = {0};
    struct hash128 first = {0};
    for (int step = 0; step < 6; step++) {
        struct dj_tensor part = slice(bench, &y, 0, 1 + step % 2, 4, 1), next = add(bench, &y, &x);
        struct dj_attr size = BENCH_INTS(((int64_t[]){3 - step % 2, 1}), 2);
        struct dj_tensor column = bench_op(bench, OP_VIEW_SIZES, &part, NULL, &size, 1), sum = add(bench, &column, &column);
        bench_drop(bench, &y);
        y = next;
        bench_flush(bench);
        bench_drop(bench, &sum);
        if (step == 0) {
            first = bench->fingerprint;
            history_init(&history, bench->words);
        }
        assert_true(hash128_equal(bench->fingerprint, first));
        struct writer writer = writer_make(4096);
        bindings_encode(&history, bench->word, &writer);
        if (step >= 4)
            assert_true(writer.length <= 24);
        writer_free(&writer);
        assert_ok(history_push(&history, bench->word));
    }
    assert_int_equal(recorder_stats(bench->recorder).plans, 2);
    history_free(&history);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

static void what_nobody_else_sees_is_donated_and_what_a_cell_sees_is_not(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), a = add(bench, &x, &x), b = add(bench, &a, &x);
    bench_flush(bench);
    struct dj_tensor c = add(bench, &a, &b);
    bench_drop(bench, &a);    // only `c` needs it now; b lives on
    bench_flush(bench);
    assert_int_equal(bench->inputs, 2);
    assert_int_equal(bench->donated, 1);
    assert_int_equal(bench->eval[0].handles, 2);
    expect(bench, &c, (float[]){0, 5, 10, 15}, 4);
    bench_drop(bench, &b);
    bench_drop(bench, &c);
    recorder_flush_releases(bench->recorder);
    assert_int_equal(bench->eval[0].handles, 0);
    assert_int_equal(recorder_stats(bench->recorder).handles_live, 0);
    bench_drop(bench, &x);
}

static void what_was_read_after_a_plan_is_answered_with_it_the_next_time(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x);
    bench_flush(bench);
    for (int step = 0; step < 5; step++) {
        struct dj_tensor next = add(bench, &y, &x), twice = add(bench, &next, &next);
        bench_drop(bench, &y);
        y = next;
        bench_flush(bench);
        float data[4];
        bench_read(bench, &y, data);
        bench_read(bench, &twice, data);
        bench_drop(bench, &twice);
    }
    assert_int_equal(bench->fetches, 2);    // the first step's
    assert_true(recorder_stats(bench->recorder).reads_predicted >= 8);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

static void a_value_used_on_another_device_is_imported_once(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x), there, again;
    assert_ok(recorder_to_device(bench->recorder, &y, 1, nowhere, &there, NULL));
    again = add(bench, &there, &there);
    expect(bench, &again, (float[]){0, 4, 8, 12}, 4);
    assert_int_equal(bench->submissions, 2);
    assert_int_equal(bench->eval[1].handles, 2);
    struct dj_tensor more = add(bench, &there, &again);
    expect(bench, &more, (float[]){0, 6, 12, 18}, 4);
    assert_int_equal(bench->eval[1].handles, 3);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
    bench_drop(bench, &there);
    bench_drop(bench, &again);
    bench_drop(bench, &more);
    recorder_flush_releases(bench->recorder);
    assert_int_equal(bench->eval[0].handles + bench->eval[1].handles, 0);
}

static void a_failed_execution_is_told_to_everything_that_needs_it(void **state)
{
    struct bench *bench = bench_make(state);
    bench->is_holding = true;
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x);
    bench_flush(bench);
    recorder_failed(bench->recorder, bench->out[0].tag, DJ_E_DEVICE_MEMORY, 0, "no room for 16 bytes");
    bench->outs = 0;
    struct dj_tensor z = add(bench, &y, &x), fine = add(bench, &x, &x);
    bench_flush(bench);
    struct value *value;
    struct dj_fault fault;
    assert_ok(recorder_want(bench->recorder, &z, nowhere, &value, NULL));
    assert_int_equal(recorder_value_state(bench->recorder, value), VALUE_FAILED);
    assert_error(DJ_E_DEVICE_MEMORY, recorder_value_fault(bench->recorder, value, &fault));
    assert_non_null(strstr(fault.text, "op ADD"));
    recorder_unwant(bench->recorder, value);
    assert_int_equal(bench->nodes, 1);
    bench_deliver(bench);
    expect(bench, &fine, (float[]){0, 2, 4, 6}, 4);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
    bench_drop(bench, &z);
    bench_drop(bench, &fine);
}

static void a_lost_place_loses_its_handles_but_not_the_leaves(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x);
    bench_flush(bench);
    recorder_place_lost(bench->recorder, 0, DJ_E_HANDLE_LOST, "the worker w0 died");
    struct value *value;
    assert_ok(recorder_want(bench->recorder, &y, nowhere, &value, NULL));
    assert_int_equal(recorder_value_state(bench->recorder, value), VALUE_FAILED);
    assert_error(DJ_E_HANDLE_LOST, recorder_value_fault(bench->recorder, value, NULL));
    recorder_unwant(bench->recorder, value);
    struct dj_tensor again;
    assert_ok(recorder_to_device(bench->recorder, &x, 1, nowhere, &again, NULL));
    struct dj_tensor z = add(bench, &again, &again);
    expect(bench, &z, (float[]){0, 2, 4, 6}, 4);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
    bench_drop(bench, &z);
    bench_drop(bench, &again);
}

static void what_only_a_lost_result_needed_is_not_submitted(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x), here, lost;
    bench_flush(bench);
    recorder_place_lost(bench->recorder, 0, DJ_E_HANDLE_LOST, "the worker w0 died");
    assert_ok(recorder_to_device(bench->recorder, &x, 1, nowhere, &here, NULL));
    assert_ok(recorder_to_device(bench->recorder, &y, 1, nowhere, &lost, NULL));
    struct dj_tensor between = add(bench, &here, &here), sum = add(bench, &between, &lost), other = add(bench, &here, &here);
    bench_drop(bench, &between);
    expect(bench, &other, (float[]){0, 2, 4, 6}, 4);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
    bench_drop(bench, &here);
    bench_drop(bench, &lost);
    bench_drop(bench, &sum);
    bench_drop(bench, &other);
}

static void what_was_read_from_a_lost_place_is_an_input_like_any_leaf(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x), unread = add(bench, &y, &x), there,
                     nowhere_left;
    expect(bench, &y, (float[]){0, 2, 4, 6}, 4);
    bench_flush(bench);
    recorder_place_lost(bench->recorder, 0, DJ_E_HANDLE_LOST, "the worker w0 died");
    assert_ok(recorder_to_device(bench->recorder, &y, 1, nowhere, &there, NULL));
    assert_ok(recorder_to_device(bench->recorder, &unread, 1, nowhere, &nowhere_left, NULL));
    struct dj_tensor z = add(bench, &there, &there), lost = add(bench, &nowhere_left, &there);
    expect(bench, &z, (float[]){0, 4, 8, 12}, 4);
    expect(bench, &y, (float[]){0, 2, 4, 6}, 4);
    struct value *value;
    assert_ok(recorder_want(bench->recorder, &lost, nowhere, &value, NULL));
    bench_flush(bench);
    assert_error(DJ_E_HANDLE_LOST, recorder_value_fault(bench->recorder, value, NULL));
    recorder_unwant(bench->recorder, value);
    struct dj_tensor *const made[] = {&x, &y, &unread, &there, &nowhere_left, &z, &lost};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        bench_drop(bench, made[i]);
}

static void after_close_every_tensor_says_why(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), y = add(bench, &x, &x);
    recorder_close(bench->recorder, DJ_E_FORKED, "made before the fork");
    struct value *value;
    struct fault fault;
    assert_error(DJ_E_FORKED, recorder_want(bench->recorder, &y, nowhere, &value, &fault));
    assert_string_equal(fault.text, "made before the fork");
    bench_drop(bench, &x);
    bench_drop(bench, &y);
    struct dj_tensor z = upload_range(bench, 1, (int64_t[]){4});
    expect(bench, &z, (float[]){0, 1, 2, 3}, 4);
    bench_drop(bench, &z);
}

static void empty_tensors_need_no_leaf(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = bench_upload(bench, NULL, 2, (int64_t[]){0, 3}), y = add(bench, &x, &x);
    float none;
    bench_read(bench, &y, &none);
    assert_int_equal(leaf_table_stats(recorder_leaves(bench->recorder)).leaves, 0);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

struct seen {
    uint32_t count;
    uint64_t counter[8];
    uint32_t output[8];
};

static void see(void *context, uint64_t counter, uint32_t output)
{
    struct seen *seen = context;
    assert_true(seen->count < 8);
    seen->counter[seen->count] = counter;
    seen->output[seen->count++] = output;
}

static void what_is_alive_and_was_not_read_is_what_a_recovery_must_bring_back(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), unread = add(bench, &x, &x), dropped = add(bench, &unread, &x),
                     read = add(bench, &unread, &unread);
    bench_flush(bench);
    bench_drop(bench, &dropped);
    expect(bench, &read, (float[]){0, 4, 8, 12}, 4);
    struct seen here = {0}, elsewhere = {0};
    recorder_live_handles(bench->recorder, 0, see, &here);
    recorder_live_handles(bench->recorder, 1, see, &elsewhere);
    assert_int_equal(here.count, 1);
    assert_int_equal(here.counter[0], 1);
    assert_int_equal(here.output[0], 0);
    assert_int_equal(elsewhere.count, 0);
    assert_int_equal(recorder_stats(bench->recorder).handles_live, 1);    // what was read is a leaf now
    struct dj_tensor again = add(bench, &read, &x);
    expect(bench, &again, (float[]){0, 5, 10, 15}, 4);
    struct dj_tensor *const made[] = {&x, &unread, &read, &again};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        bench_drop(bench, made[i]);
}

static uint32_t live_at_home(struct bench *bench)
{
    struct seen here = {0};
    recorder_live_handles(bench->recorder, 0, see, &here);
    return here.count;
}

static void what_some_place_still_imports_must_be_brought_back_though_it_was_read(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 1, (int64_t[]){4}), read = add(bench, &x, &x), first, second;
    expect(bench, &read, (float[]){0, 2, 4, 6}, 4);
    bench->is_holding = true;
    assert_ok(recorder_to_device(bench->recorder, &read, 1, nowhere, &first, NULL));
    assert_ok(recorder_to_device(bench->recorder, &read, 2, nowhere, &second, NULL));
    struct dj_tensor one = add(bench, &first, &first), two = add(bench, &second, &second);
    bench_flush(bench);
    assert_int_equal(bench->outs, 4);    // two imports, each before what uses it
    recorder_executed(bench->recorder, bench->out[2].tag);
    assert_int_equal(live_at_home(bench), 1);
    recorder_executed(bench->recorder, bench->out[0].tag);
    assert_int_equal(live_at_home(bench), 0);
    recorder_executed(bench->recorder, bench->out[1].tag);
    recorder_executed(bench->recorder, bench->out[3].tag);
    bench->outs = 0;
    struct dj_tensor *const made[] = {&x, &read, &first, &second, &one, &two};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        bench_drop(bench, made[i]);
}

static void a_value_to_keep_is_a_contiguous_handle_or_a_leaf_of_the_store(void **state)
{
    struct bench *bench = bench_make(state);
    struct dj_tensor x = upload_range(bench, 2, (int64_t[]){2, 3}), y = add(bench, &x, &x);
    struct dj_attr dims[2] = {BENCH_INT(0), BENCH_INT(1)};
    struct dj_tensor t = bench_op(bench, OP_TRANSPOSE, &y, NULL, dims, 2);
    struct hash128 content;
    struct value *leaf, *sum, *turned;
    assert_ok(recorder_keepable(bench->recorder, &x, nowhere, &leaf, NULL));
    assert_ok(recorder_keepable(bench->recorder, &y, nowhere, &sum, NULL));
    assert_ok(recorder_keepable(bench->recorder, &t, nowhere, &turned, NULL));
    bench_flush(bench);
    assert_false(recorder_value_leaf(leaf, &content));    // the store does not have it: a worker writes a copy
    assert_true(tensor_is_contiguous(recorder_value_meta(turned)));
    assert_int_equal(recorder_value_state(bench->recorder, sum), VALUE_AT_WORKER);
    struct value *const kept[] = {leaf, sum, turned};
    for (size_t i = 0; i < 3; i++)
        recorder_unwant(bench->recorder, kept[i]);
    bench_drop(bench, &x);
    bench_drop(bench, &y);
}

CASES(a_sum_is_read_back, what_is_alive_and_was_not_read_is_what_a_recovery_must_bring_back,
      what_some_place_still_imports_must_be_brought_back_though_it_was_read,
      a_value_to_keep_is_a_contiguous_handle_or_a_leaf_of_the_store, a_write_through_a_slice_is_seen_by_the_whole,
      a_view_made_before_a_write_sees_it_through_the_same_ops, a_fresh_storage_reads_as_zeros_and_keeps_what_is_written_to_a_part,
      a_storage_assigned_from_a_part_can_be_written_in_part, a_storage_assigned_from_columns_is_zero_between_them,
      a_write_keeps_the_order_of_dimensions_of_its_storage, a_write_converts_the_dtype_and_broadcasts,
      reading_bits_as_another_dtype_is_refused_by_name, dead_work_is_not_submitted,
      a_long_chain_of_dead_ops_does_not_overflow_the_stack, every_step_of_a_loop_is_the_same_plan_and_a_few_bytes,
      what_nobody_else_sees_is_donated_and_what_a_cell_sees_is_not, what_was_read_after_a_plan_is_answered_with_it_the_next_time,
      a_value_used_on_another_device_is_imported_once, a_failed_execution_is_told_to_everything_that_needs_it,
      a_lost_place_loses_its_handles_but_not_the_leaves, what_only_a_lost_result_needed_is_not_submitted,
      what_was_read_from_a_lost_place_is_an_input_like_any_leaf, after_close_every_tensor_says_why, empty_tensors_need_no_leaf)
