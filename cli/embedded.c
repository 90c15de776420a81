// djinn embedded: head and worker in one process, the child of a client. Ends when the client does: the other end of --liveness-fd closes.

#include <argp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/server.h"
#include "gpu_worker/actors/worker.h"
#include "sched/sched.h"

struct options { struct worker_options worker; const char *state; int liveness_fd; };

enum { KEY_STATE = 1000, KEY_THREADS, KEY_MEMORY, KEY_LIVENESS };

static const struct argp_option option_table[] = {
    {"state", KEY_STATE, "DIR", 0, "state folder", 0},
    {"threads", KEY_THREADS, "N", 0, "CPU threads for kernels", 0},
    {"memory", KEY_MEMORY, "BYTES", 0, "device memory to use", 0},
    {"liveness-fd", KEY_LIVENESS, "FD", 0, "stop when this descriptor's other end closes", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case KEY_STATE: options->state = argument; return 0;
    case KEY_THREADS: options->worker.threads = (uint32_t)strtoul(argument, NULL, 10); return 0;
    case KEY_LIVENESS: options->liveness_fd = (int)strtol(argument, NULL, 10); return 0;
    case KEY_MEMORY:
        if (bytes_parse(argument, &options->worker.memory_bytes) != DJ_OK)
            argp_error(state, "--memory takes a number with K, M, G or T, not '%s'", argument);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s' is one argument too many", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

// The head runs on a thread of its own: two processes' worth of state in one, which meet over loopback as anywhere else.
static void *run_head(void *argument)
{
    int code = server_run(argument);
    return code == 0 ? NULL : argument;
}

static int run_both(struct server *head, struct server *worker, int liveness_fd)
{
    pthread_t thread;

    if (liveness_fd >= 0) {
        driver_on_close(head->driver, liveness_fd, HEAD_STOP);
        driver_on_close(worker->driver, dup(liveness_fd), WORKER_STOP);
    }
    if (pthread_create(&thread, NULL, run_head, head) != 0)
        return complain(EXIT_FAILED, "cannot start the head's thread");
    printf("djinn: ready at %s\n", head->head_address);
    fflush(stdout);
    int code = server_run(worker);
    pthread_join(thread, NULL);
    return code;
}

int command_embedded(int argc, char **argv)
{
    static const struct argp argp = {option_table, parse, NULL,
        "Run a head and a worker in one process, on a port the system chooses.\v"
        "Clients start it by themselves when no head is named; there is seldom a reason to do so by hand.", NULL, NULL, NULL};
    struct options options = {.liveness_fd = -1, .worker.name = "embedded"};
    struct server head, worker = {0};
    struct fault fault = {0};

    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
        return EXIT_USAGE;
    log_to_stderr();
    struct head_options head_options = {.listen = "127.0.0.1:0", .state = options.state, .durability = STORE_OS};
    enum dj_error error = server_make(&head, options.state, true, &fault);
    if (error == DJ_OK)
        error = server_add_head(&head, &head_options, &fault);
    if (error == DJ_OK)
        error = server_make(&worker, options.state, true, &fault);
    if (error == DJ_OK) {
        options.worker.head = head.head_address;
        error = server_add_worker(&worker, &options.worker, &fault);
    }
    int code = error == DJ_OK ? run_both(&head, &worker, options.liveness_fd) : complain_fault(EXIT_FAILED, error, &fault);
    server_end(&worker);
    server_end(&head);
    return code;
}
