//! What a test starts from and ends in.

/// Where things are, natively and in the guest.
pub mod place {
    /// Code of the tests, [`super::SLOT`] bytes each.
    pub const CODE: u64 = 0x1000_0000;
    pub const CODE_SIZE: u64 = 1 << 20;
    /// The memory window; the pages before and behind it are not mapped.
    pub const DATA: u64 = 0x2000_0000;
    /// Mapped bytes from `DATA` on; the rest behind the window is zero at the start.
    pub const DATA_SIZE: u64 = 4096;
    pub const STACK: u64 = 0x2800_0000;
    pub const STACK_SIZE: u64 = 4096;
    /// Base of GS.
    pub const GS: u64 = DATA + 0x40;
}

/// Bytes of code per test.
pub const SLOT: usize = 64;
pub const WINDOW: usize = 1024;
/// The window of the stack begins here.
pub const STACK_WINDOW: u64 = place::STACK + 2048;
pub const STACK_BYTES: usize = 512;

#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    pub r: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub mxcsr: u32,
    pub fcw: u16,
    pub fsw: u16,
    /// Abridged: bit n set if Rn is not empty.
    pub tags: u32,
    pub fop: u32,
    pub fip: u64,
    pub fdp: u64,
    /// ST(0)–ST(7) as FXSAVE has them: significand, sign and exponent.
    pub st: [[u64; 2]; 8],
    pub xmm: [u128; 16],
    pub ymm_hi: [u128; 16],
    pub data: [u8; WINDOW],
    pub stack: [u8; STACK_BYTES],
}

impl Default for State {
    fn default() -> State {
        State {
            r: [0; 16],
            rip: 0,
            rflags: 0x202,
            mxcsr: 0x1f80,
            fcw: 0x37f,
            fsw: 0,
            tags: 0,
            fop: 0,
            fip: 0,
            fdp: 0,
            st: [[0; 2]; 8],
            xmm: [0; 16],
            ymm_hi: [0; 16],
            data: [0; WINDOW],
            stack: [0; STACK_BYTES],
        }
    }
}

/// How a test ended: the exception that stopped it (3 at its end).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    pub state: State,
    pub vector: u32,
    pub error: u32,
    /// Of page faults.
    pub cr2: u64,
}

#[derive(Clone, Debug)]
pub struct Test {
    /// At most [`SLOT`] − 1 bytes; INT3 follows.
    pub code: Vec<u8>,
    /// 64, or 32 for compatibility mode.
    pub bits: u32,
    pub state: State,
    /// EFLAGS bits that the code leaves undefined.
    pub undefined: u32,
    /// Those that some instruction of it leaves undefined: all there is to say if an exception ends it early.
    pub ever_undefined: u32,
}

impl Test {
    pub fn address(n: usize) -> u64 {
        place::CODE + (n * SLOT) as u64
    }
    /// The code of all tests from [`place::CODE`] on.
    pub fn image(tests: &[Test]) -> Vec<u8> {
        let mut image = vec![0xcc; tests.len() * SLOT];
        for (n, t) in tests.iter().enumerate() {
            assert!(t.code.len() < SLOT, "a test is too long");
            image[n * SLOT..n * SLOT + t.code.len()].copy_from_slice(&t.code);
        }
        assert!(image.len() as u64 <= place::CODE_SIZE, "too many tests");
        image
    }
}
