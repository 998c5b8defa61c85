// Litmus tests: two processors access two words, and what the architecture's memory model forbids must never be seen. Names and
// shapes are those of the literature (MP: message passing, SB: store buffering, LB: load buffering, S, R, 2+2W; CoRR: coherence).
//
//     litmus [MILLISECONDS]     for each test, 100 unless told
//
// DDI 0487 B2.3 (arm64), Power ISA Book II 1.7 (ppc64), Intel SDM volume 3 10.2 (x86-64). Each test prints how many rounds there were, how
// often a weak outcome was seen, and whether that is forbidden. A weak outcome that is allowed shows that there was something to see.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <time.h>

#define ROUNDS 256
#define ENOUGH (32 * ROUNDS)
#define LINE 64

typedef union {
    volatile int word;
    volatile uint64_t wide;
    char line[LINE];
} __attribute__((aligned(LINE))) cell;

static cell x[ROUNDS], y[ROUNDS], gate[ROUNDS];
static volatile int out[2][ROUNDS];

#define LD(p) (*(volatile int *)(p))
#define ST(p, v) (*(volatile int *)(p) = (v))
#define ORDER(text) __asm__ volatile(text ::: "memory")

static inline void none(void) { ORDER(""); }

#if defined(__aarch64__)
static inline void full(void) { ORDER("dmb ish"); }
static inline void stores(void) { ORDER("dmb ishst"); }
static inline void loads(void) { ORDER("dmb ishld"); }
static inline void st_release(volatile int *p, int v) { __asm__ volatile("stlr %w1, %0" : "=Q"(*p) : "r"(v) : "memory"); }
static inline int ld_acquire(volatile int *p) {
    int v;
    __asm__ volatile("ldar %w0, %1" : "=r"(v) : "Q"(*p) : "memory");
    return v;
}
static inline int ld_acquire_pc(volatile int *p) {
    int v;
    __asm__ volatile(".arch_extension rcpc\nldapr %w0, %1" : "=r"(v) : "Q"(*p) : "memory");
    return v;
}
// Nothing, made from the value.
static inline int nothing(int v) {
    int d;
    __asm__ volatile("eor %w0, %w1, %w1" : "=r"(d) : "r"(v));
    return d;
}
static inline void control(int v) { __asm__ volatile("cbnz %w0, 1f\n1: isb" ::"r"(v) : "memory"); }
static inline void add_exclusive(volatile int *p) {
    int v, failed;
    __asm__ volatile("1: ldxr %w0, %2\nadd %w0, %w0, 1\nstxr %w1, %w0, %2\ncbnz %w1, 1b" : "=&r"(v), "=&r"(failed), "+Q"(*p));
}
static inline void add_at_once(volatile int *p) {
    __asm__ volatile(".arch_extension lse\nstadd %w1, %0" : "+Q"(*p) : "r"(1));
}
static inline void lock(volatile int *p) {
    int v, failed;
    __asm__ volatile("1: ldaxr %w0, %2\ncbnz %w0, 1b\nstxr %w1, %w3, %2\ncbnz %w1, 1b"
                     : "=&r"(v), "=&r"(failed), "+Q"(*p)
                     : "r"(1)
                     : "memory");
}
static inline void unlock(volatile int *p) { st_release(p, 0); }
#elif defined(__powerpc64__)
static inline void full(void) { ORDER("sync"); }
static inline void light(void) { ORDER("lwsync"); }
static inline void stores(void) { ORDER("eieio"); }
static inline int nothing(int v) {
    int d;
    __asm__ volatile("xor %0, %1, %1" : "=r"(d) : "r"(v));
    return d;
}
static inline void control(int v) { __asm__ volatile("cmpw %0, %0\nbne- 1f\n1: isync" ::"r"(v) : "memory", "cr0"); }
static inline void add_exclusive(volatile int *p) {
    int v;
    __asm__ volatile("1: lwarx %0, 0, %1\naddi %0, %0, 1\nstwcx. %0, 0, %1\nbne- 1b" : "=&r"(v) : "b"(p) : "memory", "cr0");
}
static inline void lock(volatile int *p) {
    int v;
    __asm__ volatile("1: lwarx %0, 0, %1\ncmpwi %0, 0\nbne- 1b\nstwcx. %2, 0, %1\nbne- 1b\nisync"
                     : "=&r"(v)
                     : "b"(p), "r"(1)
                     : "memory", "cr0");
}
static inline void unlock(volatile int *p) {
    light();
    ST(p, 0);
}
#elif defined(__x86_64__)
static inline void full(void) { ORDER("mfence"); }
static inline void locked(void) { ORDER("lock orl $0, -4(%%rsp)"); }
static inline void swap(volatile int *p, int v) { __asm__ volatile("xchgl %0, %1" : "+r"(v), "+m"(*p)::"memory"); }
static inline void st_streaming(volatile int *p, int v) { __asm__ volatile("movnti %1, %0\nsfence" : "=m"(*p) : "r"(v) : "memory"); }
static inline int nothing(int v) { return v & 0; }
static inline void add_at_once(volatile int *p) { __asm__ volatile("lock incl %0" : "+m"(*p)); }
static inline void add_exchange(volatile int *p) {
    int v = LD(p);
    while (!__atomic_compare_exchange_n((int *)p, &v, v + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}
static inline void lock(volatile int *p) {
    while (__atomic_exchange_n((int *)p, 1, __ATOMIC_ACQUIRE)) {
    }
}
static inline void unlock(volatile int *p) { ST(p, 0); }
#endif

struct test {
    const char *name;
    // The two processors' parts of a round.
    void (*part[2])(int);
    int (*weak)(int r0, int r1, int x, int y);
    int allowed;
    // Needs these capabilities (AT_HWCAP).
    unsigned long needs;
};

#define X (&x[i].word)
#define Y (&y[i].word)
#define OUT(n, v) (out[n][i] = (v))
#define PARTS(n, first, second, is_weak)                                                                                          \
    static void n##_0(int i) { first; }                                                                                           \
    static void n##_1(int i) { second; }                                                                                          \
    static int n##_weak(int r0, int r1, int x, int y) {                                                                           \
        (void)r0, (void)r1, (void)x, (void)y;                                                                                     \
        return is_weak;                                                                                                           \
    }

#define MP(n, order0, store, load, order1)                                                                                        \
    PARTS(n, ST(X, 1); order0(); store(Y, 1), OUT(0, load(Y)); order1(); OUT(1, LD(X)), r0 == 1 && r1 == 0)
#define MP_DEPENDENT(n, order0)                                                                                                   \
    PARTS(n, ST(X, 1); order0(); ST(Y, 1), int a = LD(Y); int b = LD(X + nothing(a)); OUT(0, a); OUT(1, b), r0 == 1 && r1 == 0)
#define MP_CONTROL(n, order0)                                                                                                     \
    PARTS(n, ST(X, 1); order0(); ST(Y, 1), int a = LD(Y); control(a); OUT(1, LD(X)); OUT(0, a), r0 == 1 && r1 == 0)
#define SB(n, store, order, load)                                                                                                 \
    PARTS(n, store(X, 1); order(); OUT(0, load(Y)), store(Y, 1); order(); OUT(1, load(X)), r0 == 0 && r1 == 0)
#define LB(n)                                                                                                                     \
    PARTS(n, int a = LD(X); ST(Y, 1 + nothing(a)); OUT(0, a), int b = LD(Y); ST(X, 1 + nothing(b)); OUT(1, b), r0 == 1 && r1 == 1)
#define S(n, order)                                                                                                               \
    PARTS(n, ST(X, 2); order(); ST(Y, 1), int a = LD(Y); ST(X, 1 + nothing(a)); OUT(0, a), r0 == 1 && x == 2)
#define R(n, order) PARTS(n, ST(X, 1); order(); ST(Y, 1), ST(Y, 2); order(); OUT(0, LD(X)), y == 2 && r0 == 0)
#define WW(n, order) PARTS(n, ST(X, 1); order(); ST(Y, 2), ST(Y, 1); order(); ST(X, 2), x == 1 && y == 1)
#define ADDS 8
#define ADD(n, add)                                                                                                               \
    PARTS(n, for (int k = 0; k < ADDS; k++) add(X), for (int k = 0; k < ADDS; k++) add(X), x != 2 * ADDS)
#define LOCKED                                                                                                                    \
    for (int k = 0; k < ADDS; k++) {                                                                                              \
        lock(Y);                                                                                                                  \
        ST(X, LD(X) + 1);                                                                                                         \
        unlock(Y);                                                                                                                \
    }

PARTS(corr, ST(X, 1), int a = LD(X); int b = LD(X); OUT(0, a); OUT(1, b), r0 == 1 && r1 == 0)
PARTS(whole, x[i].wide = ~0ull, uint64_t v = x[i].wide; OUT(0, v != 0 && v != ~0ull), r0)
PARTS(locks, LOCKED, LOCKED, x != 2 * ADDS)
SB(sb, ST, none, LD)
SB(sb_full, ST, full, LD)
MP(mp_full, full, ST, LD, full)
S(s_full, full)
R(r_full, full)
WW(ww_full, full)
LB(lb)

#define TEST(n) {#n, {n##_0, n##_1}, n##_weak, 0, 0}
#define ALLOWED(n) {#n, {n##_0, n##_1}, n##_weak, 1, 0}
#define NEEDS(n, what) {#n, {n##_0, n##_1}, n##_weak, 0, what}

#if defined(__aarch64__)
MP(mp, none, ST, LD, none)
MP(mp_stores_loads, stores, ST, LD, loads)
MP(mp_release_acquire, none, st_release, ld_acquire, none)
MP(mp_release_acquire_pc, none, st_release, ld_acquire_pc, none)
MP_DEPENDENT(mp_stores_address, stores)
MP_CONTROL(mp_full_control, full)
SB(sb_release_acquire, st_release, none, ld_acquire)
SB(sb_release_acquire_pc, st_release, none, ld_acquire_pc)
S(s_stores, stores)
WW(ww_stores, stores)
ADD(add_exclusive, add_exclusive)
ADD(add_at_once, add_at_once)
#define ATOMICS (1ul << 8)
#define LRCPC (1ul << 15)
static const struct test of_this_kind[] = {
    ALLOWED(mp),
    TEST(mp_stores_loads),
    TEST(mp_release_acquire),
    NEEDS(mp_release_acquire_pc, LRCPC),
    TEST(mp_stores_address),
    TEST(mp_full_control),
    TEST(sb_release_acquire),
    {"sb_release_acquire_pc", {sb_release_acquire_pc_0, sb_release_acquire_pc_1}, sb_release_acquire_pc_weak, 1, LRCPC},
    TEST(s_stores),
    TEST(ww_stores),
    TEST(add_exclusive),
    NEEDS(add_at_once, ATOMICS),
};
#elif defined(__powerpc64__)
MP(mp, none, ST, LD, none)
MP(mp_light, light, ST, LD, light)
MP(mp_eieio_light, stores, ST, LD, light)
MP_DEPENDENT(mp_light_address, light)
MP_CONTROL(mp_full_control, full)
SB(sb_light, ST, light, LD)
S(s_light, light)
WW(ww_light, light)
WW(ww_eieio, stores)
ADD(add_exclusive, add_exclusive)
static const struct test of_this_kind[] = {
    ALLOWED(mp),           TEST(mp_light), TEST(mp_eieio_light), TEST(mp_light_address), TEST(mp_full_control),
    ALLOWED(sb_light),     TEST(s_light),  TEST(ww_light),       TEST(ww_eieio),         TEST(add_exclusive),
};
#elif defined(__x86_64__)
MP(mp, none, ST, LD, none)
PARTS(mp_streaming, st_streaming(X, 1); ST(Y, 1), OUT(0, LD(Y)); none(); OUT(1, LD(X)), r0 == 1 && r1 == 0)
SB(sb_locked, ST, locked, LD)
SB(sb_swap, swap, none, LD)
S(s, none)
WW(ww, none)
ADD(add_at_once, add_at_once)
ADD(add_exchange, add_exchange)
static const struct test of_this_kind[] = {
    TEST(mp), TEST(mp_streaming), TEST(sb_locked),   TEST(sb_swap),
    TEST(s),  TEST(ww),           TEST(add_at_once), TEST(add_exchange),
};
#endif

static const struct test everywhere[] = {
    TEST(corr),   TEST(whole),  TEST(locks),   ALLOWED(sb), TEST(sb_full),
    TEST(mp_full), TEST(s_full), TEST(r_full), TEST(ww_full), TEST(lb),
};

#define COUNT(a) (int)(sizeof(a) / sizeof(*(a)))
static const struct test *test(int n) {
    return n < COUNT(everywhere) ? &everywhere[n] : &of_this_kind[n - COUNT(everywhere)];
}
#define TESTS (COUNT(everywhere) + COUNT(of_this_kind))

static long milliseconds = 100;
static int stop, failed;

// Waits until the other processor is there as well; with one that is slow, lets others run.
static void wait_for(volatile int *p, int value) {
    for (int n = 1; __atomic_load_n(p, __ATOMIC_SEQ_CST) - value < 0; n++) {
        if (n % 4096 == 0) {
            sched_yield();
        }
    }
}

static volatile int arrived;
static void meet(int *met) {
    *met += 2;
    __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
    wait_for(&arrived, *met);
}

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void *processor(void *argument) {
    int me = (int)(intptr_t)argument, met = 0;
    unsigned random = 1 + (unsigned)me;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(me, &set);
    if (sched_setaffinity(0, sizeof set, &set)) {
        perror("litmus: sched_setaffinity");
        exit(2);
    }
    for (int n = 0; n < TESTS; n++) {
        const struct test *t = test(n);
        if ((getauxval(AT_HWCAP) & t->needs) != t->needs) {
            if (me == 0) {
                printf("litmus %s: not on this processor\n", t->name);
            }
            continue;
        }
        long rounds = 0, weak = 0, end = now() + milliseconds;
        do {
            meet(&met);
            if (me == 0) {
                for (int i = 0; i < ROUNDS; i++) {
                    x[i].wide = y[i].wide = gate[i].wide = 0;
                }
            }
            meet(&met);
            for (int i = 0; i < ROUNDS; i++) {
                __atomic_fetch_add(&gate[i].word, 1, __ATOMIC_SEQ_CST);
                wait_for(&gate[i].word, 2);
                random = random * 1664525 + 1013904223;
                for (unsigned k = random >> 28; k > 0; k--) {
                    none();
                }
                t->part[me](i);
            }
            meet(&met);
            if (me == 0) {
                for (int i = 0; i < ROUNDS; i++) {
                    weak += t->weak(out[0][i], out[1][i], x[i].word, y[i].word) != 0;
                }
                rounds += ROUNDS;
                // A host that is busy runs the processors in turns: then it takes longer until they have met often enough.
                long over = now() - end;
                __atomic_store_n(&stop, over >= 0 && (rounds >= ENOUGH || over >= 20 * milliseconds), __ATOMIC_SEQ_CST);
            }
            meet(&met);
        } while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST));
        if (me == 0) {
            printf("litmus %-24s %8ld rounds, weak %ld%s\n", t->name, rounds, weak,
                   t->allowed ? " (allowed)" : weak ? " FORBIDDEN" : "");
            failed |= weak && !t->allowed;
        }
    }
    return 0;
}

int main(int count, char **words) {
    if (count > 1 && (milliseconds = atol(words[1])) < 1) {
        fprintf(stderr, "usage: litmus [MILLISECONDS]\n");
        return 2;
    }
    pthread_t threads[2];
    for (intptr_t n = 0; n < 2; n++) {
        if (pthread_create(&threads[n], 0, processor, (void *)n)) {
            fprintf(stderr, "litmus: no thread\n");
            return 2;
        }
    }
    for (int n = 0; n < 2; n++) {
        pthread_join(threads[n], 0);
    }
    return failed;
}
