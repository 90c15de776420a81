// Port faults: what `djinn chaos` asks of a device, as every device must do it. Part of the port suite.

#include "tests/gpu_worker/device/port_suite.h"

#include <string.h>

#include "core/base/knobs.h"

bool port_is_full(void)
{
    return knob_take(KNOB_DEVICE_FULL);
}

bool port_loses_all(void)
{
    return knob_take(KNOB_DEVICE_LOST);
}

PORT_CASE(a_device_lost_on_request_fails_its_incarnation_and_serves_the_next)
{
    struct device_port *port = port_make(state);
    struct blob *bytes = blob_make(64);
    struct device_task read = {.kind = DEVICE_READ, .bytes = 64, .blob = bytes};
    struct device_list first = {.incarnation = 7, .tasks = 1, .task = &read}, same = first, next = first, again = first;

    next.incarnation = again.incarnation = 8;
    knob_set(KNOB_DEVICE_LOST, 1);
    port_run(port, &first);
    assert_error(DJ_E_DEVICE_LOST, first.error);
    assert_non_null(strstr(first.fault.text, dj_error_text(DJ_E_DEVICE_LOST)));
    assert_int_equal(port->info->lives, 1);
    port_run(port, &same);
    assert_error(DJ_E_DEVICE_LOST, same.error);
    port_run(port, &next);
    assert_ok(next.error);
    assert_int_equal(port->info->lives, 1);
    assert_false(port->info->is_gone);
    knob_set(KNOB_DEVICE_LOST, 1);
    port_run(port, &again);
    assert_error(DJ_E_DEVICE_LOST, again.error);
    assert_int_equal(port->info->lives, 2);
    blob_drop(bytes);
}

PORT_CASE(a_device_full_on_request_fails_that_list_alone)
{
    struct device_port *port = port_make(state);
    struct blob *row = port_row(3);
    struct device_task write = {.kind = DEVICE_WRITE, .bytes = PORT_ROW_BYTES, .blob = row};
    struct device_list first = {.incarnation = 7, .tasks = 1, .task = &write}, next = first, empty = {.incarnation = 7};

    knob_set(KNOB_DEVICE_FULL, 1);
    port_run(port, &empty);    // takes no memory
    assert_ok(empty.error);
    port_run(port, &first);
    assert_error(DJ_E_DEVICE_MEMORY, first.error);
    assert_int_equal(first.failed_task, 0);
    port_run(port, &next);
    assert_ok(next.error);
    assert_int_equal(port->info->lives, 0);
    blob_drop(row);
}
