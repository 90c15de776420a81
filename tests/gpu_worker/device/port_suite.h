// Port suite: what every device guarantees behind core/io/device.h, as tests that run unchanged against each of them.
//
// A device's test file defines `port_subject` and names PORT_SUITE in its cases:
//
//     const struct port_subject port_subject = {.make = make};
//     PORT_CASES(PORT_SUITE, one_more_of_its_own)

#ifndef TESTS_GPU_WORKER_DEVICE_PORT_SUITE_H
#define TESTS_GPU_WORKER_DEVICE_PORT_SUITE_H

#include "core/io/blob.h"
#include "core/io/device.h"
#include "core/io/io.h"
#include "tests/lib/case.h"

enum { PORT_REGION_BYTES = 32 << 20 };

struct port_subject {
    // A device with at least PORT_REGION_BYTES, whose events go to the sink. `stop` is called by the suite.
    struct device_port *(*make)(const struct io_sink *sink);
    // After stop: nothing is left behind. NULL: not to be known.
    void (*check_end)(void);
};
extern const struct port_subject port_subject;

// Faults on request are the test's own knobs.
bool port_is_full(void);
bool port_loses_all(void);

// What suites and devices' own tests use.
struct device_port *port_make(void **state);            // stopped when the test ends, if not by port_stop
struct device_port *port_make_with(void **state, struct device_port *(*make)(const struct io_sink *sink));
void port_stop(struct device_port *port);
const struct io_sink *port_sink(void);                  // for devices that a test makes and stops itself
void port_reset(void);                                  // nothing has come back yet
void port_wait_for(uint32_t lists);                     // until so many have come back since port_make, 20 s at most
uint32_t port_done(void);
struct device_list *port_done_at(uint32_t index);
void port_run(struct device_port *port, struct device_list *list);      // submits one list and waits for all that are out

// One-hot rows: floats [n] with 0 at `at` and -infinity elsewhere; softmax makes them 1 and 0, exactly.
enum { PORT_ROW = 8, PORT_ROW_BYTES = PORT_ROW * 4 };
struct blob *port_row(uint32_t at);
struct device_tensor port_row_tensor(uint64_t offset);
uint32_t port_row_read(const uint8_t *data);            // which element is 1 (PORT_ROW: it is not a one-hot row)
// in and out: one tensor each, which stay the caller's
struct device_task port_softmax(const struct device_tensor *in, const struct device_tensor *out);

#define PORT_SUITE                                                                                                           \
    a_list_writes_computes_and_reads_in_order, lists_of_one_stream_come_back_once_each_and_in_the_order_of_submission,       \
    lists_of_one_stream_see_what_the_ones_before_them_did, a_list_comes_after_the_list_of_the_other_stream_that_it_names,    \
    an_index_out_of_range_ends_its_list_and_is_named, the_first_of_two_failures_is_named, the_list_after_a_failed_one_runs,  \
    empty_lists_and_empty_spans_come_back, a_list_of_thousands_of_kernels_runs_to_its_end,                                   \
    spans_of_any_size_arrive_and_come_back_whole, thousands_of_small_spans_in_one_list_arrive, zeros_are_written_where_told, \
    the_capability_is_what_the_kernels_have_and_views, what_kernels_do_not_take_is_refused_when_asked,                       \
    trimmed_memory_can_be_used_again_and_its_neighbours_stay, stop_finishes_the_lists_that_are_out,                          \
    lists_of_both_streams_mixed_at_random_keep_every_order, a_device_lost_on_request_fails_its_incarnation_and_serves_the_next, \
    a_device_full_on_request_fails_that_list_alone, values_that_no_kernel_can_use_are_named_in_the_same_words,              \
    of_thousands_of_wrong_indices_the_first_is_named
#define PORT_CASES(...) CASES(__VA_ARGS__)

#define PORT_CASE(name) void name(void **state)
PORT_CASE(a_list_writes_computes_and_reads_in_order);
PORT_CASE(lists_of_one_stream_come_back_once_each_and_in_the_order_of_submission);
PORT_CASE(lists_of_one_stream_see_what_the_ones_before_them_did);
PORT_CASE(a_list_comes_after_the_list_of_the_other_stream_that_it_names);
PORT_CASE(an_index_out_of_range_ends_its_list_and_is_named);
PORT_CASE(the_first_of_two_failures_is_named);
PORT_CASE(the_list_after_a_failed_one_runs);
PORT_CASE(empty_lists_and_empty_spans_come_back);
PORT_CASE(a_list_of_thousands_of_kernels_runs_to_its_end);
PORT_CASE(spans_of_any_size_arrive_and_come_back_whole);
PORT_CASE(thousands_of_small_spans_in_one_list_arrive);
PORT_CASE(zeros_are_written_where_told);
PORT_CASE(the_capability_is_what_the_kernels_have_and_views);
PORT_CASE(what_kernels_do_not_take_is_refused_when_asked);
PORT_CASE(trimmed_memory_can_be_used_again_and_its_neighbours_stay);
PORT_CASE(stop_finishes_the_lists_that_are_out);
PORT_CASE(lists_of_both_streams_mixed_at_random_keep_every_order);
PORT_CASE(a_device_lost_on_request_fails_its_incarnation_and_serves_the_next);      // requests come through the knobs
PORT_CASE(a_device_full_on_request_fails_that_list_alone);
PORT_CASE(values_that_no_kernel_can_use_are_named_in_the_same_words);
PORT_CASE(of_thousands_of_wrong_indices_the_first_is_named);

#endif
