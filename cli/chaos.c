// djinn chaos: break things on purpose: in a simulated world (chaos_sim.c), or in a running pool (chaos_live.c).

#include <string.h>

#include "cli/chaos_order.h"

int command_chaos(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "sim") == 0) {
        argv[1] = "djinn chaos sim";
        return chaos_sim(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "run") == 0)
        return chaos_run(argc - 1, argv + 1);
    return chaos_live(argc, argv);
}
