// Byte order: what memory looks like to each kind of load, code in the other order, interrupts in the other order, 32-bit mode.
#include "board.h"

static const uint8_t bytes[32] __attribute__((aligned(16))) = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
                                                               20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static unsigned checks;

static void expect(const char *what, uint64_t got, uint64_t wanted) {
    checks++;
    if (got != wanted) {
        print(what);
        print(": ");
        print_number(got);
        fail("instead of", wanted);
    }
}
#ifdef __LITTLE_ENDIAN__
#define EITHER(big, little) (little)
enum { OTHER = 0 };
#else
#define EITHER(big, little) (big)
enum { OTHER = MSR_LE };
#endif

#define LOAD(what, instruction, big, little)                                                                   \
    do {                                                                                                       \
        uint64_t v;                                                                                            \
        asm volatile(instruction : "=&r"(v) : "b"(bytes), "r"(0ull) : "memory", "r10", "r11", "cc");           \
        expect(what, v, EITHER(big, little));                                                                  \
    } while (0)
// The first doubleword of a vector, and the second.
#define VECTOR(what, instruction, big0, big1, little0, little1)                                                \
    do {                                                                                                       \
        uint64_t v, w;                                                                                         \
        asm volatile(instruction "; mfvsrd %0, 32; xxpermdi 32, 32, 32, 2; mfvsrd %1, 32"                      \
                     : "=&r"(v), "=r"(w) : "b"(bytes), "r"(0ull) : "memory", "r10");                           \
        expect(what, v, EITHER(big0, little0));                                                                \
        expect(what, w, EITHER(big1, little1));                                                                \
    } while (0)

static void loads(void) {
    LOAD("lbz", "lbz %0, 3(%1)", 3, 3);
    LOAD("lhz", "lhz %0, 2(%1)", 0x0203, 0x0302);
    LOAD("lwz", "lwz %0, 1(%1)", 0x01020304, 0x04030201);
    LOAD("ld", "ld %0, 8(%1)", 0x08090a0b0c0d0e0full, 0x0f0e0d0c0b0a0908ull);
    LOAD("lhbrx", "lhbrx %0, %1, %2", 0x0100, 0x0001);
    LOAD("lwbrx", "lwbrx %0, %1, %2", 0x03020100, 0x00010203);
    LOAD("ldbrx", "ldbrx %0, %1, %2", 0x0706050403020100ull, 0x0001020304050607ull);
    LOAD("ldarx", "ldarx %0, %2, %1", 0x0001020304050607ull, 0x0706050403020100ull);
    LOAD("lq", "lq 10, 0(%1); mr %0, 10", 0x0001020304050607ull, 0x0f0e0d0c0b0a0908ull);
    LOAD("lq", "lq 10, 0(%1); mr %0, 11", 0x08090a0b0c0d0e0full, 0x0706050403020100ull);
    set_msr(msr() | MSR_FP | MSR_VEC | MSR_VSX);
    VECTOR("lxvd2x", "lxvd2x 32, %3, %2", 0x0001020304050607, 0x08090a0b0c0d0e0f, 0x0706050403020100, 0x0f0e0d0c0b0a0908);
    VECTOR("lxvw4x", "lxvw4x 32, %3, %2", 0x0001020304050607, 0x08090a0b0c0d0e0f, 0x0302010007060504, 0x0b0a09080f0e0d0c);
    VECTOR("lxvh8x", "lxvh8x 32, %3, %2", 0x0001020304050607, 0x08090a0b0c0d0e0f, 0x0100030205040706, 0x09080b0a0d0c0f0e);
    VECTOR("lxvb16x", "lxvb16x 32, %3, %2", 0x0001020304050607, 0x08090a0b0c0d0e0f, 0x0001020304050607, 0x08090a0b0c0d0e0f);
    VECTOR("lxvx", "lxvx 32, %3, %2", 0x0001020304050607, 0x08090a0b0c0d0e0f, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
    VECTOR("lvx", "lvx 0, %3, %2", 0x0001020304050607, 0x08090a0b0c0d0e0f, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
    VECTOR("lxsdx", "xxlxor 32, 32, 32; lxsdx 32, %3, %2", 0x0001020304050607, 0, 0x0706050403020100, 0);
    VECTOR("lxvl", "li 10, 3; sldi 10, 10, 56; lxvl 32, %2, 10", 0x0001020000000000, 0, 0, 0x0000000000020100);
    uint64_t sum;
    asm volatile("lfd 1, 0(%1); lfs 2, 8(%1); fadd 1, 1, 2; stfd 1, 0(%2)"
                 :
                 : "r"(0), "b"(&(const struct { double a; float b; } __attribute__((packed))){1.5, 2.25f}), "b"(&sum)
                 : "memory", "fr1", "fr2");
    expect("fadd", sum, 0x400e000000000000);
}

static uint64_t wrong;
void interrupt(uint64_t vector, struct frame *frame) {
    wrong = vector;
    frame->srr0 += 4;
}
// Multiple loads exist in big-endian order only.
static void multiple(void) {
    uint64_t v = 0;
    wrong = 0;
    // lmw 30, 0(9), which assemblers refuse in little-endian programs.
    asm volatile("mr 9, %1; li 30, 0; .long 0xbbc90000; mr %0, 30" : "=r"(v) : "r"(bytes) : "memory", "r9", "r30", "r31");
    expect("lmw", wrong, EITHER(0, 0x600));
    expect("lmw", v, EITHER(0x00010203, 0));
    wrong = 0;
    // lswi 10, 9, 6
    asm volatile("mr 9, %1; li 10, 0; .long 0x7d4934aa; mr %0, 10" : "=r"(v) : "r"(bytes) : "memory", "r9", "r10", "r11");
    expect("lswi", wrong, EITHER(0, 0x600));
    expect("lswi", v, EITHER(0x00010203, 0));
}

// Pieces of code that are used with their words in the other order.
asm(".text\n"
    "elsewhere: mfmsr 8; std 8, 0(3); lwz 8, 0(4); std 8, 8(3); mtsrr0 5; mtsrr1 6; rfid\n"
    "elsewhere_end:\n"
    "decrementer: mtsprg 1, 3; mtsprg 2, 4; mfsprg 3, 0; mfmsr 4; std 4, 0(3); mfsrr1 4; std 4, 8(3); lis 4, 0x7fff; mtdec 4\n"
    "mfsprg 4, 2; mfsprg 3, 1; rfid\n"
    "decrementer_end:\n");
extern uint32_t elsewhere[], elsewhere_end[], decrementer[], decrementer_end[];

static void copy_swapped(volatile uint32_t *to, const uint32_t *from, const uint32_t *end) {
    volatile uint32_t *at = to;
    while (from < end) *at++ = __builtin_bswap32(*from++);
    icache_sync((void *)to, (char *)at - (char *)to);
}

static void other_order(void) {
    static uint32_t code[64] __attribute__((aligned(64)));
    static volatile uint64_t out[2];
    copy_swapped(code, elsewhere, elsewhere_end);
    const uint64_t here = msr();
    for (int n = 0; n < 1000; n++) {
        out[0] = out[1] = 0;
        asm volatile("mr 3, %0; mr 4, %1; mr 6, %3; mtsrr0 %2; mtsrr1 %4; bcl 20, 31, 1f; 1: mflr 5; addi 5, 5, 2f - 1b; rfid; 2:"
                     :
                     : "r"(out), "r"(bytes), "r"(code), "r"(here), "r"(here ^ MSR_LE)
                     : "r3", "r4", "r5", "r6", "r8", "lr", "memory");
        expect("MSR there", __builtin_bswap64(out[0]) & MSR_LE, OTHER);
        expect("word there", __builtin_bswap64(out[1]), EITHER(0x03020100, 0x00010203));
    }
}

static void interrupts_in_the_other_order(void) {
    static volatile uint64_t out[2];
    if (call(H_SET_MODE, ARGUMENTS(OTHER != 0, 4))) fail("H_SET_MODE", 0);
    copy_swapped((volatile uint32_t *)0x900, decrementer, decrementer_end);
    asm volatile("mtsprg 0, %0" : : "r"(out));
    for (int n = 0; n < 100; n++) {
        out[0] = out[1] = 0;
        asm volatile("mtdec %0" : : "r"(n * 100));
        set_msr(msr() | MSR_EE);
        for (uint64_t end = ticks() + 10 * TICKS_PER_SECOND; !out[1] && ticks() < end;);
        set_msr(msr() & ~(uint64_t)MSR_EE);
        expect("MSR of the interrupt", __builtin_bswap64(out[0]) & MSR_LE, OTHER);
        expect("SRR1", __builtin_bswap64(out[1]) & (MSR_LE | MSR_EE), MSR_EE | (MSR_LE ^ OTHER));
    }
    install_vectors();
}

static void narrow(void) {
    uint64_t v;
    asm volatile("mfmsr 8; rldicl 9, 8, 0, 1; mtmsrd 9; isync; lwz %0, 0(%1); mtmsrd 8; isync"
                 : "=&r"(v) : "b"((uintptr_t)bytes | 5ull << 32) : "r8", "r9", "memory");
    expect("lwz in 32-bit mode", v, EITHER(0x00010203, 0x03020100));
}

int main(void) {
    asm volatile("mtdec %0" : : "r"(0x7fffffffull));
    install_vectors();
    loads();
    multiple();
    other_order();
    interrupts_in_the_other_order();
    narrow();
    print("RHEA-BARE PASS checks=");
    print_number(checks);
    print("\r\n");
    power_off();
}
