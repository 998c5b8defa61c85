//! Power, parameters, non-maskable interrupts.

use super::{After, Call, HARDWARE_ERROR, NOT_AUTHORIZED, PARAMETER_ERROR, SUCCESS};
use rhea_accel::ShutdownCause;

/// A character for the console of firmware.
pub fn display_character(call: &mut Call<'_>) -> After {
    let byte = call.arg(0) as u8;
    let status = if call.partition.console_write(&[byte]) { SUCCESS } else { HARDWARE_ERROR };
    call.finish(status, &[])
}

pub fn power_off(call: &mut Call<'_>) -> After {
    call.partition.control.power_off(ShutdownCause::Guest);
    call.finish(SUCCESS, &[]);
    After::Wait
}

pub fn system_reboot(call: &mut Call<'_>) -> After {
    call.partition.control.reset(ShutdownCause::Guest);
    call.finish(SUCCESS, &[]);
    After::Wait
}

/// ibm,os-term: the address of a message.
pub fn os_term(call: &mut Call<'_>) -> After {
    let text = call.ram().text(call.arg(0).into(), 1024).unwrap_or_default();
    call.partition.control.guest_panic(&text);
    // With ibm,extended-os-term it returns in any case.
    call.finish(SUCCESS, &[])
}

/// Puts the length in 16 bits and the data into a buffer.
fn put(call: &mut Call<'_>, data: &[u8]) -> After {
    let (buffer, len) = (u64::from(call.arg(1)), call.arg(2) as usize);
    if len < 2 {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    let mut bytes = (data.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.truncate(len);
    let status = if call.ram().write(buffer, &bytes).is_ok() { SUCCESS } else { PARAMETER_ERROR };
    call.finish(status, &[])
}

/// ibm,get-system-parameter: number, buffer, length (LoPAPR table 7.28).
pub fn get_system_parameter(call: &mut Call<'_>) -> After {
    const SPLPAR_CHARACTERISTICS: u32 = 20;
    const PROCESSOR_MODULE_INFO: u32 = 43;
    const DIAGNOSTICS_RUN_MODE: u32 = 42;
    const UUID: u32 = 48;
    const TLB_BLOCK_INVALIDATE: u32 = 50;
    let partition = call.partition;
    match call.arg(0) {
        SPLPAR_CHARACTERISTICS => {
            let (cpus, most) = (partition.smp.cpus, partition.smp.max_cpus);
            let mib = partition.ram.len() >> 20;
            let text = format!("MaxEntCap={},DesMem={mib},DesProcs={cpus},MaxPlatProcs={most}\0", most * 100);
            put(call, text.as_bytes())
        }
        // One byte: disabled.
        DIAGNOSTICS_RUN_MODE => put(call, &[0]),
        PROCESSOR_MODULE_INFO => {
            let smp = &partition.smp;
            let words = [1u16, smp.sockets as u16, 1, (smp.cores * smp.dies * smp.clusters) as u16];
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            put(call, &bytes)
        }
        UUID => {
            let uuid = partition.uuid;
            put(call, &uuid)
        }
        // Blocks of eight pages; page sizes with their encodings: 4 KiB, 64 KiB, 64 KiB in a segment of 4 KiB.
        TLB_BLOCK_INVALIDATE => put(call, &[3, 3, 0, 0x81, 0x87]),
        _ => call.finish(PARAMETER_ERROR, &[]),
    }
}

/// ibm,set-system-parameter: the platform's parameters are not the partition's to set.
pub fn set_system_parameter(call: &mut Call<'_>) -> After {
    let known = matches!(call.arg(0), 20 | 42 | 43 | 48 | 50);
    call.finish(if known { NOT_AUTHORIZED } else { PARAMETER_ERROR }, &[])
}

/// The one power domain: live insertion, always on.
const LIVE: u32 = u32::MAX;
const FULL_POWER: u32 = 100;

pub fn set_power_level(call: &mut Call<'_>) -> After {
    if call.arg(0) != LIVE {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    call.finish(SUCCESS, &[FULL_POWER])
}

pub fn get_power_level(call: &mut Call<'_>) -> After {
    if call.arg(0) != LIVE {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    call.finish(SUCCESS, &[FULL_POWER])
}

/// rtas-last-error: there is none.
pub fn last_error(call: &mut Call<'_>) -> After {
    call.finish(1, &[])
}

/// ibm,nmi-register: addresses of the handlers of system reset and machine check; both in the first 32 MiB.
pub fn nmi_register(call: &mut Call<'_>) -> After {
    const LIMIT: u32 = 32 << 20;
    let (reset, check) = (call.arg(0), call.arg(1));
    if !call.partition.options.caps.fwnmi {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    if reset >= LIMIT || check >= LIMIT {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    *call.partition.nmi.lock() = Some((reset.into(), check.into()));
    call.finish(SUCCESS, &[])
}

pub fn nmi_interlock(call: &mut Call<'_>) -> After {
    let registered = call.partition.nmi.lock().is_some();
    call.finish(if registered { SUCCESS } else { PARAMETER_ERROR }, &[])
}
