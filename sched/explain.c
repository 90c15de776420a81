// Explain: how a value came to be, where it is, what would bring it back and at what cost: `djinn explain HANDLE`. Reads the session's
// lineage as a recovery does and plans for nobody.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lineage/recovery.h"
#include "sched/state.h"

enum { EXPLANATION_BYTES_MAX = 1 << 20 };

struct explanation {
    struct list list;
    uint64_t link, request;
    struct handle handle;
    struct gather *gather;
    struct lineage_view *view;
    struct writer json;
    enum dj_error error;
};

static void explanation_free(struct explanation *job)
{
    list_remove(&job->list);
    gather_free(job->gather);
    writer_free(&job->json);
    free(job->view);
    free(job);
}

static bool is_known(const struct explanation *job)
{
    struct gather_cursor cursor = {0};
    struct record_ref key;
    const struct blob *value;

    while (gather_next(job->gather, &cursor, &key, &value))
        if (key.counter == job->handle.execution.counter && (key.output == UINT32_MAX || key.output == job->handle.output))
            return true;
    for (uint32_t i = 0; i < job->view->values; i++)
        if (job->view->value[i].ref.counter == job->handle.execution.counter &&
            job->view->value[i].ref.output == job->handle.output)
            return true;
    return false;
}

// On another thread.
static void *explain(void *input)
{
    struct explanation *job = input;
    struct recovery *recovery = NULL;
    struct recovery_options options = {.allows_close = true};
    struct record_ref ref = {.counter = job->handle.execution.counter, .output = job->handle.output};
    struct recovery_sum sum;
    struct fault fault = {0};

    job->error = is_known(job) ? recovery_make(job->handle.execution.session, &recovery) : DJ_E_NOT_FOUND;
    if (job->error == DJ_OK)
        job->error = gather_feed(job->gather, recovery);
    if (job->error == DJ_OK)
        job->error = recovery_add_view(recovery, job->view);
    if (job->error == DJ_OK)
        job->error = recovery_need(recovery, ref);
    if (job->error == DJ_OK) {
        enum dj_error error = recovery_plan(recovery, &options, gather_has_leaf, job->gather, &sum, &fault);
        job->error = error == DJ_E_LINEAGE ? DJ_OK : error;    // that is part of the explanation
    }
    if (job->error == DJ_OK)
        job->error = recovery_explain(recovery, ref, &job->json);
    recovery_free(recovery);
    return job;
}

static void add_names(struct head *head, struct explanation *job)
{
    uint64_t incarnation[LINEAGE_LOCATIONS_MAX];
    const struct head_session *session = map_get(head->sessions, map_key(job->handle.execution.session));
    struct record_ref ref = {.counter = job->handle.execution.counter, .output = job->handle.output};
    uint32_t count = session == NULL ? 0 : lineage_locations(session, ref, incarnation, LINEAGE_LOCATIONS_MAX);
    struct writer *json = &job->json;
    bool is_first = true;

    json->length--;    // the closing brace
    write_raw(json, ",\"held_by\":[", 12);
    for (uint32_t i = 0; i < count; i++) {
        const struct head_worker *worker = worker_living(head, incarnation[i]);
        if (worker == NULL)
            continue;
        write_raw(json, is_first ? "\"" : ",\"", is_first ? 1 : 2);
        for (const char *at = worker->name; *at != '\0'; at++)
            write_u8(json, *at == '"' || *at == '\\' || (unsigned char)*at < 0x20 ? '_' : (uint8_t)*at);
        write_raw(json, "\"", 1);
        is_first = false;
    }
    write_raw(json, "]}", 2);
}

static void fail(struct head *head, struct explanation *job, enum dj_error error)
{
    char text[HANDLE_TEXT];

    handle_text(job->handle, text);
    if (error == DJ_E_NOT_FOUND)
        head_reply_failed(
            head, job->link, job->request, error,
            "nothing is known of %s: it was never made, or its session is over, or nothing that lives needs it any more; "
            "'djinn status' lists the sessions",
            text);
    else
        head_reply_failed(head, job->link, job->request, error, "%s cannot be explained: %s", text, dj_error_text(error));
    explanation_free(job);
}

void explained(struct head *head, struct explanation *job)
{
    if (map_get(head->links, map_key(job->link)) == NULL) {
        explanation_free(job);
        return;
    }
    if (job->error == DJ_OK)
        add_names(head, job);
    if (job->error == DJ_OK && job->json.error != DJ_OK)
        job->error = DJ_E_LIMIT;
    if (job->error != DJ_OK) {
        fail(head, job, job->error);
        return;
    }
    admin_tell(head, job->link, job->request, job->json.data, job->json.length);
    explanation_free(job);
}

static void gathered(struct head *head, struct gather *gather, void *context, enum dj_error error, const struct fault *fault)
{
    static const struct head_session nobody;
    struct explanation *job = context;
    const struct head_session *session = map_get(head->sessions, map_key(job->handle.execution.session));

    (void)gather;
    (void)fault;
    if (error == DJ_OK && (job->view = lineage_view(head, session == NULL ? &nobody : session)) == NULL)
        error = DJ_E_NO_MEMORY;
    if (error != DJ_OK) {
        fail(head, job, error);
        return;
    }
    struct head_ticket *ticket = head_ticket(head, actor_compute(head->self, explain, job), TICKET_EXPLAIN);
    if (ticket != NULL)
        ticket->job = job;
}

void explain_ask(struct head *head, struct head_link *link, const struct wire_ask *ask)
{
    struct handle handle;

    if (!handle_parse(ask->argument, &handle)) {
        head_reply_failed(head, link->link, ask->request, DJ_E_INVALID,
                          "\"%s\" is not a handle; one is SESSION.EPOCH.NUMBER:OUTPUT, as in 17.1.42:3", ask->argument);
        return;
    }
    struct explanation *job = calloc(1, sizeof *job);
    if (job != NULL) {
        job->link = link->link;
        job->request = ask->request;
        job->handle = handle;
        job->json = writer_make(EXPLANATION_BYTES_MAX);
    }
    if (job != NULL)
        list_push(&head->explanations, &job->list);
    if (job == NULL || !gather_begin(head, handle.execution.session, gathered, job, &job->gather)) {
        if (job != NULL)
            explanation_free(job);
        head_reply_failed(head, link->link, ask->request, DJ_E_NO_MEMORY, "the head has no memory to explain it");
    }
}

void explanations_end(struct head *head)
{
    if (head->explanations.next == NULL)
        return;
    list_each (node, &head->explanations)
        explanation_free(list_entry(node, struct explanation, list));
}
