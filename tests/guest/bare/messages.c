// MSI and MSI-X as their capabilities are programmed (PCI Local Bus Specification 3.0, 6.8).
#include "machine.h"

void program_messages(uint32_t function, bool msix, unsigned count, unsigned first, uint64_t table) {
    for (unsigned n = 0; n < count; n++) {
        uint64_t address;
        uint32_t data;
        message_of(function, n, first + n, &address, &data);
        if (msix) {
            const uint64_t entry = table + n * 16;
            write_register(entry, (uint32_t)address);
            write_register(entry + 4, (uint32_t)(address >> 32));
            write_register(entry + 8, data);
            write_register(entry + 12, 0);
            continue;
        }
        const uint32_t at = capability(function, 5);
        const bool wide = config_read(function, at + 2, 2) & 0x80;
        config_write(function, at + 4, 4, (uint32_t)address);
        if (wide) config_write(function, at + 8, 4, (uint32_t)(address >> 32));
        config_write(function, at + (wide ? 12 : 8), 2, data);
    }
}
