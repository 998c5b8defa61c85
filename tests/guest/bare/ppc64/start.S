/* Entry, interrupt vectors and returns from them, for either byte order. The machine starts a program in big-endian order, with
   translation off. */

#define FRAME 320       /* struct frame of board.h */
#define LR_AT 256
#define CTR_AT 264
#define CR_AT 272
#define XER_AT 280
#define SRR0_AT 288
#define SRR1_AT 296

.macro address reg, symbol
    lis \reg, (\symbol)@ha
    addi \reg, \reg, (\symbol)@l
.endm

    .section .text.start, "ax"
    .globl _start
_start:
#ifdef __LITTLE_ENDIAN__
    /* The same words in the other order: to the instruction behind them with MSR.LE set. */
    .byte 0x42, 0x9f, 0x00, 0x05    /* bcl 20, 31, $ + 4 */
    .byte 0x7d, 0x48, 0x02, 0xa6    /* mflr r10 */
    .byte 0x39, 0x4a, 0x00, 0x1c    /* addi r10, r10, 28 */
    .byte 0x7d, 0x60, 0x00, 0xa6    /* mfmsr r11 */
    .byte 0x61, 0x6b, 0x00, 0x01    /* ori r11, r11, 1 */
    .byte 0x7d, 0x5a, 0x03, 0xa6    /* mtsrr0 r10 */
    .byte 0x7d, 0x7b, 0x03, 0xa6    /* mtsrr1 r11 */
    .byte 0x4c, 0x00, 0x00, 0x24    /* rfid */
#endif
    /* Clients of Open Firmware begin in 32-bit mode. */
    mfmsr 11
    li 12, 1
    rldicr 12, 12, 63, 0
    or 11, 11, 12
    mtmsrd 11
    isync
    address 2, .TOC.
    address 1, stack_end - 128
    li 0, 0
    std 0, 0(1)
    bl main
    nop
0:  b 0b

/* What is copied to each vector: saves what it needs itself, and says by LR which one it is. */
    .globl vector_code
    .globl vector_code_end
vector_code:
    mtsprg 1, 1
    address 1, interrupt_frame
    std 0, 0(1)
    mfctr 0
    std 0, CTR_AT(1)
    mflr 0
    std 0, LR_AT(1)
    lis 0, interrupted@h
    ori 0, 0, interrupted@l
    mtctr 0
    bctrl
vector_code_end:

interrupted:
    std 2, 16(1)
    .irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    std \n, \n * 8(1)
    .endr
    mfsprg 3, 1
    std 3, 8(1)
    mfcr 3
    std 3, CR_AT(1)
    mfxer 3
    std 3, XER_AT(1)
    mfsrr0 3
    std 3, SRR0_AT(1)
    mfsrr1 5
    std 5, SRR1_AT(1)
    /* Translation as it was. */
    mfmsr 6
    andi. 5, 5, 0x30
    or 6, 6, 5
    mtmsrd 6
    isync
    mflr 3
    clrrdi 3, 3, 7
    mr 4, 1
    address 2, .TOC.
    address 1, interrupt_stack_end - 128
    bl interrupt
    nop
    mfmsr 6
    li 5, 0x30
    andc 6, 6, 5
    mtmsrd 6
    isync
    address 1, interrupt_frame
    ld 3, SRR0_AT(1)
    mtsrr0 3
    ld 3, SRR1_AT(1)
    mtsrr1 3
    ld 3, XER_AT(1)
    mtxer 3
    ld 3, CR_AT(1)
    mtcr 3
    ld 3, LR_AT(1)
    mtlr 3
    ld 3, CTR_AT(1)
    mtctr 3
    ld 0, 0(1)
    ld 2, 16(1)
    .irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld \n, \n * 8(1)
    .endr
    ld 1, 8(1)
    rfid

    .globl hypercall
/* uint64_t hypercall(uint64_t number, const uint64_t arguments[9], uint64_t values[9]) */
hypercall:
    std 5, -8(1)
    mr 11, 4
    ld 4, 0(11)
    ld 5, 8(11)
    ld 6, 16(11)
    ld 7, 24(11)
    ld 8, 32(11)
    ld 9, 40(11)
    ld 10, 48(11)
    ld 12, 64(11)
    ld 11, 56(11)
    sc 1
    ld 0, -8(1)
    cmpdi 0, 0
    beqlr
    std 31, -16(1)
    mr 31, 0
    std 4, 0(31)
    std 5, 8(31)
    std 6, 16(31)
    std 7, 24(31)
    std 8, 32(31)
    std 9, 40(31)
    std 10, 48(31)
    std 11, 56(31)
    std 12, 64(31)
    ld 31, -16(1)
    blr

    .bss
    .balign 4096
    .space 65536
stack_end:
    .space 65536
interrupt_stack_end:
    .globl interrupt_frame
interrupt_frame:
    .space FRAME
