//! H_SET_MODE and H_REGISTER_PROCESS_TABLE (LoPAPR 14.13.1, 14.5.4.9).

use super::UNSUPPORTED_FLAG;
use crate::pseries::options::Compat;
use crate::pseries::partition::Partition;
use rhea_irqchip::spapr::papr::{Args, Status};
use rhea_ppc::PpcCpu;
use rhea_ppc::bits::lpcr;
use std::sync::atomic::Ordering;

/// H_SET_MODE: flags, resource, two values.
pub fn set(p: &Partition, cpu: &mut PpcCpu, a: &Args) -> Result<(), Status> {
    const CIABR: u64 = 1;
    const DAWR0: u64 = 2;
    const TRANSLATION: u64 = 3;
    const ENDIAN: u64 = 4;
    const DAWR1: u64 = 5;
    let (flags, resource, first, second) = (a[0], a[1], a[2], a[3]);
    match resource {
        CIABR => {
            if flags != 0 {
                return Err(UNSUPPORTED_FLAG);
            }
            if second != 0 {
                return Err(Status::P4);
            }
            // Hypervisor state is not the partition's to watch.
            if first & 3 == 3 {
                return Err(Status::P3);
            }
            cpu.set_ciabr(first);
        }
        DAWR0 | DAWR1 => {
            if resource == DAWR1 && !(p.options.caps.dawr1 && cpu.config.isa >= rhea_ppc::Isa::V3_1) {
                return Err(Status::P2);
            }
            if flags != 0 {
                return Err(UNSUPPORTED_FLAG);
            }
            // DAWRX.HV.
            if second & 4 != 0 {
                return Err(Status::P4);
            }
            if !cpu.set_watchpoint(usize::from(resource == DAWR1), first, second) {
                return Err(Status::P4);
            }
        }
        TRANSLATION => {
            if first != 0 {
                return Err(Status::P3);
            }
            if second != 0 {
                return Err(Status::P4);
            }
            let level = p.outcome().compat.unwrap_or(p.offer.newest);
            // Location 2 went with 3.1, location 1 never was.
            let known = flags == 0 || flags == 3 && p.options.caps.ail_mode_3 || flags == 2 && level < Compat::Power10;
            if !known {
                return Err(UNSUPPORTED_FLAG);
            }
            p.on_all(cpu, move |cpu| cpu.set_lpcr(cpu.lpcr() & !lpcr::AIL | flags << lpcr::AIL_SHIFT));
        }
        ENDIAN => {
            if first != 0 {
                return Err(Status::P3);
            }
            if second != 0 {
                return Err(Status::P4);
            }
            let ile = match flags {
                0 => 0,
                1 => lpcr::ILE,
                _ => return Err(UNSUPPORTED_FLAG),
            };
            p.on_all(cpu, move |cpu| cpu.set_lpcr(cpu.lpcr() & !lpcr::ILE | ile));
            p.set_byte_order(ile != 0);
        }
        _ => return Err(Status::P2),
    }
    Ok(())
}

/// H_REGISTER_PROCESS_TABLE: flags, base, page size, table size.
pub fn process_table(p: &Partition, cpu: &mut PpcCpu, a: &Args) -> Result<(), Status> {
    const NEW: u64 = 0x10;
    const REGISTER: u64 = 0x08;
    const RADIX: u64 = 0x04;
    const HASH_TABLE: u64 = 0x02;
    const GTSE: u64 = 0x01;
    let (flags, base, page_size, table_size) = (a[0], a[1], a[2], a[3]);
    if flags & !0x1f != 0 || !p.cpu.radix {
        return Err(if p.cpu.radix { Status::PARAMETER } else { Status::FUNCTION });
    }
    let old = p.process_table.load(Ordering::SeqCst);
    let mut uprt = flags & (RADIX | HASH_TABLE) != 0;
    let table = if flags & NEW == 0 {
        // Nothing changes but for GTSE.
        old
    } else if flags & REGISTER == 0 {
        uprt = false;
        0
    } else if flags & RADIX != 0 {
        let size = 1u64.checked_shl((table_size as u32).saturating_add(12)).filter(|_| table_size <= 24);
        let size = size.ok_or(Status::P4)?;
        if base % size != 0 || !p.ram.has(base, size) {
            return Err(Status::P2);
        }
        if page_size != 0 {
            return Err(Status::P3);
        }
        base | table_size
    } else if flags & HASH_TABLE != 0 {
        // Segment tables in memory are not offered in option vector 5.
        return Err(Status::PARAMETER);
    } else {
        if base != 0 {
            return Err(Status::P2);
        }
        0
    };
    let radix = flags & RADIX != 0 && (flags & NEW == 0 || flags & REGISTER != 0);
    if radix && table == 0 {
        return Err(Status::PARAMETER);
    }
    if radix {
        p.set_radix(table, flags & GTSE != 0).map_err(|_| Status::HARDWARE)?;
    } else if p.hpt_order() == 0 {
        p.set_hash().map_err(|_| Status::HARDWARE)?;
    }
    p.process_table.store(table, Ordering::SeqCst);
    // Another table, or a table of the same place filled anew (kexec).
    cpu.invalidate_all_translations();
    let bits = if uprt && radix { lpcr::UPRT } else { 0 }
        | if radix { lpcr::HR } else { 0 }
        | if flags & GTSE != 0 { lpcr::GTSE } else { 0 };
    p.on_all(cpu, move |cpu| cpu.set_lpcr(cpu.lpcr() & !(lpcr::UPRT | lpcr::HR | lpcr::GTSE) | bits));
    Ok(())
}
