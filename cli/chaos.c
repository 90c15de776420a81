// djinn chaos: the simulated world: a head, workers and clients in one process, in virtual time, from one seed, with everything that can go
// wrong with them. `djinn chaos sim --seed N --runs 1 --loud` repeats a run exactly.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "chaos/sim/cluster.h"
#include "cli/options.h"

enum { RUNS_MAX = 100000000, RUNS_DEFAULT = 100 };

struct options {
    bool is_sim, is_loud, is_json;
    uint64_t seed;
    uint32_t runs;
};

static bool seed_parse(const char *text, uint64_t *ret)
{
    char *end;
    *ret = strtoull(text, &end, 0);
    return text[0] != '\0' && text[0] != '-' && *end == '\0';
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 's':
        if (!seed_parse(argument, &options->seed))
            argp_error(state, "--seed takes a whole number, not '%s'", argument);
        return 0;
    case 'r':
        if (!count_parse(argument, RUNS_MAX, &options->runs))
            argp_error(state, "--runs takes a number from 1 to %d, not '%s'", RUNS_MAX, argument);
        return 0;
    case 'l': options->is_loud = true; return 0;
    case 'j': options->is_json = true; return 0;
    case ARGP_KEY_ARG:
        if (options->is_sim || strcmp(argument, "sim") != 0)
            argp_error(state, "'%s' is not known; there is: djinn chaos sim", argument);
        options->is_sim = true;
        return 0;
    case ARGP_KEY_END:
        if (!options->is_sim)
            argp_error(state, "write: djinn chaos sim [--seed N] [--runs M]");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_json(uint64_t seed, const struct cluster_result *result)
{
    char trace[32], number[32];
    snprintf(trace, sizeof trace, "%016" PRIx64, result->trace);
    snprintf(number, sizeof number, "%" PRIu64, seed);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "seed", number);
    cJSON_AddStringToObject(json, "faults", cluster_faults_name(result->faults));
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
        {"duplicates_answered", result->duplicates},
        {"acknowledged", result->acknowledged},
        {"reads", result->clients.reads},
        {"typed_errors", result->clients.errors},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        cJSON_AddNumberToObject(json, counts[i].name, (double)counts[i].value);
    char *text = cJSON_PrintUnformatted(json);
    puts(text == NULL ? "{}" : text);
    free(text);
    cJSON_Delete(json);
}

static void print_result(uint64_t seed, const struct cluster_result *result)
{
    printf("seed %" PRIu64 " (faults: %s): %s\n  trace %016" PRIx64 ", %.1f s of virtual time, %" PRIu64 " deaths, %" PRIu64
           " links lost, %" PRIu64 " messages dropped, %" PRIu64 " reordered,\n  %" PRIu64 " executions, %" PRIu64
           " resubmissions, %" PRIu64 " duplicates answered, %" PRIu64 " reads, %" PRIu64 " typed errors\n",
           seed, cluster_faults_name(result->faults), result->is_ok ? "every invariant held" : result->failure, result->trace,
           (double)result->virtual_ns / 1e9, result->sim.deaths, result->sim.links_broken, result->sim.lost,
           result->sim.reordered, result->clients.executions, result->clients.resubmissions, result->duplicates,
           result->clients.reads, result->clients.errors);
    if (!result->is_ok)
        printf("  repeat it: djinn chaos sim --seed %" PRIu64 " --runs 1 --loud\n", seed);
}

int command_chaos(int argc, char **argv)
{
    static const struct argp_option rows[] = {
        {"seed", 's', "N", 0, "The first seed (default 0); it decides everything, seed modulo 8 the kind of faults", 0},
        {"runs", 'r', "M", 0, "How many seeds, counted upwards (default 100)", 0},
        {"loud", 'l', NULL, 0, "Say what happens, line by line, and what the processes log", 0},
        {"json", 'j', NULL, 0, "One line of JSON for each seed", 0},
        {0},
    };
    static const struct argp argp = {
        .options = rows,
        .parser = parse,
        .args_doc = "sim",
        .doc =
            "Run a pool in the simulated world: the real head, workers and clients in one process, in virtual time, under seeded faults."
            "\vThe same seed gives the same run: its trace, a hash of everything that was delivered to anybody, is the same too. A failing seed is"
            " printed with the command that repeats it.\n\nExit status: 0 every invariant held; 1 one was broken, and which is said; 2 the command line"
            " is not valid.",
    };
    struct options options = {.runs = RUNS_DEFAULT};
    options_parse(&argp, argc, argv, &options);
    uint32_t failures = 0;
    if (options.is_loud)
        log_to_stderr();
    for (uint64_t seed = options.seed; seed - options.seed < options.runs; seed++) {
        struct cluster_result result = cluster_run(&(struct cluster_options){.seed = seed, .is_loud = options.is_loud});
        failures += !result.is_ok;
        if (options.is_json)
            print_json(seed, &result);
        else if (options.runs == 1 || !result.is_ok)
            print_result(seed, &result);
    }
    if (!options.is_json && options.runs > 1)
        printf("%u seeds from %" PRIu64 " on: %u broke an invariant\n", options.runs, options.seed, failures);
    return failures == 0 ? EXIT_DONE : EXIT_FAILED;
}
