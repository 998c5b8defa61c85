//! A processor with RAM for tests: problem-state code without translation, and a hook that sees every interrupt it takes.

use super::asm::Order;
use parking_lot::Mutex;
use rhea_accel::Vcpu;
use rhea_clock::VirtualClock;
use rhea_diff::{Engine, Latch};
use rhea_jit::{JitVcpu, JitVm};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use rhea_ppc::bits::msr;
use rhea_ppc::{PpcConfig, PpcCpu, PpcHooks, spr};
use std::sync::Arc;

/// Identity-mapped RAM from 0; vectors and the tests' programs are in it.
const RAM_SIZE: u64 = 1 << 30;
/// An endless loop, where a stopped program waits.
const PARK: u64 = 0x3f40_0000;

/// What an interrupt handler wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Go on behind the instruction, of so many bytes; 0: behind a system call.
    Skip(u64),
    Stop,
}

/// An interrupt, as the vectors find the processor.
pub struct Interrupt<'a> {
    pub cpu: &'a mut PpcCpu,
    pub vector: u64,
}

impl Interrupt<'_> {
    pub fn address(&self) -> u64 {
        self.cpu.spr[spr::SRR0 as usize]
    }
}

type Handler = Box<dyn FnMut(&mut Interrupt) -> Then + Send>;

/// The hypervisor call that the vectors make.
struct Hook {
    handler: Mutex<Option<Handler>>,
    msr: Mutex<u64>,
    stopped: Latch,
}

impl PpcHooks for Hook {
    fn hcall(&self, cpu: &mut PpcCpu) -> bool {
        let mut handler = self.handler.lock();
        // The call is the first instruction of one byte order and the third of the other.
        let vector = cpu.header.pc.wrapping_sub(8) & !0x1f;
        let mut interrupt = Interrupt { cpu, vector };
        let then = handler.as_mut().map_or(Then::Stop, |h| h(&mut interrupt));
        cpu.header.pc = match then {
            Then::Skip(n) => cpu.spr[spr::SRR0 as usize].wrapping_add(n),
            Then::Stop => {
                *handler = None;
                self.stopped.open();
                PARK
            }
        };
        cpu.msr = *self.msr.lock();
        cpu.rebuild_mode();
        true
    }
}

pub struct Board {
    pub ram: Arc<RamBlock>,
    _map: Mapping,
    vm: Arc<JitVm<PpcCpu>>,
    vcpu: Arc<JitVcpu<PpcCpu>>,
    hook: Arc<Hook>,
    order: Order,
}

impl Drop for Board {
    fn drop(&mut self) {
        self.vcpu.stop();
    }
}

impl Board {
    pub fn new(config: &Arc<PpcConfig>, engine: Engine, order: Order) -> Board {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", RAM_SIZE).expect("RAM");
        let map = space.map_ram(Gpa(0), &ram, 0, RAM_SIZE, 0).expect("RAM");
        let hook = Arc::new(Hook { handler: Mutex::new(None), msr: Mutex::new(0), stopped: Latch::default() });
        let cpu = PpcCpu::new(0, config, &space, &VirtualClock::new(), hook.clone());
        let vm = JitVm::new(&space, engine.options()).expect("JIT");
        let vcpu = vm.add_vcpu(0, cpu);
        let board = Board { ram, _map: map, vm, vcpu, hook, order };
        // tdi 0,0,0x48, which is `b .+8` in the other byte order; sc 1 in both orders.
        for at in (0x100..0x2000).step_by(32) {
            board.write(at, &0x0800_0048u32.to_be_bytes());
            board.write(at + 4, &0x4400_0022u32.to_be_bytes());
            board.write(at + 8, &0x4400_0022u32.to_le_bytes());
        }
        // b .
        board.write(PARK, &order.u32(0x4800_0000));
        board.vcpu.start().expect("thread");
        board
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

    /// Runs from `pc` in problem state (of 64 or 32 bits) until `handler`, which sees every interrupt, stops it.
    pub fn run(&self, pc: u64, wide: bool, handler: impl FnMut(&mut Interrupt) -> Then + Send + 'static) {
        let little = if self.order == Order::Little { msr::LE } else { 0 };
        let sf = if wide { msr::SF } else { 0 };
        let state = sf | little | msr::PR | msr::FP | msr::VEC | msr::VSX | msr::ME | msr::RI | msr::FE0 | msr::FE1;
        *self.hook.msr.lock() = state;
        *self.hook.handler.lock() = Some(Box::new(handler));
        self.hook.stopped.close();
        self.vcpu.with_guest(|g| {
            g.gpr = [0; 32].into();
            g.res_size = 0;
            g.header.pc = pc;
            // All facilities.
            g.spr[spr::FSCR as usize] = u64::MAX;
            g.msr = state;
            g.rebuild_mode();
        });
        self.vcpu.resume();
        self.hook.stopped.wait();
        self.vcpu.request_pause();
        self.vcpu.wait_paused(None);
    }
}
