//! Random instructions of an encoding: operands of every form it has.

use super::random::{Rng, X86Operands};
use super::state::{SLOT, Test, place};
use iced_x86::{
    Code, Encoder, Instruction, InstructionInfoFactory, OpCodeOperandKind as Kind, OpKind, Register, RflagsBits,
};

/// What the operands of a test's instructions are made from.
pub struct Operands {
    pub bits: u32,
    /// Registers that hold addresses within the window.
    bases: [Register; 2],
    /// A register that holds a small number.
    index: Register,
    /// Bases and index are not destinations.
    keep: bool,
}

const R64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

fn sized(n: usize, bits: u32) -> Register {
    let first = match bits {
        16 => Register::AX,
        32 => Register::EAX,
        _ => Register::RAX,
    };
    first + n as u32
}

impl Operands {
    pub fn new(rng: &mut Rng, bits: u32, keep: bool) -> Operands {
        let candidates: &[usize] = if bits == 64 { &[3, 5, 6, 7, 8, 9, 12, 13, 14] } else { &[3, 5, 6, 7] };
        let a = rng.pick(candidates);
        let b = rng.pick(candidates);
        let index = loop {
            let x = rng.pick(candidates);
            if x != a && x != b {
                break x;
            }
        };
        Operands { bits, bases: [R64[a], R64[b]], index: R64[index], keep }
    }
    /// Puts addresses into the registers.
    pub fn prepare(&self, rng: &mut Rng, test: &mut Test) {
        for b in self.bases {
            test.state.r[b.number()] = rng.pointer();
        }
        test.state.r[self.index.number()] = rng.below(8);
    }
    fn is_kept(&self, n: usize) -> bool {
        n == 4 || self.keep && (self.bases.iter().any(|b| b.number() == n) || self.index.number() == n)
    }
    fn gpr(&self, rng: &mut Rng, bits: u32) -> Register {
        loop {
            let n = rng.below(if self.bits == 64 { 16 } else { 8 }) as usize;
            if bits == 8 {
                let regs: Vec<Register> = Register::values().filter(|r| r.is_gpr8()).collect();
                let r = rng.pick(&regs);
                let high = matches!(r, Register::AH | Register::CH | Register::DH | Register::BH);
                let full = if high { r.number() & 3 } else { r.full_register().number() };
                if self.is_kept(full) || self.bits != 64 && (full >= 8 || (full >= 4 && !high)) {
                    continue;
                }
                return r;
            }
            if !self.is_kept(n) {
                return sized(n, bits);
            }
        }
    }
    fn memory(&self, rng: &mut Rng, i: &mut Instruction, n: u32, vsib: Option<Register>) {
        i.set_op_kind(n, OpKind::Memory);
        let addr = |r: Register| if self.bits == 64 { r } else { sized(r.number(), 32) };
        if vsib.is_none() && rng.chance(8) {
            // RIP-relative or absolute.
            i.set_memory_base(if self.bits == 64 { Register::RIP } else { Register::None });
            i.set_memory_displacement64(rng.pointer());
            i.set_memory_displ_size(if self.bits == 64 { 8 } else { 4 });
            return;
        }
        i.set_memory_base(addr(rng.pick(&self.bases)));
        if let Some(v) = vsib {
            i.set_memory_index(v);
            i.set_memory_index_scale(1 << rng.below(4));
        } else if rng.chance(2) {
            i.set_memory_index(addr(self.index));
            i.set_memory_index_scale(1 << rng.below(4));
        }
        if rng.chance(2) {
            let long = rng.chance(3);
            i.set_memory_displ_size(if !long {
                1
            } else if self.bits == 64 {
                8
            } else {
                4
            });
            i.set_memory_displacement64(
                (rng.below(128) as i64 - 64) as u64 & if self.bits == 64 { !0 } else { 0xffff_ffff },
            );
        }
        if self.bits == 64 && rng.chance(24) {
            i.set_segment_prefix(Register::GS);
            // Its base is in the window: a small offset.
            i.set_memory_base(addr(self.index));
            i.set_memory_index(vsib.unwrap_or(Register::None));
            i.set_memory_displ_size(0);
            i.set_memory_displacement64(0);
        }
    }

    /// An instruction of this encoding; `None` if none can be made of the choice (try again), or ever.
    pub fn instruction(&self, rng: &mut Rng, code: Code) -> Option<Instruction> {
        let info = code.op_code();
        let mut i = Instruction::new();
        i.set_code(code);
        let mut memory = false;
        let vectors = if self.bits == 64 { 16 } else { 8 };
        let prefer_memory = rng.chance(2);
        for (n, &kind) in info.op_kinds().iter().enumerate() {
            let n = n as u32;
            let reg = match kind {
                Kind::al => Some(Register::AL),
                Kind::cl => Some(Register::CL),
                Kind::ax => Some(Register::AX),
                Kind::dx => Some(Register::DX),
                Kind::eax => Some(Register::EAX),
                Kind::rax => Some(Register::RAX),
                Kind::st0 => Some(Register::ST0),
                Kind::sti_opcode => Some(Register::ST0 + rng.below(8) as u32),
                Kind::r8_reg | Kind::r8_opcode => Some(self.gpr(rng, 8)),
                Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode => Some(self.gpr(rng, 16)),
                Kind::r32_reg | Kind::r32_rm | Kind::r32_opcode | Kind::r32_vvvv => Some(self.gpr(rng, 32)),
                Kind::r64_reg | Kind::r64_rm | Kind::r64_opcode | Kind::r64_vvvv => Some(self.gpr(rng, 64)),
                Kind::mm_reg | Kind::mm_rm => Some(Register::MM0 + rng.below(8) as u32),
                Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_vvvv | Kind::xmm_is4 => {
                    Some(Register::XMM0 + rng.below(vectors) as u32)
                }
                Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_vvvv | Kind::ymm_is4 => {
                    Some(Register::YMM0 + rng.below(vectors) as u32)
                }
                Kind::r8_or_mem
                | Kind::r16_or_mem
                | Kind::r32_or_mem
                | Kind::r64_or_mem
                | Kind::mm_or_mem
                | Kind::xmm_or_mem
                | Kind::ymm_or_mem
                    if !prefer_memory =>
                {
                    Some(match kind {
                        Kind::r8_or_mem => self.gpr(rng, 8),
                        Kind::r16_or_mem => self.gpr(rng, 16),
                        Kind::r32_or_mem => self.gpr(rng, 32),
                        Kind::r64_or_mem => self.gpr(rng, 64),
                        Kind::mm_or_mem => Register::MM0 + rng.below(8) as u32,
                        Kind::xmm_or_mem => Register::XMM0 + rng.below(vectors) as u32,
                        _ => Register::YMM0 + rng.below(vectors) as u32,
                    })
                }
                _ => None,
            };
            if let Some(r) = reg {
                i.set_op_kind(n, OpKind::Register);
                i.set_op_register(n, r);
                continue;
            }
            let address = |of16: OpKind, of32: OpKind, of64: OpKind| match self.bits {
                16 => of16,
                32 => of32,
                _ => of64,
            };
            match kind {
                Kind::mem
                | Kind::r8_or_mem
                | Kind::r16_or_mem
                | Kind::r32_or_mem
                | Kind::r64_or_mem
                | Kind::mm_or_mem
                | Kind::xmm_or_mem
                | Kind::ymm_or_mem => {
                    memory = true;
                    self.memory(rng, &mut i, n, None);
                }
                Kind::mem_vsib32x | Kind::mem_vsib64x => {
                    let v = Register::XMM0 + rng.below(vectors) as u32;
                    self.memory(rng, &mut i, n, Some(v));
                }
                Kind::mem_vsib32y | Kind::mem_vsib64y => {
                    let v = Register::YMM0 + rng.below(vectors) as u32;
                    self.memory(rng, &mut i, n, Some(v));
                }
                Kind::mem_offs => {
                    i.set_op_kind(n, OpKind::Memory);
                    i.set_memory_displacement64(rng.pointer());
                    i.set_memory_displ_size(self.bits / 8);
                }
                Kind::imm8 | Kind::imm8sex16 | Kind::imm8sex32 | Kind::imm8sex64 => {
                    i.set_op_kind(
                        n,
                        match kind {
                            Kind::imm8 if n > 0 && i.op_kind(n - 1) == OpKind::Immediate8 => OpKind::Immediate8_2nd,
                            // ENTER: a word and a byte.
                            Kind::imm8 if n > 0 && i.op_kind(n - 1) == OpKind::Immediate16 => OpKind::Immediate8_2nd,
                            Kind::imm8 => OpKind::Immediate8,
                            Kind::imm8sex16 => OpKind::Immediate8to16,
                            Kind::imm8sex32 => OpKind::Immediate8to32,
                            _ => OpKind::Immediate8to64,
                        },
                    );
                    let v = if rng.chance(2) { rng.below(70) } else { rng.next() } as i8;
                    i.try_set_immediate_i64(n, if kind == Kind::imm8 { (v as u8).into() } else { v.into() }).ok()?;
                }
                Kind::imm8_const_1 => {
                    i.set_op_kind(n, OpKind::Immediate8);
                    i.set_immediate8(1);
                }
                Kind::imm16 => {
                    i.set_op_kind(n, OpKind::Immediate16);
                    i.set_immediate16(rng.int() as u16);
                }
                Kind::imm32 => {
                    i.set_op_kind(n, OpKind::Immediate32);
                    i.set_immediate32(rng.int() as u32);
                }
                Kind::imm32sex64 => {
                    i.set_op_kind(n, OpKind::Immediate32to64);
                    i.set_immediate32to64((rng.int() as i32).into());
                }
                Kind::imm64 => {
                    i.set_op_kind(n, OpKind::Immediate64);
                    i.set_immediate64(rng.int());
                }
                Kind::seg_rSI => {
                    i.set_op_kind(n, address(OpKind::MemorySegSI, OpKind::MemorySegESI, OpKind::MemorySegRSI))
                }
                Kind::seg_rDI => {
                    i.set_op_kind(n, address(OpKind::MemorySegDI, OpKind::MemorySegEDI, OpKind::MemorySegRDI))
                }
                Kind::es_rDI => i.set_op_kind(n, address(OpKind::MemoryESDI, OpKind::MemoryESEDI, OpKind::MemoryESRDI)),
                Kind::seg_rBX_al => {
                    i.set_op_kind(n, OpKind::Memory);
                    i.set_memory_base(sized(3, self.bits));
                    i.set_memory_index(Register::AL);
                }
                _ => return None,
            }
        }
        if memory && info.can_use_lock_prefix() && i.op0_kind() == OpKind::Memory && rng.chance(3) {
            i.set_has_lock_prefix(true);
        }
        if info.can_use_rep_prefix() && rng.chance(2) {
            i.set_has_rep_prefix(true);
        } else if info.can_use_repne_prefix() && rng.chance(3) {
            i.set_has_repne_prefix(true);
        }
        Some(i)
    }
}

/// Encodes at an address; decodes what came out, which is what is tested.
pub fn encode(i: &Instruction, bits: u32, at: u64) -> Option<(Vec<u8>, Instruction)> {
    let mut e = Encoder::try_new(bits).ok()?;
    e.encode(i, at).ok()?;
    let bytes = e.take_buffer();
    let decoded = decode(&bytes, bits, at);
    (decoded.len() == bytes.len() && !decoded.is_invalid()).then_some((bytes, decoded))
}

pub fn decode(bytes: &[u8], bits: u32, at: u64) -> Instruction {
    iced_x86::Decoder::with_ip(bits, bytes, at, iced_x86::DecoderOptions::NONE).decode()
}

fn eflags(iced: u32) -> u32 {
    [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
        (RflagsBits::AF, 16),
        (RflagsBits::ZF, 64),
        (RflagsBits::SF, 128),
        (RflagsBits::OF, 0x800),
    ]
    .iter()
    .fold(0, |f, &(from, to)| if iced & from != 0 { f | to } else { f })
}

/// Flags an instruction leaves undefined.
fn undefined(i: &Instruction) -> u32 {
    use iced_x86::Mnemonic::{Rcl, Rcr, Rol, Ror};
    // Of rotates by a multiple of the width only the processor knows whether they shift.
    let rotate =
        matches!(i.mnemonic(), Rcl | Rcr | Rol | Ror) && i.op1_kind() == OpKind::Immediate8 && i.immediate8() != 1;
    eflags(i.rflags_undefined()) | if rotate { 0x800 } else { 0 }
}

/// Makes a test of `length` instructions of the encodings, at the place of the `n`th test.
pub fn test(rng: &mut Rng, codes: &[Code], bits: u32, length: usize, n: usize, fp: bool) -> Test {
    let operands = Operands::new(rng, bits, length > 1);
    let mut t = Test { code: Vec::new(), bits, state: rng.state(fp), undefined: 0, ever_undefined: 0 };
    operands.prepare(rng, &mut t);
    let mut infos = InstructionInfoFactory::new();
    let mut made = 0;
    for _ in 0..2000 {
        if made == length {
            break;
        }
        let code = rng.pick(codes);
        let at = Test::address(n) + t.code.len() as u64;
        let Some((bytes, i)) = operands.instruction(rng, code).and_then(|i| encode(&i, bits, at)) else { continue };
        if t.code.len() + bytes.len() >= SLOT {
            break;
        }
        let info = infos.info(&i);
        let writes_kept = info.used_registers().iter().any(|r| {
            let writes = !matches!(
                r.access(),
                iced_x86::OpAccess::Read | iced_x86::OpAccess::CondRead | iced_x86::OpAccess::NoMemAccess
            );
            let stack = r.register().full_register() == Register::RSP && i.is_stack_instruction();
            let string = i.is_string_instruction();
            writes
                && !stack
                && !string
                && r.register().full_register().is_gpr64()
                && operands.is_kept(r.register().full_register().number())
                && length > 1
        });
        if writes_kept {
            continue;
        }
        // Counts above 16 of 16-bit double shifts leave anything.
        if matches!(i.mnemonic(), iced_x86::Mnemonic::Shld | iced_x86::Mnemonic::Shrd) && i.op1_register().is_gpr16() {
            let imm = i.op2_kind() != OpKind::Register;
            if !imm && length > 1 || imm && i.immediate8() & 31 > 16 {
                continue;
            }
            if !imm {
                t.state.r[1] = t.state.r[1] & !0xff | rng.below(17);
            }
        }
        // What is undefined may not be used.
        if eflags(i.rflags_read()) & t.undefined != 0 {
            continue;
        }
        let mut defined = eflags(i.rflags_modified()) & !undefined(&i);
        if may_keep_flags(&i) {
            defined = 0;
        }
        t.undefined = t.undefined & !defined | undefined(&i);
        t.ever_undefined |= undefined(&i);
        t.code.extend(bytes);
        made += 1;
    }
    t
}

/// Shifts and rotates by zero, and string compares of none, leave the flags.
fn may_keep_flags(i: &Instruction) -> bool {
    use iced_x86::Mnemonic::*;
    matches!(i.mnemonic(), Rol | Ror | Rcl | Rcr | Shl | Shr | Sal | Sar | Shld | Shrd) || i.is_string_instruction()
}

/// Where loops count, behind what operands reach.
const COUNTER: u64 = place::DATA + 1000;

/// A test of control flow: conditional jumps over instructions, loops, calls, indirect jumps. `codes` are what is jumped over
/// and repeated.
pub fn branches(rng: &mut Rng, codes: &[Code], bits: u32, n: usize) -> Test {
    let length = 1 + rng.below(3) as usize;
    let mut t = test(rng, codes, bits, length, n, false);
    t.code.truncate(40);
    let jcc = 0x70 | rng.below(16) as u8;
    match rng.below(5) {
        // Over MOV AL, imm8 and INC ECX.
        0 => t.code.extend([jcc, 4, 0xb0, rng.next() as u8, 0xff, 0xc1]),
        1 => t.code.extend([0x0f, jcc ^ 0xf0, 2, 0, 0, 0, 0xb0, rng.next() as u8]),
        // DEC BYTE PTR [COUNTER]; JNZ.
        2 => {
            t.state.data[1000] = 1 + rng.below(255) as u8;
            t.code.extend([0xfe, 0x0c, 0x25]);
            t.code.extend((COUNTER as u32).to_le_bytes());
            let back = -(t.code.len() as i64 + 2);
            t.code.extend([0x75, back as u8]);
        }
        // LOOP, LOOPE, LOOPNE or JRCXZ over an instruction.
        3 => {
            t.state.r[1] = rng.below(4);
            t.code.extend([0xe0 | rng.below(4) as u8, 2, 0xb0, 7]);
        }
        // CALL of what returns to INC EBX; INT3.
        _ => {
            t.code.extend([0xe8, 3, 0, 0, 0, 0xff, 0xc3, 0xcc, 0x83, 0xc0, 5]);
            t.code.extend(if rng.chance(2) { &[0xc3][..] } else { &[0xc2, 8, 0][..] });
        }
    }
    if bits == 64 && rng.chance(4) {
        // LEA RAX, [RIP + 3]; JMP RAX; INT3.
        t.code.extend([0x48, 0x8d, 0x05, 3, 0, 0, 0, 0xff, 0xe0, 0xcc, 0xff, 0xc2]);
    }
    t.undefined |= 16;
    t.ever_undefined |= 16;
    t
}

/// A test of FXSAVE and XSAVE and their counterparts, of an area at EBX or RBX.
pub fn save(rng: &mut Rng, bits: u32) -> Test {
    let mut t = Test { code: Vec::new(), bits, state: rng.state(true), undefined: 0, ever_undefined: 0 };
    let s = &mut t.state;
    s.r[3] = place::DATA + 64;
    s.r[0] = if rng.chance(6) { rng.next() & 7 } else { 7 };
    s.r[2] = 0;
    if rng.chance(16) {
        s.r[3] += rng.pick(&[8, 16, 32]);
    }
    // An area that can be restored: MXCSR without reserved bits, a header of standard or compacted format.
    s.data[64 + 26..64 + 28].fill(0);
    for at in [0, 8, 16, 32] {
        s.data[64 + at + 28..64 + at + 32].fill(0);
    }
    s.data[64 + 512..64 + 576].fill(0);
    s.data[64 + 512] = rng.next() as u8 & 7;
    let compacted = rng.chance(3);
    if compacted {
        let bv = u64::from(s.data[64 + 512]) | rng.below(8) | 1 << 63;
        s.data[64 + 520..64 + 528].copy_from_slice(&bv.to_le_bytes());
    }
    if rng.chance(8) {
        // A reserved byte.
        s.data[64 + 512 + 16 + rng.below(48) as usize] = rng.next() as u8;
    }
    let mut push = |rng: &mut Rng, reg: u8, opcode: u8| {
        if bits == 64 && rng.chance(2) {
            t.code.push(0x48);
        }
        t.code.extend([0x0f, opcode, 3 | reg << 3]);
    };
    // FXSAVE, FXRSTOR, XSAVE, XRSTOR; XSAVEC.
    match rng.below(6) {
        0 => push(rng, 0, 0xae),
        1 => push(rng, 1, 0xae),
        2 => push(rng, 4, 0xae),
        3 => push(rng, 4, 0xc7),
        _ => push(rng, 5, 0xae),
    }
    t
}

/// The window's address range in tests that address it themselves.
pub const MIDDLE: u64 = place::DATA + 512;
