// The whole pool in the simulated world: 500 seeds of the real head, workers and clients under every kind of fault. A failing seed names the
// one command that repeats it.

#include "chaos/sim/cluster.h"

#include "tests/lib/case.h"

#include <inttypes.h>
#include <stdio.h>

enum { SEEDS = 500, TWICE = 16 };

struct sums {
    uint64_t deaths, lost, reordered, links_broken, pauses, partitions, resubmissions, duplicates, reads, errors, executions,
        acknowledged, appends, fetches;
};

static void add(struct sums *sums, const struct cluster_result *result)
{
    sums->deaths += result->sim.deaths;
    sums->lost += result->sim.lost;
    sums->reordered += result->sim.reordered;
    sums->links_broken += result->sim.links_broken;
    sums->pauses += result->sim.pauses;
    sums->partitions += result->sim.partitions;
    sums->resubmissions += result->clients.resubmissions;
    sums->duplicates += result->duplicates;
    sums->reads += result->clients.reads;
    sums->errors += result->clients.errors;
    sums->executions += result->clients.executions;
    sums->acknowledged += result->acknowledged;
    sums->appends += result->appends;
    sums->fetches += result->clients.fetches;
}

static void five_hundred_seeds_hold_every_invariant(void **state)
{
    struct sums sums = {0};
    uint32_t failures = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct cluster_result result = cluster_run(&(struct cluster_options){.seed = seed});
        add(&sums, &result);
        if (result.is_ok)
            continue;
        failures++;
        printf("seed %" PRIu64 " (%s): %s\n  repeat it: djinn chaos sim --seed %" PRIu64 " --runs 1 --loud\n", seed,
               cluster_faults_name(result.faults), result.failure, seed);
    }
    printf("%d seeds: %" PRIu64 " deaths, %" PRIu64 " links lost, %" PRIu64 " messages dropped, %" PRIu64 " reordered, %" PRIu64
           " pauses, %" PRIu64 " partitions, "
           "%" PRIu64 " resubmissions, %" PRIu64 " duplicates answered; %" PRIu64 " executions, %" PRIu64 " appends, %" PRIu64
           " reads, %" PRIu64 " fetches, %" PRIu64 " acknowledged, %" PRIu64 " typed errors\n",
           SEEDS, sums.deaths, sums.links_broken, sums.lost, sums.reordered, sums.pauses, sums.partitions, sums.resubmissions,
           sums.duplicates, sums.executions, sums.appends, sums.reads, sums.fetches, sums.acknowledged, sums.errors);
    assert_int_equal(failures, 0);
    assert_true(sums.deaths > 0 && sums.lost > 0 && sums.reordered > 0 && sums.links_broken > 0 && sums.pauses > 0 &&
                sums.partitions > 0);
    assert_true(sums.resubmissions > 0 && sums.duplicates > 0 && sums.appends > 0 && sums.fetches > 0 && sums.acknowledged > 0);
    assert_true(sums.reads > SEEDS);
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    uint64_t before = 0;
    (void)state;
    for (uint64_t seed = 0; seed < TWICE; seed++) {
        struct cluster_result one = cluster_run(&(struct cluster_options){.seed = seed}),
                              two = cluster_run(&(struct cluster_options){.seed = seed});
        assert_true(one.trace == two.trace);
        assert_true(one.sim.steps == two.sim.steps);
        assert_true(one.trace != before);
        before = one.trace;
    }
}

CASES(five_hundred_seeds_hold_every_invariant, the_same_seed_gives_the_same_trace)
