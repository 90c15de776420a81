// Live: the thread that listens and turns the knobs. The manual is live.h.
//
// What can be set is faults.def; each fault has its own end. A clock that has jumped stays where it is: clocks do not go back.

#include "chaos/live/live.h"

#include "chaos/live/request.h"
#include "core/base/knobs.h"
#include "core/base/log.h"
#include "core/io/io.h"
#include "core/link/faults.h"
#include "core/link/link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    TICK_MS = 1,
    LINE_WAIT_MS = 1000,    // for a connection to say its line
    ANSWER_WAIT_MS = 5000,
    SECONDS_DEFAULT = 10,
    JITTER_MS_MAX = 60000,
    CLOCK_JUMP_MS_MAX = 86400000,
};
#define FRAMES_LINGER_NS ((uint64_t)200000000)    // after the last fault of frames, until every loop has seen that it is over

struct fault_row {
    const char *name;
    enum knob knob;
    const char *argument;
    uint64_t scale, most, otherwise;
    unsigned roles;
};

static const struct fault_row fault_table[] = {
#define FAULT(name, KNOB, argument, scale, most, otherwise, roles, text) \
    {name, KNOB_##KNOB, argument, scale, most, otherwise, roles},
#include "chaos/live/faults.def"
#undef FAULT
};
enum { FAULTS = sizeof fault_table / sizeof fault_table[0] };

static struct {
    pthread_t thread;
    pid_t pid;    // that listens: in a forked child nobody does
    enum live_role role;
    int listen_fd, stop_fd;
    char path[LIVE_PATH_MAX];
    uint64_t until_ns[FAULTS];    // 0: it is off
    uint64_t frames_until_ns;     // of all faults of frames, partitions too
} live;

// Turning -----------------------------------------------------------------------------------------------------------------------

static bool is_of_frames(enum knob which)
{
    return which >= KNOB_FRAME_SEED && which <= KNOB_DIE_AT_ANSWER;
}

// Faults of frames are looked at as long as one of them is on, and a little longer.
static void keep_frames(uint64_t until_ns)
{
    if (until_ns + FRAMES_LINGER_NS > live.frames_until_ns)
        live.frames_until_ns = until_ns + FRAMES_LINGER_NS;
    knob_set(KNOB_FRAMES, 1);
}

static const char *turn(const struct fault_row *row, const struct request *request, uint64_t until_ns)
{
    uint64_t value, jitter_ms, seed, rarity;
    if ((row->roles & live.role) == 0)
        return "this process has nothing that this could break";
    if (!request_number(request, row->argument, 0, row->most, row->otherwise, &value) ||
        !request_number(request, "jitter_ms", 0, JITTER_MS_MAX, 0, &jitter_ms) ||
        !request_number(request, "seed", 0, UINT32_MAX, 0, &seed) || !request_number(request, "rarity", 1, 1000000, 1, &rarity))
        return "a number is missing or too large";
    if (value == 0 && row->otherwise == 0)
        return "a number is missing";    // where there is a default, 0 ends the fault
    if (is_of_frames(row->knob)) {
        knob_set(KNOB_FRAME_SEED, seed);
        knob_set(KNOB_FRAME_RARITY, rarity);
        if (row->knob == KNOB_FRAME_DELAY_US)
            knob_set(KNOB_FRAME_JITTER_US, jitter_ms * 1000);
    }
    knob_set(row->knob, value * row->scale);
    if (is_of_frames(row->knob))
        keep_frames(until_ns);
    live.until_ns[row - fault_table] = until_ns;
    return NULL;
}

static const char *part(const struct request *request, uint64_t until_ns)
{
    const char *peer = request_text(request, "peer");
    if (peer == NULL || peer[0] == '\0')
        return "which peer is not said";
    if (!link_faults_partition(peer, until_ns))
        return "too many peers are held already";
    keep_frames(until_ns);
    return NULL;
}

static const char *jump(const struct request *request)
{
    uint64_t ms;
    if (live.role == LIVE_CLIENT)
        return "a client's clock cannot jump: it waits on the system's";
    if (!request_number(request, "ms", 1, CLOCK_JUMP_MS_MAX, 0, &ms) || ms == 0)
        return "a number is missing or too large";
    knob_set(KNOB_CLOCK_JUMP_NS, knob(KNOB_CLOCK_JUMP_NS) + ms * 1000000);
    link_faults_wake();    // deadlines that have passed are seen at once
    return NULL;
}

// NULL, or what is wrong with it.
static const char *obey(const struct request *request)
{
    const char *what = request_text(request, "do");
    uint64_t seconds;
    if (what == NULL || !request_number(request, "for", 1, LIVE_SECONDS_MAX, SECONDS_DEFAULT, &seconds))
        return "a line says what to do, and for how many seconds (1 to 3600)";
    uint64_t until_ns = link_faults_now_ns() + seconds * 1000000000u;
    log_write(LOG_WARN, "chaos", "%s", what);
    if (strcmp(what, "partition") == 0)
        return part(request, until_ns);
    if (strcmp(what, "clock-jump") == 0)
        return jump(request);
    for (size_t i = 0; i < FAULTS; i++)
        if (strcmp(fault_table[i].name, what) == 0)
            return turn(&fault_table[i], request, until_ns);
    return strcmp(what, "show") == 0 ? NULL : "this is not known";
}

// Ends what is over; how long poll may wait for something new.
static int tick(void)
{
    uint64_t now_ns = link_faults_now_ns();
    bool is_on = false;
    for (size_t i = 0; i < FAULTS; i++) {
        if (live.until_ns[i] == 0)
            continue;
        is_on = true;
        if (live.until_ns[i] > now_ns)
            continue;
        knob_set(fault_table[i].knob, 0);
        if (fault_table[i].knob == KNOB_FRAME_DELAY_US)
            knob_set(KNOB_FRAME_JITTER_US, 0);
        live.until_ns[i] = 0;
    }
    if (live.frames_until_ns != 0) {
        is_on = true;
        if (live.frames_until_ns <= now_ns) {
            live.frames_until_ns = 0;
            knob_set(KNOB_FRAMES, 0);
        }
        link_faults_wake();
    }
    return is_on ? TICK_MS : -1;
}

// Listening ---------------------------------------------------------------------------------------------------------------------

// Reads up to the end of a line. False when it does not come in time or is too long.
static bool take_line(int fd, int wait_ms, char line[LIVE_LINE_MAX])
{
    uint64_t deadline_ns = link_faults_now_ns() + (uint64_t)wait_ms * 1000000u;
    size_t length = 0;
    while (length < LIVE_LINE_MAX - 1) {
        uint64_t now_ns = link_faults_now_ns();
        struct pollfd set = {.fd = fd, .events = POLLIN};
        if (now_ns >= deadline_ns || poll(&set, 1, (int)((deadline_ns - now_ns) / 1000000u) + 1) <= 0)
            return false;
        ssize_t got = recv(fd, line + length, LIVE_LINE_MAX - 1 - length, MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got <= 0)
            return false;
        length += (size_t)got;
        line[length] = '\0';
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
            return true;
        }
    }
    return false;
}

static void describe(char answer[LIVE_LINE_MAX])
{
    int length = snprintf(answer, LIVE_LINE_MAX, "{\"ok\":1,\"pid\":%d,\"knobs\":{", getpid());
    bool is_first = true;
    for (int i = 0; i < KNOBS; i++) {
        if (knob((enum knob)i) == 0)
            continue;
        length += snprintf(answer + length, (size_t)(LIVE_LINE_MAX - length), "%s\"%s\":%llu", is_first ? "" : ",",
                           knob_name((enum knob)i), (unsigned long long)knob((enum knob)i));
        is_first = false;
    }
    snprintf(answer + length, (size_t)(LIVE_LINE_MAX - length), "}}\n");
}

static void serve(int fd)
{
    char line[LIVE_LINE_MAX], answer[LIVE_LINE_MAX];
    struct request request;
    if (!take_line(fd, LINE_WAIT_MS, line))
        return;
    const char *wrong = request_parse(line, &request) ? obey(&request) : "this is not one flat JSON object on one line";
    if (wrong == NULL)
        describe(answer);
    else
        snprintf(answer, sizeof answer, "{\"ok\":0,\"error\":\"%s\"}\n", wrong);
    send(fd, answer, strlen(answer), MSG_NOSIGNAL);
}

static void *listen_on(void *argument)
{
    (void)argument;
    for (;;) {
        struct pollfd set[2] = {{.fd = live.listen_fd, .events = POLLIN}, {.fd = live.stop_fd, .events = POLLIN}};
        poll(set, 2, tick());
        if (set[1].revents != 0)
            return NULL;
        int fd;
        if ((set[0].revents & POLLIN) == 0 || link_accept(live.listen_fd, &fd) != DJ_OK)
            continue;
        serve(fd);
        close(fd);
    }
}

bool live_path(const char *folder, const char *name, char path[LIVE_PATH_MAX])
{
    return snprintf(path, LIVE_PATH_MAX, "%s/chaos/%s.sock", folder, name) < LIVE_PATH_MAX;
}

static bool is_listening(void)
{
    return live.pid != 0 && live.pid == getpid();
}

static bool start(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool is_running = pthread_create(&live.thread, NULL, listen_on, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    live.pid = is_running ? getpid() : 0;
    return is_running;
}

enum dj_error live_listen(const char *folder, const char *name, enum live_role role, struct fault *fault)
{
    char parent[LIVE_PATH_MAX], address[LIVE_PATH_MAX + 8], bound[IO_ADDRESS_MAX];
    if (is_listening())
        return fault_set(fault, DJ_E_BUSY, "this process listens for chaos already");
    if (strchr(name, '/') != NULL || !live_path(folder, name, live.path))
        return fault_set(fault, DJ_E_ADDRESS, "%s/chaos/%s.sock is no path for a socket: it is too long, or the name has a slash",
                         folder, name);
    snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(live.path, '/') - live.path), live.path);
    if (mkdir(parent, 0700) != 0 && errno != EEXIST)
        return fault_set(fault, DJ_E_SYSTEM, "cannot make the folder %s: %s", parent, strerror(errno));
    snprintf(address, sizeof address, "unix://%s", live.path);
    enum dj_error error = link_listen(address, &live.listen_fd, bound, fault);
    if (error != DJ_OK)
        return error;
    memset(live.until_ns, 0, sizeof live.until_ns);
    live.frames_until_ns = 0;
    live.role = role;
    live.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (live.stop_fd < 0 || !start()) {
        close(live.listen_fd);
        unlink(live.path);
        return fault_set(fault, DJ_E_SYSTEM, "cannot start the thread that listens for chaos");
    }
    knob_set(KNOB_ALLOWED, 1);
    log_write(LOG_WARN, "chaos", "this process can be broken on purpose through %s", live.path);
    return DJ_OK;
}

void live_end(void)
{
    uint64_t one = 1;
    if (!is_listening())
        return;
    (void)!write(live.stop_fd, &one, sizeof one);
    pthread_join(live.thread, NULL);
    close(live.listen_fd);
    close(live.stop_fd);
    unlink(live.path);
    memset(&live, 0, sizeof live);
    for (int i = 0; i < KNOBS; i++)
        if (i != KNOB_CLOCK_JUMP_NS)
            knob_set((enum knob)i, 0);
}

// Asking ------------------------------------------------------------------------------------------------------------------------

enum dj_error live_ask(const char *path, const char *line, char answer[LIVE_LINE_MAX])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enum dj_error error = fd < 0 ? DJ_E_SYSTEM : DJ_OK;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (error == DJ_OK && connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        error = DJ_E_NOT_FOUND;
    if (error == DJ_OK && (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0 || send(fd, "\n", 1, MSG_NOSIGNAL) < 0))
        error = DJ_E_CLOSED;
    if (error == DJ_OK && !take_line(fd, ANSWER_WAIT_MS, answer))
        error = DJ_E_TIMEOUT;
    if (fd >= 0)
        close(fd);
    return error;
}
