// Rig: a store in a folder of its own, and its answers, for the tests of this folder. Included once by each.

#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/io/blob.h"
#include "store/store.h"
#include "tests/lib/case.h"

#define RIG_USED __attribute__((unused)) static

enum { ANSWERS_MAX = 4096, BIG_BYTES = STORE_INLINE_BYTES + 1000, WAIT_S = 20 };

// Collects the store's answers from its thread.
struct answers {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t count, good;    // good: answered with DJ_OK, which a test may look at while the store runs
    struct io_event event[ANSWERS_MAX];
};

struct rig {
    char folder[64];
    struct answers answers;
    struct io_sink sink;
    struct store_port port;
    bool is_open;
    uint64_t ticket;
    struct store_config config;    // path is `folder`; the rest may be set before open_store
};

RIG_USED void post(void *self, const struct io_event *event)
{
    struct answers *answers = self;
    pthread_mutex_lock(&answers->mutex);
    answers->event[answers->count++ % ANSWERS_MAX] = *event;
    __atomic_fetch_add(&answers->good, event->store_done.error == DJ_OK, __ATOMIC_RELAXED);
    pthread_cond_signal(&answers->changed);
    pthread_mutex_unlock(&answers->mutex);
}

RIG_USED struct io_event wait_answer(struct rig *rig, uint64_t ticket)
{
    struct timespec until;
    struct io_event found = {0};

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&rig->answers.mutex);
    for (bool is_late = false; found.kind == 0 && !is_late;) {
        for (uint32_t i = 0; i < rig->answers.count && i < ANSWERS_MAX; i++)
            if (rig->answers.event[i].store_done.ticket == ticket)
                found = rig->answers.event[i];
        if (found.kind == 0)
            is_late = pthread_cond_timedwait(&rig->answers.changed, &rig->answers.mutex, &until) != 0;
    }
    pthread_mutex_unlock(&rig->answers.mutex);
    assert_int_equal(found.kind, IO_STORE_DONE);
    return found;
}

RIG_USED void close_store(struct rig *rig)
{
    if (rig->is_open)
        rig->port.stop(rig->port.self);
    rig->is_open = false;
}

RIG_USED void rig_free(void *object)
{
    struct rig *rig = object;
    char command[128];

    close_store(rig);
    snprintf(command, sizeof command, "rm -rf %s", rig->folder);
    if (system(command) != 0)
        print_message("could not remove %s\n", rig->folder);
    free(rig);
}

RIG_USED enum dj_error open_store(struct rig *rig, struct fault *fault)
{
    enum dj_error error = store_open(&rig->config, &rig->sink, &rig->port, fault);
    rig->is_open = error == DJ_OK;
    return error;
}

RIG_USED struct rig *rig_make(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);

    snprintf(rig->folder, sizeof rig->folder, "build/store-test-XXXXXX");
    assert_non_null(mkdtemp(rig->folder));
    pthread_mutex_init(&rig->answers.mutex, NULL);
    pthread_cond_init(&rig->answers.changed, NULL);
    rig->sink = (struct io_sink){.post = post, .self = &rig->answers};
    rig->config = (struct store_config){.path = rig->folder, .durability = STORE_DISK};
    case_later(state, rig_free, rig);
    return rig;
}

RIG_USED struct store_batch *put(enum store_verb verb, const char *key, const void *data, size_t bytes)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch_add(batch, verb, STORE_LEAF, key, strlen(key));
    item->value = blob_copy(data, bytes);
    item->value_bytes = bytes;
    return batch;
}

RIG_USED enum dj_error commit(struct rig *rig, struct store_batch *batch)
{
    uint64_t ticket = ++rig->ticket;
    rig->port.commit(rig->port.self, ticket, batch);
    struct io_event event = wait_answer(rig, ticket);
    result_free(event.store_done.result);
    return event.store_done.error;
}

RIG_USED enum dj_error get(struct rig *rig, const char *key, struct store_result **ret)
{
    struct store_batch *batch = batch_make();
    uint64_t ticket = ++rig->ticket;
    batch_add(batch, STORE_GET, STORE_LEAF, key, strlen(key));
    rig->port.read(rig->port.self, ticket, batch);
    struct io_event event = wait_answer(rig, ticket);
    *ret = event.store_done.result;
    return event.store_done.error;
}

RIG_USED void assert_holds(struct rig *rig, const char *key, const void *data, size_t bytes)
{
    struct store_result *result;

    assert_ok(get(rig, key, &result));
    assert_int_equal(result->entries, 1);
    assert_int_equal(result->entry[0].value->bytes, bytes);
    assert_memory_equal(result->entry[0].value->data, data, bytes);
    result_free(result);
}

RIG_USED uint8_t *big_bytes(void **state, uint64_t seed)
{
    uint8_t *data = arena_alloc(case_arena(state), BIG_BYTES);
    struct prng prng = prng_make(seed);
    for (size_t i = 0; i < BIG_BYTES; i++)
        data[i] = (uint8_t)prng_next(&prng);
    return data;
}

RIG_USED struct store_batch *delete_of(const char *key)
{
    struct store_batch *batch = batch_make();
    batch_add(batch, STORE_DELETE, STORE_LEAF, key, strlen(key));
    return batch;
}

RIG_USED uint32_t entries_of(struct rig *rig, const char *key)
{
    struct store_result *result;
    assert_ok(get(rig, key, &result));
    uint32_t entries = result->entries;
    result_free(result);
    return entries;
}

// Files below a folder whose names are 16 digits: blob files.
RIG_USED uint32_t blob_files(const char *folder)
{
    char path[512];
    uint32_t count = 0;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        snprintf(path, sizeof path, "%.200s/%s", folder, entry->d_name);
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            count += blob_files(path);
        else
            count += strlen(entry->d_name) == 16 && entry->d_name[0] == '0';
    }
    if (entries != NULL)
        closedir(entries);
    return count;
}

#endif
