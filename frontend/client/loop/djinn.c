// djinn.c: the functions of djinn.h that record, write and read. One lock around everything (client.h).

#include "frontend/client/loop/client.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "frontend/client/loop/thread.h"

// Every call of dj_record would pay for two clock readings; one in so many does.
enum { RECORD_SAMPLE = 64 };

#define FOREVER UINT64_MAX

_Thread_local uint32_t thread_module, thread_site;

int fault_out(struct dj_fault *to, enum dj_error error, const struct fault *from)
{
    if (to != NULL && error != DJ_OK) {
        to->error = (int32_t)error;
        to->site = thread_site;
        const char *text = from != NULL && from->text[0] != '\0' ? from->text : dj_error_text(error);
        size_t length = strnlen(text, sizeof to->text - 1);
        memcpy(to->text, text, length);
        to->text[length] = '\0';
    }
    return (int)error;
}

static struct recorded_at here(void)
{
    return (struct recorded_at){.module = thread_module, .site = thread_site};
}

static int no_memory(struct dj_fault *fault)
{
    return fault_out(fault, DJ_E_NO_MEMORY, NULL);
}

static enum dj_error check_fork(const struct client *client, struct fault *fault)
{
    if (client->state != CLIENT_FORKED)
        return DJ_OK;
    return fault_set(fault, DJ_E_FORKED,
                     "this process was forked after Djinn was initialised; call dj_init (in Python: djinn.init()) in it first");
}

// Bounds on recorded work: what was recorded stays recorded even if it cannot be submitted now; its readers will hear why.
static enum dj_error keep_bounds(struct client *client, struct fault *fault)
{
    if (!recorder_is_full(client->recorder))
        return DJ_OK;
    return client_flush(client, fault);
}

// Cells --------------------------------------------------------------------------------------------------------------------

struct dj_cell *dj_cell_make(int device)
{
    struct client *client = client_enter();
    if (client == NULL)
        return NULL;
    struct dj_cell *cell = recorder_cell(client->recorder, device < 0 ? DJ_ANY_DEVICE : device);
    client_leave(client);
    return cell;
}

void dj_cell_hold(struct dj_cell *cell)
{
    struct client *client = client_enter();
    recorder_cell_hold(cell);
    client_leave(client);
}

void dj_cell_drop(struct dj_cell *cell)
{
    struct client *client = client_enter();
    recorder_cell_drop(client->recorder, cell);
    client_leave(client);
}

int dj_cell_device(const struct dj_cell *cell)
{
    return recorder_cell_device(cell);    // never changes
}

// Recording ----------------------------------------------------------------------------------------------------------------

int dj_record(uint32_t op, const struct dj_arg *in, uint32_t n_in, const struct dj_attr *attr, uint32_t n_attr, int dtype,
              int device, struct dj_tensor *out, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    bool is_sampled = client->records++ % RECORD_SAMPLE == 0;
    uint64_t begun_ns = is_sampled ? loop_now_ns() : 0;
    struct fault cause;
    cause.text[0] = '\0';
    enum dj_error error = check_fork(client, &cause);
    if (error == DJ_OK)
        error = keep_bounds(client, &cause);
    if (error == DJ_OK)
        error = recorder_record(client->recorder, op, in, n_in, attr, n_attr, dtype, device, here(), out, &cause);
    if (is_sampled)
        client->record_ns += (loop_now_ns() - begun_ns) * RECORD_SAMPLE;
    client_leave(client);
    return error == DJ_OK ? 0 : fault_out(fault, error, &cause);
}

int dj_write(const struct dj_tensor *to, const struct dj_tensor *from, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    struct fault cause = {0};
    enum dj_error error = check_fork(client, &cause);
    if (error == DJ_OK)
        error = keep_bounds(client, &cause);
    if (error == DJ_OK)
        error = recorder_write(client->recorder, to, from, here(), &cause);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

int dj_assign(struct dj_cell *cell, const struct dj_tensor *from, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    struct fault cause = {0};
    enum dj_error error = check_fork(client, &cause);
    if (error == DJ_OK)
        error = recorder_assign(client->recorder, cell, from, here(), &cause);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

int dj_upload(int device, const void *data, const struct dj_tensor *meta, struct dj_tensor *out, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    struct fault cause = {0};
    enum dj_error error = check_fork(client, &cause);
    if (error == DJ_OK)
        error = keep_bounds(client, &cause);
    if (error == DJ_OK)
        error = recorder_upload(client->recorder, device < 0 ? DJ_ANY_DEVICE : device, data, meta, here(), out, &cause);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

int dj_to_device(const struct dj_tensor *tensor, int device, struct dj_tensor *out, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    struct fault cause = {0};
    enum dj_error error = check_fork(client, &cause);
    if (error == DJ_OK)
        error = recorder_to_device(client->recorder, tensor, device < 0 ? DJ_ANY_DEVICE : device, here(), out, &cause);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

// Reading ------------------------------------------------------------------------------------------------------------------

struct wanted {
    struct value *value;
    const struct reading *fetch;
};

static bool is_readable(struct client *client, void *context)
{
    const struct wanted *wanted = context;
    if (wanted->fetch != NULL && wanted->fetch->is_done)
        return true;
    return recorder_value_state(client->recorder, wanted->value) != VALUE_AT_WORKER || !recorder_value_is_coming(wanted->value);
}

// Asks for a value's bytes and waits; they are then answered, or the error says why not.
static enum dj_error fetch(struct client *client, struct value *value, struct fault *fault)
{
    struct reading *reading = calloc(1, sizeof *reading);
    if (reading == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to ask for a value");
    *reading = (struct reading){.client = client, .value = value, .holders = 2};
    recorder_value_retain(value);
    recorder_value_set_coming(value, true);
    uint32_t place, output;
    uint64_t counter;
    recorder_value_handle(value, &place, &counter, &output);
    protocol_fetch(client->protocol, loop_now_ns(), place, counter, output, reading);
    struct wanted wanted = {.value = value, .fetch = reading};
    enum dj_error error = client_wait(client, is_readable, &wanted, FOREVER);
    if (error != DJ_OK)
        fault_set(fault, error, "the read was interrupted");
    else if (reading->is_done && reading->error != DJ_OK)
        error = fault_set(fault, reading->error, "%s", reading->text);
    reading_drop(reading);
    return error;
}

static enum dj_error value_bring(struct client *client, struct value *value, struct dj_fault *out, struct fault *fault)
{
    for (;;) {
        enum dj_error error = DJ_OK;
        switch (recorder_value_state(client->recorder, value)) {
        case VALUE_LOCAL:
        case VALUE_ANSWERED: return DJ_OK;
        case VALUE_FAILED: return recorder_value_fault(client->recorder, value, out);
        case VALUE_RECORDED: error = client_flush(client, fault); break;
        case VALUE_AT_WORKER: {
            struct wanted wanted = {.value = value};
            if (client->state != CLIENT_ON)
                error = fault_set(fault, DJ_E_CLOSED, "Djinn was shut down");
            else if (recorder_value_is_coming(value))
                error = client_wait(client, is_readable, &wanted, FOREVER);
            else
                error = fetch(client, value, fault);
            break;
        }
        }
        if (error != DJ_OK)
            return fault_out(out, error, fault), error;
    }
}

int dj_read(const struct dj_tensor *tensor, void *data, size_t bytes, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    struct fault cause = {0};
    struct value *value;
    enum dj_error error = check_fork(client, &cause);
    if (error == DJ_OK)
        error = recorder_want(client->recorder, tensor, here(), &value, &cause);
    if (error != DJ_OK) {
        client_leave(client);
        return fault_out(fault, error, &cause);
    }
    client->reads++;
    error = value_bring(client, value, fault, &cause);
    if (error == DJ_OK) {
        error = recorder_copy(client->recorder, value, data, bytes, &cause);
        client->leaf_bytes_in_reads += bytes;
        fault_out(fault, error, &cause);
    }
    recorder_unwant(client->recorder, value);
    client_leave(client);
    return (int)error;
}

int dj_flush(struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    struct fault cause = {0};
    enum dj_error error = client_flush(client, &cause);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

static bool is_idle(struct client *client, void *context)
{
    (void)context;
    return client->protocol == NULL || protocol_is_idle(client->protocol);
}

int dj_synchronize(struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return no_memory(fault);
    struct fault cause = {0};
    enum dj_error error = client_flush(client, &cause);
    if (error == DJ_OK && client->state == CLIENT_ON)
        error = client_wait(client, is_idle, NULL, FOREVER);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

// Where in the program -----------------------------------------------------------------------------------------------------

uint32_t dj_module(const char *path, const char *type, int is_training)
{
    struct client *client = client_enter();
    if (client == NULL || path == NULL || type == NULL)
        return 0;
    uint32_t module = recorder_module(client->recorder, path, type, is_training != 0);
    client_leave(client);
    return module;
}

uint32_t dj_set_module(uint32_t module)
{
    uint32_t before = thread_module;
    thread_module = module;
    return before;
}

void dj_set_site(uint32_t site)
{
    thread_site = site;
}
