// What a team promises: each part exactly once, everything visible when team_run returns, nothing spent while idle.

#include "gpu_worker/kernels/kernel.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/lib/case.h"

enum { PARTS_MAX = 5000 };

struct count {
    uint32_t runs[PARTS_MAX];
};    // plain: a part is run once, and team_run orders it before the check

static void count_part(void *context, uint32_t index)
{
    struct count *count = context;
    count->runs[index]++;
}

static void release_team(void *team)
{
    team_free(team);
}

static struct team *make_team(void **state, uint32_t threads)
{
    struct team *team;
    assert_ok(team_make(threads, &team));
    case_later(state, release_team, team);
    return team;
}

static void every_part_runs_exactly_once(void **state)
{
    static const uint32_t parts[] = {0, 1, 2, 3, 7, 64, PARTS_MAX};
    for (uint32_t threads = 1; threads <= 8; threads++) {
        struct team *team = make_team(state, threads);
        assert_int_equal(team_threads(team), threads);
        for (int round = 0; round < 300; round++) {
            uint32_t n = parts[(uint32_t)round % (sizeof parts / sizeof parts[0])];
            struct count *count = calloc(1, sizeof *count);
            assert_non_null(count);
            team_run(team, n, count_part, count);
            for (uint32_t i = 0; i < PARTS_MAX; i++)
                assert_int_equal(count->runs[i], i < n ? 1 : 0);
            free(count);
        }
    }
}

static void without_a_team_parts_run_in_order(void **state)
{
    struct count count = {{0}};
    (void)state;
    team_run(NULL, 5, count_part, &count);
    assert_int_equal(count.runs[4], 1);
    assert_int_equal(team_threads(NULL), 1);
}

struct chain {
    uint64_t value[64], sum;
};

static void chain_part(void *context, uint32_t index)
{
    struct chain *chain = context;
    chain->value[index] = chain->value[index] * 31 + chain->sum + index;
}

// Each run reads what the run before wrote on other threads: a lost write or a late part changes the sum.
static void a_run_sees_all_that_the_run_before_wrote(void **state)
{
    uint64_t expected = 0;
    for (uint32_t threads = 1; threads <= 4; threads++) {
        struct team *team = make_team(state, threads);
        struct chain chain = {.sum = 1};
        for (int round = 0; round < 20000; round++) {
            team_run(team, 64, chain_part, &chain);
            for (int i = 0; i < 64; i++)
                chain.sum = chain.sum * 7 + chain.value[i];
        }
        if (threads == 1)
            expected = chain.sum;
        assert_true(chain.sum == expected);
    }
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void an_idle_team_sleeps(void **state)
{
    struct team *team = make_team(state, 4);
    struct count *count = calloc(1, sizeof *count);
    team_run(team, 100, count_part, count);
    struct timespec pause = {.tv_nsec = 20000000}, second = {.tv_nsec = 400000000};
    nanosleep(&pause, NULL);
    double before = cpu_seconds();
    nanosleep(&second, NULL);
    assert_true(cpu_seconds() - before < 0.004);    // one per cent of a core
    memset(count, 0, sizeof *count);
    team_run(team, 100, count_part, count);    // and wakes again
    assert_int_equal(count->runs[99], 1);
    free(count);
}

static void a_team_of_no_threads_is_refused(void **state)
{
    struct team *team = NULL;
    (void)state;
    assert_error(DJ_E_INVALID, team_make(0, &team));
    assert_error(DJ_E_INVALID, team_make(UINT32_MAX, &team));
    assert_null(team);
    team_free(NULL);
}

CASES(every_part_runs_exactly_once, without_a_team_parts_run_in_order, a_run_sees_all_that_the_run_before_wrote,
      an_idle_team_sleeps, a_team_of_no_threads_is_refused)
