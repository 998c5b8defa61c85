// Changes of interrupt controllers under load. One `edu` device interrupts by its pin, another one by messages, each again as soon as
// its last interrupt was handled; meanwhile the program negotiates XICS and XIVE in turn, some times through a reset of the machine.
// An interrupt that is lost, stuck or doubled ends it. For -M pseries,x-vof=on -device edu,addr=4 -device edu,addr=5.
#include "board.h"

enum { CHANGES = 100, RESET_EACH = 4, HOLDS = 2 };
enum { PIN, MESSAGE, DEVICES };
enum { XICS, XIVE };
static const char *const names[] = {"XICS", "XIVE"};

// What outlasts resets: memory behind all that the machine loads.
struct memory {
    uint64_t magic, changes, resets, random;
    uint64_t started[DEVICES], handled[DEVICES];
    uint32_t mode;
};
#define MEMORY ((volatile struct memory *)0x10000000)
#define MAGIC 0x726865612d697271ull

static struct {
    uint32_t config;    // configuration address
    uint64_t registers; // address
    uint32_t irq;
} device[DEVICES];
static uint64_t buid;

// ---- translation: addresses as they are, in pages of 1 GiB ----

static uint64_t process_table[0x10000 / 8] __attribute__((aligned(0x10000)));
static uint64_t root[8192] __attribute__((aligned(0x10000)));
static uint64_t middle[8][512] __attribute__((aligned(4096)));

static void map(uint64_t address, uint64_t size, bool device) {
    static unsigned used;
    for (uint64_t page = address >> 30; page <= (address + size - 1) >> 30; page++) {
        uint64_t *entry = &root[page >> 9];
        if (!*entry) {
            if (used == 8) fail("tables", used);
            *entry = be64(1ull << 63 | (uintptr_t)middle[used++] | 9);
        }
        uint64_t *table = (uint64_t *)(uintptr_t)(be64(*entry) & 0x0fffffffffffff00);
        table[page & 511] = be64(3ull << 62 | page << 30 | 0x180 | (device ? 0x2e : 0xf));
    }
    SYNC();
}
static void translate(void) {
    if (msr() & MSR_DR) return;
    process_table[2] = be64(2ull << 61 | 5 << 5 | (uintptr_t)root | 13);
    if (call(H_REGISTER_PROCESS_TABLE, ARGUMENTS(0x1d, (uintptr_t)process_table, 0, 4))) fail("process table", 0);
    asm volatile("mtspr 48, %0; isync" : : "r"(1ull)); // PIDR
    set_msr(msr() | MSR_IR | MSR_DR);
}

// ---- negotiation ----

static void negotiate(int mode) {
    static struct {
        uint32_t versions[6];
        uint8_t vectors[41];
    } __attribute__((packed)) wishes = {
        // ISA 3.1, 3.0; the last one.
        .versions = {},
        // Five vectors, each one less than its length; the fifth of 26 bytes.
        .vectors = {4, 0, 0, 0, 0, 0, 0, 0, 0, 25},
    };
    const uint32_t versions[] = {FAIL, 0x0f000006, FAIL, 0x0f000005, 0xfffffffe, 0x0f000001};
    for (int i = 0; i < 6; i++) wishes.versions[i] = be32(versions[i]);
    uint8_t *fifth = wishes.vectors + 9;
    fifth[23] = mode == XIVE ? 0x40 : 0;
    fifth[24] = 0x40; // radix
    fifth[26] = 0x40; // translations are invalidated by the guest
    uint32_t instance = CLIENT("open", POINTER("/"));
    if (CLIENT("call-method", POINTER("ibm,client-architecture-support"), instance, POINTER(&wishes)))
        fail("negotiation", mode);
    CLIENT("close", instance);
}
// The node of the active controller, which must be of that kind.
static uint32_t controller(int mode) {
    char text[64];
    for (uint32_t node = CLIENT("child", CLIENT("finddevice", POINTER("/"))); node; node = CLIENT("peer", node)) {
        if (property(node, "compatible", text, sizeof text) == FAIL) continue;
        if (same(text, mode == XIVE ? "ibm,power-ivpe" : "IBM,ppc-xicp")) return node;
    }
    fail("no such controller in the tree", mode);
}

// ---- controllers ----

enum { PRIORITY = 5, QUEUE_SHIFT = 16 };
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
        (void)*(volatile uint64_t *)(xive.management[i] + 0xc00);
    }
}

// ---- devices ----

enum { FACTORIAL = 0x08, STATUS = 0x20, CAUSE = 0x24, ACKNOWLEDGE = 0x64 };

static uint32_t read_config(uint32_t at, unsigned size) {
    uint32_t value;
    if (RTAS("ibm,read-pci-config", 2, &value, at, buid >> 32, buid, size)) fail("configuration", at);
    return value;
}
static void write_config(uint32_t at, unsigned size, uint32_t value) {
    if (RTAS("ibm,write-pci-config", 1, 0, at, buid >> 32, buid, size, value)) fail("configuration", at);
}
// Asks for an interrupt, soon.
static void start(int n) {
    MEMORY->started[n]++;
    write32(device[n].registers + FACTORIAL, 5);
}
static void handle(int n) {
    uint32_t cause = read32(device[n].registers + CAUSE);
    if (!cause) fail(n == PIN ? "pin: an interrupt too many" : "message: an interrupt too many", MEMORY->changes);
    write32(device[n].registers + ACKNOWLEDGE, cause);
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
            start(n);
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
        if (xive.flags[n] & 1) *(volatile uint64_t *)(xive.management[n] + 0x400) = 0;
        else if (*(volatile uint64_t *)xive.management[n]) fail("an interrupt too many", n);
        SYNC();
        start(n);
    }
    *(volatile uint8_t *)(xive.tima + 0x11) = 0xff;
    SYNC();
}

// ---- the program ----

static void find_devices(void) {
    char path[64];
    uint64_t reg[2];
    uint32_t node = CLIENT("child", CLIENT("finddevice", POINTER("/")));
    for (; node; node = CLIENT("peer", node))
        if (property(node, "device_type", path, sizeof path) != FAIL && same(path, "pci")) break;
    if (!node) fail("no PCI host bridge", 0);
    property(node, "reg", reg, sizeof reg);
    buid = be64(reg[0]);
    // The window of 32-bit memory: space, bus address, address, size.
    static uint32_t ranges[21], lines[32 * 4 * 7];
    uint32_t size = property(node, "ranges", ranges, sizeof ranges);
    uint64_t window = 0, bus = 0;
    for (uint32_t i = 0; i + 7 <= size / 4; i += 7)
        if ((be32(ranges[i]) >> 24 & 3) == 2)
            bus = be32(ranges[i + 2]), window = (uint64_t)be32(ranges[i + 3]) << 32 | be32(ranges[i + 4]);
    if (!window) fail("no window", size);
    size = property(node, "interrupt-map", lines, sizeof lines);
    for (int n = 0; n < DEVICES; n++) {
        device[n].config = (4 + n) << 11;
        if (read_config(device[n].config, 4) != 0x11e81234) fail("no edu device at", 4 + n);
        // Its registers in a megabyte of the window; memory and bus mastering on.
        const uint64_t at = 0x40000000 + n * 0x100000;
        write_config(device[n].config | 0x10, 4, bus + at);
        write_config(device[n].config | 4, 2, 6);
        device[n].registers = window + at;
        map(window + at, 0x100000, true);
    }
    for (uint32_t i = 0; i + 7 <= size / 4; i += 7)
        if (be32(lines[i]) == device[PIN].config && be32(lines[i + 3]) == 1) device[PIN].irq = be32(lines[i + 5]);
    // One message: the platform chooses its number and tells the device.
    uint32_t out[2], config = device[MESSAGE].config, high = buid >> 32, low = buid;
    if (RTAS("ibm,change-msi", 3, out, config, high, low, 1, 1, 1) || out[0] != 1) fail("ibm,change-msi", 0);
    if (RTAS("ibm,query-interrupt-source-number", 3, out, config, high, low, 0)) fail("source number", 0);
    device[MESSAGE].irq = out[0];
    for (uint32_t at = read_config(config | 0x34, 1); at; at = read_config(config | (at + 1), 1))
        if (read_config(config | at, 1) == 5) write_config(config | (at + 2), 2, read_config(config | (at + 2), 2) | 1);
    if (!device[PIN].irq || !device[MESSAGE].irq) fail("interrupt numbers", device[PIN].irq);
}

static uint64_t random_below(uint64_t n) {
    uint64_t x = MEMORY->random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    MEMORY->random = x;
    return x % n;
}
static void spin(uint64_t t) {
    for (uint64_t end = ticks() + t; ticks() < end;);
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
    print("\r\n");
}

int main(void) {
    install_vectors();
    asm volatile("mtdec %0" : : "r"(0x7fffffffull));
    if (MEMORY->magic != MAGIC) {
        *(struct memory *)MEMORY = (struct memory){.magic = MAGIC, .random = 88172645463325252, .mode = XICS};
        print("RHEA-BARE START\r\n");
    }
    map(0, 1ull << 30, false);
    find_devices();
    const int mode = MEMORY->mode;
    begin(mode);
    // What was on its way before a reset is gone with the device; nothing is left of it.
    for (int n = 0; n < DEVICES; n++) MEMORY->started[n] = MEMORY->handled[n];
    set_msr(msr() | MSR_EE);
    spin(200 * TICKS_PER_US);
    set_msr(msr() & ~(uint64_t)MSR_EE);
    for (int n = 0; n < DEVICES; n++) {
        write32(device[n].registers + STATUS, 0x80);
        start(n);
    }
    set_msr(msr() | MSR_EE);
    for (;;) {
        await(MEMORY->changes % 3 ? 1 + random_below(20) : 1);
        if (MEMORY->changes < HOLDS) hold();
        if (MEMORY->changes == CHANGES) break;
        if (MEMORY->changes % 10 == 0) report("RHEA-BARE at");
        // Anywhere between an interrupt's handling and its successor's delivery.
        spin(random_below(4 * TICKS_PER_US));
        set_msr(msr() & ~(uint64_t)MSR_EE);
        spin(random_below(4 * TICKS_PER_US));
        const int next = MEMORY->mode == XICS ? XIVE : XICS;
        MEMORY->changes++;
        if (MEMORY->changes % RESET_EACH == 0) {
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
