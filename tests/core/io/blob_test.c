// Blobs, effects, batches and results: who holds what, and that everything is given back.

#include "core/io/blob.h"

#include "core/io/io.h"
#include "core/io/store.h"
#include "tests/lib/case.h"

#include <pthread.h>
#include <stdlib.h>

static int released;

static void count_release(struct blob *blob)
{
    released++;
    free(blob);
}

static struct blob *watched_blob(void)
{
    struct blob *blob = blob_copy("abc", 3);
    blob->release = count_release;
    return blob;
}

static void bytes_are_aligned_and_survive_until_the_last_holder_drops(void **state)
{
    (void)state;
    released = 0;
    struct blob *blob = watched_blob();
    assert_int_equal((uintptr_t)blob->data % 64, 0);
    assert_memory_equal(blob->data, "abc", 3);
    assert_ptr_equal(blob_hold(blob), blob);
    blob_drop(blob);
    assert_int_equal(released, 0);
    blob_drop(blob);
    assert_int_equal(released, 1);
    blob_drop(NULL);
}

static void a_blob_that_cannot_be_had_is_null(void **state)
{
    (void)state;
    assert_null(blob_make(SIZE_MAX));
    alloc_fail_after(0);
    struct blob *blob = blob_make(10);
    alloc_fail_stop();
    assert_null(blob);
}

static void *hold_and_drop(void *argument)
{
    for (int i = 0; i < 20000; i++) {
        blob_hold(argument);
        blob_drop(argument);
    }
    return NULL;
}

static void holders_on_two_threads_are_counted_right(void **state)
{
    (void)state;
    released = 0;
    struct blob *blob = watched_blob();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hold_and_drop, blob), 0);
    hold_and_drop(blob);
    pthread_join(thread, NULL);
    assert_int_equal(released, 0);
    blob_drop(blob);
    assert_int_equal(released, 1);
}

static void effects_that_nobody_carries_out_give_back_what_they_hold(void **state)
{
    (void)state;
    released = 0;
    struct io_effects effects;
    effects_init(&effects);
    for (int i = 0; i < 200; i++) {
        struct io_effect *effect = effects_add(&effects, IO_SEND);
        assert_null(effect->send.body);
        effect->send.body = watched_blob();
        effect->send.bulk = watched_blob();
    }
    struct store_batch *batch = batch_make();
    batch_add(batch, STORE_PUT, STORE_META, "key", 3)->value = watched_blob();
    effects_add(&effects, IO_STORE_COMMIT)->store_commit.batch = batch;
    assert_int_equal(effects.count, 201);
    effects_free(&effects);
    assert_int_equal(released, 401);
}

static void batches_and_results_grow_and_drop_their_values(void **state)
{
    (void)state;
    released = 0;
    struct store_batch *batch = batch_make();
    struct store_result *result = result_make();
    for (uint32_t i = 0; i < 100; i++) {
        struct store_item *item = batch_add(batch, STORE_PUT_IF_ABSENT, STORE_LEAF, &i, sizeof i);
        item->value = watched_blob();
        assert_non_null(result_add(result, i, &i, sizeof i, watched_blob()));
    }
    assert_int_equal(batch->items, 100);
    assert_int_equal(batch->item[99].key[0], 99);
    assert_int_equal(result->entry[42].item, 42);
    batch_free(batch);
    assert_int_equal(released, 100);

    struct io_event event = {.kind = IO_STORE_DONE, .store_done.result = result};
    event_drop(&event);
    assert_int_equal(released, 200);
    event_drop(&event);    // nothing is left in it
    result_free(NULL);
    batch_free(NULL);
}

static void a_result_out_of_memory_still_takes_the_hold(void **state)
{
    (void)state;
    released = 0;
    struct store_result *result = result_make();
    struct blob *value = watched_blob();
    alloc_fail_after(0);
    struct store_entry *entry = result_add(result, 0, "k", 1, value);
    alloc_fail_stop();
    assert_null(entry);
    assert_int_equal(released, 1);
    result_free(result);
}

CASES(bytes_are_aligned_and_survive_until_the_last_holder_drops, a_blob_that_cannot_be_had_is_null,
      holders_on_two_threads_are_counted_right, effects_that_nobody_carries_out_give_back_what_they_hold,
      batches_and_results_grow_and_drop_their_values, a_result_out_of_memory_still_takes_the_hold)
