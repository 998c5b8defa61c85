//! Tests of the system part: a processor without an engine, its registers set by hand.

mod debug;
mod exceptions;
mod registers;
mod stage1;
mod stage2;

use crate::bits::{pstate, sctlr};
use crate::config::{ArmConfig, Feature};
use crate::hooks::{ArmHooks, NoHooks};
use crate::mmu::{Fault, Mapping, Regime, Request};
use crate::mode::mmu;
use crate::reg::Reg;
use crate::state::ArmCpu;
use crate::timer::GenericTimers;
use rhea_clock::VirtualClock;
use rhea_ir::guest::Access;
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// RAM from address 0; what lies above is a bus error.
pub const RAM: u64 = 16 << 20;

pub struct Bench {
    cpu: Box<ArmCpu>,
    ram: Arc<RamBlock>,
    pub clock: Arc<VirtualClock>,
    _map: rhea_memory::Mapping,
}

impl Deref for Bench {
    type Target = ArmCpu;
    fn deref(&self) -> &ArmCpu {
        &self.cpu
    }
}
impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut ArmCpu {
        &mut self.cpu
    }
}

/// All features, of the exception levels only those up to `highest`.
pub fn config(highest: u32) -> ArmConfig {
    let mut c = ArmConfig::all_features();
    c.set(Feature::El2, highest >= 2);
    c.set(Feature::El3, highest >= 3);
    c
}

impl Bench {
    pub fn new(config: ArmConfig) -> Bench {
        Bench::with_hooks(config, Arc::new(NoHooks))
    }
    pub fn with_hooks(config: ArmConfig, hooks: Arc<dyn ArmHooks>) -> Bench {
        let space = AddressSpace::new("test");
        let ram = RamBlock::anonymous("ram", RAM).unwrap();
        let map = space.map_ram(Gpa(0), &ram, 0, RAM, 0).unwrap();
        let clock = VirtualClock::new();
        let timers = GenericTimers::new(&clock);
        let cpu = ArmCpu::new(0, &Arc::new(config), &space, &timers, hooks);
        let mut bench = Bench { cpu, ram, clock, _map: map };
        if bench.has(Feature::El3) {
            bench[Reg::ScrEl3] |= 1 | 1 << 8;
        }
        bench.at(1);
        bench
    }
    /// At this level with its own stack pointer (EL0's at EL0), nothing masked.
    pub fn at(&mut self, el: u32) {
        self.set_pstate(el << pstate::EL_SHIFT | if el == 0 { 0 } else { pstate::SP });
        self.header.raised = 0;
        self.rebuild_mode();
    }
    pub fn poke(&self, at: u64, v: u64) {
        self.ram.store(at, 8, v).unwrap();
    }
    pub fn peek(&self, at: u64) -> u64 {
        self.ram.load(at, 8).unwrap()
    }
    /// Stage 1 of EL1&0 on, with these translation controls.
    pub fn stage1_on(&mut self, tcr: u64, ttbr0: u64) {
        self[Reg::TcrEl1] = tcr;
        self[Reg::Ttbr0El1] = ttbr0;
        self[Reg::MairEl1] = 0xff;
        self[Reg::SctlrEl1] |= sctlr::M;
        self.rebuild_mode();
    }
    pub fn translate(&self, va: u64, access: Access, idx: u32) -> Result<Mapping, Fault> {
        let request = Request { regime: Regime::of_index(idx), access: Some(access), stage2: true, update: true };
        self.translate_address(va, &request)
    }
    pub fn read1(&self, va: u64) -> Result<Mapping, Fault> {
        self.translate(va, Access::Read, mmu::E10_1)
    }
}

/// Writes the tables that lead to an entry of `level` for `va` and puts `leaf` there: from `table` (the first table), tables at
/// each next multiple of 64 KiB. Independent of the walker: plain sums of the sizes of DDI 0487 D8.2.
pub fn put(bench: &Bench, table: u64, granule: u32, input: u32, va: u64, level: i32, leaf: u64) -> u64 {
    let stride = granule - 3;
    let shift = |level: i32| granule + stride * (3 - level) as u32;
    let mut at = 3;
    while shift(at) + stride < input {
        at -= 1;
    }
    let va = va & (u64::MAX >> (64 - input));
    let mut table = table;
    loop {
        let first = shift(at) + stride >= input;
        let index = if first { va >> shift(at) } else { va >> shift(at) & ((1 << stride) - 1) };
        let place = table + 8 * index;
        if at == level {
            bench.poke(place, leaf);
            return place;
        }
        table += 0x1_0000;
        // A table that is there stays.
        if bench.peek(place) & 1 == 0 {
            bench.poke(place, table | 3);
        }
        at += 1;
    }
}
