// Changes of interrupt controllers under load. One `edu` device interrupts by its pin, another one by messages, each again as soon as
// its last interrupt was handled; meanwhile the program negotiates XICS and XIVE in turn, some times through a reset of the machine.
// An interrupt that is lost, stuck or doubled ends it. For -M pseries,x-vof=on -device edu,addr=4 -device edu,addr=5. Words of the
// command line:
//   changes=N  so many changes (100)
//   each=N     every so many changes it is through a reset (4)
//   holds=N    after the first so many it waits for a character (2)
//   quiet=1    what a device was at is stopped after a reset, for those whose registers outlast it, as assigned ones can (0)
#include "board.h"

enum { PIN, MESSAGE, DEVICES };
static const char *const names[] = {"XICS", "XIVE"};

// What outlasts resets: memory behind all that the machine loads.
struct memory {
    uint64_t magic, changes, resets, random;
    uint64_t started[DEVICES], handled[DEVICES], settled;
    uint32_t mode;
};
#define MEMORY ((volatile struct memory *)0x10000000)
#define MAGIC 0x726865612d697271ull

static struct {
    uint32_t config;    // configuration address
    uint64_t registers; // address
    uint32_t irq, asked;
    bool swapped; // registers of QEMU's are in the order of the processor that it emulates
} device[DEVICES];

// ---- controllers ----

enum { PRIORITY = 5, QUEUE_SHIFT = 16 };
// Flags of a source.
enum { STORE_EOI = 1, BY_HYPERCALL = 8 };
static uint32_t queue[1 << (QUEUE_SHIFT - 2)] __attribute__((aligned(1 << QUEUE_SHIFT)));
static struct {
    uint32_t at, generation;
    uint64_t management[DEVICES], flags[DEVICES];
    uint64_t tima;
} xive;

static void start_xics(void) {
    controller(XICS);
    for (int i = 0; i < DEVICES; i++)
        if (RTAS("ibm,set-xive", 1, 0, device[i].irq, 0, PRIORITY)) fail("ibm,set-xive", device[i].irq);
    call(H_CPPR, ARGUMENTS(0xff));
}
// A load from the management page of a source, or as the platform wants it: the hypercall looks at its level too.
static uint64_t manage(int n, uint64_t offset) {
    static uint64_t values[9];
    if (!(xive.flags[n] & BY_HYPERCALL)) return *(volatile uint64_t *)(xive.management[n] + offset);
    if (hypercall(H_INT_ESB, ARGUMENTS(0, device[n].irq, offset), values)) fail("H_INT_ESB", n);
    return values[0];
}
static void start_xive(void) {
    uint64_t reg[4];
    if (property(controller(XIVE), "reg", reg, sizeof reg) != sizeof reg) fail("reg", 0);
    xive.tima = be64(reg[2]); // the OS's page
    map(xive.tima, be64(reg[3]), true);
    for (size_t i = 0; i < sizeof queue / 4; i++) queue[i] = 0;
    xive.at = 0, xive.generation = 1;
    if (call(H_INT_SET_QUEUE_CONFIG, ARGUMENTS(1, 0, PRIORITY, (uintptr_t)queue, QUEUE_SHIFT))) fail("queue", 0);
    *(volatile uint8_t *)(xive.tima + 0x11) = 0xff;
    for (int i = 0; i < DEVICES; i++) {
        static uint64_t info[9];
        if (hypercall(H_INT_GET_SOURCE_INFO, ARGUMENTS(0, device[i].irq), info)) fail("source", device[i].irq);
        xive.flags[i] = info[0], xive.management[i] = info[1];
        map(info[1], 1ull << info[3], true);
        if (call(H_INT_SET_SOURCE_CONFIG, ARGUMENTS(2, device[i].irq, 0, PRIORITY, i))) fail("source", device[i].irq);
        // P and Q off.
        manage(i, 0xc00);
    }
}

// ---- devices ----

enum { FACTORIAL = 0x08, STATUS = 0x20, CAUSE = 0x24, ACKNOWLEDGE = 0x64 };
// Of the status: it computes; it interrupts when it is done.
enum { COMPUTES = 1, INTERRUPTS = 0x80 };
// After a reset, until devices are used: interrupts of what they did before are taken.
static bool settling;

static uint32_t get(int n, uint32_t at) {
    const uint32_t v = read32(device[n].registers + at);
    return device[n].swapped ? __builtin_bswap32(v) : v;
}
static void put(int n, uint32_t at, uint32_t v) {
    write32(device[n].registers + at, device[n].swapped ? __builtin_bswap32(v) : v);
}
// Asks for an interrupt, soon: a factorial, of another number each time.
static void start(int n) {
    MEMORY->started[n]++;
    device[n].asked = 3 + (device[n].asked + 1) % 8;
    put(n, FACTORIAL, device[n].asked);
}
// The first access takes the cause back: a level that is looked at again after it is down. An interrupt too many finds another number's
// factorial, or none yet.
static void handle(int n) {
    put(n, ACKNOWLEDGE, 1);
    if (settling) {
        MEMORY->settled++;
        return;
    }
    uint32_t cause = get(n, CAUSE), factorial = 1;
    if (cause) fail(n == PIN ? "pin: the cause stays" : "message: the cause stays", MEMORY->changes);
    for (uint32_t factor = 2; factor <= device[n].asked; factor++) factorial *= factor;
    if (get(n, FACTORIAL) != factorial)
        fail(n == PIN ? "pin: an interrupt too many" : "message: an interrupt too many", MEMORY->changes);
    MEMORY->handled[n]++;
    if (MEMORY->handled[n] != MEMORY->started[n]) fail("an interrupt nobody asked for", MEMORY->changes);
}

void interrupt(uint64_t vector, struct frame *frame) {
    if (vector == 0x900) {
        asm volatile("mtdec %0" : : "r"(0x7fffffffull));
        return;
    }
    if (vector != 0x500) {
        print("RHEA-BARE exception ");
        print_number(vector);
        fail("exception at", frame->srr0);
    }
    if (MEMORY->mode == XICS) {
        static uint64_t values[9];
        while (hypercall(H_XIRR, ARGUMENTS(0), values) == 0 && (values[0] & 0xffffff)) {
            uint64_t xirr = (uint32_t)values[0];
            int n = 0;
            while (n < DEVICES && device[n].irq != (xirr & 0xffffff)) n++;
            if (n == DEVICES) fail("interrupt of nobody", xirr & 0xffffff);
            handle(n);
            if (call(H_EOI, ARGUMENTS(xirr))) fail("end of interrupt", xirr);
            if (!settling) start(n);
        }
        return;
    }
    uint16_t acknowledged = *(volatile uint16_t *)(xive.tima + 0x810);
    SYNC();
#ifdef __LITTLE_ENDIAN__
    acknowledged = __builtin_bswap16(acknowledged);
#endif
    if (!(acknowledged & 0x8000)) fail("interrupt without notification", acknowledged);
    if ((acknowledged & 0xff) != PRIORITY) fail("priority", acknowledged & 0xff);
    for (;;) {
        uint32_t entry = be32(*(volatile uint32_t *)&queue[xive.at]);
        if (entry >> 31 != xive.generation) break;
        if (++xive.at == sizeof queue / 4) xive.at = 0, xive.generation ^= 1;
        uint32_t n = entry & 0x7fffffff;
        if (n >= DEVICES) fail("interrupt of nobody", n);
        handle(n);
        // By store where that is offered, else by load, with another one if one came meanwhile.
        SYNC();
        const bool by_store = (xive.flags[n] & (STORE_EOI | BY_HYPERCALL)) == STORE_EOI;
        if (by_store) *(volatile uint64_t *)(xive.management[n] + 0x400) = 0;
        else if (manage(n, 0) && !settling) fail("an interrupt too many", n);
        SYNC();
        if (!settling) start(n);
    }
    *(volatile uint8_t *)(xive.tima + 0x11) = 0xff;
    SYNC();
}

// ---- the program ----

static void spin(uint64_t t) {
    for (uint64_t end = ticks() + t; ticks() < end;);
}
// Stops what a device was at.
static void quiet(int n) {
    put(n, STATUS, 0);
    while (get(n, STATUS) & COMPUTES);
    // It may just be about to interrupt.
    spin(5000 * TICKS_PER_US);
    put(n, ACKNOWLEDGE, 0xffffffff);
}
static void find_devices(bool stop) {
    find_bridge();
    for (int n = 0; n < DEVICES; n++) {
        device[n].config = (4 + n) << 11;
        if (read_config(device[n].config, 4) != 0x11e81234) fail("no edu device at", 4 + n);
        // Its registers in a megabyte of the window; memory and bus mastering on.
        const uint64_t at = 0x40000000 + n * 0x100000;
        write_config(device[n].config | 0x10, 4, bridge.bus + at);
        write_config(device[n].config | 4, 2, 6);
        device[n].registers = bridge.window + at;
        map(bridge.window + at, 0x100000, true);
        device[n].swapped = read32(device[n].registers) == 0xed000001;
        if (stop) quiet(n);
    }
    device[PIN].irq = pin_interrupt(device[PIN].config);
    // One message: the platform chooses its number and tells the device.
    const uint32_t config = device[MESSAGE].config;
    device[MESSAGE].irq = message_interrupts(config, false, 1);
    for (uint32_t at = read_config(config | 0x34, 1); at; at = read_config(config | (at + 1), 1))
        if (read_config(config | at, 1) == 5) write_config(config | (at + 2), 2, read_config(config | (at + 2), 2) | 1);
}

static uint64_t random_below(uint64_t n) {
    uint64_t x = MEMORY->random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    MEMORY->random = x;
    return x % n;
}
// With interrupts disabled: the controller as the guest needs it.
static void begin(int mode) {
    negotiate(mode);
    translate();
    MEMORY->mode = mode;
    if (mode == XICS) start_xics();
    else start_xive();
}
// Until each device was served so many times more.
static void await(uint64_t times) {
    for (int n = 0; n < DEVICES; n++) {
        uint64_t goal = MEMORY->handled[n] + times, end = ticks() + 20 * TICKS_PER_SECOND;
        while (MEMORY->handled[n] < goal)
            if (ticks() > end) fail(n == PIN ? "pin: lost after change" : "message: lost after change", MEMORY->changes);
    }
}
// The test on the host looks at the controllers now.
static void hold(void) {
    print("RHEA-BARE HOLD ");
    print(names[MEMORY->mode]);
    print("\r\n");
    while (get_char() < 0);
}
static void report(const char *word) {
    print(word);
    print(" changes=");
    print_number(MEMORY->changes);
    print(" resets=");
    print_number(MEMORY->resets);
    print(" pin=");
    print_number(MEMORY->handled[PIN]);
    print(" message=");
    print_number(MEMORY->handled[MESSAGE]);
    print(" left-over=");
    print_number(MEMORY->settled);
    print("\r\n");
}

int main(void) {
    const uint64_t changes = number_in(words(), "changes", 100), each = number_in(words(), "each", 4);
    const uint64_t holds = number_in(words(), "holds", 2);
    const bool stop = number_in(words(), "quiet", 0);
    install_vectors();
    asm volatile("mtdec %0" : : "r"(0x7fffffffull));
    if (MEMORY->magic != MAGIC) {
        *(struct memory *)MEMORY = (struct memory){.magic = MAGIC, .random = 88172645463325252, .mode = XICS};
        print("RHEA-BARE START\r\n");
    }
    map(0, 1ull << 30, false);
    find_devices(stop);
    const int mode = MEMORY->mode;
    begin(mode);
    // What was on its way before a reset is gone with the device; nothing is left of it.
    for (int n = 0; n < DEVICES; n++) MEMORY->started[n] = MEMORY->handled[n];
    settling = stop;
    set_msr(msr() | MSR_EE);
    spin((stop ? 20000 : 200) * TICKS_PER_US);
    set_msr(msr() & ~(uint64_t)MSR_EE);
    settling = false;
    for (int n = 0; n < DEVICES; n++) {
        put(n, STATUS, INTERRUPTS);
        start(n);
    }
    set_msr(msr() | MSR_EE);
    for (;;) {
        await(MEMORY->changes % 3 ? 1 + random_below(20) : 1);
        if (MEMORY->changes < holds) hold();
        if (MEMORY->changes == changes) break;
        if (MEMORY->changes % 10 == 0) report("RHEA-BARE at");
        // Anywhere between an interrupt's handling and its successor's delivery.
        spin(random_below(4 * TICKS_PER_US));
        set_msr(msr() & ~(uint64_t)MSR_EE);
        spin(random_below(4 * TICKS_PER_US));
        const int next = MEMORY->mode == XICS ? XIVE : XICS;
        MEMORY->changes++;
        if (MEMORY->changes % each == 0) {
            MEMORY->resets++;
            MEMORY->mode = next;
            RTAS("system-reboot", 1, 0, 0);
            for (;;);
        }
        begin(next);
        set_msr(msr() | MSR_EE);
    }
    set_msr(msr() & ~(uint64_t)MSR_EE);
    report("RHEA-BARE PASS");
    MEMORY->magic = 0;
    power_off();
}
