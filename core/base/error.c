// Errors: the list of errors.def as functions, and the words of a fault. Texts are cut at a character, never inside one.

#include "core/base/error.h"

#include "core/base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *dj_error_name(enum dj_error error)
{
    switch (error) {
    case DJ_OK: return "OK";
#define ERROR(number, name, retry, text) \
    case DJ_E_##name: \
        return #name;
#include "core/base/errors.def"
#undef ERROR
    }
    return "UNKNOWN";
}

const char *dj_error_text(enum dj_error error)
{
    switch (error) {
    case DJ_OK: return "it worked";
#define ERROR(number, name, retry, text) \
    case DJ_E_##name: \
        return text;
#include "core/base/errors.def"
#undef ERROR
    }
    return "an error that this version does not know";
}

enum error_retry dj_error_retry(enum dj_error error)
{
    switch (error) {
    case DJ_OK: return ERROR_RETRY_no;
#define ERROR(number, name, retry, text) \
    case DJ_E_##name: \
        return ERROR_RETRY_##retry;
#include "core/base/errors.def"
#undef ERROR
    }
    return ERROR_RETRY_no;
}

// Takes away a UTF-8 character that truncation cut in two at the end of `text`.
static void trim_cut_character(char *text, size_t length)
{
    size_t back = 0;
    while (back < 3 && back < length && ((unsigned char)text[length - 1 - back] & 0xC0) == 0x80)
        back++;
    if (back == length)
        return;
    unsigned char lead = (unsigned char)text[length - 1 - back];
    size_t wanted = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (wanted > back)
        text[length - 1 - back] = '\0';
}

static void format_text(char text[FAULT_TEXT_MAX], const char *format, va_list arguments)
{
    int length = vsnprintf(text, FAULT_TEXT_MAX, format, arguments);
    if (length < 0)
        text[0] = '\0';
    else if (length >= FAULT_TEXT_MAX)
        trim_cut_character(text, FAULT_TEXT_MAX - 1);
}

enum dj_error fault_set(struct fault *fault, enum dj_error code, const char *format, ...)
{
    if (fault == NULL)
        return code;

    char text[FAULT_TEXT_MAX];    // the arguments may point into *fault
    va_list arguments;
    va_start(arguments, format);
    format_text(text, format, arguments);
    va_end(arguments);

    fault->code = code;
    memcpy(fault->text, text, sizeof text);
    return code;
}

enum dj_error fault_wrap(struct fault *fault, const char *format, ...)
{
    assert(fault != NULL);

    char text[FAULT_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    format_text(text, format, arguments);
    va_end(arguments);

    const char *cause = fault->text[0] != '\0' ? fault->text : dj_error_text(fault->code);
    size_t front = strlen(text);
    size_t back = strlen(cause);
    size_t room = sizeof text - 1 - front;
    size_t kept = back < room ? back : room;
    memcpy(text + front, cause, kept);
    text[front + kept] = '\0';
    if (kept < back)
        trim_cut_character(text, front + kept);
    memcpy(fault->text, text, sizeof text);
    return fault->code;
}
