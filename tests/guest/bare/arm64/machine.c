// virt with a GICv3 and its ITS: pins are SPIs, messages LPIs.
#include "../machine.h"

extern uint64_t device_tree;

static inline void barrier(void) { asm volatile("dsb sy; isb" : : : "memory"); }
// Accesses of devices, without the writeback to a register that a compiler would choose: a hypervisor is not told what those do.
#define LOAD(instruction, form, address)                                                                    \
    ({                                                                                                      \
        uint64_t loaded;                                                                                    \
        barrier();                                                                                          \
        asm volatile(instruction " %" form "0, [%1]" : "=r"(loaded) : "r"((uint64_t)(address)) : "memory"); \
        barrier();                                                                                          \
        loaded;                                                                                             \
    })
#define STORE(instruction, form, address, value)                                                                           \
    do {                                                                                                                   \
        barrier();                                                                                                         \
        asm volatile(instruction " %" form "0, [%1]" : : "r"((uint64_t)(value)), "r"((uint64_t)(address)) : "memory"); \
        barrier();                                                                                                         \
    } while (0)
uint32_t read_register(uint64_t address) { return (uint32_t)LOAD("ldr", "w", address); }
void write_register(uint64_t address, uint32_t value) { STORE("str", "w", address, value); }
static void write64(uint64_t address, uint64_t value) { STORE("str", "x", address, value); }
static uint64_t read64(uint64_t address) { return LOAD("ldr", "x", address); }

static const uint64_t uart = 0x09000000, gicd = 0x08000000, its = 0x08080000, gicr = 0x080a0000, ecam = 0x4010000000;
enum { FIRST_LPI = 8192, FIRST_PIN = 32 + 3, INTERRUPTS = 64 };

void print(const char *text) {
    for (; *text; text++) write_register(uart, (uint8_t)*text);
}
void power_off(void) {
    register uint64_t x0 asm("x0") = 0x84000008;
    asm volatile("hvc #0; 1: wfi; b 1b" : : "r"(x0));
    __builtin_unreachable();
}
void allow_interrupts(bool on) {
    if (on) asm volatile("msr daifclr, #2" : : : "memory");
    else asm volatile("msr daifset, #2" : : : "memory");
}
uint64_t ticks_a_second;
uint64_t ticks_now(void) {
    uint64_t v;
    asm volatile("isb; mrs %0, cntvct_el0" : "=r"(v));
    return v;
}
static uint32_t big(const uint8_t *at) { return (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3]; }
// The property `bootargs` (Devicetree Specification, 5.4), which only /chosen has.
const char *words(void) {
    const uint8_t *tree = (const uint8_t *)device_tree;
    if (!tree || big(tree) != 0xd00dfeed) return "";
    const char *names = (const char *)tree + big(tree + 12);
    for (const uint8_t *at = tree + big(tree + 8);;) {
        const uint32_t token = big(at);
        at += 4;
        if (token == 1) {
            while (*at++);
        } else if (token == 3) {
            const uint32_t length = big(at), name = big(at + 4);
            at += 8;
            if (same(names + name, "bootargs")) return (const char *)at;
            at += length;
        } else if (token == 9) {
            return "";
        }
        at = (const uint8_t *)(((uint64_t)at + 3) & ~3ull);
    }
}

static uint64_t config(uint32_t function, uint32_t at) { return ecam + ((uint64_t)function << 12) + at; }
uint32_t config_read(uint32_t function, uint32_t at, unsigned size) {
    const uint64_t address = config(function, at);
    const uint64_t value = size == 4   ? LOAD("ldr", "w", address)
                           : size == 2 ? LOAD("ldrh", "w", address)
                                       : LOAD("ldrb", "w", address);
    return (uint32_t)value;
}
void config_write(uint32_t function, uint32_t at, unsigned size, uint32_t value) {
    const uint64_t address = config(function, at);
    if (size == 4) STORE("str", "w", address, value);
    else if (size == 2) STORE("strh", "w", address, value);
    else STORE("strb", "w", address, value);
}
uint32_t room(uint32_t size, uint64_t *address) {
    static uint32_t free = 0x10000000;
    free = (free + size - 1) & -size;
    *address = free;
    free += size;
    return (uint32_t)*address;
}

static uint8_t commands[0x10000] __attribute__((aligned(0x10000)));
static uint8_t tables[2][0x10000] __attribute__((aligned(0x10000)));
static uint8_t pending[0x10000] __attribute__((aligned(0x10000)));
static uint8_t properties[0x2000] __attribute__((aligned(0x1000)));
static uint8_t translations[256][256] __attribute__((aligned(256)));
static bool known[256];

// Gives the ITS a command (GIC architecture specification IHI 0069, 5.3), and waits for its end.
static void command(uint64_t a, uint64_t b, uint64_t c) {
    static uint64_t at;
    volatile uint64_t *entry = (volatile uint64_t *)(commands + at);
    entry[0] = a, entry[1] = b, entry[2] = c, entry[3] = 0;
    at = (at + 32) % sizeof commands;
    write64(its + 0x88, at);
    for (uint64_t end = ticks_now() + 10 * ticks_a_second; read64(its + 0x90) != at;)
        if (ticks_now() > end) fail("ITS command", a);
}
enum { MAPD = 8, MAPC = 9, MAPTI = 10, INVALL = 13, SYNC = 5 };
#define VALID (1ull << 63)

uint32_t connect_pin(uint32_t function) {
    const uint32_t pin = config_read(function, 0x3d, 1);
    if (!pin) fail("no pin", function);
    const uint32_t number = FIRST_PIN + ((function >> 3) + pin - 1) % 4;
    write_register(gicd + 0x100 + number / 32 * 4, 1u << number % 32);
    return number;
}
uint32_t reroute(uint32_t function, uint32_t choice) {
    (void)function, (void)choice;
    fail("pins are wired", function);
}
void message_of(uint32_t function, unsigned event, unsigned id, uint64_t *address, uint32_t *data) {
    if (!known[function]) command(MAPD | (uint64_t)function << 32, 4, VALID | (uint64_t)translations[function]);
    known[function] = true;
    command(MAPTI | (uint64_t)function << 32, event | (uint64_t)(FIRST_LPI + id) << 32, 0);
    command(INVALL, 0, 0);
    command(SYNC, 0, 0);
    *address = its + 0x10040;
    *data = event;
}
void connect_messages(uint32_t function, bool msix, unsigned count, unsigned first, uint64_t table) {
    program_messages(function, msix, count, first, table);
}

void interrupt(uint64_t kind) {
    if (kind % 4 != 1) {
        uint64_t cause, where;
        asm("mrs %0, esr_el1; mrs %1, elr_el1" : "=r"(cause), "=r"(where));
        print_number(where & 0xffffffff);
        fail("exception", cause);
    }
    for (;;) {
        uint64_t number;
        asm volatile("mrs %0, s3_0_c12_c12_0; dsb sy" : "=r"(number)); // ICC_IAR1_EL1
        if (number >= 1020 && number < 1024) return;
        if (number >= FIRST_LPI) on_message((unsigned)(number - FIRST_LPI));
        else on_pin((uint32_t)number);
        barrier();
        asm volatile("msr s3_0_c12_c12_1, %0; isb" : : "r"(number)); // ICC_EOIR1_EL1
    }
}

void machine_start(void) {
    asm("mrs %0, cntfrq_el0" : "=r"(ticks_a_second));
    write_register(gicd, 0x10); // affinity routing
    write_register(gicd, 0x12); // group 1
    for (uint32_t n = 1; n < INTERRUPTS / 32; n++) write_register(gicd + 0x80 + n * 4, 0xffffffff);
    for (uint32_t n = 32; n < INTERRUPTS; n += 4) write_register(gicd + 0x400 + n, 0xa0a0a0a0);
    for (uint32_t n = 32; n < INTERRUPTS; n++) write64(gicd + 0x6000 + n * 8, 0);
    write_register(gicr + 0x14, 0); // awake
    while (read_register(gicr + 0x14) & 4);
    // All LPIs are on.
    for (size_t n = 0; n < sizeof properties; n++) properties[n] = 0xa1;
    write64(gicr + 0x70, (uint64_t)properties | 13);
    write64(gicr + 0x78, (uint64_t)pending | 1ull << 62);
    write_register(gicr, 1);
    for (int n = 0; n < 8; n++) {
        const uint64_t base = its + 0x100 + n * 8, kind = read64(base) >> 56 & 7;
        if (kind == 1 || kind == 4) write64(base, VALID | (uint64_t)tables[kind == 4] | 2 << 8);
    }
    write64(its + 0x80, VALID | (uint64_t)commands | 15);
    write64(its + 0x88, 0);
    write_register(its, 1);
    command(MAPC, 0, VALID);
    command(SYNC, 0, 0);
    asm volatile("msr s3_0_c12_c12_5, %0; isb" : : "r"(7ull));     // ICC_SRE_EL1
    asm volatile("msr s3_0_c4_c6_0, %0" : : "r"(0xf0ull));         // ICC_PMR_EL1
    asm volatile("msr s3_0_c12_c12_7, %0; isb" : : "r"(1ull));     // ICC_IGRPEN1_EL1
}
