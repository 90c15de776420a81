// Cases: cmocka with less ceremony.
//
// A test is `static void a_sentence(void **state)`; CASES(a_sentence, another) at the end of the file makes main(), which runs them as
// one group (or those whose names match its first argument, with * and ?). What a test makes through case_arena() or registers with
// case_later() is freed when it ends, passed or failed, last first. Not for threads: a test's own thread calls these.

#ifndef TESTS_LIB_CASE_H
#define TESTS_LIB_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/arena.h"
#include "core/base/assert.h"
#include "core/base/error.h"
#include "core/base/prng.h"
#include "tests/lib/alloc_fail.h"

// The names come as one string, in the order of the functions.
#define CASES(...)                                                                                           \
    int main(int argc, char **argv)                                                                          \
    {                                                                                                        \
        static const CMUnitTestFunction cases[] = {__VA_ARGS__};                                             \
        return case_run(__FILE__, cases, sizeof cases / sizeof cases[0], #__VA_ARGS__, argc, argv);          \
    }

int case_run(const char *file, const CMUnitTestFunction *cases, size_t count, const char *names, int argc, char **argv);

// An unbounded arena that dies with the test.
struct arena *case_arena(void **state);

// Calls release(object) when the test ends.
void case_later(void **state, void (*release)(void *object), void *object);

// A generator for a property test. If the test fails, the latest seed is printed with the failure.
struct prng case_prng(void **state, uint64_t seed);

// Like cmocka's, with the errors' names instead of numbers.
#define assert_ok(error) case_error_is(DJ_OK, (error), #error, __FILE__, __LINE__)
#define assert_error(expected, error) case_error_is((expected), (error), #error, __FILE__, __LINE__)
void case_error_is(enum dj_error expected, enum dj_error actual, const char *text, const char *file, int line);

// Fails unless run(context) dies on an assertion (SIGABRT). It runs in a child process, so nothing it does is seen here.
#define assert_aborts(run, context) case_aborts((run), (context), #run, __FILE__, __LINE__)
void case_aborts(void (*run)(void *context), void *context, const char *text, const char *file, int line);

#endif
