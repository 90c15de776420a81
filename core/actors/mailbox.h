// Mailbox: the bounded queue of letters in front of an actor. For this folder.
//
// A ring that grows by doubling up to what it may hold, so that an idle actor costs little and a busy one allocates nothing. Being full is
// an answer: the sender is told. Letters that must not be lost (timers, LETTER_DOWN, letters moved with a link) pass the bound; their number
// is bounded elsewhere (timers and watches of one actor, the old owner's mailbox).

#ifndef CORE_ACTORS_MAILBOX_H
#define CORE_ACTORS_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "core/actors/actor.h"

struct mailbox {
    struct letter *slot;
    uint32_t slots;                     // a power of two, or 0
    uint32_t capacity;
    uint32_t head, tail;                // run freely, masked on use: next to write, next to read
    uint32_t depth_max;
};

static inline uint32_t mailbox_depth(const struct mailbox *box) { return box->head - box->tail; }
static inline bool mailbox_is_full(const struct mailbox *box) { return mailbox_depth(box) >= box->capacity; }

void mailbox_init(struct mailbox *box, uint32_t capacity);
void mailbox_free(struct mailbox *box);                     // drops the letters

// Copies *letter in and owns what it carries. DJ_E_MAILBOX_FULL or DJ_E_NO_MEMORY: the caller still owns it.
DJ_MUST_USE enum dj_error mailbox_post(struct mailbox *box, const struct letter *letter);
void mailbox_force(struct mailbox *box, const struct letter *letter);       // past the bound; aborts out of memory
bool mailbox_take(struct mailbox *box, struct letter *ret);                 // false when empty

// Takes out, in order, the letters that carry an event of `link`: into `to`, or dropped when `to` is NULL. How many.
uint32_t mailbox_move_link(struct mailbox *box, uint64_t link, struct mailbox *to);

#endif
