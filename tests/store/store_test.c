// What the store promises of one process: committed is readable, also after kill -9; wrong bytes are refused; one head a folder; files go
// with their values.

#include "core/base/hash.h"
#include "tests/store/rig.h"

static void what_is_committed_can_be_read_after_closing(void **state)
{
    struct rig *rig = rig_make(state);
    uint8_t *big = big_bytes(state, 1);

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "small", "value", 5)));
    assert_ok(commit(rig, put(STORE_PUT, "big", big, BIG_BYTES)));
    assert_ok(commit(rig, put(STORE_PUT, "empty", "", 0)));
    close_store(rig);
    assert_ok(open_store(rig, NULL));
    assert_holds(rig, "small", "value", 5);
    assert_holds(rig, "big", big, BIG_BYTES);
    assert_holds(rig, "empty", "", 0);
}

static void what_is_there_is_not_replaced_by_put_if_absent(void **state)
{
    struct rig *rig = rig_make(state);

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT_IF_ABSENT, "key", "first", 5)));
    assert_ok(commit(rig, put(STORE_PUT_IF_ABSENT, "key", "other", 5)));
    assert_holds(rig, "key", "first", 5);
    assert_ok(commit(rig, put(STORE_PUT, "key", "other", 5)));
    assert_holds(rig, "key", "other", 5);
}

static void an_absent_or_deleted_key_gives_no_entry(void **state)
{
    struct rig *rig = rig_make(state);
    struct store_result *result;

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "key", "value", 5)));
    struct store_batch *batch = batch_make();
    batch_add(batch, STORE_DELETE, STORE_LEAF, "key", 3);
    assert_ok(commit(rig, batch));
    assert_ok(get(rig, "key", &result));
    assert_int_equal(result->entries, 0);
    result_free(result);
}

static void a_scan_gives_keys_in_order_from_where_it_is_told(void **state)
{
    struct rig *rig = rig_make(state);
    static const char *const key[] = {"c", "a", "d", "b"};

    assert_ok(open_store(rig, NULL));
    for (size_t i = 0; i < 4; i++)
        assert_ok(commit(rig, put(STORE_PUT, key[i], key[i], 1)));
    struct store_batch *batch = batch_make();
    batch_add(batch, STORE_SCAN, STORE_LEAF, "b", 1)->scan_max = 2;
    rig->port.read(rig->port.self, 1000, batch);
    struct store_result *result = wait_answer(rig, 1000).store_done.result;
    assert_int_equal(result->entries, 2);
    assert_memory_equal(result->entry[0].key, "b", 1);
    assert_memory_equal(result->entry[1].key, "c", 1);
    result_free(result);
}

static void a_flipped_byte_in_a_blob_file_is_refused(void **state)
{
    struct rig *rig = rig_make(state);
    struct store_result *result;
    char path[160];
    uint8_t byte;

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "big", big_bytes(state, 2), BIG_BYTES)));
    snprintf(path, sizeof path, "%s/blobs/01/0000000000000001", rig->folder);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, 777), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 777), 1);
    close(fd);
    assert_error(DJ_E_STORE_CORRUPT, get(rig, "big", &result));
    result_free(result);
}

static void two_heads_cannot_share_a_folder(void **state)
{
    struct rig *rig = rig_make(state);
    struct store_config config = {.path = rig->folder, .durability = STORE_DISK};
    struct store_port other;
    struct fault fault = {0};

    assert_ok(open_store(rig, NULL));
    assert_error(DJ_E_BUSY, store_open(&config, &rig->sink, &other, &fault));
    assert_non_null(strstr(fault.text, rig->folder));
}

static void a_folder_that_cannot_be_made_is_a_typed_error_that_names_it(void **state)
{
    struct answers unused = {.count = 0};
    struct io_sink sink = {.post = post, .self = &unused};
    struct store_config config = {.path = "/proc/djinn-cannot-be-here", .durability = STORE_DISK};
    struct store_port port;
    struct fault fault = {0};

    (void)state;
    assert_error(DJ_E_STORE, store_open(&config, &sink, &port, &fault));
    assert_non_null(strstr(fault.text, "/proc/djinn-cannot-be-here"));
    assert_non_null(strstr(fault.text, "--state"));
}

static void many_batches_are_committed_in_their_order(void **state)
{
    struct rig *rig = rig_make(state);
    enum { MANY = 500 };

    assert_ok(open_store(rig, NULL));
    for (uint32_t i = 0; i < MANY; i++)
        rig->port.commit(rig->port.self, 10000 + i, put(STORE_PUT, "same", &i, sizeof i));
    for (uint32_t i = 0; i < MANY; i++) {
        struct io_event event = wait_answer(rig, 10000 + i);
        assert_ok(event.store_done.error);
        result_free(event.store_done.result);
    }
    uint32_t last = MANY - 1;
    assert_holds(rig, "same", &last, sizeof last);
    assert_true(store_stats(&rig->port).commits < MANY);
}

static uint8_t *pattern_bytes(void **state, size_t bytes)
{
    uint8_t *data = arena_alloc(case_arena(state), bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i / 100);
    return data;
}

static void a_blob_files_value_takes_its_file_with_it(void **state)
{
    struct rig *rig = rig_make(state);

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "big", big_bytes(state, 3), BIG_BYTES)));
    assert_ok(commit(rig, put(STORE_PUT, "other", big_bytes(state, 4), BIG_BYTES)));
    assert_int_equal(blob_files(rig->folder), 2);
    assert_ok(commit(rig, put(STORE_PUT, "big", big_bytes(state, 5), BIG_BYTES)));
    assert_int_equal(blob_files(rig->folder), 2);
    assert_holds(rig, "big", big_bytes(state, 5), BIG_BYTES);
    assert_ok(commit(rig, put(STORE_PUT, "big", "small", 5)));
    assert_int_equal(blob_files(rig->folder), 1);
    assert_ok(commit(rig, delete_of("other")));
    assert_int_equal(blob_files(rig->folder), 0);
    assert_int_equal(entries_of(rig, "other"), 0);
    struct store_stats stats = store_stats(&rig->port);
    assert_int_equal(stats.files, 0);
    assert_int_equal(stats.file_bytes, 0);
    assert_int_equal(stats.entries[STORE_LEAF], 1);
}

static void a_file_that_nothing_names_is_swept_when_the_store_opens(void **state)
{
    struct rig *rig = rig_make(state);
    char path[200];

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "big", big_bytes(state, 6), BIG_BYTES)));
    close_store(rig);
    static const char *const left[] = {"blobs/01/0000000000000101", "blobs/01/half-written", "blobs/new-77-3"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", rig->folder, left[i]);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    assert_ok(open_store(rig, NULL));
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", rig->folder, left[i]);
        assert_int_equal(access(path, F_OK), -1);
    }
    assert_holds(rig, "big", big_bytes(state, 6), BIG_BYTES);
    assert_ok(commit(rig, put(STORE_PUT, "next", big_bytes(state, 7), BIG_BYTES)));
    snprintf(path, sizeof path, "%s/blobs/02/0000000000000102", rig->folder);
    assert_int_equal(access(path, F_OK), 0);    // a number is not given again
}

static void what_compresses_takes_less_and_what_does_not_is_left_alone(void **state)
{
    enum { BYTES = 1 << 20 };
    struct rig *rig = rig_make(state);
    uint8_t *pattern = pattern_bytes(state, BYTES), *half = pattern_bytes(state, BYTES);
    struct prng prng = prng_make(8);

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "pattern", pattern, BYTES)));
    uint64_t packed = store_stats(&rig->port).file_bytes;
    assert_true(packed < BYTES / 10);
    assert_ok(commit(rig, put(STORE_PUT, "random", big_bytes(state, 9), BIG_BYTES)));
    assert_int_equal(store_stats(&rig->port).file_bytes, packed + BIG_BYTES);
    // Its middle, which is probed, compresses; the whole does not by a tenth.
    for (size_t i = 0; i < BYTES; i++)
        if (i < BYTES / 2 - 20000 || i > BYTES / 2 + 20000)
            half[i] = (uint8_t)prng_next(&prng);
    assert_ok(commit(rig, put(STORE_PUT, "half", half, BYTES)));
    assert_int_equal(store_stats(&rig->port).file_bytes, packed + BIG_BYTES + BYTES);
    assert_ok(commit(rig, put(STORE_PUT, "inline", pattern, 60000)));
    close_store(rig);
    assert_ok(open_store(rig, NULL));
    assert_holds(rig, "pattern", pattern, BYTES);
    assert_holds(rig, "random", big_bytes(state, 9), BIG_BYTES);
    assert_holds(rig, "half", half, BYTES);
    assert_holds(rig, "inline", pattern, 60000);
    assert_int_equal(store_stats(&rig->port).files, 3);
}

// Every place of a value of each form is flipped once: whatever is hit, what was not written is never given out.
static void a_value_with_a_flipped_byte_is_refused_wherever_it_is(void **state)
{
    static const size_t length[] = {10, 3000, 30000};
    uint8_t *pattern = pattern_bytes(state, 30000), *tree = NULL, kept;
    struct prng prng = case_prng(state, 10);
    char path[160];

    for (size_t form = 0; form < 3; form++) {
        struct rig *rig = rig_make(state);
        assert_ok(open_store(rig, NULL));
        assert_ok(commit(rig, put(STORE_PUT, "pattern", pattern, length[form])));
        close_store(rig);
        snprintf(path, sizeof path, "%s/lineage.mdb", rig->folder);
        int fd = open(path, O_RDWR);
        off_t bytes = lseek(fd, 0, SEEK_END);
        tree = arena_alloc(case_arena(state), (size_t)bytes);
        assert_int_equal(pread(fd, tree, (size_t)bytes, 0), bytes);
        uint64_t check = hash64(pattern, length[form]);
        const uint8_t *at = memmem(tree, (size_t)bytes, &check, 8);
        assert_non_null(at);
        off_t first = at - tree - 1;    // the form
        size_t span = form == 2 ? 40 : 9 + length[form];
        for (int flip = 0; flip < 60; flip++) {
            off_t place = first + (off_t)(flip < 30 ? (size_t)flip % span : (size_t)prng_between(&prng, 0, span - 1));
            assert_int_equal(pread(fd, &kept, 1, place), 1);
            uint8_t wrong = kept ^ (uint8_t)(1u << prng_between(&prng, 0, 8 - 1));
            assert_int_equal(pwrite(fd, &wrong, 1, place), 1);
            struct store_result *result;
            assert_ok(open_store(rig, NULL));
            assert_error(DJ_E_STORE_CORRUPT, get(rig, "pattern", &result));
            assert_int_equal(result->entries, 0);
            result_free(result);
            close_store(rig);
            assert_int_equal(pwrite(fd, &kept, 1, place), 1);
        }
        close(fd);
    }
}

static void a_compressed_file_that_is_changed_cut_or_gone_is_refused(void **state)
{
    enum { BYTES = 1 << 20 };
    struct rig *rig = rig_make(state);
    struct prng prng = case_prng(state, 11);
    struct store_result *result;
    char path[160];
    uint8_t kept, wrong;
    struct stat status;

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "pattern", pattern_bytes(state, BYTES), BYTES)));
    snprintf(path, sizeof path, "%s/blobs/01/0000000000000001", rig->folder);
    int fd = open(path, O_RDWR);
    assert_int_equal(fstat(fd, &status), 0);
    for (int flip = 0; flip < 50; flip++) {
        off_t place = (off_t)prng_between(&prng, 0, (uint64_t)status.st_size - 1);
        assert_int_equal(pread(fd, &kept, 1, place), 1);
        wrong = kept ^ (uint8_t)(1u << prng_between(&prng, 0, 8 - 1));
        assert_int_equal(pwrite(fd, &wrong, 1, place), 1);
        enum dj_error error = get(rig, "pattern", &result);
        // A bit of the frame that says nothing may be flipped without harm: then the bytes are right.
        if (error != DJ_E_STORE_CORRUPT) {
            assert_ok(error);
            assert_memory_equal(result->entry[0].value->data, pattern_bytes(state, BYTES), BYTES);
        }
        result_free(result);
        assert_int_equal(pwrite(fd, &kept, 1, place), 1);
    }
    assert_int_equal(ftruncate(fd, status.st_size - 1), 0);
    assert_error(DJ_E_STORE_CORRUPT, get(rig, "pattern", &result));
    result_free(result);
    close(fd);
    unlink(path);
    assert_error(DJ_E_STORE_CORRUPT, get(rig, "pattern", &result));
    result_free(result);
}

CASES(what_is_committed_can_be_read_after_closing, what_is_there_is_not_replaced_by_put_if_absent,
      an_absent_or_deleted_key_gives_no_entry, a_scan_gives_keys_in_order_from_where_it_is_told,
      a_flipped_byte_in_a_blob_file_is_refused, two_heads_cannot_share_a_folder,
      a_folder_that_cannot_be_made_is_a_typed_error_that_names_it, many_batches_are_committed_in_their_order,
      a_blob_files_value_takes_its_file_with_it, a_file_that_nothing_names_is_swept_when_the_store_opens,
      what_compresses_takes_less_and_what_does_not_is_left_alone, a_value_with_a_flipped_byte_is_refused_wherever_it_is,
      a_compressed_file_that_is_changed_cut_or_gone_is_refused)
