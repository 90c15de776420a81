// Pulse: heartbeats while the loop is busy.
//
// The core says that it lives by HEARTBEAT, on a timer of its own, and a loop that is held up (a value of gigabytes to hash or to free, a machine that
// swaps) cannot. So a thread repeats the last HEARTBEAT when the core is late, for as long as the core's last turn is not too long ago: a worker that
// has hung stops being heard of. A repetition is an old message: it carries the time at which its core sent it, so it keeps the head from believing the
// worker dead, and cannot lengthen the worker's own lease. A stopped process and a broken network stop it too.
//
// The thread exists once a process has sent a HEARTBEAT, which only workers do.

#include "core/driver/loop.h"

#include "core/io/blob.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#define PULSE_TICK_NS ((uint64_t)250000000)
#define PULSE_LATE_NS ((uint64_t)1000000000)        // two heartbeats are missing
#define PULSE_PATIENCE_NS ((uint64_t)4000000000)    // since the core's last turn: as long as a lease

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *watch(void *argument)
{
    struct driver *driver = argument;
    struct pulse *pulse = &driver->pulse;
    uint64_t turns = 0, moved_ns = monotonic_ns();

    pthread_mutex_lock(&driver->write_lock);
    while (!pulse->is_stopping) {
        uint64_t until_ns = monotonic_ns() + PULSE_TICK_NS;
        struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
        while (!pulse->is_stopping && pthread_cond_timedwait(&pulse->changed, &driver->write_lock, &until) != ETIMEDOUT)
            ;
        uint64_t now_ns = monotonic_ns(), seen = __atomic_load_n(&driver->turns, __ATOMIC_RELAXED);
        if (seen != turns)
            moved_ns = now_ns;
        turns = seen;
        bool is_late = now_ns - pulse->sent_ns > PULSE_LATE_NS, is_alive = now_ns - moved_ns < PULSE_PATIENCE_NS;
        if (pulse->conn != NULL && is_late && is_alive && !pulse->is_stopping) {
            stream_pulse(pulse->conn, pulse->body);
            pulse->sent_ns = now_ns;
        }
    }
    pthread_mutex_unlock(&driver->write_lock);
    return NULL;
}

// Signals are for the loop.
static bool start(struct driver *driver)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool is_running = pthread_create(&driver->pulse.thread, NULL, watch, driver) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_running;
}

void pulse_init(struct driver *driver)
{
    pthread_condattr_t attributes;
    pthread_mutex_init(&driver->write_lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&driver->pulse.changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

void pulse_follow(struct driver *driver, struct conn *conn, struct blob *body)
{
    struct pulse *pulse = &driver->pulse;
    pthread_mutex_lock(&driver->write_lock);
    blob_drop(pulse->body);
    pulse->conn = conn;
    pulse->body = blob_hold(body);
    pulse->sent_ns = monotonic_ns();
    if (!pulse->is_running)
        pulse->is_running = start(driver);    // without it, the core's own heartbeats are all there is
    pthread_mutex_unlock(&driver->write_lock);
}

void pulse_forget(struct driver *driver, const struct conn *conn)
{
    pthread_mutex_lock(&driver->write_lock);
    if (driver->pulse.conn == conn)
        driver->pulse.conn = NULL;
    pthread_mutex_unlock(&driver->write_lock);
}

void pulse_end(struct driver *driver)
{
    struct pulse *pulse = &driver->pulse;
    pthread_mutex_lock(&driver->write_lock);
    pulse->is_stopping = true;
    pulse->conn = NULL;
    pthread_cond_signal(&pulse->changed);
    bool is_running = pulse->is_running;
    pthread_mutex_unlock(&driver->write_lock);
    if (is_running)
        pthread_join(pulse->thread, NULL);
    pulse->is_running = false;
    blob_drop(pulse->body);
    pulse->body = NULL;
}
