// What a mailbox promises, against a brute-force twin (a plain array), over random sequences of posts, takes and moves.

#include "core/actors/mailbox.h"

#include "core/io/blob.h"
#include "tests/lib/case.h"

#include <string.h>

enum { TWIN_MAX = 8192 };

struct twin {
    uint32_t number[TWIN_MAX];
    uint64_t link[TWIN_MAX];
    size_t first, last;
};

static struct letter letter_of(uint32_t number, uint64_t link)
{
    struct letter letter = {.kind = LETTER_EVENT, .number = number};
    letter.event.kind = IO_RECV;
    letter.event.recv.link = link;
    return letter;
}

static void free_box(void *box)
{
    mailbox_free(box);
}

static void letters_leave_in_the_order_in_which_they_came(void **state)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct prng prng = case_prng(state, seed);
        uint32_t capacity = (uint32_t)prng_between(&prng, 1, 70);
        struct mailbox box;
        mailbox_init(&box, capacity);
        static struct twin twin;
        twin.first = twin.last = 0;
        for (uint32_t step = 0; step < 2000; step++) {
            struct letter letter = letter_of(step, prng_between(&prng, 1, 3));
            if (prng_chance(&prng, 1, 2)) {
                bool fits = twin.last - twin.first < capacity;
                assert_error(fits ? DJ_OK : DJ_E_MAILBOX_FULL, mailbox_post(&box, &letter));
                if (fits) {
                    twin.number[twin.last] = step;
                    twin.link[twin.last++] = letter.event.recv.link;
                }
            } else if (twin.first == twin.last) {
                assert_false(mailbox_take(&box, &letter));
            } else {
                assert_true(mailbox_take(&box, &letter));
                assert_int_equal(letter.number, twin.number[twin.first++]);
            }
            assert_int_equal(mailbox_depth(&box), twin.last - twin.first);
        }
        mailbox_free(&box);
    }
}

static void moving_a_link_takes_its_letters_and_keeps_the_order_of_both(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct prng prng = case_prng(state, seed);
        struct mailbox box, other;
        mailbox_init(&box, 100);
        mailbox_init(&other, 1);    // a moved letter is never lost for want of room
        uint32_t count = (uint32_t)prng_between(&prng, 0, 60), expected = 0;
        for (uint32_t i = 0; i < count; i++) {
            struct letter letter = letter_of(i, prng_between(&prng, 1, 2));
            assert_ok(mailbox_post(&box, &letter));
            expected += letter.event.recv.link == 2;
        }
        assert_int_equal(mailbox_move_link(&box, 2, &other), expected);
        struct letter letter;
        for (int64_t last = -1; mailbox_take(&box, &letter); last = letter.number) {
            assert_int_equal(letter.event.recv.link, 1);
            assert_true(letter.number > last);
        }
        for (int64_t last = -1; mailbox_take(&other, &letter); last = letter.number) {
            assert_int_equal(letter.event.recv.link, 2);
            assert_true(letter.number > last);
            expected--;
        }
        assert_int_equal(expected, 0);
        mailbox_free(&box);
        mailbox_free(&other);
    }
}

static void a_freed_mailbox_gives_back_what_its_letters_carry(void **state)
{
    static struct mailbox box;
    mailbox_init(&box, 4);
    case_later(state, free_box, &box);
    struct blob *blob = blob_copy("x", 1);
    struct letter letter = letter_of(1, 1);
    letter.event.recv.body = blob_hold(blob);
    assert_ok(mailbox_post(&box, &letter));
    mailbox_free(&box);
    assert_int_equal(blob->holders, 1);
    blob_drop(blob);
}

static void out_of_memory_leaves_the_letter_with_the_sender(void **state)
{
    static struct mailbox box;
    mailbox_init(&box, 100);
    case_later(state, free_box, &box);
    struct letter letter = letter_of(1, 1);
    alloc_fail_after(0);
    enum dj_error error = mailbox_post(&box, &letter);
    alloc_fail_stop();
    assert_error(DJ_E_NO_MEMORY, error);
    assert_int_equal(mailbox_depth(&box), 0);
    assert_ok(mailbox_post(&box, &letter));
}

CASES(letters_leave_in_the_order_in_which_they_came, moving_a_link_takes_its_letters_and_keeps_the_order_of_both,
      a_freed_mailbox_gives_back_what_its_letters_carry, out_of_memory_leaves_the_letter_with_the_sender)
