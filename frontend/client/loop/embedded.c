// The embedded child. The manual is embedded.h.

#define _GNU_SOURCE
#include "frontend/client/loop/embedded.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frontend/client/loop/loop.h"

enum { PATH_BYTES = 1024, LINE_BYTES = 256, LOG_TAIL_BYTES = 240, CHILD_LIVENESS_FD = 3, STOP_STEPS = 200, STOP_STEP_US = 10000 };

static const char ready_words[] = "djinn: ready at ";

// Where the program is ------------------------------------------------------------------------------------------------------

static bool beside_library(char path[PATH_BYTES])
{
    Dl_info info;
    if (dladdr((void *)(uintptr_t)&embedded_start, &info) == 0 || info.dli_fname == NULL)
        return false;
    char real[PATH_MAX];
    if (realpath(info.dli_fname, real) == NULL)
        return false;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(real, '/');
        if (slash == NULL)
            return false;
        *slash = '\0';
    }
    return snprintf(path, PATH_BYTES, "%.900s/bin/djinn", real) < PATH_BYTES && access(path, X_OK) == 0;
}

static bool in_path(char path[PATH_BYTES])
{
    const char *folders = getenv("PATH");
    for (const char *at = folders; at != NULL && *at != '\0';) {
        const char *end = strchrnul(at, ':');
        int length = (int)(end - at);
        if (length > 0 && length < 900) {
            snprintf(path, PATH_BYTES, "%.*s/djinn", length, at);
            if (access(path, X_OK) == 0)
                return true;
        }
        at = *end == '\0' ? end : end + 1;
    }
    return false;
}

static enum dj_error find_program(const char *given, char path[PATH_BYTES], struct fault *fault)
{
    const char *named = given != NULL ? given : getenv("DJINN_PROGRAM");
    if (named != NULL && named[0] != '\0') {
        snprintf(path, PATH_BYTES, "%s", named);
        if (access(path, X_OK) == 0)
            return DJ_OK;
        return fault_set(fault, DJ_E_NOT_FOUND, "the program %s cannot be executed: %s", named, strerror(errno));
    }
    if (beside_library(path) || in_path(path))
        return DJ_OK;
    return fault_set(fault, DJ_E_NOT_FOUND,
                     "no head was named and no djinn program was found beside libdjinn or in PATH; set DJINN_ADDRESS to a "
                     "head's host:port, or DJINN_PROGRAM to the program");
}

// Starting -----------------------------------------------------------------------------------------------------------------

static uint32_t cores(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < 1 ? 1 : (uint32_t)count;
}

static enum dj_error child_spawn(const char *program, char **arguments, char **environment, int liveness, int out, int log,
                                 pid_t *ret, struct fault *fault)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to start %s", program);
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to start %s", program);
    }
    // Its own process group: Ctrl-C in the terminal is for the program, and the child goes with it anyway.
    int failed = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    failed |= posix_spawn_file_actions_adddup2(&actions, out, 1);
    failed |= posix_spawn_file_actions_adddup2(&actions, log, 2);
    failed |= posix_spawn_file_actions_adddup2(&actions, liveness, CHILD_LIVENESS_FD);
    failed |= posix_spawnattr_setsigmask(&attributes, &none);
    failed |= posix_spawnattr_setpgroup(&attributes, 0);
    failed |= posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    int error = failed != 0 ? ENOMEM : posix_spawn(ret, program, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error == 0 ? DJ_OK : fault_set(fault, DJ_E_SYSTEM, "cannot start %s: %s", program, strerror(error));
}

// This process's environment with the token instead of another; the caller frees the array, not the strings.
static char **environment_with(char *token)
{
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char **copy = malloc((count + 2) * sizeof *copy);
    if (copy == NULL)
        return NULL;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "DJINN_TOKEN=", 12) != 0)
            copy[kept++] = environ[i];
    copy[kept++] = token;
    copy[kept] = NULL;
    return copy;
}

static void log_tail(const char *path, char tail[LOG_TAIL_BYTES])
{
    tail[0] = '\0';
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    if (fseek(file, -(LOG_TAIL_BYTES - 1), SEEK_END) != 0)
        rewind(file);
    size_t length = fread(tail, 1, LOG_TAIL_BYTES - 1, file);
    fclose(file);
    while (length > 0 && tail[length - 1] == '\n')
        length--;
    tail[length] = '\0';
}

static enum dj_error read_address(struct embedded *embedded, uint64_t deadline_ns, struct fault *fault)
{
    char line[LINE_BYTES], tail[LOG_TAIL_BYTES];
    size_t length = 0;
    for (;;) {
        uint64_t now_ns = loop_now_ns();
        struct pollfd set = {.fd = embedded->out_fd, .events = POLLIN};
        int timeout_ms = now_ns < deadline_ns ? (int)((deadline_ns - now_ns) / 1000000u) + 1 : 0;
        int ready = poll(&set, 1, timeout_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return fault_set(fault, DJ_E_TIMEOUT, "the embedded head and worker did not start in time; their log is %s",
                             embedded->log);
        ssize_t n = read(embedded->out_fd, line + length, sizeof line - 1 - length);
        if (n <= 0) {
            log_tail(embedded->log, tail);
            return fault_set(fault, DJ_E_CLOSED, "the embedded head and worker ended while starting; their log is %s: %s",
                             embedded->log, tail);
        }
        length += (size_t)n;
        line[length] = '\0';
        char *end = strchr(line, '\n');
        if (end == NULL && length < sizeof line - 1)
            continue;
        if (end == NULL || strncmp(line, ready_words, sizeof ready_words - 1) != 0)
            return fault_set(fault, DJ_E_MALFORMED,
                             "the embedded program said \"%.100s\" instead of its address; is it a djinn of another version?",
                             line);
        *end = '\0';
        snprintf(embedded->address, sizeof embedded->address, "%.120s", line + sizeof ready_words - 1);
        return DJ_OK;
    }
}

static enum dj_error pipes_make(int liveness[2], int out[2], int *log, struct embedded *embedded, struct fault *fault)
{
    const char *temporary = getenv("TMPDIR");
    snprintf(embedded->folder, sizeof embedded->folder, "%.40s/djinn-XXXXXX",
             temporary != NULL && temporary[0] == '/' && strlen(temporary) <= 40 ? temporary : "/tmp");
    if (mkdtemp(embedded->folder) == NULL)
        return fault_set(fault, DJ_E_SYSTEM, "cannot make the temporary folder %s: %s", embedded->folder, strerror(errno));
    snprintf(embedded->log, sizeof embedded->log, "%s/log", embedded->folder);
    *log = open(embedded->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (*log < 0 || pipe2(liveness, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        return fault_set(fault, DJ_E_SYSTEM, "cannot make the pipes to an embedded head and worker: %s", strerror(errno));
    return DJ_OK;
}

static void close_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

// The child with its pipes; `argument` ends with the liveness descriptor's option.
static enum dj_error child_start(const char *path, char **argument, struct hash128 token, struct embedded *embedded,
                                 struct fault *fault)
{
    char token_text[12 + HASH128_TEXT] = "DJINN_TOKEN=";
    int liveness[2] = {-1, -1}, out[2] = {-1, -1}, log = -1;
    enum dj_error error = pipes_make(liveness, out, &log, embedded, fault);
    if (error == DJ_OK) {
        hash128_text(token, token_text + 12);
        char **environment = environment_with(token_text);
        error = environment == NULL ? fault_set(fault, DJ_E_NO_MEMORY, "no memory to start %s", path)
                                    : child_spawn(path, argument, environment, liveness[0], out[1], log, &embedded->pid, fault);
        free(environment);
    }
    close_open(liveness[0]);
    close_open(out[1]);
    close_open(log);
    embedded->liveness_fd = liveness[1];
    embedded->out_fd = out[0];
    return error;
}

// The log is named in the fault: the folder stays.
static void child_abandon(struct embedded *embedded)
{
    close_open(embedded->liveness_fd);
    close_open(embedded->out_fd);
    if (embedded->pid > 0) {
        kill(embedded->pid, SIGKILL);
        waitpid(embedded->pid, NULL, 0);
    }
}

enum dj_error embedded_start(const char *program, struct hash128 token, uint32_t threads, uint64_t deadline_ns,
                             struct embedded *ret, struct fault *fault)
{
    char path[PATH_BYTES], threads_text[16], fd_text[16];
    struct embedded embedded = {.liveness_fd = -1, .out_fd = -1};
    enum dj_error error = find_program(program, path, fault);
    if (error != DJ_OK)
        return error;
    snprintf(threads_text, sizeof threads_text, "%u", threads == 0 ? cores() : threads);
    snprintf(fd_text, sizeof fd_text, "%d", CHILD_LIVENESS_FD);
    // The folder's name is written where the argument points before the child reads it.
    char *argument[] = {path, "embedded", "--state", embedded.folder, "--threads", threads_text, "--liveness-fd", fd_text, NULL};
    error = child_start(path, argument, token, &embedded, fault);
    if (error == DJ_OK)
        error = read_address(&embedded, deadline_ns, fault);
    if (error == DJ_OK)
        *ret = embedded;
    else
        child_abandon(&embedded);
    return error;
}

enum dj_error embedded_start_worker(const char *program, const char *head, struct hash128 token, uint32_t threads,
                                    struct embedded *ret, struct fault *fault)
{
    char path[PATH_BYTES], address[IO_ADDRESS_MAX], name[64], threads_text[16], fd_text[16];
    struct embedded embedded = {.liveness_fd = -1, .out_fd = -1};
    enum dj_error error = find_program(program, path, fault);
    if (error != DJ_OK)
        return error;
    snprintf(address, sizeof address, "%s", head);
    snprintf(name, sizeof name, "local-%d", getpid());
    snprintf(threads_text, sizeof threads_text, "%u", threads == 0 ? cores() : threads);
    snprintf(fd_text, sizeof fd_text, "%d", CHILD_LIVENESS_FD);
    char *argument[] = {path,          "start",         "--worker",      "--head",    address,      "--listen",
                        "127.0.0.1:0", "--state",       embedded.folder, "--threads", threads_text, "--name",
                        name,          "--liveness-fd", fd_text,         NULL};
    error = child_start(path, argument, token, &embedded, fault);
    if (error == DJ_OK)
        *ret = embedded;
    else
        child_abandon(&embedded);
    return error;
}

// Stopping -----------------------------------------------------------------------------------------------------------------

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path);
}

void embedded_stop(struct embedded *embedded)
{
    if (embedded->pid == 0)
        return;
    close(embedded->liveness_fd);
    bool has_ended = false;
    for (int step = 0; step < STOP_STEPS && !has_ended; step++) {
        has_ended = waitpid(embedded->pid, NULL, WNOHANG) != 0;
        if (!has_ended)
            usleep(step < 20 ? STOP_STEP_US / 10 : STOP_STEP_US);
    }
    if (!has_ended) {
        kill(embedded->pid, SIGKILL);
        waitpid(embedded->pid, NULL, 0);
    }
    close(embedded->out_fd);
    nftw(embedded->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    *embedded = (struct embedded){0};
}

void embedded_forget(struct embedded *embedded)
{
    if (embedded->pid == 0)
        return;
    close(embedded->liveness_fd);
    close(embedded->out_fd);
    *embedded = (struct embedded){0};
}
