// Records: their bytes. An execution record is on the path of every step and must stay small (a decode step of GPT-2: under 256
// bytes): ids are varints, earlier executions are distances, bit sets are gaps where they are sparse.

#include "core/lineage/record.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <stdlib.h>
#include <string.h>

// Bit sets ---------------------------------------------------------------------------------------------------------------------
//
// A varint `count * 2 + form`, then by form: 0: `count` gaps (zeros before the next set bit); 1: `count` bytes of the bitmap itself.

static uint32_t trimmed(const struct record_bits *bits)
{
    uint32_t bytes = bits->bytes;
    while (bytes > 0 && bits->bits[bytes - 1] == 0)
        bytes--;
    return bytes;
}

static uint32_t var_bytes(uint64_t value)
{
    uint32_t bytes = 1;
    for (; value >= 0x80; value >>= 7)
        bytes++;
    return bytes;
}

void record_bits_write(struct writer *writer, const struct record_bits *bits)
{
    uint32_t bytes = trimmed(bits), count = 0, gap = 0, cost = 0;
    for (uint32_t i = 0; i < bytes * 8; i++) {
        if (!bit_get(bits->bits, i)) {
            gap++;
            continue;
        }
        cost += var_bytes(gap);
        count++;
        gap = 0;
    }
    if (cost > bytes) {
        write_var(writer, (uint64_t)bytes << 1 | 1);
        write_raw(writer, bits->bits, bytes);
        return;
    }
    write_var(writer, (uint64_t)count << 1);
    gap = 0;
    for (uint32_t i = 0; i < bytes * 8; i++) {
        if (!bit_get(bits->bits, i)) {
            gap++;
            continue;
        }
        write_var(writer, gap);
        gap = 0;
    }
}

struct record_bits record_bits_read(struct reader *reader, uint8_t *to, uint32_t *used)
{
    memset(to, 0, *used);
    *used = 0;
    uint64_t head = read_var_max(reader, (uint64_t)RECORD_BITS_MAX << 1);
    uint32_t count = (uint32_t)(head >> 1);
    if (head & 1) {
        const void *raw = count > RECORD_BITS_MAX / 8 ? NULL : read_raw(reader, count);
        if (raw == NULL) {
            reader_fail(reader, DJ_E_MALFORMED);
            return (struct record_bits){0};
        }
        memcpy(to, raw, count);
        *used = count;
        return (struct record_bits){.bits = count == 0 ? NULL : to, .bytes = count};
    }
    uint64_t at = 0;
    for (uint32_t i = 0; i < count && reader->error == DJ_OK; i++) {
        at += read_var_max(reader, RECORD_BITS_MAX);
        if (at >= RECORD_BITS_MAX) {
            reader_fail(reader, DJ_E_MALFORMED);
            break;
        }
        bit_set(to, at++);
        *used = (uint32_t)((at + 7) / 8);
    }
    return (struct record_bits){.bits = *used == 0 ? NULL : to, .bytes = *used};
}

enum dj_error record_scratch_make(struct record_scratch *ret)
{
    uint8_t *both = calloc(2, RECORD_BITS_MAX / 8);
    if (both == NULL)
        return DJ_E_NO_MEMORY;
    *ret = (struct record_scratch){.keep = both, .donate = both + RECORD_BITS_MAX / 8};
    return DJ_OK;
}

void record_scratch_free(struct record_scratch *scratch)
{
    free(scratch->keep);
    *scratch = (struct record_scratch){0};
}

void record_add_producer(struct record_execution *execution, uint64_t counter)
{
    uint32_t at = execution->producers;
    while (at > 0 && execution->producer[at - 1] >= counter) {
        if (execution->producer[at - 1] == counter)
            return;
        at--;
    }
    if (execution->producers == RECORD_PRODUCERS_MAX)
        return;
    memmove(&execution->producer[at + 1], &execution->producer[at], (execution->producers - at) * sizeof execution->producer[0]);
    execution->producer[at] = counter;
    execution->producers++;
}

uint32_t record_numerics(const char *text)
{
    return (uint32_t)hash64(text, strlen(text));
}

uint32_t record_words_check(const int64_t *word, uint32_t words)
{
    return (uint32_t)hash64(word, words * sizeof *word);
}

// Executions -------------------------------------------------------------------------------------------------------------------

static void write_execution(struct writer *writer, const struct record_execution *record)
{
    assert(record->id.counter > record->base && (record->before < record->base || record->base == 0) &&
           record->producers <= RECORD_PRODUCERS_MAX && record->answers <= RECORD_ANSWERS_MAX);
    assert(record->keep.bytes <= RECORD_BITS_MAX / 8 && record->donate.bytes <= RECORD_BITS_MAX / 8);

    exec_id_write(writer, record->id);
    write_hash(writer, record->plan);
    write_var(writer, record->base == 0 ? 0 : record->id.counter - record->base);
    if (record->base != 0)
        write_var(writer, record->before == 0 ? 0 : record->base - record->before);
    write_bytes(writer, record->delta, record->delta_length);
    write_u32(writer, record->check);
    record_bits_write(writer, &record->keep);
    record_bits_write(writer, &record->donate);
    write_bytes(writer, record->gone, record->gone_bytes);
    write_var(writer, record->numerics);
    write_var(writer, record->cost_ns);
    write_var(writer, record->attempt);
    write_var(writer, record->producers);
    uint64_t after = record->id.counter;
    for (uint32_t i = record->producers; i-- > 0;) {    // from the latest back: small distances
        assert(record->producer[i] < after && record->producer[i] > 0);
        write_var(writer, after - record->producer[i]);
        after = record->producer[i];
    }
    write_var(writer, record->answers);
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < record->answers; i++) {
        bytes += record->answer[i].length;
        assert(record->answer[i].length <= RECORD_ANSWER_BYTES_MAX && bytes <= RECORD_ANSWER_BYTES_MAX);
        write_var(writer, record->answer[i].output);
        write_bytes(writer, record->answer[i].bytes, record->answer[i].length);
    }
}

static void read_answers(struct reader *reader, struct record_execution *ret)
{
    ret->answers = (uint32_t)read_var_max(reader, RECORD_ANSWERS_MAX);
    size_t left = RECORD_ANSWER_BYTES_MAX;
    for (uint32_t i = 0; i < ret->answers; i++) {
        size_t length;
        ret->answer[i].output = (uint32_t)read_var_max(reader, UINT32_MAX);
        ret->answer[i].bytes = read_bytes(reader, left, &length);
        ret->answer[i].length = (uint32_t)length;
        left -= length;
    }
}

static void read_producers(struct reader *reader, struct record_execution *ret)
{
    ret->producers = (uint32_t)read_var_max(reader, RECORD_PRODUCERS_MAX);
    uint64_t after = ret->id.counter;
    for (uint32_t i = ret->producers; i-- > 0 && reader->error == DJ_OK;) {
        uint64_t distance = read_var(reader);
        if (distance == 0 || distance >= after) {
            reader_fail(reader, DJ_E_MALFORMED);
            break;
        }
        after -= distance;
        ret->producer[i] = after;
    }
}

static void read_execution(struct reader *reader, struct record_scratch *scratch, struct record_execution *ret)
{
    ret->id = exec_id_read(reader);
    ret->plan = read_hash(reader);
    uint64_t back = read_var(reader);
    if (reader->error == DJ_OK && (ret->id.counter == 0 || back >= ret->id.counter))
        reader_fail(reader, DJ_E_MALFORMED);
    ret->base = back == 0 ? 0 : ret->id.counter - back;
    back = ret->base == 0 ? 0 : read_var(reader);
    if (reader->error == DJ_OK && back != 0 && back >= ret->base)
        reader_fail(reader, DJ_E_MALFORMED);
    ret->before = back == 0 || reader->error != DJ_OK ? 0 : ret->base - back;
    size_t length;
    ret->delta = read_bytes(reader, RECORD_DELTA_BYTES_MAX, &length);
    ret->delta_length = (uint32_t)length;
    ret->check = read_u32(reader);
    ret->keep = record_bits_read(reader, scratch->keep, &scratch->keep_bytes);
    ret->donate = record_bits_read(reader, scratch->donate, &scratch->donate_bytes);
    ret->gone = read_bytes(reader, RECORD_GONE_BYTES_MAX, &length);
    ret->gone_bytes = (uint32_t)length;
    ret->numerics = (uint32_t)read_var_max(reader, UINT32_MAX);
    ret->cost_ns = read_var(reader);
    ret->attempt = (uint32_t)read_var_max(reader, UINT32_MAX);
    read_producers(reader, ret);
    read_answers(reader, ret);
}

// The others -------------------------------------------------------------------------------------------------------------------

void record_meta_write(struct writer *writer, const struct tensor_meta *meta)
{
    write_u8(writer, (uint8_t)meta->dtype);
    write_u8(writer, (uint8_t)meta->rank);
    for (uint32_t d = 0; d < meta->rank; d++) {
        write_zig(writer, meta->size[d]);
        write_zig(writer, meta->stride[d]);
    }
}

void record_meta_read(struct reader *reader, struct tensor_meta *ret)
{
    struct tensor_meta meta = {.dtype = read_u8(reader)};
    meta.rank = read_u8(reader);
    for (uint32_t d = 0; d < meta.rank && d < DJ_RANK_MAX; d++) {
        meta.size[d] = read_zig(reader);
        meta.stride[d] = read_zig(reader);
    }
    if (reader->error == DJ_OK && tensor_check(&meta, NULL) != DJ_OK)
        reader_fail(reader, DJ_E_MALFORMED);
    *ret = meta;
}

static void write_session(struct writer *writer, const struct record_session *record)
{
    write_var(writer, record->session);
    write_var(writer, record->epoch);
    write_u8(writer, record->recovery);
    write_u8(writer, record->allows_close);
    write_u8(writer, record->is_over);
    write_var(writer, record->replay_limit_ns);
    write_var(writer, record->watermark);
    write_var(writer, record->opened_ns);
    write_var(writer, record->seen_ns);
    write_text(writer, record->client);
    write_text(writer, record->tenant);
    write_text(writer, record->worker);
}

static void read_session(struct reader *reader, struct record_session *ret)
{
    ret->session = read_var(reader);
    ret->epoch = (uint32_t)read_var_max(reader, UINT32_MAX);
    ret->recovery = read_u8(reader);
    if (ret->recovery >= LINEAGE_POLICIES)
        reader_fail(reader, DJ_E_MALFORMED);
    ret->allows_close = read_u8(reader) != 0;
    ret->is_over = read_u8(reader) != 0;
    ret->replay_limit_ns = read_var(reader);
    ret->watermark = read_var(reader);
    ret->opened_ns = read_var(reader);
    ret->seen_ns = read_var(reader);
    read_text(reader, ret->client, RECORD_TEXT_MAX);
    read_text(reader, ret->tenant, RECORD_TEXT_MAX);
    read_text(reader, ret->worker, RECORD_TEXT_MAX);
}

static void write_worker(struct writer *writer, const struct record_worker *record)
{
    write_var(writer, record->incarnation);
    write_var(writer, record->generation);
    write_var(writer, record->memory_bytes);
    write_var(writer, record->seen_ns);
    write_var(writer, record->devices);
    write_var(writer, record->numerics);
    write_text(writer, record->name);
    write_text(writer, record->address);
    write_text(writer, record->backend);
}

static void read_worker(struct reader *reader, struct record_worker *ret)
{
    ret->incarnation = read_var(reader);
    ret->generation = read_var(reader);
    ret->memory_bytes = read_var(reader);
    ret->seen_ns = read_var(reader);
    ret->devices = (uint32_t)read_var_max(reader, UINT32_MAX);
    ret->numerics = (uint32_t)read_var_max(reader, UINT32_MAX);
    read_text(reader, ret->name, RECORD_TEXT_MAX);
    read_text(reader, ret->address, RECORD_TEXT_MAX);
    read_text(reader, ret->backend, RECORD_TEXT_MAX);
}

static void write_import(struct writer *writer, const struct record_import *record)
{
    exec_id_write(writer, record->id);
    write_var(writer, record->output);
    write_var(writer, record->source.counter);
    write_var(writer, record->source.output);
    write_var(writer, record->bytes);
}

static void read_import(struct reader *reader, struct record_import *ret)
{
    ret->id = exec_id_read(reader);
    ret->output = (uint32_t)read_var_max(reader, UINT32_MAX);
    ret->source.counter = read_var(reader);
    ret->source.output = (uint32_t)read_var_max(reader, UINT32_MAX);
    ret->bytes = read_var(reader);
}

static void write_release(struct writer *writer, const struct record_release *record)
{
    write_var(writer, record->session);
    write_var(writer, record->from);
    write_var(writer, record->is_lost);
    write_bytes(writer, record->gone, record->gone_bytes);
}

static void read_release(struct reader *reader, struct record_release *ret)
{
    size_t length;
    ret->session = read_var(reader);
    ret->from = read_var(reader);
    ret->is_lost = read_var_max(reader, 1) == 1;
    ret->gone = read_bytes(reader, RECORD_GONE_BYTES_MAX, &length);
    ret->gone_bytes = (uint32_t)length;
}

void record_piece_write(struct writer *writer, const struct record_piece *piece)
{
    write_hash(writer, piece->content);
    write_var(writer, (uint64_t)piece->rows);
    write_var(writer, piece->bytes);
}

struct record_piece record_piece_read(struct reader *reader)
{
    struct record_piece piece = {.content = read_hash(reader)};
    piece.rows = (int64_t)read_var_max(reader, INT64_MAX);
    piece.bytes = read_var(reader);
    return piece;
}

static void write_checkpoint(struct writer *writer, const struct record_checkpoint *record)
{
    assert(record->pieces <= RECORD_PIECES_MAX);
    handle_write(writer, record->handle);
    record_meta_write(writer, &record->meta);
    write_u8(writer, (uint8_t)record->dim);
    write_u8(writer, record->is_replica);
    write_var(writer, record->pieces);
    write_bytes(writer, record->piece, record->piece_bytes);
}

// The pieces lie side by side along the dimension, each is as long as its rows, and together they are as long as the value.
bool record_pieces_fit(const struct tensor_meta *meta, uint32_t dim, uint32_t count, const uint8_t *bytes, uint32_t length)
{
    struct reader pieces = reader_make(bytes, length);
    int64_t rows = 0, total = 0, all = tensor_bytes(meta), row_bytes = 0;
    if (meta->rank == 0 ? dim != 0 || count != 1 : dim >= meta->rank)
        return false;
    if (meta->rank > 0 && meta->size[dim] > 0)
        row_bytes = all / meta->size[dim];
    for (uint32_t i = 0; i < count && pieces.error == DJ_OK; i++) {
        struct record_piece piece = record_piece_read(&pieces);
        int64_t expected = all;
        if (meta->rank > 0 && !i64_mul(piece.rows, row_bytes, &expected))
            return false;
        if (piece.bytes != (uint64_t)expected || !i64_add(rows, piece.rows, &rows) || !i64_add(total, expected, &total))
            return false;
    }
    return pieces.error == DJ_OK && reader_left(&pieces) == 0 && (meta->rank == 0 || rows == meta->size[dim]) && total == all;
}

static void read_checkpoint(struct reader *reader, struct record_checkpoint *ret)
{
    size_t length;
    ret->handle = handle_read(reader);
    record_meta_read(reader, &ret->meta);
    ret->dim = read_u8(reader);
    ret->is_replica = read_u8(reader) != 0;
    ret->pieces = (uint32_t)read_var_max(reader, RECORD_PIECES_MAX);
    ret->piece = read_bytes(reader, RECORD_PIECES_MAX * 36, &length);
    ret->piece_bytes = (uint32_t)length;
    if (reader->error == DJ_OK &&
        !(tensor_is_contiguous(&ret->meta) && record_pieces_fit(&ret->meta, ret->dim, ret->pieces, ret->piece, ret->piece_bytes)))
        reader_fail(reader, DJ_E_MALFORMED);
}

static void write_tag(struct writer *writer, const struct record_tag *record)
{
    write_text(writer, record->tenant);
    write_text(writer, record->name);
    write_var(writer, record->made_ns);
    write_var(writer, record->entries);
    write_bytes(writer, record->entry, record->entry_bytes);
}

static void read_tag(struct reader *reader, struct record_tag *ret)
{
    size_t length;
    read_text(reader, ret->tenant, RECORD_TEXT_MAX);
    read_text(reader, ret->name, RECORD_TEXT_MAX);
    ret->made_ns = read_var(reader);
    ret->entries = (uint32_t)read_var_max(reader, RECORD_TAG_ENTRIES_MAX);
    ret->entry = read_bytes(reader, RECORD_BYTES_MAX, &length);
    ret->entry_bytes = (uint32_t)length;
}

void record_write(struct writer *writer, const struct record *record)
{
    write_u8(writer, (uint8_t)record->kind);
    switch (record->kind) {
    case RECORD_PLAN:
        assert(record->plan.length <= PLAN_BYTES_MAX);
        write_hash(writer, record->plan.fingerprint);
        write_bytes(writer, record->plan.bytes, record->plan.length);
        return;
    case RECORD_EXECUTION: write_execution(writer, &record->execution); return;
    case RECORD_LEAF:
        write_hash(writer, record->leaf.content);
        record_meta_write(writer, &record->leaf.meta);
        write_var(writer, record->leaf.length);
        return;
    case RECORD_SESSION: write_session(writer, &record->session); return;
    case RECORD_WORKER: write_worker(writer, &record->worker); return;
    case RECORD_IMPORT: write_import(writer, &record->import); return;
    case RECORD_RELEASE: write_release(writer, &record->release); return;
    case RECORD_CHECKPOINT: write_checkpoint(writer, &record->checkpoint); return;
    case RECORD_TAG: write_tag(writer, &record->tag); return;
    }
    bool has_known_kind = false;
    assert(has_known_kind);
}

enum dj_error record_read(struct reader *reader, struct record_scratch *scratch, struct record *ret)
{
    uint8_t kind = read_u8(reader);
    ret->kind = kind;
    switch (kind) {
    case RECORD_PLAN:
        ret->plan.fingerprint = read_hash(reader);
        ret->plan.bytes = read_bytes(reader, PLAN_BYTES_MAX, &ret->plan.length);
        break;
    case RECORD_EXECUTION: read_execution(reader, scratch, &ret->execution); break;
    case RECORD_LEAF:
        ret->leaf.content = read_hash(reader);
        record_meta_read(reader, &ret->leaf.meta);
        ret->leaf.length = read_var(reader);
        break;
    case RECORD_SESSION: read_session(reader, &ret->session); break;
    case RECORD_WORKER: read_worker(reader, &ret->worker); break;
    case RECORD_IMPORT: read_import(reader, &ret->import); break;
    case RECORD_RELEASE: read_release(reader, &ret->release); break;
    case RECORD_CHECKPOINT: read_checkpoint(reader, &ret->checkpoint); break;
    case RECORD_TAG: read_tag(reader, &ret->tag); break;
    default: reader_fail(reader, DJ_E_MALFORMED);    // keeps an earlier error
    }
    return reader->error;
}

// Keys -------------------------------------------------------------------------------------------------------------------------

static void put_big(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static uint64_t get_big(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

size_t record_key_plan(struct hash128 fingerprint, uint8_t key[RECORD_KEY_MAX])
{
    put_big(key, fingerprint.hi, 8);
    put_big(key + 8, fingerprint.lo, 8);
    return 16;
}

size_t record_key_execution(struct exec_id id, uint8_t key[RECORD_KEY_MAX])
{
    put_big(key, id.session, 8);
    put_big(key + 8, id.counter, 8);
    return 16;
}

size_t record_key_handle(struct handle handle, uint8_t key[RECORD_KEY_MAX])
{
    record_key_execution(handle.execution, key);
    put_big(key + 16, handle.output, 4);
    return 20;
}

size_t record_key_tag(const char *tenant, const char *name, uint8_t key[RECORD_KEY_MAX])
{
    char both[2 * RECORD_TEXT_MAX];
    size_t first = strnlen(tenant, RECORD_TEXT_MAX - 1), second = strnlen(name, RECORD_TEXT_MAX - 1);
    memcpy(both, tenant, first);
    both[first] = '\0';
    memcpy(both + first + 1, name, second);
    return record_key_plan(hash128(both, first + 1 + second), key);
}

size_t record_key_leaf(struct hash128 content, uint8_t key[RECORD_KEY_MAX])
{
    return record_key_plan(content, key);
}

size_t record_key_session(uint64_t session, uint8_t key[RECORD_KEY_MAX])
{
    put_big(key, session, 8);
    return 8;
}

size_t record_key_worker(const char *name, uint8_t key[RECORD_KEY_MAX])
{
    size_t length = strnlen(name, RECORD_KEY_MAX);
    memcpy(key, name, length);
    return length;
}

size_t record_key(const struct record *record, uint8_t key[RECORD_KEY_MAX])
{
    switch (record->kind) {
    case RECORD_PLAN: return record_key_plan(record->plan.fingerprint, key);
    case RECORD_EXECUTION: return record_key_execution(record->execution.id, key);
    case RECORD_LEAF: return record_key_leaf(record->leaf.content, key);
    case RECORD_SESSION: return record_key_session(record->session.session, key);
    case RECORD_WORKER: return record_key_worker(record->worker.name, key);
    case RECORD_IMPORT: return record_key_execution(record->import.id, key);
    case RECORD_CHECKPOINT: return record_key_handle(record->checkpoint.handle, key);
    case RECORD_TAG: return record_key_tag(record->tag.tenant, record->tag.name, key);
    case RECORD_RELEASE: break;
    }
    bool has_key = false;
    assert(has_key);
    return 0;
}

bool record_key_parse_execution(const uint8_t *key, size_t length, struct exec_id *ret)
{
    if (length != 16)
        return false;
    *ret = (struct exec_id){.session = get_big(key, 8), .counter = get_big(key + 8, 8)};
    return true;
}

bool record_key_parse_handle(const uint8_t *key, size_t length, struct handle *ret)
{
    if (length != 20)
        return false;
    *ret = (struct handle){.output = (uint32_t)get_big(key + 16, 4)};
    return record_key_parse_execution(key, 16, &ret->execution);
}

bool record_key_parse_hash(const uint8_t *key, size_t length, struct hash128 *ret)
{
    if (length != 16)
        return false;
    *ret = (struct hash128){.hi = get_big(key, 8), .lo = get_big(key + 8, 8)};
    return true;
}

bool record_key_parse_session(const uint8_t *key, size_t length, uint64_t *ret)
{
    if (length != 8)
        return false;
    *ret = get_big(key, 8);
    return true;
}
