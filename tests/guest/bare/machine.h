// What each board does for programs that are the same on all of them.
#ifndef MACHINE_H
#define MACHINE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// text.c; what compilers call too.
void *memset(void *to, int byte, size_t n);
void *memcpy(void *to, const void *from, size_t n);
void print_number(uint64_t n);
bool same(const char *a, const char *b);
// The number behind `name=` in a text, or another one if there is none.
uint64_t number_in(const char *text, const char *name, uint64_t otherwise);

// The board's: interrupts are disabled where they are called.
void print(const char *text);
void power_off(void) __attribute__((noreturn));
// Says why, and ends the machine.
void fail(const char *why, uint64_t number) __attribute__((noreturn));
// Before anything else here; interrupts come after it only when they are allowed.
void machine_start(void);
// The kernel's command line.
const char *words(void);
void allow_interrupts(bool on);
// Counts up, by so much a second.
uint64_t ticks_now(void);
extern uint64_t ticks_a_second;

// Configuration space of a function (device << 3 | function) of the first bus: 1, 2 or 4 bytes.
uint32_t config_read(uint32_t function, uint32_t at, unsigned size);
void config_write(uint32_t function, uint32_t at, unsigned size, uint32_t value);
// Room for a BAR: the address on the bus, and the processor's.
uint32_t room(uint32_t size, uint64_t *address);
uint32_t read_register(uint64_t address);
void write_register(uint64_t address, uint32_t value);

// Makes INTA of a function interrupt; the number that `on_pin` is called with.
uint32_t connect_pin(uint32_t function);
// Makes so many messages of MSI or MSI-X interrupt, without switching them on; `on_message` is called with `first` and what follows it.
// MSI-X tables are at `table`.
void connect_messages(uint32_t function, bool msix, unsigned count, unsigned first, uint64_t table);
// Pins end somewhere else from now on, if this board can do that; the new number of the function's.
uint32_t reroute(uint32_t function, uint32_t choice);

// messages.c, where no firmware does it: programs them; the board says what a message is.
void message_of(uint32_t function, unsigned event, unsigned id, uint64_t *address, uint32_t *data);
void program_messages(uint32_t function, bool msix, unsigned count, unsigned first, uint64_t table);

// The program's.
// The offset of a capability of a function, 0: there is none.
uint32_t capability(uint32_t function, uint8_t id);
void on_pin(uint32_t number);
void on_message(unsigned id);
void program(void) __attribute__((noreturn));
#endif
