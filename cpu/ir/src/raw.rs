//! The one place of this crate that touches guest state by offset and calls helpers by address.
#![expect(unsafe_code, reason = "slots are byte offsets into the guest's CPU structure, helpers are code addresses")]

use crate::guest::{Guest, HelperDesc};
use crate::types::{Slot, Type};

/// Reads a slot. Out-of-range slots read as zero.
pub fn read_slot<G: Guest>(cpu: &G, slot: Slot) -> u128 {
    let size = slot.ty.bytes() as usize;
    let at = slot.offset as usize;
    if size > 16 || at + size > size_of::<G>() {
        debug_assert!(false, "slot outside the CPU structure");
        return 0;
    }
    let mut b = [0u8; 16];
    // SAFETY: `at + size` is inside `*cpu` (checked above); a slot covers plain integers, valid for any bits.
    unsafe { std::ptr::copy_nonoverlapping((&raw const *cpu).cast::<u8>().add(at), b.as_mut_ptr(), size) };
    u128::from_le_bytes(b)
}

/// Writes a slot.
pub fn write_slot<G: Guest>(cpu: &mut G, slot: Slot, value: u128) {
    let size = slot.ty.bytes() as usize;
    let at = slot.offset as usize;
    if size > 16 || at + size > size_of::<G>() {
        debug_assert!(false, "slot outside the CPU structure");
        return;
    }
    let b = value.to_le_bytes();
    // SAFETY: as in `read_slot`; the exclusive reference makes the write ours.
    unsafe { std::ptr::copy_nonoverlapping(b.as_ptr(), (&raw mut *cpu).cast::<u8>().add(at), size) };
}

/// Calls a helper with its arguments as the contract of [`crate::guest::HelperFn`] says.
pub fn call_helper<G: Guest>(cpu: &mut G, desc: &HelperDesc, args: &[u128]) -> u128 {
    let mut x = [0u64; 4];
    let mut wide = 0;
    for (n, (&a, &ty)) in args.iter().zip(desc.args).enumerate().take(4) {
        if matches!(ty, Type::V128 | Type::I128) {
            cpu.header_mut().scratch[wide] = a;
            wide += 1;
        }
        x[n] = a as u64;
    }
    // SAFETY: by the contract of `Guest::HELPERS` the address is a function of this type for this `G`.
    let f: extern "C" fn(&mut G, u64, u64, u64, u64) -> u64 = unsafe { std::mem::transmute(desc.func.0) };
    let r = f(cpu, x[0], x[1], x[2], x[3]);
    match desc.ret {
        Type::Void => 0,
        Type::Bool => (r & 1) as u128,
        Type::I32 | Type::F32 => r as u32 as u128,
        Type::I64 | Type::F64 => r as u128,
        _ => cpu.header().scratch[7],
    }
}
