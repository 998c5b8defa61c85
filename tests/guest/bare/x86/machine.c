// q35: pins end in the 8259s by way of the PIRQs, messages in the local APIC.
#include "../machine.h"

extern char interrupt_entries[];
extern uint32_t multiboot_info;

static inline void out8(uint16_t port, uint8_t v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void out32(uint16_t port, uint32_t v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
static inline uint8_t in8(uint16_t port) {
    uint8_t v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t in32(uint16_t port) {
    uint32_t v;
    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
uint32_t read_register(uint64_t address) { return *(volatile uint32_t *)(uint32_t)address; }
void write_register(uint64_t address, uint32_t value) { *(volatile uint32_t *)(uint32_t)address = value; }

enum { SERIAL = 0x3f8, PIC0 = 0x20, PIC1 = 0xa0, LEVELS = 0x4d0 };
enum { FIRST_PIN = 0x20, FIRST_MESSAGE = 0x50, MESSAGES = 0x40 };
static const uint32_t apic = 0xfee00000;

void print(const char *text) {
    for (; *text; text++) {
        while (!(in8(SERIAL + 5) & 0x20));
        out8(SERIAL, *text);
    }
}
void power_off(void) {
    // The LPC bridge's PMBASE, on; S5.
    const uint32_t bridge = 31 << 3, base = 0x600;
    config_write(bridge, 0x40, 4, base | 1);
    config_write(bridge, 0x44, 1, 0x80);
    asm volatile("cli; outw %w0, %w1; 1: hlt; jmp 1b" : : "a"(0x2000 | 0 << 10), "d"(base + 4));
    __builtin_unreachable();
}
void allow_interrupts(bool on) {
    if (on) asm volatile("sti" : : : "memory");
    else asm volatile("cli" : : : "memory");
}
const char *words(void) {
    const uint32_t *info = (const uint32_t *)multiboot_info;
    return info[0] & 4 ? (const char *)info[4] : "";
}
// The power management timer.
uint64_t ticks_a_second = 3579545;
uint64_t ticks_now(void) {
    static uint32_t last;
    static uint64_t ticks;
    const uint32_t now = in32(0x608);
    ticks += (now - last) & 0xffffff;
    last = now;
    return ticks;
}

static uint32_t select(uint32_t function, uint32_t at) {
    out32(0xcf8, 0x80000000 | function << 8 | (at & 0xfc));
    return 0xcfc + (at & 3);
}
uint32_t config_read(uint32_t function, uint32_t at, unsigned size) {
    const uint16_t port = (uint16_t)select(function, at);
    uint32_t v;
    if (size == 4) return in32(port);
    if (size == 1) return in8(port);
    asm volatile("inw %w1, %w0" : "=a"(v) : "Nd"(port));
    return v & 0xffff;
}
void config_write(uint32_t function, uint32_t at, unsigned size, uint32_t value) {
    const uint16_t port = (uint16_t)select(function, at);
    if (size == 4) out32(port, value);
    else if (size == 1) out8(port, (uint8_t)value);
    else asm volatile("outw %w0, %w1" : : "a"(value), "Nd"(port));
}
uint32_t room(uint32_t size, uint64_t *address) {
    static uint32_t free = 0xf0000000;
    free = (free + size - 1) & -size;
    *address = free;
    free += size;
    return (uint32_t)*address;
}

static uint16_t unmasked = 1 << 2;
static const uint8_t lines[] = {5, 10, 11};
// Pins of devices before 25 are on PIRQE to PIRQH.
static uint32_t pirq_register(uint32_t function) {
    return 0x68 + ((function >> 3) + config_read(function, 0x3d, 1) - 1) % 4;
}
static uint32_t route(uint32_t function, uint32_t choice) {
    const uint32_t bridge = 31 << 3, at = pirq_register(function);
    uint8_t line;
    // Not one that another PIRQ is on.
    for (;; choice++) {
        line = lines[choice % sizeof lines];
        bool taken = false;
        for (uint32_t other = 0x68; other < 0x6c; other++) taken |= other != at && config_read(bridge, other, 1) == line;
        if (!taken && config_read(bridge, at, 1) != line) break;
    }
    config_write(bridge, at, 1, line);
    return line;
}
uint32_t connect_pin(uint32_t function) {
    if (!config_read(function, 0x3d, 1)) fail("no pin", function);
    return route(function, function >> 3);
}
uint32_t reroute(uint32_t function, uint32_t choice) { return route(function, choice); }
void message_of(uint32_t function, unsigned event, unsigned id, uint64_t *address, uint32_t *data) {
    (void)function, (void)event;
    *address = apic;
    *data = FIRST_MESSAGE + id;
}
void connect_messages(uint32_t function, bool msix, unsigned count, unsigned first, uint64_t table) {
    program_messages(function, msix, count, first, table);
}

void interrupt(uint32_t vector) {
    if (vector >= FIRST_MESSAGE && vector < FIRST_MESSAGE + MESSAGES) {
        on_message(vector - FIRST_MESSAGE);
        write_register(apic + 0xb0, 0);
        return;
    }
    if (vector < FIRST_PIN || vector >= FIRST_PIN + 16) fail("exception", vector);
    const uint8_t line = (uint8_t)(vector - FIRST_PIN), bit = (uint8_t)(1 << (line & 7));
    const uint16_t pic = line < 8 ? PIC0 : PIC1;
    if (bit == 0x80) {
        // One that was gone before it was taken is not in service.
        out8(pic, 0x0b);
        if (!(in8(pic) & bit)) {
            if (line > 7) out8(PIC0, 0x20);
            return;
        }
    }
    on_pin(line);
    if (line > 7) out8(PIC1, 0x20);
    out8(PIC0, 0x20);
}

void machine_start(void) {
    static struct {
        uint16_t low, selector, kind, high;
    } table[256] __attribute__((aligned(8)));
    for (int n = 0; n < 256; n++) {
        const uint32_t entry = (uint32_t)interrupt_entries + n * 16;
        table[n].low = (uint16_t)entry, table[n].selector = 8, table[n].kind = 0x8e00, table[n].high = entry >> 16;
    }
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) idt = {sizeof table - 1, (uint32_t)table};
    asm volatile("lidt %0" : : "m"(idt));
    // The power management timer is at PMBASE + 8.
    config_write(31 << 3, 0x40, 4, 0x601);
    config_write(31 << 3, 0x44, 1, 0x80);
    // No PIRQ is on a line yet.
    for (uint32_t n = 0x60; n < 0x6c; n++)
        if ((n & 7) < 4) config_write(31 << 3, n, 1, 0x80);
    static const uint16_t pics[] = {PIC0, PIC1};
    for (int n = 0; n < 2; n++) {
        out8(pics[n], 0x11);
        out8(pics[n] + 1, FIRST_PIN + n * 8);
        out8(pics[n] + 1, n ? 2 : 4);
        out8(pics[n] + 1, 1);
    }
    uint16_t levels = 0;
    for (unsigned n = 0; n < sizeof lines; n++) levels |= 1 << lines[n];
    unmasked |= levels;
    out8(LEVELS, (uint8_t)levels);
    out8(LEVELS + 1, levels >> 8);
    out8(PIC0 + 1, (uint8_t)~unmasked);
    out8(PIC1 + 1, (uint8_t)(~unmasked >> 8));
    // On, without which entries stay masked; the 8259s come in by LINT0.
    write_register(apic + 0xf0, 0x1ff);
    write_register(apic + 0x350, 0x700);
}
