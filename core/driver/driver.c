// Driver: one turn of the libuv loop is: look at every descriptor and the inbox, post what came, let the core think, carry out what it wants,
// wait. The manual is driver.h.
//
// Callbacks only post and mark the driver as due; `drive` runs once after the loop has polled, so that everything that arrived together is
// thought about together.

#include "core/driver/loop.h"

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/io/blob.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t driver_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + knob(KNOB_CLOCK_JUMP_NS);
}

// Events -----------------------------------------------------------------------------------------------------------------

struct event_node {
    struct inbox_node node;
    struct io_event event;
};

void driver_push(struct driver *driver, struct inbox_node *node)
{
    if (inbox_push(&driver->inbox, node))
        uv_async_send(&driver->wake);
}

static void keep(struct driver *driver, struct inbox_node *node)
{
    node->next = NULL;
    *driver->held_end = node;
    driver->held_end = &node->next;
}

static struct event_node *node_of(const struct io_event *event);

bool driver_is_stalled(const struct driver *driver)
{
    return driver->held != NULL;
}

void driver_post(struct driver *driver, const struct io_event *event)
{
    if (driver->is_stopping) {
        struct io_event unheard = *event;
        event_drop(&unheard);
        return;
    }
    driver->is_due = true;
    driver->stats.events++;
    if (driver_is_stalled(driver) || process_post(driver->process, event) != DJ_OK)
        keep(driver, &node_of(event)->node);
}

static void handle_event(struct driver *driver, struct inbox_node *node)
{
    struct event_node *holder = (struct event_node *)node;
    if (driver->is_stopping) {
        event_drop(&holder->event);
        free(holder);
        return;
    }
    driver->stats.events++;
    if (driver_is_stalled(driver) || process_post(driver->process, &holder->event) != DJ_OK)
        keep(driver, node);
    else
        free(holder);
}

static struct event_node *node_of(const struct io_event *event)
{
    struct event_node *node = malloc(sizeof *node);
    // An event that is lost leaves the core waiting for ever; better to end and be started again.
    assert(node != NULL);
    node->node.handle = handle_event;
    node->event = *event;
    return node;
}

static void sink_post(void *self, const struct io_event *event)
{
    driver_push(self, &node_of(event)->node);
}

static void take_inbox(struct driver *driver)
{
    struct inbox_node *node = inbox_take_all(&driver->inbox);
    while (node != NULL) {
        struct inbox_node *next = node->next;
        node->handle(driver, node);
        node = next;
    }
}

static void post_held(struct driver *driver)
{
    while (driver->held != NULL) {
        struct event_node *holder = (struct event_node *)driver->held;
        if (process_post(driver->process, &holder->event) != DJ_OK)
            return;
        driver->held = holder->node.next;
        free(holder);
    }
    driver->held_end = &driver->held;
}

// The turn ---------------------------------------------------------------------------------------------------------------

// Once more from those that may have complete messages left.
static void feed_hungry(struct driver *driver)
{
    struct list now;
    if (list_is_empty(&driver->hungry))
        return;
    now = driver->hungry;
    now.next->prev = now.prev->next = &now;
    list_init(&driver->hungry);
    while (!list_is_empty(&now) && !driver_is_stalled(driver))
        conn_is_readable(list_entry(now.next, struct conn, hungry));
    while (!list_is_empty(&now)) {
        struct list *node = now.next;
        list_remove(node);
        list_push(&driver->hungry, node);
    }
}

static bool think(struct driver *driver)
{
    post_held(driver);
    __atomic_store_n(&driver->turns, driver->turns + 1, __ATOMIC_RELAXED);
    bool has_more = process_run(driver->process, driver_now_ns(), &driver->effects);
    driver->stats.effects += driver->effects.count;
    for (uint32_t i = 0; i < driver->effects.count; i++)
        driver_carry_out(driver, &driver->effects.effect[i]);
    driver->effects.count = 0;
    return has_more;
}

static void on_deadline(uv_timer_t *timer)
{
    struct driver *driver = timer->data;
    driver->deadline_ns = UINT64_MAX;
    driver->is_due = true;
}

static void set_deadline(struct driver *driver)
{
    uint64_t deadline_ns = process_deadline_ns(driver->process);
    if (deadline_ns == driver->deadline_ns)
        return;
    driver->deadline_ns = deadline_ns;
    if (deadline_ns == UINT64_MAX) {
        uv_timer_stop(&driver->deadline);
        return;
    }
    uint64_t now_ns = driver_now_ns();
    uint64_t wait_ms = deadline_ns <= now_ns ? 0 : (deadline_ns - now_ns + 999999) / 1000000;
    uv_update_time(&driver->loop);
    uv_timer_start(&driver->deadline, on_deadline, wait_ms, 0);
}

static void on_busy(uv_idle_t *busy)
{
    (void)busy;    // its being active keeps the loop from waiting
}

static void flush_and_end(struct driver *driver);

static void drive(struct driver *driver)
{
    bool has_more = true;
    for (int round = 0; round < DRIVER_ROUNDS_MAX && has_more && !driver->is_stopping; round++) {
        driver->is_due = false;
        take_inbox(driver);
        feed_hungry(driver);
        has_more = think(driver);
        has_more = has_more || driver->is_due || driver_is_stalled(driver) || !list_is_empty(&driver->hungry);
    }
    if (driver->is_stopping) {
        flush_and_end(driver);
        return;
    }
    driver->is_due = has_more;
    if (has_more)
        uv_idle_start(&driver->busy, on_busy);
    else
        uv_idle_stop(&driver->busy);
    set_deadline(driver);
}

static void drive_if_due(struct driver *driver)
{
    if (driver->is_stopping)
        flush_and_end(driver);
    else if (driver->is_due)
        drive(driver);
}

static void on_before_poll(uv_prepare_t *prepare)
{
    drive_if_due(prepare->data);
}

static void on_after_poll(uv_check_t *check)
{
    drive_if_due(check->data);
}

static void on_wake(uv_async_t *wake)
{
    struct driver *driver = wake->data;
    bool has_faults = link_faults_are_on();
    driver->is_due = true;
    // Once more after they have ended: what was held goes on.
    if (has_faults || driver->had_faults)
        conns_refresh(driver);
    driver->had_faults = has_faults;
}

static void wake_for_faults(void *self)
{
    uv_async_send(&((struct driver *)self)->wake);
}

static void on_sweep(uv_timer_t *timer)
{
    struct driver *driver = timer->data;
    driver->is_due = true;
    for (uint32_t i = 0; i < driver->listeners; i++)
        socket_listener_resume(driver->listener[i]);
    if (!conn_sweep(driver, uv_now(&driver->loop)) && !driver->is_flushing) {
        uv_timer_stop(timer);
        driver->is_sweeping = false;
    }
}

void driver_sweep_soon(struct driver *driver)
{
    if (driver->is_sweeping)
        return;
    driver->is_sweeping = true;
    uv_timer_start(&driver->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

// Stopping ---------------------------------------------------------------------------------------------------------------

static void listeners_close(struct driver *driver)
{
    for (uint32_t i = 0; i < driver->listeners; i++) {
        if (driver->listener[i]->stream != NULL)
            stream_listener_close(driver->listener[i]);
        else
            socket_listener_close(driver->listener[i]);
    }
    driver->listeners = 0;
}

// The core has ended: what it said last still leaves, for as long as that may take.
static void flush_and_end(struct driver *driver)
{
    if (!driver->is_flushing) {
        driver->is_flushing = true;
        uv_update_time(&driver->loop);    // the last handler may have taken long
        driver->flush_until_ms = uv_now(&driver->loop) + DRIVER_FLUSH_MS;
        listeners_close(driver);
        list_each (node, &driver->all)
            conn_close(list_entry(node, struct conn, all));
        driver_sweep_soon(driver);
    }
    take_inbox(driver);
    bool is_waiting = false;
    list_each (node, &driver->all) {
        const struct conn *conn = list_entry(node, struct conn, all);
        is_waiting = is_waiting || (conn->state == CONN_LINGERING && conn->ops->queued_bytes(conn) > 0);
    }
    if (!is_waiting || uv_now(&driver->loop) >= driver->flush_until_ms)
        uv_stop(&driver->loop);
}

int driver_run(struct driver *driver)
{
    struct io_event start = {.kind = IO_START};
    driver_post(driver, &start);
    uv_run(&driver->loop, UV_RUN_DEFAULT);
    return driver->exit_code;
}

// Making and freeing -----------------------------------------------------------------------------------------------------

enum dj_error driver_make(struct process *process, struct driver **ret)
{
    struct driver *driver = calloc(1, sizeof *driver);
    if (driver == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = map_make(DRIVER_CONNS_MAX, &driver->conns);
    if (error == DJ_OK && uv_loop_init(&driver->loop) != 0)
        error = DJ_E_SYSTEM;
    if (error != DJ_OK) {
        map_free(driver->conns);
        free(driver);
        return error;
    }
    driver->process = process;
    driver->deadline_ns = UINT64_MAX;
    driver->conn_next = 1;
    driver->held_end = &driver->held;
    driver->sink = (struct io_sink){.post = sink_post, .self = driver};
    effects_init(&driver->effects);
    pulse_init(driver);
    list_init(&driver->all);
    list_init(&driver->hungry);
    list_init(&driver->closing);

    // Of these only the async can fail, when no descriptor is left: seen in the first wait, as an abort by libuv.
    int failure = uv_async_init(&driver->loop, &driver->wake, on_wake);
    uv_prepare_init(&driver->loop, &driver->before_poll);
    uv_check_init(&driver->loop, &driver->after_poll);
    uv_idle_init(&driver->loop, &driver->busy);
    uv_timer_init(&driver->loop, &driver->deadline);
    uv_timer_init(&driver->loop, &driver->sweep);
    uv_signal_init(&driver->loop, &driver->sigterm);
    uv_signal_init(&driver->loop, &driver->sigint);
    driver->wake.data = driver->before_poll.data = driver->after_poll.data = driver->deadline.data = driver->sweep.data = driver;
    driver->sigterm.data = driver->sigint.data = driver;
    uv_prepare_start(&driver->before_poll, on_before_poll);
    uv_check_start(&driver->after_poll, on_after_poll);
    if (failure != 0) {
        driver_free(driver);
        return DJ_E_SYSTEM;
    }
    link_faults_watch(wake_for_faults, driver);
    *ret = driver;
    return DJ_OK;
}

static void close_handle(uv_handle_t *handle)
{
    if (handle->type != UV_UNKNOWN_HANDLE && !uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void drop_node(struct inbox_node *node)
{
    if (node->handle != handle_event)
        return;    // it is part of a connection
    event_drop(&((struct event_node *)node)->event);
    free(node);
}

void driver_free(struct driver *driver)
{
    if (driver == NULL)
        return;
    driver->is_stopping = driver->is_flushing = true;
    link_faults_forget(driver);
    pulse_end(driver);
    listeners_close(driver);
    list_each (node, &driver->all) {
        struct conn *conn = list_entry(node, struct conn, all);
        if (conn->state != CONN_CLOSED) {
            conn->state = CONN_CLOSED;
            conn->ops->close(conn);
        }
    }
    uv_prepare_stop(&driver->before_poll);
    uv_check_stop(&driver->after_poll);
    close_handle((uv_handle_t *)&driver->deadline);
    close_handle((uv_handle_t *)&driver->sweep);
    close_handle((uv_handle_t *)&driver->busy);
    close_handle((uv_handle_t *)&driver->sigterm);
    close_handle((uv_handle_t *)&driver->sigint);
    for (uint32_t i = 0; i < driver->pipes; i++)
        close_handle((uv_handle_t *)&driver->pipe[i].poll);
    // nng's callbacks come through the inbox until the last connection is gone, and computations end in their own time.
    while (!list_is_empty(&driver->all) || !list_is_empty(&driver->closing) || driver->computing > 0) {
        uv_run(&driver->loop, UV_RUN_ONCE);
        take_inbox(driver);
    }
    close_handle((uv_handle_t *)&driver->wake);
    close_handle((uv_handle_t *)&driver->before_poll);
    close_handle((uv_handle_t *)&driver->after_poll);
    uv_run(&driver->loop, UV_RUN_DEFAULT);
    int failure = uv_loop_close(&driver->loop);
    assert(failure == 0);

    for (struct inbox_node *node = inbox_take_all(&driver->inbox), *next; node != NULL; node = next) {
        next = node->next;
        drop_node(node);
    }
    for (struct inbox_node *node = driver->held, *next; node != NULL; node = next) {
        next = node->next;
        drop_node(node);
    }
    effects_free(&driver->effects);
    map_free(driver->conns);
    free(driver);
}

// What the composition root sets ------------------------------------------------------------------------------------------

struct io_sink *driver_sink(struct driver *driver)
{
    return &driver->sink;
}

void driver_set_device(struct driver *driver, uint32_t index, struct device_port *device)
{
    assert(index < DRIVER_DEVICES_MAX);
    driver->device[index] = device;
}

void driver_set_store(struct driver *driver, struct store_port *store)
{
    driver->store = store;
}

enum dj_error driver_listen(struct driver *driver, const char *address, char *bound, struct fault *fault)
{
    if (driver->listeners == DRIVER_LISTENERS_MAX)
        return fault_set(fault, DJ_E_LIMIT, "%s: a process listens on at most %d addresses", address, DRIVER_LISTENERS_MAX);
    struct listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s: no memory to listen", address);
    listener->driver = driver;
    listener->index = driver->listeners;
    bool is_stream = strncmp(address, "head://", 7) == 0;
    enum dj_error error = is_stream ? stream_listen(driver, listener, address, bound, fault)
                                    : socket_listen(driver, listener, address, bound, fault);
    if (error != DJ_OK) {
        free(listener);
        return error;
    }
    driver->listener[driver->listeners++] = listener;
    return DJ_OK;
}

static void post_submit(struct driver *driver, uint32_t verb)
{
    struct io_event event = {.kind = IO_SUBMIT};
    event.submit.verb = verb;
    driver_post(driver, &event);
}

static void on_signal(uv_signal_t *signal, int number)
{
    (void)number;
    struct driver *driver = signal->data;
    post_submit(driver, driver->signal_verb);
}

void driver_on_signals(struct driver *driver, uint32_t verb)
{
    driver->signal_verb = verb;
    uv_signal_start(&driver->sigterm, on_signal, SIGTERM);
    uv_signal_start(&driver->sigint, on_signal, SIGINT);
}

static void on_pipe(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct pipe_watch *pipe = poll->data;
    uv_poll_stop(poll);
    post_submit(pipe->driver, pipe->verb);
}

void driver_on_close(struct driver *driver, int fd, uint32_t verb)
{
    assert(driver->pipes < DRIVER_PIPES_MAX);
    struct pipe_watch *pipe = &driver->pipe[driver->pipes];
    *pipe = (struct pipe_watch){.driver = driver, .verb = verb};
    if (uv_poll_init(&driver->loop, &pipe->poll, fd) != 0) {
        log_write(LOG_WARN, "driver", "descriptor %d cannot be watched", fd);
        return;
    }
    driver->pipes++;
    pipe->poll.data = pipe;
    uv_poll_start(&pipe->poll, UV_READABLE | UV_DISCONNECT, on_pipe);
}

struct driver_stats driver_stats(const struct driver *driver)
{
    return driver->stats;
}
