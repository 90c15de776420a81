// Chaos order: finding the process, and breaking it. The manual is chaos_order.h.

#include "cli/chaos_order.h"

#include <limits.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "chaos/live/live.h"
#include "cli/json.h"
#include "core/base/prng.h"

enum { SECONDS_DEFAULT = 10, FOREVER_S = 3600 };

// One row a verb: what it needs, and who does it.
struct verb {
    const char *name;
    int (*run)(const struct chaos_order *order, const struct client_options *client, bool is_quiet);
};

static void nap(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

// Who is meant ------------------------------------------------------------------------------------------------------------------

static cJSON *ask_status(const struct client_options *client, int *ret_code)
{
    struct fault fault = {0};
    char *answer;
    size_t bytes;
    enum dj_error error = head_ask(client->address, client->state, "status", "", &answer, &bytes, &fault);
    if (error != DJ_OK) {
        *ret_code = ask_failed(error, &fault);
        return NULL;
    }
    cJSON *status = cJSON_ParseWithLength(answer, bytes);
    free(answer);
    if (status == NULL)
        *ret_code = complain(EXIT_FAILED, "the head's answer is not JSON; is it another version of djinn?");
    return status;
}

static bool socket_of(const struct client_options *client, const char *name, char path[LIVE_PATH_MAX])
{
    char folder[CLI_PATH_MAX];
    state_folder(client->state, folder);
    return live_path(folder, name, path);
}

// By the process's own word, if it listens: that needs no head.
static pid_t pid_by_socket(const struct client_options *client, const char *name)
{
    char path[LIVE_PATH_MAX], answer[LIVE_LINE_MAX];
    if (!socket_of(client, name, path) || live_ask(path, "{\"do\":\"show\"}", answer) != DJ_OK)
        return 0;
    cJSON *json = cJSON_Parse(answer);
    pid_t pid = (pid_t)json_number(json, "pid");
    cJSON_Delete(json);
    return pid;
}

static pid_t pid_in_status(const cJSON *status, const char *name)
{
    const cJSON *item;
    if (strcmp(name, "head") == 0)
        return (pid_t)json_number(status, "pid");
    cJSON_ArrayForEach(item, json_at(status, "workers")) if (strcmp(json_text(item, "name"), name) ==
                                                             0) return (pid_t)json_number(item, "pid");
    cJSON_ArrayForEach(item, json_at(status, "sessions"))
    {
        pid_t pid = (pid_t)json_number(item, "pid");
        char by_pid[CHAOS_NAME_MAX];
        snprintf(by_pid, sizeof by_pid, "client-%d", (int)pid);
        if (pid > 0 && (strcmp(json_text(item, "name"), name) == 0 || strcmp(by_pid, name) == 0))
            return pid;
    }
    return 0;
}

// The number in "client-1234", as clients without a name are called; 0: it is not of that form.
static pid_t pid_in_name(const char *name)
{
    char *end;
    if (strncmp(name, "client-", 7) != 0)
        return 0;
    long pid = strtol(name + 7, &end, 10);
    return *end == '\0' && pid > 1 && pid <= INT_MAX ? (pid_t)pid : 0;
}

static int find_pid(const struct client_options *client, const char *name, pid_t *ret)
{
    int code = EXIT_DONE;
    *ret = pid_by_socket(client, name);
    if (*ret > 0)
        return EXIT_DONE;
    if (pid_in_name(name) != 0 && kill(pid_in_name(name), 0) == 0) {
        *ret = pid_in_name(name);
        return EXIT_DONE;
    }
    cJSON *status = ask_status(client, &code);
    if (status == NULL)
        return code;
    *ret = pid_in_status(status, name);
    cJSON_Delete(status);
    if (*ret > 1)
        return EXIT_DONE;
    return complain(EXIT_FAILED, "no process called %s is known to the head; 'djinn status' lists them", name);
}

// A worker, when none is named: the only one, or one that the seed chooses.
static int choose_worker(const struct chaos_order *order, const struct client_options *client, char name[CHAOS_NAME_MAX])
{
    int code = EXIT_DONE;
    if (order->name[0] != '\0') {
        memcpy(name, order->name, CHAOS_NAME_MAX);
        return EXIT_DONE;
    }
    cJSON *status = ask_status(client, &code);
    if (status == NULL)
        return code;
    const cJSON *workers = json_at(status, "workers");
    int count = cJSON_GetArraySize(workers);
    struct prng prng = prng_make(order->seed);
    if (count == 0)
        code = complain(EXIT_FAILED, "there is no worker to kill");
    else if (count > 1 && !order->is_random)
        code = complain(EXIT_USAGE, "there are %d workers; name one, or say --random", count);
    else
        snprintf(name, CHAOS_NAME_MAX, "%s",
                 json_text(cJSON_GetArrayItem(workers, (int)prng_between(&prng, 0, (uint64_t)count - 1)), "name"));
    cJSON_Delete(status);
    return code;
}

// The only client that listens, when none is named.
static int choose_client(const struct chaos_order *order, const struct client_options *client, char name[CHAOS_NAME_MAX])
{
    char folder[CLI_PATH_MAX], chaos[CLI_PATH_MAX + 8];
    int found = 0;
    memcpy(name, order->name, CHAOS_NAME_MAX);
    if (name[0] != '\0')
        return EXIT_DONE;
    state_folder(client->state, folder);
    snprintf(chaos, sizeof chaos, "%s/chaos", folder);
    DIR *entries = opendir(chaos);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if (strncmp(entry->d_name, "client-", 7) != 0 || length < 13 || length >= CHAOS_NAME_MAX)
            continue;
        char candidate[CHAOS_NAME_MAX];
        snprintf(candidate, sizeof candidate, "%.*s", (int)length - 5, entry->d_name);
        if (pid_by_socket(client, candidate) == 0)
            continue;
        found++;
        memcpy(name, candidate, CHAOS_NAME_MAX);
    }
    if (entries != NULL)
        closedir(entries);
    if (found == 1)
        return EXIT_DONE;
    return complain(EXIT_USAGE, "%d clients listen for chaos here (DJINN_CHAOS=1); name the one by client-PID", found);
}

// Signals -----------------------------------------------------------------------------------------------------------------------

static int signal_process(const char *name, pid_t pid, int number, const char *did, bool is_quiet)
{
    if (kill(pid, number) != 0)
        return complain(EXIT_FAILED, "cannot signal %s (process %d): %s; is it on another machine, or another user's?", name,
                        (int)pid, strerror(errno));
    if (!is_quiet)
        printf("%s %s (process %d)\n", did, name, (int)pid);
    return EXIT_DONE;
}

static int kill_named(const char *name, const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    pid_t pid;
    int code = find_pid(client, name, &pid);
    nap(order->at_s);
    return code == EXIT_DONE ? signal_process(name, pid, SIGKILL, "killed", is_quiet) : code;
}

static int tell(const char *name, const char *line, const struct client_options *client, bool is_quiet);

static int kill_worker(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    char name[CHAOS_NAME_MAX] = "", line[LIVE_LINE_MAX];
    int code = choose_worker(order, client, name);
    if (code != EXIT_DONE || order->answer == 0)
        return code == EXIT_DONE ? kill_named(name, order, client, is_quiet) : code;
    snprintf(line, sizeof line, "{\"do\":\"die\",\"answer\":%llu,\"for\":%d}", (unsigned long long)order->answer, FOREVER_S);
    return tell(name, line, client, is_quiet);
}

static int kill_head(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    return kill_named("head", order, client, is_quiet);
}

static int kill_client(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    char name[CHAOS_NAME_MAX];
    int code = choose_client(order, client, name);
    return code == EXIT_DONE ? kill_named(name, order, client, is_quiet) : code;
}

static volatile pid_t paused;

static void go_on(int number)
{
    (void)number;
    if (paused > 1)
        kill(paused, SIGCONT);
    _exit(128 + number);
}

static int pause_named(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    pid_t pid;
    int code = find_pid(client, order->name, &pid);
    if (code != EXIT_DONE)
        return code;
    nap(order->at_s);
    paused = pid;
    struct sigaction action = {.sa_handler = go_on}, before_int, before_term;
    sigaction(SIGINT, &action, &before_int);
    sigaction(SIGTERM, &action, &before_term);
    code = signal_process(order->name, pid, SIGSTOP, "paused", is_quiet);
    if (code == EXIT_DONE) {
        nap((double)(order->for_s == 0 ? SECONDS_DEFAULT : order->for_s));
        code = signal_process(order->name, pid, SIGCONT, "let go on", is_quiet);
    }
    paused = 0;
    sigaction(SIGINT, &before_int, NULL);
    sigaction(SIGTERM, &before_term, NULL);
    return code;
}

// What a process does to itself -------------------------------------------------------------------------------------------------

static int tell(const char *name, const char *line, const struct client_options *client, bool is_quiet)
{
    char path[LIVE_PATH_MAX], answer[LIVE_LINE_MAX];
    if (!socket_of(client, name, path))
        return complain(EXIT_FAILED, "the state folder's path is too long for a socket");
    enum dj_error error = live_ask(path, line, answer);
    if (error != DJ_OK)
        return complain(
            EXIT_FAILED,
            "%s does not listen for chaos at %s (%s); start it with --chaos, a client with DJINN_CHAOS=1, and name its "
            "state folder with --state",
            name, path, dj_error_text(error));
    cJSON *json = cJSON_Parse(answer);
    int code = json_number(json, "ok") == 1 ? EXIT_DONE
                                            : complain(EXIT_FAILED, "%s refuses: %s", name,
                                                       json == NULL ? "its answer is not JSON" : json_text(json, "error"));
    if (code == EXIT_DONE && !is_quiet)
        printf("%s: %s\n", name, line);
    cJSON_Delete(json);
    return code;
}

static void add(char line[LIVE_LINE_MAX], const char *field, uint64_t value)
{
    size_t length = strlen(line);
    if (value != 0)
        snprintf(line + length, LIVE_LINE_MAX - length, ",\"%s\":%llu", field, (unsigned long long)value);
}

static int tell_fault(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    char line[LIVE_LINE_MAX];
    bool is_heads = strcmp(order->verb, "disk-full") == 0 || strcmp(order->verb, "slow-disk") == 0;
    const char *name = order->name[0] != '\0' ? order->name : is_heads ? "head" : NULL;
    if (name == NULL)
        return complain(EXIT_USAGE, "%s needs the name of a process: head, a worker's, or client-PID", order->verb);
    nap(order->at_s);
    snprintf(line, sizeof line, "{\"do\":\"%s\"", order->verb);
    add(line, "ms", order->ms);
    add(line, "jitter_ms", order->jitter_ms);
    add(line, "count", order->count);
    add(line, "rarity", order->rarity);
    add(line, "seed", order->seed);
    add(line, "for", order->for_s);
    strcat(line, "}");
    return tell(name, line, client, is_quiet);
}

// How others know this one: clients by their session's name, if they have one.
static void peer_name(const struct client_options *client, const char *name, char peer[CHAOS_NAME_MAX])
{
    int code = EXIT_DONE;
    snprintf(peer, CHAOS_NAME_MAX, "%s", name);
    if (pid_in_name(name) == 0)
        return;
    snprintf(peer, CHAOS_NAME_MAX, "client");
    cJSON *status = ask_status(client, &code);
    const cJSON *item;
    cJSON_ArrayForEach(item, json_at(status, "sessions")) if ((pid_t)json_number(item, "pid") == pid_in_name(name) &&
                                                              json_text(item, "name")[0] != '\0')
        snprintf(peer, CHAOS_NAME_MAX, "%.63s", json_text(item, "name"));
    cJSON_Delete(status);
}

static int partition(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    const char *const name[2] = {order->name, order->peer};
    char path[LIVE_PATH_MAX], answer[LIVE_LINE_MAX], line[LIVE_LINE_MAX], other[CHAOS_NAME_MAX];
    int told = 0, code = EXIT_DONE;
    if (order->name[0] == '\0' || order->peer[0] == '\0')
        return complain(EXIT_USAGE, "partition needs two names");
    nap(order->at_s);
    for (int i = 0; i < 2 && code == EXIT_DONE; i++) {
        // Whoever accepted the link knows the other's name; the other may not listen.
        if (!socket_of(client, name[i], path) || live_ask(path, "{\"do\":\"show\"}", answer) != DJ_OK)
            continue;
        peer_name(client, name[1 - i], other);
        snprintf(line, sizeof line, "{\"do\":\"partition\",\"peer\":\"%s\"", other);
        add(line, "for", order->for_s);
        strcat(line, "}");
        code = tell(name[i], line, client, is_quiet);
        told++;
    }
    if (told == 0)
        return complain(EXIT_FAILED, "neither %s nor %s listens for chaos; start them with --chaos", order->name, order->peer);
    return code;
}

static int show(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    char path[LIVE_PATH_MAX], answer[LIVE_LINE_MAX];
    const char *name = order->name[0] == '\0' ? "head" : order->name;
    (void)is_quiet;
    if (!socket_of(client, name, path) || live_ask(path, "{\"do\":\"show\"}", answer) != DJ_OK)
        return complain(EXIT_FAILED, "%s does not listen for chaos", name);
    puts(answer);
    return EXIT_DONE;
}

// The table ---------------------------------------------------------------------------------------------------------------------

static const struct verb verb_table[] = {
    {"kill-worker", kill_worker}, {"kill-head", kill_head},   {"kill-client", kill_client}, {"pause", pause_named},
    {"partition", partition},     {"delay", tell_fault},      {"drop", tell_fault},         {"duplicate", tell_fault},
    {"reorder", tell_fault},      {"corrupt", tell_fault},    {"oom", tell_fault},          {"disk-full", tell_fault},
    {"slow-disk", tell_fault},    {"clock-jump", tell_fault}, {"device-lost", tell_fault},  {"show", show},
};
enum { VERBS = sizeof verb_table / sizeof verb_table[0] };

static const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < VERBS; i++)
        if (strcmp(verb_table[i].name, name) == 0)
            return &verb_table[i];
    return NULL;
}

bool chaos_verb_is_known(const char *verb)
{
    return verb_find(verb) != NULL;
}

void chaos_verbs_print(char *text, size_t bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < VERBS && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", i == 0 ? "" : ", ", verb_table[i].name);
}

int chaos_do(const struct chaos_order *order, const struct client_options *client, bool is_quiet)
{
    const struct verb *verb = verb_find(order->verb);
    return verb == NULL ? complain(EXIT_USAGE, "djinn chaos does not know '%s'", order->verb)
                        : verb->run(order, client, is_quiet);
}
