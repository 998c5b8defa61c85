//! Run-time abstraction services (LoPAPR chapter 7): the dispatcher and the calls of the board itself.

mod drc;
pub mod events;
mod nmi;
mod system;
mod threads;

pub use nmi::nonmaskable;

use super::memory::GuestRam;
use super::partition::Partition;
use rhea_irqchip::spapr::papr::{RtasCalls, Status};
use std::sync::Arc;

/// Size of an error log.
pub const ERROR_LOG_MAX: u32 = 2048;
/// Room for the blob.
const BLOB_ROOM: u32 = 256;
/// The first token; the others follow.
const FIRST_TOKEN: u32 = 0x2000;
/// Arguments, and results, that a call has at most.
const MOST: usize = 16;

/// Statuses.
pub const SUCCESS: i32 = 0;
pub const HARDWARE_ERROR: i32 = -1;
pub const PARAMETER_ERROR: i32 = -3;
pub const NOT_AUTHORIZED: i32 = -9002;
pub const NO_SUCH_INDICATOR: i32 = -3;
/// check-exception, event-scan: nothing has happened.
pub const NO_EVENT: i32 = 1;

/// The code at the entry of RTAS: moves the argument to R4, puts the number of the hypercall into R3 and calls.
pub const BLOB: [u32; 5] = [
    0x7c64_1b78, // mr   r4, r3
    0x3c60_0000, // lis  r3, 0
    0x6063_f000, // ori  r3, r3, 0xf000
    0x4400_0022, // sc   1
    0x4e80_0020, // blr
];

/// `rtas-size`: the blob, the error log of a machine check, and a pair of doublewords for each processor's system reset.
#[must_use]
pub fn size(cpus: u32) -> u32 {
    BLOB_ROOM + ERROR_LOG_MAX + cpus * 16 + 8
}

/// What the calling processor does afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Continue,
    /// It is off until another one starts it.
    Stop,
    /// The machine ends or starts anew: it waits for that.
    Wait,
}

/// What a call is given.
pub struct Call<'a> {
    pub partition: &'a Partition,
    pub args: &'a [u32],
    /// The status first.
    pub results: &'a mut [u32],
}

impl Call<'_> {
    /// Puts the status and values in, as far as there is room.
    pub fn finish(&mut self, status: i32, values: &[u32]) -> After {
        rhea_irqchip::spapr::papr::rtas_return(self.results, status, values);
        After::Continue
    }
    fn ram(&self) -> &GuestRam {
        &self.partition.ram
    }
    fn arg(&self, n: usize) -> u32 {
        self.args.get(n).copied().unwrap_or(0)
    }
}

type Own = fn(&mut Call<'_>) -> After;

/// The board's own calls: name, numbers of arguments and results it must have at least.
const OWN: &[(&str, usize, usize, Own)] = &[
    ("display-character", 1, 1, system::display_character),
    ("power-off", 2, 1, system::power_off),
    ("system-reboot", 0, 1, system::system_reboot),
    ("ibm,os-term", 1, 1, system::os_term),
    ("ibm,get-system-parameter", 3, 1, system::get_system_parameter),
    ("ibm,set-system-parameter", 2, 1, system::set_system_parameter),
    ("set-power-level", 2, 2, system::set_power_level),
    ("get-power-level", 1, 2, system::get_power_level),
    ("set-indicator", 3, 1, drc::set_indicator),
    ("get-sensor-state", 2, 2, drc::get_sensor_state),
    ("ibm,configure-connector", 2, 1, drc::configure_connector),
    ("rtas-last-error", 2, 1, system::last_error),
    ("ibm,nmi-register", 2, 1, system::nmi_register),
    ("ibm,nmi-interlock", 0, 1, system::nmi_interlock),
    ("start-cpu", 3, 1, threads::start_cpu),
    ("stop-self", 0, 0, threads::stop_self),
    ("query-cpu-stopped-state", 1, 2, threads::query),
    ("check-exception", 6, 1, events::check_exception),
    ("event-scan", 4, 1, events::event_scan),
];

/// All calls by token.
pub struct Rtas {
    devices: Vec<(Arc<dyn RtasCalls>, &'static str)>,
}

impl Rtas {
    #[must_use]
    pub fn new(sets: &[Arc<dyn RtasCalls>]) -> Self {
        let devices = sets.iter().flat_map(|set| set.names().iter().map(|name| (set.clone(), *name))).collect();
        Self { devices }
    }
    /// Names and tokens.
    #[must_use]
    pub fn tokens(&self) -> Vec<(String, u32)> {
        let names = OWN.iter().map(|c| c.0).chain(self.devices.iter().map(|d| d.1));
        names.zip(FIRST_TOKEN..).map(|(name, token)| (name.to_owned(), token)).collect()
    }

    /// H_RTAS: the arguments are at `address` in RAM.
    ///
    /// # Errors
    /// H_PARAMETER: they are not.
    pub fn call(&self, partition: &Partition, address: u64) -> Result<After, Status> {
        let ram = &partition.ram;
        let word = |n: u64| ram.u32(address.wrapping_add(4 * n)).map_err(|_| Status::PARAMETER);
        if !ram.has(address, 12) {
            return Err(Status::PARAMETER);
        }
        let (token, nargs, nret) = (word(0)?, word(1)? as usize, word(2)? as usize);
        if nargs > MOST || nret > MOST || !ram.has(address, 12 + 4 * (nargs + nret) as u64) {
            return Err(Status::PARAMETER);
        }
        let mut cells = [0u32; 2 * MOST];
        for (n, cell) in cells.iter_mut().enumerate().take(nargs) {
            *cell = word(3 + n as u64)?;
        }
        let (args, rest) = cells.split_at_mut(nargs);
        let results = &mut rest[..nret];
        let index = token.wrapping_sub(FIRST_TOKEN) as usize;
        let after = if let Some((name, least_args, least_results, f)) = OWN.get(index) {
            let mut call = Call { partition, args, results };
            if nargs < *least_args || nret < *least_results {
                partition.log.guest_error("rtas", format_args!("{name}: {nargs} arguments, {nret} results"));
                call.finish(PARAMETER_ERROR, &[])
            } else {
                f(&mut call)
            }
        } else if let Some((set, name)) = self.devices.get(index.wrapping_sub(OWN.len())) {
            if !set.rtas(name, args, results) {
                rhea_irqchip::spapr::papr::rtas_return(results, HARDWARE_ERROR, &[]);
            }
            After::Continue
        } else {
            partition.log.guest_error("rtas", format_args!("unknown token {token:#x}"));
            rhea_irqchip::spapr::papr::rtas_return(results, HARDWARE_ERROR, &[]);
            After::Continue
        };
        let results: Vec<u8> = results.iter().flat_map(|v| v.to_be_bytes()).collect();
        ram.write(address.wrapping_add(12 + 4 * nargs as u64), &results).map_err(|_| Status::PARAMETER)?;
        Ok(after)
    }
}
