//! Delivery of interrupts and exceptions, IRET, and what is polled between instructions (vol. 3, chapter 7).

use crate::exception::{Exception, Vector, combine};
use crate::flags;
use crate::hooks::pin;
use crate::mmu::cr4;
use crate::segment::{Descriptor, Size, Stack, code_of, null_ss, system};
use crate::state::{Seg, Segment, Shadow, X86Cpu, attr, gpr};
use crate::task::Why;
use rhea_ir::guest::{Poll, request};

/// Bit of a selector error code: an entry of the IDT.
const IDT: u32 = 2;

/// Something to deliver through the IDT.
#[derive(Clone, Copy)]
struct Event {
    vector: u8,
    code: Option<u32>,
    /// INT n, INT3, INTO: the gate's DPL counts, and faults on the way have EXT clear.
    soft: bool,
    /// An exception: its class counts if delivery faults.
    exception: bool,
    /// The pushed image of EFLAGS has RF set.
    rf: bool,
    /// Where the handler returns to.
    eip: u64,
}

/// A gate of the IDT.
#[derive(Clone, Copy)]
struct Gate {
    kind: u32,
    dpl: u32,
    present: bool,
    selector: u16,
    offset: u64,
    ist: u32,
}

impl X86Cpu {
    // ---- what is delivered ----

    /// Delivers an exception that returns to `eip`.
    pub(crate) fn deliver_exception(&mut self, e: Exception, eip: u64) {
        self.note_exception(&e);
        self.deliver(Self::event_of(&e, eip), e.cr2);
    }
    fn event_of(e: &Exception, eip: u64) -> Event {
        let v = e.vector as u8;
        // Faults; of #DB and traps the image is as it is.
        let rf = matches!(v, 0 | 5..=7 | 10..=14 | 16 | 17 | 19..=21);
        Event { vector: v, code: e.code, soft: false, exception: true, rf, eip }
    }
    fn note_exception(&mut self, e: &Exception) {
        match e.vector {
            Vector::PageFault => self.cr2 = e.cr2,
            Vector::Debug => self.note_debug(e.cr2),
            _ => {}
        }
    }
    fn deliver_soft(&mut self, vector: u8, soft: bool, len: u64) {
        let eip = self.next_eip(len);
        self.deliver(Event { vector, code: None, soft, exception: false, rf: false, eip }, 0);
    }
    fn next_eip(&self, len: u64) -> u64 {
        let eip = self.eip().wrapping_add(len);
        if self.is_long() { eip } else { eip & 0xffff_ffff }
    }
    /// An interrupt or NMI.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) {
        let eip = self.eip();
        self.deliver(Event { vector, code: None, soft: false, exception: false, rf: false, eip }, 0);
    }

    fn deliver(&mut self, mut event: Event, mut cr2: u64) {
        self.header.raised = 1;
        // A chain of faults ends in shutdown by the rules; an endless one of benign faults (#AC on the handler's stack) too.
        for _ in 0..6 {
            if self.tells_exceptions {
                let what = if event.exception {
                    "exception"
                } else if event.soft {
                    "software interrupt"
                } else {
                    "interrupt"
                };
                self.tell_event(what, event.vector, event.code, cr2);
            }
            let from = self.linear_of(event.eip);
            match self.deliver_once(&event) {
                Ok(()) => {
                    self.record_event(from);
                    self.halted = false;
                    // The trap of a task switched to is its own.
                    let mut kept = self.debug.pending & crate::debug::dr6::BT;
                    if event.soft {
                        // Data breakpoints of a MOV SS before INT n come on the handler's first instruction.
                        kept |= self.debug.pending & crate::debug::dr6::B;
                    }
                    self.debug.forget_instruction();
                    if kept != 0 {
                        self.debug.pending = kept;
                        self.request(request::INTERRUPT);
                    }
                    self.host_step_done();
                    return;
                }
                Err(second) => {
                    let first = if event.exception { event.vector } else { Vector::Debug as u8 };
                    let Some(next) = combine(first, second) else { break };
                    if second.vector == Vector::PageFault {
                        self.cr2 = second.cr2;
                    }
                    self.note_exception(&next);
                    event = Self::event_of(&next, self.eip());
                    cr2 = next.cr2;
                }
            }
        }
        self.triple_fault();
    }
    fn deliver_once(&mut self, event: &Event) -> Result<(), Exception> {
        if self.cr0 & crate::mmu::cr0::PE == 0 {
            self.deliver_real(event)
        } else if self.lma() {
            self.deliver_long(event)
        } else {
            self.deliver_protected(event)
        }
    }

    /// Through the interrupt vector table (7.14 of real mode, 22.1.4). Also for INT n in virtual-8086 mode.
    fn deliver_real(&mut self, event: &Event) -> Result<(), Exception> {
        let at = u64::from(event.vector) * 4;
        if at + 3 > u64::from(self.idtr.limit) {
            return Err(Exception::gp(at as u32 * 2 + IDT));
        }
        let idx = self.system_index();
        let entry = self.mem_read(self.idtr.base.wrapping_add(at), 4, idx)?;
        let image = self.rflags();
        self.enter_vector(event, entry, image)
    }
    /// Pushes FLAGS, CS and IP and goes to a real-mode vector.
    fn enter_vector(&mut self, event: &Event, entry: u64, image: u32) -> Result<(), Exception> {
        let (selector, offset) = ((entry >> 16) as u16, entry & 0xffff);
        let mut stack = self.stack();
        stack.push(self, Size::W16, image.into())?;
        stack.push(self, Size::W16, self.segment(Seg::Cs).selector.into())?;
        stack.push(self, Size::W16, event.eip)?;
        self.set_sp(&stack);
        self.eflags &= !(flags::TF | flags::RF | flags::AC);
        if self.virtual_interrupts() && self.iopl() < 3 {
            self.eflags &= !flags::VIF;
        } else {
            self.eflags &= !flags::IF;
        }
        let mut cs = self.real_segment(Seg::Cs, selector);
        if !self.vm86() {
            cs.attr = 0x9b;
        }
        self.enter_code_as(cs, self.cpl, offset);
        Ok(())
    }

    /// EXT of the faults of a delivery.
    fn ext(event: &Event) -> bool {
        !event.soft
    }
    fn gate_fault(event: &Event) -> u32 {
        u32::from(event.vector) * 8 + IDT + u32::from(Self::ext(event))
    }
    fn check_gate(&self, event: &Event, gate: &Gate) -> Result<(), Exception> {
        if event.soft && gate.dpl < self.cpl {
            return Err(Exception::gp(Self::gate_fault(event)));
        }
        if !gate.present {
            return Err(Exception::np(Self::gate_fault(event)));
        }
        Ok(())
    }
    /// The handler's code descriptor.
    fn handler(&mut self, gate: &Gate, ext: bool) -> Result<Descriptor, Exception> {
        let code = code_of(gate.selector);
        if code == 0 {
            return Err(Exception::gp(u32::from(ext)));
        }
        let d = self.descriptor(gate.selector, Exception::gp).map_err(|e| e.external(ext))?;
        if !d.is_code() || d.dpl() > self.cpl {
            return Err(Exception::gp(code).external(ext));
        }
        if self.lma() && d.attr() & (attr::LONG | attr::BIG) != attr::LONG {
            return Err(Exception::gp(code).external(ext));
        }
        if !d.present() {
            return Err(Exception::np(code).external(ext));
        }
        Ok(d)
    }
    fn image(&self, event: &Event) -> u64 {
        u64::from(self.rflags() | if event.rf { flags::RF } else { 0 })
    }
    fn clear_flags(&mut self, interrupt_gate: bool) {
        self.eflags &= !(flags::TF | flags::NT | flags::RF | flags::VM);
        if interrupt_gate {
            self.eflags &= !flags::IF;
        }
    }

    fn deliver_protected(&mut self, event: &Event) -> Result<(), Exception> {
        let ext = Self::ext(event);
        let at = u64::from(event.vector) * 8;
        if at + 7 > u64::from(self.idtr.limit) {
            return Err(Exception::gp(Self::gate_fault(event)));
        }
        let idx = self.system_index();
        let raw = self.mem_read(self.idtr.base.wrapping_add(at), 8, idx)?;
        let d = Descriptor { raw, at: 0 };
        let size = match d.attr() & 0x1f {
            system::TASK | system::INT16 | system::TRAP16 => Size::W16,
            system::INT | system::TRAP => Size::W32,
            _ => return Err(Exception::gp(Self::gate_fault(event))),
        };
        let mut offset = raw & 0xffff | raw >> 32 & 0xffff_0000;
        if size == Size::W16 {
            offset &= 0xffff;
        }
        let gate =
            Gate { kind: d.kind(), dpl: d.dpl(), present: d.present(), selector: (raw >> 16) as u16, offset, ist: 0 };
        self.check_gate(event, &gate)?;
        if gate.kind == system::TASK {
            return self.deliver_task(event, &gate);
        }
        let mut d = self.handler(&gate, ext)?;
        let code = code_of(gate.selector);
        let vm = self.vm86();
        let image = self.image(event);
        let old_cs = u64::from(self.segment(Seg::Cs).selector);
        let inner = !d.conforming() && d.dpl() < self.cpl;
        let cs = d.segment(gate.selector.into());
        if inner {
            let cpl = d.dpl();
            if vm && cpl != 0 {
                return Err(Exception::gp(code).external(ext));
            }
            let old_ss = u64::from(self.segment(Seg::Ss).selector);
            let old_sp = self.r[gpr::RSP as usize];
            let mut stack = self.inner_stack(cpl, ext)?;
            if vm {
                for s in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                    let v = self.segment(s).selector;
                    stack.push(self, size, v.into())?;
                }
            }
            stack.push(self, size, old_ss)?;
            stack.push(self, size, old_sp)?;
            self.push_frame(&mut stack, size, image, old_cs, event)?;
            self.check_target(&cs, gate.offset, ext)?;
            self.set_accessed(&mut d)?;
            self.clear_flags(gate.kind & 1 == 0);
            if vm {
                for s in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                    self.set_segment(s, Segment::UNUSABLE);
                }
            }
            self.set_segment(Seg::Ss, stack.seg);
            self.set_sp(&stack);
            self.enter_code(d.segment(gate.selector.into()), cpl, gate.offset);
        } else {
            if vm {
                return Err(Exception::gp(code).external(ext));
            }
            let mut stack = self.stack();
            self.push_frame(&mut stack, size, image, old_cs, event).map_err(|e| e.external(ext))?;
            self.check_target(&cs, gate.offset, ext)?;
            self.set_accessed(&mut d)?;
            self.clear_flags(gate.kind & 1 == 0);
            self.set_sp(&stack);
            self.enter_code(d.segment(gate.selector.into()), self.cpl, gate.offset);
        }
        Ok(())
    }
    fn push_frame(
        &mut self,
        stack: &mut Stack,
        size: Size,
        image: u64,
        old_cs: u64,
        event: &Event,
    ) -> Result<(), Exception> {
        stack.push(self, size, image)?;
        stack.push(self, size, old_cs)?;
        stack.push(self, size, event.eip)?;
        if let Some(code) = event.code {
            stack.push(self, size, code.into())?;
        }
        Ok(())
    }
    fn deliver_task(&mut self, event: &Event, gate: &Gate) -> Result<(), Exception> {
        let ext = Self::ext(event);
        if event.rf {
            self.eflags |= flags::RF;
        }
        let r = self.task_gate(gate.selector, Why::Interrupt, event.eip, ext);
        r?;
        if let Some(code) = event.code {
            let size = if self.tr.attr & 8 != 0 { Size::W32 } else { Size::W16 };
            let mut stack = self.stack();
            stack.push(self, size, code.into()).map_err(|e| e.external(ext))?;
            self.set_sp(&stack);
        }
        let cs = *self.segment(Seg::Cs);
        let eip = self.eip();
        self.check_target(&cs, eip, ext)
    }

    fn deliver_long(&mut self, event: &Event) -> Result<(), Exception> {
        let ext = Self::ext(event);
        let at = u64::from(event.vector) * 16;
        if at + 15 > u64::from(self.idtr.limit) {
            return Err(Exception::gp(Self::gate_fault(event)));
        }
        let idx = self.system_index();
        let at = self.idtr.base.wrapping_add(at);
        let raw = self.mem_read(at, 8, idx)?;
        let upper = self.mem_read(at.wrapping_add(8), 8, idx)?;
        let d = Descriptor { raw, at: 0 };
        if !matches!(d.attr() & 0x1f, system::INT | system::TRAP) || upper >> 40 & 0x1f != 0 {
            return Err(Exception::gp(Self::gate_fault(event)));
        }
        let gate = Gate {
            kind: d.kind(),
            dpl: d.dpl(),
            present: d.present(),
            selector: (raw >> 16) as u16,
            offset: raw & 0xffff | raw >> 32 & 0xffff_0000 | upper << 32,
            ist: (raw >> 32) as u32 & 7,
        };
        self.check_gate(event, &gate)?;
        let mut d = self.handler(&gate, ext)?;
        let inner = !d.conforming() && d.dpl() < self.cpl;
        let cpl = if inner { d.dpl() } else { self.cpl };
        let old_ss = u64::from(self.segment(Seg::Ss).selector);
        let old_sp = self.r[gpr::RSP as usize];
        let old_cs = u64::from(self.segment(Seg::Cs).selector);
        let seg = if inner { null_ss(cpl, cpl) } else { *self.segment(Seg::Ss) };
        let mut stack = if gate.ist != 0 {
            let fault = Exception::ts(self.tr.selector & 0xfffc).external(ext);
            let sp = self.tss_word(28 + 8 * gate.ist, 8, fault)?;
            self.stack_of(seg, sp, cpl, true, ext.into())
        } else if inner {
            self.inner_stack(cpl, ext)?
        } else {
            self.stack_of(seg, old_sp, cpl, true, ext.into())
        };
        stack.sp &= !15;
        stack.push(self, Size::W64, old_ss)?;
        stack.push(self, Size::W64, old_sp)?;
        let image = self.image(event);
        self.push_frame(&mut stack, Size::W64, image, old_cs, event)?;
        let cs = d.segment(gate.selector.into());
        self.check_target(&cs, gate.offset, ext)?;
        self.set_accessed(&mut d)?;
        self.clear_flags(gate.kind & 1 == 0);
        if inner {
            self.set_segment(Seg::Ss, stack.seg);
        }
        self.set_sp(&stack);
        self.enter_code(d.segment(gate.selector.into()), cpl, gate.offset);
        Ok(())
    }

    // ---- INT n and relatives ----

    pub(crate) fn soft_int(&mut self, vector: u8, len: u64) {
        if self.vm86() {
            match self.vm86_int(vector, len) {
                Ok(true) => {
                    let pc = self.header.pc;
                    return self.complete(pc);
                }
                Ok(false) => {}
                Err(e) => return self.raise_exception(e),
            }
        }
        self.deliver_soft(vector, true, len);
    }
    /// INT n in virtual-8086 mode (table 22-2): true if the 8086 program's own handler was entered.
    fn vm86_int(&mut self, vector: u8, len: u64) -> Result<bool, Exception> {
        if self.cr4 & cr4::VME != 0 && !self.is_redirected(vector)? {
            let idx = self.cpl_index();
            let entry = self.mem_read(u64::from(vector) * 4, 4, idx)?;
            let mut image = self.rflags();
            if self.iopl() < 3 {
                image = image & !flags::IF | flags::IOPL;
                if self.eflags & flags::VIF != 0 {
                    image |= flags::IF;
                }
            }
            let eip = self.next_eip(len);
            let event = Event { vector, code: None, soft: true, exception: false, rf: false, eip };
            self.enter_vector(&event, entry, image)?;
            return Ok(true);
        }
        if self.iopl() < 3 { Err(Exception::gp(0)) } else { Ok(false) }
    }
    /// The software interrupt redirection bitmap of the TSS: does the protected-mode handler take the vector?
    fn is_redirected(&mut self, vector: u8) -> Result<bool, Exception> {
        if self.tr.attr & 8 == 0 {
            return Ok(true);
        }
        let map = self.tss_word(102, 2, Exception::gp(0))?;
        let at = map.wrapping_sub(32).wrapping_add(u64::from(vector) / 8) as u32;
        let byte = self.tss_word(at & 0xffff, 1, Exception::gp(0))?;
        Ok(byte >> (vector & 7) & 1 != 0)
    }
    pub(crate) fn int3(&mut self, len: u64) {
        self.deliver_soft(Vector::Breakpoint as u8, true, len);
    }
    pub(crate) fn into(&mut self, len: u64) {
        self.deliver_soft(Vector::Overflow as u8, true, len);
    }
    pub(crate) fn int1(&mut self, len: u64) {
        self.note_debug(0);
        self.deliver_soft(Vector::Debug as u8, false, len);
    }

    // ---- IRET ----

    pub(crate) fn iret(&mut self, size: Size) -> Result<(), Exception> {
        if self.nmi_blocked && !self.smm {
            self.pins.merge_nmis();
            self.nmi_blocked = false;
            if self.pins.bits() & pin::NMI != 0 {
                self.request(request::INTERRUPT);
            }
        }
        if self.vm86() {
            self.iret_vm86(size)?;
        } else if !self.protected() {
            self.iret_real(size, flags::IOPL | flags::IF)?;
        } else if self.eflags & flags::NT != 0 {
            if self.lma() {
                return Err(Exception::gp(0));
            }
            return self.iret_task();
        } else {
            let mut stack = self.stack();
            let eip = stack.pop(self, size)?;
            let selector = stack.pop(self, size)? as u16;
            let image = stack.pop(self, size)? as u32;
            if image & flags::VM != 0 && self.cpl == 0 && !self.lma() && size == Size::W32 {
                self.iret_to_vm86(stack, eip, selector, image)?;
            } else {
                self.return_to(selector, eip, stack, size, 0, Some(image))?;
            }
        }
        let pc = self.header.pc;
        self.complete(pc);
        Ok(())
    }
    /// IRET as on the 8086; `changes`: which of IOPL and IF the image sets.
    fn iret_real(&mut self, size: Size, changes: u32) -> Result<(), Exception> {
        let mut stack = self.stack();
        let eip = stack.pop(self, size)?;
        let selector = stack.pop(self, size)? as u16;
        let image = stack.pop(self, size)? as u32;
        let mut cs = self.real_segment(Seg::Cs, selector);
        if !self.vm86() {
            cs.attr = 0x9b | cs.attr & (attr::BIG | attr::GRANULAR);
        }
        self.check_target(&cs, eip, false)?;
        self.set_sp(&stack);
        self.enter_code_as(cs, self.cpl, eip);
        let mut mask = flags::STATUS | flags::TF | flags::DF | flags::NT | changes;
        if size != Size::W16 {
            mask |= flags::RF | flags::AC | flags::ID;
        }
        self.set_rflags(self.rflags() & !mask | image & mask);
        Ok(())
    }
    fn iret_vm86(&mut self, size: Size) -> Result<(), Exception> {
        if self.iopl() == 3 {
            return self.iret_real(size, flags::IF);
        }
        if self.cr4 & cr4::VME == 0 || size != Size::W16 {
            return Err(Exception::gp(0));
        }
        let mut peek = self.stack();
        peek.release(4);
        let image = peek.pop(self, size)? as u32;
        self.check_virtual_flags(image)?;
        self.iret_real(size, 0)?;
        self.set_vif(image & flags::IF != 0);
        Ok(())
    }
    /// An image that sets IF while an interrupt waits virtually, or TF, is the monitor's business.
    fn check_virtual_flags(&self, image: u32) -> Result<(), Exception> {
        let pending = image & flags::IF != 0 && self.eflags & flags::VIP != 0;
        if pending || image & flags::TF != 0 { Err(Exception::gp(0)) } else { Ok(()) }
    }
    fn set_vif(&mut self, on: bool) {
        self.eflags = self.eflags & !flags::VIF | if on { flags::VIF } else { 0 };
    }
    fn iret_to_vm86(&mut self, mut stack: Stack, eip: u64, cs: u16, image: u32) -> Result<(), Exception> {
        let sp = stack.pop(self, Size::W32)?;
        let mut selectors = [0u16; 5];
        for s in &mut selectors {
            *s = stack.pop(self, Size::W32)? as u16;
        }
        if eip > 0xffff {
            return Err(Exception::gp(0));
        }
        self.r[gpr::RSP as usize] = sp;
        self.cpl = 3;
        self.eflags |= flags::VM;
        for (s, selector) in [Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs].into_iter().zip(selectors) {
            let loaded = self.real_segment(s, selector);
            self.set_segment(s, loaded);
        }
        let code = self.real_segment(Seg::Cs, cs);
        self.enter_code_as(code, 3, eip & 0xffff);
        self.set_rflags(image);
        Ok(())
    }
    /// EFLAGS from IRET in protected mode, executed at `cpl`; before CS is loaded, which rebuilds the mode.
    pub(crate) fn set_flags_on_return(&mut self, image: u32, size: Size, cpl: u32) {
        let mut mask = flags::STATUS | flags::TF | flags::DF | flags::NT;
        if size != Size::W16 {
            mask |= flags::RF | flags::AC | flags::ID;
            if cpl == 0 {
                mask |= flags::VIF | flags::VIP;
            }
        }
        if cpl <= self.iopl() {
            mask |= flags::IF;
        }
        if cpl == 0 {
            mask |= flags::IOPL;
        }
        self.put_rflags(self.rflags() & !mask | image & mask);
    }

    // ---- flags ----

    pub(crate) fn popf(&mut self, image: u32, bits: u32) -> Result<(), Exception> {
        let mut mask = flags::STATUS | flags::TF | flags::DF | flags::NT;
        if bits != 16 {
            mask |= flags::AC | flags::ID;
        }
        let mut virtual_if = None;
        if self.vm86() {
            if self.iopl() == 3 {
                mask |= flags::IF;
            } else {
                if self.cr4 & cr4::VME == 0 || bits != 16 {
                    return Err(Exception::gp(0));
                }
                self.check_virtual_flags(image)?;
                virtual_if = Some(image & flags::IF != 0);
            }
        } else {
            if self.cpl == 0 {
                mask |= flags::IOPL;
            }
            if self.cpl <= self.iopl() {
                mask |= flags::IF;
            }
        }
        if let Some(on) = virtual_if {
            self.set_vif(on);
        }
        self.set_rflags(self.rflags() & !mask & !flags::RF | image & mask);
        Ok(())
    }
    pub(crate) fn pushf(&mut self, bits: u32) -> Result<u64, Exception> {
        let mut f = self.rflags() & !(flags::RF | flags::VM);
        if self.vm86() && self.iopl() < 3 {
            if self.cr4 & cr4::VME == 0 || bits != 16 {
                return Err(Exception::gp(0));
            }
            f = f & !flags::IF | flags::IOPL;
            if f & flags::VIF != 0 {
                f |= flags::IF;
            }
        }
        Ok(f.into())
    }
    /// CLI and STI: true if IF is meant, false if VIF.
    fn interrupt_flag(&self) -> Result<bool, Exception> {
        if self.cr0 & crate::mmu::cr0::PE == 0 || self.cpl <= self.iopl() {
            Ok(true)
        } else if self.virtual_interrupts() {
            Ok(false)
        } else {
            Err(Exception::gp(0))
        }
    }
    pub(crate) fn cli(&mut self) -> Result<(), Exception> {
        let real = self.interrupt_flag()?;
        self.eflags &= !if real { flags::IF } else { flags::VIF };
        Ok(())
    }
    pub(crate) fn sti(&mut self) -> Result<(), Exception> {
        if self.interrupt_flag()? {
            self.eflags |= flags::IF;
        } else if self.eflags & flags::VIP != 0 {
            return Err(Exception::gp(0));
        } else {
            self.eflags |= flags::VIF;
        }
        Ok(())
    }
    pub(crate) fn hlt(&mut self, len: u64) -> Result<(), Exception> {
        if self.cpl != 0 {
            return Err(Exception::gp(0));
        }
        let next = self.next_eip(len);
        let next = self.linear_of(next);
        self.halted = true;
        self.complete(next);
        self.request(request::INTERRUPT);
        Ok(())
    }
    /// Waits as HLT does (MWAIT); the caller has set the pc or ends the block behind the instruction.
    pub fn wait_for_interrupt(&mut self) {
        self.halted = true;
        self.request(request::INTERRUPT);
    }

    // ---- polling ----

    /// Takes what is due between two instructions, in the order of table 7-2.
    pub(crate) fn poll_events(&mut self) -> Poll {
        let bits = self.pins.bits();
        let taken = self.poll_bits(bits);
        self.note_halt(matches!(taken, Poll::Halt(_)));
        self.interrupt_waits = self.pins.bits() & !pin::WAKE;
        taken
    }
    fn poll_bits(&mut self, bits: u32) -> Poll {
        if bits & pin::WAKE != 0 {
            self.pins.clear(pin::WAKE);
            self.halted = false;
        }
        if bits & pin::INIT != 0 && !self.smm {
            self.pins.clear(pin::INIT);
            self.init_reset();
            // A start-up message that came since is not lost.
            return if self.wait_for_sipi { self.poll_start_up(self.pins.bits()) } else { Poll::Run };
        }
        if self.wait_for_sipi {
            return self.poll_start_up(bits);
        }
        if bits & pin::SIPI != 0 {
            // Only a processor that waits takes it.
            self.pins.clear(pin::SIPI);
        }
        if self.shut_down {
            return Poll::Halt(None);
        }
        if bits & pin::MCE != 0 {
            self.pins.clear(pin::MCE);
            self.halted = false;
            if self.cr4 & cr4::MCE != 0 {
                self.raise(Vector::MachineCheck, None);
            } else {
                self.triple_fault();
                return Poll::Halt(None);
            }
            return Poll::Run;
        }
        if bits & pin::SMI != 0 && !self.smm {
            self.pins.clear(pin::SMI);
            self.enter_smm();
            return Poll::Run;
        }
        let mov_ss = self.shadow == Shadow::MovSs;
        if !mov_ss && self.debug.pending != 0 && !self.halted {
            self.take_debug_trap();
            return Poll::Run;
        }
        if bits & pin::NMI != 0 && !self.nmi_blocked && !mov_ss && self.pins.take_nmi() {
            self.nmi_blocked = true;
            self.halted = false;
            self.deliver_interrupt(Vector::Nmi as u8);
            return Poll::Run;
        }
        if bits & pin::NMI != 0 && self.nmi_blocked {
            self.pins.merge_nmis();
        }
        if bits & pin::INTR != 0 && self.eflags & flags::IF != 0 && self.shadow == Shadow::None {
            let hooks = self.hooks.clone();
            if let Some(vector) = hooks.acknowledge(self.index) {
                self.halted = false;
                self.deliver_interrupt(vector);
                return Poll::Run;
            }
        }
        if self.halted { Poll::Halt(None) } else { Poll::Run }
    }
    fn poll_start_up(&mut self, bits: u32) -> Poll {
        if bits & pin::SIPI != 0 {
            self.pins.clear(pin::SIPI);
            self.start_up(self.pins.startup_vector());
            return Poll::Run;
        }
        Poll::Halt(None)
    }
}
