// Witness, the clients' side: what each submitted, what it was answered, and what it was told is durable.

#include "chaos/sim/witness_state.h"

#include "core/base/assert.h"
#include "core/io/blob.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The account of a client's present life; NULL: not a client.
static struct account *account_of(struct witness *witness, uint32_t node, uint64_t life)
{
    uint32_t client = witness_index(witness->config.client, witness->config.clients, node);
    if (client == witness->config.clients)
        return NULL;
    struct account *account = &witness->account[client];
    if (account->life != life + 1) {
        account->life = life + 1;
        account->session = 0;
        account->deeds = account->questions = 0;
    }
    return account;
}

// Submissions --------------------------------------------------------------------------------------------------------------

static struct deed *deed_of(const struct account *account, const struct fact *fact)
{
    for (uint32_t i = account->deeds; i-- > 0;)
        if (account->deed[i].fact == fact)
            return &account->deed[i];
    return NULL;
}

static void submits(struct witness *witness, struct account *account, const struct sim_message *message, uint64_t counter)
{
    struct fact *fact = ledger_fact(witness->config.ledger, (struct exec_id){.session = account->session, .counter = counter});
    struct deed *deed = deed_of(account, fact);
    if (fact->was_stored)
        return;
    if (deed == NULL) {
        if (account->deeds == account->deed_capacity) {
            account->deed_capacity = account->deed_capacity == 0 ? DEEDS_FIRST : account->deed_capacity * 2;
            account->deed = realloc(account->deed, account->deed_capacity * sizeof *account->deed);
            assert(account->deed != NULL);
        }
        deed = &account->deed[account->deeds++];
        *deed = (struct deed){.fact = fact};
    }
    if (deed->has_run)
        return;    // a step of a recovery: it has its answer
    deed->is_marked = deed->is_marked && deed->node == message->to && deed->life == message->to_life;
    deed->node = message->to;
    deed->life = message->to_life;
}

static void check_mark(struct witness *witness, const struct deed *deed)
{
    char text[EXEC_ID_TEXT];
    if (deed->is_marked && deed->has_run && !deed->fact->was_stored &&
        !ledger_is_over(witness->config.ledger, deed->fact->id.session))
        sim_fail(witness->config.sim, "nothing acknowledged lost: execution %s was acknowledged and is not in the store",
                 exec_id_text(deed->fact->id, text));
}

static void answered(struct witness *witness, struct account *account, const struct sim_message *message, uint64_t counter,
                     bool has_run)
{
    uint64_t session = witness_link(witness, message->link)->session;
    if (session != account->session)
        return;
    struct fact *fact = ledger_fact(witness->config.ledger, (struct exec_id){.session = session, .counter = counter});
    struct deed *deed = deed_of(account, fact);
    if (deed == NULL || deed->has_run || deed->node != message->from || deed->life != message->from_life)
        return;
    if (!has_run) {
        *deed = account->deed[--account->deeds];
        return;
    }
    deed->has_run = true;
    check_mark(witness, deed);
}

static void marked(struct witness *witness, struct account *account, const struct wire_watermark *said)
{
    uint32_t worker = 0;
    while (worker < witness->config.workers && witness->incarnation[worker] != said->incarnation)
        worker++;
    witness->totals.watermarks++;
    if (worker == witness->config.workers)
        return;    // of a life that is over, or the client's own
    struct reader reader = reader_make(said->counters, said->counters_bytes);
    for (uint64_t counter = 0; reader_left(&reader) > 0;) {
        counter += read_var(&reader);
        struct deed *deed = deed_of(
            account, ledger_fact(witness->config.ledger, (struct exec_id){.session = said->session, .counter = counter}));
        if (deed == NULL || deed->node != witness->config.worker[worker] || deed->life != witness->life[worker])
            continue;
        deed->is_marked = true;
        check_mark(witness, deed);
    }
}

// Recoveries ---------------------------------------------------------------------------------------------------------------

static bool have_common(const struct question *a, const struct question *b)
{
    for (uint32_t i = 0; i < a->count; i++)
        for (uint32_t k = 0; k < b->count; k++)
            if (a->needed[i].counter == b->needed[k].counter && a->needed[i].output == b->needed[k].output)
                return true;
    return false;
}

// The last questions of a client. A later one about the same handles supersedes an earlier one.
static void asks(struct witness *witness, struct account *account, const struct wire_recover *said)
{
    struct reader reader = reader_make(said->needed, said->needed_bytes);
    if (account->question == NULL)
        account->question = calloc(QUESTIONS_MAX, sizeof *account->question);
    assert(account->question != NULL);
    if (account->questions == QUESTIONS_MAX)
        memmove(account->question, account->question + 1, --account->questions * sizeof *account->question);
    struct question *asked = &account->question[account->questions++];
    *asked = (struct question){.incarnation = said->incarnation};
    for (uint64_t counter = 0; reader_left(&reader) > 0 && asked->count < NEEDED_MAX;) {
        counter += read_var(&reader);
        asked->needed[asked->count++] = (struct record_ref){.counter = counter, .output = (uint32_t)read_var(&reader)};
    }
    witness->totals.recoveries++;
}

// A step goes out. The last question whose target that worker is must not have been asked again, for another one.
static void replays(struct witness *witness, const struct account *account, const struct sim_message *message, uint64_t counter)
{
    uint32_t worker = witness_index(witness->config.worker, witness->config.workers, message->to), asked = account->questions;
    char text[EXEC_ID_TEXT];
    if (worker == witness->config.workers || witness->life[worker] != message->to_life)
        return;
    while (asked > 0 && account->question[asked - 1].incarnation != witness->incarnation[worker])
        asked--;
    for (uint32_t i = asked; asked > 0 && i < account->questions; i++)
        if (have_common(&account->question[asked - 1], &account->question[i]))
            sim_fail(witness->config.sim, "one recovery at a time: %s is brought back at a worker after another was asked for",
                     exec_id_text((struct exec_id){.session = account->session, .counter = counter}, text));
}

// Listening ----------------------------------------------------------------------------------------------------------------

void witness_client_sends(struct witness *witness, const struct sim_message *message)
{
    struct account *account = account_of(witness, message->from, message->from_life);
    const struct blob *body = message->body;
    if (account == NULL)
        return;
    if (message->message == WIRE_ATTACH) {
        struct wire_attach said;
        if (wire_attach_decode(body->data, body->bytes, witness->arena, &said) != DJ_OK)
            return;
        *witness_link(witness,
                      message->link) = (struct heard_link){.session = said.session, .epoch = said.epoch, .stream = said.stream};
        if (account->session != said.session)
            account->deeds = 0;
        account->session = said.session;
    } else if (message->message == WIRE_EXECUTE) {
        struct wire_execute said;
        if (wire_execute_decode(body->data, body->bytes, witness->arena, &said) != DJ_OK)
            return;
        struct fact *fact = ledger_fact(witness->config.ledger,
                                        (struct exec_id){.session = account->session, .counter = said.counter});
        fact->has_names |= said.names_bytes > 0;
        witness->totals.replays += said.is_replay;
        if (said.is_replay)
            replays(witness, account, message, said.counter);
        else
            submits(witness, account, message, said.counter);
    } else if (message->message == WIRE_IMPORT) {
        struct wire_import said;
        if (wire_import_decode(body->data, body->bytes, witness->arena, &said) != DJ_OK)
            return;
        witness->totals.imports++;
        if (!said.is_replay)
            submits(witness, account, message, said.counter);
    } else if (message->message == WIRE_RECOVER) {
        struct wire_recover said;
        if (wire_recover_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK)
            asks(witness, account, &said);
    }
}

void witness_client_hears(struct witness *witness, const struct sim_message *message)
{
    struct account *account = account_of(witness, message->to, message->to_life);
    const struct blob *body = message->body;
    if (account == NULL)
        return;
    if (message->message == WIRE_ANSWER) {
        struct wire_answer said;
        if (wire_answer_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK)
            answered(witness, account, message, said.counter, true);
    } else if (message->message == WIRE_EXECUTION_FAILED) {
        struct wire_execution_failed said;
        if (wire_execution_failed_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK)
            answered(witness, account, message, said.counter, false);
    } else if (message->message == WIRE_WATERMARK) {
        struct wire_watermark said;
        if (wire_watermark_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK && said.session == account->session)
            marked(witness, account, &said);
    } else if (message->message == WIRE_RECOVERY) {
        struct wire_recovery said;
        if (wire_recovery_decode(body->data, body->bytes, witness->arena, &said) != DJ_OK)
            return;
        witness->totals.steps += said.steps;
    } else if (message->message == WIRE_FAILED) {
        struct wire_failed said;
        // Taken over: what it was answered is its successor's business.
        if (wire_failed_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK && said.error == DJ_E_EPOCH_FENCED)
            account->deeds = 0;
    } else if (message->message == WIRE_SESSION_GRANT) {
        struct wire_session_grant said;
        if (wire_session_grant_decode(body->data, body->bytes, witness->arena, &said) == DJ_OK)
            witness->totals.resumed += said.journalled > 0;
    }
}

// Claims -------------------------------------------------------------------------------------------------------------------

static bool window_holds(struct witness *witness, uint32_t client, char *text)
{
    struct account *account = account_of(witness, witness->config.client[client],
                                         sim_life(witness->config.sim, witness->config.client[client]));
    uint64_t executions, bytes, open = 0;
    void *self = sim_self(witness->config.sim, witness->config.client[client]);
    for (uint32_t i = 0; i < account->deeds;) {
        if (account->deed[i].fact->was_stored || ledger_is_over(witness->config.ledger, account->deed[i].fact->id.session))
            account->deed[i] = account->deed[--account->deeds];
        else
            open += account->deed[i++].has_run;
    }
    if (self == NULL || !witness->config.window(self, &executions, &bytes))
        return true;
    if (executions > witness->config.window_max || bytes > witness->config.window_bytes_max) {
        snprintf(text, SIM_TEXT_MAX, "a client keeps %" PRIu64 " executions and %" PRIu64 " bytes that are not durable",
                 executions, bytes);
        return false;
    }
    if (open > executions) {
        snprintf(text, SIM_TEXT_MAX, "a client was answered %" PRIu64 " executions that are not durable, and keeps %" PRIu64,
                 open, executions);
        return false;
    }
    return true;
}

bool witness_holds(struct sim *sim, void *context, char *text)
{
    struct witness *witness = context;
    (void)sim;
    for (uint32_t i = 0; i < witness->config.clients; i++)
        if (!window_holds(witness, i, text))
            return false;
    return true;
}
