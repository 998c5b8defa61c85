//! The registers that SGIs, PPIs and SPIs have alike, with the filter for Non-secure accesses (IHI 0069 section 4.6, IHI 0048 section 4.3).

use super::irqs::Irqs;
use super::priority::{PRIORITY_MASK, from_nonsecure, to_nonsecure};

/// Registers that exist for SGIs and PPIs (redistributor) and for SPIs (distributor), 32 interrupts, 1 interrupt or 16 to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    Priority,
    Config,
    GroupModifier,
    /// RAZ/WI here: Secure interrupts are never open to Non-secure software.
    NonSecureAccess,
}

/// Who accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// All interrupts are visible: a Secure access, or one security state only.
    pub full: bool,
}

impl View {
    /// The interrupts of the word that the access may see.
    pub fn visible(self, irqs: &Irqs) -> u32 {
        if self.full { !0 } else { irqs.nonsecure() }
    }
}

/// Reads a register of a word. `index`: the interrupt's number in the word (priority), or the half (configuration).
pub fn read(irqs: &Irqs, bank: Bank, index: u32, view: View) -> u32 {
    let visible = view.visible(irqs);
    match bank {
        Bank::Group if view.full => irqs.group,
        Bank::GroupModifier if view.full && irqs.two_states => irqs.grpmod,
        Bank::Group | Bank::GroupModifier | Bank::NonSecureAccess => 0,
        Bank::SetEnable | Bank::ClearEnable => irqs.enabled & visible,
        Bank::SetPending | Bank::ClearPending => irqs.pending() & visible,
        Bank::SetActive | Bank::ClearActive => irqs.active & visible,
        Bank::Priority => {
            let priority = irqs.priority[(index & 31) as usize];
            match (visible >> (index & 31) & 1, view.full) {
                (0, _) => 0,
                (_, true) => u32::from(priority),
                (_, false) => u32::from(to_nonsecure(priority)),
            }
        }
        Bank::Config => {
            let mut masked = irqs.clone();
            masked.edge &= visible;
            masked.config(index & 1)
        }
    }
}

/// Writes a register of a word (`mask`: the bits written): the interrupts that may have changed.
pub fn write(irqs: &mut Irqs, bank: Bank, index: u32, value: u32, mask: u32, view: View) -> u32 {
    let visible = view.visible(irqs);
    let bits = value & mask & visible;
    match bank {
        Bank::Group if view.full => {
            irqs.group = irqs.group & !mask | value & mask;
            mask
        }
        Bank::GroupModifier if view.full && irqs.two_states => {
            irqs.grpmod = irqs.grpmod & !mask | value & mask;
            mask
        }
        Bank::Group | Bank::GroupModifier | Bank::NonSecureAccess => 0,
        Bank::SetEnable => {
            irqs.enabled |= bits;
            bits
        }
        Bank::ClearEnable => {
            irqs.enabled &= !bits;
            bits
        }
        Bank::SetPending => {
            irqs.latch |= bits;
            bits
        }
        Bank::ClearPending => {
            irqs.latch &= !bits;
            bits
        }
        Bank::SetActive => {
            irqs.active |= bits;
            bits
        }
        Bank::ClearActive => {
            irqs.active &= !bits;
            bits
        }
        Bank::Priority => {
            let bit = index & 31;
            if visible >> bit & 1 == 0 {
                return 0;
            }
            let value = value as u8;
            irqs.priority[bit as usize] = if view.full { value } else { from_nonsecure(value) } & PRIORITY_MASK;
            1 << bit
        }
        Bank::Config => {
            // Of each interrupt only the upper of its two bits is implemented.
            let half = index & 1;
            let touched = (0..16).filter(|n| mask >> (2 * n + 1) & 1 != 0).fold(0, |m, n| m | 1 << (half * 16 + n));
            irqs.set_config(half, value, touched & visible);
            touched & visible
        }
    }
}
