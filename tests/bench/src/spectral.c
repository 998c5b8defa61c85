// Spectral norm: divisions and sums, double precision.
#include "bench.h"
#include <math.h>
enum { N = 380 };
static double u[N], v[N], t[N];
static double element(int i, int j) { return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1); }
static void multiply(const double *x, double *y, int transposed) {
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int j = 0; j < N; j++) sum += (transposed ? element(j, i) : element(i, j)) * x[j];
        y[i] = sum;
    }
}
int main(void) {
    for (int i = 0; i < N; i++) u[i] = 1;
    bench_start();
    for (int round = 0; round < 80; round++) {
        multiply(u, t, 0), multiply(t, v, 1);
        multiply(v, t, 0), multiply(t, u, 1);
    }
    double vbv = 0, vv = 0;
    for (int i = 0; i < N; i++) vbv += u[i] * v[i], vv += v[i] * v[i];
    bench_end("spectral", "fp", bench_bits(sqrt(vbv / vv)));
}
