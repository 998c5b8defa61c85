/* Linux's boot protocol for arm64 (Documentation/arch/arm64/booting.rst), and interrupts. The processor starts with translation off. */
    .section .text.start, "ax"
    .globl _start
_start:
    b start
    .long 0
    .quad 0x200000              /* from the start of RAM */
    .quad image_size
    .quad 2                     /* little-endian, pages of 4 KiB */
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long 0

start:
    adrp x1, stack_end
    add x1, x1, :lo12:stack_end
    mov sp, x1
    adrp x1, device_tree
    str x0, [x1, :lo12:device_tree]
    adrp x1, vectors
    add x1, x1, :lo12:vectors
    msr vbar_el1, x1
    isb
    bl program

    .macro entry kind
    .balign 128
    stp x0, x1, [sp, #-192]!
    mov x0, #\kind
    b interrupted
    .endm

    .balign 2048
vectors:
    .set kind, 0
    .rept 16
    entry kind
    .set kind, kind + 1
    .endr

interrupted:
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x30, [sp, #144]
    mrs x1, elr_el1
    mrs x2, spsr_el1
    stp x1, x2, [sp, #160]
    bl interrupt
    ldp x1, x2, [sp, #160]
    msr elr_el1, x1
    msr spsr_el1, x2
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldp x18, x30, [sp, #144]
    ldp x0, x1, [sp], #192
    eret


    .bss
    .balign 8
    .globl device_tree
device_tree:
    .space 8
    .balign 4096
    .space 65536
stack_end:
