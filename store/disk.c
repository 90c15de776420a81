// Disk: see disk.h. Values are in value.c, blob files in files.c, the tables and their versions in schema.c, what holds below `disk` in
// steady.c. Opening and closing are in disk_open.c; this file is what happens in between.
//
// A transaction makes files (born) and forgets files (dying). When it fails the born ones go; when it has committed the dying ones become
// dead, and go as soon as nobody copies the store (the pin file) and, at `os`, nothing that could come back names them.

#include "store/disk_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "core/base/hash.h"
#include "core/base/knobs.h"
#include "core/base/log.h"
#include "core/io/blob.h"

enum { DEAD_MAX = 1 << 20, COMMITS_BETWEEN_SYNCS_MAX = 1024, FULL_BELOW_BYTES = 1 << 20 };
#define MAP_BYTES_MAX ((size_t)1 << 42)

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Errors -------------------------------------------------------------------------------------------------------------

// A write that ends early is EIO in LMDB, also when it ends at the end of the disk or of what the process may write.
static bool is_full(const struct disk *disk)
{
    struct statvfs room;
    struct rlimit limit;
    struct stat tree;

    if (fstatvfs(disk->lock_fd, &room) == 0 && (uint64_t)room.f_bavail * room.f_frsize < FULL_BELOW_BYTES)
        return true;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && stat(disk->tree_path, &tree) == 0 &&
           (uint64_t)tree.st_size + FULL_BELOW_BYTES > limit.rlim_cur;
}

enum dj_error disk_error_of(const struct disk *disk, int code)
{
    if (code == ENOSPC || code == EDQUOT || code == EFBIG || (code == EIO && is_full(disk)))
        return DJ_E_STORE_FULL;
    return code == ENOMEM ? DJ_E_NO_MEMORY : DJ_E_STORE;
}

static enum dj_error failed(struct disk *disk, const char *what, int code)
{
    enum dj_error error = disk_error_of(disk, code);

    if (error != DJ_E_STORE_FULL)
        log_write(LOG_ERROR, "store", "%s: %s path=%s", what, mdb_strerror(code), disk->path);
    else if (!disk->is_known_full)
        log_write(LOG_ERROR, "store",
                  "%s: the disk is full; what was committed is kept, and commits work again when there is room path=%s", what,
                  disk->path);
    disk->is_known_full = error == DJ_E_STORE_FULL;
    disk->full += error == DJ_E_STORE_FULL;
    return error;
}

// Files that come and go ----------------------------------------------------------------------------------------------

static bool numbers_add(struct numbers *numbers, uint64_t number)
{
    if (numbers->count == numbers->capacity) {
        uint32_t capacity = numbers->capacity == 0 ? 64 : numbers->capacity * 2;
        uint64_t *grown = realloc(numbers->number, capacity * sizeof *grown);
        if (grown == NULL)
            return false;
        numbers->number = grown;
        numbers->capacity = capacity;
    }
    numbers->number[numbers->count++] = number;
    return true;
}

bool disk_pin_exclusive(const struct disk *disk)
{
    return flock(disk->pin_fd, LOCK_EX | LOCK_NB) == 0;
}

// What cannot be removed now, or does not fit in the list, is removed by a later call or at the next start.
static void bury(struct disk *disk)
{
    if (disk->dead.count == 0 || !disk_pin_exclusive(disk))
        return;
    for (uint32_t i = 0; i < disk->dead.count; i++)
        files_remove(&disk->files, disk->dead.number[i]);
    disk->dead.count = 0;
    flock(disk->pin_fd, LOCK_UN);
}

static void transaction_failed(struct disk *disk)
{
    for (uint32_t i = 0; i < disk->born.count; i++)
        files_remove(&disk->files, disk->born.number[i]);
    disk->born.count = disk->dying.count = 0;
}

static void transaction_committed(struct disk *disk)
{
    disk->born.count = 0;
    for (uint32_t i = 0; i < disk->dying.count && disk->dead.count < DEAD_MAX; i++)
        if (!numbers_add(&disk->dead, disk->dying.number[i]))
            break;
    disk->dying.count = 0;
    if (disk->durability != STORE_OS)
        bury(disk);
}

// Committing ---------------------------------------------------------------------------------------------------------

// The value that stands there goes; if it is a file, so does that.
static int forget(struct disk *disk, MDB_txn *txn, const MDB_val *old)
{
    struct value value;

    if (!value_parse(old->mv_data, old->mv_size, &value) || !value_is_file(&value))
        return 0;
    int code = schema_file_delete(txn, &disk->tables, value.file);
    if (code != 0 && code != MDB_NOTFOUND)
        return code;
    disk->change.files--;
    disk->change.file_bytes -= value.stored_bytes;
    return numbers_add(&disk->dying, value.file) ? 0 : ENOMEM;
}

static int make_file(struct disk *disk, MDB_txn *txn, const struct store_item *item, MDB_val *key, struct value *value)
{
    uint64_t check = value->check;

    int code = files_write(&disk->files, item->value->data + item->value_offset, item->value_bytes, value);
    if (code != 0)
        return code;
    value->check = check;
    if (!numbers_add(&disk->born, value->file)) {
        files_remove(&disk->files, value->file);
        return ENOMEM;
    }
    disk->change.files++;
    disk->change.file_bytes += value->stored_bytes;
    return schema_file_put(txn, &disk->tables, value, (int)item->table, key);
}

static int make_value(struct disk *disk, MDB_txn *txn, const struct store_item *item, MDB_val *key, struct value *value)
{
    const uint8_t *data = item->value->data + item->value_offset;
    uint64_t bytes = item->value_bytes;

    *value = (struct value){
        .form = VALUE_INLINE, .check = hash64(data, bytes), .plain_bytes = bytes, .stored_bytes = bytes, .data = data};
    if (bytes > STORE_INLINE_BYTES)
        return make_file(disk, txn, item, key, value);
    if (bytes < STORE_COMPRESS_BYTES || !value_is_compressible(data, bytes))
        return 0;
    size_t packed = ZSTD_compressCCtx(disk->compressor, disk->packed, sizeof disk->packed, data, bytes, VALUE_ZSTD_LEVEL);
    if (ZSTD_isError(packed) == 0 && value_pays(bytes, packed + 8)) {
        value->form = VALUE_INLINE_ZSTD;
        value->stored_bytes = packed;
        value->data = disk->packed;
    }
    return 0;
}

static int put(struct disk *disk, MDB_txn *txn, const struct store_item *item)
{
    MDB_dbi table = disk->tables.table[item->table];
    MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key}, data;
    struct value value;

    int code = mdb_get(txn, table, &key, &data);
    if (code == 0 && item->verb == STORE_PUT_IF_ABSENT)
        return 0;
    if (code == 0)
        code = forget(disk, txn, &data);
    else if (code == MDB_NOTFOUND)
        code = 0;
    if (code == 0)
        code = make_value(disk, txn, item, &key, &value);
    if (code != 0)
        return code;
    data.mv_size = value_length(&value);
    code = mdb_put(txn, table, &key, &data, MDB_RESERVE);
    if (code == 0)
        value_write(&value, data.mv_data);
    return code;
}

static int delete_key(struct disk *disk, MDB_txn *txn, const struct store_item *item)
{
    MDB_dbi table = disk->tables.table[item->table];
    MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key}, data;

    int code = mdb_get(txn, table, &key, &data);
    if (code == MDB_NOTFOUND)
        return 0;
    if (code == 0)
        code = forget(disk, txn, &data);
    return code != 0 ? code : mdb_del(txn, table, &key, NULL);
}

static int apply(struct disk *disk, MDB_txn *txn, const struct store_item *item)
{
    bool is_value = item->verb == STORE_PUT || item->verb == STORE_PUT_IF_ABSENT;

    if (item->table == 0 || item->table >= STORE_TABLES || item->key_bytes == 0 || item->key_bytes > STORE_KEY_MAX ||
        (is_value && item->value == NULL))
        return EINVAL;
    if (is_value)
        return put(disk, txn, item);
    return item->verb == STORE_DELETE ? delete_key(disk, txn, item) : EINVAL;
}

static void count_entries(struct disk *disk, MDB_txn *txn)
{
    MDB_stat stat;

    for (int table = 1; table < STORE_TABLES; table++)
        if (mdb_stat(txn, disk->tables.table[table], &stat) == 0)
            disk->entries[table] = stat.ms_entries;
}

static int commit_once(struct disk *disk, struct store_batch *const *batch, uint32_t batches)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(disk->env, NULL, 0, &txn);
    if (code != 0)
        return code;
    memset(&disk->change, 0, sizeof disk->change);
    for (uint32_t b = 0; b < batches && code == 0; b++)
        for (uint32_t i = 0; i < batch[b]->items && code == 0; i++)
            code = apply(disk, txn, &batch[b]->item[i]);
    if (knob(KNOB_COMMIT_DELAY_US) != 0)
        usleep((useconds_t)knob(KNOB_COMMIT_DELAY_US));
    if (code == 0 && knob(KNOB_COMMIT_FULL) != 0)
        code = ENOSPC;    // as from a write
    if (code == 0 && disk->born.count > 0 && disk->files.is_synced)
        code = files_settle(&disk->files);
    if (code != 0) {
        mdb_txn_abort(txn);
    } else {
        count_entries(disk, txn);
        code = mdb_txn_commit(txn);
    }
    if (code != 0) {
        transaction_failed(disk);
        return code;
    }
    transaction_committed(disk);
    disk->file_count += disk->change.files;
    disk->file_bytes += disk->change.file_bytes;
    return 0;
}

// No transaction is open, and none of ours may be: the pin is given up for as long as it takes.
int disk_grow(struct disk *disk)
{
    int dead;

    if (disk->map_bytes >= MAP_BYTES_MAX)
        return MDB_MAP_FULL;
    mdb_reader_check(disk->env, &dead);    // a copy that was killed would hold its pages for ever
    int code = disk->durability == STORE_OS ? steady_mark(&disk->steady, disk->env) : 0;
    if (code != 0)
        return code;
    steady_unpin(&disk->steady);
    code = mdb_env_set_mapsize(disk->env, disk->map_bytes * 2);
    if (code == 0)
        disk->map_bytes *= 2;
    int pinned = steady_pin(&disk->steady, disk->env);
    return code != 0 ? code : pinned;
}

// Before it is full, so that few transactions are done twice.
static void grow_if_needed(struct disk *disk)
{
    MDB_envinfo info;

    mdb_env_info(disk->env, &info);
    disk->tree_bytes = (info.me_last_pgno + 1) * disk->page_bytes;
    if (disk->tree_bytes > disk->map_bytes - disk->map_bytes / 4 && disk->map_bytes < MAP_BYTES_MAX)
        (void)disk_grow(disk);    // what fails here is met again, and told, when it is full
}

static void committed(struct disk *disk)
{
    disk->is_known_full = false;
    disk->commits_unsynced++;
    if (disk->durability == STORE_DISK) {
        disk->syncs++;
        disk->last_sync_ns = clock_ns(CLOCK_REALTIME);
    } else if (disk->commits_unsynced == 1) {
        disk->unsynced_since_ns = clock_ns(CLOCK_MONOTONIC);
    }
    grow_if_needed(disk);
}

enum dj_error disk_commit(struct disk *disk, struct store_batch *const *batch, uint32_t batches)
{
    bool was_reopened = false;
    int code;

    if (disk->env == NULL && disk_reopen(disk) != 0)
        return failed(disk, "the store cannot be opened again", EIO);
    while ((code = commit_once(disk, batch, batches)) != 0) {
        // After a meta page that could not be written LMDB takes nothing more until it is opened again.
        if (code == MDB_PANIC && !was_reopened) {
            was_reopened = true;
            if ((code = disk_reopen(disk)) != 0)
                break;
        } else if (code != MDB_MAP_FULL || (code = disk_grow(disk)) != 0) {
            break;
        }
    }
    if (code != 0)
        return failed(disk, "commit failed; nothing of it is visible", code);
    committed(disk);
    return DJ_OK;
}

// Syncing behind the answers ------------------------------------------------------------------------------------------

uint64_t disk_sync_due_ns(const struct disk *disk)
{
    if (disk->durability != STORE_OS || disk->commits_unsynced == 0)
        return UINT64_MAX;
    uint64_t age = clock_ns(CLOCK_MONOTONIC) - disk->unsynced_since_ns;
    return age >= STORE_OS_SYNC_NS || disk->commits_unsynced >= COMMITS_BETWEEN_SYNCS_MAX ? 0 : STORE_OS_SYNC_NS - age;
}

void disk_sync_if_due(struct disk *disk)
{
    if (disk->env == NULL || disk_sync_due_ns(disk) != 0)
        return;
    uint64_t now = clock_ns(CLOCK_REALTIME);
    int code = steady_mark(&disk->steady, disk->env);
    if (code != 0) {
        (void)failed(disk, "the sync behind the answers failed", code);
        disk->unsynced_since_ns = clock_ns(CLOCK_MONOTONIC);    // not again at once
        disk->commits_unsynced = 1;
        return;
    }
    disk->commits_unsynced = 0;
    disk->syncs++;
    disk->last_sync_ns = now;
    bury(disk);
}

void disk_stats(const struct disk *disk, struct store_stats *stats)
{
    stats->syncs = disk->syncs;
    stats->last_sync_ns = disk->last_sync_ns;
    stats->map_bytes = disk->map_bytes;
    stats->tree_bytes = disk->tree_bytes;
    stats->files = disk->file_count;
    stats->file_bytes = disk->file_bytes;
    stats->full = disk->full;
    memcpy(stats->entries, disk->entries, sizeof stats->entries);
}

// Reading ------------------------------------------------------------------------------------------------------------

static enum dj_error add_entry(struct disk *disk, const struct store_item *item, uint32_t index, MDB_val key, MDB_val data,
                               struct store_result *result)
{
    struct value value;
    struct blob *blob = NULL;
    enum dj_error error = DJ_E_STORE_CORRUPT;

    // The schema's version is no value of ours.
    if (item->table == STORE_META && data.mv_size < VALUE_HEADER)
        return DJ_OK;
    if (key.mv_size <= STORE_KEY_MAX && value_parse(data.mv_data, data.mv_size, &value)) {
        if (!value_is_file(&value))
            error = value_unpack(&value, &blob);
        else if (item->verb == STORE_GET)
            error = files_read(disk->path, &value, &blob);
        else    // scans list files without reading them: an empty value
            error = (blob = blob_make(0)) == NULL ? DJ_E_NO_MEMORY : DJ_OK;
    }
    if (error == DJ_E_STORE_CORRUPT)
        log_write(LOG_ERROR, "store",
                  "a value fails its checksum and is refused; 'djinn store check' names all such table=%s path=%s",
                  schema_table_name[item->table], disk->path);
    if (error != DJ_OK)
        return error;
    struct store_entry *added = result_add(result, index, key.mv_data, key.mv_size, blob);
    if (added == NULL)
        return DJ_E_NO_MEMORY;
    added->bytes = value.plain_bytes;
    return DJ_OK;
}

static enum dj_error scan(struct disk *disk, MDB_txn *txn, const struct store_item *item, uint32_t index,
                          struct store_result *result)
{
    MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key}, value;
    MDB_cursor *cursor;
    enum dj_error error = DJ_OK;

    if (mdb_cursor_open(txn, disk->tables.table[item->table], &cursor) != 0)
        return DJ_E_STORE;
    int code = mdb_cursor_get(cursor, &key, &value, item->key_bytes == 0 ? MDB_FIRST : MDB_SET_RANGE);
    for (uint32_t n = 0; code == 0 && n < item->scan_max && error == DJ_OK; n++) {
        error = add_entry(disk, item, index, key, value, result);
        code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return error;
}

enum dj_error disk_read(struct disk *disk, const struct store_batch *batch, struct store_result *result)
{
    MDB_txn *txn;
    enum dj_error error = DJ_OK;

    if (disk->env == NULL && disk_reopen(disk) != 0)
        return failed(disk, "the store cannot be opened again", EIO);
    int code = mdb_txn_begin(disk->env, NULL, MDB_RDONLY, &txn);
    if (code == MDB_PANIC && (code = disk_reopen(disk)) == 0)
        code = mdb_txn_begin(disk->env, NULL, MDB_RDONLY, &txn);
    if (code != 0)
        return failed(disk, "read failed", code);
    for (uint32_t i = 0; i < batch->items && error == DJ_OK; i++) {
        const struct store_item *item = &batch->item[i];
        if (item->table == 0 || item->table >= STORE_TABLES || item->key_bytes > STORE_KEY_MAX) {
            error = DJ_E_INVALID;
        } else if (item->verb == STORE_SCAN) {
            error = scan(disk, txn, item, i, result);
        } else {
            MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key}, value;
            if (mdb_get(txn, disk->tables.table[item->table], &key, &value) == 0)
                error = add_entry(disk, item, i, key, value, result);
        }
    }
    mdb_txn_abort(txn);
    return error;
}
