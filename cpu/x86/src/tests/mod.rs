//! State-machine tests of the system part: a processor without an execution engine, its registers set by hand.

mod debug;
mod delivery;
mod paging;
mod segments;
mod smm;
mod tasks;

use crate::config::{Feature as F, Vendor, X86Config};
use crate::hooks::X86Hooks;
use crate::mmu::{cr0, cr4, efer};
use crate::state::{Seg, Segment, TableRegister, X86Cpu, gpr};
use rhea_clock::VirtualClock;
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// RAM from address 0; nothing above.
pub const RAM: u64 = 16 << 20;
pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x3000;
pub const PML4: u64 = 0x10_0000;

/// Selectors of [`Bench::gdt`].
pub const KCODE: u16 = 0x08;
pub const KDATA: u16 = 0x10;
pub const UCODE: u16 = 0x1b;
pub const UDATA: u16 = 0x23;
pub const TSS_SEL: u16 = 0x28;
/// 16 bytes long in long mode.
pub const FREE: u16 = 0x40;

#[derive(Default)]
pub struct Hooks {
    pub shutdowns: AtomicU32,
    /// INTR's vector + 1.
    pub vector: AtomicU32,
    /// Calls of `smm`: entries in the low half, exits in the high one.
    pub smm: AtomicU64,
}
impl X86Hooks for Hooks {
    fn acknowledge(&self, _: u32) -> Option<u8> {
        (self.vector.swap(0, Ordering::SeqCst) as u8).checked_sub(1)
    }
    fn shutdown(&self, _: u32) {
        self.shutdowns.fetch_add(1, Ordering::SeqCst);
    }
    fn smm(&self, _: u32, inside: bool) {
        self.smm.fetch_add(if inside { 1 } else { 1 << 32 }, Ordering::SeqCst);
    }
}

pub struct Bench {
    cpu: Box<X86Cpu>,
    pub ram: Arc<RamBlock>,
    pub hooks: Arc<Hooks>,
    _map: rhea_memory::Mapping,
}

impl Deref for Bench {
    type Target = X86Cpu;
    fn deref(&self) -> &X86Cpu {
        &self.cpu
    }
}
impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut X86Cpu {
        &mut self.cpu
    }
}

pub fn config(vendor: Vendor) -> X86Config {
    let mut c = X86Config::bare("test", vendor, 6, 94, 3);
    c.enable(&[
        F::Vme,
        F::Tsc,
        F::De,
        F::Pse,
        F::Pse36,
        F::Pae,
        F::Mce,
        F::Pge,
        F::Fxsr,
        F::Sse,
        F::Umip,
        F::La57,
        F::Fsgsbase,
        F::Pcid,
        F::Xsave,
        F::Smep,
        F::Smap,
        F::Pku,
        F::Pks,
        F::Pdpe1gb,
        F::Nx,
        F::Lm,
        F::Syscall,
        F::Sep,
    ]);
    c.finish();
    c
}

/// A code or data descriptor with base 0 and a limit of 4 GiB.
pub fn flat(kind: u64, dpl: u64, flags: u64) -> u64 {
    0x000f_0000_0000_ffff | (kind | 0x90 | dpl << 5) << 40 | (flags | 8) << 52
}
/// A gate (or the first half of a 16-byte one).
pub fn gate(kind: u64, dpl: u64, selector: u16, offset: u64, low: u64) -> u64 {
    offset & 0xffff
        | u64::from(selector) << 16
        | low << 32
        | (kind | 0x80 | dpl << 5) << 40
        | (offset & 0xffff_0000) << 32
}

impl Bench {
    pub fn with(config: X86Config) -> Bench {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", RAM).unwrap();
        let map = space.map_ram(Gpa(0), &ram, 0, RAM, 0).unwrap();
        let hooks = Arc::new(Hooks::default());
        let cpu = X86Cpu::new(0, 0, &Arc::new(config), &space, &VirtualClock::new(), hooks.clone());
        // The address space lives as long as the mapping.
        Bench { cpu, ram, hooks, _map: map }
    }
    /// Real mode, as after reset.
    pub fn real() -> Bench {
        Bench::with(config(Vendor::Intel))
    }
    pub fn put(&mut self, at: u64, size: u8, v: u64) {
        self.ram.store(at, size, v).unwrap();
    }
    pub fn get(&self, at: u64, size: u8) -> u64 {
        self.ram.load(at, size).unwrap()
    }
    /// Flat segments for both levels and a TSS.
    fn gdt(&mut self, code: u64, tss: u64) {
        self.put(GDT + 0x08, 8, flat(11, 0, code));
        self.put(GDT + 0x10, 8, flat(3, 0, 4));
        self.put(GDT + 0x18, 8, flat(11, 3, code));
        self.put(GDT + 0x20, 8, flat(3, 3, 4));
        self.put(GDT + 0x28, 8, 0x67 | TSS << 16 | tss << 40);
        self.put(GDT + 0x30, 8, 0);
        self.gdtr = TableRegister { base: GDT, limit: 0xff };
        self.idtr = TableRegister { base: IDT, limit: 0xfff };
    }
    /// Protected mode at level 0 or 3, without paging, at 0x8000 with the stack at 0x9000.
    pub fn protected(cpl: u16) -> Bench {
        let mut b = Bench::real();
        b.gdt(4, 0x8b);
        b.cr0 = cr0::ET | cr0::PE;
        b.tr = Segment { selector: TSS_SEL.into(), base: TSS, limit: 0x67, attr: 0x8b, ..Segment::default() };
        b.put(TSS + 4, 4, 0x7000);
        b.put(TSS + 8, 4, KDATA.into());
        b.level(cpl);
        b
    }
    /// 64-bit mode with the first 16 MiB mapped one to one for user and supervisor.
    pub fn long(cpl: u16) -> Bench {
        let mut b = Bench::real();
        b.gdt(2, 0x8b);
        b.cr0 = cr0::ET | cr0::PE | cr0::PG | cr0::WP;
        b.cr4 = cr4::PAE;
        b.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
        b.cr3 = PML4;
        b.put(PML4, 8, (PML4 + 0x1000) | 7);
        b.put(PML4 + 0x1000, 8, (PML4 + 0x2000) | 7);
        for n in 0..8 {
            b.put(PML4 + 0x2000 + 8 * n, 8, n << 21 | 0x87);
        }
        b.tr = Segment { selector: TSS_SEL.into(), base: TSS, limit: 0x67, attr: 0x8b, ..Segment::default() };
        b.put(TSS + 4, 8, 0x7000);
        b.put(TSS + 36, 8, 0x6008);
        b.level(cpl);
        b
    }
    fn level(&mut self, cpl: u16) {
        let (code, data) = if cpl == 0 { (KCODE, KDATA) } else { (UCODE, UDATA) };
        self.cpl = cpl.into();
        let read = |b: &Bench, s: u16| crate::segment::Descriptor { raw: b.get(GDT + u64::from(s & !7), 8), at: 0 };
        let cs = read(self, code).segment(code.into());
        self.set_segment(Seg::Cs, cs);
        for s in [Seg::Es, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs] {
            let d = read(self, data).segment(data.into());
            self.set_segment(s, d);
        }
        self.r[gpr::RSP as usize] = 0x9000;
        self.header.pc = 0x8000;
        self.rebuild_mode();
    }
    /// A gate of the IDT; 16 bytes in long mode.
    pub fn idt(&mut self, vector: u64, gate: u64) {
        if self.lma() {
            self.put(IDT + 16 * vector, 8, gate);
            self.put(IDT + 16 * vector + 8, 8, 0);
        } else {
            self.put(IDT + 8 * vector, 8, gate);
        }
    }
    /// An interrupt gate to `offset` in the kernel's code.
    pub fn handler(&mut self, vector: u64, dpl: u64, offset: u64) {
        self.idt(vector, gate(14, dpl, KCODE, offset, 0));
    }
    pub fn sp(&self) -> u64 {
        self.r[gpr::RSP as usize]
    }
    /// The words at the stack pointer (flat segments).
    pub fn frame(&self, size: u8, n: u64) -> Vec<u64> {
        (0..n).map(|k| self.get(self.sp() + k * u64::from(size), size)).collect()
    }
    pub fn shutdowns(&self) -> u32 {
        self.hooks.shutdowns.load(Ordering::SeqCst)
    }
}
