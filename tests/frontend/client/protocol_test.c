// What the protocol promises, against a scripted head and worker: one outcome for every submission, fetch and question, whatever the links
// do; what was answered is not sent again; nothing waits for ever.

#include "frontend/client/protocol/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/blob.h"
#include "core/srg/bindings.h"
#include "core/wire/wire.h"
#include "tests/lib/case.h"

enum { SENT_MAX = 4096, TAGS_MAX = 2048, HEAD_LINK = 1000, WORKER_LINK = 2000, INCARNATION = 77, SESSION = 5 };
#define MS ((uint64_t)1000000)

struct sent {
    uint64_t link;
    uint16_t message;
    struct blob *body, *bulk;
    uint64_t bulk_offset, bulk_bytes;
};
struct outcome {
    uint32_t executed, failed, answers, fetched, told;
    enum dj_error error;
    char text[200];
    uint8_t data[16];
};

struct stage {
    struct protocol *protocol;
    struct leaf_table *leaves;
    struct arena *arena;
    uint64_t now_ns, requests, opened;    // opened: the last request to open a link
    char address[IO_ADDRESS_MAX];
    uint64_t closed;    // the last link closed
    struct sent sent[SENT_MAX];
    uint32_t sents, seen;    // seen: the script has looked at
    struct outcome outcome[TAGS_MAX];
    uint32_t places_lost;
    struct srg_plan *plan;
    struct leaf *leaf;
    uint64_t link;    // the worker's current one
};

static struct outcome *outcome_of(struct stage *stage, void *tag)
{
    return &stage->outcome[(uintptr_t)tag];
}

static uint64_t port_open(void *self, const char *address)
{
    struct stage *stage = self;
    snprintf(stage->address, sizeof stage->address, "%s", address);
    return stage->opened = ++stage->requests;
}

static void port_close(void *self, uint64_t link)
{
    ((struct stage *)self)->closed = link;
}

static void port_send(void *self, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk, uint64_t offset,
                      uint64_t bytes, uint64_t not_after)
{
    struct stage *stage = self;
    (void)not_after;
    assert_true(stage->sents < SENT_MAX);
    stage->sent[stage->sents++] = (struct sent){link, message, body, bulk, offset, bytes};
}

static void port_answered(void *self, void *tag, uint32_t output, struct blob *blob, uint64_t offset, uint64_t length)
{
    struct outcome *outcome = outcome_of(self, tag);
    (void)output;
    outcome->answers++;
    memcpy(outcome->data, blob->data + offset, length < 16 ? length : 16);
}

static void port_executed(void *self, void *tag)
{
    outcome_of(self, tag)->executed++;
}

static void port_failed(void *self, void *tag, enum dj_error error, int64_t node, const char *text)
{
    struct outcome *outcome = outcome_of(self, tag);
    (void)node;
    outcome->failed++;
    outcome->error = error;
    snprintf(outcome->text, sizeof outcome->text, "%s", text);
}

static void port_place_lost(void *self, uint32_t place, enum dj_error error, const char *text)
{
    (void)place, (void)error, (void)text;
    ((struct stage *)self)->places_lost++;
}

static void port_fetched(void *self, void *tag, enum dj_error error, const char *text, struct blob *blob, uint64_t length)
{
    struct outcome *outcome = outcome_of(self, tag);
    outcome->fetched++;
    outcome->error = error;
    snprintf(outcome->text, sizeof outcome->text, "%s", text);
    if (blob != NULL)
        memcpy(outcome->data, blob->data, length < 16 ? length : 16);
}

static void port_told(void *self, void *tag, enum dj_error error, const char *text, const void *data, size_t bytes)
{
    struct outcome *outcome = outcome_of(self, tag);
    outcome->told++;
    outcome->error = error;
    snprintf(outcome->text, sizeof outcome->text, "%s%.*s", text, (int)bytes, (const char *)data);
}

// The stage ----------------------------------------------------------------------------------------------------------------

static struct srg_plan *plan_make(void)
{
    struct plan_builder *builder;
    struct srg_plan *plan;
    uint32_t input, node;
    assert_ok(plan_builder_make(&builder));
    struct srg_input leaf = {.is_leaf = true, .is_contiguous = true, .dtype = DTYPE_F32, .rank = 1};
    assert_ok(plan_add_input(builder, &leaf, &input));
    struct srg_ref refs[2] = {{.kind = REF_INPUT, .index = input}, {.kind = REF_INPUT, .index = input}};
    struct attr alpha = {.kind = ATTR_INT, .i = 1};
    assert_ok(plan_add_node(builder, op_info(OP_ADD), refs, 2, &alpha, (uint8_t[OP_OUTPUTS_MAX]){DTYPE_F32}, 0, 255, &node));
    assert_ok(plan_finish(builder, &plan, NULL));
    plan_builder_free(builder);
    return plan;
}

static void stage_end(void *object)
{
    struct stage *stage = object;
    protocol_free(stage->protocol);
    for (uint32_t i = 0; i < stage->sents; i++) {
        blob_drop(stage->sent[i].body);
        blob_drop(stage->sent[i].bulk);
    }
    plan_drop(stage->plan);
    leaf_drop(stage->leaf);
    leaf_table_free(stage->leaves);
    free(stage);
}

static struct stage *stage_make(void **state)
{
    ops_init();
    struct stage *stage = calloc(1, sizeof *stage);
    stage->arena = case_arena(state);
    stage->now_ns = 1000 * MS;
    assert_ok(leaf_table_make(&stage->leaves));
    struct protocol_config config = {.head = "tcp://h:1",
                                     .tenant = "default",
                                     .host = "here",
                                     .incarnation = 9,
                                     .timeout_ns = 5000 * MS,
                                     .leaves = stage->leaves};
    struct protocol_port port = {.self = stage,
                                 .link_open = port_open,
                                 .link_close = port_close,
                                 .send = port_send,
                                 .answered = port_answered,
                                 .executed = port_executed,
                                 .failed = port_failed,
                                 .place_lost = port_place_lost,
                                 .fetched = port_fetched,
                                 .told = port_told};
    assert_ok(protocol_make(&config, &port, &stage->protocol));
    stage->plan = plan_make();
    assert_ok(leaf_of(stage->leaves, (float[]){1, 2, 3, 4}, 16, &stage->leaf));
    case_later(state, stage_end, stage);
    protocol_start(stage->protocol, stage->now_ns);
    return stage;
}

static void up(struct stage *stage, uint64_t link)
{
    struct io_event event = {.kind = IO_LINK_UP, .link_up = {.link = link, .request = stage->opened}};
    protocol_event(stage->protocol, stage->now_ns, &event);
}

static void down(struct stage *stage, uint64_t link)    // 0: the dial that is under way
{
    struct io_event event = {.kind = IO_LINK_DOWN, .link_down = {.link = link, .request = stage->opened, .error = DJ_E_CLOSED}};
    protocol_event(stage->protocol, stage->now_ns, &event);
}

static void receive(struct stage *stage, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk)
{
    assert_non_null(body);
    struct io_event event = {.kind = IO_RECV, .recv = {.link = link, .message = message, .body = body, .bulk = bulk}};
    protocol_event(stage->protocol, stage->now_ns, &event);
}

static void pass(struct stage *stage, uint64_t ns)
{
    uint64_t end_ns = stage->now_ns + ns;
    for (uint64_t at = protocol_deadline_ns(stage->protocol); at <= end_ns; at = protocol_deadline_ns(stage->protocol)) {
        stage->now_ns = at > stage->now_ns ? at : stage->now_ns + 1;
        protocol_tick(stage->protocol, stage->now_ns);
    }
    stage->now_ns = end_ns;
}

// The next message sent, which must be of this kind.
static const struct sent *next(struct stage *stage, uint16_t message)
{
    if (stage->seen == stage->sents)
        fail_msg("nothing was sent where %s was expected", wire_name(message));
    const struct sent *sent = &stage->sent[stage->seen++];
    if (sent->message != message)
        fail_msg("%s was sent where %s was expected", wire_name(sent->message), wire_name(message));
    return sent;
}

static void nothing_more(struct stage *stage)
{
    assert_int_equal(stage->seen, stage->sents);
}

#define DECODE(name, from, ret) \
    do { \
        const struct blob *body = (from)->body; \
        assert_ok(wire_##name##_decode(body->data, body->bytes, stage->arena, (ret))); \
    } while (0)
#define RECEIVE(link, NAME, name, ...) \
    receive(stage, (link), WIRE_##NAME, wire_##name##_encode(&(struct wire_##name){__VA_ARGS__}), NULL)

static void grant(struct stage *stage, uint64_t request, uint64_t incarnation)
{
    struct wire_grant one = {.device_index = 0,
                             .worker = 3,
                             .name = "w0",
                             .address_tcp = "tcp://w:2",
                             .address_unix = "unix:///w",
                             .host = "there",
                             .incarnation = incarnation,
                             .secret = {1, 2}};
    RECEIVE(HEAD_LINK, SESSION_GRANT, session_grant, .request = request, .session = SESSION, .epoch = 1, .generation = 1,
            .pool_devices = 2, .grants = &one, .grants_count = 1);
}

static void open_head(struct stage *stage)
{
    up(stage, HEAD_LINK);
    next(stage, WIRE_HELLO);
    RECEIVE(HEAD_LINK, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    struct wire_session_open open;
    DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
    grant(stage, open.request, INCARNATION);
    assert_int_equal(protocol_state(stage->protocol, NULL), PROTOCOL_READY);
}

static void open_worker(struct stage *stage, uint64_t link, uint64_t last_counter)
{
    stage->link = link;
    up(stage, link);
    next(stage, WIRE_HELLO);
    RECEIVE(link, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = INCARNATION);
    struct wire_attach attach;
    DECODE(attach, next(stage, WIRE_ATTACH), &attach);
    assert_int_equal(attach.session, SESSION);
    RECEIVE(link, ATTACHED, attached, .incarnation = INCARNATION, .generation = 1, .last_counter = last_counter);
}

static struct stage *stage_ready(void **state)
{
    struct stage *stage = stage_make(state);
    open_head(stage);
    assert_string_equal(stage->address, "tcp://w:2");    // another host: no unix socket
    open_worker(stage, WORKER_LINK, 0);
    nothing_more(stage);
    return stage;
}

static void submit(struct stage *stage, uint64_t counter)
{
    int64_t word[16] = {0};
    assert_true(stage->plan->words <= 16);
    struct tensor_meta meta = {.dtype = DTYPE_F32, .rank = 1, .size = {4}, .stride = {1}};
    binding_set_meta(stage->plan, word, 0, &meta);
    binding_set_leaf(stage->plan, word, 0, stage->leaf->content);
    binding_set_node(stage->plan, word, 0, &(struct attr){.kind = ATTR_INT, .i = (int64_t)counter}, NULL);
    struct submission submission = {.place = protocol_place(stage->protocol, stage->now_ns, -1),
                                    .counter = counter,
                                    .plan = stage->plan,
                                    .word = word,
                                    .kept = (uint8_t[]){1},
                                    .donated = (uint8_t[]){0},
                                    .answers = (uint32_t[]){0},
                                    .answers_count = 1,
                                    .leaves = &stage->leaf,
                                    .leaves_count = 1,
                                    .tag = (void *)(uintptr_t)counter};
    protocol_submit(stage->protocol, stage->now_ns, &submission);
}

static void answer(struct stage *stage, uint64_t counter)
{
    struct wire_output output = {.dtype = DTYPE_F32, .bytes = 8, .data = (const uint8_t *)"abcdefgh", .data_bytes = 8};
    RECEIVE(stage->link, ANSWER, answer, .counter = counter, .incarnation = INCARNATION, .generation = 1, .outputs = &output,
            .outputs_count = 1);
}

static struct wire_execute execute_of(struct stage *stage)
{
    struct wire_execute execute;
    DECODE(execute, next(stage, WIRE_EXECUTE), &execute);
    return execute;
}

// Tests --------------------------------------------------------------------------------------------------------------------

static void a_submission_is_answered(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    struct wire_execute execute = execute_of(stage);
    assert_true(execute.reset);
    assert_int_equal(execute.leaves_count, 1);
    assert_int_equal(execute.leaves[0].data_bytes, 16);
    answer(stage, 1);
    assert_int_equal(stage->outcome[1].executed, 1);
    assert_int_equal(stage->outcome[1].answers, 1);
    assert_memory_equal(stage->outcome[1].data, "abcdefgh", 8);
    assert_true(protocol_is_idle(stage->protocol));
}

static void the_second_of_its_kind_is_a_few_bytes(void **state)
{
    struct stage *stage = stage_ready(state);
    for (uint64_t counter = 1; counter <= 4; counter++) {
        submit(stage, counter);
        if (counter == 1)
            next(stage, WIRE_PLAN);
        const struct sent *sent = &stage->sent[stage->seen];
        struct wire_execute execute = execute_of(stage);
        answer(stage, counter);
        if (counter > 1) {
            assert_int_equal(execute.leaves_count + execute.kept_bytes + execute.donated_bytes, 0);
            assert_int_equal(execute.confirmed, counter - 1);
            assert_true(sent->body->bytes <= 24);
        }
    }
}

static void a_link_that_was_lost_is_remade_and_only_what_is_unanswered_goes_again(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    submit(stage, 2);
    submit(stage, 3);
    answer(stage, 1);
    down(stage, WORKER_LINK);
    pass(stage, 1 * MS);
    submit(stage, 4);    // while the link is away
    stage->seen = stage->sents;
    open_worker(stage, WORKER_LINK + 1, 2);
    next(stage, WIRE_PLAN);
    for (uint64_t counter = 2; counter <= 4; counter++) {
        struct wire_execute execute = execute_of(stage);
        assert_int_equal(execute.counter, counter);
        assert_int_equal(execute.reset, counter == 2);
    }
    nothing_more(stage);
    answer(stage, 2);
    answer(stage, 2);    // told twice, taken once
    answer(stage, 4);    // speaks for 3 too
    for (uint64_t counter = 1; counter <= 4; counter++)
        assert_int_equal(stage->outcome[counter].executed, 1);
    assert_int_equal(protocol_stats(stage->protocol).resubmissions, 2);
    assert_int_equal(stage->places_lost, 0);
}

static void a_worker_that_refuses_its_link_is_lost_within_a_second(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    protocol_fetch(stage->protocol, stage->now_ns, 0, 1, 0, (void *)2);
    down(stage, WORKER_LINK);
    uint64_t begun_ns = stage->now_ns;
    while (stage->outcome[1].failed == 0) {
        assert_true(stage->now_ns - begun_ns < 1000 * MS);
        pass(stage, 10 * MS);
        down(stage, 0);
    }
    assert_int_equal(stage->outcome[1].error, DJ_E_WORKER_LOST);
    assert_int_equal(stage->outcome[2].fetched, 1);
    assert_int_equal(stage->outcome[2].error, DJ_E_WORKER_LOST);
    assert_int_equal(stage->places_lost, 1);
    assert_non_null(strstr(stage->outcome[1].text, "w0"));
}

static void a_worker_that_never_comes_back_is_lost_within_a_second_too(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    down(stage, WORKER_LINK);
    pass(stage, 1000 * MS);    // the dial neither succeeds nor fails
    assert_int_equal(stage->outcome[1].error, DJ_E_WORKER_LOST);
}

static void after_a_loss_new_work_gets_a_new_grant(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = INCARNATION);
    assert_int_equal(stage->outcome[1].error, DJ_E_WORKER_LOST);
    assert_int_equal(stage->closed, WORKER_LINK);
    stage->seen = stage->sents;
    submit(stage, 2);
    struct wire_grant_ask ask;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    assert_int_equal(ask.device_index, -1);
    grant(stage, ask.request, INCARNATION);
    open_worker(stage, WORKER_LINK + 1, 0);
    next(stage, WIRE_PLAN);
    struct wire_execute execute = execute_of(stage);
    assert_int_equal(execute.leaves_count, 1);    // this worker was never told
    answer(stage, 2);
    assert_int_equal(stage->outcome[2].executed, 1);
    submit(stage, 3);
    assert_int_equal(protocol_place(stage->protocol, stage->now_ns, -1), 1);
}

static void another_life_of_the_worker_is_not_the_worker(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    down(stage, WORKER_LINK);
    pass(stage, 1 * MS);
    up(stage, WORKER_LINK + 1);
    RECEIVE(WORKER_LINK + 1, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = INCARNATION + 1);
    assert_int_equal(stage->outcome[1].error, DJ_E_WORKER_LOST);
}

static void a_head_that_says_no_is_quoted(void **state)
{
    struct stage *stage = stage_make(state);
    up(stage, HEAD_LINK);
    struct fault fault = {0};
    RECEIVE(HEAD_LINK, FAILED, failed, .error = DJ_E_TOKEN, .text = "wrong token");
    assert_int_equal(protocol_state(stage->protocol, &fault), PROTOCOL_FAILED);
    assert_int_equal(fault.code, DJ_E_TOKEN);
    assert_string_equal(fault.text, "wrong token");
}

static void a_head_that_is_not_there_is_named_within_a_second(void **state)
{
    struct stage *stage = stage_make(state);
    struct fault fault = {0};
    for (int i = 0; i < 100; i++) {
        down(stage, 0);
        pass(stage, 10 * MS);
    }
    assert_int_equal(protocol_state(stage->protocol, &fault), PROTOCOL_FAILED);
    assert_int_equal(fault.code, DJ_E_NO_HEAD);
    assert_non_null(strstr(fault.text, "h:1"));
}

static void a_head_that_says_nothing_times_out(void **state)
{
    struct stage *stage = stage_make(state);
    struct fault fault = {0};
    up(stage, HEAD_LINK);
    pass(stage, 6000 * MS);
    assert_int_equal(protocol_state(stage->protocol, &fault), PROTOCOL_FAILED);
    assert_int_equal(fault.code, DJ_E_TIMEOUT);
}

static void a_question_is_answered_or_its_failure_is(void **state)
{
    struct stage *stage = stage_ready(state);
    protocol_ask(stage->protocol, stage->now_ns, "status", "", (void *)1);
    struct wire_ask ask;
    DECODE(ask, next(stage, WIRE_ASK), &ask);
    assert_string_equal(ask.verb, "status");
    RECEIVE(HEAD_LINK, TOLD, told, .request = ask.request, .data = (const uint8_t *)"{}", .data_bytes = 2);
    assert_string_equal(stage->outcome[1].text, "{}");
    down(stage, HEAD_LINK);
    protocol_ask(stage->protocol, stage->now_ns, "status", "", (void *)2);
    down(stage, 0);
    for (int i = 0; i < 10; i++)
        pass(stage, 100 * MS), down(stage, 0);
    assert_int_equal(stage->outcome[2].told, 1);
    assert_int_equal(stage->outcome[2].error, DJ_E_NO_HEAD);
}

static void work_goes_on_when_the_head_is_gone(void **state)
{
    struct stage *stage = stage_ready(state);
    down(stage, HEAD_LINK);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    next(stage, WIRE_EXECUTE);
    answer(stage, 1);
    assert_int_equal(stage->outcome[1].executed, 1);
}

static void a_lost_head_is_dialled_again_and_the_session_resumed(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    next(stage, WIRE_EXECUTE);
    answer(stage, 1);
    down(stage, HEAD_LINK);
    for (int refused = 0; refused < 3; refused++) {
        pass(stage, 1000 * MS);
        down(stage, 0);
    }
    pass(stage, 1000 * MS);
    up(stage, HEAD_LINK + 50);
    next(stage, WIRE_HELLO);
    RECEIVE(HEAD_LINK + 50, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    struct wire_session_open open;
    DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
    assert_int_equal(open.session, SESSION);
    assert_int_equal(open.epoch, 1);
    assert_int_equal(open.device_index, -2);
    RECEIVE(HEAD_LINK + 50, SESSION_GRANT, session_grant, .request = open.request, .session = SESSION, .epoch = 1,
            .generation = 2);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 1);
    RECEIVE(HEAD_LINK + 50, WATERMARK, watermark, .session = SESSION, .epoch = 1, .counter = 1, .incarnation = INCARNATION);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 0);
}

static void the_window_is_bounded_and_answers_and_durability_open_it(void **state)
{
    struct stage *stage = stage_ready(state);
    uint64_t counter = 0;
    while (!protocol_is_full(stage->protocol))
        submit(stage, ++counter);
    assert_int_equal(counter, PROTOCOL_IN_FLIGHT_MAX);
    for (uint64_t c = 1; c <= counter; c++)
        answer(stage, c);
    assert_false(protocol_is_full(stage->protocol));
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, counter);
    RECEIVE(HEAD_LINK, WATERMARK, watermark, .session = SESSION, .epoch = 1, .counter = counter, .incarnation = INCARNATION + 1);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, counter);    // another worker's mark
    RECEIVE(HEAD_LINK, WATERMARK, watermark, .session = SESSION, .epoch = 1, .counter = counter - 1, .incarnation = INCARNATION);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 1);
}

static void a_failed_execution_fails_alone(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    submit(stage, 2);
    RECEIVE(WORKER_LINK, EXECUTION_FAILED, execution_failed, .counter = 1, .incarnation = INCARNATION,
            .error = DJ_E_DEVICE_MEMORY, .node = 0, .text = "full");
    answer(stage, 2);
    assert_int_equal(stage->outcome[1].failed, 1);
    assert_int_equal(stage->outcome[1].error, DJ_E_DEVICE_MEMORY);
    assert_string_equal(stage->outcome[1].text, "full");
    assert_int_equal(stage->outcome[2].executed, 1);
}

static void a_lost_link_may_have_lost_leaves_so_they_are_named_again(void **state)
{
    struct stage *stage = stage_ready(state);
    struct wire_execute execute;
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    DECODE(execute, next(stage, WIRE_EXECUTE), &execute);
    assert_int_equal(execute.leaves_count, 1);
    down(stage, WORKER_LINK);
    pass(stage, 200 * MS);
    open_worker(stage, WORKER_LINK + 1, 0);
    next(stage, WIRE_PLAN);
    DECODE(execute, next(stage, WIRE_EXECUTE), &execute);
    assert_int_equal(execute.leaves_count, 1);
}

static void a_session_never_has_two_streams_at_one_worker(void **state)
{
    struct stage *stage = stage_ready(state);
    uint32_t home = protocol_place(stage->protocol, stage->now_ns, -1), other = protocol_place(stage->protocol, stage->now_ns, 1);
    assert_int_not_equal(home, other);
    struct wire_grant_ask ask;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    grant(stage, ask.request, INCARNATION);
    assert_int_equal(stage->places_lost, 1);
    nothing_more(stage);
    assert_int_equal(protocol_place(stage->protocol, stage->now_ns, -1), home);
}

static void a_large_leaf_is_offered_and_sent_in_chunks_when_needed(void **state)
{
    struct stage *stage = stage_ready(state);
    uint64_t bytes = WIRE_CHUNK_BYTES + 5;
    uint8_t *data = calloc(1, bytes);
    leaf_drop(stage->leaf);
    assert_ok(leaf_of(stage->leaves, data, bytes, &stage->leaf));
    free(data);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    struct wire_leaf_offer offer;
    DECODE(leaf_offer, next(stage, WIRE_LEAF_OFFER), &offer);
    assert_int_equal(offer.leaves_count, 1);
    assert_int_equal(execute_of(stage).leaves_count, 0);
    struct wire_leaf need = {.content = stage->leaf->content, .bytes = bytes};
    RECEIVE(WORKER_LINK, LEAF_NEED, leaf_need, .leaves = &need, .leaves_count = 1);
    struct wire_leaf_data part;
    const struct sent *sent = next(stage, WIRE_LEAF_DATA);
    assert_int_equal(sent->bulk_bytes, WIRE_CHUNK_BYTES);
    sent = next(stage, WIRE_LEAF_DATA);
    DECODE(leaf_data, sent, &part);
    assert_int_equal(part.offset, WIRE_CHUNK_BYTES);
    assert_int_equal(sent->bulk_bytes, 5);
    submit(stage, 2);
    execute_of(stage);
    nothing_more(stage);    // not offered again
    RECEIVE(WORKER_LINK, LEAF_OK, leaf_ok, .durable = true, .leaves = &need, .leaves_count = 1);
    for (uint32_t i = 0; i < stage->sents; i++) {
        blob_drop(stage->sent[i].bulk);
        stage->sent[i].bulk = NULL;
    }
    assert_null(stage->leaf->blob);    // the store has it
}

static void rubbish_from_a_worker_loses_it_and_nothing_else(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    receive(stage, WORKER_LINK, WIRE_ANSWER, blob_copy("\xff\xff\xff", 3), NULL);
    assert_int_equal(stage->outcome[1].failed, 1);
    assert_int_equal(stage->outcome[1].error, DJ_E_WORKER_LOST);
    assert_int_equal(protocol_state(stage->protocol, NULL), PROTOCOL_READY);
}

static void a_worker_that_stops_answering_pings_is_lost(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    stage->seen = stage->sents;
    pass(stage, 2500 * MS);
    next(stage, WIRE_PING);
    RECEIVE(WORKER_LINK, PONG, pong, .number = 1);
    pass(stage, 9000 * MS);
    assert_int_equal(stage->outcome[1].failed, 0);
    pass(stage, 3000 * MS);
    assert_int_equal(stage->outcome[1].error, DJ_E_WORKER_LOST);
}

// A worker that answers some, links that break at any time, dials that fail: in the end every tag has one outcome.
static void whatever_the_links_do_every_submission_has_one_outcome(void **state)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct prng prng = case_prng(state, seed);
        struct stage *stage = stage_ready(state);
        uint64_t counter = 0, received = 0, answered = 0;
        bool is_up = true;
        uint64_t link = WORKER_LINK;
        for (int step = 0; step < 100 && stage->places_lost == 0; step++) {
            uint64_t what = prng_between(&prng, 0, 9);
            if (what < 4) {
                submit(stage, ++counter);
                received = is_up ? counter : received;
            } else if (what < 7 && is_up && answered < received) {
                answer(stage, answered = prng_between(&prng, answered + 1, received));
            } else if (what == 7 && is_up) {
                down(stage, link);
                is_up = false;
                pass(stage, 1);
            } else if (what == 8 && !is_up) {
                if (prng_chance(&prng, 1, 3)) {
                    down(stage, 0);
                    pass(stage, 60 * MS);
                } else {
                    stage->seen = stage->sents;
                    open_worker(stage, ++link, received);
                    is_up = true;
                    received = counter;
                }
            }
        }
        pass(stage, 20000 * MS);
        RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = INCARNATION);
        assert_true(protocol_is_idle(stage->protocol));
        for (uint64_t c = 1; c <= counter; c++) {
            assert_int_equal(stage->outcome[c].executed + stage->outcome[c].failed, 1);
            if (c <= answered)
                assert_int_equal(stage->outcome[c].executed, 1);
        }
    }
}

CASES(a_submission_is_answered, the_second_of_its_kind_is_a_few_bytes,
      a_link_that_was_lost_is_remade_and_only_what_is_unanswered_goes_again,
      a_worker_that_refuses_its_link_is_lost_within_a_second, a_worker_that_never_comes_back_is_lost_within_a_second_too,
      after_a_loss_new_work_gets_a_new_grant, another_life_of_the_worker_is_not_the_worker, a_head_that_says_no_is_quoted,
      a_head_that_is_not_there_is_named_within_a_second, a_head_that_says_nothing_times_out,
      a_question_is_answered_or_its_failure_is, work_goes_on_when_the_head_is_gone,
      a_lost_head_is_dialled_again_and_the_session_resumed, the_window_is_bounded_and_answers_and_durability_open_it,
      a_failed_execution_fails_alone, a_lost_link_may_have_lost_leaves_so_they_are_named_again,
      a_session_never_has_two_streams_at_one_worker, a_large_leaf_is_offered_and_sent_in_chunks_when_needed,
      rubbish_from_a_worker_loses_it_and_nothing_else, a_worker_that_stops_answering_pings_is_lost,
      whatever_the_links_do_every_submission_has_one_outcome)
