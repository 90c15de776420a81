// Session: what client.c gives to session.c beyond client.h.

#ifndef FRONTEND_CLIENT_LOOP_SESSION_H
#define FRONTEND_CLIENT_LOOP_SESSION_H

#include "frontend/client/loop/client.h"

extern const struct protocol_port client_protocol_port;
void client_handle(void *self, uint64_t now_ns, const struct io_event *event);
void *client_background(void *client);

#endif
