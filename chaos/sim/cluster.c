// Cluster: the manual is cluster.h. One seed decides the size of the pool, the pace of its network and the faults; then time runs until every
// client is done, and a little longer, so that what must come to rest can be seen at rest.

#include "chaos/sim/cluster.h"

#include "core/base/assert.h"
#include "core/lineage/record.h"
#include "sched/sched.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS_MAX = 3, CLIENTS_MAX = 2, STEPS_MIN = 120, STEPS_MAX = 400, RUN_STEPS_MAX = 2000000 };
#define REGION_BYTES ((uint64_t)2 << 20)
#define TROUBLE_NS ((uint64_t)1000000000)                   // faults come within this much time
#define PATIENCE_NS ((uint64_t)120000000000)                // after the last fault every client must be done
#define REST_NS ((uint64_t)3000000000)                      // then everything comes to rest, at once ...
#define GRACE_NS (HEAD_GRACE_NS + (uint64_t)10000000000)    // ... or when the head has given up those who went without a word
enum { BREAK_APART_DELAYS = 12 };                           // between two losses of a client's link, so that each can be remade

// Values that the program read and lost with a worker come back as leaves of any size, each rounded up to 64 bytes.
enum { ROUNDING_BYTES = 512 };

struct import {
    uint64_t session, counter;
    uint32_t epoch;
};

struct cluster {
    struct sim *sim;
    struct prng prng;
    enum cluster_faults faults;
    uint32_t head, workers, clients, worker[WORKERS_MAX], client[CLIENTS_MAX];
    struct head_config head_config;
    struct spy_config spy_config[WORKERS_MAX];
    struct spy_totals spy_totals[WORKERS_MAX];
    struct client_config client_config[CLIENTS_MAX];
    struct client_totals client_totals[CLIENTS_MAX];
    struct record_scratch scratch;
    struct closure closure;
    struct import *import;
    uint32_t imports, import_capacity;
    uint64_t steps, delay_max_ns;
};

const char *cluster_faults_name(enum cluster_faults faults)
{
    static const char *const names[FAULTS_KINDS] = {"none",        "client links",  "any link",  "worker deaths",
                                                    "head deaths", "client deaths", "stillness", "all"};
    return names[faults];
}

// What the nodes ask of the world ---------------------------------------------------------------------------------------------

// Which typed errors the faults of this world explain. A link that is lost between living processes explains none.
static bool may_fail(void *context, enum dj_error error)
{
    const struct cluster *cluster = context;
    if (cluster->faults == FAULTS_NONE || cluster->faults == FAULTS_CLIENT_LINKS)
        return false;
    switch (error) {
    case DJ_E_TIMEOUT:
    case DJ_E_CLOSED:
    case DJ_E_EPOCH_FENCED:
    case DJ_E_HANDLE_LOST:
    case DJ_E_SESSION_UNKNOWN:
    case DJ_E_GRANT:
    case DJ_E_NO_WORKER:
    case DJ_E_NO_DEVICE:
    case DJ_E_NO_HEAD:
    case DJ_E_WORKER_LOST:
    case DJ_E_WINDOW_FULL: return true;
    default: return false;
    }
}

static void imported(void *context, uint64_t session, uint32_t epoch, uint64_t counter)
{
    struct cluster *cluster = context;
    if (cluster->imports == cluster->import_capacity) {
        cluster->import_capacity = cluster->import_capacity == 0 ? 64 : cluster->import_capacity * 2;
        cluster->import = realloc(cluster->import, cluster->import_capacity * sizeof *cluster->import);
        assert(cluster->import != NULL);
    }
    cluster->import[cluster->imports++] = (struct import){.session = session, .epoch = epoch, .counter = counter};
}

static bool is_import(void *context, uint64_t session, uint64_t counter)
{
    const struct cluster *cluster = context;
    for (uint32_t i = 0; i < cluster->imports; i++)
        if (cluster->import[i].session == session && cluster->import[i].counter == counter)
            return true;
    return false;
}

static bool accounts_hold(struct sim *sim, void *context, char *text)
{
    const struct cluster *cluster = context;
    for (uint32_t i = 0; i < cluster->clients; i++) {
        const struct client *client = sim_self(sim, cluster->client[i]);
        if (client != NULL && !client_account_holds(client, false, text))
            return false;
    }
    return true;
}

// Building --------------------------------------------------------------------------------------------------------------------

static struct process *make_head(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    struct head_config config = *(const struct head_config *)argument;
    struct process *process;
    (void)sim, (void)node;
    config.incarnation = hash_mix(config.incarnation, life);
    enum dj_error error = process_make(&process);
    if (error == DJ_OK)
        error = process_root(process, &head_class, &config, sizeof config);
    assert(error == DJ_OK);
    return process;
}

static void add_head(struct cluster *cluster)
{
    cluster->head_config = (struct head_config){
        .address = "head:1", .version = "sim", .incarnation = prng_next(&cluster->prng), .pid = 1};
    cluster->head = sim_add_process(cluster->sim, "head", make_head, &cluster->head_config);
    sim_listen(cluster->sim, cluster->head, "head://head:1");
    sim_listen(cluster->sim, cluster->head, "tcp://head:1");
    sim_add_store(cluster->sim, cluster->head);
}

static void add_worker(struct cluster *cluster, uint32_t index)
{
    struct spy_config *config = &cluster->spy_config[index];
    struct worker_config *worker = &config->worker;
    *config = (struct spy_config){.head_node = cluster->head, .totals = &cluster->spy_totals[index]};
    snprintf(worker->name, sizeof worker->name, "worker%u", index);
    snprintf(worker->head, sizeof worker->head, "head://head:1");
    snprintf(worker->address_tcp, sizeof worker->address_tcp, "tcp://worker%u:1", index);
    if (prng_chance(&cluster->prng, 1, 2))
        snprintf(worker->address_unix, sizeof worker->address_unix, "unix:///worker%u", index);
    snprintf(worker->host, sizeof worker->host, "host%u", (uint32_t)prng_between(&cluster->prng, 0, 1));
    snprintf(worker->version, sizeof worker->version, "sim");
    worker->incarnation = prng_next(&cluster->prng);
    worker->pid = 10 + index;
    uint32_t node = sim_add_node(cluster->sim, worker->name, &spy_ops, spy_make, config);
    cluster->worker[index] = node;
    worker->devices = 1;
    worker->device[0] = sim_add_device(cluster->sim, node, REGION_BYTES);
    sim_listen(cluster->sim, node, worker->address_tcp);
    if (worker->address_unix[0] != '\0')
        sim_listen(cluster->sim, node, worker->address_unix);
}

static void add_client(struct cluster *cluster, uint32_t index)
{
    struct client_config *config = &cluster->client_config[index];
    *config = (struct client_config){
        .seed = prng_next(&cluster->prng),
        .steps = (uint32_t)prng_between(&cluster->prng, STEPS_MIN, STEPS_MAX),
        .head_node = cluster->head,
        .pool_devices = prng_chance(&cluster->prng, 1, 2) ? cluster->workers : 0,
        .may_fail = may_fail,
        .imported = imported,
        .context = cluster,
        .totals = &cluster->client_totals[index],
    };
    snprintf(config->head, sizeof config->head, "tcp://head:1");
    snprintf(config->host, sizeof config->host, "host0");
    snprintf(config->name, sizeof config->name, "client%u", index);
    cluster->client[index] = sim_add_node(cluster->sim, config->name, &client_ops, client_make, config);
}

// Faults ----------------------------------------------------------------------------------------------------------------------

static void break_client_links(struct sim *sim, void *context)
{
    struct cluster *cluster = context;
    uint32_t client = cluster->client[prng_between(&cluster->prng, 0, cluster->clients - 1)];
    uint32_t worker = cluster->worker[prng_between(&cluster->prng, 0, cluster->workers - 1)];
    uint64_t apart_ns = BREAK_APART_DELAYS * cluster->delay_max_ns;
    sim_break_links(sim, client, worker);
    uint64_t next_ns = sim_now_ns(sim) + prng_between(&cluster->prng, apart_ns, 4 * apart_ns);
    if (next_ns < TROUBLE_NS)
        sim_at(sim, next_ns, break_client_links, cluster);
}

static void unleash(struct cluster *cluster)
{
    struct sim *sim = cluster->sim;
    struct sim_chaos chaos = {
        .until_ns = TROUBLE_NS, .restart_max_ns = 400000000, .pause_max_ns = 1500000000, .partition_max_ns = 1500000000};
    bool is_all = cluster->faults == FAULTS_ALL;
    uint64_t mean_ns = prng_between(&cluster->prng, 50000000, 300000000);
    if (cluster->faults == FAULTS_NONE)
        return;
    if (cluster->faults == FAULTS_CLIENT_LINKS) {
        sim_at(sim, prng_between(&cluster->prng, 1000000, 100000000), break_client_links, cluster);
        return;
    }
    for (uint32_t i = 0; i < cluster->workers; i++)
        if (is_all || cluster->faults == FAULTS_WORKER_DEATH || cluster->faults == FAULTS_STILLNESS)
            sim_mortal(sim, cluster->worker[i]);
    for (uint32_t i = 0; i < cluster->clients; i++)
        if (is_all || cluster->faults == FAULTS_CLIENT_DEATH || cluster->faults == FAULTS_STILLNESS)
            sim_mortal(sim, cluster->client[i]);
    if (is_all || cluster->faults == FAULTS_HEAD_DEATH || cluster->faults == FAULTS_STILLNESS)
        sim_mortal(sim, cluster->head);
    if (is_all || cluster->faults == FAULTS_ANY_LINK)
        chaos.break_mean_ns = mean_ns / 2;
    if (is_all || cluster->faults == FAULTS_STILLNESS)
        chaos.pause_mean_ns = chaos.partition_mean_ns = mean_ns * 2;
    if (cluster->faults >= FAULTS_WORKER_DEATH && cluster->faults != FAULTS_STILLNESS)
        chaos.death_mean_ns = mean_ns;
    sim_unleash(sim, &chaos);
}

// Running ---------------------------------------------------------------------------------------------------------------------

static bool all_finished(void *context)
{
    struct cluster *cluster = context;
    if (++cluster->steps == RUN_STEPS_MAX)
        sim_fail(cluster->sim, "the world does not come to rest");
    for (uint32_t i = 0; i < cluster->clients; i++) {
        const struct client *client = sim_self(cluster->sim, cluster->client[i]);
        if (client == NULL || !client_is_finished(client))
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
    char text[SIM_TEXT_MAX];
    bool has_lost_lineage = cluster->faults >= FAULTS_WORKER_DEATH && cluster->faults != FAULTS_CLIENT_DEATH;
    for (uint32_t i = 0; i < cluster->clients && !has_lost_lineage; i++)
        if (!client_account_holds(sim_self(cluster->sim, cluster->client[i]), true, text))
            sim_fail(cluster->sim, "nothing answered lost: %.400s", text);
    for (uint32_t i = 0; i < cluster->workers; i++) {
        const struct wire_heartbeat *last = &cluster->spy_totals[i].last;
        if (sim_is_alive(cluster->sim, cluster->worker[i]) &&
            (last->sessions > 0 || last->queued > 0 || last->memory_used_bytes > last->leaf_bytes + ROUNDING_BYTES))
            sim_fail(cluster->sim,
                     "memory comes back: %s holds %u sessions, %u runs, %" PRIu64 " bytes of which %" PRIu64
                     " are leaves, and nobody is left",
                     cluster->spy_config[i].worker.name, last->sessions, last->queued, last->memory_used_bytes, last->leaf_bytes);
    }
}

static void run(struct cluster *cluster)
{
    bool is_done = sim_run_until(cluster->sim, all_finished, cluster, TROUBLE_NS + PATIENCE_NS);
    if (!is_done && sim_failure(cluster->sim) == NULL)
        say_who_waits(cluster);
    bool has_deserters = cluster->faults != FAULTS_NONE && cluster->faults != FAULTS_CLIENT_LINKS;
    uint64_t from_ns = sim_now_ns(cluster->sim) < TROUBLE_NS ? TROUBLE_NS : sim_now_ns(cluster->sim);
    if (sim_failure(cluster->sim) == NULL &&
        sim_run_until(cluster->sim, NULL, NULL, from_ns + (has_deserters ? GRACE_NS : REST_NS)))
        check_rest(cluster);
}

static void sum(struct cluster *cluster, struct cluster_result *result)
{
    for (uint32_t i = 0; i < cluster->clients; i++) {
        const struct client_totals *from = &cluster->client_totals[i];
        result->clients.reads += from->reads;
        result->clients.errors += from->errors;
        result->clients.steps += from->steps;
        result->clients.finished += from->finished;
        result->clients.lives += from->lives;
        result->clients.resubmissions += from->resubmissions;
        result->clients.links_lost += from->links_lost;
        result->clients.executions += from->executions;
        result->clients.watermarks += from->watermarks;
        result->clients.fetches += from->fetches;
    }
    for (uint32_t i = 0; i < cluster->workers; i++) {
        result->journalled += cluster->spy_totals[i].journalled;
        result->acknowledged += cluster->spy_totals[i].acknowledged;
        result->duplicates += cluster->spy_totals[i].duplicates;
        result->appends += cluster->spy_totals[i].last.appends;
    }
}

struct cluster_result cluster_run(const struct cluster_options *options)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    assert(cluster != NULL);
    ops_init();
    cluster->prng = prng_make(hash_mix(options->seed, 1));
    cluster->faults = (enum cluster_faults)(options->seed % FAULTS_KINDS);
    struct sim_options world = {.seed = options->seed, .is_loud = options->is_loud, .delay_min_ns = 20000};
    world.delay_max_ns = prng_chance(&cluster->prng, 1, 4) ? 15000000 : 2000000;
    world.task_delay_max_ns = prng_chance(&cluster->prng, 1, 2) ? 3000000 : 100000;
    cluster->delay_max_ns = world.delay_max_ns;
    if (cluster->faults == FAULTS_ANY_LINK || cluster->faults == FAULTS_ALL)
        world.break_per_million = (uint32_t)prng_between(&cluster->prng, 0, 4000);
    cluster->sim = sim_make(&world);
    cluster->workers = (uint32_t)prng_between(&cluster->prng, 1, WORKERS_MAX);
    cluster->clients = (uint32_t)prng_between(&cluster->prng, 1, CLIENTS_MAX);
    add_head(cluster);
    for (uint32_t i = 0; i < cluster->workers; i++)
        add_worker(cluster, i);
    for (uint32_t i = 0; i < cluster->clients; i++)
        add_client(cluster, i);
    enum dj_error error = record_scratch_make(&cluster->scratch);
    assert(error == DJ_OK);
    cluster->closure = (struct closure){
        .head_node = cluster->head, .scratch = &cluster->scratch, .is_import = is_import, .context = cluster};
    sim_invariant(cluster->sim, "causal closure", closure_holds, &cluster->closure);
    sim_invariant(cluster->sim, "nothing acknowledged lost", accounts_hold, cluster);
    unleash(cluster);
    run(cluster);
    struct cluster_result result = {.is_ok = sim_failure(cluster->sim) == NULL,
                                    .trace = sim_trace(cluster->sim),
                                    .virtual_ns = sim_now_ns(cluster->sim),
                                    .faults = cluster->faults,
                                    .sim = sim_stats(cluster->sim)};
    if (!result.is_ok)
        snprintf(result.failure, sizeof result.failure, "%s", sim_failure(cluster->sim));
    sim_free(cluster->sim);
    sum(cluster, &result);
    record_scratch_free(&cluster->scratch);
    free(cluster->import);
    free(cluster);
    return result;
}
