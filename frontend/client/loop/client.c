// Client: the lock, the waiting, and the ports between recorder, protocol and loop. The manual is client.h.

#define _GNU_SOURCE
#include "frontend/client/loop/client.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "frontend/client/loop/session.h"

#define QUIET_NS 5000000u       // without a waiter, before the background thread takes the links
#define RELEASE_NS 50000000u    // without a flush, before releases are sent on their own
#define CHECK_NS 50000000u      // between two questions to the program while a call blocks

static struct client client_one = {.lock = PTHREAD_MUTEX_INITIALIZER};

// Ports --------------------------------------------------------------------------------------------------------------------

static uint32_t port_place(void *self, int device)
{
    struct client *client = self;
    return protocol_place(client->protocol, loop_now_ns(), device);
}

static void port_submit(void *self, const struct submission *submission)
{
    struct client *client = self;
    protocol_submit(client->protocol, loop_now_ns(), submission);
}

static void port_import(void *self, uint32_t place, uint64_t counter, uint32_t from_place, uint64_t from_counter,
                        uint32_t from_output, void *tag)
{
    struct client *client = self;
    protocol_import(client->protocol, loop_now_ns(), place, counter, from_place, from_counter, from_output, tag);
}

static void port_release(void *self, uint32_t place, const struct released *released, uint32_t count)
{
    struct client *client = self;
    if (client->protocol != NULL)
        protocol_release(client->protocol, place, released, count);
}

static uint64_t port_link_open(void *self, const char *address)
{
    return loop_open(((struct client *)self)->loop, address);
}
static void port_link_close(void *self, uint64_t link)
{
    loop_close(((struct client *)self)->loop, link);
}

static void port_send(void *self, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
                      uint64_t bulk_bytes, uint64_t not_after_ns)
{
    loop_send(((struct client *)self)->loop, link, message, body, bulk, bulk_offset, bulk_bytes, not_after_ns);
}

static void port_answered(void *self, void *tag, uint32_t output, struct blob *blob, uint64_t offset, uint64_t length)
{
    recorder_answered(((struct client *)self)->recorder, tag, output, blob, offset, length);
}

static void port_executed(void *self, void *tag)
{
    recorder_executed(((struct client *)self)->recorder, tag);
}

static void port_failed(void *self, void *tag, enum dj_error error, int64_t node, const char *text)
{
    recorder_failed(((struct client *)self)->recorder, tag, error, node, text);
}

static void port_place_lost(void *self, uint32_t place, enum dj_error error, const char *text)
{
    recorder_place_lost(((struct client *)self)->recorder, place, error, text);
}

void reading_drop(struct reading *reading)
{
    if (--reading->holders > 0)
        return;
    recorder_value_release(reading->client->recorder, reading->value);
    free(reading);
}

static void port_fetched(void *self, void *tag, enum dj_error error, const char *text, struct blob *blob, uint64_t length)
{
    struct client *client = self;
    struct reading *reading = tag;
    recorder_value_set_coming(reading->value, false);
    reading->is_done = true;
    reading->error = error;
    strncpy(reading->text, text, sizeof reading->text - 1);
    if (error == DJ_OK && blob != NULL) {
        recorder_value_answer(client->recorder, reading->value, blob, 0, length);
        if (recorder_value_state(client->recorder, reading->value) != VALUE_ANSWERED) {
            reading->error = DJ_E_MALFORMED;
            strcpy(reading->text, "the worker answered with another size than the value has");
        }
    }
    reading_drop(reading);
}

void asking_drop(struct asking *asking)
{
    if (--asking->holders > 0)
        return;
    free(asking->json);
    free(asking);
}

static void port_told(void *self, void *tag, enum dj_error error, const char *text, const void *data, size_t bytes)
{
    struct asking *asking = tag;
    (void)self;
    asking->is_done = true;
    asking->error = error;
    strncpy(asking->text, text, sizeof asking->text - 1);
    if (error == DJ_OK && (asking->json = malloc(bytes + 1)) != NULL) {
        if (bytes > 0)
            memcpy(asking->json, data, bytes);
        asking->json[bytes] = '\0';
        asking->bytes = bytes;
    }
    asking_drop(asking);
}

static void port_live_handles(void *self, uint32_t place, void (*visit)(void *context, uint64_t counter, uint32_t output),
                              void *context)
{
    recorder_live_handles(((struct client *)self)->recorder, place, visit, context);
}

const struct protocol_port client_protocol_port = {
    .self = &client_one,
    .link_open = port_link_open,
    .link_close = port_link_close,
    .send = port_send,
    .answered = port_answered,
    .executed = port_executed,
    .failed = port_failed,
    .place_lost = port_place_lost,
    .fetched = port_fetched,
    .told = port_told,
    .live_handles = port_live_handles,
    .recovered = client_say_recovered,
};

void client_handle(void *self, uint64_t now_ns, const struct io_event *event)
{
    struct client *client = self;
    if (client->protocol != NULL) {
        protocol_event(client->protocol, now_ns, event);
    } else if (event->kind == IO_RECV) {
        blob_drop(event->recv.body);
        blob_drop(event->recv.bulk);
    }
}

// The lock -----------------------------------------------------------------------------------------------------------------

static void fork_prepare(void)
{
    pthread_mutex_lock(&client_one.lock);
}
static void fork_parent(void)
{
    pthread_mutex_unlock(&client_one.lock);
}

// The child has neither the background thread nor a right to the parent's links: it drops its copies and says so to whoever asks.
static void fork_child(void)
{
    struct client *client = &client_one;
    pthread_cond_init(&client->changed, NULL);
    client->waiters = 0;
    client->has_leader = client->has_thread = client->is_polling = false;
    if (client->state != CLIENT_OFF) {
        embedded_forget(&client->embedded);
        embedded_forget(&client->local.child);
        recorder_close(client->recorder, DJ_E_FORKED,
                       "made before this process was forked from another; only that one can use it");
        protocol_free(client->protocol);
        loop_free(client->loop);
        client->protocol = NULL;
        client->loop = NULL;
        client->state = CLIENT_FORKED;
    }
    pthread_mutex_unlock(&client->lock);
}

static void client_init(void)
{
    struct client *client = &client_one;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_atfork(fork_prepare, fork_parent, fork_child);
    struct recorder_port port = {
        .self = client, .place = port_place, .submit = port_submit, .import = port_import, .release = port_release};
    if (recorder_make(&port, &client->recorder) != DJ_OK)
        client->recorder = NULL;
}

struct client *client_enter(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, client_init);
    pthread_mutex_lock(&client_one.lock);
    if (client_one.recorder != NULL)
        return &client_one;
    pthread_mutex_unlock(&client_one.lock);
    return NULL;
}

void client_leave(struct client *client)
{
    if (client->loop != NULL && client->is_polling && loop_has_changed(client->loop))
        loop_wake(client->loop);
    pthread_mutex_unlock(&client->lock);
}

// Waiting ------------------------------------------------------------------------------------------------------------------

static void step(struct client *client, uint64_t deadline_ns)
{
    uint64_t at = client->protocol == NULL ? UINT64_MAX : protocol_deadline_ns(client->protocol);
    loop_step(client->loop, at < deadline_ns ? at : deadline_ns, true);
    if (client->protocol == NULL)
        return;
    uint64_t now_ns = loop_now_ns();
    protocol_tick(client->protocol, now_ns);
    if (client->local.is_allowed)
        client_mind_pool(client, now_ns);
}

static void follow(struct client *client, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    pthread_cond_timedwait(&client->changed, &client->lock, &until);
}

static bool program_says_stop(struct client *client)
{
    int (*check)(void *) = client->check;
    void *context = client->check_context;
    if (check == NULL)
        return false;
    pthread_mutex_unlock(&client->lock);
    bool says_stop = check(context) != 0;
    pthread_mutex_lock(&client->lock);
    return says_stop;
}

enum dj_error client_wait(struct client *client, bool (*is_done)(struct client *client, void *context), void *context,
                          uint64_t deadline_ns)
{
    if (is_done(client, context))
        return DJ_OK;
    uint64_t begun_ns = loop_now_ns(), check_ns = begun_ns + CHECK_NS;
    enum dj_error error = DJ_OK;
    client->waiters++;
    if (client->is_polling)
        loop_wake(client->loop);    // the links are ours now
    while (error == DJ_OK && !is_done(client, context)) {
        uint64_t until_ns = deadline_ns < check_ns ? deadline_ns : check_ns;
        if (client->loop == NULL || client->has_leader || client->is_closing) {
            follow(client, until_ns);
        } else {
            client->has_leader = true;
            step(client, until_ns);
            client->has_leader = false;
            if (client->waiters > 1 || client->is_closing)
                pthread_cond_broadcast(&client->changed);
        }
        uint64_t now_ns = loop_now_ns();
        if (now_ns >= check_ns) {
            check_ns = now_ns + CHECK_NS;
            if (program_says_stop(client))
                error = DJ_E_INTERRUPTED;
        }
        if (error == DJ_OK && now_ns >= deadline_ns && !is_done(client, context))
            error = DJ_E_TIMEOUT;
    }
    client->waiters--;
    client->waited_ns = loop_now_ns();
    client->wait_ns += client->waited_ns - begun_ns;
    if (client->waiters > 0)
        pthread_cond_broadcast(&client->changed);
    return error;
}

void client_quiesce(struct client *client)
{
    client->is_closing = true;
    while (client->has_leader) {
        loop_wake(client->loop);
        follow(client, loop_now_ns() + QUIET_NS);
    }
}

static void background_step(struct client *client)
{
    uint64_t now_ns = loop_now_ns(), quiet_ns = client->waited_ns + QUIET_NS, release_ns = client->waited_ns + RELEASE_NS;
    if (client->waiters > 0) {
        loop_step(client->loop, now_ns + QUIET_NS, false);
    } else if (now_ns < quiet_ns) {
        loop_step(client->loop, quiet_ns, false);
    } else {
        bool is_idle = now_ns >= release_ns;
        if (is_idle)
            recorder_flush_releases(client->recorder);
        client->is_polling = true;
        (void)loop_has_changed(client->loop);
        step(client, is_idle ? UINT64_MAX : release_ns);
        client->is_polling = false;
    }
}

void *client_background(void *argument)
{
    struct client *client = argument;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);    // signals are the program's
    pthread_mutex_lock(&client->lock);
    while (!client->must_stop) {
        background_step(client);
        if (client->waiters > 0)
            pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->lock);
    return NULL;
}

// Flushing -----------------------------------------------------------------------------------------------------------------

static bool has_room(struct client *client, void *context)
{
    (void)context;
    return client->state != CLIENT_ON || !protocol_is_full(client->protocol);
}

enum dj_error client_flush(struct client *client, struct fault *fault)
{
    if (!recorder_has_pending(client->recorder) && client->state != CLIENT_FORKED)
        return DJ_OK;
    enum dj_error error = client_connect(client, NULL, false, fault);
    if (error != DJ_OK)
        return error;
    // What the kernel knows already (a worker that died meanwhile) counts before anything is submitted to it.
    loop_step(client->loop, 0, true);
    if (client->state != CLIENT_ON)
        return fault_set(fault, DJ_E_CLOSED, "Djinn was shut down meanwhile");
    // As long as a recovery may take: a worker or a head that is away is waited for.
    error = client_wait(client, has_room, NULL, loop_now_ns() + client->recovery_timeout_ns);
    if (error == DJ_E_TIMEOUT)
        return fault_set(fault, DJ_E_WINDOW_FULL,
                         "%llu executions (%llu bytes) wait to be answered or made durable, for too long",
                         (unsigned long long)protocol_stats(client->protocol).executions_unacknowledged,
                         (unsigned long long)protocol_stats(client->protocol).bytes_unacknowledged);
    if (error != DJ_OK)
        return fault_set(fault, error, "the wait for room in the window was interrupted");
    if (client->state != CLIENT_ON)
        return fault_set(fault, DJ_E_CLOSED, "Djinn was shut down meanwhile");
    uint64_t begun_ns = loop_now_ns();
    error = recorder_flush(client->recorder, fault);
    client->flush_ns += loop_now_ns() - begun_ns;
    return error;
}
