// Rig: a head's process on a table: events go in by hand, what it sends is kept and can be looked for. The store answers when told to.

#ifndef TESTS_SCHED_RIG_H
#define TESTS_SCHED_RIG_H

#include "core/actors/actor.h"
#include "core/wire/wire.h"
#include "sched/sched.h"
#include "tests/lib/case.h"

enum { RIG_SENT_MAX = 512, RIG_COMMITS_MAX = 256 };

struct rig_sent { uint64_t link; uint16_t message; struct blob *body, *bulk; bool is_taken; };

struct rig {
    struct process *process;
    struct arena *arena;
    uint64_t now_ns, next_link;
    struct io_effects effects;
    bool holds_commits;                         // commits wait until rig_release_commits
    uint32_t sents, commits;
    struct rig_sent sent[RIG_SENT_MAX];
    struct { uint64_t ticket; struct store_batch *batch; } commit[RIG_COMMITS_MAX];
    uint32_t items_committed, closed_links, exits;
    uint64_t closed[RIG_SENT_MAX];
};

struct rig *rig_make(void **state, struct hash128 token);
void rig_run(struct rig *rig);
void rig_advance(struct rig *rig, uint64_t by_ns);
void rig_release_commits(struct rig *rig, enum dj_error error);
uint64_t rig_link(struct rig *rig, uint8_t role, struct hash128 token);     // a new link that has said HELLO
void rig_say(struct rig *rig, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk);
void rig_link_down(struct rig *rig, uint64_t link);
// The oldest message of that kind on that link that was not taken yet; NULL: none.
const struct rig_sent *rig_heard(struct rig *rig, uint64_t link, uint16_t message);
uint64_t rig_worker(struct rig *rig, const char *name, uint64_t incarnation);           // joined, with one device
bool rig_is_closed(const struct rig *rig, uint64_t link);

#endif
