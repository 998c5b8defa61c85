// Timing and reporting shared by the bench programs. A program does a fixed amount of
// work between bench_start and bench_end and reports a value that depends on all of it.
#pragma once
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double bench_started;

static inline double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void bench_start(void) { bench_started = bench_now(); }

static inline void bench_end(const char *name, const char *class, uint64_t check) {
    double seconds = bench_now() - bench_started;
    printf("BENCH %s %s %.6f %016" PRIx64 "\n", name, class, seconds, check);
    fflush(stdout);
}

static inline uint64_t bench_random(uint64_t *state) { // xorshift64*
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

static inline uint64_t bench_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Keeps the compiler from seeing through a pointer.
#define bench_hide(p) __asm__ volatile("" : "+r"(p) : : "memory")

static inline void *bench_memory(size_t bytes) {
    void *p = aligned_alloc(4096, bytes);
    if (!p) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return p;
}
