// Link: frames over one non-blocking stream descriptor (TCP, unix). No loop of its own: who has a poll or libuv loop asks it what it
// waits for and tells it when the descriptor is ready. Used by frontend/client/loop and core/driver alike. Thread: its owner's.
//
// Received bodies and bulks are read straight into fresh blobs of their exact size, checked, and given as IO_RECV contents. Sending
// gathers header, body and bulk with writev and never copies a bulk.

#ifndef CORE_LINK_LINK_H
#define CORE_LINK_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/blob.h"

struct link;

enum { LINK_QUEUE_HIGH_BYTES = 64 << 20, LINK_QUEUE_LOW_BYTES = 16 << 20 };

struct link_message { uint16_t message; struct blob *body, *bulk; };

// Takes the connected (or connecting) non-blocking descriptor `fd`, which link_free closes; on failure it stays the caller's.
// bulk_budget_bytes bounds what one peer may make this process allocate for one frame.
DJ_MUST_USE enum dj_error link_make(int fd, uint64_t bulk_budget_bytes, struct link **ret);
void link_free(struct link *link);                          // drops what is queued; NULL is allowed
int link_fd(const struct link *link);

// Queues one message and tries to write at once. Takes both holds in every case. bulk_bytes 0 with a bulk: all from bulk_offset.
// DJ_E_CLOSED once the stream has failed (link_receive may still give what the peer said before); DJ_E_INVALID for a message that no receiver
// would take; DJ_E_LIMIT when the peer has left so much unread that the link must be closed. Beyond LINK_QUEUE_HIGH_BYTES it still queues;
// link_is_congested says so.
DJ_MUST_USE enum dj_error link_send(struct link *link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
                                    uint64_t bulk_bytes, uint64_t not_after_ns);
bool link_wants_write(const struct link *link);             // poll for POLLOUT
bool link_is_held(const struct link *link);                 // by a fault (faults.h): nothing is read or written; do not poll for anything
bool link_is_congested(const struct link *link);
size_t link_queued_bytes(const struct link *link);
// The descriptor is writable: writes what it can. now_ns enforces not_after_ns (messages whose time has passed are dropped whole).
DJ_MUST_USE enum dj_error link_flush(struct link *link, uint64_t now_ns);
// The descriptor is readable: reads what is there. Returns DJ_OK and *ret filled (message != 0) for each complete message, DJ_OK with
// message 0 when more bytes are needed, or the typed error after which the link must be closed (DJ_E_CLOSED at end of stream).
// Call until message is 0. The caller owns the blobs' holds.
DJ_MUST_USE enum dj_error link_receive(struct link *link, struct link_message *ret);

struct link_stats { uint64_t bytes_in, bytes_out, messages_in, messages_out, checksum_failures; };
struct link_stats link_stats(const struct link *link);

// Opens a stream to "tcp://host:port" (numeric or resolvable host) or "unix:///path"; non-blocking; connection completes in the background.
DJ_MUST_USE enum dj_error link_dial(const char *address, int *ret_fd, struct fault *fault);
// Listens; `bound` (IO_ADDRESS_MAX) gets the address with the port the system chose. Unix sockets are 0600 and replace a stale file.
DJ_MUST_USE enum dj_error link_listen(const char *address, int *ret_fd, char *bound, struct fault *fault);
DJ_MUST_USE enum dj_error link_accept(int listen_fd, int *ret_fd);      // DJ_E_NOT_FOUND when nobody waits

#endif
