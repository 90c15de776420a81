// Scenario crew: starting, watching and ending the processes. The manual is scenario_crew.h.

#include "cli/scenario_crew.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/json.h"

enum { ARGUMENTS_MAX = 2 * SCENARIO_WORDS_MAX, READY_MS = 20000, STOP_MS = 15000, STEP_MS = 20, PATH_BYTES = 1024 };

static bool fail(struct crew *crew, const char *what, const char *on)
{
    snprintf(crew->why, sizeof crew->why, "%s %s: %s", what, on, strerror(errno));
    return false;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void step(void)
{
    nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
}

bool crew_make(struct crew *crew, const struct scenario *scenario, const char *djinn)
{
    *crew = (struct crew){.scenario = scenario, .djinn = djinn};
    snprintf(crew->folder, sizeof crew->folder, "/tmp/djinn-chaos-XXXXXX");
    if (mkdtemp(crew->folder) == NULL)
        return fail(crew, "cannot make the folder", crew->folder);
    snprintf(crew->state, sizeof crew->state, "%s/djinn", crew->folder);
    crew->client = (struct client_options){.address = crew->address, .state = crew->state};
    return true;
}

// The package that was built with this binary goes before any other.
static void set_python_path(const struct crew *crew)
{
    char path[2 * PATH_BYTES];
    const char *slash = strrchr(crew->djinn, '/'), *given = getenv("PYTHONPATH");
    snprintf(path, sizeof path, "%.*s/../python%s%.1000s", slash == NULL ? 1 : (int)(slash - crew->djinn),
             slash == NULL ? "." : crew->djinn, given == NULL ? "" : ":", given == NULL ? "" : given);
    setenv("PYTHONPATH", path, 1);
}

// In the child: nothing of this run outlives the one who watches it.
static void become(const struct crew *crew, const char *log, int out, char **arguments)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    int to_log = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(nothing, 0);
    dup2(out, 1);
    dup2(to_log, 2);
    setenv("XDG_STATE_HOME", crew->folder, 1);
    setenv("XDG_RUNTIME_DIR", crew->folder, 1);
    setenv("DJINN_ADDRESS", crew->address, 1);
    setenv("DJINN_CHAOS", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("PYTHONUNBUFFERED", "1", 1);
    set_python_path(crew);
    unsetenv("DJINN_TOKEN");
    unsetenv("DJINN_CONFIG");
    execvp(arguments[0], arguments);
    _exit(127);
}

static struct crew_process *spawn(struct crew *crew, const char *name, char **arguments)
{
    char log[128];
    int ends[2];
    if (crew->processes == CREW_PROCESSES_MAX || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        fail(crew, "cannot start", name);
        return NULL;
    }
    fcntl(ends[1], F_SETFL, 0);
    snprintf(log, sizeof log, "%s/%.32s-%u.log", crew->folder, name, crew->processes);
    pid_t pid = fork();
    if (pid == 0)
        become(crew, log, ends[1], arguments);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        fail(crew, "cannot start", name);
        return NULL;
    }
    struct crew_process *process = &crew->process[crew->processes++];
    *process = (struct crew_process){.pid = pid, .out_fd = ends[0]};
    snprintf(process->name, sizeof process->name, "%s", name);
    return process;
}

// Lines come a byte at a time: few and short, and nothing behind them is lost.
bool crew_line(struct crew_process *process, int wait_ms, char *line, size_t bytes)
{
    int64_t until_ms = now_ms() + wait_ms;
    size_t length = 0;
    while (length < bytes - 1) {
        ssize_t got = read(process->out_fd, line + length, 1);
        if (got == 1 && line[length] == '\n') {
            line[length] = '\0';
            return true;
        }
        if (got == 1) {
            length++;
            continue;
        }
        int64_t left_ms = until_ms - now_ms();
        struct pollfd set = {.fd = process->out_fd, .events = POLLIN};
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR) || (left_ms <= 0 && length == 0))
            return false;
        poll(&set, 1, left_ms > 0 ? (int)left_ms : STEP_MS);
    }
    line[length] = '\0';
    return true;
}

static bool await_ready(struct crew *crew, struct crew_process *process)
{
    char line[256];
    if (process == NULL)
        return false;
    if (!crew_line(process, READY_MS, line, sizeof line) || strncmp(line, "djinn: ready at ", 16) != 0) {
        snprintf(crew->why, sizeof crew->why, "%s was not ready within %d s", process->name, READY_MS / 1000);
        return false;
    }
    if (strcmp(process->name, "head") == 0)
        snprintf(crew->address, sizeof crew->address, "%.120s", line + 16);
    return true;
}

static void append(char **arguments, int *count, const struct scenario_words *words)
{
    for (uint32_t i = 0; i < words->count; i++)
        arguments[(*count)++] = (char *)(uintptr_t)words->word[i];
    arguments[*count] = NULL;
}

bool crew_head(struct crew *crew)
{
    char listen[CLI_ADDRESS_MAX];
    snprintf(listen, sizeof listen, "%s", crew->address[0] == '\0' ? "127.0.0.1:0" : crew->address);
    char *arguments[ARGUMENTS_MAX] = {
        (char *)(uintptr_t)crew->djinn, "start", "--head", "--listen", listen, "--chaos", "--state", crew->state};
    int count = 8;
    append(arguments, &count, &crew->scenario->head);
    return await_ready(crew, spawn(crew, "head", arguments));
}

static bool has_joined(struct crew *crew, const char *name, pid_t pid)
{
    cJSON *status = crew_status(crew);
    const cJSON *item;
    bool is_there = false;
    cJSON_ArrayForEach(item, json_at(status, "workers"))
        is_there = is_there || (strcmp(json_text(item, "name"), name) == 0 && (pid_t)json_number(item, "pid") == pid);
    cJSON_Delete(status);
    return is_there;
}

bool crew_worker(struct crew *crew, const char *name)
{
    char copy[CHAOS_NAME_MAX];
    snprintf(copy, sizeof copy, "%s", name);
    char *arguments[ARGUMENTS_MAX] = {(char *)(uintptr_t)crew->djinn,
                                      "start",
                                      "--worker",
                                      "--head",
                                      crew->address,
                                      "--listen",
                                      "127.0.0.1:0",
                                      "--chaos",
                                      "--gpus",
                                      "none",
                                      "--threads",
                                      "1",
                                      "--memory",
                                      "512M",
                                      "--name",
                                      copy,
                                      "--state",
                                      crew->state};
    int count = 18;
    append(arguments, &count, &crew->scenario->worker);
    struct crew_process *process = spawn(crew, copy, arguments);
    if (!await_ready(crew, process))
        return false;
    // A head that is away may come later: then nobody waits for the joining.
    if (crew_find(crew, "head") == NULL)
        return true;
    for (int64_t until_ms = now_ms() + READY_MS; now_ms() < until_ms; step())
        if (has_joined(crew, copy, process->pid))
            return true;
    snprintf(crew->why, sizeof crew->why, "%s did not join within %d s", copy, READY_MS / 1000);
    return false;
}

// $DJINN_PYTHON, else the build's own beside bin/, else what is in PATH.
static void find_python(const struct crew *crew, char path[PATH_BYTES])
{
    const char *named = getenv("DJINN_PYTHON"), *slash = strrchr(crew->djinn, '/');
    if (named != NULL && named[0] != '\0') {
        snprintf(path, PATH_BYTES, "%s", named);
        return;
    }
    snprintf(path, PATH_BYTES, "%.*s/../venv/bin/python", slash == NULL ? 1 : (int)(slash - crew->djinn),
             slash == NULL ? "." : crew->djinn);
    if (access(path, X_OK) != 0)
        snprintf(path, PATH_BYTES, "python3");
}

struct crew_process *crew_program(struct crew *crew)
{
    const struct scenario *scenario = crew->scenario;
    char python[PATH_BYTES], file[PATH_BYTES];
    const char *slash = strrchr(scenario->path, '/');
    find_python(crew, python);
    snprintf(file, sizeof file, "%.*s/%s", slash == NULL ? 1 : (int)(slash - scenario->path),
             slash == NULL ? "." : scenario->path, scenario->program.word[0]);
    char *arguments[ARGUMENTS_MAX] = {python};
    int count = 1;
    append(arguments, &count, &scenario->program);
    arguments[1] = file;
    return spawn(crew, "client", arguments);
}

bool crew_reap(struct crew *crew)
{
    bool has_news = false;
    for (uint32_t i = 0; i < crew->processes; i++) {
        struct crew_process *process = &crew->process[i];
        if (process->has_ended || waitpid(process->pid, &process->status, WNOHANG) != process->pid)
            continue;
        process->has_ended = has_news = true;
    }
    return has_news;
}

struct crew_process *crew_find(struct crew *crew, const char *name)
{
    crew_reap(crew);
    for (uint32_t i = crew->processes; i-- > 0;)
        if (!crew->process[i].has_ended && strcmp(crew->process[i].name, name) == 0)
            return &crew->process[i];
    return NULL;
}

cJSON *crew_status(struct crew *crew)
{
    struct fault fault = {0};
    char *answer;
    size_t bytes;
    if (head_ask(crew->client.address, crew->client.state, "status", "", &answer, &bytes, &fault) != DJ_OK)
        return NULL;
    cJSON *status = cJSON_ParseWithLength(answer, bytes);
    free(answer);
    return status;
}

static bool all_have_ended(struct crew *crew, int wait_ms)
{
    for (int64_t until_ms = now_ms() + wait_ms;; step()) {
        bool is_over = true;
        crew_reap(crew);
        for (uint32_t i = 0; i < crew->processes; i++)
            is_over = is_over && crew->process[i].has_ended;
        if (is_over || now_ms() >= until_ms)
            return is_over;
    }
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path);
}

bool crew_stop(struct crew *crew, bool keep)
{
    struct fault fault = {0};
    char *answer = NULL;
    size_t bytes;
    if (crew_find(crew, "head") != NULL &&
        head_ask(crew->client.address, crew->client.state, "stop", "", &answer, &bytes, &fault) == DJ_OK)
        free(answer);
    else
        for (uint32_t i = 0; i < crew->processes; i++)
            if (!crew->process[i].has_ended)
                kill(crew->process[i].pid, SIGTERM);
    bool is_clean = all_have_ended(crew, STOP_MS);
    for (uint32_t i = 0; i < crew->processes; i++) {
        if (!crew->process[i].has_ended) {
            snprintf(crew->why, sizeof crew->why, "%s was left behind after djinn stop", crew->process[i].name);
            kill(crew->process[i].pid, SIGKILL);
        }
        close(crew->process[i].out_fd);
    }
    all_have_ended(crew, STOP_MS);
    if (!keep && is_clean)
        nftw(crew->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return is_clean;
}
