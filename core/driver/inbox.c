// Inbox: a lock-free stack of nodes. The manual is inbox.h.
//
// Memory order. A push releases: what the pushing thread wrote (the node, and the bytes it tells of) is seen by whoever takes it. Taking
// acquires for the same reason. The load before the exchange needs no order: a stale value only costs another turn of the loop. There is no
// ABA problem, since nodes are only ever taken all at once.

#include "core/driver/inbox.h"

#include <stddef.h>

bool inbox_push(struct inbox *inbox, struct inbox_node *node)
{
    struct inbox_node *newest = atomic_load_explicit(&inbox->newest, memory_order_relaxed);
    do {
        node->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&inbox->newest, &newest, node, memory_order_release, memory_order_relaxed));
    return newest == NULL;
}

struct inbox_node *inbox_take_all(struct inbox *inbox)
{
    struct inbox_node *node = atomic_exchange_explicit(&inbox->newest, NULL, memory_order_acquire);
    struct inbox_node *oldest = NULL;
    while (node != NULL) {
        struct inbox_node *next = node->next;
        node->next = oldest;
        oldest = node;
        node = next;
    }
    return oldest;
}
