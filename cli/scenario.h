// Scenario: a file (YAML) that says what to start, what to break when, and what must hold. docs/chaos.md has the format.

#ifndef CLI_SCENARIO_H
#define CLI_SCENARIO_H

#include "cli/chaos_order.h"

enum { SCENARIO_EVENTS_MAX = 64, SCENARIO_WORDS_MAX = 24, SCENARIO_WORD_BYTES = 128, SCENARIO_WORKERS_MAX = 8 };

struct scenario_event {
    struct chaos_order order;
    uint64_t after;                     // the program's progress; 0: at order.at_s seconds from its beginning
    uint32_t line;
};

struct scenario_words { char word[SCENARIO_WORDS_MAX][SCENARIO_WORD_BYTES]; uint32_t count; };

struct scenario {
    char path[CLI_PATH_MAX], name[CHAOS_NAME_MAX], text[512];
    struct scenario_words program;      // a Python file beside the scenario's, and its arguments
    struct scenario_words head, worker; // further options of `djinn start`
    uint64_t workers, limit_s;          // defaults 2 and 120
    char expects[CHAOS_NAME_MAX];       // "same" (default): the undisturbed run's result; else the error's code
    struct scenario_event event[SCENARIO_EVENTS_MAX];
    uint32_t events;
};

// DJ_E_CONFIG with the file's name and line.
DJ_MUST_USE enum dj_error scenario_load(const char *path, struct scenario *ret, struct fault *fault);

struct scenario_verdict {
    bool is_ok;
    char why[1024];                     // what did not hold
    char result[128], wanted[128];
    double seconds;
    uint32_t broken;                    // events carried out
};

// Runs it on real processes: the undisturbed run once a program, then the one with the events. `program` is this binary.
void scenario_run(const struct scenario *scenario, const char *program, bool is_loud, struct scenario_verdict *ret);

#endif
