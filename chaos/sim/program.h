// Program: what a simulated client computes: a seeded random program over small tensors, as models do it: weights used again and again, caches
// that grow by `cat`, state that every step replaces, views, writes through views, results kept and dropped, reads here and there. Every value
// read is compared with the oracle's.

#ifndef CHAOS_SIM_PROGRAM_H
#define CHAOS_SIM_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct client;
struct program;

// What it mostly does: a column of weights in program.c.
enum workload { WORKLOAD_MIXED, WORKLOAD_DECODE, WORKLOAD_TRAIN, WORKLOAD_CALLS, WORKLOAD_DEVICES, WORKLOAD_BIG, WORKLOADS };
const char *program_workload_name(enum workload workload);

struct program_options {
    uint64_t seed;
    uint32_t steps;
    uint64_t think_ns;
    enum workload workload;
    uint32_t pool_devices;      // it may name devices below this; 0: it never names one
    uint32_t deviates_after;    // after so many steps its choices are others; UINT32_MAX: never
    uint64_t deviant_seed;
};

struct program *program_make(struct client *client, const struct program_options *options);
void program_free(struct program *program);    // drops every tensor

// Does the next step, which may begin a read or a flush. Returns how long the program then thinks; UINT64_MAX: it is over and holds nothing any more.
uint64_t program_step(struct program *program);
size_t program_read_bytes(const struct program *program);    // of the value being read
void program_read(struct program *program, const void *bytes, size_t count);
void program_failed(struct program *program, enum dj_error error, const char *text);
uint32_t program_steps_left(const struct program *program);

#endif
