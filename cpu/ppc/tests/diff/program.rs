//! A batch of tests as one program: each test loads a state, runs its instructions and stores the state.

use super::asm::{self, NOP, Order, addi, constant, ld, mfcr, mfspr, mtcr, mtspr, std, vsx};
use rhea_diff::{Machine, Segment};

const CODE: u64 = 0x40_0000;
const DATA_SEGMENT: u64 = 0x1000_0000;
/// Data area: [`DATA_SIZE`] bytes for each test; every eighth lies across two pages.
pub const DATA: u64 = DATA_SEGMENT + 0xf00;
pub const DATA_SIZE: u64 = 512;
const INPUT: u64 = 0x2000_0000;
pub const OUTPUT: u64 = 0x3000_0000;
/// Number of interrupts met, then the addresses of their instructions.
const LOG: u64 = 0x3800_0000;
const LOG_SIZE: u64 = 0x10_0000;
const STACK: u64 = 0x3900_0000;
const STACK_SIZE: u64 = 0x10_0000;
/// GPRs, CR, XER, LR, CTR, FPSCR, VSCR (as a vector), VSRs.
pub const STATE_SIZE: u64 = 1344;
const CR: i32 = 256;
const FPSCR: i32 = 288;
const VSCR: i32 = 304;
const VSRS: i32 = 320;
/// Offset of the saved NIP in the context that a signal handler gets.
const CONTEXT_NIP: i32 = 488;

/// Registers before and after a test. A VSR is its doublewords 0 and 1.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    pub r: [u64; 32],
    pub cr: u64,
    pub xer: u64,
    pub lr: u64,
    pub ctr: u64,
    pub fpscr: u64,
    pub vscr: u64,
    pub vsr: [[u64; 2]; 64],
}

impl State {
    fn to_bytes(&self, order: Order) -> Vec<u8> {
        let head = [self.cr, self.xer, self.lr, self.ctr, self.fpscr, 0, 0, self.vscr];
        let all = self.r.iter().chain(&head).chain(self.vsr.as_flattened());
        all.flat_map(|&v| order.u64(v)).collect()
    }
    fn from_bytes(b: &[u8], order: Order) -> State {
        let v = |n: usize| order.get(&b[8 * n..]);
        State {
            r: std::array::from_fn(v),
            cr: v(32),
            xer: v(33),
            lr: v(34),
            ctr: v(35),
            // FR and the class bit of FPRF are not kept by the reference.
            fpscr: {
                let v = v(36) & !(1 << 18 | 1 << 16);
                // Nor is UX where another element of the vector overflows.
                let v = if v & 1 << 28 != 0 { v & !(1 << 27) } else { v };
                // Where zero is multiplied by infinity VXSNAN may be set or not.
                if v & 1 << 20 != 0 { v & !(1 << 24) } else { v }
            },
            // The reference keeps reserved bits too.
            vscr: v(39) & 0x1_0001,
            vsr: std::array::from_fn(|n| [v(40 + 2 * n), v(41 + 2 * n)]),
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
    pub order: Order,
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
        constant(code, 3 + n as u32, a);
    }
    constant(code, 0, number);
    code.push(asm::SC);
}

/// Loads all registers from the state at GPR 31 and returns by TAR.
fn load_state(code: &mut Vec<u32>, fp: bool) {
    code.extend([mfspr(0, asm::LR), mtspr(asm::TAR, 0)]);
    if fp {
        code.extend([asm::d(asm::LFD, 0, 31, FPSCR), asm::MTFSF, addi(30, 31, VSCR)]);
        code.extend([vsx(asm::LXVD2X, 32, 30), asm::MTVSCR]);
        for k in 0..64 {
            code.extend([addi(30, 31, VSRS + 16 * k as i32), vsx(asm::LXVD2X, k, 30)]);
        }
    }
    code.extend([ld(0, 31, CR), mtcr(0)]);
    for (k, spr) in [asm::XER, asm::LR, asm::CTR].into_iter().enumerate() {
        code.extend([ld(0, 31, CR + 8 + 8 * k as i32), mtspr(spr, 0)]);
    }
    code.extend((0..32).map(|k| ld(k, 31, 8 * k as i32)));
    code.push(asm::BCTAR);
}

/// Stores all registers to GPR 31, which TAR holds, but for GPR 0 and LR, which are there.
fn store_state(code: &mut Vec<u32>, fp: bool) {
    code.extend((1..31).map(|k| std(k, 31, 8 * k as i32)));
    code.extend([mfspr(0, asm::TAR), std(0, 31, 248), mfcr(0), std(0, 31, CR)]);
    for (k, spr) in [(0, asm::XER), (2, asm::CTR)] {
        code.extend([mfspr(0, spr), std(0, 31, CR + 8 + 8 * k)]);
    }
    if fp {
        for k in 0..64 {
            code.extend([addi(30, 31, VSRS + 16 * k as i32), vsx(asm::STXVD2X, k, 30)]);
        }
        code.extend([asm::MFFS, asm::d(asm::STFD, 0, 31, FPSCR), asm::MFVSCR, addi(30, 31, VSCR)]);
        code.push(vsx(asm::STXVD2X, 32, 30));
    }
    code.push(asm::BLR);
}

impl Program {
    /// `fp`: with VSRs, FPSCR and VSCR.
    pub fn new(tests: &[Test], order: Order, fp: bool) -> Program {
        let mut code: Vec<u32> = Vec::new();
        let pc = |code: &Vec<u32>| CODE + 4 * code.len() as u64;
        // The signal handler: logs the address and skips the instruction, whose length its first bits tell.
        code.push(ld(6, 5, CONTEXT_NIP));
        constant(&mut code, 7, LOG);
        code.extend([
            ld(8, 7, 0),
            addi(8, 8, 1),
            std(8, 7, 0),
            0x7908_1f24,         // sldi r8, r8, 3
            0x7cc8_392a,         // stdx r6, r8, r7
            asm::d(32, 8, 6, 0), // lwz r8, 0(r6)
            0x5508_36be,         // srwi r8, r8, 26
            0x2808_0001,         // cmplwi r8, 1
            addi(6, 6, 4),
            0x4082_0008, // bne over
            addi(6, 6, 4),
            std(6, 5, CONTEXT_NIP),
            asm::BLR,
        ]);
        let load = pc(&code);
        load_state(&mut code, fp);
        let store = pc(&code);
        store_state(&mut code, fp);
        let entry = pc(&code);
        // Signal stack and action, in the log segment's last page.
        let args = LOG + LOG_SIZE - 0x1000;
        let mut arg_bytes = Vec::new();
        for v in [STACK, 0, STACK_SIZE] {
            arg_bytes.extend_from_slice(&order.u64(v));
        }
        arg_bytes.resize(64, 0);
        // handler, SA_SIGINFO | SA_ONSTACK, restorer, mask
        for v in [CODE, 4 | 0x0800_0000, 0, 0] {
            arg_bytes.extend_from_slice(&order.u64(v));
        }
        syscall(&mut code, 185, &[args, 0]);
        // SIGILL, SIGTRAP, SIGBUS, SIGFPE
        for signal in [4, 5, 7, 8] {
            syscall(&mut code, 173, &[signal, args + 64, 0, 8]);
        }
        let start = pc(&code);
        let call = |code: &mut Vec<u32>, to: u64| {
            let distance = to.wrapping_sub(CODE + 4 * code.len() as u64) as u32;
            code.push(0x4800_0001 | distance & 0x03ff_fffc);
        };
        let mut input = Vec::new();
        let mut data: Vec<u8> = vec![0; (DATA - DATA_SEGMENT) as usize];
        let mut addresses = Vec::new();
        for (n, t) in tests.iter().enumerate() {
            let n = n as u64;
            input.extend_from_slice(&t.state.to_bytes(order));
            let mut d = t.data.clone();
            d.resize(DATA_SIZE as usize, 0);
            data.extend_from_slice(&d);
            constant(&mut code, 31, INPUT + n * STATE_SIZE);
            call(&mut code, load);
            while !pc(&code).is_multiple_of(64) {
                code.push(NOP);
            }
            addresses.push(pc(&code));
            code.extend_from_slice(&t.code);
            code.push(mtspr(asm::TAR, 31));
            constant(&mut code, 31, OUTPUT + n * STATE_SIZE);
            code.extend([std(0, 31, 0), mfspr(0, asm::LR), std(0, 31, CR + 16)]);
            call(&mut code, store);
        }
        let end = pc(&code);
        let (output_size, data_size) = (STATE_SIZE * tests.len() as u64, DATA_SIZE * tests.len() as u64);
        syscall(&mut code, 4, &[1, OUTPUT, output_size]);
        syscall(&mut code, 4, &[1, DATA, data_size]);
        syscall(&mut code, 4, &[1, LOG, LOG_SIZE - 0x1000]);
        syscall(&mut code, 234, &[0]);
        let bytes = order.words(&code);
        let mut log = vec![0; LOG_SIZE as usize];
        let at = LOG_SIZE as usize - 0x1000;
        log[at..at + arg_bytes.len()].copy_from_slice(&arg_bytes);
        let segment = |addr, bytes: Vec<u8>, size, executable| Segment { addr, bytes, size, executable };
        // Room for a block of dcbz after the last area.
        data.resize(data.len() + 0x1000, 0);
        let segments = vec![
            segment(CODE, bytes, 0, true),
            segment(DATA_SEGMENT, data, 0, false),
            segment(INPUT, input, 0, false),
            segment(OUTPUT, vec![], output_size, false),
            segment(LOG, log, 0, false),
            segment(STACK, vec![], STACK_SIZE, false),
        ];
        Program { order, segments, start, end, tests: addresses, entry, output_size, data_size }
    }

    pub fn elf(&self) -> Vec<u8> {
        // ELFv2: the entry is no descriptor.
        rhea_diff::elf(
            Machine { number: 21, big_endian: self.order == Order::Big, flags: 2 },
            self.entry,
            &self.segments,
        )
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Results {
    pub states: Vec<State>,
    pub data: Vec<u8>,
    /// Addresses of instructions that were interrupted, in order.
    pub interrupts: Vec<u64>,
}

impl Results {
    pub fn new(order: Order, output: &[u8], data: &[u8], log: &[u8]) -> Results {
        let word = |n: usize| order.get(&log[8 * n..]);
        Results {
            states: output.chunks_exact(STATE_SIZE as usize).map(|b| State::from_bytes(b, order)).collect(),
            data: data.to_vec(),
            interrupts: (0..word(0) as usize).map(|n| word(n + 1)).collect(),
        }
    }
}
