// The C library's string functions over short and middle-sized strings.
#include "bench.h"
int main(void) {
    enum { N = 4096 };
    static char text[N + 1], copy[N + 1];
    uint64_t sum = 0, seed = 13;
    for (int i = 0; i < N; i++) text[i] = "abcdefgh ijklmnop"[bench_random(&seed) % 17];
    bench_start();
    for (int round = 0; round < 9000; round++) {
        const char *p = text;
        bench_hide(p);
        strcpy(copy, p);
        sum += strlen(copy) + (uint64_t)strcmp(copy, p);
        for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) sum += strlen(word);
        const char *found = strstr(p, "abca");
        sum += found ? (uint64_t)(found - p) : 1;
        for (const char *q = p; (q = strchr(q, 'e')); q++) sum++;
    }
    bench_end("strings", "integer", sum);
}
