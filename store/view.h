// View: a store at one moment, read only, beside the head that may be writing it.

#ifndef STORE_VIEW_H
#define STORE_VIEW_H

#include <lmdb.h>

#include "core/base/error.h"
#include "store/files.h"
#include "store/schema.h"

struct view {
    MDB_env *env;
    MDB_txn *txn;
    struct tables tables;
    int pin_fd;    // -1: a copy, which nobody writes
    char state[FILES_PATH_MAX];
};

// DJ_E_NOT_FOUND, DJ_E_STORE_VERSION, DJ_E_STORE_CORRUPT, DJ_E_STORE; the fault names the cure.
DJ_MUST_USE enum dj_error view_open(const char *state, struct view *ret, struct fault *fault);
void view_close(struct view *view);

#endif
