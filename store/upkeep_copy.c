// Upkeep, copying: backup and restore are the same: a view of one folder is written to another one beside its final name, checked, synced,
// and renamed. So a copy is there whole or not at all.

#include "store/upkeep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/view.h"

enum { COPY_STEP_BYTES = 8 << 20, PART_PATH_MAX = FILES_PATH_MAX + 8 };

struct copy {
    const struct upkeep_watch *watch;
    const char *from;
    char to[PART_PATH_MAX];    // the final name and ".part"
    uint64_t done_bytes, all_bytes;
};

static enum dj_error failed(const struct copy *copy, const char *what, int code, struct fault *fault)
{
    bool is_full = code == ENOSPC || code == EDQUOT || code == EFBIG;

    return fault_set(fault, is_full ? DJ_E_STORE_FULL : DJ_E_STORE, "copying %s to %s: %s: %s%s", copy->from, copy->to, what,
                     mdb_strerror(code), is_full ? "; make room there, or name another place" : "");
}

static void progress(struct copy *copy, uint64_t bytes)
{
    copy->done_bytes += bytes;
    if (copy->watch != NULL && copy->watch->progress != NULL)
        copy->watch->progress(copy->watch->context, "copied", copy->done_bytes, copy->all_bytes);
}

// Files --------------------------------------------------------------------------------------------------------------

static int copy_by_hand(int from, int to, struct copy *copy)
{
    uint8_t *step = malloc(COPY_STEP_BYTES);
    int code = step == NULL ? ENOMEM : 0;

    for (ssize_t n; code == 0 && (n = read(from, step, COPY_STEP_BYTES)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        code = n < 0 ? errno : files_write_all(to, step, (size_t)n);
        if (code == 0)
            progress(copy, (uint64_t)n);
    }
    free(step);
    return code;
}

static int copy_bytes(int from, int to, struct copy *copy)
{
    ssize_t n;

    while ((n = copy_file_range(from, NULL, to, NULL, COPY_STEP_BYTES, 0)) > 0)
        progress(copy, (uint64_t)n);
    if (n == 0 || errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
        return n == 0 ? 0 : errno;
    return copy_by_hand(from, to, copy);    // not between these file systems: both stand where it stopped
}

static int copy_file(const char *from, const char *to, struct copy *copy)
{
    int source = open(from, O_RDONLY | O_CLOEXEC);
    if (source < 0)
        return errno;
    int target = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int code = target < 0 ? errno : copy_bytes(source, target, copy);
    if (target >= 0 && fdatasync(target) != 0 && code == 0)
        code = errno;
    if (target >= 0 && close(target) != 0 && code == 0)
        code = errno;
    close(source);
    return code;
}

static int copy_blob(uint64_t file, struct copy *copy)
{
    char from[FILES_NAME_MAX], to[FILES_NAME_MAX], folder[FILES_NAME_MAX];

    files_path(copy->from, file, from);
    files_path(copy->to, file, to);
    snprintf(folder, sizeof folder, "%s", to);
    *strrchr(folder, '/') = '\0';
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return errno;
    int code = copy_file(from, to, copy);
    // A file that is gone is damage of the source, which the check of the copy names.
    return code == ENOENT && access(from, F_OK) != 0 ? 0 : code;
}

// The blob files that the copied tree names.
static enum dj_error copy_blobs(struct copy *copy, struct fault *fault)
{
    struct view view;
    MDB_cursor *cursor;
    MDB_val key, data;
    uint64_t files, bytes = 0;

    enum dj_error error = view_open(copy->to, &view, fault);
    if (error != DJ_OK)
        return error;
    (void)schema_file_sum(view.txn, &view.tables, &files, &bytes);
    copy->all_bytes += bytes;
    int code = mdb_cursor_open(view.txn, view.tables.file, &cursor);
    if (code == 0) {
        while (code == 0 && (code = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == 0)
            code = copy_blob(schema_file_number(&key), copy);
        mdb_cursor_close(cursor);
    }
    view_close(&view);
    return code == MDB_NOTFOUND ? DJ_OK : failed(copy, "blob files", code, fault);
}

static enum dj_error copy_tree(struct copy *copy, struct view *source, struct fault *fault)
{
    char path[FILES_NAME_MAX + 16];
    struct stat status;

    snprintf(path, sizeof path, "%s/lineage.mdb", copy->to);
    int code = mdb_env_copy2(source->env, path, MDB_CP_COMPACT);
    if (code == 0 && stat(path, &status) == 0) {
        copy->all_bytes = (uint64_t)status.st_size;
        progress(copy, (uint64_t)status.st_size);
    }
    int fd = code == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (code == 0 && (fd < 0 || fdatasync(fd) != 0))
        code = errno;
    if (fd >= 0)
        close(fd);
    return code == 0 ? DJ_OK : failed(copy, "lineage.mdb", code, fault);
}

// Without it the pool's clients and workers would not know the head again.
static enum dj_error copy_token(struct copy *copy, struct fault *fault)
{
    char from[FILES_NAME_MAX], to[FILES_NAME_MAX + 16];

    snprintf(from, sizeof from, "%s/token", copy->from);
    snprintf(to, sizeof to, "%s/token", copy->to);
    int code = access(from, F_OK) != 0 ? 0 : copy_file(from, to, copy);
    return code == 0 ? DJ_OK : failed(copy, "token", code, fault);
}

// Folders ------------------------------------------------------------------------------------------------------------

static void remove_entries(const char *folder)
{
    char path[FILES_NAME_MAX + 512];
    DIR *entries = opendir(folder);

    for (const struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(path) != 0 && rmdir(path) != 0)
            continue;
    }
    if (entries != NULL)
        closedir(entries);
}

// Only what a copy consists of: a folder of somebody's else that happens to have the name stays, and is told.
static void remove_part(const char *part)
{
    char path[FILES_NAME_MAX + 16];

    for (unsigned folder = 0; folder < FILES_FOLDERS; folder++) {
        snprintf(path, sizeof path, "%s/blobs/%02x", part, folder);
        remove_entries(path);
        rmdir(path);
    }
    snprintf(path, sizeof path, "%s/blobs", part);
    rmdir(path);
    snprintf(path, sizeof path, "%s/lineage.mdb", part);
    unlink(path);
    snprintf(path, sizeof path, "%s/token", part);
    unlink(path);
    rmdir(part);
}

static enum dj_error make_part(struct copy *copy, const char *target, struct fault *fault)
{
    char path[FILES_NAME_MAX + 16];

    if (strlen(target) == 0 || strlen(target) >= FILES_PATH_MAX - 208)
        return fault_set(fault, DJ_E_INVALID, "the folder's path is empty or longer than %d bytes", FILES_PATH_MAX - 209);
    snprintf(copy->to, sizeof copy->to, "%s.part", target);
    remove_part(copy->to);    // of one that was cut short
    snprintf(path, sizeof path, "%s/blobs", copy->to);
    if (mkdir(copy->to, 0700) != 0 || mkdir(path, 0700) != 0)
        return fault_set(fault, errno == ENOSPC ? DJ_E_STORE_FULL : DJ_E_STORE, "cannot make the folder %s: %s", copy->to,
                         strerror(errno));
    return DJ_OK;
}

static bool is_empty(const char *folder)
{
    DIR *entries = opendir(folder);
    bool is_any = false;

    if (entries == NULL)
        return errno == ENOENT;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            is_any = true;
    closedir(entries);
    return !is_any;
}

static int finish(const struct copy *copy, const char *target)
{
    char parent[FILES_NAME_MAX];
    int fd = open(copy->to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = fd < 0 || syncfs(fd) != 0 ? errno : 0;

    if (fd >= 0)
        close(fd);
    if (code == 0 && rename(copy->to, target) != 0)
        code = errno;
    snprintf(parent, sizeof parent, "%s/..", target);
    return code != 0 ? code : files_sync_folder(parent);
}

static enum dj_error copy_store(const char *from, const char *target, const struct upkeep_watch *watch, struct upkeep_report *ret,
                                struct fault *fault)
{
    struct copy copy = {.watch = watch, .from = from};
    struct upkeep_report report = {0};
    struct view source;

    enum dj_error error = view_open(from, &source, fault);
    if (error != DJ_OK)
        return error;
    error = make_part(&copy, target, fault);
    if (error != DJ_OK) {
        view_close(&source);
        return error;
    }
    error = copy_tree(&copy, &source, fault);
    if (error == DJ_OK)
        error = copy_blobs(&copy, fault);
    if (error == DJ_OK)
        error = copy_token(&copy, fault);
    view_close(&source);    // until here: its pin keeps the head from removing what is copied
    if (error == DJ_OK)
        error = upkeep_check(copy.to, watch, &report, fault);
    int code = error == DJ_OK ? finish(&copy, target) : 0;
    if (code != 0)
        error = failed(&copy, "the folder", code, fault);
    if (error != DJ_OK)
        remove_part(copy.to);
    else
        *ret = report;
    return error;
}

enum dj_error upkeep_backup(const char *state, const char *target, const struct upkeep_watch *watch, struct upkeep_report *ret,
                            struct fault *fault)
{
    if (access(target, F_OK) == 0)
        return fault_set(fault, DJ_E_INVALID, "%s is there already; name a folder that is not", target);
    return copy_store(state, target, watch, ret, fault);
}

static bool is_in_use(const char *state)
{
    char path[FILES_NAME_MAX];

    snprintf(path, sizeof path, "%s/lock", state);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_held = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    return is_held;
}

enum dj_error upkeep_restore(const char *backup, const char *state, const struct upkeep_watch *watch, struct upkeep_report *ret,
                             struct fault *fault)
{
    if (is_in_use(state))
        return fault_set(fault, DJ_E_BUSY,
                         "a head runs on the state folder %s; stop it (djinn stop), or name another folder with --state", state);
    if (!is_empty(state))
        return fault_set(
            fault, DJ_E_INVALID,
            "the state folder %s is not empty; move it away, or name another folder with --state: nothing is overwritten", state);
    return copy_store(backup, state, watch, ret, fault);
}
