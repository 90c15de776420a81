// Faults: frames that chaos delays, loses, repeats, turns round and spoils. The manual is faults.h.

#include "core/link/faults.h"

#include "core/base/arena.h"
#include "core/base/hash.h"
#include "core/io/blob.h"
#include "core/link/link.h"
#include "core/wire/wire.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { REORDER_WAIT_US = 5000, HELLO_ARENA_BYTES = 4096 };

uint64_t link_faults_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Choices --------------------------------------------------------------------------------------------------------------------

// The next number of the sequence that the seed begins. The counter is shared by all links of the process: relaxed, any order will do.
static uint64_t choice(void)
{
    static uint64_t choices;
    return hash_mix(knob(KNOB_FRAME_SEED) ^ 0x9E3779B97F4A7C15u, __atomic_add_fetch(&choices, 1, __ATOMIC_RELAXED));
}

// Whether a fault that counts down strikes this frame.
static bool strikes(enum knob fault)
{
    uint64_t rarity = knob(KNOB_FRAME_RARITY);
    if (knob(fault) == 0 || (rarity > 1 && choice() % rarity != 0))
        return false;
    return knob_take(fault);
}

static uint64_t due_ns(void)
{
    uint64_t delay_us = knob(KNOB_FRAME_DELAY_US), jitter_us = knob(KNOB_FRAME_JITTER_US);
    if (jitter_us > 0)
        delay_us += choice() % (jitter_us + 1);
    return delay_us == 0 ? 0 : link_faults_now_ns() + delay_us * 1000;
}

static void make_repetition(struct frame_out *frame)
{
    blob_hold(frame->body);
    if (frame->bulk != NULL)
        blob_hold(frame->bulk);
    frame->shift--;
}

// The last frame that waits, if no byte of it can have left: the new one can go before it.
static struct frame_out *last_unbegun(struct frame_queue *queue)
{
    uint32_t begun = queue->gathered > 0 ? queue->gathered : queue->sent > 0;
    return queue->head - queue->tail > begun ? &queue->slot[(queue->head - 1) & (queue->slots - 1)] : NULL;
}

static void die_at_answer(uint16_t message)
{
    if (message != WIRE_ANSWER && message != WIRE_EXECUTION_FAILED)
        return;
    if (knob(KNOB_DIE_AT_ANSWER) == 1)
        kill(getpid(), SIGKILL);
    (void)knob_take(KNOB_DIE_AT_ANSWER);
}

enum dj_error link_faults_push(struct frame_queue *queue, struct frame_out *frame)
{
    die_at_answer(frame->message);
    if (frame->message == WIRE_HELLO || frame->message == WIRE_HELLO_OK)
        return frame_queue_push(queue, frame);    // a link that never came up shows nothing
    if (strikes(KNOB_FRAME_DROP))
        return DJ_E_LIMIT;    // a stream that has lost something is over: its owner ends it
    frame->due_ns = due_ns();
    struct frame_out *last = knob(KNOB_FRAME_REORDER) > 0 ? last_unbegun(queue) : NULL;
    if (last != NULL && strikes(KNOB_FRAME_REORDER)) {
        struct frame_out before = *last;
        frame->shift++;
        before.shift--;
        frame->due_ns = before.due_ns;
        // The same frames wait as before and one more: only their order is another.
        enum dj_error error = frame_queue_push(queue, &before);
        if (error == DJ_OK) {
            struct frame_out *place = &queue->slot[(queue->head - 2) & (queue->slots - 1)];
            uint64_t more = frame->body->bytes + frame->bulk_bytes, less = before.body->bytes + before.bulk_bytes;
            queue->bytes += more - less;
            queue->timed += (uint32_t)(frame->not_after_ns != 0) - (uint32_t)(before.not_after_ns != 0);
            *place = *frame;
        }
        return error;
    }
    if (knob(KNOB_FRAME_REORDER) > 0 && frame->due_ns == 0)
        frame->due_ns = link_faults_now_ns() + REORDER_WAIT_US * 1000;    // another may come to go before it
    struct frame_out again = *frame;
    enum dj_error error = frame_queue_push(queue, frame);
    if (error == DJ_OK && strikes(KNOB_FRAME_DUPLICATE)) {
        make_repetition(&again);
        error = frame_queue_push(queue, &again);
        if (error != DJ_OK) {
            blob_drop(again.body);
            blob_drop(again.bulk);
        }
        return DJ_OK;
    }
    return error;
}

void link_faults_spoil(struct frame_out *frame)
{
    if (frame->message == WIRE_HELLO || frame->message == WIRE_HELLO_OK || !strikes(KNOB_FRAME_CORRUPT))
        return;
    uint64_t bit = choice() % ((WIRE_HEADER_BYTES + frame->body->bytes) * 8);
    size_t at = bit / 8;
    uint8_t mask = (uint8_t)(1 << bit % 8);
    if (at < WIRE_HEADER_BYTES) {
        // Not the lengths: a receiver that waits for bytes that never come is a hang, which is another fault.
        at = at >= 8 && at < 12 ? at + 4 : at >= 16 && at < 24 ? at + 8 : at;
        frame->header[at] ^= mask;
    } else {
        struct blob *spoiled = blob_copy(frame->body->data, frame->body->bytes);
        if (spoiled == NULL)
            return;
        spoiled->data[at - WIRE_HEADER_BYTES] ^= mask;
        blob_drop(frame->body);
        frame->body = spoiled;
    }
    frame->is_spoiled = true;
}

// Peers ----------------------------------------------------------------------------------------------------------------------

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t name, until_ns;
} partition[LINK_FAULTS_PEERS_MAX];
static struct {
    void (*wake)(void *self);
    void *self;
} loop[LINK_FAULTS_LOOPS_MAX];

uint64_t link_faults_name(const char *name)
{
    return hash64(name, strlen(name)) | 1;
}

uint64_t link_faults_peer(const struct link_message *message)
{
    struct arena *arena = NULL;
    struct wire_hello hello;
    struct wire_hello_ok ok;
    uint64_t peer = 0;
    if ((message->message != WIRE_HELLO && message->message != WIRE_HELLO_OK) ||
        arena_make(HELLO_ARENA_BYTES, 0, &arena) != DJ_OK)
        return 0;
    const struct blob *body = message->body;
    if (message->message == WIRE_HELLO && wire_hello_decode(body->data, body->bytes, arena, &hello) == DJ_OK)
        peer = hello.role == ROLE_CLIENT && hello.name[0] == '\0' ? link_faults_name("client") : link_faults_name(hello.name);
    else if (message->message == WIRE_HELLO_OK && wire_hello_ok_decode(body->data, body->bytes, arena, &ok) == DJ_OK)
        peer = ok.role == ROLE_HEAD ? link_faults_name("head") : 0;
    arena_free(arena);
    return peer;
}

uint64_t link_faults_held_until_ns(uint64_t peer)
{
    uint64_t everybody = link_faults_name("*"), until_ns = 0, now_ns = link_faults_now_ns();
    pthread_mutex_lock(&lock);
    for (int i = 0; i < LINK_FAULTS_PEERS_MAX; i++)
        if (partition[i].until_ns > until_ns && (partition[i].name == everybody || (peer != 0 && partition[i].name == peer)))
            until_ns = partition[i].until_ns;
    pthread_mutex_unlock(&lock);
    return until_ns > now_ns ? until_ns : 0;
}

bool link_faults_partition(const char *name, uint64_t until_ns)
{
    uint64_t now_ns = link_faults_now_ns(), wanted = link_faults_name(name);
    int place = -1;
    pthread_mutex_lock(&lock);
    for (int i = LINK_FAULTS_PEERS_MAX - 1; i >= 0; i--)
        if (partition[i].until_ns <= now_ns || partition[i].name == wanted)
            place = i;
    for (int i = 0; i < LINK_FAULTS_PEERS_MAX; i++)
        if (partition[i].name == wanted)
            place = i;
    if (place >= 0) {
        partition[place].name = wanted;
        partition[place].until_ns = until_ns;
    }
    pthread_mutex_unlock(&lock);
    return place >= 0;
}

// Loops ----------------------------------------------------------------------------------------------------------------------

void link_faults_wake(void)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < LINK_FAULTS_LOOPS_MAX; i++)
        if (loop[i].wake != NULL)
            loop[i].wake(loop[i].self);
    pthread_mutex_unlock(&lock);
}

void link_faults_watch(void (*wake)(void *self), void *self)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < LINK_FAULTS_LOOPS_MAX; i++)
        if (loop[i].wake == NULL) {
            loop[i].wake = wake;
            loop[i].self = self;
            break;
        }
    pthread_mutex_unlock(&lock);
}

void link_faults_forget(void *self)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < LINK_FAULTS_LOOPS_MAX; i++)
        if (loop[i].self == self) {
            loop[i].wake = NULL;
            loop[i].self = NULL;
        }
    pthread_mutex_unlock(&lock);
}
