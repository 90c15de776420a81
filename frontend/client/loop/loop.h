// Loop: links over poll(2), for whoever holds the client's lock. It implements the network side of protocol_port.
//
// A step waits without the lock and handles what came with it, so that several threads may step at once: the one that a caller waits in, and
// the background thread when nobody waits. Links are found by number after the wait; a link that another thread closed is not there any more.

#ifndef FRONTEND_CLIENT_LOOP_LOOP_H
#define FRONTEND_CLIENT_LOOP_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/io.h"

struct loop;

enum { LOOP_LINKS_MAX = 128 };

// `handle` is called with the lock held, for each event, and must take the blobs of IO_RECV.
DJ_MUST_USE enum dj_error loop_make(pthread_mutex_t *lock,
                                    void (*handle)(void *self, uint64_t now_ns, const struct io_event *event), void *self,
                                    struct loop **ret);
void loop_free(struct loop *loop);    // closes every link without a word; NULL is allowed

uint64_t loop_open(struct loop *loop, const char *address);
void loop_close(struct loop *loop, uint64_t link);
void loop_send(struct loop *loop, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
               uint64_t bulk_bytes, uint64_t not_after_ns);

// Waits (at most until deadline_ns) and handles. The lock is held on entry and on return. with_links false: only for loop_wake.
void loop_step(struct loop *loop, uint64_t deadline_ns, bool with_links);
void loop_wake(struct loop *loop);                // whoever waits in a step returns soon. Any thread
bool loop_has_changed(struct loop *loop);         // since the last call: another poll set is needed
bool loop_is_drained(const struct loop *loop);    // nothing is queued on any link

uint64_t loop_now_ns(void);    // CLOCK_MONOTONIC

struct loop_stats {
    uint64_t bytes_in, bytes_out;
};
struct loop_stats loop_stats(const struct loop *loop);

#endif
