// Admin: what people ask the head, answered as JSON: status, plans, plan, srg (the plan's own bytes), explain, stop.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "sched/state.h"

enum { ANSWER_BYTES_MAX = 4 << 20, PLANS_LISTED_MAX = 1000 };

void admin_tell(struct head *head, uint64_t link, uint64_t request, const void *data, size_t bytes)
{
    struct wire_told told = {.request = request, .data = data, .data_bytes = (uint32_t)bytes};

    if (bytes > ANSWER_BYTES_MAX) {
        head_reply_failed(head, link, request, DJ_E_LIMIT, "the answer has %zu bytes, at most %d can be sent", bytes,
                          ANSWER_BYTES_MAX);
        return;
    }
    head_send(head, link, WIRE_TOLD, wire_told_encode(&told));
}

static void tell_json(struct head *head, const struct head_link *link, uint64_t request, cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);

    cJSON_Delete(json);
    if (text == NULL) {
        head_reply_failed(head, link->link, request, DJ_E_NO_MEMORY, "no memory for the answer");
        return;
    }
    admin_tell(head, link->link, request, text, strlen(text));
    cJSON_free(text);
}

static void add_number(cJSON *object, const char *key, uint64_t value)
{
    cJSON_AddNumberToObject(object, key, (double)value);
}

// Numbers of 64 bits that are names, not quantities, are written as hexadecimal text: JSON's numbers lose bits above 2^53.
static void add_id(cJSON *object, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIx64, value);
    cJSON_AddStringToObject(object, key, text);
}

// Status -------------------------------------------------------------------------------------------------------------

static void add_worker(cJSON *list, const struct head_worker *worker, uint64_t now_ns)
{
    cJSON *json = cJSON_CreateObject();

    cJSON_AddStringToObject(json, "name", worker->name);
    add_number(json, "id", worker->id);
    add_number(json, "pid", worker->pid);
    add_id(json, "incarnation", worker->incarnation);
    cJSON_AddStringToObject(json, "address", worker->address_tcp);
    cJSON_AddStringToObject(json, "address_unix", worker->address_unix);
    cJSON_AddStringToObject(json, "state", worker->is_draining ? "draining" : "serving");
    add_number(json, "sessions", worker->sessions);
    add_number(json, "executions", worker->load.executions);
    add_number(json, "queued", worker->load.queued);
    add_number(json, "plans", worker->load.plans);
    add_number(json, "busy_ms", worker->load.busy_ns / 1000000);
    add_number(json, "up_ms", (now_ns - worker->joined_ns) / 1000000);
    add_number(json, "last_heard_ms", (now_ns - worker->last_heard_ns) / 1000000);
    add_number(json, "memory_used_bytes", worker->load.memory_used_bytes);
    add_number(json, "memory_capacity_bytes", worker->load.memory_capacity_bytes);
    add_number(json, "leaf_bytes", worker->load.leaf_bytes);
    add_number(json, "bytes_in", worker->load.bytes_in);
    add_number(json, "bytes_out", worker->load.bytes_out);
    add_number(json, "peer_copies", worker->load.peer_copies);
    add_number(json, "peer_bytes", worker->load.peer_bytes);
    add_number(json, "cache_appends", worker->load.appends);
    add_number(json, "cache_copies", worker->load.copies);
    cJSON *devices = cJSON_AddArrayToObject(json, "devices");
    for (uint32_t i = 0; i < worker->devices; i++) {
        cJSON *device = cJSON_CreateObject();
        add_number(device, "index", worker->first_device + i);
        cJSON_AddStringToObject(device, "name", worker->device[i].name);
        cJSON_AddStringToObject(device, "backend", worker->device[i].backend);
        cJSON_AddStringToObject(device, "numerics", worker->device[i].numerics);
        add_number(device, "threads", worker->device[i].threads);
        add_number(device, "capacity_bytes", worker->device[i].capacity_bytes);
        uint32_t ops = 0;
        for (uint32_t byte = 0; byte < worker->device[i].ops_bytes; byte++)
            ops += (uint32_t)__builtin_popcount(worker->ops[i][byte]);
        add_number(device, "ops", ops);
        cJSON_AddItemToArray(devices, device);
    }
    cJSON_AddItemToArray(list, json);
}

static const char *policy_name(uint8_t policy)
{
    static const char *const name[LINEAGE_POLICIES] = {"checkpoint", "replicate", "recompute"};
    return policy < LINEAGE_POLICIES ? name[policy] : "";
}

static void add_session(cJSON *list, const struct head_session *session)
{
    cJSON *json = cJSON_CreateObject();

    add_id(json, "id", session->id);
    cJSON_AddStringToObject(json, "tenant", session->tenant);
    cJSON_AddStringToObject(json, "name", session->name);
    cJSON_AddBoolToObject(json, "connected", session->link != 0);
    add_number(json, "epoch", session->epoch);
    add_number(json, "executions", session->executions);
    add_number(json, "watermark", session->watermark);
    add_number(json, "records", session->records);
    cJSON_AddStringToObject(json, "recovery", policy_name(session->recovery));
    struct handles_stats handles = {0};
    if (session->handles != NULL)
        handles = handles_stats(session->handles);
    add_number(json, "handles", handles.handles);
    add_number(json, "lost", handles.lost);
    cJSON *grants = cJSON_AddArrayToObject(json, "grants");
    for (uint32_t i = 0; i < session->grants; i++) {
        if (session->grant[i].worker == NULL)
            continue;
        cJSON *grant = cJSON_CreateObject();
        cJSON_AddStringToObject(grant, "worker", session->grant[i].worker->name);
        add_number(grant, "device", session->grant[i].device_index);
        cJSON_AddStringToObject(grant, "why", session->grant[i].reason);
        cJSON_AddItemToArray(grants, grant);
    }
    cJSON_AddItemToArray(list, json);
}

static void add_recoveries(cJSON *json, const struct head *head, uint64_t now_ns)
{
    cJSON *recovery = cJSON_AddObjectToObject(json, "recovery");

    cJSON_AddBoolToObject(recovery, "settled", head->is_settled);
    add_number(recovery, "planned", head->stats.recoveries);
    add_number(recovery, "failed", head->stats.recoveries_failed);
    add_number(recovery, "under_way", head->recoveries_active);
    add_number(recovery, "replayed", head->stats.replayed);
    add_number(recovery, "replayed_ms", head->stats.replay_cost_ns / 1000000);
    cJSON *list = cJSON_AddArrayToObject(recovery, "last");
    for (uint64_t i = 0; i < RECENT_RECOVERIES && i < head->recents; i++) {
        const struct recent_recovery *recent = &head->recent[(head->recents - 1 - i) % RECENT_RECOVERIES];
        cJSON *item = cJSON_CreateObject();
        add_id(item, "session", recent->session);
        cJSON_AddStringToObject(item, "lost", recent->lost);
        cJSON_AddStringToObject(item, "target", recent->target);
        add_number(item, "ago_ms", (now_ns - recent->at_ns) / 1000000);
        cJSON_AddNumberToObject(item, "took_ms", (double)recent->took_ns / 1e6);
        add_number(item, "steps", recent->steps);
        add_number(item, "replays", recent->replays);
        add_number(item, "restores", recent->restores);
        add_number(item, "fetches", recent->fetches);
        cJSON_AddNumberToObject(item, "cost_ms", (double)recent->cost_ns / 1e6);
        if (recent->error != 0)
            cJSON_AddStringToObject(item, "error", dj_error_name((enum dj_error)recent->error));
        cJSON_AddItemToArray(list, item);
    }
}

static void add_handles(cJSON *json, const struct head *head)
{
    cJSON *handles = cJSON_AddObjectToObject(json, "handles");
    const struct head_session *session;
    struct handles_stats sum = {0};

    for (uint32_t cursor = 0; (session = map_next(head->sessions, &cursor, NULL)) != NULL;) {
        struct handles_stats one = {0};
        if (session->handles != NULL)
            one = handles_stats(session->handles);
        sum.handles += one.handles;
        sum.lost += one.lost;
        sum.locations += one.locations;
    }
    add_number(handles, "live", sum.handles);
    add_number(handles, "lost", sum.lost);
    add_number(handles, "locations", sum.locations);
    add_number(handles, "dropped", head->stats.handles_dropped);
}

static void add_journal(cJSON *json, const struct head *head)
{
    cJSON *journal = cJSON_AddObjectToObject(json, "journal");

    add_number(journal, "records", head->records_stored);
    add_number(journal, "waiting_bytes", head->journal.waiting.bytes);
    add_number(journal, "held", head->journal.held_count);
    add_number(journal, "refused", head->stats.records_refused);
    cJSON_AddBoolToObject(journal, "full", head->is_full);
    add_number(journal, "trims", head->stats.trims);
    add_number(journal, "trimmed", head->stats.trimmed);
    add_number(journal, "rewritten", head->stats.rewritten);
    add_number(journal, "erased", head->stats.erased);
    add_number(journal, "leaves_collected", head->stats.leaves_collected);
    add_number(journal, "leaf_bytes_collected", head->stats.leaf_bytes_collected);
}

static cJSON *status_json(struct head *head)
{
    cJSON *json = cJSON_CreateObject();
    uint64_t now_ns = actor_now_ns(head->self);
    uint32_t cursor = 0;
    const struct head_session *session;

    cJSON_AddStringToObject(json, "address", head->config.address);
    cJSON_AddStringToObject(json, "version", head->config.version);
    add_number(json, "pid", head->config.pid);
    add_number(json, "generation", head->generation);
    add_number(json, "up_ms", (now_ns - head->started_ns) / 1000000);
    add_number(json, "devices", head->devices);
    cJSON *workers = cJSON_AddArrayToObject(json, "workers");
    for (uint32_t i = 0; i < HEAD_WORKERS_MAX; i++)
        if (head->worker[i] != NULL)
            add_worker(workers, head->worker[i], now_ns);
    cJSON *sessions = cJSON_AddArrayToObject(json, "sessions");
    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL)
        add_session(sessions, session);
    cJSON *store = cJSON_AddObjectToObject(json, "store");
    add_number(store, "plans", map_count(head->plans));
    add_number(store, "leaves", head->leaves_stored);
    add_number(store, "executions", head->executions_stored);
    add_number(store, "sessions", head->sessions_stored);
    add_number(store, "leaf_bytes", head->leaf_bytes_stored);
    add_handles(json, head);
    add_journal(json, head);
    add_recoveries(json, head, now_ns);
    return json;
}

// Plans --------------------------------------------------------------------------------------------------------------

static void add_plan_summary(cJSON *json, const struct head_plan *plan)
{
    char id[HASH128_TEXT];

    hash128_text(plan->fingerprint, id);
    cJSON_AddStringToObject(json, "id", id);
    add_number(json, "nodes", plan->nodes);
    add_number(json, "inputs", plan->inputs);
    add_number(json, "outputs", plan->outputs);
    add_number(json, "executions", plan->executions);
    bool is_annotated = plan->arena != NULL;
    cJSON_AddStringToObject(json, "phase", phase_name(is_annotated ? (enum srg_phase)plan->annotations.phase : PHASE_UNKNOWN));
    cJSON_AddStringToObject(json, "modality",
                            modality_name(is_annotated ? (enum srg_modality)plan->annotations.modality : MODALITY_UNKNOWN));
    add_number(json, "confidence", is_annotated ? plan->annotations.confidence : 0);
    cJSON_AddBoolToObject(json, "annotated", is_annotated);
    if (plan->warning[0] != '\0')
        cJSON_AddStringToObject(json, "warning", plan->warning);
    cJSON *placed = cJSON_AddArrayToObject(json, "placed");
    for (uint32_t i = 0; i < plan->runs; i++) {
        cJSON *run = cJSON_CreateObject();
        cJSON_AddStringToObject(run, "worker", plan->run[i].worker_name);
        add_id(run, "session", plan->run[i].session);
        add_number(run, "executions", plan->run[i].executions);
        cJSON_AddStringToObject(run, "why", plan->run[i].reason);
        cJSON_AddItemToArray(placed, run);
    }
}

static int by_last_seen(const void *a, const void *b)
{
    const struct head_plan *const *x = a, *const *y = b;
    return (*x)->last_seen_ns < (*y)->last_seen_ns ? 1 : (*x)->last_seen_ns > (*y)->last_seen_ns ? -1 : 0;
}

static cJSON *plans_json(struct head *head)
{
    cJSON *json = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(json, "plans");
    uint32_t count = map_count(head->plans), cursor = 0, n = 0;
    struct head_plan **sorted = calloc(count + 1, sizeof *sorted), *plan;

    add_number(json, "count", count);
    if (sorted == NULL)
        return json;
    while ((plan = map_next(head->plans, &cursor, NULL)) != NULL)
        sorted[n++] = plan;
    qsort(sorted, n, sizeof *sorted, by_last_seen);
    for (uint32_t i = 0; i < n && i < PLANS_LISTED_MAX; i++) {
        cJSON *summary = cJSON_CreateObject();
        add_plan_summary(summary, sorted[i]);
        cJSON_AddItemToArray(list, summary);
    }
    free(sorted);
    return json;
}

static void add_node(cJSON *list, const struct head_plan *plan, uint32_t n)
{
    const struct srg_node *node = &plan->plan->node[n];
    const struct op_info *info = op_info(node->op);
    cJSON *json = cJSON_CreateObject();

    cJSON_AddStringToObject(json, "op", info->name);
    cJSON_AddStringToObject(json, "module", plan->plan->module[node->module].path);
    if (node->device != 255)
        add_number(json, "device", node->device);
    if (plan->arena != NULL) {
        const struct srg_annotation *annotation = &plan->annotations.node[n];
        cJSON_AddStringToObject(json, "residency", residency_name((enum srg_residency)annotation->residency));
        cJSON_AddStringToObject(json, "role", role_name((enum srg_role)annotation->role));
        add_number(json, "group", annotation->colocation);
        cJSON_AddNumberToObject(json, "flops", annotation->flops);
        cJSON_AddNumberToObject(json, "bytes", annotation->bytes);
        cJSON_AddNumberToObject(json, "criticality", (double)annotation->criticality);
    }
    cJSON_AddItemToArray(list, json);
}

static cJSON *plan_json(const struct head_plan *plan)
{
    cJSON *json = cJSON_CreateObject();

    add_plan_summary(json, plan);
    if (plan->plan == NULL)
        return json;
    cJSON *list = cJSON_AddArrayToObject(json, "node");
    for (uint32_t n = 0; n < plan->plan->nodes; n++)
        add_node(list, plan, n);
    if (plan->arena == NULL)
        return json;
    cJSON *inputs = cJSON_AddArrayToObject(json, "input");
    for (uint32_t i = 0; i < plan->plan->inputs; i++) {
        cJSON *input = cJSON_CreateObject();
        cJSON_AddStringToObject(input, "kind", plan->plan->input[i].is_leaf ? "leaf" : "handle");
        cJSON_AddStringToObject(input, "dtype", dtype_name((enum dtype)plan->plan->input[i].dtype));
        cJSON_AddStringToObject(input, "residency", residency_name((enum srg_residency)plan->annotations.input_residency[i]));
        cJSON_AddItemToArray(inputs, input);
    }
    return json;
}

// By its id or an unambiguous beginning of it.
static struct head_plan *find_plan(struct head *head, const char *prefix, bool *ret_is_ambiguous)
{
    struct head_plan *plan, *found = NULL;
    struct hash128 key;
    uint32_t cursor = 0;
    char id[HASH128_TEXT];

    *ret_is_ambiguous = false;
    while ((plan = map_next(head->plans, &cursor, &key)) != NULL) {
        hash128_text(key, id);
        if (strncmp(id, prefix, strlen(prefix)) != 0)
            continue;
        if (found != NULL)
            *ret_is_ambiguous = true;
        found = plan;
    }
    return found;
}

static void tell_srg(struct head *head, const struct head_link *link, uint64_t request, const struct head_plan *plan)
{
    struct writer writer = writer_make(ANSWER_BYTES_MAX);

    if (plan->plan == NULL)
        head_reply_failed(head, link->link, request, DJ_E_NOT_FOUND, "the plan's structure is not in the registry");
    else if (plan_encode(plan->plan, &writer) != DJ_OK)
        head_reply_failed(head, link->link, request, DJ_E_LIMIT, "the plan is too large to send");
    else
        admin_tell(head, link->link, request, writer.data, writer.length);
    writer_free(&writer);
}

static void ask_about_plan(struct head *head, const struct head_link *link, const struct wire_ask *ask)
{
    bool is_ambiguous;
    struct head_plan *plan = find_plan(head, ask->argument, &is_ambiguous);

    if (plan == NULL || ask->argument[0] == '\0')
        head_reply_failed(head, link->link, ask->request, DJ_E_NOT_FOUND,
                          "no plan's id begins with \"%s\"; list them with djinn plan", ask->argument);
    else if (is_ambiguous)
        head_reply_failed(head, link->link, ask->request, DJ_E_INVALID, "several plans' ids begin with \"%s\"; give more digits",
                          ask->argument);
    else if (strcmp(ask->verb, "srg") == 0)
        tell_srg(head, link, ask->request, plan);
    else
        tell_json(head, link, ask->request, plan_json(plan));
}

// Stopping -----------------------------------------------------------------------------------------------------------

void admin_tell_stopped(struct head *head, uint64_t link, uint64_t request)
{
    cJSON *json = cJSON_CreateObject();
    const struct head_link to = {.link = link};

    cJSON_AddBoolToObject(json, "stopping", true);
    tell_json(head, &to, request, json);
}

void admin_ask(struct head *head, struct head_link *link, const struct wire_ask *ask)
{
    if (strcmp(ask->verb, "status") == 0)
        tell_json(head, link, ask->request, status_json(head));
    else if (strcmp(ask->verb, "plans") == 0)
        tell_json(head, link, ask->request, plans_json(head));
    else if (strcmp(ask->verb, "plan") == 0 || strcmp(ask->verb, "srg") == 0)
        ask_about_plan(head, link, ask);
    else if (strcmp(ask->verb, "explain") == 0)
        explain_ask(head, link, ask);
    else if (strcmp(ask->verb, "stop") == 0)
        stop_begin(head, link, ask->request);
    else
        head_reply_failed(head, link->link, ask->request, DJ_E_NOT_FOUND,
                          "the head cannot answer \"%s\"; it knows status, plans, plan, srg, explain and stop", ask->verb);
}
