// fork, exec of this program, exit, wait.
#include "bench.h"
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1) return 3;
    uint64_t sum = 0;
    bench_start();
    for (int i = 0; i < 300; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            execl("/proc/self/exe", argv[0], "child", (char *)NULL);
            _exit(1);
        }
        int status;
        if (waitpid(pid, &status, 0) == pid && WIFEXITED(status)) sum += (uint64_t)WEXITSTATUS(status);
    }
    bench_end("forkexec", "system", sum);
}
