//! The partition's side of dynamic reconfiguration: indicators, sensors, ibm,configure-connector (LoPAPR 7.3.5, 13.5.3).

use super::{After, Call, HARDWARE_ERROR, NO_SUCH_INDICATOR, PARAMETER_ERROR, SUCCESS};
use crate::pseries::drc::{Refused, Step};

/// What is not (any more) in a state to be configured.
const NOT_CONFIGURABLE: i32 = -9003;

fn status(refused: Refused) -> i32 {
    match refused {
        Refused::NoConnector | Refused::Value => PARAMETER_ERROR,
        Refused::NoSuchIndicator => NO_SUCH_INDICATOR,
        Refused::Hardware => HARDWARE_ERROR,
        Refused::NotConfigurable => NOT_CONFIGURABLE,
    }
}

/// set-indicator: type, index, value.
pub fn set_indicator(call: &mut Call<'_>) -> After {
    const ISOLATION: u32 = 9001;
    const DR: u32 = 9002;
    const ALLOCATION: u32 = 9003;
    let (kind, index, value) = (call.arg(0), call.arg(1), call.arg(2));
    let drcs = &call.partition.drcs;
    let result = match kind {
        ISOLATION => drcs.set_isolation(index, value),
        DR => drcs.set_indicator(index, value).map(|()| false),
        ALLOCATION => drcs.set_allocation(index, value),
        _ => Err(Refused::NoSuchIndicator),
    };
    if result == Ok(true) {
        call.partition.released(index);
    }
    call.finish(result.err().map_or(SUCCESS, status), &[])
}

/// get-sensor-state: type, index.
pub fn get_sensor_state(call: &mut Call<'_>) -> After {
    const DR_ENTITY_SENSE: u32 = 9003;
    if call.arg(0) != DR_ENTITY_SENSE {
        return call.finish(NO_SUCH_INDICATOR, &[]);
    }
    match call.partition.drcs.sense(call.arg(1)) {
        Ok(sense) => call.finish(SUCCESS, &[sense as u32]),
        Err(refused) => call.finish(status(refused), &[]),
    }
}

/// ibm,configure-connector: work area, extent. The area has the index in its first word; from the third one on places of a name and of
/// a value with its length, which lie behind them.
pub fn configure_connector(call: &mut Call<'_>) -> After {
    const AREA: u64 = 4096;
    const DATA: u32 = 20;
    const NEXT_SIBLING: i32 = 1;
    const NEXT_CHILD: i32 = 2;
    const NEXT_PROPERTY: i32 = 3;
    const PREVIOUS_PARENT: i32 = 4;
    let area = u64::from(call.arg(0));
    let partition = call.partition;
    if !partition.ram.has(area, AREA) {
        return call.finish(PARAMETER_ERROR, &[]);
    }
    let Ok(index) = partition.ram.u32(area) else { return call.finish(PARAMETER_ERROR, &[]) };
    let step = match partition.drcs.configure(index, || partition.connector_nodes(index)) {
        Ok(step) => step,
        Err(refused) => return call.finish(status(refused), &[]),
    };
    let (status, name, value) = match step {
        Step::Sibling(name) => (NEXT_SIBLING, name, Vec::new()),
        Step::Child(name) => (NEXT_CHILD, name, Vec::new()),
        Step::Property(name, value) => (NEXT_PROPERTY, name, value),
        Step::Parent => return call.finish(PREVIOUS_PARENT, &[]),
        Step::Complete => return call.finish(SUCCESS, &[]),
    };
    let mut data = name.into_bytes();
    data.push(0);
    let (len, at) = (value.len() as u32, DATA + data.len() as u32);
    data.extend(value);
    if u64::from(DATA) + data.len() as u64 > AREA {
        // No property of a connector's nodes is so long.
        return call.finish(HARDWARE_ERROR, &[]);
    }
    let words = [DATA, len, at].map(u32::to_be_bytes).concat();
    let done = partition.ram.write(area + 8, &words).and_then(|()| partition.ram.write(area + u64::from(DATA), &data));
    call.finish(if done.is_ok() { status } else { PARAMETER_ERROR }, &[])
}
