// Translation of addresses, the choice of an interrupt controller, and PCI functions (LoPAPR).
#include "board.h"

// ---- translation: addresses as they are, in pages of 1 GiB ----

static uint64_t process_table[0x10000 / 8] __attribute__((aligned(0x10000)));
static uint64_t root[8192] __attribute__((aligned(0x10000)));
static uint64_t middle[8][512] __attribute__((aligned(4096)));

void map(uint64_t address, uint64_t size, bool device) {
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
void translate(void) {
    if (msr() & MSR_DR) return;
    process_table[2] = be64(2ull << 61 | 5 << 5 | (uintptr_t)root | 13);
    if (call(H_REGISTER_PROCESS_TABLE, ARGUMENTS(0x1d, (uintptr_t)process_table, 0, 4))) fail("process table", 0);
    asm volatile("mtspr 48, %0; isync" : : "r"(1ull)); // PIDR
    set_msr(msr() | MSR_IR | MSR_DR);
}

// ---- negotiation ----

void negotiate(int mode) {
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
uint32_t controller(int mode) {
    char text[64];
    for (uint32_t node = CLIENT("child", CLIENT("finddevice", POINTER("/"))); node; node = CLIENT("peer", node)) {
        if (property(node, "compatible", text, sizeof text) == FAIL) continue;
        if (same(text, mode == XIVE ? "ibm,power-ivpe" : "IBM,ppc-xicp")) return node;
    }
    fail("no such controller in the tree", mode);
}

// ---- PCI ----

struct bridge bridge;
// Routes of pins: address (three cells), pin, controller, number, sense.
static uint32_t lines[32 * 4 * 7], lines_size;

void find_bridge(void) {
    char path[64];
    uint64_t reg[2];
    uint32_t node = CLIENT("child", CLIENT("finddevice", POINTER("/")));
    for (; node; node = CLIENT("peer", node))
        if (property(node, "device_type", path, sizeof path) != FAIL && same(path, "pci")) break;
    if (!node) fail("no PCI host bridge", 0);
    property(node, "reg", reg, sizeof reg);
    bridge.buid = be64(reg[0]);
    // The window of 32-bit memory: space, bus address, address, size.
    static uint32_t ranges[21];
    uint32_t size = property(node, "ranges", ranges, sizeof ranges);
    for (uint32_t i = 0; i + 7 <= size / 4; i += 7)
        if ((be32(ranges[i]) >> 24 & 3) == 2) {
            bridge.bus = be32(ranges[i + 2]);
            bridge.window = (uint64_t)be32(ranges[i + 3]) << 32 | be32(ranges[i + 4]);
        }
    if (!bridge.window) fail("no window", size);
    lines_size = property(node, "interrupt-map", lines, sizeof lines);
}
uint32_t read_config(uint32_t at, unsigned size) {
    uint32_t value;
    if (RTAS("ibm,read-pci-config", 2, &value, at, bridge.buid >> 32, bridge.buid, size)) return FAIL;
    return value;
}
void write_config(uint32_t at, unsigned size, uint32_t value) {
    if (RTAS("ibm,write-pci-config", 1, 0, at, bridge.buid >> 32, bridge.buid, size, value)) fail("configuration", at);
}
uint32_t pin_interrupt(uint32_t function) {
    for (uint32_t i = 0; i + 7 <= lines_size / 4; i += 7)
        if (be32(lines[i]) == function && be32(lines[i + 3]) == 1) return be32(lines[i + 5]);
    fail("no interrupt of the pin of", function);
}
uint32_t message_interrupts(uint32_t function, bool msix, uint32_t count) {
    uint32_t out[2], high = bridge.buid >> 32, low = bridge.buid;
    // What it has is given back first.
    RTAS("ibm,change-msi", 3, out, function, high, low, 1, 0, 1);
    if (RTAS("ibm,change-msi", 3, out, function, high, low, msix ? 4 : 3, count, 1) || out[0] != count) fail("ibm,change-msi", count);
    if (RTAS("ibm,query-interrupt-source-number", 3, out, function, high, low, 0)) fail("source number", function);
    return out[0];
}
