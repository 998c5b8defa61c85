//! The CPUs of the board: an [`X86Cpu`] as machine and debugger see it.

use crate::cpu::{BoardCpu, BoardGuest};
use crate::profile::{Frame, FrameLink};
use parking_lot::Mutex;
use rhea_accel::{DebugStop, GuestVcpu, WatchKind};
use rhea_device::{LoadError, Saved, state};
use rhea_firmware::acpi::WakingVector;
use rhea_firmware::x86::CpuStart;
use rhea_ir::guest::Guest;
use rhea_memory::{AddressSpace, Gva};
use rhea_x86::state::{Seg, Segment, TableRegister, gpr};
use rhea_x86::{DebugEvent, HostWatch, X86Cpu};
use std::fmt::Write;
use std::sync::Arc;

/// The text of `-cpu help`.
#[must_use]
pub fn help() -> String {
    let mut text = "Available CPUs:\n".to_owned();
    for (name, what) in rhea_x86::models::MODELS {
        let _ = writeln!(text, "  {name:<16} {what}");
    }
    text.push_str("\nCPU properties:\n");
    for (name, what) in rhea_x86::models::PROPERTIES {
        let _ = writeln!(text, "  {name:<16} {what}");
    }
    text.push_str("\nCPU features (+name, -name, name=on|off):\n ");
    let mut column = 1;
    for name in rhea_x86::Feature::ALL.iter().filter(|f| f.available()).map(|f| f.name()) {
        if column + name.len() >= 79 {
            text.push_str("\n ");
            column = 1;
        }
        let _ = write!(text, " {name}");
        column += name.len() + 1;
    }
    text.push('\n');
    text
}

/// IA32_MTRR_DEF_TYPE, and in it: enabled, fixed ranges too, default type write-back.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_WRITE_BACK: u64 = 0xc06;

/// How the first CPU starts when it is reset.
pub struct BootCpu {
    start: CpuStart,
    waking: Mutex<Option<WakingVector>>,
}

impl BootCpu {
    #[must_use]
    pub fn new(start: CpuStart) -> Arc<Self> {
        Arc::new(Self { start, waking: Mutex::default() })
    }
    /// The next reset ends suspend to RAM.
    pub fn wake(&self, vector: WakingVector) {
        *self.waking.lock() = Some(vector);
    }
}

/// One CPU; the first one starts so, the others wait for a start-up message.
#[must_use]
pub fn start(
    vcpu: Arc<dyn GuestVcpu<X86Cpu>>,
    space: &Arc<AddressSpace>,
    apic_id: u32,
    boot: &Arc<BootCpu>,
) -> Arc<BoardCpu<X86Cpu>> {
    let boot = boot.clone();
    let reset = move |cpu: &mut X86Cpu| {
        cpu.reset();
        let start = boot.start;
        if start != CpuStart::Reset {
            // As firmware leaves them: memory is write-back unless said otherwise. Kernels that find MTRRs off use no PAT.
            let _ = cpu.write_msr(MTRR_DEF_TYPE, MTRR_WRITE_BACK);
        }
        if cpu.index == 0 {
            let waking = boot.waking.lock().take();
            match waking {
                Some(vector) => resume(cpu, vector),
                None => enter(cpu, start),
            }
        }
    };
    let word = |halted| if halted { "(halted)" } else { "" };
    BoardCpu::new(vcpu, space, Arc::new(reset), Box::new(word), apic_id.into())
}

/// Goes to where a suspended system wants to go on.
fn resume(cpu: &mut X86Cpu, vector: WakingVector) {
    match vector {
        WakingVector::Real(at) => {
            let cs = Segment { attr: 0x9b, ..Segment::real(at >> 4, u64::from(at & !15)) };
            cpu.set_segment(Seg::Cs, cs);
            cpu.set_eip((at & 15).into());
            cpu.rebuild_mode();
        }
        WakingVector::Protected(at) => cpu.enter_protected32(at, TableRegister::default()),
    }
}

/// The state a kernel without firmware begins in.
fn enter(cpu: &mut X86Cpu, start: CpuStart) {
    match start {
        CpuStart::Reset => {}
        CpuStart::Protected32(s) => {
            cpu.r = [0; 16];
            for (n, value) in [(gpr::RAX, s.eax), (gpr::RBX, s.ebx), (gpr::RSI, s.esi), (gpr::RSP, s.esp)] {
                cpu.r[n as usize] = value.into();
            }
            cpu.enter_protected32(s.eip, TableRegister { base: s.gdt.base, limit: s.gdt.limit.into() });
        }
        CpuStart::Long64(s) => {
            cpu.r = [0; 16];
            cpu.r[gpr::RSI as usize] = s.rsi;
            cpu.r[gpr::RSP as usize] = s.rsp;
            cpu.enter_long64(s.rip, s.cr3, TableRegister { base: s.gdt.base, limit: s.gdt.limit.into() });
        }
    }
}

/// The general registers in GDB's order.
const ORDER: [u32; 16] =
    [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX, gpr::RSI, gpr::RDI, gpr::RBP, gpr::RSP, 8, 9, 10, 11, 12, 13, 14, 15];
/// Segment registers in GDB's order: CS, SS, DS, ES, FS, GS.
const SEGMENTS: [usize; 6] = [1, 2, 3, 0, 4, 5];
const NAMES: [&str; 16] =
    ["RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"];
/// Where things begin in GDB's block: 17 words, flags, selectors, eight x87 registers, eight x87 control words, XMM registers.
const SELECTORS: usize = 17 * 8 + 4;
const STACK: usize = SELECTORS + 6 * 4;
const X87: usize = STACK + 8 * 10;
const XMM: usize = X87 + 8 * 4;

impl BoardGuest for X86Cpu {
    fn describe(&mut self) -> String {
        let mut text = String::new();
        for (n, name) in NAMES.iter().enumerate() {
            let value = self.r[ORDER[n] as usize];
            let _ = write!(text, "{name}={value:016x}{}", if n % 4 == 3 { "\n" } else { " " });
        }
        let f = self.rflags();
        let flags: String = [(11, 'O'), (10, 'D'), (7, 'S'), (6, 'Z'), (4, 'A'), (2, 'P'), (0, 'C')]
            .iter()
            .map(|(bit, c)| if f >> bit & 1 != 0 { *c } else { '-' })
            .collect();
        let _ = writeln!(
            text,
            "RIP={:016x} RFL={f:08x} [{flags}] CPL={} A20={} SMM={} HLT={}",
            self.eip(),
            self.cpl(),
            1,
            u8::from(self.in_smm()),
            u8::from(self.halted())
        );
        let mut segment = |name: &str, s: &Segment| {
            let _ = writeln!(text, "{name} ={:04x} {:016x} {:08x} {:08x}", s.selector, s.base, s.limit, s.attr << 8);
        };
        for (name, n) in [("ES", 0), ("CS", 1), ("SS", 2), ("DS", 3), ("FS", 4), ("GS", 5)] {
            segment(name, &self.seg[n]);
        }
        segment("LDT", &self.ldtr);
        segment("TR", &self.tr);
        let _ = writeln!(text, "GDT=     {:016x} {:08x}", self.gdtr.base, self.gdtr.limit);
        let _ = writeln!(text, "IDT=     {:016x} {:08x}", self.idtr.base, self.idtr.limit);
        let _ = writeln!(text, "CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x}", self.cr0, self.cr2, self.cr3, self.cr4);
        for (n, d) in self.dr.iter().enumerate().filter(|(n, _)| !matches!(n, 4 | 5)) {
            let _ = write!(text, "DR{n}={d:016x}{}", if n == 3 || n == 7 { "\n" } else { " " });
        }
        let _ = writeln!(text, "EFER={:016x}", self.efer);
        let _ = writeln!(
            text,
            "FCW={:04x} FSW={:04x} [ST={}] FTW={:02x}",
            self.x87.control_word(),
            self.x87.status_word(),
            self.x87.top,
            self.x87.tags & 0xff
        );
        for (n, v) in self.xmm.iter().enumerate() {
            let _ = write!(text, "XMM{n:02}={v:032x}{}", if n % 2 == 1 { "\n" } else { " " });
        }
        text
    }
    fn gdb_registers(&mut self) -> Vec<u8> {
        let mut data = Vec::with_capacity(XMM + 16 * 16 + 4);
        for n in ORDER {
            data.extend_from_slice(&self.r[n as usize].to_le_bytes());
        }
        data.extend_from_slice(&self.header.pc.to_le_bytes());
        data.extend_from_slice(&self.rflags().to_le_bytes());
        for n in SEGMENTS {
            data.extend_from_slice(&self.seg[n].selector.to_le_bytes());
        }
        for n in 0..8 {
            let r = (self.x87.top as usize + n) % 8;
            data.extend_from_slice(&self.x87.significand[r].to_le_bytes());
            data.extend_from_slice(&(self.x87.sign_exponent[r] as u16).to_le_bytes());
        }
        let x = &self.x87;
        for word in [
            x.control_word().into(),
            x.status_word().into(),
            x.tags & 0xff,
            x.fcs,
            x.fip as u32,
            x.fds,
            x.fdp as u32,
            x.fop,
        ] {
            let word: u32 = word;
            data.extend_from_slice(&word.to_le_bytes());
        }
        for v in &self.xmm {
            data.extend_from_slice(&v.to_le_bytes());
        }
        data.extend_from_slice(&self.mxcsr().to_le_bytes());
        data
    }
    fn set_gdb_registers(&mut self, data: &[u8]) {
        let word = |at: usize| data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let half = |at: usize| data.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        for (n, r) in ORDER.into_iter().enumerate() {
            self.r[r as usize] = word(8 * n).unwrap_or(self.r[r as usize]);
        }
        let pc = word(128).unwrap_or(self.header.pc);
        self.header.pc = pc;
        if let Some(flags) = half(136) {
            // Of the flags those that do not change the mode under the debugger's feet.
            const CHANGEABLE: u32 = 0x0cd5;
            self.set_rflags(self.rflags() & !CHANGEABLE | flags & CHANGEABLE);
        }
        for n in 0..16 {
            let at = XMM + 16 * n;
            if let Some(v) = data.get(at..at + 16).and_then(|b| b.try_into().ok()) {
                self.xmm[n] = u128::from_le_bytes(v);
            }
        }
        for (n, seg) in SEGMENTS.into_iter().enumerate() {
            let selector = half(SELECTORS + 4 * n).filter(|selector| *selector != self.seg[seg].selector);
            if let Some(selector) = selector {
                // GDB sees the old one of a register that cannot be loaded so when it reads again.
                let _ = self.set_selector(Seg::ALL[seg], selector as u16);
            }
        }
        // The debugger's registers are counted from the top of the stack.
        if let (Some(control), Some(status), Some(tags)) = (half(X87), half(X87 + 4), half(X87 + 8)) {
            self.set_x87_words(control as u16, status as u16, tags as u8);
        }
        for n in 0..8 {
            let (at, r) = (STACK + 10 * n, (self.x87.top as usize + n) % 8);
            if let (Some(significand), Some(end)) = (word(at), data.get(at + 8..at + 10)) {
                self.x87.significand[r] = significand;
                self.x87.sign_exponent[r] = u32::from(u16::from_le_bytes([end[0], end[1]]));
            }
        }
        if let (Some(fcs), Some(fip), Some(fds), Some(fdp), Some(fop)) =
            (half(X87 + 12), half(X87 + 16), half(X87 + 20), half(X87 + 24), half(X87 + 28))
        {
            (self.x87.fcs, self.x87.fds, self.x87.fop) = (fcs & 0xffff, fds & 0xffff, fop & 0x7ff);
            // Of the offsets the lower halves are shown.
            self.x87.fip = self.x87.fip >> 32 << 32 | u64::from(fip);
            self.x87.fdp = self.x87.fdp >> 32 << 32 | u64::from(fdp);
        }
        if let Some(mxcsr) = half(XMM + 16 * 16) {
            self.set_mxcsr(mxcsr);
        }
    }
    fn frame(&self) -> Frame {
        Frame { pointer: self.r[5], link: FrameLink::Together, big_endian: false, user: self.cpl() == 3 }
    }
    fn instruction(&self) -> u64 {
        self.header.pc
    }
    fn set_instruction(&mut self, pc: u64) {
        self.header.pc = pc;
    }
    fn is_halted(&self) -> bool {
        self.halted() || self.waits_for_sipi()
    }
    fn add_breakpoint(&mut self, address: u64) {
        self.add_host_breakpoint(address);
    }
    fn remove_breakpoint(&mut self, address: u64) {
        self.remove_host_breakpoint(address);
    }
    fn add_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) {
        self.add_host_watch(watch(address, len, kind));
    }
    fn remove_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) {
        self.remove_host_watch(watch(address, len, kind));
    }
    fn set_step(&mut self, on: bool) {
        self.set_host_step(on);
    }
    fn save_state(&mut self) -> Saved {
        let state = X86Cpu::save_state(self);
        state::encode(rhea_x86::saved::VERSION, &state)
    }
    fn load_state(&mut self, saved: &Saved) -> Result<(), LoadError> {
        let saved: rhea_x86::X86Saved = state::decode(saved, rhea_x86::saved::VERSION)?;
        X86Cpu::load_state(self, &saved).map_err(|e| LoadError::Mismatch(e.to_owned()))
    }
    fn take_stop(&mut self) -> DebugStop {
        match self.take_debug_event() {
            Some(DebugEvent::Breakpoint) => DebugStop::Breakpoint,
            Some(DebugEvent::Watchpoint { va, write }) => {
                let kind = if write { WatchKind::Write } else { WatchKind::Read };
                DebugStop::Watchpoint { address: Gva(va), kind }
            }
            Some(DebugEvent::Step) => DebugStop::Step,
            None => DebugStop::Pause,
        }
    }
}

fn watch(address: u64, len: u64, kind: WatchKind) -> HostWatch {
    HostWatch { va: address, len, read: kind != WatchKind::Write, write: kind != WatchKind::Read }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_clock::VirtualClock;
    use rhea_x86::NoHooks;

    #[test]
    fn debugger_writes_all_registers() {
        let config = Arc::new(rhea_x86::models::parse("max").unwrap().config);
        let (space, clock) = (AddressSpace::new("test"), VirtualClock::new());
        let mut cpu = X86Cpu::new(0, 0, &config, &space, &clock, Arc::new(NoHooks));
        let mut data = cpu.gdb_registers();
        assert_eq!(data.len(), XMM + 16 * 16 + 4);
        let mut put = |at: usize, bytes: &[u8]| data[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &7u64.to_le_bytes());
        // CS, DS, ES of real mode.
        put(SELECTORS, &0x1234u32.to_le_bytes());
        put(SELECTORS + 8, &0x40u32.to_le_bytes());
        // st1; control word, status word with TOP 3, tags.
        put(STACK + 10, &[1, 2, 3, 4, 5, 6, 7, 0x88, 0x12, 0x40]);
        for (n, word) in [0x27fu32, 3 << 11, 0x0f, 1, 2, 3, 4, 5].into_iter().enumerate() {
            put(X87 + 4 * n, &word.to_le_bytes());
        }
        put(XMM + 32, &99u128.to_le_bytes());
        put(XMM + 256, &0x9fc0u32.to_le_bytes());
        cpu.set_gdb_registers(&data);
        assert_eq!((cpu.r[0], cpu.seg[1].base, cpu.seg[3].base, cpu.xmm[2]), (7, 0x1_2340, 0x400, 99));
        assert_eq!((cpu.x87.significand[4], cpu.x87.sign_exponent[4]), (0x8807_0605_0403_0201, 0x4012));
        assert_eq!((cpu.x87.control_word(), cpu.x87.status_word(), cpu.x87.tags), (0x27f, 3 << 11, 0x0f));
        assert_eq!(cpu.mxcsr(), 0x9fc0);
        assert_eq!(cpu.gdb_registers(), data);
        // A short buffer leaves the rest.
        cpu.set_gdb_registers(&data[..8]);
        assert_eq!(cpu.gdb_registers(), data);
    }
}
