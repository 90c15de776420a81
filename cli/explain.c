// djinn explain: how a value came to be, where it is, and what would bring it back.

#include <stdio.h>
#include <string.h>

#include "cli/json.h"

struct options {
    struct client_options client;
    const char *handle;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->client; return 0;
    case ARGP_KEY_ARG:
        if (options->handle != NULL)
            argp_error(state, "'%s' is one argument too many", argument);
        options->handle = argument;
        return 0;
    case ARGP_KEY_END:
        if (options->handle == NULL)
            argp_error(state, "name a handle: SESSION.EPOCH.NUMBER:OUTPUT, as in 17.1.42:3");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_texts(const char *before, const cJSON *list, const char *none)
{
    const cJSON *item;

    printf("%s", before);
    cJSON_ArrayForEach(item, list) printf(" %s", cJSON_IsString(item) ? item->valuestring : "");
    puts(cJSON_GetArraySize(list) == 0 ? none : "");
}

static void print_origin(const cJSON *answer)
{
    const char *made_by = json_text(answer, "made_by");
    const cJSON *plan = json_at(answer, "plan");

    if (strcmp(made_by, "import") == 0) {
        printf("came from another worker, where it was %s\n", json_text(answer, "source"));
        return;
    }
    if (strcmp(made_by, "execution") != 0) {
        puts("made by an execution that is not in the journal");
        return;
    }
    printf("made by node %.0f, %s", json_number(answer, "node"), json_text(answer, "op"));
    if (json_text(answer, "module")[0] != '\0')
        printf(" in %s", json_text(answer, "module"));
    printf(", of plan %.12s (%.0f nodes); the execution took %.3f ms\n", json_text(plan, "fingerprint"),
           json_number(plan, "nodes"), json_number(answer, "cost_ns") / 1e6);
    if (json_text(answer, "not_replayable")[0] != '\0')
        printf("it cannot be run again: %s\n", json_text(answer, "not_replayable"));
    print_texts("made from", json_at(answer, "inputs"), " leaves only");
}

static void print_step(const cJSON *step)
{
    const char *execution = json_text(step, "execution");

    printf("  %-8s %s", json_text(step, "kind"), execution[0] != '\0' ? execution : json_text(step, "handle"));
    if (execution[0] != '\0')
        printf("  %.3f ms", json_number(step, "cost_ns") / 1e6);
    putchar('\n');
}

static void print_explanation(const cJSON *answer)
{
    const cJSON *back = json_at(answer, "brought_back_by"), *checkpoint = json_at(answer, "checkpoint"), *step;

    printf("%s\n", json_text(answer, "handle"));
    print_origin(answer);
    print_texts("held by", json_at(answer, "held_by"), " nobody");
    if (cJSON_IsObject(checkpoint))
        printf("checkpointed %s: %s, %.0f bytes in %.0f pieces\n",
               json_is_true(checkpoint, "is_replica") ? "in other workers' memory" : "in the store",
               json_text(checkpoint, "value"), json_number(checkpoint, "bytes"), json_number(checkpoint, "pieces"));
    if (json_text(back, "error")[0] != '\0') {
        printf("lost, it could not be brought back: %s\n", json_text(back, "text"));
        return;
    }
    printf(
        "lost, it would be brought back by %.0f steps: %.0f executions again (%.3f ms), %.0f restored (%.0f bytes), %.0f fetched\n",
        json_number(back, "steps"), json_number(back, "replays"), json_number(back, "cost_ns") / 1e6,
        json_number(back, "restores"), json_number(back, "restored_bytes"), json_number(back, "fetches"));
    cJSON_ArrayForEach(step, json_at(back, "list")) print_step(step);
    if (json_number(back, "steps") > cJSON_GetArraySize(json_at(back, "list")))
        puts("  ...");
}

int command_explain(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse,
        "HANDLE",
        "Explain a value: how it came to be, where it is, what would bring it back if it were lost, and at what cost.\v"
        "HANDLE is SESSION.EPOCH.NUMBER:OUTPUT, as errors and logs name values: output 3 of the 42nd execution of the first life of session 17's client is "
        "17.1.42:3. The cost is the time that the executions took when they ran first.\n\n"
        "Examples:\n  djinn explain 4294967297.1.42:3\n  djinn explain 4294967297.1.42:3 --json | jq .brought_back_by.cost_ns" HELP_CLIENT_END,
        client_json_children,
        NULL,
        NULL};
    struct options options = {0};

    options_parse(&argp, argc, argv, &options);
    return json_ask(&options.client, "explain", options.handle, print_explanation);
}
