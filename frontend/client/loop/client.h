// Client: the one session of this process: recorder, protocol, loop, one lock around them, and how callers wait.
//
// Waiting: the caller that waits drives the links itself (it leads), so that an answer needs no switch of threads; other waiters follow on a
// condition. The background thread drives them only when nobody has waited for QUIET_NS, so that it does not wake up for answers that a caller
// is about to take. Everything here is called with the lock held unless it says otherwise.

#ifndef FRONTEND_CLIENT_LOOP_CLIENT_H
#define FRONTEND_CLIENT_LOOP_CLIENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "frontend/client/loop/embedded.h"
#include "frontend/client/loop/loop.h"
#include "frontend/client/protocol/protocol.h"
#include "frontend/client/recorder/recorder.h"
#include "frontend/include/djinn/djinn.h"

enum client_state { CLIENT_OFF, CLIENT_CONNECTING, CLIENT_ON, CLIENT_FORKED };

struct client {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum client_state state;
    struct recorder *recorder;    // made once, lives on through sessions
    struct protocol *protocol;    // while ON or CONNECTING
    struct loop *loop;
    struct embedded embedded;
    struct local {    // a worker of this process's own, where the pool has none and that is allowed
        struct embedded child;
        char program[1024];
        struct hash128 token;
        uint32_t threads;
        bool is_allowed, has_failed;
        uint64_t missing_ns;    // since when there is no worker; 0: there is one
    } local;
    char address[IO_ADDRESS_MAX];
    bool is_embedded;
    uint64_t sessions, init_ns, deadline_ns, recovery_timeout_ns;

    uint32_t waiters;
    bool has_leader, is_closing;    // closing: nobody may lead any more
    uint64_t waited_ns;             // when somebody last stopped waiting
    pthread_t thread;
    bool has_thread, must_stop, is_polling;    // the background thread; polling: it waits on links

    int (*check)(void *context);
    void *check_context;

    // Statistics of sessions that are over, and of this side.
    struct protocol_stats closed;
    struct loop_stats closed_bytes;
    uint64_t reads, flush_ns, wait_ns, record_ns, records, leaf_bytes_in_reads;
};

struct client *client_enter(void);           // locks; makes the recorder on first use. NULL: out of memory
void client_leave(struct client *client);    // wakes the background thread if it must know, and unlocks

// Connects if need be. config NULL: as dj_init(NULL). DJ_E_FORKED unless `config_is_explicit`.
DJ_MUST_USE enum dj_error client_connect(struct client *client, const struct dj_config *config, bool is_explicit,
                                         struct fault *fault);
// keep: what is needed to resume the session by its name stays with the head.
void client_disconnect(struct client *client, enum dj_error error, const char *text, uint64_t linger_ns, bool keep);

// Waits until is_done(context) or the deadline (DJ_E_TIMEOUT), or the program's check says stop (DJ_E_INTERRUPTED). The lock is let go meanwhile.
DJ_MUST_USE enum dj_error client_wait(struct client *client, bool (*is_done)(struct client *client, void *context), void *context,
                                      uint64_t deadline_ns);
// Returns when nobody waits on the links any more, and nobody will until is_closing is taken back.
void client_quiesce(struct client *client);
// Flushes, connecting and waiting for room first.
DJ_MUST_USE enum dj_error client_flush(struct client *client, struct fault *fault);

// A read in course: the tag of a fetch, shared by reader and fetch.
struct reading {
    struct client *client;
    struct value *value;
    uint32_t holders;
    bool is_done;
    enum dj_error error;
    char text[FAULT_TEXT_MAX];
};
// An answer to dj_ask, likewise.
struct asking {
    uint32_t holders;
    bool is_done;
    enum dj_error error;
    char text[FAULT_TEXT_MAX];
    char *json;    // or a record; NUL-terminated either way
    size_t bytes;
};
void reading_drop(struct reading *reading);
void asking_drop(struct asking *asking);

#endif
