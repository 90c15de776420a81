// Frame reader: bytes in, messages out. Used by link.c (which reads from a descriptor straight into the blobs) and by the driver's nng
// streams (which feed what arrived). Thread: its owner's.
//
// Nothing is believed before it is checked: the header before the body's memory is taken, the body's checksum before the bulk's.

#ifndef CORE_LINK_FRAME_READER_H
#define CORE_LINK_FRAME_READER_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/link/link.h"
#include "core/wire/wire.h"

enum frame_part { FRAME_HEADER, FRAME_BODY, FRAME_BULK };

struct frame_reader {
    enum frame_part part;
    size_t have;                        // bytes of this part
    uint8_t header[WIRE_HEADER_BYTES];
    struct wire_header parsed;
    struct blob *body, *bulk;
    uint64_t bulk_budget_bytes;
    uint64_t messages, checksum_failures;
    enum dj_error error;                // sticky: the stream means nothing after the first error
};

void frame_reader_init(struct frame_reader *reader, uint64_t bulk_budget_bytes);
void frame_reader_free(struct frame_reader *reader);        // drops what is half received

// Where the next bytes belong, and how many of them; never 0 while the reader has no error.
size_t frame_reader_span(struct frame_reader *reader, uint8_t **ret_at);
// `bytes` of the span were filled. *ret is filled (message != 0) when that completes a message; the caller owns its holds.
DJ_MUST_USE enum dj_error frame_reader_filled(struct frame_reader *reader, size_t bytes, struct link_message *ret);
// Takes from *data, *bytes until a message is complete or the bytes are used up; moves both on.
DJ_MUST_USE enum dj_error frame_reader_feed(struct frame_reader *reader, const uint8_t **data, size_t *bytes, struct link_message *ret);

#endif
