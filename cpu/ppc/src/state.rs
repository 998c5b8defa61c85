//! The architectural state of one processor.

use crate::bits;
use crate::config::PpcConfig;
use crate::hooks::{PpcHooks, PpcPins};
use crate::system::System;
use crate::timebase::TimeBase;
use rhea_clock::VirtualClock;
use rhea_ir::eval::{order_is, order_of};
use rhea_ir::guest::TlbFlush;
use rhea_ir::near::{Places, Registers, places};
use rhea_ir::{Cond, EnvHeader};
use rhea_memory::AddressSpace;
use std::sync::Arc;

/// General purpose registers.
pub type Gprs = Registers<GprPlaces, 32>;

/// Stack, TOC, arguments, and what compilers take first to be preserved.
pub struct GprPlaces;

impl Places<32> for GprPlaces {
    const PLACES: [u8; 32] = places(&[1, 3, 9, 31, 30, 4, 10, 29, 2, 5, 28, 8]);
}

/// One processor (hardware thread). Generated code reaches it through [`slots`].
#[repr(C)]
pub struct PpcCpu {
    pub header: EnvHeader,
    // What generated code uses most is within a displacement of one byte: the first 128 bytes.
    /// LT, GT and EQ of the condition register's first field, as an order (`rhea_ir::Op::Order`).
    cr0_order: u64,
    /// SO of the condition register's fields; each 0 or 1.
    cr_so: [u8; 8],
    /// XER.SO, OV, CA, OV32, CA32; each 0 or 1.
    pub so: u8,
    pub ov: u8,
    pub ca: u8,
    pub ov32: u8,
    pub ca32: u8,
    pub lr: u64,
    pub gpr: Gprs,
    /// Orders of the other fields of the condition register.
    cr_order: [u64; 7],
    pub ctr: u64,
    pub tar: u64,
    pub msr: u64,
    /// The rest of XER.
    pub xer_rest: u64,
    /// VSR 0–63: the low half is doubleword 0 of the register (an FPR), the high half doubleword 1.
    pub vsr: [u128; 64],
    /// VSCR.SAT: set if any bit is.
    pub sat: u128,
    /// Vector status and control register but for SAT.
    pub vscr: u32,
    /// Size in bytes of the reservation, 0: none.
    pub res_size: u32,
    pub res_addr: u64,
    /// The value loaded with the reservation, zero-extended, as a number; `res_hi` the high doubleword of a quadword.
    pub res_lo: u64,
    pub res_hi: u64,
    /// Address of the prefixed instruction that was begun last: an interrupt there may be its.
    pub(crate) prefixed_at: u64,
    /// Scratch of lswx and stswx: bytes moved and the address.
    pub(crate) string: [u64; 2],
    /// FPSCR but for what the last FP operation still has to say.
    pub fpscr: u64,
    /// The last floating-point operation (`fpu::Note`), 0: FPSCR says all of it; its operands; packed flags of a compare after it.
    pub fp_op: u32,
    pub fp_cc: u32,
    pub fp_args: [u64; 3],
    /// Special-purpose registers kept as plain values, by number.
    pub spr: [u64; 1024],
    pub config: Arc<PpcConfig>,
    pub(crate) flushes: Vec<(TlbFlush, bool)>,
    pub(crate) hooks: Arc<dyn PpcHooks>,
    pub(crate) pins: Arc<PpcPins>,
    pub(crate) space: Arc<AddressSpace>,
    /// Not zero: an interrupt may wait that MSR.EE masks. A hint; every rise of a pin makes `poll` look.
    pub(crate) pending: u32,
    /// Not zero: slbie or slbia wait for a context synchronizing event.
    pub(crate) unsynchronized: u32,
    pub(crate) time: TimeBase,
    pub(crate) sys: System,
    /// Number of the vCPU in the machine.
    pub index: u32,
}

impl PpcCpu {
    /// A processor in its reset state.
    pub fn new(
        index: u32,
        config: &Arc<PpcConfig>,
        space: &Arc<AddressSpace>,
        clock: &Arc<VirtualClock>,
        hooks: Arc<dyn PpcHooks>,
    ) -> Box<PpcCpu> {
        let pins = Arc::new(PpcPins::default());
        let tells_exceptions = hooks.wants_exceptions();
        let mut cpu = Box::new(PpcCpu {
            header: EnvHeader::default(),
            gpr: [0; 32].into(),
            lr: 0,
            ctr: 0,
            tar: 0,
            msr: 0,
            cr0_order: order_of([false; 3]),
            cr_order: [order_of([false; 3]); 7],
            cr_so: [0; 8],
            so: 0,
            ov: 0,
            ca: 0,
            ov32: 0,
            ca32: 0,
            xer_rest: 0,
            vsr: [0; 64],
            sat: 0,
            vscr: 0,
            res_size: 0,
            res_addr: 0,
            res_lo: 0,
            res_hi: 0,
            prefixed_at: u64::MAX,
            string: [0; 2],
            fpscr: 0,
            fp_op: 0,
            fp_cc: 0,
            fp_args: [0; 3],
            spr: [0; 1024],
            config: config.clone(),
            flushes: Vec::new(),
            hooks,
            time: TimeBase::new(clock, &pins),
            pins,
            space: space.clone(),
            pending: 0,
            unsynchronized: 0,
            sys: System::new(tells_exceptions),
            index,
        });
        cpu.reset_state();
        cpu
    }

    /// The interrupt inputs, to be driven from any thread.
    pub fn pins(&self) -> Arc<PpcPins> {
        self.pins.clone()
    }

    /// Architectural reset.
    pub(crate) fn reset_state(&mut self) {
        self.gpr = [0; 32].into();
        self.vsr = [0; 64];
        self.set_cr(0);
        self.set_xer(0);
        (self.lr, self.ctr, self.tar) = (0, 0, 0);
        (self.sat, self.vscr, self.fpscr) = (0, 0, 0);
        (self.fp_op, self.fp_cc) = (0, 0);
        self.res_size = 0;
        self.spr = [0; 1024];
        self.header.fp_flags = 0;
        self.header.raised = 0;
        self.header.pc = 0x100;
        self.msr = bits::msr::SF | bits::msr::ME;
        self.reset_system();
        self.flushes.push((TlbFlush::All, false));
        self.rebuild_mode();
    }

    /// Asks the run loop to call `poll` (`request` bits).
    pub(crate) fn request(&self, bits: u32) {
        self.header.exit_request.set(bits);
    }
    pub(crate) fn flush(&mut self, what: TlbFlush, everywhere: bool) {
        self.flushes.push((what, everywhere));
        self.request(rhea_ir::guest::request::ACCEL);
    }

    /// The condition register in 32 bits.
    pub fn read_cr(&self) -> u32 {
        (0..8).fold(0, |v, n| v << 4 | self.cr_field(n))
    }
    pub fn set_cr(&mut self, v: u32) {
        (0..8).for_each(|n| self.set_cr_field(n, v >> (28 - 4 * n)));
    }
    /// Field `n` (0–7) of the condition register: LT 8, GT 4, EQ 2, SO 1.
    pub fn cr_field(&self, n: usize) -> u32 {
        let order = if n & 7 == 0 { self.cr0_order } else { self.cr_order[(n & 7) - 1] };
        let is = |cond| u32::from(order_is(cond, order));
        is(Cond::Slt) << 3 | is(Cond::Sgt) << 2 | is(Cond::Eq) << 1 | u32::from(self.cr_so[n & 7])
    }
    pub fn set_cr_field(&mut self, n: usize, v: u32) {
        let order = if n & 7 == 0 { &mut self.cr0_order } else { &mut self.cr_order[(n & 7) - 1] };
        *order = order_of([8, 4, 2].map(|bit| v & bit != 0));
        self.cr_so[n & 7] = (v & 1) as u8;
    }
    /// XER.
    pub fn read_xer(&self) -> u64 {
        let bit = |v: u8, b: u64| if v != 0 { b } else { 0 };
        self.xer_rest
            | bit(self.so, bits::xer::SO)
            | bit(self.ov, bits::xer::OV)
            | bit(self.ca, bits::xer::CA)
            | bit(self.ov32, bits::xer::OV32)
            | bit(self.ca32, bits::xer::CA32)
    }
    /// Writes XER; bits that are not defined stay zero but for the byte count.
    pub fn set_xer(&mut self, v: u64) {
        self.so = u8::from(v & bits::xer::SO != 0);
        self.ov = u8::from(v & bits::xer::OV != 0);
        self.ca = u8::from(v & bits::xer::CA != 0);
        self.ov32 = u8::from(v & bits::xer::OV32 != 0);
        self.ca32 = u8::from(v & bits::xer::CA32 != 0);
        self.xer_rest = v & bits::xer::COUNT;
    }
}

/// Guest state that generated code reads and writes.
pub mod slots {
    use super::{Gprs, PpcCpu};
    use rhea_ir::{Slot, Type};
    use std::mem::offset_of;

    /// GPR 0–31.
    pub const fn gpr(n: u32) -> Slot {
        assert!(n < 32);
        Slot::new(offset_of!(PpcCpu, gpr) + Gprs::offset(n), Type::I64)
    }
    /// VSR 0–63 (0–31 hold the FPRs in lane 0 of doublewords, 32–63 are the VRs).
    pub const fn vsr(n: u32) -> Slot {
        assert!(n < 64);
        Slot::new(offset_of!(PpcCpu, vsr) + 16 * n as usize, Type::V128)
    }
    /// LT, GT and EQ of a field of the condition register, an order.
    pub const fn cr_order(field: u32) -> Slot {
        assert!(field < 8);
        let at = match field {
            0 => offset_of!(PpcCpu, cr0_order),
            _ => offset_of!(PpcCpu, cr_order) + 8 * (field as usize - 1),
        };
        Slot::new(at, Type::I64).late()
    }
    /// SO of a field of the condition register.
    pub const fn cr_so(field: u32) -> Slot {
        assert!(field < 8);
        Slot::new(offset_of!(PpcCpu, cr_so) + field as usize, Type::Bool).late()
    }
    pub const SO: Slot = Slot::new(offset_of!(PpcCpu, so), Type::Bool).late();
    pub const OV: Slot = Slot::new(offset_of!(PpcCpu, ov), Type::Bool).late();
    pub const CA: Slot = Slot::new(offset_of!(PpcCpu, ca), Type::Bool).late();
    pub const OV32: Slot = Slot::new(offset_of!(PpcCpu, ov32), Type::Bool).late();
    pub const CA32: Slot = Slot::new(offset_of!(PpcCpu, ca32), Type::Bool).late();
    pub const XER_REST: Slot = Slot::new(offset_of!(PpcCpu, xer_rest), Type::I64);
    pub const LR: Slot = Slot::new(offset_of!(PpcCpu, lr), Type::I64);
    pub const CTR: Slot = Slot::new(offset_of!(PpcCpu, ctr), Type::I64);
    pub const TAR: Slot = Slot::new(offset_of!(PpcCpu, tar), Type::I64);
    /// To be read only, or written with care: the mode word depends on it.
    pub const MSR: Slot = Slot::new(offset_of!(PpcCpu, msr), Type::I64);
    /// VSCR.SAT: saturation ORs any non-zero pattern into it.
    pub const SAT: Slot = Slot::new(offset_of!(PpcCpu, sat), Type::V128);
    pub const VSCR: Slot = Slot::new(offset_of!(PpcCpu, vscr), Type::I32);
    pub const FPSCR: Slot = Slot::new(offset_of!(PpcCpu, fpscr), Type::I64);
    pub const FP_OP: Slot = Slot::new(offset_of!(PpcCpu, fp_op), Type::I32);
    pub const FP_CC: Slot = Slot::new(offset_of!(PpcCpu, fp_cc), Type::I32);
    /// An operand of the last floating-point operation.
    pub const fn fp_arg(n: u32) -> Slot {
        assert!(n < 3);
        Slot::new(offset_of!(PpcCpu, fp_args) + 8 * n as usize, Type::F64)
    }
    pub const RES_SIZE: Slot = Slot::new(offset_of!(PpcCpu, res_size), Type::I32);
    pub const RES_ADDR: Slot = Slot::new(offset_of!(PpcCpu, res_addr), Type::I64);
    pub const RES_LO: Slot = Slot::new(offset_of!(PpcCpu, res_lo), Type::I64);
    pub const RES_HI: Slot = Slot::new(offset_of!(PpcCpu, res_hi), Type::I64);
    /// Not zero: an interrupt may wait. See `PpcCpu::pending`.
    pub const PENDING: Slot = Slot::new(offset_of!(PpcCpu, pending), Type::I32);
    /// See `PpcCpu::prefixed_at`.
    pub const PREFIXED_AT: Slot = Slot::new(offset_of!(PpcCpu, prefixed_at), Type::I64);
    /// Scratch inside one instruction.
    pub const STRING_AT: Slot = Slot::new(offset_of!(PpcCpu, string), Type::I64);
    pub const STRING_EA: Slot = Slot::new(offset_of!(PpcCpu, string) + 8, Type::I64);
    /// Not zero: call `helpers::system::SYNC_SEGMENTS` at a context synchronizing event.
    pub const UNSYNCHRONIZED: Slot = Slot::new(offset_of!(PpcCpu, unsynchronized), Type::I32);
    /// A special-purpose register that is a plain value.
    pub const fn spr(n: u32) -> Slot {
        assert!(n < 1024);
        Slot::new(offset_of!(PpcCpu, spr) + 8 * n as usize, Type::I64)
    }
}
