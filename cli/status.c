// djinn status: workers, sessions and the store, as a table or as JSON.

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "cli/command.h"

struct options { const char *address, *state; bool is_json; };

static const struct argp_option option_table[] = {
    {"head", 'H', "HOST:PORT", 0, "the head's address (default: $DJINN_ADDRESS, else 127.0.0.1:" DJINN_PORT ")", 0},
    {"state", 's', "DIR", 0, "folder with the head's token (default: $XDG_STATE_HOME/djinn); $DJINN_TOKEN goes before it", 0},
    {"json", 'j', NULL, 0, "print the whole answer as JSON", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 'H': options->address = argument; return 0;
    case 's': options->state = argument; return 0;
    case 'j': options->is_json = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s' is one argument too many", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static const char *text(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : "";
}

static void print_status(const cJSON *status)
{
    const cJSON *item, *store = cJSON_GetObjectItemCaseSensitive(status, "store");

    printf("head %s  generation %.0f  up %.0f s  pid %.0f\n", text(status, "address"), number(status, "generation"), number(status, "up_ms") / 1000,
           number(status, "pid"));
    printf("store: %.0f plans, %.0f executions, %.0f leaves\n\n", number(store, "plans"), number(store, "executions"), number(store, "leaves"));
    printf("%-16s %-9s %-22s %10s %12s %14s %9s\n", "WORKER", "STATE", "DEVICES", "EXECUTIONS", "BUSY", "MEMORY", "HEARD");
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(status, "workers")) {
        const cJSON *device = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(item, "devices"), 0);
        char devices[64];
        snprintf(devices, sizeof devices, "%s:%.0f x%d", text(device, "name"), number(device, "index"),
                 cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(item, "devices")));
        printf("%-16s %-9s %-22s %10.0f %10.1f s %10.1f MiB %6.0f ms\n", text(item, "name"), text(item, "state"), devices, number(item, "executions"),
               number(item, "busy_ms") / 1000, number(item, "memory_used_bytes") / 1048576, number(item, "last_heard_ms"));
    }
    printf("\n%-18s %-10s %-10s %10s  %s\n", "SESSION", "TENANT", "CONNECTED", "EXECUTIONS", "WORKERS");
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(status, "sessions")) {
        const cJSON *grant;
        printf("%-18s %-10s %-10s %10.0f ", text(item, "id"), text(item, "tenant"),
               cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "connected")) ? "yes" : "no", number(item, "executions"));
        cJSON_ArrayForEach(grant, cJSON_GetObjectItemCaseSensitive(item, "grants")) printf(" %s", text(grant, "worker"));
        putchar('\n');
    }
}

int command_status(int argc, char **argv)
{
    static const struct argp argp = {option_table, parse, NULL,
        "Show the head, its workers, the sessions and what the store holds.\v"
        "WORKER lines show the load as of the last heartbeat; HEARD is its age. With --json the answer also has memory, bytes moved, cache appends and "
        "copies of each worker, and why each session was placed where it is.", NULL, NULL, NULL};
    struct options options = {0};
    struct fault fault = {0};
    char *answer;
    size_t bytes;

    if (argp_parse(&argp, argc, argv, ARGP_NO_EXIT & 0, NULL, &options) != 0)
        return EXIT_USAGE;
    enum dj_error error = head_ask(options.address, options.state, "status", "", &answer, &bytes, &fault);
    if (error != DJ_OK)
        return ask_failed(error, &fault);
    cJSON *json = cJSON_ParseWithLength(answer, bytes);
    if (json == NULL) {
        free(answer);
        return complain(EXIT_FAILED, "the head's answer is not JSON");
    }
    if (options.is_json)
        puts(answer);
    else
        print_status(json);
    cJSON_Delete(json);
    free(answer);
    return EXIT_DONE;
}
