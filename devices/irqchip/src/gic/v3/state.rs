//! Saved state of the controller.

use super::super::engine::SavedWord;
use super::super::irqs::Irqs;
use super::super::virt::VirtualCpu;
use super::GicV3;
use super::icc::{Icc, IccRegs};
use super::lpi::SavedLpis;
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use std::sync::atomic::Ordering;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    ctlr: u32,
    #[n(1)]
    words: Vec<SavedWord>,
    #[n(2)]
    cpus: Vec<CpuState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct CpuState {
    #[n(0)]
    private: Irqs,
    #[n(1)]
    regs: IccRegs,
    #[n(2)]
    virt: VirtualCpu,
    #[n(3)]
    lpis: SavedLpis,
    #[n(4)]
    asleep: bool,
    #[n(5)]
    dpg: u8,
    #[n(6)]
    at_el3: bool,
    #[n(7)]
    secure: bool,
}

impl Device for GicV3 {
    fn name(&self) -> &str {
        &self.config.name
    }
    fn reset(&self) {
        self.reset_all();
    }
    fn collects(&self) -> bool {
        true
    }
    fn save(&self) -> Saved {
        let words = self.engine.save_words();
        let cpus = (0..self.engine.cpus()).filter_map(|n| {
            self.engine.peek_cpu(n, |core| {
                let Icc { regs, virt, lpis, asleep, dpg, two_states: _, at_el3, secure, maintenance: _ } = &core.iface;
                CpuState {
                    private: core.private.clone(),
                    regs: regs.clone(),
                    virt: virt.clone(),
                    lpis: lpis.save(),
                    asleep: *asleep,
                    dpg: *dpg,
                    at_el3: *at_el3,
                    secure: *secure,
                }
            })
        });
        encode(VERSION, &State { ctlr: self.ctlr.load(Ordering::Acquire), words, cpus: cpus.collect() })
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let State { ctlr, words, cpus } = decode(state, VERSION)?;
        if words.len() as u32 + 1 != self.engine.words_end() || cpus.len() != self.engine.cpus() {
            return Err(LoadError::Mismatch("another number of interrupts or processors".to_owned()));
        }
        if !self.config.security && ctlr & super::spec::ctlr::DS == 0 {
            return Err(LoadError::Mismatch("the state has two security states".to_owned()));
        }
        self.ctlr.store(ctlr, Ordering::Release);
        let two = self.two_states();
        for (n, cpu) in cpus.into_iter().enumerate() {
            let CpuState { private, regs, virt, lpis, asleep, dpg, at_el3, secure } = cpu;
            self.engine.with_cpu(n, |core| {
                core.private = Irqs { two_states: two, ..private };
                let icc = &mut core.iface;
                icc.regs = regs;
                icc.virt = virt;
                icc.lpis.load(&lpis);
                icc.asleep = asleep;
                icc.dpg = dpg;
                icc.two_states = two;
                icc.at_el3 = at_el3;
                icc.secure = secure;
            });
        }
        self.engine.load_words(words, two, |route| self.place_of(route));
        self.apply_ctlr();
        Ok(())
    }
}
