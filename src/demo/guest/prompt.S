// The guest of `rhea demo` where Debian can't be had: a prompt on the PL011 of `-M virt`.
//
// It is entered like an arm64 Linux kernel: at any 2 MiB boundary plus the text offset, MMU off,
// x0 = device tree. Position-independent, one section, so that assembling it needs no linker:
//   aarch64-linux-gnu-as -o prompt.o prompt.S && aarch64-linux-gnu-objcopy -O binary prompt.o prompt.bin
//
// x19 UART   x20 device tree   x21 line   x22 length of the line   x23 console functions' scratch

        .set    UART, 0x09000000
        .set    UART_DR, 0x00
        .set    UART_FR, 0x18
        .set    UART_CR, 0x30
        .set    UART_IMSC, 0x38
        .set    GICD, 0x08000000
        .set    GICC, 0x08010000
        .set    UART_INTID, 33
        .set    LINE_SIZE, 128
        .set    PSCI_SYSTEM_OFF, 0x84000008
        .set    PSCI_SYSTEM_RESET, 0x84000009
        .set    FDT_BEGIN_NODE, 1
        .set    FDT_END_NODE, 2
        .set    FDT_PROP, 3
        .set    FDT_NOP, 4

        .text
// The header of an arm64 Linux Image (Documentation/arm64/booting.rst).
image:
        b       start
        .word   0
        .quad   0                       // text offset
        .quad   image_end - image + 0x4000      // with the line buffer and the stack
        .quad   0xa                     // little endian, 4 KiB pages, anywhere
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .word   0

start:
        mov     x20, x0
        mov     x19, #UART
        adr     x21, image_end
        add     x21, x21, #15
        and     x21, x21, #~15
        add     sp, x21, #0x3000
        // The distributor and the processor interface pass the UART's interrupt on, so that
        // waiting for a key can be a WFI; it stays masked and is never taken.
        mov     x1, #GICD
        mov     w2, #1
        str     w2, [x1]                        // GICD_CTLR
        mov     w2, #(1 << (UART_INTID % 32))
        str     w2, [x1, #0x104]                // GICD_ISENABLER1
        add     x3, x1, #0x800
        mov     w2, #1
        strb    w2, [x3, #UART_INTID]           // GICD_ITARGETSR
        add     x3, x1, #0x400
        strb    wzr, [x3, #UART_INTID]          // GICD_IPRIORITYR
        ldr     x1, =GICC
        mov     w2, #0xff
        str     w2, [x1, #4]                    // GICC_PMR
        mov     w2, #1
        str     w2, [x1]                        // GICC_CTLR
        mov     w2, #0x301
        str     w2, [x19, #UART_CR]             // enable, transmit, receive
        mov     w2, #0x50
        str     w2, [x19, #UART_IMSC]           // receive, receive time-out

        adr     x0, text_greeting
        bl      print
prompt:
        adr     x0, text_prompt
        bl      print
        bl      read_line
        cbz     x22, prompt
        adr     x24, commands
1:      // Each entry: a relative address, then the name padded to 12 bytes.
        ldrsw   x25, [x24]
        cbz     x25, unknown
        add     x0, x24, #4
        bl      word_matches
        cbnz    x0, 2f
        add     x24, x24, #16
        b       1b
2:      adr     x1, commands
        add     x25, x25, x1
        blr     x25
        b       prompt
unknown:
        adr     x0, text_unknown
        bl      print
        b       prompt

commands:
        .macro  command name, function
        .word   \function - commands
9:      .ascii  "\name"
        .zero   12 - (. - 9b)
        .endm
        command "help", do_help
        command "echo", do_echo
        command "mem", do_mem
        command "cpu", do_cpu
        command "uptime", do_uptime
        command "reboot", do_reboot
        command "poweroff", do_poweroff
        .word   0

do_help:
        adr     x0, text_help
        b       print

do_echo:
        stp     x29, x30, [sp, #-16]!
        add     x0, x21, #4
        ldrb    w1, [x0]
        cmp     w1, #' '
        cinc    x0, x0, eq
        bl      print
        bl      new_line
        ldp     x29, x30, [sp], #16
        ret

do_poweroff:
        adr     x0, text_bye
        bl      print
        ldr     w0, =PSCI_SYSTEM_OFF
        b       psci
do_reboot:
        ldr     w0, =PSCI_SYSTEM_RESET
psci:   mrs     x1, CurrentEL
        cmp     x1, #(2 << 2)
        b.hs    1f
        hvc     #0
        b       2f
1:      smc     #0                              // at EL2 the firmware is behind SMC
2:      adr     x0, text_refused
        b       print

// The processor's identification, exception level and counter frequency.
do_cpu:
        stp     x29, x30, [sp, #-16]!
        adr     x0, text_midr
        bl      print
        mrs     x0, midr_el1
        bl      print_hex
        adr     x0, text_el
        bl      print
        mrs     x0, CurrentEL
        lsr     x0, x0, #2
        bl      print_decimal
        adr     x0, text_frequency
        bl      print
        mrs     x0, cntfrq_el0
        bl      print_decimal
        adr     x0, text_hertz
        bl      print
        ldp     x29, x30, [sp], #16
        ret

do_uptime:
        stp     x29, x30, [sp, #-16]!
        mrs     x0, cntvct_el0
        mrs     x1, cntfrq_el0
        cbz     x1, 1f
        udiv    x0, x0, x1
1:      bl      print_decimal
        adr     x0, text_seconds
        bl      print
        ldp     x29, x30, [sp], #16
        ret

// Walks the device tree for the reg of nodes named memory@..., of two address and two size cells.
do_mem:
        stp     x29, x30, [sp, #-16]!
        stp     x24, x25, [sp, #-16]!
        stp     x26, x27, [sp, #-16]!
        cbz     x20, 9f
        ldr     w0, [x20]
        rev     w0, w0
        ldr     w1, =0xd00dfeed
        cmp     w0, w1
        b.ne    9f
        ldr     w24, [x20, #8]                  // off_dt_struct
        rev     w24, w24
        add     x24, x20, x24
        ldr     w25, [x20, #12]                 // off_dt_strings
        rev     w25, w25
        add     x25, x20, x25
        mov     w26, #0                         // inside a memory node?
1:      ldr     w0, [x24], #4
        rev     w0, w0
        cmp     w0, #FDT_NOP
        b.eq    1b
        cmp     w0, #FDT_END_NODE
        b.eq    4f
        cmp     w0, #FDT_PROP
        b.eq    5f
        cmp     w0, #FDT_BEGIN_NODE
        b.ne    8f                              // the end
        mov     x0, x24
        adr     x1, text_memory
        mov     w26, #1
2:      ldrb    w2, [x1], #1
        cbz     w2, 3f
        ldrb    w3, [x0], #1
        cmp     w2, w3
        b.eq    2b
        mov     w26, #0
3:      ldrb    w0, [x24], #1                   // past the name
        cbnz    w0, 3b
        add     x24, x24, #3
        and     x24, x24, #~3
        b       1b
4:      mov     w26, #0
        b       1b
5:      ldr     w27, [x24], #4                  // length
        rev     w27, w27
        ldr     w1, [x24], #4                   // name
        rev     w1, w1
        cbz     w26, 7f
        cmp     w27, #16
        b.lo    7f
        add     x1, x25, x1
        ldrb    w2, [x1]
        cmp     w2, #'r'
        b.ne    7f
        ldrb    w2, [x1, #1]
        cmp     w2, #'e'
        b.ne    7f
        ldrb    w2, [x1, #2]
        cmp     w2, #'g'
        b.ne    7f
        ldr     w0, [x24, #8]                   // the size in MiB
        ldr     w1, [x24, #12]
        rev     w0, w0
        rev     w1, w1
        orr     x0, x1, x0, lsl #32
        lsr     x0, x0, #20
        bl      print_decimal
        adr     x0, text_mib
        bl      print
        ldr     w0, [x24]
        ldr     w1, [x24, #4]
        rev     w0, w0
        rev     w1, w1
        orr     x0, x1, x0, lsl #32
        bl      print_hex
        bl      new_line
7:      add     x24, x24, x27
        add     x24, x24, #3
        and     x24, x24, #~3
        b       1b
9:      adr     x0, text_no_tree
        bl      print
8:      ldp     x26, x27, [sp], #16
        ldp     x24, x25, [sp], #16
        ldp     x29, x30, [sp], #16
        ret

// x0: a name padded with zeros. Is it the first word of the line? x0 = 1 or 0.
word_matches:
        mov     x1, x21
1:      ldrb    w2, [x0], #1
        ldrb    w3, [x1], #1
        cbz     w2, 2f
        cmp     w2, w3
        b.eq    1b
        mov     x0, #0
        ret
2:      cmp     w3, #' '
        ccmp    w3, #0, #4, ne
        cset    x0, eq
        ret

// Reads a line with echo and backspace into x21, terminated by zero; x22 = its length.
read_line:
        stp     x29, x30, [sp, #-16]!
        mov     x22, #0
1:      bl      get
        cmp     w0, #'\r'
        b.eq    4f
        cmp     w0, #'\n'
        b.eq    4f
        cmp     w0, #0x7f
        b.eq    3f
        cmp     w0, #8
        b.eq    3f
        cmp     w0, #' '
        b.lo    1b
        cmp     x22, #(LINE_SIZE - 1)
        b.hs    1b
        strb    w0, [x21, x22]
        add     x22, x22, #1
        bl      put
        b       1b
3:      cbz     x22, 1b
        sub     x22, x22, #1
        adr     x0, text_rubout
        bl      print
        b       1b
4:      strb    wzr, [x21, x22]
        bl      new_line
        ldp     x29, x30, [sp], #16
        ret

get:    ldr     w0, [x19, #UART_FR]
        tbz     w0, #4, 1f                      // RXFE: nothing there
        wfi
        b       get
1:      ldr     w0, [x19, #UART_DR]
        and     w0, w0, #0xff
        ret

put:    ldr     w23, [x19, #UART_FR]
        tbnz    w23, #5, put                    // TXFF
        strb    w0, [x19, #UART_DR]
        ret

// x0: text that ends with zero.
print:  stp     x29, x30, [sp, #-16]!
        mov     x9, x0
1:      ldrb    w0, [x9], #1
        cbz     w0, 2f
        bl      put
        b       1b
2:      ldp     x29, x30, [sp], #16
        ret

new_line:
        adr     x0, text_new_line
        b       print

print_hex:
        stp     x29, x30, [sp, #-16]!
        mov     x9, x0
        mov     w0, #'0'
        bl      put
        mov     w0, #'x'
        bl      put
        mov     x10, #60
1:      lsr     x0, x9, x10
        and     x0, x0, #15
        cmp     x0, #10
        add     x1, x0, #'0'
        add     x0, x0, #('a' - 10)
        csel    x0, x1, x0, lo
        bl      put
        subs    x10, x10, #4
        b.pl    1b
        ldp     x29, x30, [sp], #16
        ret

print_decimal:
        stp     x29, x30, [sp, #-48]!
        add     x9, sp, #47
        strb    wzr, [x9]
        mov     x10, #10
1:      udiv    x11, x0, x10
        msub    x12, x11, x10, x0
        add     w12, w12, #'0'
        strb    w12, [x9, #-1]!
        mov     x0, x11
        cbnz    x0, 1b
        mov     x0, x9
        bl      print
        ldp     x29, x30, [sp], #48
        ret

        .ltorg
text_greeting:
        .ascii  "\r\nHello from a small arm64 guest, built into the rhea binary.\r\n"
        .asciz  "Type 'help' for its commands; Ctrl-A X leaves.\r\n"
text_prompt:
        .asciz  "rhea> "
text_help:
        .ascii  "help      this list\r\n"
        .ascii  "echo ...  says it again\r\n"
        .ascii  "mem       memory, from the device tree\r\n"
        .ascii  "cpu       the processor's identification\r\n"
        .ascii  "uptime    seconds since the machine was switched on\r\n"
        .ascii  "reboot    resets the machine through PSCI\r\n"
        .asciz  "poweroff  switches the machine off through PSCI\r\n"
text_unknown:
        .asciz  "There is no such command; try 'help'.\r\n"
text_bye:
        .asciz  "Good bye.\r\n"
text_refused:
        .asciz  "The firmware refused.\r\n"
text_no_tree:
        .asciz  "There is no device tree.\r\n"
text_memory:
        .asciz  "memory@"
text_mib:
        .asciz  " MiB at "
text_midr:
        .asciz  "MIDR_EL1 "
text_el:
        .asciz  ", exception level "
text_frequency:
        .asciz  ", counter at "
text_hertz:
        .asciz  " Hz\r\n"
text_seconds:
        .asciz  " s\r\n"
text_rubout:
        .asciz  "\b \b"
text_new_line:
        .asciz  "\r\n"
        .balign 8
image_end:
