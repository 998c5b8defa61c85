//! Commands about character devices.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_device::chardev::ChardevSpec;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("query-chardev", query), ("query-chardev-backends", backends)]);
}

fn query(context: &Context, _: &mut Call<'_>) -> Result<Value, Error> {
    let entry = |label: &str, filename: &str| json!({"label": label, "filename": filename, "frontend-open": true});
    let plain = context.chardevs.iter().map(|(label, backend)| entry(label, &backend.description()));
    Ok(plain.chain(context.controls.iter().map(|(label, place)| entry(label, place))).collect())
}

fn backends(_: &Context, _: &mut Call<'_>) -> Result<Value, Error> {
    Ok(ChardevSpec::KINDS.iter().map(|name| json!({"name": name})).collect())
}
