// keep.c: the functions of djinn.h that keep values under a name with the head, and give them back.
//
// Values on workers are written by their workers (CHECKPOINT) and named by content; leaves have their names already. The names go to the head
// as one record (TAG_PUT); whoever asks for it (TAG_GET) has tensors whose bytes the store gives to the workers that need them.

#include "frontend/client/loop/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lineage/record.h"
#include "frontend/client/loop/thread.h"

enum { TAG_NAME_MAX = 119, ENTRIES_BYTES_MAX = (1 << 20) - 4096, HANDLES_A_QUESTION = 128 };
#define FOREVER UINT64_MAX

static struct recorded_at here(void)
{
    return (struct recorded_at){.module = thread_module, .site = thread_site};
}

static bool is_told(struct client *client, void *context)
{
    (void)client;
    return ((const struct asking *)context)->is_done;
}

// Waits for an answer that was asked for. The words of a failure are the other side's.
static enum dj_error await(struct client *client, struct asking *asking, struct fault *fault)
{
    enum dj_error error = client_wait(client, is_told, asking, FOREVER);
    if (error != DJ_OK)
        return fault_set(fault, error, "the wait for a checkpoint was interrupted");
    if (asking->error != DJ_OK)
        return fault_set(fault, asking->error, "%s", asking->text);
    return asking->json == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

static struct asking *asking_make(void)
{
    struct asking *asking = calloc(1, sizeof *asking);
    if (asking != NULL)
        asking->holders = 2;
    return asking;
}

// Keeping ------------------------------------------------------------------------------------------------------------------

struct keeping {
    struct client *client;
    uint32_t count;
    struct value **value;
    uint8_t **entry;    // each tensor's RECORD_CHECKPOINT
    uint32_t *entry_bytes;
};

static void keeping_free(struct keeping *keeping)
{
    for (uint32_t i = 0; keeping->value != NULL && i < keeping->count; i++)
        if (keeping->value[i] != NULL)
            recorder_unwant(keeping->client->recorder, keeping->value[i]);
    for (uint32_t i = 0; keeping->entry != NULL && i < keeping->count; i++)
        free(keeping->entry[i]);
    free(keeping->value);
    free(keeping->entry);
    free(keeping->entry_bytes);
}

static enum dj_error entry_set(struct keeping *keeping, uint32_t index, const void *bytes, size_t length)
{
    keeping->entry[index] = malloc(length);
    if (keeping->entry[index] == NULL)
        return DJ_E_NO_MEMORY;
    memcpy(keeping->entry[index], bytes, length);
    keeping->entry_bytes[index] = (uint32_t)length;
    return DJ_OK;
}

// A leaf, or nothing: nobody has to write it.
static enum dj_error entry_of_leaf(struct keeping *keeping, uint32_t index, const struct tensor_meta *meta,
                                   const struct hash128 *content)
{
    struct writer piece = writer_make(64), writer = writer_make(4096);
    struct record record = {.kind = RECORD_CHECKPOINT, .checkpoint = {.meta = *meta, .pieces = content != NULL}};
    record.checkpoint.handle.execution.counter = 1;    // of no meaning in a tag
    tensor_make_contiguous(&record.checkpoint.meta);
    while (content == NULL && record.checkpoint.dim + 1 < meta->rank && meta->size[record.checkpoint.dim] != 0)
        record.checkpoint.dim++;
    if (content != NULL) {
        struct record_piece one = {
            .content = *content, .rows = meta->rank == 0 ? 1 : meta->size[0], .bytes = (uint64_t)tensor_bytes(meta)};
        record_piece_write(&piece, &one);
    }
    record.checkpoint.piece = piece.data;
    record.checkpoint.piece_bytes = (uint32_t)piece.length;
    record_write(&writer, &record);
    enum dj_error error = writer.error != DJ_OK ? writer.error : entry_set(keeping, index, writer.data, writer.length);
    writer_free(&piece);
    writer_free(&writer);
    return error;
}

// The worker's records, one for each that was asked for, in order.
static enum dj_error take_records(struct keeping *keeping, const struct asking *asking, const uint32_t *index, uint32_t count)
{
    struct record_scratch scratch;
    enum dj_error error = record_scratch_make(&scratch);
    if (error != DJ_OK)
        return error;
    struct reader reader = reader_make(asking->json, asking->bytes);
    for (uint32_t i = 0; i < count && error == DJ_OK; i++) {
        struct record record;
        const uint8_t *at = reader.at;
        error = record_read(&reader, &scratch, &record);
        if (error == DJ_OK && record.kind != RECORD_CHECKPOINT)
            error = DJ_E_MALFORMED;
        if (error == DJ_OK)
            error = entry_set(keeping, index[i], at, (size_t)(reader.at - at));
    }
    record_scratch_free(&scratch);
    return error;
}

// Up to HANDLES_A_QUESTION values of one place from *from on; *ret_count of them were taken care of.
static enum dj_error ask_worker(struct keeping *keeping, uint32_t first, struct fault *fault)
{
    struct client *client = keeping->client;
    struct released handle[HANDLES_A_QUESTION];
    uint32_t index[HANDLES_A_QUESTION], count = 0, place = 0;
    for (uint32_t i = first; i < keeping->count && count < HANDLES_A_QUESTION; i++) {
        uint32_t its_place, output;
        uint64_t counter;
        struct hash128 content;
        if (keeping->entry[i] != NULL)
            continue;
        if (recorder_value_leaf(keeping->value[i], &content))
            return fault_set(fault, DJ_E_BUSY, "a worker was lost meanwhile; try again");    // what was read of it became a leaf
        recorder_value_handle(keeping->value[i], &its_place, &counter, &output);
        if (count > 0 && its_place != place)
            continue;
        place = its_place;
        index[count] = i;
        handle[count++] = (struct released){.counter = counter, .output = output};
    }
    struct asking *asking = asking_make();
    if (asking == NULL)
        return DJ_E_NO_MEMORY;
    protocol_checkpoint(client->protocol, loop_now_ns(), place, handle, count, asking);
    enum dj_error error = await(client, asking, fault);
    if (error == DJ_OK && (error = take_records(keeping, asking, index, count)) != DJ_OK)
        fault_set(fault, error, "the worker's records of the checkpoint cannot be read");
    asking_drop(asking);
    return error;
}

static enum dj_error keep_values(struct keeping *keeping, struct fault *fault)
{
    struct client *client = keeping->client;
    for (uint32_t i = 0; i < keeping->count; i++) {
        enum dj_error error = DJ_OK;
        struct hash128 content;
        const struct tensor_meta *meta = recorder_value_meta(keeping->value[i]);
        struct dj_fault why;
        if (tensor_count(meta) == 0)
            error = entry_of_leaf(keeping, i, meta, NULL);
        else if (recorder_value_leaf(keeping->value[i], &content))
            error = entry_of_leaf(keeping, i, meta, &content);
        else if (recorder_value_failed(client->recorder, keeping->value[i], &why))
            return fault_set(fault, (enum dj_error)why.error, "%s", why.text);
        if (error != DJ_OK)
            return fault_set(fault, error, "no memory for a checkpoint");
    }
    for (uint32_t i = 0; i < keeping->count;) {
        if (keeping->entry[i] != NULL) {
            i++;
            continue;
        }
        if (client->state != CLIENT_ON)
            return fault_set(fault, DJ_E_CLOSED, "Djinn was shut down");
        enum dj_error error = ask_worker(keeping, i, fault);
        if (error != DJ_OK)
            return error;
    }
    return DJ_OK;
}

static enum dj_error put_tag(struct keeping *keeping, const char *tag, struct fault *fault)
{
    struct client *client = keeping->client;
    struct writer entries = writer_make(ENTRIES_BYTES_MAX), writer = writer_make(1 << 20);
    for (uint32_t i = 0; i < keeping->count; i++)
        write_raw(&entries, keeping->entry[i], keeping->entry_bytes[i]);
    struct record record = {.kind = RECORD_TAG,
                            .tag = {.entries = keeping->count, .entry = entries.data, .entry_bytes = (uint32_t)entries.length}};
    snprintf(record.tag.name, sizeof record.tag.name, "%s", tag);
    if (entries.error == DJ_OK)
        record_write(&writer, &record);
    enum dj_error error = entries.error != DJ_OK ? entries.error : writer.error;
    struct asking *asking = error == DJ_OK ? asking_make() : NULL;
    if (error != DJ_OK)
        fault_set(fault, DJ_E_LIMIT, "%u tensors are more than fit under one tag", keeping->count);
    else if (asking == NULL)
        error = DJ_E_NO_MEMORY;
    if (asking != NULL) {
        protocol_tag_put(client->protocol, loop_now_ns(), tag, writer.data, writer.length, asking);
        error = await(client, asking, fault);
        asking_drop(asking);
    }
    writer_free(&entries);
    writer_free(&writer);
    return error;
}

static enum dj_error keep(struct client *client, const char *tag, const struct dj_tensor *tensors, uint32_t count,
                          struct fault *fault)
{
    struct keeping keeping = {.client = client,
                              .count = count,
                              .value = calloc(count + 1, sizeof(struct value *)),
                              .entry = calloc(count + 1, sizeof(uint8_t *)),
                              .entry_bytes = calloc(count + 1, sizeof(uint32_t))};
    enum dj_error error = DJ_OK;
    if (keeping.value == NULL || keeping.entry == NULL || keeping.entry_bytes == NULL)
        error = fault_set(fault, DJ_E_NO_MEMORY, "no memory for a checkpoint of %u tensors", count);
    for (uint32_t i = 0; i < count && error == DJ_OK; i++)
        error = recorder_keepable(client->recorder, &tensors[i], here(), &keeping.value[i], fault);
    if (error == DJ_OK)
        error = client_flush(client, fault);
    if (error == DJ_OK)
        error = keep_values(&keeping, fault);
    if (error == DJ_OK)
        error = put_tag(&keeping, tag, fault);
    keeping_free(&keeping);
    return error;
}

int dj_checkpoint(const char *tag, const struct dj_tensor *tensors, uint32_t count, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return fault_out(fault, DJ_E_NO_MEMORY, NULL);
    struct fault cause = {0};
    enum dj_error error = DJ_OK;
    if (tag == NULL || tag[0] == '\0' || strlen(tag) > TAG_NAME_MAX)
        error = fault_set(&cause, DJ_E_INVALID, "a tag has 1 to %d bytes", TAG_NAME_MAX);
    else if (count > RECORD_TAG_ENTRIES_MAX)
        error = fault_set(&cause, DJ_E_LIMIT, "%u tensors; a tag has room for %d", count, RECORD_TAG_ENTRIES_MAX);
    if (error == DJ_OK)
        error = client_connect(client, NULL, false, &cause);
    if (error == DJ_OK)
        error = keep(client, tag, tensors, count, &cause);
    client_leave(client);
    return fault_out(fault, error, &cause);
}

// Giving back --------------------------------------------------------------------------------------------------------------

static enum dj_error restore_one(struct client *client, const struct record_checkpoint *record, int device, struct dj_tensor *out,
                                 struct fault *fault)
{
    struct recorder_piece *piece = malloc((record->pieces + 1) * sizeof *piece);
    if (piece == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the pieces of a checkpoint");
    struct reader reader = reader_make(record->piece, record->piece_bytes);
    for (uint32_t i = 0; i < record->pieces; i++) {
        struct record_piece one = record_piece_read(&reader);
        piece[i] = (struct recorder_piece){.content = one.content, .rows = one.rows, .bytes = one.bytes};
    }
    enum dj_error error = recorder_restore(client->recorder, device, &record->meta, record->dim, piece, record->pieces, here(),
                                           out, fault);
    free(piece);
    return error;
}

static enum dj_error restore(struct client *client, const struct asking *asking, int device, struct dj_tensor *out, uint32_t room,
                             uint32_t *ret_count, struct fault *fault)
{
    struct record_scratch scratch;
    struct record record;
    enum dj_error error = record_scratch_make(&scratch);
    if (error != DJ_OK)
        return error;
    struct reader reader = reader_make(asking->json, asking->bytes);
    error = record_read(&reader, &scratch, &record);
    if (error == DJ_OK && record.kind != RECORD_TAG)
        error = DJ_E_MALFORMED;
    uint32_t made = 0, entries = error == DJ_OK ? record.tag.entries : 0;
    if (error == DJ_OK)
        *ret_count = entries;
    if (entries > room)
        error = fault_set(fault, DJ_E_LIMIT, "the checkpoint has %u tensors; there is room for %u", entries, room);
    reader = reader_make(record.tag.entry, record.tag.entry_bytes);
    while (error == DJ_OK && made < entries) {
        struct record entry;
        error = record_read(&reader, &scratch, &entry);
        if (error == DJ_OK && entry.kind != RECORD_CHECKPOINT)
            error = DJ_E_MALFORMED;
        if (error == DJ_OK)
            error = restore_one(client, &entry.checkpoint, device, &out[made], fault);
        made += error == DJ_OK;
    }
    while (error != DJ_OK && made > 0)
        recorder_cell_drop(client->recorder, out[--made].cell);
    record_scratch_free(&scratch);
    return error;
}

int dj_restore(const char *tag, int device, struct dj_tensor *out, uint32_t room, uint32_t *ret_count, struct dj_fault *fault)
{
    struct client *client = client_enter();
    if (client == NULL)
        return fault_out(fault, DJ_E_NO_MEMORY, NULL);
    struct fault cause = {0};
    bool is_valid = tag != NULL && tag[0] != '\0' && strlen(tag) <= TAG_NAME_MAX && ret_count != NULL;
    enum dj_error error = is_valid ? client_connect(client, NULL, false, &cause)
                                   : fault_set(&cause, DJ_E_INVALID, "a tag has 1 to %d bytes", TAG_NAME_MAX);
    struct asking *asking = error == DJ_OK ? asking_make() : NULL;
    if (error == DJ_OK && asking == NULL)
        error = DJ_E_NO_MEMORY;
    if (asking != NULL) {
        protocol_tag_get(client->protocol, loop_now_ns(), tag, asking);
        error = await(client, asking, &cause);
        if (error == DJ_OK)
            error = restore(client, asking, device < 0 ? DJ_ANY_DEVICE : device, out, room, ret_count, &cause);
        asking_drop(asking);
    }
    client_leave(client);
    return fault_out(fault, error, &cause);
}
