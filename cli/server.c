// Server: the composition root of heads and workers. The manual is server.h.

#include "cli/server.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "chaos/live/live.h"
#include "core/base/log.h"
#include "gpu_worker/actors/worker.h"
#include "gpu_worker/device/cpu_device.h"
#include "sched/sched.h"

enum { SCHEME_MAX = 8, SOCKET_FOLDER_MAX = 72, SOCKET_STALE_S = 60 };

enum dj_error server_make(struct server *server, const char *state, bool make_token, struct fault *fault)
{
    memset(server, 0, sizeof *server);
    // A peer that has gone and a limit on file size are errors of the call that meets them.
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    state_folder(state, server->folder);
    enum dj_error error = token_load(server->folder, make_token, &server->token, fault);
    if (error == DJ_OK)
        error = process_make(&server->process);
    if (error == DJ_OK)
        error = driver_make(server->process, &server->driver);
    return error;
}

static uint64_t random_name(void)
{
    uint64_t name = 0;
    while (name == 0)
        random_bytes(&name, sizeof name);
    return name;
}

static int64_t wall_offset_ns(void)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec - (int64_t)driver_now_ns();
}

// Listens on "scheme://address"; bound gets the address without the scheme.
static enum dj_error listen_on(struct server *server, const char *scheme, const char *address, char bound[CLI_ADDRESS_MAX],
                               struct fault *fault)
{
    char wanted[CLI_ADDRESS_MAX + SCHEME_MAX + 8], got[IO_ADDRESS_MAX];

    snprintf(wanted, sizeof wanted, "%s://%s", scheme, address);
    enum dj_error error = driver_listen(server->driver, wanted, got, fault);
    if (error != DJ_OK)
        return error;
    const char *rest = strstr(got, "://");
    snprintf(bound, CLI_ADDRESS_MAX, "%s", rest == NULL ? got : rest + 3);
    return DJ_OK;
}

enum dj_error server_add_head(struct server *server, const struct head_options *options, struct fault *fault)
{
    struct head_config config = {.token = server->token,
                                 .incarnation = random_name(),
                                 .wall_offset_ns = wall_offset_ns(),
                                 .pid = (uint32_t)getpid(),
                                 .is_sync = options->is_sync,
                                 .retention_ns = options->retention_days * (uint64_t)24 * 3600 * 1000000000,
                                 .leaf_store_bytes = options->leaf_store_bytes};
    struct store_config store = {.path = server->folder, .durability = options->durability};
    char address[CLI_ADDRESS_MAX];

    enum dj_error error = address_parse(options->listen != NULL ? options->listen : "127.0.0.1:" DJINN_PORT, address, fault);
    if (error == DJ_OK)
        error = store_open(&store, driver_sink(server->driver), &server->store, fault);
    if (error != DJ_OK)
        return error;
    server->has_store = true;
    driver_set_store(server->driver, &server->store);
    if ((error = listen_on(server, "head", address, server->head_address, fault)) != DJ_OK)
        return error;
    snprintf(config.address, sizeof config.address, "%s", server->head_address);
    snprintf(config.version, sizeof config.version, "%s", DJINN_VERSION);
    if (options->is_chaos && (error = live_listen(server->folder, "head", LIVE_HEAD, fault)) != DJ_OK)
        return error;
    driver_on_signals(server->driver, HEAD_STOP);
    return process_root(server->process, &head_class, &config, sizeof config);
}

// Names the machine and this boot of it: who shares it can use a unix socket.
static void host_name(char host[64])
{
    char name[32] = "host", boot[16] = "0";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    gethostname(name, sizeof name - 1);
    if (file != NULL) {
        if (fgets(boot, 9, file) == NULL)
            boot[0] = '\0';
        fclose(file);
    }
    snprintf(host, 64, "%s-%s", name, boot);
}

static enum dj_error choose_device(struct server *server, const struct worker_options *options, struct fault *fault)
{
    const struct io_sink *sink = driver_sink(server->driver);
    struct cpu_device_config config = {.threads = options->threads, .memory_bytes = options->memory_bytes, .sink = sink};
    bool is_gpu = options->gpus.count > 0;

    enum dj_error error = is_gpu ? gpu_make(options->gpus.ordinal[0], options->memory_bytes, sink, &server->device, fault)
                                 : cpu_device_make(&config, &server->device, fault);
    if (error != DJ_OK)
        return error;
    driver_set_device(server->driver, 0, server->device);
    const struct device_info *info = server->device->info;
    log_write(LOG_INFO, "worker", "uses %s: threads=%u memory_bytes=%llu numerics=%s", is_gpu ? info->name : "the CPU",
              info->threads, (unsigned long long)info->capacity_bytes, info->numerics);
    return DJ_OK;
}

static bool is_stale(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat file;

    if (strlen(path) >= sizeof address.sun_path || lstat(path, &file) != 0 || !S_ISSOCK(file.st_mode) || file.st_uid != geteuid())
        return false;
    // One that is being made refuses too, for a moment.
    if (time(NULL) - file.st_mtime < SOCKET_STALE_S)
        return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_refused = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return is_refused;
}

// A worker that was killed leaves its socket behind, and names are never used again: the next worker removes it.
static void remove_stale_sockets(const char *folder)
{
    char path[CLI_PATH_MAX];
    DIR *entries = opendir(folder);

    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if (length != strlen("djinn-0123456789abcdef.sock") || strncmp(entry->d_name, "djinn-", 6) != 0 ||
            strcmp(entry->d_name + length - 5, ".sock") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (is_stale(path))
            unlink(path);
    }
    if (entries != NULL)
        closedir(entries);
}

static enum dj_error listen_unix(struct server *server, uint64_t incarnation, char address[CLI_ADDRESS_MAX], struct fault *fault)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char bound[CLI_ADDRESS_MAX];

    // A socket's path has room for little more than a hundred bytes.
    if (runtime == NULL || runtime[0] != '/' || strlen(runtime) > SOCKET_FOLDER_MAX || access(runtime, W_OK) != 0)
        runtime = "/tmp";
    remove_stale_sockets(runtime);
    snprintf(server->socket, sizeof server->socket, "%s/djinn-%016llx.sock", runtime, (unsigned long long)incarnation);
    enum dj_error error = listen_on(server, "unix", server->socket, bound, fault);
    if (error == DJ_OK)
        snprintf(address, CLI_ADDRESS_MAX, "unix://%.110s", server->socket);
    return error;
}

enum dj_error server_add_worker(struct server *server, const struct worker_options *options, struct fault *fault)
{
    struct worker_config config = {.token = server->token,
                                   .incarnation = random_name(),
                                   .pid = (uint32_t)getpid(),
                                   .grace_ns = options->grace_s * (uint64_t)1000000000};
    char head[CLI_ADDRESS_MAX], listen[CLI_ADDRESS_MAX], bound[CLI_ADDRESS_MAX];
    const char *named = options->head != NULL ? options->head : getenv("DJINN_ADDRESS");

    enum dj_error error = address_parse(named != NULL && named[0] != '\0' ? named : "127.0.0.1:" DJINN_PORT, head, fault);
    if (error == DJ_OK)
        error = address_parse(options->listen != NULL ? options->listen : "127.0.0.1:0", listen, fault);
    if (error == DJ_OK)
        error = choose_device(server, options, fault);
    if (error == DJ_OK)
        error = listen_on(server, "tcp", listen, bound, fault);
    if (error == DJ_OK)
        error = listen_unix(server, config.incarnation, config.address_unix, fault);
    if (error != DJ_OK)
        return error;
    host_name(config.host);
    snprintf(config.head, sizeof config.head, "head://%.110s", head);
    snprintf(config.address_tcp, sizeof config.address_tcp, "tcp://%.110s",
             options->advertise != NULL ? options->advertise : bound);
    const char *suffix = options->suffix != NULL ? options->suffix : "";
    if (options->name != NULL)
        snprintf(config.name, sizeof config.name, "%s%s", options->name, suffix);
    else
        snprintf(config.name, sizeof config.name, "%.40s-%d%s", config.host, getpid(), suffix);
    snprintf(config.version, sizeof config.version, "%s", DJINN_VERSION);
    config.devices = 1;
    config.device[0] = server->device;
    snprintf(server->head_address, sizeof server->head_address, "%.127s", bound);
    if (options->is_chaos && (error = live_listen(server->folder, config.name, LIVE_WORKER, fault)) != DJ_OK)
        return error;
    driver_on_signals(server->driver, WORKER_STOP);
    return process_root(server->process, &worker_class, &config, sizeof config);
}

int server_run(struct server *server)
{
    return driver_run(server->driver);
}

void server_end(struct server *server)
{
    live_end();
    if (server->device != NULL)
        server->device->stop(server->device->self);
    if (server->has_store)
        server->store.stop(server->store.self);
    driver_free(server->driver);
    process_free(server->process);
    if (server->socket[0] != '\0')
        unlink(server->socket);
}
