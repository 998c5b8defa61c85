//! Runs tests on the host's processor, in a child process.
//!
//! The child is one signal handler: each test ends in an exception (INT3 if in no other), whose signal frame has the whole
//! state; the handler takes it down, puts the next test's state there and returns into it.
#![expect(unsafe_code, reason = "the tests are native code that runs on memory at fixed addresses")]

use super::state::{Outcome, STACK_BYTES, STACK_WINDOW, State, Test, WINDOW, place};
use std::mem::offset_of;

/// Head of the memory shared with the child, which is mapped at [`SHARED`] there; the inputs and outcomes follow.
#[repr(C, align(64))]
struct Shared {
    count: usize,
    /// Number of the running test; −1 before the first.
    current: isize,
    inputs: *const Input,
    outcomes: *mut Outcome,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Input {
    state: State,
    bits: u32,
}

/// Where the handler finds its data. Neither are processes there, nor do tests make such addresses.
const SHARED: usize = 0x2a5a_1234_0000;
const HANDLER_STACK: usize = 0x2a5a_0123_0000;
const HANDLER_STACK_SIZE: usize = 1 << 20;

const FIXED: i32 = libc::MAP_FIXED_NOREPLACE;
const ANONYMOUS: i32 = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Runs the tests. `None` if the host cannot.
pub fn run(tests: &[Test]) -> Option<Vec<Outcome>> {
    let head = size_of::<Shared>();
    let inputs = head.next_multiple_of(64);
    let outcomes = (inputs + size_of::<Input>() * tests.len()).next_multiple_of(64);
    let size = outcomes + size_of::<Outcome>() * tests.len();
    let image = Test::image(tests);
    // SAFETY: a new mapping.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), size, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0) };
    if base == libc::MAP_FAILED {
        return None;
    }
    let base = base.cast::<u8>();
    // SAFETY: the mapping has `size` bytes, room for what is laid out in it; mappings are page-aligned and the offsets are
    // multiples of 64, which no part's alignment exceeds.
    unsafe {
        base.cast::<Shared>().write(Shared {
            count: tests.len(),
            current: -1,
            inputs: (SHARED + inputs) as *const Input,
            outcomes: (SHARED + outcomes) as *mut Outcome,
        });
        let to = base.add(inputs).cast::<Input>();
        for (n, t) in tests.iter().enumerate() {
            to.add(n).write(Input { state: State { rip: Test::address(n), ..t.state }, bits: t.bits });
        }
    }
    // SAFETY: the child makes system calls and nothing else: no allocation, no lock, no return.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: this is the child; `base` is its copy of the mapping of `size` bytes.
        unsafe { child_main(base, size, &image) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    // SAFETY: the child is gone, and wrote plain data within the mapping.
    let (results, current) = unsafe {
        let from = base.add(outcomes).cast::<Outcome>();
        let results = (0..tests.len()).map(|n| from.add(n).read()).collect();
        (results, (*base.cast::<Shared>()).current)
    };
    // SAFETY: nothing refers to the mapping any more.
    unsafe { libc::munmap(base.cast(), size) };
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "the child with the native tests ended with status {status:#x} in test {current}: {:x?}",
        usize::try_from(current).ok().and_then(|n| tests.get(n)).map(|t| &t.code)
    );
    Some(results)
}

/// # Safety
/// In a forked child only. `base` is a shared mapping of `size` bytes that begins with [`Shared`].
unsafe fn child_main(base: *mut u8, size: usize, image: &[u8]) -> ! {
    // SAFETY: mappings where the process has none (it fails otherwise), system calls, and a copy into the first of them.
    unsafe {
        let fail = |code: i32| -> ! { libc::_exit(code) };
        let map = |at: u64, size: u64| {
            if libc::mmap(at as *mut _, size as usize, RW, ANONYMOUS | FIXED, -1, 0) as u64 != at {
                fail(11);
            }
        };
        let shared =
            libc::mremap(base.cast(), size, size, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, SHARED as *mut u8);
        if shared as usize != SHARED {
            fail(12);
        }
        map(place::CODE, place::CODE_SIZE);
        map(place::DATA, place::DATA_SIZE);
        map(place::STACK, place::STACK_SIZE);
        map(HANDLER_STACK as u64, HANDLER_STACK_SIZE as u64);
        std::ptr::copy_nonoverlapping(image.as_ptr(), place::CODE as *mut u8, image.len());
        libc::mprotect(place::CODE as *mut _, place::CODE_SIZE as usize, libc::PROT_READ | libc::PROT_EXEC);
        let stack = libc::stack_t { ss_sp: HANDLER_STACK as *mut _, ss_flags: 0, ss_size: HANDLER_STACK_SIZE };
        if libc::sigaltstack(&raw const stack, std::ptr::null_mut()) != 0 {
            fail(13);
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS, libc::SIGTRAP] {
            if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
                fail(14);
            }
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        }
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(20);
        const ARCH_SET_GS: i32 = 0x1001;
        libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, place::GS);
        // DS and ES count in compatibility mode: Linux's user data segment. Then the first call of the handler.
        std::arch::asm!("mov ds, {0:x}", "mov es, {0:x}", "int3", in(reg) 0x2bu32);
        fail(15)
    }
}

/// Offsets in the frame of an XSAVE area: FXSAVE's part, XSTATE_BV and the upper halves of YMM.
mod frame {
    pub const FSW: usize = 2;
    pub const TAGS: usize = 4;
    pub const FOP: usize = 6;
    pub const FIP: usize = 8;
    pub const FDP: usize = 16;
    pub const MXCSR: usize = 24;
    pub const ST: usize = 32;
    pub const XMM: usize = 160;
    pub const XSTATE_BV: usize = 512;
    pub const YMM: usize = 576;
}

/// Places of RAX, RCX, ... in `gregs`.
const GREGS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: only `child_main` installs this handler, after it mapped everything named here. The kernel gives a context
    // whose frame of FP state is an XSAVE area with AVX state (`run` is called only if the processor has AVX). The outcome
    // and input are within their arrays: `current` is less than `count`.
    unsafe {
        // The kernel leaves EFLAGS.AC as the test had it, and this code is not compiled for that.
        std::arch::asm!("pushfq", "and dword ptr [rsp], 0xfffbffff", "popfq");
        let shared = SHARED as *mut Shared;
        let context = context.cast::<libc::ucontext_t>();
        let gregs = &mut (*context).uc_mcontext.gregs;
        let fp = (*context).uc_mcontext.fpregs.cast::<u8>();
        let inputs = (*shared).inputs;
        if (*shared).current >= 0 {
            let n = (*shared).current as usize;
            let out = (*shared).outcomes.add(n);
            let s = &raw mut (*out).state;
            for (k, &g) in GREGS.iter().enumerate() {
                (*s).r[k] = gregs[g as usize] as u64;
            }
            (*s).rip = gregs[libc::REG_RIP as usize] as u64;
            (*s).rflags = gregs[libc::REG_EFL as usize] as u64;
            (*out).vector = gregs[libc::REG_TRAPNO as usize] as u32;
            (*out).error = gregs[libc::REG_ERR as usize] as u32;
            (*out).cr2 = gregs[libc::REG_CR2 as usize] as u64;
            let bv = fp.add(frame::XSTATE_BV).cast::<u64>().read_unaligned();
            (*s).fcw = 0x37f;
            (*s).mxcsr = fp.add(frame::MXCSR).cast::<u32>().read_unaligned();
            if bv & 1 != 0 {
                (*s).fcw = fp.cast::<u16>().read_unaligned();
                (*s).fsw = fp.add(frame::FSW).cast::<u16>().read_unaligned();
                (*s).tags = fp.add(frame::TAGS).read().into();
                (*s).fop = fp.add(frame::FOP).cast::<u16>().read_unaligned().into();
                (*s).fip = fp.add(frame::FIP).cast::<u64>().read_unaligned();
                (*s).fdp = fp.add(frame::FDP).cast::<u64>().read_unaligned();
                std::ptr::copy_nonoverlapping(fp.add(frame::ST), (&raw mut (*s).st).cast(), 128);
                for st in &mut (*s).st {
                    st[1] &= 0xffff;
                }
            }
            if bv & 2 != 0 {
                std::ptr::copy_nonoverlapping(fp.add(frame::XMM), (&raw mut (*s).xmm).cast(), 256);
            }
            if bv & 4 != 0 {
                std::ptr::copy_nonoverlapping(fp.add(frame::YMM), (&raw mut (*s).ymm_hi).cast(), 256);
            }
            std::ptr::copy_nonoverlapping(place::DATA as *const u8, (&raw mut (*s).data).cast(), WINDOW);
            std::ptr::copy_nonoverlapping(STACK_WINDOW as *const u8, (&raw mut (*s).stack).cast(), STACK_BYTES);
        }
        (*shared).current += 1;
        let n = (*shared).current as usize;
        if n >= (*shared).count {
            libc::_exit(0);
        }
        let input = inputs.add(n);
        let s = &raw const (*input).state;
        for (k, &g) in GREGS.iter().enumerate() {
            gregs[g as usize] = (*s).r[k] as i64;
        }
        gregs[libc::REG_RIP as usize] = (*s).rip as i64;
        gregs[libc::REG_EFL as usize] = (*s).rflags as i64;
        let cs: i64 = if (*input).bits == 32 { 0x23 } else { 0x33 };
        // CS, GS, FS, SS.
        gregs[libc::REG_CSGSFS as usize] = gregs[libc::REG_CSGSFS as usize] & 0xffff_ffff_0000 | cs | 0x2b << 48;
        std::ptr::copy_nonoverlapping((&raw const (*s).fcw).cast::<u8>(), fp, 2);
        fp.add(frame::FSW).cast::<u16>().write_unaligned((*s).fsw);
        fp.add(frame::TAGS).write((*s).tags as u8);
        fp.add(frame::FOP).cast::<u16>().write_unaligned((*s).fop as u16);
        fp.add(frame::FIP).cast::<u64>().write_unaligned((*s).fip);
        fp.add(frame::FDP).cast::<u64>().write_unaligned((*s).fdp);
        fp.add(frame::MXCSR).cast::<u32>().write_unaligned((*s).mxcsr);
        std::ptr::copy_nonoverlapping((&raw const (*s).st).cast(), fp.add(frame::ST), 128);
        std::ptr::copy_nonoverlapping((&raw const (*s).xmm).cast(), fp.add(frame::XMM), 256);
        std::ptr::copy_nonoverlapping((&raw const (*s).ymm_hi).cast(), fp.add(frame::YMM), 256);
        let bv = fp.add(frame::XSTATE_BV).cast::<u64>();
        bv.write_unaligned(bv.read_unaligned() | 7);
        let data = place::DATA as *mut u8;
        std::ptr::write_bytes(data, 0, place::DATA_SIZE as usize);
        std::ptr::copy_nonoverlapping(s.cast::<u8>().add(offset_of!(State, data)), data, WINDOW);
        let stack = STACK_WINDOW as *mut u8;
        std::ptr::write_bytes(place::STACK as *mut u8, 0, place::STACK_SIZE as usize);
        std::ptr::copy_nonoverlapping(s.cast::<u8>().add(offset_of!(State, stack)), stack, STACK_BYTES);
    }
}
