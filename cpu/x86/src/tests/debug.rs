use super::*;
use crate::debug::{DebugEvent, HostWatch};
use crate::exception::{Exception, Vector};
use crate::flags;
use crate::mode::X86Mode;
use rhea_ir::guest::{Access, Guest, MemAccess, Poll, Raised};

const FIXED: u64 = 0xffff_0ff0;

fn bench() -> Bench {
    let mut b = Bench::protected(0);
    b.handler(1, 0, 0x4000);
    b
}
/// One instruction of a block of its own, which goes on at `next`.
fn step(b: &mut Bench, next: u64) {
    assert!(X86Mode(b.header.mode).one_insn());
    b.begin_one_insn();
    b.complete(next);
}
impl Bench {
    fn debugctl(&self) -> u64 {
        self.msr.debugctl
    }
}
fn write(va: u64, size: u32) -> MemAccess {
    MemAccess { va, size, kind: Access::Write, mmu_idx: 0 }
}

#[test]
fn single_step() {
    let mut b = bench();
    b.set_rflags(0x102);
    step(&mut b, 0x8001);
    assert_eq!((b.eip(), b.dr[6]), (0x4000, FIXED | 1 << 14));
    assert_eq!(b.frame(4, 3), [0x8001, KCODE.into(), 0x102]);
    assert_eq!(b.eflags & flags::TF, 0);
    // The shadow of MOV SS has no trap.
    let mut b = bench();
    b.set_rflags(0x102);
    b.begin_one_insn();
    b.load_segment(2, KDATA).unwrap();
    b.complete(0x8002);
    assert_eq!(b.eip(), 0x8002);
    step(&mut b, 0x8003);
    assert_eq!(b.frame(4, 1), [0x8003]);
}

#[test]
fn instruction_breakpoints() {
    let mut b = bench();
    b.write_dr(1, 0x8000).unwrap();
    b.write_dr(7, 0x404 | 1 << 13).unwrap();
    assert!(X86Mode(b.header.mode).breakpoints());
    assert_eq!(b.read_dr(6), Err(Exception { vector: Vector::Debug, code: None, cr2: 1 << 13 }));
    b.breakpoint_check();
    assert_eq!((b.eip(), b.dr[6], b.dr[7]), (0x4000, FIXED | 2, 0x404), "a fault, and GD is cleared");
    assert_eq!(b.frame(4, 3), [0x8000, KCODE.into(), 2]);
    b.header.pc = 0x8000;
    b.set_rflags(2 | flags::RF);
    b.breakpoint_check();
    assert_eq!((b.eip(), b.eflags & flags::RF), (0x8000, 0), "RF lets one through");
    b.breakpoint_check();
    assert_eq!(b.eip(), 0x4000);
}

#[test]
fn instruction_breakpoints_behind_mov_ss() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let mut b = bench();
        b.cpu.config = std::sync::Arc::new(config(vendor));
        b.write_dr(0, 0x8002).unwrap();
        b.write_dr(7, 0x402).unwrap();
        b.begin_one_insn();
        b.load_segment(2, KDATA).unwrap();
        b.complete(0x8002);
        b.breakpoint_check();
        assert_eq!(b.eip(), if vendor == Vendor::Amd { 0x4000 } else { 0x8002 });
    }
}

#[test]
fn data_breakpoints() {
    let mut b = bench();
    b.write_dr(0, 0x5004).unwrap();
    // DR0: writes of 4 bytes.
    b.write_dr(7, 1 | 0xd << 16).unwrap();
    assert!(b.page_is_watched(0x5000) && !b.page_is_watched(0x6000));
    assert_eq!(b.check_access(write(0x5000, 4)), Ok(()));
    assert_eq!(b.check_access(MemAccess { kind: Access::Read, ..write(0x5004, 4) }), Ok(()));
    assert_eq!(b.check_access(write(0x5002, 4)), Err(Raised), "again, alone");
    b.begin_one_insn();
    assert_eq!(b.check_access(write(0x5002, 4)), Ok(()));
    b.complete(0x8005);
    assert_eq!((b.eip(), b.dr[6]), (0x4000, FIXED | 1));
    assert_eq!(b.frame(4, 1), [0x8005], "a trap");
    assert!(!X86Mode(b.header.mode).one_insn());
    // A fault of the instruction comes instead.
    b.header.pc = 0x8000;
    b.handler(13, 0, 0x4100);
    assert!(b.check_access(write(0x5004, 1)).is_err());
    b.begin_one_insn();
    b.check_access(write(0x5004, 1)).unwrap();
    b.raise(Vector::GeneralProtection, Some(0));
    assert_eq!((b.eip(), b.debug.pending), (0x4100, 0));
}

#[test]
fn port_breakpoints() {
    let mut b = bench();
    b.write_dr(3, 0x3f8).unwrap();
    b.write_dr(7, 0x80 | 2 << 28).unwrap();
    b.watch_port(0x3f8, 1);
    assert_eq!(b.debug.pending, 0, "CR4.DE is clear");
    b.cr4 |= cr4::DE;
    b.watch_port(0x3f6, 4);
    b.complete(0x8001);
    assert_eq!((b.eip(), b.dr[6] & 15), (0x4000, 8));
    assert_eq!(b.write_dr(4, 0), Err(Exception::ud()));
}

#[test]
fn int1_leaves_no_cause() {
    let mut b = Bench::protected(3);
    b.handler(1, 0, 0x4000);
    b.dr[6] |= 1;
    b.int1(1);
    assert_eq!((b.eip(), b.dr[6]), (0x4000, FIXED), "the gate's level does not count");
    assert_eq!(b.frame(4, 1), [0x8001]);
}

#[test]
fn the_debugger() {
    let mut b = bench();
    b.add_host_breakpoint(0x8000);
    b.breakpoint_check();
    assert_eq!(b.poll(), Poll::Debug);
    assert_eq!(b.take_debug_event(), Some(DebugEvent::Breakpoint));
    b.header.raised = 0;
    b.breakpoint_check();
    assert_eq!((b.header.raised, b.take_debug_event()), (0, None), "goes on");
    b.remove_host_breakpoint(0x8000);
    b.set_host_step(true);
    step(&mut b, 0x8001);
    assert_eq!((b.poll(), b.take_debug_event()), (Poll::Debug, Some(DebugEvent::Step)));
    let w = HostWatch { va: 0x5000, len: 8, read: false, write: true };
    b.add_host_watch(w);
    assert_eq!(b.check_access(write(0x5007, 1)), Err(Raised));
    assert_eq!(b.take_debug_event(), Some(DebugEvent::Watchpoint { va: 0x5000, write: true }));
    assert_eq!(b.check_access(write(0x5007, 1)), Ok(()));
    b.remove_host_watch(w);
    assert!(!b.page_is_watched(0x5000));
}

#[test]
fn near_the_limit() {
    let mut b = bench();
    let cs = *b.segment(Seg::Cs);
    b.set_segment(Seg::Cs, Segment { limit: 0x8010, ..cs });
    b.set_near_limit();
    assert!(X86Mode(b.header.mode).near_limit());
    step(&mut b, 0x8004);
    assert!(X86Mode(b.header.mode).near_limit());
    step(&mut b, 0x2000);
    assert!(!X86Mode(b.header.mode).near_limit());
}

#[test]
fn a_data_breakpoint_of_mov_ss_follows_int3() {
    let mut b = bench();
    b.handler(3, 0, 0x4200);
    b.begin_one_insn();
    b.debug.pending = 4;
    b.load_segment(2, KDATA).unwrap();
    b.complete(0x8002);
    assert_eq!(b.eip(), 0x8002);
    b.begin_one_insn();
    b.int3(1);
    assert_eq!(b.eip(), 0x4200);
    b.poll();
    assert_eq!((b.eip(), b.dr[6]), (0x4000, FIXED | 4));
    assert_eq!(b.frame(4, 1), [0x4200], "on the handler's first instruction");
}

#[test]
fn flushes_reach_every_kept_translation() {
    // More flushes than there are generations.
    let mut b = Bench::long(0);
    for n in 0..600_u64 {
        let page = 0x20_0000 + (n % 7) * 0x20_0000;
        b.put(PML4 + 0x2000, 8, page | 0x87);
        b.invlpg(0);
        assert_eq!(b.linear_to_physical(0x1234, false, 0).unwrap(), page + 0x1234);
        if n % 3 == 0 {
            b.put(PML4 + 0x2000, 8, 0x87);
            b.flush_all();
        }
    }
}

/// Steps over an instruction at 0x8000 that goes on at `next`, with TF and DEBUGCTL.
fn step_over(code: [u8; 2], next: u64, debugctl: u64) -> Bench {
    let mut b = bench();
    b.put(0x8000, 2, u16::from_le_bytes(code).into());
    b.set_rflags(0x102);
    b.write_msr(0x1d9, debugctl).unwrap();
    step(&mut b, next);
    b
}

#[test]
fn single_step_by_branches() {
    const JMP: [u8; 2] = [0xeb, 0x10];
    const JE: [u8; 2] = [0x74, 0x10];
    let trapped = |b: &Bench| (b.eip() == 0x4000, b.debugctl());
    assert_eq!(trapped(&step_over([0x90, 0x90], 0x8001, 2)), (false, 2));
    assert_eq!(trapped(&step_over(JE, 0x8002, 2)), (false, 2), "not taken");
    // The exception clears BTF.
    assert_eq!(trapped(&step_over(JE, 0x8012, 2)), (true, 0));
    assert_eq!(trapped(&step_over(JMP, 0x8012, 2)), (true, 0));
    assert_eq!(trapped(&step_over([0xeb, 0], 0x8002, 2)), (true, 0), "taken, though it goes nowhere else");
    assert_eq!(trapped(&step_over([0xff, 0xe0], 0x9000, 2)), (true, 0));
    assert_eq!(trapped(&step_over([0x90, 0x90], 0x8001, 0)), (true, 0));
}

#[test]
fn last_branch() {
    let mut b = bench();
    let last = |b: &mut Bench| [0x1db, 0x1dc, 0x1dd, 0x1de].map(|msr| b.read_msr(msr).unwrap());
    b.put(0x8000, 2, 0x10eb);
    b.begin_one_insn();
    b.complete(0x8012);
    assert_eq!(last(&mut b), [0; 4], "not asked for");
    b.write_msr(0x1d9, 1).unwrap();
    b.header.pc = 0x8000;
    step(&mut b, 0x8012);
    b.put(0x8012, 1, 0x90);
    step(&mut b, 0x8013);
    assert_eq!(last(&mut b), [0x8000, 0x8012, 0, 0]);
    // An exception is a branch too, and keeps the one before it.
    b.handler(13, 0, 0x4100);
    b.raise(Vector::GeneralProtection, Some(0));
    assert_eq!(last(&mut b), [0x8013, 0x4100, 0x8000, 0x8012]);
    assert_eq!(b.debugctl(), 1);
}
