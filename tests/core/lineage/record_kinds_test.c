// The smaller records, and lists of references: they come back as they were written, and what does not fit together is refused.

#include "core/lineage/record.h"

#include "tests/lib/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_scratch(void *scratch)
{
    record_scratch_free(scratch);
}

// Writes, reads back, and says with what error.
static enum dj_error again(void **state, const struct record *record, struct record *ret)
{
    struct arena *arena = case_arena(state);
    struct record_scratch *scratch = arena_alloc(arena, sizeof *scratch);
    assert_ok(record_scratch_make(scratch));
    case_later(state, free_scratch, scratch);
    struct writer writer = writer_make(1 << 20);
    record_write(&writer, record);
    assert_ok(writer.error);
    const uint8_t *bytes = arena_copy(arena, writer.data, writer.length);
    struct reader reader = reader_make(bytes, writer.length);
    enum dj_error error = record_read(&reader, scratch, ret);
    if (error == DJ_OK)
        assert_int_equal(reader_left(&reader), 0);
    for (size_t length = 0; length < writer.length; length++) {
        struct record cut;
        reader = reader_make(bytes, length);
        assert_int_not_equal(record_read(&reader, scratch, &cut), DJ_OK);
    }
    writer_free(&writer);
    return error;
}

static int order(const void *a, const void *b)
{
    const struct record_ref *x = a, *y = b;
    if (x->counter != y->counter)
        return x->counter < y->counter ? 1 : -1;
    return x->output < y->output ? -1 : x->output > y->output;
}

static void references_come_back_from_the_latest_on(void **state)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct prng prng = case_prng(state, seed);
        struct record_ref ref[200], sorted[200], read;
        uint32_t count = (uint32_t)prng_between(&prng, 0, 200), next = 0;
        uint64_t from = prng_between(&prng, 300, UINT64_MAX / 2);
        for (uint32_t i = 0; i < count; i++) {    // all different
            ref[i].counter = from - prng_between(&prng, 1, 5) - (prng_chance(&prng, 1, 9) ? prng_next(&prng) % (from / 2) : 0);
            ref[i].output = (uint32_t)(prng_chance(&prng, 1, 2) ? i : i * 10000000u);
        }
        memcpy(sorted, ref, sizeof sorted);
        qsort(sorted, count, sizeof *sorted, order);
        struct writer writer = writer_make(1 << 16);
        record_refs_write(&writer, from, ref, count);
        struct record_refs refs = record_refs_open(writer.data, (uint32_t)writer.length, from);
        while (record_refs_next(&refs, &read)) {
            assert_true(next < count);
            assert_true(read.counter == sorted[next].counter && read.output == sorted[next].output);
            next++;
        }
        assert_ok(refs.reader.error);
        assert_int_equal(next, count);
        writer_free(&writer);
    }
}

static void the_caches_of_a_step_take_little(void **state)
{
    (void)state;
    struct record_ref ref[24];
    for (uint32_t i = 0; i < 24; i++)
        ref[i] = (struct record_ref){.counter = 99999, .output = i * 40};
    struct writer writer = writer_make(1 << 16);
    record_refs_write(&writer, 100000, ref, 24);
    assert_true(writer.length <= 2 + 24);
    writer_free(&writer);
}

static void references_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const uint8_t bad[][3] = {{0, 1, 0}, {11, 1, 0}, {1, 0, 0}};    // itself; before the first; of nothing
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct record_refs refs = record_refs_open(bad[i], 3, 10);
        struct record_ref ref;
        while (record_refs_next(&refs, &ref))
            ;
        assert_error(DJ_E_MALFORMED, refs.reader.error);
    }
    struct record_refs refs = record_refs_open((const uint8_t[]){1, 2, 0}, 3, 10);    // two are promised
    struct record_ref ref;
    assert_true(record_refs_next(&refs, &ref) && ref.counter == 9 && ref.output == 0);
    assert_false(record_refs_next(&refs, &ref));
    assert_error(DJ_E_FRAME_TRUNCATED, refs.reader.error);
}

static void imports_and_releases_come_back(void **state)
{
    struct record read;
    struct record import = {
        .kind = RECORD_IMPORT,
        .import = {.id = {17, 900}, .output = 3, .source = {.counter = 800, .output = 70000}, .bytes = 1u << 20}};
    assert_ok(again(state, &import, &read));
    assert_true(read.kind == RECORD_IMPORT && exec_id_equal(read.import.id, import.import.id));
    assert_true(read.import.output == 3 && read.import.source.counter == 800 && read.import.source.output == 70000);
    assert_int_equal(read.import.bytes, 1u << 20);

    struct record release = {.kind = RECORD_RELEASE,
                             .release = {.session = 17, .from = 55, .gone = (const uint8_t *)"\1\1\0", .gone_bytes = 3}};
    assert_ok(again(state, &release, &read));
    assert_true(read.kind == RECORD_RELEASE && read.release.session == 17 && read.release.from == 55);
    assert_int_equal(read.release.gone_bytes, 3);
    assert_memory_equal(read.release.gone, "\1\1\0", 3);
    assert_false(read.release.is_lost);
    release.release.is_lost = true;
    assert_ok(again(state, &release, &read));
    assert_true(read.release.is_lost);
}

static struct record checkpoint_of(const struct record_piece *piece, uint32_t pieces, struct writer *writer)
{
    for (uint32_t i = 0; i < pieces; i++)
        record_piece_write(writer, &piece[i]);
    struct record record = {.kind = RECORD_CHECKPOINT};
    record.checkpoint = (struct record_checkpoint){
        .handle = {{17, 12}, 5},
        .meta = {.dtype = DTYPE_F32, .rank = 3, .size = {2, 10, 3}, .stride = {30, 3, 1}},
        .dim = 1,
        .is_replica = true,
        .pieces = pieces,
        .piece = writer->data,
        .piece_bytes = (uint32_t)writer->length};
    return record;
}

static void a_checkpoint_comes_back_with_its_pieces(void **state)
{
    struct record_piece piece[] = {{{1, 2}, 4, 96}, {{3, 4}, 6, 144}};
    struct writer writer = writer_make(4096);
    struct record record = checkpoint_of(piece, 2, &writer), read;
    assert_ok(again(state, &record, &read));
    assert_true(read.kind == RECORD_CHECKPOINT && handle_equal(read.checkpoint.handle, record.checkpoint.handle));
    assert_true(read.checkpoint.is_replica && read.checkpoint.dim == 1 && read.checkpoint.pieces == 2);
    assert_true(read.checkpoint.meta.rank == 3 && tensor_same_sizes(&read.checkpoint.meta, &record.checkpoint.meta));
    struct reader pieces = reader_make(read.checkpoint.piece, read.checkpoint.piece_bytes);
    for (int i = 0; i < 2; i++) {
        struct record_piece back = record_piece_read(&pieces);
        assert_true(hash128_equal(back.content, piece[i].content) && back.rows == piece[i].rows && back.bytes == piece[i].bytes);
    }
    writer_free(&writer);
}

static void a_checkpoint_whose_pieces_do_not_make_its_value_is_refused(void **state)
{
    static const struct record_piece wrong[][2] = {
        {{{1, 2}, 4, 96}, {{3, 4}, 5, 120}},     // a row short
        {{{1, 2}, 4, 120}, {{3, 4}, 6, 120}},    // enough bytes, wrongly shared out
        {{{1, 2}, 4, 96}, {{3, 4}, 6, 143}},     // a byte short
    };
    struct record read;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct writer writer = writer_make(4096);
        struct record record = checkpoint_of(wrong[i], 2, &writer);
        assert_error(DJ_E_MALFORMED, again(state, &record, &read));
        writer_free(&writer);
    }
    struct record_piece right[] = {{{1, 2}, 4, 96}, {{3, 4}, 6, 144}};
    struct writer writer = writer_make(4096);
    struct record record = checkpoint_of(right, 2, &writer);
    record.checkpoint.dim = 3;
    assert_error(DJ_E_MALFORMED, again(state, &record, &read));
    record.checkpoint.dim = 1;
    record.checkpoint.meta.stride[0] = 1;
    record.checkpoint.meta.stride[2] = 20;
    assert_error(DJ_E_MALFORMED, again(state, &record, &read));    // not contiguous
    writer_free(&writer);
}

static void a_tag_comes_back_with_its_entries(void **state)
{
    struct record_piece piece[] = {{{1, 2}, 4, 96}, {{3, 4}, 6, 144}};
    struct writer writer = writer_make(4096), entries = writer_make(1 << 16);
    struct record entry = checkpoint_of(piece, 2, &writer), read;
    record_write(&entries, &entry);
    record_write(&entries, &entry);
    struct record tag = {.kind = RECORD_TAG,
                         .tag = {.made_ns = 77, .entries = 2, .entry = entries.data, .entry_bytes = (uint32_t)entries.length}};
    snprintf(tag.tag.tenant, RECORD_TEXT_MAX, "lab");
    snprintf(tag.tag.name, RECORD_TEXT_MAX, "step-1000");
    assert_ok(again(state, &tag, &read));
    assert_true(read.kind == RECORD_TAG && read.tag.made_ns == 77 && read.tag.entries == 2);
    assert_string_equal(read.tag.tenant, "lab");
    assert_string_equal(read.tag.name, "step-1000");
    assert_int_equal(read.tag.entry_bytes, entries.length);
    assert_memory_equal(read.tag.entry, entries.data, entries.length);
    writer_free(&writer);
    writer_free(&entries);
}

static void keys_of_checkpoints_and_tags_tell_them_apart(void **state)
{
    (void)state;
    uint8_t a[RECORD_KEY_MAX], b[RECORD_KEY_MAX];
    struct handle handle = {{17, 1u << 20}, 9}, back;
    assert_int_equal(record_key_handle(handle, a), 20);
    assert_true(record_key_parse_handle(a, 20, &back) && handle_equal(back, handle));
    assert_false(record_key_parse_handle(a, 16, &back));
    assert_int_equal(record_key_tag("ab", "c", a), record_key_tag("a", "bc", b));
    assert_memory_not_equal(a, b, 16);
    struct record import = {.kind = RECORD_IMPORT, .import = {.id = {17, 3}}};
    assert_int_equal(record_key(&import, a), record_key_execution((struct exec_id){17, 3}, b));
    assert_memory_equal(a, b, 16);
}

CASES(references_come_back_from_the_latest_on, the_caches_of_a_step_take_little, references_that_cannot_be_are_refused,
      imports_and_releases_come_back, a_checkpoint_comes_back_with_its_pieces,
      a_checkpoint_whose_pieces_do_not_make_its_value_is_refused, a_tag_comes_back_with_its_entries,
      keys_of_checkpoints_and_tags_tell_them_apart)
