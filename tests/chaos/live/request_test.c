// Requests: one flat JSON object of strings and whole numbers, and nothing else.

#include "chaos/live/request.h"

#include "tests/lib/case.h"

#include <stdio.h>
#include <string.h>

static void a_flat_object_is_read(void **state)
{
    (void)state;
    struct request request;
    uint64_t number = 0;
    assert_true(request_parse(" { \"do\" : \"delay\", \"ms\":20 ,\"for\":3}\r", &request));
    assert_string_equal(request_text(&request, "do"), "delay");
    assert_null(request_text(&request, "ms"));
    assert_null(request_text(&request, "other"));
    assert_true(request_number(&request, "ms", 1, 100, 7, &number));
    assert_int_equal(number, 20);
    assert_true(request_number(&request, "absent", 1, 100, 7, &number));
    assert_int_equal(number, 7);
    assert_true(request_parse("{}", &request));
    assert_int_equal(request.fields, 0);
}

static void a_number_outside_its_bounds_is_no_number(void **state)
{
    (void)state;
    struct request request;
    uint64_t number = 5;
    static const char *const wrong[] = {"{\"n\":0}",   "{\"n\":101}",  "{\"n\":-3}",
                                        "{\"n\":1.5}", "{\"n\":1e30}", "{\"n\":\"20\"}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_true(request_parse(wrong[i], &request));
        assert_false(request_number(&request, "n", 1, 100, 7, &number));
    }
    assert_int_equal(number, 5);
}

static void everything_else_of_json_is_refused(void **state)
{
    (void)state;
    struct request request;
    static const char *const wrong[] = {
        "",           "{",           "[1]",   "{\"a\"}",         "{\"a\":}",  "{\"a\":true}", "{\"a\":{}}",        "{\"a\":[1]}",
        "{\"a\":1}x", "{\"a\":\"b}", "{a:1}", "{\"a\":\"\\n\"}", "{\"a\" 1}", "{,}",          "{\"a\":1 \"b\":2}", "null"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(request_parse(wrong[i], &request));
    char many[256] = "{";
    for (int i = 0; i <= REQUEST_FIELDS_MAX; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%s\"k%d\":1", i == 0 ? "" : ",", i);
    strcat(many, "}");
    assert_false(request_parse(many, &request));
    char long_text[400];
    snprintf(long_text, sizeof long_text, "{\"a\":\"%0200d\"}", 1);
    assert_false(request_parse(long_text, &request));
}

CASES(a_flat_object_is_read, a_number_outside_its_bounds_is_no_number, everything_else_of_json_is_refused)
