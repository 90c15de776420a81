// Live: a process listens only when it is told to, does what a line says for as long as it says, and refuses everything else by name.

#include "chaos/live/live.h"

#include "core/base/knobs.h"
#include "core/link/faults.h"
#include "tests/lib/case.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], path[LIVE_PATH_MAX];

static void stop(void *unused)
{
    (void)unused;
    live_end();
    unlink(path);
    char chaos[80];
    snprintf(chaos, sizeof chaos, "%s/chaos", folder);
    rmdir(chaos);
    rmdir(folder);
}

static void begin(void **state, enum live_role role)
{
    struct fault fault = {0};
    snprintf(folder, sizeof folder, "/tmp/djinn-live-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_true(live_path(folder, "w1", path));
    assert_ok(live_listen(folder, "w1", role, &fault));
    case_later(state, stop, NULL);
}

static void refused(const char *line)
{
    char answer[LIVE_LINE_MAX];
    assert_ok(live_ask(path, line, answer));
    assert_non_null(strstr(answer, "\"ok\":0"));
}

static void done(const char *line)
{
    char answer[LIVE_LINE_MAX];
    assert_ok(live_ask(path, line, answer));
    assert_non_null(strstr(answer, "\"ok\":1"));
}

static void nobody_but_the_user_can_reach_the_socket(void **state)
{
    begin(state, LIVE_WORKER);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    char chaos[80];
    snprintf(chaos, sizeof chaos, "%s/chaos", folder);
    assert_int_equal(stat(chaos, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    live_end();
    char answer[LIVE_LINE_MAX];
    assert_error(DJ_E_NOT_FOUND, live_ask(path, "{\"do\":\"show\"}", answer));
}

static void a_fault_is_turned_on_and_ends_by_itself(void **state)
{
    begin(state, LIVE_WORKER);
    done("{\"do\":\"oom\",\"count\":3,\"for\":1}");
    assert_int_equal(knob(KNOB_DEVICE_FULL), 3);
    done("{\"do\":\"delay\",\"ms\":20,\"jitter_ms\":5,\"for\":1}");
    assert_int_equal(knob(KNOB_FRAME_DELAY_US), 20000);
    assert_int_equal(knob(KNOB_FRAME_JITTER_US), 5000);
    assert_true(link_faults_are_on());
    poll(NULL, 0, 1400);
    assert_int_equal(knob(KNOB_DEVICE_FULL), 0);
    assert_int_equal(knob(KNOB_FRAME_DELAY_US), 0);
    assert_int_equal(knob(KNOB_FRAME_JITTER_US), 0);
    assert_false(link_faults_are_on());
}

static void a_clock_jumps_and_stays_ahead(void **state)
{
    begin(state, LIVE_HEAD);
    done("{\"do\":\"clock-jump\",\"ms\":5}");
    done("{\"do\":\"clock-jump\",\"ms\":7}");
    assert_int_equal(knob(KNOB_CLOCK_JUMP_NS), 12000000);
    knob_set(KNOB_CLOCK_JUMP_NS, 0);
}

static void what_makes_no_sense_is_refused(void **state)
{
    begin(state, LIVE_WORKER);
    refused("");
    refused("{}");
    refused("{\"do\":\"explode\"}");
    refused("{\"do\":\"delay\"}");
    refused("{\"do\":\"delay\",\"ms\":60001}");
    refused("{\"do\":\"delay\",\"ms\":1,\"for\":3601}");
    refused("{\"do\":\"delay\",\"ms\":1,\"for\":0}");
    refused("{\"do\":\"partition\"}");
    refused("{\"do\":\"disk-full\"}");    // a worker has no store
    refused("words");
    for (int i = 0; i < KNOBS; i++)
        assert_int_equal(knob((enum knob)i), i == KNOB_ALLOWED);
}

static void a_second_listener_and_a_bad_name_are_refused(void **state)
{
    begin(state, LIVE_WORKER);
    struct fault fault = {0};
    assert_error(DJ_E_BUSY, live_listen(folder, "w2", LIVE_WORKER, &fault));
    live_end();
    assert_error(DJ_E_ADDRESS, live_listen(folder, "a/b", LIVE_WORKER, &fault));
    char long_name[120];
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    assert_error(DJ_E_ADDRESS, live_listen(folder, long_name, LIVE_WORKER, &fault));
}

CASES(nobody_but_the_user_can_reach_the_socket, a_fault_is_turned_on_and_ends_by_itself, a_clock_jumps_and_stays_ahead,
      what_makes_no_sense_is_refused, a_second_listener_and_a_bad_name_are_refused)
