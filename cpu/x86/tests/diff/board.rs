//! A processor with RAM for tests: CPL 3 code under page tables of its own, and handlers that stop at every exception.

use super::check;
use super::state::{Outcome, STACK_BYTES, STACK_WINDOW, Test, WINDOW, place};
use parking_lot::{Condvar, Mutex};
use rhea_accel::Vcpu;
use rhea_clock::VirtualClock;
use rhea_jit::{JitOptions, JitVcpu, JitVm};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use rhea_x86::state::{Seg, TableRegister};
use rhea_x86::{X86Cpu, X86Hooks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What runs the guest code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    Interpreter,
    /// Generated code, one guest block at a time.
    Blocks,
    /// Generated code of optimised regions.
    Regions,
}

impl Engine {
    pub const ALL: [Engine; 3] = [Engine::Interpreter, Engine::Blocks, Engine::Regions];

    fn options(self) -> JitOptions {
        JitOptions {
            code_bytes: 64 << 20,
            hot_threshold: (self == Engine::Regions).then_some(2),
            interpret: self == Engine::Interpreter,
            background: false,
            counting: None,
        }
    }
    /// Times a test must run until its regions have been optimised and used.
    const fn runs(self) -> u32 {
        if matches!(self, Engine::Regions) { 4 } else { 1 }
    }
}

const RAM_SIZE: u64 = 1 << 30;
/// Page tables, one after the other.
const TABLES: u64 = 0x3f00_0000;
const GDT: u64 = 0x3f10_0000;
const IDT: u64 = 0x3f10_1000;
const TSS: u64 = 0x3f10_2000;
/// Handlers, 16 bytes each, and the way to CPL 3.
const HANDLERS: u64 = 0x3f11_0000;
const ENTER: u64 = 0x3f11_8000;
const STACK_TOP: u64 = 0x3f12_0000;

/// Vectors with an error code.
const WITH_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;

/// The handlers say their vector by OUT.
#[derive(Default)]
struct Hook {
    vector: Mutex<Option<u32>>,
    changed: Condvar,
    /// FERR# was asserted, and it is.
    ferr: Mutex<(bool, bool)>,
    /// IGNNE#.
    ignored: AtomicBool,
}

impl X86Hooks for Hook {
    fn port_out(&self, _: u32, port: u16, _: u8, _: u32) {
        *self.vector.lock() = Some(port.into());
        self.changed.notify_all();
    }
    fn ferr(&self, _: u32, level: bool) {
        let mut f = self.ferr.lock();
        *f = (f.0 | level, level);
    }
    fn ignne(&self, _: u32) -> bool {
        self.ignored.load(Ordering::SeqCst)
    }
    fn shutdown(&self, _: u32) {
        *self.vector.lock() = Some(0x100);
        self.changed.notify_all();
    }
    fn unimplemented(&self, _: u32, message: &str) {
        if std::env::var_os("RHEA_DIFF_INPUTS").is_some() {
            println!("{message}");
        }
    }
}

pub struct Board {
    engine: Engine,
    ram: Arc<RamBlock>,
    _map: Mapping,
    _vm: Arc<JitVm<X86Cpu>>,
    vcpu: Arc<JitVcpu<X86Cpu>>,
    hook: Arc<Hook>,
    next_table: u64,
    /// Bits of CR0 that tests run with instead of the usual ones: set, and clear.
    pub cr0: (u64, u64),
}

impl Drop for Board {
    fn drop(&mut self) {
        self.vcpu.stop();
    }
}

impl Board {
    pub fn new(engine: Engine) -> Board {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", RAM_SIZE).expect("RAM");
        let map = space.map_ram(Gpa(0), &ram, 0, RAM_SIZE, 0).expect("RAM");
        let hook = Arc::new(Hook::default());
        let config = Arc::new(check::config());
        let cpu = X86Cpu::new(0, 0, &config, &space, &VirtualClock::new(), hook.clone());
        let vm = JitVm::new(&space, engine.options()).expect("JIT");
        let vcpu = vm.add_vcpu(0, cpu);
        let mut b = Board { engine, ram, _map: map, _vm: vm, vcpu, hook, next_table: TABLES + 0x1000, cr0: (0, 0) };
        const USER: u64 = 4;
        const WRITE: u64 = 2;
        const NX: u64 = 1 << 63;
        for (base, size, flags) in [
            (place::CODE, place::CODE_SIZE, USER),
            (place::DATA, place::DATA_SIZE, USER | WRITE | NX),
            (place::STACK, place::STACK_SIZE, USER | WRITE | NX),
            (GDT, 0x2_0000, WRITE),
        ] {
            for page in (base..base + size).step_by(4096) {
                b.map(page, flags);
            }
        }
        // Null, unused, kernel code and data, user code of 32 bits, user data, user code of 64 bits, unused, TSS.
        let gdt = [
            0,
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0,
            0x67 | (TSS & 0xff_ffff) << 16 | 0x8b << 40 | (TSS >> 24) << 56,
            TSS >> 32,
        ];
        for (n, d) in gdt.iter().enumerate() {
            b.word(GDT + 8 * n as u64, *d);
        }
        // RSP0.
        b.word(TSS + 4, STACK_TOP);
        for v in 0..32 {
            let at = HANDLERS + 16 * v;
            let dpl = if v == 3 || v == 4 { 3 } else { 0 };
            b.word(IDT + 16 * v, at & 0xffff | 0x10 << 16 | (0x8e | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
            b.word(IDT + 16 * v + 8, at >> 32);
            // OUT v, EAX; HLT; JMP back.
            b.write(at, &[0xe7, v as u8, 0xf4, 0xeb, 0xfd]);
        }
        // IRETQ.
        b.write(ENTER, &[0x48, 0xcf]);
        b.vcpu.with_guest(|c| {
            c.enter_long64(ENTER, TABLES, TableRegister { base: GDT, limit: 0x4f });
            // MP, NE, WP, AM; OSFXSR, OSXMMEXCPT, OSXSAVE.
            c.cr0 |= 1 << 1 | 1 << 5 | 1 << 16 | 1 << 18;
            c.cr4 |= 1 << 9 | 1 << 10 | 1 << 18;
            c.efer |= 1 << 11;
            c.xcr0 = 7;
            c.idtr = TableRegister { base: IDT, limit: 0x1ff };
            c.tr.base = TSS;
            c.tr.selector = 0x40;
            c.rebuild_mode();
        });
        b.vcpu.start().expect("thread");
        b
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.write(at, bytes).expect("address in RAM");
    }
    fn word(&self, at: u64, v: u64) {
        self.write(at, &v.to_le_bytes());
    }
    fn read(&self, at: u64, to: &mut [u8]) {
        self.ram.read(at, to).expect("address in RAM");
    }
    fn read_word(&self, at: u64) -> u64 {
        let mut b = [0; 8];
        self.read(at, &mut b);
        u64::from_le_bytes(b)
    }
    /// Maps a page at its own address.
    fn map(&mut self, va: u64, flags: u64) {
        let mut table = TABLES;
        for shift in [39, 30, 21] {
            let entry = table + 8 * (va >> shift & 511);
            let mut next = self.read_word(entry) & !0xfff;
            if next == 0 {
                next = self.next_table;
                self.next_table += 0x1000;
                // User, write, present; accessed.
                self.word(entry, next | 0x27);
            }
            table = next;
        }
        self.word(table + 8 * (va >> 12 & 511), va | flags | 0x61);
    }

    /// Whether FERR# was asserted since the last call, and whether it is now.
    pub fn ferr(&self) -> (bool, bool) {
        let mut f = self.hook.ferr.lock();
        let was = *f;
        f.0 = f.1;
        was
    }
    /// IGNNE#.
    pub fn ignore_errors(&self, on: bool) {
        self.hook.ignored.store(on, Ordering::SeqCst);
    }
    /// Runs the tests; the last run of each counts.
    pub fn run_all(&mut self, tests: &[Test]) -> Vec<Outcome> {
        self.write(place::CODE, &Test::image(tests));
        (0..tests.len())
            .map(|n| {
                let mut out = Outcome::default();
                for _ in 0..self.engine.runs() {
                    out = self.run(&tests[n], n);
                }
                out
            })
            .collect()
    }

    fn run(&mut self, t: &Test, n: usize) -> Outcome {
        let s = check::start(t, n);
        self.write(place::DATA, &[0; place::DATA_SIZE as usize]);
        self.write(place::DATA, &s.data);
        self.write(place::STACK, &[0; place::STACK_SIZE as usize]);
        self.write(STACK_WINDOW, &s.stack);
        let frame = STACK_TOP - 40;
        let cs = if t.bits == 32 { 0x23 } else { 0x33 };
        for (k, v) in [s.rip, cs, s.rflags, s.r[4], 0x2b].into_iter().enumerate() {
            self.word(frame + 8 * k as u64, v);
        }
        *self.hook.vector.lock() = None;
        let cr0 = self.cr0;
        self.vcpu.with_guest(|c| {
            c.enter_long64(ENTER, TABLES, TableRegister { base: GDT, limit: 0x4f });
            c.cr0 = (c.cr0 | 1 << 1 | 1 << 5 | 1 << 16 | 1 << 18 | cr0.0) & !cr0.1;
            c.cr4 |= 1 << 9 | 1 << 10 | 1 << 18;
            c.efer |= 1 << 11;
            c.tr.base = TSS;
            c.tr.selector = 0x40;
            c.r = s.r;
            c.r[4] = frame;
            c.xmm = s.xmm;
            c.ymm_hi = s.ymm_hi;
            for seg in [Seg::Ds, Seg::Es] {
                let mut d = c.seg[seg as usize];
                (d.selector, d.attr) = (0x2b, 0xc0f3);
                c.set_segment(seg, d);
            }
            let mut gs = c.seg[Seg::Gs as usize];
            (gs.base, gs.selector) = (place::GS, 0);
            c.set_segment(Seg::Gs, gs);
            c.x87.set_control_word(s.fcw);
            c.x87.set_status_word(s.fsw);
            c.x87.set_abridged_tags(s.tags as u8);
            (c.x87.fip, c.x87.fdp, c.x87.fop, c.x87.fcs, c.x87.fds) = (s.fip, s.fdp, s.fop, 0, 0);
            for (k, v) in s.st.iter().enumerate() {
                c.x87.set_st(k as u32, v[0], v[1] as u16);
            }
            c.set_mxcsr(s.mxcsr);
            c.rebuild_mode();
        });
        self.vcpu.resume();
        let mut vector = self.hook.vector.lock();
        while vector.is_none() {
            let late = self.hook.changed.wait_for(&mut vector, Duration::from_secs(20)).timed_out();
            assert!(!late || vector.is_some(), "test {n} does not end: {:02x?} of {} bits", t.code, t.bits);
        }
        let mut out = Outcome { vector: vector.unwrap_or(0), ..Outcome::default() };
        drop(vector);
        self.vcpu.request_pause();
        self.vcpu.wait_paused(None);
        let o = &mut out.state;
        self.vcpu.with_guest(|c| {
            o.r = c.r;
            o.xmm = c.xmm;
            o.ymm_hi = c.ymm_hi;
            o.mxcsr = c.mxcsr();
            o.fcw = c.x87.control_word();
            o.fsw = c.x87.status_word();
            o.tags = c.x87.abridged_tags().into();
            o.fop = c.x87.fop;
            o.fip = c.x87.fip;
            o.fdp = c.x87.fdp;
            for k in 0..8 {
                let (sig, se) = c.x87.st(k as u32);
                o.st[k] = [sig, se.into()];
            }
            out.cr2 = c.cr2;
        });
        let mut sp = STACK_TOP - 40;
        if out.vector < 32 && WITH_CODE >> out.vector & 1 != 0 {
            sp -= 8;
            out.error = self.read_word(sp) as u32;
            sp += 8;
        }
        o.rip = self.read_word(sp);
        o.rflags = self.read_word(sp + 16);
        o.r[4] = self.read_word(sp + 24);
        let mut data = [0; WINDOW];
        self.read(place::DATA, &mut data);
        o.data = data;
        let mut stack = [0; STACK_BYTES];
        self.read(STACK_WINDOW, &mut stack);
        o.stack = stack;
        out
    }
}
