// What client.c and client_port.c share. Nobody else includes it.

#ifndef CHAOS_SIM_CLIENT_STATE_H
#define CHAOS_SIM_CLIENT_STATE_H

#include "chaos/sim/client.h"

enum { EVENTS_FIRST = 64, LINKS_MAX = 128 };

enum phase { PHASE_OPENING, PHASE_PAUSING, PHASE_RUNNING, PHASE_ENDING, PHASE_LEAVING, PHASE_FINISHED };

struct fetching {
    struct client *client;
    struct value *value;
    uint32_t holders;
    bool is_done;
    enum dj_error error;
    char text[FAULT_TEXT_MAX];
};

struct client {
    struct sim *sim;
    uint32_t node;
    const struct client_config *config;
    struct recorder *recorder;
    struct protocol *protocol;
    struct program *program;
    struct io_effects *effects, silent;
    struct io_event *event;
    uint32_t events, event_capacity;
    uint64_t now_ns, next_request, wake_ns;
    enum phase phase;
    uint32_t openings;
    // What the program waits for.
    struct value *reading;
    struct fetching *fetching;
    bool is_flushing, is_started, is_fenced;
    uint64_t room_until_ns;
    uint64_t link[LINKS_MAX];    // that are up; 0: none
    void **tag;                  // of submissions without an outcome
    uint32_t tags, tag_capacity;
    uint64_t life;
};

// client_port.c
struct recorder_port client_recorder_port(struct client *client);
struct protocol_port client_protocol_port(struct client *client);
void client_note_link(struct client *client, uint64_t from, uint64_t to);    // 0: none
void client_close_link(struct client *client, uint64_t link);
void client_drop_fetching(struct fetching *fetching);

#endif
