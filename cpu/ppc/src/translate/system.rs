//! System instructions: special-purpose registers, MSR, system calls and returns, TLB and SLB, doorbells (Book II and III).

use super::{Flow, Insn, Pattern, Translator, pat};
use crate::bits::{fscr, msr};
use crate::config::Isa;
use crate::exception::program;
use crate::helpers::system;
use crate::mmu::Form;
use crate::spr::{self, Kind, Needs, Outcome};
use crate::state::slots;
use rhea_ir::{Cond, HelperId, Op, Value};

pub static PATTERNS: &[Pattern] = &[
    pat("sc", "010001 xxxxx xxxxx xxxx LEV:7 xxx 1 x", sc),
    pat("scv", "010001 xxxxx xxxxx xxxx LEV:7 xxx 01", scv).since(Isa::V3_0),
    pat("rfid", "010011 xxxxx xxxxx xxxxx 0000010010 x", rfid).privileged(),
    pat("rfscv", "010011 xxxxx xxxxx xxxxx 0001010010 x", rfscv).privileged().since(Isa::V3_0),
    pat("rfebb", "010011 xxxxx xxxxx xxxx S 0010010010 x", rfebb),
    // Hypervisor's returns and power saving.
    pat("hrfid", "010011 xxxxx xxxxx xxxxx 0100010010 x", hypervisor),
    pat("urfid", "010011 xxxxx xxxxx xxxxx 0100110010 x", hypervisor).since(Isa::V3_0),
    pat("stop", "010011 xxxxx xxxxx xxxxx 0101110010 x", hypervisor).since(Isa::V3_0),
    pat("doze", "010011 xxxxx xxxxx xxxxx 0110010010 x", hypervisor).until(Isa::V2_07),
    pat("nap", "010011 xxxxx xxxxx xxxxx 0110110010 x", hypervisor).until(Isa::V2_07),
    pat("sleep", "010011 xxxxx xxxxx xxxxx 0111010010 x", hypervisor).until(Isa::V2_07),
    pat("rvwinkle", "010011 xxxxx xxxxx xxxxx 0111110010 x", hypervisor).until(Isa::V2_07),
    pat("mfmsr", "011111 RT:5 xxxxx xxxxx 0001010011 x", mfmsr).privileged(),
    pat("mtmsr", "011111 RS:5 xxxx L xxxxx 0010010010 x", mtmsr).privileged(),
    pat("mtmsrd", "011111 RS:5 xxxx L xxxxx 0010110010 x", mtmsr).privileged(),
    pat("mfspr", "011111 RT:5 SPR:10 0101010011 x", mfspr),
    pat("mtspr", "011111 RS:5 SPR:10 0111010011 x", mtspr),
    pat("mftb", "011111 RT:5 TBR:10 0101110011 x", mftb),
    pat("slbie", "011111 xxxxx xxxxx RB:5 0110110010 x", slbie).privileged(),
    pat("slbieg", "011111 RS:5 xxxxx RB:5 0111010010 x", tlbsync).privileged().since(Isa::V3_0),
    pat("slbia", "011111 xx IH:3 xxxxx xxxxx 0111110010 x", slbia).privileged(),
    pat("slbiag", "011111 RS:5 xxxxx xxxxx 1101010010 x", tlbsync).privileged().since(Isa::V3_0),
    pat("slbmte", "011111 RS:5 xxxxx RB:5 0110010010 x", slbmte).privileged(),
    pat("slbmfev", "011111 RT:5 xxxxx RB:5 1101010011 x", slbmfev).privileged(),
    pat("slbmfee", "011111 RT:5 xxxxx RB:5 1110010011 x", slbmfee).privileged(),
    pat("slbfee", "011111 RT:5 xxxxx RB:5 1111010011 1", slbfee).privileged(),
    pat("slbsync", "011111 xxxxx xxxxx xxxxx 0101010010 x", tlbsync).privileged().since(Isa::V3_0),
    pat("tlbie", "011111 RS:5 x RIC:2 PRS R RB:5 0100110010 x", tlbie).privileged(),
    pat("tlbiel", "011111 RS:5 x RIC:2 PRS R RB:5 0100010010 x", tlbie).privileged(),
    pat("tlbsync", "011111 xxxxx xxxxx xxxxx 1000110110 x", tlbsync).privileged(),
    pat("msgsnd", "011111 xxxxx xxxxx RB:5 0011001110 x", hypervisor),
    pat("msgclr", "011111 xxxxx xxxxx RB:5 0011101110 x", hypervisor),
    pat("msgsndp", "011111 xxxxx xxxxx RB:5 0010001110 x", msgp).privileged(),
    pat("msgclrp", "011111 xxxxx xxxxx RB:5 0010101110 x", msgp).privileged(),
    pat("msgsync", "011111 xxxxx xxxxx xxxxx 1101110110 x", hypervisor).since(Isa::V3_0),
    // Storage accesses in real mode with caching inhibited.
    pat("lwzcix", "011111 RT:5 RA:5 RB:5 1100010101 x", hypervisor),
    pat("lhzcix", "011111 RT:5 RA:5 RB:5 1100110101 x", hypervisor),
    pat("lbzcix", "011111 RT:5 RA:5 RB:5 1101010101 x", hypervisor),
    pat("ldcix", "011111 RT:5 RA:5 RB:5 1101110101 x", hypervisor),
    pat("stwcix", "011111 RS:5 RA:5 RB:5 1110010101 x", hypervisor),
    pat("sthcix", "011111 RS:5 RA:5 RB:5 1110110101 x", hypervisor),
    pat("stbcix", "011111 RS:5 RA:5 RB:5 1111010101 x", hypervisor),
    pat("stdcix", "011111 RS:5 RA:5 RB:5 1111110101 x", hypervisor),
    pat("wait", "011111 xxxxx xxxxx xxxxx 0000011110 x", wait).since(Isa::V3_0),
    pat("clrbhrb", "011111 xxxxx xxxxx xxxxx 0110101110 x", clrbhrb),
    pat("mfbhrbe", "011111 RT:5 BHRBE:10 0100101110 x", mfbhrbe),
    // Transactional memory, which is not available.
    pat("tbegin", "011111 xxxxx xxxxx xxxxx 1010001110 1", transactional).until(Isa::V3_0),
    pat("tend", "011111 xxxxx xxxxx xxxxx 1010101110 1", transactional).until(Isa::V3_0),
    pat("tcheck", "011111 xxxxx xxxxx xxxxx 1011001110 x", transactional).until(Isa::V3_0),
    pat("tsr", "011111 xxxxx xxxxx xxxxx 1011101110 1", transactional).until(Isa::V3_0),
    pat("tabortwc", "011111 xxxxx xxxxx xxxxx 1100001110 1", transactional).until(Isa::V3_0),
    pat("tabortdc", "011111 xxxxx xxxxx xxxxx 1100101110 1", transactional).until(Isa::V3_0),
    pat("tabortwci", "011111 xxxxx xxxxx xxxxx 1101001110 1", transactional).until(Isa::V3_0),
    pat("tabortdci", "011111 xxxxx xxxxx xxxxx 1101101110 1", transactional).until(Isa::V3_0),
    pat("tabort", "011111 xxxxx xxxxx xxxxx 1110001110 1", transactional).until(Isa::V3_0),
    pat("treclaim", "011111 xxxxx xxxxx xxxxx 1110101110 1", transactional).privileged().until(Isa::V3_0),
    pat("trechkpt", "011111 xxxxx xxxxx xxxxx 1111101110 1", transactional).privileged().until(Isa::V3_0),
];

impl Translator<'_, '_> {
    /// A context synchronizing instruction that goes on at the next one: what slbie and slbia removed is gone after it.
    pub fn sync_segments(&mut self) {
        if self.mode.pr() {
            return;
        }
        let u = self.b.get(slots::UNSYNCHRONIZED);
        let zero = self.c32(0);
        let u = self.b.icmp(Cond::Ne, u, zero);
        self.raise_if(u, |t| {
            let next = t.c64(t.next_pc());
            t.b.call(system::SYNC_SEGMENTS, &[next]);
        });
    }
    /// Calls a helper with the value of RB and ends the block.
    fn after_rb(&mut self, helper: HelperId, i: Insn) -> Flow {
        let rb = self.r(i.rb());
        self.end_after(helper, &[rb])
    }
}

fn hypervisor(t: &mut Translator, _: Insn) -> Flow {
    t.program(program::PRIVILEGED)
}
fn transactional(t: &mut Translator, _: Insn) -> Flow {
    t.facility(fscr::TM)
}

fn sc(t: &mut Translator, i: Insn) -> Flow {
    let level = t.c32(i.field(20, 26));
    t.end_with(system::SC, &[level])
}
fn scv(t: &mut Translator, i: Insn) -> Flow {
    if !t.mode.scv() {
        return t.facility(fscr::SCV);
    }
    let level = t.c32(i.field(20, 26));
    t.end_with(system::SCV, &[level])
}
fn rfid(t: &mut Translator, _: Insn) -> Flow {
    t.end_with(system::RFID, &[])
}
fn rfscv(t: &mut Translator, _: Insn) -> Flow {
    t.end_with(system::RFSCV, &[])
}
fn rfebb(t: &mut Translator, i: Insn) -> Flow {
    if !t.mode.ebb() {
        return t.facility(fscr::EBB);
    }
    let s = t.c32(i.field(20, 20));
    t.end_with(system::RFEBB, &[s])
}

fn mfmsr(t: &mut Translator, i: Insn) -> Flow {
    let v = t.b.get(slots::MSR);
    t.set_r(i.rt(), v);
    Flow::Next
}

fn mtmsr(t: &mut Translator, i: Insn) -> Flow {
    let v = t.r(i.rt());
    let only_interrupts = i.bit(15);
    if only_interrupts && !t.mode.single_step() {
        // Nothing is translated differently.
        let bits = msr::EE | msr::RI;
        let old = t.b.get(slots::MSR);
        let kept = t.and_imm(old, !bits);
        let new = t.and_imm(v, bits);
        let new = t.b.or(kept, new);
        t.b.set(slots::MSR, new);
        let waits = t.b.get(slots::PENDING);
        let waits = t.b.zext64(waits);
        // PENDING is 0 or 1.
        let enabled = t.shr(v, msr::EE.trailing_zeros());
        let due = t.b.and(waits, enabled);
        let due = t.b.op1(Op::ToBool, rhea_ir::Type::Bool, due, 0, 0);
        t.raise_if(due, |t| {
            let next = t.c64(t.next_pc());
            t.b.call(system::UNMASKED, &[next]);
        });
        return Flow::Next;
    }
    let doubleword = i.field(21, 30) == 178;
    let which = t.c32(if only_interrupts { 2 } else { doubleword.into() });
    t.end_after(system::MTMSR, &[which, v])
}

/// The number of a special-purpose register: its halves are swapped.
fn spr_number(i: Insn) -> u32 {
    i.field(16, 20) << 5 | i.field(11, 15)
}

impl Translator<'_, '_> {
    /// How an access to a special-purpose register ends if not with a value.
    fn spr_access(&mut self, number: u32, write: bool) -> Result<&'static spr::Register, Flow> {
        let r = match spr::access(number, self.mode.isa(), self.mode.pr(), write) {
            Outcome::Do(r) => r,
            Outcome::Ignore => return Err(Flow::Next),
            Outcome::Absent => {
                let (number, write) = (self.c32(number), self.c32(write.into()));
                self.b.call(system::ABSENT_SPR, &[number, write]);
                return Err(Flow::Next);
            }
            Outcome::PrivilegeFault => return Err(self.program(program::PRIVILEGED)),
            Outcome::Illegal => return Err(Flow::Illegal),
        };
        let facility = match r.needs {
            Needs::Dscr if !self.mode.dscr() => fscr::DSCR,
            Needs::Tar if !self.mode.tar() => fscr::TAR,
            Needs::Ebb if !self.mode.ebb() => fscr::EBB,
            Needs::Tm => fscr::TM,
            _ => return Ok(r),
        };
        Err(self.facility(facility))
    }
}

fn mfspr(t: &mut Translator, i: Insn) -> Flow {
    let number = spr_number(i);
    let r = match t.spr_access(number, false) {
        Ok(r) => r,
        Err(flow) => return flow,
    };
    let v: Value = match r.kind {
        Kind::Plain(n, _) | Kind::ReadPlain(n) => t.b.get(slots::spr(n)),
        Kind::Lr => t.b.get(slots::LR),
        Kind::Ctr => t.b.get(slots::CTR),
        Kind::Tar => t.b.get(slots::TAR),
        Kind::Special if matches!(number, spr::TB | spr::VTB) => t.b.call(system::TIME_BASE, &[]),
        Kind::Special if matches!(number, spr::PVR | spr::PIR) => t.b.get(slots::spr(number)),
        // XER has a pattern of its own.
        Kind::Special | Kind::Xer | Kind::Nothing => {
            let old = t.r(i.rt());
            let n = t.c32(number);
            t.b.call(system::READ_SPR, &[n, old])
        }
    };
    t.set_r(i.rt(), v);
    Flow::Next
}

fn mtspr(t: &mut Translator, i: Insn) -> Flow {
    let number = spr_number(i);
    let r = match t.spr_access(number, true) {
        Ok(r) => r,
        Err(flow) => return flow,
    };
    let v = t.r(i.rt());
    match r.kind {
        Kind::Plain(n, mask) => {
            let v = if mask == u64::MAX { v } else { t.and_imm(v, mask) };
            t.b.set(slots::spr(n), v);
        }
        Kind::Lr => t.b.set(slots::LR, v),
        Kind::Ctr => t.b.set(slots::CTR, v),
        Kind::Tar => t.b.set(slots::TAR, v),
        Kind::ReadPlain(_) | Kind::Special | Kind::Xer | Kind::Nothing => {
            let n = t.c32(number);
            if number == spr::DEC && !t.mode.single_step() {
                t.b.call(system::WRITE_SPR, &[n, v]);
                return Flow::Next;
            }
            return t.end_after(system::WRITE_SPR, &[n, v]);
        }
    }
    Flow::Next
}

fn mftb(t: &mut Translator, i: Insn) -> Flow {
    let number = spr_number(i);
    if !matches!(number, spr::TB | spr::TBU) {
        return Flow::Illegal;
    }
    let v = t.b.call(system::TIME_BASE, &[]);
    let v = if number == spr::TBU { t.shr(v, 32) } else { v };
    t.set_r(i.rt(), v);
    Flow::Next
}

fn slbmte(t: &mut Translator, i: Insn) -> Flow {
    let (rs, rb) = (t.r(i.rt()), t.r(i.rb()));
    t.end_after(system::SLBMTE, &[rs, rb])
}
fn slbmfev(t: &mut Translator, i: Insn) -> Flow {
    let rb = t.r(i.rb());
    let v = t.b.call(system::SLBMFEV, &[rb]);
    t.set_r(i.rt(), v);
    Flow::Next
}
fn slbmfee(t: &mut Translator, i: Insn) -> Flow {
    let rb = t.r(i.rb());
    let v = t.b.call(system::SLBMFEE, &[rb]);
    t.set_r(i.rt(), v);
    Flow::Next
}
fn slbfee(t: &mut Translator, i: Insn) -> Flow {
    let (rt, rb) = (t.c32(i.rt()), t.r(i.rb()));
    t.b.call(system::SLBFEE, &[rt, rb]);
    Flow::Next
}
fn slbie(t: &mut Translator, i: Insn) -> Flow {
    t.after_rb(system::SLBIE, i)
}
fn slbia(t: &mut Translator, i: Insn) -> Flow {
    let hint = t.c32(i.field(8, 10));
    t.end_after(system::SLBIA, &[hint])
}

fn tlbie(t: &mut Translator, i: Insn) -> Flow {
    let old = t.mode.isa() < Isa::V3_0;
    let form = Form {
        local: i.field(21, 30) == 274,
        ric: if old { 0 } else { i.field(12, 13) },
        process: !old && i.bit(14),
        radix: !old && i.bit(15),
    };
    let (form, rs, rb) = (t.c64(form.pack()), t.r(i.rt()), t.r(i.rb()));
    t.end_after(system::TLBIE, &[form, rs, rb])
}
/// tlbsync, slbsync, and invalidations of SLB entries that hardware made, of which there are none.
fn tlbsync(t: &mut Translator, _: Insn) -> Flow {
    t.b.call(system::TLBSYNC, &[]);
    t.b.fence(true);
    Flow::Next
}

fn msgp(t: &mut Translator, i: Insn) -> Flow {
    let clear = t.c32((i.field(21, 30) == 174).into());
    let rb = t.r(i.rb());
    t.b.call(system::MSGP, &[rb, clear]);
    Flow::Next
}

/// wait, which may end at any time, and hints.
fn wait(_: &mut Translator, _: Insn) -> Flow {
    Flow::Next
}

/// The branch history buffer is empty.
fn clrbhrb(t: &mut Translator, _: Insn) -> Flow {
    if t.mode.pr() {
        t.b.call(system::BRANCH_HISTORY, &[]);
    }
    Flow::Next
}
fn mfbhrbe(t: &mut Translator, i: Insn) -> Flow {
    let _ = clrbhrb(t, i);
    let zero = t.c64(0);
    t.set_r(i.rt(), zero);
    Flow::Next
}
