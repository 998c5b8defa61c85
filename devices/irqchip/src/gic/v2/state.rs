//! Saved state of the controller.

use super::super::engine::SavedWord;
use super::super::irqs::Irqs;
use super::super::virt::VirtualCpu;
use super::GicV2;
use super::cpu::CpuRegs;
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use std::sync::atomic::Ordering;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    ctlr: u8,
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
    regs: CpuRegs,
    #[n(2)]
    virt: VirtualCpu,
    #[n(3)]
    sgi_sources: [u8; 16],
}

impl Device for GicV2 {
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
        let cpus = (0..self.cpus()).filter_map(|n| {
            self.engine.peek_cpu(n, |core| CpuState {
                private: core.private.clone(),
                regs: core.iface.regs.clone(),
                virt: core.iface.virt.clone(),
                sgi_sources: core.iface.sgi_sources,
            })
        });
        encode(VERSION, &State { ctlr: self.ctlr.load(Ordering::Acquire), words, cpus: cpus.collect() })
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let State { ctlr, words, cpus } = decode(state, VERSION)?;
        if words.len() as u32 + 1 != self.engine.words_end() || cpus.len() != self.cpus() {
            return Err(LoadError::Mismatch("another number of interrupts or processors".to_owned()));
        }
        self.ctlr.store(ctlr & 3, Ordering::Release);
        for (n, cpu) in cpus.into_iter().enumerate() {
            let CpuState { private, regs, virt, sgi_sources } = cpu;
            self.engine.with_cpu(n, |core| {
                core.private = Irqs { two_states: false, ..private };
                core.iface.regs = regs;
                core.iface.virt = virt;
                core.iface.sgi_sources = sgi_sources;
            });
        }
        self.engine.load_words(words, false, |route| self.place_of(route));
        self.apply_ctlr();
        Ok(())
    }
}
