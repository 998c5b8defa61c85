//! A batch of tests as one program: each test loads a state, runs its instructions and stores the state.

use super::asm::{self, Segment, constant, mov_sp, mrs, msr, pair_q, single_x};

pub const CODE: u64 = 0x40_0000;
const DATA_SEGMENT: u64 = 0x1000_0000;
/// Data area: [`DATA_SIZE`] bytes for each test; every eighth lies across two pages.
pub const DATA: u64 = DATA_SEGMENT + 0xf00;
pub const DATA_SIZE: u64 = 512;
const INPUT: u64 = 0x2000_0000;
pub const OUTPUT: u64 = 0x3000_0000;
/// Number of undefined instructions met, then their addresses.
pub const LOG: u64 = 0x3800_0000;
const LOG_SIZE: u64 = 0x10_0000;
const STACK: u64 = 0x3900_0000;
const STACK_SIZE: u64 = 0x10_0000;
/// Size of a saved state: V0–V31, X0–X30, SP, NZCV, FPCR, FPSR, padding.
pub const STATE_SIZE: u64 = 800;

/// Registers before and after a test.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    pub v: [u128; 32],
    pub x: [u64; 31],
    pub sp: u64,
    pub nzcv: u64,
    pub fpcr: u64,
    pub fpsr: u64,
}

impl State {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(STATE_SIZE as usize);
        for v in self.v {
            b.extend_from_slice(&v.to_le_bytes());
        }
        for x in self.x.iter().chain([&self.sp, &self.nzcv, &self.fpcr, &self.fpsr, &0]) {
            b.extend_from_slice(&x.to_le_bytes());
        }
        b
    }
    pub fn from_bytes(b: &[u8]) -> State {
        let x = |n: usize| u64::from_le_bytes(b[512 + 8 * n..520 + 8 * n].try_into().unwrap());
        State {
            v: std::array::from_fn(|n| u128::from_le_bytes(b[16 * n..16 * n + 16].try_into().unwrap())),
            x: std::array::from_fn(x),
            sp: x(31),
            nzcv: x(32),
            fpcr: x(33),
            fpsr: x(34),
        }
    }
}

/// One test: instructions, the state they start from, and the bytes of their data area.
#[derive(Clone, Debug)]
pub struct Test {
    pub code: Vec<u32>,
    pub state: State,
    pub data: Vec<u8>,
}

#[derive(Debug)]
pub struct Program {
    pub segments: Vec<Segment>,
    /// Where the tests begin and where they are done.
    pub start: u64,
    pub end: u64,
    /// Address of each test's first instruction.
    pub tests: Vec<u64>,
    pub entry: u64,
    pub output_size: u64,
    pub data_size: u64,
}

fn syscall(code: &mut Vec<u32>, number: u64, args: &[u64]) {
    for (n, &a) in args.iter().enumerate() {
        constant(code, n as u32, a);
    }
    constant(code, 8, number);
    code.push(0xd400_0001);
}

impl Program {
    pub fn new(tests: &[Test]) -> Program {
        let mut code: Vec<u32> = Vec::new();
        let pc = |code: &Vec<u32>| CODE + 4 * code.len() as u64;
        // The SIGILL handler: logs the pc and skips the instruction. 440: offset of pc in ucontext.
        code.push(single_x(asm::LDR_X, 3, 2, 440));
        constant(&mut code, 4, LOG);
        code.extend([
            single_x(asm::LDR_X, 5, 4, 0),
            0x9100_04a5, // add x5, x5, #1
            single_x(asm::STR_X, 5, 4, 0),
            0xf825_7883, // str x3, [x4, x5, lsl #3]
            0x9100_1063, // add x3, x3, #4
            single_x(asm::STR_X, 3, 2, 440),
            0xd65f_03c0, // ret
        ]);
        let entry = pc(&code);
        // Signal stack and action, in the log segment's last page.
        let args = LOG + LOG_SIZE - 0x1000;
        let mut arg_bytes = Vec::new();
        for v in [STACK, 0, STACK_SIZE] {
            arg_bytes.extend_from_slice(&u64::to_le_bytes(v));
        }
        arg_bytes.resize(64, 0);
        // handler, SA_SIGINFO | SA_ONSTACK, restorer, mask
        for v in [CODE, 4 | 0x0800_0000, 0, 0] {
            arg_bytes.extend_from_slice(&u64::to_le_bytes(v));
        }
        syscall(&mut code, 132, &[args, 0]);
        syscall(&mut code, 134, &[4, args + 64, 0, 8]);
        let start = pc(&code);
        let mut input = Vec::new();
        let mut data: Vec<u8> = vec![0; (DATA - DATA_SEGMENT) as usize];
        let mut addresses = Vec::new();
        for (n, t) in tests.iter().enumerate() {
            let n = n as u64;
            input.extend_from_slice(&t.state.to_bytes());
            let mut d = t.data.clone();
            d.resize(DATA_SIZE as usize, 0);
            data.extend_from_slice(&d);
            constant(&mut code, 30, INPUT + n * STATE_SIZE);
            for k in 0..16 {
                code.push(pair_q(asm::LDP_Q, 2 * k, 2 * k + 1, 30, 32 * k));
            }
            code.extend([single_x(asm::LDR_X, 0, 30, 760), mov_sp(31, 0)]);
            for (k, reg) in [asm::NZCV, asm::FPCR, asm::FPSR].into_iter().enumerate() {
                code.extend([single_x(asm::LDR_X, 0, 30, 768 + 8 * k as u32), msr(reg, 0)]);
            }
            code.extend((0..31).map(|k| single_x(asm::LDR_X, k, 30, 512 + 8 * k)));
            addresses.push(pc(&code));
            code.extend_from_slice(&t.code);
            code.push(msr(asm::TPIDR_EL0, 30));
            constant(&mut code, 30, OUTPUT + n * STATE_SIZE);
            for k in 0..16 {
                code.push(pair_q(asm::STP_Q, 2 * k, 2 * k + 1, 30, 32 * k));
            }
            code.extend((0..30).map(|k| single_x(asm::STR_X, k, 30, 512 + 8 * k)));
            code.extend([mrs(0, asm::TPIDR_EL0), single_x(asm::STR_X, 0, 30, 752)]);
            code.extend([mov_sp(0, 31), single_x(asm::STR_X, 0, 30, 760)]);
            for (k, reg) in [asm::NZCV, asm::FPCR, asm::FPSR].into_iter().enumerate() {
                code.extend([mrs(0, reg), single_x(asm::STR_X, 0, 30, 768 + 8 * k as u32)]);
            }
        }
        let end = pc(&code);
        let (output_size, data_size) = (STATE_SIZE * tests.len() as u64, DATA_SIZE * tests.len() as u64);
        syscall(&mut code, 64, &[1, OUTPUT, output_size]);
        syscall(&mut code, 64, &[1, DATA, data_size]);
        syscall(&mut code, 64, &[1, LOG, LOG_SIZE - 0x1000]);
        syscall(&mut code, 94, &[0]);
        let bytes = code.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut log = vec![0; LOG_SIZE as usize];
        let at = LOG_SIZE as usize - 0x1000;
        log[at..at + arg_bytes.len()].copy_from_slice(&arg_bytes);
        let segment = |addr, bytes: Vec<u8>, size, executable| Segment { addr, bytes, size, executable };
        // Room for a block of DC ZVA after the last area.
        data.resize(data.len() + 0x1000, 0);
        let segments = vec![
            segment(CODE, bytes, 0, true),
            segment(DATA_SEGMENT, data, 0, false),
            segment(INPUT, input, 0, false),
            segment(OUTPUT, vec![], output_size, false),
            segment(LOG, log, 0, false),
            segment(STACK, vec![], STACK_SIZE, false),
        ];
        Program { segments, start, end, tests: addresses, entry, output_size, data_size }
    }

    pub fn elf(&self) -> Vec<u8> {
        asm::elf(self.entry, &self.segments)
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Results {
    pub states: Vec<State>,
    pub data: Vec<u8>,
    /// Addresses of instructions that were undefined, in order.
    pub undefined: Vec<u64>,
}

impl Results {
    pub fn new(output: &[u8], data: &[u8], log: &[u8]) -> Results {
        let word = |n: usize| u64::from_le_bytes(log[8 * n..8 * n + 8].try_into().unwrap());
        Results {
            states: output.chunks_exact(STATE_SIZE as usize).map(State::from_bytes).collect(),
            data: data.to_vec(),
            undefined: (0..word(0) as usize).map(|n| word(n + 1)).collect(),
        }
    }
}
