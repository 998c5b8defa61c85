//! x87 instructions: memory operands are moved here, the rest is helpers.

use super::address::seg_of;
use super::{Flow, Mem, Translator};
use crate::Vector;
use crate::state::gpr;
use crate::x87::Info;
use crate::x87::helpers::{self as h, op};
use iced_x86::{Code, Mnemonic, Register};
use rhea_ir::{HelperId, Lane, Type, Value};

/// Memory formats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Single,
    Double,
    Extended,
    Int(u32),
    Bcd,
}

const INFO_I: u32 = Info::I_SHIFT;
const INFO_OP: u32 = Info::OPERATION_SHIFT;

impl Translator<'_, '_> {
    pub(super) fn x87(&mut self) -> Option<Flow> {
        use Mnemonic::*;
        let m = self.i.mnemonic();
        if m == Wait {
            self.b.call(h::WAIT, &[]);
            return Some(Flow::Next);
        }
        if !(0xd8..=0xdf).contains(&self.opcode_byte()?) {
            return self.mmx();
        }
        if self.mode.x87_nm() {
            return Some(self.fault(Vector::DeviceNotAvailable, None));
        }
        let arith = |n: u64, pops: bool| Some((n, pops));
        let operation = match m {
            Fadd | Fiadd => arith(op::ADD, false),
            Fmul | Fimul => arith(op::MUL, false),
            Fsub | Fisub => arith(op::SUB, false),
            Fsubr | Fisubr => arith(op::SUBR, false),
            Fdiv | Fidiv => arith(op::DIV, false),
            Fdivr | Fidivr => arith(op::DIVR, false),
            Faddp => arith(op::ADD, true),
            Fmulp => arith(op::MUL, true),
            Fsubp => arith(op::SUB, true),
            Fsubrp => arith(op::SUBR, true),
            Fdivp => arith(op::DIV, true),
            Fdivrp => arith(op::DIVR, true),
            _ => None,
        };
        if let Some((n, pops)) = operation {
            let info = n << INFO_OP | if pops { Info::POP } else { 0 };
            if self.is_mem(0) {
                let helpers = [h::ARITH32, h::ARITH64, h::ARITH_INT];
                return Some(self.with_operand(info, helpers));
            }
            let (to, from) = (self.sti(0), self.sti(1));
            return Some(self.on_stack(h::ARITH, info | to << INFO_I | from << Info::J_SHIFT));
        }
        if let Some(info) = Self::comparison(m) {
            if self.i.op_count() > 0 && self.is_mem(0) {
                let helpers = [h::COMPARE32, h::COMPARE64, h::COMPARE_INT];
                return Some(self.with_operand(info, helpers));
            }
            // FCOMPP and FUCOMPP compare with ST(1).
            let i = match self.i.op_count() {
                0 => 1,
                n => self.sti(n - 1),
            };
            return Some(self.on_stack(h::COMPARE, info | i << INFO_I));
        }
        if let Some(n) = Self::on_top(m) {
            return Some(self.on_stack(h::UNARY, n << INFO_OP));
        }
        Some(match m {
            Fld | Fild | Fbld => {
                if self.i.op_count() > 0 && self.is_mem(0) {
                    self.x87_load()
                } else {
                    let i = self.sti(self.i.op_count().saturating_sub(1));
                    self.on_stack(h::LOAD_REG, i << INFO_I)
                }
            }
            Fld1 | Fldl2t | Fldl2e | Fldpi | Fldlg2 | Fldln2 | Fldz => {
                let n = match m {
                    Fld1 => 0u64,
                    Fldl2t => 1,
                    Fldl2e => 2,
                    Fldpi => 3,
                    Fldlg2 => 4,
                    Fldln2 => 5,
                    _ => 6,
                };
                self.on_stack(h::LOAD_CONST, n << INFO_OP)
            }
            Fst | Fstp | Fstpnce | Fist | Fistp | Fisttp | Fbstp => {
                let info = if matches!(m, Fst | Fist) { 0 } else { Info::POP };
                if self.is_mem(0) {
                    self.x87_store(info | if m == Fisttp { Info::TRUNCATE } else { 0 })
                } else {
                    let i = self.sti(0);
                    let info = info | if m == Fstpnce { Info::UNCHECKED } else { 0 };
                    self.on_stack(h::STORE_REG, info | i << INFO_I)
                }
            }
            Fxch => {
                let i = self.sti(1);
                self.on_stack(h::EXCHANGE, i << INFO_I)
            }
            Fcmovb | Fcmove | Fcmovbe | Fcmovu | Fcmovnb | Fcmovne | Fcmovnbe | Fcmovnu => {
                let tttn = match m {
                    Fcmovb => 2,
                    Fcmovnb => 3,
                    Fcmove => 4,
                    Fcmovne => 5,
                    Fcmovbe => 6,
                    Fcmovnbe => 7,
                    Fcmovu => 10,
                    _ => 11,
                };
                let c = self.condition(tttn);
                let (one, zero) = (self.c64(1), self.c64(0));
                let c = self.b.select(c, one, zero);
                let i = self.sti(1);
                let info = self.x87_info(i << INFO_I);
                self.b.call(h::MOVE_IF, &[info, c]);
                Flow::Next
            }
            Ffree | Ffreep => {
                let i = self.sti(0);
                self.on_stack(h::FREE, i << INFO_I | if m == Ffreep { Info::POP } else { 0 })
            }
            Fnop => self.on_stack(h::NOP, 0),
            // Of the 8087 and 287: no operation since.
            Fneni | Fndisi | Fnsetpm | Frstpm => Flow::Next,
            Fnstsw => {
                let v = self.b.call(h::STATUS, &[]);
                let v = self.b.trunc(v);
                if self.is_mem(0) {
                    self.write(0, 16, v);
                } else {
                    self.set_reg(16, gpr::RAX, v);
                }
                Flow::Next
            }
            Fnstcw => {
                let v = self.b.call(h::CONTROL, &[]);
                let v = self.b.trunc(v);
                self.write(0, 16, v);
                Flow::Next
            }
            Fldcw => {
                let v = self.read(0, 16);
                let v = self.b.zext64(v);
                self.b.call(h::LOAD_CONTROL, &[v]);
                Flow::Next
            }
            Fnclex => {
                self.b.call(h::CLEAR, &[]);
                Flow::Next
            }
            Fninit => {
                self.b.call(h::INIT, &[]);
                Flow::Next
            }
            Fnstenv | Fnsave | Fldenv | Frstor => {
                let size = match self.i.code() {
                    Code::Fnstenv_m14byte | Code::Fldenv_m14byte => 14,
                    Code::Fnstenv_m28byte | Code::Fldenv_m28byte => 28,
                    Code::Fnsave_m94byte | Code::Frstor_m94byte => 94,
                    _ => 108,
                };
                let stores = matches!(m, Fnstenv | Fnsave);
                let at = self.ea(size, stores);
                let at = self.address(at);
                let wide = self.c64((size == 28 || size == 108) as u64);
                let all = self.c64((size > 28) as u64);
                self.b.call(if stores { h::STORE_ENV } else { h::LOAD_ENV }, &[at, wide, all]);
                Flow::Next
            }
            _ => return None,
        })
    }

    fn comparison(m: Mnemonic) -> Option<u64> {
        use Mnemonic::*;
        Some(match m {
            Fcom | Ficom => 0,
            Fcomp | Ficomp => Info::POP,
            Fcompp => Info::POP_TWICE,
            Fucom => Info::QUIET,
            Fucomp => Info::QUIET | Info::POP,
            Fucompp => Info::QUIET | Info::POP_TWICE,
            Fcomi => Info::EFLAGS,
            Fcomip => Info::EFLAGS | Info::POP,
            Fucomi => Info::EFLAGS | Info::QUIET,
            Fucomip => Info::EFLAGS | Info::QUIET | Info::POP,
            _ => return None,
        })
    }
    fn on_top(m: Mnemonic) -> Option<u64> {
        use Mnemonic::*;
        Some(match m {
            Fchs => op::CHS,
            Fabs => op::ABS,
            Ftst => op::TEST,
            Fxam => op::EXAMINE,
            F2xm1 => op::EXP,
            Fyl2x => op::LOG,
            Fptan => op::TAN,
            Fpatan => op::ATAN,
            Fxtract => op::EXTRACT,
            Fprem1 => op::REMAINDER1,
            Fdecstp => op::DECREMENT,
            Fincstp => op::INCREMENT,
            Fprem => op::REMAINDER,
            Fyl2xp1 => op::LOG1,
            Fsqrt => op::SQRT,
            Fsincos => op::SIN_COS,
            Frndint => op::ROUND,
            Fscale => op::SCALE,
            Fsin => op::SIN,
            Fcos => op::COS,
            _ => return None,
        })
    }

    /// The first opcode byte behind the prefixes, and the one after it (ModRM of x87 instructions).
    fn opcode_bytes(&self) -> Option<(u8, u8)> {
        let bytes = self.code.get(..self.i.len())?;
        let n = bytes.iter().position(|&b| {
            let prefix = matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
            let rex = self.mode.long() && b & 0xf0 == 0x40;
            !(prefix || rex)
        })?;
        Some((bytes[n], bytes.get(n + 1).copied().unwrap_or(0)))
    }
    fn opcode_byte(&self) -> Option<u8> {
        self.opcode_bytes().map(|b| b.0)
    }
    /// The instruction word with the opcode.
    fn x87_info(&mut self, info: u64) -> Value {
        let (opcode, modrm) = self.opcode_bytes().unwrap_or((0, 0));
        self.c64(info | (opcode as u64 & 7) << 8 | modrm as u64)
    }
    fn x87_memory_info(&mut self, info: u64) -> Value {
        let seg = seg_of(self.i.memory_segment()) as u64;
        self.x87_info(info | Info::MEMORY | seg << Info::SEGMENT_SHIFT)
    }
    /// Number of ST(i).
    fn sti(&self, n: u32) -> u64 {
        let r = self.i.op_register(n);
        if r.is_st() { (r as u64).wrapping_sub(Register::ST0 as u64) & 7 } else { 0 }
    }
    fn on_stack(&mut self, helper: HelperId, info: u64) -> Flow {
        let info = self.x87_info(info);
        self.b.call(helper, &[info]);
        Flow::Next
    }

    fn format(&self) -> Format {
        use iced_x86::MemorySize::*;
        match self.i.memory_size() {
            Float32 => Format::Single,
            Float64 => Format::Double,
            Float80 => Format::Extended,
            Int16 => Format::Int(16),
            Int32 => Format::Int(32),
            Int64 => Format::Int(64),
            _ => Format::Bcd,
        }
    }
    /// Loads the memory operand: low 64 bits (integers sign-extended), upper 16 of 80, and its address.
    fn x87_operand(&mut self, format: Format) -> (Value, Value, Value) {
        let zero = self.c64(0);
        let bits = match format {
            Format::Single => 32,
            Format::Double => 64,
            Format::Int(n) => n,
            Format::Extended | Format::Bcd => {
                let at = self.ea(10, false);
                let low = self.load(64, at);
                let behind = self.plus(at, 8);
                let upper = self.load(16, behind);
                let upper = self.b.zext64(upper);
                return (low, upper, self.address(at));
            }
        };
        let at = self.ea(bits / 8, false);
        let v = self.load(bits, at);
        let v = if matches!(format, Format::Int(_)) { self.sx64(v, bits) } else { self.raw64(v) };
        (v, zero, self.address(at))
    }
    fn with_operand(&mut self, info: u64, helpers: [HelperId; 3]) -> Flow {
        let format = self.format();
        let (v, upper, address) = self.x87_operand(format);
        let info = self.x87_memory_info(info);
        let helper = match format {
            Format::Single => helpers[0],
            Format::Double => helpers[1],
            _ => helpers[2],
        };
        self.b.call(helper, &[info, v, upper, address]);
        Flow::Next
    }
    fn x87_load(&mut self) -> Flow {
        let format = self.format();
        let (v, upper, address) = self.x87_operand(format);
        let info = self.x87_memory_info(0);
        let helper = match format {
            Format::Single => h::LOAD32,
            Format::Double => h::LOAD64,
            Format::Extended => h::LOAD80,
            Format::Int(_) => h::LOAD_INT,
            Format::Bcd => h::LOAD_BCD,
        };
        self.b.call(helper, &[info, v, upper, address]);
        Flow::Next
    }
    fn x87_store(&mut self, info: u64) -> Flow {
        let format = self.format();
        let next = self.c64(self.next);
        let (helper, bits) = match format {
            Format::Single => (h::STORE32, 32),
            Format::Double => (h::STORE64, 64),
            Format::Int(n) => (h::STORE_INT, n),
            Format::Extended => (h::STORE80, 80),
            Format::Bcd => (h::STORE_BCD, 80),
        };
        let at = self.ea(bits / 8, true);
        let address = self.address(at);
        let info = self.x87_memory_info(info | (bits as u64) << INFO_OP);
        // Whether the store faults is known before the state changes.
        let probe = |t: &mut Self, bits: u32, at: Mem| {
            let op = t.mem_op(bits);
            t.b.probe_write(op, at.addr, at.disp);
        };
        if bits == 80 {
            let behind = self.plus(at, 8);
            probe(self, 64, at);
            probe(self, 16, behind);
            let v = self.b.call(helper, &[info, address, next]);
            let low = self.b.vextract(Type::I64, Lane::D, v, 0);
            let upper = self.b.vextract(Type::I32, Lane::H, v, 4);
            self.store(64, at, low);
            self.store(16, behind, upper);
        } else {
            probe(self, bits, at);
            let v = self.b.call(helper, &[info, address, next]);
            let v = if bits == 64 { v } else { self.b.trunc(v) };
            self.store(bits, at, v);
        }
        Flow::Next
    }
}
