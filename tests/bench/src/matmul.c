// Product of double matrices with fused multiply-add as the compiler sees fit.
#include "bench.h"
enum { N = 160 };
static double a[N][N], b[N][N], c[N][N];
int main(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = 1.0 / (i + j + 1), b[i][j] = (i - j) * 0.25;
    bench_start();
    for (int round = 0; round < 25; round++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++) {
                double x = a[i][k];
                for (int j = 0; j < N; j++) c[i][j] += x * b[k][j];
            }
    double sum = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) sum += c[i][j] * (i + 1);
    bench_end("matmul", "fp", bench_bits(sum));
}
