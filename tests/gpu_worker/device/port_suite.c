// Port suite: see port_suite.h.

#include "tests/gpu_worker/device/port_suite.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DONE_MAX = 8192, WAIT_TRIES = 40000, WAIT_US = 500 };

static struct inbox {
    pthread_mutex_t mutex;
    struct device_list *done[DONE_MAX];
    uint32_t count;
} inbox = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static struct device_port *live;

static void post(void *self, const struct io_event *event)
{
    struct inbox *box = self;
    pthread_mutex_lock(&box->mutex);
    box->done[box->count++ % DONE_MAX] = event->device_done.list;
    pthread_mutex_unlock(&box->mutex);
}

static const struct io_sink sink = {.post = post, .self = &inbox};

const struct io_sink *port_sink(void)
{
    return &sink;
}

void port_reset(void)
{
    pthread_mutex_lock(&inbox.mutex);
    inbox.count = 0;
    pthread_mutex_unlock(&inbox.mutex);
}

void port_stop(struct device_port *port)
{
    live = NULL;
    port->stop(port->self);
    if (port_subject.check_end != NULL)
        port_subject.check_end();
}

static void stop_later(void *unused)
{
    (void)unused;
    if (live != NULL)
        port_stop(live);
}

struct device_port *port_make_with(void **state, struct device_port *(*make)(const struct io_sink *sink))
{
    ops_init();
    port_reset();
    live = make(&sink);
    case_later(state, stop_later, &inbox);
    return live;
}

struct device_port *port_make(void **state)
{
    return port_make_with(state, port_subject.make);
}

uint32_t port_done(void)
{
    pthread_mutex_lock(&inbox.mutex);
    uint32_t count = inbox.count;
    pthread_mutex_unlock(&inbox.mutex);
    return count;
}

struct device_list *port_done_at(uint32_t index)
{
    return inbox.done[index];
}

void port_wait_for(uint32_t lists)
{
    for (int tries = 0; tries < WAIT_TRIES; tries++) {
        if (port_done() >= lists)
            return;
        usleep(WAIT_US);
    }
    fail_msg("the device did not finish");
}

void port_run(struct device_port *port, struct device_list *list)
{
    uint32_t before = port_done();
    port->submit(port->self, list);
    port_wait_for(before + 1);
}

struct blob *port_row(uint32_t at)
{
    struct blob *blob = blob_make(PORT_ROW_BYTES);
    float *row = (float *)(void *)blob->data;
    for (uint32_t i = 0; i < PORT_ROW; i++)
        row[i] = i == at ? 0 : -INFINITY;
    return blob;
}

struct device_tensor port_row_tensor(uint64_t offset)
{
    return (struct device_tensor){.offset = offset, .meta = {.dtype = DTYPE_F32, .rank = 1, .size = {PORT_ROW}, .stride = {1}}};
}

uint32_t port_row_read(const uint8_t *data)
{
    float row[PORT_ROW];
    uint32_t at = PORT_ROW;
    memcpy(row, data, sizeof row);
    for (uint32_t i = 0; i < PORT_ROW; i++) {
        if (row[i] == 1)
            at = at == PORT_ROW ? i : PORT_ROW;
        else if (row[i] != 0)
            return PORT_ROW;
    }
    return at;
}

struct device_task port_softmax(const struct device_tensor *in, const struct device_tensor *out)
{
    static const struct attr attr[3] = {{.kind = ATTR_INT, .i = -1}};
    return (struct device_task){.kind = DEVICE_KERNEL,
                                .op = op_info(OP_SOFTMAX),
                                .n_in = 1,
                                .n_out = 1,
                                .in = in,
                                .out = out,
                                .attr = attr,
                                .compute = DTYPE_F32};
}

static struct device_task write_task(uint64_t offset, struct blob *blob)
{
    return (struct device_task){.kind = DEVICE_WRITE, .offset = offset, .bytes = blob->bytes, .blob = blob};
}

static struct device_task read_task(uint64_t offset, struct blob *blob)
{
    return (struct device_task){.kind = DEVICE_READ, .offset = offset, .bytes = blob->bytes, .blob = blob};
}

// Bytes that differ from place to place, and from `salt` to `salt`.
static struct blob *pattern(size_t bytes, uint32_t salt)
{
    struct blob *blob = blob_make(bytes);
    for (size_t i = 0; i < bytes; i++)
        blob->data[i] = (uint8_t)((i * 131 + (i >> 9) * 7 + salt * 29) ^ (i >> 17));
    return blob;
}

PORT_CASE(a_list_writes_computes_and_reads_in_order)
{
    struct device_port *port = port_make(state);
    struct blob *in = port_row(3), *out = blob_make(PORT_ROW_BYTES);
    struct device_tensor x = port_row_tensor(128), y = port_row_tensor(4096);
    struct device_task task[3] = {write_task(128, in), port_softmax(&x, &y), read_task(4096, out)};
    assert_true(port->can(port->self, &task[1]));
    struct device_list list = {.ticket = 7, .tasks = 3, .task = task};
    port_run(port, &list);
    assert_ok(list.error);
    assert_int_equal(port_row_read(out->data), 3);
    assert_true(list.elapsed_ns > 0);
    blob_drop(in);
    blob_drop(out);
}

PORT_CASE(lists_of_one_stream_come_back_once_each_and_in_the_order_of_submission)
{
    enum { LISTS = 2000 };
    static struct device_list list[LISTS];
    static struct device_task task[LISTS];
    struct device_port *port = port_make(state);
    for (uint32_t i = 0; i < LISTS; i++) {
        task[i] = (struct device_task){.kind = DEVICE_ZERO, .offset = 64 * i, .bytes = 64};
        list[i] = (struct device_list){.ticket = i + 1, .stream = i % DEVICE_STREAMS, .tasks = 1, .task = &task[i]};
        port->submit(port->self, &list[i]);
        if (i % 500 == 0)
            usleep(200);    // lets the thread fall asleep in between
    }
    port_wait_for(LISTS);
    usleep(1000);
    assert_int_equal(port_done(), LISTS);
    uint64_t newest[DEVICE_STREAMS] = {0};
    for (uint32_t i = 0; i < LISTS; i++) {
        const struct device_list *done = port_done_at(i);
        assert_ok(done->error);
        assert_true(done->ticket > newest[done->stream]);
        newest[done->stream] = done->ticket;
    }
}

PORT_CASE(lists_of_one_stream_see_what_the_ones_before_them_did)
{
    enum { ROUNDS = 40 };
    struct device_port *port = port_make(state);
    struct device_tensor x = port_row_tensor(0), y = port_row_tensor(256);
    struct blob *in[ROUNDS], *out[ROUNDS];
    static struct device_task task[ROUNDS][3];
    static struct device_list list[ROUNDS][3];
    for (uint32_t i = 0; i < ROUNDS; i++) {
        in[i] = port_row(i % PORT_ROW);
        out[i] = blob_make(PORT_ROW_BYTES);
        task[i][0] = write_task(0, in[i]);
        task[i][1] = port_softmax(&x, &y);
        task[i][2] = read_task(256, out[i]);
        for (uint32_t k = 0; k < 3; k++) {
            list[i][k] = (struct device_list){.ticket = i * 3 + k + 1, .tasks = 1, .task = &task[i][k]};
            port->submit(port->self, &list[i][k]);
        }
    }
    port_wait_for(ROUNDS * 3);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        assert_ok(list[i][1].error);
        assert_int_equal(port_row_read(out[i]->data), i % PORT_ROW);
        blob_drop(in[i]);
        blob_drop(out[i]);
    }
}

PORT_CASE(a_list_comes_after_the_list_of_the_other_stream_that_it_names)
{
    enum { ROUNDS = 60 };
    struct device_port *port = port_make(state);
    struct blob *in[ROUNDS], *out[ROUNDS];
    static struct device_tensor x[ROUNDS], y[ROUNDS];
    static struct device_task task[ROUNDS][3];
    static struct device_list list[ROUNDS][3];
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t offset = i * 1024;
        in[i] = port_row(i % PORT_ROW);
        out[i] = blob_make(PORT_ROW_BYTES);
        x[i] = port_row_tensor(offset);
        y[i] = port_row_tensor(offset + 512);
        task[i][0] = write_task(offset, in[i]);
        task[i][1] = port_softmax(&x[i], &y[i]);
        task[i][2] = read_task(offset + 512, out[i]);
        for (uint32_t k = 0; k < 3; k++) {
            uint64_t ticket = i * 3 + k + 1;
            list[i][k] = (struct device_list){.ticket = ticket,
                                              .stream = k == 1 ? DEVICE_COMPUTE : DEVICE_TRANSFER,
                                              .after = k == 0 ? 0 : ticket - 1,
                                              .tasks = 1,
                                              .task = &task[i][k]};
            port->submit(port->self, &list[i][k]);
        }
    }
    port_wait_for(ROUNDS * 3);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        assert_int_equal(port_row_read(out[i]->data), i % PORT_ROW);
        blob_drop(in[i]);
        blob_drop(out[i]);
    }
}

// A table of two rows, and indices.
struct lookup {
    struct device_tensor tensor[3];
    struct blob *index;
    struct attr attr[8];
};

static void lookup_make(struct lookup *lookup, int64_t index, uint64_t offset)
{
    *lookup = (struct lookup){
        .tensor = {{.offset = offset, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {2, 4}, .stride = {4, 1}}},
                   {.offset = offset + 64, .meta = {.dtype = DTYPE_I64, .rank = 1, .size = {1}, .stride = {1}}},
                   {.offset = offset + 128, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {1, 4}, .stride = {4, 1}}}},
        .index = blob_copy(&index, sizeof index)};
}

static struct device_task lookup_task(const struct lookup *lookup)
{
    return (struct device_task){.kind = DEVICE_KERNEL,
                                .op = op_info(OP_EMBEDDING),
                                .n_in = 2,
                                .n_out = 1,
                                .in = lookup->tensor,
                                .out = &lookup->tensor[2],
                                .attr = lookup->attr};
}

PORT_CASE(an_index_out_of_range_ends_its_list_and_is_named)
{
    struct device_port *port = port_make(state);
    const int64_t bad[] = {99, 2, -1, INT64_MAX, INT64_MIN};
    for (uint32_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lookup lookup;
        lookup_make(&lookup, bad[i], 0);
        struct device_task task[3] = {
            write_task(64, lookup.index), lookup_task(&lookup), {.kind = DEVICE_ZERO, .offset = 1 << 20, .bytes = 64}};
        struct device_list list = {.tasks = 3, .task = task};
        port_run(port, &list);
        assert_error(DJ_E_INDEX, list.error);
        assert_error(DJ_E_INDEX, list.fault.code);
        assert_int_equal(list.failed_task, 1);
        assert_true(list.fault.text[0] != '\0');
        blob_drop(lookup.index);
    }
}

PORT_CASE(the_first_of_two_failures_is_named)
{
    struct device_port *port = port_make(state);
    struct lookup good, bad, worse;
    lookup_make(&good, 1, 0);
    lookup_make(&bad, 7, 1024);
    lookup_make(&worse, 8, 2048);
    struct device_task task[] = {write_task(64, good.index),
                                 write_task(1024 + 64, bad.index),
                                 write_task(2048 + 64, worse.index),
                                 lookup_task(&good),
                                 lookup_task(&bad),
                                 {.kind = DEVICE_ZERO, .bytes = 16},
                                 lookup_task(&worse)};
    struct device_list list = {.tasks = 7, .task = task};
    port_run(port, &list);
    assert_error(DJ_E_INDEX, list.error);
    assert_int_equal(list.failed_task, 4);
    blob_drop(good.index);
    blob_drop(bad.index);
    blob_drop(worse.index);
}

PORT_CASE(the_list_after_a_failed_one_runs)
{
    struct device_port *port = port_make(state);
    struct lookup bad, good;
    struct blob *table = blob_copy((const float[]){1, 2, 3, 4, 5, 6, 7, 8}, 32), *out = blob_make(16);
    lookup_make(&bad, 5, 0);
    lookup_make(&good, 1, 0);
    struct device_task first[] = {write_task(0, table), write_task(64, bad.index), lookup_task(&bad)};
    struct device_task second[] = {write_task(64, good.index), lookup_task(&good), read_task(128, out)};
    struct device_list list[2] = {{.ticket = 1, .tasks = 3, .task = first}, {.ticket = 2, .tasks = 3, .task = second}};
    port->submit(port->self, &list[0]);
    port->submit(port->self, &list[1]);
    port_wait_for(2);
    assert_error(DJ_E_INDEX, list[0].error);
    assert_ok(list[1].error);
    assert_memory_equal(out->data, table->data + 16, 16);
    blob_drop(bad.index);
    blob_drop(good.index);
    blob_drop(table);
    blob_drop(out);
}

PORT_CASE(empty_lists_and_empty_spans_come_back)
{
    struct device_port *port = port_make(state);
    struct blob *none = blob_make(0);
    struct device_task task[3] = {write_task(0, none), read_task(64, none), {.kind = DEVICE_ZERO, .offset = PORT_REGION_BYTES}};
    struct device_list list[4] = {{.ticket = 1},
                                  {.ticket = 2, .stream = DEVICE_TRANSFER, .after = 1},
                                  {.ticket = 3, .tasks = 3, .task = task},
                                  {.ticket = 4, .after = 1000}};
    for (uint32_t i = 0; i < 4; i++) {
        list[i].error = DJ_E_INTERNAL;
        port->submit(port->self, &list[i]);
    }
    port_wait_for(4);
    for (uint32_t i = 0; i < 4; i++)
        assert_ok(list[i].error);
    blob_drop(none);
}

PORT_CASE(a_list_of_thousands_of_kernels_runs_to_its_end)
{
    enum { KERNELS = 6000, PLACES = 1000 };
    struct device_port *port = port_make(state);
    static struct device_tensor tensor[PLACES];
    static struct device_task task[KERNELS + PLACES + 1];
    struct blob *in[PORT_ROW], *out = blob_make(PLACES * 64);
    for (uint32_t i = 0; i < PORT_ROW; i++)
        in[i] = port_row(i);
    for (uint32_t i = 0; i < PLACES; i++) {
        tensor[i] = port_row_tensor(i * 64);
        task[i] = write_task(i * 64, in[i % PORT_ROW]);
    }
    // Each result is overwritten by the next one of its place: only the last ones are one-hot rows of their place.
    static struct device_tensor there[PLACES];
    for (uint32_t i = 0; i < PLACES; i++)
        there[i] = port_row_tensor((1 << 20) + i * 64);
    for (uint32_t i = 0; i < KERNELS; i++) {
        uint32_t from = i < KERNELS - PLACES ? (i * 7 + 1) % PLACES : i % PLACES;
        task[PLACES + i] = port_softmax(&tensor[from], &there[i % PLACES]);
    }
    task[PLACES + KERNELS] = read_task(1 << 20, out);
    struct device_list list = {.ticket = 1, .tasks = PLACES + KERNELS + 1, .task = task};
    port_run(port, &list);
    assert_ok(list.error);
    for (uint32_t i = 0; i < PLACES; i++)
        assert_int_equal(port_row_read(out->data + i * 64), i % PORT_ROW);
    for (uint32_t i = 0; i < PORT_ROW; i++)
        blob_drop(in[i]);
    blob_drop(out);
}

PORT_CASE(spans_of_any_size_arrive_and_come_back_whole)
{
    static const size_t sizes[] = {1, 255, 4097, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (9 << 20) + 12345};
    struct device_port *port = port_make(state);
    for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct blob *in = pattern(sizes[i] + 100, i), *out = blob_make(sizes[i] + 50);
        memset(out->data, 0xab, out->bytes);
        struct device_task task[2] = {
            {.kind = DEVICE_WRITE, .offset = 192, .bytes = sizes[i], .blob = in, .blob_offset = 100},
            {.kind = DEVICE_READ, .offset = 192, .bytes = sizes[i], .blob = out, .blob_offset = 20},
        };
        struct device_list write = {.ticket = 1, .stream = DEVICE_TRANSFER, .tasks = 1, .task = &task[0]};
        struct device_list read = {.ticket = 2, .after = 1, .tasks = 1, .task = &task[1]};
        port->submit(port->self, &write);
        port->submit(port->self, &read);
        port_wait_for(2 * (i + 1));
        assert_ok(write.error);
        assert_ok(read.error);
        assert_memory_equal(out->data + 20, in->data + 100, sizes[i]);
        assert_int_equal(out->data[19], 0xab);
        assert_int_equal(out->data[20 + sizes[i]], 0xab);
        blob_drop(in);
        blob_drop(out);
    }
}

PORT_CASE(thousands_of_small_spans_in_one_list_arrive)
{
    enum { SPANS = 6000, BYTES = 24 };
    struct device_port *port = port_make(state);
    static struct device_task task[2 * SPANS];
    struct blob *in = pattern(SPANS * BYTES, 1), *out = blob_make(SPANS * BYTES);
    memset(out->data, 0, out->bytes);
    for (uint32_t i = 0; i < SPANS; i++) {
        task[i] = (struct device_task){
            .kind = DEVICE_WRITE, .offset = i * 64, .bytes = BYTES, .blob = in, .blob_offset = (uint64_t)i * BYTES};
        task[SPANS + i] = (struct device_task){
            .kind = DEVICE_READ, .offset = i * 64, .bytes = BYTES, .blob = out, .blob_offset = (uint64_t)i * BYTES};
    }
    struct device_list list = {.ticket = 1, .tasks = 2 * SPANS, .task = task};
    port_run(port, &list);
    assert_ok(list.error);
    assert_memory_equal(out->data, in->data, in->bytes);
    blob_drop(in);
    blob_drop(out);
}

PORT_CASE(zeros_are_written_where_told)
{
    struct device_port *port = port_make(state);
    struct blob *in = pattern(4096, 2), *out = blob_make(4096);
    struct device_task task[3] = {write_task(0, in), {.kind = DEVICE_ZERO, .offset = 64, .bytes = 1000}, read_task(0, out)};
    struct device_list list = {.tasks = 3, .task = task};
    port_run(port, &list);
    memset(in->data + 64, 0, 1000);
    assert_memory_equal(out->data, in->data, in->bytes);
    blob_drop(in);
    blob_drop(out);
}

PORT_CASE(the_capability_is_what_the_kernels_have_and_views)
{
    struct device_port *port = port_make(state);
    assert_true(port->info->ops[OP_SOFTMAX / 8] >> OP_SOFTMAX % 8 & 1);
    assert_true(port->info->ops[OP_PERMUTE / 8] >> OP_PERMUTE % 8 & 1);
    assert_false(port->info->ops[0] & 1);
    assert_true(port->info->numerics[0] != '\0' && port->info->name[0] != '\0' && port->info->backend[0] != '\0');
    assert_true(port->info->capacity_bytes >= PORT_REGION_BYTES && port->info->threads > 0);
}

PORT_CASE(what_kernels_do_not_take_is_refused_when_asked)
{
    struct device_port *port = port_make(state);
    struct device_tensor whole = port_row_tensor(0), row = port_row_tensor(0);
    whole.meta.dtype = DTYPE_I64;
    struct device_task no = port_softmax(&whole, &whole), yes = port_softmax(&row, &row);
    assert_false(port->can(port->self, &no));
    assert_true(port->can(port->self, &yes));
    assert_true(port->scratch_bytes(port->self, &yes) < PORT_REGION_BYTES);
}

PORT_CASE(trimmed_memory_can_be_used_again_and_its_neighbours_stay)
{
    struct device_port *port = port_make(state);
    struct blob *in = pattern(3 << 20, 3), *out = blob_make(3 << 20);
    struct device_task write = write_task(0, in), again = {.kind = DEVICE_WRITE, .offset = 1 << 20, .bytes = 1 << 20, .blob = in},
                       read = read_task(0, out);
    struct device_list list[3] = {{.tasks = 1, .task = &write}, {.tasks = 1, .task = &again}, {.tasks = 1, .task = &read}};
    port_run(port, &list[0]);
    if (port->trim != NULL)
        port->trim(port->self, 1 << 20, 1 << 20);
    port_run(port, &list[1]);
    port_run(port, &list[2]);
    memmove(in->data + (1 << 20), in->data, 1 << 20);
    assert_memory_equal(out->data, in->data, in->bytes);
    blob_drop(in);
    blob_drop(out);
}

PORT_CASE(stop_finishes_the_lists_that_are_out)
{
    enum { LISTS = 300 };
    struct device_port *port = port_make(state);
    static struct device_list list[LISTS];
    static struct device_task task[LISTS];
    struct blob *in = pattern(1 << 16, 4), *out = blob_make(1 << 16);
    memset(out->data, 0, out->bytes);
    for (uint32_t i = 0; i < LISTS; i++) {
        task[i] = i + 1 == LISTS ? read_task(0, out) : i % 2 == 0 ? write_task(0, in) : read_task(0, out);
        list[i] = (struct device_list){.ticket = i + 1, .stream = DEVICE_TRANSFER, .tasks = 1, .task = &task[i]};
        port->submit(port->self, &list[i]);
    }
    port_stop(port);
    assert_int_equal(port_done(), LISTS);
    for (uint32_t i = 0; i < LISTS; i++)
        assert_ok(list[i].error);
    assert_memory_equal(out->data, in->data, in->bytes);
    blob_drop(in);
    blob_drop(out);
}

// Cells that only one list after the other may touch: each list reads or writes one cell, in its stream's order or after the
// list of the other stream that touched it last. What each read must see is known beforehand.
PORT_CASE(lists_of_both_streams_mixed_at_random_keep_every_order)
{
    enum { LISTS = 600, CELLS = 5, BYTES = 4096 };
    struct device_port *port = port_make(state);
    struct prng prng = case_prng(state, 11);
    static struct device_list list[LISTS];
    static struct device_task task[LISTS];
    static struct blob *blob[LISTS];
    static uint32_t expected[LISTS];
    uint32_t content[CELLS] = {0}, newest[CELLS] = {0};    // newest: the ticket of the list that touched it last
    for (uint32_t i = 0; i < LISTS; i++) {
        uint32_t cell = (uint32_t)prng_between(&prng, 0, CELLS - 1);
        bool is_write = content[cell] == 0 || prng_chance(&prng, 1, 2);
        if (is_write)
            content[cell] = i + 1;
        expected[i] = is_write ? 0 : content[cell];
        blob[i] = is_write ? pattern(BYTES, i + 1) : blob_make(BYTES);
        task[i] = is_write ? write_task(cell * BYTES, blob[i]) : read_task(cell * BYTES, blob[i]);
        list[i] = (struct device_list){
            .ticket = i + 1, .stream = (uint32_t)prng_between(&prng, 0, 1), .tasks = 1, .task = &task[i]};
        if (newest[cell] != 0 && list[newest[cell] - 1].stream != list[i].stream)
            list[i].after = newest[cell];
        newest[cell] = i + 1;
        port->submit(port->self, &list[i]);
    }
    port_wait_for(LISTS);
    for (uint32_t i = 0; i < LISTS; i++) {
        struct blob *right = expected[i] == 0 ? NULL : pattern(BYTES, expected[i]);
        assert_ok(list[i].error);
        if (right != NULL)
            assert_memory_equal(blob[i]->data, right->data, BYTES);
        blob_drop(right);
    }
    for (uint32_t i = 0; i < LISTS; i++)
        blob_drop(blob[i]);
}

void a_peers_region_that_cannot_be_opened_fails_its_list_and_no_other(void **state)
{
    struct device_port *port = port_make(state);
    struct device_peer nobody = {.incarnation = 5, .key = {.bytes = DEVICE_KEY_MAX}};
    struct blob *in = port_row(3), *out = blob_make(PORT_ROW_BYTES);
    struct device_task kept = write_task(0, in), copy = {.kind = DEVICE_COPY_PEER, .bytes = PORT_ROW_BYTES, .peer = &nobody},
                       read = read_task(0, out);
    struct device_list list[3] = {{.tasks = 1, .task = &kept, .stream = DEVICE_TRANSFER},
                                  {.tasks = 1, .task = &copy, .stream = DEVICE_TRANSFER},
                                  {.tasks = 1, .task = &read, .stream = DEVICE_TRANSFER}};
    for (uint32_t i = 0; i < 3; i++)
        port->submit(port->self, &list[i]);
    port_wait_for(3);
    assert_ok(list[0].error);
    assert_error(DJ_E_DEVICE, list[1].error);
    assert_int_equal(list[1].failed_task, 0);
    assert_true(list[1].fault.text[0] != '\0');
    assert_ok(list[2].error);
    assert_memory_equal(in->data, out->data, PORT_ROW_BYTES);
    if (port->forget_peer != NULL)
        port->forget_peer(port->self, nobody.incarnation);
    blob_drop(in);
    blob_drop(out);
}
