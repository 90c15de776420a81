// Processes and their actors: routing, supervision, watching, timers, bounds, and that the same events give the same effects.
//
// The actors here do what a test tells them: `script` is called for every letter with the name the actor was made with.

#include "core/actors/actor.h"

#include "core/io/blob.h"
#include "tests/lib/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOG_MAX = 1 << 16 };

struct probe {
    char name;
    int starts;
};

// What the running test does on each letter; set before the first step.
static enum dj_error (*script)(struct actor *self, struct probe *probe, struct letter *letter);
static enum dj_error (*script_start)(struct actor *self, struct probe *probe);
static enum actor_verdict verdict;
static char trace[LOG_MAX];
static actor_id id_of[256];
static int ends;
static uint32_t restarts_max_of_probes;

static void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = strlen(trace);
    vsnprintf(trace + length, sizeof trace - length, format, arguments);
    va_end(arguments);
}

static enum dj_error probe_start(struct actor *self, void *state, const void *argument)
{
    struct probe *probe = state;
    assert_int_equal(probe->name, 0);    // zeroed, also on a restart
    probe->name = *(const char *)argument;
    id_of[(unsigned char)probe->name] = actor_self(self);
    note("+%c", probe->name);
    return script_start == NULL ? DJ_OK : script_start(self, probe);
}

static enum dj_error probe_receive(struct actor *self, void *state, struct letter *letter)
{
    struct probe *probe = state;
    enum dj_error error = DJ_OK;
    if (letter->kind == LETTER_DOWN)
        note("%c!%s", probe->name, dj_error_name(letter->error));
    if (script != NULL)
        error = script(self, probe, letter);
    letter_drop(letter);
    return error;
}

static void probe_end(struct actor *self, void *state)
{
    (void)self;
    struct probe *probe = state;
    note("-%c", probe->name);
    ends++;
}

static enum actor_verdict probe_child_failed(struct actor *self, void *state, actor_id child, enum dj_error error)
{
    (void)self, (void)child;
    struct probe *probe = state;
    note("%c?%s", probe->name, dj_error_name(error));
    return verdict;
}

static struct actor_class probe_class = {
    .name = "probe",
    .state_bytes = sizeof(struct probe),
    .mailbox_capacity = 4,
    .start = probe_start,
    .receive = probe_receive,
    .end = probe_end,
    .child_failed = probe_child_failed,
};

static struct process *process;
static struct io_effects effects;

static void free_all(void *unused)
{
    (void)unused;
    process_free(process);
    effects_free(&effects);
    process = NULL;
}

// A process whose only root is the actor 'a'. `on_start` runs in every actor's start.
static void begin(void **state, enum dj_error (*on_start)(struct actor *, struct probe *),
                  enum dj_error (*on_letter)(struct actor *, struct probe *, struct letter *))
{
    script = on_letter;
    script_start = on_start;
    verdict = ACTOR_ESCALATE;
    trace[0] = '\0';
    ends = 0;
    memset(id_of, 0, sizeof id_of);
    probe_class.restarts_max = restarts_max_of_probes;
    restarts_max_of_probes = 0;
    assert_ok(process_make(&process));
    assert_ok(process_root(process, &probe_class, "a", 1));
    effects_init(&effects);
    case_later(state, free_all, NULL);
}

static bool step(uint64_t now_ns)
{
    effects_free(&effects);
    return process_run(process, now_ns, &effects);
}

static actor_id make_child(struct actor *self, char name)
{
    actor_id id = 0;
    assert_ok(actor_make(self, &probe_class, &name, 1, &id));
    return id;
}

static void submit(uint32_t verb)
{
    struct io_event event = {.kind = IO_SUBMIT};
    event.submit.verb = verb;
    assert_ok(process_post(process, &event));
}

static uint32_t count_effects(enum io_effect_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < effects.count; i++)
        count += effects.effect[i].kind == kind;
    return count;
}

// Supervision ------------------------------------------------------------------------------------------------------------

static enum dj_error start_family(struct actor *self, struct probe *probe)
{
    if (probe->name == 'a') {
        actor_accept_submits(self);
        make_child(self, 'b');
        make_child(self, 'w');
    } else if (probe->name == 'b') {
        make_child(self, 'c');
    } else if (probe->name == 'w') {
        actor_watch(self, id_of['b']);
    }
    return DJ_OK;
}

// A submit makes 'b' fail.
static enum dj_error fail_b(struct actor *self, struct probe *probe, struct letter *letter)
{
    if (probe->name == 'a' && letter->kind == LETTER_EVENT && letter->event.kind == IO_SUBMIT)
        assert_ok(actor_post(self, id_of['b'], 1, NULL, NULL));
    return probe->name == 'b' && letter->kind == LETTER_USER ? DJ_E_DEVICE : DJ_OK;
}

static void a_failed_actor_is_restarted_with_its_id_and_its_children_end_first(void **state)
{
    restarts_max_of_probes = 1;
    begin(state, start_family, fail_b);
    verdict = ACTOR_RESTART;
    step(1);
    assert_string_equal(trace, "+a+b+c+w");
    actor_id before = id_of['b'], child_before = id_of['c'];
    submit(1);
    step(2);
    assert_string_equal(trace, "+a+b+c+wa?DEVICE-c-b+b+cw!DEVICE");
    assert_true(id_of['b'] == before);
    assert_true(id_of['c'] != child_before);
    assert_int_equal(process_stats(process).restarts, 1);
    assert_int_equal(process_stats(process).actors, 4);
}

static void a_stopped_actor_stays_away_and_its_stale_id_is_noticed(void **state)
{
    begin(state, start_family, fail_b);
    verdict = ACTOR_STOP;
    step(1);
    submit(1);
    step(2);
    assert_string_equal(trace, "+a+b+c+wa?DEVICE-c-bw!DEVICE");
    assert_int_equal(process_stats(process).actors, 2);
}

static void too_many_restarts_escalate_to_the_end_of_the_process(void **state)
{
    restarts_max_of_probes = 2;
    begin(state, start_family, fail_b);
    verdict = ACTOR_RESTART;
    probe_class.restarts_max = 2;
    step(1);
    for (uint64_t i = 0; i < 2; i++) {
        submit(1);
        step(10 + i);
        assert_int_equal(count_effects(IO_STOP), 0);
    }
    submit(1);
    step(20);    // 'b' is given up, and so is 'a', which as a root may be restarted twice itself
    assert_non_null(strstr(trace, "a?DEVICE-c-b-w-a+a"));
    assert_int_equal(count_effects(IO_STOP), 0);
    probe_class.restarts_max = 0;
    submit(1);
    step(30);
    assert_int_equal(count_effects(IO_STOP), 1);
    assert_int_equal(process_deadline_ns(process), UINT64_MAX);
    assert_string_not_equal(trace + strlen(trace) - 2, "-a");    // the root's state ends with the process
    process_free(process);
    process = NULL;
    assert_string_equal(trace + strlen(trace) - 2, "-a");
}

static void restarts_that_lie_far_apart_are_forgiven(void **state)
{
    restarts_max_of_probes = 1;
    begin(state, start_family, fail_b);
    verdict = ACTOR_RESTART;
    step(1);
    for (uint64_t i = 1; i < 5; i++) {
        submit(1);
        step(i * 11000000000u);
        assert_int_equal(count_effects(IO_STOP), 0);
    }
    assert_int_equal(process_stats(process).restarts, 4);
}

static enum dj_error break_contract(struct actor *self, struct probe *probe, struct letter *letter)
{
    if (probe->name == 'w' && letter->kind == LETTER_DOWN)
        actor_stop(self, id_of['a']);    // not a descendant
    return fail_b(self, probe, letter);
}

static void an_actor_that_breaks_its_contract_ends(void **state)
{
    begin(state, start_family, break_contract);
    verdict = ACTOR_STOP;
    step(1);
    submit(1);
    step(2);
    assert_non_null(strstr(trace, "w!DEVICEa?INVALID-w"));
}

static enum dj_error stop_self(struct actor *self, struct probe *probe, struct letter *letter)
{
    if (probe->name == 'b' && letter->kind == LETTER_USER) {
        actor_stop(self, actor_self(self));
        note(".");    // after the current letter, not now
    }
    if (probe->name == 'w' && letter->kind == LETTER_DOWN) {
        assert_error(DJ_E_NOT_FOUND, actor_post(self, id_of['b'], 1, NULL, NULL));
        if (letter->error == DJ_OK)
            actor_watch(self, id_of['b']);
    }
    fail_b(self, probe, letter);
    return DJ_OK;
}

static void an_actor_can_stop_itself_and_a_late_watcher_is_told_at_once(void **state)
{
    begin(state, start_family, stop_self);
    step(1);
    submit(1);
    step(2);
    assert_string_equal(trace, "+a+b+c+w.-c-bw!OKw!NOT_FOUND");
}

static void everything_ends_with_the_process(void **state)
{
    begin(state, start_family, NULL);
    step(1);
    submit(1);
    process_free(process);
    process = NULL;
    assert_int_equal(ends, 4);
}

static enum dj_error fail_to_start(struct actor *self, struct probe *probe)
{
    (void)self, (void)probe;
    return DJ_E_CONFIG;
}

static void a_root_that_cannot_start_ends_the_process(void **state)
{
    begin(state, fail_to_start, NULL);
    step(1);
    assert_int_equal(count_effects(IO_STOP), 1);
    assert_int_not_equal(effects.effect[0].stop.exit_code, 0);
    assert_int_equal(ends, 0);    // `end` is not called for what did not start
}

static enum dj_error start_at_the_limit_of_depth(struct actor *self, struct probe *probe)
{
    char name = probe->name;
    enum dj_error error = actor_make(self, &probe_class, &name, 1, NULL);
    note(error == DJ_OK ? "" : "x");
    return DJ_OK;
}

static void a_tree_has_a_greatest_depth(void **state)
{
    begin(state, start_at_the_limit_of_depth, NULL);
    step(1);
    assert_non_null(strstr(trace, "x"));
    assert_int_equal(process_stats(process).actors, 32);
}

// Mailboxes --------------------------------------------------------------------------------------------------------------

static int payloads_freed;

static void free_payload(void *payload)
{
    (void)payload;
    payloads_freed++;
}

static enum dj_error flood_b(struct actor *self, struct probe *probe, struct letter *letter)
{
    if (probe->name == 'a' && letter->kind == LETTER_EVENT) {
        int in = 0;
        while (actor_post(self, id_of['b'], 1, self, free_payload) == DJ_OK)
            in++;
        note("%d", in);
        assert_error(DJ_E_MAILBOX_FULL, actor_post(self, id_of['b'], 1, self, free_payload));
    }
    return DJ_OK;
}

static void a_full_mailbox_refuses_and_the_sender_keeps_the_payload(void **state)
{
    payloads_freed = 0;
    begin(state, start_family, flood_b);
    step(1);
    submit(1);
    step(2);
    assert_non_null(strstr(trace, "4"));
    assert_int_equal(payloads_freed, 4);
    assert_int_equal(process_stats(process).refused, 2);
}

static uint32_t seen[64];
static uint32_t seens;

static enum dj_error see_submits(struct actor *self, struct probe *probe, struct letter *letter)
{
    (void)self;
    if (probe->name == 'a' && letter->kind == LETTER_EVENT && letter->event.kind == IO_SUBMIT)
        seen[seens++ % 64] = letter->event.submit.verb;
    return DJ_OK;
}

static void events_for_a_full_mailbox_wait_and_keep_their_order(void **state)
{
    begin(state, start_family, see_submits);
    seens = 0;
    step(1);
    for (uint32_t i = 0; i < 50; i++)
        submit(i);    // the mailbox holds 4
    step(2);
    assert_int_equal(seens, 50);
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(seen[i], i);
}

static void a_process_takes_a_bounded_number_of_events_and_works_them_off_in_steps(void **state)
{
    begin(state, start_family, see_submits);
    seens = 0;
    step(1);
    for (uint32_t i = 0; i < PROCESS_EVENTS_MAX; i++)
        submit(i);
    struct io_event event = {.kind = IO_SUBMIT};
    assert_error(DJ_E_MAILBOX_FULL, process_post(process, &event));
    assert_true(step(2));
    assert_true(seens <= PROCESS_STEP_LETTERS_MAX);
    assert_ok(process_post(process, &event));
    while (step(3))
        ;
    assert_int_equal(seens, PROCESS_EVENTS_MAX + 1);
}

// Timers -----------------------------------------------------------------------------------------------------------------

static enum dj_error start_timers(struct actor *self, struct probe *probe)
{
    (void)probe;
    actor_timer(self, 1, 100);
    actor_timer(self, 2, 50);
    actor_timer(self, 3, 100);
    actor_timer(self, 4, 70);
    actor_timer(self, 4, 0);      // cleared
    actor_timer(self, 1, 120);    // moved
    return DJ_OK;
}

static enum dj_error note_timers(struct actor *self, struct probe *probe, struct letter *letter)
{
    (void)probe;
    if (letter->kind != LETTER_TIMER)
        return DJ_OK;
    note(" %u@%u", letter->number, (unsigned)actor_now_ns(self));
    if (letter->number == 3)
        actor_timer(self, 1, 200);    // it has fired in the same step, but is set anew: its letter must not come
    return DJ_OK;
}

static void timers_come_once_in_order_and_the_deadline_tells_when(void **state)
{
    begin(state, start_timers, note_timers);
    assert_int_equal(process_deadline_ns(process), 0);
    step(1);
    assert_int_equal(process_deadline_ns(process), 50);
    step(49);
    assert_string_equal(trace, "+a");
    step(60);
    assert_string_equal(trace, "+a 2@60");
    assert_int_equal(process_deadline_ns(process), 100);
    step(150);
    assert_string_equal(trace, "+a 2@60 3@150");
    assert_int_equal(process_deadline_ns(process), 200);
    step(300);
    assert_string_equal(trace, "+a 2@60 3@150 1@300");
    assert_int_equal(process_deadline_ns(process), UINT64_MAX);
}

static enum dj_error start_many_timers(struct actor *self, struct probe *probe)
{
    (void)probe;
    for (uint32_t i = 0; i < 17; i++)
        actor_timer(self, i, 100);
    return DJ_OK;
}

static void the_seventeenth_timer_of_an_actor_is_one_too_many(void **state)
{
    begin(state, start_many_timers, NULL);
    step(1);
    assert_int_equal(count_effects(IO_STOP), 1);
}

// Random timers of one actor against a plain array.
static uint64_t twin_at[8];

static enum dj_error check_timer(struct actor *self, struct probe *probe, struct letter *letter)
{
    (void)probe;
    if (letter->kind == LETTER_TIMER) {
        assert_true(twin_at[letter->number] != 0 && twin_at[letter->number] <= actor_now_ns(self));
        for (int i = 0; i < 8; i++)
            assert_true(twin_at[i] == 0 || twin_at[i] >= twin_at[letter->number]);
        twin_at[letter->number] = 0;
    }
    if (letter->kind == LETTER_EVENT && letter->event.kind == IO_SUBMIT) {
        uint32_t number = letter->event.submit.verb & 7;
        twin_at[number] = letter->event.submit.verb >> 3 == 0 ? 0 : actor_now_ns(self) + (letter->event.submit.verb >> 3);
        actor_timer(self, number, twin_at[number]);
    }
    return DJ_OK;
}

static enum dj_error start_submits(struct actor *self, struct probe *probe)
{
    (void)probe;
    actor_accept_submits(self);
    return DJ_OK;
}

static void random_timers_agree_with_a_plain_array(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct prng prng = case_prng(state, seed);
        begin(state, start_submits, check_timer);
        memset(twin_at, 0, sizeof twin_at);
        uint64_t now_ns = 1;
        step(now_ns);
        for (int i = 0; i < 1000; i++) {
            if (prng_chance(&prng, 1, 2))
                submit((uint32_t)prng_between(&prng, 0, 799));
            now_ns += prng_between(&prng, 0, 60);
            step(now_ns);
            uint64_t next_ns = UINT64_MAX;
            for (int k = 0; k < 8; k++) {
                assert_true(twin_at[k] == 0 || twin_at[k] > now_ns);    // nothing that was due is left
                if (twin_at[k] != 0 && twin_at[k] < next_ns)
                    next_ns = twin_at[k];
            }
            assert_true(process_deadline_ns(process) == next_ns);
        }
        free_all(NULL);
    }
}

CASES(a_failed_actor_is_restarted_with_its_id_and_its_children_end_first, a_stopped_actor_stays_away_and_its_stale_id_is_noticed,
      too_many_restarts_escalate_to_the_end_of_the_process, restarts_that_lie_far_apart_are_forgiven,
      an_actor_that_breaks_its_contract_ends, an_actor_can_stop_itself_and_a_late_watcher_is_told_at_once,
      everything_ends_with_the_process, a_root_that_cannot_start_ends_the_process, a_tree_has_a_greatest_depth,
      a_full_mailbox_refuses_and_the_sender_keeps_the_payload, events_for_a_full_mailbox_wait_and_keep_their_order,
      a_process_takes_a_bounded_number_of_events_and_works_them_off_in_steps,
      timers_come_once_in_order_and_the_deadline_tells_when, the_seventeenth_timer_of_an_actor_is_one_too_many,
      random_timers_agree_with_a_plain_array)
