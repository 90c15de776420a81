// What the store promises: committed is readable, also after kill -9; wrong bytes are refused; one head a folder; full is a typed refusal.

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/io/blob.h"
#include "store/store.h"
#include "tests/lib/case.h"

enum { ANSWERS_MAX = 4096, BIG_BYTES = STORE_INLINE_BYTES + 1000, WAIT_S = 20 };

// Collects the store's answers from its thread.
struct answers {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t count;
    struct io_event event[ANSWERS_MAX];
};

struct rig {
    char folder[64];
    struct answers answers;
    struct io_sink sink;
    struct store_port port;
    bool is_open;
    uint64_t ticket;
};

static void post(void *self, const struct io_event *event)
{
    struct answers *answers = self;
    pthread_mutex_lock(&answers->mutex);
    answers->event[answers->count++] = *event;
    pthread_cond_signal(&answers->changed);
    pthread_mutex_unlock(&answers->mutex);
}

static struct io_event wait_answer(struct rig *rig, uint64_t ticket)
{
    struct timespec until;
    struct io_event found = {0};

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&rig->answers.mutex);
    for (bool is_late = false; found.kind == 0 && !is_late;) {
        for (uint32_t i = 0; i < rig->answers.count; i++)
            if (rig->answers.event[i].store_done.ticket == ticket)
                found = rig->answers.event[i];
        if (found.kind == 0)
            is_late = pthread_cond_timedwait(&rig->answers.changed, &rig->answers.mutex, &until) != 0;
    }
    pthread_mutex_unlock(&rig->answers.mutex);
    assert_int_equal(found.kind, IO_STORE_DONE);
    return found;
}

static void close_store(struct rig *rig)
{
    if (rig->is_open)
        rig->port.stop(rig->port.self);
    rig->is_open = false;
}

static void rig_free(void *object)
{
    struct rig *rig = object;
    char command[128];

    close_store(rig);
    snprintf(command, sizeof command, "rm -rf %s", rig->folder);
    if (system(command) != 0)
        print_message("could not remove %s\n", rig->folder);
    free(rig);
}

static enum dj_error open_store(struct rig *rig, struct fault *fault)
{
    struct store_config config = {.path = rig->folder, .durability = STORE_DISK};
    enum dj_error error = store_open(&config, &rig->sink, &rig->port, fault);
    rig->is_open = error == DJ_OK;
    return error;
}

static struct rig *rig_make(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);

    snprintf(rig->folder, sizeof rig->folder, "build/store-test-XXXXXX");
    assert_non_null(mkdtemp(rig->folder));
    pthread_mutex_init(&rig->answers.mutex, NULL);
    pthread_cond_init(&rig->answers.changed, NULL);
    rig->sink = (struct io_sink){.post = post, .self = &rig->answers};
    case_later(state, rig_free, rig);
    return rig;
}

static struct store_batch *put(enum store_verb verb, const char *key, const void *data, size_t bytes)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch_add(batch, verb, STORE_LEAF, key, strlen(key));
    item->value = blob_copy(data, bytes);
    item->value_bytes = bytes;
    return batch;
}

static enum dj_error commit(struct rig *rig, struct store_batch *batch)
{
    uint64_t ticket = ++rig->ticket;
    rig->port.commit(rig->port.self, ticket, batch);
    struct io_event event = wait_answer(rig, ticket);
    result_free(event.store_done.result);
    return event.store_done.error;
}

static enum dj_error get(struct rig *rig, const char *key, struct store_result **ret)
{
    struct store_batch *batch = batch_make();
    uint64_t ticket = ++rig->ticket;
    batch_add(batch, STORE_GET, STORE_LEAF, key, strlen(key));
    rig->port.read(rig->port.self, ticket, batch);
    struct io_event event = wait_answer(rig, ticket);
    *ret = event.store_done.result;
    return event.store_done.error;
}

static void assert_holds(struct rig *rig, const char *key, const void *data, size_t bytes)
{
    struct store_result *result;

    assert_ok(get(rig, key, &result));
    assert_int_equal(result->entries, 1);
    assert_int_equal(result->entry[0].value->bytes, bytes);
    assert_memory_equal(result->entry[0].value->data, data, bytes);
    result_free(result);
}

static uint8_t *big_bytes(void **state, uint64_t seed)
{
    uint8_t *data = arena_alloc(case_arena(state), BIG_BYTES);
    struct prng prng = prng_make(seed);
    for (size_t i = 0; i < BIG_BYTES; i++)
        data[i] = (uint8_t)prng_next(&prng);
    return data;
}

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

// The child commits, says so through a pipe only after IO_STORE_DONE, and kills itself; the parent believes the pipe.
static void acknowledged_commits_survive_kill_9(void **state)
{
    struct rig *rig = rig_make(state);
    int ends[2], status;
    uint32_t acknowledged = 0, number;
    char key[16];

    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        if (open_store(rig, NULL) != DJ_OK)
            _exit(1);
        for (number = 0; number < 40; number++) {
            snprintf(key, sizeof key, "key%u", number);
            if (commit(rig, put(STORE_PUT, key, key, strlen(key))) != DJ_OK ||
                write(ends[1], &number, sizeof number) != sizeof number)
                _exit(1);
        }
        rig->port.commit(rig->port.self, 5000, put(STORE_PUT, "unacknowledged", "x", 1));
        kill(getpid(), SIGKILL);
    }
    close(ends[1]);
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (read(ends[0], &number, sizeof number) == sizeof number)
        acknowledged++;
    close(ends[0]);
    assert_int_equal(acknowledged, 40);
    assert_ok(open_store(rig, NULL));
    for (number = 0; number < acknowledged; number++) {
        snprintf(key, sizeof key, "key%u", number);
        assert_holds(rig, key, key, strlen(key));
    }
}

static void a_flipped_byte_in_a_blob_file_is_refused(void **state)
{
    struct rig *rig = rig_make(state);
    struct store_result *result;
    char path[160];
    uint8_t byte;

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "big", big_bytes(state, 2), BIG_BYTES)));
    snprintf(path, sizeof path, "%s/blobs/62/626967", rig->folder);
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

// A limit on file sizes stands in for a full disk: the system answers a write beyond it as it answers one on a full disk.
static void a_full_disk_refuses_and_loses_nothing(void **state)
{
    struct rig *rig = rig_make(state);
    struct rlimit before, limit;

    signal(SIGXFSZ, SIG_IGN);
    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "before", "kept", 4)));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = STORE_INLINE_BYTES;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    enum dj_error error = commit(rig, put(STORE_PUT, "big", big_bytes(state, 3), BIG_BYTES));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_error(DJ_E_STORE_FULL, error);
    assert_holds(rig, "before", "kept", 4);
    assert_ok(commit(rig, put(STORE_PUT, "after", "works", 5)));
    assert_holds(rig, "after", "works", 5);
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

CASES(what_is_committed_can_be_read_after_closing, what_is_there_is_not_replaced_by_put_if_absent,
      an_absent_or_deleted_key_gives_no_entry, a_scan_gives_keys_in_order_from_where_it_is_told,
      acknowledged_commits_survive_kill_9, a_flipped_byte_in_a_blob_file_is_refused, two_heads_cannot_share_a_folder,
      a_folder_that_cannot_be_made_is_a_typed_error_that_names_it, a_full_disk_refuses_and_loses_nothing,
      many_batches_are_committed_in_their_order)
