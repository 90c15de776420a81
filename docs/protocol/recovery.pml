/* The protocol of grants, leases, epochs, journal, resubmission and recovery (docs/recovery.md), as small as it can be and still go wrong.
 *
 * Two clients, two workers, one head. A client's program has two steps; the second takes the handle that the first one made. FAULTS times a
 * process is killed, or a worker is cut off from the head. Messages and states have the names of the code; README.md says what each part
 * stands for and what is left out. -DSKIP_FENCE, -DSKIP_LEASE, -DACK_BEFORE_COMMIT, -DNO_RESUBMIT, -DFORGET_WINDOW, -DREUSE_IDS,
 * -DNO_RECOVER, -DNO_REJOURNAL and -DTAKE_LATE are deliberate bugs; -DTWO_CLASSES takes away what the protocol relies on: same class, same bits.
 */

#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef STEPS_0
#define STEPS_0 2         /* of the first client's program */
#endif
#ifndef STEPS_1
#define STEPS_1 2
#endif
#define LIVES 2           /* of a client */
#define NOBODY 9

/* Messages: core/wire/messages.def */
mtype = { JOIN, JOINED, INVENTORY, ADMIT, ADMITTED, JOURNAL, JOURNAL_OK, SESSION_OPEN, SESSION_GRANT, GRANT_ASK, WATERMARK, WORKER_GONE,
    RECOVER, RECOVERY, JOURNAL_GET, JOURNAL_PART, FAILED, ATTACH, ATTACHED, EXECUTE, ANSWER };
/* States: frontend/client/protocol/state.h, sched/state.h */
mtype = { HEAD_CLOSED, HEAD_OPENING, HEAD_READY, PEER_ASKED, PEER_DIALLING, PEER_ATTACHING, PEER_RECOVERING, PEER_READY, PEER_GONE,
    FLIGHT_WAITING, FLIGHT_SENT, FLIGHT_DONE, OPENING_NONE, OPENING_SETTLING, OPENING_COMMITTING, OPENING_FENCING, HEAD_STARTING,
    HEAD_SERVING };

#define CW(c, w) ((c) * 2 + (w))                    /* a link between a client and a worker */
#define CI(c, id) ((c) * 4 + (id))                  /* an execution id: a client's (life, step) */
#define WCI(w, c, id) ((w) * 8 + (c) * 4 + (id))    /* the same, at a worker */
#ifdef REUSE_IDS
#define ID(life, step) (step)
#define LIFE_OF(id) LIVES
#else
#define LIFE_OF(id) ((id) / 2 + 1)
#define ID(life, step) (((life) - 1) * 2 + (step))
#endif
/* What a step gives: a later life of a program may do something else there. */
#ifdef TWO_CLASSES
#define VALUE(life, w) ((life) + 2 * (w))
#else
#define VALUE(life, w) (life)
#endif

/* Links: messages in order, lost as a whole. Fields: kind, epoch, id ..., value ..., what else. */
chan to_head[2] = [2] of { mtype, byte, byte, byte };
chan from_head[2] = [2] of { mtype, byte, byte, byte };
chan to_worker[4] = [2] of { mtype, byte, byte, byte, byte };
chan from_worker[4] = [2] of { mtype, byte, byte, byte, byte };
chan up[2] = [2] of { mtype, byte, byte, byte };
chan down[2] = [2] of { mtype, byte, byte, byte };
#define HAS_ROOM(channel) (len(channel) < 2)
#define HAS_MAIL(channel) (len(channel) > 0)
bool link_head[2];                  /* client and head */
bool link_worker[4];                /* client and worker */
bool link_up[2];                    /* worker and head */
bool cut[2];                        /* ... cannot reach each other */

byte faults = FAULTS;

/* What outlives every process */
byte stored[8];                     /* STORE_EXECUTION: a record's value; 0: none */
byte stored_epoch[2];               /* STORE_SESSION */

/* Observers: no process looks at them */
byte seen[8];                       /* the value that a program was given for an id, in any life */
bool acknowledged[8];               /* somebody was told that it is durable */
byte read_by[2];                    /* this life has read what the earlier ones left */

/* Workers */
bool alive[2], lease[2], joined[2];
byte incarnation[2];
byte admitted[4];                   /* the epoch that may submit */
bool owes_admitted[4];              /* and its confirmation */
byte kept[16];                      /* the value made here, which is also the answer; 0: none */
bool must_answer[16], must_journal[16], is_journalled[16];

/* The head. What is not stored ends with it. */
mtype phase;
byte member[2];                     /* the incarnation that joined; 0: none */
byte fenced[2];                     /* the last incarnation that was fenced */
byte counted[2];                    /* ... because its lease was counted expired */
bool is_greeted[2], has_inventory[2];     /* JOIN was heard on this link; INVENTORY too */
mtype opening[2];
bool grant_wanted[2];
byte asked[4], confirmed[4];        /* ADMIT and ADMITTED: the epoch */
bool writing;                       /* one batch at a time */
byte write_client, write_epoch;     /* epoch 0: a record */
byte write_id, write_value, write_from;

/* Clients. The first life begins with its session open and its worker at hand. */
typedef program {
    byte life, epoch, at, incarnation_at;
    byte id[2];                     /* of the steps: records keep those of the life that made them */
    mtype head, peer, flight[2];
    bool durable[2], must_tell[2];
    bool has_read, is_reading, has_asked, steps_left, has_missed, has_failed, is_over
};
program client[2];

/* Of single steps, empty between them */
hidden byte i, x, y, z, n;
hidden mtype k;

inline drain(channel) { do :: HAS_MAIL(channel) -> channel?_,_,_,_ :: !HAS_MAIL(channel) -> break od; k = 0 }
inline drain5(channel) { do :: HAS_MAIL(channel) -> channel?_,_,_,_,_ :: !HAS_MAIL(channel) -> break od; k = 0 }

/* Steps that are taken as soon as they can be, one client's or worker's before another's: receiving what only changes its receiver, and what
 * somebody sends by himself. Others' steps in between would change nothing but the number of states; faults do come in between. What matters
 * in flight is not among them: executions, answers, WORKER_GONE, records on their way to the store, syncs, joining, leases. */
#ifdef SKIP_LEASE
#define MAY_ANSWER(w) true
#else
#define MAY_ANSWER(w) lease[w]
#endif
#define LEFT(w, c) (must_journal[WCI(w, c, 0)] || must_journal[WCI(w, c, 1)] || must_journal[WCI(w, c, 2)] || must_journal[WCI(w, c, 3)])
#define MEMBER(w) (member[w] != 0)
#define CONFIRMED(c, w) (!MEMBER(w) || confirmed[CW(c, w)] == stored_epoch[c])
#define CHOICE(c) (MEMBER(c) -> c : 1 - c)                     /* the session's own worker first, else any */
#define ROOM (HAS_ROOM(from_head[0]) && HAS_ROOM(from_head[1]))
#define CAN_JOINED(w) (alive[w] && HAS_ROOM(up[w]) && HAS_MAIL(down[w]) && down[w]?[JOINED, _, _, _])
#define CAN_JOURNAL_OK(w) (alive[w] && HAS_MAIL(down[w]) && down[w]?[JOURNAL_OK, _, _, _])
#define CAN_ADMIT(w) (alive[w] && HAS_MAIL(down[w]) && down[w]?[ADMIT, _, _, _])
#define CAN_CONFIRM(c, w) (owes_admitted[CW(c, w)] && joined[w] && HAS_ROOM(up[w]) && !LEFT(w, c))
#define CAN_HEAR_WORKER(w) (HAS_MAIL(up[w]) && HAS_ROOM(down[w]) && ROOM && !(writing && up[w]?[JOURNAL, _, _, _]))
#define CAN_HEAR_CLIENT(c) (HAS_MAIL(to_head[c]) && HAS_ROOM(from_head[c]) && \
    !(writing && (to_head[c]?[JOURNAL, _, _, _] || to_head[c]?[RECOVER, _, _, _] || to_head[c]?[JOURNAL_GET, _, _, _])))
#define CAN_ASK(c, w) (MEMBER(w) && HAS_ROOM(down[w]) && link_up[w] && is_greeted[w] && asked[CW(c, w)] != stored_epoch[c] && \
    (opening[c] == OPENING_FENCING || (grant_wanted[c] && CHOICE(c) == w)))
#define CAN_BEGIN(c) (opening[c] == OPENING_SETTLING && phase == HEAD_SERVING && !writing)
#define CAN_OPEN(c) (opening[c] == OPENING_FENCING && CONFIRMED(c, 0) && CONFIRMED(c, 1) && HAS_ROOM(from_head[c]))
#define CAN_GRANT(c) (grant_wanted[c] && phase == HEAD_SERVING && HAS_ROOM(from_head[c]) && MEMBER(CHOICE(c)) && CONFIRMED(c, CHOICE(c)))
#define CAN_REFUSE(c) (grant_wanted[c] && !alive[0] && !alive[1] && HAS_ROOM(from_head[c]))
#define CAN_TELL(c) (HAS_MAIL(from_head[c]) && !from_head[c]?[WORKER_GONE, _, _, _])
#define CAN_ATTACH(c, w) (alive[w] && HAS_MAIL(to_worker[CW(c, w)]) && HAS_ROOM(from_worker[CW(c, w)]) && to_worker[CW(c, w)]?[ATTACH, _, _, _, _])
#define CAN_ANSWER(c, w) (alive[w] && MAY_ANSWER(w) && link_worker[CW(c, w)] && HAS_ROOM(from_worker[CW(c, w)]) && \
    (must_answer[WCI(w, c, 0)] || must_answer[WCI(w, c, 1)] || must_answer[WCI(w, c, 2)] || must_answer[WCI(w, c, 3)]))
#define CAN_ATTACHED(c, w) (HAS_MAIL(from_worker[CW(c, w)]) && from_worker[CW(c, w)]?[ATTACHED, _, _, _, _])
#define STEPS(c) (c == 0 -> STEPS_0 : STEPS_1)
#define LAST(c) (STEPS(c) - 1)
#define IS_DONE(c, s) (client[c].flight[s] == FLIGHT_DONE)
#define ALL_DONE(c) (IS_DONE(c, 0) && IS_DONE(c, LAST(c)))
#define MUST_TELL(c) (client[c].must_tell[0] || client[c].must_tell[1])
#define CAN_SAY(c) (client[c].head == HEAD_READY && link_head[c] && HAS_ROOM(to_head[c]))
#define CAN_NOTICE(c) (!client[c].is_over && !link_head[c] && client[c].head != HEAD_CLOSED)
#define CAN_DIAL_HEAD(c) (!client[c].is_over && client[c].head == HEAD_CLOSED && HAS_ROOM(to_head[c]))
#define CAN_READ(c) (CAN_SAY(c) && !client[c].has_read && !client[c].is_reading)
#define CAN_JOURNAL(c) (CAN_SAY(c) && MUST_TELL(c))
#define CAN_ASK_GRANT(c) (CAN_SAY(c) && client[c].peer == PEER_GONE && client[c].has_read && !ALL_DONE(c))
#define CAN_DIAL(c) (client[c].peer == PEER_DIALLING && alive[client[c].at] && incarnation[client[c].at] == client[c].incarnation_at && \
    HAS_ROOM(to_worker[CW(c, client[c].at)]))
#define CAN_LOSE(c) ((client[c].peer == PEER_ATTACHING || client[c].peer == PEER_RECOVERING || client[c].peer == PEER_READY) && \
    !link_worker[CW(c, client[c].at)])
#define CAN_RECOVER(c) (CAN_SAY(c) && client[c].peer == PEER_RECOVERING && !client[c].has_asked && !MUST_TELL(c))
#define CAN_REPLAY(c) (client[c].peer == PEER_RECOVERING && client[c].steps_left && HAS_ROOM(to_worker[CW(c, client[c].at)]))
#define CAN_END(c) (!client[c].is_over && (client[c].has_failed || (ALL_DONE(c) && client[c].durable[0] && client[c].durable[LAST(c)])))
#define OF_WORKER(w) (CAN_JOINED(w) || CAN_JOURNAL_OK(w) || CAN_ADMIT(w) || CAN_CONFIRM(0, w) || CAN_CONFIRM(1, w) || CAN_HEAR_WORKER(w))
#define OF_CLIENT(c) (CAN_HEAR_CLIENT(c) || CAN_ASK(c, 0) || CAN_ASK(c, 1) || CAN_BEGIN(c) || CAN_OPEN(c) || CAN_GRANT(c) || CAN_REFUSE(c) || \
    CAN_TELL(c) || CAN_ATTACH(c, 0) || CAN_ATTACH(c, 1) || CAN_ATTACHED(c, 0) || CAN_ATTACHED(c, 1) || CAN_ANSWER(c, 0) || CAN_ANSWER(c, 1) || \
    CAN_NOTICE(c) || CAN_DIAL_HEAD(c) || CAN_READ(c) || CAN_JOURNAL(c) || CAN_ASK_GRANT(c) || CAN_DIAL(c) || CAN_LOSE(c) || CAN_RECOVER(c) || \
    CAN_REPLAY(c) || CAN_END(c))
#define QUIET (!OF_CLIENT(0) && !OF_CLIENT(1) && !OF_WORKER(0) && !OF_WORKER(1))
#define NOW(c) (c == 0 || !OF_CLIENT(0))
#define NOW_WORKER(w) (!OF_CLIENT(0) && !OF_CLIENT(1) && (w == 0 || !OF_WORKER(0)))

/* Worker -------------------------------------------------------------------------------------------------------------------------- */

#ifdef SKIP_FENCE
#define MAY_SUBMIT(w, c, epoch) true
#else
#define MAY_SUBMIT(w, c, epoch) (epoch == admitted[CW(c, w)])
#endif

inline worker_forgets(w)
{
    i = 0;
    do
    :: i < 8 ->
        kept[w * 8 + i] = 0; must_answer[w * 8 + i] = false; must_journal[w * 8 + i] = false; is_journalled[w * 8 + i] = false; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < 2 -> admitted[CW(i, w)] = 0; owes_admitted[CW(i, w)] = false; link_worker[CW(i, w)] = false;
        drain5(to_worker[CW(i, w)]); drain5(from_worker[CW(i, w)]); i++
    :: else -> break
    od;
    i = 0
}

/* EXECUTE: epoch, id, the id of its input, the life whose program asks; 0: a step of a recovery. A repetition is answered from what is kept. */
inline worker_takes(w, c)
{
    to_worker[CW(c, w)]?k, x, y, z, n;
    if
    :: k == ATTACH && x == admitted[CW(c, w)] && link_worker[CW(c, w)] -> from_worker[CW(c, w)]!ATTACHED(x, 0, 0, 0)
    :: k == EXECUTE && MAY_SUBMIT(w, c, x) ->
        if
        :: kept[WCI(w, c, y)] != 0
        :: else ->
            assert(z == NOBODY || kept[WCI(w, c, z)] != 0);      /* what it builds on is there */
            if
            :: n == 0 -> kept[WCI(w, c, y)] = stored[CI(c, y)]; is_journalled[WCI(w, c, y)] = true    /* what was seen is fed onward */
            :: else ->
                assert(x >= admitted[CW(c, w)]);                 /* nothing of an old epoch runs where a newer one was confirmed */
                kept[WCI(w, c, y)] = VALUE(n, w); must_journal[WCI(w, c, y)] = true
            fi
        fi;
        must_answer[WCI(w, c, y)] = must_answer[WCI(w, c, y)] || n != 0
    :: else
    fi
}

/* A new epoch is confirmed when all records of the old one were sent. */
#define CONFIRMS(c) \
    :: d_step { CAN_CONFIRM(c, w) && NOW_WORKER(w) -> owes_admitted[CW(c, w)] = false; up[w]!ADMITTED(c, admitted[CW(c, w)], 0) }
#define TAKES(c) \
    :: d_step { (CAN_ATTACH(c, w) && NOW(c)) || (QUIET && alive[w] && HAS_MAIL(to_worker[CW(c, w)]) && HAS_ROOM(from_worker[CW(c, w)])) -> \
        worker_takes(w, c) }
/* An answer leaves in the order of the stream, and only under a lease. Its last field: had the head counted the lease as expired? */
#define ANSWERS(c) \
    :: d_step { CAN_ANSWER(c, w) && NOW(c) -> \
        i = 0; \
        do :: !must_answer[WCI(w, c, i)] -> i++ :: else -> break od; \
        must_answer[WCI(w, c, i)] = false; \
        from_worker[CW(c, w)]!ANSWER(admitted[CW(c, w)], i, kept[WCI(w, c, i)], counted[w] == incarnation[w]) }
#define JOURNALS(c) \
    :: d_step { QUIET && alive[w] && joined[w] && HAS_ROOM(up[w]) && LEFT(w, c) -> \
        i = 0; \
        do :: !must_journal[WCI(w, c, i)] -> i++ :: else -> break od; \
        must_journal[WCI(w, c, i)] = false; \
        up[w]!JOURNAL(c, i, kept[WCI(w, c, i)]) }

/* What happens to a worker before a session has come to it concerns nobody. */
#define IS_USED(w) (admitted[CW(0, w)] != 0 || admitted[CW(1, w)] != 0)

proctype Worker(byte w)
{
end_worker:
    do
    /* Joining, with what it holds. A fenced life has dropped its state. */
    :: d_step { QUIET && alive[w] && !cut[w] && !link_up[w] ->
        if
        :: fenced[w] == incarnation[w] -> worker_forgets(w); incarnation[w]++
        :: else
        fi;
        link_up[w] = true; is_greeted[w] = false; owes_admitted[CW(0, w)] = false; owes_admitted[CW(1, w)] = false;
        up[w]!JOIN(incarnation[w], 0, 0) }
    /* What was not acknowledged is journalled again. */
    :: d_step { CAN_JOINED(w) && NOW_WORKER(w) ->
        down[w]?JOINED, _, _, _;
        joined[w] = true; lease[w] = true;
        i = 0;
        do
        :: i < 8 ->
#ifndef NO_REJOURNAL
            must_journal[w * 8 + i] = kept[w * 8 + i] != 0 && !is_journalled[w * 8 + i];
#endif
            i++
        :: else -> break
        od;
        up[w]!INVENTORY(0, 0, 0) }
    :: d_step { CAN_JOURNAL_OK(w) && NOW_WORKER(w) -> down[w]?_, x, y, _; is_journalled[WCI(w, x, y)] = true }
    :: d_step { CAN_ADMIT(w) && NOW_WORKER(w) -> down[w]?_, x, y, _; admitted[CW(x, w)] = y; owes_admitted[CW(x, w)] = true }
    CONFIRMS(0)
    CONFIRMS(1)
    TAKES(0)
    TAKES(1)
    ANSWERS(0)
    ANSWERS(1)
    JOURNALS(0)
    JOURNALS(1)
    /* The lease ends by the worker's own clock, before the head counts it. */
    :: d_step { QUIET && alive[w] && lease[w] && !joined[w] -> lease[w] = false }
    /* Faults */
    :: d_step { faults > 0 && alive[w] && IS_USED(w) ->
        faults--; alive[w] = false; lease[w] = false; joined[w] = false; link_up[w] = false; cut[w] = false;
        worker_forgets(w); drain(up[w]); drain(down[w]) }
    :: d_step { faults > 0 && alive[w] && link_up[w] && IS_USED(w) ->
        faults--; cut[w] = true; joined[w] = false; link_up[w] = false; drain(up[w]); drain(down[w]) }
    :: d_step { QUIET && cut[w] -> cut[w] = false }
    :: !alive[w] -> break
    od
}

/* Client -------------------------------------------------------------------------------------------------------------------------- */

#define me client[c]
/* The handle that the second step takes has to be brought to a worker that is new to it. */
#define NEEDS(c) (STEPS(c) == 2 && IS_DONE(c, 0) && !IS_DONE(c, 1))

inline client_sees(c, s, value)
{
    assert(seen[CI(c, me.id[s])] == 0 || seen[CI(c, me.id[s])] == value);    /* one value for ever */
    seen[CI(c, me.id[s])] = value;
    me.flight[s] = FLIGHT_DONE
}

/* The place's worker is gone: what it did not answer goes again; what it answered and did not make durable is told to the head. */
inline client_loses_worker(c)
{
    me.peer = PEER_GONE; me.has_asked = false; me.steps_left = false;
    link_worker[CW(c, me.at)] = false; drain5(from_worker[CW(c, me.at)]);
    i = 0;
    do
    :: i < 4 -> must_answer[WCI(me.at, c, i)] = false; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < STEPS(c) ->
        if
#ifndef NO_RESUBMIT
        :: me.flight[i] == FLIGHT_SENT -> me.flight[i] = FLIGHT_WAITING
#endif
#ifndef FORGET_WINDOW
        :: IS_DONE(c, i) -> me.must_tell[i] = !me.durable[i]
#endif
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

inline client_hears_head(c)
{
    from_head[c]?k, x, y, z;
    i = 0;
    if
    :: k == SESSION_GRANT && y == NOBODY ->
        me.head = HEAD_READY; me.epoch = x;
        do    /* a WATERMARK that was missed is not said again: what stays in the window for long is told (JOURNAL_NS) */
        :: i < STEPS(c) -> me.must_tell[i] = IS_DONE(c, i) && !me.durable[i]; i++
        :: else -> break
        od
    :: k == SESSION_GRANT && y != NOBODY && me.peer == PEER_ASKED -> me.peer = PEER_DIALLING; me.at = y; me.incarnation_at = z
    :: k == WATERMARK || k == JOURNAL_OK ->
        do
        :: i < STEPS(c) -> me.durable[i] = me.durable[i] || me.id[i] == y; me.must_tell[i] = me.must_tell[i] && !me.durable[i]; i++
        :: else -> break
        od
    :: k == WORKER_GONE && me.peer != PEER_ASKED && me.peer != PEER_GONE && me.at == x && me.incarnation_at == y -> client_loses_worker(c)
    :: k == RECOVERY && me.peer == PEER_RECOVERING -> me.steps_left = true
    :: k == FAILED -> assert(y != 1); me.has_failed = true         /* LINEAGE never: all that was lost was known to somebody */
    :: k == JOURNAL_PART ->
        me.has_read = true;
        do
        :: i < STEPS(c) && i < y -> me.id[i] = ID(1, i); client_sees(c, i, stored[CI(c, me.id[i])]); me.durable[i] = true; i++
        :: else -> break
        od
    :: else
    fi;
    i = 0
}

inline client_begins(c)
{
    i = 0;
    do
    :: i < 2 -> me.flight[i] = FLIGHT_WAITING; me.durable[i] = false; me.must_tell[i] = false; me.id[i] = ID(me.life, i); i++
    :: else -> break
    od;
    i = 0;
    me.head = HEAD_CLOSED; me.peer = PEER_GONE; me.epoch = 0; me.at = 0; me.incarnation_at = 0;
    me.has_read = (me.life == 1); me.is_reading = false; me.has_asked = false; me.steps_left = false; me.has_missed = false
}

inline client_is_cut_off(c)
{
    link_head[c] = false; drain(to_head[c]); drain(from_head[c]); grant_wanted[c] = false; opening[c] = OPENING_NONE;
    link_worker[CW(c, 0)] = false; drain5(from_worker[CW(c, 0)]);
    link_worker[CW(c, 1)] = false; drain5(from_worker[CW(c, 1)])
}

inline client_starts(c)
{
    me.life = 1; client_begins(c);
    me.is_over = (STEPS(c) == 0); me.head = HEAD_READY;
    me.peer = (me.is_over -> PEER_GONE : PEER_READY); me.epoch = 1; me.at = c; me.incarnation_at = 1;
    link_head[c] = !me.is_over; link_worker[CW(c, c)] = !me.is_over
}

proctype Client(byte c)
{
    do
    :: d_step { CAN_NOTICE(c) && NOW(c) ->
        me.head = HEAD_CLOSED; me.has_asked = false; me.is_reading = false; me.has_missed = true;
        me.peer = (me.peer == PEER_ASKED || me.peer == PEER_DIALLING -> PEER_GONE : me.peer) }
    :: d_step { CAN_DIAL_HEAD(c) && NOW(c) -> me.head = HEAD_OPENING; link_head[c] = true; to_head[c]!SESSION_OPEN(me.epoch, me.life, 0) }
    :: d_step { (CAN_TELL(c) && NOW(c)) || (QUIET && HAS_MAIL(from_head[c])) -> client_hears_head(c) }
    /* A resumed program is answered from the records of its earlier life, as far as they go. */
    :: d_step { CAN_READ(c) && NOW(c) -> me.is_reading = true; to_head[c]!JOURNAL_GET(me.epoch, me.life, 0) }
    /* Told in order, before anything that is asked */
    :: d_step { CAN_JOURNAL(c) && NOW(c) ->
        i = (me.must_tell[0] -> 0 : 1);
        me.must_tell[i] = false;
        to_head[c]!JOURNAL(me.epoch, me.id[i], seen[CI(c, me.id[i])]) }
    /* The place: GONE, ASKED, DIALLING, ATTACHING, RECOVERING, READY */
    :: d_step { CAN_ASK_GRANT(c) && NOW(c) -> me.peer = PEER_ASKED; to_head[c]!GRANT_ASK(me.epoch, 0, 0) }
    /* A worker that cannot be dialled is dead: the head will say so. */
    :: d_step { CAN_DIAL(c) && NOW(c) ->
        me.peer = PEER_ATTACHING; link_worker[CW(c, me.at)] = true; to_worker[CW(c, me.at)]!ATTACH(me.epoch, 0, 0, 0) }
    :: d_step { CAN_LOSE(c) && NOW(c) -> client_loses_worker(c) }
    :: d_step { CAN_RECOVER(c) && NOW(c) -> me.has_asked = true; to_head[c]!RECOVER(me.epoch, me.id[0], me.at) }
    :: d_step { CAN_REPLAY(c) && NOW(c) ->
        me.peer = PEER_READY; me.steps_left = false; me.has_asked = false;
        to_worker[CW(c, me.at)]!EXECUTE(me.epoch, me.id[0], NOBODY, 0) }
    :: d_step { QUIET && me.peer == PEER_READY && len(to_worker[CW(c, me.at)]) == 0 &&
            (me.flight[0] == FLIGHT_WAITING || me.flight[LAST(c)] == FLIGHT_WAITING) ->
        i = 0;
        do    /* both at once: submissions do not wait for each other's answers */
        :: i < STEPS(c) ->
            if
            :: me.flight[i] == FLIGHT_WAITING ->
                me.flight[i] = FLIGHT_SENT;
                to_worker[CW(c, me.at)]!EXECUTE(me.epoch, me.id[i], (i == 0 -> NOBODY : me.id[0]), me.life)
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0 }
    :: d_step { (CAN_ATTACHED(c, me.at) && NOW(c)) || (QUIET && HAS_MAIL(from_worker[CW(c, me.at)])) ->
        from_worker[CW(c, me.at)]?k, x, y, z, n;
        i = 0;
        if
        :: k == ATTACHED && me.peer == PEER_ATTACHING ->
#ifdef NO_RECOVER
            me.peer = PEER_READY
#else
            me.peer = (NEEDS(c) -> PEER_RECOVERING : PEER_READY)
#endif
        :: k == ANSWER ->
            assert(n == 0);    /* no answer left its worker after the head had counted its lease expired */
            do
            :: i < STEPS(c) ->
                if
                :: me.flight[i] == FLIGHT_SENT && me.id[i] == y -> client_sees(c, i, z); me.must_tell[i] = me.has_missed && !me.durable[i]
                :: else
                fi;
                i++
            :: else -> break
            od
        :: else
        fi;
        i = 0 }
    /* The end: every step has its value, durably; or a typed error. */
    :: d_step { CAN_END(c) && NOW(c) -> client_is_cut_off(c); me.is_over = true; me.peer = PEER_GONE }
    /* Fault: killed, and run again; what it sent to its worker may still arrive. */
    :: d_step { faults > 0 && me.life < LIVES && !me.is_over && me.head != HEAD_CLOSED ->
        faults--; me.life++; client_is_cut_off(c); client_begins(c) }
    :: me.is_over -> break
    od
}

/* Head ---------------------------------------------------------------------------------------------------------------------------- */

#define IS_GONE(w) (!alive[w] || (!lease[w] && !link_up[w]))     /* seen by the head: dead, or silent for longer than its lease */

inline head_forgets_worker(w)
{
    member[w] = 0; is_greeted[w] = false; has_inventory[w] = false;
    asked[CW(0, w)] = 0; asked[CW(1, w)] = 0; confirmed[CW(0, w)] = 0; confirmed[CW(1, w)] = 0
}

/* A record of a life whose successor has read the journal comes too late: nobody can ask for what it made. */
#ifdef TAKE_LATE
#define IS_LATE false
#else
#define IS_LATE (LIFE_OF(write_id) < read_by[write_client])
#endif

inline acknowledge(c, id, from)
{
    if
    :: from != NOBODY && link_up[from] && joined[from] ->
        down[from]!JOURNAL_OK(c, id, 0); acknowledged[CI(c, id)] = !IS_LATE || acknowledged[CI(c, id)]
    :: else
    fi;
    if
    :: from == NOBODY && link_head[c] -> from_head[c]!JOURNAL_OK(0, id, 0); acknowledged[CI(c, id)] = true
    :: from != NOBODY && link_head[c] && !IS_LATE -> from_head[c]!WATERMARK(0, id, 0); acknowledged[CI(c, id)] = true
    :: else
    fi
}

inline commit_record()
{
    if
    :: stored[CI(write_client, write_id)] == 0 && !IS_LATE ->                               /* if absent */
        assert(LIFE_OF(write_id) >= read_by[write_client]);         /* what a new life has read is all there is */
        stored[CI(write_client, write_id)] = write_value
    :: else
    fi
}

inline write_done() { writing = false; write_client = 0; write_epoch = 0; write_id = 0; write_value = 0; write_from = 0 }

inline write_record(c, id, value, from)
{
    writing = true; write_client = c; write_id = id; write_value = value; write_from = from;
#ifdef ACK_BEFORE_COMMIT
    acknowledge(c, id, from)
#endif
}

#define HEARS_WORKER(w) \
    :: d_step { CAN_HEAR_WORKER(w) && NOW_WORKER(w) -> \
        up[w]?k, x, y, z; \
        if \
        :: k == JOIN -> head_forgets_worker(w); member[w] = x; is_greeted[w] = true; counted[w] = 0; down[w]!JOINED(0, 0, 0) \
        :: k == INVENTORY -> has_inventory[w] = true \
        :: k == ADMITTED -> confirmed[CW(x, w)] = y \
        :: k == JOURNAL -> write_record(x, y, z, w) \
        fi }
/* A worker is fenced when it is dead, or silent for longer than its lease; every client hears of it. */
#define FENCES(w) \
    :: d_step { QUIET && MEMBER(w) && IS_GONE(w) && ROOM -> \
        fenced[w] = member[w]; \
        counted[w] = member[w]; \
        if :: link_head[0] -> from_head[0]!WORKER_GONE(w, member[w], 0) :: else fi; \
        if :: link_head[1] -> from_head[1]!WORKER_GONE(w, member[w], 0) :: else fi; \
        head_forgets_worker(w); \
        link_up[w] = false; drain(up[w]); drain(down[w]) }
#define ADMITS(c, w) \
    :: d_step { CAN_ASK(c, w) && NOW(c) -> \
        asked[CW(c, w)] = stored_epoch[c]; \
        down[w]!ADMIT(c, stored_epoch[c], 0) }
#define HEARS_CLIENT(c) \
    :: d_step { CAN_HEAR_CLIENT(c) && NOW(c) -> \
        to_head[c]?k, x, y, z; \
        if \
        :: k == SESSION_OPEN && x == 0 -> opening[c] = OPENING_SETTLING       /* a new one, or one to take over */ \
        :: k == SESSION_OPEN && x != 0 && x == stored_epoch[c] -> from_head[c]!SESSION_GRANT(x, NOBODY, 0) \
        :: k == SESSION_OPEN && x != 0 && x != stored_epoch[c] -> from_head[c]!FAILED(0, 0, 0) \
        :: k == GRANT_ASK -> grant_wanted[c] = true \
        :: k == JOURNAL -> write_record(c, y, z, NOBODY) \
        :: k == RECOVER && stored[CI(c, y)] != 0 -> from_head[c]!RECOVERY(0, 1, 0) \
        :: k == RECOVER && stored[CI(c, y)] == 0 -> from_head[c]!FAILED(0, 1, 0)             /* LINEAGE */ \
        :: k == JOURNAL_GET -> \
            read_by[c] = y; \
            from_head[c]!JOURNAL_PART(0, (stored[CI(c, 0)] == 0 -> 0 : (stored[CI(c, 1)] == 0 -> 1 : 2)), 0) \
        fi }
/* Opening: settled, committed, every worker has confirmed the new epoch. */
#define OPENS(c) \
    :: d_step { CAN_BEGIN(c) && NOW(c) -> \
        opening[c] = OPENING_COMMITTING; \
        writing = true; write_client = c; write_epoch = stored_epoch[c] + 1 } \
    :: d_step { CAN_OPEN(c) && NOW(c) -> \
        opening[c] = OPENING_NONE; \
        from_head[c]!SESSION_GRANT(stored_epoch[c], NOBODY, 0) }
#define GRANTS(c) \
    :: d_step { CAN_GRANT(c) && NOW(c) -> \
        grant_wanted[c] = false; \
        from_head[c]!SESSION_GRANT(stored_epoch[c], CHOICE(c), member[CHOICE(c)]) } \
    :: d_step { CAN_REFUSE(c) && NOW(c) -> \
        grant_wanted[c] = false; \
        from_head[c]!FAILED(0, 0, 0) }                                                      /* NO_WORKER */

inline head_dies()
{
    write_done();
    phase = HEAD_STARTING;
    i = 0;
    do
    :: i < 2 ->
        head_forgets_worker(i); fenced[i] = 0;
        opening[i] = OPENING_NONE; grant_wanted[i] = false; link_head[i] = false; drain(to_head[i]); drain(from_head[i]);
        link_up[i] = false; joined[i] = false; drain(up[i]); drain(down[i]);
        i++
    :: else -> break
    od;
    i = 0
}

active proctype Head()
{
    d_step {
        alive[0] = true; alive[1] = true; incarnation[0] = 1; incarnation[1] = 1; phase = HEAD_SERVING;
        opening[0] = OPENING_NONE; opening[1] = OPENING_NONE;
        link_up[0] = true; joined[0] = true; lease[0] = true; member[0] = 1; has_inventory[0] = true;
        link_up[1] = true; joined[1] = true; lease[1] = true; member[1] = 1; has_inventory[1] = true;
        is_greeted[0] = true; is_greeted[1] = true;
        /* Both sessions are open and at their workers; how that comes about is what the later lives show. */
        stored_epoch[0] = 1; admitted[CW(0, 0)] = 1; asked[CW(0, 0)] = 1; confirmed[CW(0, 0)] = 1;
        stored_epoch[1] = 1; admitted[CW(1, 1)] = 1; asked[CW(1, 1)] = 1; confirmed[CW(1, 1)] = 1;
        client_starts(0); client_starts(1)
    }
    atomic { run Worker(0); run Worker(1); run Client(0); run Client(1) }
end_head:
    do
    HEARS_WORKER(0)
    HEARS_WORKER(1)
    FENCES(0)
    FENCES(1)
    HEARS_CLIENT(0)
    HEARS_CLIENT(1)
    OPENS(0)
    OPENS(1)
    ADMITS(0, 0)
    ADMITS(0, 1)
    ADMITS(1, 0)
    ADMITS(1, 1)
    GRANTS(0)
    GRANTS(1)
    /* STORE_DONE */
    :: d_step { QUIET && writing && write_epoch == 0 && ROOM && HAS_ROOM(down[0]) && HAS_ROOM(down[1]) ->
        commit_record();
#ifndef ACK_BEFORE_COMMIT
        acknowledge(write_client, write_id, write_from);
#endif
        write_done() }
    :: d_step { QUIET && writing && write_epoch != 0 && HAS_ROOM(from_head[write_client]) ->
        stored_epoch[write_client] = write_epoch;
        if
        :: opening[write_client] == OPENING_COMMITTING && write_epoch == 1 ->
            opening[write_client] = OPENING_NONE; from_head[write_client]!SESSION_GRANT(1, NOBODY, 0)
        :: opening[write_client] == OPENING_COMMITTING && write_epoch > 1 -> opening[write_client] = OPENING_FENCING
        :: else
        fi;
        write_done() }
    /* After a restart: inventories of all who joined its last life, or one lease. */
    :: d_step { QUIET && phase == HEAD_STARTING && (has_inventory[0] || IS_GONE(0)) && (has_inventory[1] || IS_GONE(1)) -> phase = HEAD_SERVING }
    /* Fault: killed, and started again. What was being written may be there. */
    :: d_step { faults > 0 ->
        faults--;
        i = 0;
        do :: i < 8 -> assert(!acknowledged[i] || stored[i] != 0)    /* nothing acknowledged is lost */; i++ :: else -> break od;
        head_dies() }
    :: d_step { faults > 0 && writing ->
        faults--;
        if :: write_epoch == 0 -> commit_record() :: else -> stored_epoch[write_client] = write_epoch fi;
        head_dies() }
    od
}
