// Doctor: what the files of `djinn doctor` share: findings, printed as lines, or kept for --json.

#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include <cjson/cJSON.h>

#include "core/base/error.h"

// A finding: a line "name  text", or the member `name` of the answer.
void doctor_line(const char *name, const char *format, ...) DJ_PRINTF(2, 3);
// The answer, for what is worth more than its line; never NULL.
cJSON *doctor_answer(void);

// What there is of CUDA: parts, module, GPUs.
void doctor_cuda(void);

#endif
