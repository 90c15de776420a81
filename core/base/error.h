// Errors: one enum for the whole system (errors.def) and `struct fault`, an error with the words that a person needs.
//
// Functions that can fail return enum dj_error and leave their outputs untouched on failure. A function whose failure reaches
// a person takes a `struct fault *` last and fills it with fault_set(): what was tried, on what, why it failed, what to do.

#ifndef CORE_BASE_ERROR_H
#define CORE_BASE_ERROR_H

#define DJ_MUST_USE __attribute__((warn_unused_result))
#define DJ_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))

enum dj_error {
    DJ_OK = 0,
#define ERROR(number, name, retry, text) DJ_E_##name = number,
#include "core/base/errors.def"
#undef ERROR
};

enum error_retry { ERROR_RETRY_no, ERROR_RETRY_later, ERROR_RETRY_elsewhere };

// The name ("HANDLE_LOST", "OK") and the sentence of `error`; "UNKNOWN" and a sentence saying so for a number not in the list.
const char *dj_error_name(enum dj_error error);
const char *dj_error_text(enum dj_error error);
enum error_retry dj_error_retry(enum dj_error error);

enum { FAULT_TEXT_MAX = 512 };

struct fault {
    enum dj_error code;
    char text[FAULT_TEXT_MAX];      // NUL-terminated UTF-8; empty means dj_error_text(code) says it all
};

// Fills *fault (NULL is allowed) with `code` and the formatted text, truncated to fit, and returns `code`, so that a function
// can end with `return fault_set(fault, DJ_E_SHAPE, ...)`.
enum dj_error fault_set(struct fault *fault, enum dj_error code, const char *format, ...) DJ_PRINTF(3, 4);

// Puts words in front of what the fault already says ("loading plan 3f…: <cause>"); the code stays and is returned. Here `fault`
// must not be NULL.
enum dj_error fault_wrap(struct fault *fault, const char *format, ...) DJ_PRINTF(2, 3);

#endif
