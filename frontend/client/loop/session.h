// Session: what client.c gives to session.c beyond client.h.

#ifndef FRONTEND_CLIENT_LOOP_SESSION_H
#define FRONTEND_CLIENT_LOOP_SESSION_H

#include "frontend/client/loop/client.h"

extern const struct protocol_port client_protocol_port;
void client_handle(void *self, uint64_t now_ns, const struct io_event *event);
void *client_background(void *client);
// Starts a worker on this machine when the pool has had none for a while and the program allows it.
void client_mind_pool(struct client *client, uint64_t now_ns);
// One line on standard error, unless DJINN_QUIET says otherwise.
void client_say_recovered(void *self, const struct protocol_recovery *recovery);

#endif
