// Signals raised and handled in one process.
#include "bench.h"
#include <signal.h>
static volatile uint64_t count;
static void handler(int number) { count += (uint64_t)number; }
int main(void) {
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGUSR1, &action, NULL);
    bench_start();
    for (int i = 0; i < 30000; i++) raise(SIGUSR1);
    bench_end("signals", "system", count);
}
