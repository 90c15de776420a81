// Setup: what a world is made of, and what can be asked of it. The manual is sim.h.

#include "chaos/sim/world.h"

#include "core/base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sim_listen(struct sim *sim, uint32_t node, const char *address)
{
    struct sim_node *listener = &sim->node[node];
    assert(listener->listeners < SIM_LISTENERS_MAX && strlen(address) < IO_ADDRESS_MAX);
    strcpy(listener->listener[listener->listeners++], address);
}

void sim_add_store(struct sim *sim, uint32_t node)
{
    assert(sim->node[node].disk == NULL);
    sim->node[node].disk = disk_make();
}

struct device_port *sim_add_device(struct sim *sim, uint32_t node, uint64_t capacity_bytes)
{
    struct sim_node *owner = &sim->node[node];
    assert(owner->devices < SIM_DEVICES_MAX);
    struct sim_device *device = device_make(sim, node, owner->devices, capacity_bytes);
    owner->device[owner->devices++] = device;
    return device_port_of(device);
}

void sim_on_answer(struct sim *sim, uint32_t node,
                   void (*answered)(void *context, uint64_t request, enum dj_error error, void *result), void *context)
{
    sim->node[node].answered = answered;
    sim->node[node].answered_context = context;
}

void sim_mortal(struct sim *sim, uint32_t node)
{
    sim->node[node].is_mortal = sim->node[node].is_exposed = true;
}

void sim_serve(struct sim *sim, uint32_t node, uint64_t after_ns)
{
    sim->node[node].served_ns = after_ns;
}

void sim_expose(struct sim *sim, uint32_t node)
{
    sim->node[node].is_exposed = true;
}

void sim_submit(struct sim *sim, uint32_t node, uint32_t verb, void *argument)
{
    struct io_event event = {.kind = IO_SUBMIT};
    event.submit.verb = verb;
    event.submit.argument = argument;
    sim_later_event(sim, sim->now_ns, node, &event);
}

struct act {
    void (*act)(struct sim *sim, void *context);
    void *context;
};

static void act_now(struct sim *sim, struct happening *happening)
{
    struct act *act = happening->pointer;
    act->act(sim, act->context);
    free(act);
}

static void act_drop(struct happening *happening)
{
    free(happening->pointer);
}

void sim_at(struct sim *sim, uint64_t at_ns, void (*act)(struct sim *sim, void *context), void *context)
{
    struct act *kept = malloc(sizeof *kept);
    assert(kept != NULL);
    *kept = (struct act){.act = act, .context = context};
    struct happening *happening = sim_later(sim, at_ns, act_now);
    happening->pointer = kept;
    happening->drop = act_drop;
}

void sim_invariant(struct sim *sim, const char *name, bool (*holds)(struct sim *sim, void *context, char *text), void *context)
{
    assert(sim->invariants < SIM_INVARIANTS_MAX);
    sim->invariant[sim->invariants++] = (struct sim_invariant_claim){.name = name, .holds = holds, .context = context};
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    if (sim->has_failed)
        return;
    sim->has_failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sim->failure, sizeof sim->failure, format, arguments);
    va_end(arguments);
    sim_say(sim, "FAILED: %s", sim->failure);
}

const char *sim_failure(const struct sim *sim)
{
    return sim->has_failed ? sim->failure : NULL;
}

bool sim_is_alive(const struct sim *sim, uint32_t node)
{
    return sim->node[node].is_alive;
}

uint64_t sim_life(const struct sim *sim, uint32_t node)
{
    return sim->node[node].life;
}

void *sim_self(const struct sim *sim, uint32_t node)
{
    return sim->node[node].is_alive ? sim->node[node].self : NULL;
}

int sim_exit_code(const struct sim *sim, uint32_t node)
{
    return sim->node[node].exit_code;
}

void sim_on_message(struct sim *sim, void (*passes)(void *context, const struct sim_message *message), void *context)
{
    sim->passes = passes;
    sim->passes_context = context;
}

void sim_on_store(struct sim *sim, void (*changes)(void *context, const struct sim_change *change), void *context)
{
    sim->changes = changes;
    sim->changes_context = context;
}

void sim_doom(struct sim *sim, uint32_t node)
{
    sim->node[node].is_doomed = true;
}

uint64_t sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

struct prng *sim_prng(struct sim *sim)
{
    return &sim->prng;
}

uint64_t sim_trace(const struct sim *sim)
{
    return sim->trace;
}

struct sim_stats sim_stats(const struct sim *sim)
{
    return sim->stats;
}
