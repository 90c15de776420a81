// djinn embedded: head and worker in one process, the child of a client. Ends when the client does: the other end of --liveness-fd closes.

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/options.h"
#include "cli/server.h"
#include "gpu_worker/actors/worker.h"
#include "sched/sched.h"

struct options {
    struct worker_options worker;
    const char *state;
    int liveness_fd;
};

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
    uint32_t number = 0;

    switch (key) {
    case KEY_STATE: options->state = argument; return 0;
    case KEY_THREADS:
        if (!count_parse(argument, 1024, &options->worker.threads))
            argp_error(state, "--threads takes a number from 1 to 1024, not '%s'", argument);
        return 0;
    case KEY_LIVENESS:
        if (!count_parse(argument, INT_MAX, &number) || fcntl((int)number, F_GETFD) < 0)
            argp_error(state, "--liveness-fd takes the number of an open descriptor, not '%s'", argument);
        options->liveness_fd = (int)number;
        return 0;
    case KEY_MEMORY:
        if (bytes_parse(argument, &options->worker.memory_bytes) != DJ_OK)
            argp_error(state, "--memory takes a number with K, M, G or T, not '%s'", argument);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s' is one argument too many", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

// One of the two, on its thread. They meet over loopback as anywhere else, and end together: `bond` is one end of a pair of sockets, and
// shutting one's own tells the other.
struct half {
    struct server *server;
    int bond, code;
};

static void *run_half(void *argument)
{
    struct half *half = argument;
    half->code = server_run(half->server);
    shutdown(half->bond, SHUT_WR);
    return NULL;
}

static int run_both(struct server *head, struct server *worker, int liveness_fd)
{
    struct half halves[2] = {{.server = head}, {.server = worker}};
    int bond[2];
    pthread_t thread;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bond) != 0)
        return complain(EXIT_FAILED, "cannot make a pair of sockets: %s", strerror(errno));
    halves[0].bond = bond[0];
    halves[1].bond = bond[1];
    driver_on_close(head->driver, bond[0], HEAD_STOP);
    driver_on_close(worker->driver, bond[1], WORKER_STOP);
    if (liveness_fd >= 0) {
        driver_on_close(head->driver, liveness_fd, HEAD_STOP);
        driver_on_close(worker->driver, dup(liveness_fd), WORKER_STOP);
    }
    if (pthread_create(&thread, NULL, run_half, &halves[0]) != 0)
        return complain(EXIT_FAILED, "cannot start the head's thread");
    printf("djinn: ready at %s\n", head->head_address);
    fflush(stdout);
    run_half(&halves[1]);
    pthread_join(thread, NULL);
    return halves[1].code != EXIT_DONE ? halves[1].code : halves[0].code;
}

int command_embedded(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        NULL,
        "Run a head and a worker in one process, on a port the system chooses.\v"
        "Clients start it by themselves when no head is named, with a state folder that goes with them; there is seldom a reason to do so by hand. Once ready it "
        "prints one line to standard output: \"djinn: ready at HOST:PORT\". It ends on SIGTERM and SIGINT, and when the other end of --liveness-fd is "
        "closed, which happens however its parent ends.\n\n"
        "Exit status: 0 it was stopped; 1 it failed, and says why; 2 the command line is not valid.",
        NULL,
        NULL,
        NULL};
    struct options options = {.liveness_fd = -1, .worker.name = "embedded"};
    struct server head, worker = {0};
    struct fault fault = {0};

    options_parse(&argp, argc, argv, &options);
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
