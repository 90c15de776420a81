// Embedded: a head and a worker as one child of this process, for programs that name no head.
//
// The child ends when its liveness pipe closes, that is with this process, however that ends. Its state is a temporary folder, its stderr a
// log in it that error messages name; both go with a clean stop.

#ifndef FRONTEND_CLIENT_LOOP_EMBEDDED_H
#define FRONTEND_CLIENT_LOOP_EMBEDDED_H

#include <stdint.h>
#include <sys/types.h>

#include "core/base/error.h"
#include "core/base/hash.h"

struct embedded {
    pid_t pid;    // 0: none
    int liveness_fd, out_fd;
    char folder[64], log[80];
    char address[128];    // "host:port"
};

// Starts the child and waits for its address, at most until deadline_ns (CLOCK_MONOTONIC). program NULL: $DJINN_PROGRAM, then beside this
// library, then $PATH. DJ_E_NOT_FOUND, DJ_E_SYSTEM, DJ_E_TIMEOUT, DJ_E_CLOSED (it died; the fault has the end of its log).
DJ_MUST_USE enum dj_error embedded_start(const char *program, struct hash128 token, uint32_t threads, uint64_t deadline_ns,
                                         struct embedded *ret, struct fault *fault);
// A worker alone that joins the head at `head` (host:port) by itself; does not wait for it. It ends with this process too.
DJ_MUST_USE enum dj_error embedded_start_worker(const char *program, const char *head, struct hash128 token, uint32_t threads,
                                                struct embedded *ret, struct fault *fault);
void embedded_stop(struct embedded *embedded);      // waits at most 2 s, then kills. Nothing when pid is 0
void embedded_forget(struct embedded *embedded);    // in a forked child: it is the parent's

#endif
