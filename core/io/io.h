// Events and effects: the seam between the pure core and the world (design: "The core is pure; the world is at the edge").
//
// A driver (core/driver, frontend/client/loop, chaos/sim) turns the world into events, posts them with process_post, lets the core
// think with process_run, and carries out the effects. Links, tickets and requests are named by numbers that the namer never reuses.

#ifndef CORE_IO_IO_H
#define CORE_IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct blob;
struct device_list;
struct store_batch;
struct store_result;

enum io_event_kind {
    IO_START = 1,           // once, first
    IO_RECV,                // a message arrived: frame and checksums are verified, the body is not yet decoded
    IO_LINK_UP,             // a link this process asked for (request) or accepted (request 0) can be used
    IO_LINK_DOWN,           // a link is gone, or could not be opened (then `request` says which)
    IO_WRITABLE,            // a link whose queue was over its high-water mark has drained below the low one
    IO_TIMER,               // the deadline the core asked for has come (process_run with the new time does the rest)
    IO_STORE_DONE,
    IO_DEVICE_DONE,
    IO_COMPUTE_DONE,
    IO_SUBMIT,              // a local request: from the composition root, the CLI's signal handler or the client's API
};

struct io_event {
    enum io_event_kind kind;
    union {
        struct { uint64_t link; uint16_t message; struct blob *body, *bulk; } recv;     // bulk may be NULL; the core takes both holds
        // is_local: unix socket (same host and user); listener: which of the driver's listeners accepted it, in the order they were added
        struct { uint64_t link, request; bool is_local; uint32_t listener; } link_up;
        struct { uint64_t link, request; enum dj_error error; } link_down;              // link 0 when it never came up
        struct { uint64_t link; } writable;
        struct { uint64_t ticket; enum dj_error error; struct store_result *result; } store_done;
        struct { uint32_t device; struct device_list *list; } device_done;
        struct { uint64_t ticket; void *result; } compute_done;
        struct { uint32_t verb; void *argument; } submit;
    };
};

enum io_effect_kind { IO_SEND = 1, IO_LINK_OPEN, IO_LINK_CLOSE, IO_STORE_COMMIT, IO_STORE_READ, IO_DEVICE_SUBMIT, IO_COMPUTE, IO_ANSWER, IO_STOP };

enum { IO_ADDRESS_MAX = 128 };

struct io_effect {
    enum io_effect_kind kind;
    union {
        // One message. `body` is the encoded body; `bulk[bulk_offset, +bulk_bytes)` follows it (NULL: none). The driver takes both holds and
        // drops them when the bytes are written or the link is gone. Not sent after not_after_ns (0: no limit).
        struct { uint64_t link; uint16_t message; struct blob *body, *bulk; uint64_t bulk_offset, bulk_bytes, not_after_ns; } send;
        struct { uint64_t request; char address[IO_ADDRESS_MAX]; } link_open;            // "tcp://127.0.0.1:7070", "unix:///path"
        struct { uint64_t link; } link_close;
        struct { uint64_t ticket; struct store_batch *batch; } store_commit;            // comes back in the result
        struct { uint64_t ticket; struct store_batch *batch; } store_read;
        struct { uint32_t device; struct device_list *list; } device_submit;
        struct { uint64_t ticket; void *(*function)(void *input); void *input; } compute;   // runs on another thread
        struct { uint64_t request; enum dj_error error; void *result; } answer;         // to whoever made the IO_SUBMIT
        struct { int exit_code; } stop;
    };
};

// Effects in order. Grows; owned by the driver, which clears it after carrying them out.
struct io_effects {
    struct io_effect *effect;
    uint32_t count, capacity;
};

void effects_init(struct io_effects *effects);
void effects_free(struct io_effects *effects);          // drops what is in it
struct io_effect *effects_add(struct io_effects *effects, enum io_effect_kind kind);    // zeroed; aborts out of memory

// Frees what an event or an effect holds (blobs, results, batches) when nobody will handle it.
void event_drop(struct io_event *event);
void effect_drop(struct io_effect *effect);

// Where implementations of ports post events from their own threads. `post` only enqueues, and wakes the driver.
struct io_sink {
    void (*post)(void *self, const struct io_event *event);
    void *self;
};

#endif
