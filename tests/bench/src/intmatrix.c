// Product of integer matrices, not vectorised.
#include "bench.h"
enum { N = 200 };
static int64_t a[N][N], b[N][N], c[N][N];
int main(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = i * 3 + j, b[i][j] = i ^ j;
    bench_start();
    for (int round = 0; round < 36; round++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                int64_t sum = 0;
                for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
                c[i][j] = c[i][j] * 31 + sum + round;
            }
    uint64_t check = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) check = check * 31 + (uint64_t)c[i][j];
    bench_end("intmatrix", "integer", check);
}
