//! A machine with RAM, a hypervisor that listens, and a hashed page table.

use crate::asm::*;
use parking_lot::{Condvar, Mutex};
use rhea_accel::Vcpu;
use rhea_clock::VirtualClock;
use rhea_jit::{JitOptions, JitVm};
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use rhea_ppc::hooks::{PpcPins, Pte, pin};
use rhea_ppc::{PpcCpu, PpcHooks};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub const RAM: u64 = 16 << 20;
/// Where programs start.
pub const START: u64 = 0x1_0000;
const ORDER: u32 = 18;

/// Hypervisor calls: the token in GPR 3.
pub const END: i32 = 0;
pub const SAY: i32 = 1;
pub const EXTERNAL: i32 = 2;
pub const DOORBELL: i32 = 3;
pub const RESET: i32 = 4;
pub const CEDE: i32 = 5;
pub const SET_LPCR: i32 = 6;
pub const CIABR: i32 = 7;
pub const WATCH: i32 = 8;

pub struct Board {
    pub said: Mutex<Vec<u64>>,
    ended: Mutex<bool>,
    changed: Condvar,
    pub pins: OnceLock<Arc<PpcPins>>,
    pub hpt: Vec<[AtomicU64; 2]>,
    pub process_table: AtomicU64,
}

impl Default for Board {
    fn default() -> Board {
        Board {
            said: Mutex::default(),
            ended: Mutex::default(),
            changed: Condvar::default(),
            pins: OnceLock::new(),
            hpt: (0..1 << (ORDER - 4)).map(|_| Default::default()).collect(),
            process_table: AtomicU64::new(0),
        }
    }
}

impl Board {
    pub fn pte(&self, n: u64) -> Pte {
        let e = &self.hpt[n as usize];
        [e[0].load(Ordering::SeqCst), e[1].load(Ordering::SeqCst)]
    }
    pub fn set_pte(&self, n: u64, pte: Pte) {
        let e = &self.hpt[n as usize];
        e[1].store(pte[1], Ordering::SeqCst);
        e[0].store(pte[0], Ordering::SeqCst);
    }
    fn pins(&self) -> &PpcPins {
        self.pins.get().unwrap()
    }
}

impl PpcHooks for Board {
    fn hcall(&self, cpu: &mut PpcCpu) -> bool {
        let (a, b) = (cpu.gpr[4], cpu.gpr[5]);
        match cpu.gpr[3] as i32 {
            END => {
                cpu.power_off();
                *self.ended.lock() = true;
                self.changed.notify_all();
            }
            SAY => self.said.lock().push(a),
            EXTERNAL => self.pins().set_external(a != 0),
            DOORBELL => self.pins().signal(pin::DOORBELL),
            RESET => self.pins().signal(pin::SYSTEM_RESET),
            CEDE => cpu.cede(),
            SET_LPCR => cpu.set_lpcr(a),
            CIABR => cpu.set_ciabr(a),
            WATCH => assert!(cpu.set_watchpoint(0, a, b)),
            _ => return false,
        }
        true
    }
    fn hpt_order(&self) -> u32 {
        ORDER
    }
    fn hpt_group(&self, group: u64) -> [Pte; 8] {
        std::array::from_fn(|n| self.pte(group * 8 + n as u64))
    }
    fn hpt_update(&self, index: u64, old: Pte, set: u64) -> bool {
        let e = &self.hpt[index as usize];
        e[1].compare_exchange(old[1], old[1] | set, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
    fn process_table(&self) -> u64 {
        self.process_table.load(Ordering::SeqCst)
    }
    fn doorbell(&self, _: u32, thread: u32) {
        assert_eq!(thread, 0);
        self.pins().signal(pin::DOORBELL);
    }
    fn guest_error(&self, _: u32, message: &str) {
        println!("guest error: {message}");
    }
}

pub fn say(r: u32) -> [u32; 3] {
    [mr(4, r), li(3, SAY), sc(1)]
}
pub fn call(token: i32) -> [u32; 2] {
    [li(3, token), sc(1)]
}

/// What a handler says: vector, SRR0, SRR1, DAR, DSISR.
pub type Interrupt = [u64; 5];

/// The handlers of all vectors, at real 0 and again at 0x4000 (for LPCR.AIL): each says what happened (see [`Interrupt`]), clears
/// the external interrupt and the decrementer, and goes on behind the instruction at SRR0, or, once, at GPR 25 with MSR GPR 26 if
/// GPR 25 is not 0. GPR 20 to 26 are theirs.
fn handlers() -> Vec<(u64, Vec<u32>)> {
    let mut all = Vec::new();
    for base in [0u64, 0x4000] {
        for vector in (0x100..0x1000).step_by(0x20).filter(|v| v & 0x7f == 0 || matches!(v, 0xf20 | 0xf40 | 0xf60)) {
            let at = base + vector;
            all.push((at, vec![mr(21, 3), li(20, vector as i32), b(at + 8, base + 0x3000)]));
        }
        let mut common = vec![mr(22, 4)];
        common.extend(say(20));
        for spr in [26, 27, 19, 18] {
            common.push(mfspr(20, spr));
            common.extend(say(20));
        }
        common.extend([li(4, 0)]);
        common.extend(call(EXTERNAL));
        common.extend(load(20, 0x7fff_ffff));
        common.extend([mtspr(22, 20), li(20, 0), mtspr(19, 20), mtspr(18, 20)]);
        common.extend([mfspr(20, 26), addi(20, 20, 4), mtspr(26, 20)]);
        common.extend([cmpdi(25, 0), beq_over(3), mtspr(26, 25), mtspr(27, 26), li(25, 0)]);
        common.extend([mr(3, 21), mr(4, 22), RFID]);
        all.push((base + 0x3000, common));
    }
    all
}

/// A run of a program with each engine.
pub struct Run {
    pub model: &'static str,
    pub little: bool,
    /// Further memory: address and doublewords, big-endian.
    pub tables: Vec<(u64, Vec<u64>)>,
    pub hpt: Vec<(u64, Pte)>,
    pub process_table: u64,
    pub lpcr: u64,
    /// More code.
    pub code: Vec<(u64, Vec<u32>)>,
}

impl Default for Run {
    fn default() -> Run {
        Run { model: "power9", little: false, tables: vec![], hpt: vec![], process_table: 0, lpcr: 0, code: vec![] }
    }
}

impl Run {
    /// Runs a program from [`START`] in real mode; `check` sees what was said, and the machine's state afterwards.
    pub fn check(&self, program: &[u32], check: impl Fn(&[u64], &RamBlock, &Board)) {
        for (interpret, hot_threshold) in [(true, None), (false, None), (false, Some(2))] {
            println!("interpreter {interpret}, regions {hot_threshold:?}");
            let space = AddressSpace::new("test");
            let ram = RamBlock::anonymous("ram", RAM).unwrap();
            let _map = space.map_ram(Gpa(0), &ram, 0, RAM, 0).unwrap();
            let mut program = program.to_vec();
            program.extend(call(END));
            program.push(SPIN);
            let mut code = handlers();
            code.push((START, program));
            for (at, words) in code.iter().chain(&self.code) {
                for (n, w) in words.iter().enumerate() {
                    let bytes = if self.little { w.to_le_bytes() } else { w.to_be_bytes() };
                    ram.write(at + 4 * n as u64, &bytes).unwrap();
                }
            }
            for (at, words) in &self.tables {
                for (n, w) in words.iter().enumerate() {
                    ram.write(at + 8 * n as u64, &w.to_be_bytes()).unwrap();
                }
            }
            let board = Arc::new(Board::default());
            for (n, pte) in &self.hpt {
                board.set_pte(*n, *pte);
            }
            board.process_table.store(self.process_table, Ordering::SeqCst);
            let config = Arc::new(rhea_ppc::models::parse(self.model).unwrap());
            let clock = VirtualClock::new();
            clock.start();
            let mut cpu = PpcCpu::new(0, &config, &space, &clock, board.clone());
            assert!(board.pins.set(cpu.pins()).is_ok());
            cpu.set_lpcr(self.lpcr);
            cpu.start_at(START, 0, self.little);
            let options =
                JitOptions { code_bytes: 16 << 20, hot_threshold, interpret, background: false, counting: None };
            let vm = JitVm::new(&space, options).unwrap();
            let vcpu = vm.add_vcpu(0, cpu);
            board.pins().set_wake(Box::new(vcpu.waker()));
            vcpu.start().unwrap();
            vcpu.resume();
            let mut ended = board.ended.lock();
            if !*ended {
                board.changed.wait_for(&mut ended, Duration::from_secs(10));
            }
            let over = *ended;
            drop(ended);
            vcpu.stop();
            let said = board.said.lock().clone();
            assert!(over, "the program did not end; it said {said:#x?}");
            check(&said, &ram, &board);
        }
    }
    /// The same where all that is said comes from handlers.
    pub fn interrupts(&self, program: &[u32], want: &[Interrupt]) {
        self.check(program, |said, _, _| {
            let got: Vec<Interrupt> =
                said.chunks(5).map(|c| std::array::from_fn(|n| c.get(n).copied().unwrap_or(0))).collect();
            assert_eq!(got, want, "\ngot  {got:#x?}\nwant {want:#x?}");
        });
    }
}
