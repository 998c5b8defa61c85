//! All migratable state of a processor as plain data.

use crate::mmu::slb::SlbEntry;
use crate::state::PpcCpu;
use minicbor::{Decode, Encode};
use rhea_ir::guest::{TlbFlush, request};

/// Version of what [`PpcSaved`] is encoded as.
pub const VERSION: u32 = 1;

/// See [`PpcCpu::save`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PpcSaved {
    #[n(0)]
    pub pc: u64,
    #[n(1)]
    pub gpr: [u64; 32],
    #[n(2)]
    pub lr: u64,
    #[n(3)]
    pub ctr: u64,
    #[n(4)]
    pub tar: u64,
    #[n(5)]
    pub msr: u64,
    #[n(6)]
    pub cr: u32,
    #[n(7)]
    pub xer: u64,
    #[cbor(n(8), with = "rhea_ir::saved")]
    pub vsr: [u128; 64],
    /// VSCR with SAT.
    #[n(9)]
    pub vscr: u32,
    #[n(10)]
    pub fpscr: u64,
    /// By number.
    #[n(11)]
    pub spr: Vec<u64>,
    #[n(12)]
    pub slb: Vec<SlbEntry>,
    #[n(13)]
    pub time_base: u64,
    #[n(14)]
    pub decrementer: u64,
    #[n(15)]
    pub halted: bool,
    #[n(16)]
    pub prodded: bool,
    #[n(17)]
    pub powered_off: bool,
    #[n(18)]
    pub machine_check: Option<(u64, u64, u64)>,
}

impl PpcCpu {
    /// The state, while the processor does not run. A reservation is not part of it: it is lost.
    pub fn save(&mut self) -> PpcSaved {
        self.sync_counters();
        self.sync_segments();
        PpcSaved {
            pc: self.header.pc,
            gpr: self.gpr.all(),
            lr: self.lr,
            ctr: self.ctr,
            tar: self.tar,
            msr: self.msr,
            cr: self.read_cr(),
            xer: self.read_xer(),
            vsr: self.vsr,
            vscr: self.vscr & !1 | u32::from(self.sat != 0),
            fpscr: self.read_fpscr(),
            spr: self.spr.to_vec(),
            slb: self.sys.slb.to_vec(),
            time_base: self.time_base(),
            decrementer: self.decrementer(),
            halted: self.sys.halted,
            prodded: self.sys.prodded,
            powered_off: self.sys.powered_off,
            machine_check: self.sys.machine_check,
        }
    }

    /// Takes over a saved state.
    pub fn load(&mut self, saved: &PpcSaved) {
        let PpcSaved {
            pc,
            gpr,
            lr,
            ctr,
            tar,
            msr,
            cr,
            xer,
            vsr,
            vscr,
            fpscr,
            spr,
            slb,
            time_base,
            decrementer,
            halted,
            prodded,
            powered_off,
            machine_check,
        } = saved;
        self.reset_state();
        self.header.pc = *pc;
        self.gpr = (*gpr).into();
        (self.lr, self.ctr, self.tar) = (*lr, *ctr, *tar);
        self.msr = msr & crate::system::MSR_BITS;
        self.set_cr(*cr);
        self.set_xer(*xer);
        self.vsr = *vsr;
        self.vscr = vscr & !1;
        self.sat = u128::from(vscr & 1);
        self.set_fpscr(*fpscr);
        for (to, from) in self.spr.iter_mut().zip(spr) {
            *to = *from;
        }
        self.spr[crate::spr::PVR as usize] = u64::from(self.config.pvr);
        // Through slbmte, so that the contexts of the TLB know them.
        for (n, entry) in slb.iter().enumerate().take(self.config.slb_entries as usize) {
            if entry.is_valid() {
                self.slb_move_to(entry.vsid, entry.esid | n as u64);
            }
        }
        self.set_time_base(*time_base);
        self.set_decrementer(*decrementer);
        self.sync_counters();
        self.sys.halted = *halted;
        self.sys.prodded = *prodded;
        self.sys.powered_off = *powered_off;
        self.sys.machine_check = *machine_check;
        self.select_rights();
        self.rebuild_mode();
        self.flush(TlbFlush::All, false);
        self.request(request::INTERRUPT);
    }
}
