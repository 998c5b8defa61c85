//! What is emitted out of line: slow paths, exits, and the ways that jumps out of the middle take.

use super::asm::Label;
use super::emit::{Emit, H_BRANCH, H_PC, reason};
use super::encode::Place;
use super::*;
use rhea_ir::func::{StateId, Target, Value};
use rhea_ir::types::MemOp;

/// Work emitted out of line after the hot code.
pub(super) enum Stub {
    /// Slow path of a memory access.
    Mem { v: Value, label: Label, back: Label },
    /// The TLB, where a site does not know the page or there is none, of the address at `at`. Slow path and end are those of `Mem`.
    Probe {
        op: MemOp,
        site: Option<i32>,
        /// A word of the frame that becomes 0.
        clear: Option<i32>,
        tag: i32,
        at: Place,
        label: Label,
        slow: Label,
        hit: Label,
    },
    /// The addend of the TLB entry at rcx, into it.
    Addend { label: Label, hit: Label },
    /// Exact FP by the run time.
    Fp { v: Value, label: Label, back: Label },
    /// A state map, then an exit with the reason.
    Leave { state: StateId, label: Label, reason: u64 },
    /// Exit with pc stored and a reason (state is already in memory).
    Exit { label: Label, pc: u64, reason: u64 },
    /// The same from a block's head, where its cell became negative.
    Hot { label: Label, pc: u64, reason: u64 },
    /// rax → pc, the branch is at `from` if that has not been said, then lookup.
    Miss { label: Label, from: Option<u64> },
    /// Where the shadow return stack leads.
    Landing { label: Label, pc: u64 },
    /// After a helper raised.
    Raised { label: Label },
    /// An edge's moves and the jump to its block.
    Edge { label: Label, target: Target, skip_state: bool },
    /// Where a [`rhea_ir::func::Term::Switch`] goes whose table does not have the value.
    Beside { label: Label, value: Value, cases: Vec<(u64, Label)>, other: Target, note: u64 },
    /// The table of a switch.
    Table { label: Label, entries: Vec<(u64, Label)> },
    /// 16 bytes of data.
    Data { label: Label, bytes: u128 },
    /// Was emitted.
    Done,
}

impl Stub {
    /// Is it run as often as the code that leads to it?
    fn is_warm(&self, eager: bool) -> bool {
        match self {
            Stub::Edge { .. } | Stub::Landing { .. } | Stub::Beside { .. } | Stub::Table { .. } => true,
            // In code that runs rarely it is where a group of accesses is not in one page.
            Stub::Probe { .. } => !eager,
            _ => false,
        }
    }
}

impl Emit<'_> {
    /// Emits what is out of line; the offset from which on it is rarely run.
    pub(super) fn emit_stubs(&mut self) -> u32 {
        self.in_stubs = true;
        // What the guest's own jumps lead to first: it is run as often as they are; data last. Stubs may add stubs (edges with exits).
        let eager = self.f.eager;
        self.emit_stubs_that(|s| s.is_warm(eager));
        let cold = self.asm.offset() as u32;
        self.emit_stubs_that(|s| !matches!(s, Stub::Data { .. }));
        self.emit_stubs_that(|_| true);
        cold
    }

    fn emit_stubs_that(&mut self, are: impl Fn(&Stub) -> bool) {
        let mut k = 0;
        while let Some(stub) = self.stubs.get_mut(k) {
            if are(stub) {
                let stub = std::mem::replace(stub, Stub::Done);
                self.emit_stub(stub);
            }
            k += 1;
        }
    }

    fn emit_stub(&mut self, stub: Stub) {
        match stub {
            Stub::Mem { v, label, back } => {
                self.asm.bind(label);
                self.mem_slow(v, back);
            }
            Stub::Probe { op, site, clear, tag, at, label, slow, hit } => {
                self.asm.bind(label);
                if let Some(word) = clear {
                    self.asm.store_imm(true, RSP, word, 0);
                }
                self.probe(op, site, tag, at, slow, hit);
            }
            Stub::Addend { label, hit } => {
                self.asm.bind(label);
                self.asm.load(true, RCX, RCX, super::mem::ADDEND);
                self.asm.jmp(hit);
            }
            Stub::Fp { v, label, back } => {
                self.asm.bind(label);
                self.fp_slow(v);
                self.asm.jmp(back);
            }
            Stub::Leave { state, label, reason } => {
                self.asm.bind(label);
                self.write_state(state);
                let pc = self.f.state(state).pc;
                self.store_pc(pc);
                self.exit_with(reason);
            }
            Stub::Exit { label, pc, reason } => {
                self.asm.bind(label);
                self.store_pc(pc);
                self.exit_with(reason);
            }
            Stub::Hot { label, pc, reason } => {
                self.asm.bind(label);
                self.count_back();
                self.store_pc(pc);
                self.exit_with(reason);
            }
            Stub::Landing { label, pc } => {
                self.asm.bind(label);
                self.linked_jump(pc);
            }
            Stub::Miss { label, from } => {
                self.asm.bind(label);
                self.asm.store(true, ENV, H_PC, RAX);
                if let Some(from) = from {
                    self.asm.mov_ri(RDX, from);
                    self.asm.store(true, ENV, H_BRANCH, RDX);
                }
                self.exit_with(reason::LOOKUP);
            }
            Stub::Raised { label } => {
                self.asm.bind(label);
                self.exit_with(reason::RAISED);
            }
            Stub::Edge { label, target, skip_state } => {
                self.asm.bind(label);
                self.edge(&target, None, skip_state);
            }
            Stub::Beside { label, value, cases, other, note } => {
                self.asm.bind(label);
                self.switch_beside(value, &cases, &other, note);
            }
            Stub::Table { label, entries } => self.switch_table(label, &entries),
            Stub::Done => {}
            Stub::Data { label, bytes } => {
                self.asm.align(16);
                self.asm.bind(label);
                self.asm.bytes(&bytes.to_le_bytes());
            }
        }
    }
}
