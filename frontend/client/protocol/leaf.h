// Leaf: bytes from outside (weights, inputs) named by their content, as the client keeps them.
//
// Idea: a leaf is shared by everything with the same bytes. It is kept until a worker has it and the store made it durable; from then on
// its name is enough and the bytes may be dropped. `known` remembers, by the peer's slot, who was already told about it.
// Thread: under the client's lock.

#ifndef FRONTEND_CLIENT_PROTOCOL_LEAF_H
#define FRONTEND_CLIENT_PROTOCOL_LEAF_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/hash.h"

struct blob;
struct leaf_table;

enum { LEAVES_MAX = 1 << 20 };

struct leaf {
    uint32_t holders;
    struct hash128 content;
    uint64_t bytes;
    struct blob *blob;    // NULL once dropped: the store has it
    uint64_t known;       // bit per peer slot: offered or sent inline
    bool is_durable;
    struct leaf_table *table;
};

struct leaf_stats {
    uint64_t leaves, leaves_reused, bytes_held;
};

DJ_MUST_USE enum dj_error leaf_table_make(struct leaf_table **ret);
void leaf_table_free(struct leaf_table *table);    // every leaf must have been dropped; NULL is allowed
// The leaf with these bytes, held once more for the caller: found, or a copy of them. DJ_E_NO_MEMORY, DJ_E_LIMIT.
DJ_MUST_USE enum dj_error leaf_of(struct leaf_table *table, const void *data, uint64_t bytes, struct leaf **ret);
// The leaf of that name, whose bytes the store has and this process may lack; held once more.
DJ_MUST_USE enum dj_error leaf_named(struct leaf_table *table, struct hash128 content, uint64_t bytes, struct leaf **ret);
struct leaf *leaf_find(struct leaf_table *table, struct hash128 content);    // not held; NULL: none
struct leaf *leaf_hold(struct leaf *leaf);
void leaf_drop(struct leaf *leaf);    // NULL is allowed
// The store has it: drops the bytes if they are many enough to matter.
void leaf_set_durable(struct leaf *leaf);
// A peer is gone: nobody behind this slot knows anything any more.
void leaf_forget_peer(struct leaf_table *table, uint32_t slot);
struct leaf_stats leaf_table_stats(const struct leaf_table *table);

#endif
