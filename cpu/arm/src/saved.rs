//! All migratable state of a processor as plain data.

use crate::debug::Debug;
use crate::pmu::PmuRegs;
use crate::reg::Reg;
use crate::state::ArmCpu;
use crate::timer::TimerSaved;
use minicbor::{Decode, Encode};
use rhea_ir::guest::{TlbFlush, request};

/// Version of what [`ArmSaved`] is encoded as.
pub const VERSION: u32 = 1;

/// See [`ArmCpu::save`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ArmSaved {
    #[n(0)]
    pub pc: u64,
    #[n(1)]
    pub x: [u64; 31],
    /// SP_EL0 to SP_EL3.
    #[n(2)]
    pub sp: [u64; 4],
    #[cbor(n(3), with = "rhea_ir::saved")]
    pub v: [u128; 32],
    /// PSTATE as in an SPSR.
    #[n(4)]
    pub pstate: u32,
    #[n(5)]
    pub fpcr: u32,
    #[n(6)]
    pub fpsr: u32,
    /// TPIDR_EL0, TPIDRRO_EL0, TPIDR_EL1, TPIDR_EL2, TPIDR_EL3.
    #[n(7)]
    pub tpidr: [u64; 5],
    #[n(8)]
    pub keys: [[u64; 2]; 5],
    /// By [`Reg`].
    #[n(9)]
    pub sys: Vec<u64>,
    /// Breakpoint and watchpoint registers: BVR, BCR, WVR, WCR.
    #[n(10)]
    pub debug: [[u64; 16]; 4],
    #[n(11)]
    pub pmu: PmuRegs,
    #[n(12)]
    pub timers: TimerSaved,
    #[n(13)]
    pub halted: bool,
    #[n(14)]
    pub powered_off: bool,
    #[n(15)]
    pub event: bool,
}

impl ArmCpu {
    /// The state, while the processor does not run. The exclusive monitor is not part of it: it opens.
    pub fn save(&mut self) -> ArmSaved {
        self.pmu_sync();
        ArmSaved {
            pc: self.header.pc,
            x: self.x.all(),
            sp: std::array::from_fn(|n| self.read_sp_el(n)),
            v: self.v,
            pstate: self.spsr(),
            fpcr: self.fpcr,
            fpsr: self.read_fpsr(),
            tpidr: [self.tpidr_el0, self.tpidrro_el0, self.tpidr_el1, self.tpidr_el2, self.tpidr_el3],
            keys: self.keys,
            sys: self.sys.to_vec(),
            debug: [self.debug.bvr, self.debug.bcr, self.debug.wvr, self.debug.wcr],
            pmu: self.pmu.regs,
            timers: self.timers.save(),
            halted: self.halted,
            powered_off: self.powered_off,
            event: self.event,
        }
    }

    /// Takes over a saved state.
    pub fn load(&mut self, saved: &ArmSaved) {
        let ArmSaved {
            pc,
            x,
            sp,
            v,
            pstate,
            fpcr,
            fpsr,
            tpidr,
            keys,
            sys,
            debug,
            pmu,
            timers,
            halted,
            powered_off,
            event,
        } = saved;
        self.header.pc = *pc;
        self.x = (*x).into();
        self.v = *v;
        let flags = crate::bits::pstate::BTYPE_SHIFT;
        self.set_nzcv_bits(*pstate);
        self.btype = pstate >> flags & 3;
        self.pstate = pstate & !(0xf << 28 | 3 << flags | crate::bits::pstate::NRW | 2);
        self.sp_el = *sp;
        self.sp = if self.pstate & crate::bits::pstate::SP != 0 { sp[self.el() as usize] } else { sp[0] };
        self.write_fpsr(*fpsr);
        [self.tpidr_el0, self.tpidrro_el0, self.tpidr_el1, self.tpidr_el2, self.tpidr_el3] = *tpidr;
        self.keys = *keys;
        for n in 0..Reg::COUNT {
            self.sys[n] = sys.get(n).copied().unwrap_or(0);
        }
        let d: &mut Debug = &mut self.debug;
        [d.bvr, d.bcr, d.wvr, d.wcr] = *debug;
        self.pmu.regs = *pmu;
        self.timers.load(timers);
        self.halted = *halted;
        self.powered_off = *powered_off;
        self.event = *event;
        self.excl_size = 0;
        self.write_fpcr(*fpcr);
        self.rebuild_mode();
        self.flush(TlbFlush::All, false);
        self.pmu_sync();
        self.request(request::INTERRUPT);
    }
}
