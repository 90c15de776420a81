// Program: what a simulated client computes: a seeded random program over small tensors, as models do it: weights used again and again, caches
// that grow by `cat`, views, writes through views, results kept and dropped, reads here and there. Every value read is compared with the oracle's.

#ifndef CHAOS_SIM_PROGRAM_H
#define CHAOS_SIM_PROGRAM_H

#include <stdint.h>

#include "chaos/sim/client.h"

struct program *program_make(struct client *client, uint64_t seed, uint32_t steps, uint32_t pool_devices);
void program_free(struct program *program);    // drops every tensor

// Does the next step, which may begin a read or a flush. Returns how long the program then thinks; UINT64_MAX: it is over and holds nothing any more.
uint64_t program_step(struct program *program);
size_t program_read_bytes(const struct program *program);    // of the value being read
void program_read(struct program *program, const void *bytes, size_t count);
void program_flushed(struct program *program);
void program_failed(struct program *program, enum dj_error error, const char *text);
uint32_t program_steps_left(const struct program *program);

#endif
