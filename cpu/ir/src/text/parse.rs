//! Parsing, one line at a time.

use super::{Aux, CONDS, LANES, ParseError, RMWS, STRICT, aux_of, imm_is_rounding};
use crate::func::{Block, BlockId, ExitKind, Function, Inst, StateId, StateMap, Target, Term, Value};
use crate::guest::{FpMode, NanRule};
use crate::op::Op;
use crate::types::{MemOp, Slot, Type};

/// Bounds that keep hostile text from taking memory.
const MAX_VALUES: u32 = 1 << 20;

type Result<T> = std::result::Result<T, String>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token<'a> {
    /// Letters, digits, `_` and `.`.
    Word(&'a str),
    Punct(char),
}

impl Token<'_> {
    fn text(self) -> String {
        match self {
            Token::Word(w) => format!("'{w}'"),
            Token::Punct(c) => format!("'{c}'"),
        }
    }
}

fn tokens(line: &str) -> Result<Vec<Token<'_>>> {
    let line = line.split(';').next().unwrap_or("");
    let mut out = Vec::new();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut rest = line.trim_start();
    while let Some(c) = rest.chars().next() {
        if word(c) {
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            out.push(Token::Word(&rest[..end]));
            rest = &rest[end..];
        } else if "=,:{}[]()+-#@".contains(c) {
            out.push(Token::Punct(c));
            rest = &rest[1..];
        } else {
            return Err(format!("unexpected character {c:?}"));
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

fn number(w: &str) -> Result<u128> {
    let r = match w.strip_prefix("0x") {
        Some(h) => u128::from_str_radix(h, 16),
        None => w.parse(),
    };
    r.map_err(|_| format!("'{w}' is not a number"))
}

/// A cursor over one line.
struct Line<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Line<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }
    fn next(&mut self) -> Result<Token<'a>> {
        let t = self.peek().ok_or("the line ends too early")?;
        self.at += 1;
        Ok(t)
    }
    fn take(&mut self, c: char) -> bool {
        let yes = self.peek() == Some(Token::Punct(c));
        self.at += yes as usize;
        yes
    }
    fn expect(&mut self, c: char) -> Result<()> {
        match self.next()? {
            Token::Punct(p) if p == c => Ok(()),
            t => Err(format!("'{c}' expected, not {}", t.text())),
        }
    }
    fn word(&mut self) -> Result<&'a str> {
        match self.next()? {
            Token::Word(w) => Ok(w),
            t => Err(format!("a word expected, not {}", t.text())),
        }
    }
    fn number(&mut self) -> Result<u128> {
        number(self.word()?)
    }
    fn u64(&mut self) -> Result<u64> {
        let n = self.number()?;
        u64::try_from(n).map_err(|_| format!("{n:#x} does not fit in 64 bits"))
    }
    fn u32(&mut self) -> Result<u32> {
        let n = self.number()?;
        u32::try_from(n).map_err(|_| format!("{n:#x} does not fit in 32 bits"))
    }
    fn ty(&mut self) -> Result<Type> {
        let w = self.word()?;
        Type::from_name(w).ok_or_else(|| format!("no type '{w}'"))
    }
    fn value(&mut self) -> Result<Value> {
        value(self.word()?)
    }
    fn block(&mut self) -> Result<BlockId> {
        let w = self.word()?;
        let n = w.strip_prefix("block").and_then(|n| n.parse().ok());
        n.map(BlockId).ok_or_else(|| format!("a block expected, not '{w}'"))
    }
    fn end(&self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(t) => Err(format!("unexpected {}", t.text())),
        }
    }
}

fn value(w: &str) -> Result<Value> {
    if w == "none" {
        return Ok(Value::NONE);
    }
    let n: Option<u32> =
        w.strip_prefix('v').filter(|n| n.starts_with(|c: char| c.is_ascii_digit())).and_then(|n| n.parse().ok());
    match n {
        Some(n) if n < MAX_VALUES => Ok(Value(n)),
        _ => Err(format!("a value expected, not '{w}'")),
    }
}

struct Parser {
    f: Function,
    defined: Vec<bool>,
    unnamed: Vec<Inst>,
    /// Largest value used, and the line.
    used: Option<(u32, usize)>,
    line: usize,
}

pub(super) fn function(text: &str) -> std::result::Result<Function, ParseError> {
    let mut p = Parser { f: Function::default(), defined: Vec::new(), unnamed: Vec::new(), used: None, line: 0 };
    let mut started = false;
    for (n, line) in text.lines().enumerate() {
        p.line = n + 1;
        let r = tokens(line).and_then(|t| {
            if t.is_empty() {
                return Ok(());
            }
            let mut l = Line { tokens: t, at: 0 };
            if !started {
                started = true;
                return p.head(&mut l);
            }
            p.line(&mut l)
        });
        r.map_err(|what| ParseError { line: n + 1, what })?;
    }
    if !started {
        return Err(ParseError { line: 1, what: "'function' expected".into() });
    }
    if let Some((v, line)) = p.used
        && v as usize >= p.f.insts.len()
    {
        return Err(ParseError { line, what: format!("v{v} is not defined") });
    }
    p.number_unnamed();
    Ok(p.f)
}

impl Parser {
    fn head(&mut self, l: &mut Line) -> Result<()> {
        if l.word()? != "function" {
            return Err("'function' expected".into());
        }
        let mut fp = FpMode::default();
        while l.peek().is_some() {
            match l.word()? {
                "round" => {
                    l.expect('=')?;
                    fp.rounding = l.u32()?.try_into().ok().filter(|r| *r < 4).ok_or("no such rounding mode")?;
                }
                "nan" => {
                    l.expect('=')?;
                    fp.nan_rule = match l.word()? {
                        "arm" => NanRule::Arm,
                        "x86" => NanRule::X86,
                        "ppc" => NanRule::Ppc,
                        w => return Err(format!("no NaN rule '{w}'")),
                    };
                }
                "default_nan" => fp.default_nan = true,
                "flush" => fp.flush = true,
                "flush_f16" => fp.flush_f16 = true,
                "alt_half" => fp.alt_half = true,
                "daz" => fp.daz = true,
                w => return Err(format!("no FP mode '{w}'")),
            }
        }
        self.f.fp = fp;
        Ok(())
    }

    fn line(&mut self, l: &mut Line) -> Result<()> {
        match l.peek() {
            Some(Token::Word(w)) if w.starts_with("block") => self.block(l),
            _ if self.f.blocks.is_empty() => Err("a block expected".into()),
            _ if self.current().term != Term::Open => Err("a block expected after the end of one".into()),
            Some(Token::Word("jump")) => {
                l.word()?;
                let t = self.target(l)?;
                self.current().term = Term::Jump(t);
                l.end()
            }
            Some(Token::Word("branch")) => self.branch(l),
            Some(Token::Word("switch")) => self.switch(l),
            Some(Token::Word("open")) => {
                l.word()?;
                l.end()
            }
            _ => self.inst(l),
        }
    }

    fn current(&mut self) -> &mut Block {
        let n = self.f.blocks.len() - 1;
        &mut self.f.blocks[n]
    }

    /// Enters the definition of a value.
    fn define(&mut self, v: Value, i: Inst) -> Result<()> {
        if v.is_none() {
            return Err("a definition of nothing".into());
        }
        let n = v.index();
        if self.f.insts.len() <= n {
            self.f.insts.resize(n + 1, Inst::new(Op::Param, Type::Void));
            self.defined.resize(n + 1, false);
        }
        if std::mem::replace(&mut self.defined[n], true) {
            return Err(format!("{v} is defined twice"));
        }
        self.f.insts[n] = i;
        Ok(())
    }

    fn use_value(&mut self, l: &mut Line) -> Result<Value> {
        let v = l.value()?;
        if !v.is_none() && self.used.is_none_or(|u| v.0 > u.0) {
            self.used = Some((v.0, self.line));
        }
        Ok(v)
    }

    fn block(&mut self, l: &mut Line) -> Result<()> {
        let id = l.block()?;
        if id.index() != self.f.blocks.len() {
            return Err(format!("block{} expected", self.f.blocks.len()));
        }
        let mut params = Vec::new();
        if l.take('(') {
            loop {
                let v = l.value()?;
                l.expect(':')?;
                let ty = l.ty()?;
                self.define(v, Inst::new(Op::Param, ty))?;
                params.push(v);
                if !l.take(',') {
                    break;
                }
            }
            l.expect(')')?;
        }
        let mut b = Block { params, insts: Vec::new(), term: Term::Open, pc: 0, guest_insns: 0 };
        loop {
            match l.next()? {
                Token::Punct('@') => b.pc = l.u64()?,
                Token::Word("insns") => {
                    l.expect('=')?;
                    b.guest_insns = l.u32()?;
                }
                Token::Punct(':') => break,
                t => return Err(format!("':' expected, not {}", t.text())),
            }
        }
        self.f.blocks.push(b);
        l.end()
    }

    fn branch(&mut self, l: &mut Line) -> Result<()> {
        l.word()?;
        let cond = self.use_value(l)?;
        let mut hint = 0i8;
        if l.peek() == Some(Token::Word("hint")) {
            l.word()?;
            l.expect('=')?;
            let minus = l.take('-');
            let n = i8::try_from(l.u32()?).map_err(|_| "the hint is too large")?;
            hint = if minus { -n } else { n };
        }
        l.expect(',')?;
        let then = self.target(l)?;
        l.expect(',')?;
        let other = self.target(l)?;
        self.current().term = Term::Branch { cond, then, other, hint };
        l.end()
    }

    fn switch(&mut self, l: &mut Line) -> Result<()> {
        l.word()?;
        let value = self.use_value(l)?;
        l.expect(',')?;
        let other = self.target(l)?;
        let mut cases = Vec::new();
        while l.take(',') {
            cases.push((l.u64()?, self.target(l)?));
        }
        self.current().term = Term::Switch { value, cases, other, note: 0 };
        l.end()
    }

    fn ret(l: &mut Line) -> Result<u64> {
        if l.word()? != "ret" {
            return Err("'ret=' expected".into());
        }
        l.expect('=')?;
        l.u64()
    }

    fn target(&mut self, l: &mut Line) -> Result<Target> {
        if let Some(Token::Word(w)) = l.peek()
            && w.starts_with("block")
        {
            let b = l.block()?;
            let mut args = Vec::new();
            if l.take('(') {
                loop {
                    args.push(self.use_value(l)?);
                    if !l.take(',') {
                        break;
                    }
                }
                l.expect(')')?;
            }
            return Ok(Target::Block(b, args));
        }
        let kind = match l.word()? {
            "goto" => ExitKind::Goto,
            "indirect" => ExitKind::Indirect(self.use_value(l)?),
            "call" => ExitKind::Call { ret: Self::ret(l)? },
            "icall" => {
                let target = self.use_value(l)?;
                ExitKind::IndirectCall { target, ret: Self::ret(l)? }
            }
            "return" => ExitKind::Return(self.use_value(l)?),
            "lookup" => ExitKind::Lookup,
            "leave" => ExitKind::Leave,
            "inner" => ExitKind::Inner(l.block()?),
            w => return Err(format!("no kind of exit '{w}'")),
        };
        let s = self.state(l)?;
        Ok(Target::Exit(kind, s))
    }

    /// A state map, if one follows.
    fn state(&mut self, l: &mut Line) -> Result<StateId> {
        if !l.take('{') {
            return Ok(StateId::NONE);
        }
        let pc = l.u64()?;
        l.expect(':')?;
        let mut dirty = Vec::new();
        while !l.take('}') {
            if !dirty.is_empty() {
                l.expect(',')?;
            }
            let ty = l.ty()?;
            l.expect('[')?;
            let offset = l.u32()?;
            l.expect(']')?;
            l.expect('=')?;
            dirty.push((Slot::new(offset as usize, ty), self.use_value(l)?));
        }
        Ok(self.f.push_state(StateMap { pc, dirty: dirty.into() }))
    }

    fn inst(&mut self, l: &mut Line) -> Result<()> {
        let mut result = None;
        if l.tokens.get(1) == Some(&Token::Punct('=')) {
            result = Some(l.value()?);
            l.expect('=')?;
        }
        let mut parts = l.word()?.split('.');
        let name = parts.next().unwrap_or("");
        let op = Op::from_name(name).ok_or_else(|| format!("no operation '{name}'"))?;
        if op == Op::Param {
            return Err("a parameter belongs to its block".into());
        }
        let mut i = Inst::new(op, Type::Void);
        let kind = aux_of(op);
        for p in parts {
            if let Some(t) = Type::from_name(p) {
                i.ty = t;
                continue;
            }
            let names: &[&str] = match kind {
                Aux::Cond => &CONDS,
                Aux::Lane => &LANES,
                _ => &[],
            };
            i.aux = names.iter().position(|n| *n == p).ok_or_else(|| format!("'{p}' says nothing of {name}"))? as u32;
        }
        self.operands(l, &mut i)?;
        self.attributes(l, &mut i)?;
        i.state = self.state(l)?;
        l.end()?;
        match (result, i.ty) {
            (None, Type::Void) => {}
            (None, _) => return Err("a result without a name".into()),
            (Some(_), Type::Void) => return Err(format!("{name} needs a type")),
            _ => {}
        }
        let v = match result {
            Some(v) => v,
            None => return self.unnamed(i),
        };
        self.define(v, i)?;
        self.current().insts.push(v);
        Ok(())
    }

    /// Operations without a result get their numbers at the end, above all named ones.
    fn unnamed(&mut self, i: Inst) -> Result<()> {
        let v = Value(MAX_VALUES + self.unnamed.len() as u32);
        self.unnamed.push(i);
        self.current().insts.push(v);
        Ok(())
    }

    fn number_unnamed(&mut self) {
        let base = self.f.insts.len() as u32;
        self.f.insts.append(&mut self.unnamed);
        for b in &mut self.f.blocks {
            for v in b.insts.iter_mut().filter(|v| v.0 >= MAX_VALUES) {
                v.0 = v.0 - MAX_VALUES + base;
            }
        }
    }

    fn operands(&mut self, l: &mut Line, i: &mut Inst) -> Result<()> {
        match i.op {
            Op::Const => {
                i.imm = l.u64()?;
                return Ok(());
            }
            Op::ConstV if !matches!(l.peek(), Some(Token::Punct('#'))) => {
                let c = l.number()?;
                i.imm = self.f.const128(c);
                return Ok(());
            }
            Op::GetSlot => {
                l.expect('[')?;
                i.imm = l.u64()?;
                return l.expect(']');
            }
            Op::Call => {
                let w = l.word()?;
                i.imm = w.strip_prefix('h').and_then(|n| n.parse().ok()).ok_or_else(|| format!("no helper '{w}'"))?;
                l.expect('(')?;
                let mut n = 0;
                while !l.take(')') {
                    if n > 0 {
                        l.expect(',')?;
                    }
                    *i.args.get_mut(n).ok_or("more than four arguments")? = self.use_value(l)?;
                    n += 1;
                }
                return Ok(());
            }
            _ => {}
        }
        let mut n = 0;
        loop {
            match l.peek() {
                Some(Token::Punct('#')) => {
                    l.next()?;
                    i.imm = l.u64()?;
                }
                Some(Token::Punct('[')) if n == 0 => {
                    l.next()?;
                    i.args[0] = self.use_value(l)?;
                    if l.take('+') {
                        i.imm = l.u64()?;
                    } else if l.take('-') {
                        i.imm = l.u64()?.wrapping_neg();
                    }
                    l.expect(']')?;
                    n = 1;
                }
                Some(Token::Word(w)) if value(w).is_ok() => {
                    *i.args.get_mut(n).ok_or("more than four arguments")? = self.use_value(l)?;
                    n += 1;
                }
                Some(Token::Word(w)) if i.op == Op::VShuffle && w.starts_with(|c: char| c.is_ascii_digit()) => {
                    let c = l.number()?;
                    i.imm = self.f.const128(c);
                }
                _ if n == 0 => return Ok(()),
                Some(t) => return Err(format!("an operand expected, not {}", t.text())),
                None => return Err("an operand expected".into()),
            }
            if !l.take(',') {
                return Ok(());
            }
        }
    }

    fn attributes(&mut self, l: &mut Line, i: &mut Inst) -> Result<()> {
        let mem = aux_of(i.op) == Aux::Mem;
        let set_round = |i: &mut Inst, bits: u64| {
            if imm_is_rounding(i.op) { i.imm |= bits } else { i.aux |= bits as u32 }
        };
        let power = |n: u32| {
            if n.is_power_of_two() { Ok(n.trailing_zeros()) } else { Err(format!("{n} is not a power of two")) }
        };
        while let Some(Token::Word(w)) = l.peek() {
            l.next()?;
            match w {
                "aux" => {
                    l.expect('=')?;
                    i.aux = l.u32()?;
                }
                "round" => {
                    l.expect('=')?;
                    let n = match l.word()? {
                        "cur" => 255,
                        w => number(w)?,
                    };
                    set_round(i, n as u64 & 0xff);
                }
                "exact" => set_round(i, 0x100),
                "signal" if i.op == Op::FlagsFCmp => i.aux = 1,
                "full" if i.op == Op::Fence => i.aux = 0,
                "acqrel" if i.op == Op::Fence => i.aux = 1,
                "size" if mem => {
                    l.expect('=')?;
                    let n = power(l.u32()?)?;
                    if n > 7 {
                        return Err("the access is too large".into());
                    }
                    i.aux = i.aux & !7 | n;
                }
                "op" if i.op == Op::Rmw => {
                    l.expect('=')?;
                    let w = l.word()?;
                    let n = RMWS
                        .iter()
                        .position(|n| *n == w)
                        .ok_or_else(|| format!("no read-modify-write operation '{w}'"))?;
                    i.aux = i.aux & !0xf_0000 | (n as u32) << 16;
                }
                "align" if mem => {
                    l.expect('=')?;
                    let n = power(l.u32()?)?;
                    if n > 7 {
                        return Err("the alignment is too large".into());
                    }
                    i.aux = i.mem_op().align(n).0;
                }
                "mmu" if mem => {
                    l.expect('=')?;
                    let n = l.u32()?;
                    if n > 15 {
                        return Err(format!("no MMU index {n}"));
                    }
                    i.aux |= n << 11;
                }
                "signed" if mem => i.aux = i.mem_op().signed().0,
                "be" if mem => i.aux = i.mem_op().big_endian(true).0,
                "atomic" if mem => i.aux = i.mem_op().atomic().0,
                "acquire" if mem => i.aux = MemOp(i.aux).acquire().0,
                "release" if mem => i.aux = MemOp(i.aux).release().0,
                "update" if mem => i.aux = MemOp(i.aux).for_update().0,
                "strict" if mem => i.aux |= STRICT,
                w => return Err(format!("no attribute '{w}' of {}", i.op.name())),
            }
        }
        Ok(())
    }
}
