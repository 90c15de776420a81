// Shrink: from a world that breaks an invariant to a smaller one that breaks it too, in the same words as far as they are not numbers and names.

#include "chaos/sim/cluster.h"

#include <string.h>

#define SHORTEST_NS 1000000u    // --until-ms counts in these

struct shrinking {
    struct swarm_options best;
    uint32_t runs, runs_max;
    char claim[SIM_TEXT_MAX];
};

// "client2: an error ...: LEAF_UNKNOWN (worker1 ...)": what is said before the first bracket, without numbers.
static void claim_of(const char *failure, char claim[SIM_TEXT_MAX])
{
    size_t length = 0;
    for (; *failure != '\0' && *failure != '('; failure++)
        if (*failure < '0' || *failure > '9')
            claim[length++] = *failure;
    claim[length] = '\0';
}

static bool try(struct shrinking *shrinking, const struct swarm_options *options)
{
    if (shrinking->runs == shrinking->runs_max)
        return false;
    shrinking->runs++;
    struct cluster_result result = cluster_run(options);
    char claim[SIM_TEXT_MAX];
    claim_of(result.failure, claim);
    if (result.is_ok || strcmp(claim, shrinking->claim) != 0)
        return false;
    shrinking->best = *options;
    return true;
}

static void fewer_faults(struct shrinking *shrinking)
{
    for (uint32_t i = 0; i < FAULT_KINDS; i++) {
        struct swarm_options options = shrinking->best;
        if (!swarm_has(&(struct swarm){.faults = swarm_make(&options).faults}, (enum swarm_fault)i))
            continue;
        options.without |= 1u << i;
        try(shrinking, &options);
    }
}

static void smaller_pool(struct shrinking *shrinking)
{
    for (bool goes_on = true; goes_on;) {
        struct swarm_options options = shrinking->best;
        uint32_t clients = swarm_make(&options).clients;
        options.clients = clients - 1;
        goes_on = clients > 1 && try(shrinking, &options);
    }
    for (bool goes_on = true; goes_on;) {
        struct swarm_options options = shrinking->best;
        uint32_t workers = swarm_make(&options).workers;
        options.workers = workers - 1;
        goes_on = workers > 1 && try(shrinking, &options);
    }
}

static uint32_t most_steps(const struct swarm_options *options)
{
    struct swarm swarm = swarm_make(options);
    uint32_t most = 0;
    for (uint32_t i = 0; i < swarm.clients; i++)
        most = swarm.client[i].steps > most ? swarm.client[i].steps : most;
    return most;
}

static void fewer_steps(struct shrinking *shrinking)
{
    for (uint32_t cut = most_steps(&shrinking->best) / 2; cut > 0; cut /= 2) {
        for (bool goes_on = true; goes_on;) {
            struct swarm_options options = shrinking->best;
            uint32_t steps = most_steps(&options);
            options.steps = steps - cut;
            goes_on = steps > cut && try(shrinking, &options);
        }
    }
}

static void less_time(struct shrinking *shrinking)
{
    for (uint64_t cut_ns = swarm_make(&shrinking->best).until_ns / 2; cut_ns >= SHORTEST_NS; cut_ns /= 2) {
        for (bool goes_on = true; goes_on;) {
            struct swarm_options options = shrinking->best;
            uint64_t until_ns = swarm_make(&options).until_ns;
            options.until_ns = (until_ns - cut_ns) / SHORTEST_NS * SHORTEST_NS;
            goes_on = until_ns > cut_ns + SHORTEST_NS && try(shrinking, &options);
        }
    }
}

uint32_t cluster_shrink(struct swarm_options *options, uint32_t runs)
{
    struct shrinking shrinking = {.best = *options, .runs_max = runs};
    claim_of(cluster_run(options).failure, shrinking.claim);
    fewer_faults(&shrinking);
    smaller_pool(&shrinking);
    less_time(&shrinking);
    fewer_steps(&shrinking);
    fewer_faults(&shrinking);
    *options = shrinking.best;
    return shrinking.runs;
}
