// Scenario crew: the real processes of one run: a folder of their own, a head, workers, the program. All of them end with this process.

#ifndef CLI_SCENARIO_CREW_H
#define CLI_SCENARIO_CREW_H

#include <sys/types.h>

#include "cli/scenario.h"

enum { CREW_PROCESSES_MAX = 64 };

struct crew_process { char name[CHAOS_NAME_MAX]; pid_t pid; int out_fd; bool has_ended; int status; };

struct crew {
    const struct scenario *scenario;
    const char *djinn;                  // this binary
    char folder[64], state[80];         // short: sockets lie in it
    char address[CLI_ADDRESS_MAX];      // the head's, also of the next one
    struct client_options client;
    struct crew_process process[CREW_PROCESSES_MAX];
    uint32_t processes;
    char why[512];                      // what went wrong
};

bool crew_make(struct crew *crew, const struct scenario *scenario, const char *djinn);
// Each starts one more process and waits until it is ready. False: `why` says why not.
bool crew_head(struct crew *crew);
bool crew_worker(struct crew *crew, const char *name);
struct crew_process *crew_program(struct crew *crew);       // NULL: it could not be started; does not wait
struct crew_process *crew_find(struct crew *crew, const char *name);        // the living one of that name; NULL
bool crew_reap(struct crew *crew);                          // notes who has ended; true when somebody has since the last call
// Reads one line of a process's output; at most wait_ms. False: none came, or it has ended.
bool crew_line(struct crew_process *process, int wait_ms, char *line, size_t bytes);
// Stops what still runs, the clean way, and says whether all of it ended (else `why` names who did not). keep, or not: the folder stays for people.
bool crew_stop(struct crew *crew, bool keep);
struct cJSON *crew_status(struct crew *crew);               // NULL: no answer; the caller deletes it

#endif
