// Network: links between nodes. A link is a pair of directions, each of which delivers in order; what differs from link to link is the delay,
// so between links anything may overtake anything. Messages are copied: two processes never share a byte.

#include "chaos/sim/world.h"

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/wire/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LINKS_FIRST = 64 };
#define DEPART_MAX_NS 50000u          // a message may wait so long in its sender's queue
#define PARTED_OPEN_NS 1000000000u    // until an attempt to connect through a partition is given up

// Ends have ids of their own, 1, 2, 3 ...: link i has the ends 2 i + 1 and 2 i + 2.
static uint64_t id_of(uint32_t index, uint32_t side)
{
    return (uint64_t)index * 2 + side + 1;
}

static struct sim_link *link_of(struct sim *sim, uint64_t id, uint32_t *ret_side)
{
    if (id == 0 || (id - 1) / 2 >= sim->links)
        return NULL;
    *ret_side = (uint32_t)((id - 1) & 1);
    return &sim->link[(id - 1) / 2];
}

// The link, if `node` in its present life has the end `id` and it is up.
static struct sim_link *link_of_node(struct sim *sim, uint32_t node, uint64_t id, uint32_t *ret_side)
{
    struct sim_link *link = link_of(sim, id, ret_side);
    if (link == NULL || link->node[*ret_side] != node || link->life[*ret_side] != sim->node[node].life || !link->is_up[*ret_side])
        return NULL;
    return link;
}

static uint64_t delay_ns(struct sim *sim)
{
    // Mostly short, now and then as long as it gets: that is what makes things overtake each other.
    uint64_t low = sim->options.delay_min_ns, high = sim->options.delay_max_ns;
    return prng_chance(&sim->prng, 1, 4) ? sim_random(sim, low, high) : sim_random(sim, low, low + (high - low) / 8);
}

// When something that leaves now towards `side` arrives: never before what left earlier.
static uint64_t arrival_ns(struct sim *sim, struct sim_link *link, uint32_t side)
{
    uint64_t at_ns = sim->now_ns + delay_ns(sim);
    if (at_ns < link->arrival_ns[side])
        at_ns = link->arrival_ns[side];
    link->arrival_ns[side] = at_ns;
    return at_ns;
}

// Going down -------------------------------------------------------------------------------------------------------------

static void end_goes_down(struct sim *sim, struct happening *happening)
{
    uint32_t side = 0;
    struct sim_link *link = link_of(sim, happening->number, &side);
    assert(link != NULL);
    uint32_t node = link->node[side];
    if (sim->node[node].life != link->life[side])
        return;
    struct io_event event = {.kind = IO_LINK_DOWN};
    event.link_down.link = link->is_up[side] ? happening->number : 0;
    event.link_down.request = side == 0 ? link->request : 0;
    event.link_down.error = DJ_E_CLOSED;
    // An end that never came up is told by its request, and only the opener's can be that.
    if (link->is_up[side] || (side == 0 && link->request != 0)) {
        link->is_up[side] = false;
        link->request = 0;
        sim_deliver(sim, node, &event);
    }
}

static void take_down(struct sim *sim, uint32_t index, uint32_t side, bool in_order)
{
    struct sim_link *link = &sim->link[index];
    uint64_t at_ns = in_order ? arrival_ns(sim, link, side) : sim->now_ns + delay_ns(sim);
    struct happening *happening = sim_later(sim, at_ns, end_goes_down);
    happening->number = id_of(index, side);
}

void network_break(struct sim *sim, uint32_t index)
{
    struct sim_link *link = &sim->link[index];
    if (link->is_cut)
        return;
    sim_say(sim, "the link between %s and %s breaks", sim->node[link->node[0]].name, sim->node[link->node[1]].name);
    sim->stats.links_broken++;
    link->is_cut = true;
    take_down(sim, index, 0, false);
    take_down(sim, index, 1, false);
}

static bool is_living(const struct sim_link *link)
{
    return !link->is_cut && link->is_up[0] && link->is_up[1];
}

bool network_break_any(struct sim *sim)
{
    uint32_t living = 0;
    for (uint32_t i = 0; i < sim->links; i++)
        living += is_living(&sim->link[i]);
    if (living == 0)
        return false;
    uint64_t chosen = sim_random(sim, 0, living - 1);
    for (uint32_t i = 0; i < sim->links; i++) {
        if (is_living(&sim->link[i]) && chosen-- == 0) {
            network_break(sim, i);
            return true;
        }
    }
    return false;
}

void sim_break_links(struct sim *sim, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < sim->links; i++) {
        const struct sim_link *link = &sim->link[i];
        if ((link->node[0] == a && link->node[1] == b) || (link->node[0] == b && link->node[1] == a)) {
            if (is_living(link))
                network_break(sim, i);
        }
    }
}

bool sim_is_linked(const struct sim *sim, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < sim->links; i++) {
        const struct sim_link *link = &sim->link[i];
        for (uint32_t side = 0; side < 2; side++)
            if (link->node[side] == a && link->node[1 - side] == b && link->life[side] == sim->node[a].life &&
                link->life[1 - side] == sim->node[b].life && link->is_up[side])
                return true;
    }
    return false;
}

void network_close(struct sim *sim, uint32_t node, uint64_t id)
{
    uint32_t side;
    struct sim_link *link = link_of_node(sim, node, id, &side);
    if (link == NULL)
        return;
    link->is_up[side] = false;
    if (side == 0)
        link->request = 0;
    if (!link->is_cut)
        take_down(sim, (uint32_t)((id - 1) / 2), 1 - side, true);    // what was said before still arrives
}

void network_death(struct sim *sim, uint32_t node)
{
    for (uint32_t i = 0; i < sim->links; i++) {
        struct sim_link *link = &sim->link[i];
        for (uint32_t side = 0; side < 2; side++) {
            if (link->node[side] != node || link->life[side] != sim->node[node].life)
                continue;
            bool was_told = link->is_up[side] || (side == 0 && link->request != 0);
            link->is_up[side] = false;
            if (!was_told || link->is_cut)
                continue;
            // What had left the machine arrives; what was in its queues does not.
            bool is_lost = prng_chance(&sim->prng, 1, 2);
            link->is_cut = is_lost;
            take_down(sim, i, 1 - side, !is_lost);
        }
    }
}

// Messages ---------------------------------------------------------------------------------------------------------------

static struct sim_message message_of(const struct sim_link *link, uint32_t from, const struct happening *happening)
{
    return (struct sim_message){.from = link->node[from],
                                .to = link->node[1 - from],
                                .from_life = link->life[from],
                                .to_life = link->life[1 - from],
                                .link = (happening->number - 1) / 2,
                                .departed_ns = happening->departed_ns};
}

static void message_arrives(struct sim *sim, struct happening *happening)
{
    uint32_t side = 0;
    struct sim_link *link = link_of(sim, happening->number, &side);
    assert(link != NULL);
    uint32_t to = link->node[side], from = link->node[1 - side];
    bool can_arrive = !link->is_cut && link->is_up[side] && sim->node[to].is_alive && sim->node[to].life == link->life[side];
    if (can_arrive && sim->healed_ns[to][from] > sim->now_ns) {
        struct happening *again = sim_put_off(sim, happening, sim->healed_ns[to][from]);
        again->number = happening->number;
        again->sent = happening->sent;
        again->departed_ns = happening->departed_ns;
        again->event = happening->event;
        happening->event = (struct io_event){0};
        if (link->arrival_ns[side] < again->at_ns)
            link->arrival_ns[side] = again->at_ns;
        return;
    }
    struct io_event event = happening->event;
    happening->event = (struct io_event){0};
    if (!can_arrive) {
        sim->stats.lost++;
        event_drop(&event);
        return;
    }
    sim->stats.messages++;
    sim_say(sim, "%s -> %s %s", sim->node[from].name, sim->node[to].name, wire_name(event.recv.message));
    if (happening->sent < sim->node[to].sent_last)
        sim->stats.reordered++;
    else
        sim->node[to].sent_last = happening->sent;
    if (sim->passes != NULL) {
        struct sim_message passing = message_of(link, 1 - side, happening);
        passing.is_arrival = true;
        passing.message = event.recv.message;
        passing.body = event.recv.body;
        passing.bulk = event.recv.bulk;
        passing.bulk_bytes = event.recv.bulk == NULL ? 0 : event.recv.bulk->bytes;
        sim->passes(sim->passes_context, &passing);
    }
    sim_deliver(sim, to, &event);
}

void network_send(struct sim *sim, uint32_t node, struct io_effect *effect)
{
    uint32_t side;
    struct sim_link *link = link_of_node(sim, node, effect->send.link, &side);
    const struct blob *body = effect->send.body, *bulk = effect->send.bulk;
    uint64_t bulk_bytes = bulk == NULL                   ? 0
                          : effect->send.bulk_bytes == 0 ? bulk->bytes - effect->send.bulk_offset
                                                         : effect->send.bulk_bytes;
    if (body->bytes > wire_body_max(effect->send.message) || bulk_bytes > wire_bulk_max(effect->send.message))
        sim_fail(sim, "%s sends a %s that no receiver would take", sim->node[node].name, wire_name(effect->send.message));
    uint64_t departs_ns = sim->now_ns + sim_random(sim, 0, DEPART_MAX_NS);
    bool is_late = effect->send.not_after_ns != 0 && sim_local_ns(sim, node, departs_ns) > effect->send.not_after_ns;
    if (link == NULL || link->is_cut || is_late) {
        sim->stats.late += is_late;
        sim->stats.lost += !is_late;
        effect_drop(effect);
        return;
    }
    struct happening *happening = sim_later(sim, arrival_ns(sim, link, 1 - side), message_arrives);
    happening->number = id_of((uint32_t)((effect->send.link - 1) / 2), 1 - side);
    happening->sent = ++sim->sent;
    happening->departed_ns = departs_ns;
    happening->event.kind = IO_RECV;
    happening->event.recv.link = happening->number;
    happening->event.recv.message = effect->send.message;
    happening->event.recv.body = blob_copy(body->data, body->bytes);
    happening->event.recv.bulk = bulk_bytes == 0 ? NULL : blob_copy(bulk->data + effect->send.bulk_offset, bulk_bytes);
    if (sim->passes != NULL) {
        struct sim_message passing = message_of(link, side, happening);
        passing.message = effect->send.message;
        passing.body = body;
        passing.bulk = bulk;
        passing.bulk_offset = effect->send.bulk_offset;
        passing.bulk_bytes = bulk_bytes;
        sim->passes(sim->passes_context, &passing);
    }
    effect_drop(effect);
    if (sim->now_ns < sim->chaos.until_ns && prng_chance(&sim->prng, sim->options.break_per_million, 1000000))
        network_break(sim, (uint32_t)((happening->number - 1) / 2));
}

// Opening ----------------------------------------------------------------------------------------------------------------

static void opener_hears(struct sim *sim, struct happening *happening)
{
    uint32_t side = 0;
    struct sim_link *link = link_of(sim, happening->number, &side);
    assert(link != NULL);
    uint32_t node = link->node[0];
    // Cut meanwhile: end_goes_down tells, or has told.
    if (link->is_cut || link->request == 0 || !sim->node[node].is_alive || sim->node[node].life != link->life[0])
        return;
    link->is_up[0] = true;
    struct io_event event = {.kind = IO_LINK_UP};
    event.link_up.link = happening->number;
    event.link_up.request = link->request;
    event.link_up.is_local = happening->life != 0;
    sim_deliver(sim, node, &event);
}

static void refuse_later(struct sim *sim, uint32_t node, uint64_t request, uint64_t at_ns, enum dj_error error)
{
    struct io_event event = {.kind = IO_LINK_DOWN};
    event.link_down.request = request;
    event.link_down.error = error;
    sim_later_event(sim, at_ns, node, &event);
}

static bool find_listener(const struct sim *sim, const char *address, uint32_t *ret_node, uint32_t *ret_listener)
{
    for (uint32_t i = 0; i < sim->nodes; i++) {
        for (uint32_t k = 0; k < sim->node[i].listeners; k++) {
            if (sim->node[i].is_alive && strcmp(sim->node[i].listener[k], address) == 0) {
                *ret_node = i;
                *ret_listener = k;
                return true;
            }
        }
    }
    return false;
}

static struct sim_link *link_add(struct sim *sim)
{
    if (sim->links == sim->link_capacity) {
        sim->link_capacity = sim->link_capacity == 0 ? LINKS_FIRST : sim->link_capacity * 2;
        sim->link = realloc(sim->link, sim->link_capacity * sizeof *sim->link);
        assert(sim->link != NULL);
    }
    struct sim_link *link = &sim->link[sim->links++];
    *link = (struct sim_link){0};
    return link;
}

static void attempt_arrives(struct sim *sim, struct happening *happening)
{
    uint32_t from = happening->node, to, listener;
    char address[IO_ADDRESS_MAX];
    memcpy(address, happening->pointer, sizeof address);
    free(happening->pointer);
    if (!sim->node[from].is_alive || sim->node[from].life != happening->life)
        return;
    if (!find_listener(sim, address, &to, &listener)) {
        refuse_later(sim, from, happening->number, sim->now_ns + delay_ns(sim), DJ_E_CLOSED);
        return;
    }
    if (sim->healed_ns[from][to] > sim->now_ns) {
        refuse_later(sim, from, happening->number, sim->now_ns + PARTED_OPEN_NS, DJ_E_TIMEOUT);
        return;
    }
    uint32_t index = sim->links;
    struct sim_link *link = link_add(sim);
    link->node[0] = from;
    link->node[1] = to;
    link->life[0] = happening->life;
    link->life[1] = sim->node[to].life;
    link->request = happening->number;
    link->is_up[1] = true;
    sim->stats.links_opened++;
    struct happening *heard = sim_later(sim, arrival_ns(sim, link, 0), opener_hears);
    heard->number = id_of(index, 0);
    heard->life = strncmp(address, "unix://", 7) == 0;
    struct io_event event = {.kind = IO_LINK_UP};
    event.link_up.link = id_of(index, 1);
    event.link_up.is_local = heard->life != 0;
    event.link_up.listener = listener;
    sim_deliver(sim, to, &event);
}

static void address_drop(struct happening *happening)
{
    free(happening->pointer);
}

void network_open(struct sim *sim, uint32_t node, const struct io_effect *effect)
{
    struct happening *happening = sim_later(sim, sim->now_ns + delay_ns(sim), attempt_arrives);
    happening->node = node;
    happening->life = sim->node[node].life;
    happening->number = effect->link_open.request;
    happening->pointer = malloc(IO_ADDRESS_MAX);
    assert(happening->pointer != NULL);
    memcpy(happening->pointer, effect->link_open.address, IO_ADDRESS_MAX);
    happening->drop = address_drop;
}
