// Bits, checked arithmetic and lists: small enough to try against the plain formula.

#include "core/base/bits.h"
#include "core/base/list.h"
#include "tests/lib/case.h"

static void the_next_power_of_two_is_the_least_that_holds_the_value(void **state)
{
    (void)state;
    for (uint32_t value = 0; value < 5000; value++) {
        uint32_t power = 1;
        while (power < value)
            power *= 2;
        assert_int_equal(u32_next_power_of_two(value), power);
    }
    assert_int_equal(u32_next_power_of_two(1u << 31), 1u << 31);
    assert_int_equal(u32_next_power_of_two((1u << 31) + 1), 0);
}

static void arithmetic_that_overflows_is_refused_and_leaves_the_result(void **state)
{
    (void)state;
    int64_t i = 0;
    size_t s = 0;
    assert_true(i64_add(INT64_MAX - 1, 1, &i) && i == INT64_MAX);
    assert_false(i64_add(INT64_MAX, 1, &i));
    assert_false(i64_add(INT64_MIN, -1, &i));
    assert_true(i64_mul(1 << 30, 1 << 30, &i) && i == INT64_C(1) << 60);
    assert_false(i64_mul(INT64_C(1) << 32, INT64_C(1) << 31, &i));
    assert_true(size_add(SIZE_MAX - 1, 1, &s) && s == SIZE_MAX);
    assert_false(size_add(SIZE_MAX, 1, &s));
    assert_false(size_mul(SIZE_MAX / 2, 3, &s));
    assert_int_equal(size_round_up(0, 16), 0);
    assert_int_equal(size_round_up(1, 16), 16);
    assert_int_equal(size_round_up(16, 16), 16);
}

static void a_bit_is_alone(void **state)
{
    (void)state;
    uint8_t bits[8] = {0};
    for (size_t i = 0; i < 64; i += 3)
        bit_set(bits, i);
    for (size_t i = 0; i < 64; i += 9)
        bit_clear(bits, i);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(bit_get(bits, i), i % 3 == 0 && i % 9 != 0);
}

struct item {
    int number;
    struct list link;
};

static void a_list_keeps_its_order_and_lets_go_while_it_is_walked(void **state)
{
    (void)state;
    struct list head;
    struct item item[10];
    list_init(&head);
    assert_true(list_is_empty(&head));
    for (int i = 0; i < 10; i++) {
        item[i].number = i;
        list_push(&head, &item[i].link);
    }
    int expected = 0;
    list_each (node, &head) {
        struct item *at = list_entry(node, struct item, link);
        assert_int_equal(at->number, expected++);
        if (at->number % 2 == 0)
            list_remove(node);
    }
    assert_int_equal(expected, 10);
    expected = 1;
    list_each (node, &head) {
        assert_int_equal(list_entry(node, struct item, link)->number, expected);
        expected += 2;
    }
    assert_int_equal(expected, 11);
    list_remove(&item[0].link);    // removing what is not in a list does nothing
    assert_true(list_is_empty(&item[0].link));
}

CASES(the_next_power_of_two_is_the_least_that_holds_the_value, arithmetic_that_overflows_is_refused_and_leaves_the_result,
      a_bit_is_alone, a_list_keeps_its_order_and_lets_go_while_it_is_walked)
