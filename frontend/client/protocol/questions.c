// Questions: what is asked of the head for its owner: how things are, a tag to keep, a tag to give. Asked again on a new link.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/client/protocol/state.h"

static void question_end(struct protocol *protocol, struct question *question, enum dj_error error, const char *text,
                         const void *data, size_t bytes)
{
    list_remove(&question->node);
    protocol->port.told(protocol->port.self, question->tag, error, text, data, bytes);
    free(question->record);
    free(question);
}

static void question_send(struct protocol *protocol, struct question *question)
{
    uint64_t link = protocol->head_link;
    question->is_sent = true;
    switch ((enum question_kind)question->kind) {
    case QUESTION_ASK: {
        struct wire_ask message = {.request = question->request};
        memcpy(message.verb, question->verb, sizeof message.verb);
        memcpy(message.argument, question->argument, sizeof message.argument);
        send_message(protocol, link, WIRE_ASK, wire_ask_encode(&message));
        break;
    }
    case QUESTION_TAG_PUT: {
        struct wire_tag_put message = {
            .request = question->request, .record = question->record, .record_bytes = question->record_bytes};
        snprintf(message.name, sizeof message.name, "%.120s", question->argument);
        send_message(protocol, link, WIRE_TAG_PUT, wire_tag_put_encode(&message));
        break;
    }
    case QUESTION_TAG_GET: {
        struct wire_tag_get message = {.request = question->request};
        snprintf(message.name, sizeof message.name, "%.120s", question->argument);
        send_message(protocol, link, WIRE_TAG_GET, wire_tag_get_encode(&message));
        break;
    }
    }
}

void questions_send(struct protocol *protocol)
{
    list_each (node, &protocol->questions) {
        struct question *question = list_entry(node, struct question, node);
        // Tags belong to the session's tenant: not before the session is open.
        bool can_go = protocol->head == HEAD_READY || (protocol->head == HEAD_OPENING && question->kind == QUESTION_ASK);
        if (can_go && !question->is_sent)
            question_send(protocol, question);
    }
}

void questions_resend(struct protocol *protocol)
{
    list_each (node, &protocol->questions)
        list_entry(node, struct question, node)->is_sent = false;
}

bool question_answered(struct protocol *protocol, uint64_t request, enum dj_error error, const char *text, const void *data,
                       size_t bytes)
{
    list_each (node, &protocol->questions) {
        struct question *question = list_entry(node, struct question, node);
        if (question->request != request)
            continue;
        question_end(protocol, question, error, text, data, bytes);
        return true;
    }
    return false;
}

void questions_fail(struct protocol *protocol, enum dj_error error, const char *text)
{
    list_each (node, &protocol->questions)
        question_end(protocol, list_entry(node, struct question, node), error, text, NULL, 0);
}

static void ask(struct protocol *protocol, uint64_t now_ns, enum question_kind kind, const char *verb, const char *argument,
                const void *record, size_t record_bytes, void *tag)
{
    struct question *question = calloc(1, sizeof *question);
    uint8_t *copy = record_bytes == 0 ? NULL : malloc(record_bytes);
    protocol->now_ns = now_ns;
    bool fits = question != NULL && strlen(verb) < sizeof question->verb && strlen(argument) < sizeof question->argument;
    if (!fits || (record_bytes > 0 && copy == NULL) || protocol->is_fenced) {
        enum dj_error error = protocol->is_fenced        ? protocol->fault.code
                              : question == NULL || fits ? DJ_E_NO_MEMORY
                                                         : DJ_E_INVALID;
        free(question);
        free(copy);
        protocol->port.told(protocol->port.self, tag, error,
                            protocol->is_fenced ? protocol->fault.text : "the question is too long", NULL, 0);
        return;
    }
    if (copy != NULL)
        memcpy(copy, record, record_bytes);
    question->kind = (uint8_t)kind;
    question->request = ++protocol->next_request;
    question->tag = tag;
    question->record = copy;
    question->record_bytes = (uint32_t)record_bytes;
    snprintf(question->verb, sizeof question->verb, "%s", verb);
    snprintf(question->argument, sizeof question->argument, "%s", argument);
    list_push(&protocol->questions, &question->node);
    if (protocol->head == HEAD_CLOSED)
        head_dial(protocol, now_ns);
    questions_send(protocol);
}

void protocol_ask(struct protocol *protocol, uint64_t now_ns, const char *verb, const char *argument, void *tag)
{
    ask(protocol, now_ns, QUESTION_ASK, verb, argument, NULL, 0, tag);
}

void protocol_tag_put(struct protocol *protocol, uint64_t now_ns, const char *name, const void *record, size_t bytes, void *tag)
{
    ask(protocol, now_ns, QUESTION_TAG_PUT, "", name, record, bytes, tag);
}

void protocol_tag_get(struct protocol *protocol, uint64_t now_ns, const char *name, void *tag)
{
    ask(protocol, now_ns, QUESTION_TAG_GET, "", name, NULL, 0, tag);
}
