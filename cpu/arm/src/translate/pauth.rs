//! Pointer authentication instructions (FEAT_PAuth). The algorithm is in [`super::pac`].

use super::{Flow, Insn, Pattern, Translator, helpers, pat};
use crate::config::Feature;
use crate::helpers::system;
use crate::mode::ArmMode;
use crate::state::slots;
use rhea_ir::Value;

pub static PATTERNS: &[Pattern] = &[
    pat("pac_reg", "1 1 0 11010110 00001 0000 op:2 Rn:5 Rd:5", one_source).needs(Feature::Pauth),
    pat("aut_reg", "1 1 0 11010110 00001 0001 op:2 Rn:5 Rd:5", one_source).needs(Feature::Pauth),
    pat("pacz_reg", "1 1 0 11010110 00001 0010 op:2 11111 Rd:5", one_source).needs(Feature::Pauth),
    pat("autz_reg", "1 1 0 11010110 00001 0011 op:2 11111 Rd:5", one_source).needs(Feature::Pauth),
    pat("xpac", "1 1 0 11010110 00001 01000 D 11111 Rd:5", xpac).needs(Feature::Pauth),
    pat("pacga", "1 00 11010110 Rm:5 001100 Rn:5 Rd:5", pacga).needs(Feature::Pauth),
    // In hint space: NOPs without the feature.
    pat("xpaclri", "1101010100 0 00 011 0010 0000 111 11111", xpaclri),
    pat("pac1716", "1101010100 0 00 011 0010 0001 0 B 0 11111", hint_1716),
    pat("aut1716", "1101010100 0 00 011 0010 0001 1 B 0 11111", hint_1716),
    pat("pac_lr", "1101010100 0 00 011 0010 0011 0 B Z 11111", hint_lr),
    pat("aut_lr", "1101010100 0 00 011 0010 0011 1 B Z 11111", hint_lr),
];

/// The keys for addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Key {
    Ia = 0,
    Ib = 1,
    Da = 2,
    Db = 3,
}

impl Key {
    const fn from_bits(b: u32) -> Key {
        match b & 3 {
            0 => Key::Ia,
            1 => Key::Ib,
            2 => Key::Da,
            _ => Key::Db,
        }
    }
}

/// Traps if pointer authentication traps here.
fn trap(t: &mut Translator) {
    if t.mode.pac_trap_el() != 0 {
        t.b.call(system::PAC_TRAP, &[]);
    }
}

impl Translator<'_, '_> {
    /// All ones if a bit of [`ArmMode::CONTROLS`] is set at the current level, else 0 (I64).
    pub(super) fn control(&mut self, bit: u32) -> Value {
        let controls = self.b.get(slots::CONTROLS);
        let top = self.shl(controls, 63 - bit);
        self.sar(top, 63)
    }
}

/// AddPAC with the key; unchanged if the key is disabled.
fn add_pac(t: &mut Translator, ptr: Value, modifier: Value, key: Key) -> Value {
    if !t.mode.pauth_key(key as u32) {
        return ptr;
    }
    trap(t);
    let k = t.c32(key as u32);
    let epoch = t.b.get(slots::KEY_EPOCH);
    t.b.call(helpers::PAC, &[ptr, modifier, k, epoch])
}

/// Auth with the key; unchanged if the key is disabled. `combined`: part of a branch or load, which does not fault
/// itself (FEAT_FPACCOMBINE is not implemented).
pub(super) fn auth(t: &mut Translator, ptr: Value, modifier: Value, key: Key, combined: bool) -> Value {
    if !t.mode.pauth_key(key as u32) {
        return ptr;
    }
    trap(t);
    let k = t.c32(key as u32);
    let fault = t.cfg.has(Feature::Fpac) && !combined;
    let epoch = t.b.get(slots::KEY_EPOCH);
    let r = t.b.call(helpers::AUT, &[ptr, modifier, k, epoch]);
    if fault {
        // A good result is canonical and strips to itself; without its key nothing is checked.
        let data = t.c32(k_is_data(key));
        let stripped = t.b.call(helpers::STRIP, &[r, data]);
        let enabled = t.control(ArmMode::key_bit(key as u32));
        let wrong = t.b.xor(r, stripped);
        let wrong = t.b.and(wrong, enabled);
        let none = t.c64(0);
        let bad = t.b.icmp(rhea_ir::Cond::Ne, wrong, none);
        t.raise_if(bad, |t| {
            let iss = t.c32(k_is_data(key) << 1 | (key as u32 & 1));
            t.b.call(system::PAC_FAIL, &[iss]);
        });
    }
    r
}

const fn k_is_data(key: Key) -> u32 {
    key as u32 >> 1
}

fn one_source(t: &mut Translator, i: Insn) -> Flow {
    let ptr = t.x(i.rd());
    let modifier = if i.bit(13) { t.c64(0) } else { t.xsp(i.rn()) };
    let key = Key::from_bits(i.bits(10, 2));
    let r = if i.bit(12) { auth(t, ptr, modifier, key, false) } else { add_pac(t, ptr, modifier, key) };
    t.set_x(i.rd(), r);
    Flow::Next
}

fn xpac(t: &mut Translator, i: Insn) -> Flow {
    let v = t.x(i.rd());
    let data = t.c32(i.bits(10, 1));
    let r = t.b.call(helpers::STRIP, &[v, data]);
    t.set_x(i.rd(), r);
    Flow::Next
}

fn xpaclri(t: &mut Translator, _: Insn) -> Flow {
    if t.cfg.has(Feature::Pauth) {
        let v = t.x(30);
        let data = t.c32(0);
        let r = t.b.call(helpers::STRIP, &[v, data]);
        t.set_x(30, r);
    }
    Flow::Next
}

fn pacga(t: &mut Translator, i: Insn) -> Flow {
    trap(t);
    let (v, modifier) = (t.x(i.rn()), t.xsp(i.rm()));
    let epoch = t.b.get(slots::KEY_EPOCH);
    let r = t.b.call(helpers::PACGA, &[v, modifier, epoch]);
    t.set_x(i.rd(), r);
    Flow::Next
}

fn hint(t: &mut Translator, i: Insn, reg: u32, modifier: Value) {
    let key = if i.bit(6) { Key::Ib } else { Key::Ia };
    let v = t.x(reg);
    let r = if i.bit(7) { auth(t, v, modifier, key, false) } else { add_pac(t, v, modifier, key) };
    t.set_x(reg, r);
}

/// PACIA1716 and the like: X17 with modifier X16.
fn hint_1716(t: &mut Translator, i: Insn) -> Flow {
    if t.cfg.has(Feature::Pauth) {
        let m = t.x(16);
        hint(t, i, 17, m);
    }
    Flow::Next
}

/// PACIAZ, PACIASP and the like: X30 with modifier 0 or SP.
fn hint_lr(t: &mut Translator, i: Insn) -> Flow {
    if t.cfg.has(Feature::Pauth) {
        let m = if i.bit(5) { t.b.get(slots::SP) } else { t.c64(0) };
        hint(t, i, 30, m);
    }
    Flow::Next
}
