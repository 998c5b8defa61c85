//! Registers and fields of the local APIC, and the messages on the bus.

/// The physical address of all local APICs after reset.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;
/// Bytes of the region at [`DEFAULT_BASE`]: the registers are in the first 4 KiB, all of it takes message-signalled interrupts.
pub const WINDOW_LEN: u64 = 0x10_0000;

/// Register numbers: offset / 16, or MSR - 0x800.
pub mod reg {
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const APR: u32 = 0x09;
    pub const PPR: u32 = 0x0a;
    pub const EOI: u32 = 0x0b;
    pub const RRD: u32 = 0x0c;
    pub const LDR: u32 = 0x0d;
    pub const DFR: u32 = 0x0e;
    pub const SVR: u32 = 0x0f;
    pub const ISR: u32 = 0x10;
    pub const ISR_LAST: u32 = ISR + 7;
    pub const TMR: u32 = 0x18;
    pub const TMR_LAST: u32 = TMR + 7;
    pub const IRR: u32 = 0x20;
    pub const IRR_LAST: u32 = IRR + 7;
    pub const ESR: u32 = 0x28;
    pub const LVT_CMCI: u32 = 0x2f;
    pub const ICR: u32 = 0x30;
    pub const ICR_HIGH: u32 = 0x31;
    pub const LVT_TIMER: u32 = 0x32;
    pub const LVT_THERMAL: u32 = 0x33;
    pub const LVT_PMC: u32 = 0x34;
    pub const LVT_LINT0: u32 = 0x35;
    pub const LVT_LINT1: u32 = 0x36;
    pub const LVT_ERROR: u32 = 0x37;
    pub const TIMER_INITIAL: u32 = 0x38;
    pub const TIMER_CURRENT: u32 = 0x39;
    pub const TIMER_DIVIDE: u32 = 0x3e;
    pub const SELF_IPI: u32 = 0x3f;
}

/// Entries of the local vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lvt {
    Timer,
    Thermal,
    Pmc,
    Lint0,
    Lint1,
    Error,
    Cmci,
}

pub const LVTS: usize = 7;

impl Lvt {
    pub const ALL: [(Self, &'static str); LVTS] = [
        (Self::Timer, "TIMER"),
        (Self::Thermal, "THERMAL"),
        (Self::Pmc, "PMC"),
        (Self::Lint0, "LINT0"),
        (Self::Lint1, "LINT1"),
        (Self::Error, "ERROR"),
        (Self::Cmci, "CMCI"),
    ];
    /// The entry of a register number.
    pub fn of(register: u32) -> Option<Self> {
        Some(match register {
            reg::LVT_CMCI => Self::Cmci,
            reg::LVT_TIMER => Self::Timer,
            reg::LVT_THERMAL => Self::Thermal,
            reg::LVT_PMC => Self::Pmc,
            reg::LVT_LINT0 => Self::Lint0,
            reg::LVT_LINT1 => Self::Lint1,
            reg::LVT_ERROR => Self::Error,
            _ => return None,
        })
    }
    pub fn lint(pin: u32) -> Self {
        if pin & 1 == 0 { Self::Lint0 } else { Self::Lint1 }
    }
    /// The bits that software can change.
    pub fn writable(self, tsc_deadline: bool) -> u32 {
        let fixed = lvt::VECTOR | lvt::MASK;
        match self {
            Self::Timer if tsc_deadline => fixed | lvt::TIMER_MODE,
            Self::Timer => fixed | lvt::TIMER_PERIODIC,
            Self::Thermal | Self::Pmc | Self::Cmci => fixed | lvt::DELIVERY,
            Self::Lint0 | Self::Lint1 => fixed | lvt::DELIVERY | lvt::POLARITY | lvt::LEVEL,
            Self::Error => fixed,
        }
    }
}

/// Fields of an entry of the local vector table.
pub mod lvt {
    pub const VECTOR: u32 = 0xff;
    pub const DELIVERY: u32 = 7 << 8;
    pub const STATUS: u32 = 1 << 12;
    pub const POLARITY: u32 = 1 << 13;
    pub const REMOTE_IRR: u32 = 1 << 14;
    pub const LEVEL: u32 = 1 << 15;
    pub const MASK: u32 = 1 << 16;
    pub const TIMER_PERIODIC: u32 = 1 << 17;
    pub const TIMER_MODE: u32 = 3 << 17;
}

/// Spurious-interrupt vector register.
pub mod svr {
    pub const VECTOR: u32 = 0xff;
    pub const ENABLE: u32 = 1 << 8;
    pub const FOCUS_OFF: u32 = 1 << 9;
    pub const NO_EOI_BROADCAST: u32 = 1 << 12;
}

/// Error status register.
pub mod esr {
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Interrupt command register.
pub mod icr {
    pub const LOGICAL: u32 = 1 << 11;
    pub const STATUS: u32 = 1 << 12;
    pub const ASSERT: u32 = 1 << 14;
    pub const LEVEL: u32 = 1 << 15;
    pub const WRITABLE: u32 = 0x000c_cfff;
}

/// IA32_APIC_BASE.
pub mod base {
    pub const BSP: u64 = 1 << 8;
    pub const X2APIC: u64 = 1 << 10;
    pub const ENABLE: u64 = 1 << 11;
    pub const MODE: u64 = X2APIC | ENABLE;
}

/// Version 0x14 with EOI-broadcast suppression; to be completed with the number of the last LVT entry in bits 23:16.
pub const VERSION: u32 = 0x14 | 1 << 24;

/// Vectors below are reserved for exceptions.
pub const FIRST_VECTOR: u8 = 16;

/// The delivery mode of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    /// Start-up (SIPI).
    StartUp,
    ExtInt,
}

impl Delivery {
    /// Of the 3-bit field that redirection entries, MSIs, ICR and LVT have at bit 8; `None`: reserved. Whether start-up and ExtINT
    /// are allowed depends on the register.
    #[must_use]
    pub fn of(field: u32) -> Option<Self> {
        Some(match field & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// A message on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub destination: u32,
    /// The destination is a logical one (MDA).
    pub logical: bool,
    /// The destination has 32 bits, as x2APIC sends it: broadcast is 0xffff_ffff and not 0xff.
    pub wide: bool,
    pub delivery: Delivery,
    pub vector: u8,
    /// Level-triggered: its EOI is broadcast.
    pub level: bool,
}
