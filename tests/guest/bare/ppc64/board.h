// What bare-metal programs for pseries share: hypercalls, the client interface, RTAS, PCI, a console, interrupts.
#ifndef BOARD_H
#define BOARD_H
#include "../machine.h"

#define FAIL 0xffffffffu
enum {
    H_EOI = 0x64, H_CPPR = 0x68, H_XIRR = 0x74, H_GET_TERM_CHAR = 0x54, H_PUT_TERM_CHAR = 0x58, H_SET_MODE = 0x31c,
    H_REGISTER_PROCESS_TABLE = 0x37c, H_INT_GET_SOURCE_INFO = 0x3a8, H_INT_SET_SOURCE_CONFIG = 0x3ac,
    H_INT_SET_QUEUE_CONFIG = 0x3b8, H_INT_ESB = 0x3c8, H_RTAS = 0xf000, H_CLIENT = 0xf005,
};
enum { MSR_LE = 1, MSR_DR = 0x10, MSR_IR = 0x20, MSR_FP = 0x2000, MSR_EE = 0x8000 };
#define MSR_VEC (1ull << 25)
#define MSR_VSX (1ull << 23)

// What an interrupt has saved, as start.S lays it out.
struct frame {
    uint64_t gpr[32], lr, ctr, cr, xer, srr0, srr1, pad[2];
};
extern struct frame interrupt_frame;
extern char vector_code[], vector_code_end[];
// The program's own: called with external interrupts disabled, on a stack of its own.
void interrupt(uint64_t vector, struct frame *frame);

static inline uint32_t be32(uint32_t v) {
#ifdef __LITTLE_ENDIAN__
    return __builtin_bswap32(v);
#else
    return v;
#endif
}
static inline uint64_t be64(uint64_t v) {
#ifdef __LITTLE_ENDIAN__
    return __builtin_bswap64(v);
#else
    return v;
#endif
}
// Registers of PCI functions are little-endian.
static inline uint32_t le32(uint32_t v) { return __builtin_bswap32(be32(v)); }
static inline uint64_t msr(void) {
    uint64_t v;
    asm volatile("mfmsr %0" : "=r"(v));
    return v;
}
static inline void set_msr(uint64_t v) { asm volatile("mtmsrd %0; isync" : : "r"(v) : "memory"); }
static inline uint64_t ticks(void) {
    uint64_t v;
    asm volatile("mftb %0" : "=r"(v));
    return v;
}
#define TICKS_PER_SECOND 512000000ull
#define TICKS_PER_US 512
// Loads and stores of device registers, in order.
#define SYNC() asm volatile("sync" : : : "memory")
static inline uint32_t read32(uint64_t at) {
    SYNC();
    uint32_t v = le32(*(volatile uint32_t *)at);
    SYNC();
    return v;
}
static inline void write32(uint64_t at, uint32_t v) {
    SYNC();
    *(volatile uint32_t *)at = le32(v);
    SYNC();
}

uint64_t hypercall(uint64_t number, const uint64_t arguments[9], uint64_t values[9]);
#define ARGUMENTS(...) ((const uint64_t[9]){__VA_ARGS__})
int64_t call(uint64_t number, const uint64_t arguments[9]);

// A character from the console, -1: there is none.
int get_char(void);

// A service of the client interface with up to six arguments; the first result.
uint32_t client(const char *service, unsigned arguments, const uint32_t *values);
#define CLIENT(service, ...) \
    client(service, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__})
// An address as an argument; what is there is read and written by the callee.
static inline uint32_t address(const void *p) {
    asm volatile("" : : "r"(p) : "memory");
    return (uintptr_t)p;
}
#define POINTER(p) address(p)
// The value of a property, in at most `size` bytes; the length, FAIL if there is none.
uint32_t property(uint32_t node, const char *name, void *value, uint32_t size);

// An RTAS call; the status, and results behind it.
int32_t rtas(const char *name, unsigned arguments, const uint32_t *values, unsigned results, uint32_t *out);
#define RTAS(name, results, out, ...) \
    rtas(name, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__}, results, out)

// Puts the vectors' code in place, and makes interrupts come in this program's byte order.
void install_vectors(void);
void icache_sync(void *start, size_t size);

// papr.c: makes a range accessible at its own address, before or after translation is on.
void map(uint64_t address, uint64_t size, bool device);
// Radix translation, on.
void translate(void);
enum { XICS, XIVE };
// Negotiates an interrupt controller.
void negotiate(int mode);
// The node of the active controller, which must be of that kind.
uint32_t controller(int mode);
// The first PCI host bridge: its unit, where its window is, and the window's first address on the bus.
extern struct bridge {
    uint64_t buid, window;
    uint32_t bus;
} bridge;
void find_bridge(void);
// Configuration space, by bus << 16 | device << 11 | function << 8 | register; ones where there is no function.
uint32_t read_config(uint32_t at, unsigned size);
void write_config(uint32_t at, unsigned size, uint32_t value);
// The number of the interrupt of INTA; of the first of so many messages, which firmware programs and does not switch on.
uint32_t pin_interrupt(uint32_t function);
uint32_t message_interrupts(uint32_t function, bool msix, uint32_t count);
#endif
