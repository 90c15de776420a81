// Swarm: the manual is swarm.h.

#include "chaos/sim/swarm.h"

#include "core/base/hash.h"
#include "core/base/prng.h"
#include "core/lineage/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MS ((uint64_t)1000000)

enum { STEPS_MIN = 15, STEPS_MAX = 160, CALM_ONE_IN = 16, LONE_ONE_IN = 4, LONG_REST_ONE_IN = 6 };
#define REGION_BYTES ((uint64_t)2 << 20)
#define SMALL_REGION_BYTES ((uint64_t)320 << 10)

static const struct {
    const char *name;
    uint32_t one_in;
} faults[FAULT_KINDS] = {
#define FAULT(NAME, name, one_in) [FAULT_##NAME] = {name, one_in},
#include "chaos/sim/faults.def"
#undef FAULT
};

const char *swarm_fault_name(enum swarm_fault fault)
{
    return faults[fault].name;
}

// A generator for one choice: `which` is below 1000 for faults, and one range a client.
static struct prng chooser(uint64_t seed, uint64_t which)
{
    return prng_make(hash_mix(hash_mix(seed, 0x5741524D), which));
}

static uint32_t pick_faults(uint64_t seed)
{
    struct prng prng = chooser(seed, 0);
    uint32_t bits = 0;
    if (prng_chance(&prng, 1, CALM_ONE_IN))
        return 0;
    bool is_lone = prng_chance(&prng, 1, LONE_ONE_IN);
    if (is_lone)
        return 1u << prng_between(&prng, 0, FAULT_KINDS - 1);
    for (uint32_t i = 0; i < FAULT_KINDS; i++)
        if (prng_chance(&prng, 1, faults[i].one_in))
            bits |= 1u << i;
    return bits;
}

static struct swarm_client pick_client(uint64_t seed, uint32_t index, uint64_t until_ns)
{
    struct prng prng = chooser(seed, 2000 + index);
    static const uint64_t limits_ns[] = {0, 1000000, 3000000, 10000000, 50000000};
    struct swarm_client client = {.seed = prng_next(&prng)};
    client.steps = (uint32_t)prng_between(&prng, STEPS_MIN, STEPS_MAX);
    client.think_ns = prng_between(&prng, 2, 6) * (until_ns / client.steps);
    client.workload = (enum workload)prng_between(&prng, 0, WORKLOADS - 1);
    client.is_named = prng_chance(&prng, 1, 3);
    client.is_deviant = prng_chance(&prng, 1, 3);
    client.names_devices = client.workload == WORKLOAD_DEVICES || prng_chance(&prng, 1, 3);
    client.policy = (uint8_t)prng_between(&prng, 0, LINEAGE_POLICIES - 1);
    client.replay_limit_ns = limits_ns[prng_between(&prng, 0, 4)];
    return client;
}

static void pick_clocks(struct swarm *swarm)
{
    struct prng prng = chooser(swarm->seed, 5);
    for (uint32_t i = 0; i < sizeof swarm->clock_ppm / sizeof swarm->clock_ppm[0]; i++) {
        swarm->clock_offset_ns[i] = prng_between(&prng, 0, 100000 * MS);
        swarm->clock_ppm[i] = (int32_t)prng_between(&prng, 0, 20000) - 10000;
        if (swarm_has(swarm, FAULT_CLOCK_SKEW))
            continue;
        swarm->clock_offset_ns[i] = 0;
        swarm->clock_ppm[i] = 0;
    }
}

static void pick_paces(struct swarm *swarm)
{
    struct prng prng = chooser(swarm->seed, 6);
    swarm->delay_max_ns = swarm_has(swarm, FAULT_SLOW_NETWORK) ? prng_between(&prng, 3 * MS, 40 * MS) : 2 * MS;
    swarm->disk_delay_max_ns = swarm_has(swarm, FAULT_SLOW_DISK) ? prng_between(&prng, 20 * MS, 200 * MS) : 5 * MS;
    swarm->task_delay_max_ns = swarm_has(swarm, FAULT_SLOW_DEVICE) ? prng_between(&prng, MS, 10 * MS) : MS / 10;
    swarm->restart_max_ns = swarm_has(swarm, FAULT_SLOW_RESTART) ? 8000 * MS : 400 * MS;
    swarm->break_per_million = swarm_has(swarm, FAULT_BREAK_SEND) ? (uint32_t)prng_between(&prng, 200, 6000) : 0;
    swarm->device_error_per_million = swarm_has(swarm, FAULT_DEVICE_ERROR) ? (uint32_t)prng_between(&prng, 2000, 40000) : 0;
    swarm->region_bytes = swarm_has(swarm, FAULT_SMALL_MEMORY) ? SMALL_REGION_BYTES : REGION_BYTES;
}

static uint32_t smaller(uint32_t value, uint32_t limit)
{
    return limit != 0 && limit < value ? limit : value;
}

struct swarm swarm_make(const struct swarm_options *options)
{
    struct swarm swarm = {.seed = options->seed};
    struct prng prng = chooser(options->seed, 1);
    swarm.faults = pick_faults(options->seed) & ~options->without;
    swarm.workers = smaller((uint32_t)prng_between(&prng, 1, SWARM_WORKERS_MAX), options->workers);
    swarm.clients = smaller((uint32_t)prng_between(&prng, 1, SWARM_CLIENTS_MAX), options->clients);
    swarm.until_ns = prng_between(&prng, 100 * MS, 900 * MS);
    swarm.doomed = (uint32_t)prng_between(&prng, 0, SWARM_WORKERS_MAX - 1);
    swarm.rests_long = prng_chance(&prng, 1, LONG_REST_ONE_IN);
    const uint64_t whole_ns = swarm.until_ns;
    swarm.trim_records = prng_chance(&prng, 1, 2) ? (uint32_t)prng_between(&prng, 2, 20) : 0;
    if (options->until_ns != 0 && options->until_ns < swarm.until_ns)
        swarm.until_ns = options->until_ns;
    for (uint32_t i = 0; i < FAULT_KINDS; i++) {
        struct prng own = chooser(options->seed, 100 + i);
        swarm.mean_ns[i] = prng_between(&own, 20 * MS, 300 * MS);
        if (!swarm_has(&swarm, (enum swarm_fault)i))
            swarm.mean_ns[i] = 0;
    }
    pick_clocks(&swarm);
    pick_paces(&swarm);
    for (uint32_t i = 0; i < swarm.clients; i++) {
        swarm.client[i] = pick_client(options->seed, i, whole_ns);
        swarm.client[i].steps = smaller(swarm.client[i].steps, options->steps);
    }
    if (swarm_has(&swarm, FAULT_TAKEOVER)) {
        swarm.client[0].is_named = true;
        swarm.client[0].twin_at_ns = prng_between(&prng, MS, swarm.until_ns);
    }
    return swarm;
}

// Words --------------------------------------------------------------------------------------------------------------------

bool swarm_fault_parse(const char *list, uint32_t *ret_bits)
{
    uint32_t bits = 0;
    while (*list != '\0') {
        size_t length = strcspn(list, ",");
        uint32_t i = 0;
        while (i < FAULT_KINDS && (strlen(faults[i].name) != length || strncmp(faults[i].name, list, length) != 0))
            i++;
        if (i == FAULT_KINDS)
            return false;
        bits |= 1u << i;
        list += length + (list[length] == ',');
    }
    *ret_bits = bits;
    return true;
}

static void append(char *text, size_t bytes, const char *word, const char *between)
{
    size_t at = strlen(text);
    snprintf(text + at, bytes - at, "%s%s", at == 0 ? "" : between, word);
}

static void list_faults(uint32_t bits, char *text, size_t bytes)
{
    text[0] = '\0';
    for (uint32_t i = 0; i < FAULT_KINDS; i++)
        if ((bits >> i & 1) != 0)
            append(text, bytes, faults[i].name, ",");
}

void swarm_describe(const struct swarm *swarm, char *text, size_t bytes)
{
    char list[400], word[160];
    static const char *const policies[] = {"checkpoint", "replicate", "recompute"};
    list_faults(swarm->faults, list, sizeof list);
    snprintf(text, bytes, "%u worker%s; faults %s", swarm->workers, swarm->workers == 1 ? "" : "s",
             list[0] == '\0' ? "none" : list);
    for (uint32_t i = 0; i < swarm->clients; i++) {
        const struct swarm_client *client = &swarm->client[i];
        snprintf(word, sizeof word, "client%u %s%s, %u steps, %s %.3f s", i, client->is_named ? "named " : "",
                 program_workload_name(client->workload), client->steps, policies[client->policy],
                 (double)client->replay_limit_ns / 1e9);
        append(text, bytes, word, "; ");
    }
}

void swarm_command(const struct swarm_options *options, char *text, size_t bytes)
{
    char word[480], list[400];
    snprintf(text, bytes, "djinn chaos sim --seed %" PRIu64 " --runs 1", options->seed);
    list_faults(options->without, list, sizeof list);
    const struct {
        const char *name;
        uint32_t value;
    } limits[] = {{"--workers", options->workers}, {"--clients", options->clients}, {"--steps", options->steps}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        snprintf(word, sizeof word, "%s %u", limits[i].name, limits[i].value);
        if (limits[i].value != 0)
            append(text, bytes, word, " ");
    }
    snprintf(word, sizeof word, "--until-ms %" PRIu64, options->until_ns / MS);
    if (options->until_ns != 0)
        append(text, bytes, word, " ");
    snprintf(word, sizeof word, "--without %s", list);
    if (list[0] != '\0')
        append(text, bytes, word, " ");
}
