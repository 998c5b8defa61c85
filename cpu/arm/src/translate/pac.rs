//! Pointer authentication of the current translation regime: which bits hold the code, and with which rules
//! (`CalculateBottomPACBit`, `EffectiveTBI`); the code itself is computed in [`crate::crypto::pauth`].

use crate::config::{ArmConfig, Feature};
use crate::crypto::pauth::{Algorithm, Key, Layout, Level, Memo, Pauth};
use crate::mode::{ArmMode, mmu};
use crate::reg::Reg;
use crate::state::ArmCpu;

/// What a processor keeps for pointer authentication.
pub struct PacState {
    rules: Pauth,
    memo: Memo,
    /// What `layouts` was made of: TCR and mode.
    made_of: (u64, u64),
    /// Of instruction and of data pointers.
    layouts: [Layout; 2],
}

impl PacState {
    /// The rules of a CPU model. A fault of FEAT_FPAC is raised by the translated instruction, not here.
    pub fn new(config: &ArmConfig) -> PacState {
        let has = |f| config.has(f);
        let algorithm = if has(Feature::PauthImpdef) { Algorithm::Impdef } else { Algorithm::Qarma5 };
        let level = if has(Feature::Pauth2) || has(Feature::Fpac) { Level::Pauth2 } else { Level::Pauth };
        let nothing = Layout::new([false; 2], [48; 2]);
        // No mode is all ones.
        PacState {
            rules: Pauth { level, faulting: false },
            memo: Memo::new(algorithm),
            made_of: (0, u64::MAX),
            layouts: [nothing; 2],
        }
    }
}

/// TCR of the current translation regime.
#[inline]
fn tcr(cpu: &ArmCpu, mode: ArmMode) -> u64 {
    let reg = match mode.mmu_idx() {
        mmu::E20_0 | mmu::E20_2 | mmu::E20_2_PAN | mmu::E2 => Reg::TcrEl2,
        mmu::E3 => Reg::TcrEl3,
        _ => Reg::TcrEl1,
    };
    cpu.sys[reg as usize]
}

/// CalculateBottomPACBit() of the lower or upper range.
fn bottom(cpu: &ArmCpu, mode: ArmMode, tcr: u64, upper: bool) -> u32 {
    let has = |f| cpu.config.has(f);
    let (tsz, large) =
        if mode.two_ranges() && upper { (tcr >> 16 & 63, tcr >> 30 & 3 == 3) } else { (tcr & 63, tcr >> 14 & 3 == 1) };
    let wide = if large {
        has(Feature::Lva)
    } else {
        has(Feature::Lpa2) && tcr >> (if mode.two_ranges() { 59 } else { 32 }) & 1 != 0
    };
    let max = match (has(Feature::Ttst), large) {
        (false, _) => 39,
        (true, true) => 47,
        (true, false) => 48,
    };
    64 - (tsz as u32).clamp(if wide { 12 } else { 16 }, max)
}

/// What of the mode matters besides TCR.
const LAYOUT_MODE: u64 =
    ArmMode(0).with_tbi0(true).with_tbi1(true).with_tbii0(true).with_tbii1(true).with_two_ranges(true).0;

impl ArmCpu {
    /// Determines where codes are in pointers, after the mode or TCR may have changed.
    #[inline]
    pub(crate) fn refresh_pac_layout(&mut self) {
        let mode = ArmMode(self.header.mode);
        let tcr = tcr(self, mode);
        let made_of = (tcr, mode.0 & LAYOUT_MODE);
        if self.pac.made_of != made_of {
            let bottom = [bottom(self, mode, tcr, false), bottom(self, mode, tcr, true)];
            self.pac.layouts =
                [Layout::new([mode.tbii0(), mode.tbii1()], bottom), Layout::new([mode.tbi0(), mode.tbi1()], bottom)];
            self.pac.made_of = made_of;
        }
    }
    /// Writes half of a key: see [`key`].
    pub(crate) fn set_key(&mut self, n: u32, half: u32, v: u64) {
        self.keys[(n as usize).min(4)][half as usize & 1] = v;
        self.key_epoch = self.key_epoch.wrapping_add(1);
    }
}

/// Key 0 IA, 1 IB, 2 DA, 3 DB, 4 GA.
#[inline]
fn key(cpu: &ArmCpu, n: u32) -> Key {
    let [lo, hi] = cpu.keys[(n as usize).min(4)];
    Key { hi, lo }
}

/// AddPAC().
#[inline]
pub fn add(cpu: &mut ArmCpu, ptr: u64, modifier: u64, n: u32) -> u64 {
    let key = key(cpu, n & 3);
    let pac = &mut cpu.pac;
    pac.rules.add(&mut pac.memo, ptr, modifier, key, &pac.layouts[(n >> 1 & 1) as usize])
}

/// Auth(). A failure leaves a pointer that is not canonical.
#[inline]
pub fn auth(cpu: &mut ArmCpu, ptr: u64, modifier: u64, n: u32) -> u64 {
    let key = key(cpu, n & 3);
    let pac = &mut cpu.pac;
    let checked = pac.rules.auth(&mut pac.memo, ptr, modifier, key, n & 1 != 0, &pac.layouts[(n >> 1 & 1) as usize]);
    checked.unwrap_or(ptr)
}

/// Strip().
#[inline]
pub fn strip(cpu: &ArmCpu, ptr: u64, data: bool) -> u64 {
    crate::crypto::pauth::strip(ptr, &cpu.pac.layouts[usize::from(data)])
}

/// The code of PACGA in the upper half.
pub fn generic(cpu: &mut ArmCpu, value: u64, modifier: u64) -> u64 {
    let key = key(cpu, 4);
    crate::crypto::pauth::add_generic(&mut cpu.pac.memo, value, modifier, key)
}
