// Writes all of a piece of memory again and again, and each time looks whether what it has written before is there: a machine that is
// moved, saved or restored meanwhile must not lose a byte. Also that time goes on and never back. Words of the command line:
//   from=N   address of the memory (64 MiB behind the start of RAM)
//   mib=N    its size (16)
#include "machine.h"


static uint64_t value(uint64_t place, uint64_t turn) {
    uint64_t x = (place + 1) * 0x9e3779b97f4a7c15 ^ turn * 0xc2b2ae3d27d4eb4f;
    x ^= x >> 29;
    return x * 0xbf58476d1ce4e5b9;
}

// It looks at no functions.
uint32_t capability(uint32_t function, uint8_t id) {
    return function & id & 0;
}
void on_pin(uint32_t number) {
    fail("an interrupt came from", number);
}
void on_message(unsigned id) {
    fail("a message came from", id);
}

void program(void) {
    machine_start();
    volatile uint64_t *const memory = (volatile uint64_t *)(uintptr_t)number_in(words(), "from", 0);
    const uint64_t count = number_in(words(), "mib", 16) << 17;
    uint64_t last = ticks_now();
    for (uint64_t turn = 0;; turn++) {
        for (uint64_t i = 0; i < count; i++) {
            if (turn && memory[i] != value(i, turn - 1)) fail("wrong word", i);
            memory[i] = value(i, turn);
        }
        const uint64_t now = ticks_now();
        if (now < last) fail("time went back", last - now);
        last = now;
        print("turn ");
        print_number(turn);
        print("\r\n");
    }
}
