// Steady: see steady.h. The file: 40 bytes of boot id, 8 of XXH3 of the page, 8 of the page's length (0: none), the page.

#include "store/steady.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/hash.h"
#include "core/base/log.h"
#include "store/files.h"

enum { BOOT_BYTES = 36, BOOT_FIELD = 40, HEAD_BYTES = BOOT_FIELD + 16, PAGE_BYTES_MAX = 64 << 10 };

struct kept {
    char boot[BOOT_FIELD];    // zeros at its end
    uint64_t check, bytes;
    uint8_t page[PAGE_BYTES_MAX];
};
_Static_assert(offsetof(struct kept, page) == HEAD_BYTES, "as it lies on disk");

static void read_boot(char boot[40])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    memset(boot, '0', BOOT_BYTES);
    boot[BOOT_BYTES] = '\0';
    if (fd < 0)
        return;
    if (read(fd, boot, BOOT_BYTES) != BOOT_BYTES)
        memset(boot, '0', BOOT_BYTES);
    close(fd);
}

static void path_of(const char *state, const char *name, char path[FILES_NAME_MAX])
{
    snprintf(path, FILES_NAME_MAX, "%s/%s", state, name);
}

// Writing the file ----------------------------------------------------------------------------------------------------

static int write_kept(const struct steady *steady, struct kept *kept)
{
    char path[FILES_NAME_MAX], new_path[FILES_NAME_MAX];

    path_of(steady->state, "unsynced", path);
    path_of(steady->state, "unsynced.new", new_path);
    int fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    kept->check = hash64(kept->page, kept->bytes);
    memcpy(kept->boot, steady->boot, BOOT_BYTES);
    int code = files_write_all(fd, (const uint8_t *)kept, HEAD_BYTES + kept->bytes);
    if (code == 0 && fsync(fd) != 0)
        code = errno;
    close(fd);
    if (code == 0 && rename(new_path, path) != 0)
        code = errno;
    return code != 0 ? code : files_sync_folder(steady->state);
}

static int read_meta_page(const struct steady *steady, MDB_env *env, struct kept *kept)
{
    char path[FILES_NAME_MAX];
    MDB_stat stat;
    MDB_envinfo info;

    mdb_env_stat(env, &stat);
    mdb_env_info(env, &info);
    if (stat.ms_psize > PAGE_BYTES_MAX)
        return EOVERFLOW;
    path_of(steady->state, "lineage.mdb", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    kept->bytes = stat.ms_psize;
    ssize_t n = pread(fd, kept->page, stat.ms_psize, (off_t)((info.me_last_txnid & 1) * stat.ms_psize));
    close(fd);
    return n == (ssize_t)stat.ms_psize ? 0 : EIO;
}

int steady_pin(struct steady *steady, MDB_env *env)
{
    if (steady->durability != STORE_OS || steady->pin != NULL)
        return 0;
    return mdb_txn_begin(env, NULL, MDB_RDONLY, &steady->pin);
}

void steady_unpin(struct steady *steady)
{
    if (steady->pin != NULL)
        mdb_txn_abort(steady->pin);
    steady->pin = NULL;
}

int steady_mark(struct steady *steady, MDB_env *env)
{
    struct kept *kept = calloc(1, sizeof *kept);
    if (kept == NULL)
        return ENOMEM;

    // The file system, and not one file: blob files are not synced one by one at this durability.
    int code = syncfs(steady->folder_fd) == 0 ? 0 : errno;
    if (code == 0)
        code = read_meta_page(steady, env, kept);
    if (code == 0)
        code = write_kept(steady, kept);
    free(kept);
    if (code != 0)
        return code;
    steady_unpin(steady);
    return steady_pin(steady, env);
}

int steady_begin(struct steady *steady, MDB_env *env, const char *state, enum store_durability durability)
{
    char path[FILES_NAME_MAX];

    snprintf(steady->state, sizeof steady->state, "%s", state);
    steady->durability = durability;
    read_boot(steady->boot);
    steady->folder_fd = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (steady->folder_fd < 0)
        return errno;
    path_of(state, "unsynced", path);
    if (durability == STORE_OS)
        return steady_mark(steady, env);
    if (durability == STORE_MEMORY) {
        struct kept *kept = calloc(1, sizeof *kept);
        if (kept == NULL)
            return ENOMEM;
        int code = write_kept(steady, kept);
        free(kept);
        return code;
    }
    // What an earlier process left to the operating system is synced before the first commit builds on it.
    if (access(path, F_OK) != 0)
        return 0;
    if (syncfs(steady->folder_fd) != 0 || unlink(path) != 0)
        return errno;
    return files_sync_folder(state);
}

void steady_end(struct steady *steady)
{
    char path[FILES_NAME_MAX];

    steady_unpin(steady);
    if (steady->folder_fd < 0 || steady->state[0] == '\0')
        return;
    path_of(steady->state, "unsynced", path);
    if (steady->durability != STORE_DISK && syncfs(steady->folder_fd) == 0 && unlink(path) == 0 && fsync(steady->folder_fd) != 0)
        log_write(LOG_WARN, "store", "could not sync the state folder: %s path=%s", strerror(errno), steady->state);
    close(steady->folder_fd);
    steady->folder_fd = -1;
}

// Recovering ---------------------------------------------------------------------------------------------------------

static bool read_kept(const char *path, struct kept *kept)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, kept, sizeof *kept);
    close(fd);
    return n >= HEAD_BYTES && kept->bytes <= PAGE_BYTES_MAX && (uint64_t)n == HEAD_BYTES + kept->bytes &&
           hash64(kept->page, kept->bytes) == kept->check;
}

// Both meta pages become the kept one: LMDB takes either, and its next transaction writes the other.
static int put_back(const char *state, const struct kept *kept)
{
    char path[FILES_NAME_MAX];

    path_of(state, "lineage.mdb", path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int code = 0;
    for (uint64_t page = 0; page < 2 && code == 0; page++)
        if (pwrite(fd, kept->page, kept->bytes, (off_t)(page * kept->bytes)) != (ssize_t)kept->bytes)
            code = EIO;
    if (code == 0 && fdatasync(fd) != 0)
        code = errno;
    close(fd);
    return code;
}

static enum dj_error recover(const char *state, const struct kept *kept, struct fault *fault)
{
    if (kept->bytes == 0)
        return fault_set(
            fault, DJ_E_STORE_CORRUPT,
            "the machine went down while the store in %s was used with durability \"memory\", which does not survive that; "
            "restore a backup (djinn store restore), or name another folder with --state",
            state);
    int code = put_back(state, kept);
    if (code != 0)
        return fault_set(fault, DJ_E_STORE, "cannot put the store in %s back to its last sync: %s", state, strerror(code));
    log_write(LOG_WARN, "store",
              "the machine went down while the store was used with durability os: it is as it was at its last sync path=%s",
              state);
    return DJ_OK;
}

enum dj_error steady_recover(const char *state, struct fault *fault)
{
    char path[FILES_NAME_MAX], boot[40];

    path_of(state, "unsynced", path);
    if (access(path, F_OK) != 0)
        return DJ_OK;
    struct kept *kept = calloc(1, sizeof *kept);
    if (kept == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the store");
    read_boot(boot);
    enum dj_error error = DJ_OK;
    if (!read_kept(path, kept))
        error = fault_set(fault, DJ_E_STORE_CORRUPT,
                          "%s does not hold what a head writes there; restore a backup (djinn store restore)", path);
    else if (memcmp(kept->boot, boot, BOOT_BYTES) != 0)
        error = recover(state, kept, fault);
    free(kept);
    return error;
}

bool steady_is_lost(const char *state)
{
    char path[FILES_NAME_MAX], boot[40], written[BOOT_BYTES];

    path_of(state, "unsynced", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_whole = read(fd, written, sizeof written) == (ssize_t)sizeof written;
    close(fd);
    read_boot(boot);
    return !is_whole || memcmp(written, boot, BOOT_BYTES) != 0;
}
