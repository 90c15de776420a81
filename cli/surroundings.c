// Surroundings: what a command takes from the machine it runs on: state folder, token, addresses, sizes, randomness, the log.

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "core/base/log.h"

int complain(int code, const char *format, ...)
{
    va_list arguments;

    fputs("djinn: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return code;
}

int complain_fault(int code, enum dj_error error, const struct fault *fault)
{
    return complain(code, "%s", fault->text[0] != '\0' ? fault->text : dj_error_text(error));
}

void state_folder(const char *given, char path[CLI_PATH_MAX])
{
    const char *state_home = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (given != NULL)
        snprintf(path, CLI_PATH_MAX, "%s", given);
    else if (state_home != NULL && state_home[0] == '/')
        snprintf(path, CLI_PATH_MAX, "%s/djinn", state_home);
    else
        snprintf(path, CLI_PATH_MAX, "%s/.local/state/djinn", home != NULL ? home : "/root");
}

void random_bytes(void *to, size_t bytes)
{
    uint8_t *at = to;

    while (bytes > 0) {
        ssize_t n = getrandom(at, bytes, 0);
        if (n < 0 && errno != EINTR) {
            complain(EXIT_FAILED, "the system gives no random bytes: %s", strerror(errno));
            exit(EXIT_FAILED);
        }
        if (n > 0) {
            at += n;
            bytes -= (size_t)n;
        }
    }
}

enum dj_error folder_make(const char *folder, struct fault *fault)
{
    char path[CLI_PATH_MAX];
    struct stat found;

    snprintf(path, sizeof path, "%s", folder);
    for (char *at = path[0] == '\0' ? path : path + 1; *at != '\0'; at++)
        if (*at == '/') {
            *at = '\0';
            mkdir(path, 0700);
            *at = '/';
        }
    if (mkdir(path, 0700) == 0 || (errno == EEXIST && stat(path, &found) == 0 && S_ISDIR(found.st_mode)))
        return DJ_OK;
    return fault_set(fault, DJ_E_SYSTEM, "cannot make the state folder %s: %s; name another folder with --state", folder,
                     strerror(errno));
}

static enum dj_error token_make(const char *folder, const char *path, struct hash128 *ret, struct fault *fault)
{
    char text[HASH128_TEXT + 1];
    enum dj_error error = folder_make(folder, fault);

    if (error != DJ_OK)
        return error;
    random_bytes(ret, sizeof *ret);
    hash128_text(*ret, text);
    text[HASH128_TEXT - 1] = '\n';
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return fault_set(fault, DJ_E_SYSTEM, "cannot write the token file %s: %s; name another folder with --state", path,
                         strerror(errno));
    bool is_written = write(fd, text, HASH128_TEXT) == HASH128_TEXT;
    int reason = is_written ? 0 : errno;
    close(fd);
    if (is_written)
        return DJ_OK;
    unlink(path);    // half a token would be refused for ever after
    return fault_set(fault, DJ_E_SYSTEM,
                     "cannot write the token file %s: %s; make room there, or name another folder with --state", path,
                     strerror(reason));
}

enum dj_error token_load(const char *folder, bool make, struct hash128 *ret, struct fault *fault)
{
    const char *given = getenv("DJINN_TOKEN");
    char path[CLI_PATH_MAX + 16], text[HASH128_TEXT] = {0};

    if (given != NULL && given[0] != '\0')
        return hash128_parse(given, ret)
                   ? DJ_OK
                   : fault_set(fault, DJ_E_TOKEN, "DJINN_TOKEN must be 32 hexadecimal digits, as in the head's token file");
    snprintf(path, sizeof path, "%s/token", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && make)
        return token_make(folder, path, ret, fault);
    if (fd < 0)
        return fault_set(fault, DJ_E_TOKEN,
                         "there is no token: %s: %s; set DJINN_TOKEN, or name the head's state folder with --state", path,
                         strerror(errno));
    ssize_t n = read(fd, text, HASH128_TEXT - 1);
    close(fd);
    if (n != HASH128_TEXT - 1 || !hash128_parse(text, ret))
        return fault_set(fault, DJ_E_TOKEN,
                         "the token file %s does not hold 32 hexadecimal digits; remove it and start the head again", path);
    return DJ_OK;
}

enum dj_error address_parse(const char *text, char address[CLI_ADDRESS_MAX], struct fault *fault)
{
    const char *colon = strrchr(text, ':');
    const char *port = colon == NULL ? DJINN_PORT : colon + 1;
    size_t host_bytes = colon == NULL ? strlen(text) : (size_t)(colon - text);
    char *end;
    unsigned long number = strtoul(port, &end, 10);

    if (*port == '\0' || *end != '\0' || number > 65535 || host_bytes > 90)
        return fault_set(fault, DJ_E_ADDRESS, "\"%s\" is not an address; write HOST:PORT, for example 127.0.0.1:%s", text,
                         DJINN_PORT);
    if (host_bytes == 0)
        snprintf(address, CLI_ADDRESS_MAX, "127.0.0.1:%lu", number);
    else
        snprintf(address, CLI_ADDRESS_MAX, "%.*s:%lu", (int)host_bytes, text, number);
    return DJ_OK;
}

bool count_parse(const char *text, unsigned long most, uint32_t *ret)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || number == 0 || number > most)
        return false;
    *ret = (uint32_t)number;
    return true;
}

enum dj_error bytes_parse(const char *text, uint64_t *ret)
{
    char *end;
    unsigned shift = 0;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);

    if (end == text || text[0] == '-' || errno != 0)
        return DJ_E_INVALID;
    switch (*end) {
    case 'k':
    case 'K': shift = 10; break;
    case 'm':
    case 'M': shift = 20; break;
    case 'g':
    case 'G': shift = 30; break;
    case 't':
    case 'T': shift = 40; break;
    default: break;
    }
    if (shift != 0)
        end++;
    if (*end == 'i' && shift != 0)
        end++;
    if (*end == 'B' || *end == 'b')
        end++;
    if (*end != '\0' || (shift != 0 && number >> (64 - shift) != 0))
        return DJ_E_INVALID;
    *ret = (uint64_t)number << shift;
    return DJ_OK;
}

static void print_line(void *context, enum log_level level, const char *component, const char *line)
{
    static const char *const name[] = {"debug", "info", "warn", "error"};
    struct timespec now;
    struct tm parts;
    char stamp[32];

    (void)context;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    fprintf(stderr, "%s.%03ldZ %s %s %s\n", stamp, now.tv_nsec / 1000000, name[level], component, line);
}

void log_to_stderr(void)
{
    const char *wanted = getenv("DJINN_LOG");
    enum log_level least = LOG_INFO;

    if (wanted != NULL && strcmp(wanted, "debug") == 0)
        least = LOG_DEBUG;
    if (wanted != NULL && strcmp(wanted, "warn") == 0)
        least = LOG_WARN;
    setvbuf(stderr, NULL, _IOLBF, 0);
    log_install(print_line, NULL, least);
}
