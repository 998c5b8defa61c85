//! A processor with RAM for tests: EL0 code under page tables, and a hook that sees every exception it takes.

use parking_lot::Mutex;
use rhea_accel::Vcpu;
use rhea_arm::reg::Reg;
use rhea_arm::{ArmConfig, ArmCpu, ArmHooks, ArmSaved, Conduit, GenericTimers};
use rhea_clock::VirtualClock;
use rhea_diff::{Engine, Latch};
use rhea_jit::{JitOptions, JitVcpu, JitVm};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use std::sync::Arc;

/// Identity-mapped RAM from 0; the tests' programs, page tables and vectors are in it.
const RAM_SIZE: u64 = 1 << 30;
const TABLES: u64 = 0x3f00_0000;
const VECTORS: u64 = 0x3f20_0000;
/// An endless loop, where a stopped program waits.
const PARK: u64 = 0x3f40_0000;
/// 2 MiB of 4 KiB pages, each of which a test can take away.
pub const PAGES: u64 = 0x3a00_0000;
const LAST_TABLE: u64 = TABLES + 0x3000;

/// What an exception handler wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Return to ELR_EL1.
    Return,
    Stop,
}

/// An exception taken to EL1. The processor is as the vectors find it: ELR_EL1 and so on say the rest.
pub struct Exception<'a> {
    pub cpu: &'a mut ArmCpu,
    /// FPSR, of which the processor's own copy may be behind.
    pub fpsr: u64,
}

impl Exception<'_> {
    /// Exception class of ESR_EL1.
    pub fn class(&self) -> u32 {
        self.cpu[Reg::EsrEl1] as u32 >> 26
    }
    pub fn from_el0(&self) -> bool {
        self.cpu[Reg::SpsrEl1] & 0xc == 0
    }
    /// Goes on after the instruction.
    pub fn skip(&mut self) -> Then {
        self.cpu[Reg::ElrEl1] = self.cpu[Reg::ElrEl1].wrapping_add(4);
        Then::Return
    }
}

type Handler = Box<dyn FnMut(&mut Exception) -> Then + Send>;

/// The hypervisor call that the vectors make.
struct Hook {
    handler: Mutex<Option<Handler>>,
    stopped: Latch,
}

impl ArmHooks for Hook {
    fn firmware_call(&self, cpu: &mut ArmCpu, _: Conduit) -> bool {
        let mut handler = self.handler.lock();
        // The vectors put X0 away and read FPSR into it.
        let fpsr = cpu.x[0];
        cpu.x[0] = cpu.tpidr_el1;
        let mut exception = Exception { cpu, fpsr };
        let then = handler.as_mut().map_or(Then::Stop, |h| h(&mut exception));
        if then == Then::Stop {
            cpu[Reg::ElrEl1] = PARK;
            *handler = None;
            self.stopped.open();
        }
        true
    }
}

/// How a page of [`PAGES`] is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    None,
    ReadOnly,
    ReadWrite,
}

/// Changes page mappings; usable from handlers. Growing permissions need no TLB maintenance, others take effect with
/// the next [`Board::run`].
#[derive(Clone)]
pub struct Pages(Arc<RamBlock>);

impl Pages {
    pub fn set(&self, va: u64, page: Page) {
        let n = (va - PAGES) >> 12;
        let ap = match page {
            Page::None => 0,
            Page::ReadOnly => 3 << 6 | 3,
            Page::ReadWrite => 1 << 6 | 3,
        };
        let d = if page == Page::None { 0 } else { va & !0xfff | 1 << 53 | 1 << 10 | 3 << 8 | ap };
        self.0.write(LAST_TABLE + 8 * n, &d.to_le_bytes()).expect("page table");
    }
}

pub struct Board {
    pub ram: Arc<RamBlock>,
    _map: Mapping,
    vm: Arc<JitVm<ArmCpu>>,
    vcpu: Arc<JitVcpu<ArmCpu>>,
    hook: Arc<Hook>,
    initial: ArmSaved,
}

impl Drop for Board {
    fn drop(&mut self) {
        self.vcpu.stop();
    }
}

impl Board {
    pub fn new(config: &Arc<ArmConfig>, engine: Engine) -> Board {
        Board::with(config, engine.options())
    }
    pub fn with(config: &Arc<ArmConfig>, options: JitOptions) -> Board {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", RAM_SIZE).expect("RAM");
        let map = space.map_ram(Gpa(0), &ram, 0, RAM_SIZE, 0).expect("RAM");
        let hook = Arc::new(Hook { handler: Mutex::new(None), stopped: Latch::default() });
        let timers = GenericTimers::new(&VirtualClock::new());
        let mut cpu = ArmCpu::new(0, config, &space, &timers, hook.clone());
        cpu.set_conduit(Some(Conduit::Hvc));
        let mut initial = cpu.save();
        let mut sys = |r: Reg, v: u64| initial.sys[r as usize] = v;
        // Four levels of tables for 48 bits, top bytes ignored, no upper range.
        sys(Reg::Ttbr0El1, TABLES);
        sys(Reg::TcrEl1, 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 23 | 16 << 16 | 2 << 32 | 1 << 37);
        sys(Reg::MairEl1, 0xff);
        sys(Reg::VbarEl1, VECTORS);
        sys(Reg::CpacrEl1, 3 << 20);
        // MMU, caches, DC ZVA, CTR_EL0, cache maintenance, WFI and WFE at EL0, keys.
        let keys = 1 << 31 | 1 << 30 | 1 << 27 | 1 << 13;
        sys(Reg::SctlrEl1, 0x30d0_0980 | 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 26 | keys);
        initial.pstate = 0;
        initial.keys =
            std::array::from_fn(|n| [0x1111_2222_3333_4444 * (n as u64 + 1), 0x9e37_79b9_7f4a_7c15 ^ n as u64]);
        let vm = JitVm::new(&space, options).expect("JIT");
        let vcpu = vm.add_vcpu(0, cpu);
        let board = Board { ram, _map: map, vm, vcpu, hook, initial };
        let word = |at: u64, d: u64| board.ram.write(at, &d.to_le_bytes()).expect("table");
        word(TABLES, TABLES + 0x1000 | 3);
        word(TABLES + 0x1000, TABLES + 0x2000 | 3);
        let block = 1 << 10 | 3 << 8 | 1;
        for n in 0..512 {
            word(TABLES + 0x2000 + 8 * n, n << 21 | block | 1 << 53 | 1 << 6);
        }
        word(TABLES + 0x2000 + 8 * (VECTORS >> 21), VECTORS | block | 1 << 54);
        word(TABLES + 0x2000 + 8 * (PAGES >> 21), LAST_TABLE | 3);
        for n in 0..512 {
            board.pages().set(PAGES + (n << 12), Page::ReadWrite);
        }
        // MSR TPIDR_EL1, X0; MRS X0, FPSR; HVC; ERET.
        for at in [0x200, 0x400] {
            let code: Vec<u8> =
                [0xd518_d080u32, 0xd53b_4420, 0xd400_0002, 0xd69f_03e0].iter().flat_map(|w| w.to_le_bytes()).collect();
            board.write(VECTORS + at, &code);
        }
        board.write(PARK, &0x1400_0000u32.to_le_bytes());
        board.vcpu.start().expect("thread");
        board
    }

    pub fn pages(&self) -> Pages {
        Pages(self.ram.clone())
    }
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.write(at, bytes).expect("address in RAM");
    }
    pub fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let mut b = vec![0; len as usize];
        self.ram.read(at, &mut b).expect("address in RAM");
        b
    }
    /// Number of optimised regions made.
    pub fn regions(&self) -> u64 {
        self.vm.stats().regions
    }

    /// Runs from `pc` at EL0 with reset registers (changed by `prepare`) until `handler`, which sees every exception
    /// at EL1, stops it.
    pub fn run(
        &self,
        pc: u64,
        prepare: impl FnOnce(&mut ArmSaved),
        handler: impl FnMut(&mut Exception) -> Then + Send + 'static,
    ) {
        *self.hook.handler.lock() = Some(Box::new(handler));
        self.hook.stopped.close();
        let mut state = self.initial.clone();
        state.pc = pc;
        prepare(&mut state);
        self.vcpu.with_guest(|g| g.load(&state));
        self.vcpu.resume();
        self.hook.stopped.wait();
        self.vcpu.request_pause();
        self.vcpu.wait_paused(None);
    }
}

/// Exception classes of undefined instructions: unknown, and system registers as the kernel reports them.
pub const UNKNOWN: u32 = 0;
pub const SYSTEM: u32 = 0x18;
pub const SVC: u32 = 0x15;
/// Data abort from a lower level.
pub const DATA_ABORT: u32 = 0x24;
