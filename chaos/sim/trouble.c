// Trouble: nodes that stand still, networks that part, and all of it at random for as long as a test wants. The manual is sim.h.

#include "chaos/sim/world.h"

void sim_pause(struct sim *sim, uint32_t node, uint64_t for_ns)
{
    if (!sim->node[node].is_alive)
        return;
    sim_say(sim, "%s stands still for %.3f s", sim->node[node].name, (double)for_ns / 1e9);
    sim->stats.pauses++;
    sim->node[node].paused_until_ns = sim->now_ns + for_ns;
}

void sim_partition(struct sim *sim, uint32_t a, uint32_t b, uint64_t for_ns)
{
    sim_say(sim, "%s and %s cannot reach each other for %.3f s", sim->node[a].name, sim->node[b].name, (double)for_ns / 1e9);
    sim->stats.partitions++;
    sim->healed_ns[a][b] = sim->healed_ns[b][a] = sim->now_ns + for_ns;
}

static bool pick(struct sim *sim, bool must_be_mortal, uint32_t *ret)
{
    uint32_t fit[SIM_NODES_MAX], count = 0;
    for (uint32_t i = 0; i < sim->nodes; i++) {
        if (sim->node[i].is_alive && sim->node[i].is_exposed && (sim->node[i].is_mortal || !must_be_mortal))
            fit[count++] = i;
    }
    if (count == 0)
        return false;
    *ret = fit[sim_random(sim, 0, count - 1)];
    return true;
}

enum trouble {
    TROUBLE_DEATH,
    TROUBLE_PAUSE,
    TROUBLE_PARTITION,
    TROUBLE_BREAK,
    TROUBLE_BLACKOUT,
    TROUBLE_JUMP,
    TROUBLE_FULL,
    TROUBLE_KINDS
};

static uint64_t mean_of(const struct sim_chaos *chaos, uint64_t kind)
{
    const uint64_t mean[TROUBLE_KINDS] = {chaos->death_mean_ns, chaos->pause_mean_ns,    chaos->partition_mean_ns,
                                          chaos->break_mean_ns, chaos->blackout_mean_ns, chaos->jump_mean_ns,
                                          chaos->full_mean_ns};
    return mean[kind];
}

void sim_jump_clock(struct sim *sim, uint32_t node, uint64_t by_ns)
{
    sim_say(sim, "the clock of %s jumps forward by %.3f s", sim->node[node].name, (double)by_ns / 1e9);
    sim->stats.jumps++;
    sim->node[node].clock_offset_ns += by_ns;
}

void sim_fill_disk(struct sim *sim, uint32_t node, uint64_t for_ns)
{
    if (sim->node[node].disk != NULL)
        disk_fill(sim, node, for_ns);
}

static void blackout(struct sim *sim)
{
    sim->stats.blackouts++;
    for (uint32_t i = 0; i < sim->nodes; i++)
        if (sim->node[i].is_mortal)
            sim_kill(sim, i, sim_random(sim, 1000000, sim->chaos.restart_max_ns + 1000000));
}

static void fill_a_disk(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->nodes; i++)
        if (sim->node[i].disk != NULL)
            disk_fill(sim, i, sim_random(sim, 1, sim->chaos.full_max_ns + 1));
}

static void trouble_comes(struct sim *sim, struct happening *happening);

static void plan_trouble(struct sim *sim, uint64_t kind)
{
    uint64_t mean_ns = mean_of(&sim->chaos, kind);
    if (mean_ns == 0)
        return;
    uint64_t at_ns = sim->now_ns + sim_random(sim, 1, 2 * mean_ns);
    if (at_ns < sim->chaos.until_ns)
        sim_later(sim, at_ns, trouble_comes)->number = kind;
}

static void trouble_comes(struct sim *sim, struct happening *happening)
{
    const struct sim_chaos *chaos = &sim->chaos;
    uint32_t a, b;
    switch ((enum trouble)happening->number) {
    case TROUBLE_DEATH:
        if (pick(sim, true, &a))
            sim_kill(sim, a, sim_random(sim, 1000000, chaos->restart_max_ns + 1000000));
        break;
    case TROUBLE_PAUSE:
        if (pick(sim, false, &a))
            sim_pause(sim, a, sim_random(sim, 1, chaos->pause_max_ns + 1));
        break;
    case TROUBLE_PARTITION:
        if (pick(sim, false, &a) && pick(sim, false, &b) && a != b)
            sim_partition(sim, a, b, sim_random(sim, 1, chaos->partition_max_ns + 1));
        break;
    case TROUBLE_BREAK: network_break_any(sim); break;
    case TROUBLE_BLACKOUT: blackout(sim); break;
    case TROUBLE_JUMP:
        sim_jump_clock(sim, (uint32_t)sim_random(sim, 0, sim->nodes - 1), sim_random(sim, 1, chaos->jump_max_ns + 1));
        break;
    case TROUBLE_FULL: fill_a_disk(sim); break;
    case TROUBLE_KINDS: break;
    }
    plan_trouble(sim, happening->number);
}

void sim_unleash(struct sim *sim, const struct sim_chaos *chaos)
{
    sim->chaos = *chaos;
    for (uint64_t kind = 0; kind < TROUBLE_KINDS; kind++)
        plan_trouble(sim, kind);
}
