// Disk: see disk.h. A value in LMDB is 1 byte of form, 8 bytes of XXH3, then the bytes (FORM_INLINE) or 8 bytes of length (FORM_FILE).
// Caveat: LMDB's map must be larger than its contents; it is grown (doubled) when a transaction does not fit, between transactions.

#include "store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/io/blob.h"

enum {
    FORM_INLINE = 0,
    FORM_FILE = 1,
    VALUE_HEADER = 9,
    PATH_BYTES_MAX = 1024,
    MAP_BYTES_START = 256 << 20,
};
#define MAP_BYTES_MAX ((size_t)1 << 42)

static const char *const table_name[STORE_TABLES] = {
    [STORE_META] = "meta",       [STORE_PLAN] = "plan", [STORE_ANNOTATION] = "annotation", [STORE_EXECUTION] = "execution",
    [STORE_SESSION] = "session", [STORE_LEAF] = "leaf", [STORE_WORKER] = "worker",
};

struct disk {
    MDB_env *env;
    MDB_dbi dbi[STORE_TABLES];
    size_t map_bytes;
    int lock_fd;
    bool is_synced;
    bool has_new_files;
    uint64_t temporary;    // counts temporary file names
    char path[PATH_BYTES_MAX];
};

static enum dj_error error_of(int code)
{
    if (code == ENOSPC || code == EDQUOT || code == EFBIG)
        return DJ_E_STORE_FULL;
    return code == ENOMEM ? DJ_E_NO_MEMORY : DJ_E_STORE;
}

static enum dj_error failed(const char *what, const char *path, int code)
{
    log_write(LOG_ERROR, "store", "%s: %s path=%s", what, mdb_strerror(code), path);
    return error_of(code);
}

// Folders ------------------------------------------------------------------------------------------------------------

static enum dj_error make_folder(const char *path, struct fault *fault)
{
    char part[PATH_BYTES_MAX];
    size_t length = strlen(path);

    assert(length < sizeof part);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char kept = part[i];
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return fault_set(fault, errno == ENOSPC ? DJ_E_STORE_FULL : DJ_E_STORE,
                             "cannot make the state folder %s: %s; name another one with --state", part, strerror(errno));
        part[i] = kept;
    }
    return DJ_OK;
}

static int sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int result = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return result;
}

// One head a folder: the lock lives as long as the process.
static enum dj_error lock_folder(struct disk *disk, struct fault *fault)
{
    char path[PATH_BYTES_MAX + 16];

    snprintf(path, sizeof path, "%s/lock", disk->path);
    disk->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (disk->lock_fd < 0)
        return fault_set(fault, error_of(errno), "cannot open %s: %s; name another folder with --state", path, strerror(errno));
    if (flock(disk->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return fault_set(fault, DJ_E_BUSY,
                         "another head uses the state folder %s; stop it (djinn stop), or name another folder with --state",
                         disk->path);
    return DJ_OK;
}

// Blob files ---------------------------------------------------------------------------------------------------------

static void file_path(const struct disk *disk, const struct store_item *item, char path[PATH_BYTES_MAX + 160],
                      size_t folder_length[1])
{
    char hex[2 * STORE_KEY_MAX + 1];

    for (uint32_t i = 0; i < item->key_bytes; i++)
        snprintf(hex + (size_t)2 * i, 3, "%02x", item->key[i]);
    int folder = snprintf(path, PATH_BYTES_MAX + 160, "%s/blobs/%c%c", disk->path, hex[0], hex[1]);
    folder_length[0] = (size_t)folder;
    snprintf(path + folder, PATH_BYTES_MAX + 160 - (size_t)folder, "/%s", hex);
}

static int write_all(int fd, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        data += n;
        bytes -= (size_t)n;
    }
    return 0;
}

// Written under a temporary name, synced, renamed: a crash leaves either no file or a whole one.
static int file_write(struct disk *disk, const struct store_item *item)
{
    char path[PATH_BYTES_MAX + 160], folder[PATH_BYTES_MAX + 160], temporary[PATH_BYTES_MAX + 64];
    size_t folder_length;

    file_path(disk, item, path, &folder_length);
    memcpy(folder, path, folder_length);
    folder[folder_length] = '\0';
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return errno;

    snprintf(temporary, sizeof temporary, "%s/blobs/new-%d-%llu", disk->path, getpid(), (unsigned long long)disk->temporary++);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    int code = write_all(fd, item->value->data + item->value_offset, item->value_bytes);
    if (code == 0 && disk->is_synced && fdatasync(fd) != 0)
        code = errno;
    if (close(fd) != 0 && code == 0)
        code = errno;
    if (code == 0 && rename(temporary, path) != 0)
        code = errno;
    if (code == 0 && disk->is_synced)
        code = sync_folder(folder);
    if (code != 0)
        unlink(temporary);
    disk->has_new_files = true;
    return code;
}

static int file_read(const struct disk *disk, const struct store_item *item, uint64_t bytes, struct blob **ret)
{
    char path[PATH_BYTES_MAX + 160];
    size_t folder_length;

    file_path(disk, item, path, &folder_length);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    struct stat status;
    int code = fstat(fd, &status) == 0 ? 0 : errno;
    if (code == 0 && (uint64_t)status.st_size != bytes)
        code = EIO;
    struct blob *blob = code == 0 ? blob_make(bytes) : NULL;
    if (code == 0 && blob == NULL)
        code = ENOMEM;
    for (size_t done = 0; code == 0 && done < bytes;) {
        ssize_t n = read(fd, blob->data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            code = n < 0 ? errno : EIO;
        else
            done += (size_t)n;
    }
    close(fd);
    if (code != 0) {
        blob_drop(blob);
        return code;
    }
    *ret = blob;
    return 0;
}

// Opening ------------------------------------------------------------------------------------------------------------

static int open_tables(struct disk *disk)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(disk->env, NULL, 0, &txn);
    if (code != 0)
        return code;
    for (int table = 1; table < STORE_TABLES && code == 0; table++)
        code = mdb_dbi_open(txn, table_name[table], MDB_CREATE, &disk->dbi[table]);
    if (code != 0) {
        mdb_txn_abort(txn);
        return code;
    }
    return mdb_txn_commit(txn);
}

// Writes the schema version into a new store; refuses one of another version.
static enum dj_error check_schema(struct disk *disk, struct fault *fault)
{
    uint32_t version = STORE_SCHEMA_VERSION;
    MDB_val key = {.mv_size = 6, .mv_data = (void *)"schema"}, value = {.mv_size = sizeof version, .mv_data = &version};
    MDB_txn *txn;

    int code = mdb_txn_begin(disk->env, NULL, 0, &txn);
    if (code == 0) {
        code = mdb_put(txn, disk->dbi[STORE_META], &key, &value, MDB_NOOVERWRITE);
        uint32_t found = 0;
        if (code == MDB_KEYEXIST && value.mv_size == sizeof found)
            memcpy(&found, value.mv_data, sizeof found);
        if (code == MDB_KEYEXIST && found != STORE_SCHEMA_VERSION) {
            mdb_txn_abort(txn);
            return fault_set(
                fault, DJ_E_STORE_VERSION,
                "the state folder %s was written with schema version %u, this program uses %d; use the djinn that wrote it, "
                "or name another folder with --state",
                disk->path, found, STORE_SCHEMA_VERSION);
        }
        code = mdb_txn_commit(txn);
    }
    return code == 0
               ? DJ_OK
               : fault_set(fault, error_of(code), "cannot write to the state folder %s: %s", disk->path, mdb_strerror(code));
}

static enum dj_error open_environment(struct disk *disk, const struct store_config *config, struct fault *fault)
{
    char path[PATH_BYTES_MAX + 32];
    unsigned flags = MDB_NOSUBDIR | MDB_NORDAHEAD;

    if (config->durability != STORE_DISK)
        flags |= MDB_NOSYNC;
    snprintf(path, sizeof path, "%s/lineage.mdb", disk->path);
    struct stat status;
    disk->map_bytes = MAP_BYTES_START;
    if (stat(path, &status) == 0)
        while (disk->map_bytes < 2 * (size_t)status.st_size)
            disk->map_bytes *= 2;

    int code = mdb_env_create(&disk->env);
    if (code == 0)
        code = mdb_env_set_maxdbs(disk->env, STORE_TABLES);
    if (code == 0)
        code = mdb_env_set_mapsize(disk->env, disk->map_bytes);
    if (code == 0)
        code = mdb_env_open(disk->env, path, flags, 0600);
    if (code == 0)
        code = open_tables(disk);
    return code == 0 ? DJ_OK : fault_set(fault, error_of(code), "cannot open the store %s: %s", path, mdb_strerror(code));
}

enum dj_error disk_open(const struct store_config *config, struct disk **ret, struct fault *fault)
{
    char blobs[PATH_BYTES_MAX + 16];

    if (config->path == NULL || strlen(config->path) == 0 || strlen(config->path) >= PATH_BYTES_MAX - 200)
        return fault_set(fault, DJ_E_INVALID, "the state folder's path is empty or longer than %d bytes", PATH_BYTES_MAX - 201);
    struct disk *disk = calloc(1, sizeof *disk);
    if (disk == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the store");
    disk->lock_fd = -1;
    disk->is_synced = config->durability == STORE_DISK;
    snprintf(disk->path, sizeof disk->path, "%s", config->path);

    enum dj_error error = make_folder(disk->path, fault);
    if (error == DJ_OK) {
        snprintf(blobs, sizeof blobs, "%s/blobs", disk->path);
        error = make_folder(blobs, fault);
    }
    if (error == DJ_OK)
        error = lock_folder(disk, fault);
    if (error == DJ_OK)
        error = open_environment(disk, config, fault);
    if (error == DJ_OK)
        error = check_schema(disk, fault);
    if (error != DJ_OK) {
        disk_close(disk);
        return error;
    }
    *ret = disk;
    return DJ_OK;
}

void disk_close(struct disk *disk)
{
    if (disk == NULL)
        return;
    if (disk->env != NULL)
        mdb_env_close(disk->env);
    if (disk->lock_fd >= 0)
        close(disk->lock_fd);
    free(disk);
}

// Committing ---------------------------------------------------------------------------------------------------------

static int put(struct disk *disk, MDB_txn *txn, const struct store_item *item)
{
    MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key}, value;
    unsigned flags = MDB_RESERVE | (item->verb == STORE_PUT_IF_ABSENT ? MDB_NOOVERWRITE : 0);
    const uint8_t *data = item->value->data + item->value_offset;
    bool is_file = item->value_bytes > STORE_INLINE_BYTES;
    int code;

    if (item->verb == STORE_PUT_IF_ABSENT && mdb_get(txn, disk->dbi[item->table], &key, &value) == 0)
        return 0;
    if (is_file && (code = file_write(disk, item)) != 0)
        return code;
    value.mv_size = VALUE_HEADER + (is_file ? 8 : item->value_bytes);
    code = mdb_put(txn, disk->dbi[item->table], &key, &value, flags);
    if (code != 0)
        return code;

    uint8_t *to = value.mv_data;
    uint64_t check = hash64(data, item->value_bytes);
    to[0] = is_file ? FORM_FILE : FORM_INLINE;
    memcpy(to + 1, &check, 8);
    memcpy(to + VALUE_HEADER, is_file ? (const void *)&item->value_bytes : data, is_file ? 8 : item->value_bytes);
    return 0;
}

static int apply(struct disk *disk, MDB_txn *txn, const struct store_item *item)
{
    MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key};
    int code;

    switch (item->verb) {
    case STORE_PUT:
    case STORE_PUT_IF_ABSENT: return put(disk, txn, item);
    case STORE_DELETE: code = mdb_del(txn, disk->dbi[item->table], &key, NULL); return code == MDB_NOTFOUND ? 0 : code;
    case STORE_GET:
    case STORE_SCAN: break;
    }
    return EINVAL;
}

static int commit_once(struct disk *disk, struct store_batch *const *batch, uint32_t batches)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(disk->env, NULL, 0, &txn);
    if (code != 0)
        return code;
    for (uint32_t b = 0; b < batches && code == 0; b++)
        for (uint32_t i = 0; i < batch[b]->items && code == 0; i++)
            code = apply(disk, txn, &batch[b]->item[i]);
    if (code != 0) {
        mdb_txn_abort(txn);
        return code;
    }
    if (disk->has_new_files && disk->is_synced) {
        char blobs[PATH_BYTES_MAX + 16];
        snprintf(blobs, sizeof blobs, "%s/blobs", disk->path);
        code = sync_folder(blobs);
        if (code != 0) {
            mdb_txn_abort(txn);
            return code;
        }
    }
    disk->has_new_files = false;
    return mdb_txn_commit(txn);
}

enum dj_error disk_commit(struct disk *disk, struct store_batch *const *batch, uint32_t batches)
{
    int code;

    while ((code = commit_once(disk, batch, batches)) == MDB_MAP_FULL && disk->map_bytes < MAP_BYTES_MAX) {
        code = mdb_env_set_mapsize(disk->env, disk->map_bytes * 2);
        if (code != 0)
            break;
        disk->map_bytes *= 2;
    }
    return code == 0 ? DJ_OK : failed("commit failed; nothing of it is visible", disk->path, code);
}

// Reading ------------------------------------------------------------------------------------------------------------

static enum dj_error add_entry(struct disk *disk, const struct store_item *item, uint32_t index, MDB_val key, MDB_val value,
                               struct store_result *result)
{
    const uint8_t *from = value.mv_data;
    struct store_item found = *item;
    struct blob *blob = NULL;
    uint64_t check, bytes;

    // Values written without a header: only the schema version.
    if (value.mv_size < VALUE_HEADER || key.mv_size > STORE_KEY_MAX)
        return DJ_OK;
    memcpy(found.key, key.mv_data, key.mv_size);
    found.key_bytes = (uint32_t)key.mv_size;
    memcpy(&check, from + 1, 8);
    if (from[0] == FORM_FILE && value.mv_size == VALUE_HEADER + 8) {
        memcpy(&bytes, from + VALUE_HEADER, 8);
        if (item->verb == STORE_SCAN)    // scans list files without reading them: an empty value
            blob = blob_make(0);
        else if (file_read(disk, &found, bytes, &blob) != 0)
            return DJ_E_STORE_CORRUPT;
    } else {
        bytes = value.mv_size - VALUE_HEADER;
        blob = blob_copy(from + VALUE_HEADER, bytes);
    }
    if (blob == NULL)
        return DJ_E_NO_MEMORY;
    bool is_listed_only = from[0] == FORM_FILE && item->verb == STORE_SCAN;
    if (!is_listed_only && hash64(blob->data, blob->bytes) != check) {
        blob_drop(blob);
        log_write(LOG_ERROR, "store", "a value fails its checksum table=%s", table_name[item->table]);
        return DJ_E_STORE_CORRUPT;
    }
    return result_add(result, index, found.key, found.key_bytes, blob) == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

static enum dj_error scan(struct disk *disk, MDB_txn *txn, const struct store_item *item, uint32_t index,
                          struct store_result *result)
{
    MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key}, value;
    MDB_cursor *cursor;
    enum dj_error error = DJ_OK;

    if (mdb_cursor_open(txn, disk->dbi[item->table], &cursor) != 0)
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
    int code = mdb_txn_begin(disk->env, NULL, MDB_RDONLY, &txn);
    if (code != 0)
        return failed("read failed", disk->path, code);

    for (uint32_t i = 0; i < batch->items && error == DJ_OK; i++) {
        const struct store_item *item = &batch->item[i];
        if (item->verb == STORE_SCAN) {
            error = scan(disk, txn, item, i, result);
            continue;
        }
        MDB_val key = {.mv_size = item->key_bytes, .mv_data = (void *)item->key}, value;
        if (mdb_get(txn, disk->dbi[item->table], &key, &value) == 0)
            error = add_entry(disk, item, i, key, value, result);
    }
    mdb_txn_abort(txn);
    return error;
}
