use super::*;
use crate::exception::Exception;
use crate::flags;
use crate::segment::Size;

const NEW: u64 = 0x3800;
const LINK: u64 = GDT + FREE as u64;

/// A second 32-bit task at `NEW`, available, in the free descriptor.
fn tasks() -> Bench {
    let mut b = Bench::protected(0);
    b.put(LINK, 8, 0x67 | NEW << 16 | 0x89 << 40);
    b.put(NEW + 0x20, 4, 0x5000);
    b.put(NEW + 0x24, 4, 0x2);
    b.put(NEW + 0x28, 4, 0x1111);
    b.put(NEW + 0x38, 4, 0xa000);
    for (n, s) in [KDATA, KCODE, KDATA, KDATA, 0, 0].into_iter().enumerate() {
        b.put(NEW + 0x48 + 4 * n as u64, 4, s.into());
    }
    b.r[0] = 0x2222;
    b
}

#[test]
fn call_and_return() {
    let mut b = tasks();
    b.far_call(FREE, 0, Size::W32, 7).unwrap();
    assert_eq!((b.eip(), b.r[0], b.sp()), (0x5000, 0x1111, 0xa000));
    assert_eq!((b.tr.selector, b.tr.base), (FREE.into(), NEW));
    assert_eq!(b.eflags & flags::NT, flags::NT);
    assert_ne!(b.cr0 & cr0::TS, 0);
    assert_eq!(b.get(NEW, 2), u64::from(TSS_SEL), "link");
    assert_eq!([b.get(LINK + 5, 1), b.get(GDT + 0x2d, 1)], [0x8b, 0x8b], "both busy");
    assert_eq!([b.get(TSS + 0x20, 4), b.get(TSS + 0x28, 4)], [0x8007, 0x2222]);
    assert_eq!(b.far_call(FREE, 0, Size::W32, 7), Err(Exception::gp(FREE.into())), "busy");
    b.header.pc = 0x5010;
    b.put(0x5010, 1, 0xcf);
    b.iret(Size::W32).unwrap();
    assert_eq!((b.eip(), b.r[0], b.sp(), b.eflags & flags::NT), (0x8007, 0x2222, 0x9000, 0));
    assert_eq!([b.get(LINK + 5, 1), b.get(GDT + 0x2d, 1)], [0x89, 0x8b]);
    assert_eq!(b.get(NEW + 0x20, 4), 0x5011);
}

#[test]
fn jump_through_a_gate() {
    let mut b = tasks();
    b.put(GDT + 0x50, 8, gate(5, 0, FREE, 0, 0));
    b.far_jmp(0x50, 0, Size::W32, 7).unwrap();
    assert_eq!((b.eip(), b.eflags & flags::NT), (0x5000, 0));
    assert_eq!([b.get(LINK + 5, 1), b.get(GDT + 0x2d, 1)], [0x8b, 0x89]);
}

#[test]
fn exception_through_a_gate() {
    let mut b = tasks();
    b.idt(8, gate(5, 0, FREE, 0, 0));
    b.raise(crate::Vector::GeneralProtection, Some(0));
    assert_eq!(b.eip(), 0x5000, "#GP has no gate: #DF in its task");
    assert_eq!(b.frame(4, 1), [0]);
    assert_eq!(b.get(TSS + 0x20, 4), 0x8000);
}

#[test]
fn errors() {
    // Change to the new TSS or its descriptor; the exception.
    let rows: [(u64, u8, u64, Exception); 6] = [
        (LINK, 2, 0x60, Exception::ts(FREE.into())),
        (NEW + 0x4c, 2, 0, Exception::ts(0)),
        (NEW + 0x4c, 2, KDATA.into(), Exception::ts(KDATA.into())),
        (NEW + 0x50, 2, UDATA.into(), Exception::ts(0x20)),
        (NEW + 0x54, 2, 0x100, Exception::ts(0x100)),
        (NEW + 0x60, 2, KDATA.into(), Exception::ts(KDATA.into())),
    ];
    for (at, size, v, want) in rows {
        let mut b = tasks();
        b.put(at, size, v);
        assert_eq!(b.far_jmp(FREE, 0, Size::W32, 7), Err(want), "{at:#x}");
        // The switch happened unless the TSS itself was wrong.
        assert_eq!(b.tr.base, if at == LINK { TSS } else { NEW });
    }
}

#[test]
fn sixteen_bits() {
    let mut b = tasks();
    b.put(LINK + 5, 1, 0x81);
    b.put(NEW + 0x0e, 2, 0x5000);
    b.put(NEW + 0x10, 2, 2);
    b.put(NEW + 0x12, 2, 0x1234);
    b.put(NEW + 0x1a, 2, 0xa000);
    for (n, s) in [KDATA, KCODE, KDATA, KDATA].into_iter().enumerate() {
        b.put(NEW + 0x22 + 2 * n as u64, 2, s.into());
    }
    b.put(NEW + 0x2a, 2, 0);
    b.far_call(FREE, 0, Size::W32, 7).unwrap();
    assert_eq!((b.eip(), b.r[0]), (0x5000, 0xffff_1234));
    assert!(!b.segment(Seg::Fs).usable());
}

#[test]
fn trap_bit() {
    let mut b = tasks();
    b.handler(1, 0, 0x4000);
    b.put(NEW + 0x64, 2, 1);
    b.far_jmp(FREE, 0, Size::W32, 7).unwrap();
    assert_eq!((b.eip(), b.dr[6]), (0x4000, 0xffff_8ff0));
    assert_eq!(b.frame(4, 1), [0x5000]);
}

#[test]
fn port_permissions() {
    let mut b = Bench::protected(3);
    b.tr.limit = 0x68 + 0x20;
    b.put(TSS + 102, 2, 0x68);
    b.put(TSS + 0x68, 8, 0xffff_ffff_ffff_ff01);
    for (port, size, ok) in [(0, 1, false), (1, 1, true), (1, 4, true), (6, 2, true), (7, 2, false), (0x200, 1, false)]
    {
        assert_eq!(b.check_io(port, size).is_ok(), ok, "{port}");
    }
    b.eflags |= flags::IOPL;
    assert!(b.check_io(0, 1).is_ok());
}
