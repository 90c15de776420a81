// What program.c and program_steps.c share. Nobody else includes it.

#ifndef CHAOS_SIM_PROGRAM_STATE_H
#define CHAOS_SIM_PROGRAM_STATE_H

#include "chaos/sim/client.h"
#include "chaos/sim/oracle.h"
#include "chaos/sim/program.h"
#include "core/base/prng.h"

enum { VARS_MAX = 20, ELEMENTS_MAX = 4096, CACHES = 3, WEIGHTS = 6, STATES = 3, WIDTH = 8 };

// One live tensor: a holder of its cell, and what it must show.
struct var {
    struct dj_tensor tensor;
    struct shadow *shadow;
};

struct program {
    struct client *client;
    struct program_options options;
    struct prng prng;
    uint32_t steps_done, vars;
    uint64_t salt;    // of what leaves hold
    struct var var[VARS_MAX];
    struct var cache[CACHES];      // grow by cat; shadow NULL: not begun
    struct var weight[WEIGHTS];    // held on to
    struct var state[STATES];      // replaced by every step of training, all at once
    struct var wanted;             // being read: a hold of its own
};

uint64_t program_below(struct program *program, uint64_t limit);
void program_drop(struct program *program, struct var *var);
void program_forget_all(struct program *program);

void step_leaf(struct program *program);
void step_weight(struct program *program);
void step_unary(struct program *program);
void step_binary(struct program *program);
void step_softmax(struct program *program);
void step_max(struct program *program);
void step_mm(struct program *program);
void step_cache(struct program *program);
void step_view(struct program *program);
void step_write(struct program *program);
void step_to_device(struct program *program);
void step_release(struct program *program);
void step_flush(struct program *program);
void step_read(struct program *program);
void step_train(struct program *program);
void step_big(struct program *program);

#endif
