// A system call that does nothing.
#include "bench.h"
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    uint64_t sum = 0;
    bench_start();
    for (int i = 0; i < 300000; i++) sum += (uint64_t)syscall(SYS_getppid) + 1;
    bench_end("getpid", "system", sum > 0);
}
