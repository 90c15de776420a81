// djinn plan: the plans the head knows, or one of them: its nodes, their annotations, where it ran and why there.

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "cli/command.h"

struct options { const char *address, *state, *id; bool is_json; };

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
    case ARGP_KEY_ARG:
        if (options->id != NULL)
            argp_error(state, "'%s' is one argument too many", argument);
        options->id = argument;
        return 0;
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

static void print_list(const cJSON *answer)
{
    const cJSON *plan, *run;

    printf("%-14s %6s %7s %11s %-16s %-8s %5s  %s\n", "PLAN", "NODES", "INPUTS", "EXECUTIONS", "PHASE", "MODALITY", "SURE", "RAN ON");
    cJSON_ArrayForEach(plan, cJSON_GetObjectItemCaseSensitive(answer, "plans")) {
        printf("%-14.12s %6.0f %7.0f %11.0f %-16s %-8s %4.0f%%  ", text(plan, "id"), number(plan, "nodes"), number(plan, "inputs"),
               number(plan, "executions"), text(plan, "phase"), text(plan, "modality"), number(plan, "confidence"));
        cJSON_ArrayForEach(run, cJSON_GetObjectItemCaseSensitive(plan, "placed")) printf("%s (%.0f) ", text(run, "worker"), number(run, "executions"));
        putchar('\n');
    }
}

static void print_plan(const cJSON *plan)
{
    const cJSON *run, *node;
    int index = 0;

    printf("plan %s\n%.0f nodes, %.0f inputs, executed %.0f times\nphase %s, modality %s, confidence %.0f %%\n", text(plan, "id"), number(plan, "nodes"),
           number(plan, "inputs"), number(plan, "executions"), text(plan, "phase"), text(plan, "modality"), number(plan, "confidence"));
    if (text(plan, "warning")[0] != '\0')
        printf("warning: %s\n", text(plan, "warning"));
    cJSON_ArrayForEach(run, cJSON_GetObjectItemCaseSensitive(plan, "placed"))
        printf("placed on %s for session %s, %.0f executions: %s\n", text(run, "worker"), text(run, "session"), number(run, "executions"), text(run, "why"));
    printf("\n%5s %-20s %-24s %-16s %10s %12s  %s\n", "NODE", "OP", "RESIDENCY", "ROLE", "FLOPS", "BYTES", "MODULE");
    cJSON_ArrayForEach(node, cJSON_GetObjectItemCaseSensitive(plan, "node"))
        printf("%5d %-20s %-24s %-16s %10.3g %12.3g  %s\n", index++, text(node, "op"), text(node, "residency"), text(node, "role"), number(node, "flops"),
               number(node, "bytes"), text(node, "module"));
}

int command_plan(int argc, char **argv)
{
    static const struct argp argp = {option_table, parse, "[ID]",
        "List the plans that the head knows, or show one: its nodes with their annotations, where it ran, and why there.\v"
        "ID is a plan's fingerprint or the beginning of it. A plan is annotated after its second execution.", NULL, NULL, NULL};
    struct options options = {0};
    struct fault fault = {0};
    char *answer;
    size_t bytes;

    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
        return EXIT_USAGE;
    enum dj_error error = head_ask(options.address, options.state, options.id == NULL ? "plans" : "plan", options.id == NULL ? "" : options.id, &answer,
                                   &bytes, &fault);
    if (error != DJ_OK)
        return ask_failed(error, &fault);
    cJSON *json = cJSON_ParseWithLength(answer, bytes);
    if (json == NULL) {
        free(answer);
        return complain(EXIT_FAILED, "the head's answer is not JSON");
    }
    if (options.is_json)
        puts(answer);
    else if (options.id == NULL)
        print_list(json);
    else
        print_plan(json);
    cJSON_Delete(json);
    free(answer);
    return EXIT_DONE;
}
