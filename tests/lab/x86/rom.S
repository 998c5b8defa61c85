# A ROM of 64 KiB that does one kind of work at reset and resets the machine again: with -no-reboot the emulator ends. The first
# thing that the guest does is to write a byte to the serial port.
    .code16
    .equ    TURNS, 20000
start:
    movw    $0x3f8, %dx
    outb    %al, %dx
    cli
    cs lgdtl (gdt_register - start)
    movl    %cr0, %eax
    orl     $1, %eax
    movl    %eax, %cr0
    jmp     1f
1:  movw    $8, %bx
    movw    %bx, %ds
    andl    $~1, %eax
    movl    %eax, %cr0                  # DS keeps its base and limit
    movl    $TURNS, %ecx
    .ifdef  WORK_ports
    movw    $0x3ff, %dx                 # scratch register of the first serial port
again:
    outb    %al, %dx
    decl    %ecx
    jnz     again
    .endif
    .ifdef  WORK_memory
    movl    $0xfed00000, %ebx           # capabilities of the event timers
again:
    movl    %ds:(%ebx), %eax
    decl    %ecx
    jnz     again
    .endif
    .ifdef  WORK_hypercalls
again:
    movl    $1, %eax                    # KVM_HC_VAPIC_POLL_IRQ: does nothing
    vmmcall
    decl    %ecx
    jnz     again
    .endif
    movw    $0xcf9, %dx
    movb    $6, %al
    outb    %al, %dx
1:  hlt
    jmp     1b

    .balign 8
gdt:
    .quad   0
    .quad   0x00cf93000000ffff          # flat data
gdt_register:
    .word   15
    .long   0xffff0000 + (gdt - start)
    .org    0xfff0
    jmp     start
    .org    0x10000
