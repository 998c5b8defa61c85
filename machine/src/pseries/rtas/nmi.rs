//! Firmware-assisted non-maskable interrupts (LoPAPR 7.3.14): system reset and machine check go to the guest's handlers, with R3
//! pointing to its old value and, for a machine check, the error log behind it.

use super::{BLOB_ROOM, ERROR_LOG_MAX};
use crate::pseries::partition::Partition;
use rhea_ppc::{PpcCpu, Vector};

/// Sends a processor that has just taken such an interrupt to the guest's handler.
pub fn nonmaskable(partition: &Partition, cpu: &mut PpcCpu, vector: Vector) {
    let Some((reset, check)) = *partition.nmi.lock() else { return };
    let Some(base) = partition.rtas_base() else { return };
    let (area, handler) = match vector {
        Vector::SystemReset => {
            let areas = base + u64::from(BLOB_ROOM + ERROR_LOG_MAX);
            (areas + 16 * u64::from(cpu.index), reset)
        }
        Vector::MachineCheck => (base + u64::from(BLOB_ROOM), check),
        _ => return,
    };
    if partition.ram.set_u64(area, cpu.gpr[3]).is_err() {
        return;
    }
    if vector == Vector::MachineCheck {
        /// Version 6, severity "error, synchronous", not recovered, no extension.
        const SUMMARY: u32 = 6 << 24 | 4 << 21 | 2 << 19;
        if partition.ram.set_u32(area + 8, SUMMARY).is_err() || partition.ram.set_u32(area + 12, 0).is_err() {
            return;
        }
    }
    cpu.gpr[3] = area;
    cpu.set_pc(handler);
}
