//! Value types, lanes, slots and memory-access attributes.

/// The type of an SSA value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Type {
    /// No value (stores, fences).
    Void,
    /// 0 or 1.
    Bool,
    I32,
    I64,
    /// 128-bit integer; lives in a vector register.
    I128,
    F32,
    F64,
    V128,
    /// Reserved for 256-bit vectors.
    V256,
}

impl Type {
    /// Size in bytes of a value kept in guest state.
    pub const fn bytes(self) -> u32 {
        match self {
            Type::Void => 0,
            Type::Bool => 1,
            Type::I32 | Type::F32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::I128 | Type::V128 => 16,
            Type::V256 => 32,
        }
    }

    /// True for types held in general-purpose host registers.
    pub const fn is_int(self) -> bool {
        matches!(self, Type::Bool | Type::I32 | Type::I64)
    }

    /// True for types held in vector host registers.
    pub const fn is_vec(self) -> bool {
        matches!(self, Type::I128 | Type::F32 | Type::F64 | Type::V128 | Type::V256)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Type::Void => "void",
            Type::Bool => "bool",
            Type::I32 => "i32",
            Type::I64 => "i64",
            Type::I128 => "i128",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::V128 => "v128",
            Type::V256 => "v256",
        }
    }

    pub fn from_name(s: &str) -> Option<Type> {
        use Type::*;
        [Void, Bool, I32, I64, I128, F32, F64, V128, V256].into_iter().find(|t| t.name() == s)
    }
}

/// Lane shape of a vector operation. Integer and FP operations share the sizes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Lane {
    B = 0,
    H = 1,
    S = 2,
    D = 3,
}

impl Lane {
    pub const fn bytes(self) -> u32 {
        1 << self as u32
    }
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }
    /// Lanes in 128 bits.
    pub const fn count(self) -> u32 {
        16 >> self as u32
    }
    /// From the low two bits of an instruction's size field.
    pub const fn from_size(size: u32) -> Lane {
        match size & 3 {
            0 => Lane::B,
            1 => Lane::H,
            2 => Lane::S,
            _ => Lane::D,
        }
    }
}

/// A piece of guest state: byte offset from the start of the guest's CPU structure (whose first member is
/// [`crate::EnvHeader`]) and the type it is always accessed with. Slots must not overlap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Slot {
    pub offset: u32,
    pub ty: Type,
    /// Written often and read rarely (flags): see [`crate::Function::eager`].
    pub late: bool,
}

/// Behind every guest's state.
const PASSING: u32 = 1 << 31;

impl Slot {
    pub const fn new(offset: usize, ty: Type) -> Slot {
        Slot { offset: offset as u32, ty, late: false }
    }
    /// Number `n` of the values that go from block to block as slots do before [`crate::promote`], and are never in memory.
    pub const fn passing(n: u32, ty: Type) -> Slot {
        Slot { offset: PASSING + n, ty, late: false }
    }
    pub const fn is_passing(self) -> bool {
        self.offset >= PASSING
    }
    /// The same slot, [`Slot::late`].
    pub const fn late(self) -> Slot {
        Slot { late: true, ..self }
    }
}

/// Read-modify-write operation of an atomic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RmwOp {
    Add,
    /// `old & value`.
    And,
    /// `old & !value`.
    Clr,
    Xor,
    Or,
    Xchg,
    SMax,
    SMin,
    UMax,
    UMin,
}

impl RmwOp {
    pub const ALL: [RmwOp; 10] = [
        RmwOp::Add,
        RmwOp::And,
        RmwOp::Clr,
        RmwOp::Xor,
        RmwOp::Or,
        RmwOp::Xchg,
        RmwOp::SMax,
        RmwOp::SMin,
        RmwOp::UMax,
        RmwOp::UMin,
    ];
}

/// Attributes of a memory access.
///
/// | bits | meaning |
/// |---|---|
/// | 0–2 | log2 of the size in bytes (0–5) |
/// | 3 | sign-extend the loaded value to the result type |
/// | 4 | big-endian |
/// | 5–7 | log2 of the required alignment (0: any); a violation is an alignment fault |
/// | 8 | must be single-copy atomic even if larger than 8 bytes |
/// | 9 | acquire |
/// | 10 | release |
/// | 11–14 | MMU index (translation regime and privilege) |
/// | 15 | the access may not cross the alignment given even on Normal memory (atomics) |
/// | 16–19 | [`RmwOp`] |
/// | 20 | of a load: a store to the same place follows, and a fault is one of a write |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MemOp(pub u32);

impl MemOp {
    pub const fn new(size_log2: u32, mmu_idx: u32) -> MemOp {
        MemOp((size_log2 & 7) | ((mmu_idx & 15) << 11))
    }
    pub const fn signed(self) -> MemOp {
        MemOp(self.0 | 8)
    }
    pub const fn big_endian(self, big: bool) -> MemOp {
        MemOp(if big { self.0 | 16 } else { self.0 & !16 })
    }
    /// Requires alignment to `1 << log2` bytes.
    pub const fn align(self, log2: u32) -> MemOp {
        MemOp((self.0 & !0xe0) | ((log2 & 7) << 5))
    }
    pub const fn atomic(self) -> MemOp {
        MemOp(self.0 | 0x100)
    }
    pub const fn acquire(self) -> MemOp {
        MemOp(self.0 | 0x200)
    }
    pub const fn release(self) -> MemOp {
        MemOp(self.0 | 0x400)
    }
    pub const fn for_update(self) -> MemOp {
        MemOp(self.0 | 1 << 20)
    }
    pub const fn is_for_update(self) -> bool {
        self.0 & 1 << 20 != 0
    }
    pub const fn rmw(self, op: RmwOp) -> MemOp {
        MemOp((self.0 & !0xf_0000) | ((op as u32) << 16))
    }
    pub const fn size_log2(self) -> u32 {
        self.0 & 7
    }
    pub const fn bytes(self) -> u32 {
        1 << self.size_log2()
    }
    pub const fn is_signed(self) -> bool {
        self.0 & 8 != 0
    }
    pub const fn is_big_endian(self) -> bool {
        self.0 & 16 != 0
    }
    pub const fn align_log2(self) -> u32 {
        (self.0 >> 5) & 7
    }
    pub const fn is_atomic(self) -> bool {
        self.0 & 0x100 != 0
    }
    pub const fn is_acquire(self) -> bool {
        self.0 & 0x200 != 0
    }
    pub const fn is_release(self) -> bool {
        self.0 & 0x400 != 0
    }
    pub const fn mmu_idx(self) -> u32 {
        (self.0 >> 11) & 15
    }
    pub fn rmw_op(self) -> RmwOp {
        RmwOp::ALL[(((self.0 >> 16) & 15) as usize).min(9)]
    }
}
