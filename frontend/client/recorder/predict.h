// Prediction: which outputs of a plan a program read after it last time. They are asked for with the execution, so that the read finds
// its bytes here. A guess that was not read MISSES_MAX times in a row is given up.

#ifndef FRONTEND_CLIENT_RECORDER_PREDICT_H
#define FRONTEND_CLIENT_RECORDER_PREDICT_H

#include "frontend/client/recorder/graph.h"

enum { PREDICT_MISSES_MAX = 4 };

void predict_begin(struct plan_entry *entry);    // once per submission, before predict_wants
bool predict_wants(const struct plan_entry *entry, uint32_t flat, const struct value *value);
void predict_learn(struct recorder *recorder, const struct value *value);    // the program read this value

// recorder.c: executions that are out.
bool execs_add(struct recorder *recorder, struct exec *exec);    // false: out of memory

#endif
