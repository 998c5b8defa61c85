//! Commands about memory.

use super::Context;
use rhea_control::{Call, Commands, Error, ErrorClass, Events, Value, json};
use rhea_machine::Machine;
use rhea_machine::dirty_rate::{Measure, Mode, Status};
use rhea_machine::hotplug::MemoryModule;
use rhea_memory::{Gpa, Gva, Requester};
use rhea_virtio::balloon::Balloon;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("query-memory-size-summary", size),
        ("memsave", save_virtual),
        ("pmemsave", save_physical),
        ("query-memory-devices", modules),
        ("query-balloon", balloon),
        ("balloon", set_balloon),
        ("calc-dirty-rate", calc_dirty_rate),
        ("query-dirty-rate", query_dirty_rate),
    ]);
}

type Result = std::result::Result<Value, Error>;

fn size(context: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!({"base-memory": context.config.ram.size}))
}

/// Writes `size` bytes from `start` to the file of the call, piece by piece.
fn save(call: &Call<'_>, read: impl Fn(u64, &mut [u8]) -> std::result::Result<(), Error>) -> Result {
    let (start, size) = (call.unsigned("val").unwrap_or(0), call.unsigned("size").unwrap_or(0));
    let name = call.required("filename");
    let fail = |e: std::io::Error| Error::new(format!("could not write '{name}': {}", Error::from(e)));
    let mut file = File::create(name).map_err(fail)?;
    let mut done = 0;
    let mut data = vec![0; 1 << 16];
    while done < size {
        let n = (size - done).min(data.len() as u64) as usize;
        read(start.wrapping_add(done), &mut data[..n])?;
        file.write_all(&data[..n]).map_err(fail)?;
        done += n as u64;
    }
    Ok(json!({}))
}

fn save_virtual(context: &Context, call: &mut Call<'_>) -> Result {
    let index = super::cpus::index(context, call.number("cpu-index").unwrap_or(0))?;
    let cpu = context.machine.cpus()[index].clone();
    context.paused(|| {
        save(call, |at, data| {
            cpu.read_memory(Gva(at), data)
                .map_err(|_| Error::new(format!("Invalid addr {at:#018x}/size {} specified", data.len())))
        })
    })
}

fn save_physical(context: &Context, call: &mut Call<'_>) -> Result {
    save(call, |at, data| {
        // What is not there reads as zero.
        if context.machine.space().read(Gpa(at), data, Requester::Debugger).is_err() {
            data.fill(0);
        }
        Ok(())
    })
}

fn active(context: &Context) -> std::result::Result<Arc<Balloon>, Error> {
    let balloon = context.machine.inventory().balloon();
    balloon.ok_or_else(|| Error::of(ErrorClass::DeviceNotActive, "No balloon device has been activated"))
}

fn modules(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |m: MemoryModule| {
        let mut data = json!({
            "addr": m.start, "size": m.size, "slot": m.slot, "node": 0, "memdev": format!("/objects/{}", m.object),
            "hotplugged": m.hotplugged, "hotpluggable": true,
        });
        if let Some(id) = m.id {
            data["id"] = json!(id);
        }
        json!({"type": "dimm", "data": data})
    };
    Ok(context.machine.memory_devices().into_iter().map(one).collect())
}

/// Milliseconds of a time that is told in `unit`.
fn milliseconds(unit: Option<&str>) -> u64 {
    if unit == Some("millisecond") { 1 } else { 1000 }
}

fn calc_dirty_rate(context: &Context, call: &mut Call<'_>) -> Result {
    const SAMPLES: std::ops::RangeInclusive<i64> = 128..=4096;
    const TIMES: std::ops::RangeInclusive<u64> = 50..=60_000;
    let time = call.number("calc-time").and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let time = time.saturating_mul(milliseconds(call.text("calc-time-unit")));
    if !TIMES.contains(&time) {
        return Err(Error::new("Calculation time is out of range [50ms, 60000ms]."));
    }
    let mode = match call.text("mode") {
        None | Some("page-sampling") => Mode::PageSampling,
        Some("dirty-bitmap") => Mode::DirtyBitmap,
        _ => return Err(Error::new("dirty ring is disabled, use sample-pages method or remeasure later.")),
    };
    let samples = call.number("sample-pages");
    if samples.is_some() && mode != Mode::PageSampling {
        return Err(Error::new("sample-pages is used only in page-sampling mode"));
    }
    let samples = samples.unwrap_or(512);
    if !SAMPLES.contains(&samples) {
        return Err(Error::new("sample-pages is out of range[128, 4096]."));
    }
    let measure = Measure { mode, time, samples: samples as u64 };
    context.dirty_rate.start(&context.machine, measure).map_err(Error::new)?;
    Ok(json!({}))
}

fn query_dirty_rate(context: &Context, call: &mut Call<'_>) -> Result {
    let unit = milliseconds(call.text("calc-time-unit"));
    let now = context.dirty_rate.query();
    let mut data = json!({
        "status": match now.status {
            Status::Unstarted => "unstarted",
            Status::Measuring => "measuring",
            Status::Measured(_) => "measured",
        },
        "start-time": now.start,
        "calc-time": now.measure.time / unit,
        "calc-time-unit": if unit == 1 { "millisecond" } else { "second" },
        "sample-pages": now.measure.samples,
        "mode": match now.measure.mode {
            Mode::PageSampling => "page-sampling",
            Mode::DirtyBitmap => "dirty-bitmap",
        },
    });
    if let Status::Measured(rate) = now.status {
        data["dirty-rate"] = json!(rate);
    }
    Ok(data)
}

fn balloon(context: &Context, _: &mut Call<'_>) -> Result {
    let given = active(context)?.actual();
    Ok(json!({"actual": context.config.ram.size.saturating_sub(given)}))
}

fn set_balloon(context: &Context, call: &mut Call<'_>) -> Result {
    let value = call.number("value").and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let value = value.ok_or_else(|| Error::new("Parameter 'target' expects a size"))?;
    active(context)?.set_target(context.config.ram.size.saturating_sub(value));
    Ok(json!({}))
}

/// Has changes of the balloon sent to those who listen.
pub fn send_events(machine: &Machine, ram: u64, events: &Arc<Events>) {
    if let Some(balloon) = machine.inventory().balloon() {
        let events = events.clone();
        balloon.on_change(move |given| events.emit("BALLOON_CHANGE", json!({"actual": ram.saturating_sub(given)})));
    }
}
