// djinn store: checks a store, copies it beside the head that runs on it, and brings a copy back. Talks to no head.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/json.h"
#include "store/schema.h"
#include "store/upkeep.h"

enum { NAMED_MAX = 20, PROGRESS_EVERY_S = 2 };

struct options {
    const char *action, *folder;
    const char *state;
    bool is_json;
    time_t told;
    uint32_t named;
    cJSON *damaged;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;
    bool is_check = options->action != NULL && strcmp(options->action, "check") == 0;

    switch (key) {
    case 's': options->state = argument; return 0;
    case 'j': options->is_json = true; return 0;
    case ARGP_KEY_ARG:
        if (options->action == NULL)
            options->action = argument;
        else if (options->folder == NULL && !is_check)
            options->folder = argument;
        else
            argp_error(state, "'%s' is one argument too many", argument);
        return 0;
    case ARGP_KEY_END:
        if (options->action == NULL)
            argp_error(state, "which of check, backup and restore?");
        else if (!is_check && strcmp(options->action, "backup") != 0 && strcmp(options->action, "restore") != 0)
            argp_error(state, "'%s' is none of check, backup and restore", options->action);
        else if (!is_check && options->folder == NULL)
            argp_error(state, "%s needs the backup's folder", options->action);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

// Only what takes long says how far it is.
static void progress(void *context, const char *what, uint64_t done_bytes, uint64_t all_bytes)
{
    struct options *options = context;
    time_t now = time(NULL);

    if (now - options->told < PROGRESS_EVERY_S)
        return;
    options->told = now;
    fprintf(stderr, "djinn: %s %llu of %llu MiB\n", what, (unsigned long long)(done_bytes >> 20),
            (unsigned long long)(all_bytes >> 20));
}

static void damaged(void *context, const char *table, const char *key, const char *why)
{
    struct options *options = context;

    if (options->damaged != NULL) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "table", table);
        cJSON_AddStringToObject(item, "key", key);
        cJSON_AddStringToObject(item, "why", why);
        cJSON_AddItemToArray(options->damaged, item);
    } else if (options->named++ < NAMED_MAX) {
        printf("damaged: %s %s: %s\n", table, key, why);
    } else if (options->named == NAMED_MAX + 1) {
        puts("damaged: ... and more; --json names all of them");
    }
}

static void print_report(const struct options *options, const char *state, const struct upkeep_report *report)
{
    if (strcmp(options->action, "check") != 0)
        printf("djinn: %s %s\n", strcmp(options->action, "backup") == 0 ? "backed up to" : "restored to", state);
    printf("%-11s %12s\n", "TABLE", "ENTRIES");
    for (int table = 1; table < STORE_TABLES; table++)
        printf("%-11s %12llu\n", schema_table_name[table], (unsigned long long)report->entries[table]);
    printf("%llu values, %.1f MiB, are as they were written; on disk: lineage.mdb %.1f MiB, %llu blob files %.1f MiB\n",
           (unsigned long long)report->values, (double)report->plain_bytes / 1048576.0, (double)report->tree_bytes / 1048576.0,
           (unsigned long long)report->files, (double)report->file_bytes / 1048576.0);
    if (report->orphans > 0)
        printf("%llu files are named by no value; the head removes them when it starts\n", (unsigned long long)report->orphans);
}

static void print_json(struct options *options, const char *state, const struct upkeep_report *report)
{
    cJSON *json = cJSON_CreateObject(), *entries = cJSON_AddObjectToObject(json, "entries");

    cJSON_AddStringToObject(json, "path", state);
    for (int table = 1; table < STORE_TABLES; table++)
        cJSON_AddNumberToObject(entries, schema_table_name[table], (double)report->entries[table]);
    cJSON_AddNumberToObject(json, "values", (double)report->values);
    cJSON_AddNumberToObject(json, "plain_bytes", (double)report->plain_bytes);
    cJSON_AddNumberToObject(json, "tree_bytes", (double)report->tree_bytes);
    cJSON_AddNumberToObject(json, "files", (double)report->files);
    cJSON_AddNumberToObject(json, "file_bytes", (double)report->file_bytes);
    cJSON_AddNumberToObject(json, "orphans", (double)report->orphans);
    cJSON_AddItemToObject(json, "damaged", options->damaged);
    char *text = cJSON_Print(json);
    puts(text != NULL ? text : "{}");
    free(text);
    cJSON_Delete(json);
}

// LMDB trusts its tree. A page that is not one, or a file that was cut off, ends here instead of in a core dump.
static void tree_is_damaged(int number)
{
    static const char text[] =
        "djinn: lineage.mdb itself is damaged and cannot be gone through; restore a backup with 'djinn store restore'\n";

    (void)number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(EXIT_FAILED);
    _exit(EXIT_FAILED);
}

static enum dj_error act(struct options *options, const char *state, struct upkeep_report *report, struct fault *fault)
{
    const struct upkeep_watch watch = {.context = options, .progress = progress, .damaged = damaged};

    if (strcmp(options->action, "check") == 0)
        return upkeep_check(state, &watch, report, fault);
    if (strcmp(options->action, "backup") == 0)
        return upkeep_backup(state, options->folder, &watch, report, fault);
    return upkeep_restore(options->folder, state, &watch, report, fault);
}

int command_store(int argc, char **argv)
{
    static const struct argp_option table[] = {
        {"state", 's', "DIR", 0, "the state folder (default: $XDG_STATE_HOME/djinn); for check also a backup", 0},
        {"json", 'j', NULL, 0, "print what was found as JSON", 0},
        {0}};
    static const struct argp argp = {
        table,
        parse,
        "check\nbackup DIR\nrestore DIR",
        "Check, back up or restore what a head has stored.\v"
        "check reads every value and compares it with its checksum, names what is damaged, and may be run while the head runs. backup copies the store as it "
        "is at one moment to a folder that is not there yet, beside a running head too, and checks the copy. restore makes a state folder, which must be "
        "absent or empty, of a backup. Both write to DIR.part first: a copy is there whole or not at all. The token is part of a backup.\n\n"
        "Examples:\n  djinn store check\n  djinn store backup /backups/monday\n  djinn store check --state /backups/monday\n"
        "  djinn store restore /backups/monday --state /var/lib/djinn\n\n"
        "Environment: XDG_STATE_HOME is where state folders lie.\n\n"
        "Exit status: 0 done, and all values are as they were written; 1 it failed, or values are damaged; 2 the command line is not valid.",
        NULL,
        NULL,
        NULL};
    struct options options = {.told = time(NULL)};
    struct upkeep_report report = {0};
    struct fault fault = {0};
    char state[CLI_PATH_MAX];

    options_parse(&argp, argc, argv, &options);
    state_folder(options.state, state);
    signal(SIGBUS, tree_is_damaged);
    signal(SIGSEGV, tree_is_damaged);
    signal(SIGABRT, tree_is_damaged);
    options.damaged = options.is_json ? cJSON_CreateArray() : NULL;
    enum dj_error error = act(&options, state, &report, &fault);
    if (error != DJ_OK) {
        cJSON_Delete(options.damaged);
        return complain_fault(EXIT_FAILED, error, &fault);
    }
    const char *made = strcmp(options.action, "backup") == 0 ? options.folder : state;
    if (options.is_json)
        print_json(&options, made, &report);
    else
        print_report(&options, made, &report);
    if (report.damaged > 0)
        return complain(EXIT_FAILED, "%llu values of %s are damaged; they are refused when they are asked for",
                        (unsigned long long)report.damaged, made);
    return EXIT_DONE;
}
