use super::*;
use crate::exception::Exception;
use crate::flags;
use crate::segment::Size;
use crate::state::attr;

fn with_descriptor(mut b: Bench, raw: u64) -> Bench {
    b.put(GDT + u64::from(FREE), 8, raw);
    b
}

#[test]
fn data_segments() {
    let not_present = |d: u64| d & !(0x80 << 40);
    // CPL, register, selector, descriptor in the free entry, expected.
    let rows = [
        (0, Seg::Ds, 0, 0, Ok(())),
        (0, Seg::Ss, 0, 0, Err(Exception::gp(0))),
        (0, Seg::Ds, 0x100, 0, Err(Exception::gp(0x100))),
        (0, Seg::Ds, 0x104, 0, Err(Exception::gp(0x104))),
        (0, Seg::Ds, FREE, flat(3, 0, 4), Ok(())),
        (3, Seg::Ds, FREE | 3, flat(3, 0, 4), Err(Exception::gp(FREE.into()))),
        (0, Seg::Ds, FREE | 3, flat(3, 0, 4), Err(Exception::gp(FREE.into()))),
        (3, Seg::Ds, FREE, flat(3, 3, 4), Ok(())),
        (3, Seg::Ds, FREE, flat(15, 0, 4), Ok(())),
        (0, Seg::Ds, FREE, flat(9, 0, 4), Err(Exception::gp(FREE.into()))),
        (0, Seg::Es, FREE, not_present(flat(3, 0, 4)), Err(Exception::np(FREE.into()))),
        (0, Seg::Ss, FREE, not_present(flat(3, 0, 4)), Err(Exception::ss(FREE.into()))),
        (0, Seg::Ss, FREE, flat(1, 0, 4), Err(Exception::gp(FREE.into()))),
        (0, Seg::Ss, FREE | 1, flat(3, 0, 4), Err(Exception::gp(FREE.into()))),
        (0, Seg::Ss, FREE, flat(3, 3, 4), Err(Exception::gp(FREE.into()))),
        (3, Seg::Ss, FREE | 3, flat(3, 3, 4), Ok(())),
        (0, Seg::Fs, TSS_SEL, 0, Err(Exception::gp(TSS_SEL.into()))),
        (0, Seg::Cs, FREE, flat(11, 0, 4), Err(Exception::ud())),
    ];
    for (n, (cpl, seg, selector, raw, want)) in rows.into_iter().enumerate() {
        let mut b = with_descriptor(Bench::protected(cpl), raw);
        assert_eq!(b.load_segment(seg as u32, selector), want, "row {n}");
        if want.is_ok() {
            assert_eq!(b.segment(seg).selector, u32::from(selector));
        }
    }
    // The accessed bit.
    let mut b = with_descriptor(Bench::protected(0), flat(2, 0, 4));
    b.load_segment(3, FREE).unwrap();
    assert_eq!(b.get(GDT + u64::from(FREE), 8), flat(3, 0, 4));
}

#[test]
fn limits() {
    // Type, limit, B; offset, size, write; allowed.
    for (kind, limit, big, offset, size, write, ok) in [
        (3, 0xfff, true, 0xffc, 4, true, true),
        (3, 0xfff, true, 0xffd, 4, false, false),
        (1, 0xfff, true, 0, 1, true, false),
        (7, 0xfff, true, 0x1000, 4, true, true),
        (7, 0xfff, true, 0xfff, 4, true, false),
        (7, 0xfff, false, 0xfffd, 4, true, false),
        (7, 0xfff, false, 0xfffc, 4, true, true),
        (7, 0xfff, true, 0xffff_fffd, 4, true, false),
        (9, 0xfff, true, 0, 1, false, false),
        (11, 0xfff, true, 0, 1, false, true),
        (11, 0xfff, true, 0, 1, true, false),
        (3, 0xffff_ffff, true, 0xffff_fffe, 4, false, false),
    ] {
        let mut b = Bench::protected(0);
        let attr = 0x90 | kind | if big { attr::BIG } else { 0 };
        b.set_segment(Seg::Fs, Segment { limit, attr, ..Segment::default() });
        let got = b.check_segment(Seg::Fs as u32, offset, size, write).is_ok();
        assert_eq!(got, ok, "{kind} {limit:#x} {offset:#x}");
        // What generated code allows without asking is allowed.
        let s = *b.segment(Seg::Fs);
        let top = if write { s.write_top } else { s.read_top };
        assert!(offset + u64::from(size) > top || ok);
    }
    let mut b = Bench::protected(0);
    b.set_segment(Seg::Ss, Segment::UNUSABLE);
    assert_eq!(b.check_segment(Seg::Ss as u32, 0, 1, false), Err(Exception::ss(0)));
}

#[test]
fn direct_transfers() {
    for (cpl, selector, raw, want) in [
        (0, 0, 0, Err(Exception::gp(0))),
        (0, FREE, flat(11, 0, 4), Ok(())),
        (3, FREE | 3, flat(11, 0, 4), Err(Exception::gp(FREE.into()))),
        (3, FREE | 3, flat(15, 0, 4), Ok(())),
        (0, FREE | 3, flat(11, 0, 4), Err(Exception::gp(FREE.into()))),
        (0, FREE, flat(15, 3, 4), Err(Exception::gp(FREE.into()))),
        (0, FREE, flat(3, 0, 4), Err(Exception::gp(FREE.into()))),
        (0, FREE, flat(11, 0, 4) & !(0x80 << 40), Err(Exception::np(FREE.into()))),
        (0, FREE, 0x409b << 40 | 0x100, Err(Exception::gp(0))),
    ] {
        let mut b = with_descriptor(Bench::protected(cpl), raw);
        assert_eq!(b.far_jmp(selector, 0x1234, Size::W32, 7), want, "{selector:#x} {raw:#x}");
        if want.is_ok() {
            assert_eq!((b.eip(), b.segment(Seg::Cs).selector), (0x1234, u32::from(selector & !3 | cpl)));
        }
        let mut b = with_descriptor(Bench::protected(cpl), raw);
        assert_eq!(b.far_call(selector, 0x1234, Size::W32, 7), want);
        if want.is_ok() {
            let old = if cpl == 0 { KCODE } else { UCODE };
            assert_eq!(b.frame(4, 2), [0x8007, old.into()]);
            b.far_ret(Size::W32, 8).unwrap();
            assert_eq!((b.eip(), b.sp()), (0x8007, 0x9008));
        } else {
            assert_eq!(b.sp(), 0x9000);
        }
    }
}

#[test]
fn call_gates() {
    let mut b = with_descriptor(Bench::protected(3), gate(12, 3, KCODE, 0x4000, 2));
    b.put(0x9000, 4, 0xaaaa);
    b.put(0x9004, 4, 0xbbbb);
    b.far_call(FREE | 3, 0, Size::W32, 7).unwrap();
    assert_eq!((b.eip(), b.cpl()), (0x4000, 0));
    assert_eq!(b.frame(4, 6), [0x8007, UCODE.into(), 0xaaaa, 0xbbbb, 0x9000, UDATA.into()]);
    b.far_ret(Size::W32, 8).unwrap();
    assert_eq!((b.eip(), b.cpl(), b.sp()), (0x8007, 3, 0x9008));
    // JMP does not change the level; the gate's own level counts.
    assert_eq!(b.far_jmp(FREE | 3, 0, Size::W32, 7), Err(Exception::gp(KCODE.into())));
    b.put(GDT + u64::from(FREE), 8, gate(12, 0, KCODE, 0x4000, 0));
    assert_eq!(b.far_call(FREE | 3, 0, Size::W32, 7), Err(Exception::gp(FREE.into())));
    // 64-bit gates take 16 bytes and copy no parameters.
    let mut b = with_descriptor(Bench::long(3), gate(12, 3, KCODE, 0x4000, 2));
    b.far_call(FREE | 3, 0, Size::W32, 7).unwrap();
    assert_eq!((b.eip(), b.cpl()), (0x4000, 0));
    assert_eq!(b.frame(8, 4), [0x8007, UCODE.into(), 0x9000, UDATA.into()]);
    b.far_ret(Size::W64, 0).unwrap();
    assert_eq!((b.eip(), b.cpl(), b.sp()), (0x8007, 3, 0x9000));
    b.put(GDT + u64::from(FREE) + 8, 8, 1 << 40);
    assert_eq!(b.far_call(FREE | 3, 0, Size::W32, 7), Err(Exception::gp(FREE.into())));
}

#[test]
fn inquiries() {
    let mut b = Bench::protected(3);
    assert_eq!(b.lar(UDATA), Ok(Some(0x00cf_f300 & 0x00ff_ff00)));
    assert_eq!(b.lar(KDATA), Ok(None));
    assert_eq!(b.lsl(UDATA), Ok(Some(u32::MAX)));
    assert_eq!(b.verify(UDATA, true), Ok(true));
    assert_eq!(b.verify(UCODE, true), Ok(false));
    assert_eq!(b.verify(UCODE, false), Ok(true));
    assert_eq!(b.verify(0, false), Ok(false));
    assert_eq!(b.verify(0xfff8, false), Ok(false));
    assert_eq!(Bench::real().lar(8), Err(Exception::ud()));
    let mut b = Bench::protected(0);
    assert_eq!(b.ltr(TSS_SEL), Err(Exception::gp(TSS_SEL.into())), "busy");
    b.put(GDT + u64::from(TSS_SEL) + 5, 1, 0x89);
    assert_eq!(b.ltr(TSS_SEL), Ok(()));
    assert_eq!(b.get(GDT + u64::from(TSS_SEL) + 5, 1), 0x8b);
    assert_eq!(b.lldt(0), Ok(()));
    assert_eq!(b.lldt(KDATA), Err(Exception::gp(KDATA.into())));
}

#[test]
fn fast_system_calls() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let mut b = Bench::long(3);
        let mut c = config(vendor);
        c.finish();
        b.config = std::sync::Arc::new(c);
        b.msr.star = 0x0018_0008 << 32;
        b.msr.lstar = 0x4_0000;
        b.msr.sfmask = flags::IF.into();
        b.set_rflags(0x246);
        b.syscall(2).unwrap();
        assert_eq!((b.eip(), b.cpl(), b.rflags()), (0x4_0000, 0, 0x46));
        assert_eq!((b.r[gpr::RCX as usize], b.r[11]), (0x8002, 0x246));
        assert_eq!((b.segment(Seg::Cs).selector, b.segment(Seg::Ss).selector), (8, 16));
        b.r[gpr::RCX as usize] = 1 << 60;
        if vendor == Vendor::Intel {
            assert_eq!(b.sysret(true), Err(Exception::gp(0)));
        }
        b.r[gpr::RCX as usize] = 0x8002;
        b.sysret(true).unwrap();
        assert_eq!((b.eip(), b.cpl(), b.rflags(), b.is_long()), (0x8002, 3, 0x246, true));
        assert_eq!((b.segment(Seg::Cs).selector, b.segment(Seg::Ss).selector), (0x2b, 0x23));
        b.efer &= !efer::SCE;
        assert_eq!(b.syscall(2), Err(Exception::ud()));
        b.msr.sysenter_cs = 8;
        b.msr.sysenter_eip = 0x5000;
        b.msr.sysenter_esp = 0x6000;
        if vendor == Vendor::Amd {
            assert_eq!(b.sysenter(), Err(Exception::ud()));
            continue;
        }
        b.sysenter().unwrap();
        assert_eq!((b.eip(), b.cpl(), b.sp()), (0x5000, 0, 0x6000));
        b.r[gpr::RDX as usize] = 0x8004;
        b.r[gpr::RCX as usize] = 0x9004;
        b.sysexit(false).unwrap();
        assert_eq!((b.eip(), b.cpl(), b.sp(), b.is_long()), (0x8004, 3, 0x9004, false));
    }
}

#[test]
fn unreal_mode_keeps_limits() {
    let mut b = Bench::protected(0);
    b.load_segment(3, KDATA).unwrap();
    b.write_cr0(cr0::ET).unwrap();
    b.load_segment(3, 0x1234).unwrap();
    let s = *b.segment(Seg::Ds);
    assert_eq!((s.base, s.limit, s.write_top), (0x1_2340, u32::MAX, 1 << 32));
}

#[test]
fn bases_of_null_selectors() {
    let with = |family, model| {
        let mut c = config(if family == 6 { Vendor::Intel } else { Vendor::Amd });
        (c.family, c.model_number) = (family, model);
        let mut b = Bench::long(0);
        b.config = Arc::new(c);
        b.write_msr(0xc000_0100, 0x1234_5678_9000).unwrap();
        b.load_segment(Seg::Fs as u32, 0).unwrap();
        assert!(!b.segment(Seg::Fs).usable());
        b.read_msr(0xc000_0100).unwrap()
    };
    // AMD's first processors with 64 bits to Zen, Zen 2, Intel's.
    assert_eq!([with(15, 107), with(23, 1), with(23, 49), with(6, 94)], [0x1234_5678_9000, 0x1234_5678_9000, 0, 0]);
}
