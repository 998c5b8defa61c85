//! Guest programs. Each is loaded at [`crate::bench::PROGRAM`] and begins in real mode with CS 0; the labels of one are offsets
//! from its first byte, so absolute addresses are made as `label - first + 0x1000`.
#![expect(unsafe_code, reason = "the programs are assembled into this file's constants")]
#![expect(
    bad_asm_style,
    reason = "distances of labels as numbers and far jumps can only be written in the other syntax"
)]

use std::arch::global_asm;

macro_rules! program {
    ($name:ident, $($text:literal),* $(,)?) => {
        global_asm!(
            ".pushsection .rodata",
            concat!("guest_", stringify!($name), ":"),
            ".code16",
            concat!(".set first, guest_", stringify!($name), " - 0x1000"),
            $($text,)*
            ".code64",
            concat!("guest_", stringify!($name), "_end:"),
            ".popsection",
            concat!(".globl guest_", stringify!($name)),
            concat!(".globl guest_", stringify!($name), "_end"),
        );
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name))]
                static FIRST: u8;
                #[link_name = concat!("guest_", stringify!($name), "_end")]
                static END: u8;
            }
            // SAFETY: both are labels around constant bytes of this program.
            unsafe {
                let (first, end) = (&raw const FIRST, &raw const END);
                std::slice::from_raw_parts(first, end.offset_from(first) as usize)
            }
        }
    };
}

// Arithmetic, memory, strings and ports of all sizes in real mode.
program!(
    real,
    "mov ax, 0x1234; mov bx, 0x4321; add ax, bx; mov dx, 0x700; out dx, ax",
    "mov cx, 10; xor ax, ax; 1: add ax, cx; loop 1b; out dx, ax",
    // A string through segments.
    "cld; mov ax, 0x900; mov es, ax; xor di, di; mov eax, 0x11223344; mov cx, 4; rep stosd",
    "mov eax, es:[4]; mov dx, 0x701; out dx, eax; mov al, es:[7]; out dx, al",
    // Strings of ports.
    "mov dx, 0x600; mov di, 0x20; mov cx, 3; rep insb; mov cx, 2; rep insw; insd",
    "push ds; push es; pop ds; mov si, 0x20; mov dx, 0x702; mov cx, 3; rep outsb; mov cx, 2; rep outsw; outsd; pop ds",
    // Divide, rotate, flags.
    "mov dx, 1; mov ax, 0x2345; mov bx, 7; div bx; mov bx, dx; mov dx, 0x703; out dx, ax; mov ax, bx; out dx, ax",
    "stc; mov al, 0x80; rcl al, 1; pushf; pop bx; and bx, 1; out dx, al; mov ax, bx; out dx, ax",
    // An interrupt in software, and back.
    ".att_syntax; movw $(2f - first), 0x180; .intel_syntax noprefix; mov word ptr ds:[0x60*4+2], 0; int 0x60",
    "mov dx, 0x704; mov ax, 0xdead; out dx, ax; out 0xf4, al; 3: hlt; jmp 3b",
    "2: mov dx, 0x704; mov ax, 0x60; out dx, ax; iret",
);

// Flat 32-bit code without paging: segments, stack, a device's registers in all sizes and over the edges of words.
program!(
    protected,
    "cli; .att_syntax; lgdtl (4f - first); .intel_syntax noprefix; mov eax, cr0; or al, 1; mov cr0, eax; .att_syntax; ljmpl $8, $(1f - first); .intel_syntax noprefix",
    ".balign 8",
    "3: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff",
    "4: .word 23; .long 3b - first",
    ".code32",
    "1: mov ax, 16; mov ds, ax; mov es, ax; mov ss, ax; mov esp, 0x7000",
    "call 5f; mov edx, 0x700; out dx, eax",
    "mov ebx, 0xd0000; mov al, [ebx + 3]; out dx, al; mov ax, [ebx + 0x12]; out dx, ax; mov eax, [ebx + 0x24]; out dx, eax",
    "mov eax, [ebx + 0x31]; out dx, eax; mov ax, [ebx + 0x43]; out dx, ax",
    "mov byte ptr [ebx + 1], 0x11; mov word ptr [ebx + 2], 0x2222; mov dword ptr [ebx + 4], 0x33333333",
    "mov esi, 0x2000; mov dword ptr [esi], 0x04030201; mov ecx, 4; lea edi, [ebx + 0x80]; rep movsb",
    "mov eax, 0x12345678; xchg [ebx + 0x90], eax; out dx, eax",
    // ROM: reads are direct, writes go to the device.
    "mov eax, [0xc0000]; out dx, eax; mov byte ptr [0xc0002], 0x77; mov eax, [0xc0000]; out dx, eax",
    // Nothing there.
    "mov eax, [0x90000]; out dx, eax",
    "out 0xf4, al; 6: hlt; jmp 6b",
    "5: mov eax, 0xcafe; push eax; pop ecx; lea eax, [ecx*2 + 5]; ret",
);

// 64-bit code behind four levels of tables.
program!(
    long,
    "cli; .att_syntax; lgdtl (4f - first); .intel_syntax noprefix; mov eax, cr0; or al, 1; mov cr0, eax; .att_syntax; ljmpl $8, $(1f - first); .intel_syntax noprefix",
    ".balign 8",
    "3: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff",
    "4: .word 31; .long 3b - first",
    ".code32",
    "1: mov ax, 16; mov ds, ax; mov es, ax; mov ss, ax; mov esp, 0x7000",
    "mov dword ptr [0x10000], 0x11003; mov dword ptr [0x11000], 0x12003; mov dword ptr [0x12000], 0x83",
    "mov eax, 0x10000; mov cr3, eax; mov eax, 0x220; mov cr4, eax",
    "mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr; mov eax, cr0; or eax, 0x80000000; mov cr0, eax",
    ".att_syntax; ljmpl $24, $(2f - first); .intel_syntax noprefix",
    ".code64",
    "2: mov rax, 0x123456789abcdef0; mov r9, rax; rol r9, 16; mov rcx, r9; mov edx, 0x700; mov eax, ecx; out dx, eax",
    "shr rcx, 32; mov eax, ecx; out dx, eax",
    "mov ebx, 0xd0000; mov rax, [rbx + 8]; out dx, eax; shr rax, 32; out dx, eax; mov rax, 0x8877665544332211; mov [rbx + 0x10], rax",
    "mov rax, [rbx + 0x1c]; out dx, eax; shr rax, 32; out dx, eax",
    "mov ecx, 0xc0000080; rdmsr; and eax, 0x500; mov edx, 0x700; out dx, eax",
    // FS base by its register, and memory through it.
    "mov ecx, 0xc0000100; mov eax, 0x3000; xor edx, edx; wrmsr; mov qword ptr [0x3010], 0x55; mov eax, fs:[0x10]; mov edx, 0x701; out dx, eax",
    // Multiplication, a pair of registers, conditional moves.
    "mov rax, 0x100000001; mov rcx, 0x300000007; mul rcx; mov rbx, rax; mov r8, rdx; mov edx, 0x702; mov eax, ebx; out dx, eax; mov eax, r8d; out dx, eax",
    "xor eax, eax; cmp rbx, r8; mov ecx, 9; cmova eax, ecx; out dx, eax",
    "out 0xf4, al; 6: hlt; jmp 6b",
);

// Interrupts of the 8259s, one after another, level-triggered by what the handler takes back; then an NMI.
program!(
    interrupts,
    "cli; mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al",
    "mov al, 0xdf; out 0x21, al",
    ".att_syntax; movw $(2f - first), 0x94; .intel_syntax noprefix; mov word ptr ds:[0x25*4+2], 0",
    ".att_syntax; movw $(3f - first), 8; .intel_syntax noprefix; mov word ptr ds:[2*4+2], 0; xor bp, bp",
    // Held off while IF is clear.
    "mov dx, 0x510; out dx, al; mov dx, 0x700; mov ax, 1; out dx, ax; sti; nop; nop",
    // Each is waited for before the next, with exits: there are KVMs that deliver nothing in between.
    "mov cx, 1; 5: mov dx, 0x600; in al, dx; cmp bp, cx; jb 5b; cmp cx, 4; je 6f; inc cx; mov dx, 0x510; out dx, al; jmp 5b; 6:",
    // One that ends a halt.
    "cli; mov dx, 0x510; out dx, al; sti; hlt; mov dx, 0x701; mov ax, bp; out dx, ax",
    "mov dx, 0x512; out dx, al; nop; nop; mov dx, 0x702; mov ax, bx; out dx, ax",
    "out 0xf4, al; 4: hlt; jmp 4b",
    "2: push dx; push ax; mov dx, 0x511; out dx, al; inc bp; mov dx, 0x700; mov ax, bp; add ax, 0x100; out dx, ax; mov al, 0x20; out 0x20, al; pop ax; pop dx; iret",
    "3: mov bx, 0x3333; iret",
);

// Local APICs (handlers return without IRET, which emulators in kernels lack in protected mode): a message of a device, one of the processor to itself, and the start of the others, which run real-mode code.
program!(
    apics,
    "cli; .att_syntax; lgdtl (4f - first); .intel_syntax noprefix; mov eax, cr0; or al, 1; mov cr0, eax; .att_syntax; ljmpl $8, $(1f - first); .intel_syntax noprefix",
    ".balign 8",
    "3: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff",
    "4: .word 23; .long 3b - first",
    ".code32",
    "1: mov ax, 16; mov ds, ax; mov es, ax; mov ss, ax; mov esp, 0x7000",
    // IDT at 0x4000: vectors 0x40 and 0x41.
    ".att_syntax; movl $(2f - first), %eax; .intel_syntax noprefix; mov word ptr [0x4200], ax; mov word ptr [0x4202], 8; mov dword ptr [0x4204], 0x8e00",
    ".att_syntax; movl $(7f - first), %eax; .intel_syntax noprefix; mov word ptr [0x4208], ax; mov word ptr [0x420a], 8; mov dword ptr [0x420c], 0x8e00",
    "mov word ptr [0x5000], 0x7ff; mov dword ptr [0x5002], 0x4000; lidt [0x5000]",
    "mov esi, 0xfee00000; mov dword ptr [esi + 0xf0], 0x1ff; xor ebp, ebp; sti",
    "mov edx, 0x700; mov eax, [esi + 0x20]; out dx, eax",
    // To itself, then by a device.
    "mov dword ptr [esi + 0x300], 0x44040; 5: cmp ebp, 1; jb 5b",
    "mov edx, 0x513; mov eax, 0x41; out dx, eax; 6: cmp ebp, 3; jb 6b",
    // The other processor: its code is copied to 0x8000.
    "cld; .att_syntax; movl $(8f - first), %esi; .intel_syntax noprefix; mov edi, 0x8000; mov ecx, 64; rep movsb; mov esi, 0xfee00000",
    "mov dword ptr [esi + 0x310], 0x1000000; mov dword ptr [esi + 0x300], 0xc500",
    "mov ecx, 2000; 9: loop 9b; mov dword ptr [esi + 0x310], 0x1000000; mov dword ptr [esi + 0x300], 0x4608",
    "13: cmp dword ptr [0x6000], 0xa5; jne 13b; mov edx, 0x701; mov eax, ebp; out dx, eax",
    "out 0xf4, al; 14: hlt; jmp 14b",
    "2: inc ebp; mov dword ptr [esi + 0xb0], 0; pop ecx; pop eax; popfd; jmp ecx",
    "7: add ebp, 2; mov dword ptr [esi + 0xb0], 0; pop ecx; pop eax; popfd; jmp ecx",
    ".code16",
    "8: xor ax, ax; mov ds, ax; mov ax, cs; mov dx, 0x702; out dx, ax; mov dword ptr ds:[0x6000], 0xa5; cli; 15: hlt; jmp 15b",
);

// A level-triggered interrupt of the I/O APIC that stays up: it comes again after each end of interrupt until the third handler takes
// its cause back. STI keeps the next one off until the handler has returned.
program!(
    levels,
    "cli; .att_syntax; lgdtl (4f - first); .intel_syntax noprefix; mov eax, cr0; or al, 1; mov cr0, eax; .att_syntax; ljmpl $8, $(1f - first); .intel_syntax noprefix",
    ".balign 8",
    "3: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff",
    "4: .word 23; .long 3b - first",
    ".code32",
    "1: mov ax, 16; mov ds, ax; mov es, ax; mov ss, ax; mov esp, 0x7000",
    ".att_syntax; movl $(2f - first), %eax; .intel_syntax noprefix; mov word ptr [0x4280], ax; mov word ptr [0x4282], 8; mov dword ptr [0x4284], 0x8e00",
    "mov word ptr [0x5000], 0x7ff; mov dword ptr [0x5002], 0x4000; lidt [0x5000]",
    "mov esi, 0xfee00000; mov dword ptr [esi + 0xf0], 0x1ff; mov edi, 0xfec00000; xor ebp, ebp; mov al, 0xff; out 0x21, al",
    "mov dword ptr [edi], 0x1b; mov dword ptr [edi + 0x10], 0; mov dword ptr [edi], 0x1a; mov dword ptr [edi + 0x10], 0x8050",
    "sti; mov edx, 0x510; out dx, al; 5: cmp ebp, 3; jb 5b",
    "mov eax, [edi + 0x10]; mov edx, 0x700; out dx, eax",
    // Once more, by another vector.
    "mov word ptr [0x4288], 0; mov eax, [0x4280]; mov [0x4288], eax; mov eax, [0x4284]; mov [0x428c], eax",
    "mov dword ptr [edi], 0x1a; mov dword ptr [edi + 0x10], 0x8051; mov edx, 0x510; out dx, al; 6: cmp ebp, 4; jb 6b",
    "mov eax, [edi + 0x10]; mov edx, 0x700; out dx, eax; mov eax, ebp; out dx, eax; out 0xf4, al; 14: hlt; jmp 14b",
    "2: inc ebp; cmp ebp, 3; jb 7f; mov edx, 0x511; out dx, al; 7: mov dword ptr [esi + 0xb0], 0; pop ecx; lea esp, [esp + 8]; sti; jmp ecx",
);

// Writes into every other page from 0x20000 to 0x40000.
program!(
    writer,
    "mov ax, 0x2000; mov cx, 16; 1: mov es, ax; mov byte ptr es:[0x10], 1; add ax, 0x200; loop 1b",
    "out 0xf4, al; 2: hlt; jmp 2b",
);

// Writes to each of 3000 pages from 1 MiB up, in flat 32-bit code, with exits: there are KVMs that look only then whether a ring is full.
program!(
    sweeper,
    "cli; .att_syntax; lgdtl (4f - first); .intel_syntax noprefix; mov eax, cr0; or al, 1; mov cr0, eax; .att_syntax; ljmpl $8, $(1f - first); .intel_syntax noprefix",
    ".balign 8",
    "3: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff",
    "4: .word 23; .long 3b - first",
    ".code32",
    "1: mov ax, 16; mov ds, ax; mov ecx, 3000; mov ebx, 0x100000; 2: mov byte ptr [ebx], 1; add ebx, 0x1000; test cl, 15; jnz 5f; out 0x80, al; 5: dec ecx; jnz 2b",
    "out 0xf4, al; 6: hlt; jmp 6b",
);

// Turns for ever, counting, and writes the count to a port now and then.
program!(spinner, "xor ecx, ecx; 1: inc ecx; mov dword ptr ds:[0x6000], ecx; jmp 1b",);

// No descriptor table to deliver an exception with.
program!(
    triple_fault,
    "cli; .att_syntax; lidtl (1f - first); .intel_syntax noprefix; mov eax, cr0; or al, 1; mov cr0, eax; ud2; hlt",
    "1: .word 0; .long 0",
);

// Counts writes to a doorbell and interrupts of an eventfd.
program!(
    events,
    "cli; mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al",
    "mov al, 0xdf; out 0x21, al; mov dx, 0x4d0; mov al, 0x20; out dx, al",
    ".att_syntax; movw $(2f - first), 0x94; .intel_syntax noprefix; mov word ptr ds:[0x25*4+2], 0; xor bp, bp",
    "mov ax, 0xd000; mov es, ax; mov cx, 5; 1: mov es:[0x100], cx; loop 1b; mov es:[0x102], cx",
    "mov dx, 0x701; out dx, al; sti; 3: cmp bp, 3; jb 3b; cli; mov dx, 0x700; mov ax, bp; out dx, ax; out 0xf4, al; 4: hlt; jmp 4b",
    "2: inc bp; mov al, 0x20; out 0x20, al; iret",
);

// Rings a doorbell, then writes to another register.
program!(
    rings,
    "mov ax, 0xd000; mov es, ax; mov cx, 5; 1: mov es:[0x100], cx; loop 1b; mov es:[0x102], cx; out 0xf4, al; 2: hlt; jmp 2b",
);
