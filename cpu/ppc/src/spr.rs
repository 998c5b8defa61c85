//! Special-purpose registers (Book III, 5.4.4): numbers, who may read and write them, and what lies behind them.

use crate::config::Isa;

macro_rules! numbers {
    ($($name:ident $number:literal;)*) => { $(pub const $name: u32 = $number;)* };
}

numbers! {
    XER 1;
    DSCR_USER 3;
    LR 8;
    CTR 9;
    UAMR 13;
    DSCR 17;
    DSISR 18;
    DAR 19;
    DEC 22;
    SRR0 26;
    SRR1 27;
    CFAR 28;
    AMR 29;
    PIDR 48;
    IAMR 61;
    CTRL_READ 136;
    CTRL 152;
    FSCR 153;
    UAMOR 157;
    PSPB 159;
    DPDES 176;
    DAWR0 180;
    DAWR1 181;
    CIABR 187;
    DAWRX0 188;
    DAWRX1 189;
    HFSCR 190;
    VRSAVE 256;
    SPRG3_USER 259;
    TB 268;
    TBU 269;
    SPRG0 272;
    SPRG1 273;
    SPRG2 274;
    SPRG3 275;
    PVR 287;
    SPURR 308;
    PURR 309;
    LPCR 318;
    PCR 338;
    TIR 446;
    HDEXCR_READ 455;
    HASHKEYR 468;
    HASHPKEYR 469;
    SIER2 752;
    SIER3 753;
    MMCR3 754;
    SIER 784;
    MMCR2 785;
    MMCRA 786;
    PMC1 787;
    PMC2 788;
    PMC3 789;
    PMC4 790;
    PMC5 791;
    PMC6 792;
    MMCR0 795;
    SIAR 796;
    SDAR 797;
    MMCR1 798;
    BESCRS 800;
    BESCRSU 801;
    BESCRR 802;
    BESCRRU 803;
    EBBHR 804;
    EBBRR 805;
    BESCR 806;
    DEXCR_READ 812;
    TAR 815;
    PSSCR 823;
    DEXCR 828;
    IC 848;
    VTB 849;
    PPR 896;
    PPR32 898;
    PIR 1023;
}

/// Who may do something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// In any state.
    User,
    /// In privileged state.
    Privileged,
    /// A hypervisor's; a guest gets a privileged-instruction interrupt.
    Hypervisor,
    /// Nobody: the register is read-only or write-only.
    Nobody,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A plain value, at this number, of which these bits can be written.
    Plain(u32, u64),
    /// Reads of the plain value at this number; writes have effects.
    ReadPlain(u32),
    Xer,
    Lr,
    Ctr,
    Tar,
    /// Reads and writes have effects or are computed.
    Special,
    /// Neither does anything.
    Nothing,
}

/// A facility that must be available in problem state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    Always,
    Dscr,
    Tar,
    Ebb,
    /// MSR.TM in all states, which cannot be set.
    Tm,
}

/// A register.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    pub number: u32,
    pub name: &'static str,
    pub since: Isa,
    pub until: Isa,
    pub read: Who,
    pub write: Who,
    pub kind: Kind,
    pub needs: Needs,
}

const ALL: u64 = u64::MAX;
const WORD: u64 = 0xffff_ffff;

const fn reg(number: u32, name: &'static str, read: Who, write: Who, kind: Kind) -> Register {
    Register { number, name, since: Isa::V2_07, until: Isa::V3_1, read, write, kind, needs: Needs::Always }
}
impl Register {
    const fn since(mut self, v: Isa) -> Register {
        self.since = v;
        self
    }
    const fn until(mut self, v: Isa) -> Register {
        self.until = v;
        self
    }
    const fn needs(mut self, n: Needs) -> Register {
        self.needs = n;
        self
    }
}
/// A hypervisor's register.
const fn hyp(number: u32, name: &'static str) -> Register {
    reg(number, name, Who::Hypervisor, Who::Hypervisor, Kind::Nothing)
}

use Kind::{Ctr, Lr, Nothing, Plain, ReadPlain, Special, Tar, Xer};
use Who::{Hypervisor as H, Nobody, Privileged as P, User as U};

/// All registers.
pub static REGISTERS: &[Register] = &[
    reg(XER, "XER", U, U, Xer),
    reg(DSCR_USER, "DSCR", U, U, Plain(DSCR, 0x01ff_ffff)).needs(Needs::Dscr),
    reg(LR, "LR", U, U, Lr),
    reg(CTR, "CTR", U, U, Ctr),
    reg(UAMR, "AMR", U, U, ReadPlain(AMR)),
    reg(DSCR, "DSCR", P, P, Plain(DSCR, 0x01ff_ffff)),
    reg(DSISR, "DSISR", P, P, Plain(DSISR, WORD)),
    reg(DAR, "DAR", P, P, Plain(DAR, ALL)),
    reg(DEC, "DEC", P, P, Special),
    reg(SRR0, "SRR0", P, P, Plain(SRR0, ALL)),
    reg(SRR1, "SRR1", P, P, Plain(SRR1, ALL)),
    reg(CFAR, "CFAR", P, P, Plain(CFAR, ALL)),
    reg(AMR, "AMR", P, P, ReadPlain(AMR)),
    reg(PIDR, "PIDR", P, P, ReadPlain(PIDR)).since(Isa::V3_0),
    reg(IAMR, "IAMR", P, P, ReadPlain(IAMR)),
    reg(128, "TFHAR", U, U, Nothing).until(Isa::V3_0).needs(Needs::Tm),
    reg(129, "TFIAR", U, U, Nothing).until(Isa::V3_0).needs(Needs::Tm),
    reg(130, "TEXASR", U, U, Nothing).until(Isa::V3_0).needs(Needs::Tm),
    reg(131, "TEXASRU", U, U, Nothing).until(Isa::V3_0).needs(Needs::Tm),
    reg(CTRL_READ, "CTRL", U, Nobody, ReadPlain(CTRL)),
    reg(144, "TIDR", P, P, Plain(144, 0xffff)).since(Isa::V3_0).until(Isa::V3_0),
    reg(CTRL, "CTRL", Nobody, P, Plain(CTRL, 1)),
    reg(FSCR, "FSCR", P, P, ReadPlain(FSCR)),
    reg(UAMOR, "UAMOR", P, P, Plain(UAMOR, ALL)),
    reg(PSPB, "PSPB", P, P, Plain(PSPB, WORD)),
    reg(DPDES, "DPDES", P, H, Special),
    hyp(DAWR0, "DAWR0"),
    hyp(DAWR1, "DAWR1").since(Isa::V3_1),
    hyp(186, "RPR"),
    hyp(CIABR, "CIABR"),
    hyp(DAWRX0, "DAWRX0"),
    hyp(DAWRX1, "DAWRX1").since(Isa::V3_1),
    hyp(HFSCR, "HFSCR"),
    reg(VRSAVE, "VRSAVE", U, U, Plain(VRSAVE, WORD)),
    reg(SPRG3_USER, "SPRG3", U, Nobody, ReadPlain(SPRG3)),
    reg(TB, "TB", U, Nobody, Special),
    reg(TBU, "TBU", U, Nobody, Special),
    reg(SPRG0, "SPRG0", P, P, Plain(SPRG0, ALL)),
    reg(SPRG1, "SPRG1", P, P, Plain(SPRG1, ALL)),
    reg(SPRG2, "SPRG2", P, P, Plain(SPRG2, ALL)),
    reg(SPRG3, "SPRG3", P, P, Plain(SPRG3, ALL)),
    reg(283, "CIR", P, Nobody, Nothing),
    reg(284, "TBL", Nobody, H, Nothing),
    reg(285, "TBU", Nobody, H, Nothing),
    reg(286, "TBU40", Nobody, H, Nothing),
    reg(PVR, "PVR", P, Nobody, Special),
    hyp(304, "HSPRG0"),
    hyp(305, "HSPRG1"),
    hyp(306, "HDSISR"),
    hyp(307, "HDAR"),
    reg(SPURR, "SPURR", P, H, Special),
    reg(PURR, "PURR", P, H, Special),
    hyp(310, "HDEC"),
    hyp(312, "RMOR").until(Isa::V2_07),
    hyp(313, "HRMOR"),
    hyp(314, "HSRR0"),
    hyp(315, "HSRR1"),
    hyp(LPCR, "LPCR"),
    hyp(319, "LPIDR"),
    hyp(336, "HMER"),
    hyp(337, "HMEER"),
    hyp(PCR, "PCR"),
    hyp(339, "HEIR"),
    hyp(349, "AMOR"),
    reg(TIR, "TIR", P, Nobody, Special),
    reg(HDEXCR_READ, "HDEXCR", U, Nobody, Nothing).since(Isa::V3_1),
    hyp(464, "PTCR").since(Isa::V3_0),
    reg(HASHKEYR, "HASHKEYR", P, P, Plain(HASHKEYR, ALL)).since(Isa::V3_1),
    hyp(HASHPKEYR, "HASHPKEYR").since(Isa::V3_1),
    hyp(471, "HDEXCR").since(Isa::V3_1),
    hyp(505, "USPRG0").since(Isa::V3_0),
    hyp(506, "USPRG1").since(Isa::V3_0),
    hyp(507, "URMOR").since(Isa::V3_0),
    hyp(508, "USRR0").since(Isa::V3_0),
    hyp(509, "USRR1").since(Isa::V3_0),
    hyp(511, "SMFCTRL").since(Isa::V3_0),
    reg(736, "SIER2", U, Nobody, Special).since(Isa::V3_1),
    reg(737, "SIER3", U, Nobody, Special).since(Isa::V3_1),
    reg(738, "MMCR3", U, U, Special).since(Isa::V3_1),
    reg(SIER2, "SIER2", P, P, Plain(SIER2, ALL)).since(Isa::V3_1),
    reg(SIER3, "SIER3", P, P, Plain(SIER3, ALL)).since(Isa::V3_1),
    reg(MMCR3, "MMCR3", P, P, Plain(MMCR3, ALL)).since(Isa::V3_1),
    reg(768, "SIER", U, Nobody, Special),
    reg(769, "MMCR2", U, U, Special),
    reg(770, "MMCRA", U, U, Special),
    reg(771, "PMC1", U, U, Special),
    reg(772, "PMC2", U, U, Special),
    reg(773, "PMC3", U, U, Special),
    reg(774, "PMC4", U, U, Special),
    reg(775, "PMC5", U, U, Special),
    reg(776, "PMC6", U, U, Special),
    reg(779, "MMCR0", U, U, Special),
    reg(780, "SIAR", U, Nobody, Special),
    reg(781, "SDAR", U, Nobody, Special),
    reg(782, "MMCR1", U, Nobody, Special),
    reg(SIER, "SIER", P, P, Plain(SIER, ALL)),
    reg(MMCR2, "MMCR2", P, P, Special),
    reg(MMCRA, "MMCRA", P, P, Plain(MMCRA, ALL)),
    reg(787, "PMC1", P, P, Special),
    reg(788, "PMC2", P, P, Special),
    reg(789, "PMC3", P, P, Special),
    reg(790, "PMC4", P, P, Special),
    reg(791, "PMC5", P, P, Special),
    reg(792, "PMC6", P, P, Special),
    reg(MMCR0, "MMCR0", P, P, Special),
    reg(SIAR, "SIAR", P, P, Plain(SIAR, ALL)),
    reg(SDAR, "SDAR", P, P, Plain(SDAR, ALL)),
    reg(MMCR1, "MMCR1", P, P, Special),
    reg(BESCRS, "BESCRS", U, U, Special).needs(Needs::Ebb),
    reg(BESCRSU, "BESCRSU", U, U, Special).needs(Needs::Ebb),
    reg(BESCRR, "BESCRR", U, U, Special).needs(Needs::Ebb),
    reg(BESCRRU, "BESCRRU", U, U, Special).needs(Needs::Ebb),
    reg(EBBHR, "EBBHR", U, U, Plain(EBBHR, ALL)).needs(Needs::Ebb),
    reg(EBBRR, "EBBRR", U, U, Plain(EBBRR, ALL)).needs(Needs::Ebb),
    reg(BESCR, "BESCR", U, U, Special).needs(Needs::Ebb),
    // Reserved for performance hints: no-ops in all states.
    reg(808, "reserved", U, U, Nothing),
    reg(809, "reserved", U, U, Nothing),
    reg(810, "reserved", U, U, Nothing),
    reg(811, "reserved", U, U, Nothing),
    reg(DEXCR_READ, "DEXCR", U, Nobody, Special).since(Isa::V3_1),
    reg(TAR, "TAR", U, U, Tar).needs(Needs::Tar),
    hyp(816, "ASDR").since(Isa::V3_0),
    reg(PSSCR, "PSSCR", P, P, Plain(PSSCR, 0x0000_0000_0073_03ff)).since(Isa::V3_0),
    reg(DEXCR, "DEXCR", P, P, Plain(DEXCR, ALL)).since(Isa::V3_1),
    reg(IC, "IC", P, H, Special),
    reg(VTB, "VTB", P, H, Special),
    hyp(850, "LDBAR"),
    hyp(851, "MMCRC"),
    hyp(853, "PMSR"),
    hyp(855, "PSSCR").since(Isa::V3_0),
    hyp(861, "L2QOSR"),
    reg(880, "ACOP", P, P, Plain(880, ALL)),
    // Triggers, which do nothing.
    reg(881, "TRIG1", P, P, Nothing),
    reg(882, "TRIG2", P, P, Nothing),
    reg(892, "SPMC1", P, P, Plain(892, WORD)).until(Isa::V2_07),
    reg(893, "SPMC2", P, P, Plain(893, WORD)).until(Isa::V2_07),
    reg(894, "MMCRS", P, P, Plain(894, WORD)).until(Isa::V2_07),
    reg(895, "WORT", P, P, Plain(895, ALL)),
    reg(PPR, "PPR", U, U, Plain(PPR, 7 << 50)),
    reg(PPR32, "PPR32", U, U, Special),
    hyp(1008, "HID"),
    reg(PIR, "PIR", P, Nobody, Special),
];

/// Position in [`REGISTERS`] plus one, by number.
static INDEX: [u8; 1024] = {
    let mut index = [0u8; 1024];
    let mut n = 0;
    while n < REGISTERS.len() {
        assert!(index[REGISTERS[n].number as usize] == 0, "a register is there twice");
        index[REGISTERS[n].number as usize] = n as u8 + 1;
        n += 1;
    }
    index
};

/// The register of a number, if this version has it.
pub fn find(number: u32, isa: Isa) -> Option<&'static Register> {
    let n = *INDEX.get(number as usize)?;
    REGISTERS.get((n as usize).checked_sub(1)?).filter(|r| r.since <= isa && isa <= r.until)
}

/// How an access to a register ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Do(&'static Register),
    /// Nothing happens: reserved, or not there.
    Ignore,
    /// There is no such register: the access is ignored, and worth a line in the log.
    Absent,
    /// Program interrupt, privileged instruction.
    PrivilegeFault,
    /// Program interrupt, illegal instruction.
    Illegal,
}

impl PartialEq for Register {
    fn eq(&self, o: &Register) -> bool {
        self.number == o.number
    }
}
impl Eq for Register {}

/// The rules of mfspr and mtspr (Book III, 5.4.4).
pub fn access(number: u32, isa: Isa, problem_state: bool, write: bool) -> Outcome {
    if let Some(r) = find(number, isa) {
        match if write { r.write } else { r.read } {
            Who::User if r.kind == Kind::Nothing && r.needs == Needs::Always => return Outcome::Ignore,
            Who::User => return Outcome::Do(r),
            Who::Privileged if problem_state => return Outcome::PrivilegeFault,
            Who::Privileged => return if r.kind == Kind::Nothing { Outcome::Ignore } else { Outcome::Do(r) },
            Who::Hypervisor => return Outcome::PrivilegeFault,
            // As if it were not defined.
            Who::Nobody => {}
        }
    }
    let privileged = number & 0x10 != 0;
    match (problem_state, privileged) {
        (true, true) => Outcome::PrivilegeFault,
        (true, false) => Outcome::Illegal,
        (false, _) if number == 0 || (!write && matches!(number, 4..=6)) => Outcome::Illegal,
        (false, _) => Outcome::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let a = |n, pr, w| access(n, Isa::V3_0, pr, w);
        assert!(matches!(a(LR, true, true), Outcome::Do(_)));
        assert_eq!(a(SRR0, true, false), Outcome::PrivilegeFault);
        assert!(matches!(a(SRR0, false, false), Outcome::Do(_)));
        assert_eq!(a(LPCR, false, false), Outcome::PrivilegeFault);
        assert_eq!(a(809, true, true), Outcome::Ignore);
        assert_eq!(a(1000, false, true), Outcome::Absent);
        assert_eq!(a(1000, true, true), Outcome::Illegal);
        assert_eq!(a(1010, true, true), Outcome::PrivilegeFault);
        assert_eq!(a(0, false, true), Outcome::Illegal);
        assert_eq!(a(5, false, false), Outcome::Illegal);
        assert_eq!(a(5, false, true), Outcome::Absent);
        assert_eq!(a(TB, false, true), Outcome::Absent);
        assert!(matches!(a(128, true, false), Outcome::Do(r) if r.needs == Needs::Tm));
        assert!(find(PIDR, Isa::V2_07).is_none() && find(HASHKEYR, Isa::V3_1).is_some());
    }
}
