//! Bare-metal programs under each engine: changes of mode, traps between instructions, interrupts and their shadows. What a
//! program says by OUT is compared.

mod saved;

use parking_lot::{Condvar, Mutex};
use rhea_accel::Vcpu;
use rhea_clock::VirtualClock;
use rhea_jit::{JitOptions, JitVm};
use rhea_memory::{Access, AccessRules, AddressSpace, BusError, Gpa, MmioDevice, RamBlock};
use rhea_x86::hooks::{X86Pins, pin};
use rhea_x86::state::{Seg, Segment};
use rhea_x86::{X86Cpu, X86Hooks};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const PML4: u64 = 0x10_0000;
/// A write here ends the program.
const END: u16 = 0xf4;
/// A write here raises an interrupt, [`VECTOR`].
const RAISE: u16 = 0xf5;
/// A read gives this.
const VECTOR: u8 = 0x41;

#[derive(Default)]
struct Hook {
    said: Mutex<Vec<(u16, u32)>>,
    ended: Mutex<bool>,
    changed: Condvar,
    pins: OnceLock<Arc<X86Pins>>,
    /// What a write to [`saved::PAUSE`] does.
    pause: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl X86Hooks for Hook {
    fn port_out(&self, _: u32, port: u16, _: u8, value: u32) {
        match port {
            END => {
                *self.ended.lock() = true;
                self.changed.notify_all();
            }
            saved::PAUSE => {
                if let Some(pause) = self.pause.get() {
                    pause();
                }
                *self.ended.lock() = true;
                self.changed.notify_all();
            }
            RAISE => self.pins.get().unwrap().signal(pin::INTR),
            _ => self.said.lock().push((port, value)),
        }
    }
    fn acknowledge(&self, _: u32) -> Option<u8> {
        self.pins.get().unwrap().clear(pin::INTR);
        Some(VECTOR)
    }
    fn shutdown(&self, _: u32) {
        self.port_out(0, 0xfff, 4, 0);
        self.port_out(0, END, 4, 0);
    }
}

/// Pieces of memory, the start (in real mode, CS base 0) and what is said.
fn check(memory: &[(u64, &[u8])], start: u64, want: &[(u16, u32)]) {
    check_with(memory, None, start, want);
}

/// Bytes of a device, a page of them at an address.
struct Code(Vec<u8>);

impl MmioDevice for Code {
    fn read(&self, offset: u64, _: Access) -> Result<u64, BusError> {
        Ok(self.0.get(offset as usize).copied().unwrap_or(0xcc).into())
    }
    fn write(&self, _: u64, _: u64, _: Access) -> Result<(), BusError> {
        Err(BusError::Refused)
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 1)
    }
    fn name(&self) -> &str {
        "code"
    }
}

/// The same with a device over a page of the memory.
fn check_with(memory: &[(u64, &[u8])], device: Option<(u64, &[u8])>, start: u64, want: &[(u16, u32)]) {
    for (interpret, hot_threshold) in [(true, None), (false, None), (false, Some(2))] {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", 16 << 20).unwrap();
        let _map = space.map_ram(Gpa(0), &ram, 0, 16 << 20, 0).unwrap();
        for (at, bytes) in memory {
            ram.write(*at, bytes).unwrap();
        }
        let _device = device.map(|(at, code)| space.map_mmio(Gpa(at), 4096, Arc::new(Code(code.to_vec())), 1).unwrap());
        let hook = Arc::new(Hook::default());
        let config = Arc::new(rhea_x86::models::parse("max").unwrap().config);
        let mut cpu = X86Cpu::new(0, 0, &config, &space, &VirtualClock::new(), hook.clone());
        assert!(hook.pins.set(cpu.pins()).is_ok());
        cpu.set_segment(Seg::Cs, Segment::real(0, 0));
        cpu.header.pc = start;
        cpu.r[4] = 0x7000;
        cpu.rebuild_mode();
        let vm = JitVm::new(
            &space,
            JitOptions { code_bytes: 16 << 20, hot_threshold, interpret, background: false, counting: None },
        )
        .unwrap();
        let vcpu = vm.add_vcpu(0, cpu);
        let kick = vcpu.clone();
        hook.pins.get().unwrap().set_wake(Box::new(move || kick.kick()));
        vcpu.start().unwrap();
        vcpu.resume();
        let mut ended = hook.ended.lock();
        if !*ended {
            hook.changed.wait_for(&mut ended, Duration::from_secs(10));
        }
        let over = *ended;
        drop(ended);
        vcpu.stop();
        let said = hook.said.lock().clone();
        assert_eq!(said, want, "interpreter {interpret}, regions {hot_threshold:?}");
        assert!(over, "the program ended");
    }
}

fn gdt() -> Vec<u8> {
    // 32-bit code, data, 64-bit code.
    [0, 0x00cf_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff, 0x00af_9b00_0000_ffff]
        .iter()
        .flat_map(|d| d.to_le_bytes())
        .collect()
}
fn words(w: &[u64]) -> Vec<u8> {
    w.iter().flat_map(|d| d.to_le_bytes()).collect()
}
/// An interrupt gate of long mode.
fn gate(to: u64) -> Vec<u8> {
    words(&[to & 0xffff | 0x18 << 16 | 0x8e00 << 32 | (to >> 16) << 48, 0])
}

/// From real mode at 0x8000 to 64-bit mode at 0x8200.
const TO_LONG: &[u8] = &[
    0xfa, // cli
    0x66, 0x0f, 0x01, 0x16, 0x00, 0x70, // lgdt [0x7000]
    0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, // cr0 |= PE
    0x66, 0xea, 0x18, 0x80, 0x00, 0x00, 0x08, 0x00, // jmp 8:0x8018
    0x90, // (0x8017)
    0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // ds, es, ss
    0xbc, 0x00, 0x90, 0x00, 0x00, // esp
    0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f, 0x22, 0xe0, // cr4 = PAE
    0xb8, 0x00, 0x00, 0x10, 0x00, 0x0f, 0x22, 0xd8, // cr3
    0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, // EFER.LME
    0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, // cr0 |= PG
    0xea, 0x00, 0x82, 0x00, 0x00, 0x18, 0x00, // jmp 0x18:0x8200
];

/// Runs 64-bit code at 0x8200 with handlers.
fn check_long(code: &[u8], handlers: &[(u64, &[u8])], want: &[(u16, u32)]) {
    let mut memory: Vec<(u64, Vec<u8>)> = vec![
        (0x1000, gdt()),
        (0x7000, [&[0x1f, 0][..], &0x1000_u32.to_le_bytes()].concat()),
        (0x7010, [&[0xff, 0x0f][..], &0x2000_u64.to_le_bytes()].concat()),
        (PML4, words(&[PML4 + 0x1003])),
        (PML4 + 0x1000, words(&[PML4 + 0x2003])),
        (PML4 + 0x2000, words(&[0x83, 0x20_0083])),
        (0x8000, TO_LONG.to_vec()),
        // lidt [0x7010]
        (
            0x8200,
            [&[0x0f, 0x01, 0x1c, 0x25, 0x10, 0x70, 0, 0][..], code, &[0xe6, END as u8, 0xf4, 0xeb, 0xfd]].concat(),
        ),
    ];
    for (n, (vector, bytes)) in handlers.iter().enumerate() {
        let at = 0xa000 + 0x100 * n as u64;
        memory.push((0x2000 + 16 * vector, gate(at)));
        memory.push((at, bytes.to_vec()));
    }
    let memory: Vec<(u64, &[u8])> = memory.iter().map(|(at, b)| (*at, &b[..])).collect();
    check(&memory, 0x8000, want);
}

#[test]
fn to_long_mode_and_single_steps() {
    check_long(
        &[
            0xb0, 0x4c, 0xe6, 0x80, // say 0x80: 'L'
            0xcd, 0x40, // int 0x40
            0x9c, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9d, // TF on
            0x90, 0x90, 0x9c, 0x81, 0x24, 0x24, 0xff, 0xfe, 0xff, 0xff, 0x9d, // two NOPs, TF off
            0x90, 0x8b, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 0xe7, 0x82, // say 0x82: the count
        ],
        &[
            (0x40, &[0xb0, 0x49, 0xe6, 0x81, 0x48, 0xcf]),
            // inc dword [0x6000]; iretq
            (1, &[0xff, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 0x48, 0xcf]),
        ],
        &[(0x80, 0x4c), (0x81, 0x49), (0x82, 5)],
    );
}

/// An interrupt that waits is taken although what follows STI is the end of a block.
#[test]
fn interrupts_after_sti_and_ret() {
    let code = [
        0x31,
        0xc0,
        0xe6,
        RAISE as u8,
        0x90, // raise, masked
        0xe8,
        2,
        0,
        0,
        0, // call
        0xeb,
        0xfe, // jmp to itself
        0xfb,
        0xc3, // sti; ret
    ];
    check_long(&code, &[(u64::from(VECTOR), &[0xb0, 7, 0xe6, 0x91, 0xe6, END as u8, 0xf4])], &[(0x91, 7)]);
}

#[test]
fn interrupts_wait_for_the_shadow() {
    check_long(
        &[
            0x31,
            0xc0,
            0xe6,
            RAISE as u8, // raise, masked
            0x31,
            0xc0,
            0x90,
            0x90,
            0xfb, // sti
            0xb0,
            0x01, // in the shadow
            0xb0,
            0x02,
            0xe6,
            0x90, // say 0x90: 2
            0xfa,
            0xe6,
            RAISE as u8,
            0xb0,
            0x03,
            0xfb,
            0xf4, // raise, masked; sti; hlt
            0xe6,
            0x92, // say 0x92: 3
            // POPF unmasks without a shadow.
            0xfa,
            0xe6,
            RAISE as u8,
            0x9c,
            0x81,
            0x0c,
            0x24,
            0x00,
            0x02,
            0x00,
            0x00,
            0xb0,
            0x04,
            0x9d,
            0xb0,
            0x05,
            0xe6,
            0x93,
        ],
        // say 0x91: AL
        &[(VECTOR.into(), &[0xe6, 0x91, 0x48, 0xcf])],
        &[(0x91, 1), (0x90, 2), (0x91, 3), (0x92, 3), (0x91, 4), (0x93, 5)],
    );
}

#[test]
fn data_breakpoints_trap_after_the_instruction() {
    check_long(
        &[
            0xb8, 0x00, 0x60, 0x00, 0x00, 0x0f, 0x23, 0xc0, // dr0 = 0x6000
            0xb8, 0x01, 0x00, 0x0d, 0x00, 0x0f, 0x23, 0xf8, // dr7: writes of 4 bytes
            0x8b, 0x0c, 0x25, 0x00, 0x60, 0x00, 0x00, // a read
            0xb8, 0x07, 0x00, 0x00, 0x00, 0x89, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, // the write
            0x8b, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 0xe7, 0x83, // say 0x83: what was written
        ],
        // pop rbx; push rbx; mov eax, ebx; say 0x80; mov rax, dr6; say 0x81; iretq
        &[(1, &[0x5b, 0x53, 0x89, 0xd8, 0xe7, 0x80, 0x0f, 0x21, 0xf0, 0xe7, 0x81, 0x48, 0xcf])],
        &[(0x80, 0x8200 + 8 + 8 + 8 + 7 + 12), (0x81, 0xffff_0ff1), (0x83, 7)],
    );
}

#[test]
fn instruction_breakpoints_are_faults() {
    check_long(
        &[
            0xb8, 0x1a, 0x82, 0x00, 0x00, 0x0f, 0x23, 0xc8, // dr1 = 0x821a
            0xb8, 0x08, 0x00, 0x00, 0x00, 0x0f, 0x23, 0xf8, // dr7: execution, global
            0xb0, 0x01, // (0x8218)
            0xb0, 0x02, // (0x821a)
            0xe6, 0x83, // say 0x83: 2
        ],
        // say 0x80: AL; or dword [rsp + 16], RF; iretq
        &[(1, &[0xe6, 0x80, 0x81, 0x4c, 0x24, 0x10, 0x00, 0x00, 0x01, 0x00, 0x48, 0xcf])],
        &[(0x80, 1), (0x83, 2)],
    );
}

#[test]
fn code_ends_at_the_limit() {
    // Real mode: two INC AX up to 0xffff, then #GP; the handler says AX and the IP that was pushed.
    let handler: &[u8] = &[0xe7, 0x80, 0x58, 0xe7, 0x82, 0xe6, END as u8, 0xf4];
    let vectors = words(&[0, 0, 0, 0, 0, 0, 0x0500_0000_0000, 0]);
    let vectors = &vectors[..];
    check(&[(0, vectors), (0x500, handler), (0xfffe, &[0x40, 0x40, 0x40])], 0xfffe, &[(0x80, 2), (0x82, 0)]);
    // An instruction across the limit does not run.
    check(&[(0, vectors), (0x500, handler), (0xfffe, &[0x40, 0x04, 0x01])], 0xfffe, &[(0x80, 1), (0x82, 0xffff)]);
}

#[test]
fn page_faults_come_back() {
    check_long(
        &[
            0xb8, 0x00, 0x00, 0x60, 0x00, // eax = 0x600000: not mapped
            0xc7, 0x00, 0x2a, 0x00, 0x00, 0x00, // mov dword [rax], 42
            0x8b, 0x00, 0xe7, 0x83, // say 0x83: [rax]
        ],
        // mov rbx, cr2; mov eax, ebx; say 0x80; pop rax; say 0x81: the code; map 2 MiB; mov eax, ebx; iretq
        &[(
            14,
            &[
                0x0f, 0x20, 0xd3, 0x89, 0xd8, 0xe7, 0x80, 0x58, 0xe7, 0x81, 0x48, 0xc7, 0x04, 0x25, 0x18, 0x20, 0x10,
                0x00, 0x83, 0x00, 0x60, 0x00, 0x89, 0xd8, 0x48, 0xcf,
            ],
        )],
        &[(0x80, 0x60_0000), (0x81, 2), (0x83, 42)],
    );
}

#[test]
fn code_of_a_device() {
    // MOV AX, 0x1234 crosses into the device's page, which has MOV CX, 3; OUT 0x90, AX; INC AX; LOOP to the OUT; MOV DX, AX; and
    // jumps back to memory: OUT 0x91, AL; OUT END, AL.
    let device = [0x12, 0xb9, 3, 0, 0xe7, 0x90, 0x40, 0xe2, 0xfb, 0x89, 0xc2, 0xe9, 0xf2, 0xef];
    let memory: [(u64, &[u8]); 2] = [(0x8ffe, &[0xb8, 0x34]), (0x8000, &[0xe6, 0x91, 0xe6, END as u8, 0xf4])];
    check_with(
        &memory,
        Some((0x9000, &device)),
        0x8ffe,
        &[(0x90, 0x1234), (0x90, 0x1235), (0x90, 0x1236), (0x91, 0x37)],
    );
}
