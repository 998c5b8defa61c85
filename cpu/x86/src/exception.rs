//! Exceptions: vectors, error codes, double and triple faults (vol. 3, chapter 7).

use crate::state::X86Cpu;
use std::fmt::Write as _;

/// Vectors that the processor itself uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Vector {
    DivideError = 0,
    Debug = 1,
    Nmi = 2,
    Breakpoint = 3,
    Overflow = 4,
    Bound = 5,
    InvalidOpcode = 6,
    DeviceNotAvailable = 7,
    DoubleFault = 8,
    InvalidTss = 10,
    SegmentNotPresent = 11,
    StackFault = 12,
    GeneralProtection = 13,
    PageFault = 14,
    X87 = 16,
    AlignmentCheck = 17,
    MachineCheck = 18,
    SimdFloatingPoint = 19,
    Virtualization = 20,
    ControlProtection = 21,
}

impl Vector {
    /// By number; unassigned numbers are #GP (nothing makes them).
    #[must_use]
    pub const fn of(n: u8) -> Vector {
        use Vector::*;
        match n {
            0 => DivideError,
            1 => Debug,
            2 => Nmi,
            3 => Breakpoint,
            4 => Overflow,
            5 => Bound,
            6 => InvalidOpcode,
            7 => DeviceNotAvailable,
            8 => DoubleFault,
            10 => InvalidTss,
            11 => SegmentNotPresent,
            12 => StackFault,
            14 => PageFault,
            16 => X87,
            17 => AlignmentCheck,
            18 => MachineCheck,
            19 => SimdFloatingPoint,
            20 => Virtualization,
            21 => ControlProtection,
            _ => GeneralProtection,
        }
    }
}

/// An exception on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    pub vector: Vector,
    pub code: Option<u32>,
    /// For page faults.
    pub cr2: u64,
}

impl Exception {
    #[must_use]
    pub const fn new(vector: Vector, code: Option<u32>) -> Exception {
        Exception { vector, code, cr2: 0 }
    }
    #[must_use]
    pub const fn gp(code: u32) -> Exception {
        Exception::new(Vector::GeneralProtection, Some(code))
    }
    #[must_use]
    pub const fn ss(code: u32) -> Exception {
        Exception::new(Vector::StackFault, Some(code))
    }
    #[must_use]
    pub const fn np(code: u32) -> Exception {
        Exception::new(Vector::SegmentNotPresent, Some(code))
    }
    #[must_use]
    pub const fn ts(code: u32) -> Exception {
        Exception::new(Vector::InvalidTss, Some(code))
    }
    #[must_use]
    pub const fn ud() -> Exception {
        Exception::new(Vector::InvalidOpcode, None)
    }
    #[must_use]
    pub const fn page_fault(va: u64, code: u32) -> Exception {
        Exception { vector: Vector::PageFault, code: Some(code), cr2: va }
    }
    /// With the EXT bit in a selector error code: the fault happened while an event of outside the program was delivered.
    pub(crate) fn external(mut self, ext: bool) -> Exception {
        let selector = matches!(
            self.vector,
            Vector::InvalidTss | Vector::SegmentNotPresent | Vector::StackFault | Vector::GeneralProtection
        );
        if ext && selector {
            self.code = self.code.map(|c| c | 1);
        }
        self
    }
}

/// A vector and an error code in one word, for generated code.
#[must_use]
pub const fn pack(vector: Vector, code: Option<u32>) -> u64 {
    let code = match code {
        Some(c) => (1 << 8) | (c as u64) << 32,
        None => 0,
    };
    vector as u64 | code
}
/// The reverse of [`pack`].
#[must_use]
pub const fn unpack(word: u64) -> (Vector, Option<u32>) {
    let code = if word & 1 << 8 != 0 { Some((word >> 32) as u32) } else { None };
    (Vector::of(word as u8), code)
}

/// Classes of table 7-4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Benign,
    Contributory,
    PageFault,
}

fn class(vector: u8) -> Class {
    match vector {
        0 | 10..=13 | 21 => Class::Contributory,
        14 | 20 => Class::PageFault,
        _ => Class::Benign,
    }
}

/// What comes of an exception during the delivery of another (table 7-5); `None`: shutdown.
pub(crate) fn combine(first: u8, second: Exception) -> Option<Exception> {
    let double = Exception::new(Vector::DoubleFault, Some(0));
    let s = class(second.vector as u8);
    if first == Vector::DoubleFault as u8 {
        return if s == Class::Benign { Some(second) } else { None };
    }
    match (class(first), s) {
        (Class::Contributory, Class::Contributory) | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            Some(double)
        }
        _ => Some(second),
    }
}

impl X86Cpu {
    /// Raises an exception at the current instruction and delivers it; the helper that does it returns 0.
    pub fn raise(&mut self, vector: Vector, code: Option<u32>) {
        self.raise_exception(Exception::new(vector, code));
    }
    /// The same with all that belongs to the exception. Traps are raised elsewhere.
    pub fn raise_exception(&mut self, e: Exception) {
        let eip = self.eip();
        self.deliver_exception(e, eip);
    }
    /// Shutdown after a triple fault: the machine decides.
    pub(crate) fn triple_fault(&mut self) {
        self.shut_down = true;
        self.header.raised = 1;
        self.request(rhea_ir::guest::request::INTERRUPT);
        let hooks = self.hooks.clone();
        if self.tells_exceptions {
            hooks.exception(self.index, &format!("triple fault at {:#x}: shutdown", self.header.pc));
        }
        hooks.shutdown(self.index);
    }
    /// Logs an instruction that this crate lacks, once.
    pub(crate) fn log_unimplemented_insn(&mut self, code: u32) {
        if !self.logged.contains(&code) {
            self.logged.push(code);
            let name = u16::try_from(code).ok().and_then(|c| iced_x86::Code::try_from(usize::from(c)).ok());
            let pc = self.header.pc;
            self.hooks.unimplemented(self.index, &format!("instruction {name:?} (code {code}) at {pc:#x}"));
        }
    }
    /// A line for the log of exceptions (`-d int`).
    pub(crate) fn tell_event(&self, what: &str, vector: u8, code: Option<u32>, cr2: u64) {
        let mut line = format!(
            "{what} {vector:#04x} at {:04x}:{:016x} sp {:04x}:{:016x} cpl {}",
            self.seg[1].selector,
            self.eip(),
            self.seg[2].selector,
            self.r[4],
            self.cpl()
        );
        if let Some(code) = code {
            let _ = write!(line, " e={code:04x}");
        }
        if vector == Vector::PageFault as u8 && code.is_some() {
            let _ = write!(line, " cr2={cr2:016x}");
        }
        self.hooks.exception(self.index, &line);
    }
}
