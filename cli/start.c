// djinn start: a head or a worker, in the foreground as a service manager expects, or detached.

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/config.h"
#include "cli/options.h"
#include "cli/server.h"
#include "gpu_worker/actors/worker.h"

struct options {
    bool is_head, is_worker, is_detached;
    struct head_options head;
    struct worker_options worker;
    int liveness_fd;    // 0: none
    const char *config, *durability, *sync, *retention, *leaf_store, *gpus, *threads, *memory,
        *grace;    // as written, on the command line or in the configuration
};

enum { GRACE_S_MAX = 86400, NAME_SEVERAL_MAX = 56 };

enum {
    KEY_HEAD = 1000,
    KEY_WORKER,
    KEY_LISTEN,
    KEY_STATE,
    KEY_ADVERTISE,
    KEY_GPUS,
    KEY_THREADS,
    KEY_MEMORY,
    KEY_NAME,
    KEY_GRACE,
    KEY_DETACH,
    KEY_CHAOS,
    KEY_LIVENESS,
    KEY_DURABILITY,
    KEY_SYNC,
    KEY_RETENTION,
    KEY_LEAF_STORE,
    KEY_CONFIG
};

static const struct argp_option option_table[] = {
    {NULL, 0, NULL, 0, "What to start:", 1},
    {"head", KEY_HEAD, "HOST:PORT", OPTION_ARG_OPTIONAL,
     "a head; with --worker, the address of the head to join (--head=HOST:PORT or --head HOST:PORT)", 1},
    {"worker", KEY_WORKER, NULL, 0, "a worker", 1},
    {NULL, 0, NULL, 0, "Both:", 2},
    {"listen", KEY_LISTEN, "HOST:PORT", 0,
     "where to listen; port 0 picks a free one (default: head 127.0.0.1:" DJINN_PORT ", worker 127.0.0.1:0)", 2},
    {"state", KEY_STATE, "DIR", 0, "state folder: store, token, logs (default: $XDG_STATE_HOME/djinn)", 2},
    {"config", KEY_CONFIG, "FILE", 0,
     "configuration (default: $DJINN_CONFIG, else $XDG_CONFIG_HOME/djinn/config.yaml); options go before it", 2},
    {"chaos", KEY_CHAOS, NULL, 0, "let 'djinn chaos' break this process on purpose, through a socket in DIR/chaos (0600)", 2},
    {"detach", KEY_DETACH, NULL, 0, "run in the background; returns once ready; the log goes to DIR", 2},
    {NULL, 0, NULL, 0, "Head:", 3},
    {"durability", KEY_DURABILITY, "LEVEL", 0,
     "what acknowledged survives, besides kills: memory (nothing), os (loss of power, but for a second), disk (it wholly; default)",
     3},
    {"sync", KEY_SYNC, NULL, 0, "answers wait until the record of what made them survives as --durability says", 3},
    {"retention", KEY_RETENTION, "DAYS", 0, "how long the records of a named session that nobody uses are kept (default: 7)", 3},
    {"leaf-store", KEY_LEAF_STORE, "BYTES", 0,
     "leaves (weights, inputs) in the store above which those that nothing names are deleted, with K, M, G or T (default: 64G)",
     3},
    {NULL, 0, NULL, 0, "Worker:", 4},
    {"advertise", KEY_ADVERTISE, "HOST:PORT", 0, "the address that others are told (default: the one it listens on)", 4},
    {"gpus", KEY_GPUS, "all|LIST|none", 0,
     "GPUs to use, by number (0,1); with several, a worker process each, NAME-gpu0, NAME-gpu1 ... (default: none, the CPU)", 4},
    {"threads", KEY_THREADS, "N", 0, "CPU threads for kernels (default: the machine's cores)", 4},
    {"memory", KEY_MEMORY, "BYTES", 0,
     "device memory to use, with K, M, G or T (default: 64 % of the machine's; of a GPU, 90 % of what is free)", 4},
    {"grace", KEY_GRACE, "SECONDS", 0, "how long the values of a client that is gone are kept (default: 30)", 4},
    {"name", KEY_NAME, "NAME", 0, "unique name in the pool (default: host and process number)", 4},
    {"liveness-fd", KEY_LIVENESS, "FD", 0,
     "stop when this descriptor's other end closes: the process that started this worker is gone", 4},
    {0},
};

// The rest of a command line is checked where the configuration's values are: both have the same words.
static enum dj_error take_number(const char *option, const char *text, unsigned long most, uint32_t *ret, struct fault *fault)
{
    if (count_parse(text, most, ret))
        return DJ_OK;
    return fault_set(fault, DJ_E_CONFIG, "--%s takes a number from 1 to %lu, not '%s'", option, most, text);
}

static enum dj_error take_gpus(struct worker_options *worker, const char *text, struct fault *fault)
{
    if (gpus_parse(text, &worker->gpus))
        return DJ_OK;
    return fault_set(fault, DJ_E_CONFIG, "--gpus takes " GPUS_TAKES ", not '%s'", text);
}

static enum dj_error take_durability(struct head_options *head, const char *text, struct fault *fault)
{
    static const char *const level[] = {[STORE_MEMORY] = "memory", [STORE_OS] = "os", [STORE_DISK] = "disk"};

    for (int i = 0; i < 3; i++)
        if (strcmp(text, level[i]) == 0) {
            head->durability = (enum store_durability)i;
            return DJ_OK;
        }
    return fault_set(fault, DJ_E_CONFIG, "--durability takes memory, os or disk, not '%s'", text);
}

static enum dj_error take_head(struct options *options, struct fault *fault)
{
    enum dj_error error = DJ_OK;

    if (options->durability != NULL)
        error = take_durability(&options->head, options->durability, fault);
    if (error == DJ_OK && options->retention != NULL)
        error = take_number("retention", options->retention, 1024, &options->head.retention_days, fault);
    if (error == DJ_OK && options->leaf_store != NULL &&
        (bytes_parse(options->leaf_store, &options->head.leaf_store_bytes) != DJ_OK || options->head.leaf_store_bytes < 1 << 20))
        error = fault_set(fault, DJ_E_CONFIG, "--leaf-store takes at least 1M, with K, M, G or T, not '%s'", options->leaf_store);
    options->head.is_sync = options->sync != NULL && strcmp(options->sync, "yes") == 0;
    return error;
}

static enum dj_error check_addresses(const struct options *options, struct fault *fault)
{
    const char *const worker[] = {options->worker.head, options->worker.listen, options->worker.advertise},
                      *const head[] = {options->head.listen};
    const char *const *given = options->is_worker ? worker : head;
    enum dj_error error = DJ_OK;
    char address[CLI_ADDRESS_MAX];

    for (size_t i = 0; error == DJ_OK && i < (options->is_worker ? 3 : 1); i++)
        if (given[i] != NULL)
            error = address_parse(given[i], address, fault);
    return error;
}

static void fill(const char **to, const struct config *config, enum config_key key)
{
    if (*to == NULL)
        *to = config_get(config, key);
}

// What the command line left open comes from the configuration; then everything is read.
static enum dj_error take_options(struct options *options, const struct config *config, struct fault *fault)
{
    enum dj_error error = DJ_OK;

    if (options->is_worker) {
        fill(&options->worker.head, config, CONFIG_worker_head);
        fill(&options->worker.listen, config, CONFIG_worker_listen);
        fill(&options->worker.advertise, config, CONFIG_worker_advertise);
        fill(&options->worker.state, config, CONFIG_worker_state);
        fill(&options->worker.name, config, CONFIG_worker_name);
        fill(&options->gpus, config, CONFIG_worker_gpus);
        fill(&options->threads, config, CONFIG_worker_threads);
        fill(&options->memory, config, CONFIG_worker_memory);
    } else {
        fill(&options->head.listen, config, CONFIG_head_listen);
        fill(&options->head.state, config, CONFIG_head_state);
        fill(&options->durability, config, CONFIG_head_durability);
        fill(&options->sync, config, CONFIG_head_sync);
        fill(&options->retention, config, CONFIG_head_retention);
        fill(&options->leaf_store, config, CONFIG_head_leaf_store);
    }
    if (config_get(config, CONFIG_log_level) != NULL)
        setenv("DJINN_LOG", config_get(config, CONFIG_log_level), 0);
    error = take_head(options, fault);
    if (error == DJ_OK && options->gpus != NULL)
        error = take_gpus(&options->worker, options->gpus, fault);
    if (error == DJ_OK && options->threads != NULL)
        error = take_number("threads", options->threads, 1024, &options->worker.threads, fault);
    if (error == DJ_OK && options->grace != NULL)
        error = take_number("grace", options->grace, GRACE_S_MAX, &options->worker.grace_s, fault);
    if (error == DJ_OK && options->memory != NULL &&
        (bytes_parse(options->memory, &options->worker.memory_bytes) != DJ_OK || options->worker.memory_bytes < 1 << 20))
        error = fault_set(fault, DJ_E_CONFIG, "--memory takes at least 1M, with K, M, G or T, not '%s'", options->memory);
    if (error == DJ_OK && options->worker.name != NULL && (options->worker.name[0] == '\0' || strlen(options->worker.name) > 63))
        error = fault_set(fault, DJ_E_CONFIG, "--name takes 1 to 63 characters");
    return error == DJ_OK ? check_addresses(options, fault) : error;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case KEY_HEAD:
        options->is_head = true;
        if (argument != NULL)
            options->worker.head = argument;
        return 0;
    case KEY_WORKER: options->is_worker = true; return 0;
    case KEY_CHAOS: options->head.is_chaos = options->worker.is_chaos = true; return 0;
    case KEY_LIVENESS: {
        char *end;
        long number = strtol(argument, &end, 10);
        if (*argument == '\0' || *end != '\0' || number < 3 || number > INT_MAX || fcntl((int)number, F_GETFD) < 0)
            argp_error(state, "--liveness-fd takes the number of an open descriptor, not '%s'", argument);
        options->liveness_fd = (int)number;
        return 0;
    }
    case KEY_DETACH: options->is_detached = true; return 0;
    case KEY_LISTEN: options->head.listen = options->worker.listen = argument; return 0;
    case KEY_STATE: options->head.state = options->worker.state = argument; return 0;
    case KEY_ADVERTISE: options->worker.advertise = argument; return 0;
    case KEY_NAME: options->worker.name = argument; return 0;
    case KEY_CONFIG: options->config = argument; return 0;
    case KEY_GPUS: options->gpus = argument; return 0;
    case KEY_THREADS: options->threads = argument; return 0;
    case KEY_MEMORY: options->memory = argument; return 0;
    case KEY_GRACE: options->grace = argument; return 0;
    case KEY_DURABILITY: options->durability = argument; return 0;
    case KEY_SYNC: options->sync = "yes"; return 0;
    case KEY_RETENTION: options->retention = argument; return 0;
    case KEY_LEAF_STORE: options->leaf_store = argument; return 0;
    case ARGP_KEY_ARG:
        // `--head HOST:PORT`: getopt gives the optional argument of a long option only behind '='.
        if (!options->is_head || options->worker.head != NULL)
            argp_error(state, "'%s' is one argument too many", argument);
        options->worker.head = argument;
        return 0;
    case ARGP_KEY_END:
        if (!options->is_head && !options->is_worker)
            argp_error(state, "say what to start: --head, or --worker --head HOST:PORT");
        if (!options->is_worker && options->worker.head != NULL)
            argp_error(state, "--head takes an address only with --worker; where a head listens is said with --listen");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

// What a server that did not start said last: its complaint.
static void print_last_line(const char *log)
{
    char tail[1024];
    FILE *file = fopen(log, "re");

    if (file == NULL)
        return;
    if (fseek(file, -(long)(sizeof tail - 1), SEEK_END) != 0)
        rewind(file);
    size_t length = fread(tail, 1, sizeof tail - 1, file);
    fclose(file);
    while (length > 0 && tail[length - 1] == '\n')
        length--;
    tail[length] = '\0';
    const char *last = strrchr(tail, '\n');
    if (length > 0)
        fprintf(stderr, "%s\n", last == NULL ? tail : last + 1);
}

// The parent of a detached server: passes the ready line on and leaves, or says what the server said and ends as it did. The child's
// standard error is the log.
static int wait_ready(pid_t child, int fd, const char *log)
{
    int status = 0;
    char line[256];
    size_t used = 0;
    ssize_t n;

    while (used < sizeof line - 1 && (n = read(fd, line + used, sizeof line - 1 - used)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        used += n > 0 ? (size_t)n : 0;
        if (used > 0 && line[used - 1] == '\n') {
            line[used] = '\0';
            fputs(line, stdout);
            return EXIT_DONE;
        }
    }
    print_last_line(log);
    bool is_exit = waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) != EXIT_DONE;
    return complain(is_exit ? WEXITSTATUS(status) : EXIT_FAILED, "it did not start; its log is %s", log);
}

// Returns in the child (-1), or with the parent's exit code.
static int detach(const struct options *options)
{
    char folder[CLI_PATH_MAX], log[CLI_PATH_MAX + 32];
    int ends[2];

    struct fault fault = {0};

    state_folder(options->head.state, folder);
    if (folder_make(folder, &fault) != DJ_OK)
        return complain_fault(EXIT_FAILED, fault.code, &fault);
    snprintf(log, sizeof log, "%s/%s-%d.log", folder, options->is_worker ? "worker" : "head", getpid());
    if (pipe2(ends, O_CLOEXEC) != 0)
        return complain(EXIT_FAILED, "cannot make a pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        return complain(EXIT_FAILED, "cannot fork: %s", strerror(errno));
    if (child > 0) {
        close(ends[1]);
        return wait_ready(child, ends[0], log);
    }
    setsid();
    int to_log = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(nothing, 0);
    dup2(ends[1], 1);
    dup2(to_log >= 0 ? to_log : nothing, 2);
    return -1;
}

static int serve(const struct options *options)
{
    struct server server = {0};
    struct fault fault = {0};
    const char *state = options->is_worker ? options->worker.state : options->head.state;
    enum dj_error error = DJ_OK;

    if (options->is_worker && options->worker.gpus.count > 0)
        error = gpu_check(options->worker.gpus.ordinal[0], &fault);
    if (error == DJ_OK)
        error = server_make(&server, state, !options->is_worker, &fault);
    if (error == DJ_OK)
        error = options->is_worker ? server_add_worker(&server, &options->worker, &fault)
                                   : server_add_head(&server, &options->head, &fault);
    int code = EXIT_FAILED;
    if (error == DJ_OK) {
        printf("djinn: ready at %s\n", server.head_address);
        fflush(stdout);
        if (options->is_detached)
            dup2(0, 1);
        if (options->is_worker && options->liveness_fd != 0)
            driver_on_close(server.driver, options->liveness_fd, WORKER_STOP);
        code = server_run(&server);
    } else {
        code = complain_fault(error == DJ_E_NO_DEVICE ? EXIT_NO_DEVICE : EXIT_FAILED, error, &fault);
    }
    server_end(&server);
    return code;
}

// The worker of one of several GPUs, in a process of its own.
static int serve_gpu(void *context, uint32_t which)
{
    struct options options = *(struct options *)context;
    char suffix[16];

    snprintf(suffix, sizeof suffix, "-gpu%d", options.worker.gpus.ordinal[which]);
    options.worker.suffix = suffix;
    options.worker.gpus = (struct gpus){.count = 1, .ordinal = {options.worker.gpus.ordinal[which]}};
    return serve(&options);
}

// Is one address enough for all workers, and one name?
static int check_several(const struct worker_options *worker)
{
    const char *port = worker->listen == NULL ? NULL : strrchr(worker->listen, ':');

    if (worker->advertise != NULL || (port != NULL && strcmp(port, ":0") != 0))
        return complain(
            EXIT_USAGE,
            "several GPUs are several workers, each with an address of its own: leave out --advertise, and the port of --listen or "
            "give 0, or start a worker for each GPU");
    if (worker->name != NULL && strlen(worker->name) > NAME_SEVERAL_MAX)
        return complain(EXIT_USAGE,
                        "--name takes 1 to %d characters where there are several GPUs: each worker's has a number behind it",
                        NAME_SEVERAL_MAX);
    return EXIT_DONE;
}

static int serve_worker(struct options *options)
{
    struct fault fault = {0};

    enum dj_error error = gpus_resolve(&options->worker.gpus, &fault);
    if (error != DJ_OK)
        return complain_fault(error == DJ_E_NO_DEVICE ? EXIT_NO_DEVICE : EXIT_FAILED, error, &fault);
    if (options->worker.gpus.count < 2)
        return serve(options);
    int code = check_several(&options->worker);
    return code != EXIT_DONE ? code : gpus_serve_each(options->worker.gpus.count, serve_gpu, options);
}

int command_start(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        NULL,
        "Start a head, or a worker that joins one.\v"
        "Runs in the foreground and logs to standard error (DJINN_LOG=debug|info|warn). Once ready it prints one line to standard output: "
        "\"djinn: ready at HOST:PORT\". SIGTERM and SIGINT drain and stop it.\n\n"
        "The head writes a random token into DIR/token (0600); workers, clients and commands of the same user and host read it there, others get it "
        "in $DJINN_TOKEN.\n\n"
        "A worker finds its head again by itself, also one that was started anew: it keeps trying for as long as it runs. It ends when the head refuses it "
        "for good (token, version, a name that is taken).\n\n"
        "With --gpus it opens libdjinn_cuda.so, from the folder lib beside the program's own or from where DJINN_CUDA_MODULE says, and the CUDA libraries that "
        "'djinn doctor' lists. Several GPUs get a worker process each, which prints its own line; one that fails leaves the others running, and the command ends "
        "when all have ended.\n\n"
        "Examples:\n  djinn start --head --listen 0.0.0.0:7070\n  djinn start --worker --head 10.0.0.1:7070 --gpus all\n"
        "  djinn start --head --detach --state /var/lib/djinn\n\n"
        "Environment: DJINN_ADDRESS, DJINN_TOKEN, DJINN_CONFIG, DJINN_CUDA_MODULE, DJINN_CUDA_PATH, DJINN_LOG, XDG_STATE_HOME; a worker's unix socket lies in XDG_RUNTIME_DIR, else /tmp.\n\n"
        "Exit status: 0 it was stopped; 1 it failed, and says why; 2 the command line or the configuration is not valid; 4 --gpus was asked for and there is "
        "none.",
        NULL,
        NULL,
        NULL};
    struct options options = {.head.durability = STORE_DISK};
    static struct config config;    // the options point into it
    struct fault fault = {0};

    options_parse(&argp, argc, argv, &options);
    enum dj_error error = config_load(options.config, &config, &fault);
    if (error == DJ_OK)
        error = take_options(&options, &config, &fault);
    if (error != DJ_OK)
        return complain_fault(EXIT_USAGE, error, &fault);
    if (options.is_detached) {
        int code = detach(&options);
        if (code >= 0)
            return code;
    }
    log_to_stderr();
    return options.is_worker ? serve_worker(&options) : serve(&options);
}
