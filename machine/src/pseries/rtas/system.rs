//! Power, parameters, indicators and sensors, connectors, non-maskable interrupts.

use super::{After, Call, HARDWARE_ERROR, NO_SUCH_INDICATOR, NOT_AUTHORIZED, PARAMETER_ERROR, SUCCESS};
use crate::pseries::tree::{DrcType, LMB};
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
    let partition = call.partition;
    match call.arg(0) {
        SPLPAR_CHARACTERISTICS => {
            let cpus = partition.threads.len();
            let mib = partition.ram.len() >> 20;
            let text = format!("MaxEntCap={},DesMem={mib},DesProcs={cpus},MaxPlatProcs={cpus}\0", cpus * 100);
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
        _ => call.finish(PARAMETER_ERROR, &[]),
    }
}

/// ibm,set-system-parameter: the platform's parameters are not the partition's to set.
pub fn set_system_parameter(call: &mut Call<'_>) -> After {
    let known = matches!(call.arg(0), 20 | 42 | 43 | 48);
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

/// Is there something at the connector? `None`: there is no such connector.
fn connected(call: &Call<'_>, index: u32) -> Option<bool> {
    let p = call.partition;
    let (kind, id) = (index >> 28, index & 0x0fff_ffff);
    match kind {
        k if k == DrcType::Cpu as u32 => {
            let there = (id as usize) < p.threads.len() && id % p.smp.threads.max(1) == 0;
            there.then_some(true)
        }
        k if k == DrcType::Phb as u32 => (id == 0).then_some(true),
        k if k == DrcType::Pci as u32 => Some(p.pci_slot_taken(id)?),
        8 => {
            let end = (u64::from(id) + 1).checked_mul(LMB)?;
            (end <= p.max_ram.max(p.ram.len())).then_some(end <= p.ram.len())
        }
        _ => None,
    }
}

/// set-indicator: type, index, value. Devices that cannot be taken out keep their states.
pub fn set_indicator(call: &mut Call<'_>) -> After {
    const ISOLATION: u32 = 9001;
    const DR: u32 = 9002;
    const ALLOCATION: u32 = 9003;
    let (kind, index, value) = (call.arg(0), call.arg(1), call.arg(2));
    let status = match (kind, connected(call, index)) {
        (ISOLATION | DR | ALLOCATION, None) => PARAMETER_ERROR,
        // To "unisolated", "usable", "active" are no changes.
        (ISOLATION | ALLOCATION, Some(true)) if value == 1 => SUCCESS,
        (DR, Some(_)) => SUCCESS,
        // What cannot be unplugged is not isolated: hardware error; no resources: there is nothing to allocate.
        (ISOLATION | ALLOCATION, _) => HARDWARE_ERROR,
        _ => NO_SUCH_INDICATOR,
    };
    call.finish(status, &[])
}

/// get-sensor-state: type, index; the DR entity sense: 0 empty, 1 present, 2 unusable.
pub fn get_sensor_state(call: &mut Call<'_>) -> After {
    const DR_ENTITY_SENSE: u32 = 9003;
    if call.arg(0) != DR_ENTITY_SENSE {
        return call.finish(NO_SUCH_INDICATOR, &[]);
    }
    match connected(call, call.arg(1)) {
        None => call.finish(PARAMETER_ERROR, &[]),
        Some(true) => call.finish(SUCCESS, &[1]),
        // Logical connectors say "unusable", physical ones "empty".
        Some(false) => call.finish(SUCCESS, &[if call.arg(1) >> 28 == DrcType::Pci as u32 { 0 } else { 2 }]),
    }
}

/// ibm,configure-connector: work area, extent. All that is there has been configured at the start: there is nothing new to describe.
pub fn configure_connector(call: &mut Call<'_>) -> After {
    const NOT_THERE: i32 = -9003;
    let area = u64::from(call.arg(0));
    let Ok(index) = call.ram().u32(area) else { return call.finish(PARAMETER_ERROR, &[]) };
    if !call.ram().has(area, 4096) {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    match connected(call, index) {
        None => call.finish(PARAMETER_ERROR, &[]),
        Some(false) => call.finish(NOT_THERE, &[]),
        // Complete.
        Some(true) => call.finish(SUCCESS, &[]),
    }
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
