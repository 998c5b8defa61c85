// Complex fast Fourier transform, double precision, in place, forth and back.
#include "bench.h"
#include <math.h>
enum { N = 1 << 13 };
static double re[N], im[N], wr[N / 2], wi[N / 2];
static void transform(int sign) {
    for (unsigned i = 1, j = 0; i < N; i++) {
        unsigned bit = N >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) {
            double t = re[i]; re[i] = re[j]; re[j] = t;
            t = im[i]; im[i] = im[j]; im[j] = t;
        }
    }
    for (unsigned len = 2; len <= N; len <<= 1)
        for (unsigned i = 0; i < N; i += len)
            for (unsigned k = 0; k < len / 2; k++) {
                double c = wr[k * (N / len)], s = sign * wi[k * (N / len)];
                unsigned a = i + k, b = a + len / 2;
                double xr = re[b] * c - im[b] * s, xi = re[b] * s + im[b] * c;
                re[b] = re[a] - xr, im[b] = im[a] - xi;
                re[a] += xr, im[a] += xi;
            }
}
int main(void) {
    for (int i = 0; i < N / 2; i++) wr[i] = cos(2 * M_PI * i / N), wi[i] = sin(2 * M_PI * i / N);
    for (int i = 0; i < N; i++) re[i] = (i % 17) - 8, im[i] = (i % 5) * 0.5;
    bench_start();
    for (int round = 0; round < 130; round++) {
        transform(1);
        transform(-1);
        for (int i = 0; i < N; i++) re[i] /= N, im[i] /= N;
    }
    double sum = 0;
    for (int i = 0; i < N; i++) sum += re[i] * (i + 1) + im[i];
    bench_end("fft", "fp", bench_bits(sum));
}
