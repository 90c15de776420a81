// Errors and faults: names, numbers that stay, and texts that are cut at a character.

#include "core/base/error.h"
#include "tests/lib/case.h"

#include <string.h>

static void every_error_has_its_name_and_a_sentence(void **state)
{
    (void)state;
#define ERROR(number, name, retry, text) \
    assert_string_equal(dj_error_name(DJ_E_##name), #name); \
    assert_true(strlen(dj_error_text(DJ_E_##name)) >= 10); \
    assert_int_equal(dj_error_retry(DJ_E_##name), ERROR_RETRY_##retry);
#include "core/base/errors.def"
#undef ERROR
    assert_string_equal(dj_error_name(DJ_OK), "OK");
    assert_string_equal(dj_error_name((enum dj_error)9999), "UNKNOWN");
    assert_non_null(strstr(dj_error_text((enum dj_error)9999), "does not know"));
    assert_int_equal(dj_error_retry((enum dj_error)9999), ERROR_RETRY_no);
}

static void the_list_ascends_so_no_number_is_used_twice(void **state)
{
    (void)state;
    int last = 0;
#define ERROR(number, name, retry, text) \
    assert_true(number > last); \
    last = number;
#include "core/base/errors.def"
#undef ERROR
}

static void a_fault_keeps_its_cause_behind_what_is_put_in_front(void **state)
{
    (void)state;
    struct fault fault = {0};
    assert_error(DJ_E_SHAPE, fault_set(&fault, DJ_E_SHAPE, "matmul: %d and %d differ", 3, 4));
    assert_error(DJ_E_SHAPE, fault_wrap(&fault, "plan %s: ", "3f"));
    assert_string_equal(fault.text, "plan 3f: matmul: 3 and 4 differ");

    assert_error(DJ_E_NO_HEAD, fault_set(&fault, DJ_E_NO_HEAD, "%s", ""));
    fault_wrap(&fault, "connecting: ");
    assert_string_equal(fault.text, "connecting: the head cannot be reached");
    assert_error(DJ_E_LIMIT, fault_set(NULL, DJ_E_LIMIT, "nobody listens"));
}

static void a_fault_can_be_set_from_its_own_text(void **state)
{
    (void)state;
    struct fault fault = {0};
    fault_set(&fault, DJ_E_SHAPE, "inner");
    fault_set(&fault, DJ_E_PLAN_INVALID, "outer (%s)", fault.text);
    assert_string_equal(fault.text, "outer (inner)");
}

static void a_long_text_is_cut_at_a_character(void **state)
{
    (void)state;
    static const char *const character[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    for (size_t width = 1; width <= 4; width++) {
        for (size_t before = 0; before < 4; before++) {
            char text[FAULT_TEXT_MAX * 2 + 8];
            memset(text, 'x', before);
            size_t length = before;
            for (; length < FAULT_TEXT_MAX * 2; length += width)
                memcpy(text + length, character[width - 1], width);
            text[length] = '\0';
            size_t expected = before + (FAULT_TEXT_MAX - 1 - before) / width * width;

            struct fault fault = {0};
            fault_set(&fault, DJ_E_INVALID, "%s", text);
            assert_int_equal(strlen(fault.text), expected);
            fault_set(&fault, DJ_E_INVALID, "%s", text + before);
            fault_wrap(&fault, "%.*s", (int)before, "xxxx");
            assert_true(strlen(fault.text) <= expected);
            assert_true(strlen(fault.text) + 2 * width > expected);
            assert_memory_equal(fault.text, text, strlen(fault.text));
        }
    }
}

static void claim_what_does_not_hold(void *context)
{
    assert(context != NULL);
}

static void an_assertion_that_fails_aborts(void **state)
{
    (void)state;
    assert_aborts(claim_what_does_not_hold, NULL);
}

CASES(every_error_has_its_name_and_a_sentence, the_list_ascends_so_no_number_is_used_twice,
      a_fault_keeps_its_cause_behind_what_is_put_in_front, a_fault_can_be_set_from_its_own_text,
      a_long_text_is_cut_at_a_character, an_assertion_that_fails_aborts)
