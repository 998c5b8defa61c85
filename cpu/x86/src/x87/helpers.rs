//! The x87 instructions. Generated code moves memory operands and calls these; see [`Info`] for their first argument.

use super::stack::Info;
use super::{cw, sw};
use crate::Vendor;
use crate::flags;
use crate::helpers::X87_BASE;
use crate::mmu::cr0;
use crate::state::X86Cpu;
use rhea_float::Ordering;
use rhea_float::extended::{self as ext, Class, Env80, F80, Partial, exception};
use rhea_ir::Effects;

const BOTH: Effects = Effects::RAISES.union(Effects::WRITES_STATE);

crate::helpers! {
    base X87_BASE;
    /// Loads: args (info, bits, upper bits, address).
    LOAD32 = load32, (I64, I64, I64, I64) -> Void, BOTH;
    LOAD64 = load64, (I64, I64, I64, I64) -> Void, BOTH;
    LOAD80 = load80, (I64, I64, I64, I64) -> Void, BOTH;
    LOAD_INT = load_int, (I64, I64, I64, I64) -> Void, BOTH;
    LOAD_BCD = load_bcd, (I64, I64, I64, I64) -> Void, BOTH;
    /// FLD ST(i) and constants: args (info).
    LOAD_REG = load_reg, (I64) -> Void, BOTH;
    LOAD_CONST = load_const, (I64) -> Void, BOTH;
    /// Stores: args (info, address, pc of the next instruction); the bits to store. If nothing is to be stored, the
    /// instruction is complete.
    STORE32 = store32, (I64, I64, I64) -> I64, BOTH;
    STORE64 = store64, (I64, I64, I64) -> I64, BOTH;
    STORE80 = store80, (I64, I64, I64) -> V128, BOTH;
    STORE_INT = store_int, (I64, I64, I64) -> I64, BOTH;
    STORE_BCD = store_bcd, (I64, I64, I64) -> V128, BOTH;
    STORE_REG = store_reg, (I64) -> Void, BOTH;
    /// Arithmetic on registers, and with a memory operand: args (info, bits, 0, address).
    ARITH = arith, (I64) -> Void, BOTH;
    ARITH32 = arith32, (I64, I64, I64, I64) -> Void, BOTH;
    ARITH64 = arith64, (I64, I64, I64, I64) -> Void, BOTH;
    ARITH_INT = arith_int, (I64, I64, I64, I64) -> Void, BOTH;
    COMPARE = compare, (I64) -> Void, BOTH;
    COMPARE32 = compare32, (I64, I64, I64, I64) -> Void, BOTH;
    COMPARE64 = compare64, (I64, I64, I64, I64) -> Void, BOTH;
    COMPARE_INT = compare_int, (I64, I64, I64, I64) -> Void, BOTH;
    /// Instructions on the top of the stack: args (info with [`op`]).
    UNARY = unary, (I64) -> Void, BOTH;
    EXCHANGE = exchange, (I64) -> Void, BOTH;
    /// FCMOVcc: args (info, condition).
    MOVE_IF = move_if, (I64, I64) -> Void, BOTH;
    FREE = free, (I64) -> Void, BOTH;
    NOP = nop, (I64) -> Void, BOTH;
    WAIT = wait, () -> Void, BOTH;
    STATUS = status, () -> I64, Effects::READS_STATE;
    CONTROL = control, () -> I64, Effects::READS_STATE;
    CLEAR = clear, () -> Void, BOTH;
    INIT = init, () -> Void, BOTH;
    LOAD_CONTROL = load_control, (I64) -> Void, BOTH;
    /// FNSTENV, FNSAVE, FLDENV, FRSTOR: args (address, 32-bit format, with registers).
    STORE_ENV = store_env, (I64, I64, I64) -> Void, BOTH;
    LOAD_ENV = load_env, (I64, I64, I64) -> Void, BOTH;
    MMX_FAULT = mmx_fault, () -> Void, BOTH;
    MMX_WAIT = mmx_wait, () -> Void, BOTH;
}

/// Operations of [`UNARY`], [`ARITH`] and [`LOAD_CONST`].
pub mod op {
    pub const ADD: u64 = 0;
    pub const MUL: u64 = 1;
    pub const SUB: u64 = 4;
    pub const SUBR: u64 = 5;
    pub const DIV: u64 = 6;
    pub const DIVR: u64 = 7;

    pub const CHS: u64 = 0;
    pub const ABS: u64 = 1;
    pub const TEST: u64 = 2;
    pub const EXAMINE: u64 = 3;
    pub const EXP: u64 = 4;
    pub const LOG: u64 = 5;
    pub const TAN: u64 = 6;
    pub const ATAN: u64 = 7;
    pub const EXTRACT: u64 = 8;
    pub const REMAINDER1: u64 = 9;
    pub const DECREMENT: u64 = 10;
    pub const INCREMENT: u64 = 11;
    pub const REMAINDER: u64 = 12;
    pub const LOG1: u64 = 13;
    pub const SQRT: u64 = 14;
    pub const SIN_COS: u64 = 15;
    pub const ROUND: u64 = 16;
    pub const SCALE: u64 = 17;
    pub const SIN: u64 = 18;
    pub const COS: u64 = 19;
}

macro_rules! helper {
    ($($name:ident($cpu:ident $(, $arg:ident)*) $body:block)*) => {
        $(helper!(@ $name $cpu [$($arg)*] $body);)*
    };
    (@ $n:ident $cpu:ident [] $body:block) => { helper!(@@ $n $cpu _a _b _c _d $body); };
    (@ $n:ident $cpu:ident [$a:ident] $body:block) => { helper!(@@ $n $cpu $a _b _c _d $body); };
    (@ $n:ident $cpu:ident [$a:ident $b:ident] $body:block) => { helper!(@@ $n $cpu $a $b _c _d $body); };
    (@ $n:ident $cpu:ident [$a:ident $b:ident $c:ident] $body:block) => { helper!(@@ $n $cpu $a $b $c _d $body); };
    (@ $n:ident $cpu:ident [$a:ident $b:ident $c:ident $d:ident] $body:block) => { helper!(@@ $n $cpu $a $b $c $d $body); };
    (@@ $n:ident $cpu:ident $a:ident $b:ident $c:ident $d:ident $body:block) => {
        extern "C" fn $n($cpu: &mut X86Cpu, $a: u64, $b: u64, $c: u64, $d: u64) -> u64 { $body }
    };
}

/// Constants of FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2: exponent, 64 bits of significand, and what the rest is: at
/// least half of the last place.
const CONSTANTS: [(u16, u64, bool); 7] = [
    (0x3fff, 0x8000_0000_0000_0000, false),
    (0x4000, 0xd49a_784b_cd1b_8afe, false),
    (0x3fff, 0xb8aa_3b29_5c17_f0bb, true),
    (0x4000, 0xc90f_daa2_2168_c234, true),
    (0x3ffd, 0x9a20_9a84_fbcf_f798, true),
    (0x3ffe, 0xb172_17f7_d1cf_79ab, true),
    (0, 0, false),
];

fn constant(n: u32, control: u32) -> F80 {
    let (sign_exponent, s, half) = CONSTANTS[n.min(6) as usize];
    let up = match control >> cw::RC_SHIFT & 3 {
        0 => half,
        2 => s << 1 != 0,
        _ => false,
    };
    F80 { sign_exponent, significand: s + u64::from(up) }
}

/// Pushes a loaded value, with the exceptions of its conversion.
fn push_loaded(cpu: &mut X86Cpu, v: F80, env: &Env80) {
    let amd = cpu.config.vendor == Vendor::Amd;
    let x = &mut cpu.x87;
    if !x.is_empty(7) {
        x.load(v);
    } else if x.settle(env) || amd && env.flags & exception::INVALID == 0 {
        // AMD's processors load a denormal even if that exception is not masked.
        x.push(v);
    }
}

fn arithmetic(operation: u32, a: F80, b: F80, env: &mut Env80) -> F80 {
    match operation {
        0 => ext::add(a, b, env),
        1 => ext::mul(a, b, env),
        4 => ext::sub(a, b, env),
        5 => ext::sub(b, a, env),
        6 => ext::div(a, b, env),
        _ => ext::div(b, a, env),
    }
}

fn arith_memory(cpu: &mut X86Cpu, info: u64, address: u64, operand: impl FnOnce(&mut Env80) -> F80) -> u64 {
    let info = Info(info);
    if !cpu.x87_begin(info, address) {
        return 0;
    }
    let x = &mut cpu.x87;
    if x.is_empty(0) {
        if x.stack_fault(false) {
            x.put(0, F80::INDEFINITE);
        }
        return 0;
    }
    let mut env = x.env();
    let b = operand(&mut env);
    let v = arithmetic(info.operation(), x.get(0), b, &mut env);
    if x.settle(&env) {
        x.put(0, v);
    }
    0
}

fn conditions(o: Ordering) -> u32 {
    match o {
        Ordering::Less => sw::C0,
        Ordering::Equal => sw::C3,
        Ordering::Greater => 0,
        Ordering::Unordered => sw::C0 | sw::C2 | sw::C3,
    }
}

fn deliver_comparison(cpu: &mut X86Cpu, info: Info, o: Ordering) {
    let c = conditions(o);
    if info.has(Info::EFLAGS) {
        let f = |bit: u32, flag: u32| if c & bit != 0 { flag } else { 0 };
        cpu.set_status_flags(f(sw::C0, flags::CF) | f(sw::C2, flags::PF) | f(sw::C3, flags::ZF));
    } else {
        cpu.x87.set_conditions(c | cpu.x87.status & sw::C1);
    }
}
/// Delivers a comparison with an exceptional operand; AMD's processors do so even if the exception is not masked.
fn deliver_checked(cpu: &mut X86Cpu, info: Info, o: Ordering, masked: bool) {
    if masked || cpu.config.vendor == Vendor::Amd {
        deliver_comparison(cpu, info, o);
    }
    if masked {
        cpu.x87.pop_n(info.pops());
    }
}

/// Compares ST(0) with a value; `None`: one of the registers is empty.
fn compare_with(cpu: &mut X86Cpu, info: Info, b: Option<F80>, mut env: Env80) -> u64 {
    let x = &mut cpu.x87;
    let Some(b) = b.filter(|_| !x.is_empty(0)) else {
        let masked = x.stack_fault(false);
        deliver_checked(cpu, info, Ordering::Unordered, masked);
        return 0;
    };
    let o = ext::compare(x.get(0), b, !info.has(Info::QUIET), &mut env);
    let c1 = x.status & sw::C1;
    let deliver = x.settle(&env);
    x.status |= c1;
    deliver_checked(cpu, info, o, deliver);
    0
}

/// C1, if FCOMI and FCMOV leave it when there is no stack fault, as on AMD's processors.
fn kept_c1(cpu: &X86Cpu) -> u32 {
    if cpu.config.vendor == Vendor::Amd { cpu.x87.status & sw::C1 } else { 0 }
}

fn compare_memory(cpu: &mut X86Cpu, info: u64, address: u64, operand: impl FnOnce(&mut Env80) -> F80) -> u64 {
    let info = Info(info);
    if !cpu.x87_begin(info, address) {
        return 0;
    }
    let mut env = cpu.x87.env();
    let b = operand(&mut env);
    compare_with(cpu, info, Some(b), env)
}

/// Before a store: the value, or that nothing is to be stored.
fn store(
    cpu: &mut X86Cpu,
    info: u64,
    address: u64,
    next: u64,
    convert: impl FnOnce(Option<F80>, &mut Env80) -> u64,
) -> u64 {
    let info = Info(info);
    if !cpu.x87_begin(info, address) {
        return 0;
    }
    let x = &mut cpu.x87;
    let mut env = x.env();
    let stored;
    let bits;
    if x.is_empty(0) {
        bits = convert(None, &mut env);
        stored = x.stack_fault(false);
    } else {
        bits = convert(Some(x.get(0)), &mut env);
        stored = x.settle_store(&env);
    }
    if stored {
        x.pop_n(info.pops());
    } else {
        // Nothing is written: on to the next instruction.
        cpu.complete(next);
        cpu.header.raised = 1;
    }
    bits
}

fn sized_indefinite(bits: u32) -> u64 {
    (-1i64 << (bits - 1)) as u64
}

/// Replaces ST(0), or faults if it is empty.
fn unary_result(cpu: &mut X86Cpu, f: impl FnOnce(F80, &mut Env80) -> F80) {
    let x = &mut cpu.x87;
    if x.is_empty(0) {
        if x.stack_fault(false) {
            x.put(0, F80::INDEFINITE);
        }
        return;
    }
    let mut env = x.env();
    let v = f(x.get(0), &mut env);
    if x.settle(&env) {
        x.put(0, v);
    }
}

/// Puts a result of ST(0) and ST(1) into ST(1) and pops.
fn binary_pop(cpu: &mut X86Cpu, f: impl FnOnce(F80, F80, &mut Env80) -> F80) {
    let x = &mut cpu.x87;
    if x.is_empty(0) || x.is_empty(1) {
        if x.stack_fault(false) {
            x.put(1, F80::INDEFINITE);
            x.pop();
        }
        return;
    }
    let mut env = x.env();
    let v = f(x.get(0), x.get(1), &mut env);
    if x.settle(&env) {
        x.put(1, v);
        x.pop();
    }
}

/// Replaces ST(0) and pushes another result; `None`: the operand is out of range.
fn unary_push(cpu: &mut X86Cpu, f: impl FnOnce(F80, &mut Env80) -> Option<(F80, F80)>) {
    let x = &mut cpu.x87;
    x.status &= !sw::C2;
    let empty = x.is_empty(0);
    if empty || !x.is_empty(7) {
        if x.stack_fault(!empty) {
            x.put(0, F80::INDEFINITE);
            x.push(F80::INDEFINITE);
        }
        return;
    }
    let mut env = x.env();
    let r = f(x.get(0), &mut env);
    let deliver = x.settle(&env);
    match r {
        Some((first, second)) if deliver => {
            x.put(0, first);
            x.push(second);
        }
        Some(_) => {}
        None => x.status |= sw::C2,
    }
}

fn trigonometric(cpu: &mut X86Cpu, f: fn(F80, &mut Env80) -> Option<F80>) {
    cpu.x87.status &= !sw::C2;
    let mut out_of_range = false;
    unary_result(cpu, |a, env| {
        f(a, env).unwrap_or_else(|| {
            out_of_range = true;
            a
        })
    });
    if out_of_range {
        cpu.x87.status |= sw::C2;
    }
}

fn remainder(cpu: &mut X86Cpu, nearest: bool) {
    let x = &mut cpu.x87;
    x.status &= !sw::C2;
    if x.is_empty(0) || x.is_empty(1) {
        if x.stack_fault(false) {
            x.put(0, F80::INDEFINITE);
        }
        return;
    }
    let mut env = x.env();
    let (v, how) = ext::partial_remainder(x.get(0), x.get(1), nearest, &mut env);
    if !x.settle(&env) {
        return;
    }
    x.put(0, v);
    match how {
        Partial::Complete(q) => {
            let c = |bit: u32, flag: u32| if q & bit != 0 { flag } else { 0 };
            x.set_conditions(c(1, sw::C1) | c(2, sw::C3) | c(4, sw::C0));
        }
        Partial::Incomplete => x.set_conditions(sw::C2),
        Partial::None => {}
    }
}

helper! {
    load32(cpu, info, v, _upper, address) {
        if cpu.x87_begin(Info(info), address) {
            let mut env = cpu.x87.env();
            let v = ext::from_f32(v as u32, &mut env);
            push_loaded(cpu, v, &env);
        }
        0
    }
    load64(cpu, info, v, _upper, address) {
        if cpu.x87_begin(Info(info), address) {
            let mut env = cpu.x87.env();
            let v = ext::from_f64(v, &mut env);
            push_loaded(cpu, v, &env);
        }
        0
    }
    load80(cpu, info, significand, upper, address) {
        if cpu.x87_begin(Info(info), address) {
            cpu.x87.load(F80 { sign_exponent: upper as u16, significand });
        }
        0
    }
    load_int(cpu, info, v, _upper, address) {
        if cpu.x87_begin(Info(info), address) {
            cpu.x87.load(ext::from_int(v as i64));
        }
        0
    }
    load_bcd(cpu, info, v, upper, address) {
        if cpu.x87_begin(Info(info), address) {
            cpu.x87.load(ext::from_bcd(v, upper as u16));
        }
        0
    }
    load_reg(cpu, info) {
        let info = Info(info);
        if cpu.x87_begin(info, 0) {
            let x = &mut cpu.x87;
            if x.is_empty(info.i()) {
                if x.stack_fault(false) {
                    x.push(F80::INDEFINITE);
                }
            } else {
                let v = x.get(info.i());
                x.load(v);
            }
        }
        0
    }
    load_const(cpu, info) {
        let info = Info(info);
        if cpu.x87_begin(info, 0) {
            let v = constant(info.operation(), cpu.x87.control);
            cpu.x87.load(v);
        }
        0
    }
    store32(cpu, info, address, next) {
        store(cpu, info, address, next, |v, env| u64::from(ext::to_f32(v.unwrap_or(F80::INDEFINITE), env)))
    }
    store64(cpu, info, address, next) {
        store(cpu, info, address, next, |v, env| ext::to_f64(v.unwrap_or(F80::INDEFINITE), env))
    }
    store80(cpu, info, address, next) {
        let mut upper = 0;
        let low = store(cpu, info, address, next, |v, _| {
            let v = v.unwrap_or(F80::INDEFINITE);
            upper = v.sign_exponent;
            v.significand
        });
        cpu.header.scratch[7] = u128::from(low) | u128::from(upper) << 64;
        0
    }
    store_int(cpu, info, address, next) {
        let bits = Info(info).operation();
        let truncate = Info(info).has(Info::TRUNCATE);
        store(cpu, info, address, next, |v, env| match v {
            None => sized_indefinite(bits),
            Some(v) if truncate => ext::to_int_truncated(v, bits, env) as u64,
            Some(v) => ext::to_int(v, bits, env) as u64,
        })
    }
    store_bcd(cpu, info, address, next) {
        let mut upper = 0xffff;
        let low = store(cpu, info, address, next, |v, env| {
            let Some(v) = v else { return 0xc000_0000_0000_0000 };
            let (low, high) = ext::to_bcd(v, env);
            upper = high;
            low
        });
        cpu.header.scratch[7] = u128::from(low) | u128::from(upper) << 64;
        0
    }
    store_reg(cpu, info) {
        let info = Info(info);
        if cpu.x87_begin(info, 0) {
            let x = &mut cpu.x87;
            if info.has(Info::UNCHECKED) && x.is_empty(0) {
                x.pop();
                return 0;
            }
            let v = if x.is_empty(0) {
                if !x.stack_fault(false) {
                    return 0;
                }
                F80::INDEFINITE
            } else {
                x.get(0)
            };
            x.put(info.i(), v);
            x.pop_n(info.pops());
        }
        0
    }
    arith(cpu, info) {
        let info = Info(info);
        if !cpu.x87_begin(info, 0) {
            return 0;
        }
        let x = &mut cpu.x87;
        let (to, from) = (info.i(), info.j());
        if x.is_empty(to) || x.is_empty(from) {
            if x.stack_fault(false) {
                x.put(to, F80::INDEFINITE);
                x.pop_n(info.pops());
            }
            return 0;
        }
        let mut env = x.env();
        let v = arithmetic(info.operation(), x.get(to), x.get(from), &mut env);
        if x.settle(&env) {
            x.put(to, v);
            x.pop_n(info.pops());
        }
        0
    }
    arith32(cpu, info, v, _upper, address) {
        arith_memory(cpu, info, address, |env| ext::operand_f32(v as u32, env))
    }
    arith64(cpu, info, v, _upper, address) {
        arith_memory(cpu, info, address, |env| ext::operand_f64(v, env))
    }
    arith_int(cpu, info, v, _upper, address) {
        arith_memory(cpu, info, address, |_| ext::from_int(v as i64))
    }
    compare(cpu, info) {
        let info = Info(info);
        let c1 = kept_c1(cpu);
        if !cpu.x87_begin(info, 0) {
            return 0;
        }
        if info.has(Info::EFLAGS) {
            cpu.x87.status |= c1;
        }
        let x = &cpu.x87;
        let b = (!x.is_empty(info.i())).then(|| x.get(info.i()));
        let env = x.env();
        compare_with(cpu, info, b, env)
    }
    compare32(cpu, info, v, _upper, address) {
        compare_memory(cpu, info, address, |env| ext::operand_f32(v as u32, env))
    }
    compare64(cpu, info, v, _upper, address) {
        compare_memory(cpu, info, address, |env| ext::operand_f64(v, env))
    }
    compare_int(cpu, info, v, _upper, address) {
        compare_memory(cpu, info, address, |_| ext::from_int(v as i64))
    }
    unary(cpu, info) {
        let info = Info(info);
        if !cpu.x87_begin(info, 0) {
            return 0;
        }
        match u64::from(info.operation()) {
            op::CHS => unary_result(cpu, |a, _| a.negated()),
            op::ABS => unary_result(cpu, |a, _| a.absolute()),
            op::TEST => {
                let env = cpu.x87.env();
                compare_with(cpu, info, Some(F80::ZERO), env);
            }
            op::EXAMINE => {
                let x = &mut cpu.x87;
                let v = x.get(0);
                let class = if x.is_empty(0) {
                    sw::C3 | sw::C0
                } else {
                    match v.class() {
                        Class::Unsupported => 0,
                        Class::Quiet | Class::Signalling => sw::C0,
                        Class::Normal => sw::C2,
                        Class::Infinity => sw::C2 | sw::C0,
                        Class::Zero => sw::C3,
                        Class::Denormal => sw::C3 | sw::C2,
                    }
                };
                x.set_conditions(class | if v.sign() { sw::C1 } else { 0 });
            }
            op::EXP => unary_result(cpu, ext::exp2_minus_1),
            op::LOG => binary_pop(cpu, ext::y_log2_x),
            op::LOG1 => binary_pop(cpu, ext::y_log2_x_plus_1),
            op::ATAN => binary_pop(cpu, ext::partial_arctangent),
            op::TAN => unary_push(cpu, |a, env| {
                let v = ext::tan(a, env)?;
                // A NaN goes to both.
                Some((v, if v.is_nan() { v } else { F80::ONE }))
            }),
            op::SIN_COS => unary_push(cpu, ext::sin_cos),
            op::SIN => trigonometric(cpu, ext::sin),
            op::COS => trigonometric(cpu, ext::cos),
            op::EXTRACT => {
                let c2 = cpu.x87.status & sw::C2;
                unary_push(cpu, |a, env| Some(ext::extract(a, env)));
                cpu.x87.status |= c2;
            }
            op::REMAINDER => remainder(cpu, false),
            op::REMAINDER1 => remainder(cpu, true),
            op::DECREMENT => cpu.x87.top = cpu.x87.top.wrapping_sub(1) & 7,
            op::INCREMENT => cpu.x87.top = cpu.x87.top.wrapping_add(1) & 7,
            op::SQRT => unary_result(cpu, ext::sqrt),
            op::ROUND => unary_result(cpu, ext::round_to_integral),
            op::SCALE => {
                let x = &mut cpu.x87;
                if x.is_empty(1) {
                    if x.stack_fault(false) {
                        x.put(0, F80::INDEFINITE);
                    }
                } else {
                    let by = x.get(1);
                    unary_result(cpu, |a, env| ext::scale(a, by, env));
                }
            }
            _ => {}
        }
        0
    }
    exchange(cpu, info) {
        let info = Info(info);
        if cpu.x87_begin(info, 0) {
            let x = &mut cpu.x87;
            let i = info.i();
            if x.is_empty(0) || x.is_empty(i) {
                if !x.stack_fault(false) {
                    return 0;
                }
                for n in [0, i] {
                    if x.is_empty(n) {
                        x.put(n, F80::INDEFINITE);
                    }
                }
            }
            let (a, b) = (x.get(0), x.get(i));
            x.put(0, b);
            x.put(i, a);
        }
        0
    }
    move_if(cpu, info, condition) {
        let info = Info(info);
        let c1 = kept_c1(cpu);
        if cpu.x87_begin(info, 0) {
            let x = &mut cpu.x87;
            x.status |= c1;
            if x.is_empty(0) || x.is_empty(info.i()) {
                if x.stack_fault(false) {
                    x.put(0, F80::INDEFINITE);
                }
            } else if condition & 1 != 0 {
                let v = x.get(info.i());
                x.put(0, v);
            }
        }
        0
    }
    free(cpu, info) {
        let info = Info(info);
        if cpu.x87_begin(info, 0) {
            let x = &mut cpu.x87;
            x.tags &= !(1 << x.physical(info.i()));
            x.pop_n(info.pops());
        }
        0
    }
    nop(cpu, info) {
        let c1 = cpu.x87.status & sw::C1;
        if cpu.x87_begin(Info(info), 0) {
            cpu.x87.status |= c1;
        }
        0
    }
    wait(cpu) {
        const MP_TS: u64 = cr0::MP | cr0::TS;
        if cpu.cr0 & MP_TS == MP_TS {
            cpu.raise(crate::Vector::DeviceNotAvailable, None);
        } else {
            cpu.x87_wait();
        }
        0
    }
    status(cpu) {
        cpu.x87.status_word().into()
    }
    control(cpu) {
        cpu.x87.control_word().into()
    }
    clear(cpu) {
        let pending = cpu.x87.error_pending();
        cpu.x87.status &= !(cw::MASKS | sw::SF | sw::ES);
        cpu.x87_quiet(pending);
        0
    }
    init(cpu) {
        let pending = cpu.x87.error_pending();
        cpu.x87.init();
        cpu.x87_quiet(pending);
        0
    }
    load_control(cpu, v) {
        if cpu.x87_wait() {
            cpu.x87.set_control_word(v as u16);
        }
        0
    }
    store_env(cpu, address, wide, all) {
        // On failure the exception has been raised.
        let _ = cpu.store_environment(address, wide != 0, all != 0);
        0
    }
    load_env(cpu, address, wide, all) {
        if cpu.x87_wait() {
            let _ = cpu.load_environment(address, wide != 0, all != 0);
        }
        0
    }
    mmx_fault(cpu) {
        cpu.mmx_fault();
        0
    }
    mmx_wait(cpu) {
        cpu.x87_wait();
        0
    }
}
