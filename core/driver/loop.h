// What the files of this folder share: the driver, and a connection as it sees it, whatever carries the bytes. Nobody else includes it.
//
// driver.c runs the core; effects.c carries out what it wants; conn.c is the life of a connection; socket.c (a link under uv_poll) and stream.c (an nng
// byte stream) carry the bytes. All of it runs on the loop thread; nng's callbacks only push onto the inbox.

#ifndef CORE_DRIVER_LOOP_H
#define CORE_DRIVER_LOOP_H

#include <pthread.h>
#include <uv.h>

#include "core/base/list.h"
#include "core/base/map.h"
#include "core/driver/driver.h"
#include "core/driver/inbox.h"
#include "core/link/faults.h"
#include "core/link/link.h"
#include "core/wire/wire.h"

enum {
    DRIVER_CONNS_MAX = 1 << 16,
    DRIVER_LISTENERS_MAX = 16,
    DRIVER_PIPES_MAX = 8,
    DRIVER_ROUNDS_MAX = 16,             // of reading and thinking before the loop looks at everything else again
    CONN_BURST_MESSAGES = 64,           // from one connection in one round
    CONN_LINGER_MS = 1000,              // for last words to leave, and for the peer to read them
    CONN_OPEN_MS = 5000,                // for a connection to come up
    DRIVER_FLUSH_MS = 1000,             // for what is queued when the process stops
    SWEEP_MS = 100,
};
#define CONN_BULK_BUDGET_BYTES WIRE_BULK_MAX

struct conn;

struct conn_ops {
    enum dj_error (*receive)(struct conn *conn, struct link_message *ret);     // as link_receive
    // Takes both holds. As link_send.
    enum dj_error (*send)(struct conn *conn, const struct io_effect *effect);
    uint64_t (*queued_bytes)(const struct conn *conn);
    void (*update)(struct conn *conn);          // look again at what to wait for: is_reading, queue
    void (*refresh)(struct conn *conn);         // faults of frames are on, or were a moment ago: what is due leaves
    void (*finish)(struct conn *conn);          // nothing more will be written
    void (*close)(struct conn *conn);           // ends it; frees it, now or later
};

enum conn_state { CONN_OPENING, CONN_UP, CONN_LINGERING, CONN_CLOSED };

struct conn {
    struct driver *driver;
    const struct conn_ops *ops;
    uint64_t id, request;
    enum conn_state state;
    bool is_local, is_congested, is_finished;
    uint32_t listener;
    uint64_t deadline_ms;               // of OPENING and LINGERING, in loop time
    struct list all;
    struct list hungry;                 // in driver->hungry while complete messages may wait in it
};

struct listener {
    struct driver *driver;
    uint32_t index;
    uv_poll_t poll;                     // a socket's
    int fd;
    bool is_unix, is_resting;           // resting: accepting failed; tried again with the next sweep
    char path[IO_ADDRESS_MAX];
    struct stream_listener *stream;     // nng's
    struct list closing;                // in driver->closing until nng has let go of it
};

// The heartbeat's own thread (pulse.c). Under driver->write_lock.
struct pulse {
    struct conn *conn;                  // whose heartbeats are followed; NULL: nobody's
    struct blob *body;                  // of the last one
    uint64_t sent_ns;
    pthread_cond_t changed;
    pthread_t thread;
    bool is_running, is_stopping;
};

struct pipe_watch { struct driver *driver; uv_poll_t poll; uint32_t verb; };

struct driver {
    struct process *process;
    uv_loop_t loop;
    uv_async_t wake;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_idle_t busy;                     // active while there is more to do at once
    uv_timer_t deadline, sweep;
    uint64_t deadline_ns;               // what the timer is set to
    uv_signal_t sigterm, sigint;
    uint32_t signal_verb;
    bool is_due, is_sweeping, is_stopping, is_flushing, had_faults;
    int exit_code;
    uint64_t flush_until_ms;

    struct inbox inbox;
    struct inbox_node *held, **held_end;        // events that the core could not take yet
    struct io_sink sink;
    struct io_effects effects;

    struct device_port *device[DRIVER_DEVICES_MAX];
    struct store_port *store;

    struct map *conns;                  // id -> conn
    struct list all, hungry, closing;
    uint64_t conn_next;
    struct listener *listener[DRIVER_LISTENERS_MAX];
    uint32_t listeners;
    struct pipe_watch pipe[DRIVER_PIPES_MAX];
    uint32_t pipes;
    uint32_t computing;                 // functions that run on libuv's threads
    struct driver_stats stats;

    pthread_mutex_t write_lock;         // of what streams write, and of the pulse
    struct pulse pulse;
    uint64_t turns;                     // how often the core was run. Written by the loop, read by the pulse thread: relaxed, it is only counted
};

// driver.c
void driver_post(struct driver *driver, const struct io_event *event);      // loop thread; keeps it when the core cannot take it yet
bool driver_is_stalled(const struct driver *driver);                        // such events wait: read nothing more
void driver_push(struct driver *driver, struct inbox_node *node);           // any thread
void driver_sweep_soon(struct driver *driver);                              // a connection has a deadline

// effects.c
void driver_carry_out(struct driver *driver, struct io_effect *effect);     // takes its holds

// conn.c
// Registers a connection. request 0: accepted. DJ_E_LIMIT when there are too many.
enum dj_error conn_init(struct driver *driver, struct conn *conn, const struct conn_ops *ops, uint64_t request);
struct conn *conn_find(struct driver *driver, uint64_t id);
void conn_is_up(struct conn *conn);
void conn_is_down(struct conn *conn, enum dj_error error);  // tells the core, and closes
void conn_is_readable(struct conn *conn);                   // gives the core what has arrived, a burst at a time
void conn_was_flushed(struct conn *conn);                   // some of the queue was written
void conn_send(struct conn *conn, const struct io_effect *effect);
void conns_refresh(struct driver *driver);                  // for faults: every connection looks at what it may read and write now
void conn_close(struct conn *conn);                         // by the core: last words are still written
void conn_forget(struct conn *conn);                        // unregisters; the last thing before its memory goes
void conn_open_failed(struct driver *driver, uint64_t request, enum dj_error error);
bool conn_sweep(struct driver *driver, uint64_t now_ms);    // ends what has taken too long; true while something is watched

// socket.c
enum dj_error socket_listen(struct driver *driver, struct listener *listener, const char *address, char *bound, struct fault *fault);
void socket_listener_resume(struct listener *listener);
void socket_listener_close(struct listener *listener);
void socket_open(struct driver *driver, uint64_t request, const char *address);

// stream.c
enum dj_error stream_listen(struct driver *driver, struct listener *listener, const char *address, char *bound, struct fault *fault);
void stream_listener_close(struct listener *listener);
void stream_open(struct driver *driver, uint64_t request, const char *address);
void stream_pulse(struct conn *conn, struct blob *body);    // under write_lock, any thread: sends it as a HEARTBEAT if nothing is being written

// pulse.c
void pulse_init(struct driver *driver);
void pulse_follow(struct driver *driver, struct conn *conn, struct blob *body);     // a heartbeat is about to leave there
void pulse_forget(struct driver *driver, const struct conn *conn);
void pulse_end(struct driver *driver);

#endif
