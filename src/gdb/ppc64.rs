//! Power, 64-bit, as GDB's powerpc64 core has it.

use super::arch::GuestArch;
use gdbstub::arch::{Arch, RegId, Registers};
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::LazyLock;

/// Bytes of all registers: GPRs, FPRs, pc, MSR, CR, LR, CTR, XER, FPSCR; big-endian.
const LEN: usize = 32 * 8 * 2 + 8 + 8 + 4 + 8 + 8 + 4 + 4;
/// The special registers: name, bytes, type.
const SPECIAL: [(&str, usize, &str); 6] = [
    ("pc", 8, "code_ptr"),
    ("msr", 8, "uint64"),
    ("cr", 4, "uint32"),
    ("lr", 8, "code_ptr"),
    ("ctr", 8, "uint64"),
    ("xer", 4, "uint32"),
];

/// The registers as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ppc64Registers(Vec<u8>);

/// A register by number.
#[derive(Clone, Copy, Debug)]
pub struct Ppc64Register(usize);

fn place(number: usize) -> Option<Range<usize>> {
    let (start, len) = match number {
        0..64 => (8 * number, 8),
        64..70 => (512 + SPECIAL[..number - 64].iter().map(|s| s.1).sum::<usize>(), SPECIAL[number - 64].1),
        70 => (LEN - 4, 4),
        _ => return None,
    };
    Some(start..start + len)
}

impl RegId for Ppc64Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        place(id).map(|range| (Self(id), NonZeroUsize::new(range.len())))
    }
}

impl Registers for Ppc64Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        place(64).and_then(|r| self.0.get(r)?.try_into().ok()).map_or(0, u64::from_be_bytes)
    }
    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for n in 0..LEN {
            write_byte(Some(self.0.get(n).copied().unwrap_or(0)));
        }
    }
    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>powerpc:common64</architecture><feature name=\"org.gnu.gdb.power.core\">",
    );
    let mut reg = |name: &str, bits: usize, kind: &str, number: usize| {
        let _ = write!(xml, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>");
    };
    for n in 0..32 {
        reg(&format!("r{n}"), 64, "uint64", n);
    }
    for (n, (name, len, kind)) in SPECIAL.iter().enumerate() {
        reg(name, 8 * len, kind, 64 + n);
    }
    xml.push_str("</feature><feature name=\"org.gnu.gdb.power.fpu\">");
    for n in 0..32 {
        let _ = write!(xml, "<reg name=\"f{n}\" bitsize=\"64\" type=\"ieee_double\" regnum=\"{}\"/>", 32 + n);
    }
    xml.push_str(
        "<reg name=\"fpscr\" bitsize=\"32\" type=\"uint32\" group=\"float\" regnum=\"70\"/></feature></target>",
    );
    xml
});

/// The architecture for the protocol.
pub enum PowerPc64 {}

impl Arch for PowerPc64 {
    type Usize = u64;
    type Registers = Ppc64Registers;
    type RegId = Ppc64Register;
    type BreakpointKind = usize;

    fn target_description_xml() -> Option<&'static str> {
        Some(&DESCRIPTION)
    }
}

/// Power.
pub enum Ppc64 {}

impl GuestArch for Ppc64 {
    type Arch = PowerPc64;

    fn read(data: &[u8], registers: &mut Ppc64Registers) {
        registers.0 = data.to_vec();
    }
    fn write(registers: &Ppc64Registers) -> Vec<u8> {
        registers.0.clone()
    }
    fn place(register: Ppc64Register) -> Option<Range<usize>> {
        place(register.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_places() {
        assert_eq!(place(70).map(|r| r.end), Some(LEN));
        assert_eq!(place(66), Some(528..532));
        assert_eq!(place(69), Some(548..552));
        assert_eq!(place(71), None);
        assert_eq!(DESCRIPTION.matches("<reg ").count(), 71);
    }
}
