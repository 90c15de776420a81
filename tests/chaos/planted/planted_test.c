// Deliberate bugs, one at a time, in the real head, worker and client: each must break an invariant of the simulated world within 500 seeds.
// Built with DJINN_PLANTED_BUGS, which nothing else is.

#include "core/base/planted.h"

#include "chaos/sim/cluster.h"
#include "tests/lib/case.h"

#include <inttypes.h>
#include <stdio.h>

enum { SEEDS = 500 };

enum planted_bug planted_bug;

static const char *const names[PLANTED_BUGS] = {
    [PLANTED_RUN_TWICE] = "the worker runs a duplicate again",
    [PLANTED_EARLY_ACKNOWLEDGE] = "the head acknowledges before the disk does",
    [PLANTED_FORGET_LAST] = "the client forgets the last resubmission",
    [PLANTED_STEAL_ROWS] = "an append overwrites another's rows",
    [PLANTED_EARLY_RELEASE] = "a release takes effect early",
    [PLANTED_EARLY_CONFIRM] = "the client confirms what was not answered",
    [PLANTED_DONATE_SHARED] = "donated memory is reused while read",
};

static bool is_caught(enum planted_bug bug)
{
    planted_bug = bug;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct cluster_result result = cluster_run(&(struct cluster_options){.seed = seed});
        if (result.is_ok)
            continue;
        printf("%-45s seed %3" PRIu64 " (%s): %s\n", names[bug], seed, cluster_faults_name(result.faults), result.failure);
        return true;
    }
    printf("%-45s NOT CAUGHT\n", names[bug]);
    return false;
}

static void every_planted_bug_is_caught(void **state)
{
    uint32_t caught = 0;
    (void)state;
    for (enum planted_bug bug = PLANTED_NONE + 1; bug < PLANTED_BUGS; bug++)
        caught += is_caught(bug);
    planted_bug = PLANTED_NONE;
    assert_int_equal(caught, PLANTED_BUGS - 1);
}

static void without_one_the_world_holds(void **state)
{
    (void)state;
    planted_bug = PLANTED_NONE;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct cluster_result result = cluster_run(&(struct cluster_options){.seed = seed});
        assert_true(result.is_ok);
    }
}

CASES(every_planted_bug_is_caught, without_one_the_world_holds)
