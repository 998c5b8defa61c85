#include "machine.h"

void *memset(void *to, int byte, size_t n) {
    for (size_t i = 0; i < n; i++) ((volatile char *)to)[i] = byte;
    return to;
}
void *memcpy(void *to, const void *from, size_t n) {
    for (size_t i = 0; i < n; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}
bool same(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}
void print_number(uint64_t n) {
    char digits[24], *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        // By halves of words: a division of 64 bits needs a library on some processors.
        uint64_t tenth = 0;
        uint32_t rest = 0;
        for (int shift = 48; shift >= 0; shift -= 16) {
            const uint32_t part = rest << 16 | (uint32_t)(n >> shift & 0xffff);
            tenth |= (uint64_t)(part / 10) << shift;
            rest = part % 10;
        }
        *--at = '0' + rest;
        n = tenth;
    } while (n);
    print(at);
}
uint64_t number_in(const char *text, const char *name, uint64_t otherwise) {
    for (; *text; text++) {
        const char *a = text, *b = name;
        while (*b && *a == *b) a++, b++;
        if (*b || *a != '=') continue;
        uint64_t n = 0;
        for (a++; *a >= '0' && *a <= '9'; a++) n = n * 10 + (uint64_t)(*a - '0');
        return n;
    }
    return otherwise;
}
void fail(const char *why, uint64_t number) {
    allow_interrupts(false);
    print("RHEA-BARE FAIL: ");
    print(why);
    print(" ");
    print_number(number);
    print("\r\n");
    power_off();
}
