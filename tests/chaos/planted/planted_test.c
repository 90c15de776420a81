// Deliberate bugs, one at a time, in the real head, worker and client: each passes every unit test of the folders that have such bugs, and each
// breaks an invariant of the simulated world within 2000 seeds. Built with DJINN_PLANTED_BUGS, which nothing else is.

#include "core/base/planted.h"

#include "chaos/sim/cluster.h"
#include "tests/lib/case.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEEDS = 2000, SUITES_MAX = 64, PATH_BYTES = 512, JOBS_MAX = 2 };

static const struct {
    const char *name, *tests, *text;
} bugs[PLANTED_BUGS] = {
#define BUG(name, tests, text) {#name, tests, text},
    {"NONE", "", ""}, PLANTED_LIST(BUG)
#undef BUG
};

// One child for each bug, two at a time; gives how many failed.
static uint32_t in_children(int (*of_bug)(enum planted_bug bug))
{
    uint32_t running = 0, failed = 0;
    fflush(stdout);
    for (enum planted_bug bug = PLANTED_NONE + 1; bug < PLANTED_BUGS || running > 0;) {
        if (bug < PLANTED_BUGS && running < JOBS_MAX) {
            pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                planted_bug = bug;
                int code = of_bug(bug);
                fflush(stdout);
                _exit(code);
            }
            bug++;
            running++;
            continue;
        }
        int status;
        assert_true(wait(&status) > 0);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        running--;
    }
    return failed;
}

static int hunt(enum planted_bug bug)
{
    clock_t begun = clock();
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct cluster_result result = cluster_run(&(struct swarm_options){.seed = seed});
        if (result.is_ok)
            continue;
        planted_bug = PLANTED_NONE;
        bool is_its = cluster_run(&(struct swarm_options){.seed = seed}).is_ok;
        planted_bug = bug;
        if (!is_its)
            continue;    // this seed has found something else
        printf("%-18s seed %4" PRIu64 ", %4.1f s: %.120s\n", bugs[bug].name, seed, (double)(clock() - begun) / CLOCKS_PER_SEC,
               result.failure);
        return 0;
    }
    printf("%-18s NOT CAUGHT in %d seeds: %s\n", bugs[bug].name, SEEDS, bugs[bug].text);
    return 1;
}

static void every_planted_bug_is_caught(void **state)
{
    (void)state;
    assert_int_equal(in_children(hunt), 0);
}

static void without_one_the_world_holds(void **state)
{
    (void)state;
    planted_bug = PLANTED_NONE;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct cluster_result result = cluster_run(&(struct swarm_options){.seed = seed});
        if (!result.is_ok)
            printf("seed %" PRIu64 ": %s\n", seed, result.failure);
        assert_true(result.is_ok);
    }
}

// The unit tests' programs, built with the bugs, lie in a folder of their own; those run that run the code in question.
static int unit_tests(enum planted_bug bug)
{
    char command[PATH_BYTES];
    int failed = 0;
    DIR *folder = opendir(DJINN_PLANTED_SUITES);
    if (folder == NULL)
        return 1;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (strncmp(entry->d_name, bugs[bug].tests, strlen(bugs[bug].tests)) != 0)
            continue;
        snprintf(command, sizeof command, "DJINN_PLANTED=%s " DJINN_PLANTED_SUITES "/%s >/dev/null 2>&1", bugs[bug].name,
                 entry->d_name);
        if (system(command) == 0)
            continue;
        printf("%-18s is seen by %s\n", bugs[bug].name, entry->d_name);
        failed = 1;
    }
    closedir(folder);
    return failed;
}

static void every_planted_bug_passes_the_unit_tests(void **state)
{
    (void)state;
    assert_int_equal(in_children(unit_tests), 0);
}

static void a_failing_world_shrinks_to_one_that_fails(void **state)
{
    struct swarm_options options = {0};
    (void)state;
    planted_bug = PLANTED_RUN_TWICE;
    while (cluster_run(&options).is_ok)
        options.seed++;
    struct swarm before = swarm_make(&options);
    cluster_shrink(&options, 200);
    struct swarm after = swarm_make(&options);
    struct cluster_result result = cluster_run(&options);
    planted_bug = PLANTED_NONE;
    assert_false(result.is_ok);
    assert_true(after.clients <= before.clients && after.workers <= before.workers && after.until_ns <= before.until_ns);
    assert_int_equal(after.faults & ~before.faults, 0);
    assert_true(after.client[0].steps < before.client[0].steps);
}

CASES(without_one_the_world_holds, every_planted_bug_is_caught, every_planted_bug_passes_the_unit_tests,
      a_failing_world_shrinks_to_one_that_fails)
