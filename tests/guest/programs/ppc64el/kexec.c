// Goes over to another kernel at once: kexec KERNEL INITRAMFS COMMAND-LINE
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 4) return 1;
    int kernel = open(argv[1], O_RDONLY), initramfs = open(argv[2], O_RDONLY);
    if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(argv[3]) + 1, argv[3], 0ul)) return perror("kexec_file_load"), 1;
    sync();
    syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, 0);
    return perror("reboot"), 1;
}
