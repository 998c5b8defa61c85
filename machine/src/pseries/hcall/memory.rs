//! Page table calls, and those that read and write memory (LoPAPR 14.5.4).

use super::number as n;
use crate::pseries::hpt::{flag, pte1};
use crate::pseries::partition::Partition;
use rhea_irqchip::spapr::papr::{Args, Status};
use rhea_memory::{Access, Gpa};
use rhea_ppc::PpcCpu;

/// The calls on the hashed page table.
pub fn page_table(p: &Partition, cpu: &mut PpcCpu, number: u64, a: &Args, out: &mut Args) -> Result<(), Status> {
    match number {
        n::H_ENTER => out[0] = p.hpt.enter(a[0], a[1], a[2], a[3])?,
        n::H_REMOVE => {
            let old = p.hpt.remove(a[0], a[1], a[2])?;
            cpu.invalidate_pte(a[1], old);
            (out[0], out[1]) = (old[0], old[1]);
        }
        n::H_PROTECT => {
            let old = p.hpt.protect(a[0], a[1], a[2])?;
            cpu.invalidate_pte(a[1], old);
        }
        n::H_READ => {
            let entries = p.hpt.read(a[0], a[1])?;
            for (place, value) in out.iter_mut().zip(entries.iter().flatten()) {
                *place = *value;
            }
            if a[0] & flag::R_XLATE != 0 {
                // Guest-real addresses are what entries hold.
                return Ok(());
            }
        }
        n::H_CLEAR_REF | n::H_CLEAR_MOD => {
            let bit = if number == n::H_CLEAR_REF { pte1::REFERENCED } else { pte1::CHANGED };
            let old = p.hpt.clear(a[0], a[1], a[2], bit)?;
            cpu.invalidate_pte(a[1], old);
            (out[0], out[1]) = (old[0], old[1]);
        }
        n::H_BULK_REMOVE => {
            let mut requests: [u64; 8] = std::array::from_fn(|i| a[i]);
            let (status, gone) = p.hpt.bulk_remove(&mut requests);
            for (index, old) in gone {
                cpu.invalidate_pte(index, old);
            }
            out[..8].copy_from_slice(&requests);
            return if status == Status::SUCCESS { Ok(()) } else { Err(status) };
        }
        n::H_BLOCK_REMOVE => {
            let (status, answers, gone) = p.hpt.block_remove(a);
            for (index, old) in gone {
                cpu.invalidate_pte(index, old);
            }
            out[..8].copy_from_slice(&answers);
            return if status == Status::SUCCESS { Ok(()) } else { Err(status) };
        }
        n::H_RESIZE_HPT_PREPARE if p.offer.hpt_resize => p.hpt.prepare(a[0], a[1])?,
        n::H_RESIZE_HPT_COMMIT if p.offer.hpt_resize => {
            p.hpt.commit(a[0], a[1])?;
            cpu.invalidate_all_ptes();
        }
        _ => return Err(Status::FUNCTION),
    }
    Ok(())
}

/// H_RPT_INVALIDATE: process, processors, what, page sizes, start, end.
pub fn invalidate_radix(_p: &Partition, cpu: &mut PpcCpu, a: &Args) -> Result<(), Status> {
    match cpu.rpt_invalidate(a[0], a[1], a[2], a[3], a[4], a[5]) {
        0 => Ok(()),
        status => Err(Status(status)),
    }
}

/// H_PAGE_INIT: flags, destination, source; 4 KiB pages.
pub fn page_init(p: &Partition, a: &Args) -> Result<(), Status> {
    const PAGE: u64 = 4096;
    const CACHE: u64 = 1 << (63 - 40) | 1 << (63 - 41);
    let (flags, to, from) = (a[0], a[1], a[2]);
    if flags & !(flag::ZERO_PAGE | flag::COPY_PAGE | CACHE) != 0 || to % PAGE != 0 || !p.ram.has(to, PAGE) {
        return Err(Status::PARAMETER);
    }
    if flags & flag::COPY_PAGE != 0 {
        if from % PAGE != 0 {
            return Err(Status::PARAMETER);
        }
        let data = p.ram.bytes(from, PAGE).map_err(|_| Status::PARAMETER)?;
        return p.ram.write(to, &data).map_err(|_| Status::PARAMETER);
    }
    if flags & flag::ZERO_PAGE != 0 {
        return p.ram.fill(to, PAGE, 0).map_err(|_| Status::PARAMETER);
    }
    Ok(())
}

/// The value of that many bytes with the first one most significant, from one with the first one least significant.
fn swap(value: u64, size: u8) -> u64 {
    value.swap_bytes() >> (64 - 8 * u32::from(size))
}

fn size_of(bytes: u64) -> Result<u8, Status> {
    if matches!(bytes, 1 | 2 | 4 | 8) { Ok(bytes as u8) } else { Err(Status::PARAMETER) }
}

/// H_LOGICAL_CI_LOAD, H_LOGICAL_CACHE_LOAD: size in bytes, address.
pub fn load(p: &Partition, cpu: u32, a: &Args, out: &mut Args) -> Result<(), Status> {
    let size = size_of(a[0])?;
    if !a[1].is_multiple_of(u64::from(size)) {
        return Err(Status::PARAMETER);
    }
    let value = p.space.load(Gpa(a[1]), Access::cpu(cpu, size)).map_err(|_| Status::PARAMETER)?;
    out[0] = swap(value, size);
    Ok(())
}

/// H_LOGICAL_CI_STORE, H_LOGICAL_CACHE_STORE: size in bytes, address, value.
pub fn store(p: &Partition, cpu: u32, a: &Args) -> Result<(), Status> {
    let size = size_of(a[0])?;
    if !a[1].is_multiple_of(u64::from(size)) {
        return Err(Status::PARAMETER);
    }
    let value = swap(a[2], size);
    p.space.store(Gpa(a[1]), value, Access::cpu(cpu, size)).map_err(|_| Status::PARAMETER)
}

/// Firmware's block operation: destination, source, log2 of the element's size, elements, 0 to copy or 1 to invert.
pub fn operation(p: &Partition, cpu: u32, a: &Args) -> Result<(), Status> {
    /// A call that moves more would keep the processor too long; firmware moves screens at most.
    const MOST_BYTES: u64 = 64 << 20;
    let (to, from, shift, count, invert) = (a[0], a[1], a[2], a[3], a[4]);
    if shift > 3 || invert > 1 {
        return Err(Status::PARAMETER);
    }
    let size = 1u64 << shift;
    let bytes = count.checked_mul(size).filter(|b| *b <= MOST_BYTES).ok_or(Status::PARAMETER)?;
    if (to | from) & (size - 1) != 0 || to.checked_add(bytes).is_none() || from.checked_add(bytes).is_none() {
        return Err(Status::PARAMETER);
    }
    if p.ram.has(to, bytes) && p.ram.has(from, bytes) {
        // In RAM at once.
        for part in 0..bytes.div_ceil(1 << 20) {
            let backwards = to > from;
            let part = if backwards { bytes.div_ceil(1 << 20) - 1 - part } else { part };
            let (at, len) = (part << 20, (bytes - (part << 20)).min(1 << 20));
            let mut data = p.ram.bytes(from + at, len).map_err(|_| Status::PARAMETER)?;
            if invert == 1 {
                data.iter_mut().for_each(|b| *b = !*b);
            }
            p.ram.write(to + at, &data).map_err(|_| Status::PARAMETER)?;
        }
        return Ok(());
    }
    let access = Access::cpu(cpu, size as u8);
    let mask = u64::MAX >> (64 - 8 * size);
    for step in 0..count {
        // Overlapping blocks keep their contents.
        let at = size * if to > from { count - 1 - step } else { step };
        let value = p.space.load(Gpa(from + at), access).map_err(|_| Status::PARAMETER)?;
        let value = if invert == 1 { !value & mask } else { value };
        p.space.store(Gpa(to + at), value, access).map_err(|_| Status::PARAMETER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order() {
        assert_eq!(swap(0x44332211, 4), 0x11223344);
        assert_eq!(swap(0x2211, 2), 0x1122);
        assert_eq!(swap(0x7f, 1), 0x7f);
        assert!(size_of(3).is_err() && size_of(0).is_err() && size_of(8).is_ok());
    }
}
