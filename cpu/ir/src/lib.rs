//! The intermediate representation between guest front ends and execution back ends.
//!
//! A [`Function`] is one *region* of guest code: several basic blocks, loops included, in typed SSA. A front end
//! translates guest basic blocks through a [`Builder`]; guest registers are *slots* (a byte offset in the guest's
//! state and a type), which the builder turns into SSA values. Whatever can fault, exit or take an interrupt carries
//! a *state map* that says which value belongs in which slot there, so nothing is written back on the hot path.

pub mod carry;
pub mod decode;
pub mod env;
pub mod eval;
pub mod fpeval;
pub mod func;
pub mod guest;
pub mod helpers;
pub mod interp;
pub mod lazy;
mod mode;
pub mod near;
pub mod op;
pub mod opt;
pub mod promote;
pub mod raw;
pub mod saved;
pub mod simd;
mod simdfp;
mod simplify;
pub mod text;
pub mod types;
pub mod verify;

pub use env::{EnvHeader, TlbDesc, TlbEntry};
pub use func::{Block, BlockId, Builder, ExitKind, Function, Inst, StateId, StateMap, Target, Term, Value};
pub use guest::{Effects, FpMode, Guest, HelperDesc, HelperId};
pub use op::{Cond, Op};
pub use types::{Lane, MemOp, RmwOp, Slot, Type};
