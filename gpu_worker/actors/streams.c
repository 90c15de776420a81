// Streams: one ordered stream of submissions, and what it is owed. Answers outlive their sending until the client confirms them, so that
// what is asked twice is answered twice and run once (design, rule 15).
//
// An answer leaves only under the lease, and the way out drops it when the lease has run out before it left. So what was sent is followed
// by a PING now and then: a PONG that comes while the lease still runs says that everything before it was read. What was not read when
// its lease had run out is sent again, RESENDS_MAX times; a client ignores repetitions.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <stdio.h>
#include <stdlib.h>

enum { RESENDS_MAX = 3 };

static void answer_free(struct stream *stream, struct kept_answer *answer)
{
    list_remove(&answer->list);
    stream->kept_count--;
    stream->kept_bytes -= answer->bulk_bytes + (answer->body == NULL ? 0 : answer->body->bytes);
    blob_drop(answer->body);
    blob_drop(answer->bulk);
    free(answer);
}

// Life ---------------------------------------------------------------------------------------------------------------

// The one that was away for longest makes room.
static bool make_room(struct worker *worker, struct session *session)
{
    struct stream *oldest = NULL;
    list_each (node, &session->streams) {
        struct stream *stream = list_entry(node, struct stream, list);
        if (stream->link == 0 && (oldest == NULL || stream->away_since_ns < oldest->away_since_ns))
            oldest = stream;
    }
    if (oldest == NULL)
        return false;
    worker_stream_drop(worker, oldest);
    return true;
}

struct stream *worker_stream_make(struct worker *worker, struct session *session, uint32_t number)
{
    if (session->stream_count >= WORKER_STREAMS_MAX && !make_room(worker, session))
        return NULL;
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return NULL;
    *stream = (struct stream){
        .session = session, .number = number, .epoch = session->epoch, .away_since_ns = actor_now_ns(worker->self)};
    list_init(&stream->queue);
    list_init(&stream->running);
    list_init(&stream->kept);
    list_push(&session->streams, &stream->list);
    session->stream_count++;
    return stream;
}

// Forgets what waits in the queue. Handles that were dropped stay queued when `keeps_releases`.
static void empty_queue(struct worker *worker, struct stream *stream, bool keeps_releases)
{
    list_each (node, &stream->queue) {
        struct work *work = list_entry(node, struct work, queue);
        if (keeps_releases && work->kind == WORK_RELEASE)
            continue;
        if (work->kind == WORK_IMPORT)
            worker_import_forget(worker, work);
        if (work->kind == WORK_RELEASE && !stream->session->is_gone) {
            for (uint32_t i = 0; i < work->releases; i++)
                exec_release(worker->exec, work->released[i]);
            worker_journal_release(worker, stream->session->id, work->released, work->releases);
        }
        if (work->kept_answer != NULL)
            answer_free(stream, work->kept_answer);
        worker_work_free(work);
        stream->waiting--;
    }
}

void worker_stream_away(struct worker *worker, struct stream *stream)
{
    stream->link = 0;
    stream->probe = 0;
    stream->away_since_ns = actor_now_ns(worker->self);
    // A client that comes back gives again what was not begun; one that goes elsewhere must not find it running here.
    empty_queue(worker, stream, true);
    stream->last = stream->passed;
}

void worker_stream_drop(struct worker *worker, struct stream *stream)
{
    struct worker_link *link = stream->link == 0 ? NULL : map_get(worker->links, map_key(stream->link));
    if (link != NULL)
        link->stream = NULL;
    stream->link = 0;
    empty_queue(worker, stream, false);
    stream->is_gone = true;
    stream->session->stream_count--;
    list_remove(&stream->list);
    list_push(&worker->gone_streams, &stream->list);
    worker_stream_free_if_done(worker, stream);
}

void worker_stream_free_if_done(struct worker *worker, struct stream *stream)
{
    (void)worker;
    if (!stream->is_gone || stream->in_flight > 0)
        return;
    list_each (node, &stream->kept)
        answer_free(stream, list_entry(node, struct kept_answer, list));
    // At the end of the process only; what is in flight has an owner.
    list_each (left, &stream->running) {
        struct work *work = list_entry(left, struct work, queue);
        list_remove(left);
        if (work->kind == WORK_RELEASE)
            worker_work_free(work);
    }
    list_remove(&stream->list);
    free(stream);
}

// Answers ------------------------------------------------------------------------------------------------------------

struct kept_answer *worker_stream_expect(struct stream *stream, struct position position, uint64_t content)
{
    struct kept_answer *answer = calloc(1, sizeof *answer);
    if (answer == NULL)
        return NULL;
    answer->position = position;
    answer->content = content;
    list_push(&stream->kept, &answer->list);
    stream->kept_count++;
    return answer;
}

static bool may_leave(const struct worker *worker, const struct stream *stream, const struct kept_answer *answer)
{
    bool is_durable = !stream->session->is_sync || answer->record <= worker->journal_durable;
    return stream->link != 0 && !stream->is_gone && answer->message != 0 && is_durable && worker_may_answer(worker);
}

static void send_answer(struct worker *worker, struct stream *stream, struct kept_answer *answer)
{
    answer->is_sent = true;
    answer->until_ns = worker_lease(worker);
    answer->is_read = answer->until_ns == 0;
    answer->sent_number = ++stream->sends;
    struct blob *bulk = answer->bulk == NULL ? NULL : blob_hold(answer->bulk);
    actor_send(worker->self, stream->link, answer->message, blob_hold(answer->body), bulk, 0, answer->bulk_bytes,
               answer->until_ns);
    worker->load.bytes_out += answer->body->bytes + answer->bulk_bytes;
}

// In stream order: what was not sent yet, up to the first that may not leave.
static void send_ready(struct worker *worker, struct stream *stream)
{
    // From the back: the unsent ones are the last.
    struct list *first = &stream->kept;
    while (first->prev != &stream->kept && !list_entry(first->prev, struct kept_answer, list)->is_sent)
        first = first->prev;
    for (; first != &stream->kept; first = first->next) {
        struct kept_answer *answer = list_entry(first, struct kept_answer, list);
        if (!may_leave(worker, stream, answer))
            return;
        send_answer(worker, stream, answer);
    }
}

void worker_stream_keep(struct worker *worker, struct stream *stream, struct kept_answer *answer, uint16_t message,
                        struct blob *body, struct blob *bulk, uint64_t bulk_bytes)
{
    if (body == NULL) {
        log_write(LOG_ERROR, "worker", "cannot encode an answer counter=%llu", (unsigned long long)answer->position.counter);
        blob_drop(bulk);
        return;
    }
    answer->message = message;
    answer->body = body;
    answer->bulk = bulk;
    answer->bulk_bytes = bulk_bytes;
    stream->kept_bytes += bulk_bytes + body->bytes;
    send_ready(worker, stream);
    // Over the bound the oldest that were sent go: their client had every chance.
    list_each (node, &stream->kept) {
        struct kept_answer *old = list_entry(node, struct kept_answer, list);
        if (stream->kept_count <= WORKER_KEPT_MAX && stream->kept_bytes <= WORKER_KEPT_BYTES_MAX)
            break;
        if (old->is_sent && old != answer)
            answer_free(stream, old);
    }
}

void worker_stream_confirm(struct stream *stream, uint64_t counter)
{
    list_each (node, &stream->kept) {
        struct kept_answer *answer = list_entry(node, struct kept_answer, list);
        if (answer->position.counter > counter)
            break;
        if (answer->message != 0)
            answer_free(stream, answer);
    }
}

static void say_failed(struct worker *worker, const struct stream *stream, struct position position, enum dj_error error,
                       const char *text)
{
    struct wire_execution_failed failed = {.counter = position.counter,
                                           .part = position.part,
                                           .incarnation = worker->incarnation,
                                           .error = (uint32_t)error,
                                           .node = -1};
    snprintf(failed.text, sizeof failed.text, "%s", text);
    worker_send(worker, stream->link, WIRE_EXECUTION_FAILED, wire_execution_failed_encode(&failed));
}

void worker_stream_repeat(struct worker *worker, struct stream *stream, struct position position, uint64_t content,
                          bool wants_values)
{
    list_each (node, &stream->kept) {
        struct kept_answer *answer = list_entry(node, struct kept_answer, list);
        if (position_compare(answer->position, position) != 0)
            continue;
        if (answer->content != content)
            say_failed(worker, stream, position, DJ_E_DUPLICATE_DIFFERS,
                       "this execution's number was used before for something else");
        else if (answer->is_sent && may_leave(worker, stream, answer))
            send_answer(worker, stream, answer);
        else
            send_ready(worker, stream);
        return;
    }
    if (wants_values) {
        say_failed(worker, stream, position, DJ_E_STALE,
                   "this execution was answered, and the answer confirmed or given up, before");
        return;
    }
    struct wire_answer answer = {
        .counter = position.counter, .part = position.part, .incarnation = worker->incarnation, .generation = worker->generation};
    worker_send(worker, stream->link, WIRE_ANSWER, wire_answer_encode(&answer));
}

const struct kept_answer *worker_stream_earlier(const struct stream *stream, const struct kept_answer *answer)
{
    const struct list *streams = &stream->session->streams;
    for (const struct list *node = streams->next; node != streams; node = node->next) {
        const struct stream *other = list_entry(node, struct stream, list);
        for (const struct list *at = other->kept.next; other->link == 0 && at != &other->kept; at = at->next) {
            const struct kept_answer *kept = list_entry(at, struct kept_answer, list);
            if (position_compare(kept->position, answer->position) == 0 && kept->content == answer->content)
                return kept;
        }
    }
    return NULL;
}

// The lease ----------------------------------------------------------------------------------------------------------

static void value_send(struct worker *worker, struct timed_value *value)
{
    struct wire_ping ping = {.number = value->number = ++worker->next_request};
    value->is_held = false;
    value->sends++;
    value->until_ns = worker_lease(worker);
    actor_send(worker->self, value->link, value->message, blob_hold(value->body),
               value->bulk == NULL ? NULL : blob_hold(value->bulk), value->bulk_offset, value->bulk_bytes, value->until_ns);
    worker_send(worker, value->link, WIRE_PING, wire_ping_encode(&ping));
    worker->load.bytes_out += value->body->bytes + value->bulk_bytes;
}

static void value_free(struct timed_value *value)
{
    list_remove(&value->list);
    blob_drop(value->body);
    blob_drop(value->bulk);
    free(value);
}

void worker_value_send(struct worker *worker, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk,
                       uint64_t offset, uint64_t bytes)
{
    struct timed_value *value = worker->config.head[0] == '\0' ? NULL : calloc(1, sizeof *value);
    if (value == NULL) {
        worker->load.bytes_out += body->bytes + bytes;
        actor_send(worker->self, link, message, body, bulk, offset, bytes, worker_lease(worker));
        return;
    }
    *value = (struct timed_value){.message = message,
                                  .link = link,
                                  .body = body,
                                  .bulk = bulk,
                                  .bulk_offset = offset,
                                  .bulk_bytes = bytes,
                                  .is_held = true};
    list_push(&worker->timed_values, &value->list);
    if (worker_may_answer(worker))
        value_send(worker, value);
}

void worker_values_pong(struct worker *worker, uint64_t link, uint64_t number)
{
    list_each (node, &worker->timed_values) {
        struct timed_value *value = list_entry(node, struct timed_value, list);
        if (value->link != link || value->number != number || value->is_held)
            continue;
        if (actor_now_ns(worker->self) <= value->until_ns || value->sends >= RESENDS_MAX)
            value_free(value);
        else if (worker_may_answer(worker))
            value_send(worker, value);
        else
            value->is_held = true;
        return;
    }
}

void worker_values_link_down(struct worker *worker, uint64_t link)
{
    list_each (node, &worker->timed_values) {
        struct timed_value *value = list_entry(node, struct timed_value, list);
        if (value->link == link)
            value_free(value);
    }
}

void worker_values_free(struct worker *worker)
{
    if (worker->timed_values.next == NULL)
        return;
    list_each (node, &worker->timed_values)
        value_free(list_entry(node, struct timed_value, list));
}

// What is sent and not read while its lease has run out counts as not sent.
static bool forget_late(struct stream *stream, uint64_t now)
{
    bool is_unread = false;
    list_each (node, &stream->kept) {
        struct kept_answer *answer = list_entry(node, struct kept_answer, list);
        if (!answer->is_sent || answer->is_read)
            continue;
        if (answer->until_ns < now && answer->resends < RESENDS_MAX) {
            answer->resends++;
            answer->is_sent = false;
        } else if (answer->until_ns >= now) {
            is_unread = true;
        }
    }
    return is_unread;
}

static void send_again(struct worker *worker, struct stream *stream)
{
    list_each (node, &stream->kept) {
        struct kept_answer *answer = list_entry(node, struct kept_answer, list);
        if (answer->is_sent)
            continue;
        if (!may_leave(worker, stream, answer))
            return;
        send_answer(worker, stream, answer);
    }
}

static void each_stream(struct worker *worker, void (*visit)(struct worker *worker, struct stream *stream))
{
    uint32_t cursor = 0;
    struct session *session;
    while ((session = map_next(worker->sessions, &cursor, NULL)) != NULL) {
        list_each (node, &session->streams) {
            struct stream *stream = list_entry(node, struct stream, list);
            if (stream->link != 0 && !list_is_empty(&stream->kept))
                visit(worker, stream);
        }
    }
}

void worker_streams_send_held(struct worker *worker)
{
    each_stream(worker, send_again);
    list_each (node, &worker->timed_values) {
        struct timed_value *value = list_entry(node, struct timed_value, list);
        if (value->is_held && worker_may_answer(worker))
            value_send(worker, value);
    }
}

static void probe(struct worker *worker, struct stream *stream)
{
    bool is_unread = forget_late(stream, actor_now_ns(worker->self));
    send_again(worker, stream);
    if (!is_unread || stream->probe != 0)
        return;
    struct wire_ping ping = {.number = stream->probe = ++worker->next_request};
    stream->probe_sends = stream->sends;
    worker_send(worker, stream->link, WIRE_PING, wire_ping_encode(&ping));
}

void worker_streams_probe(struct worker *worker)
{
    if (worker->config.head[0] != '\0' && worker_may_answer(worker))
        each_stream(worker, probe);
}

void worker_stream_pong(struct worker *worker, struct stream *stream, uint64_t number)
{
    if (number == 0 || stream->probe != number)
        return;
    stream->probe = 0;
    list_each (node, &stream->kept) {
        struct kept_answer *answer = list_entry(node, struct kept_answer, list);
        if (answer->is_sent && answer->sent_number <= stream->probe_sends && actor_now_ns(worker->self) <= answer->until_ns)
            answer->is_read = true;
    }
}
