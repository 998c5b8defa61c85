//! Saved state of the local APICs.

use super::bus::ApicBus;
use super::lapic::Lapic;
use super::spec::{DEFAULT_BASE, LVTS, base, svr};
use super::timer::{Count, Mode};
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use std::sync::atomic::Ordering::SeqCst;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    lapics: Vec<LapicState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct LapicState {
    #[n(0)]
    base: u64,
    #[n(1)]
    irr: [u64; 4],
    #[n(2)]
    isr: [u64; 4],
    #[n(3)]
    tmr: [u64; 4],
    #[n(4)]
    tpr: u8,
    #[n(5)]
    svr: u32,
    #[n(6)]
    ldr: u32,
    #[n(7)]
    dfr: u32,
    #[n(8)]
    lvt: [u32; LVTS],
    #[n(9)]
    icr: u64,
    #[n(10)]
    esr: u32,
    #[n(11)]
    errors: u32,
    #[n(12)]
    lint: u8,
    #[n(13)]
    ext_int: bool,
    #[n(14)]
    pv_word: Option<u64>,
    #[n(15)]
    initial: u32,
    #[n(16)]
    divide: u32,
    #[n(17)]
    start: Option<u64>,
    #[n(18)]
    deadline: Option<u64>,
    /// `None`: the initial one.
    #[n(19)]
    xapic_id: Option<u8>,
}

impl Lapic {
    fn save(&self) -> LapicState {
        let Count { initial, divide, start, deadline, .. } = self.timer.save();
        LapicState {
            base: self.base.load(SeqCst),
            irr: self.irr.load(),
            isr: self.isr.load(),
            tmr: self.tmr.load(),
            tpr: self.tpr.load(SeqCst),
            svr: self.svr.load(SeqCst),
            ldr: self.ldr.load(SeqCst),
            dfr: self.dfr.load(SeqCst),
            lvt: std::array::from_fn(|n| self.lvt[n].load(SeqCst)),
            icr: self.icr.load(SeqCst),
            esr: self.esr.load(SeqCst),
            errors: self.errors.load(SeqCst),
            lint: self.lint.load(SeqCst),
            ext_int: self.ext_int.load(SeqCst),
            pv_word: self.pv_word(),
            initial,
            divide,
            start,
            deadline,
            xapic_id: Some(self.xapic_id.load(SeqCst)).filter(|id| *id != self.apic_id).map(|id| id as u8),
        }
    }
    fn load(&self, state: LapicState, virtual_wire: bool) -> Result<(), LoadError> {
        if state.base & base::MODE == base::X2APIC {
            return Err(LoadError::Damaged("an APIC in a mode that does not exist".to_owned()));
        }
        self.reset(virtual_wire);
        self.base.store(state.base, SeqCst);
        self.irr.store(state.irr);
        self.isr.store(state.isr);
        self.tmr.store(state.tmr);
        self.tpr.store(state.tpr, SeqCst);
        self.svr.store(state.svr & (svr::VECTOR | svr::ENABLE | svr::FOCUS_OFF | svr::NO_EOI_BROADCAST), SeqCst);
        self.ldr.store(state.ldr, SeqCst);
        self.dfr.store(state.dfr | 0x0fff_ffff, SeqCst);
        for (entry, value) in self.lvt.iter().zip(state.lvt) {
            entry.store(value, SeqCst);
        }
        self.icr.store(state.icr, SeqCst);
        self.esr.store(state.esr, SeqCst);
        self.errors.store(state.errors, SeqCst);
        self.lint.store(state.lint & 3, SeqCst);
        self.ext_int.store(state.ext_int, SeqCst);
        self.set_pv_word(state.pv_word);
        let LapicState { initial, divide, start, deadline, lvt, .. } = state;
        self.timer.load(Count { mode: Mode::of(lvt[0]), initial, divide: divide & 0xb, start, deadline });
        self.update();
        Ok(())
    }
}

impl Device for ApicBus {
    fn name(&self) -> &str {
        &self.config.name
    }
    fn reset(&self) {
        self.reset_all();
    }
    fn collects(&self) -> bool {
        true
    }
    /// Offers of the paravirtual EOI are bits in the guest's memory: they are taken back before that is saved.
    fn quiesce(&self) {
        self.lapics.iter().for_each(Lapic::sync_pv);
    }
    fn save(&self) -> Saved {
        encode(VERSION, &State { lapics: self.lapics.iter().map(Lapic::save).collect() })
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let State { lapics } = decode(state, VERSION)?;
        if lapics.len() != self.lapics.len() {
            return Err(LoadError::Mismatch("another number of processors".to_owned()));
        }
        for (lapic, state) in self.lapics.iter().zip(lapics) {
            let place = state.base & !0xfff;
            let xapic_id = state.xapic_id;
            lapic.load(state, self.config.virtual_wire)?;
            if let Some(id) = xapic_id {
                self.rename(lapic, id.into());
            }
            if place != DEFAULT_BASE {
                self.relocate(place);
            }
        }
        Ok(())
    }
}
