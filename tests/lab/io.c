// What the lab's case `bench` measures with, in the lab machine and in its guest. Prints a line `io WHAT NUMBER...`.
//   io read FILE DEPTH COUNT        COUNT reads of 4 KiB one after another, DEPTH at once: microseconds
//   io send ADDRESS PORT COUNT      COUNT packets of 64 bytes: microseconds
//   io receive ADDRESS PORT COUNT   asks an echo for COUNT packets: those that came, microseconds from the first to the last
//   io ping ADDRESS PORT COUNT      COUNT packets there and back, one after another: microseconds
//   io echo PORT                    answers the three above
//   io tap NAME                     makes a network interface that stays
//   io start PROGRAM ARGUMENT...    runs a program, and says microseconds to the first byte it writes, and to its end
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, DEEPEST = 64, PACKET = 64 };

static void die(const char *what) {
    perror(what);
    exit(1);
}
static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ll + t.tv_nsec / 1000;
}

static void read_blocks(const char *name, int depth, long count) {
    static struct iocb blocks[DEEPEST];
    struct iocb *each[DEEPEST];
    struct io_event done[DEEPEST];
    aio_context_t context = 0;
    int file = open(name, O_RDONLY | O_DIRECT);
    if (file < 0) die(name);
    off_t size = lseek(file, 0, SEEK_END);
    char *area = aligned_alloc(BLOCK, (size_t)DEEPEST * BLOCK);
    if (depth < 1 || depth > DEEPEST || size < BLOCK || !area) die("size");
    if (syscall(SYS_io_setup, depth, &context)) die("io_setup");
    long long began = now();
    long started = 0, ended = 0;
    int fill = depth;
    for (int n = 0; n < depth; n++) done[n].data = n;
    while (ended < count) {
        int wanted = 0;
        for (int n = 0; n < fill && started < count; n++, started++) {
            int slot = done[n].data;
            blocks[slot] = (struct iocb){
                .aio_data = slot,
                .aio_lio_opcode = IOCB_CMD_PREAD,
                .aio_fildes = file,
                .aio_buf = (unsigned long)(area + (size_t)slot * BLOCK),
                .aio_nbytes = BLOCK,
                .aio_offset = started * (long long)BLOCK % (size / BLOCK * BLOCK),
            };
            each[wanted++] = &blocks[slot];
        }
        if (wanted && syscall(SYS_io_submit, context, wanted, each) != wanted) die("io_submit");
        fill = syscall(SYS_io_getevents, context, 1, depth, done, NULL);
        if (fill < 1) die("io_getevents");
        for (int n = 0; n < fill; n++)
            if (done[n].res != BLOCK) die("read");
        ended += fill;
    }
    printf("io read%d %lld\n", depth, now() - began);
}

static int connected(const char *address, const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = inet_addr(address)};
    struct timeval limit = {.tv_sec = 2};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (s < 0 || connect(s, (void *)&to, sizeof to)) die("connect");
    return s;
}
// There and back; a packet that was lost is sent again.
static void ping(int s, long count) {
    char packet[PACKET] = "p";
    for (long n = 0; n < count; n++)
        if (send(s, packet, sizeof packet, 0) < 0 || recv(s, packet, sizeof packet, 0) < 0) n--;
}
static void send_packets(int s, long count) {
    char packet[PACKET] = "s";
    ping(s, 1);
    long long began = now();
    for (long n = 0; n < count; n++)
        if (send(s, packet, sizeof packet, 0) < 0) die("send");
    // The answer to this one comes when those before it are through.
    ping(s, 1);
    printf("io send %lld\n", now() - began);
}
static void receive_packets(int s, long count) {
    char packet[PACKET] = "r";
    long long first = 0, last = 0;
    long came = 0;
    ping(s, 1);
    memcpy(packet + 8, &count, sizeof count);
    send(s, packet, sizeof packet, 0);
    while (came < count && recv(s, packet, sizeof packet, 0) > 0 && packet[0] == 'd') {
        last = now();
        if (!came++) first = last;
    }
    printf("io receive %ld %lld\n", came, last - first);
}
static void echo(const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))}, from;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(s, (void *)&at, sizeof at)) die("bind");
    for (;;) {
        char packet[PACKET];
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(s, packet, sizeof packet, 0, (void *)&from, &len);
        if (n != PACKET) continue;
        if (packet[0] == 'p') sendto(s, packet, n, 0, (void *)&from, len);
        if (packet[0] == 'r') {
            long count;
            memcpy(&count, packet + 8, sizeof count);
            packet[0] = 'd';
            while (count-- > 0) sendto(s, packet, n, 0, (void *)&from, len);
            packet[0] = 'e';
            usleep(100000);
            sendto(s, packet, n, 0, (void *)&from, len);
        }
    }
}

static void tap(const char *name) {
    struct ifreq wanted = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int file = open("/dev/net/tun", O_RDWR);
    strncpy(wanted.ifr_name, name, IFNAMSIZ - 1);
    if (file < 0 || ioctl(file, TUNSETIFF, &wanted) || ioctl(file, TUNSETPERSIST, 1)) die("tap");
}

static void start(char **words) {
    int ends[2], status;
    long long first = 0;
    char bytes[256];
    if (pipe(ends)) die("pipe");
    long long began = now();
    pid_t child = fork();
    if (!child) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execvp(words[0], words);
        die(words[0]);
    }
    close(ends[1]);
    ssize_t n;
    while ((n = read(ends[0], bytes, sizeof bytes)) > 0) {
        if (!first) first = now();
        if (write(1, bytes, n) != n) die("write");
    }
    waitpid(child, &status, 0);
    long long ended = now();
    printf("\nio start %lld %lld\n", first - began, ended - began);
    exit(status != 0);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "start") && argc > 2) start(argv + 2);
    else if (!strcmp(what, "tap") && argc == 3) tap(argv[2]);
    else if (!strcmp(what, "echo") && argc == 3) echo(argv[2]);
    else if (!strcmp(what, "read") && argc == 5) read_blocks(argv[2], atoi(argv[3]), atol(argv[4]));
    else if (!strcmp(what, "send") && argc == 5) send_packets(connected(argv[2], argv[3]), atol(argv[4]));
    else if (!strcmp(what, "receive") && argc == 5) receive_packets(connected(argv[2], argv[3]), atol(argv[4]));
    else if (!strcmp(what, "ping") && argc == 5) {
        int s = connected(argv[2], argv[3]);
        ping(s, 10);
        long long began = now();
        ping(s, atol(argv[4]));
        printf("io ping %lld\n", now() - began);
    } else {
        fprintf(stderr, "io: what?\n");
        return 2;
    }
    return 0;
}
