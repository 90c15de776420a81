// Cases: each test runs through one trampoline, so that the teardown knows whether it came to its end and can print its seed.

#include "tests/lib/case.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CASES_MAX = 512, NAMES_MAX = 64 * 1024, LATER_MAX = 4096 };

struct later {
    void (*release)(void *object);
    void *object;
};

struct test_case {
    CMUnitTestFunction function;
    const char *name;
    uint64_t seed;
    bool has_seed, has_ended;
    size_t later_count;
    struct later later[LATER_MAX];
};

// One test runs at a time, so one is enough.
static struct test_case running;
static struct CMUnitTest tests[CASES_MAX];
static struct {
    CMUnitTestFunction function;
    const char *name;
} plans[CASES_MAX];

static int set_up(void **state)
{
    size_t index = (size_t)(uintptr_t)*state;
    running.function = plans[index].function;
    running.name = plans[index].name;
    running.has_seed = running.has_ended = false;
    running.later_count = 0;
    *state = &running;
    return 0;
}

static void trampoline(void **state)
{
    running.function(state);
    running.has_ended = true;
}

static int tear_down(void **state)
{
    (void)state;
    alloc_fail_stop();
    if (running.has_seed && !running.has_ended)
        fprintf(stderr, "%s: seed %" PRIu64 "\n", running.name, running.seed);
    while (running.later_count > 0) {
        struct later *later = &running.later[--running.later_count];
        later->release(later->object);
    }
    return 0;
}

// Cuts "a, b,c" into names in place; returns how many.
static size_t split_names(char *names, const char **ret, size_t max)
{
    size_t count = 0;
    for (char *name = strtok(names, ", \n\t"); name != NULL && count < max; name = strtok(NULL, ", \n\t"))
        ret[count++] = name;
    return count;
}

int case_run(const char *file, const CMUnitTestFunction *cases, size_t count, const char *names, int argc, char **argv)
{
    static char text[NAMES_MAX];
    static const char *name[CASES_MAX];
    if (count > CASES_MAX || strlen(names) >= sizeof text) {
        fprintf(stderr, "%s: too many cases for one file\n", file);
        return 1;
    }
    strcpy(text, names);
    if (split_names(text, name, CASES_MAX) != count) {
        fprintf(stderr, "%s: CASES() takes names of functions, separated by commas\n", file);
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        plans[i].function = cases[i];
        plans[i].name = name[i];
        tests[i] = (struct CMUnitTest){
            .name = name[i],
            .test_func = trampoline,
            .setup_func = set_up,
            .teardown_func = tear_down,
            .initial_state = (void *)(uintptr_t)i,
        };
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests(file, tests, count, NULL, NULL);
}

void case_later(void **state, void (*release)(void *object), void *object)
{
    struct test_case *test = *state;
    assert(test->later_count < LATER_MAX);
    test->later[test->later_count++] = (struct later){.release = release, .object = object};
}

static void release_arena(void *arena)
{
    arena_free(arena);
}

struct arena *case_arena(void **state)
{
    struct arena *arena = NULL;
    assert_ok(arena_make(64 * 1024, 0, &arena));
    case_later(state, release_arena, arena);
    return arena;
}

struct prng case_prng(void **state, uint64_t seed)
{
    struct test_case *test = *state;
    test->seed = seed;
    test->has_seed = true;
    return prng_make(seed);
}

void case_error_is(enum dj_error expected, enum dj_error actual, const char *text, const char *file, int line)
{
    if (expected == actual)
        return;
    print_error("%s gave %s (%d: %s), expected %s (%d)\n", text, dj_error_name(actual), (int)actual, dj_error_text(actual),
                dj_error_name(expected), (int)expected);
    _fail(file, line);
}

static _Noreturn void run_quietly(void (*run)(void *context), void *context)
{
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGABRT, SIG_DFL);    // cmocka's handler would jump back into the parent's stack
    int nowhere = open("/dev/null", O_WRONLY);
    if (nowhere >= 0)
        dup2(nowhere, STDERR_FILENO);
    run(context);
    _exit(0);
}

void case_aborts(void (*run)(void *context), void *context, const char *text, const char *file, int line)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        run_quietly(run, context);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        print_error("%s could not be run in a child process\n", text);
        _fail(file, line);
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
        return;
    print_error("%s did not abort\n", text);
    _fail(file, line);
}
