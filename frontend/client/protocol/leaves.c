// Leaves: their bytes, to a worker that asks for them, and to the store where no worker sees to it.

#include <stdio.h>

#include "frontend/client/protocol/state.h"

enum { OFFER_MAX = 1024 };    // leaves in one offer

static void leaf_send(struct protocol *protocol, uint64_t link, const struct leaf *leaf)
{
    uint64_t offset = 0;
    do {
        uint64_t left = leaf->bytes - offset, chunk = left < WIRE_CHUNK_BYTES ? left : WIRE_CHUNK_BYTES;
        struct wire_leaf_data message = {.content = leaf->content, .bytes = leaf->bytes, .offset = offset};
        struct blob *body = wire_leaf_data_encode(&message);
        if (body == NULL)
            return;
        protocol->stats.leaf_bytes_out += chunk;
        protocol->stats.messages_out++;
        protocol->port.send(protocol->port.self, link, WIRE_LEAF_DATA, body, blob_hold(leaf->blob), offset, chunk, 0);
        offset += chunk;
    } while (offset < leaf->bytes);
}

void leaves_send(struct protocol *protocol, uint64_t link, const struct wire_leaf_need *need)
{
    for (uint32_t i = 0; i < need->leaves_count; i++) {
        const struct leaf *leaf = leaf_find(protocol->config.leaves, need->leaves[i].content);
        if (leaf != NULL && leaf->blob != NULL) {
            leaf_send(protocol, link, leaf);
            continue;
        }
        char text[HASH128_TEXT];
        hash128_text(need->leaves[i].content, text);
        struct wire_failed failed = {.error = DJ_E_LEAF_UNKNOWN};
        snprintf(failed.text, sizeof failed.text, "this client does not have the bytes of leaf %s any more", text);
        send_message(protocol, link, WIRE_FAILED, wire_failed_encode(&failed));
    }
}

void leaves_offer(struct protocol *protocol, const struct peer *only, uint64_t older_ns)
{
    struct wire_leaf *leaf = arena_alloc(protocol->arena, OFFER_MAX * sizeof *leaf);
    struct wire_leaf_offer offer = {.leaves = leaf};
    for (struct list *p = protocol->peers.next; leaf != NULL && p != &protocol->peers; p = p->next) {
        const struct peer *peer = list_entry(p, struct peer, node);
        if (only != NULL && only != peer)
            continue;
        for (const struct list *node = peer->flights.next; node != &peer->flights; node = node->next) {
            const struct flight *flight = list_entry(node, struct flight, node);
            if (flight->state != FLIGHT_DONE || flight->done_ns > older_ns)
                continue;
            for (uint32_t i = 0; i < flight->leaves_count && offer.leaves_count < OFFER_MAX; i++)
                if (!flight->leaves[i]->is_durable && flight->leaves[i]->blob != NULL)
                    leaf[offer.leaves_count++] = (struct wire_leaf){.content = flight->leaves[i]->content,
                                                                    .bytes = flight->leaves[i]->bytes};
        }
    }
    if (offer.leaves_count > 0)
        send_message(protocol, protocol->head_link, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&offer));
}

static void settle_all(struct protocol *protocol)
{
    list_each (p, &protocol->peers) {
        struct peer *peer = list_entry(p, struct peer, node);
        list_each (node, &peer->flights)
            flight_settle(protocol, peer, list_entry(node, struct flight, node));
    }
}

// That the store has a leaf says nothing of the worker.
void leaves_are_there(struct peer *peer, const struct wire_leaf_ok *ok)
{
    uint32_t arrived = ok->durable ? 0 : ok->leaves_count;
    peer->leaves_out -= arrived < peer->leaves_out ? arrived : peer->leaves_out;
}

void leaves_arrived(struct protocol *protocol, const struct wire_leaf_ok *ok)
{
    bool has_news = false;
    for (uint32_t i = 0; ok->durable && i < ok->leaves_count; i++) {
        struct leaf *leaf = leaf_find(protocol->config.leaves, ok->leaves[i].content);
        if (leaf == NULL || leaf->is_durable)
            continue;
        leaf_set_durable(leaf);
        has_news = true;
    }
    if (!has_news)
        return;
    settle_all(protocol);
    list_each (p, &protocol->peers) {
        struct peer *peer = list_entry(p, struct peer, node);
        if (peer->state != PEER_RECOVERING || peer->recovery.ask_at_ns == 0)
            continue;
        peer->recovery.ask_at_ns = protocol->now_ns;    // it may have waited for these
        recover_ask(protocol, peer);
    }
}
