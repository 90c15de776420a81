// Disk, opening and closing. Order: the folder, its lock (one head a folder), what a lost machine left (steady.c), LMDB, the tables and
// their version (schema.c), the sweep of files that no table names.

#include "store/disk_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "core/base/log.h"

enum { MAP_BYTES_START = 256 << 20, MAP_BYTES_LEAST = 1 << 20 };

static enum dj_error make_folder(const char *path, struct fault *fault)
{
    char part[FILES_NAME_MAX];
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

static int open_lock(const struct disk *disk, const char *name, struct fault *fault)
{
    char path[FILES_NAME_MAX];

    snprintf(path, sizeof path, "%s/%s", disk->path, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        (void)fault_set(fault, disk_error_of(disk, errno), "cannot open %s: %s; name another folder with --state", path,
                        strerror(errno));
    return fd;
}

// The lock lives as long as the process.
static enum dj_error lock_folder(struct disk *disk, struct fault *fault)
{
    struct fault own = {0};

    disk->lock_fd = open_lock(disk, "lock", &own);
    if (disk->lock_fd >= 0 && flock(disk->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return fault_set(fault, DJ_E_BUSY,
                         "another head uses the state folder %s; stop it (djinn stop), or name another folder with --state",
                         disk->path);
    if (disk->lock_fd >= 0)
        disk->pin_fd = open_lock(disk, "pin", &own);
    if (disk->pin_fd < 0 && fault != NULL)
        *fault = own;
    return disk->pin_fd < 0 ? own.code : DJ_OK;
}

static int open_environment(struct disk *disk)
{
    unsigned flags = MDB_NOSUBDIR | MDB_NORDAHEAD | MDB_NOTLS;    // NOTLS: steady's reader lives beside the writer, on one thread
    struct stat status;
    MDB_stat stat;

    if (disk->durability != STORE_DISK)
        flags |= MDB_NOSYNC;
    // LMDB fills the lock file's free reader slots by process; its size bounds how many copies are made at a time.
    if (lstat(disk->tree_path, &status) == 0)
        while (disk->map_bytes < 2 * (size_t)status.st_size)
            disk->map_bytes *= 2;
    int code = mdb_env_create(&disk->env);
    if (code == 0)
        code = mdb_env_set_maxdbs(disk->env, SCHEMA_DATABASES);
    if (code == 0)
        code = mdb_env_set_mapsize(disk->env, disk->map_bytes);
    if (code == 0)
        code = mdb_env_open(disk->env, disk->tree_path, flags, 0600);
    if (code == 0)
        code = mdb_env_stat(disk->env, &stat);
    if (code == 0)
        disk->page_bytes = stat.ms_psize;
    if (code == 0)
        code = steady_begin(&disk->steady, disk->env, disk->path, disk->durability);
    return code;
}

static void close_environment(struct disk *disk)
{
    steady_unpin(&disk->steady);
    if (disk->steady.folder_fd >= 0)
        close(disk->steady.folder_fd);
    disk->steady.folder_fd = -1;
    if (disk->env != NULL)
        mdb_env_close(disk->env);
    disk->env = NULL;
}

struct wanted {
    MDB_txn *txn;
    const struct tables *tables;
};

static bool is_wanted(void *context, uint64_t file)
{
    const struct wanted *wanted = context;
    return schema_file_is_there(wanted->txn, wanted->tables, file);
}

// While somebody copies the store nothing is removed; the numbers in use are learned all the same.
static int sweep(struct disk *disk)
{
    struct wanted wanted = {.tables = &disk->tables};
    MDB_stat stat;

    int code = mdb_txn_begin(disk->env, NULL, MDB_RDONLY, &wanted.txn);
    if (code != 0)
        return code;
    code = schema_file_sum(wanted.txn, &disk->tables, &disk->file_count, &disk->file_bytes);
    for (int table = 1; table < STORE_TABLES && code == 0; table++)
        if ((code = mdb_stat(wanted.txn, disk->tables.table[table], &stat)) == 0)
            disk->entries[table] = stat.ms_entries;
    if (code == 0) {
        bool is_alone = disk_pin_exclusive(disk);
        uint64_t removed = files_sweep(&disk->files, is_wanted, &wanted, is_alone);
        if (is_alone)
            flock(disk->pin_fd, LOCK_UN);
        if (removed > 0)
            log_write(LOG_INFO, "store", "blob files that nothing names: %llu, %s path=%s", (unsigned long long)removed,
                      is_alone ? "removed" : "left, since the store is being copied", disk->path);
    }
    mdb_txn_abort(wanted.txn);
    return code;
}

static enum dj_error open_tree(struct disk *disk, struct fault *fault)
{
    MDB_envinfo info;

    enum dj_error error = steady_recover(disk->path, fault);
    if (error != DJ_OK)
        return error;
    int code = open_environment(disk);
    if (code != 0)
        return fault_set(
            fault, code == MDB_INVALID || code == MDB_CORRUPTED ? DJ_E_STORE_CORRUPT : disk_error_of(disk, code),
            "cannot open the store %s: %s; restore a backup (djinn store restore), or name another folder with --state",
            disk->tree_path, mdb_strerror(code));
    error = schema_open(disk->env, disk->path, &disk->map_bytes, &disk->tables, fault);
    if (error != DJ_OK)
        return error;
    code = sweep(disk);
    if (code != 0)
        return fault_set(fault, disk_error_of(disk, code), "cannot read the store %s: %s", disk->tree_path, mdb_strerror(code));
    mdb_env_info(disk->env, &info);
    disk->tree_bytes = (info.me_last_pgno + 1) * disk->page_bytes;
    return DJ_OK;
}

// The lock, the files and what is remembered of them stay. The transaction that failed has been dealt with.
int disk_reopen(struct disk *disk)
{
    struct fault fault = {0};

    log_write(LOG_WARN, "store", "opens lineage.mdb again after a write that failed path=%s", disk->path);
    close_environment(disk);
    int code = open_environment(disk);
    if (code == 0 && schema_open(disk->env, disk->path, &disk->map_bytes, &disk->tables, &fault) != DJ_OK)
        code = fault.code == DJ_E_STORE_FULL ? ENOSPC : EIO;
    if (code != 0)
        close_environment(disk);
    return code;
}

enum dj_error disk_open(const struct store_config *config, struct disk **ret, struct fault *fault)
{
    char blobs[FILES_NAME_MAX];

    if (config->path == NULL || strlen(config->path) == 0 || strlen(config->path) >= FILES_PATH_MAX - 200)
        return fault_set(fault, DJ_E_INVALID, "the state folder's path is empty or longer than %d bytes", FILES_PATH_MAX - 201);
    struct disk *disk = calloc(1, sizeof *disk);
    if (disk == NULL || (disk->compressor = ZSTD_createCCtx()) == NULL) {
        free(disk);
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the store");
    }
    disk->lock_fd = disk->pin_fd = disk->steady.folder_fd = -1;
    disk->durability = config->durability;
    disk->map_bytes = config->map_bytes >= MAP_BYTES_LEAST ? config->map_bytes : MAP_BYTES_START;
    disk->files.is_synced = config->durability == STORE_DISK;
    disk->files.next = 1;
    snprintf(disk->path, sizeof disk->path, "%s", config->path);
    snprintf(disk->files.state, sizeof disk->files.state, "%s", config->path);
    snprintf(disk->tree_path, sizeof disk->tree_path, "%s/lineage.mdb", config->path);
    snprintf(blobs, sizeof blobs, "%s/blobs", config->path);

    enum dj_error error = make_folder(disk->path, fault);
    if (error == DJ_OK)
        error = make_folder(blobs, fault);
    if (error == DJ_OK)
        error = lock_folder(disk, fault);
    if (error == DJ_OK)
        error = open_tree(disk, fault);
    if (error == DJ_OK && config->durability == STORE_DISK && files_sync_folder(disk->path) != 0)
        error = fault_set(fault, DJ_E_STORE, "cannot sync the state folder %s", disk->path);
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
    if (disk->env != NULL && disk->steady.folder_fd >= 0)
        steady_end(&disk->steady);
    close_environment(disk);
    if (disk->pin_fd >= 0)
        close(disk->pin_fd);
    if (disk->lock_fd >= 0)
        close(disk->lock_fd);
    ZSTD_freeCCtx(disk->compressor);
    free(disk->born.number);
    free(disk->dying.number);
    free(disk->dead.number);
    free(disk);
}
