// Rig: a head's process on a table: events go in by hand, what it sends is kept and can be looked for. Its store is a plain list that
// outlives the head (rig_restart), applies commits in order, and answers them when told to.

#ifndef TESTS_SCHED_RIG_H
#define TESTS_SCHED_RIG_H

#include "core/actors/actor.h"
#include "core/io/blob.h"
#include "core/wire/wire.h"
#include "sched/sched.h"
#include "tests/lib/case.h"

enum { RIG_SENT_MAX = 1 << 14, RIG_COMMITS_MAX = 256, RIG_ENTRIES_MAX = 1 << 14 };

struct rig_sent { uint64_t link; uint16_t message; struct blob *body, *bulk; bool is_taken; };

struct rig_entry { enum store_table table; uint8_t key[STORE_KEY_MAX]; uint32_t key_bytes; struct blob *value; };

struct rig {
    struct process *process;
    struct head_config config;
    struct arena *arena;
    uint64_t now_ns, next_link;
    struct io_effects effects;
    bool holds_commits;                         // commits wait until rig_release_commits
    uint32_t sents, commits;
    struct rig_sent sent[RIG_SENT_MAX];
    struct { uint64_t ticket; struct store_batch *batch; bool is_read; } commit[RIG_COMMITS_MAX];
    enum dj_error store_error;                  // commits fail with it, at once
    uint32_t entries;
    struct rig_entry entry[RIG_ENTRIES_MAX];    // in the order of (table, key)
    bool holds_answers;                         // of computations: they wait until rig_release_answers
    uint32_t answers;
    struct io_event answer[16];
    uint32_t items_committed, closed_links, exits;
    uint64_t closed[RIG_SENT_MAX];
};

struct rig *rig_make(void **state, struct hash128 token);
void rig_restart(struct rig *rig);                                          // the head dies, and starts anew from its store; links are gone
void rig_release_answers(struct rig *rig);
uint32_t rig_stored(const struct rig *rig, enum store_table table);         // entries
const struct blob *rig_stored_at(const struct rig *rig, enum store_table table, const void *key, size_t key_bytes);    // NULL: absent
void rig_run(struct rig *rig);
void rig_advance(struct rig *rig, uint64_t by_ns);
void rig_release_commits(struct rig *rig, enum dj_error error);
uint64_t rig_link(struct rig *rig, uint8_t role, struct hash128 token);     // a new link that has said HELLO
void rig_say(struct rig *rig, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk);
void rig_link_down(struct rig *rig, uint64_t link);
// The oldest message of that kind on that link that was not taken yet; NULL: none.
const struct rig_sent *rig_heard(struct rig *rig, uint64_t link, uint16_t message);
uint64_t rig_worker(struct rig *rig, const char *name, uint64_t incarnation);           // joined, with one device
uint64_t rig_worker_of(struct rig *rig, const char *name, uint64_t incarnation, const char *numerics);
bool rig_is_closed(const struct rig *rig, uint64_t link);


#define SAY(rig, link, NAME, name, ...) \
    do { \
        struct wire_##name said = {__VA_ARGS__}; \
        rig_say((rig), (link), WIRE_##NAME, wire_##name##_encode(&said), NULL); \
    } while (0)

#define HEARD(rig, link, NAME, name, into) \
    do { \
        const struct rig_sent *sent_ = rig_heard((rig), (link), WIRE_##NAME); \
        assert_non_null(sent_); \
        assert_ok(wire_##name##_decode(sent_->body->data, sent_->body->bytes, (rig)->arena, (into))); \
    } while (0)

#endif
