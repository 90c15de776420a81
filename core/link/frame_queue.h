// Frame queue: messages that wait to be written, as spans that a gathering write takes. Used by link.c and the driver's nng streams.
// Thread: its owner's; the spans of one gather may be read by another until the advance that follows it.

#ifndef CORE_LINK_FRAME_QUEUE_H
#define CORE_LINK_FRAME_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/wire/wire.h"

struct iovec;
struct blob;

enum { FRAME_QUEUE_MESSAGES_MAX = 1 << 16 };
#define FRAME_QUEUE_BYTES_MAX ((uint64_t)1 << 35)           // blobs that exist already, so this bounds a peer that does not read

struct frame_out {
    uint8_t header[WIRE_HEADER_BYTES];  // once it is sealed
    uint16_t message;
    bool is_sealed, is_spoiled;         // spoiled: by a fault of chaos; it leaves as it is
    uint32_t number;                    // that the header has
    int32_t shift;                      // of its number, by such a fault
    struct blob *body, *bulk;
    uint64_t bulk_offset, bulk_bytes;
    uint64_t not_after_ns;              // 0: no limit
    uint64_t due_ns;                    // not before this; 0: at once
};

struct frame_queue {
    struct frame_out *slot;             // a ring, a power of two
    uint32_t slots, head, tail;
    uint32_t gathered;                  // messages that the spans of the last gather touch: they stay until the advance
    uint32_t timed;                     // messages with a limit
    uint64_t sent;                      // bytes of the first message that are written
    uint64_t bytes;                     // waiting, all messages
    uint64_t messages;                  // written whole since the start; the number of the first that waits
    uint64_t held_until_ns;             // nothing leaves before this (a partition); 0: not held
};

void frame_queue_init(struct frame_queue *queue);
void frame_queue_free(struct frame_queue *queue);           // drops what waits
static inline bool frame_queue_is_empty(const struct frame_queue *queue) { return queue->head == queue->tail; }
bool frame_queue_is_due(const struct frame_queue *queue);   // something waits, and may leave now

// Takes both holds in every case. DJ_E_NO_MEMORY; DJ_E_LIMIT when the peer has left too much unread; DJ_E_INVALID for a bulk span outside its
// blob, or a message whose kind, body or bulk a receiver would refuse.
DJ_MUST_USE enum dj_error frame_queue_add(struct frame_queue *queue, uint16_t message, struct blob *body, struct blob *bulk,
                                          uint64_t bulk_offset, uint64_t bulk_bytes, uint64_t not_after_ns);
// Drops, whole, messages whose time has passed and that are neither begun nor gathered.
void frame_queue_expire(struct frame_queue *queue, uint64_t now_ns);
// Up to `max` spans of what is next and due; returns how many.
uint32_t frame_queue_gather(struct frame_queue *queue, struct iovec *ret, uint32_t max);
void frame_queue_advance(struct frame_queue *queue, size_t bytes);          // so many bytes of them were written

#endif
