// Chaos order: one thing that `djinn chaos` breaks in a running pool, from the command line or from a scenario's file, and the doing of it.
//
// Killing and pausing are signals to a process that the head's status names, or that has a socket for chaos. Everything else is said to the process
// itself through that socket (chaos/live), which it has only when it was started with --chaos (a client: with DJINN_CHAOS=1).

#ifndef CLI_CHAOS_ORDER_H
#define CLI_CHAOS_ORDER_H

#include "cli/options.h"

enum { CHAOS_NAME_MAX = 64 };

struct chaos_order {
    char verb[32];
    char name[CHAOS_NAME_MAX], peer[CHAOS_NAME_MAX];    // "head", a worker's name, "client-PID"; peer: partition only
    uint64_t answer, ms, jitter_ms, count, rarity, seed;    // 0: not given
    double at_s;                                        // wait so long first
    uint64_t for_s;                                     // how long it lasts; 0: 10 s
    bool is_random;
};

// Carries it out and says what was done, on standard output unless it is quiet. An exit code; what failed was said.
int chaos_do(const struct chaos_order *order, const struct client_options *client, bool is_quiet);
bool chaos_verb_is_known(const char *verb);
void chaos_verbs_print(char *text, size_t bytes);      // for messages: "kill-worker, kill-head, ..."

int chaos_live(int argc, char **argv);                  // the commands: argv[0] is "djinn chaos", argv[1] the verb
int chaos_run(int argc, char **argv);                   // djinn chaos run: argv[0] is "djinn chaos run"

#endif
