//! The state of a processor, between the kernel and a [`PpcCpu`].
//!
//! Time base and decrementer are the kernel's alone, and so is what the kernel keeps for a guest's hypercalls (virtual processor
//! areas). Registers are written if they are not what the kernel is known to have: so those that the model does not know as the
//! processor has them stay, and those that this kernel refuses are given up once.

use super::abi::{self, kvm_regs};
use super::sys::VcpuFile;
use crate::error::{Context, KvmError};
use rhea_ir::guest::Guest;
use rhea_ppc::bits::lpcr;
use rhea_ppc::models::COMPATS;
use rhea_ppc::{PpcCpu, PpcSaved, spr};

/// Registers that are plain values of the model, by their numbers on both sides.
const SPRS: &[(u64, u32)] = &[
    (abi::KVM_REG_PPC_DSCR, spr::DSCR),
    (abi::KVM_REG_PPC_DAR, spr::DAR),
    (abi::KVM_REG_PPC_DSISR, spr::DSISR),
    (abi::KVM_REG_PPC_AMR, spr::AMR),
    (abi::KVM_REG_PPC_UAMOR, spr::UAMOR),
    (abi::KVM_REG_PPC_IAMR, spr::IAMR),
    (abi::KVM_REG_PPC_FSCR, spr::FSCR),
    (abi::KVM_REG_PPC_PSPB, spr::PSPB),
    (abi::KVM_REG_PPC_EBBHR, spr::EBBHR),
    (abi::KVM_REG_PPC_EBBRR, spr::EBBRR),
    (abi::KVM_REG_PPC_BESCR, spr::BESCR),
    (abi::KVM_REG_PPC_CIABR, spr::CIABR),
    (abi::KVM_REG_PPC_DAWR, spr::DAWR0),
    (abi::KVM_REG_PPC_DAWRX, spr::DAWRX0),
    (abi::KVM_REG_PPC_DAWR1, spr::DAWR1),
    (abi::KVM_REG_PPC_DAWRX1, spr::DAWRX1),
    (abi::KVM_REG_PPC_VRSAVE, spr::VRSAVE),
    (abi::KVM_REG_PPC_PPR, spr::PPR),
    (abi::KVM_REG_PPC_PSSCR, spr::PSSCR),
    (abi::KVM_REG_PPC_MMCR0, spr::MMCR0),
    (abi::KVM_REG_PPC_MMCR1, spr::MMCR1),
    (abi::KVM_REG_PPC_MMCR2, spr::MMCR2),
    (abi::KVM_REG_PPC_MMCR3, spr::MMCR3),
    (abi::KVM_REG_PPC_MMCRA, spr::MMCRA),
    (abi::KVM_REG_PPC_SIAR, spr::SIAR),
    (abi::KVM_REG_PPC_SDAR, spr::SDAR),
    (abi::KVM_REG_PPC_SIER, spr::SIER),
    (abi::KVM_REG_PPC_SIER2, spr::SIER2),
    (abi::KVM_REG_PPC_SIER3, spr::SIER3),
    (abi::KVM_REG_PPC_PMC1, spr::PMC1),
    (abi::KVM_REG_PPC_PMC1 + 1, spr::PMC2),
    (abi::KVM_REG_PPC_PMC1 + 2, spr::PMC3),
    (abi::KVM_REG_PPC_PMC1 + 3, spr::PMC4),
    (abi::KVM_REG_PPC_PMC1 + 4, spr::PMC5),
    (abi::KVM_REG_PPC_PMC1 + 5, spr::PMC6),
];

/// Bits of LPCR that are the partition's; translation is of the whole VM ([`super::KernelMmu`]).
const LPCR: u64 = lpcr::ILE | lpcr::AIL | lpcr::LD;

/// SLB entries' index in RB.
const SLB_INDEX: u64 = 0xfff;

/// What is kept between two looks at a processor's state.
pub struct Registers {
    /// Registers by number with the kernel's values, those that it has.
    known: Vec<(u64, u128)>,
    regs: kvm_regs,
    slb: Vec<(u64, u64)>,
    pvr: u32,
}

/// Everything in [`PpcSaved`] that has a number.
fn values(cpu: &PpcCpu, saved: &PpcSaved, kernel_lpcr: u128) -> Vec<(u64, u128)> {
    let mut all: Vec<(u64, u128)> = SPRS.iter().map(|(id, n)| (*id, saved.spr[*n as usize].into())).collect();
    for (n, value) in saved.vsr.iter().enumerate() {
        // Here doubleword 0 is the low half, there it is the high one.
        let id = if n < 32 { abi::KVM_REG_PPC_VSR0 + n as u64 } else { abi::KVM_REG_PPC_VR0 + n as u64 - 32 };
        all.push((id, value.rotate_left(64)));
    }
    all.push((abi::KVM_REG_PPC_FPSCR, saved.fpscr.into()));
    all.push((abi::KVM_REG_PPC_TAR, saved.tar.into()));
    let pcr = saved.spr[spr::PCR as usize];
    let level = COMPATS.iter().find(|c| c.pcr == pcr && pcr != 0);
    all.push((abi::KVM_REG_PPC_ARCH_COMPAT, level.map_or(0, |c| c.logical_pvr.into())));
    all.push((abi::KVM_REG_PPC_LPCR_64, kernel_lpcr & !u128::from(LPCR) | u128::from(cpu.lpcr() & LPCR)));
    all.push((abi::KVM_REG_PPC_ONLINE, u128::from(!saved.powered_off)));
    all
}

impl Registers {
    /// Looks at the kernel's initial state.
    ///
    /// # Errors
    /// [`KvmError::Call`]; the kernel takes no processor of the guest's version.
    pub fn new(file: &dyn VcpuFile, cpu: &mut PpcCpu) -> Result<Self, KvmError> {
        let sregs = file.sregs().during("KVM_GET_SREGS")?;
        if sregs.pvr != cpu.config.pvr {
            let (host, model) = (sregs.pvr, cpu.config.pvr);
            let text = format!("the host's processor (version {host:#010x}) is not of the guest's ({model:#010x})");
            return Err(KvmError::Refused(text));
        }
        let saved = cpu.save();
        let ids = values(cpu, &saved, 0).into_iter().map(|(id, _)| id);
        let known = ids.filter_map(|id| Some((id, file.reg(id).ok()?))).collect();
        Ok(Self { known, regs: file.regs().during("KVM_GET_REGS")?, slb: Vec::new(), pvr: sregs.pvr })
    }

    fn known(&self, id: u64) -> Option<u128> {
        self.known.iter().find(|(n, _)| *n == id).map(|(_, v)| *v)
    }

    /// Brings what says in which mode a hypercall was made: MSR.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn pull_mode(&mut self, file: &dyn VcpuFile, cpu: &mut PpcCpu) -> Result<(), KvmError> {
        cpu.msr = file.regs().during("KVM_GET_REGS")?.msr;
        Ok(())
    }

    /// Brings the kernel's state into `cpu`.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn pull(&mut self, file: &dyn VcpuFile, cpu: &mut PpcCpu) -> Result<(), KvmError> {
        self.regs = file.regs().during("KVM_GET_REGS")?;
        for (id, value) in &mut self.known {
            *value = file.reg(*id).during("KVM_GET_ONE_REG")?;
        }
        let mut saved = cpu.save();
        let regs = &self.regs;
        (saved.pc, saved.lr, saved.ctr, saved.msr) = (regs.pc, regs.lr, regs.ctr, regs.msr);
        (saved.cr, saved.xer, saved.gpr) = (regs.cr as u32, regs.xer, regs.gpr);
        for (n, value) in [(spr::SRR0, regs.srr0), (spr::SRR1, regs.srr1), (spr::PIDR, regs.pid)] {
            saved.spr[n as usize] = value;
        }
        for n in 0..4 {
            saved.spr[spr::SPRG0 as usize + n] = regs.sprg[n];
        }
        for (id, n) in SPRS {
            if let Some(value) = self.known(*id) {
                saved.spr[*n as usize] = value as u64;
            }
        }
        for n in 0..64 {
            let id = if n < 32 { abi::KVM_REG_PPC_VSR0 + n } else { abi::KVM_REG_PPC_VR0 + n - 32 };
            if let Some(value) = self.known(id) {
                saved.vsr[n as usize] = value.rotate_left(64);
            }
        }
        if let Some(value) = self.known(abi::KVM_REG_PPC_FPSCR) {
            saved.fpscr = value as u64;
        }
        if let Some(value) = self.known(abi::KVM_REG_PPC_TAR) {
            saved.tar = value as u64;
        }
        if !cpu.is_radix() {
            let sregs = file.sregs().during("KVM_GET_SREGS")?;
            let entries = sregs.slb.iter().zip(&mut saved.slb);
            for (from, to) in entries {
                (to.esid, to.vsid) = (from.slbe & !SLB_INDEX, from.slbv);
            }
            self.slb = saved.slb.iter().map(|e| (e.esid, e.vsid)).collect();
        }
        cpu.load(&saved);
        Ok(())
    }

    /// Gives the kernel the state of `cpu`.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn push(&mut self, file: &dyn VcpuFile, cpu: &mut PpcCpu) -> Result<(), KvmError> {
        let saved = cpu.save();
        let regs = kvm_regs {
            pc: saved.pc,
            cr: saved.cr.into(),
            ctr: saved.ctr,
            lr: saved.lr,
            xer: saved.xer,
            msr: saved.msr,
            srr0: saved.spr[spr::SRR0 as usize],
            srr1: saved.spr[spr::SRR1 as usize],
            pid: saved.spr[spr::PIDR as usize],
            sprg: std::array::from_fn(|n| match n {
                0..4 => saved.spr[spr::SPRG0 as usize + n],
                _ => self.regs.sprg[n],
            }),
            gpr: saved.gpr,
        };
        if regs != self.regs {
            file.set_regs(&regs).during("KVM_SET_REGS")?;
            self.regs = regs;
        }
        let kernel_lpcr = self.known(abi::KVM_REG_PPC_LPCR_64).unwrap_or(0);
        for (id, value) in values(cpu, &saved, kernel_lpcr) {
            let Some(known) = self.known.iter_mut().find(|(n, _)| *n == id) else { continue };
            if known.1 != value && file.set_reg(id, value).is_ok() {
                known.1 = value;
            }
        }
        let slb: Vec<(u64, u64)> = saved.slb.iter().map(|e| (e.esid, e.vsid)).collect();
        if !cpu.is_radix() && slb != self.slb {
            let mut sregs = abi::kvm_sregs { pvr: self.pvr, ..abi::kvm_sregs::default() };
            for ((n, to), (esid, vsid)) in sregs.slb.iter_mut().enumerate().zip(&slb) {
                (to.slbe, to.slbv) = (esid | n as u64, *vsid);
            }
            file.set_sregs(&sregs).during("KVM_SET_SREGS")?;
            self.slb = slb;
        }
        // There are no translations to drop.
        cpu.take_flushes();
        Ok(())
    }
}
