//! Commands and events of the VNC servers.

use super::Context;
use rhea_control::{Call, Commands, Error, Events, Value, json};
use rhea_display::{VncEvent, VncServer};
use std::sync::Arc;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("query-vnc", query), ("query-vnc-servers", servers)]);
}

type Result = std::result::Result<Value, Error>;

/// `host:port`, or the path of a socket.
fn address(text: &str) -> Value {
    let (host, service, family) = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            let family = if host.contains(':') { "ipv6" } else { "ipv4" };
            (host.trim_matches(['[', ']']), port, family)
        }
        _ => ("", text.strip_prefix("unix:").unwrap_or(text), "unix"),
    };
    json!({"host": host, "service": service, "family": family, "websocket": false})
}

/// The address, and how clients prove who they are.
fn with_auth(text: &str) -> Value {
    let mut entry = address(text);
    entry["auth"] = json!("none");
    entry
}

fn clients(server: &VncServer) -> Value {
    server.clients().iter().map(|peer| address(peer)).collect()
}

fn query(context: &Context, _: &mut Call<'_>) -> Result {
    let Some(server) = context.vnc.first() else { return Ok(json!({"enabled": false})) };
    let at = address(server.address());
    Ok(json!({
        "enabled": true, "host": at["host"], "family": at["family"], "service": at["service"],
        "auth": "none", "clients": clients(server),
    }))
}

fn servers(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |(n, server): (usize, &Arc<VncServer>)| {
        let id = if n == 0 { "default".to_owned() } else { format!("vnc{n}") };
        json!({"id": id, "server": [with_auth(server.address())], "clients": clients(server), "auth": "none"})
    };
    Ok(context.vnc.iter().enumerate().map(one).collect())
}

/// Has it told to those who listen when clients come and go.
pub fn send_events(servers: &[Arc<VncServer>], events: &Arc<Events>) {
    for server in servers {
        let (events, here) = (events.clone(), with_auth(server.address()));
        server.listen(move |event, peer| {
            let name = match event {
                VncEvent::Connected => "VNC_CONNECTED",
                VncEvent::Initialized => "VNC_INITIALIZED",
                VncEvent::Disconnected => "VNC_DISCONNECTED",
            };
            events.emit(name, json!({"server": here, "client": address(peer)}));
        });
    }
}
