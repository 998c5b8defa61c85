// Interrupts of the device `edu` through UIO: edu COUNT. Each is asked for when the last one was handled; none may be missing, none
// may come twice.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICE "/sys/class/uio/uio0/device/"
enum { FACTORIAL = 0x08 / 4, STATUS = 0x20 / 4, CAUSE = 0x24 / 4, ACKNOWLEDGE = 0x64 / 4 };

static int open_or_end(const char *path, int flags) {
    int fd = open(path, flags);
    if (fd < 0) {
        perror(path);
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    const long count = argc > 1 ? atol(argv[1]) : 1;
    int uio = open_or_end("/dev/uio0", O_RDWR), config = open_or_end(DEVICE "config", O_RDWR);
    int bar = open_or_end(DEVICE "resource0", O_RDWR | O_SYNC);
    volatile uint32_t *device = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, bar, 0);
    if (device == MAP_FAILED || device[0] != 0x010000ed) {
        fprintf(stderr, "no edu device\n");
        return 1;
    }
    device[STATUS] = 0x80;
    uint32_t before = 0, now;
    for (long n = 0; n < count; n++) {
        // The driver has switched the pin off in the command register.
        uint8_t command;
        if (pread(config, &command, 1, 5) != 1) return perror("config"), 1;
        command &= ~4;
        if (pwrite(config, &command, 1, 5) != 1) return perror("config"), 1;
        device[FACTORIAL] = 5;
        struct pollfd wait = {.fd = uio, .events = POLLIN};
        if (poll(&wait, 1, 20000) != 1) return printf("edu: interrupt %ld is lost, cause %x\n", n, device[CAUSE]), 1;
        if (read(uio, &now, 4) != 4) return perror("uio"), 1;
        if (n && now != before + 1) return printf("edu: %u interrupts instead of one\n", now - before), 1;
        before = now;
        if (device[CAUSE] != 1) return printf("edu: interrupt %ld without cause\n", n), 1;
        device[ACKNOWLEDGE] = 1;
    }
    printf("edu: interrupts=%ld\n", count);
    return 0;
}
