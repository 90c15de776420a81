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
    struct store_stats stats;
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

    store->stats.reads++;
    finish(store, request, error, result);
}

// One transaction for all of them. When it fails and there are several, each is tried alone, so that one bad batch fails alone.
static void run_commits(struct store *store, const struct request *request, uint32_t count)
{
    struct store_batch *batch[GROUP_BATCHES_MAX];
    uint64_t start = clock_ns();

    for (uint32_t i = 0; i < count; i++)
        batch[i] = request[i].batch;
    enum dj_error error = disk_commit(store->disk, batch, count);
    if (error != DJ_OK && count > 1) {
        for (uint32_t i = 0; i < count; i++)
            finish(store, &request[i], disk_commit(store->disk, &batch[i], 1), NULL);
    } else {
        for (uint32_t i = 0; i < count; i++)
            finish(store, &request[i], error, NULL);
    }
    store->stats.commits++;
    store->stats.batches += count;
    store->stats.sync_ns += clock_ns() - start;
}

// Takes a run of commits, or one read, in order of arrival; 0 when stopping and nothing is left.
static uint32_t take(struct store *store, struct request *request)
{
    uint32_t count = 0;

    pthread_mutex_lock(&store->mutex);
    while (store->head == store->tail && !store->is_stopping)
        pthread_cond_wait(&store->changed, &store->mutex);
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
    uint32_t count;

    while ((count = take(store, request)) > 0) {
        if (request[0].is_read)
            run_read(store, &request[0]);
        else
            run_commits(store, request, count);
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
    pthread_mutex_init(&store->mutex, NULL);
    pthread_cond_init(&store->changed, NULL);
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
    const struct store *store = port->self;
    return store->stats;
}
