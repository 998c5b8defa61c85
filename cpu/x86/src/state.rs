//! The architectural state of one processor.

use crate::config::X86Config;
use crate::debug::DebugState;
use crate::hooks::{X86Hooks, X86Pins};
use crate::mmu::Walks;
use crate::msr::Msrs;
use crate::pv::Paravirtual;
use crate::smm::IoSmi;
use crate::x87::X87;
use rhea_clock::VirtualClock;
use rhea_ir::EnvHeader;
use rhea_ir::guest::TlbFlush;
use rhea_memory::AddressSpace;
use std::sync::Arc;

/// Numbers of the general-purpose registers.
pub mod gpr {
    pub const RAX: u32 = 0;
    pub const RCX: u32 = 1;
    pub const RDX: u32 = 2;
    pub const RBX: u32 = 3;
    pub const RSP: u32 = 4;
    pub const RBP: u32 = 5;
    pub const RSI: u32 = 6;
    pub const RDI: u32 = 7;
}

/// Segment registers in the order of their numbers in instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Seg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

impl Seg {
    /// By number.
    pub const ALL: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];
}

/// A segment register with its hidden part. LDTR and TR are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    pub base: u64,
    /// A read of `n` bytes at offset `o` with `o + n <= read_top` passes the type and limit checks; any other is checked in
    /// full (`X86Cpu::check_segment`). Kept by `X86Cpu::set_segment`.
    pub read_top: u64,
    /// The same for writes.
    pub write_top: u64,
    /// Last valid offset (granularity applied); for expand-down segments the last invalid one.
    pub limit: u32,
    pub selector: u32,
    /// Access rights in the layout of bits 8–23 of a descriptor's second word: type 0–3, S 4, DPL 5–6, P 7, AVL 12, L 13,
    /// D/B 14, G 15; and bit 16: unusable (null).
    pub attr: u32,
    pub reserved: u32,
}

/// Bits of [`Segment::attr`].
pub mod attr {
    pub const ACCESSED: u32 = 1;
    /// Data: writable. Code: readable.
    pub const WRITABLE: u32 = 2;
    /// Data: expand-down. Code: conforming.
    pub const EXPAND_DOWN: u32 = 4;
    pub const CODE: u32 = 8;
    /// Not a system segment.
    pub const S: u32 = 16;
    pub const DPL_SHIFT: u32 = 5;
    pub const PRESENT: u32 = 128;
    pub const LONG: u32 = 1 << 13;
    /// D/B.
    pub const BIG: u32 = 1 << 14;
    pub const GRANULAR: u32 = 1 << 15;
    pub const UNUSABLE: u32 = 1 << 16;
}

impl Segment {
    /// A null or otherwise unusable segment.
    pub const UNUSABLE: Segment =
        Segment { base: 0, read_top: 0, write_top: 0, limit: 0, selector: 0, attr: attr::UNUSABLE, reserved: 0 };
    /// A segment of real mode.
    #[must_use]
    pub const fn real(selector: u32, base: u64) -> Segment {
        Segment { base, read_top: 0x1_0000, write_top: 0x1_0000, limit: 0xffff, selector, attr: 0x93, reserved: 0 }
    }
    #[must_use]
    pub const fn usable(&self) -> bool {
        self.attr & attr::UNUSABLE == 0
    }
    #[must_use]
    pub const fn dpl(&self) -> u32 {
        self.attr >> attr::DPL_SHIFT & 3
    }
    /// D/B.
    #[must_use]
    pub const fn big(&self) -> bool {
        self.attr & attr::BIG != 0
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    pub base: u64,
    pub limit: u32,
}

/// What is held off for one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shadow {
    #[default]
    None,
    /// After STI: interrupts.
    Sti,
    /// After MOV or POP to SS: debug exceptions too.
    MovSs,
}

/// One processor. Generated code reaches it through [`slots`].
#[repr(C)]
pub struct X86Cpu {
    /// `header.pc` is a linear address: CS base + EIP.
    pub header: EnvHeader,
    /// Packed flags (see `rhea_ir::op`): N is SF, Z is ZF, V is OF, P is PF, A is AF; C is not looked at.
    pub cc: u32,
    /// Packed flags of which only C counts: CF (a borrow sets it).
    pub cf: u32,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8–R15.
    pub r: [u64; 16],
    /// EFLAGS without CF, PF, AF, ZF, SF, OF; bit 1 set.
    pub eflags: u32,
    /// An interrupt was pending when `poll` last looked; every rise of an input makes it look. Only a hint.
    pub(crate) interrupt_waits: u32,
    pub seg: [Segment; 6],
    pub xmm: [u128; 16],
    /// Upper halves of YMM0–15.
    pub ymm_hi: [u128; 16],
    /// MXCSR; its exception flags are completed by `EnvHeader::fp_flags`, see `X86Cpu::mxcsr`.
    pub(crate) mxcsr: u32,
    /// Bit n: bits of XINUSE that generated code could not clear; see the XSAVE family.
    pub(crate) reserved: u32,
    pub x87: X87,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub xcr0: u64,
    pub pkru: u32,
    pub dr: [u64; 8],
    pub(crate) msr: Msrs,
    pub config: Arc<X86Config>,
    pub(crate) flushes: Vec<(TlbFlush, bool)>,
    pub(crate) hooks: Arc<dyn X86Hooks>,
    pub(crate) pins: Arc<X86Pins>,
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) clock: Arc<VirtualClock>,
    /// Number of the vCPU in the machine.
    pub index: u32,
    /// How often it took RESET or INIT.
    pub resets: u32,
    /// APIC id.
    pub apic_id: u32,
    /// In HLT (or MWAIT).
    pub(crate) halted: bool,
    /// After INIT: waits for a start-up message. Application processors begin so.
    pub(crate) wait_for_sipi: bool,
    /// Shutdown after a triple fault.
    pub(crate) shut_down: bool,
    /// NMIs are blocked until IRET.
    pub(crate) nmi_blocked: bool,
    pub(crate) smm: bool,
    /// NMIs were blocked when the SMI came.
    pub(crate) smm_nmi_blocked: bool,
    pub(crate) smbase: u32,
    /// The I/O instruction that made the SMI pending.
    pub(crate) io_smi: Option<IoSmi>,
    /// Current privilege level.
    pub(crate) cpl: u32,
    /// What is held off for the next instruction.
    pub(crate) shadow: Shadow,
    /// See `X86Mode::near_limit`.
    pub(crate) near_limit: bool,
    /// All ones, or bit 20 clear while the A20 gate is closed.
    pub(crate) a20_mask: u64,
    /// PAE page-directory-pointer registers.
    pub(crate) pdpte: [u64; 4],
    pub(crate) debug: DebugState,
    pub(crate) walks: Walks,
    pub(crate) pv: Paravirtual,
    pub(crate) tells_exceptions: bool,
    /// Instructions (`iced_x86::Code`) whose absence was logged.
    pub(crate) logged: Vec<u32>,
}

/// What generated code may touch.
pub mod slots {
    use super::{Seg, Segment, X86Cpu};
    use rhea_ir::{Slot, Type};
    use std::mem::offset_of;

    /// RAX–R15.
    pub const fn r(n: u32) -> Slot {
        assert!(n < 16);
        Slot::new(offset_of!(X86Cpu, r) + 8 * n as usize, Type::I64)
    }
    pub const CC: Slot = Slot::new(offset_of!(X86Cpu, cc), Type::I32).late();
    pub const CF: Slot = Slot::new(offset_of!(X86Cpu, cf), Type::I32).late();
    /// Generated code changes IF, AC (then the mode too) only.
    pub const EFLAGS: Slot = Slot::new(offset_of!(X86Cpu, eflags), Type::I32);
    /// See `X86Cpu::interrupt_waits`.
    pub const INTERRUPT_WAITS: Slot = Slot::new(offset_of!(X86Cpu, interrupt_waits), Type::I32);
    pub const fn seg_base(s: Seg) -> Slot {
        Slot::new(offset_of!(X86Cpu, seg) + size_of::<Segment>() * s as usize + offset_of!(Segment, base), Type::I64)
    }
    pub const fn seg_top(s: Seg, write: bool) -> Slot {
        let field = if write { offset_of!(Segment, write_top) } else { offset_of!(Segment, read_top) };
        Slot::new(offset_of!(X86Cpu, seg) + size_of::<Segment>() * s as usize + field, Type::I64)
    }
    pub const fn seg_limit(s: Seg) -> Slot {
        Slot::new(offset_of!(X86Cpu, seg) + size_of::<Segment>() * s as usize + offset_of!(Segment, limit), Type::I32)
    }
    pub const fn seg_selector(s: Seg) -> Slot {
        Slot::new(
            offset_of!(X86Cpu, seg) + size_of::<Segment>() * s as usize + offset_of!(Segment, selector),
            Type::I32,
        )
    }
    pub const fn seg_attr(s: Seg) -> Slot {
        Slot::new(offset_of!(X86Cpu, seg) + size_of::<Segment>() * s as usize + offset_of!(Segment, attr), Type::I32)
    }
    /// XMM0–15.
    pub const fn xmm(n: u32) -> Slot {
        assert!(n < 16);
        Slot::new(offset_of!(X86Cpu, xmm) + 16 * n as usize, Type::V128)
    }
    /// Upper halves of YMM0–15.
    pub const fn ymm_hi(n: u32) -> Slot {
        assert!(n < 16);
        Slot::new(offset_of!(X86Cpu, ymm_hi) + 16 * n as usize, Type::V128)
    }
    /// Read-only to generated code.
    pub const MXCSR: Slot = Slot::new(offset_of!(X86Cpu, mxcsr), Type::I32);
}
