// Client, its ports: what the recorder asks of the protocol, and the protocol of the world. The manual is client.h.

#include "chaos/sim/client_state.h"

#include "core/base/assert.h"
#include "core/io/blob.h"

#include <stdio.h>
#include <stdlib.h>

void client_note_link(struct client *client, uint64_t from, uint64_t to)
{
    for (uint32_t i = 0; i < LINKS_MAX; i++)
        if (client->link[i] == from) {
            client->link[i] = to;
            return;
        }
    assert(to == 0);
}

static void tag_goes_out(struct client *client, void *tag)
{
    if (client->tags == client->tag_capacity) {
        client->tag_capacity = client->tag_capacity == 0 ? EVENTS_FIRST : client->tag_capacity * 2;
        client->tag = realloc(client->tag, client->tag_capacity * sizeof *client->tag);
        assert(client->tag != NULL);
    }
    client->tag[client->tags++] = tag;
}

static bool tag_comes_back(struct client *client, const void *tag)
{
    for (uint32_t i = 0; i < client->tags; i++)
        if (client->tag[i] == tag) {
            client->tag[i] = client->tag[--client->tags];
            return true;
        }
    client_wrong(client, "every request ends once: an outcome for a submission that has had one");
    return false;
}

// The recorder's port -------------------------------------------------------------------------------------------------------

static uint32_t port_place(void *self, int device)
{
    struct client *client = self;
    return protocol_place(client->protocol, client->now_ns, device);
}

static void port_submit(void *self, const struct submission *submission)
{
    struct client *client = self;
    client->config->totals->executions++;
    tag_goes_out(client, submission->tag);
    protocol_submit(client->protocol, client->now_ns, submission);
}

static void port_import(void *self, uint32_t place, uint64_t counter, uint32_t from_place, uint64_t from_counter,
                        uint32_t from_output, void *tag)
{
    struct client *client = self;
    tag_goes_out(client, tag);
    protocol_import(client->protocol, client->now_ns, place, counter, from_place, from_counter, from_output, tag);
}

static void port_release(void *self, uint32_t place, const struct released *released, uint32_t count)
{
    struct client *client = self;
    if (client->protocol != NULL)
        protocol_release(client->protocol, place, released, count);
}

// The protocol's port -------------------------------------------------------------------------------------------------------

static uint64_t port_link_open(void *self, const char *address)
{
    struct client *client = self;
    struct io_effect *effect = effects_add(client->effects, IO_LINK_OPEN);
    effect->link_open.request = ++client->next_request;
    snprintf(effect->link_open.address, sizeof effect->link_open.address, "%s", address);
    return client->next_request;
}

void client_close_link(struct client *client, uint64_t link)
{
    client_note_link(client, link, 0);
    effects_add(client->effects, IO_LINK_CLOSE)->link_close.link = link;
}

static void port_link_close(void *self, uint64_t link)
{
    client_close_link(self, link);
}

static void port_send(void *self, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t bulk_offset,
                      uint64_t bulk_bytes, uint64_t not_after_ns)
{
    struct client *client = self;
    struct io_effect *effect = effects_add(client->effects, IO_SEND);
    effect->send.link = link;
    effect->send.message = message;
    effect->send.body = body;
    effect->send.bulk = bulk;
    effect->send.bulk_offset = bulk_offset;
    effect->send.bulk_bytes = bulk_bytes;
    effect->send.not_after_ns = not_after_ns;
}

static void port_answered(void *self, void *tag, uint32_t output, struct blob *blob, uint64_t offset, uint64_t length)
{
    recorder_answered(((struct client *)self)->recorder, tag, output, blob, offset, length);
}

static void port_executed(void *self, void *tag)
{
    if (tag_comes_back(self, tag))
        recorder_executed(((struct client *)self)->recorder, tag);
}

static void port_failed(void *self, void *tag, enum dj_error error, int64_t node, const char *text)
{
    if (tag_comes_back(self, tag))
        recorder_failed(((struct client *)self)->recorder, tag, error, node, text);
}

static void port_place_lost(void *self, uint32_t place, enum dj_error error, const char *text)
{
    recorder_place_lost(((struct client *)self)->recorder, place, error, text);
}

void client_drop_fetching(struct fetching *fetching)
{
    if (--fetching->holders > 0)
        return;
    recorder_unwant(fetching->client->recorder, fetching->value);
    free(fetching);
}

static void port_fetched(void *self, void *tag, enum dj_error error, const char *text, struct blob *blob, uint64_t length)
{
    struct client *client = self;
    struct fetching *fetching = tag;
    recorder_value_set_coming(fetching->value, false);
    fetching->is_done = true;
    fetching->error = error;
    snprintf(fetching->text, sizeof fetching->text, "%s", text);
    if (error == DJ_OK && blob != NULL)
        recorder_value_answer(client->recorder, fetching->value, blob, 0, length);
    client_drop_fetching(fetching);
}

static void port_told(void *self, void *tag, enum dj_error error, const char *text, const void *data, size_t bytes)
{
    (void)self, (void)tag, (void)error, (void)text, (void)data, (void)bytes;    // no question is asked
}

static void port_live_handles(void *self, uint32_t place, void (*visit)(void *context, uint64_t counter, uint32_t output),
                              void *context)
{
    recorder_live_handles(((struct client *)self)->recorder, place, visit, context);
}

struct recorder_port client_recorder_port(struct client *client)
{
    return (struct recorder_port){
        .self = client, .place = port_place, .submit = port_submit, .import = port_import, .release = port_release};
}

struct protocol_port client_protocol_port(struct client *client)
{
    return (struct protocol_port){
        .self = client,
        .link_open = port_link_open,
        .link_close = port_link_close,
        .send = port_send,
        .answered = port_answered,
        .executed = port_executed,
        .failed = port_failed,
        .place_lost = port_place_lost,
        .fetched = port_fetched,
        .told = port_told,
        .live_handles = port_live_handles,
    };
}
