// Store: the queue and the thread in front of disk.c. The manual is store.h.

#include "store/store.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "store/disk.h"

enum { GROUP_BATCHES_MAX = 256 };

struct request {
    uint64_t ticket;
    struct store_batch *batch;
    bool is_read;
};

// The ring is shared with the core's thread under the mutex; everything else belongs to the store's thread.
struct store {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
    struct io_sink sink;
    struct disk *disk;
    bool is_stopping;
    uint32_t head, tail;
    struct store_stats stats;    // under the mutex
    struct request ring[STORE_QUEUE_MAX];
};

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void answer(struct store *store, const struct request *request, enum dj_error error, struct store_result *result)
{
    struct io_event event = {.kind = IO_STORE_DONE};
    event.store_done.ticket = request->ticket;
    event.store_done.error = error;
    event.store_done.result = result;
    store->sink.post(store->sink.self, &event);
}

// The batches' blobs are counted on the core's thread, so they go back there to be freed: with the event, in `result`'s place there is
// none; the batch rides in the result (see store_result.batch).
static void finish(struct store *store, const struct request *request, enum dj_error error, struct store_result *result)
{
    if (result == NULL)
        result = result_make();
    if (result != NULL)
        result->batch = request->batch;
    else
        log_write(LOG_ERROR, "store", "no memory to give a batch back; it leaks");
    answer(store, request, error, result);
}

static void run_read(struct store *store, const struct request *request)
{
    struct store_result *result = result_make();
    enum dj_error error = result == NULL ? DJ_E_NO_MEMORY : disk_read(store->disk, request->batch, result);

    pthread_mutex_lock(&store->mutex);
    store->stats.reads++;
    pthread_mutex_unlock(&store->mutex);
    finish(store, request, error, result);
}

static void count_commits(struct store *store, uint32_t batches, uint64_t start_ns)
{
    pthread_mutex_lock(&store->mutex);
    store->stats.commits++;
    store->stats.batches += batches;
    store->stats.sync_ns += clock_ns() - start_ns;
    disk_stats(store->disk, &store->stats);
    pthread_mutex_unlock(&store->mutex);
}

// One transaction for all of them. When it fails and there are several, each is tried alone, so that one bad batch fails alone.
static void run_commits(struct store *store, const struct request *request, uint32_t count)
{
    struct store_batch *batch[GROUP_BATCHES_MAX];
    uint64_t start = clock_ns();

    for (uint32_t i = 0; i < count; i++)
        batch[i] = request[i].batch;
    enum dj_error error = disk_commit(store->disk, batch, count), each[GROUP_BATCHES_MAX];
    for (uint32_t i = 0; i < count; i++)
        each[i] = error != DJ_OK && count > 1 ? disk_commit(store->disk, &batch[i], 1) : error;
    count_commits(store, count, start);
    for (uint32_t i = 0; i < count; i++)
        finish(store, &request[i], each[i], NULL);
}

// Waits for a request, or until the sync behind the answers is due. Under the mutex.
static void wait_for_work(struct store *store)
{
    uint64_t due = disk_sync_due_ns(store->disk);
    struct timespec until;

    if (due == UINT64_MAX) {
        pthread_cond_wait(&store->changed, &store->mutex);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)((until.tv_nsec + (long)(due % 1000000000u)) / 1000000000 + (long)(due / 1000000000u));
    until.tv_nsec = (until.tv_nsec + (long)(due % 1000000000u)) % 1000000000;
    pthread_cond_timedwait(&store->changed, &store->mutex, &until);
}

static void sync_if_due(struct store *store)
{
    if (disk_sync_due_ns(store->disk) != 0)
        return;
    disk_sync_if_due(store->disk);
    pthread_mutex_lock(&store->mutex);
    disk_stats(store->disk, &store->stats);
    pthread_mutex_unlock(&store->mutex);
}

// Takes a run of commits, or one read, in order of arrival; 0 when a sync is due or when stopping, and nothing is left.
static uint32_t take(struct store *store, struct request *request, bool *ret_is_over)
{
    uint32_t count = 0;

    pthread_mutex_lock(&store->mutex);
    while (store->head == store->tail && !store->is_stopping && disk_sync_due_ns(store->disk) != 0)
        wait_for_work(store);
    *ret_is_over = store->head == store->tail && store->is_stopping;
    while (store->tail != store->head && count < GROUP_BATCHES_MAX) {
        const struct request *next = &store->ring[store->tail % STORE_QUEUE_MAX];
        if (next->is_read && count > 0)
            break;
        request[count++] = *next;
        store->tail++;
        if (next->is_read)
            break;
    }
    pthread_mutex_unlock(&store->mutex);
    return count;
}

static void *run(void *argument)
{
    struct store *store = argument;
    struct request request[GROUP_BATCHES_MAX];
    bool is_over = false;

    while (!is_over) {
        uint32_t count = take(store, request, &is_over);
        if (count > 0 && request[0].is_read)
            run_read(store, &request[0]);
        else if (count > 0)
            run_commits(store, request, count);
        sync_if_due(store);
    }
    return NULL;
}

static void submit(struct store *store, uint64_t ticket, struct store_batch *batch, bool is_read)
{
    struct request request = {.ticket = ticket, .batch = batch, .is_read = is_read};
    bool is_full;

    pthread_mutex_lock(&store->mutex);
    is_full = store->head - store->tail == STORE_QUEUE_MAX || store->is_stopping;
    if (!is_full) {
        store->ring[store->head++ % STORE_QUEUE_MAX] = request;
        store->stats.items += batch->items;
        for (uint32_t i = 0; i < batch->items; i++)
            store->stats.bytes += batch->item[i].value_bytes;
        pthread_cond_signal(&store->changed);
    }
    pthread_mutex_unlock(&store->mutex);
    if (is_full)
        finish(store, &request, DJ_E_BUSY, NULL);
}

static void port_commit(void *self, uint64_t ticket, struct store_batch *batch)
{
    submit(self, ticket, batch, false);
}
static void port_read(void *self, uint64_t ticket, struct store_batch *batch)
{
    submit(self, ticket, batch, true);
}

static void port_stop(void *self)
{
    struct store *store = self;

    pthread_mutex_lock(&store->mutex);
    store->is_stopping = true;
    pthread_cond_signal(&store->changed);
    pthread_mutex_unlock(&store->mutex);
    pthread_join(store->thread, NULL);
    disk_close(store->disk);
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->mutex);
    free(store);
}

enum dj_error store_open(const struct store_config *config, const struct io_sink *sink, struct store_port *ret,
                         struct fault *fault)
{
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the store");
    enum dj_error error = disk_open(config, &store->disk, fault);
    if (error != DJ_OK) {
        free(store);
        return error;
    }
    store->sink = *sink;
    disk_stats(store->disk, &store->stats);
    pthread_mutex_init(&store->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&store->thread, NULL, run, store) != 0) {
        disk_close(store->disk);
        free(store);
        return fault_set(fault, DJ_E_SYSTEM, "cannot start the store's thread");
    }
    *ret = (struct store_port){.self = store, .commit = port_commit, .read = port_read, .stop = port_stop};
    return DJ_OK;
}

struct store_stats store_stats(const struct store_port *port)
{
    struct store *store = port->self;
    pthread_mutex_lock(&store->mutex);
    struct store_stats stats = store->stats;
    pthread_mutex_unlock(&store->mutex);
    return stats;
}
