// Addresses: "tcp://host:port" and "unix:///path" as sockets. The manual is link.h.
//
// "head://host:port" can be dialled too: the head's byte streams are plain TCP, so whoever has no nng reaches it this way.

#define _GNU_SOURCE

#include "core/link/link.h"

#include "core/io/io.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { HOST_MAX = 112, PORT_MAX = 8, BACKLOG = 512 };

struct place {
    bool is_unix;
    char host[HOST_MAX], port[PORT_MAX];
    struct sockaddr_un path;
};

static bool split_host(const char *text, struct place *ret)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) >= PORT_MAX)
        return false;
    size_t length = (size_t)(colon - text);
    if (length >= 2 && text[0] == '[' && colon[-1] == ']') {    // [::1]:7070
        text++;
        length -= 2;
    }
    if (length == 0 || length >= HOST_MAX || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strtoul(colon + 1, NULL, 10) > 65535)
        return false;
    memcpy(ret->host, text, length);
    ret->host[length] = '\0';
    strcpy(ret->port, colon + 1);
    return true;
}

static enum dj_error parse(const char *address, struct place *ret, struct fault *fault)
{
    *ret = (struct place){0};
    if (strncmp(address, "unix://", 7) == 0) {
        const char *path = address + 7;
        ret->is_unix = true;
        ret->path.sun_family = AF_UNIX;
        if (path[0] != '/' || strlen(path) >= sizeof ret->path.sun_path)
            return fault_set(fault, DJ_E_ADDRESS, "%s: a unix address is unix:// and an absolute path of at most %zu bytes",
                             address, sizeof ret->path.sun_path - 1);
        strcpy(ret->path.sun_path, path);
        return DJ_OK;
    }
    bool is_stream = strncmp(address, "tcp://", 6) == 0 || strncmp(address, "head://", 7) == 0;
    if (!is_stream || !split_host(strstr(address, "://") + 3, ret))
        return fault_set(fault, DJ_E_ADDRESS, "%s: an address is tcp://HOST:PORT or unix:///PATH, with a port from 0 to 65535",
                         address);
    return DJ_OK;
}

static enum dj_error resolve(const char *address, const struct place *place, int flags, struct addrinfo **ret,
                             struct fault *fault)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    int failure = getaddrinfo(place->host, place->port, &hints, ret);
    if (failure != 0)
        return fault_set(fault, DJ_E_ADDRESS, "%s: the host %s cannot be resolved: %s", address, place->host,
                         failure == EAI_SYSTEM ? strerror(errno) : gai_strerror(failure));
    return DJ_OK;
}

static void set_no_delay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);    // fails on unix sockets, which have no such delay
}

static int open_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static int connect_to(int family, const struct sockaddr *address, socklen_t bytes)
{
    int fd = open_socket(family);
    if (fd < 0)
        return -1;
    set_no_delay(fd);
    if (connect(fd, address, bytes) == 0 || errno == EINPROGRESS)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

enum dj_error link_dial(const char *address, int *ret_fd, struct fault *fault)
{
    struct place place;
    enum dj_error error = parse(address, &place, fault);
    if (error != DJ_OK)
        return error;
    int fd = -1;
    if (place.is_unix) {
        fd = connect_to(AF_UNIX, (const struct sockaddr *)&place.path, sizeof place.path);
    } else {
        struct addrinfo *found = NULL;
        error = resolve(address, &place, 0, &found, fault);
        if (error != DJ_OK)
            return error;
        for (struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
            fd = connect_to(at->ai_family, at->ai_addr, at->ai_addrlen);
        int reason = errno;
        freeaddrinfo(found);
        errno = reason;
    }
    if (fd < 0)
        return fault_set(fault, DJ_E_CLOSED, "%s: cannot connect: %s; check that the process is running and listens there",
                         address, strerror(errno));
    *ret_fd = fd;
    return DJ_OK;
}

// Listening --------------------------------------------------------------------------------------------------------------

// Removes a socket file that nobody listens on any more.
static void remove_stale(const struct sockaddr_un *path)
{
    struct stat file;
    if (lstat(path->sun_path, &file) != 0 || !S_ISSOCK(file.st_mode))
        return;
    int fd = open_socket(AF_UNIX);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)path, sizeof *path) != 0 && errno == ECONNREFUSED)
        unlink(path->sun_path);
    close(fd);
}

static int listen_on(int family, const struct sockaddr *address, socklen_t bytes)
{
    int fd = open_socket(family);
    if (fd < 0)
        return -1;
    int on = 1;
    if (family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool is_bound = bind(fd, address, bytes) == 0;
    // Nobody can connect between bind and listen, so nobody slips in before the mode is set.
    if (is_bound && family == AF_UNIX)
        is_bound = chmod(((const struct sockaddr_un *)address)->sun_path, 0600) == 0;
    if (is_bound && listen(fd, BACKLOG) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static enum dj_error cannot_listen(const char *address, struct fault *fault)
{
    const char *advice = errno == EADDRINUSE
                             ? "another process listens there: stop it, or choose another address (port 0 lets the system choose)"
                         : errno == EADDRNOTAVAIL ? "this machine has no such address: use one of its own, or 0.0.0.0 for all"
                         : errno == EACCES        ? "this user may not: choose a port above 1023, or a folder that is yours"
                         : errno == ENOENT        ? "the folder does not exist: create it"
                                                  : "choose another address";
    return fault_set(fault, DJ_E_ADDRESS, "%s: cannot listen: %s; %s", address, strerror(errno), advice);
}

static void write_bound(int fd, const struct place *place, char *bound)
{
    struct sockaddr_storage storage;
    socklen_t bytes = sizeof storage;
    uint16_t port = 0;
    if (getsockname(fd, (struct sockaddr *)&storage, &bytes) == 0)
        port = ntohs(storage.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&storage)->sin6_port
                                                   : ((struct sockaddr_in *)&storage)->sin_port);
    bool is_v6 = strchr(place->host, ':') != NULL;
    snprintf(bound, IO_ADDRESS_MAX, "tcp://%s%s%s:%u", is_v6 ? "[" : "", place->host, is_v6 ? "]" : "", port);
}

enum dj_error link_listen(const char *address, int *ret_fd, char *bound, struct fault *fault)
{
    struct place place;
    enum dj_error error = parse(address, &place, fault);
    if (error != DJ_OK)
        return error;
    int fd = -1;
    if (place.is_unix) {
        remove_stale(&place.path);
        fd = listen_on(AF_UNIX, (const struct sockaddr *)&place.path, sizeof place.path);
        if (fd >= 0)
            snprintf(bound, IO_ADDRESS_MAX, "unix://%s", place.path.sun_path);
    } else {
        struct addrinfo *found = NULL;
        error = resolve(address, &place, AI_PASSIVE, &found, fault);
        if (error != DJ_OK)
            return error;
        for (struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
            fd = listen_on(at->ai_family, at->ai_addr, at->ai_addrlen);
        int reason = errno;
        freeaddrinfo(found);
        errno = reason;
        if (fd >= 0)
            write_bound(fd, &place, bound);
    }
    if (fd < 0)
        return cannot_listen(address, fault);
    *ret_fd = fd;
    return DJ_OK;
}

enum dj_error link_accept(int listen_fd, int *ret_fd)
{
    int fd;
    do {
        fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        return errno == EAGAIN ? DJ_E_NOT_FOUND : DJ_E_SYSTEM;
    set_no_delay(fd);
    *ret_fd = fd;
    return DJ_OK;
}
