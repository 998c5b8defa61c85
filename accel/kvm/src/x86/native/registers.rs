//! The state of a processor, between the kernel and an [`X86Cpu`].

use super::sys::VcpuFile;
use crate::error::{Context, KvmError};
use kvm_bindings as kb;
use kvm_bindings::nested::KvmNestedStateBuffer;
use kvm_bindings::{
    kvm_debugregs, kvm_dtable, kvm_guest_debug, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
    kvm_vcpu_events, kvm_xcr, kvm_xcrs,
};
use rhea_ir::guest::Guest;
use rhea_memory::{AddressSpace, Gpa, Requester};
use rhea_x86::saved::{SegmentSaved, X87Saved};
use rhea_x86::{Feature, HostWatch, X86Cpu, X86Saved};

/// Registers that hold values, by number: tried all, kept in step where the kernel has them.
const MSRS: &[u32] = &[
    // System calls, segments, memory types.
    0x174,
    0x175,
    0x176,
    0x277,
    0x2ff,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
    0xc000_0103,
    // Control of speculation, IA32_MISC_ENABLE, IA32_DEBUGCTL.
    0x48,
    0x1a0,
    0x1d9,
    // Machine check.
    0x17a,
    0x17b,
    // The paravirtual ones: wall clock, system time, steal time, end of interrupt.
    0x4b56_4d00,
    0x4b56_4d01,
    0x4b56_4d03,
    0x4b56_4d04,
];
/// Fixed and variable memory type ranges, machine-check banks.
const MSR_RANGES: &[std::ops::Range<u32>] = &[0x250..0x251, 0x258..0x25a, 0x268..0x270, 0x200..0x210, 0x400..0x428];
/// Registers that only guests with guests of their own have, zero after a reset: IA32_FEATURE_CONTROL; VM_CR, VM_HSAVE_PA.
const VMX_MSRS: &[u32] = &[0x3a];
const SVM_MSRS: &[u32] = &[0xc001_0114, 0xc001_0117];
/// And those that only guests with tiles have: IA32_XFD, IA32_XFD_ERR (SDM volume 1, 13.14).
const TILE_MSRS: &[u32] = &[0x1c4, 0x1c5];
/// Where the kernel keeps SMBASE.
const MSR_SMBASE: u32 = 0x9e;

const LEGACY: usize = 512;
/// XSTATE_BV.
const HEADER: usize = 512;
const YMM: usize = 576;
const AVX: u64 = 4;
const PKRU: u64 = 1 << 9;

/// Local APIC enabled at its address; of the first processor.
pub const APIC_BASE: u64 = 0xfee0_0800;
pub const APIC_BSP: u64 = 0x100;

/// What the kernel can do, and where controllers are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abilities {
    /// Local APICs are in the kernel.
    pub kernel_apic: bool,
    /// The 8259s too, and so all that interrupts.
    pub kernel_pic: bool,
    pub smm: bool,
    /// Which extension a guest has to run guests of its own, if it has one.
    pub nested: Option<Feature>,
    /// A guest has tiles.
    pub tiles: bool,
    pub xcrs: bool,
    pub pkru: Option<usize>,
}

/// What is kept between two looks at a processor's state.
pub struct Registers {
    can: Abilities,
    sregs: kvm_sregs,
    xsave: Vec<u8>,
    events: kvm_vcpu_events,
    /// That of virtualization inside of the guest, as it is after a reset.
    nested: Option<Box<KvmNestedStateBuffer>>,
    mp: u32,
    /// Registers by number with the kernel's values.
    msrs: Vec<kvm_msr_entry>,
    /// `X86Cpu::resets` at the last look.
    resets: u32,
    /// What the debugger wants, as the kernel was told.
    debug: kvm_guest_debug,
}

fn segment(s: &SegmentSaved) -> kvm_segment {
    let bit = |n: u32| (s.attr >> n & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector as u16,
        type_: (s.attr & 15) as u8,
        s: bit(4),
        dpl: (s.attr >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: bit(16),
        padding: 0,
    }
}

fn saved_segment(s: &kvm_segment) -> SegmentSaved {
    let bit = |v: u8, n: u32| u32::from(v & 1) << n;
    let attr = u32::from(s.type_ & 15)
        | bit(s.s, 4)
        | u32::from(s.dpl & 3) << 5
        | bit(s.present, 7)
        | bit(s.avl, 12)
        | bit(s.l, 13)
        | bit(s.db, 14)
        | bit(s.g, 15)
        | u32::from(s.unusable != 0 || s.present == 0) << 16;
    SegmentSaved { selector: s.selector.into(), base: s.base, limit: s.limit, attr }
}

fn long(s: &X86Saved) -> bool {
    const LMA: u64 = 1 << 10;
    s.control[4] & LMA != 0 && s.segments[1].attr >> 13 & 1 != 0
}

fn word16(area: &[u8], at: usize) -> u16 {
    area.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}
fn word32(area: &[u8], at: usize) -> u32 {
    area.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}
fn word64(area: &[u8], at: usize) -> u64 {
    area.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
fn put(area: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = area.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

impl Registers {
    /// Looks at the kernel's initial state.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn new(file: &dyn VcpuFile, can: Abilities) -> Result<Self, KvmError> {
        let numbers = MSRS.iter().copied().chain(MSR_RANGES.iter().cloned().flatten());
        let numbers = numbers.chain(can.smm.then_some(MSR_SMBASE));
        let mut registers = Self {
            can,
            sregs: file.sregs().during("KVM_GET_SREGS")?,
            xsave: file.xsave().during("KVM_GET_XSAVE")?,
            events: file.events().during("KVM_GET_VCPU_EVENTS")?,
            nested: can.nested.map(|_| file.nested_state().during("KVM_GET_NESTED_STATE")).transpose()?,
            mp: kb::KVM_MP_STATE_RUNNABLE,
            msrs: numbers.map(|index| kvm_msr_entry { index, ..Default::default() }).collect(),
            resets: 0,
            debug: kvm_guest_debug::default(),
        };
        registers.read_msrs(file)?;
        Ok(registers)
    }

    /// Reads all registers; those that the kernel refuses are given up.
    fn read_msrs(&mut self, file: &dyn VcpuFile) -> Result<(), KvmError> {
        let mut at = 0;
        while at < self.msrs.len() {
            let n = file.msrs(&mut self.msrs[at..]).during("KVM_GET_MSRS")?;
            at += n;
            if at < self.msrs.len() {
                self.msrs.remove(at);
            }
        }
        Ok(())
    }

    /// Writes registers; those that the kernel refuses are given up.
    fn write_msrs(&mut self, file: &dyn VcpuFile, changed: &[kvm_msr_entry]) -> Result<(), KvmError> {
        let mut left = changed;
        while !left.is_empty() {
            let n = file.set_msrs(left).during("KVM_SET_MSRS")?.min(left.len());
            for done in &left[..n] {
                if let Some(known) = self.msrs.iter_mut().find(|m| m.index == done.index) {
                    known.data = done.data;
                }
            }
            left = &left[n..];
            if let Some((refused, rest)) = left.split_first() {
                self.msrs.retain(|m| m.index != refused.index);
                left = rest;
            }
        }
        Ok(())
    }

    /// Brings the kernel's state into `cpu`. `halted` and `shut_down` are known outside of the kernel.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn pull(
        &mut self,
        file: &dyn VcpuFile,
        cpu: &mut X86Cpu,
        space: &AddressSpace,
        halted: bool,
        shut_down: bool,
    ) -> Result<(), KvmError> {
        // First: the kernel takes an INIT that came when it is asked for this, and changes the rest.
        if self.can.kernel_apic {
            self.mp = file.mp_state().during("KVM_GET_MP_STATE")?.mp_state;
        }
        let regs = file.regs().during("KVM_GET_REGS")?;
        self.sregs = file.sregs().during("KVM_GET_SREGS")?;
        self.xsave = file.xsave().during("KVM_GET_XSAVE")?;
        self.events = file.events().during("KVM_GET_VCPU_EVENTS")?;
        let debug = file.debug_registers().during("KVM_GET_DEBUGREGS")?;
        self.read_msrs(file)?;
        let s = &self.sregs;
        let mut saved = cpu.save_state();
        saved.r = [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10,
            regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ];
        saved.rflags = regs.rflags as u32;
        saved.segments = [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs].map(saved_segment);
        (saved.ldtr, saved.tr) = (saved_segment(&s.ldt), saved_segment(&s.tr));
        saved.tables = [(s.gdt.base, s.gdt.limit.into()), (s.idt.base, s.idt.limit.into())];
        let xcr0 = self.xcr0(file, saved.control[5])?;
        saved.control = [s.cr0, s.cr2, s.cr3, s.cr4, s.efer, xcr0];
        saved.pc = if long(&saved) { regs.rip } else { regs.rip.wrapping_add(s.cs.base) & 0xffff_ffff };
        const VM: u64 = 1 << 17;
        saved.cpl = match (s.cr0 & 1 != 0, regs.rflags & VM != 0) {
            (false, _) => 0,
            (true, true) => 3,
            // The descriptor of the stack has the level (SDM volume 3, 25.4.1).
            (true, false) => s.ss.dpl & 3,
        };
        saved.pdpte = pdpte(s, space).unwrap_or(saved.pdpte);
        saved.dr = [debug.db[0], debug.db[1], debug.db[2], debug.db[3], 0, 0, debug.dr6, debug.dr7];
        self.unpack_xsave(&mut saved);
        saved.shadow = match u32::from(self.events.interrupt.shadow) {
            n if n & kb::KVM_X86_SHADOW_INT_MOV_SS != 0 => 2,
            n if n & kb::KVM_X86_SHADOW_INT_STI != 0 => 1,
            _ => 0,
        };
        saved.nmi_blocked = self.events.nmi.masked != 0;
        saved.smm = self.events.smi.smm != 0;
        saved.smm_nmi_blocked = self.events.smi.smm_inside_nmi != 0;
        saved.traps = (0, false);
        (saved.halted, saved.shut_down) = (halted, shut_down);
        if self.can.kernel_apic {
            saved.halted = self.mp == kb::KVM_MP_STATE_HALTED;
            saved.wait_for_sipi = waits(self.mp);
        }
        for msr in &self.msrs {
            if msr.index == MSR_SMBASE {
                saved.smbase = msr.data as u32;
            } else if let Some(register) = cpu.plain_msr(msr.index) {
                *register = msr.data;
            }
        }
        cpu.set_registers(&saved);
        // There are no translations to drop.
        cpu.take_flushes();
        self.resets = cpu.resets;
        Ok(())
    }

    fn xcr0(&self, file: &dyn VcpuFile, known: u64) -> Result<u64, KvmError> {
        if !self.can.xcrs {
            return Ok(known);
        }
        let xcrs = file.xcrs().during("KVM_GET_XCRS")?;
        let all = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize);
        Ok(all.into_iter().find(|x| x.xcr == 0).map_or(known, |x| x.value))
    }

    fn unpack_xsave(&self, saved: &mut X86Saved) {
        let area = &self.xsave;
        let in_use = word64(area, HEADER);
        saved.mxcsr = word32(area, 24);
        saved.x87 = if in_use & 1 != 0 {
            let status = word16(area, 2);
            let mut registers = [(0, 0); 8];
            for n in 0..8 {
                // The area has them from the top of the stack.
                let r = (usize::from(status >> 11 & 7) + n) % 8;
                registers[r] = (word64(area, 32 + 16 * n), word16(area, 40 + 16 * n));
            }
            X87Saved {
                words: [word16(area, 0), status, u16::from(area[4])],
                registers,
                pointers: [(word64(area, 8), 0), (word64(area, 16), 0)],
                opcode: word16(area, 6).into(),
            }
        } else {
            X87Saved { words: [0x37f, 0, 0], registers: [(0, 0); 8], pointers: [(0, 0); 2], opcode: 0 }
        };
        for (n, ymm) in saved.ymm.iter_mut().enumerate() {
            let (low, high) = (160 + 16 * n, YMM + 16 * n);
            *ymm = [0; 4];
            if in_use & 2 != 0 {
                (ymm[0], ymm[1]) = (word64(area, low), word64(area, low + 8));
            }
            if in_use & AVX != 0 {
                (ymm[2], ymm[3]) = (word64(area, high), word64(area, high + 8));
            }
        }
        saved.pkru = match self.can.pkru {
            Some(at) if in_use & PKRU != 0 => word32(area, at),
            _ => 0,
        };
        saved.in_use = 0;
    }

    /// What is not in `saved` (AVX-512, tiles, ...) stays, but after a reset.
    fn pack_xsave(&mut self, saved: &X86Saved, reset: bool) {
        let area = &mut self.xsave;
        if reset {
            area[LEGACY..].fill(0);
        }
        let mut in_use = word64(area, HEADER) | 3;
        let x = &saved.x87;
        put(area, 0, &x.words[0].to_le_bytes());
        put(area, 2, &x.words[1].to_le_bytes());
        put(area, 4, &[x.words[2] as u8, 0]);
        put(area, 6, &(x.opcode as u16).to_le_bytes());
        put(area, 8, &x.pointers[0].0.to_le_bytes());
        put(area, 16, &x.pointers[1].0.to_le_bytes());
        put(area, 24, &saved.mxcsr.to_le_bytes());
        for n in 0..8 {
            let (significand, exponent) = x.registers[(usize::from(x.words[1] >> 11 & 7) + n) % 8];
            put(area, 32 + 16 * n, &significand.to_le_bytes());
            put(area, 40 + 16 * n, &exponent.to_le_bytes());
        }
        let mut upper = false;
        for (n, ymm) in saved.ymm.iter().enumerate() {
            let (low, high) = (160 + 16 * n, YMM + 16 * n);
            put(area, low, &ymm[0].to_le_bytes());
            put(area, low + 8, &ymm[1].to_le_bytes());
            if ymm[2] | ymm[3] != 0 || in_use & AVX != 0 {
                upper = true;
                put(area, high, &ymm[2].to_le_bytes());
                put(area, high + 8, &ymm[3].to_le_bytes());
            }
        }
        if upper {
            in_use |= AVX;
        }
        if let Some(at) = self.can.pkru
            && (saved.pkru != 0 || in_use & PKRU != 0)
        {
            put(area, at, &saved.pkru.to_le_bytes());
            in_use |= PKRU;
        }
        put(area, HEADER, &in_use.to_le_bytes());
    }

    /// Has the kernel look anew where its translations are, when it is given state next. Linux with SVM loses them when a processor shuts
    /// down without paging, and finds them again when control registers change: a reset may set those that there were.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn lose_translations(&self, file: &dyn VcpuFile) -> Result<(), KvmError> {
        const NEXT_PAGE: u64 = 0x1000;
        let sregs = file.sregs().during("KVM_GET_SREGS")?;
        file.set_sregs(&kvm_sregs { cr3: sregs.cr3 ^ NEXT_PAGE, ..sregs }).during("KVM_SET_SREGS")
    }
    /// Gives the state of `cpu` to the kernel. `apic_base` is that of a local APIC outside of it.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn push(
        &mut self,
        file: &dyn VcpuFile,
        cpu: &mut X86Cpu,
        apic_base: Option<u64>,
        cr8: Option<u64>,
    ) -> Result<(), KvmError> {
        let saved = cpu.save_state();
        let reset = cpu.resets != self.resets;
        self.resets = cpu.resets;
        if reset {
            self.leave_nested(file)?;
            if self.can.tiles {
                zero(file, TILE_MSRS)?;
            }
        }
        let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = saved.r;
        let rip = if long(&saved) { saved.pc } else { saved.pc.wrapping_sub(saved.segments[1].base) & 0xffff_ffff };
        let rflags = saved.rflags.into();
        let regs =
            kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags };
        let [es, cs, ss, ds, fs, gs] = saved.segments.each_ref().map(segment);
        let table = |(base, limit): (u64, u32)| kvm_dtable { base, limit: limit as u16, padding: [0; 3] };
        let [cr0, cr2, cr3, cr4, efer, xcr0] = saved.control;
        self.sregs = kvm_sregs {
            cs,
            ds,
            es,
            fs,
            gs,
            ss,
            tr: segment(&saved.tr),
            ldt: segment(&saved.ldtr),
            gdt: table(saved.tables[0]),
            idt: table(saved.tables[1]),
            cr0,
            cr2,
            cr3,
            cr4,
            cr8: cr8.unwrap_or(if reset { 0 } else { self.sregs.cr8 }),
            efer,
            // A local APIC in the kernel keeps it, and changes it between two looks.
            apic_base: match apic_base {
                Some(base) => base,
                None => file.sregs().during("KVM_GET_SREGS")?.apic_base,
            },
            // What was injected is in the events.
            interrupt_bitmap: [0; 4],
        };
        file.set_sregs(&self.sregs).during("KVM_SET_SREGS")?;
        file.set_regs(&regs).during("KVM_SET_REGS")?;
        if self.can.xcrs {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: xcr0 | 1 };
            file.set_xcrs(&xcrs).during("KVM_SET_XCRS")?;
        }
        self.pack_xsave(&saved, reset);
        file.set_xsave(&self.xsave).during("KVM_SET_XSAVE")?;
        let changed: Vec<kvm_msr_entry> = self
            .msrs
            .iter()
            .filter_map(|m| {
                let data = match m.index {
                    MSR_SMBASE => saved.smbase.into(),
                    index => *cpu.plain_msr(index)?,
                };
                (data != m.data).then_some(kvm_msr_entry { data, ..*m })
            })
            .collect();
        self.write_msrs(file, &changed)?;
        self.push_events(file, &saved, reset)?;
        if self.can.kernel_apic {
            let mp = match (saved.wait_for_sipi, saved.halted) {
                // INIT has come already, or a start-up message too.
                (true, _) if waits(self.mp) && !reset => self.mp,
                (true, _) => kb::KVM_MP_STATE_UNINITIALIZED,
                (false, true) => kb::KVM_MP_STATE_HALTED,
                (false, false) => kb::KVM_MP_STATE_RUNNABLE,
            };
            file.set_mp_state(kvm_mp_state { mp_state: mp }).during("KVM_SET_MP_STATE")?;
            self.mp = mp;
        }
        let [d0, d1, d2, d3, _, _, dr6, dr7] = saved.dr;
        let debug = kvm_debugregs { db: [d0, d1, d2, d3], dr6, dr7, ..Default::default() };
        file.set_debug_registers(&debug).during("KVM_SET_DEBUGREGS")?;
        self.push_stops(file, cpu)
    }

    /// The processor is in no guest of the guest any more, and knows of none.
    fn leave_nested(&self, file: &dyn VcpuFile) -> Result<(), KvmError> {
        let Some(nested) = &self.nested else { return Ok(()) };
        file.set_nested_state(nested).during("KVM_SET_NESTED_STATE")?;
        zero(file, if self.can.nested == Some(Feature::Vmx) { VMX_MSRS } else { SVM_MSRS })
    }

    fn push_events(&mut self, file: &dyn VcpuFile, saved: &X86Saved, reset: bool) -> Result<(), KvmError> {
        const KEPT: u32 = kb::KVM_VCPUEVENT_VALID_PAYLOAD | kb::KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        let mut e = if reset { kvm_vcpu_events::default() } else { self.events };
        e.flags &= KEPT;
        e.flags |= kb::KVM_VCPUEVENT_VALID_NMI_PENDING | kb::KVM_VCPUEVENT_VALID_SHADOW;
        e.nmi.masked = saved.nmi_blocked.into();
        e.interrupt.shadow = match saved.shadow {
            1 => kb::KVM_X86_SHADOW_INT_STI as u8,
            2 => kb::KVM_X86_SHADOW_INT_MOV_SS as u8,
            _ => 0,
        };
        // Only if it changes: an INIT that came meanwhile would be taken back with it.
        let had = &self.events.smi;
        let changed = (saved.smm, saved.smm_nmi_blocked) != (had.smm != 0, had.smm_inside_nmi != 0);
        if self.can.smm && (changed || reset && had.pending != 0) {
            e.flags |= kb::KVM_VCPUEVENT_VALID_SMM;
            e.smi.smm = saved.smm.into();
            e.smi.smm_inside_nmi = saved.smm_nmi_blocked.into();
        }
        file.set_events(&e).during("KVM_SET_VCPU_EVENTS")?;
        self.events = e;
        Ok(())
    }

    /// Breakpoints, watchpoints and single step of the debugger, if they changed.
    fn push_stops(&mut self, file: &dyn VcpuFile, cpu: &X86Cpu) -> Result<(), KvmError> {
        let (breakpoints, watches, step) = cpu.host_stops();
        let mut debug = kvm_guest_debug::default();
        if step {
            debug.control |= kb::KVM_GUESTDBG_ENABLE | kb::KVM_GUESTDBG_SINGLESTEP;
        }
        let wanted = breakpoints.iter().map(|va| (*va, 0, 0)).chain(watches.iter().map(watch_fields));
        for (n, (va, kind, len)) in wanted.take(4).enumerate() {
            debug.control |= kb::KVM_GUESTDBG_ENABLE | kb::KVM_GUESTDBG_USE_HW_BP;
            debug.arch.debugreg[n] = va;
            // Global enable, kind and length; bit 10 is one.
            debug.arch.debugreg[7] |= 2 << (2 * n) | kind << (16 + 4 * n) | len << (18 + 4 * n) | 1 << 10;
        }
        if breakpoints.len() + watches.len() > 4 {
            eprintln!(
                "rhea: -accel kvm: the processor has four breakpoints and watchpoints: the others do not stop it"
            );
        }
        if debug.control != self.debug.control || debug.arch.debugreg != self.debug.arch.debugreg {
            file.set_guest_debug(&debug).during("KVM_SET_GUEST_DEBUG")?;
            self.debug = debug;
        }
        Ok(())
    }

    /// Which of the debugger's breakpoints `dr6` names: whether it is one for data, and of which address.
    #[must_use]
    pub fn stop_of(&self, dr6: u64) -> Option<(bool, u64, bool)> {
        let n = (0..4).find(|n| dr6 >> n & 1 != 0)?;
        let kind = self.debug.arch.debugreg[7] >> (16 + 4 * n) & 3;
        Some((kind != 0, self.debug.arch.debugreg[n], kind == 1))
    }
    /// Did the processor take RESET or INIT since the kernel's state was last the same?
    #[must_use]
    pub fn was_reset(&self, cpu: &X86Cpu) -> bool {
        cpu.resets != self.resets
    }
}

/// Address, R/W and LEN fields of DR7.
fn watch_fields(w: &HostWatch) -> (u64, u64, u64) {
    let len = match w.len {
        0 | 1 => 0,
        2 | 3 => 1,
        4..=7 => 3,
        _ => 2,
    };
    (w.va, if w.read { 3 } else { 1 }, len)
}

/// Clears registers; one that the kernel does not have keeps nothing.
fn zero(file: &dyn VcpuFile, numbers: &[u32]) -> Result<(), KvmError> {
    for &index in numbers {
        let entry = kvm_msr_entry { index, ..Default::default() };
        file.set_msrs(&[entry]).during("KVM_SET_MSRS")?;
    }
    Ok(())
}

fn waits(mp: u32) -> bool {
    matches!(mp, kb::KVM_MP_STATE_UNINITIALIZED | kb::KVM_MP_STATE_INIT_RECEIVED | kb::KVM_MP_STATE_SIPI_RECEIVED)
}

/// The page-directory pointers of PAE paging as they are in memory.
fn pdpte(s: &kvm_sregs, space: &AddressSpace) -> Option<[u64; 4]> {
    const PG: u64 = 1 << 31;
    const PAE: u64 = 1 << 5;
    const LMA: u64 = 1 << 10;
    if s.cr0 & PG == 0 || s.cr4 & PAE == 0 || s.efer & LMA != 0 {
        return None;
    }
    let mut bytes = [0; 32];
    space.read(Gpa(s.cr3 & 0xffff_ffe0), &mut bytes, Requester::Host).ok()?;
    Some(std::array::from_fn(|n| word64(&bytes, 8 * n)))
}
