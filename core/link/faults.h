// Faults: what `djinn chaos` does to the frames that leave this process, and to the links between two processes. Off, all of it is one relaxed load a
// frame (core/base/knobs.h).
//
// A stream gives every frame once and in order, and frames carry their number. So one that is sent twice or out of its turn is found by its receiver,
// and one whose bits changed by its checksum: each ends the link as corrupt. A stream that loses a frame is over: its sender ends it at that frame.
// What follows is a new link.
// Delayed frames keep their order. A partition holds the frames of both directions, and lets go of them when it is over; new links that say during it
// that they belong to the same peer are closed.
//
// Threads: link_faults_partition and link_faults_wake are for the thread that sets faults (chaos/live), link_faults_watch and link_faults_forget for
// whoever owns a loop; one mutex orders them. Everything else belongs to the link's thread.

#ifndef CORE_LINK_FAULTS_H
#define CORE_LINK_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/knobs.h"
#include "core/link/frame_queue.h"

struct link_message;

enum { LINK_FAULTS_PEERS_MAX = 16, LINK_FAULTS_LOOPS_MAX = 8 };

static inline bool link_faults_are_on(void) { return knob(KNOB_FRAMES) != 0; }
uint64_t link_faults_now_ns(void);                          // CLOCK_MONOTONIC, which no fault touches

// For the frame queue.
DJ_MUST_USE enum dj_error frame_queue_push(struct frame_queue *queue, const struct frame_out *frame);
// Pushes the frame, or twice, or before the one that it follows; DJ_E_LIMIT: it is lost, and the link must end. On failure the holds stay the caller's.
DJ_MUST_USE enum dj_error link_faults_push(struct frame_queue *queue, struct frame_out *frame);
void link_faults_spoil(struct frame_out *frame);            // just sealed: one bit of it may change

// Who is at the other end, as far as this process knows: 0, or the hash of a peer's name. A HELLO says it, and a HELLO_OK of a head does.
uint64_t link_faults_peer(const struct link_message *message);
uint64_t link_faults_name(const char *name);                // the hash; never 0
uint64_t link_faults_held_until_ns(uint64_t peer);          // 0: frames to and from this peer pass

// Holds what goes to and comes from `name` until then; "*": everybody. False when too many are held already.
bool link_faults_partition(const char *name, uint64_t until_ns);
void link_faults_wake(void);                                // every loop looks at its links again

// `wake` may be called from any thread until it is forgotten; it must only wake.
void link_faults_watch(void (*wake)(void *self), void *self);
void link_faults_forget(void *self);

#endif
