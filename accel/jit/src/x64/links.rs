//! Jumps out of a region: those that can be patched to go to their target, and the shadow return stack.

use super::asm::Label;
use super::asm::{Alu, Cc};
use super::emit::{Emit, H_FETCH, H_RETURNS_TOP, LinkSite, reason};
use super::stubs::Stub;
use super::*;

/// The lowest byte of [`rhea_ir::EnvHeader::returns_top`] goes round by itself.
const _: () = assert!(align_of::<rhea_ir::EnvHeader>() == 1 << u8::BITS);

impl Emit<'_> {
    /// A jump to a page known to be valid here, which can be patched.
    pub(super) fn linked_jump(&mut self, pc: u64) {
        let label = self.asm.label();
        self.patchable_jump(None, pc, label, None);
    }

    /// The same where a condition of the host's flags holds.
    pub(super) fn linked_jump_on(&mut self, cc: Cc, pc: u64) {
        let label = self.asm.label();
        self.patchable_jump(Some(cc), pc, label, None);
    }

    /// A jump that can be patched, to `label` until then.
    fn patchable_jump(&mut self, cc: Option<Cc>, pc: u64, label: Label, identity_at: Option<u32>) {
        let opcode = if cc.is_some() { 2 } else { 1 };
        // Its displacement must not straddle an aligned word.
        self.asm.pad_before(opcode);
        let n = self.links.len();
        self.links.push(LinkSite { at: (self.asm.offset() + opcode) as u32, pc, identity_at });
        match cc {
            Some(cc) => self.asm.jcc(cc, label),
            None => self.asm.jmp(label),
        }
        let reason = reason::LINK | (n as u64) << 4 | (self.r.entry.id as u64) << 16;
        self.stubs.push(Stub::Exit { label, pc, reason });
    }

    /// A jump to another page, whose translation may change: made once the page's identity is known, and while it is that.
    pub(super) fn checked_jump(&mut self, pc: u64) {
        self.asm.load(true, RDX, ENV, H_FETCH);
        let at = crate::fetch::fetch_slot(pc) as i32 * 4;
        self.asm.pad_before(super::encode::CMP_WORD_IMMEDIATE);
        let identity_at = (self.asm.offset() + super::encode::CMP_WORD_IMMEDIATE) as u32;
        self.asm.cmp_mem32_patched(RDX, at);
        let label = self.asm.label();
        self.asm.jcc(Cc::Ne, label);
        self.patchable_jump(None, pc, label, Some(identity_at));
    }

    /// Enters a return address into the shadow return stack, with code that goes there.
    pub(super) fn push_return(&mut self, ret: u64) {
        let landing = self.asm.label();
        self.stubs.push(Stub::Landing { label: landing, pc: ret });
        self.asm.load(true, RCX, ENV, H_RETURNS_TOP);
        self.asm.add8_i(RCX, 16);
        self.asm.store(true, ENV, H_RETURNS_TOP, RCX);
        self.asm.mov_ri(RAX, ret);
        self.asm.store(true, RCX, 0, RAX);
        self.asm.lea_label(RAX, landing);
        self.asm.store(true, RCX, 8, RAX);
    }

    /// Goes to where the shadow return stack's top says, if it is for the address in rax; else goes on here.
    pub(super) fn pop_return(&mut self) {
        let other = self.asm.label();
        self.asm.load(true, RCX, ENV, H_RETURNS_TOP);
        self.asm.alu_rm(Alu::Cmp, true, RAX, RCX, 0);
        self.asm.jcc(Cc::Ne, other);
        self.asm.mov_rr(true, RDX, RCX);
        self.asm.add8_i(RDX, 16u8.wrapping_neg());
        self.asm.store(true, ENV, H_RETURNS_TOP, RDX);
        self.asm.jmp_mem(RCX, 8);
        self.asm.bind(other);
    }

    /// True if `pc` is in a page that was checked at entry.
    pub(super) fn in_region_pages(&self, pc: u64) -> bool {
        let page = pc & !0xfff;
        page == self.f.blocks[0].pc & !0xfff || self.r.others.iter().any(|p| p.tag & !0xfff == page)
    }
}
