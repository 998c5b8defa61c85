//! Special-purpose registers: numbers (Book III, 5.4.4).

pub const XER: u32 = 1;
pub const DSCR_USER: u32 = 3;
pub const LR: u32 = 8;
pub const CTR: u32 = 9;
pub const DSCR: u32 = 17;
pub const DSISR: u32 = 18;
pub const DAR: u32 = 19;
pub const DEC: u32 = 22;
pub const SRR0: u32 = 26;
pub const SRR1: u32 = 27;
pub const CFAR: u32 = 28;
pub const AMR: u32 = 29;
pub const PIDR: u32 = 48;
pub const VRSAVE: u32 = 256;
pub const SPRG0: u32 = 272;
pub const HASHKEYR: u32 = 468;
pub const HASHPKEYR: u32 = 469;
pub const TAR: u32 = 815;
