// Log: nothing without a sink, levels, and lines that a text from outside cannot forge.

#include "core/base/log.h"
#include "tests/lib/case.h"

#include <stdio.h>
#include <string.h>

struct heard {
    int lines;
    enum log_level level;
    char component[32], line[2048];
};

static void hear(void *context, enum log_level level, const char *component, const char *line)
{
    struct heard *heard = context;
    heard->lines++;
    heard->level = level;
    snprintf(heard->component, sizeof heard->component, "%s", component);
    snprintf(heard->line, sizeof heard->line, "%s", line);
}

static void without_a_sink_nothing_happens(void **state)
{
    (void)state;
    log_install(NULL, NULL, LOG_DEBUG);
    log_write(LOG_ERROR, "base", "nobody hears %d", 1);
}

static void a_line_below_the_level_is_not_heard(void **state)
{
    (void)state;
    struct heard heard = {0};
    log_install(hear, &heard, LOG_WARN);
    log_write(LOG_INFO, "base", "quiet");
    assert_int_equal(heard.lines, 0);
    log_write(LOG_WARN, "base", "worker=%d lost", 3);
    log_install(NULL, NULL, LOG_DEBUG);
    assert_int_equal(heard.lines, 1);
    assert_int_equal(heard.level, LOG_WARN);
    assert_string_equal(heard.component, "base");
    assert_string_equal(heard.line, "worker=3 lost");
}

static void a_line_stays_one_line_and_bounded(void **state)
{
    (void)state;
    struct heard heard = {0};
    char text[4096];
    log_install(hear, &heard, LOG_DEBUG);
    log_write(LOG_INFO, "base", "name=%s", "a\nERROR forged\x1b[0m");
    assert_string_equal(heard.line, "name=a ERROR forged [0m");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_write(LOG_INFO, "base", "%s", text);
    log_install(NULL, NULL, LOG_DEBUG);
    assert_in_range(strlen(heard.line), 500, 1500);
}

CASES(without_a_sink_nothing_happens, a_line_below_the_level_is_not_heard, a_line_stays_one_line_and_bounded)
