// Scenario run: the undisturbed run, the disturbed one, and the verdict. The manual is scenario.h.
//
// A program says on its standard output: "progress N" as it goes on, "result TEXT" or "error CODE" at its end. Events come when its progress has
// reached them, or at a time after its first line; they are carried out one after the other, in the order of the file.

#include "cli/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "cli/json.h"
#include "cli/scenario_crew.h"

enum { MEMORY_MS = 15000, MEMORY_ROUNDING = 2 << 10, STEP_MS = 50, LINE_BYTES = 256, BASELINES_MAX = 16, SETTLE_WAIT_MS = 10 };

struct run {
    const struct scenario *scenario;
    struct crew crew;
    struct crew_process *client;
    bool is_loud;
    uint64_t progress;
    uint32_t next, done;    // event
    double begun_s;         // since when the program has been saying something; 0: not yet
    char said[128];         // "result ..." or "error ..."
    char why[1024];
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool give_up(struct run *run, const char *why)
{
    if (run->why[0] == '\0')
        snprintf(run->why, sizeof run->why, "%.900s", why);
    return false;
}

// Events ------------------------------------------------------------------------------------------------------------------------

// "serving": the worker that the program's session was last granted; "other": one that it was not.
static bool resolve(struct run *run, char name[CHAOS_NAME_MAX])
{
    bool wants_other = strcmp(name, "other") == 0;
    if (strcmp(name, "client") == 0 && run->client != NULL) {
        snprintf(name, CHAOS_NAME_MAX, "client-%d", (int)run->client->pid);
        return true;
    }
    if (!wants_other && strcmp(name, "serving") != 0)
        return true;
    cJSON *status = crew_status(&run->crew);
    const cJSON *session, *worker;
    char serving[CHAOS_NAME_MAX] = "";
    cJSON_ArrayForEach(session, json_at(status, "sessions"))
    {
        const cJSON *grants = json_at(session, "grants");
        if (cJSON_GetArraySize(grants) > 0)
            snprintf(serving, sizeof serving, "%.63s",
                     json_text(cJSON_GetArrayItem(grants, cJSON_GetArraySize(grants) - 1), "worker"));
    }
    if (!wants_other)
        memcpy(name, serving, CHAOS_NAME_MAX);
    cJSON_ArrayForEach(worker, json_at(status, "workers")) if (wants_other && strcmp(json_text(worker, "name"), serving) != 0)
        snprintf(name, CHAOS_NAME_MAX, "%.63s", json_text(worker, "name"));
    cJSON_Delete(status);
    return name[0] != '\0' && strcmp(name, "other") != 0;
}

static bool carry_out(struct run *run, const struct scenario_event *event)
{
    struct chaos_order order = event->order;
    struct crew *crew = &run->crew;
    order.at_s = 0;
    if (strcmp(order.verb, "sleep") == 0)
        return nanosleep(&(struct timespec){.tv_sec = (time_t)order.for_s}, NULL) == 0;
    if (strcmp(order.verb, "start-head") == 0)
        return crew_head(crew) || give_up(run, crew->why);
    if (strcmp(order.verb, "start-worker") == 0)
        return crew_worker(crew, order.name) || give_up(run, crew->why);
    if (strcmp(order.verb, "start-client") == 0) {
        run->client = crew_program(crew);
        run->progress = 0;
        run->begun_s = 0;
        return run->client != NULL || give_up(run, crew->why);
    }
    if (!resolve(run, order.name) || !resolve(run, order.peer))
        return give_up(run, "no worker serves the program, when an event should befall it");
    return chaos_do(&order, &crew->client, !run->is_loud) == EXIT_DONE || give_up(run, "an event could not be carried out");
}

static bool is_due(const struct run *run, const struct scenario_event *event)
{
    if (event->after > 0)
        return run->progress >= event->after;
    // What is due at no time of its own follows the event before it; a killed client cannot go on.
    if (event->order.at_s == 0 && run->next > 0)
        return true;
    return run->begun_s > 0 && now_s() - run->begun_s >= event->order.at_s;
}

static bool events_go_on(struct run *run)
{
    const struct scenario *scenario = run->scenario;
    while (run->next < scenario->events && is_due(run, &scenario->event[run->next])) {
        const struct scenario_event *event = &scenario->event[run->next++];
        if (run->is_loud)
            printf("  %s %s (progress %llu)\n", event->order.verb, event->order.name, (unsigned long long)run->progress);
        fflush(stdout);
        if (!carry_out(run, event))
            return false;
        run->done++;
    }
    return true;
}

// The program -------------------------------------------------------------------------------------------------------------------

static void hear(struct run *run, const char *line)
{
    if (run->begun_s == 0)
        run->begun_s = now_s();
    if (strncmp(line, "progress ", 9) == 0)
        run->progress = strtoull(line + 9, NULL, 10);
    else if (strncmp(line, "result ", 7) == 0 || strncmp(line, "error ", 6) == 0)
        snprintf(run->said, sizeof run->said, "%.120s", line);
}

static bool follow(struct run *run)
{
    char line[LINE_BYTES];
    double until_s = now_s() + (double)run->scenario->limit_s;
    while (run->said[0] == '\0') {
        if (now_s() > until_s)
            return give_up(run, "the program did not come to its end in time");
        struct crew_process *client = run->client;
        if (crew_line(client, SETTLE_WAIT_MS, line, sizeof line))
            hear(run, line);
        else
            crew_reap(&run->crew);
        if (!events_go_on(run))
            return false;
        bool is_awaited = run->next < run->scenario->events;    // somebody may start it again
        if (client == run->client && client->has_ended && run->said[0] == '\0' && !is_awaited &&
            !crew_line(client, 0, line, sizeof line))
            return give_up(run, "the program ended without a result");
    }
    return true;
}

// What must hold afterwards -----------------------------------------------------------------------------------------------------

static bool client_has_ended(struct run *run)
{
    for (double until_s = now_s() + MEMORY_MS / 1000.0; now_s() < until_s;) {
        crew_reap(&run->crew);
        if (run->client->has_ended)
            return (WIFEXITED(run->client->status) && WEXITSTATUS(run->client->status) == 0) ||
                   give_up(run, "the program ended with an error after its result");
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
    return give_up(run, "the program did not end after its result");
}

// Whoever lives is known to the head again: who was parted from it or fenced has joined anew.
static bool workers_have_joined(struct run *run)
{
    char last[160] = "";
    for (double until_s = now_s() + MEMORY_MS / 1000.0; now_s() < until_s;) {
        cJSON *status = crew_status(&run->crew);
        bool is_whole = status != NULL;
        crew_reap(&run->crew);
        for (uint32_t i = 0; i < run->crew.processes; i++) {
            const struct crew_process *process = &run->crew.process[i];
            const cJSON *worker;
            bool is_known = process->has_ended || strncmp(process->name, "worker-", 7) != 0;
            cJSON_ArrayForEach(worker, json_at(status, "workers"))
                is_known = is_known || strcmp(json_text(worker, "name"), process->name) == 0;
            if (!is_known)
                snprintf(last, sizeof last, "%.60s lives and is not in the pool again", process->name);
            is_whole = is_whole && is_known;
        }
        cJSON_Delete(status);
        if (is_whole)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
    return give_up(run, last[0] == '\0' ? "the head does not answer" : last);
}

// Values are gone from every worker that is left: what is used holds leaves, whose places are rounded up.
static bool memory_is_free(struct run *run)
{
    char last[160] = "no worker answered";
    for (double until_s = now_s() + MEMORY_MS / 1000.0; now_s() < until_s;) {
        cJSON *status = crew_status(&run->crew);
        const cJSON *worker;
        bool is_free = status != NULL;
        cJSON_ArrayForEach(worker, json_at(status, "workers"))
        {
            double used = json_number(worker, "memory_used_bytes"), leaves = json_number(worker, "leaf_bytes");
            if (used <= leaves + MEMORY_ROUNDING)
                continue;
            is_free = false;
            snprintf(last, sizeof last, "%.40s still holds %.0f bytes that are no leaves", json_text(worker, "name"),
                     used - leaves);
        }
        cJSON_Delete(status);
        if (is_free)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
    return give_up(run, last);
}

static bool run_once(struct run *run, const char *djinn)
{
    const struct scenario *scenario = run->scenario;
    bool is_good = crew_make(&run->crew, scenario, djinn) && crew_head(&run->crew);
    for (uint64_t i = 1; is_good && i <= scenario->workers; i++) {
        char name[CHAOS_NAME_MAX];
        snprintf(name, sizeof name, "worker-%llu", (unsigned long long)i);
        is_good = crew_worker(&run->crew, name);
    }
    run->client = is_good ? crew_program(&run->crew) : NULL;
    if (run->client == NULL)
        give_up(run, run->crew.why);
    is_good = run->client != NULL && follow(run) && client_has_ended(run) && workers_have_joined(run) && memory_is_free(run);
    if (!crew_stop(&run->crew, !is_good) && is_good)
        is_good = give_up(run, run->crew.why);
    if (!is_good) {
        size_t length = strlen(run->why);
        snprintf(run->why + length, sizeof run->why - length, "; the logs are in %s", run->crew.folder);
    }
    return is_good;
}

// Baselines: one run a program, whatever befalls it ------------------------------------------------------------------------------

struct baseline {
    char key[SCENARIO_WORDS_MAX * (SCENARIO_WORD_BYTES + 1)], said[128];
};

static const char *baseline_of(const struct scenario *scenario, const char *djinn, bool is_loud, char *why, size_t why_bytes)
{
    static struct baseline known[BASELINES_MAX];
    static uint32_t count;
    char key[sizeof known[0].key] = "";
    for (uint32_t i = 0; i < scenario->program.count; i++)
        strcat(strcat(key, scenario->program.word[i]), "\n");
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(known[i].key, key) == 0)
            return known[i].said;
    struct scenario *quiet = malloc(sizeof *quiet);
    if (quiet == NULL)
        return NULL;
    *quiet = *scenario;
    quiet->events = 0;
    struct run run = {.scenario = quiet, .is_loud = is_loud};
    bool is_good = run_once(&run, djinn);
    free(quiet);
    if (!is_good || strncmp(run.said, "result ", 7) != 0) {
        snprintf(why, why_bytes, "the undisturbed run failed: %.600s %.100s", run.why, run.said);
        return NULL;
    }
    struct baseline *at = &known[count < BASELINES_MAX ? count++ : BASELINES_MAX - 1];
    memcpy(at->key, key, sizeof key);
    memcpy(at->said, run.said, sizeof run.said);
    return at->said;
}

void scenario_run(const struct scenario *scenario, const char *program, bool is_loud, struct scenario_verdict *ret)
{
    *ret = (struct scenario_verdict){0};
    const char *wanted = baseline_of(scenario, program, is_loud, ret->why, sizeof ret->why);
    if (wanted == NULL)
        return;
    char expected[100];
    bool is_same = strcmp(scenario->expects, "same") == 0;
    snprintf(expected, sizeof expected, "error %.60s", scenario->expects);
    struct run run = {.scenario = scenario, .is_loud = is_loud};
    double begun_s = now_s();
    ret->is_ok = run_once(&run, program);
    ret->seconds = now_s() - begun_s;
    ret->broken = run.done;
    snprintf(ret->wanted, sizeof ret->wanted, "%s", is_same ? wanted : expected);
    snprintf(ret->result, sizeof ret->result, "%s", run.said);
    snprintf(ret->why, sizeof ret->why, "%s", run.why);
    if (ret->is_ok && strcmp(ret->wanted, ret->result) != 0) {
        ret->is_ok = false;
        snprintf(ret->why, sizeof ret->why, "it said \"%s\" and not \"%s\"", ret->result, ret->wanted);
    } else if (ret->is_ok && run.next < scenario->events) {
        ret->is_ok = false;
        snprintf(ret->why, sizeof ret->why, "the program ended before the event of line %u", scenario->event[run.next].line);
    }
}
