//! The one place of this crate that touches guest state by offset and calls helpers by address.
#![expect(unsafe_code, reason = "slots are byte offsets into the guest's CPU structure, helpers are code addresses")]

use crate::env::{PAGE_BITS, PAGE_SIZE, TlbEntry};
use crate::guest::{Access, Guest, HelperDesc, Raised};
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

/// The function behind [`EnvHeader::touch`](crate::EnvHeader::touch): `(cpu, va, write, mmu index)`; returns the host address, 0 for
/// memory that has none, [`TOUCH_RAISED`] after an exception.
pub type TouchFn<G> = extern "C" fn(&mut G, u64, u64, u64) -> u64;
pub const TOUCH_RAISED: u64 = 1;

/// The host address of the byte at `va`, good for accesses of this kind to its page until guest code runs again; `None` if accesses must go through the bus or cannot be had so (devices, translated code, no accelerator). For
/// helpers that move much data.
///
/// # Errors
/// The access faults; the exception has been raised.
pub fn touch<G: Guest>(cpu: &mut G, va: u64, kind: Access, idx: u32) -> Result<Option<*mut u8>, Raised> {
    let h = cpu.header();
    let function = h.touch;
    if function == 0 {
        return Ok(None);
    }
    let d = h.tlb[crate::env::tlb_slot(idx)];
    if d.table != 0 {
        let at = d.table + ((va >> (PAGE_BITS - 5)) & d.mask);
        // SAFETY: an accelerator that sets `touch` keeps in `tlb` the address and size of a table of entries that only the
        // thread running this guest changes.
        let e = unsafe { *(at as *const TlbEntry) };
        if (if kind == Access::Write { e.write } else { e.read }) == va & !(PAGE_SIZE - 1) {
            return Ok(Some(va.wrapping_add(e.addend) as *mut u8));
        }
    }
    // SAFETY: `touch` is the address of a `TouchFn` for this guest.
    let f: TouchFn<G> = unsafe { std::mem::transmute(function as *const ()) };
    match f(cpu, va, (kind == Access::Write) as u64, idx as u64) {
        0 => Ok(None),
        TOUCH_RAISED => Err(Raised),
        host => Ok(Some(host as *mut u8)),
    }
}
