// Live: how `djinn chaos` reaches into a running process. A process that was started for it (djinn start --chaos, DJINN_CHAOS=1 for clients) listens
// on a unix socket, <state>/chaos/<name>.sock (0600 in a folder of 0700), for one line of JSON a connection, does what it says for a bounded time,
// and answers with one line. In every other process this folder's code never runs, and the knobs it would turn (core/base/knobs.h) stay 0.
//
// One thread serves the socket, ends what is over, and while frames are held back wakes the loops every millisecond. Any thread may call these.

#ifndef CHAOS_LIVE_LIVE_H
#define CHAOS_LIVE_LIVE_H

#include <stdbool.h>

#include "core/base/error.h"

enum live_role { LIVE_HEAD = 1, LIVE_WORKER = 2, LIVE_CLIENT = 4 };         // bits: what a process can be told depends on it

enum { LIVE_LINE_MAX = 1024, LIVE_PATH_MAX = 108, LIVE_SECONDS_MAX = 3600 };

// Starts to listen. DJ_E_ADDRESS when the path is too long or taken, DJ_E_SYSTEM; the fault says what to do. Once a process.
DJ_MUST_USE enum dj_error live_listen(const char *folder, const char *name, enum live_role role, struct fault *fault);
void live_end(void);        // also what was never begun

// The path of a process's socket. False when it is too long for one.
bool live_path(const char *folder, const char *name, char path[LIVE_PATH_MAX]);

// Sends one line and waits for the answer, at most some seconds. DJ_E_NOT_FOUND: nobody listens there; DJ_E_CLOSED, DJ_E_TIMEOUT.
DJ_MUST_USE enum dj_error live_ask(const char *path, const char *line, char answer[LIVE_LINE_MAX]);

#endif
