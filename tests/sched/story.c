// Story: see story.h.

#include "tests/sched/story.h"

#include "core/io/blob.h"
#include "core/ops/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_BYTES = 1 << 20, NUMERICS_TEXT = 4 };

static void story_free(void *object)
{
    struct story *story = object;
    graph_result_free(&story->begin.graph);
    graph_result_free(&story->step.graph);
    history_free(&story->begin.history);
    history_free(&story->step.history);
    free(story);
}

static void make_plan(struct story_plan *plan, bool is_leaf)
{
    struct graph *graph = graph_make();
    int64_t size[2] = {2, 3};

    graph_keep(graph, OP2(graph, OP_MUL, graph_input(graph, is_leaf, DTYPE_F32, 2, size), graph_scalar(graph, 1234.5)));
    plan->graph = graph_finish(graph);
    history_init(&plan->history, plan->graph.plan->words);
    double scalar = 1234.5;
    int64_t bits;
    memcpy(&bits, &scalar, sizeof bits);
    while (plan->scalar < plan->graph.plan->words && plan->graph.word[plan->scalar] != bits)
        plan->scalar++;
    assert_true(plan->scalar < plan->graph.plan->words);
}

struct story *story_make(void **state, struct rig *rig)
{
    struct story *story = calloc(1, sizeof *story);

    assert_non_null(story);
    story->rig = rig;
    make_plan(&story->begin, true);
    make_plan(&story->step, false);
    case_later(state, story_free, story);
    return story;
}

uint64_t story_open(struct story *story, const char *name, const uint64_t *worker, uint32_t workers)
{
    struct rig *rig = story->rig;
    uint64_t client = rig_link(rig, ROLE_CLIENT, (struct hash128){1, 2});
    struct wire_session_open open = {.request = 1, .device_index = -1};
    struct wire_admit admit;
    struct wire_session_grant grant;

    snprintf(open.name, sizeof open.name, "%s", name);
    rig_say(rig, client, WIRE_SESSION_OPEN, wire_session_open_encode(&open), NULL);
    for (uint32_t i = 0; i < workers; i++) {
        const struct rig_sent *sent;
        while ((sent = rig_heard(rig, worker[i], WIRE_ADMIT)) != NULL) {
            assert_ok(wire_admit_decode(sent->body->data, sent->body->bytes, rig->arena, &admit));
            SAY(rig, worker[i], ADMITTED, admitted, .session = admit.session, .epoch = admit.epoch);
        }
    }
    HEARD(rig, client, SESSION_GRANT, session_grant, &grant);
    story->session = grant.session;
    story->epoch = grant.epoch;
    return client;
}

static void write_plan(struct writer *writer, const struct srg_plan *plan)
{
    struct writer bytes = writer_make(STREAM_BYTES);
    assert_ok(plan_encode(plan, &bytes));
    struct record record = {.kind = RECORD_PLAN,
                            .plan = {.fingerprint = plan->fingerprint, .bytes = bytes.data, .length = bytes.length}};
    record_write(writer, &record);
    writer_free(&bytes);
}

static void write_execution(struct story *story, struct writer *writer)
{
    static const uint8_t keep[1] = {1};
    bool is_step = story->made > 0 && !story->begins;
    struct story_plan *plan = is_step ? &story->step : &story->begin;
    int64_t *word = plan->graph.word;
    struct record *record = calloc(1, sizeof *record);
    struct record_execution *execution = &record->execution;
    struct writer delta = writer_make(STREAM_BYTES), gone = writer_make(STREAM_BYTES);

    record->kind = RECORD_EXECUTION;
    execution->id = (struct exec_id){.session = story->session, .counter = ++story->made};
    execution->plan = plan->graph.plan->fingerprint;
    execution->numerics = (uint32_t)hash64("test", NUMERICS_TEXT);
    execution->cost_ns = 1000;
    execution->keep = (struct record_bits){.bits = keep, .bytes = 1};
    execution->base = story->is_alone ? 0 : plan->last;
    execution->before = story->is_alone ? 0 : plan->before;
    if (is_step) {
        struct record_ref ended = {.counter = story->made - 1};
        binding_set_handle(plan->graph.plan, word, 0, 1, 0);
        execution->producers = 1;
        execution->producer[0] = story->made - 1;
        if (!story->keeps)
            record_refs_write(&gone, story->made, &ended, 1);
    }
    double scalar = (double)hash_mix(5, story->made) / 1e19;
    memcpy(&word[plan->scalar], &scalar, sizeof scalar);
    execution->check = record_words_check(word, plan->graph.plan->words);
    struct binding_history none = {.words = plan->history.words};
    bindings_encode(story->is_alone ? &none : &plan->history, word, &delta);
    assert_ok(history_push(&plan->history, word));
    plan->before = plan->last;
    plan->last = story->made;
    execution->delta = delta.data;
    execution->delta_length = (uint32_t)delta.length;
    execution->gone = gone.data;
    execution->gone_bytes = (uint32_t)gone.length;
    record_write(writer, record);
    writer_free(&delta);
    writer_free(&gone);
    free(record);
}

static void say(struct story *story, uint64_t link, const struct writer *writer, uint32_t count)
{
    struct wire_journal journal = {
        .first = story->journalled + 1, .count = count, .records = writer->data, .records_bytes = (uint32_t)writer->length};

    assert_ok(writer->error);
    story->journalled += count;
    rig_say(story->rig, link, WIRE_JOURNAL, wire_journal_encode(&journal), NULL);
}

void story_run(struct story *story, uint64_t link, uint32_t count)
{
    struct writer writer = writer_make(STREAM_BYTES);
    uint32_t records = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct story_plan *plan = story->made > 0 && !story->begins ? &story->step : &story->begin;
        if (plan->last == 0) {
            write_plan(&writer, plan->graph.plan);
            records++;
        }
        write_execution(story, &writer);
        records++;
    }
    say(story, link, &writer, records);
    writer_free(&writer);
}

void story_journal(struct story *story, uint64_t link, const struct record *record)
{
    struct writer writer = writer_make(STREAM_BYTES);

    record_write(&writer, record);
    say(story, link, &writer, 1);
    writer_free(&writer);
}

void story_recover(struct story *story, uint64_t client, uint64_t counter, uint64_t target, uint64_t lost, uint64_t absent)
{
    struct writer needed = writer_make(64), gone = writer_make(64);
    struct wire_recover recover = {
        .request = 9, .session = story->session, .epoch = story->epoch, .incarnation = target, .lost = lost};

    write_var(&needed, counter);
    write_var(&needed, 0);
    if (absent != 0) {
        write_var(&gone, absent);
        write_var(&gone, 0);
    }
    recover.needed = needed.data;
    recover.needed_bytes = (uint32_t)needed.length;
    recover.absent = gone.data;
    recover.absent_bytes = (uint32_t)gone.length;
    rig_say(story->rig, client, WIRE_RECOVER, wire_recover_encode(&recover), NULL);
    writer_free(&needed);
    writer_free(&gone);
}

static void count_step(const struct recovery_step *step, struct story_steps *ret)
{
    if (ret->all++ == 0)
        ret->first = step->counter;
    ret->replays += step->kind == STEP_REPLAY;
    ret->fetches += step->kind == STEP_FETCH;
    ret->restores += step->kind == STEP_RESTORE;
}

bool story_recovery(struct story *story, uint64_t client, struct story_steps *ret)
{
    struct record_scratch scratch;
    struct record_plan plan;
    struct recovery_step step;
    const struct rig_sent *sent;
    bool is_last = false;

    *ret = (struct story_steps){0};
    assert_null(rig_heard(story->rig, client, WIRE_FAILED));
    assert_ok(record_scratch_make(&scratch));
    while (!is_last && (sent = rig_heard(story->rig, client, WIRE_RECOVERY)) != NULL) {
        struct wire_recovery part;
        assert_ok(wire_recovery_decode(sent->body->data, sent->body->bytes, story->rig->arena, &part));
        assert_int_equal(part.request, 9);
        is_last = part.is_last;
        struct recovery_reader reader = {
            .reader = reader_make(part.encoded, part.encoded_bytes), .arena = story->rig->arena, .scratch = &scratch};
        enum recovery_item item;
        while ((item = recovery_next(&reader, &plan, &step)) != RECOVERY_END) {
            assert_int_not_equal(item, RECOVERY_BAD);
            if (item == RECOVERY_STEP)
                count_step(&step, ret);
        }
    }
    record_scratch_free(&scratch);
    return is_last;
}
