//! Commands of the human monitor in the control protocol.

use super::{Context, Control};
use crate::monitor::Shell;
use rhea_control::{Call, Commands, Error, Value, json};

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("human-monitor-command", command)]);
}

fn command(context: &Context, call: &mut Call<'_>) -> Result<Value, Error> {
    let server = context.server().ok_or_else(|| Error::new("The emulator ends"))?;
    let shell = Shell::new(Control { server });
    if let Some(index) = call.number("cpu-index") {
        super::cpus::index(context, index)?;
        shell.select_cpu(index as usize);
    }
    // As a terminal would show it.
    Ok(json!(shell.execute(call.required("command-line")).replace('\n', "\r\n")))
}
