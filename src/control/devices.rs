//! Commands about devices that come and go.

use super::Context;
use rhea_control::{Call, Commands, Error, Events, Map, Value, json};
use rhea_device::options::json_pairs;
use rhea_machine::Machine;
use rhea_machine::config::DeviceSpec;
use rhea_machine::inventory::DeviceEntry;
use rhea_machine::options::ObjectSpec;
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("device_add", device_add),
        ("device_del", device_del),
        ("netdev_add", netdev_add),
        ("netdev_del", netdev_del),
        ("object-add", object_add),
        ("object-del", object_del),
    ]);
}

type Result<T = Value> = std::result::Result<T, Error>;

/// The members but `without`, as on the command line.
fn pairs(members: &Map<String, Value>, without: &str) -> Result<Vec<(String, Option<String>)>> {
    json_pairs(members, without).map_err(Error::new)
}

/// The same as one text after its first word.
fn text(first: &str, members: &Map<String, Value>, without: &str) -> Result<String> {
    let mut text = first.to_owned();
    for (key, value) in pairs(members, without)? {
        text.push_str(&format!(",{key}={}", value.unwrap_or_default().replace(',', ",,")));
    }
    Ok(text)
}

fn done(result: std::result::Result<(), rhea_device::OptionError>) -> Result {
    result.map(|()| json!({})).map_err(|e| Error::new(e.message))
}

fn device_add(context: &Context, call: &mut Call<'_>) -> Result {
    let spec = DeviceSpec { driver: call.required("driver").to_owned(), pairs: pairs(call.arguments(), "driver")? };
    done(context.machine.device_add(&spec))
}

fn device_del(context: &Context, call: &mut Call<'_>) -> Result {
    let name = call.required("id");
    let devices = context.machine.inventory().devices();
    let entry = devices.iter().find(|d| d.id() == Some(name) || d.path() == name);
    let id = entry.and_then(DeviceEntry::id).ok_or_else(|| Error::no_device(name))?;
    done(context.machine.device_del(id))
}

fn netdev_add(context: &Context, call: &mut Call<'_>) -> Result {
    done(context.machine.netdev_add(&text(call.required("type"), call.arguments(), "type")?))
}

fn netdev_del(context: &Context, call: &mut Call<'_>) -> Result {
    let id = call.required("id");
    if !context.machine.inventory().nets().iter().any(|(name, _)| name == id) {
        return Err(Error::no_device(id));
    }
    done(context.machine.netdev_del(id))
}

fn object_add(context: &Context, call: &mut Call<'_>) -> Result {
    let spec = ObjectSpec::parse(&text(call.required("qom-type"), call.arguments(), "qom-type")?);
    done(spec.and_then(|spec| context.machine.object_add(spec)))
}

fn object_del(context: &Context, call: &mut Call<'_>) -> Result {
    done(context.machine.object_del(call.required("id")))
}

/// Has it told when the guest has given up a device, and when it opens or closes a port.
pub fn send_events(machine: &Arc<Machine>, events: &Arc<Events>) {
    let ports = events.clone();
    machine.inventory().on_port(move |id, open| ports.emit("VSERPORT_CHANGE", json!({"id": id, "open": open})));
    let Some(hotplug) = machine.hotplug() else { return };
    let (inventory, events) = (machine.inventory().clone(), events.clone());
    hotplug.on_removed(Box::new(move |id| {
        let entry = inventory.devices().into_iter().find(|d| id.is_some() && d.id() == id);
        let Some((entry, id)) = entry.zip(id) else { return };
        events.emit("DEVICE_DELETED", json!({"device": id, "path": entry.path()}));
    }));
}
