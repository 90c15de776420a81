// Log: structured lines through one sink that the composition root installs. Without a sink nothing is written, so that the core
// stays pure and the simulator quiet. A line is `level component message`, key=value pairs at the end of the message.

#ifndef CORE_BASE_LOG_H
#define CORE_BASE_LOG_H

#include "core/base/error.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

typedef void (*log_sink)(void *context, enum log_level level, const char *component, const char *line);

void log_install(log_sink sink, void *context, enum log_level least);        // sink NULL: none. Set once, before threads start
void log_write(enum log_level level, const char *component, const char *format, ...) DJ_PRINTF(3, 4);

#endif
