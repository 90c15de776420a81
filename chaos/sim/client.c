// Client: the manual is client.h. One call of client_run is what frontend/client/loop does between two polls: events to the protocol, time to
// the protocol, and whoever waits looks whether it may go on.

#include "chaos/sim/client_state.h"

#include "chaos/sim/program.h"
#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/lineage/record.h"
#include "core/wire/wire.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_NS 10000000000u
#define RECONNECT_NS 100000000u    // after a session that could not be opened
#define ROOM_NS 600000000000u      // as the client's loop waits for room
#define FAREWELL_NS 20000000u      // between saying good-bye and closing the links
enum { OPENINGS_MAX = 400 };

void client_wrong(struct client *client, const char *format, ...)
{
    char text[SIM_TEXT_MAX - 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sim_fail(client->sim, "client%u: %s", client->config->index, text);
}

void client_met_error(struct client *client, enum dj_error error, const char *text)
{
    client->config->totals->errors++;
    client->is_fenced |= error == DJ_E_EPOCH_FENCED;
    if (!client->config->may_fail(client->config->context, error, client->phase == PHASE_OPENING))
        client_wrong(client, "an error that this world does not explain: %s (%s)", dj_error_name(error), text);
}

struct recorder *client_recorder(struct client *client)
{
    return client->recorder;
}

bool client_window(void *self, uint64_t *ret_executions, uint64_t *ret_bytes)
{
    const struct client *client = self;
    if (client->protocol == NULL || client->phase >= PHASE_ENDING)
        return false;
    struct protocol_stats stats = protocol_stats(client->protocol);
    *ret_executions = stats.executions_unacknowledged;
    *ret_bytes = stats.bytes_unacknowledged;
    return true;
}

struct handles_seen {
    const struct client *client;
    struct record_ref *ref;
    uint32_t count, most;
};

static void see_handle(void *context, uint64_t counter, uint32_t output)
{
    struct handles_seen *seen = context;
    if (seen->count < seen->most)
        seen->ref[seen->count++] = (struct record_ref){.counter = protocol_counter(seen->client->protocol, counter),
                                                       .output = output};
}

uint32_t client_live_handles(const struct client *client, struct record_ref *ret, uint32_t most, uint64_t *ret_session)
{
    struct handles_seen seen = {.client = client, .ref = ret, .most = most};
    if (client->protocol == NULL || client->phase != PHASE_RUNNING || client->is_fenced || protocol_is_resuming(client->protocol))
        return 0;
    *ret_session = protocol_session(client->protocol);
    for (uint32_t place = 0; place < recorder_places(client->recorder); place++)
        recorder_live_handles(client->recorder, place, see_handle, &seen);
    return seen.count;
}

static void open_session(struct client *client)
{
    struct protocol_config config = {
        .incarnation = hash_mix(client->config->program.seed, client->life * 1000 + ++client->openings),
        .timeout_ns = CONNECT_NS,
        .first_place = recorder_places(client->recorder),
        .leaves = recorder_leaves(client->recorder),
        .pid = 100 + client->config->index,
        .recovery = client->config->policy,
        .replay_limit_ns = client->config->replay_limit_ns};
    snprintf(config.head, sizeof config.head, "%s", client->config->head);
    snprintf(config.host, sizeof config.host, "%s", client->config->host);
    snprintf(config.name, sizeof config.name, "%s", client->config->name);
    snprintf(config.tenant, sizeof config.tenant, "default");
    struct protocol_port port = client_protocol_port(client);
    enum dj_error error = protocol_make(&config, &port, &client->protocol);
    assert(error == DJ_OK);
    client->phase = PHASE_OPENING;
    protocol_start(client->protocol, client->now_ns);
}

static void close_session(struct client *client)
{
    struct protocol *protocol = client->protocol;
    if (protocol == NULL)
        return;
    struct protocol_stats stats = protocol_stats(protocol);
    client->config->totals->resubmissions += stats.resubmissions;
    client->config->totals->links_lost += stats.links_lost;
    protocol_free(protocol);
    client->protocol = NULL;
    for (uint32_t i = 0; i < LINKS_MAX; i++)
        if (client->link[i] != 0)
            client_close_link(client, client->link[i]);
}

// Waiting -------------------------------------------------------------------------------------------------------------------

void client_begin_read(struct client *client, struct value *value)
{
    client->reading = value;
    client->room_until_ns = client->now_ns + ROOM_NS;
}

void client_begin_flush(struct client *client)
{
    client->is_flushing = true;
    client->room_until_ns = client->now_ns + ROOM_NS;
}

// DJ_E_BUSY: there is no room yet.
static enum dj_error flush(struct client *client, struct fault *fault)
{
    if (!recorder_has_pending(client->recorder))
        return DJ_OK;
    if (protocol_is_full(client->protocol))
        return client->now_ns < client->room_until_ns ? DJ_E_BUSY
                                                      : fault_set(fault, DJ_E_WINDOW_FULL, "no room in the window for 10 s");
    return recorder_flush(client->recorder, fault);
}

static void end_read(struct client *client, enum dj_error error, const char *text)
{
    struct value *value = client->reading;
    client->reading = NULL;
    if (client->fetching != NULL)
        client_drop_fetching(client->fetching);
    client->fetching = NULL;
    if (error != DJ_OK)
        program_failed(client->program, error, text);
    recorder_unwant(client->recorder, value);
}

static void copy_out(struct client *client)
{
    struct fault fault = {0};
    size_t bytes = program_read_bytes(client->program);
    uint8_t *data = malloc(bytes + 1);
    assert(data != NULL);
    enum dj_error error = recorder_copy(client->recorder, client->reading, data, bytes, &fault);
    if (error == DJ_OK)
        program_read(client->program, data, bytes);
    client->config->totals->reads += error == DJ_OK;
    free(data);
    end_read(client, error, fault.text);
}

static void begin_fetch(struct client *client)
{
    struct fetching *fetching = calloc(1, sizeof *fetching);
    assert(fetching != NULL);
    *fetching = (struct fetching){.client = client, .value = client->reading, .holders = 2};
    recorder_value_retain(client->reading);
    recorder_value_set_coming(client->reading, true);
    uint32_t place, output;
    uint64_t counter;
    recorder_value_handle(client->reading, &place, &counter, &output);
    client->fetching = fetching;
    client->config->totals->fetches++;
    protocol_fetch(client->protocol, client->now_ns, place, counter, output, fetching);
}

// True when something happened; the read may be over then.
static bool read_goes_on(struct client *client)
{
    struct fault fault = {0};
    struct dj_fault why = {0};
    enum dj_error error;
    switch (recorder_value_state(client->recorder, client->reading)) {
    case VALUE_LOCAL:
    case VALUE_ANSWERED: copy_out(client); return true;
    case VALUE_FAILED:
        error = recorder_value_fault(client->recorder, client->reading, &why);
        end_read(client, error, why.text);
        return true;
    case VALUE_RECORDED:
        error = flush(client, &fault);
        if (error == DJ_E_BUSY)
            return false;
        if (error != DJ_OK)
            end_read(client, error, fault.text);
        return true;
    case VALUE_AT_WORKER: break;
    }
    if (client->fetching != NULL && client->fetching->is_done) {
        memcpy(fault.text, client->fetching->text, sizeof fault.text);
        error = client->fetching->error == DJ_OK ? DJ_E_MALFORMED : client->fetching->error;
        end_read(client, error, fault.text);
        return true;
    }
    if (recorder_value_is_coming(client->reading))
        return false;
    begin_fetch(client);
    return true;
}

static bool flush_goes_on(struct client *client)
{
    struct fault fault = {0};
    enum dj_error error = flush(client, &fault);
    if (error == DJ_E_BUSY)
        return false;
    client->is_flushing = false;
    if (error != DJ_OK)
        program_failed(client->program, error, fault.text);
    return true;
}

// Running -------------------------------------------------------------------------------------------------------------------

static bool opening_goes_on(struct client *client)
{
    struct fault fault = {0};
    enum protocol_state state = protocol_state(client->protocol, &fault);
    if (state == PROTOCOL_OPENING)
        return false;
    if (state == PROTOCOL_READY) {
        client->phase = PHASE_RUNNING;
        return true;
    }
    client_met_error(client, client->openings >= OPENINGS_MAX ? DJ_E_LIMIT : fault.code, fault.text);
    close_session(client);
    client->phase = PHASE_PAUSING;
    client->wake_ns = client->now_ns + RECONNECT_NS;
    return false;
}

static bool ending_goes_on(struct client *client)
{
    if (!protocol_is_idle(client->protocol))
        return false;
    recorder_flush_releases(client->recorder);
    protocol_close(client->protocol, false);
    client->phase = PHASE_LEAVING;
    client->wake_ns = client->now_ns + FAREWELL_NS;
    return false;
}

// True when there may be more to do at once.
static bool go_on(struct client *client)
{
    switch (client->phase) {
    case PHASE_OPENING: return opening_goes_on(client);
    case PHASE_PAUSING:
        if (client->now_ns >= client->wake_ns)
            open_session(client);
        return false;
    case PHASE_RUNNING:
        if (client->reading != NULL)
            return read_goes_on(client);
        if (client->is_flushing)
            return flush_goes_on(client);
        if (client->now_ns < client->wake_ns)
            return false;
        client->config->totals->steps++;
        client->wake_ns = program_step(client->program);
        if (client->wake_ns == UINT64_MAX)
            client->phase = PHASE_ENDING;
        else
            client->wake_ns += client->now_ns;
        return true;
    case PHASE_ENDING: return ending_goes_on(client);
    case PHASE_LEAVING:
        if (client->now_ns < client->wake_ns)
            return false;
        close_session(client);
        client->phase = PHASE_FINISHED;
        client->config->totals->finished++;
        return false;
    case PHASE_FINISHED: return false;
    }
    return false;
}

// Another process has taken the session over: this one is done.
static void give_up(struct client *client)
{
    if (client->reading != NULL)
        end_read(client, DJ_OK, "");
    close_session(client);
    client->is_flushing = false;
    client->phase = PHASE_FINISHED;
}

static void handle(struct client *client, struct io_event *event)
{
    if (event->kind == IO_LINK_UP)
        client_note_link(client, 0, event->link_up.link);
    else if (event->kind == IO_LINK_DOWN && event->link_down.link != 0)
        client_note_link(client, event->link_down.link, 0);
    if (client->protocol != NULL && event->kind != IO_START)
        protocol_event(client->protocol, client->now_ns, event);
    else
        event_drop(event);
    *event = (struct io_event){0};
}

static bool client_run(void *self, uint64_t now_ns, struct io_effects *ret)
{
    struct client *client = self;
    client->now_ns = now_ns;
    client->effects = ret;
    if (!client->is_started) {
        client->is_started = true;
        open_session(client);
    }
    for (uint32_t i = 0; i < client->events; i++)
        handle(client, &client->event[i]);
    client->events = 0;
    if (client->protocol != NULL)
        protocol_tick(client->protocol, now_ns);
    while (go_on(client)) {
    }
    if (client->is_fenced && client->phase != PHASE_FINISHED)
        give_up(client);
    client->effects = &client->silent;
    return false;
}

static enum dj_error client_post(void *self, const struct io_event *event)
{
    struct client *client = self;
    if (client->events == client->event_capacity) {
        client->event_capacity = client->event_capacity == 0 ? EVENTS_FIRST : client->event_capacity * 2;
        client->event = realloc(client->event, client->event_capacity * sizeof *client->event);
        assert(client->event != NULL);
    }
    client->event[client->events++] = *event;
    return DJ_OK;
}

static uint64_t client_deadline_ns(const void *self)
{
    const struct client *client = self;
    if (client->events > 0 || !client->is_started)
        return 0;
    uint64_t at = client->protocol == NULL ? UINT64_MAX : protocol_deadline_ns(client->protocol), own = UINT64_MAX;
    if (client->phase == PHASE_PAUSING || client->phase == PHASE_LEAVING)
        own = client->wake_ns;
    else if (client->phase == PHASE_RUNNING)
        own = client->reading != NULL || client->is_flushing ? client->room_until_ns : client->wake_ns;
    if (own <= client->now_ns && client->phase == PHASE_RUNNING && (client->reading != NULL || client->is_flushing))
        own = UINT64_MAX;
    return own < at ? own : at;
}

static void client_free(void *self)
{
    struct client *client = self;
    client->effects = &client->silent;
    recorder_close(client->recorder, DJ_E_CLOSED, "the client is over");
    if (client->reading != NULL) {
        if (client->fetching != NULL)
            client_drop_fetching(client->fetching);
        recorder_unwant(client->recorder, client->reading);
    }
    close_session(client);
    program_free(client->program);
    recorder_free(client->recorder);
    for (uint32_t i = 0; i < client->events; i++)
        event_drop(&client->event[i]);
    effects_free(&client->silent);
    free(client->event);
    free(client->tag);
    free(client);
}

const struct sim_ops client_ops = {
    .post = client_post, .run = client_run, .deadline_ns = client_deadline_ns, .free = client_free};

void *client_make(struct sim *sim, uint32_t node, uint64_t life, void *config)
{
    struct client *client = calloc(1, sizeof *client);
    assert(client != NULL);
    *client = (struct client){.sim = sim, .node = node, .config = config, .life = life, .effects = &client->silent};
    effects_init(&client->silent);
    client->config->totals->lives++;
    struct recorder_port port = client_recorder_port(client);
    enum dj_error error = recorder_make(&port, &client->recorder);
    assert(error == DJ_OK);
    struct program_options program = client->config->program;
    if (life > 0 && client->config->name[0] == '\0')
        program.seed = hash_mix(program.seed, life);
    if (life == 0)
        program.deviates_after = UINT32_MAX;
    program.deviant_seed = hash_mix(program.deviant_seed, life);
    client->program = program_make(client, &program);
    return client;
}

bool client_is_finished(const struct client *client)
{
    return client->phase == PHASE_FINISHED;
}

void client_say_state(const struct client *client, char *text, size_t bytes)
{
    static const char *const names[] = {"opening a session", "pausing", "running", "waiting for its last answers",
                                        "leaving",           "finished"};
    const char *wait = client->reading == NULL    ? client->is_flushing ? ", waiting for room" : ""
                       : client->fetching != NULL ? ", fetching"
                                                  : ", reading";
    snprintf(text, bytes, "client%u is %s%s with %u steps to go", client->config->index, names[client->phase], wait,
             program_steps_left(client->program));
}
