// Files: see files.h.

#include "store/files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "core/base/hash.h"
#include "core/io/blob.h"

enum { CHUNK_BYTES = 256 << 10, NAME_DIGITS = 16 };

static void folder_path(const char *state, unsigned folder, char path[FILES_NAME_MAX])
{
    snprintf(path, FILES_NAME_MAX, "%s/blobs/%02x", state, folder);
}

void files_path(const char *state, uint64_t file, char path[FILES_NAME_MAX])
{
    snprintf(path, FILES_NAME_MAX, "%s/blobs/%02x/%0*llx", state, (unsigned)(file % FILES_FOLDERS), NAME_DIGITS,
             (unsigned long long)file);
}

int files_sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int result = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return result;
}

int files_write_all(int fd, const uint8_t *data, size_t bytes)
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

// Writing ------------------------------------------------------------------------------------------------------------

static int write_packed_into(int fd, ZSTD_CCtx *context, uint8_t *chunk, const uint8_t *data, uint64_t bytes,
                             uint64_t *ret_stored)
{
    ZSTD_inBuffer in = {.src = data, .size = bytes};
    uint64_t stored = 0;
    size_t left = 1;
    int code = 0;

    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, VALUE_ZSTD_LEVEL);
    ZSTD_CCtx_setPledgedSrcSize(context, bytes);
    while (left != 0 && code == 0) {
        ZSTD_outBuffer out = {.dst = chunk, .size = CHUNK_BYTES};
        left = ZSTD_compressStream2(context, &out, &in, ZSTD_e_end);
        if (ZSTD_isError(left) != 0)
            return ENOMEM;    // the only way it can fail here
        code = files_write_all(fd, chunk, out.pos);
        stored += out.pos;
    }
    *ret_stored = stored;
    return code;
}

static int write_packed(int fd, const uint8_t *data, uint64_t bytes, uint64_t *ret_stored)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    uint8_t *chunk = malloc(CHUNK_BYTES);
    int code = context == NULL || chunk == NULL ? ENOMEM : write_packed_into(fd, context, chunk, data, bytes, ret_stored);

    ZSTD_freeCCtx(context);
    free(chunk);
    return code;
}

static int write_contents(int fd, const uint8_t *data, uint64_t bytes, struct value *value)
{
    value->form = VALUE_FILE;
    value->stored_bytes = bytes;
    if (value_is_compressible(data, bytes)) {
        int code = write_packed(fd, data, bytes, &value->stored_bytes);
        if (code != 0)
            return code;
        if (value_pays(bytes, value->stored_bytes)) {
            value->form = VALUE_FILE_ZSTD;
            return 0;
        }
        // The part that was probed said too much of the whole.
        value->stored_bytes = bytes;
        if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0)
            return errno;
    }
    return files_write_all(fd, data, bytes);
}

int files_write(struct files *files, const uint8_t *data, uint64_t bytes, struct value *ret)
{
    struct value value = {.plain_bytes = bytes, .file = files->next};
    char path[FILES_NAME_MAX], folder[FILES_NAME_MAX];
    unsigned number = (unsigned)(value.file % FILES_FOLDERS);

    files->next++;
    files_path(files->state, value.file, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ENOENT) {
        folder_path(files->state, number, folder);
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return errno;
        files->has_new_folder = true;
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    if (fd < 0)
        return errno;
    files->is_dirty[number] = true;
    int code = write_contents(fd, data, bytes, &value);
    if (code == 0 && files->is_synced && fdatasync(fd) != 0)
        code = errno;
    if (close(fd) != 0 && code == 0)
        code = errno;
    if (code != 0) {
        unlink(path);
        return code;
    }
    *ret = value;
    return 0;
}

int files_settle(struct files *files)
{
    char path[FILES_NAME_MAX];

    for (unsigned folder = 0; folder < FILES_FOLDERS; folder++) {
        if (!files->is_dirty[folder])
            continue;
        folder_path(files->state, folder, path);
        int code = files_sync_folder(path);
        if (code != 0)
            return code;
        files->is_dirty[folder] = false;
    }
    if (files->has_new_folder) {
        snprintf(path, sizeof path, "%s/blobs", files->state);
        int code = files_sync_folder(path);
        if (code != 0)
            return code;
        files->has_new_folder = false;
    }
    return 0;
}

void files_remove(const struct files *files, uint64_t file)
{
    char path[FILES_NAME_MAX];

    files_path(files->state, file, path);
    unlink(path);
}

// Reading ------------------------------------------------------------------------------------------------------------

static ssize_t read_some(int fd, void *to, size_t bytes)
{
    ssize_t n;

    do
        n = read(fd, to, bytes);
    while (n < 0 && errno == EINTR);
    return n;
}

static bool read_plain(int fd, struct blob *blob)
{
    for (size_t done = 0; done < blob->bytes;) {
        ssize_t n = read_some(fd, blob->data + done, blob->bytes - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool read_packed(int fd, struct blob *blob)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    uint8_t *chunk = malloc(CHUNK_BYTES);
    ZSTD_outBuffer out = {.dst = blob->data, .size = blob->bytes};
    size_t left = 1;
    bool is_good = context != NULL && chunk != NULL;

    while (is_good && left != 0) {
        ssize_t n = read_some(fd, chunk, CHUNK_BYTES);
        ZSTD_inBuffer in = {.src = chunk, .size = n > 0 ? (size_t)n : 0};
        is_good = n > 0;
        while (is_good && in.pos < in.size && left != 0) {
            size_t before_in = in.pos, before_out = out.pos;
            left = ZSTD_decompressStream(context, &out, &in);
            // No way forward means more bytes than were announced.
            is_good = ZSTD_isError(left) == 0 && (in.pos != before_in || out.pos != before_out);
        }
    }
    ZSTD_freeDCtx(context);
    free(chunk);
    return is_good && out.pos == blob->bytes;
}

// What the file itself says about its plain length, before memory is asked for.
static bool is_length_true(int fd, const struct value *value)
{
    uint8_t head[18];
    struct stat status;

    if (fstat(fd, &status) != 0 || (uint64_t)status.st_size != value->stored_bytes)
        return false;
    if (value->form == VALUE_FILE)
        return value->plain_bytes == value->stored_bytes;
    ssize_t n = pread(fd, head, sizeof head, 0);
    return n > 0 && ZSTD_getFrameContentSize(head, (size_t)n) == value->plain_bytes;
}

enum dj_error files_read(const char *state, const struct value *value, struct blob **ret)
{
    char path[FILES_NAME_MAX];

    files_path(state, value->file, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? DJ_E_STORE : DJ_E_STORE_CORRUPT;
    bool is_good = is_length_true(fd, value);
    struct blob *blob = is_good ? blob_make(value->plain_bytes) : NULL;
    if (is_good && blob == NULL) {
        close(fd);
        return DJ_E_NO_MEMORY;
    }
    if (is_good)
        is_good = value->form == VALUE_FILE ? read_plain(fd, blob) : read_packed(fd, blob);
    close(fd);
    if (!is_good || hash64(blob->data, blob->bytes) != value->check) {
        blob_drop(blob);
        return DJ_E_STORE_CORRUPT;
    }
    *ret = blob;
    return DJ_OK;
}

// Sweeping -----------------------------------------------------------------------------------------------------------

static bool parse_name(const char *name, uint64_t *ret)
{
    char *end;

    if (strlen(name) != NAME_DIGITS)
        return false;
    for (const char *at = name; *at != '\0'; at++)
        if (isxdigit((unsigned char)*at) == 0 || isupper((unsigned char)*at) != 0)
            return false;
    *ret = strtoull(name, &end, 16);
    return true;
}

static uint64_t sweep_folder(struct files *files, const char *path, int number, bool (*is_wanted)(void *context, uint64_t file),
                             void *context, bool remove)
{
    DIR *entries = opendir(path);
    uint64_t unwanted = 0, file;

    for (const struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] == '.' || entry->d_type == DT_DIR)
            continue;
        bool is_ours = parse_name(entry->d_name, &file) && (int)(file % FILES_FOLDERS) == number;
        if (is_ours && file >= files->next)
            files->next = file + 1;
        if (is_ours && is_wanted(context, file))
            continue;
        unwanted++;
        if (remove)
            unlinkat(dirfd(entries), entry->d_name, 0);
    }
    if (entries != NULL)
        closedir(entries);
    return unwanted;
}

uint64_t files_sweep(struct files *files, bool (*is_wanted)(void *context, uint64_t file), void *context, bool remove)
{
    char path[FILES_NAME_MAX];
    uint64_t unwanted = 0;

    for (int folder = 0; folder < FILES_FOLDERS; folder++) {
        folder_path(files->state, (unsigned)folder, path);
        unwanted += sweep_folder(files, path, folder, is_wanted, context, remove);
    }
    snprintf(path, sizeof path, "%s/blobs", files->state);
    return unwanted + sweep_folder(files, path, -1, is_wanted, context, remove);
}
