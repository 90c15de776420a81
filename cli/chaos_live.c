// djinn chaos VERB: breaks something in a running pool. What it does is chaos_order.c's; this is its command line.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chaos_order.h"

enum { KEY_NTH = 1000, KEY_AT, KEY_RANDOM, KEY_SEED, KEY_FOR, KEY_MS, KEY_JITTER, KEY_COUNT, KEY_RARITY };

struct options {
    struct client_options client;
    struct chaos_order order;
    int words;
};

static uint64_t whole(struct argp_state *state, const char *option, const char *text, uint64_t most)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value > most)
        argp_error(state, "--%s takes a whole number up to %llu, not '%s'", option, (unsigned long long)most, text);
    return value;
}

static double seconds(struct argp_state *state, const char *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (text[0] == '\0' || *end != '\0' || !(value >= 0 && value <= 86400))
        argp_error(state, "--%s takes seconds, not '%s'", option, text);
    return value;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;
    struct chaos_order *order = &options->order;

    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->client; return 0;
    case KEY_NTH: order->answer = whole(state, "nth-execution", argument, 1000000000); return 0;
    case KEY_AT: order->at_s = seconds(state, "at", argument); return 0;
    case KEY_RANDOM: order->is_random = true; return 0;
    case KEY_SEED: order->seed = whole(state, "seed", argument, UINT32_MAX); return 0;
    case KEY_FOR: order->for_s = whole(state, "for", argument, 3600); return 0;
    case KEY_MS: order->ms = whole(state, "ms", argument, 86400000); return 0;
    case KEY_JITTER: order->jitter_ms = whole(state, "jitter", argument, 60000); return 0;
    case KEY_COUNT: order->count = whole(state, "count", argument, 1000000); return 0;
    case KEY_RARITY: order->rarity = whole(state, "rarity", argument, 1000000); return 0;
    case ARGP_KEY_ARG:
        if (strlen(argument) >= CHAOS_NAME_MAX || options->words == 2)
            argp_error(state, "'%s' is one argument too many, or too long for a name", argument);
        strcpy(options->words++ == 0 ? order->name : order->peer, argument);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int chaos_live(int argc, char **argv)
{
    static const struct argp_option rows[] = {
        {"at", KEY_AT, "SECONDS", 0, "wait so long first", 0},
        {"for", KEY_FOR, "SECONDS", 0, "how long it lasts (default 10)", 0},
        {"nth-execution", KEY_NTH, "N", 0, "kill-worker: it dies instead of giving its N-th answer from now", 0},
        {"random", KEY_RANDOM, NULL, 0, "kill-worker: one that the seed chooses", 0},
        {"seed", KEY_SEED, "S", 0, "of every choice (default 0)", 0},
        {"ms", KEY_MS, "N", 0, "delay, slow-disk, clock-jump: milliseconds", 0},
        {"jitter", KEY_JITTER, "N", 0, "delay: up to so many milliseconds more", 0},
        {"count", KEY_COUNT, "N", 0, "drop, duplicate, reorder, corrupt, oom, device-lost: how often (default 1)", 0},
        {"rarity", KEY_RARITY, "N", 0, "drop, duplicate, reorder, corrupt: strikes one frame in N (default 1)", 0},
        {0},
    };
    static const struct argp argp = {
        rows,
        parse,
        "[NAME [OTHER]]",
        "Break something in a running pool, for a time.\v"
        "NAME is head, a worker's name, or client-PID.\n\n"
        "kill-worker [NAME], kill-head, kill-client [NAME], pause NAME: by signals to processes of this user and machine.\n"
        "partition NAME OTHER, delay NAME, drop NAME, duplicate NAME, reorder NAME, corrupt NAME, oom NAME, device-lost NAME, disk-full, slow-disk, clock-jump NAME, "
        "show NAME: done by the process itself, which must have been started with --chaos (a client: with DJINN_CHAOS=1).\n"
        "run FILE...: scenarios; sim: the simulated world. Each has its own --help.\n\n"
        "Frames carry numbers and checksums: one that is dropped, duplicated, reordered or corrupted ends its link, as docs/chaos.md says."
        "\n\nExit status: 0 done; 1 it could not be done, and why is said; 2 the command line is not valid; 3 no head answers.",
        client_children,
        NULL,
        NULL};
    struct options options = {0};
    char name[64];
    if (argc < 2 || argv[1][0] == '-') {
        options_parse(&argp, argc, argv, &options);
        return complain(EXIT_USAGE, "djinn chaos needs to be told what to do; 'djinn chaos --help' lists it");
    }
    if (!chaos_verb_is_known(argv[1])) {
        char verbs[256];
        chaos_verbs_print(verbs, sizeof verbs);
        return complain(EXIT_USAGE, "djinn chaos does not know '%s'; there are: sim, run, %s", argv[1], verbs);
    }
    snprintf(options.order.verb, sizeof options.order.verb, "%s", argv[1]);
    snprintf(name, sizeof name, "djinn chaos %s", argv[1]);
    argv[1] = name;
    options_parse(&argp, argc - 1, argv + 1, &options);
    return chaos_do(&options.order, &options.client, false);
}
