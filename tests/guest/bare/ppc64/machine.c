// pseries on XICS: pins and messages are sources, whose numbers firmware gives.
#include "board.h"

enum { PRIORITY = 5, SOURCES = 64 };
// What each message is, by the number of its interrupt.
static struct {
    uint32_t number;
    unsigned id;
} messages[SOURCES];
static unsigned used;

uint64_t ticks_a_second = TICKS_PER_SECOND;
uint64_t ticks_now(void) { return ticks(); }
uint32_t read_register(uint64_t address) { return read32(address); }
void write_register(uint64_t address, uint32_t value) { write32(address, value); }
// The device and the function of its address are in other places here.
static uint32_t place(uint32_t function) { return function << 8; }
uint32_t config_read(uint32_t function, uint32_t at, unsigned size) { return read_config(place(function) | at, size); }
void config_write(uint32_t function, uint32_t at, unsigned size, uint32_t value) {
    write_config(place(function) | at, size, value);
}
uint32_t room(uint32_t size, uint64_t *address) {
    static uint32_t free = 0x40000000;
    free = (free + size - 1) & -size;
    const uint32_t at = free;
    free += size;
    *address = bridge.window + at;
    map(*address, size, true);
    return bridge.bus + at;
}
static void enable(uint32_t number) {
    if (RTAS("ibm,set-xive", 1, 0, number, 0, PRIORITY)) fail("ibm,set-xive", number);
}
uint32_t connect_pin(uint32_t function) {
    const uint32_t number = pin_interrupt(place(function));
    enable(number);
    return number;
}
void connect_messages(uint32_t function, bool msix, unsigned count, unsigned first, uint64_t table) {
    const uint32_t number = message_interrupts(place(function), msix, count);
    for (unsigned n = 0; n < count; n++) {
        unsigned at = 0;
        while (at < used && messages[at].number != number + n) at++;
        if (at == SOURCES) fail("too many messages", used);
        if (at == used) used++;
        messages[at].number = number + n;
        messages[at].id = first + n;
        enable(number + n);
        // Their masks are the program's.
        if (msix) write_register(table + n * 16 + 12, 0);
    }
}
uint32_t reroute(uint32_t function, uint32_t choice) {
    (void)choice;
    fail("pins are wired", function);
}
void interrupt(uint64_t vector, struct frame *frame) {
    if (vector == 0x900) {
        asm volatile("mtdec %0" : : "r"(0x7fffffffull));
        return;
    }
    if (vector != 0x500) {
        print_number(vector);
        fail("exception at", frame->srr0);
    }
    static uint64_t values[9];
    while (hypercall(H_XIRR, ARGUMENTS(0), values) == 0 && (values[0] & 0xffffff)) {
        const uint64_t xirr = (uint32_t)values[0];
        const uint32_t number = xirr & 0xffffff;
        unsigned at = 0;
        while (at < used && messages[at].number != number) at++;
        if (at < used) on_message(messages[at].id);
        else on_pin(number);
        if (call(H_EOI, ARGUMENTS(xirr))) fail("end of interrupt", xirr);
    }
}

void machine_start(void) {
    install_vectors();
    asm volatile("mtdec %0" : : "r"(0x7fffffffull));
    map(0, 1ull << 30, false);
    negotiate(XICS);
    controller(XICS);
    translate();
    find_bridge();
    call(H_CPPR, ARGUMENTS(0xff));
}
int main(void) { program(); }
