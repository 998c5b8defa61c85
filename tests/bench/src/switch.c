// A token round a ring of eight processes: context switches with a change of address space.
#include "bench.h"
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    enum { PROCESSES = 8, ROUNDS = 1400 };
    int pipes[PROCESSES][2];
    uint32_t token = 0;
    for (int i = 0; i < PROCESSES; i++)
        if (pipe(pipes[i])) return 1;
    for (int i = 1; i < PROCESSES; i++)
        if (fork() == 0) {
            for (int n = 0; n < ROUNDS; n++) {
                if (read(pipes[i][0], &token, sizeof token) != sizeof token) _exit(1);
                token += (uint32_t)i;
                if (write(pipes[(i + 1) % PROCESSES][1], &token, sizeof token) != sizeof token) _exit(1);
            }
            _exit(0);
        }
    bench_start();
    for (int n = 0; n < ROUNDS; n++) {
        if (write(pipes[1][1], &token, sizeof token) != sizeof token) return 1;
        if (read(pipes[0][0], &token, sizeof token) != sizeof token) return 1;
    }
    bench_end("switch", "system", token);
    while (wait(NULL) > 0) {
    }
}
