// Command: what the files of this folder share: the table of commands, exit codes, options, and talking to a head.

#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/hash.h"

// Exit codes, documented in docs/cli.md.
enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,        // it was tried and failed; the message says why
    EXIT_USAGE = 2,         // the command line or the configuration is not valid
    EXIT_UNREACHABLE = 3,   // no head answers at the address
    EXIT_NO_DEVICE = 4,     // --gpus was asked for and there is none
};

struct command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);      // argv[0] is "djinn NAME"
};

extern const struct command commands[];     // ends with a NULL name

#define DJINN_VERSION "0.1.0"
#define DJINN_PORT "7070"

enum { CLI_PATH_MAX = 512, CLI_ADDRESS_MAX = 128 };

// Prints "djinn: <text>" to standard error, one line, and returns `code`.
int complain(int code, const char *format, ...) DJ_PRINTF(2, 3);
// The same for an error with a fault: the fault's text, or the error's own.
int complain_fault(int code, enum dj_error error, const struct fault *fault);

// Where state lives: `given`, else $XDG_STATE_HOME/djinn, else ~/.local/state/djinn.
void state_folder(const char *given, char path[CLI_PATH_MAX]);
// The token: $DJINN_TOKEN, else the folder's token file; with `make` it is made (0600) when absent.
DJ_MUST_USE enum dj_error token_load(const char *folder, bool make, struct hash128 *ret, struct fault *fault);
void random_bytes(void *to, size_t bytes);

// "host:port", "host" or ":port" with defaults; DJ_E_ADDRESS.
DJ_MUST_USE enum dj_error address_parse(const char *text, char address[CLI_ADDRESS_MAX], struct fault *fault);
// "4G", "512M", "1073741824": bytes.
DJ_MUST_USE enum dj_error bytes_parse(const char *text, uint64_t *ret);
// A whole number from 1 to `most`; *ret is left as it was when it is not.
bool count_parse(const char *text, unsigned long most, uint32_t *ret);
// Makes a folder (0700) and those above it; DJ_E_SYSTEM when it is not there afterwards.
DJ_MUST_USE enum dj_error folder_make(const char *folder, struct fault *fault);

// Logs of a server go to standard error: "2026-01-02T03:04:05.678Z info head message".
void log_to_stderr(void);

// Asks the head at `address` (NULL: $DJINN_ADDRESS, else 127.0.0.1:7070); the answer is malloc'd and NUL-terminated. Bounded by 15 s.
DJ_MUST_USE enum dj_error head_ask(const char *address, const char *state, const char *verb, const char *argument, char **ret, size_t *ret_bytes,
                                   struct fault *fault);
// The exit code for a failed head_ask.
int ask_failed(enum dj_error error, const struct fault *fault);

int command_start(int argc, char **argv);
int command_embedded(int argc, char **argv);
int command_stop(int argc, char **argv);
int command_status(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_explain(int argc, char **argv);
int command_srg(int argc, char **argv);
int command_store(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_chaos(int argc, char **argv);
int chaos_sim(int argc, char **argv);       // argv[0] is "djinn chaos sim"

#endif
