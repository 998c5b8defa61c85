/* A multiboot program in 32-bit protected mode, and its interrupts. */
    .section .text.start, "ax"
    .balign 4
    .long 0x1badb002, 0, -0x1badb002

    .globl _start
_start:
    cli
    movl $stack_end, %esp
    movl %ebx, multiboot_info
    lgdt gdt_register
    ljmp $8, $1f
1:  movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    cld
    call program

/* One entry each: its number, and what all do. */
    .balign 16
    .globl interrupt_entries
interrupt_entries:
    .set vector, 0
    .rept 256
    .balign 16
    pushl $vector
    jmp interrupted
    .set vector, vector + 1
    .endr
interrupted:
    pushal
    cld
    pushl 32(%esp)
    call interrupt
    addl $4, %esp
    popal
    addl $4, %esp
    iretl

    .data
    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_register:
    .word gdt_register - gdt - 1
    .long gdt

    .bss
    .globl multiboot_info
multiboot_info:
    .space 4
    .balign 16
    .space 65536
stack_end:
