// View: see view.h.

#include "store/view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "store/steady.h"

// A folder that a head has used has a lock file; a backup has none, and is opened without leaving anything in it.
static bool is_live(const char *state)
{
    char path[FILES_NAME_MAX];

    snprintf(path, sizeof path, "%s/lock", state);
    return access(path, F_OK) == 0;
}

static enum dj_error pin(struct view *view, struct fault *fault)
{
    char path[FILES_NAME_MAX];

    snprintf(path, sizeof path, "%s/pin", view->state);
    view->pin_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (view->pin_fd < 0 || flock(view->pin_fd, LOCK_SH) != 0)
        return fault_set(fault, DJ_E_STORE, "cannot open %s: %s; run this as the user whose store it is", path, strerror(errno));
    return DJ_OK;
}

static int begin(struct view *view)
{
    int code = mdb_txn_begin(view->env, NULL, MDB_RDONLY, &view->txn);

    if (code != MDB_MAP_RESIZED)
        return code;
    code = mdb_env_set_mapsize(view->env, 0);    // the head has grown it since it was opened
    return code != 0 ? code : mdb_txn_begin(view->env, NULL, MDB_RDONLY, &view->txn);
}

static enum dj_error open_tree(struct view *view, bool is_locked, struct fault *fault)
{
    char path[FILES_NAME_MAX];

    snprintf(path, sizeof path, "%s/lineage.mdb", view->state);
    if (access(path, F_OK) != 0)
        return fault_set(fault, DJ_E_NOT_FOUND, "there is no store in %s: %s; name the folder with --state", view->state,
                         strerror(errno));
    int code = mdb_env_create(&view->env);
    if (code == 0)
        code = mdb_env_set_maxdbs(view->env, SCHEMA_DATABASES);
    if (code == 0)
        code = mdb_env_open(view->env, path, MDB_NOSUBDIR | MDB_RDONLY | MDB_NOTLS | (is_locked ? 0 : MDB_NOLOCK), 0600);
    if (code == 0)
        code = begin(view);
    if (code != 0)
        return fault_set(
            fault, code == MDB_INVALID || code == MDB_CORRUPTED || code == MDB_VERSION_MISMATCH ? DJ_E_STORE_CORRUPT : DJ_E_STORE,
            "cannot read %s: %s", path, mdb_strerror(code));
    return schema_view(view->txn, view->state, &view->tables, fault);
}

enum dj_error view_open(const char *state, struct view *ret, struct fault *fault)
{
    struct view view = {.pin_fd = -1};

    if (strlen(state) == 0 || strlen(state) >= FILES_PATH_MAX - 200)
        return fault_set(fault, DJ_E_INVALID, "the state folder's path is empty or longer than %d bytes", FILES_PATH_MAX - 201);
    snprintf(view.state, sizeof view.state, "%s", state);
    bool is_locked = is_live(state);
    enum dj_error error = DJ_OK;
    if (is_locked && steady_is_lost(state))
        error = fault_set(
            fault, DJ_E_STORE_CORRUPT,
            "the machine went down while the store in %s was not synced; start a head on it, which puts it back to its last "
            "sync or says that it cannot",
            state);
    if (error == DJ_OK && is_locked)
        error = pin(&view, fault);
    if (error == DJ_OK)
        error = open_tree(&view, is_locked, fault);
    if (error != DJ_OK) {
        view_close(&view);
        return error;
    }
    *ret = view;
    return DJ_OK;
}

void view_close(struct view *view)
{
    if (view->txn != NULL)
        mdb_txn_abort(view->txn);
    if (view->env != NULL)
        mdb_env_close(view->env);
    if (view->pin_fd >= 0)
        close(view->pin_fd);
    *view = (struct view){.pin_fd = -1};
}
