// Driver: runs one process (core/actors) on a libuv loop with real links, devices and store. Used by head, worker and the embedded process.
//
// One loop thread runs the core. Other threads (device, store writer, heartbeat) post events through `driver_sink`, an inbox with one
// wake-up. Addresses: "tcp://host:port" for executions and tensors (core/link), "unix:///path" likewise, and "head://host:port" for the control
// plane, carried by nng byte streams (the same frames). A listener of each kind may be added.

#ifndef CORE_DRIVER_DRIVER_H
#define CORE_DRIVER_DRIVER_H

#include <stdint.h>

#include "core/actors/actor.h"
#include "core/base/error.h"

struct driver;

enum { DRIVER_DEVICES_MAX = 64 };

DJ_MUST_USE enum dj_error driver_make(struct process *process, struct driver **ret);    // does not own the process
void driver_free(struct driver *driver);
struct io_sink *driver_sink(struct driver *driver);         // for devices and store, before they are made
void driver_set_device(struct driver *driver, uint32_t index, struct device_port *device);
void driver_set_store(struct driver *driver, struct store_port *store);
// Starts listening; `bound` (IO_ADDRESS_MAX) gets the address with the real port. DJ_E_ADDRESS with a fault that says what to do.
DJ_MUST_USE enum dj_error driver_listen(struct driver *driver, const char *address, char *bound, struct fault *fault);
// SIGTERM and SIGINT become IO_SUBMIT with this verb.
void driver_on_signals(struct driver *driver, uint32_t verb);
// A descriptor that becomes readable or closed (the embedded child's liveness pipe) becomes IO_SUBMIT with this verb.
void driver_on_close(struct driver *driver, int fd, uint32_t verb);
// Runs until the core's STOP effect; returns its exit code. Flushes what is queued for at most one second before it returns.
int driver_run(struct driver *driver);

uint64_t driver_now_ns(void);       // CLOCK_BOOTTIME: counts suspension

struct driver_stats { uint64_t wakeups, events, effects, bytes_in, bytes_out; };
struct driver_stats driver_stats(const struct driver *driver);

#endif
