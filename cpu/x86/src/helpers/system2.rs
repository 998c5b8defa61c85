//! Helpers of system instructions. Privilege that the mode word tells is checked by the translator, before them.

use crate::exception::Exception;
use crate::flags;
use crate::helpers::SYSTEM2_BASE;
use crate::mmu::{As, cr0, cr4};
use crate::mode::X86Mode;
use crate::smm::IoSmi;
use crate::state::{Seg, TableRegister, X86Cpu, gpr};
use rhea_clock::Counter;
use rhea_ir::Effects;
use rhea_ir::guest::Raised;
use std::sync::atomic::Ordering;
use std::time::Duration;

const BOTH: Effects = Effects::RAISES.union(Effects::WRITES_STATE);

/// How long MWAIT waits at most.
const MWAIT_TIME: Duration = Duration::from_micros(50);

crate::helpers! {
    base SYSTEM2_BASE;
    /// CPUID.
    CPUID = cpuid, () -> Void, Effects::WRITES_STATE;
    /// RDMSR of ECX.
    RDMSR = rdmsr, () -> I64, BOTH;
    /// WRMSR of ECX: args (value). May change the mode and flush.
    WRMSR = wrmsr, (I64) -> Void, BOTH;
    RDTSC = rdtsc, () -> I64, Effects::READS_STATE;
    /// RDPMC of ECX.
    RDPMC = rdpmc, () -> I64, BOTH;
    /// MOV to CR0, CR2, CR3, CR4 or CR8: args (number, value). May change the mode.
    WRITE_CR = write_cr, (I64, I64) -> Void, BOTH;
    /// MOV from CR8.
    READ_CR8 = read_cr8, () -> I64, Effects::READS_STATE;
    /// LMSW: args (source). May change the mode.
    LMSW = lmsw, (I64) -> Void, BOTH;
    /// CLTS. Changes the mode.
    CLTS = clts, () -> Void, Effects::WRITES_STATE;
    /// MOV from a debug register: args (number).
    READ_DR = read_dr, (I64) -> I64, BOTH;
    /// MOV to a debug register: args (number, value). May change the mode.
    WRITE_DR = write_dr, (I64, I64) -> Void, BOTH;
    /// LGDT, LIDT: args (0 or 1, limit, base).
    LOAD_TABLE = load_table, (I64, I64, I64) -> Void, BOTH;
    /// INVLPG: args (linear address).
    INVLPG = invlpg, (I64) -> Void, BOTH;
    /// INVPCID: args (type, descriptor).
    INVPCID = invpcid, (I64, I64, I64) -> Void, BOTH;
    /// IN: args (port, bytes, whether permission is to be checked).
    IN = port_in, (I64, I64, I64) -> I64, BOTH;
    /// OUT: args (port, bytes | check << 8, value): not 0 if the vCPU loop has something to do.
    OUT = port_out, (I64, I64, I64) -> I64, BOTH;
    /// INS and OUTS, also repeated: args (`pack_io`): not 0 when the instruction is finished.
    STRING_IO = string_io, (I64) -> I64, BOTH;
    /// STAC, CLAC: args (non-zero to set it). Changes the mode.
    SET_AC = set_ac, (I32) -> Void, Effects::WRITES_STATE;
    /// PAUSE with several processors: lets others run.
    PAUSE = pause, () -> Void, Effects::READS_STATE;
    /// MWAIT, MWAITX: a short wait.
    MWAIT = mwait, () -> Void, Effects::READS_STATE;
    /// XGETBV of ECX.
    XGETBV = xgetbv, () -> I64, BOTH;
    /// XSETBV of ECX: args (value). May change the mode.
    XSETBV = xsetbv, (I64) -> Void, BOTH;
    /// RDPKRU.
    RDPKRU = rdpkru, () -> I64, BOTH;
    /// WRPKRU: args (value).
    WRPKRU = wrpkru, (I64) -> Void, BOTH;
    /// A random number (RDRAND, RDSEED).
    RANDOM = random, () -> I64, Effects::WRITES_STATE;
    /// VMCALL, VMMCALL.
    HYPERCALL = hypercall, () -> Void, BOTH;
    /// FXSAVE: args (linear address, 64-bit pointers); precede with `Translator::fold_mxcsr`.
    FXSAVE = fxsave, (I64, I64) -> Void, BOTH;
    /// FXRSTOR: the same. Changes the mode.
    FXRSTOR = fxrstor, (I64, I64) -> Void, BOTH;
    /// XSAVE, XSAVEOPT, XSAVEC, XSAVES: args (linear address, 64-bit pointers | kind << 8); precede with `Translator::fold_mxcsr`.
    XSAVE = xsave, (I64, I64) -> Void, BOTH;
    /// XRSTOR, XRSTORS: args (linear address, 64-bit pointers | supervisor << 8). Changes the mode.
    XRSTOR = xrstor, (I64, I64) -> Void, BOTH;
    /// CLZERO: args (linear address).
    CLZERO = clzero, (I64) -> Void, BOTH;
}

macro_rules! helper {
    ($($name:ident($cpu:ident $(, $a:ident)*) $body:block)*) => {
        $(helper!(@ $name $cpu [$($a)*] $body);)*
    };
    (@ $name:ident $cpu:ident [] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, _: u64, _: u64, _: u64, _: u64) -> u64 { $body }
    };
    (@ $name:ident $cpu:ident [$a:ident] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, $a: u64, _: u64, _: u64, _: u64) -> u64 { $body }
    };
    (@ $name:ident $cpu:ident [$a:ident $b:ident] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, $a: u64, $b: u64, _: u64, _: u64) -> u64 { $body }
    };
    (@ $name:ident $cpu:ident [$a:ident $b:ident $c:ident] $body:block) => {
        extern "C" fn $name($cpu: &mut X86Cpu, $a: u64, $b: u64, $c: u64, _: u64) -> u64 { $body }
    };
}

fn done(cpu: &mut X86Cpu, r: Result<(), Exception>) -> u64 {
    if let Err(e) = r {
        cpu.raise_exception(e);
    }
    0
}
fn value(cpu: &mut X86Cpu, r: Result<u64, Exception>) -> u64 {
    r.unwrap_or_else(|e| {
        cpu.raise_exception(e);
        0
    })
}

helper! {
    cpuid(cpu) {
        let leaf = cpu.r[gpr::RAX as usize] as u32;
        let sub = cpu.r[gpr::RCX as usize] as u32;
        let out = cpu.cpuid(leaf, sub);
        for (n, v) in [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX].into_iter().zip(out) {
            cpu.r[n as usize] = v.into();
        }
        0
    }
    rdmsr(cpu) {
        let r = cpu.read_msr(cpu.r[gpr::RCX as usize] as u32);
        value(cpu, r)
    }
    wrmsr(cpu, v) {
        let r = cpu.write_msr(cpu.r[gpr::RCX as usize] as u32, v);
        done(cpu, r)
    }
    rdtsc(cpu) {
        cpu.tsc()
    }
    rdpmc(cpu) {
        // No counters, but AMD's four are always there.
        let n = cpu.r[gpr::RCX as usize] as u32;
        let r = if cpu.config.vendor == crate::Vendor::Amd && n < 4 { Ok(0) } else { Err(Exception::gp(0)) };
        value(cpu, r)
    }
    write_cr(cpu, n, v) {
        let r = match n {
            0 => cpu.write_cr0(v),
            2 => {
                cpu.cr2 = v;
                Ok(())
            }
            3 => cpu.write_cr3(v),
            4 => cpu.write_cr4(v),
            _ if v > 15 => Err(Exception::gp(0)),
            _ => {
                cpu.hooks.set_tpr(cpu.index, v as u8);
                Ok(())
            }
        };
        done(cpu, r)
    }
    read_cr8(cpu) {
        cpu.hooks.tpr(cpu.index).into()
    }
    lmsw(cpu, v) {
        // PE can be set, not cleared.
        let bits = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
        let r = cpu.write_cr0(cpu.cr0 & !(bits & !cr0::PE) | v & bits);
        done(cpu, r)
    }
    clts(cpu) {
        if cpu.cr0 & cr0::TS != 0 {
            cpu.cr0 &= !cr0::TS;
            cpu.rebuild_mode();
        }
        0
    }
    read_dr(cpu, n) {
        let r = cpu.read_dr(n as u32);
        value(cpu, r)
    }
    write_dr(cpu, n, v) {
        let r = cpu.write_dr(n as u32, v);
        done(cpu, r)
    }
    load_table(cpu, which, limit, base) {
        if cpu.is_long() && !cpu.canonical_value(base) {
            return done(cpu, Err(Exception::gp(0)));
        }
        let table = TableRegister { base, limit: limit as u32 & 0xffff };
        if which == 0 {
            cpu.gdtr = table;
        } else {
            cpu.idtr = table;
        }
        0
    }
    invlpg(cpu, va) {
        if !cpu.lma() || cpu.canonical(va) {
            cpu.invlpg(va);
        }
        0
    }
    invpcid(cpu, kind, low, high) {
        let r = cpu.invpcid(kind, [low, high]);
        done(cpu, r)
    }
    port_in(cpu, port, size, check) {
        let (port, size) = (port as u16, size as u8);
        if check != 0 && cpu.check_port(port, size.into()).is_err() {
            return 0;
        }
        cpu.watch_port(port, size.into());
        let hooks = cpu.hooks.clone();
        let v = hooks.port_in(cpu.index, port, size);
        cpu.note_io(|c| io_instruction(c, port, size, true));
        v.into()
    }
    port_out(cpu, port, what, v) {
        let (port, size) = (port as u16, what as u8);
        if what >> 8 != 0 && cpu.check_port(port, size.into()).is_err() {
            return 0;
        }
        cpu.watch_port(port, size.into());
        let hooks = cpu.hooks.clone();
        hooks.port_out(cpu.index, port, size, v as u32);
        cpu.note_io(|c| io_instruction(c, port, size, false));
        u64::from(cpu.header.exit_request.load(Ordering::Relaxed) != 0)
    }
    string_io(cpu, what) {
        StringIo::unpack(what).run(cpu).map_or(0, u64::from)
    }
    set_ac(cpu, on) {
        cpu.eflags = if on as u32 != 0 { cpu.eflags | flags::AC } else { cpu.eflags & !flags::AC };
        if cpu.cpl() == 3 {
            cpu.rebuild_mode();
        } else {
            // Of the mode only the MMU index depends on AC.
            let idx = cpu.cpl_index();
            cpu.header.mode = X86Mode(cpu.header.mode).with_mmu_idx(idx).0;
        }
        0
    }
    pause(cpu) {
        // A system call each time would cost more than the wait.
        cpu.pv.pauses = cpu.pv.pauses.wrapping_add(1);
        if cpu.pv.pauses.is_multiple_of(64) {
            cpu.header.counter.map_or_else(std::thread::yield_now, Counter::end);
        }
        0
    }
    mwait(cpu) {
        // A store to the monitored line or an interrupt ends the wait, and so may anything else: it is over soon anyway.
        if cpu.header.exit_request.load(Ordering::Relaxed) == 0 {
            cpu.header.counter.map_or_else(|| std::thread::sleep(MWAIT_TIME), Counter::end);
        }
        0
    }
    xgetbv(cpu) {
        let r = cpu.xgetbv(cpu.r[gpr::RCX as usize] as u32);
        value(cpu, r)
    }
    xsetbv(cpu, v) {
        let r = cpu.xsetbv(cpu.r[gpr::RCX as usize] as u32, v);
        done(cpu, r)
    }
    rdpkru(cpu) {
        let r = cpu.check_pkru().map(|()| cpu.pkru.into());
        value(cpu, r)
    }
    wrpkru(cpu, v) {
        let r = cpu.check_pkru();
        if r.is_ok() && cpu.r[gpr::RDX as usize] as u32 != 0 {
            return done(cpu, Err(Exception::gp(0)));
        }
        if r.is_ok() {
            cpu.set_pkru(v as u32);
        }
        done(cpu, r)
    }
    random(cpu) {
        cpu.pv.random()
    }
    hypercall(cpu) {
        cpu.hypercall();
        0
    }
    fxsave(cpu, at, wide) {
        let _ = cpu.fxsave(at, wide != 0);
        0
    }
    fxrstor(cpu, at, wide) {
        let _ = cpu.fxrstor(at, wide != 0);
        0
    }
    xsave(cpu, at, what) {
        let _ = cpu.xsave(at, what & 1 != 0, crate::xsave::Save::of(what >> 8));
        0
    }
    xrstor(cpu, at, what) {
        let _ = cpu.xrstor(at, what & 1 != 0, what >> 8 != 0);
        0
    }
    clzero(cpu, at) {
        let _ = cpu.write_bytes(at & !63, &[0; 64], As::Cpl);
        0
    }
}

impl X86Cpu {
    /// The I/O permission bitmap, when IOPL does not permit the access.
    fn check_port(&mut self, port: u16, size: u32) -> Result<(), Raised> {
        let r = self.check_io(port, size);
        r.map_err(|e| {
            self.raise_exception(e);
            Raised
        })
    }
    /// RDPKRU and WRPKRU: CR4.PKE, ECX.
    fn check_pkru(&self) -> Result<(), Exception> {
        if self.cr4 & cr4::PKE == 0 {
            Err(Exception::ud())
        } else if self.r[gpr::RCX as usize] as u32 != 0 {
            Err(Exception::gp(0))
        } else {
            Ok(())
        }
    }
}

/// IN or OUT, as it began.
fn io_instruction(cpu: &X86Cpu, port: u16, size: u8, input: bool) -> IoSmi {
    let [rcx, rsi, rdi] = [gpr::RCX, gpr::RSI, gpr::RDI].map(|n| cpu.r[n as usize]);
    IoSmi { at: [0; 2], rip: cpu.eip(), rcx, rsi, rdi, port, size, input, string: false, rep: false }
}

/// INS or OUTS.
#[derive(Clone, Copy, Debug)]
pub struct StringIo {
    /// OUTS.
    pub out: bool,
    /// Bytes of an element.
    pub size: u32,
    /// Bits of addresses and of the count.
    pub address: u32,
    /// Segment of OUTS.
    pub seg: Seg,
    pub rep: bool,
    /// One iteration (traps).
    pub one: bool,
    pub down: bool,
    /// IOPL does not permit it.
    pub check: bool,
}

impl StringIo {
    /// Iterations of a call, so that interrupts are seen.
    const BUDGET: u64 = 4096;

    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.size as u64)
            | (self.address as u64) << 8
            | (self.seg as u64) << 16
            | (self.out as u64) << 24
            | (self.rep as u64) << 25
            | (self.one as u64) << 26
            | (self.down as u64) << 27
            | (self.check as u64) << 28
    }
    fn unpack(w: u64) -> StringIo {
        let bit = |n: u32| w >> n & 1 != 0;
        let seg = match w >> 16 & 7 {
            0 => Seg::Es,
            1 => Seg::Cs,
            2 => Seg::Ss,
            4 => Seg::Fs,
            5 => Seg::Gs,
            _ => Seg::Ds,
        };
        StringIo {
            size: w as u32 & 7,
            address: w as u32 >> 8 & 0xff,
            seg,
            out: bit(24),
            rep: bit(25),
            one: bit(26),
            down: bit(27),
            check: bit(28),
        }
    }
    /// True when the instruction is finished.
    fn run(self, cpu: &mut X86Cpu) -> Result<bool, Raised> {
        let mask = u64::MAX >> (64 - self.address.clamp(16, 64));
        let port = cpu.r[gpr::RDX as usize] as u16;
        let count = |cpu: &X86Cpu| cpu.r[gpr::RCX as usize] & mask;
        if self.rep && count(cpu) == 0 {
            return Ok(true);
        }
        if self.check {
            cpu.check_port(port, self.size)?;
        }
        let limit = match (self.rep, self.one) {
            (true, false) => count(cpu).min(Self::BUDGET),
            _ => 1,
        };
        let step = if self.down { u64::from(self.size).wrapping_neg() } else { self.size.into() };
        let hooks = cpu.hooks.clone();
        for _ in 0..limit {
            let pointer = if self.out { gpr::RSI } else { gpr::RDI };
            let offset = cpu.r[pointer as usize] & mask;
            if self.out {
                let at = cpu.operand_address(self.seg, offset, self.size, false)?;
                let v = cpu.read_linear(at, self.size, As::Cpl)?;
                cpu.watch_port(port, self.size);
                hooks.port_out(cpu.index, port, self.size as u8, v as u32);
            } else {
                // The port is read only if its value can be stored.
                let at = cpu.operand_address(Seg::Es, offset, self.size, true)?;
                cpu.probe_write(at, self.size.into(), As::Cpl)?;
                cpu.watch_port(port, self.size);
                let v = hooks.port_in(cpu.index, port, self.size as u8);
                cpu.write_linear(at, self.size, v.into(), As::Cpl)?;
            }
            let io = |c: &X86Cpu| io_instruction(c, port, self.size as u8, !self.out);
            cpu.note_io(|c| IoSmi { string: true, rep: self.rep, ..io(c) });
            add(cpu, pointer, step, mask);
            if self.rep {
                add(cpu, gpr::RCX, u64::MAX, mask);
            }
            if cpu.header.exit_request.load(Ordering::Relaxed) != 0 {
                break;
            }
        }
        Ok(!self.rep || count(cpu) == 0)
    }
}

/// Adds to a register of the address size: 16-bit writes keep the rest of the register, 32-bit ones clear it.
fn add(cpu: &mut X86Cpu, n: u32, v: u64, mask: u64) {
    let r = &mut cpu.r[n as usize];
    let sum = r.wrapping_add(v) & mask;
    *r = if mask == 0xffff { *r & !0xffff | sum } else { sum };
}
