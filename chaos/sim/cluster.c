// Cluster: the manual is cluster.h. The swarm says which world; then time runs until every client is done, and a little longer, so that what must
// come to rest can be seen at rest.

#include "chaos/sim/cluster.h"

#include "chaos/sim/plannable.h"
#include "core/base/assert.h"
#include "gpu_worker/actors/worker.h"
#include "sched/sched.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_STEPS_MAX = 2000000, PLAN_STEPS = 4096, HANDLES_MAX = 512, CLIENT_NODES_MAX = SWARM_CLIENTS_MAX + 1 };
#define MS ((uint64_t)1000000)
#define PATIENCE_NS (120000 * MS)    // after the last fault every client must be done
#define SERVED_NS (1000 * MS)        // a worker that gave up, as after many losses of its device, is started again
#define REST_NS (3000 * MS)          // then everything comes to rest, at once ...
#define LONG_REST_NS (HEAD_GRACE_NS + 10000 * MS)    // ... or when the head has given up those who went without a word
// Values that the program read and that are leaves since are of any size, each rounded up to 64 bytes.
enum { ROUNDING_BYTES = 512 };

struct cluster {
    struct sim *sim;
    struct swarm swarm;
    struct prng prng;
    uint32_t head, worker[SWARM_WORKERS_MAX], client[CLIENT_NODES_MAX], clients;
    struct head_config head_config;
    struct worker_config worker_config[SWARM_WORKERS_MAX];
    struct client_config client_config[CLIENT_NODES_MAX];
    struct client_totals client_totals[CLIENT_NODES_MAX];
    struct ledger *ledger;
    struct witness *witness;
    uint64_t steps, deleted;
};

// Which typed errors this world explains. While a session is being opened the head may be away; afterwards everything is brought back.
static bool may_fail(void *context, enum dj_error error, bool is_opening)
{
    const struct cluster *cluster = context;
    const struct swarm *swarm = &cluster->swarm;
    switch (error) {
    case DJ_E_TIMEOUT:
    case DJ_E_CLOSED:
    case DJ_E_NO_WORKER:
    case DJ_E_WORKER_LOST:    // the last that it heard as its time was up
    case DJ_E_NO_HEAD: return is_opening && swarm->faults != 0;
    case DJ_E_STORE_FULL: return is_opening && swarm_has(swarm, FAULT_FULL_DISK);
    case DJ_E_DEVICE: return swarm_has(swarm, FAULT_DEVICE_ERROR);
    case DJ_E_DEVICE_MEMORY: return swarm_has(swarm, FAULT_SMALL_MEMORY);
    // Who was away while another client took the session over and ended it has nothing to bring its values back from.
    case DJ_E_HANDLE_LOST: return swarm_has(swarm, FAULT_TAKEOVER);
    case DJ_E_EPOCH_FENCED: return swarm_has(swarm, FAULT_TAKEOVER);
    case DJ_E_NO_DEVICE:
        return swarm->workers > 1;    // a program names a device before its worker has joined, or while it is away
    // A life that hangs, or is cut off for longer than its lease, is as dead as one that was killed.
    case DJ_E_QUARANTINED: return witness_totals(cluster->witness).ended_lives >= 2;
    default: return false;
    }
}

// Building --------------------------------------------------------------------------------------------------------------------

static struct process *make_process(const struct actor_class *class, const void *config, size_t bytes)
{
    struct process *process;
    enum dj_error error = process_make(&process);
    if (error == DJ_OK)
        error = process_root(process, class, config, bytes);
    assert(error == DJ_OK);
    return process;
}

static struct process *make_head(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    struct head_config config = *(const struct head_config *)argument;
    (void)sim, (void)node;
    config.incarnation = hash_mix(config.incarnation, life);
    return make_process(&head_class, &config, sizeof config);
}

static struct process *make_worker(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    struct worker_config config = *(const struct worker_config *)argument;
    (void)sim, (void)node;
    config.incarnation = hash_mix(config.incarnation, life);
    config.pid += (uint32_t)life * 100;
    return make_process(&worker_class, &config, sizeof config);
}

static void add_head(struct cluster *cluster)
{
    cluster->head_config = (struct head_config){.address = "head:1",
                                                .version = "sim",
                                                .incarnation = prng_next(&cluster->prng),
                                                .pid = 1,
                                                .trim_records = cluster->swarm.trim_records};
    cluster->head = sim_add_process(cluster->sim, "head", make_head, &cluster->head_config);
    sim_listen(cluster->sim, cluster->head, "head://head:1");
    sim_listen(cluster->sim, cluster->head, "tcp://head:1");
    sim_add_store(cluster->sim, cluster->head);
}

// Most devices open each other's memory; some are elsewhere, some cannot, and some cannot and say that they can.
static void let_reach(struct cluster *cluster, struct device_port *port, uint32_t index)
{
    struct prng prng = prng_make(hash_mix(cluster->swarm.seed, 0x5EAC0 + index));
    bool is_open = !prng_chance(&prng, 1, 12), is_elsewhere = prng_chance(&prng, 1, 12), is_alone = prng_chance(&prng, 1, 12);
    if (!is_alone)
        sim_reach(port, is_elsewhere ? "elsewhere" : "here", is_open);
}

static void add_worker(struct cluster *cluster, uint32_t index)
{
    struct worker_config *worker = &cluster->worker_config[index];
    snprintf(worker->name, sizeof worker->name, "worker%u", index);
    snprintf(worker->head, sizeof worker->head, "head://head:1");
    snprintf(worker->address_tcp, sizeof worker->address_tcp, "tcp://worker%u:1", index);
    if (prng_chance(&cluster->prng, 1, 2))
        snprintf(worker->address_unix, sizeof worker->address_unix, "unix:///worker%u", index);
    snprintf(worker->host, sizeof worker->host, "host%u", (uint32_t)prng_between(&cluster->prng, 0, 1));
    snprintf(worker->version, sizeof worker->version, "sim");
    worker->incarnation = prng_next(&cluster->prng);
    worker->pid = 10 + index;
    uint32_t node = sim_add_process(cluster->sim, worker->name, make_worker, worker);
    cluster->worker[index] = node;
    worker->devices = 1;
    worker->device[0] = sim_add_device(cluster->sim, node, cluster->swarm.region_bytes);
    let_reach(cluster, worker->device[0], index);
    sim_listen(cluster->sim, node, worker->address_tcp);
    if (worker->address_unix[0] != '\0')
        sim_listen(cluster->sim, node, worker->address_unix);
}

// Whose session is taken over may be the last to hear of it, and may come back to a worker that has heard of it already.
static void cut_off_first(struct sim *sim, void *context)
{
    const struct cluster *cluster = context;
    uint64_t for_ns = 200 * MS + cluster->swarm.seed % 7 * 200 * MS;
    sim_partition(sim, cluster->head, cluster->client[0], for_ns);
    for (uint32_t i = 0; i < cluster->swarm.workers; i++) {
        sim_partition(sim, cluster->worker[i], cluster->client[0], for_ns / 4);
        sim_break_links(sim, cluster->worker[i], cluster->client[0]);
    }
}

static void begin_twin(struct sim *sim, void *context)
{
    struct cluster *cluster = context;
    if (cluster->swarm.seed % 2 == 0)
        sim_at(sim, cluster->swarm.client[0].twin_at_ns, cut_off_first, cluster);
    sim_kill(sim, cluster->client[cluster->clients - 1], cluster->swarm.client[0].twin_at_ns);
}

static void add_client(struct cluster *cluster, uint32_t index)
{
    static const char *const names[CLIENT_NODES_MAX] = {"client0", "client1", "client2", "twin"};
    const struct swarm_client *from = &cluster->swarm.client[index];
    uint32_t at = cluster->clients++;
    struct client_config *config = &cluster->client_config[at];
    *config = (struct client_config){
        .index = at,
        .policy = from->policy,
        .replay_limit_ns = from->replay_limit_ns,
        .may_fail = may_fail,
        .context = cluster,
        .totals = &cluster->client_totals[at],
        .program = {.seed = from->seed,
                    .steps = from->steps,
                    .think_ns = from->think_ns,
                    .workload = from->workload,
                    .pool_devices = from->names_devices ? cluster->swarm.workers : 0,
                    .deviates_after = from->is_deviant ? (uint32_t)(from->seed % (from->steps + 1)) : UINT32_MAX,
                    .deviant_seed = from->seed + 1},
    };
    snprintf(config->head, sizeof config->head, "tcp://head:1");
    snprintf(config->host, sizeof config->host, "host0");
    if (from->is_named)
        snprintf(config->name, sizeof config->name, "session%u", index);
    bool is_twin = at == cluster->swarm.clients;
    cluster->client[at] = sim_add_node(cluster->sim, is_twin ? names[SWARM_CLIENTS_MAX] : names[at], &client_ops, client_make,
                                       config);
    if (is_twin)
        sim_at(cluster->sim, 1, begin_twin, cluster);
}

// Faults ----------------------------------------------------------------------------------------------------------------------

static void set_clocks(struct cluster *cluster)
{
    const struct swarm *swarm = &cluster->swarm;
    sim_set_clock(cluster->sim, cluster->head, swarm->clock_offset_ns[0], swarm->clock_ppm[0]);
    for (uint32_t i = 0; i < swarm->workers; i++)
        sim_set_clock(cluster->sim, cluster->worker[i], swarm->clock_offset_ns[1 + i], swarm->clock_ppm[1 + i]);
    for (uint32_t i = 0, at = 1 + SWARM_WORKERS_MAX; i < cluster->clients; i++, at++)
        sim_set_clock(cluster->sim, cluster->client[i], swarm->clock_offset_ns[at], swarm->clock_ppm[at]);
}

static void expose(struct cluster *cluster, uint32_t node, enum swarm_fault death)
{
    sim_expose(cluster->sim, node);
    if (swarm_has(&cluster->swarm, death))
        sim_mortal(cluster->sim, node);
}

static void unleash(struct cluster *cluster)
{
    const struct swarm *swarm = &cluster->swarm;
    const uint64_t *mean_ns = swarm->mean_ns;
    struct sim_chaos chaos = {
        .until_ns = swarm->until_ns,
        .restart_max_ns = swarm->restart_max_ns,
        .pause_mean_ns = mean_ns[FAULT_PAUSE],
        .pause_max_ns = swarm->seed % 3 == 0 ? 7000 * MS : 1500 * MS,    // now and then longer than a lease
        .partition_mean_ns = mean_ns[FAULT_PARTITION],
        .partition_max_ns = swarm->seed % 5 == 0 ? 7000 * MS : 1500 * MS,
        .break_mean_ns = mean_ns[FAULT_BREAK] / 2,
        .blackout_mean_ns = mean_ns[FAULT_BLACKOUT] * 2,
        .jump_mean_ns = mean_ns[FAULT_CLOCK_JUMP],
        .jump_max_ns = 6000 * MS,
        .full_mean_ns = mean_ns[FAULT_FULL_DISK],
        .full_max_ns = 500 * MS,
    };
    expose(cluster, cluster->head, FAULT_HEAD_DEATH);
    for (uint32_t i = 0; i < swarm->workers; i++) {
        expose(cluster, cluster->worker[i], FAULT_WORKER_DEATH);
        sim_serve(cluster->sim, cluster->worker[i], SERVED_NS);
    }
    for (uint32_t i = 0; i < cluster->clients; i++)
        expose(cluster, cluster->client[i], FAULT_CLIENT_DEATH);
    for (enum swarm_fault i = FAULT_WORKER_DEATH; i <= FAULT_CLIENT_DEATH; i++)
        if (mean_ns[i] != 0 && (chaos.death_mean_ns == 0 || mean_ns[i] < chaos.death_mean_ns))
            chaos.death_mean_ns = mean_ns[i];
    if (swarm_has(swarm, FAULT_NO_RESTART) && swarm->workers > 1)
        sim_doom(cluster->sim, cluster->worker[swarm->doomed % swarm->workers]);
    sim_unleash(cluster->sim, &chaos);
}

// Running ---------------------------------------------------------------------------------------------------------------------

static bool all_finished(void *context)
{
    struct cluster *cluster = context;
    if (++cluster->steps == RUN_STEPS_MAX)
        sim_fail(cluster->sim, "convergence: the world does not come to rest");
    for (uint32_t i = 0; i < cluster->clients; i++) {
        const struct client *client = sim_self(cluster->sim, cluster->client[i]);
        if (client == NULL || !client_is_finished(client))
            return false;
    }
    return true;
}

// Looked at when the head has deleted something, and now and then.
static bool all_is_plannable(struct sim *sim, void *context, char *text)
{
    struct cluster *cluster = context;
    uint64_t deleted = ledger_totals(cluster->ledger).deleted, session = 0;
    struct record_ref needed[HANDLES_MAX];
    if (deleted == cluster->deleted && cluster->steps % PLAN_STEPS != PLAN_STEPS - 1)
        return true;
    cluster->deleted = deleted;
    for (uint32_t i = 0; i < cluster->clients; i++) {
        const struct client *client = sim_self(sim, cluster->client[i]);
        uint32_t count = client == NULL ? 0 : client_live_handles(client, needed, HANDLES_MAX, &session);
        if (count > 0 && !ledger_is_over(cluster->ledger, session) &&
            !plannable(sim, cluster->ledger, cluster->head, session, needed, count, text))
            return false;
    }
    return true;
}

static void say_who_waits(struct cluster *cluster)
{
    char text[SIM_TEXT_MAX / 2] = "";
    for (uint32_t i = 0; i < cluster->clients; i++) {
        const struct client *client = sim_self(cluster->sim, cluster->client[i]);
        size_t at = strlen(text);
        if (client != NULL && !client_is_finished(client))
            client_say_state(client, text + at, sizeof text - at);
    }
    sim_fail(cluster->sim, "every request ends: %s, %.0f s after the last fault", text, (double)PATIENCE_NS / 1e9);
}

static void check_rest(struct cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->swarm.workers; i++) {
        const struct wire_heartbeat *last = witness_heartbeat(cluster->witness, i);
        if (sim_is_alive(cluster->sim, cluster->worker[i]) &&
            (last->sessions > 0 || last->queued > 0 || last->memory_used_bytes > last->leaf_bytes + ROUNDING_BYTES))
            sim_fail(cluster->sim,
                     "convergence: worker%u holds %u sessions, %u runs, %" PRIu64 " bytes of which %" PRIu64
                     " are leaves, and nobody is left",
                     i, last->sessions, last->queued, last->memory_used_bytes, last->leaf_bytes);
    }
}

static void run(struct cluster *cluster)
{
    const struct swarm *swarm = &cluster->swarm;
    bool is_done = sim_run_until(cluster->sim, all_finished, cluster, swarm->until_ns + PATIENCE_NS);
    if (!is_done && sim_failure(cluster->sim) == NULL)
        say_who_waits(cluster);
    bool may_desert = swarm->faults != 0;
    uint64_t from_ns = sim_now_ns(cluster->sim) < swarm->until_ns ? swarm->until_ns : sim_now_ns(cluster->sim);
    if (sim_failure(cluster->sim) != NULL || (may_desert && !swarm->rests_long))
        return;
    if (sim_run_until(cluster->sim, NULL, NULL, from_ns + (may_desert ? LONG_REST_NS : REST_NS)))
        check_rest(cluster);
}

static void listen(struct cluster *cluster)
{
    struct witness_config config = {.sim = cluster->sim,
                                    .head = cluster->head,
                                    .workers = cluster->swarm.workers,
                                    .clients = cluster->clients,
                                    .window = client_window,
                                    .window_max = PROTOCOL_WINDOW_MAX,
                                    .window_bytes_max = PROTOCOL_WINDOW_BYTES_MAX + (1 << 20)};
    memcpy(config.worker, cluster->worker, sizeof cluster->worker);
    memcpy(config.client, cluster->client, sizeof cluster->client);
    cluster->ledger = config.ledger = ledger_make(cluster->sim, cluster->head);
    cluster->witness = witness_make(&config);
    sim_invariant(cluster->sim, "held until durable", witness_holds, cluster->witness);
    sim_invariant(cluster->sim, "everything needed can be planned", all_is_plannable, cluster);
}

static void build(struct cluster *cluster, bool is_loud)
{
    const struct swarm *swarm = &cluster->swarm;
    struct sim_options world = {.seed = swarm->seed,
                                .is_loud = is_loud,
                                .delay_min_ns = 20000,
                                .delay_max_ns = swarm->delay_max_ns,
                                .disk_delay_max_ns = swarm->disk_delay_max_ns,
                                .task_delay_max_ns = swarm->task_delay_max_ns,
                                .break_per_million = swarm->break_per_million,
                                .device_error_per_million = swarm->device_error_per_million};
    cluster->sim = sim_make(&world);
    add_head(cluster);
    for (uint32_t i = 0; i < swarm->workers; i++)
        add_worker(cluster, i);
    for (uint32_t i = 0; i < swarm->clients; i++)
        add_client(cluster, i);
    if (swarm->client[0].twin_at_ns != 0)
        add_client(cluster, 0);
    set_clocks(cluster);
    listen(cluster);
    unleash(cluster);
}

static struct cluster_result sum(const struct cluster *cluster)
{
    struct cluster_result result = {.is_ok = sim_failure(cluster->sim) == NULL,
                                    .trace = sim_trace(cluster->sim),
                                    .virtual_ns = sim_now_ns(cluster->sim),
                                    .swarm = cluster->swarm,
                                    .sim = sim_stats(cluster->sim),
                                    .witness = witness_totals(cluster->witness),
                                    .ledger = ledger_totals(cluster->ledger)};
    if (!result.is_ok)
        snprintf(result.failure, sizeof result.failure, "%s", sim_failure(cluster->sim));
    for (uint32_t i = 0; i < cluster->swarm.workers; i++)
        result.appends += witness_heartbeat(cluster->witness, i)->appends;
    return result;
}

// After the nodes are gone: a client adds up at its end.
static void sum_clients(const struct cluster *cluster, struct client_totals *ret)
{
    for (uint32_t i = 0; i < cluster->clients; i++) {
        const struct client_totals *from = &cluster->client_totals[i];
        ret->reads += from->reads;
        ret->errors += from->errors;
        ret->steps += from->steps;
        ret->finished += from->finished;
        ret->lives += from->lives;
        ret->resubmissions += from->resubmissions;
        ret->links_lost += from->links_lost;
        ret->executions += from->executions;
        ret->fetches += from->fetches;
    }
}

struct cluster_result cluster_run(const struct swarm_options *options)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    assert(cluster != NULL);
    ops_init();
    cluster->swarm = swarm_make(options);
    cluster->prng = prng_make(hash_mix(options->seed, 1));
    build(cluster, options->is_loud);
    run(cluster);
    struct cluster_result result = sum(cluster);
    sim_free(cluster->sim);
    sum_clients(cluster, &result.clients);
    witness_free(cluster->witness);
    ledger_free(cluster->ledger);
    free(cluster);
    return result;
}
