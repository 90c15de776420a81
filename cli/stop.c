// djinn stop: asks the head to drain its workers and to end, and waits until it is gone.

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"

struct options { const char *address, *state; };

static const struct argp_option option_table[] = {
    {"head", 'H', "HOST:PORT", 0, "the head's address (default: $DJINN_ADDRESS, else 127.0.0.1:" DJINN_PORT ")", 0},
    {"state", 's', "DIR", 0, "folder with the head's token (default: $XDG_STATE_HOME/djinn); $DJINN_TOKEN goes before it", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 'H': options->address = argument; return 0;
    case 's': options->state = argument; return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s' is one argument too many", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int command_stop(int argc, char **argv)
{
    static const struct argp argp = {option_table, parse, NULL,
        "Stop a head and the workers that are joined to it.\v"
        "Workers finish what they run. To stop one worker, send it SIGTERM.", NULL, NULL, NULL};
    struct options options = {0};
    struct fault fault = {0};
    char *answer;
    size_t bytes;

    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
        return EXIT_USAGE;
    enum dj_error error = head_ask(options.address, options.state, "stop", "", &answer, &bytes, &fault);
    if (error != DJ_OK)
        return ask_failed(error, &fault);
    free(answer);
    puts("djinn: stopped");
    return EXIT_DONE;
}
