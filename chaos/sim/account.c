// Account: the manual is account.h.

#include "chaos/sim/account.h"

#include "core/base/arena.h"
#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/lineage/record.h"
#include "core/wire/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEEDS_FIRST = 64 };

// One submission. session 0: not sent yet.
struct deed {
    uint64_t counter, session, incarnation;
    uint32_t epoch;
    void *tag;
    bool is_execute, has_run, is_over;
};

struct mark {
    uint64_t session, counter, incarnation;
    uint32_t epoch;
};

void account_free(struct account *account)
{
    free(account->deed);
    free(account->mark);
}

static struct attached *link_at(struct account *account, uint64_t link)
{
    for (uint32_t i = 0; i < ACCOUNT_LINKS_MAX; i++)
        if (account->link[i].link == link)
            return &account->link[i];
    return NULL;
}

static struct deed *deed_of_tag(struct account *account, const void *tag)
{
    for (uint32_t i = account->deeds; i-- > 0;)
        if (account->deed[i].tag == tag && !account->deed[i].is_over)
            return &account->deed[i];
    return NULL;
}

void account_submitted(struct account *account, uint64_t counter, void *tag, bool is_execute)
{
    if (account->deeds == account->deed_capacity) {
        account->deed_capacity = account->deed_capacity == 0 ? DEEDS_FIRST : account->deed_capacity * 2;
        account->deed = realloc(account->deed, account->deed_capacity * sizeof *account->deed);
        assert(account->deed != NULL);
    }
    account->deed[account->deeds++] = (struct deed){.counter = counter, .tag = tag, .is_execute = is_execute};
}

void account_outcome(struct account *account, const void *tag, bool has_run)
{
    struct deed *deed = deed_of_tag(account, tag);
    if (deed == NULL) {
        sim_fail(account->sim, "%s: an outcome for a submission that has none to come", account->name);
        return;
    }
    deed->is_over = true;
    deed->has_run = has_run;
}

void account_sent(struct account *account, uint64_t link, uint16_t message, const struct blob *body)
{
    struct attached *at = link_at(account, link);
    if (at == NULL)
        return;
    if (message == WIRE_ATTACH) {
        struct wire_attach attach;
        if (wire_attach_decode(body->data, body->bytes, account->arena, &attach) == DJ_OK) {
            at->session = attach.session;
            at->epoch = attach.epoch;
        }
    } else if (message == WIRE_EXECUTE) {
        struct wire_execute execute;
        if (wire_execute_decode(body->data, body->bytes, account->arena, &execute) == DJ_OK)
            for (uint32_t i = account->deeds; i-- > 0;)
                if (account->deed[i].counter == execute.counter) {
                    account->deed[i].session = at->session;
                    account->deed[i].epoch = at->epoch;
                    account->deed[i].incarnation = at->incarnation;
                    break;
                }
    }
    if (message == WIRE_IMPORT) {
        struct wire_import import;
        if (wire_import_decode(body->data, body->bytes, account->arena, &import) == DJ_OK)
            account->imported(account->context, at->session, at->epoch, import.counter);
    }
    arena_reset(account->arena);
}

static void note_greeting(struct account *account, uint64_t link, const struct blob *body)
{
    struct attached *at = link_at(account, link);
    struct wire_hello_ok said;
    if (at != NULL && wire_hello_ok_decode(body->data, body->bytes, account->arena, &said) == DJ_OK)
        at->incarnation = said.incarnation;
    arena_reset(account->arena);
}

static void note_watermark(struct account *account, const struct blob *body)
{
    struct wire_watermark said;
    enum dj_error error = wire_watermark_decode(body->data, body->bytes, account->arena, &said);
    arena_reset(account->arena);
    if (error != DJ_OK)
        return;
    account->watermarks++;
    struct mark *mark = NULL;
    for (uint32_t i = 0; i < account->marks; i++)
        if (account->mark[i].session == said.session && account->mark[i].epoch == said.epoch &&
            account->mark[i].incarnation == said.incarnation)
            mark = &account->mark[i];
    if (mark == NULL) {
        account->mark = realloc(account->mark, (account->marks + 1) * sizeof *account->mark);
        assert(account->mark != NULL);
        mark = &account->mark[account->marks++];
        *mark = (struct mark){.session = said.session, .epoch = said.epoch, .incarnation = said.incarnation};
    }
    if (said.counter > mark->counter)
        mark->counter = said.counter;
}

static bool is_durable(const struct account *account, const struct deed *deed)
{
    uint8_t key[RECORD_KEY_MAX];
    struct exec_id id = {.session = deed->session, .counter = deed->counter};
    return sim_store_get(account->sim, account->head_node, STORE_EXECUTION, key, record_key_execution(id, key)) != NULL;
}

static bool covers(const struct mark *mark, const struct deed *deed)
{
    return mark->session == deed->session && mark->epoch == deed->epoch && mark->incarnation == deed->incarnation &&
           mark->counter >= deed->counter;
}

bool account_holds(const struct account *account, bool is_end, char text[SIM_TEXT_MAX])
{
    for (uint32_t i = 0; i < account->deeds; i++) {
        const struct deed *deed = &account->deed[i];
        if (!deed->is_execute || !deed->has_run)
            continue;
        bool is_acknowledged = is_end;
        for (uint32_t m = 0; m < account->marks && !is_acknowledged; m++)
            is_acknowledged = covers(&account->mark[m], deed);
        if (is_acknowledged && !is_durable(account, deed)) {
            snprintf(text, SIM_TEXT_MAX, "%s: execution %" PRIu64 " of session %" PRIu64 " was %s and is not in the store",
                     account->name, deed->counter, deed->session, is_end ? "answered" : "acknowledged");
            return false;
        }
    }
    return true;
}

void account_link_up(struct account *account, uint64_t link)
{
    struct attached *at = link_at(account, 0);
    assert(at != NULL);
    at->link = link;
}

void account_link_down(struct account *account, uint64_t link)
{
    struct attached *at = link_at(account, link);
    if (at != NULL)
        *at = (struct attached){0};
}

void account_received(struct account *account, uint64_t link, uint16_t message, const struct blob *body)
{
    if (message == WIRE_WATERMARK)
        note_watermark(account, body);
    else if (message == WIRE_HELLO_OK)
        note_greeting(account, link, body);
}
