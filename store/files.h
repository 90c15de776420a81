// Files: values too big for LMDB, one file each under <state>/blobs/, named by a number that is never given again while a file has it.
//
// A file is written under its final name, before the transaction that names it commits; until then nobody looks for it, and a crash leaves
// an orphan, which files_sweep removes at the next start. So a value is replaced by a new file and never in place.
// Used by the store's thread; files_read and files_path by anybody.

#ifndef STORE_FILES_H
#define STORE_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/value.h"

struct blob;

enum { FILES_PATH_MAX = 1024, FILES_NAME_MAX = FILES_PATH_MAX + 64, FILES_FOLDERS = 256 };

struct files {
    char state[FILES_PATH_MAX];
    bool is_synced;                         // each file is synced as it is written
    bool has_new_folder;
    bool is_dirty[FILES_FOLDERS];           // has a name that is not synced
    uint64_t next;                          // the next file's number
};

// Errno values; 0 is success.
int files_write(struct files *files, const uint8_t *data, uint64_t bytes, struct value *ret);    // ret: the FILE form, without `check`
int files_settle(struct files *files);                          // syncs the folders that got new names
void files_remove(const struct files *files, uint64_t file);    // one that is not there is no error
void files_path(const char *state, uint64_t file, char path[FILES_NAME_MAX]);
int files_sync_folder(const char *path);
int files_write_all(int fd, const uint8_t *data, size_t bytes);

// The plain bytes, checked. DJ_E_STORE_CORRUPT when the file is absent, has another length or fails its checksum; DJ_E_NO_MEMORY.
DJ_MUST_USE enum dj_error files_read(const char *state, const struct value *value, struct blob **ret);

// Calls `is_wanted` for every file and, with `remove`, removes those that are not; what is not a file of ours (older schemas', half
// written ones) goes too. Returns how many there were to remove. Raises files->next past every number seen.
uint64_t files_sweep(struct files *files, bool (*is_wanted)(void *context, uint64_t file), void *context, bool remove);

#endif
