// a = b + s * c over arrays of 8 MiB.
#include "bench.h"
int main(void) {
    enum { N = 1 << 20 };
    double *a = bench_memory(N * 8), *b = bench_memory(N * 8), *c = bench_memory(N * 8), s = 3;
    for (int i = 0; i < N; i++) a[i] = 0, b[i] = i, c[i] = 0.5 * i;
    bench_hide(s);
    bench_start();
    for (int round = 0; round < 75; round++) {
        for (int i = 0; i < N; i++) a[i] = b[i] + s * c[i];
        double *t = a;
        a = b;
        b = t;
        bench_hide(a);
    }
    bench_end("triad", "memory", bench_bits(b[N / 3]));
}
