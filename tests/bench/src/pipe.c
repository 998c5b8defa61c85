// A byte there and back between two processes through pipes.
#include "bench.h"
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    enum { ROUNDS = 6000 };
    int there[2], back[2];
    uint64_t sum = 0;
    unsigned char byte = 0;
    if (pipe(there) || pipe(back)) return 1;
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < ROUNDS; i++) {
            if (read(there[0], &byte, 1) != 1) _exit(1);
            byte++;
            if (write(back[1], &byte, 1) != 1) _exit(1);
        }
        _exit(0);
    }
    bench_start();
    for (int i = 0; i < ROUNDS; i++) {
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) return 1;
        sum += byte;
    }
    bench_end("pipe", "system", sum);
    waitpid(pid, NULL, 0);
}
