// Planted: deliberate bugs, for the simulator's tests to prove that it finds such things. Only a build with DJINN_PLANTED_BUGS (tests/chaos/planted)
// has them; in every other PLANTED(...) is false at compile time and nothing remains. The list stands before the tests that find them.

#ifndef CORE_BASE_PLANTED_H
#define CORE_BASE_PLANTED_H

#include <stdbool.h>

//  name, the unit tests that run the code (their names begin so), what is wrong
#define PLANTED_LIST(BUG) \
    BUG(RUN_TWICE, "gpu_worker_actors", "the worker runs a duplicate of what it is still running") \
    BUG(EARLY_ACKNOWLEDGE, "sched", "the head acknowledges what it accepted, not only what is durable") \
    BUG(FORGET_LAST, "frontend_client", "the client gives everything again after a lost link but the last of several") \
    BUG(STEAL_ROWS, "gpu_worker_exec", "the executor appends to a long buffer without looking where its committed rows end") \
    BUG(EARLY_RELEASE, "gpu_worker_actors", "a release takes effect when it is read, not in its turn") \
    BUG(EARLY_CONFIRM, "frontend_client", "the client confirms what it has sent, not what was answered, when much is out") \
    BUG(SKIP_FENCE, "sched", "a session that is taken over for the third time keeps its epoch") \
    BUG(DROP_RECORD, "gpu_worker_actors", "the worker leaves one execution in sixteen out of its journal") \
    BUG(FORGET_REFERENCE, "frontend_client", "the client leaves the last of many handles out of what it needs back") \
    BUG(TRIM_WINDOW, "frontend_client", "the client forgets submissions of several leaves when they are answered, not when they are durable") \
    BUG(REUSE_STREAM, "frontend_client", "a place that changes its worker again keeps the number of its stream") \
    BUG(LATE_ANSWER, "gpu_worker_actors", "with several sessions the worker answers for seconds after its lease") \
    BUG(REPLAY_DONATES, "frontend_client", "a replay donates what the recovery still needs") \
    BUG(WRONG_BASE, "gpu_worker_actors", "a record forgets the older one of the two that its bindings build on") \
    BUG(RESUME_DIFFERENT, "frontend_client", "resumption answers from a record whose bindings differ") \
    BUG(TRIM_LIVE, "sched", "a trim does not look at the first of the live handles") \
    BUG(EARLY_CHECKPOINT, "gpu_worker_actors", "a checkpoint of several values is journalled before its pieces are durable") \
    BUG(DEDUPE_PART, "gpu_worker_actors", "the worker takes the third part of a counter for a repetition") \
    BUG(IMPORT_NAME, "gpu_worker_actors", "an import goes under the number of its source's output") \
    BUG(EARLY_TOLD, "frontend_client", "the client takes all it has told for durable at the word that some of it is") \
    BUG(FORGET_LEAVES, "frontend_client", "the client forgets leaves with the record of what they went into, durable or not") \
    BUG(FACT_OF_ANOTHER, "gpu_worker_actors", "a recorded answer stands under the number of the output beside it") \
    BUG(SEND_TO_NOBODY, "gpu_worker_actors", "a piece that waits to be sent outlives its link, and is sent to nobody for ever") \
    BUG(GRANT_ONCE, "sched", "a client that asks for one worker three times at once is answered twice")

#ifdef DJINN_PLANTED_BUGS

#define BUG(name, tests, text) PLANTED_##name,
enum planted_bug { PLANTED_NONE, PLANTED_LIST(BUG) PLANTED_BUGS };
#undef BUG

extern enum planted_bug planted_bug;
#define PLANTED(bug) (planted_bug == PLANTED_##bug)

#else

#define PLANTED(bug) false

#endif

#endif
