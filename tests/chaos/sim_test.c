// The simulator, tried on toys: a bank that keeps a counter on its disk and clients that add to it until each addition is acknowledged. The bank
// answers from a table of what it has done, so an addition that is sent again counts once; with the table left out, the simulator must notice.

#include "chaos/sim/sim.h"

#include "core/io/blob.h"
#include "core/wire/wire.h"
#include "tests/lib/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENTS = 3, ADDITIONS = 12, TIMER_RETRY = 1 };
#define RETRY_NS 50000000u

static bool forgets_what_it_did, speaks_too_soon;    // the bank's deliberate bugs

// The bank ---------------------------------------------------------------------------------------------------------------

struct deed {
    uint64_t ticket, link, number;
};
struct bank {
    struct deed deed[4096];
    uint32_t deeds;
    uint64_t read;
    uint64_t total;
    bool is_open;
    struct wire_ping early[64];
};

static enum dj_error bank_start(struct actor *self, void *state, const void *argument)
{
    (void)argument;
    struct bank *bank = state;
    actor_accept_links(self);
    struct store_batch *batch = batch_make();
    batch_add(batch, STORE_GET, STORE_META, "total", 5);
    bank->read = actor_store_read(self, batch);
    return DJ_OK;
}

static void acknowledge(struct actor *self, uint64_t link, uint64_t number)
{
    actor_send(self, link, WIRE_PONG, wire_pong_encode(&(struct wire_pong){.number = number}), NULL, 0, 0, 0);
}

static void put(struct store_batch *batch, enum store_verb verb, enum store_table table, const void *key, size_t key_bytes,
                uint64_t value)
{
    struct store_item *item = batch_add(batch, verb, table, key, key_bytes);
    item->value = blob_copy(&value, sizeof value);
    item->value_bytes = sizeof value;
}

static void add_one(struct actor *self, struct bank *bank, uint64_t link, uint64_t number)
{
    struct store_batch *batch = batch_make();
    put(batch, STORE_PUT_IF_ABSENT, STORE_EXECUTION, &number, sizeof number, 1);
    if (forgets_what_it_did)
        put(batch, STORE_PUT, STORE_META, "total", 5, ++bank->total);
    uint64_t ticket = actor_store_commit(self, batch);
    if (speaks_too_soon)
        acknowledge(self, link, number);
    bank->deed[bank->deeds++ % 4096] = (struct deed){.ticket = ticket, .link = link, .number = number};
}

static enum dj_error bank_receive(struct actor *self, void *state, struct letter *letter)
{
    struct bank *bank = state;
    if (letter->kind == LETTER_EVENT && letter->event.kind == IO_RECV) {
        struct wire_ping ping;
        struct arena *arena = NULL;
        assert_ok(arena_make(1024, 0, &arena));
        assert_ok(wire_ping_decode(letter->event.recv.body->data, letter->event.recv.body->bytes, arena, &ping));
        arena_free(arena);
        add_one(self, bank, letter->event.recv.link, ping.number);
    } else if (letter->kind == LETTER_EVENT && letter->event.kind == IO_STORE_DONE) {
        const struct store_result *result = letter->event.store_done.result;
        if (letter->event.store_done.ticket == bank->read && result != NULL && result->entries == 1)
            memcpy(&bank->total, result->entry[0].value->data, sizeof bank->total);
        for (uint32_t i = 0; i < bank->deeds && i < 4096 && !speaks_too_soon; i++) {
            if (bank->deed[i].ticket == letter->event.store_done.ticket)
                acknowledge(self, bank->deed[i].link, bank->deed[i].number);
        }
    }
    letter_drop(letter);
    return DJ_OK;
}

static const struct actor_class bank_class = {
    .name = "bank",
    .state_bytes = sizeof(struct bank),
    .start = bank_start,
    .receive = bank_receive,
};

// The clients ------------------------------------------------------------------------------------------------------------

static uint64_t acknowledged[CLIENTS];    // what each user has seen; outlives the client's process on purpose

struct client {
    uint32_t index;
    uint64_t link;
    bool is_up;
};

static void ask(struct actor *self, struct client *client)
{
    if (acknowledged[client->index] == ADDITIONS)
        return;
    uint64_t number = (uint64_t)client->index << 32 | acknowledged[client->index];
    if (client->is_up)
        actor_send(self, client->link, WIRE_PING, wire_ping_encode(&(struct wire_ping){.number = number}), NULL, 0, 0, 0);
    actor_timer(self, TIMER_RETRY, actor_now_ns(self) + RETRY_NS);
}

static enum dj_error client_start(struct actor *self, void *state, const void *argument)
{
    struct client *client = state;
    client->index = *(const uint32_t *)argument;
    actor_link_open(self, "tcp://bank:1");
    return DJ_OK;
}

static enum dj_error client_receive(struct actor *self, void *state, struct letter *letter)
{
    struct client *client = state;
    const struct io_event *event = &letter->event;
    if (letter->kind == LETTER_TIMER) {
        if (!client->is_up && client->link == 0)
            actor_link_open(self, "tcp://bank:1");
        ask(self, client);
    } else if (letter->kind == LETTER_EVENT && event->kind == IO_LINK_UP) {
        client->link = event->link_up.link;
        client->is_up = true;
        ask(self, client);
    } else if (letter->kind == LETTER_EVENT && event->kind == IO_LINK_DOWN) {
        client->is_up = false;
        client->link = 0;
        actor_timer(self, TIMER_RETRY, actor_now_ns(self) + RETRY_NS);
    } else if (letter->kind == LETTER_EVENT && event->kind == IO_RECV) {
        struct wire_pong pong;
        struct arena *arena = NULL;
        assert_ok(arena_make(1024, 0, &arena));
        assert_ok(wire_pong_decode(event->recv.body->data, event->recv.body->bytes, arena, &pong));
        arena_free(arena);
        if (pong.number == ((uint64_t)client->index << 32 | acknowledged[client->index])) {
            acknowledged[client->index]++;
            ask(self, client);
        }
    }
    letter_drop(letter);
    return DJ_OK;
}

static const struct actor_class client_class = {
    .name = "client",
    .state_bytes = sizeof(struct client),
    .start = client_start,
    .receive = client_receive,
};

// The world --------------------------------------------------------------------------------------------------------------

static struct process *make_bank(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    (void)sim, (void)node, (void)life, (void)argument;
    struct process *process = NULL;
    assert_ok(process_make(&process));
    assert_ok(process_root(process, &bank_class, NULL, 0));
    return process;
}

static struct process *make_client(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    (void)sim, (void)node, (void)life;
    struct process *process = NULL;
    assert_ok(process_make(&process));
    assert_ok(process_root(process, &client_class, argument, sizeof(uint32_t)));
    return process;
}

static bool all_acknowledged(void *context)
{
    (void)context;
    for (int i = 0; i < CLIENTS; i++) {
        if (acknowledged[i] < ADDITIONS)
            return false;
    }
    return true;
}

// Nothing acknowledged is lost, and nothing is counted twice.
static bool books_are_right(struct sim *sim, void *context, char *text)
{
    (void)context;
    for (uint32_t c = 0; c < CLIENTS; c++) {
        for (uint64_t i = 0; i < acknowledged[c]; i++) {
            uint64_t number = (uint64_t)c << 32 | i;
            if (sim_store_get(sim, 0, STORE_EXECUTION, &number, sizeof number) == NULL) {
                snprintf(text, SIM_TEXT_MAX, "addition %u of client %u was acknowledged and is not on the disk", (unsigned)i, c);
                return false;
            }
        }
    }
    const struct blob *total = sim_store_get(sim, 0, STORE_META, "total", 5);
    if (total != NULL && *(const uint64_t *)(const void *)total->data > sim_store_count(sim, 0, STORE_EXECUTION)) {
        snprintf(text, SIM_TEXT_MAX, "the total counts an addition twice");
        return false;
    }
    return true;
}

struct run {
    bool is_done;
    uint64_t trace, ended_ns;
    struct sim_stats stats;
    char failure[SIM_TEXT_MAX];
};

static void free_sim(void *sim)
{
    sim_free(sim);
}

static struct run run_bank(void **state, uint64_t seed)
{
    (void)state;
    memset(acknowledged, 0, sizeof acknowledged);
    struct sim *sim = sim_make(&(struct sim_options){.seed = seed, .break_per_million = 20000});
    uint32_t bank = sim_add_process(sim, "bank", make_bank, NULL);
    sim_listen(sim, bank, "tcp://bank:1");
    sim_add_store(sim, bank);
    sim_mortal(sim, bank);
    uint32_t index[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        index[i] = i;
        sim_mortal(sim, sim_add_process(sim, "client", make_client, &index[i]));
    }
    sim_invariant(sim, "books", books_are_right, NULL);
    sim_unleash(sim, &(struct sim_chaos){
                         .until_ns = 3000000000,
                         .death_mean_ns = 150000000,
                         .restart_max_ns = 100000000,
                         .pause_mean_ns = 300000000,
                         .pause_max_ns = 100000000,
                         .partition_mean_ns = 300000000,
                         .partition_max_ns = 200000000,
                         .break_mean_ns = 200000000,
                     });
    struct run run = {.is_done = sim_run_until(sim, all_acknowledged, NULL, 60000000000)};
    run.trace = sim_trace(sim);
    run.ended_ns = sim_now_ns(sim);
    run.stats = sim_stats(sim);
    if (sim_failure(sim) != NULL)
        snprintf(run.failure, sizeof run.failure, "%s", sim_failure(sim));
    sim_free(sim);
    return run;
}

static void every_addition_is_acknowledged_and_kept_whatever_happens(void **state)
{
    forgets_what_it_did = speaks_too_soon = false;
    struct sim_stats sum = {0};
    for (uint64_t seed = 1; seed <= 60; seed++) {
        case_prng(state, seed);
        struct run run = run_bank(state, seed);
        assert_string_equal(run.failure, "");
        assert_true(run.is_done);
        sum.deaths += run.stats.deaths;
        sum.lost += run.stats.lost;
        sum.reordered += run.stats.reordered;
        sum.partitions += run.stats.partitions;
        sum.pauses += run.stats.pauses;
        sum.links_broken += run.stats.links_broken;
        sum.commits_lost += run.stats.commits_lost;
    }
    print_message("deaths %d, lost %d, reordered %d, partitions %d, pauses %d, broken %d, commits lost %d\n", (int)sum.deaths,
                  (int)sum.lost, (int)sum.reordered, (int)sum.partitions, (int)sum.pauses, (int)sum.links_broken,
                  (int)sum.commits_lost);
    assert_true(sum.deaths > 0 && sum.lost > 0 && sum.reordered > 0 && sum.partitions > 0 && sum.pauses > 0 &&
                sum.links_broken > 0);
    assert_true(sum.commits_lost > 0);
}

static void the_same_seed_gives_the_same_run_and_another_another(void **state)
{
    forgets_what_it_did = speaks_too_soon = false;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct run a = run_bank(state, seed), b = run_bank(state, seed), c = run_bank(state, seed + 1000);
        assert_true(a.trace == b.trace);
        assert_true(a.ended_ns == b.ended_ns);
        assert_memory_equal(&a.stats, &b.stats, sizeof a.stats);
        assert_true(a.trace != c.trace);
    }
}

static uint32_t seeds_that_notice(void **state)
{
    uint32_t noticed = 0;
    for (uint64_t seed = 1; seed <= 40; seed++)
        noticed += run_bank(state, seed).failure[0] != '\0';
    return noticed;
}

static void a_bank_that_counts_twice_is_found(void **state)
{
    forgets_what_it_did = true;
    speaks_too_soon = false;
    assert_true(seeds_that_notice(state) > 0);
}

static void a_bank_that_speaks_before_its_disk_does_is_found(void **state)
{
    forgets_what_it_did = false;
    speaks_too_soon = true;
    assert_true(seeds_that_notice(state) > 0);
}

// What the test does by hand ---------------------------------------------------------------------------------------------

static void an_act(struct sim *sim, void *context)
{
    *(uint64_t *)context = sim_now_ns(sim);
}

static void time_is_virtual_and_acts_come_when_they_are_due(void **state)
{
    struct sim *sim = sim_make(&(struct sim_options){.seed = 1});
    case_later(state, free_sim, sim);
    uint64_t first = 0, never = 0;
    sim_at(sim, 86400000000000, an_act, &first);
    sim_at(sim, 172800000000000, an_act, &never);
    assert_true(sim_run_until(sim, NULL, NULL, 90000000000000));    // a day passes at once
    assert_true(first == 86400000000000);
    assert_true(never == 0);
    assert_true(sim_now_ns(sim) == 90000000000000);
}

static bool never_holds(struct sim *sim, void *context, char *text)
{
    (void)context;
    snprintf(text, SIM_TEXT_MAX, "it is %u", (unsigned)(sim_now_ns(sim) > 0));
    return false;
}

static void a_broken_invariant_ends_the_run_and_is_named(void **state)
{
    struct sim *sim = sim_make(&(struct sim_options){.seed = 1});
    case_later(state, free_sim, sim);
    uint64_t at = 0;
    sim_invariant(sim, "night", never_holds, NULL);
    sim_at(sim, 5, an_act, &at);
    sim_at(sim, 10, an_act, &at);
    assert_false(sim_run_until(sim, NULL, NULL, 100));
    assert_string_equal(sim_failure(sim), "night: it is 1");
    assert_true(at == 5);
}

static enum dj_error give_up(struct actor *self, void *state, const void *argument)
{
    (void)self, (void)state, (void)argument;
    return DJ_E_DEVICE_LOST;
}

static enum dj_error ignore(struct actor *self, void *state, struct letter *letter)
{
    (void)self, (void)state;
    letter_drop(letter);
    return DJ_OK;
}

static const struct actor_class quitter_class = {.name = "quitter", .state_bytes = 1, .start = give_up, .receive = ignore};

static struct process *make_quitter(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    (void)sim, (void)node, (void)life, (void)argument;
    struct process *process = NULL;
    assert_ok(process_make(&process));
    assert_ok(process_root(process, &quitter_class, NULL, 0));
    return process;
}

static void a_process_that_gives_up_is_started_again_where_somebody_runs_it(void **state)
{
    struct sim *sim = sim_make(&(struct sim_options){.seed = 1});
    case_later(state, free_sim, sim);
    uint32_t alone = sim_add_process(sim, "alone", make_quitter, NULL),
             served = sim_add_process(sim, "served", make_quitter, NULL);
    sim_serve(sim, served, 1000);
    assert_true(sim_run_until(sim, NULL, NULL, 3500));
    assert_true(sim_exit_code(sim, alone) > 0 && sim_life(sim, alone) == 0);
    assert_true(sim_exit_code(sim, served) > 0 && sim_life(sim, served) >= 2);
}

CASES(every_addition_is_acknowledged_and_kept_whatever_happens, the_same_seed_gives_the_same_run_and_another_another,
      a_bank_that_counts_twice_is_found, a_bank_that_speaks_before_its_disk_does_is_found,
      time_is_virtual_and_acts_come_when_they_are_due, a_broken_invariant_ends_the_run_and_is_named,
      a_process_that_gives_up_is_started_again_where_somebody_runs_it)
