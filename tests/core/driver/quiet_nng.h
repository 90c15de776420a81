// Thread sanitizer does not see the atomics inside libnng, which is not built with it, and reports races between nng's own threads. Only
// reports with a frame of libnng in them are silenced; what passes between nng's threads and ours goes through the inbox, and is checked.

#ifndef TESTS_CORE_DRIVER_QUIET_NNG_H
#define TESTS_CORE_DRIVER_QUIET_NNG_H

const char *__tsan_default_suppressions(void);

__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "race:libnng.so\n";
}

#endif
