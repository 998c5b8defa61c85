//! Starting and stopping processors (LoPAPR 7.3.8).

use super::{After, Call, HARDWARE_ERROR, PARAMETER_ERROR, SUCCESS};
use crate::pseries::partition::Started;

/// start-cpu: server number, start address, value for R3.
pub fn start_cpu(call: &mut Call<'_>) -> After {
    let (id, entry, r3) = (call.arg(0), call.arg(1), call.arg(2));
    let status = match call.partition.start_cpu(id, entry.into(), r3.into()) {
        Ok(()) => SUCCESS,
        Err(Started::NoSuch) => PARAMETER_ERROR,
        Err(Started::Running) => HARDWARE_ERROR,
    };
    call.finish(status, &[])
}

/// stop-self: does not return.
pub fn stop_self(_call: &mut Call<'_>) -> After {
    After::Stop
}

/// query-cpu-stopped-state: 0 stopped, 1 being stopped, 2 not stopped.
pub fn query(call: &mut Call<'_>) -> After {
    match call.partition.cpu_runs(call.arg(0)) {
        Some(true) => call.finish(SUCCESS, &[2]),
        Some(false) => call.finish(SUCCESS, &[0]),
        None => call.finish(PARAMETER_ERROR, &[]),
    }
}
