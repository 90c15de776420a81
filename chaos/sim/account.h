// Account: what one life of a simulated client submitted, what became of it, and what it was told is durable, read off its messages. From it
// follows whether anything acknowledged is missing in the store.

#ifndef CHAOS_SIM_ACCOUNT_H
#define CHAOS_SIM_ACCOUNT_H

#include "chaos/sim/sim.h"

enum { ACCOUNT_LINKS_MAX = 128 };

struct deed;
struct mark;

// A link that is up; session 0: not attached.
struct attached {
    uint64_t link, session, incarnation;
    uint32_t epoch;
};

struct account {
    struct sim *sim;
    const char *name;
    uint32_t head_node;    // whose store it is checked against
    void (*imported)(void *context, uint64_t session, uint32_t epoch,
                     uint64_t counter);    // a submission that is an import, not an execution
    void *context;
    struct arena *arena;
    struct attached link[ACCOUNT_LINKS_MAX];
    struct deed *deed;
    uint32_t deeds, deed_capacity;
    struct mark *mark;
    uint32_t marks;
    uint64_t watermarks;
};

void account_free(struct account *account);    // what it holds

void account_submitted(struct account *account, uint64_t counter, void *tag, bool is_execute);
void account_outcome(struct account *account, const void *tag, bool has_run);
void account_link_up(struct account *account, uint64_t link);
void account_link_down(struct account *account, uint64_t link);
void account_sent(struct account *account, uint64_t link, uint16_t message, const struct blob *body);
void account_received(struct account *account, uint64_t link, uint16_t message, const struct blob *body);

// False, with the reason, when an execution that was acknowledged (at the end: that was answered) is not in the store.
bool account_holds(const struct account *account, bool is_end, char text[SIM_TEXT_MAX]);

#endif
