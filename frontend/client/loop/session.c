// Session: connecting and disconnecting the client: which head, which token, the embedded child, the background thread.

#define _GNU_SOURCE
#include "frontend/client/loop/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "chaos/live/live.h"
#include "core/base/log.h"
#include "core/base/assert.h"
#include "core/lineage/record.h"

#define CONNECT_NS 10000000000u
#define LOCAL_AFTER_NS 5000000000u    // without a worker in the pool, before one is started here, if that is allowed
enum { TOKEN_PATH_BYTES = 1024 };

// What to connect to ---------------------------------------------------------------------------------------------------------

static bool random_fill(void *to, size_t bytes)
{
    return getrandom(to, bytes, 0) == (ssize_t)bytes;
}

// As djinn.h says: given, then the environment, then the file that the head of this user wrote.
static enum dj_error token_find(const char *given, struct hash128 *ret, struct fault *fault)
{
    const char *text = given != NULL ? given : getenv("DJINN_TOKEN");
    if (text != NULL && text[0] != '\0')
        return hash128_parse(text, ret)
                   ? DJ_OK
                   : fault_set(fault, DJ_E_TOKEN, "a token is 32 hexadecimal digits; look into the head's token file");
    char path[TOKEN_PATH_BYTES], line[HASH128_TEXT] = {0};
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state != NULL && state[0] == '/')
        snprintf(path, sizeof path, "%.900s/djinn/token", state);
    else
        snprintf(path, sizeof path, "%.900s/.local/state/djinn/token", home != NULL ? home : "/root");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fault_set(fault, DJ_E_TOKEN, "there is no token: set DJINN_TOKEN, or make %.300s readable (%s)", path,
                         strerror(errno));
    ssize_t n = read(fd, line, HASH128_TEXT - 1);
    close(fd);
    if (n != HASH128_TEXT - 1 || !hash128_parse(line, ret))
        return fault_set(fault, DJ_E_TOKEN, "%.300s does not hold 32 hexadecimal digits", path);
    return DJ_OK;
}

// Names the machine and this boot of it, as workers do: who shares it can use a unix socket.
static void host_name(char host[64])
{
    char name[32] = "host", boot[16] = "0";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    gethostname(name, sizeof name - 1);
    if (file != NULL) {
        if (fgets(boot, 9, file) == NULL)
            boot[0] = '\0';
        fclose(file);
    }
    snprintf(host, 64, "%s-%s", name, boot);
}

static enum dj_error address_of(const char *given, char address[IO_ADDRESS_MAX], struct fault *fault)
{
    const char *text = strncmp(given, "tcp://", 6) == 0 ? given + 6 : given;
    const char *colon = strrchr(text, ':');
    char *end;
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    if (colon == NULL || colon == text || colon[1] == '\0' || *end != '\0' || port == 0 || port > 65535 ||
        strlen(text) > IO_ADDRESS_MAX - 8)
        return fault_set(fault, DJ_E_ADDRESS, "\"%.100s\" is not a head's address; write HOST:PORT, for example 127.0.0.1:7070",
                         given);
    snprintf(address, IO_ADDRESS_MAX, "tcp://%.*s", IO_ADDRESS_MAX - 8, text);
    return DJ_OK;
}

static enum dj_error target_find(struct client *client, const struct dj_config *config, uint64_t deadline_ns,
                                 struct protocol_config *ret, struct fault *fault)
{
    const char *given = config->address != NULL && config->address[0] != '\0' ? config->address : getenv("DJINN_ADDRESS");
    enum dj_error error;
    if (given != NULL && given[0] != '\0') {
        error = address_of(given, ret->head, fault);
        if (error == DJ_OK)
            error = token_find(config->token, &ret->token, fault);
        client->is_embedded = false;
        return error;
    }
    if (!random_fill(&ret->token, sizeof ret->token))
        return fault_set(fault, DJ_E_SYSTEM, "the system gives no random bytes: %s", strerror(errno));
    error = embedded_start(config->program, ret->token, config->embedded_threads, deadline_ns, &client->embedded, fault);
    if (error == DJ_OK)
        error = address_of(client->embedded.address, ret->head, fault);
    client->is_embedded = ret->is_embedded = true;
    return error;
}

// Connecting ---------------------------------------------------------------------------------------------------------------

static bool has_settled(struct client *client, void *context)
{
    (void)context;
    return client->protocol == NULL || protocol_state(client->protocol, NULL) != PROTOCOL_OPENING;
}

static bool is_not_connecting(struct client *client, void *context)
{
    (void)context;
    return client->state != CLIENT_CONNECTING;
}

static void stats_close(struct client *client)
{
    struct protocol_stats now = protocol_stats(client->protocol), *sum = &client->closed;
    struct loop_stats bytes = client->loop == NULL ? (struct loop_stats){0} : loop_stats(client->loop);
    sum->executions += now.executions;
    sum->plans_sent += now.plans_sent;
    sum->round_trips += now.round_trips;
    sum->leaf_bytes_out += now.leaf_bytes_out;
    sum->resubmissions += now.resubmissions;
    sum->links_lost += now.links_lost;
    sum->recoveries += now.recoveries;
    sum->replayed += now.replayed;
    sum->recovery_ns += now.recovery_ns;
    sum->nondeterminism += now.nondeterminism;
    sum->resumed += now.resumed;
    sum->bind_ns += now.bind_ns;
    sum->execute_ns += now.execute_ns;
    client->closed_bytes.bytes_in += bytes.bytes_in;
    client->closed_bytes.bytes_out += bytes.bytes_out;
}

// For `djinn chaos`: a program that was started with DJINN_CHAOS=1 can be broken on purpose. It runs also if it cannot be.
static void listen_for_chaos(void)
{
    const char *asked = getenv("DJINN_CHAOS"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char folder[TOKEN_PATH_BYTES], name[32];
    struct fault fault = {0};
    if (asked == NULL || strcmp(asked, "1") != 0)
        return;
    if (state != NULL && state[0] == '/')
        snprintf(folder, sizeof folder, "%.900s/djinn", state);
    else
        snprintf(folder, sizeof folder, "%.900s/.local/state/djinn", home != NULL ? home : "/root");
    snprintf(name, sizeof name, "client-%d", getpid());
    if (live_listen(folder, name, LIVE_CLIENT, &fault) != DJ_OK)
        log_write(LOG_WARN, "chaos", "%s", fault.text);
}

static void tear_down(struct client *client)
{
    live_end();
    client_quiesce(client);
    if (client->protocol != NULL)
        stats_close(client);
    protocol_free(client->protocol);
    loop_free(client->loop);
    client->protocol = NULL;
    client->loop = NULL;
    client->is_closing = false;
    embedded_stop(&client->local.child);
    embedded_stop(&client->embedded);
}

static enum dj_error policy_of(const struct dj_config *config, struct protocol_config *ret, struct fault *fault)
{
    static const char *const names[LINEAGE_POLICIES] = {"checkpoint", "replicate", "recompute"};
    const char *wanted = config->recovery == NULL || config->recovery[0] == '\0' ? names[0] : config->recovery;
    uint8_t policy = 0;
    while (policy < LINEAGE_POLICIES && strcmp(names[policy], wanted) != 0)
        policy++;
    if (policy == LINEAGE_POLICIES)
        return fault_set(fault, DJ_E_INVALID, "recovery is \"checkpoint\", \"replicate\" or \"recompute\", not \"%.40s\"",
                         wanted);
    ret->recovery = policy;
    ret->replay_limit_ns = config->replay_limit_ns;
    ret->recovery_timeout_ns = config->recovery_timeout_ns != 0 ? config->recovery_timeout_ns : PROTOCOL_RECOVERY_NS;
    ret->allows_close = config->allows_close != 0;
    ret->pid = (uint32_t)getpid();
    return DJ_OK;
}

static void say(const char *line)
{
    const char *quiet = getenv("DJINN_QUIET");
    if (quiet == NULL || strcmp(quiet, "0") == 0)
        (void)!write(STDERR_FILENO, line, strlen(line));
}

void client_mind_pool(struct client *client, uint64_t now_ns)
{
    struct local *local = &client->local;
    char line[512];
    struct fault fault = {0};
    if (protocol_has_worker(client->protocol))
        local->missing_ns = 0;
    else if (local->missing_ns == 0)
        local->missing_ns = now_ns;
    if (local->child.pid != 0 || local->has_failed || local->missing_ns == 0 || now_ns - local->missing_ns < LOCAL_AFTER_NS)
        return;
    const char *program = local->program[0] == '\0' ? NULL : local->program;
    const char *head = strncmp(client->address, "tcp://", 6) == 0 ? client->address + 6 : client->address;
    local->has_failed = embedded_start_worker(program, head, local->token, local->threads, &local->child, &fault) != DJ_OK;
    if (local->has_failed)
        snprintf(line, sizeof line, "djinn: the pool has no worker, and none can be started here: %.300s\n", fault.text);
    else
        snprintf(line, sizeof line, "djinn: the pool has no worker; one was started on this machine, with process number %d\n",
                 (int)local->child.pid);
    say(line);
}

// Recoveries, for people: a pause has its reason.
void client_say_recovered(void *self, const struct protocol_recovery *recovery)
{
    char line[256];
    (void)self;
    double took_s = (double)recovery->took_ns / 1e9, cost_s = (double)recovery->cost_ns / 1e9;
    if (recovery->was_lost)
        snprintf(line, sizeof line, "djinn: worker %s was lost; %u executions (%.1f s) were replayed on %s in %.1f s\n",
                 recovery->from, recovery->executions, cost_s, recovery->to, took_s);
    else if (recovery->executions > 0)
        snprintf(line, sizeof line, "djinn: values were missing on %s; %u executions (%.1f s) were replayed in %.1f s\n",
                 recovery->to, recovery->executions, cost_s, took_s);
    else
        return;
    say(line);
}

static enum dj_error open_session(struct client *client, const struct dj_config *config, struct fault *fault)
{
    uint64_t begun_ns = loop_now_ns(), timeout_ns = config->timeout_ns != 0 ? config->timeout_ns : CONNECT_NS;
    struct protocol_config protocol = {
        .timeout_ns = timeout_ns, .first_place = recorder_places(client->recorder), .leaves = recorder_leaves(client->recorder)};
    // While the child starts, other threads may record: the state says CONNECTING.
    pthread_mutex_unlock(&client->lock);
    enum dj_error error = target_find(client, config, begun_ns + timeout_ns, &protocol, fault);
    pthread_mutex_lock(&client->lock);
    if (error != DJ_OK)
        return error;
    snprintf(protocol.tenant, sizeof protocol.tenant, "%s", config->tenant != NULL ? config->tenant : "default");
    snprintf(protocol.name, sizeof protocol.name, "%s", config->session != NULL ? config->session : "");
    host_name(protocol.host);
    error = policy_of(config, &protocol, fault);
    if (error != DJ_OK)
        return error;
    client->local = (struct local){.threads = config->embedded_threads, .token = protocol.token};
    snprintf(client->local.program, sizeof client->local.program, "%s", config->program != NULL ? config->program : "");
    client->local.is_allowed = protocol.waits_for_worker = config->allows_local != 0 && !client->is_embedded;
    client->recovery_timeout_ns = protocol.recovery_timeout_ns;
    if (!random_fill(&protocol.incarnation, sizeof protocol.incarnation))
        return fault_set(fault, DJ_E_SYSTEM, "the system gives no random bytes: %s", strerror(errno));
    error = loop_make(&client->lock, client_handle, client, &client->loop);
    if (error == DJ_OK)
        error = protocol_make(&protocol, &client_protocol_port, &client->protocol);
    if (error != DJ_OK)
        return fault_set(fault, error, "no memory to open a session");
    snprintf(client->address, sizeof client->address, "%s", protocol.head);
    listen_for_chaos();
    protocol_start(client->protocol, loop_now_ns());
    error = client_wait(client, has_settled, NULL, begun_ns + 10 * timeout_ns);    // the protocol's own comes first
    if (error != DJ_OK)
        return fault_set(fault, error, "connecting to the head at %s: %s", protocol.head, dj_error_text(error));
    struct fault cause = {0};
    if (protocol_state(client->protocol, &cause) == PROTOCOL_FAILED) {
        if (client->is_embedded)
            return fault_set(fault, cause.code, "the embedded head and worker: %.300s; their log is %s", cause.text,
                             client->embedded.log);
        return fault_set(fault, cause.code, "%s", cause.text);
    }
    client->must_stop = false;
    client->has_thread = pthread_create(&client->thread, NULL, client_background, client) == 0;
    if (!client->has_thread)
        return fault_set(fault, DJ_E_SYSTEM, "cannot start the client's thread");
    client->init_ns = loop_now_ns() - begun_ns;
    client->sessions++;
    return DJ_OK;
}

static enum dj_error check_connected(const struct client *client, const struct dj_config *config, struct fault *fault)
{
    if (config == NULL || config->address == NULL || config->address[0] == '\0')
        return DJ_OK;
    char address[IO_ADDRESS_MAX];
    enum dj_error error = address_of(config->address, address, fault);
    if (error == DJ_OK && strcmp(address, client->address) != 0)
        error = fault_set(fault, DJ_E_INVALID, "already connected to %s; shut down before connecting to %s", client->address,
                          address);
    return error;
}

enum dj_error client_connect(struct client *client, const struct dj_config *config, bool is_explicit, struct fault *fault)
{
    static const struct dj_config defaults;
    if (client->state == CLIENT_CONNECTING) {
        enum dj_error error = client_wait(client, is_not_connecting, NULL, loop_now_ns() + 2 * CONNECT_NS);
        if (error != DJ_OK)
            return fault_set(fault, error, "another thread has been connecting for too long");
    }
    if (client->state == CLIENT_ON)
        return check_connected(client, config, fault);
    if (client->state == CLIENT_FORKED && !is_explicit)
        return fault_set(
            fault, DJ_E_FORKED,
            "this process was forked after Djinn was initialised; call dj_init (in Python: djinn.init()) in it first");
    enum client_state before = client->state;
    client->state = CLIENT_CONNECTING;
    struct fault cause = {0};
    enum dj_error error = open_session(client, config == NULL ? &defaults : config, &cause);
    if (error == DJ_OK) {
        client->state = CLIENT_ON;
    } else {
        if (fault != NULL)
            *fault = cause;
        tear_down(client);
        client->state = before;
    }
    pthread_cond_broadcast(&client->changed);
    return error;
}

// Disconnecting ------------------------------------------------------------------------------------------------------------

static bool has_finished(struct client *client, void *context)
{
    (void)context;
    return client->protocol == NULL || protocol_is_idle(client->protocol);
}

static bool is_durable(struct client *client, void *context)
{
    (void)context;
    return client->protocol == NULL || protocol_is_durable(client->protocol);
}

static bool has_drained(struct client *client, void *context)
{
    (void)context;
    return client->loop == NULL || loop_is_drained(client->loop);
}

void client_disconnect(struct client *client, enum dj_error error, const char *text, uint64_t linger_ns, bool keep)
{
    if (client->state != CLIENT_ON)
        return;
    // Work that does not finish in time is left to the worker: nobody asks for it any more.
    enum dj_error finished = client_wait(client, has_finished, NULL, loop_now_ns() + linger_ns);
    if (finished != DJ_OK)
        log_write(LOG_DEBUG, "client", "work was still under way at the end: %s", dj_error_text(finished));
    if (client->state != CLIENT_ON)
        return;                           // another thread was faster
    client->state = CLIENT_CONNECTING;    // keeps others out while the lock is let go below
    if (keep) {                           // after the good-bye the head hears nothing more of it
        protocol_tell(client->protocol, loop_now_ns());
        if (client_wait(client, is_durable, NULL, loop_now_ns() + linger_ns / 2) != DJ_OK)
            log_write(LOG_DEBUG, "client", "not everything was durable at the end");
    }
    protocol_close(client->protocol, keep);
    if (client_wait(client, has_drained, NULL, loop_now_ns() + linger_ns / 10) != DJ_OK)
        log_write(LOG_DEBUG, "client", "not all messages left before the end");
    client->must_stop = true;
    loop_wake(client->loop);
    pthread_t thread = client->thread;
    pthread_mutex_unlock(&client->lock);
    pthread_join(thread, NULL);
    pthread_mutex_lock(&client->lock);
    client->has_thread = false;
    recorder_close(client->recorder, error, text);
    tear_down(client);
    client->state = CLIENT_OFF;
    pthread_cond_broadcast(&client->changed);
}
