// look.c: the functions of djinn.h about the session's life and about looking in: initialisation, the op table, statistics, graphs, the head.

#include "frontend/client/loop/client.h"

#include <stdlib.h>
#include <string.h>

#include "core/ops/op.h"
#include "frontend/client/loop/thread.h"

#define SHUTDOWN_NS 4000000000u
#define ASK_NS 10000000000u
enum { JSON_BYTES_MAX = 256 << 20, RECORD_SAMPLE_MIN = 1 };

const char *dj_error_name_of(int error)
{
    return dj_error_name((enum dj_error)error);
}
const char *dj_error_text_of(int error)
{
    return dj_error_text((enum dj_error)error);
}
const char *dj_version(void)
{
    return "0.1.0";
}
void dj_free(void *memory)
{
    free(memory);
}

// Life ---------------------------------------------------------------------------------------------------------------------

int dj_init(const struct dj_config *config, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return fault_out(fault, DJ_E_NO_MEMORY, NULL);
    struct fault cause = {0};
    enum dj_error error = client_connect(client, config, true, &cause);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

int dj_shutdown(int keep)
{
    struct client *client = client_enter();
    if (client == NULL)
        return 0;
    enum dj_error error = client->state == CLIENT_ON ? client_flush(client, NULL) : DJ_OK;
    client_disconnect(client, DJ_E_CLOSED, "the tensor belongs to a session that was shut down", SHUTDOWN_NS, keep != 0);
    client_leave(client);
    return (int)error;
}

int dj_is_initialized(void)
{
    struct client *client = client_enter();
    if (client == NULL)
        return 0;
    bool is_on = client->state == CLIENT_ON;
    client_leave(client);
    return is_on;
}

int dj_device_count(void)
{
    struct client *client = client_enter();
    if (client == NULL)
        return -(int)DJ_E_NO_MEMORY;
    enum dj_error error = client_connect(client, NULL, false, NULL);
    int count = error == DJ_OK ? (int)protocol_devices(client->protocol) : -(int)error;
    client_leave(client);
    return count;
}

int dj_default_device(struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return -(int)DJ_E_NO_MEMORY;
    struct fault cause = {0};
    enum dj_error error = client_connect(client, NULL, false, &cause);
    int device = error == DJ_OK ? (int)protocol_home_device(client->protocol) : -fault_out(fault, error, &cause);
    client_leave(client);
    return device;
}

void dj_on_wait(int (*check)(void *context), void *context)
{
    struct client *client = client_enter();
    if (client == NULL)
        return;
    client->check = check;
    client->check_context = context;
    client_leave(client);
}

// The op table -------------------------------------------------------------------------------------------------------------

static struct dj_op table[OP_LIMIT];
static uint32_t table_count;

static void table_fill(void)
{
    ops_init();
    for (uint32_t row = 0; row < op_count(); row++) {
        const struct op_info *op = op_at(row);
        table[row] = (struct dj_op){.number = op->number,
                                    .flags = op->flags,
                                    .outputs = op->outputs,
                                    .attrs = op->attrs,
                                    .name = op->name,
                                    .aten = op->aten,
                                    .signature = op->signature};
    }
    table_count = op_count();
}

const struct dj_op *dj_op_table(uint32_t *count)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, table_fill);
    *count = table_count;
    return table;
}

const struct dj_op *dj_op_find(const char *name_or_aten)
{
    uint32_t count;
    const struct dj_op *ops = dj_op_table(&count);
    const struct op_info *op = op_find(name_or_aten);
    for (uint32_t row = 0; op != NULL && row < count; row++)
        if (ops[row].number == op->number)
            return &ops[row];
    return NULL;
}

int dj_op_is_native(uint32_t number)
{
    const struct op_info *op = op_info(number);
    if (op == NULL)
        return 0;
    if ((op->flags & OP_IS_VIEW) != 0)
        return 1;    // metadata: no kernel is needed
    struct client *client = client_enter();
    if (client == NULL)
        return 0;
    bool can = client_connect(client, NULL, false, NULL) == DJ_OK && protocol_can(client->protocol, number);
    client_leave(client);
    return can;
}

// Statistics ---------------------------------------------------------------------------------------------------------------

void dj_stats(struct dj_stats *ret)
{
    *ret = (struct dj_stats){0};
    struct client *client = client_enter();
    if (client == NULL)
        return;
    struct recorder_stats recorder = recorder_stats(client->recorder);
    struct leaf_stats leaves = leaf_table_stats(recorder_leaves(client->recorder));
    struct protocol_stats now = {0}, past = client->closed;
    struct loop_stats bytes = client->closed_bytes;
    if (client->protocol != NULL && client->loop != NULL) {
        now = protocol_stats(client->protocol);
        struct loop_stats live = loop_stats(client->loop);
        bytes.bytes_in += live.bytes_in;
        bytes.bytes_out += live.bytes_out;
    }
    *ret = (struct dj_stats){
        .ops_recorded = recorder.ops_recorded,
        .ops_submitted = recorder.ops_submitted,
        .ops_dropped = recorder.ops_dropped,
        .views_restrided = recorder.views_restrided,
        .executions = recorder.executions,
        .plans = recorder.plans,
        .plans_sent = past.plans_sent + now.plans_sent,
        .reads = client->reads,
        .reads_predicted = recorder.reads_predicted,
        .round_trips = past.round_trips + now.round_trips,
        .bytes_out = bytes.bytes_out,
        .bytes_in = bytes.bytes_in,
        .leaf_bytes_out = past.leaf_bytes_out + now.leaf_bytes_out,
        .leaf_bytes_in_reads = client->leaf_bytes_in_reads,
        .leaves = leaves.leaves,
        .leaves_reused = leaves.leaves_reused,
        .record_ns = client->record_ns,
        .flush_ns = client->flush_ns,
        .wait_ns = client->wait_ns,
        .bind_ns = past.bind_ns + now.bind_ns,
        .execute_ns = past.execute_ns + now.execute_ns,
        .init_ns = client->init_ns,
        .handles_live = recorder.handles_live,
        .bytes_unacknowledged = now.bytes_unacknowledged,
        .executions_unacknowledged = now.executions_unacknowledged,
        .resubmissions = past.resubmissions + now.resubmissions,
        .links_lost = past.links_lost + now.links_lost,
        .recoveries = past.recoveries + now.recoveries,
        .replayed = past.replayed + now.replayed,
        .recovery_ns = past.recovery_ns + now.recovery_ns,
        .nondeterminism = past.nondeterminism + now.nondeterminism,
        .resumed = past.resumed + now.resumed,
    };
    client_leave(client);
}

// Graphs -------------------------------------------------------------------------------------------------------------------

int dj_graph_json(const char *which, char **ret, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return fault_out(fault, DJ_E_NO_MEMORY, NULL);
    struct fault cause = {0};
    struct writer writer = writer_make(JSON_BYTES_MAX);
    enum dj_error error = which == NULL || ret == NULL ? DJ_E_INVALID
                                                       : recorder_graph_json(client->recorder, which, &writer, &cause);
    client_leave(client);
    if (error == DJ_OK) {
        write_u8(&writer, 0);
        error = writer.error;
    }
    if (error != DJ_OK) {
        writer_free(&writer);
        return fault_out(fault, error, &cause);
    }
    *ret = (char *)writer.data;    // the writer's memory is malloc's, and the caller's now
    return 0;
}

int dj_capture_begin(struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return fault_out(fault, DJ_E_NO_MEMORY, NULL);
    struct fault cause = {0};
    enum dj_error error = client_flush(client, &cause);
    if (error == DJ_OK)
        recorder_capture(client->recorder, true);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

int dj_capture_end(struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return fault_out(fault, DJ_E_NO_MEMORY, NULL);
    recorder_capture(client->recorder, false);
    client_leave(client);
    return 0;
}

// The head -----------------------------------------------------------------------------------------------------------------

static bool is_told(struct client *client, void *context)
{
    (void)client;
    return ((const struct asking *)context)->is_done;
}

int dj_ask(const char *verb, const char *argument, char **json, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return fault_out(fault, DJ_E_NO_MEMORY, NULL);
    struct fault cause = {0};
    enum dj_error error = verb == NULL || json == NULL ? DJ_E_INVALID : client_connect(client, NULL, false, &cause);
    struct asking *asking = error == DJ_OK ? calloc(1, sizeof *asking) : NULL;
    if (error == DJ_OK && asking == NULL)
        error = DJ_E_NO_MEMORY;
    if (error == DJ_OK) {
        asking->holders = 2;
        protocol_ask(client->protocol, loop_now_ns(), verb, argument == NULL ? "" : argument, asking);
        error = client_wait(client, is_told, asking, loop_now_ns() + ASK_NS);
        if (error != DJ_OK) {
            fault_set(&cause, error, "the head did not answer \"%s\": %s", verb, dj_error_text(error));
        } else if (asking->error != DJ_OK) {
            error = fault_set(&cause, asking->error, "%s", asking->text);
        } else if (asking->json == NULL) {
            error = DJ_E_NO_MEMORY;
        } else {
            *json = asking->json;
            asking->json = NULL;
        }
        asking_drop(asking);
    }
    client_leave(client);
    return fault_out(fault, error, &cause);
}
