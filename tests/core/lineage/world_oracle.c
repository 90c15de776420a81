// World: the oracle: slow, recursive, and from what the generator knows.

#include "tests/core/lineage/world.h"

#include <string.h>

bool world_decodes(const struct world *world, int32_t index)
{
    const struct world_event *event = &world->event[index];
    if (event->is_dropped || event->is_damaged)
        return false;
    if (event->is_alone)
        return true;
    if (!world_decodes(world, event->base))
        return false;
    if (event->before < 0 || world->event[event->base].stored_base == event->before)
        return true;    // the base's own record names what was before, and decodes only if that does
    return world_decodes(world, event->before);
}

// A copy needs the shape of what it copies: a checkpoint knows it, replica or not, else what made it.
static bool has_shape(const struct world *world, int32_t event, uint32_t output)
{
    for (;;) {
        const struct world_event *at = &world->event[event];
        if (at->output[output].is_checkpoint)
            return true;
        if (at->is_dropped || !at->is_import)
            return world_decodes(world, event);
        event = at->input[0].event;
        output = at->input[0].output;
    }
}

static void ask(const struct world *world, const struct world_question *question, int32_t index, uint32_t output,
                struct world_answer *ret)
{
    const struct world_event *event = &world->event[index];
    const struct world_value *value = &event->output[output];
    uint8_t *way = &ret->way[index][output];
    if (*way != BY_NONE)
        return;
    ret->is_asked[index][output] = true;
    if (!question->is_trim && value->at != 0) {
        *way = value->at & 1u << (WORLD_TARGET - 1) ? BY_HELD : BY_FETCH;
        return;
    }
    if (value->is_checkpoint && (!value->is_replica || (!question->is_trim && value->has_leaves))) {
        *way = BY_PIECES;
        return;
    }
    ret->is_reached[index] = !event->is_dropped;
    if (event->is_dropped || (!event->is_import && !world_decodes(world, index))) {
        ret->is_possible = false;
        return;
    }
    if (!event->is_import && value->exists && value->is_fact) {
        *way = BY_FACT;
        return;
    }
    if (!event->is_import && event->numerics != WORLD_NUMERICS && !question->allows_close && !question->is_trim) {
        ret->is_possible = false;
        return;
    }
    *way = event->is_import ? BY_COPY : BY_REPLAY;
    if (event->is_import && !has_shape(world, index, output))
        ret->is_possible = false;
    for (uint32_t k = 0; k < event->inputs; k++)
        ask(world, question, event->input[k].event, event->input[k].output, ret);
}

void world_ask(const struct world *world, const struct world_question *question, struct world_answer *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->is_possible = true;
    for (int32_t i = 0; i < (int32_t)world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            if (question->needs[i][o])
                ask(world, question, i, o, ret);
        }
    }
}
