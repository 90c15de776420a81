// Effects: what the core wants done, given to whoever does it. What cannot be done (no such device, no store) is answered with an event, so that
// the core never waits for nothing.

#include "core/driver/loop.h"

#include "core/base/assert.h"
#include "core/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct computation {
    uv_work_t work;
    struct driver *driver;
    uint64_t ticket;
    void *(*function)(void *);
    void *input, *result;
};

static void compute(uv_work_t *work)
{
    struct computation *computation = work->data;
    computation->result = computation->function(computation->input);
}

static void after_compute(uv_work_t *work, int status)
{
    (void)status;
    struct computation *computation = work->data;
    struct io_event event = {.kind = IO_COMPUTE_DONE};
    event.compute_done.ticket = computation->ticket;
    event.compute_done.result = computation->result;
    computation->driver->computing--;
    driver_post(computation->driver, &event);
    free(computation);
}

static void start_compute(struct driver *driver, const struct io_effect *effect)
{
    struct computation *computation = malloc(sizeof *computation);
    assert(computation != NULL);
    *computation = (struct computation){
        .driver = driver,
        .ticket = effect->compute.ticket,
        .function = effect->compute.function,
        .input = effect->compute.input,
    };
    computation->work.data = computation;
    driver->computing++;
    uv_queue_work(&driver->loop, &computation->work, compute, after_compute);
}

static void open_link(struct driver *driver, const struct io_effect *effect)
{
    if (strncmp(effect->link_open.address, "head://", 7) == 0)
        stream_open(driver, effect->link_open.request, effect->link_open.address);
    else
        socket_open(driver, effect->link_open.request, effect->link_open.address);
}

static void submit(struct driver *driver, const struct io_effect *effect)
{
    struct device_list *list = effect->device_submit.list;
    uint32_t index = effect->device_submit.device;
    if (index < DRIVER_DEVICES_MAX && driver->device[index] != NULL) {
        driver->device[index]->submit(driver->device[index]->self, list);
        return;
    }
    list->error = fault_set(&list->fault, DJ_E_NO_DEVICE, "this process has no device %u", index);
    struct io_event event = {.kind = IO_DEVICE_DONE};
    event.device_done.device = index;
    event.device_done.list = list;
    driver_post(driver, &event);
}

static void use_store(struct driver *driver, uint64_t ticket, struct store_batch *batch, bool is_read)
{
    if (driver->store != NULL) {
        (is_read ? driver->store->read : driver->store->commit)(driver->store->self, ticket, batch);
        return;
    }
    batch_free(batch);
    struct io_event event = {.kind = IO_STORE_DONE};
    event.store_done.ticket = ticket;
    event.store_done.error = DJ_E_UNSUPPORTED;
    driver_post(driver, &event);
}

void driver_carry_out(struct driver *driver, struct io_effect *effect)
{
    struct conn *conn = NULL;
    switch (effect->kind) {
    case IO_SEND:
        conn = conn_find(driver, effect->send.link);
        if (conn != NULL)
            conn_send(conn, effect);
        else
            effect_drop(effect);
        break;
    case IO_LINK_OPEN: open_link(driver, effect); break;
    case IO_LINK_CLOSE:
        conn = conn_find(driver, effect->link_close.link);
        if (conn != NULL)
            conn_close(conn);
        break;
    case IO_STORE_COMMIT: use_store(driver, effect->store_commit.ticket, effect->store_commit.batch, false); break;
    case IO_STORE_READ: use_store(driver, effect->store_read.ticket, effect->store_read.batch, true); break;
    case IO_DEVICE_SUBMIT: submit(driver, effect); break;
    case IO_COMPUTE: start_compute(driver, effect); break;
    case IO_ANSWER:
        // Local requests here are signals and closed pipes, which nobody waits for.
        log_write(LOG_DEBUG, "driver", "an answer that nobody waits for request=%" PRIu64, effect->answer.request);
        break;
    case IO_STOP:
        driver->is_stopping = true;
        driver->exit_code = effect->stop.exit_code;
        break;
    }
}
