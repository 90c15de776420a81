// djinn status: workers, sessions and the store, as a table or as JSON.

#include <stdio.h>

#include "cli/json.h"

struct options {
    struct client_options client;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->client; return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s' is one argument too many", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_workers(const cJSON *workers)
{
    const cJSON *item;

    printf("%-16s %-9s %-22s %10s %12s %14s %9s\n", "WORKER", "STATE", "DEVICES", "EXECUTIONS", "BUSY", "MEMORY", "HEARD");
    cJSON_ArrayForEach(item, workers)
    {
        const cJSON *device = cJSON_GetArrayItem(json_at(item, "devices"), 0);
        char devices[64];
        snprintf(devices, sizeof devices, "%s:%.0f x%d", json_text(device, "name"), json_number(device, "index"),
                 cJSON_GetArraySize(json_at(item, "devices")));
        printf("%-16s %-9s %-22s %10.0f %10.1f s %10.1f MiB %6.0f ms\n", json_text(item, "name"), json_text(item, "state"),
               devices, json_number(item, "executions"), json_number(item, "busy_ms") / 1000,
               json_number(item, "memory_used_bytes") / 1048576, json_number(item, "last_heard_ms"));
    }
    if (cJSON_GetArraySize(workers) == 0)
        puts("none; start one with 'djinn start --worker --head HOST:PORT'");
}

static void print_sessions(const cJSON *sessions)
{
    const cJSON *item, *grant;

    printf("\n%-18s %-10s %-10s %10s  %s\n", "SESSION", "TENANT", "CONNECTED", "EXECUTIONS", "WORKERS");
    cJSON_ArrayForEach(item, sessions)
    {
        printf("%-18s %-10s %-10s %10.0f ", json_text(item, "id"), json_text(item, "tenant"),
               json_is_true(item, "connected") ? "yes" : "no", json_number(item, "executions"));
        cJSON_ArrayForEach(grant, json_at(item, "grants")) printf(" %s", json_text(grant, "worker"));
        putchar('\n');
    }
}

static void print_recoveries(const cJSON *recovery)
{
    const cJSON *item;

    if (json_number(recovery, "planned") + json_number(recovery, "failed") == 0)
        return;
    printf("\nrecoveries: %.0f, of which %.0f failed; %.0f executions were run again (%.1f s as they ran first)\n",
           json_number(recovery, "planned") + json_number(recovery, "failed"), json_number(recovery, "failed"),
           json_number(recovery, "replayed"), json_number(recovery, "replayed_ms") / 1000);
    printf("%-18s %-12s %-12s %8s %8s %8s %10s %10s\n", "SESSION", "LOST", "ON", "REPLAYS", "RESTORED", "FETCHED", "COST", "AGO");
    cJSON_ArrayForEach(item, json_at(recovery, "last"))
    {
        printf("%-18s %-12s %-12s %8.0f %8.0f %8.0f %7.0f ms %8.0f s %s\n", json_text(item, "session"), json_text(item, "lost"),
               json_text(item, "target"), json_number(item, "replays"), json_number(item, "restores"),
               json_number(item, "fetches"), json_number(item, "cost_ms"), json_number(item, "ago_ms") / 1000,
               json_text(item, "error"));
    }
}

static void print_status(const cJSON *status)
{
    const cJSON *store = json_at(status, "store"), *journal = json_at(status, "journal"), *handles = json_at(status, "handles");

    printf("head %s  generation %.0f  up %.0f s  pid %.0f\n", json_text(status, "address"), json_number(status, "generation"),
           json_number(status, "up_ms") / 1000, json_number(status, "pid"));
    printf("store: %.0f plans, %.0f executions, %.0f leaves\n", json_number(store, "plans"), json_number(store, "executions"),
           json_number(store, "leaves"));
    printf("journal: %.0f records, %.0f trims (%.0f records deleted), %.0f held back%s\n", json_number(journal, "records"),
           json_number(journal, "trims"), json_number(journal, "trimmed"), json_number(journal, "held"),
           json_is_true(journal, "full") ? "; THE DISK IS FULL: no new work is taken" : "");
    printf("values: %.0f live, %.0f lost\n\n", json_number(handles, "live"), json_number(handles, "lost"));
    print_workers(json_at(status, "workers"));
    print_sessions(json_at(status, "sessions"));
    print_recoveries(json_at(status, "recovery"));
}

int command_status(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse,
        NULL,
        "Show the head, its workers, the sessions and what the store holds.\v"
        "One line a worker: STATE is serving, or draining once it takes no new sessions. DEVICES is the name of its first device, that device's number in the "
        "pool (remote_accelerator:N), and how many it has. EXECUTIONS, BUSY and MEMORY are of the last heartbeat, whose age is HEARD.\n\n"
        "One line a session: a client's conversation, whether the client is connected now, and the workers it may submit to.\n\n"
        "The journal is what is known of how values came to be; what no live value needs any more is trimmed. A value is lost while no worker holds it. "
        "The last recoveries are listed with what was run again, restored from checkpoints or fetched from other workers, COST as it took first.\n\n"
        "With --json the answer also has addresses, process ids, memory, bytes moved, cache appends and copies of each worker, and why each session was "
        "placed where it is. Fields may be added; those that are there keep their meaning.\n\n"
        "Examples:\n  djinn status\n  djinn status --head 10.0.0.1:7070 --json" HELP_CLIENT_END,
        client_json_children,
        NULL,
        NULL};
    struct options options = {0};

    options_parse(&argp, argc, argv, &options);
    return json_ask(&options.client, "status", "", print_status);
}
