// Thread: what the ABI's source files share: the recording thread's place in the program, and faults on their way out.

#ifndef FRONTEND_CLIENT_LOOP_THREAD_H
#define FRONTEND_CLIENT_LOOP_THREAD_H

#include "core/base/error.h"
#include "frontend/include/djinn/djinn.h"

extern _Thread_local uint32_t thread_module, thread_site;
// Fills *to (NULL is allowed) unless error is DJ_OK, and returns the number.
int fault_out(struct dj_fault *to, enum dj_error error, const struct fault *from);

#endif
