// Runs a guest by KVM, inside of the guest of the lab machine.
//   inside COUNT    leaves it so often by port I/O, for ever if COUNT is 0
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int done(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

int main(int argc, char **argv) {
    // again: inc al; out 0x80, al; jmp again
    static const unsigned char code[] = {0xfe, 0xc0, 0xe6, 0x80, 0xeb, 0xfa};
    long count = argc > 1 ? atol(argv[1]) : 1;
    int kvm = done(open("/dev/kvm", O_RDWR), "/dev/kvm");
    int vm = done(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    unsigned char *ram = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memcpy(ram, code, sizeof code);
    struct kvm_userspace_memory_region region = {.memory_size = 4096, .userspace_addr = (unsigned long)ram};
    done(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    int vcpu = done(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    struct kvm_run *run = mmap(NULL, done(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "size"), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rflags = 2};
    done(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.cs.base = sregs.cs.selector = 0;
    done(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    done(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
    for (long n = 1; !count || n <= count; n++) {
        done(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        unsigned char said = *((unsigned char *)run + run->io.data_offset);
        if (run->exit_reason != KVM_EXIT_IO || said != (n & 0xff)) {
            printf("GUEST FAIL: inside: exit %u, %u after %ld\n", run->exit_reason, said, n);
            return 1;
        }
    }
    printf("inside: %ld exits\n", count);
    return 0;
}
