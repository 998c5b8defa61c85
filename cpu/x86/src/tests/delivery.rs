use super::*;
use crate::exception::{Exception, Vector};
use crate::flags;
use crate::hooks::pin;
use crate::segment::Size;
use rhea_ir::guest::{Guest, Poll};

#[test]
fn real_mode() {
    let mut b = Bench::real();
    b.put(0x21 * 4, 4, 0x1234_5678);
    b.set_segment(Seg::Cs, Segment::real(0x100, 0x1000));
    b.header.pc = 0x1010;
    b.r[gpr::RSP as usize] = 0xffff_0100;
    b.set_rflags(flags::FIXED | flags::IF | flags::TF | flags::CF);
    b.soft_int(0x21, 2);
    assert_eq!((b.segment(Seg::Cs).selector, b.eip(), b.header.pc), (0x1234, 0x5678, 0x1_79b8));
    assert_eq!(b.sp(), 0xffff_00fa);
    assert_eq!([b.get(0xfa, 2), b.get(0xfc, 2), b.get(0xfe, 2)], [0x12, 0x100, 0x303]);
    assert_eq!(b.rflags(), flags::FIXED | flags::CF);
    b.iret(Size::W16).unwrap();
    assert_eq!((b.segment(Seg::Cs).selector, b.eip(), b.sp()), (0x100, 0x12, 0xffff_0100));
    assert_eq!(b.rflags(), 0x303);
    b.idtr.limit = 0x20;
    b.soft_int(0x21, 2);
    assert_eq!(b.shutdowns(), 1, "#GP, then #DF outside of the table");
}

#[test]
fn protected_same_level() {
    let mut b = Bench::protected(0);
    b.handler(13, 0, 0x4000);
    b.set_rflags(0x202);
    b.raise(Vector::GeneralProtection, Some(0x50));
    assert_eq!((b.eip(), b.cpl(), b.header.raised), (0x4000, 0, 1));
    assert_eq!(b.frame(4, 4), [0x50, 0x8000, KCODE.into(), 0x1_0202]);
    assert_eq!(b.rflags() & flags::IF, 0);
    b.r[gpr::RSP as usize] += 4;
    b.iret(Size::W32).unwrap();
    assert_eq!((b.eip(), b.sp(), b.rflags()), (0x8000, 0x9000, 0x202), "RF has no use without breakpoints");
}

#[test]
fn protected_inner_level() {
    let mut b = Bench::protected(3);
    b.handler(0x80, 3, 0x4000);
    b.set_rflags(0x202);
    b.soft_int(0x80, 2);
    assert_eq!((b.eip(), b.cpl(), b.segment(Seg::Ss).selector), (0x4000, 0, KDATA.into()));
    assert_eq!(b.sp(), 0x7000 - 20);
    assert_eq!(b.frame(4, 5), [0x8002, UCODE.into(), 0x202, 0x9000, UDATA.into()]);
    b.load_segment(Seg::Ds as u32, KDATA).unwrap();
    b.iret(Size::W32).unwrap();
    assert_eq!((b.eip(), b.cpl(), b.sp()), (0x8002, 3, 0x9000));
    assert_eq!(b.segment(Seg::Ss).selector, u32::from(UDATA));
    assert!(!b.segment(Seg::Ds).usable(), "too privileged for level 3");
    assert!(b.segment(Seg::Es).usable());
}

#[test]
fn gate_faults() {
    // Vector used, gate, is it INT n; error code of the #GP or #NP.
    let rows: &[(u8, u64, bool, Vector, u32)] = &[
        (0x80, gate(14, 0, KCODE, 0, 0), true, Vector::GeneralProtection, 0x402),
        (0x80, gate(14, 3, KCODE, 0, 0) & !(0x80 << 40), true, Vector::SegmentNotPresent, 0x402),
        (0x80, gate(12, 3, KCODE, 0, 0), true, Vector::GeneralProtection, 0x402),
        (0x80, gate(14, 3, 0, 0, 0), true, Vector::GeneralProtection, 0),
        (0x80, gate(14, 3, KDATA, 0, 0), true, Vector::GeneralProtection, 0x10),
        (0x80, gate(14, 3, 0x100, 0, 0), true, Vector::GeneralProtection, 0x100),
        (0x40, 0, false, Vector::GeneralProtection, 0x203),
        (0x40, gate(14, 0, 0x100, 0, 0), false, Vector::GeneralProtection, 0x101),
    ];
    for &(vector, g, soft, fault, code) in rows {
        let mut b = Bench::protected(3);
        b.idt(vector.into(), g);
        b.handler(fault as u64, 0, 0x4000);
        if soft {
            b.soft_int(vector, 2);
        } else {
            b.deliver_interrupt(vector);
        }
        assert_eq!(b.eip(), 0x4000, "{vector:#x} {g:#x}");
        assert_eq!(b.frame(4, 2), [code.into(), 0x8000]);
    }
}

#[test]
fn bad_stacks_of_the_tss() {
    for (ss, limit, fault, code) in [
        (0, 0x67, Vector::InvalidTss, 1),
        (UDATA, 0x67, Vector::InvalidTss, 0x21),
        (KDATA, 7, Vector::InvalidTss, 0x29),
    ] {
        let mut b = Bench::protected(3);
        b.handler(0x40, 0, 0x4000);
        // The fault is taken through a task of its own stack: a conforming handler at level 3.
        b.put(GDT + u64::from(FREE), 8, flat(15, 0, 4));
        b.idt(fault as u64, gate(14, 0, FREE, 0x5000, 0));
        b.put(TSS + 8, 4, ss.into());
        b.tr.limit = limit;
        b.deliver_interrupt(0x40);
        assert_eq!((b.eip(), b.cpl()), (0x5000, 3));
        assert_eq!(b.frame(4, 2), [code, 0x8000]);
    }
}

#[test]
fn double_and_triple_faults() {
    // First exception, its handler present, second that its absence makes; expected vector delivered.
    for (first, want) in [
        (Exception::gp(0), Some(8)),
        (Exception::page_fault(0x1234, 2), Some(8)),
        (Exception::ud(), Some(13)),
        (Exception::new(Vector::DoubleFault, Some(0)), None),
    ] {
        let mut b = Bench::protected(0);
        for v in [8, 13] {
            if first.vector as u64 != v {
                b.handler(v, 0, 0x4000 + v);
            }
        }
        b.raise_exception(first);
        match want {
            Some(v) => assert_eq!((b.eip(), b.shutdowns()), (0x4000 + v, 0), "{first:?}"),
            None => assert_eq!(b.shutdowns(), 1),
        }
        if first.vector == Vector::PageFault {
            assert_eq!(b.cr2, 0x1234);
            assert_eq!(b.frame(4, 2), [0, 0x8000]);
        }
        if want == Some(13) {
            assert_eq!(b.frame(4, 1), [6 * 8 + 3]);
        }
    }
    let mut b = Bench::protected(0);
    b.idtr.limit = 0;
    b.raise(Vector::GeneralProtection, Some(0));
    assert!(b.is_shut_down());
    assert_eq!(b.poll(), Poll::Halt(None));
}

#[test]
fn long_mode() {
    let mut b = Bench::long(3);
    b.handler(14, 0, 0x4000);
    b.set_rflags(0x246);
    b.raise_exception(Exception::page_fault(0xdead_0000, 6));
    assert_eq!((b.eip(), b.cpl(), b.cr2), (0x4000, 0, 0xdead_0000));
    assert_eq!(b.frame(8, 6), [6, 0x8000, UCODE.into(), 0x1_0246, 0x9000, UDATA.into()]);
    assert_eq!((b.segment(Seg::Ss).selector, b.segment(Seg::Ss).usable()), (0, false));
    b.r[gpr::RSP as usize] += 8;
    b.iret(Size::W64).unwrap();
    assert_eq!((b.eip(), b.cpl(), b.sp(), b.rflags()), (0x8000, 3, 0x9000, 0x246));
    assert!(b.is_long());

    // IST 1 and the alignment of the frame; same level.
    let mut b = Bench::long(0);
    b.idt(2, gate(14, 0, KCODE, 0x4000, 1));
    b.r[gpr::RSP as usize] = 0x9005;
    b.deliver_interrupt(2);
    assert_eq!(b.sp(), 0x6000 - 40);
    assert_eq!(b.frame(8, 5), [0x8000, KCODE.into(), 2, 0x9005, KDATA.into()]);
    // A handler with a bad stack: #SS(EXT), itself impossible, then shutdown.
    let mut b = Bench::long(0);
    b.handler(0x40, 0, 0x4000);
    b.r[gpr::RSP as usize] = 1 << 60;
    b.deliver_interrupt(0x40);
    assert_eq!(b.shutdowns(), 1);
    // IRET to a non-canonical address is #GP(0) at IRET.
    let mut b = Bench::long(0);
    for (n, v) in [1 << 60, u64::from(UCODE), 2, 0, u64::from(UDATA)].into_iter().enumerate() {
        b.put(0x9000 + 8 * n as u64, 8, v);
    }
    assert_eq!(b.iret(Size::W64), Err(Exception::gp(0)));
    assert_eq!((b.cpl(), b.sp()), (0, 0x9000));
    // NT in long mode.
    b.set_rflags(flags::NT | 2);
    assert_eq!(b.iret(Size::W64), Err(Exception::gp(0)));
}

#[test]
fn compatibility_mode() {
    let mut b = Bench::long(0);
    b.put(GDT + u64::from(FREE), 8, flat(11, 3, 4));
    for (n, v) in [0x1_0000, u64::from(FREE | 3), 0x202, 0xffff_8000, u64::from(UDATA)].into_iter().enumerate() {
        b.put(0x9000 + 8 * n as u64, 8, v);
    }
    b.iret(Size::W64).unwrap();
    assert!(!b.is_long() && b.lma());
    assert_eq!((b.eip(), b.cpl(), b.sp()), (0x1_0000, 3, 0xffff_8000));
    b.handler(0x80, 3, 0x4000);
    b.soft_int(0x80, 2);
    assert!(b.is_long());
    assert_eq!(b.frame(8, 4), [0x1_0002, u64::from(FREE | 3), 0x202, 0xffff_8000]);
}

#[test]
fn virtual_8086() {
    let mut b = Bench::protected(0);
    let image = u64::from(flags::VM | flags::IF | 2);
    for (n, v) in [0x10, 0x2000, image, 0x100, 0x3000, 0x11, 0x12, 0x13, 0x14].into_iter().enumerate() {
        b.put(0x9000 + 4 * n as u64, 4, v);
    }
    b.iret(Size::W32).unwrap();
    assert!(b.vm86() && b.cpl() == 3);
    assert_eq!((b.header.pc, b.segment(Seg::Ss).base, b.segment(Seg::Gs).selector), (0x2_0010, 0x3_0000, 0x14));
    // IOPL 0: INT n is the monitor's.
    b.handler(13, 0, 0x4000);
    b.soft_int(0x21, 2);
    assert_eq!((b.eip(), b.cpl(), b.vm86()), (0x4000, 0, false));
    let want = [0, 0x10, 0x2000, image | 0x1_0000, 0x100, 0x3000, 0x11, 0x12, 0x13, 0x14];
    assert_eq!(b.frame(4, 10), want);
    assert!(!b.segment(Seg::Ds).usable());
    b.r[gpr::RSP as usize] += 4;
    b.iret(Size::W32).unwrap();
    assert!(b.vm86());
    // With VME and a clear bit in the redirection bitmap it stays in the 8086 program.
    b.cr4 |= cr4::VME;
    b.tr.limit = 0xff;
    b.put(TSS + 102, 2, 0x88);
    b.put(0x21 * 4, 4, 0x0666_0777);
    b.eflags |= flags::VIF;
    b.soft_int(0x21, 2);
    assert!(b.vm86());
    assert_eq!((b.segment(Seg::Cs).selector, b.eip(), b.sp()), (0x666, 0x777, 0xfa));
    assert_eq!([b.get(0x300fa, 2), b.get(0x300fe, 2)], [0x12, 0x3202], "VIF as IF, IOPL 3");
    assert_eq!(b.eflags & flags::VIF, 0);
    b.iret(Size::W16).unwrap();
    assert_eq!((b.eip(), b.eflags & flags::VIF), (0x12, flags::VIF));
    assert_eq!(b.popf(flags::TF, 16), Err(Exception::gp(0)));
    b.eflags |= flags::VIP;
    assert_eq!(b.sti(), Err(Exception::gp(0)));
    assert_eq!(b.cli(), Ok(()));
    assert_eq!(b.eflags & flags::VIF, 0);
}

#[test]
fn interrupts_and_their_shadow() {
    let mut b = Bench::protected(0);
    b.handler(0x40, 0, 0x4000);
    b.handler(2, 0, 0x4100);
    b.hooks.vector.store(0x41, Ordering::SeqCst);
    b.pins().signal(pin::INTR);
    assert_eq!(b.poll(), Poll::Run);
    assert_eq!((b.eip(), b.interrupt_waits), (0x8000, pin::INTR), "masked");
    b.sti().unwrap();
    b.set_shadow(false);
    b.poll();
    assert_eq!(b.eip(), 0x8000, "shadow of STI");
    b.begin_one_insn();
    b.hlt(1).unwrap();
    assert!(b.halted());
    b.poll();
    assert_eq!((b.eip(), b.halted()), (0x4000, false));
    assert_eq!(b.frame(4, 1), [0x8001]);
    // NMIs do not nest until IRET.
    b.pins().clear(pin::INTR);
    b.pins().signal(pin::NMI);
    b.poll();
    assert_eq!(b.eip(), 0x4100);
    b.pins().signal(pin::NMI);
    b.poll();
    assert_eq!((b.eip(), b.sp()), (0x4100, 0x9000 - 24));
    b.iret(Size::W32).unwrap();
    b.poll();
    assert_eq!((b.eip(), b.sp()), (0x4100, 0x9000 - 24), "the second");
    // Halted with interrupts off: only an NMI wakes.
    let mut b = Bench::protected(0);
    b.hlt(1).unwrap();
    b.pins().signal(pin::INTR);
    assert_eq!(b.poll(), Poll::Halt(None));
}

#[test]
fn init_and_start_up() {
    let mut b = Bench::protected(0);
    b.index = 1;
    b.pins().signal(pin::INIT);
    assert_eq!(b.poll(), Poll::Halt(None));
    assert!(b.waits_for_sipi() && b.cr0 & cr0::PE == 0);
    b.pins().startup(0x9a);
    assert_eq!(b.poll(), Poll::Run);
    assert_eq!((b.header.pc, b.eip(), b.segment(Seg::Cs).selector), (0x9_a000, 0, 0x9a00));
}

#[test]
fn two_nmis_wait_but_one_behind_a_handler() {
    for (in_handler, want) in [(0, 2), (10, 2)] {
        let mut b = Bench::protected(0);
        b.handler(2, 0, 0x4100);
        b.pins().signal(pin::NMI);
        if in_handler == 0 {
            b.pins().signal(pin::NMI);
        }
        let mut taken = 0;
        while taken < 5 {
            b.header.pc = 0x8000;
            b.poll();
            if b.eip() != 0x4100 {
                break;
            }
            taken += 1;
            if taken == 1 {
                for _ in 0..in_handler {
                    b.pins().signal(pin::NMI);
                    b.poll();
                }
            }
            b.iret(Size::W32).unwrap();
        }
        assert_eq!(taken, want);
        assert_eq!(b.pins().bits(), 0);
    }
}

/// The paravirtual TLB flush: a halted processor is asked by a bit in its steal time area.
#[test]
fn halted_processors_flush_when_they_go_on() {
    const AREA: u64 = 0x5000;
    const PREEMPTED: u64 = AREA + 16;
    let mut b = Bench::protected(0);
    let mut c = config(Vendor::Intel);
    c.kvm = true;
    c.set(F::KvmStealTime, true);
    b.config = std::sync::Arc::new(c);
    b.write_msr(0x4b56_4d03, AREA | 1).unwrap();
    let halt_and_wake = |b: &mut Bench, asked: bool| {
        b.hlt(1).unwrap();
        assert_eq!((b.poll(), b.poll()), (Poll::Halt(None), Poll::Halt(None)));
        assert_eq!(b.get(PREEMPTED, 1), 1);
        b.take_flushes();
        if asked {
            b.put(PREEMPTED, 1, 3);
        }
        b.pins().signal(pin::WAKE);
        assert_eq!(b.poll(), Poll::Run);
        assert_eq!(b.get(PREEMPTED, 1), 0);
        assert_eq!(!b.take_flushes().is_empty(), asked);
    };
    halt_and_wake(&mut b, false);
    halt_and_wake(&mut b, true);
    // Without the area nothing is written.
    b.write_msr(0x4b56_4d03, 0).unwrap();
    b.put(PREEMPTED, 1, 7);
    b.hlt(1).unwrap();
    b.poll();
    assert_eq!(b.get(PREEMPTED, 1), 7);
}

#[test]
fn an_x87_error_without_ne_stands_until_an_interrupt() {
    let mut b = Bench::protected(0);
    b.handler(0x75, 0, 0x4000);
    b.x87.set_control_word(0x37b);
    b.x87.set_status_word(4);
    b.set_rflags(0x202);
    assert!(!b.x87_wait());
    // The instruction did not run, and nothing goes on.
    assert_eq!((b.poll(), b.eip()), (Poll::Halt(None), 0x8000));
    b.hooks.vector.store(0x75 + 1, Ordering::SeqCst);
    b.pins().set_intr(true);
    assert_eq!((b.poll(), b.eip()), (Poll::Run, 0x4000));
    assert_eq!(b.frame(4, 1), [0x8000], "it is the one to return to");
    b.x87.set_status_word(0);
    assert!(b.x87_wait());
}
