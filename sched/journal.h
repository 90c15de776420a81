// Journal: what journal.c and held.c share. Nobody else includes it.

#ifndef SCHED_JOURNAL_H
#define SCHED_JOURNAL_H

#include "sched/state.h"

// A JOURNAL message that is not acknowledged yet.
struct part {
    struct list list;
    uint64_t link, last;
    uint64_t batch;    // the last one that has records of it
    uint32_t held;     // records of it that wait
};

// A record that waits for another.
struct held {
    struct list list;
    struct part *part;
    uint64_t link, session, counter;    // counter: of the execution or import; 0: another record
    struct blob *body;
    size_t offset, length;
    bool is_old;
    uint64_t source;      // what it waits for; 0: for those in front of it, first of all
    uint64_t asked_ns;    // when the store was asked for it; 0: not yet
    uint64_t since_ns;
};

static inline struct exec_id record_run_id(const struct record *record)    // of an execution or an import
{
    return record->kind == RECORD_IMPORT ? record->import.id : record->execution.id;
}

// journal.c: the session, if the link may speak for it; and what happens to a record that waits for nothing.
struct head_session *journal_allowed(struct head *head, const struct head_link *link, uint64_t id);
DJ_MUST_USE enum dj_error journal_accept(struct head *head, const struct head_link *link, struct head_session *session,
                                         const struct record *record, struct blob *body, const uint8_t *bytes, size_t length,
                                         bool is_old);

// held.c: the first execution or import that the record builds on and that was not accepted yet; 0: there is none.
uint64_t held_missing(const struct head_session *session, const struct record *record);
bool held_is_behind(const struct head *head, uint64_t link, const struct head_session *session);    // others of them wait
DJ_MUST_USE enum dj_error held_add(struct head *head, struct part *part, struct head_session *session, const struct record *record,
                                   uint64_t source, struct blob *body, const uint8_t *bytes, size_t length, bool is_old);
void held_free(struct head *head, struct held *held);

#endif
