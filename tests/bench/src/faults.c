// Page faults: first touch of fresh anonymous memory, and of copy-on-write pages.
#include "bench.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    enum { SIZE = 32 << 20 };
    uint64_t sum = 0;
    bench_start();
    for (int round = 0; round < 6; round++) {
        uint8_t *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return 1;
        madvise(p, SIZE, MADV_NOHUGEPAGE);
        for (int i = 0; i < SIZE; i += 4096) p[i] = (uint8_t)(i >> 12);
        if (round % 4 == 0) {
            pid_t pid = fork();
            if (pid == 0) {
                for (int i = 0; i < SIZE; i += 4096) p[i]++;
                _exit(p[4096 * 77]);
            }
            int status;
            waitpid(pid, &status, 0);
            sum += (uint64_t)WEXITSTATUS(status);
        }
        munmap(p, SIZE);
    }
    bench_end("faults", "system", sum);
}
