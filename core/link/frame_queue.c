// Frame queue: a ring of messages; the first may be written in part. The manual is frame_queue.h.
//
// A message gets its number, and with it its header, when it is first gathered: one that is dropped because it is late leaves no gap.

#include "core/link/frame_queue.h"

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/link/faults.h"

#include <stdlib.h>
#include <sys/uio.h>

enum { SLOTS_FIRST = 16 };

void frame_queue_init(struct frame_queue *queue)
{
    *queue = (struct frame_queue){0};
}

static uint64_t frame_bytes(const struct frame_out *frame)
{
    return WIRE_HEADER_BYTES + frame->body->bytes + frame->bulk_bytes;
}

static struct frame_out *frame_at(const struct frame_queue *queue, uint32_t index)
{
    return &queue->slot[index & (queue->slots - 1)];
}

static void frame_drop(struct frame_queue *queue, struct frame_out *frame)
{
    if (frame->not_after_ns != 0)
        queue->timed--;
    blob_drop(frame->body);
    blob_drop(frame->bulk);
}

void frame_queue_free(struct frame_queue *queue)
{
    for (uint32_t i = queue->tail; i != queue->head; i++)
        frame_drop(queue, frame_at(queue, i));
    free(queue->slot);
    frame_queue_init(queue);
}

static bool grow(struct frame_queue *queue)
{
    uint32_t slots = queue->slots == 0 ? SLOTS_FIRST : queue->slots * 2;
    struct frame_out *slot = malloc(slots * sizeof *slot);
    if (slot == NULL)
        return false;
    uint32_t count = queue->head - queue->tail;
    for (uint32_t i = 0; i < count; i++)
        slot[i] = *frame_at(queue, queue->tail + i);
    free(queue->slot);
    queue->slot = slot;
    queue->slots = slots;
    queue->tail = 0;
    queue->head = count;
    return true;
}

static enum dj_error check(const struct frame_queue *queue, const struct frame_out *frame, uint16_t message)
{
    uint32_t body_max = wire_body_max(message);
    if (body_max == 0 || frame->body->bytes > body_max || frame->bulk_bytes > wire_bulk_max(message))
        return DJ_E_INVALID;
    if (queue->head - queue->tail == FRAME_QUEUE_MESSAGES_MAX || queue->bytes + frame_bytes(frame) > FRAME_QUEUE_BYTES_MAX)
        return DJ_E_LIMIT;
    return DJ_OK;
}

enum dj_error frame_queue_push(struct frame_queue *queue, const struct frame_out *frame)
{
    if (queue->head - queue->tail == queue->slots && !grow(queue))
        return DJ_E_NO_MEMORY;
    *frame_at(queue, queue->head++) = *frame;
    queue->bytes += frame_bytes(frame);
    queue->timed += frame->not_after_ns != 0;
    return DJ_OK;
}

enum dj_error frame_queue_add(struct frame_queue *queue, uint16_t message, struct blob *body, struct blob *bulk,
                              uint64_t bulk_offset, uint64_t bulk_bytes, uint64_t not_after_ns)
{
    struct frame_out frame = {.message = message,
                              .body = body,
                              .bulk = bulk,
                              .bulk_offset = bulk_offset,
                              .bulk_bytes = bulk_bytes,
                              .not_after_ns = not_after_ns};
    enum dj_error error = body == NULL ? DJ_E_INVALID : DJ_OK;
    if (error == DJ_OK && bulk == NULL)
        frame.bulk_bytes = 0;
    else if (error == DJ_OK && (bulk_offset > bulk->bytes || bulk_bytes > bulk->bytes - bulk_offset))
        error = DJ_E_INVALID;
    else if (error == DJ_OK && bulk_bytes == 0)
        frame.bulk_bytes = bulk->bytes - bulk_offset;
    if (error == DJ_OK)
        error = check(queue, &frame, message);
    if (error == DJ_OK)
        error = link_faults_are_on() ? link_faults_push(queue, &frame) : frame_queue_push(queue, &frame);
    if (error != DJ_OK) {
        blob_drop(body);
        blob_drop(bulk);
    }
    return error;
}

void frame_queue_expire(struct frame_queue *queue, uint64_t now_ns)
{
    if (queue->timed == 0)
        return;
    uint32_t begun = queue->gathered > 0 ? queue->gathered : queue->sent > 0;
    uint32_t kept = queue->tail + begun;
    for (uint32_t i = kept; i != queue->head; i++) {
        struct frame_out *frame = frame_at(queue, i);
        if (frame->not_after_ns != 0 && frame->not_after_ns < now_ns) {
            queue->bytes -= frame_bytes(frame);
            frame_drop(queue, frame);
        } else {
            *frame_at(queue, kept++) = *frame;
        }
    }
    queue->head = kept;
}

// Adds data[*skip, bytes) as a span; bytes that are already written are skipped.
static void add_span(struct iovec *iov, uint32_t *count, uint64_t *skip, const void *data, uint64_t bytes)
{
    if (*skip >= bytes) {
        *skip -= bytes;
        return;
    }
    iov[(*count)++] = (struct iovec){.iov_base = (char *)(uintptr_t)data + *skip, .iov_len = bytes - *skip};
    *skip = 0;
}

static void seal(struct frame_out *frame, uint32_t number)
{
    if (frame->is_spoiled || (frame->is_sealed && frame->number == number))
        return;
    if (frame->is_sealed)
        wire_header_number(frame->header, number, frame->body->data, (uint32_t)frame->body->bytes);
    else
        wire_header_write(frame->header, number, frame->message, frame->body->data, (uint32_t)frame->body->bytes,
                          frame->bulk == NULL ? NULL : frame->bulk->data + frame->bulk_offset, frame->bulk_bytes);
    frame->is_sealed = true;
    frame->number = number;
    if (link_faults_are_on())
        link_faults_spoil(frame);
}

static bool is_due(const struct frame_queue *queue, const struct frame_out *frame)
{
    if (queue->held_until_ns == 0 && frame->due_ns == 0)
        return true;
    uint64_t now_ns = link_faults_now_ns();
    return queue->held_until_ns <= now_ns && frame->due_ns <= now_ns;
}

bool frame_queue_is_due(const struct frame_queue *queue)
{
    return !frame_queue_is_empty(queue) && is_due(queue, frame_at(queue, queue->tail));
}

uint32_t frame_queue_gather(struct frame_queue *queue, struct iovec *ret, uint32_t max)
{
    uint32_t count = 0;
    uint64_t skip = queue->sent;
    queue->gathered = 0;
    for (uint32_t i = queue->tail; i != queue->head && count + 3 <= max; i++) {
        struct frame_out *frame = frame_at(queue, i);
        if (!is_due(queue, frame))
            break;
        seal(frame, (uint32_t)queue->messages + (i - queue->tail) + (uint32_t)frame->shift);
        add_span(ret, &count, &skip, frame->header, WIRE_HEADER_BYTES);
        add_span(ret, &count, &skip, frame->body->data, frame->body->bytes);
        if (frame->bulk != NULL)
            add_span(ret, &count, &skip, frame->bulk->data + frame->bulk_offset, frame->bulk_bytes);
        queue->gathered++;
    }
    return count;
}

void frame_queue_advance(struct frame_queue *queue, size_t bytes)
{
    assert(bytes <= queue->bytes);
    queue->bytes -= bytes;
    queue->sent += bytes;
    while (!frame_queue_is_empty(queue) && queue->sent >= frame_bytes(frame_at(queue, queue->tail))) {
        struct frame_out *frame = frame_at(queue, queue->tail);
        queue->sent -= frame_bytes(frame);
        frame_drop(queue, frame);
        queue->tail++;
        queue->messages++;
    }
    queue->gathered = 0;
}
