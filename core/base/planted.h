// Planted: deliberate bugs, for the simulator's tests to prove that it finds such things. Only a build with DJINN_PLANTED_BUGS (tests/chaos/planted)
// has them; in every other PLANTED(...) is false at compile time and nothing remains. The list stands before the tests that find them.

#ifndef CORE_BASE_PLANTED_H
#define CORE_BASE_PLANTED_H

#include <stdbool.h>

//        name               what is wrong
#define PLANTED_LIST(BUG)                                                                                            \
    BUG(RUN_TWICE,           "the worker runs a duplicate of what it is still running")                              \
    BUG(EARLY_ACKNOWLEDGE,   "the head acknowledges what it accepted, not only what is durable")                     \
    BUG(FORGET_LAST,         "the client gives everything again after a lost link but the last of several")          \
    BUG(STEAL_ROWS,          "the executor appends without looking where the buffer's committed rows end")           \
    BUG(EARLY_RELEASE,       "a release takes effect when it is read, not in its turn")                              \
    BUG(EARLY_CONFIRM,       "the client confirms what it has sent, not what was answered")                          \
    BUG(DONATE_SHARED,       "the executor takes over donated memory that one other still reads")                    \
    BUG(SKIP_FENCE,          "the head goes on believing in the values of a worker that it has fenced")              \
    BUG(DROP_RECORD,         "the worker leaves one execution in sixteen out of its journal")                        \
    BUG(FORGET_REFERENCE,    "the client leaves the last handle out of what it needs back")                          \
    BUG(TRIM_WINDOW,         "the client forgets a submission when it is answered, not when it is durable")          \
    BUG(REUSE_STREAM,        "a place that changes its worker keeps the number of its stream")                       \
    BUG(OLD_EPOCH,           "the worker lets a client of an older epoch attach")                                    \
    BUG(LATE_ANSWER,         "the worker answers after its lease")                                                   \
    BUG(REPLAY_DONATES,      "a replay donates what the recovery still needs")                                       \
    BUG(PIECES_SWAPPED,      "a restored value's first two pieces are in the wrong order")                           \
    BUG(WRONG_BASE,          "a record names the execution before its base as its base")                             \
    BUG(RESUME_DIFFERENT,    "resumption answers from a record whose bindings differ")                               \
    BUG(INVENTORY_FORGETS,   "the inventory names the first half of a session's values")                             \
    BUG(TRIM_LIVE,           "a trim does not look at the last of the live handles")                                 \
    BUG(EARLY_CHECKPOINT,    "a checkpoint is journalled before its pieces are durable")                             \
    BUG(DEDUPE_PART,         "the worker takes the second part of a counter for a repetition")                       \
    BUG(IMPORT_NAME,         "an import goes under the number of its source's output")                               \
    BUG(JOURNAL_ORDER,       "the client journals its records latest first")                                         \
    BUG(FACT_OF_ANOTHER,     "a recorded answer is given as the value of the output before it")

#ifdef DJINN_PLANTED_BUGS

#define BUG(name, text) PLANTED_##name,
enum planted_bug { PLANTED_NONE, PLANTED_LIST(BUG) PLANTED_BUGS };
#undef BUG

extern enum planted_bug planted_bug;
#define PLANTED(bug) (planted_bug == PLANTED_##bug)

#else

#define PLANTED(bug) false

#endif

#endif
