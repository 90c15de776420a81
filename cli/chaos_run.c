// djinn chaos run FILE...: scenarios on real processes, each with a verdict.

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/scenario.h"

enum { FILES_MAX = 256 };

struct options {
    const char *file[FILES_MAX];
    int files;
    bool is_json, is_loud;
};

// NOLINTNEXTLINE(readability-non-const-parameter): argp's type
static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 'j': options->is_json = true; return 0;
    case 'l': options->is_loud = true; return 0;
    case ARGP_KEY_ARG:
        if (options->files == FILES_MAX)
            argp_error(state, "at most %d files at once", FILES_MAX);
        options->file[options->files++] = argument;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "name at least one file; there are some in chaos/scenarios"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_json(const struct scenario *scenario, const struct scenario_verdict *verdict)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "scenario", scenario->name);
    cJSON_AddBoolToObject(json, "ok", verdict->is_ok);
    if (!verdict->is_ok)
        cJSON_AddStringToObject(json, "why", verdict->why);
    cJSON_AddStringToObject(json, "said", verdict->result);
    cJSON_AddStringToObject(json, "wanted", verdict->wanted);
    cJSON_AddNumberToObject(json, "events", verdict->broken);
    cJSON_AddNumberToObject(json, "seconds", verdict->seconds);
    char *text = cJSON_PrintUnformatted(json);
    puts(text == NULL ? "{}" : text);
    free(text);
    cJSON_Delete(json);
}

static void print_line(const struct scenario *scenario, const struct scenario_verdict *verdict)
{
    printf("%s  %-32s %6.1f s  %s\n", verdict->is_ok ? "held  " : "BROKEN", scenario->name, verdict->seconds,
           verdict->is_ok ? scenario->text : verdict->why);
}

int chaos_run(int argc, char **argv)
{
    static const struct argp_option rows[] = {
        {"json", 'j', NULL, 0, "one line of JSON for each scenario", 0},
        {"loud", 'l', NULL, 0, "say what is broken when", 0},
        {0},
    };
    static const struct argp argp = {
        rows,
        parse,
        "FILE...",
        "Run scenarios: a head, workers and a program as real processes, broken as the file says.\v"
        "Each program is run undisturbed first. A scenario holds if the disturbed run gives the same result (or the error that the file expects), all events "
        "took place, no value is left in a worker's memory afterwards, and djinn stop leaves no process behind. docs/chaos.md has the format.\n\n"
        "Programs run with $DJINN_PYTHON, else the virtual environment beside this binary.\n\n"
        "Exit status: 0 all of them held; 1 one did not, and why is said; 2 the command line or a file is not valid.",
        NULL,
        NULL,
        NULL};
    struct options options = {0};
    struct fault fault = {0};
    char program[PATH_MAX], name[] = "djinn chaos run";
    argv[0] = name;
    options_parse(&argp, argc, argv, &options);
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    struct scenario *scenario = calloc((size_t)options.files, sizeof *scenario);
    if (length <= 0 || scenario == NULL) {
        free(scenario);
        return complain(EXIT_FAILED, "this program does not find itself, or no memory");
    }
    program[length] = '\0';
    for (int i = 0; i < options.files; i++) {
        if (scenario_load(options.file[i], &scenario[i], &fault) == DJ_OK)
            continue;
        free(scenario);
        return complain_fault(EXIT_USAGE, fault.code, &fault);
    }
    int broken = 0;
    for (int i = 0; i < options.files; i++) {
        struct scenario_verdict verdict;
        scenario_run(&scenario[i], program, options.is_loud, &verdict);
        broken += !verdict.is_ok;
        (options.is_json ? print_json : print_line)(&scenario[i], &verdict);
        fflush(stdout);
    }
    free(scenario);
    if (!options.is_json)
        printf("%d scenarios: %d held, %d did not\n", options.files, options.files - broken, broken);
    return broken == 0 ? EXIT_DONE : EXIT_FAILED;
}
