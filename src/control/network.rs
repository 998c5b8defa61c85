//! Commands and events about network cards: links, and which frames guests want.

use super::Context;
use rhea_control::{Call, Commands, Error, Events, Value, json};
use rhea_machine::Machine;
use rhea_machine::inventory::Inventory;
use rhea_net::{Link, Pass, ReceiveFilter};
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("set_link", set_link), ("query-rx-filter", query_filters)]);
}

type Result<T = Value> = std::result::Result<T, Error>;

fn set_link(context: &Context, call: &mut Call<'_>) -> Result {
    let name = call.required("name");
    let nets = context.machine.inventory().nets();
    let is_card = |link: &Link| link.card().is_some_and(|card| card.name == name);
    let found = nets.iter().find(|(_, link)| is_card(link)).or_else(|| nets.iter().find(|(id, _)| id == name));
    let (_, link) = found.ok_or_else(|| Error::no_device(name))?;
    link.set_link(call.flag("up"));
    Ok(json!({}))
}

/// A MAC address as text.
pub fn address(mac: &[u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

fn pass(pass: Pass) -> &'static str {
    match pass {
        Pass::None => "none",
        Pass::Normal => "normal",
        Pass::All => "all",
    }
}

fn describe(name: &str, filter: &ReceiveFilter) -> Value {
    let table = |list: &[[u8; 6]]| list.iter().map(address).collect::<Vec<_>>();
    json!({
        "name": name,
        "promiscuous": filter.promiscuous,
        "multicast": pass(filter.multicast),
        "unicast": pass(filter.unicast),
        // No card here sorts by VLAN.
        "vlan": "all",
        "broadcast-allowed": filter.broadcast,
        "multicast-overflow": filter.multicast_overflow,
        "unicast-overflow": filter.unicast_overflow,
        "main-mac": address(&filter.mac),
        "vlan-table": [],
        "unicast-table": table(&filter.unicast_table),
        "multicast-table": table(&filter.multicast_table),
    })
}

fn query_filters(context: &Context, call: &mut Call<'_>) -> Result {
    let nets = context.machine.inventory().nets();
    let cards: Vec<_> = nets.iter().filter_map(|(_, link)| Some((link.card()?.name, link))).collect();
    let Some(name) = call.text("name") else {
        return Ok(cards.iter().filter_map(|(name, link)| Some(describe(name, &link.filter()?))).collect());
    };
    if let Some((_, link)) = cards.iter().find(|(card, _)| card == name) {
        let filter = link.filter();
        let text = || Error::new(format!("net client({name}) doesn't support rx-filter querying"));
        return Ok(json!([describe(name, &filter.ok_or_else(text)?)]));
    }
    Err(Error::new(if nets.iter().any(|(id, _)| id == name) {
        format!("net client({name}) isn't a NIC")
    } else {
        format!("invalid net client name: {name}")
    }))
}

/// The object of the card that the back end `net` serves.
fn path(inventory: &Inventory, net: &str, link: &Link) -> String {
    let devices = inventory.devices();
    let of_net = devices.iter().find(|d| d.spec.value("netdev") == Some(net));
    let model = link.card().map(|card| card.model);
    let own = || devices.iter().find(|d| !d.chosen && model.as_deref() == Some(&d.spec.driver));
    let device = of_net.or_else(own).map_or_else(String::new, rhea_machine::inventory::DeviceEntry::path);
    format!("{device}/virtio-backend")
}

/// Has it told when a guest wants other frames; once, until somebody has asked for them.
pub fn send_events(machine: &Machine, events: &Arc<Events>) {
    let (inventory, events) = (Arc::downgrade(machine.inventory()), events.clone());
    machine.inventory().on_filter(move |net| {
        let Some(inventory) = inventory.upgrade() else { return };
        let nets = inventory.nets();
        let Some((_, link)) = nets.iter().find(|(id, _)| id == net) else { return };
        let mut data = json!({"path": path(&inventory, net, link)});
        if let Some(card) = link.card() {
            data["name"] = json!(card.name);
        }
        events.emit("NIC_RX_FILTER_CHANGED", data);
    });
}
