// djinn stop: asks the head to drain its workers and to end, and waits until it is gone.

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "cli/options.h"

enum { GONE_WITHIN_MS = 10000, LOOK_EVERY_MS = 10 };

struct options {
    struct client_options client;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->client; return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s' is one argument too many", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

// The head holds the lock of its state folder as long as it lives. Where the folder is another head's, or on another machine, there is
// nothing to wait for here.
static bool is_locked(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_held = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    return is_held;
}

static bool is_local(const char *address)
{
    const char *named = address != NULL ? address : getenv("DJINN_ADDRESS");
    return named == NULL || named[0] == '\0' || named[0] == ':' || strncmp(named, "127.", 4) == 0 ||
           strncmp(named, "localhost", 9) == 0;
}

static bool wait_until_gone(const struct client_options *client)
{
    const struct timespec pause = {.tv_nsec = LOOK_EVERY_MS * 1000000L};
    char folder[CLI_PATH_MAX], path[CLI_PATH_MAX + 8];

    state_folder(client->state, folder);
    snprintf(path, sizeof path, "%s/lock", folder);
    for (int waited = 0; is_local(client->address) && is_locked(path); waited += LOOK_EVERY_MS) {
        if (waited >= GONE_WITHIN_MS)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

int command_stop(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse,
        NULL,
        "Stop a head and the workers that are joined to it.\v"
        "Workers finish what they run and leave with their last session; the head writes what it has to write and ends. Returns once a head of this "
        "machine is gone, so that another one can be started on the same state folder at once. To stop one worker, send it SIGTERM.\n\n"
        "Examples:\n  djinn stop\n  djinn stop --head 10.0.0.1:7070" HELP_CLIENT_END,
        client_children,
        NULL,
        NULL};
    struct options options = {0};
    struct fault fault = {0};
    char *answer;
    size_t bytes;

    options_parse(&argp, argc, argv, &options);
    enum dj_error error = head_ask(options.client.address, options.client.state, "stop", "", &answer, &bytes, &fault);
    if (error != DJ_OK)
        return ask_failed(error, &fault);
    free(answer);
    if (!wait_until_gone(&options.client))
        return complain(EXIT_FAILED, "the head is asked to stop and still runs after %d s; its log says what it waits for",
                        GONE_WITHIN_MS / 1000);
    puts("djinn: stopped");
    return EXIT_DONE;
}
