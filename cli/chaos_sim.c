// djinn chaos sim: the simulated world: a head, workers and clients in one process, in virtual time, from one seed, with everything that can go
// wrong with them. `djinn chaos sim --seed N --runs 1 --loud` repeats a run exactly; a seed that fails is shrunk first.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "chaos/sim/cluster.h"
#include "cli/options.h"

enum {
    RUNS_MAX = 100000000,
    RUNS_DEFAULT = 100,
    SHRINK_RUNS_MAX = 300,
    POOL_MAX = 16,
    STEPS_MAX = 1 << 20,
    TIME_MAX_MS = 1 << 20,
    HELP_BYTES = 4096
};
enum { KEY_WORKERS = 1000, KEY_CLIENTS, KEY_STEPS, KEY_UNTIL, KEY_WITHOUT, KEY_NO_SHRINK };

struct options {
    struct swarm_options swarm;
    bool is_json, is_shrunk;
    uint32_t runs;
};

static bool seed_parse(const char *text, uint64_t *ret)
{
    char *end;
    *ret = strtoull(text, &end, 0);
    return text[0] != '\0' && text[0] != '-' && *end == '\0';
}

static void number(struct argp_state *state, const char *name, const char *text, unsigned long most, uint32_t *ret)
{
    if (!count_parse(text, most, ret))
        argp_error(state, "--%s takes a number from 1 to %lu, not '%s'", name, most, text);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;
    uint32_t until_ms = 0;

    switch (key) {
    case 's':
        if (!seed_parse(argument, &options->swarm.seed))
            argp_error(state, "--seed takes a whole number, not '%s'", argument);
        return 0;
    case 'r': number(state, "runs", argument, RUNS_MAX, &options->runs); return 0;
    case 'l': options->swarm.is_loud = true; return 0;
    case 'j': options->is_json = true; return 0;
    case KEY_WORKERS: number(state, "workers", argument, POOL_MAX, &options->swarm.workers); return 0;
    case KEY_CLIENTS: number(state, "clients", argument, POOL_MAX, &options->swarm.clients); return 0;
    case KEY_STEPS: number(state, "steps", argument, STEPS_MAX, &options->swarm.steps); return 0;
    case KEY_UNTIL:
        number(state, "until-ms", argument, TIME_MAX_MS, &until_ms);
        options->swarm.until_ns = (uint64_t)until_ms * 1000000;
        return 0;
    case KEY_WITHOUT:
        if (!swarm_fault_parse(argument, &options->swarm.without))
            argp_error(state,
                       "--without takes kinds of faults with commas between, not '%s'; 'djinn chaos sim --help' lists them",
                       argument);
        return 0;
    case KEY_NO_SHRINK: options->is_shrunk = false; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_json(const struct swarm_options *options, const struct cluster_result *result)
{
    char trace[32], seed[32], world[1024];
    snprintf(trace, sizeof trace, "%016" PRIx64, result->trace);
    snprintf(seed, sizeof seed, "%" PRIu64, options->seed);
    swarm_describe(&result->swarm, world, sizeof world);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "seed", seed);
    cJSON_AddStringToObject(json, "world", world);
    cJSON_AddBoolToObject(json, "ok", result->is_ok);
    if (!result->is_ok)
        cJSON_AddStringToObject(json, "failure", result->failure);
    cJSON_AddStringToObject(json, "trace", trace);
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"virtual_ns", result->virtual_ns},
        {"deaths", result->sim.deaths},
        {"links_lost", result->sim.links_broken},
        {"messages", result->sim.messages},
        {"messages_dropped", result->sim.lost},
        {"messages_reordered", result->sim.reordered},
        {"executions", result->clients.executions},
        {"resubmissions", result->clients.resubmissions},
        {"duplicates_answered", result->witness.duplicates},
        {"acknowledged", result->witness.acknowledged},
        {"recoveries", result->witness.recoveries},
        {"replays", result->witness.replays},
        {"checkpoints", result->ledger.checkpoints},
        {"sessions_resumed", result->witness.resumed},
        {"reads", result->clients.reads},
        {"copies_between_devices", result->witness.held},
        {"copies_given_up", result->witness.copies_given_up},
        {"typed_errors", result->clients.errors},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        cJSON_AddNumberToObject(json, counts[i].name, (double)counts[i].value);
    char *text = cJSON_PrintUnformatted(json);
    puts(text == NULL ? "{}" : text);
    free(text);
    cJSON_Delete(json);
}

static void print_result(const struct swarm_options *options, const struct cluster_result *result)
{
    char world[1024];
    swarm_describe(&result->swarm, world, sizeof world);
    printf("seed %" PRIu64 ": %s\n  %s\n  trace %016" PRIx64 ", %.1f s of virtual time, %" PRIu64 " deaths, %" PRIu64
           " links lost, %" PRIu64 " messages dropped, %" PRIu64 " reordered,\n  %" PRIu64 " executions, %" PRIu64
           " resubmissions, %" PRIu64 " duplicates answered, %" PRIu64 " recoveries, %" PRIu64 " replays, %" PRIu64
           " reads, %" PRIu64 " copies between devices, %" PRIu64 " typed errors\n",
           options->seed, result->is_ok ? "every invariant held" : result->failure, world, result->trace,
           (double)result->virtual_ns / 1e9, result->sim.deaths, result->sim.links_broken, result->sim.lost,
           result->sim.reordered, result->clients.executions, result->clients.resubmissions, result->witness.duplicates,
           result->witness.recoveries, result->witness.replays, result->clients.reads, result->witness.held,
           result->clients.errors);
}

static void print_failure(const struct options *options, const struct swarm_options *found)
{
    struct swarm_options small = *found;
    char command[1024];
    swarm_command(found, command, sizeof command);
    printf("  repeat it: %s --loud\n", command);
    if (!options->is_shrunk || found->is_loud)
        return;
    uint32_t runs = cluster_shrink(&small, SHRINK_RUNS_MAX);
    struct cluster_result result = cluster_run(&small);
    swarm_command(&small, command, sizeof command);
    printf("  shrunk in %u runs: %s --loud\n  there: %s\n", runs, command, result.failure);
    fflush(stdout);
}

static char *help_faults(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC)
        return (char *)(uintptr_t)text;
    char *whole = malloc(HELP_BYTES);    // argp frees it
    if (whole == NULL)
        return NULL;
    size_t at = (size_t)snprintf(whole, HELP_BYTES, "%s\n\nKinds of faults: ", text);
    for (uint32_t i = 0; i < FAULT_KINDS; i++)
        at += (size_t)snprintf(whole + at, HELP_BYTES - at, "%s%s", i == 0 ? "" : ", ", swarm_fault_name((enum swarm_fault)i));
    return whole;
}

int chaos_sim(int argc, char **argv)
{
    static const struct argp_option rows[] = {
        {"seed", 's', "N", 0, "The first seed (default 0); it decides everything: the pool, the programs, the faults", 0},
        {"runs", 'r', "M", 0, "How many seeds, counted upwards (default 100)", 0},
        {"loud", 'l', NULL, 0, "Say what happens, line by line, and what the processes log", 0},
        {"json", 'j', NULL, 0, "One line of JSON for each seed", 0},
        {"workers", KEY_WORKERS, "N", 0, "At most so many workers", 1},
        {"clients", KEY_CLIENTS, "N", 0, "At most so many clients", 1},
        {"steps", KEY_STEPS, "N", 0, "At most so many steps of each program", 1},
        {"until-ms", KEY_UNTIL, "T", 0, "No fault after so many milliseconds", 1},
        {"without", KEY_WITHOUT, "KIND,...", 0, "Leave these kinds of faults out", 1},
        {"no-shrink", KEY_NO_SHRINK, NULL, 0, "Do not look for a smaller world that fails too", 1},
        {0},
    };
    static const struct argp argp = {
        .options = rows,
        .parser = parse,
        .help_filter = help_faults,
        .doc =
            "Run a pool in the simulated world: the real head, workers and clients in one process, in virtual time, under seeded faults."
            "\vThe same seed gives the same run: its trace, a hash of everything that was delivered to anybody, is the same too. A failing seed is"
            " printed with the command that repeats it, and again as small as it can be made.\n\nExit status: 0 every invariant held; 1 one was"
            " broken, and which is said; 2 the command line is not valid.",
    };
    struct options options = {.runs = RUNS_DEFAULT, .is_shrunk = true};
    options_parse(&argp, argc, argv, &options);
    struct swarm_options swarm = options.swarm;
    uint32_t failures = 0;
    if (swarm.is_loud)
        log_to_stderr();
    for (; swarm.seed - options.swarm.seed < options.runs; swarm.seed++) {
        struct cluster_result result = cluster_run(&swarm);
        failures += !result.is_ok;
        if (options.is_json)
            print_json(&swarm, &result);
        else if (options.runs == 1 || !result.is_ok)
            print_result(&swarm, &result);
        if (!result.is_ok && !options.is_json)
            print_failure(&options, &swarm);
    }
    if (!options.is_json && options.runs > 1)
        printf("%u seeds from %" PRIu64 " on: %u broke an invariant\n", options.runs, options.swarm.seed, failures);
    return failures == 0 ? EXIT_DONE : EXIT_FAILED;
}
