#include "board.h"

int64_t call(uint64_t number, const uint64_t arguments[9]) { return (int64_t)hypercall(number, arguments, 0); }

static size_t length(const char *text) {
    size_t n = 0;
    while (text[n]) n++;
    return n;
}
void print(const char *text) {
    for (size_t left = length(text); left;) {
        uint64_t words[2] = {0, 0};
        size_t n = left < 16 ? left : 16;
        for (size_t i = 0; i < n; i++) words[i / 8] |= (uint64_t)(uint8_t)text[i] << (56 - i % 8 * 8);
        int64_t status;
        do status = call(H_PUT_TERM_CHAR, ARGUMENTS(0, n, words[0], words[1]));
        while (status == 1);
        text += n, left -= n;
    }
}
int get_char(void) {
    static uint64_t values[9];
    if (hypercall(H_GET_TERM_CHAR, ARGUMENTS(0), values) || !values[0]) return -1;
    return values[1] >> 56;
}

uint32_t client(const char *service, unsigned arguments, const uint32_t *values) {
    // A method has a result of its own behind that of the call.
    const unsigned results = same(service, "call-method") ? 2 : 1;
    uint32_t cells[16] = {be32(POINTER(service)), be32(arguments), be32(results)};
    for (unsigned i = 0; i < arguments; i++) cells[3 + i] = be32(values[i]);
    if (call(H_CLIENT, ARGUMENTS(POINTER(cells)))) return FAIL;
    if (results == 2 && cells[3 + arguments]) return FAIL;
    return be32(cells[2 + arguments + results]);
}
uint32_t property(uint32_t node, const char *name, void *value, uint32_t size) {
    return CLIENT("getprop", node, POINTER(name), POINTER(value), size);
}

const char *words(void) {
    static char text[1024];
    const uint32_t length = property(CLIENT("finddevice", POINTER("/chosen")), "bootargs", text, sizeof text - 1);
    return length == FAIL ? "" : text;
}

int32_t rtas(const char *name, unsigned arguments, const uint32_t *values, unsigned results, uint32_t *out) {
    uint32_t token, cells[24] = {0, be32(arguments), be32(results)};
    if (property(CLIENT("finddevice", POINTER("/rtas")), name, &token, 4) != 4) fail(name, 0);
    cells[0] = token;
    for (unsigned i = 0; i < arguments; i++) cells[3 + i] = be32(values[i]);
    if (call(H_RTAS, ARGUMENTS(POINTER(cells)))) return -1;
    for (unsigned i = 1; i < results; i++) out[i - 1] = be32(cells[3 + arguments + i]);
    return be32(cells[3 + arguments]);
}

void power_off(void) {
    RTAS("power-off", 1, 0, 0, 0);
    for (;;);
}
void allow_interrupts(bool on) { set_msr(on ? msr() | MSR_EE : msr() & ~(uint64_t)MSR_EE); }

void icache_sync(void *start, size_t size) {
    for (char *at = start; at < (char *)start + size; at += 32) asm volatile("dcbst 0, %0; sync; icbi 0, %0" : : "r"(at) : "memory");
    asm volatile("sync; isync" : : : "memory");
}
static void install(uint64_t vector) {
    // The compiler takes low addresses for mistakes.
    asm("" : "+r"(vector));
    memcpy((void *)vector, vector_code, vector_code_end - vector_code);
    icache_sync((void *)vector, vector_code_end - vector_code);
}
void install_vectors(void) {
    for (uint64_t vector = 0x100; vector < 0x1000; vector += 0x100) install(vector);
    // Segment interrupts.
    install(0x380);
    install(0x480);
#ifdef __LITTLE_ENDIAN__
    const uint64_t order = 1;
#else
    const uint64_t order = 0;
#endif
    if (call(H_SET_MODE, ARGUMENTS(order, 4))) fail("H_SET_MODE", order);
}
