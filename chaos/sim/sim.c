// Sim: virtual time, nodes and trouble. The manual is sim.h.
//
// One heap of happenings, earliest first, equal times in the order in which they were made. A step takes the next happening or the next
// deadline of a node, lets the node think, and turns its effects into later happenings. Every draw of chance comes from one generator, in the
// order of the steps, so a run is a function of its seed.

#include "chaos/sim/world.h"

#include "core/base/assert.h"
#include "core/base/hash.h"
#include "core/io/blob.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELAY_MIN_NS 20000u
#define DELAY_MAX_NS 2000000u
#define DISK_DELAY_MAX_NS 5000000u
#define TASK_DELAY_MAX_NS 100000u

enum { HEAP_FIRST = 256, TURNS_MAX = 1 << 20 };

// Time -------------------------------------------------------------------------------------------------------------------

static bool is_before(const struct happening *a, const struct happening *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

static void sift_up(struct sim *sim, uint32_t at)
{
    struct happening *moving = sim->heap[at];
    for (; at > 0 && is_before(moving, sim->heap[(at - 1) / 2]); at = (at - 1) / 2)
        sim->heap[at] = sim->heap[(at - 1) / 2];
    sim->heap[at] = moving;
}

static void sift_down(struct sim *sim, uint32_t at)
{
    struct happening *moving = sim->heap[at];
    for (uint32_t child; (child = 2 * at + 1) < sim->heap_count; at = child) {
        if (child + 1 < sim->heap_count && is_before(sim->heap[child + 1], sim->heap[child]))
            child++;
        if (!is_before(sim->heap[child], moving))
            break;
        sim->heap[at] = sim->heap[child];
    }
    sim->heap[at] = moving;
}

static struct happening *later_as(struct sim *sim, uint64_t at_ns, uint64_t sequence,
                                  void (*act)(struct sim *, struct happening *))
{
    struct happening *happening = sim->spare;
    if (happening != NULL)
        sim->spare = happening->pointer;
    else
        happening = malloc(sizeof *happening);
    assert(happening != NULL);
    *happening = (struct happening){0};
    happening->at_ns = at_ns < sim->now_ns ? sim->now_ns : at_ns;
    happening->sequence = sequence;
    happening->act = act;
    if (sim->heap_count == sim->heap_capacity) {
        sim->heap_capacity = sim->heap_capacity == 0 ? HEAP_FIRST : sim->heap_capacity * 2;
        sim->heap = realloc(sim->heap, sim->heap_capacity * sizeof *sim->heap);
        assert(sim->heap != NULL);
    }
    sim->heap[sim->heap_count++] = happening;
    sift_up(sim, sim->heap_count - 1);
    return happening;
}

struct happening *sim_later(struct sim *sim, uint64_t at_ns, void (*act)(struct sim *, struct happening *))
{
    return later_as(sim, at_ns, sim->sequence++, act);
}

struct happening *sim_put_off(struct sim *sim, const struct happening *happening, uint64_t at_ns)
{
    return later_as(sim, at_ns, happening->sequence, happening->act);
}

static struct happening *take_next(struct sim *sim)
{
    struct happening *next = sim->heap[0];
    sim->heap[0] = sim->heap[--sim->heap_count];
    if (sim->heap_count > 0)
        sift_down(sim, 0);
    return next;
}

static void happening_free(struct sim *sim, struct happening *happening)
{
    happening->pointer = sim->spare;
    sim->spare = happening;
}

static void happening_drop(struct sim *sim, struct happening *happening)
{
    if (happening->drop != NULL)
        happening->drop(happening);
    event_drop(&happening->event);
    happening_free(sim, happening);
}

void sim_cancel(struct sim *sim, bool (*is_meant)(const struct happening *happening, const void *context), const void *context)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < sim->heap_count; i++) {
        if (is_meant(sim->heap[i], context))
            happening_drop(sim, sim->heap[i]);
        else
            sim->heap[kept++] = sim->heap[i];
    }
    sim->heap_count = kept;
    for (uint32_t i = kept / 2; i-- > 0;)
        sift_down(sim, i);
}

uint64_t sim_random(struct sim *sim, uint64_t low, uint64_t high)
{
    return prng_between(&sim->prng, low, high);
}

// Clocks ------------------------------------------------------------------------------------------------------------------

uint64_t sim_local_ns(const struct sim *sim, uint32_t index, uint64_t at_ns)
{
    const struct sim_node *node = &sim->node[index];
    return (uint64_t)((int64_t)(node->clock_offset_ns + at_ns) + (int64_t)(at_ns / 1000) * node->clock_ppm / 1000);
}

// The first time at which the node's clock shows local_ns.
static uint64_t time_of(const struct sim *sim, uint32_t index, uint64_t local_ns)
{
    const struct sim_node *node = &sim->node[index];
    if (node->clock_offset_ns == 0 && node->clock_ppm == 0)
        return local_ns;
    uint64_t shown = sim_local_ns(sim, index, sim->now_ns);
    if (local_ns <= shown)
        return sim->now_ns;
    uint64_t at_ns = sim->now_ns;
    for (uint64_t left; (left = local_ns - shown) > 0;) {
        at_ns += node->clock_ppm > 0 ? left - left / 1000 * (uint64_t)node->clock_ppm / 1000 - left / 50 : left;
        at_ns += left < 64;
        shown = sim_local_ns(sim, index, at_ns);
        if (shown >= local_ns)
            break;
    }
    return at_ns;
}

void sim_set_clock(struct sim *sim, uint32_t node, uint64_t offset_ns, int32_t ppm)
{
    sim->node[node].clock_offset_ns = offset_ns;
    sim->node[node].clock_ppm = ppm;
}

void sim_say(const struct sim *sim, const char *format, ...)
{
    if (!sim->options.is_loud)
        return;
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%12.6f ", (double)sim->now_ns / 1e9);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

// Nodes ------------------------------------------------------------------------------------------------------------------

static enum dj_error process_post_op(void *self, const struct io_event *event)
{
    return process_post(self, event);
}

static bool process_run_op(void *self, uint64_t now_ns, struct io_effects *ret)
{
    return process_run(self, now_ns, ret);
}

static uint64_t process_deadline_op(const void *self)
{
    return process_deadline_ns(self);
}

static void process_free_op(void *self)
{
    process_free(self);
}

static const struct sim_ops process_ops = {
    .post = process_post_op,
    .run = process_run_op,
    .deadline_ns = process_deadline_op,
    .free = process_free_op,
};

uint32_t sim_add_node(struct sim *sim, const char *name, const struct sim_ops *ops, sim_make_node make, void *argument)
{
    assert(sim->nodes < SIM_NODES_MAX);
    struct sim_node *node = &sim->node[sim->nodes];
    *node = (struct sim_node){.name = name, .ops = ops, .make = make, .argument = argument, .exit_code = -1};
    return sim->nodes++;
}

uint32_t sim_add_process(struct sim *sim, const char *name, sim_make_process make, void *argument)
{
    uint32_t node = sim_add_node(sim, name, &process_ops, NULL, argument);
    sim->node[node].make_process = make;
    return node;
}

// What is delivered is what the run is: kind, receiver, and everything in it that the receiver can tell apart.
static void trace_event(struct sim *sim, uint32_t node, const struct io_event *event)
{
    uint64_t hash = hash_mix(hash_mix(sim->trace, sim->now_ns), (uint64_t)node << 32 | event->kind);
    switch (event->kind) {
    case IO_RECV:
        hash = hash_mix(hash_mix(hash, event->recv.link), event->recv.message);
        hash = hash_mix(hash, hash64(event->recv.body->data, event->recv.body->bytes));
        if (event->recv.bulk != NULL)
            hash = hash_mix(hash, hash64(event->recv.bulk->data, event->recv.bulk->bytes));
        break;
    case IO_LINK_UP: hash = hash_mix(hash_mix(hash, event->link_up.link), event->link_up.request); break;
    case IO_LINK_DOWN: hash = hash_mix(hash_mix(hash, event->link_down.link), event->link_down.error); break;
    case IO_STORE_DONE: hash = hash_mix(hash_mix(hash, event->store_done.ticket), event->store_done.error); break;
    case IO_DEVICE_DONE: hash = hash_mix(hash_mix(hash, event->device_done.list->ticket), event->device_done.list->error); break;
    case IO_COMPUTE_DONE: hash = hash_mix(hash, event->compute_done.ticket); break;
    case IO_SUBMIT: hash = hash_mix(hash, event->submit.verb); break;
    case IO_START:
    case IO_WRITABLE:
    case IO_TIMER: break;
    }
    sim->trace = hash;
}

void sim_deliver(struct sim *sim, uint32_t index, struct io_event *event)
{
    struct sim_node *node = &sim->node[index];
    if (!node->is_alive) {
        event_drop(event);
        return;
    }
    trace_event(sim, index, event);
    if (node->ops->post(node->self, event) != DJ_OK) {
        sim_fail(sim, "%s refused an event although it had nothing left to do", node->name);
        event_drop(event);
    }
}

static void deliver_later(struct sim *sim, struct happening *happening)
{
    struct sim_node *node = &sim->node[happening->node];
    if (node->is_alive && node->life == happening->life)
        sim_deliver(sim, happening->node, &happening->event);
    else
        event_drop(&happening->event);
    happening->event = (struct io_event){0};
}

struct happening *sim_later_event(struct sim *sim, uint64_t at_ns, uint32_t node, const struct io_event *event)
{
    struct happening *happening = sim_later(sim, at_ns, deliver_later);
    happening->node = node;
    happening->life = sim->node[node].life;
    happening->event = *event;
    return happening;
}

static void node_start(struct sim *sim, uint32_t index)
{
    struct sim_node *node = &sim->node[index];
    node->is_started = true;
    node->life = node->lives++;
    for (uint32_t i = 0; i < node->devices; i++)
        device_birth(node->device[i]);
    node->self = node->make_process != NULL ? (void *)node->make_process(sim, index, node->life, node->argument)
                                            : node->make(sim, index, node->life, node->argument);
    node->is_alive = node->self != NULL;
    node->exit_code = -1;
    node->paused_until_ns = 0;
    node->sent_last = 0;
    sim_say(sim, "%s starts life %" PRIu64, node->name, node->life);
    struct io_event event = {.kind = IO_START};
    sim_deliver(sim, index, &event);
}

static bool names_memory_of_node(const struct happening *happening, const void *context)
{
    bool names_memory = happening->event.kind == IO_DEVICE_DONE || happening->event.kind == IO_COMPUTE_DONE;
    return names_memory && happening->node == *(const uint32_t *)context;
}

// The node stops being there: its memory and devices go, its links go down for the others.
static void node_end(struct sim *sim, uint32_t index)
{
    struct sim_node *node = &sim->node[index];
    node->is_alive = false;
    network_death(sim, index);
    sim_cancel(sim, names_memory_of_node, &index);
    for (uint32_t i = 0; i < node->devices; i++)
        device_death(node->device[i]);
    if (node->disk != NULL)
        disk_death(sim, index);
    node->ops->free(node->self);
    node->self = NULL;
}

static void restart(struct sim *sim, struct happening *happening)
{
    if (sim->node[happening->node].is_alive || sim->node[happening->node].lives != happening->life + 1)
        return;
    sim->stats.restarts++;
    node_start(sim, happening->node);
}

static void start_again(struct sim *sim, uint32_t index, uint64_t after_ns)
{
    if (sim->node[index].is_doomed)
        return;
    struct happening *happening = sim_later(sim, sim->now_ns + after_ns, restart);
    happening->node = index;
    happening->life = sim->node[index].life;
}

void sim_kill(struct sim *sim, uint32_t index, uint64_t restart_after_ns)
{
    struct sim_node *node = &sim->node[index];
    if (!node->is_alive)
        return;
    sim_say(sim, "%s dies", node->name);
    sim->stats.deaths++;
    node_end(sim, index);
    if (restart_after_ns != UINT64_MAX)
        start_again(sim, index, restart_after_ns);
}

// Effects ----------------------------------------------------------------------------------------------------------------

static void compute_now(struct sim *sim, uint32_t node, const struct io_effect *effect)
{
    struct io_event event = {.kind = IO_COMPUTE_DONE};
    event.compute_done.ticket = effect->compute.ticket;
    event.compute_done.result = effect->compute.function(effect->compute.input);
    sim_later_event(sim, sim->now_ns + sim_random(sim, 1000, 1000000), node, &event);
}

static void submit_list(struct sim *sim, uint32_t index, const struct io_effect *effect)
{
    struct sim_node *node = &sim->node[index];
    struct device_list *list = effect->device_submit.list;
    if (effect->device_submit.device < node->devices) {
        struct device_port *port = device_port_of(node->device[effect->device_submit.device]);
        port->submit(port->self, list);
        return;
    }
    list->error = fault_set(&list->fault, DJ_E_NO_DEVICE, "this process has no device %u", effect->device_submit.device);
    struct io_event event = {.kind = IO_DEVICE_DONE};
    event.device_done.device = effect->device_submit.device;
    event.device_done.list = list;
    sim_later_event(sim, sim->now_ns + 1000, index, &event);
}

static void carry_out(struct sim *sim, uint32_t index, struct io_effect *effect)
{
    struct sim_node *node = &sim->node[index];
    switch (effect->kind) {
    case IO_SEND: network_send(sim, index, effect); break;
    case IO_LINK_OPEN: network_open(sim, index, effect); break;
    case IO_LINK_CLOSE: network_close(sim, index, effect->link_close.link); break;
    case IO_STORE_COMMIT: disk_use(sim, index, effect->store_commit.ticket, effect->store_commit.batch, false); break;
    case IO_STORE_READ: disk_use(sim, index, effect->store_read.ticket, effect->store_read.batch, true); break;
    case IO_DEVICE_SUBMIT: submit_list(sim, index, effect); break;
    case IO_COMPUTE: compute_now(sim, index, effect); break;
    case IO_ANSWER:
        if (node->answered != NULL)
            node->answered(node->answered_context, effect->answer.request, effect->answer.error, effect->answer.result);
        break;
    case IO_STOP:
        sim_say(sim, "%s stops with %d", node->name, effect->stop.exit_code);
        node->exit_code = effect->stop.exit_code;
        break;
    }
}

// Lets a node think until it has nothing more to do at this time.
static void node_think(struct sim *sim, uint32_t index)
{
    struct sim_node *node = &sim->node[index];
    bool has_more = true;
    for (uint32_t turn = 0; node->is_alive && has_more; turn++) {
        if (turn == TURNS_MAX) {
            sim_fail(sim, "%s does not come to rest", node->name);
            return;
        }
        has_more = node->ops->run(node->self, sim_local_ns(sim, index, sim->now_ns), &sim->effects);
        for (uint32_t i = 0; i < sim->effects.count; i++)
            carry_out(sim, index, &sim->effects.effect[i]);
        sim->effects.count = 0;
        if (node->exit_code >= 0) {
            node_end(sim, index);
            if (node->exit_code > 0 && node->served_ns > 0)
                start_again(sim, index, node->served_ns);
            return;
        }
    }
}

// Running ----------------------------------------------------------------------------------------------------------------

static uint64_t deadline_of(const struct sim *sim, uint32_t index)
{
    const struct sim_node *node = &sim->node[index];
    if (!node->is_alive)
        return UINT64_MAX;
    uint64_t deadline_ns = node->ops->deadline_ns(node->self);
    if (deadline_ns == UINT64_MAX)
        return deadline_ns;
    deadline_ns = time_of(sim, index, deadline_ns);
    return deadline_ns > node->paused_until_ns ? deadline_ns : node->paused_until_ns;
}

static void think_all(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->nodes && !sim->has_failed; i++) {
        if (deadline_of(sim, i) <= sim->now_ns)
            node_think(sim, i);
    }
}

static void check_invariants(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->invariants && !sim->has_failed; i++) {
        char text[SIM_TEXT_MAX] = "";
        if (!sim->invariant[i].holds(sim, sim->invariant[i].context, text))
            sim_fail(sim, "%s: %.400s", sim->invariant[i].name, text);
    }
}

// The time of the next thing to happen; UINT64_MAX: nothing will.
static uint64_t next_ns(const struct sim *sim)
{
    uint64_t next = sim->heap_count > 0 ? sim->heap[0]->at_ns : UINT64_MAX;
    for (uint32_t i = 0; i < sim->nodes; i++) {
        uint64_t deadline_ns = deadline_of(sim, i);
        next = deadline_ns < next ? deadline_ns : next;
    }
    return next;
}

static void step(struct sim *sim, uint64_t at_ns)
{
    sim->stats.steps++;
    if (at_ns > sim->now_ns)
        sim->now_ns = at_ns;
    if (sim->heap_count > 0 && sim->heap[0]->at_ns <= sim->now_ns) {
        struct happening *happening = take_next(sim);
        happening->act(sim, happening);
        happening_free(sim, happening);
    }
    think_all(sim);
    check_invariants(sim);
}

bool sim_run_until(struct sim *sim, bool (*done)(void *context), void *context, uint64_t limit_ns)
{
    for (uint32_t i = 0; i < sim->nodes; i++) {
        if (!sim->node[i].is_started)
            node_start(sim, i);
    }
    while (!sim->has_failed && (done == NULL || !done(context))) {
        uint64_t at_ns = next_ns(sim);
        if (at_ns > limit_ns) {
            sim->now_ns = limit_ns;
            return done == NULL;
        }
        step(sim, at_ns);
    }
    return !sim->has_failed;
}

// Making, asking ---------------------------------------------------------------------------------------------------------

struct sim *sim_make(const struct sim_options *options)
{
    struct sim *sim = calloc(1, sizeof *sim);
    assert(sim != NULL);
    sim->options = *options;
    if (sim->options.delay_max_ns == 0) {
        sim->options.delay_min_ns = DELAY_MIN_NS;
        sim->options.delay_max_ns = DELAY_MAX_NS;
    }
    if (sim->options.disk_delay_max_ns == 0)
        sim->options.disk_delay_max_ns = DISK_DELAY_MAX_NS;
    if (sim->options.task_delay_max_ns == 0)
        sim->options.task_delay_max_ns = TASK_DELAY_MAX_NS;
    sim->prng = prng_make(options->seed);
    sim->now_ns = 1;    // 0 means "no time" to timers
    effects_init(&sim->effects);
    return sim;
}

void sim_free(struct sim *sim)
{
    if (sim == NULL)
        return;
    for (uint32_t i = 0; i < sim->nodes; i++) {
        struct sim_node *node = &sim->node[i];
        for (uint32_t k = 0; k < node->devices; k++)
            device_death(node->device[k]);
        if (node->self != NULL)
            node->ops->free(node->self);
        for (uint32_t k = 0; k < node->devices; k++)
            device_free(node->device[k]);
        disk_free(node->disk);
    }
    for (uint32_t i = 0; i < sim->heap_count; i++)
        happening_drop(sim, sim->heap[i]);
    for (struct happening *spare; (spare = sim->spare) != NULL;) {
        sim->spare = spare->pointer;
        free(spare);
    }
    effects_free(&sim->effects);
    free(sim->heap);
    free(sim->link);
    free(sim);
}
