// The whole pool in the simulated world: the real head, workers and clients, in as many worlds as there are seeds. A failing seed names the one
// command that repeats it. `make test` runs more of them through `djinn chaos sim`.

#include "chaos/sim/cluster.h"

#include "tests/lib/case.h"

#include <inttypes.h>
#include <stdio.h>

enum { SEEDS = 400, TWICE = 24 };

struct sums {
    struct sim_stats sim;
    struct client_totals clients;
    struct witness_totals witness;
    struct ledger_totals ledger;
    uint64_t appends;
};

// These structs are nothing but counts.
static void add_counts(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
        ((uint64_t *)to)[i] += ((const uint64_t *)from)[i];
}

static void add(struct sums *sums, const struct cluster_result *result)
{
    add_counts(&sums->sim, &result->sim, sizeof sums->sim);
    add_counts(&sums->clients, &result->clients, sizeof sums->clients);
    add_counts(&sums->witness, &result->witness, sizeof sums->witness);
    add_counts(&sums->ledger, &result->ledger, sizeof sums->ledger);
    sums->appends += result->appends;
}

// Everything that can happen has happened: a swarm that never does something proves nothing about it.
static uint32_t count_missing(const struct sums *sums)
{
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {
        {"deaths", sums->sim.deaths},
        {"blackouts", sums->sim.blackouts},
        {"pauses", sums->sim.pauses},
        {"partitions", sums->sim.partitions},
        {"links lost", sums->sim.links_broken},
        {"clock jumps", sums->sim.jumps},
        {"messages dropped", sums->sim.lost},
        {"messages reordered", sums->sim.reordered},
        {"commits lost", sums->sim.commits_lost},
        {"commits refused", sums->sim.commits_refused},
        {"device errors", sums->sim.device_errors},
        {"device losses", sums->sim.device_losses},
        {"fenced leases", sums->witness.fences},
        {"lives of workers that ended", sums->witness.ended_lives},
        {"executions", sums->clients.executions},
        {"appends", sums->appends},
        {"reads", sums->clients.reads},
        {"fetches", sums->clients.fetches},
        {"imports", sums->witness.imports},
        {"copies between devices", sums->sim.peer_copies},
        {"copies from the memory of the dead", sums->sim.ghost_copies},
        {"copies that counted", sums->witness.held},
        {"copies given up", sums->witness.copies_given_up},
        {"copies of what was not held", sums->witness.copies_refused},
        {"resubmissions", sums->clients.resubmissions},
        {"duplicates answered", sums->witness.duplicates},
        {"records acknowledged", sums->witness.acknowledged},
        {"records of clients", sums->witness.client_journalled},
        {"watermarks", sums->witness.watermarks},
        {"inventories", sums->witness.inventories},
        {"recoveries", sums->witness.recoveries},
        {"replays", sums->witness.replays},
        {"checkpoints", sums->ledger.checkpoints},
        {"sessions resumed", sums->witness.resumed},
    };
    uint32_t missing = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        printf("%s%" PRIu64 " %s", i == 0 ? "" : ", ", counts[i].count, counts[i].name);
        missing += counts[i].count == 0;
    }
    printf("; %" PRIu64 " typed errors\n", sums->clients.errors);
    return missing;
}

static void every_seed_holds_every_invariant(void **state)
{
    struct sums sums = {0};
    uint32_t failures = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct swarm_options options = {.seed = seed};
        struct cluster_result result = cluster_run(&options);
        char command[1024];
        add(&sums, &result);
        if (result.is_ok)
            continue;
        failures++;
        swarm_command(&options, command, sizeof command);
        printf("seed %" PRIu64 ": %s\n  repeat it: %s --loud\n", seed, result.failure, command);
    }
    uint32_t missing = count_missing(&sums);
    assert_int_equal(failures, 0);
    assert_int_equal(missing, 0);
}

// Worlds beyond the first ones that once broke an invariant.
static void what_was_mended_stays_mended(void **state)
{
    static const uint64_t seeds[] = {12005, 600655};
    (void)state;
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        struct cluster_result result = cluster_run(&(struct swarm_options){.seed = seeds[i]});
        if (!result.is_ok)
            fail_msg("seed %" PRIu64 ": %s", seeds[i], result.failure);
    }
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    uint64_t before = 0;
    (void)state;
    for (uint64_t seed = 0; seed < TWICE; seed++) {
        struct swarm_options options = {.seed = seed};
        struct cluster_result one = cluster_run(&options), two = cluster_run(&options);
        assert_true(one.trace == two.trace);
        assert_true(one.sim.steps == two.sim.steps);
        assert_true(one.trace != before);
        before = one.trace;
    }
}

static void taking_one_fault_away_leaves_the_rest_of_the_world(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct swarm whole = swarm_make(&(struct swarm_options){.seed = seed}),
                     less = swarm_make(&(struct swarm_options){.seed = seed, .without = 1u << FAULT_PAUSE, .clients = 1});
        assert_int_equal(less.faults, whole.faults & ~(1u << FAULT_PAUSE));
        assert_int_equal(less.clients, 1);
        assert_int_equal(less.workers, whole.workers);
        assert_int_equal(less.until_ns, whole.until_ns);
        assert_memory_equal(&less.client[0], &whole.client[0], sizeof less.client[0]);
    }
}

static void kinds_of_faults_are_read_by_name(void **state)
{
    uint32_t bits = 0;
    (void)state;
    assert_true(swarm_fault_parse("pause,break-send", &bits));
    assert_int_equal(bits, 1u << FAULT_PAUSE | 1u << FAULT_BREAK_SEND);
    assert_false(swarm_fault_parse("pause,nonsense", &bits));
    assert_int_equal(bits, 1u << FAULT_PAUSE | 1u << FAULT_BREAK_SEND);
}

CASES(every_seed_holds_every_invariant, what_was_mended_stays_mended, the_same_seed_gives_the_same_trace,
      taking_one_fault_away_leaves_the_rest_of_the_world, kinds_of_faults_are_read_by_name)
