// djinn plan: the plans the head knows, or one of them: its nodes, their annotations, where it ran and why there.

#include <stdio.h>

#include "cli/json.h"

struct options {
    struct client_options client;
    const char *id;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->client; return 0;
    case ARGP_KEY_ARG:
        if (options->id != NULL)
            argp_error(state, "'%s' is one argument too many", argument);
        options->id = argument;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_list(const cJSON *answer)
{
    const cJSON *plan, *run;

    printf("%-14s %6s %7s %11s %-16s %-8s %5s  %s\n", "PLAN", "NODES", "INPUTS", "EXECUTIONS", "PHASE", "MODALITY", "SURE",
           "RAN ON");
    cJSON_ArrayForEach(plan, json_at(answer, "plans"))
    {
        printf("%-14.12s %6.0f %7.0f %11.0f %-16s %-8s %4.0f%%  ", json_text(plan, "id"), json_number(plan, "nodes"),
               json_number(plan, "inputs"), json_number(plan, "executions"), json_text(plan, "phase"),
               json_text(plan, "modality"), json_number(plan, "confidence"));
        cJSON_ArrayForEach(run, json_at(plan, "placed"))
            printf("%s (%.0f) ", json_text(run, "worker"), json_number(run, "executions"));
        putchar('\n');
    }
    if (cJSON_GetArraySize(json_at(answer, "plans")) == 0)
        puts("none yet; a plan is known once a client's program has executed it");
}

static void print_plan(const cJSON *plan)
{
    const cJSON *run, *node;
    int index = 0;

    printf("plan %s\n%.0f nodes, %.0f inputs, executed %.0f times\nphase %s, modality %s, confidence %.0f %%\n",
           json_text(plan, "id"), json_number(plan, "nodes"), json_number(plan, "inputs"), json_number(plan, "executions"),
           json_text(plan, "phase"), json_text(plan, "modality"), json_number(plan, "confidence"));
    if (json_text(plan, "warning")[0] != '\0')
        printf("warning: %s\n", json_text(plan, "warning"));
    cJSON_ArrayForEach(run, json_at(plan, "placed"))
        printf("placed on %s for session %s, %.0f executions: %s\n", json_text(run, "worker"), json_text(run, "session"),
               json_number(run, "executions"), json_text(run, "why"));
    printf("\n%5s %-20s %-24s %-16s %10s %12s  %s\n", "NODE", "OP", "RESIDENCY", "ROLE", "FLOPS", "BYTES", "MODULE");
    cJSON_ArrayForEach(node, json_at(plan, "node"))
        printf("%5d %-20s %-24s %-16s %10.3g %12.3g  %s\n", index++, json_text(node, "op"), json_text(node, "residency"),
               json_text(node, "role"), json_number(node, "flops"), json_number(node, "bytes"), json_text(node, "module"));
}

int command_plan(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse,
        "[ID]",
        "List the plans that the head knows, or show one: its nodes with their annotations, where it ran, and why there.\v"
        "A plan is the structure of a piece of a program: ops, topology, dtypes, static attributes; never sizes. ID is its fingerprint or the beginning of "
        "it. The list begins with the plan that ran last.\n\n"
        "PHASE, MODALITY, RESIDENCY and ROLE are what the head made of the structure and the module paths, SURE how sure it is; a plan is annotated after "
        "its second execution. FLOPS and BYTES are of one execution.\n\n"
        "Examples:\n  djinn plan\n  djinn plan 3f2a\n  djinn plan --json | jq '.plans[].id'" HELP_CLIENT_END,
        client_json_children,
        NULL,
        NULL};
    struct options options = {0};

    options_parse(&argp, argc, argv, &options);
    return options.id == NULL ? json_ask(&options.client, "plans", "", print_list)
                              : json_ask(&options.client, "plan", options.id, print_plan);
}
