// The simulated device: what it computes depends on the values alone, never on where they lie; data movement is real; streams keep their order;
// a death forgets everything.

#include "chaos/sim/sim.h"

#include "core/io/blob.h"
#include "tests/lib/case.h"

#include <stdlib.h>
#include <string.h>

enum { REGION = 1 << 16, DONE_MAX = 64 };

// A node that only remembers which lists are done.
static struct {
    uint64_t ticket[DONE_MAX];
    uint32_t count;
    struct device_list *last;
} done;

static enum dj_error remember(void *self, const struct io_event *event)
{
    (void)self;
    if (event->kind == IO_DEVICE_DONE) {
        done.ticket[done.count++ % DONE_MAX] = event->device_done.list->ticket;
        done.last = event->device_done.list;
    }
    return DJ_OK;
}

static bool run_nothing(void *self, uint64_t now_ns, struct io_effects *ret)
{
    (void)self, (void)now_ns, (void)ret;
    return false;
}

static uint64_t never(const void *self)
{
    (void)self;
    return UINT64_MAX;
}

static void free_nothing(void *self)
{
    (void)self;
}

static const struct sim_ops ops = {.post = remember, .run = run_nothing, .deadline_ns = never, .free = free_nothing};

static void *make_it(struct sim *sim, uint32_t node, uint64_t life, void *argument)
{
    (void)sim, (void)node, (void)life;
    return argument;
}

static struct sim *sim;
static struct device_port *port;

static void free_it(void *unused)
{
    (void)unused;
    sim_free(sim);
}

static void begin(void **state, uint64_t seed)
{
    ops_init();
    memset(&done, 0, sizeof done);
    sim = sim_make(&(struct sim_options){.seed = seed});
    sim_add_node(sim, "worker", &ops, make_it, &done);
    port = sim_add_device(sim, 0, REGION);
    case_later(state, free_it, NULL);
    sim_run_until(sim, NULL, NULL, 10);
}

static struct device_tensor tensor(uint64_t offset, enum dtype dtype, uint32_t rank, const int64_t *size, const int64_t *stride)
{
    struct device_tensor made = {.offset = offset, .meta = {.dtype = dtype, .rank = rank}};
    for (uint32_t d = 0; d < rank; d++)
        made.meta.size[d] = size[d];
    tensor_make_contiguous(&made.meta);
    for (uint32_t d = 0; d < rank && stride != NULL; d++)
        made.meta.stride[d] = stride[d];
    return made;
}

static void run_tasks(struct device_task *task, uint32_t tasks)
{
    static uint64_t ticket = 100;
    struct device_list list = {.ticket = ++ticket, .tasks = tasks, .task = task};
    port->submit(port->self, &list);
    uint32_t before = done.count;
    sim_run_until(sim, NULL, NULL, sim_now_ns(sim) + 1000000000);
    assert_null(sim_failure(sim));
    assert_int_equal(done.count, before + 1);
    assert_ok(list.error);
}

static void write_bytes(uint64_t offset, const void *data, size_t bytes)
{
    struct blob *blob = blob_copy(data, bytes);
    struct device_task task = {.kind = DEVICE_WRITE, .offset = offset, .bytes = bytes, .blob = blob};
    run_tasks(&task, 1);
    blob_drop(blob);
}

static void read_bytes_to(uint64_t offset, void *data, size_t bytes)
{
    struct blob *blob = blob_make(bytes);
    struct device_task task = {.kind = DEVICE_READ, .offset = offset, .bytes = bytes, .blob = blob};
    run_tasks(&task, 1);
    memcpy(data, blob->data, bytes);
    blob_drop(blob);
}

static void run_op(uint32_t op, const struct device_tensor *in, uint32_t n_in, const struct device_tensor *out,
                   const struct attr *attr)
{
    struct device_task task = {.kind = DEVICE_KERNEL,
                               .op = op_info(op),
                               .in = in,
                               .n_in = n_in,
                               .out = out,
                               .n_out = 1,
                               .attr = attr,
                               .offset = REGION - 64,
                               .bytes = 64};
    run_tasks(&task, 1);
}

static const float numbers[6] = {1, 2, 3, 4, 5, 6};

static void what_is_computed_depends_on_the_values_and_not_on_their_places(void **state)
{
    begin(state, 1);
    const float transposed[6] = {1, 4, 2, 5, 3, 6};
    float a[6], b[6], c[6];
    write_bytes(0, numbers, sizeof numbers);
    write_bytes(4096, transposed, sizeof transposed);
    struct attr attr[OP_ATTRS_MAX] = {{0}};
    const int64_t size[] = {2, 3}, across[] = {1, 2};
    struct device_tensor dense = tensor(0, DTYPE_F32, 2, size, NULL), strided = tensor(4096, DTYPE_F32, 2, size, across);
    struct device_tensor out = tensor(8192, DTYPE_F32, 2, size, NULL), elsewhere = tensor(9216, DTYPE_F32, 2, size, across);
    run_op(OP_RELU, &dense, 1, &out, attr);
    read_bytes_to(8192, a, sizeof a);
    run_op(OP_RELU, &strided, 1, &elsewhere, attr);
    read_bytes_to(9216, b, sizeof b);
    for (int row = 0; row < 2; row++) {
        for (int column = 0; column < 3; column++)
            assert_true(a[row * 3 + column] == b[row + 2 * column]);
    }
    assert_memory_not_equal(a, numbers, sizeof a);
    run_op(OP_NEG, &dense, 1, &out, attr);    // another op gives other values
    read_bytes_to(8192, c, sizeof c);
    assert_memory_not_equal(a, c, sizeof a);
    float changed[6] = {1, 2, 3, 4, 5, 7};
    write_bytes(0, changed, sizeof changed);
    run_op(OP_RELU, &dense, 1, &out, attr);    // and so does one changed element, everywhere
    read_bytes_to(8192, c, sizeof c);
    for (int i = 0; i < 6; i++)
        assert_true(a[i] != c[i]);
}

static void moving_data_moves_it(void **state)
{
    begin(state, 2);
    float got[9];
    write_bytes(0, numbers, sizeof numbers);
    const int64_t size[] = {2, 3}, one[] = {1, 3}, tall[] = {3, 3};
    struct attr attr[OP_ATTRS_MAX] = {{0}};
    struct device_tensor all = tensor(0, DTYPE_F32, 2, size, NULL), row = tensor(12, DTYPE_F32, 2, one, NULL);

    struct device_tensor out = tensor(4096, DTYPE_F32, 2, size, NULL);
    run_op(OP_CLONE, &all, 1, &out, attr);
    read_bytes_to(4096, got, sizeof numbers);
    assert_memory_equal(got, numbers, sizeof numbers);

    attr[0] = (struct attr){.kind = ATTR_INT, .i = 0};
    const struct device_tensor parts[2] = {all, row};
    out = tensor(4096, DTYPE_F32, 2, tall, NULL);
    run_op(OP_CAT, parts, 2, &out, attr);
    read_bytes_to(4096, got, sizeof got);
    const float joined[9] = {1, 2, 3, 4, 5, 6, 4, 5, 6};
    assert_memory_equal(got, joined, sizeof joined);

    // Appended in place: the first part already lies where the output begins.
    struct device_tensor grown = tensor(0, DTYPE_F32, 2, tall, NULL);
    run_op(OP_CAT, parts, 2, &grown, attr);
    read_bytes_to(0, got, sizeof got);
    assert_memory_equal(got, joined, sizeof joined);
}

static void a_view_that_is_copied_shows_what_the_view_shows(void **state)
{
    begin(state, 3);
    float got[6];
    write_bytes(0, numbers, sizeof numbers);
    const int64_t size[] = {2, 3}, flipped[] = {3, 2}, column[] = {2};
    struct device_tensor all = tensor(0, DTYPE_F32, 2, size, NULL);
    struct attr attr[OP_ATTRS_MAX] = {{.kind = ATTR_INT, .i = 0}, {.kind = ATTR_INT, .i = 1}};
    struct device_tensor out = tensor(4096, DTYPE_F32, 2, flipped, NULL);
    run_op(OP_TRANSPOSE, &all, 1, &out, attr);
    read_bytes_to(4096, got, sizeof got);
    const float transposed[6] = {1, 4, 2, 5, 3, 6};
    assert_memory_equal(got, transposed, sizeof transposed);

    attr[0].i = 1;
    attr[1].i = 2;
    out = tensor(4096, DTYPE_F32, 1, column, NULL);
    run_op(OP_SELECT, &all, 1, &out, attr);
    read_bytes_to(4096, got, 8);
    assert_true(got[0] == 3 && got[1] == 6);

    // select_scatter writes that column back, changed.
    const float fresh[2] = {30, 60};
    write_bytes(8192, fresh, sizeof fresh);
    const struct device_tensor in[2] = {all, tensor(8192, DTYPE_F32, 1, column, NULL)};
    out = tensor(4096, DTYPE_F32, 2, size, NULL);
    run_op(OP_SELECT_SCATTER, in, 2, &out, attr);
    read_bytes_to(4096, got, sizeof got);
    const float written[6] = {1, 2, 30, 4, 5, 60};
    assert_memory_equal(got, written, sizeof written);
}

static void streams_keep_their_order_and_wait_for_each_other_where_asked(void **state)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        begin(state, seed);
        struct device_task nothing = {.kind = DEVICE_ZERO, .bytes = 8};
        static struct device_list list[20];
        memset(list, 0, sizeof list);
        for (uint32_t i = 0; i < 20; i++) {
            list[i] = (struct device_list){.ticket = i + 1, .stream = i % 2, .tasks = 1, .task = &nothing};
            if (i == 9)
                list[i].after = 9;    // the last but one of the other stream
            port->submit(port->self, &list[i]);
        }
        sim_run_until(sim, NULL, NULL, 1000000000);
        assert_int_equal(done.count, 20);
        uint64_t place[21] = {0};
        for (uint32_t i = 0; i < 20; i++)
            place[done.ticket[i]] = i;
        assert_true(place[10] > 0);
        sim_free(sim);
        sim = NULL;
    }
}

static void memory_is_garbage_at_birth_and_a_death_forgets_the_lists(void **state)
{
    begin(state, 4);
    uint8_t a[32], b[32], zero[32] = {0};
    read_bytes_to(0, a, sizeof a);
    assert_true(memcmp(a, zero, sizeof a) != 0);
    write_bytes(0, zero, sizeof zero);
    static struct device_task task = {.kind = DEVICE_ZERO, .bytes = 8};
    static struct device_list list;
    list = (struct device_list){.ticket = 7, .tasks = 1, .task = &task};
    port->submit(port->self, &list);
    uint32_t before = done.count;
    sim_kill(sim, 0, 1000);
    sim_run_until(sim, NULL, NULL, sim_now_ns(sim) + 1000000000);
    assert_int_equal(done.count, before);
    assert_true(sim_is_alive(sim, 0));
    read_bytes_to(0, b, sizeof b);
    assert_true(memcmp(b, zero, sizeof b) != 0);
}

static void a_task_outside_the_region_is_found(void **state)
{
    begin(state, 5);
    struct device_task task = {.kind = DEVICE_ZERO, .offset = REGION - 4, .bytes = 8};
    struct device_list list = {.ticket = 9, .tasks = 1, .task = &task};
    port->submit(port->self, &list);
    assert_false(sim_run_until(sim, NULL, NULL, 1000000000));
    assert_non_null(strstr(sim_failure(sim), "a task touches"));
}

CASES(what_is_computed_depends_on_the_values_and_not_on_their_places, moving_data_moves_it,
      a_view_that_is_copied_shows_what_the_view_shows, streams_keep_their_order_and_wait_for_each_other_where_asked,
      memory_is_garbage_at_birth_and_a_death_forgets_the_lists, a_task_outside_the_region_is_found)
