// The stage. The manual is stage.h.

#include "tests/frontend/client/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static struct srg_plan *plan_make(bool is_of_leaf)
{
    struct plan_builder *builder;
    struct srg_plan *plan;
    uint32_t input, node;
    assert_ok(plan_builder_make(&builder));
    struct srg_input leaf = {.is_leaf = is_of_leaf, .is_contiguous = true, .dtype = DTYPE_F32, .rank = 1};
    assert_ok(plan_add_input(builder, &leaf, &input));
    struct srg_ref refs[2] = {{.kind = REF_INPUT, .index = input}, {.kind = REF_INPUT, .index = input}};
    struct attr alpha = {.kind = ATTR_INT, .i = 1};
    assert_ok(plan_add_node(builder, op_info(OP_ADD), refs, 2, &alpha, (uint8_t[OP_OUTPUTS_MAX]){DTYPE_F32}, 0, 255, &node));
    assert_ok(plan_finish(builder, &plan, NULL));
    plan_builder_free(builder);
    return plan;
}

void stage_end(void *object)
{
    struct stage *stage = object;
    protocol_free(stage->protocol);
    for (uint32_t i = 0; i < stage->sents; i++) {
        blob_drop(stage->sent[i].body);
        blob_drop(stage->sent[i].bulk);
    }
    plan_drop(stage->plan);
    plan_drop(stage->next_plan);
    leaf_drop(stage->leaf);
    leaf_table_free(stage->leaves);
    free(stage);
}

static void port_live_handles(void *self, uint32_t place, void (*visit)(void *context, uint64_t counter, uint32_t output),
                              void *context)
{
    const struct stage *stage = self;
    (void)place;
    for (uint32_t i = 0; i < stage->lives; i++)
        visit(context, stage->live[i].counter, stage->live[i].output);
}

static void port_recovered(void *self, const struct protocol_recovery *recovery)
{
    struct stage *stage = self;
    stage->recovered = *recovery;
    stage->recoveries++;
}

struct stage *stage_make(void **state)
{
    return stage_begin(state, "");
}

struct stage *stage_begin(void **state, const char *name)
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
    port.live_handles = port_live_handles;
    port.recovered = port_recovered;
    snprintf(config.name, sizeof config.name, "%s", name);
    assert_ok(protocol_make(&config, &port, &stage->protocol));
    stage->plan = plan_make(true);
    stage->next_plan = plan_make(false);
    stage->epoch = 1;
    assert_ok(leaf_of(stage->leaves, (float[]){1, 2, 3, 4}, 16, &stage->leaf));
    leaf_set_durable(stage->leaf);    // its bytes are few enough to be kept
    case_later(state, stage_end, stage);
    protocol_start(stage->protocol, stage->now_ns);
    return stage;
}

void stage_up(struct stage *stage, uint64_t link)
{
    struct io_event event = {.kind = IO_LINK_UP, .link_up = {.link = link, .request = stage->opened}};
    protocol_event(stage->protocol, stage->now_ns, &event);
}

void stage_down(struct stage *stage, uint64_t link)    // 0: the dial that is under way
{
    struct io_event event = {.kind = IO_LINK_DOWN, .link_down = {.link = link, .request = stage->opened, .error = DJ_E_CLOSED}};
    protocol_event(stage->protocol, stage->now_ns, &event);
}

void receive(struct stage *stage, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk)
{
    assert_non_null(body);
    struct io_event event = {.kind = IO_RECV, .recv = {.link = link, .message = message, .body = body, .bulk = bulk}};
    protocol_event(stage->protocol, stage->now_ns, &event);
}

void pass(struct stage *stage, uint64_t ns)
{
    uint64_t end_ns = stage->now_ns + ns;
    uint32_t ticks = 0;
    for (uint64_t at = protocol_deadline_ns(stage->protocol); at <= end_ns; at = protocol_deadline_ns(stage->protocol)) {
        stage->now_ns = at > stage->now_ns ? at : stage->now_ns + 1;
        protocol_tick(stage->protocol, stage->now_ns);
        assert_true(++ticks < 100000);    // a deadline that a tick does not move is a spin
    }
    stage->now_ns = end_ns;
}

// The next message sent, which must be of this kind.
const struct sent *next(struct stage *stage, uint16_t message)
{
    if (stage->seen == stage->sents)
        fail_msg("nothing was sent where %s was expected", wire_name(message));
    const struct sent *sent = &stage->sent[stage->seen++];
    if (sent->message != message)
        fail_msg("%s was sent where %s was expected", wire_name(sent->message), wire_name(message));
    return sent;
}

void nothing_more(struct stage *stage)
{
    assert_int_equal(stage->seen, stage->sents);
}

void session(struct stage *stage, uint64_t request, uint64_t incarnation, uint64_t journalled)
{
    struct wire_grant one = {.device_index = 0,
                             .worker = 3,
                             .address_tcp = "tcp://w:2",
                             .address_unix = "unix:///w",
                             .host = "there",
                             .numerics = "cpu x",
                             .incarnation = incarnation,
                             .secret = {1, 2}};
    snprintf(one.name, sizeof one.name, "w%llu", (unsigned long long)(incarnation - INCARNATION));
    stage->incarnation = incarnation;
    RECEIVE(HEAD_LINK, SESSION_GRANT, session_grant, .request = request, .session = SESSION, .epoch = stage->epoch,
            .generation = 1, .pool_devices = 2, .grants = &one, .grants_count = 1, .journalled = journalled);
}

void grant(struct stage *stage, uint64_t request, uint64_t incarnation)
{
    session(stage, request, incarnation, 0);
}

void open_head(struct stage *stage)
{
    stage_up(stage, HEAD_LINK);
    next(stage, WIRE_HELLO);
    RECEIVE(HEAD_LINK, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    struct wire_session_open open;
    DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
    grant(stage, open.request, INCARNATION);
    assert_int_equal(protocol_state(stage->protocol, NULL), PROTOCOL_READY);
}

void open_worker(struct stage *stage, uint64_t link, uint64_t last_counter)
{
    stage->link = link;
    stage_up(stage, link);
    next(stage, WIRE_HELLO);
    RECEIVE(link, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = stage->incarnation);
    struct wire_attach attach;
    DECODE(attach, next(stage, WIRE_ATTACH), &attach);
    assert_int_equal(attach.session, SESSION);
    stage->stream = attach.stream;
    RECEIVE(link, ATTACHED, attached, .incarnation = stage->incarnation, .generation = 1, .last_counter = last_counter);
}

struct stage *stage_ready(void **state)
{
    struct stage *stage = stage_make(state);
    open_head(stage);
    assert_string_equal(stage->address, "tcp://w:2");    // another host: no unix socket
    open_worker(stage, WORKER_LINK, 0);
    nothing_more(stage);
    return stage;
}

void open_head_again(struct stage *stage, uint64_t link)
{
    stage_up(stage, link);
    next(stage, WIRE_HELLO);
    RECEIVE(link, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    struct wire_session_open open;
    DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
    assert_int_equal(open.session, SESSION);
    assert_int_equal(open.epoch, stage->epoch);
    assert_int_equal(open.device_index, -2);
    RECEIVE(link, SESSION_GRANT, session_grant, .request = open.request, .session = SESSION, .epoch = stage->epoch,
            .generation = 2);
}

static void submit_plan(struct stage *stage, struct srg_plan *plan, uint64_t counter, int64_t *word, bool donates)
{
    struct tensor_meta meta = {.dtype = DTYPE_F32, .rank = 1, .size = {4}, .stride = {1}};
    bool is_of_leaf = plan->input[0].is_leaf;
    binding_set_meta(plan, word, 0, &meta);
    binding_set_node(plan, word, 0, &(struct attr){.kind = ATTR_INT, .i = (int64_t)counter}, NULL);
    struct submission submission = {.place = protocol_place(stage->protocol, stage->now_ns, -1),
                                    .counter = counter,
                                    .plan = plan,
                                    .plan_number = is_of_leaf ? 0 : 1,
                                    .word = word,
                                    .kept = (uint8_t[]){1},
                                    .donated = (uint8_t[]){donates},
                                    .answers = (uint32_t[]){0},
                                    .answers_count = !stage->is_silent,
                                    .leaves = &stage->leaf,
                                    .leaves_count = is_of_leaf,
                                    .tag = (void *)(uintptr_t)counter};
    protocol_submit(stage->protocol, stage->now_ns, &submission);
}

void submit(struct stage *stage, uint64_t counter)
{
    int64_t word[16] = {0};
    assert_true(stage->plan->words <= 16);
    binding_set_leaf(stage->plan, word, 0, stage->leaf->content);
    submit_plan(stage, stage->plan, counter, word, false);
}

void submit_from(struct stage *stage, uint64_t counter, uint64_t from, bool donates)
{
    int64_t word[16] = {0};
    assert_true(stage->next_plan->words <= 16);
    binding_set_handle(stage->next_plan, word, 0, counter - from, 0);
    submit_plan(stage, stage->next_plan, counter, word, donates);
}

int64_t alpha_of(const struct stage *stage, const struct srg_plan *plan, const int64_t *word)
{
    struct attr attr[OP_ATTRS_MAX];
    (void)stage;
    binding_attrs(plan, word, 0, attr);
    return attr[0].i;
}

void answer_part(struct stage *stage, uint64_t counter, uint32_t part)
{
    struct wire_output output = {.dtype = DTYPE_F32, .bytes = 16, .data = (const uint8_t *)"abcdefghijklmnop", .data_bytes = 16};
    RECEIVE(stage->link, ANSWER, answer, .counter = counter, .part = part, .incarnation = stage->incarnation, .generation = 1,
            .outputs = &output, .outputs_count = !stage->is_silent);
}

void answer(struct stage *stage, uint64_t counter)
{
    answer_part(stage, counter, 0);
}

void watermark(struct stage *stage, uint64_t link, uint64_t first, uint64_t last)
{
    struct writer counters = writer_make(4096);
    write_var(&counters, first);
    for (uint64_t counter = first; counter < last; counter++)
        write_var(&counters, 1);
    RECEIVE(link, WATERMARK, watermark, .session = SESSION, .epoch = stage->epoch, .counter = last,
            .incarnation = stage->incarnation, .counters = counters.data, .counters_bytes = (uint32_t)counters.length);
    writer_free(&counters);
}

struct wire_execute execute_of(struct stage *stage)
{
    struct wire_execute execute;
    DECODE(execute, next(stage, WIRE_EXECUTE), &execute);
    return execute;
}

struct wire_grant_ask lose_worker(struct stage *stage)
{
    struct wire_grant_ask ask;
    stage->seen = stage->sents;
    RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = stage->incarnation);
    while (stage->seen < stage->sents && stage->sent[stage->seen].message == WIRE_JOURNAL)
        stage->seen++;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    return ask;
}

struct wire_recover recover_of(struct stage *stage)
{
    struct wire_recover recover;
    while (stage->seen < stage->sents && stage->sent[stage->seen].message == WIRE_JOURNAL)
        stage->seen++;
    DECODE(recover, next(stage, WIRE_RECOVER), &recover);
    return recover;
}

// What the client told the head itself, and nobody else, is what is known; the worker that is planned for holds nothing.
void plan_recovery(struct stage *stage, const struct wire_recover *recover, struct wire_recovery *ret, struct writer *encoded)
{
    struct recovery *recovery;
    struct record_scratch scratch;
    struct recovery_sum sum;
    struct fault fault = {0};
    uint32_t from = 0, steps;
    assert_ok(recovery_make(SESSION, &recovery));
    assert_ok(record_scratch_make(&scratch));
    for (uint32_t i = 0; i < stage->sents; i++) {
        struct wire_journal journal;
        if (stage->sent[i].message != WIRE_JOURNAL)
            continue;
        DECODE(journal, &stage->sent[i], &journal);
        struct reader reader = reader_make(journal.records, journal.records_bytes);
        while (reader_left(&reader) > 0) {
            struct record record;
            const uint8_t *at = reader.at;
            assert_ok(record_read(&reader, &scratch, &record));
            assert_ok(recovery_add(recovery, at, (size_t)(reader.at - at)));
        }
    }
    record_scratch_free(&scratch);
    struct reader needed = reader_make(recover->needed, recover->needed_bytes);
    uint64_t counter = 0;
    while (reader_left(&needed) > 0) {
        counter += read_var(&needed);
        assert_ok(recovery_need(recovery, (struct record_ref){.counter = counter, .output = (uint32_t)read_var(&needed)}));
    }
    struct recovery_options options = {.target = recover->incarnation, .numerics = (uint32_t)hash64("cpu x", 5)};
    assert_ok(recovery_plan(recovery, &options, NULL, NULL, &sum, &fault));
    *encoded = writer_make(1 << 20);
    *ret = (struct wire_recovery){
        .request = recover->request, .is_last = true, .cost_ns = sum.cost_ns, .executions = sum.replays};
    if (sum.steps > 0)
        assert_ok(recovery_encode(recovery, &from, 1 << 20, encoded, &steps));
    assert_int_equal(from, sum.steps);
    ret->steps = sum.steps;
    ret->encoded = encoded->data;
    ret->encoded_bytes = (uint32_t)encoded->length;
    recovery_free(recovery);
}

void say_recovery(struct stage *stage, uint64_t link, const struct wire_recover *recover)
{
    struct wire_recovery message;
    struct writer encoded;
    plan_recovery(stage, recover, &message, &encoded);
    receive(stage, link, WIRE_RECOVERY, wire_recovery_encode(&message), NULL);
    writer_free(&encoded);
}
