// The life of an interrupt: INTx, MSI, INTx, MSI-X, INTx, and so on, of each `edu` and `e1000e` on the first bus, with interrupts asked
// for in each state. One that is lost, doubled or comes the wrong way ends the program. Words of the command line:
//   rounds=N    so often through all states (1000)
//   raises=N    so many interrupts in each state (3)
//   across=N    each so many rounds an interrupt is pending while MSI goes on and off (4; 0: never, for devices whose pin is not up
//               again after that, as QEMU's)
//   echoes=1    a message of e1000e may be sent again when its throttling timer ends, as QEMU's does; else it is one too many
//   reroutes=N  at last INTA ends somewhere else so often, while it interrupts, on boards where it can
#include "machine.h"

enum { DEVICES = 4, BARS = 6 };
enum { MSI = 5, MSIX = 0x11 };
enum way { PIN, MESSAGE, MESSAGES };
static const char *const ways[] = {"INTx", "MSI", "MSI-X"};

static struct device {
    uint32_t function, line, msi, msix;
    // Registers of QEMU's `edu` are in the order of the processor that it emulates.
    bool edu, swapped;
    uint64_t registers, table;
    // Vectors of MSI-X.
    unsigned vectors;
    volatile enum way way;
    volatile uint32_t started, handled, vector, echoes;
    uint64_t total[3];
} devices[DEVICES];
static unsigned count;
// Where the program is, for what it says when it fails.
static uint32_t turn;
static bool echoes;

// edu: raises the causes that are written, and takes them back.
enum { EDU_CAUSES = 0x24, EDU_RAISE = 0x60, EDU_ACKNOWLEDGE = 0x64 };
// 82574, 10.2.4: causes are set by ICS, cleared by reading ICR, masked by IMS and IMC. IVAR gives vectors to the causes of queues;
// EIAC has those that are cleared when their message is sent.
enum { CTRL_EXT = 0x18, ICR = 0xc0, ICS = 0xc8, IMS = 0xd0, IMC = 0xd8, EIAC = 0xdc, IVAR = 0xe4, RCTL = 0x100 };
// Transmit descriptor written back; the causes of two receive and two transmit queues.
enum { TXDW = 1, QUEUE_CAUSES = 20, QUEUES = 4 };

static void stop(const struct device *d, const char *why) {
    print(d->edu ? "edu " : "e1000e ");
    print(ways[d->way]);
    print(", asked for ");
    print_number(d->started);
    print(", got ");
    print_number(d->handled);
    print("\r\n");
    fail(why, turn);
}
static uint32_t edu_read(const struct device *d, uint32_t at) {
    const uint32_t v = read_register(d->registers + at);
    return d->swapped ? __builtin_bswap32(v) : v;
}
static void edu_write(const struct device *d, uint32_t at, uint32_t v) {
    write_register(d->registers + at, d->swapped ? __builtin_bswap32(v) : v);
}
static void causes_of(const struct device *d) {
    if (d->edu) return;
    write_register(d->registers + IMC, 0xffffffff);
    read_register(d->registers + ICR);
    const bool queues = d->way == MESSAGES;
    write_register(d->registers + IVAR, queues ? 0xba98 : 0);
    write_register(d->registers + EIAC, queues ? 15 << QUEUE_CAUSES : 0);
    write_register(d->registers + IMS, queues ? 15 << QUEUE_CAUSES : TXDW);
}
static void raise(struct device *d) {
    d->started++;
    if (d->way == MESSAGES && echoes) d->echoes++;
    if (d->edu) edu_write(d, EDU_RAISE, 1);
    else write_register(d->registers + ICS, d->way == MESSAGES ? 1u << (QUEUE_CAUSES + d->vector) : TXDW);
}
// The first access takes the cause back: a level that is looked at again after it is down.
static void handle(struct device *d) {
    bool more;
    if (d->edu) {
        edu_write(d, EDU_ACKNOWLEDGE, 1);
        more = edu_read(d, EDU_CAUSES);
    } else if (d->way == MESSAGES) {
        more = false;
    } else {
        if (!(read_register(d->registers + ICR) & TXDW)) {
            if (echoes) return;
            stop(d, "an interrupt without cause");
        }
        more = read_register(d->registers + ICR) & TXDW;
    }
    if (more) stop(d, "the cause stays");
    d->handled++;
    d->total[d->way]++;
    if (d->handled > d->started) stop(d, "an interrupt too many");
}
void on_pin(uint32_t line) {
    bool found = false;
    for (unsigned n = 0; n < count; n++) {
        struct device *d = &devices[n];
        if (d->line != line) continue;
        found = true;
        if (d->way != PIN) stop(d, "the pin interrupts");
        handle(d);
    }
    if (!found) fail("pin of nobody", line);
}
void on_message(unsigned id) {
    struct device *d = &devices[id / 8];
    // In the one of MSI an echo is one that has no cause.
    const bool message = d->way == MESSAGE && id % 8 == 0;
    if (id / 8 < count && d->echoes && !message && (d->way != MESSAGES || id % 8 != d->vector || d->handled == d->started)) {
        d->echoes--;
        return;
    }
    if (id / 8 >= count || d->way == PIN || (d->way == MESSAGE && id % 8)) fail("message of nobody", id);
    if (d->way == MESSAGES && id % 8 != d->vector) stop(d, "another vector's message");
    handle(d);
}

static void await(struct device *d) {
    const uint64_t end = ticks_now() + 30 * ticks_a_second;
    while (d->handled != d->started)
        if (ticks_now() > end) stop(d, "an interrupt is lost");
}
static void idle(unsigned turns) {
    for (volatile unsigned n = 0; n < turns; n++);
}
static void burst(struct device *d, unsigned raises) {
    for (unsigned n = 0; n < raises; n++) {
        raise(d);
        await(d);
        // Each vector in turn.
        if (d->way == MESSAGES) d->vector = (d->vector + 1) % d->vectors;
    }
    idle(100);
}
static void change(struct device *d, enum way way) {
    const enum way old = d->way;
    allow_interrupts(false);
    if (old == MESSAGE) config_write(d->function, d->msi + 2, 2, config_read(d->function, d->msi + 2, 2) & ~1u);
    if (old == MESSAGES) config_write(d->function, d->msix + 2, 2, config_read(d->function, d->msix + 2, 2) & 0x3fff);
    d->way = way;
    if (way == MESSAGE) {
        connect_messages(d->function, false, 1, (unsigned)(d - devices) * 8, 0);
        config_write(d->function, d->msi + 2, 2, (config_read(d->function, d->msi + 2, 2) & ~0x70u) | 1);
    }
    if (way == MESSAGES) {
        connect_messages(d->function, true, d->vectors, (unsigned)(d - devices) * 8, d->table);
        config_write(d->function, d->msix + 2, 2, (config_read(d->function, d->msix + 2, 2) & 0x3fff) | 0x8000);
    }
    causes_of(d);
    allow_interrupts(true);
}
// A level that nobody has served is there again when messages are off.
static void across(struct device *d) {
    allow_interrupts(false);
    raise(d);
    const uint32_t control = config_read(d->function, d->msi + 2, 2);
    config_write(d->function, d->msi + 2, 2, control | 1);
    config_write(d->function, d->msi + 2, 2, control & ~1u);
    allow_interrupts(true);
    await(d);
}

uint32_t capability(uint32_t function, uint8_t id) {
    for (uint32_t at = config_read(function, 0x34, 1), n = 0; at && n < 48; at = config_read(function, at + 1, 1), n++)
        if (config_read(function, at, 1) == id) return at;
    return 0;
}
static void find(void) {
    for (uint32_t function = 0; function < 256 && count < DEVICES; function += 8) {
        const uint32_t id = config_read(function, 0, 4);
        if (id != 0x11e81234 && id != 0x10d38086) continue;
        struct device *d = &devices[count++];
        d->function = function;
        d->edu = id == 0x11e81234;
        uint64_t bars[BARS] = {0};
        for (unsigned bar = 0; bar < BARS; bar++) {
            const uint32_t at = 0x10 + bar * 4;
            config_write(function, at, 4, 0xffffffff);
            const uint32_t mask = config_read(function, at, 4);
            // Ports stay off.
            if (!mask || mask & 1) continue;
            config_write(function, at, 4, room(~(mask & ~15u) + 1, &bars[bar]));
        }
        config_write(function, 4, 2, 6);
        d->registers = bars[0];
        d->msi = capability(function, MSI);
        d->msix = capability(function, MSIX);
        if (!d->msi) fail("no MSI", function);
        if (d->msix) {
            const uint32_t table = config_read(function, d->msix + 4, 4);
            d->table = bars[table & 7] + (table & ~7u);
            d->vectors = QUEUES;
        }
        if (d->edu) d->swapped = read_register(d->registers) == 0xed000001;
        if (d->edu && edu_read(d, 0) != 0x010000ed) fail("no edu at", function);
        if (d->edu) edu_write(d, EDU_ACKNOWLEDGE, 0xffffffff);
        else write_register(d->registers + RCTL, 0);
        d->line = connect_pin(function);
        causes_of(d);
    }
    if (!count) fail("no device", 0);
}

void program(void) {
    machine_start();
    const uint32_t rounds = (uint32_t)number_in(words(), "rounds", 1000);
    const uint32_t raises = (uint32_t)number_in(words(), "raises", 3);
    const uint32_t across_each = (uint32_t)number_in(words(), "across", 4);
    const uint32_t reroutes = (uint32_t)number_in(words(), "reroutes", 0);
    echoes = number_in(words(), "echoes", 0);
    print("RHEA-BARE START\r\n");
    find();
    allow_interrupts(true);
    for (turn = 0; turn < rounds; turn++) {
        for (struct device *d = devices; d < devices + count; d++) {
            burst(d, raises);
            change(d, MESSAGE);
            burst(d, raises);
            change(d, PIN);
            burst(d, raises);
            if (d->msix) {
                change(d, MESSAGES);
                burst(d, raises);
                change(d, PIN);
                burst(d, raises);
            }
            if (across_each && turn % across_each == 0) across(d);
        }
    }
    for (turn = 0; turn < reroutes; turn++) {
        struct device *d = &devices[turn % count];
        // With a level that is up every other time.
        allow_interrupts(false);
        if (turn / count % 2) raise(d);
        d->line = reroute(d->function, turn);
        allow_interrupts(true);
        await(d);
        burst(d, 1);
    }
    // What is on its way still comes.
    for (uint64_t end = ticks_now() + ticks_a_second / 10; ticks_now() < end;);
    allow_interrupts(false);
    for (struct device *d = devices; d < devices + count; d++) {
        if (d->handled != d->started) stop(d, "at last");
        print("RHEA-BARE ");
        print(d->edu ? "edu" : "e1000e");
        for (int way = PIN; way <= MESSAGES; way++) {
            print(way == PIN ? " pin=" : way == MESSAGE ? " msi=" : " msix=");
            print_number(d->total[way]);
        }
        print("\r\n");
    }
    print("RHEA-BARE PASS\r\n");
    power_off();
}
