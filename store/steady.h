// Steady: what makes a store that does not sync at every commit safe against loss of power, as far as its durability goes.
//
// LMDB without syncs may be damaged when the machine goes down: its newest meta page can reach the disk before the pages that it names. So
// below `disk` the file <state>/unsynced names the boot of the machine that wrote here. At `os` the store is synced from time to time, and
// the meta page of that moment is kept in the file too; a reader of our own pins that moment's pages, so that none of them is written again.
// After another boot the kept meta page is put back: the store is as it was at its last sync, whole. At `memory` nothing is kept, and such
// a store is refused. The death of the process alone changes nothing: what was written is with the operating system.
//
// Relies on LMDB's file format, which cannot change within its data version: page (transaction & 1) is a transaction's meta page.

#ifndef STORE_STEADY_H
#define STORE_STEADY_H

#include <lmdb.h>
#include <stdbool.h>

#include "core/base/error.h"
#include "store/store.h"

struct steady {
    enum store_durability durability;
    int folder_fd;
    MDB_txn *pin;    // at `os`: the last sync's moment
    char boot[40];
    char state[1024];
};

// Before lineage.mdb is opened: puts it back to the last sync, if it has to be. DJ_E_STORE_CORRUPT when it cannot.
DJ_MUST_USE enum dj_error steady_recover(const char *state, struct fault *fault);
// Whether the machine went down since the store was written without syncs, and steady_recover was not called yet.
bool steady_is_lost(const char *state);
// After it is opened (with MDB_NOTLS) and before anything is written. LMDB's codes, or errno.
int steady_begin(struct steady *steady, MDB_env *env, const char *state, enum store_durability durability);
// Syncs everything written so far, and keeps this moment. No write transaction is open.
int steady_mark(struct steady *steady, MDB_env *env);
// Around a change of the map, when no transaction may be open.
void steady_unpin(struct steady *steady);
int steady_pin(struct steady *steady, MDB_env *env);
// A stop in good order: everything is synced, and the file goes.
void steady_end(struct steady *steady);

#endif
