// Inbox: how other threads (devices, store, nng) hand things to the loop thread. For this folder.
//
// A stack that any thread pushes on and the loop thread takes whole and reverses, so that what one thread pushed comes out in its order.
// Only a push onto an empty stack wakes the loop: a burst costs one wake-up.

#ifndef CORE_DRIVER_INBOX_H
#define CORE_DRIVER_INBOX_H

#include <stdatomic.h>
#include <stdbool.h>

struct driver;

struct inbox_node {
    struct inbox_node *next;
    void (*handle)(struct driver *driver, struct inbox_node *node);    // on the loop thread; owns the node from then on
};

struct inbox {
    _Atomic(struct inbox_node *) newest;
};

bool inbox_push(struct inbox *inbox, struct inbox_node *node);      // any thread; true when the loop must be woken
struct inbox_node *inbox_take_all(struct inbox *inbox);             // loop thread; oldest first, linked by next; NULL when empty

#endif
