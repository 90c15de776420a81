// Mailbox: a growing power-of-two ring of letters by value. The manual is mailbox.h.

#include "core/actors/mailbox.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS_FIRST = 8 };

void letter_drop(struct letter *letter)
{
    if (letter->kind == LETTER_EVENT)
        event_drop(&letter->event);
    if (letter->payload != NULL && letter->payload_free != NULL)
        letter->payload_free(letter->payload);
    letter->payload = NULL;
}

void mailbox_init(struct mailbox *box, uint32_t capacity)
{
    *box = (struct mailbox){.capacity = capacity};
}

void mailbox_free(struct mailbox *box)
{
    struct letter letter;
    while (mailbox_take(box, &letter))
        letter_drop(&letter);
    free(box->slot);
    mailbox_init(box, box->capacity);
}

static bool grow(struct mailbox *box)
{
    uint32_t slots = box->slots == 0 ? SLOTS_FIRST : box->slots * 2;
    struct letter *slot = malloc(slots * sizeof *slot);
    if (slot == NULL)
        return false;
    uint32_t depth = mailbox_depth(box);
    for (uint32_t i = 0; i < depth; i++)
        slot[i] = box->slot[(box->tail + i) & (box->slots - 1)];
    free(box->slot);
    box->slot = slot;
    box->slots = slots;
    box->tail = 0;
    box->head = depth;
    return true;
}

static bool put(struct mailbox *box, const struct letter *letter)
{
    if (mailbox_depth(box) == box->slots && !grow(box))
        return false;
    box->slot[box->head++ & (box->slots - 1)] = *letter;
    if (mailbox_depth(box) > box->depth_max)
        box->depth_max = mailbox_depth(box);
    return true;
}

enum dj_error mailbox_post(struct mailbox *box, const struct letter *letter)
{
    if (mailbox_is_full(box))
        return DJ_E_MAILBOX_FULL;
    return put(box, letter) ? DJ_OK : DJ_E_NO_MEMORY;
}

void mailbox_force(struct mailbox *box, const struct letter *letter)
{
    bool is_in = put(box, letter);
    assert(is_in);
}

bool mailbox_take(struct mailbox *box, struct letter *ret)
{
    if (box->head == box->tail)
        return false;
    *ret = box->slot[box->tail++ & (box->slots - 1)];
    return true;
}

static bool is_of_link(const struct letter *letter, uint64_t link)
{
    if (letter->kind != LETTER_EVENT)
        return false;
    switch (letter->event.kind) {
    case IO_RECV: return letter->event.recv.link == link;
    case IO_LINK_UP: return letter->event.link_up.link == link;
    case IO_LINK_DOWN: return letter->event.link_down.link == link;
    case IO_WRITABLE: return letter->event.writable.link == link;
    default: return false;
    }
}

uint32_t mailbox_move_link(struct mailbox *box, uint64_t link, struct mailbox *to)
{
    uint32_t moved = 0;
    for (uint32_t depth = mailbox_depth(box); depth > 0; depth--) {
        struct letter letter;
        mailbox_take(box, &letter);
        if (!is_of_link(&letter, link)) {
            mailbox_force(box, &letter);    // there is room: one was just taken
            continue;
        }
        moved++;
        if (to != NULL)
            mailbox_force(to, &letter);
        else
            letter_drop(&letter);
    }
    return moved;
}
