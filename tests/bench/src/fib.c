// Recursive calls and returns.
#include "bench.h"
__attribute__((noinline)) static uint64_t fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
int main(void) {
    unsigned n = 37;
    bench_hide(n);
    bench_start();
    bench_end("fib", "integer", fib(n));
}
