// Loop: links over poll(2). The manual is loop.h.

#define _GNU_SOURCE
#include "frontend/client/loop/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/link/faults.h"
#include "core/link/link.h"

// One answered value may be large; what a peer makes this process allocate for one frame is bounded by it.
#define BULK_BUDGET_BYTES ((uint64_t)8 << 30)

struct entry {
    uint64_t number;      // of the link, and of the request that opened it; 0: free
    struct link *link;    // NULL: dialling failed at once
    bool is_connecting, is_failed, is_local;
    enum dj_error error;    // why it failed
};

struct loop {
    pthread_mutex_t *lock;
    void (*handle)(void *self, uint64_t now_ns, const struct io_event *event);
    void *self;
    int wake_fd;
    uint64_t next_number;
    bool has_changed, has_failed, had_faults;
    struct entry entry[LOOP_LINKS_MAX];
    struct loop_stats closed;    // of links that are gone
};

uint64_t loop_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void wake_for_faults(void *self)
{
    loop_wake(self);
}

enum dj_error loop_make(pthread_mutex_t *lock, void (*handle)(void *self, uint64_t now_ns, const struct io_event *event),
                        void *self, struct loop **ret)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL)
        return DJ_E_NO_MEMORY;
    *loop = (struct loop){.lock = lock, .handle = handle, .self = self, .wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    if (loop->wake_fd < 0) {
        free(loop);
        return DJ_E_SYSTEM;
    }
    link_faults_watch(wake_for_faults, loop);
    *ret = loop;
    return DJ_OK;
}

static void entry_free(struct loop *loop, struct entry *entry)
{
    if (entry->link != NULL) {
        struct link_stats stats = link_stats(entry->link);
        loop->closed.bytes_in += stats.bytes_in;
        loop->closed.bytes_out += stats.bytes_out;
        link_free(entry->link);
    }
    *entry = (struct entry){0};
    loop->has_changed = true;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL)
        return;
    link_faults_forget(loop);
    for (int i = 0; i < LOOP_LINKS_MAX; i++)
        if (loop->entry[i].number != 0)
            entry_free(loop, &loop->entry[i]);
    close(loop->wake_fd);
    free(loop);
}

static struct entry *entry_of(struct loop *loop, uint64_t number)
{
    for (int i = 0; number != 0 && i < LOOP_LINKS_MAX; i++)
        if (loop->entry[i].number == number)
            return &loop->entry[i];
    return NULL;
}

static void entry_fail(struct loop *loop, struct entry *entry, enum dj_error error)
{
    if (entry->is_failed)
        return;
    entry->is_failed = true;
    entry->error = error;
    loop->has_failed = true;
}

uint64_t loop_open(struct loop *loop, const char *address)
{
    uint64_t number = ++loop->next_number;
    for (int i = 0; i < LOOP_LINKS_MAX; i++) {
        struct entry *entry = &loop->entry[i];
        if (entry->number != 0)
            continue;
        *entry = (struct entry){.number = number, .is_connecting = true, .is_local = strncmp(address, "unix:", 5) == 0};
        int fd;
        enum dj_error error = link_dial(address, &fd, NULL);
        if (error == DJ_OK)
            error = link_make(fd, BULK_BUDGET_BYTES, &entry->link);
        if (error != DJ_OK)
            entry_fail(loop, entry, error);
        loop->has_changed = true;
        return number;
    }
    // Cannot be: PROTOCOL_PLACES_LIVE_MAX and the head are fewer. The protocol's deadline would end the wait.
    return number;
}

void loop_close(struct loop *loop, uint64_t number)
{
    struct entry *entry = entry_of(loop, number);
    if (entry != NULL)
        entry_free(loop, entry);
}

void loop_send(struct loop *loop, uint64_t number, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
               uint64_t bulk_bytes, uint64_t not_after_ns)
{
    struct entry *entry = entry_of(loop, number);
    if (entry == NULL || entry->link == NULL) {
        blob_drop(body);
        blob_drop(bulk);
        return;
    }
    enum dj_error error = link_send(entry->link, message, body, bulk, bulk_offset, bulk_bytes, not_after_ns);
    if (error != DJ_OK)
        entry_fail(loop, entry, error);
    else if (link_wants_write(entry->link))
        loop->has_changed = true;
}

// Handling -----------------------------------------------------------------------------------------------------------------

static void finish_connecting(struct loop *loop, struct entry *entry)
{
    int failure = 0;
    socklen_t length = sizeof failure;
    if (getsockopt(link_fd(entry->link), SOL_SOCKET, SO_ERROR, &failure, &length) != 0 || failure != 0) {
        entry_fail(loop, entry, DJ_E_CLOSED);
        return;
    }
    entry->is_connecting = false;
    struct io_event event = {.kind = IO_LINK_UP,
                             .link_up = {.link = entry->number, .request = entry->number, .is_local = entry->is_local}};
    loop->handle(loop->self, loop_now_ns(), &event);
}

static void receive_all(struct loop *loop, uint64_t number)
{
    for (;;) {
        struct entry *entry = entry_of(loop, number);    // handling a message may close its link
        struct link_message message = {0};
        if (entry == NULL || entry->is_failed)
            return;
        enum dj_error error = link_receive(entry->link, &message);
        if (error != DJ_OK) {
            entry_fail(loop, entry, error);
            return;
        }
        if (message.message == 0)
            return;
        struct io_event event = {
            .kind = IO_RECV, .recv = {.link = number, .message = message.message, .body = message.body, .bulk = message.bulk}};
        loop->handle(loop->self, loop_now_ns(), &event);
    }
}

static void report_failures(struct loop *loop)
{
    while (loop->has_failed) {
        loop->has_failed = false;
        for (int i = 0; i < LOOP_LINKS_MAX; i++) {
            struct entry entry = loop->entry[i];
            if (entry.number == 0 || !entry.is_failed)
                continue;
            entry_free(loop, &loop->entry[i]);
            struct io_event event = {
                .kind = IO_LINK_DOWN,
                .link_down = {.error = entry.error, .request = entry.number, .link = entry.is_connecting ? 0 : entry.number}};
            loop->handle(loop->self, loop_now_ns(), &event);
        }
    }
}

static void handle_ready(struct loop *loop, uint64_t number, short events)
{
    struct entry *entry = entry_of(loop, number);
    if (entry == NULL || entry->link == NULL || entry->is_failed)
        return;
    if (entry->is_connecting && (events & (POLLOUT | POLLERR | POLLHUP)) != 0) {
        finish_connecting(loop, entry);
        return;
    }
    if ((events & POLLOUT) != 0) {
        enum dj_error error = link_flush(entry->link, loop_now_ns());
        if (error != DJ_OK)
            entry_fail(loop, entry, error);
    }
    if ((events & (POLLIN | POLLERR | POLLHUP)) != 0)
        receive_all(loop, number);
}

static int timeout_of(uint64_t deadline_ns, struct timespec *ret)
{
    if (deadline_ns == UINT64_MAX)
        return 0;
    uint64_t now_ns = loop_now_ns(), left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    *ret = (struct timespec){.tv_sec = (time_t)(left_ns / 1000000000u), .tv_nsec = (long)(left_ns % 1000000000u)};
    return 1;
}

// Faults of frames are on, or were a moment ago: what is due now leaves.
static void refresh_links(struct loop *loop)
{
    bool has_faults = link_faults_are_on();
    if (has_faults || loop->had_faults)
        for (int i = 0; i < LOOP_LINKS_MAX; i++) {
            struct entry *entry = &loop->entry[i];
            if (entry->number == 0 || entry->link == NULL || entry->is_failed || entry->is_connecting)
                continue;
            enum dj_error error = link_flush(entry->link, loop_now_ns());
            if (error != DJ_OK)
                entry_fail(loop, entry, error);
        }
    loop->had_faults = has_faults;
}

void loop_step(struct loop *loop, uint64_t deadline_ns, bool with_links)
{
    struct pollfd set[LOOP_LINKS_MAX + 1];
    uint64_t number[LOOP_LINKS_MAX + 1];
    nfds_t count = 0;
    refresh_links(loop);
    report_failures(loop);
    set[count] = (struct pollfd){.fd = loop->wake_fd, .events = POLLIN};
    number[count++] = 0;
    for (int i = 0; with_links && i < LOOP_LINKS_MAX; i++) {
        const struct entry *entry = &loop->entry[i];
        if (entry->number == 0 || entry->link == NULL || link_is_held(entry->link))
            continue;
        int events = entry->is_connecting ? POLLOUT : POLLIN | (link_wants_write(entry->link) ? POLLOUT : 0);
        set[count] = (struct pollfd){.fd = link_fd(entry->link), .events = (short)events};
        number[count++] = entry->number;
    }
    struct timespec timeout;
    struct timespec *limit = timeout_of(deadline_ns, &timeout) != 0 ? &timeout : NULL;
    pthread_mutex_unlock(loop->lock);
    int ready = ppoll(set, count, limit, NULL);
    pthread_mutex_lock(loop->lock);
    if (ready <= 0)
        return;
    uint64_t drained;
    if (set[0].revents != 0)
        (void)!read(loop->wake_fd, &drained, sizeof drained);
    for (nfds_t i = 1; i < count; i++)
        if (set[i].revents != 0)
            handle_ready(loop, number[i], set[i].revents);
    report_failures(loop);
}

void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    (void)!write(loop->wake_fd, &one, sizeof one);
}

bool loop_has_changed(struct loop *loop)
{
    bool has_changed = loop->has_changed || loop->has_failed;
    loop->has_changed = false;
    return has_changed;
}

bool loop_is_drained(const struct loop *loop)
{
    for (int i = 0; i < LOOP_LINKS_MAX; i++)
        if (loop->entry[i].link != NULL && !loop->entry[i].is_failed && link_queued_bytes(loop->entry[i].link) > 0)
            return false;
    return true;
}

struct loop_stats loop_stats(const struct loop *loop)
{
    struct loop_stats stats = loop->closed;
    for (int i = 0; i < LOOP_LINKS_MAX; i++)
        if (loop->entry[i].link != NULL) {
            struct link_stats link = link_stats(loop->entry[i].link);
            stats.bytes_in += link.bytes_in;
            stats.bytes_out += link.bytes_out;
        }
    return stats;
}
