// Log: formats a line and hands it to the installed sink. Control characters become spaces, so that a text from outside cannot forge a line.

#include "core/base/log.h"

#include <stdarg.h>
#include <stdio.h>

enum { LOG_LINE_MAX = 1024 };

static struct {
    log_sink sink;
    void *context;
    enum log_level least;
} installed;

void log_install(log_sink sink, void *context, enum log_level least)
{
    installed.sink = sink;
    installed.context = context;
    installed.least = least;
}

void log_write(enum log_level level, const char *component, const char *format, ...)
{
    if (installed.sink == NULL || level < installed.least)
        return;

    char line[LOG_LINE_MAX];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    for (char *c = line; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7F)
            *c = ' ';
    }
    installed.sink(installed.context, level, component, line);
}
