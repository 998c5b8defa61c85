//! Commands and events of the VNC servers.

use super::Context;
use rhea_control::{Call, Commands, Error, Events, Value, json};
use rhea_display::{VncAddress, VncEvent, VncServer};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[("query-vnc", query), ("query-vnc-servers", servers)]);
    commands.add(&[
        ("display-reload", reload),
        ("display-update", update),
        ("set_password", set_password),
        ("expire_password", expire_password),
        ("change-vnc-password", |context, call| {
            let text = call.required("password");
            change(context, None, |server| server.set_password(text))
        }),
    ]);
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
fn with_auth(server: &VncServer) -> Value {
    let mut entry = address(&server.address());
    entry["auth"] = json!(server.auth());
    entry
}

fn clients(server: &VncServer) -> Value {
    server.clients().iter().map(|peer| address(peer)).collect()
}

fn query(context: &Context, _: &mut Call<'_>) -> Result {
    let Some(server) = context.vnc.first() else { return Ok(json!({"enabled": false})) };
    let at = address(&server.address());
    Ok(json!({
        "enabled": true, "host": at["host"], "family": at["family"], "service": at["service"],
        "auth": server.auth(), "clients": clients(server),
    }))
}

/// The name of a server.
fn id(n: usize) -> String {
    if n == 0 { "default".to_owned() } else { format!("vnc{n}") }
}

fn servers(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |(n, server): (usize, &Arc<VncServer>)| {
        let (auth, here) = (server.auth(), with_auth(server));
        json!({"id": id(n), "server": [here], "clients": clients(server), "auth": auth})
    };
    Ok(context.vnc.iter().enumerate().map(one).collect())
}

/// Changes something of the password of a server: of the first one, if none is named.
fn change(context: &Context, name: Option<&str>, f: impl FnOnce(&VncServer) -> bool) -> Result {
    let found = context.vnc.iter().enumerate().find(|(n, _)| name.is_none_or(|name| id(*n) == name));
    let Some((_, server)) = found else { return Err(Error::new("Could not find a VNC server")) };
    if !f(server) {
        return Err(Error::new("VNC clients need no password: use '-vnc ...,password=on'"));
    }
    Ok(json!({}))
}

fn set_password(context: &Context, call: &mut Call<'_>) -> Result {
    if call.text("connected").is_some_and(|word| word != "keep") {
        return Err(Error::new("parameter 'connected' must be 'keep' when 'protocol' is 'vnc'"));
    }
    let text = call.required("password");
    change(context, call.text("display"), |server| server.set_password(text))
}

fn first(context: &Context) -> std::result::Result<&Arc<VncServer>, Error> {
    context.vnc.first().ok_or_else(|| Error::new("Could not find a VNC server"))
}

fn reload(context: &Context, call: &mut Call<'_>) -> Result {
    if call.flag("tls-certs") {
        first(context)?;
        return Err(Error::new("vnc tls is not enabled"));
    }
    Ok(json!({}))
}

fn update(context: &Context, call: &mut Call<'_>) -> Result {
    let server = first(context)?;
    let Some(addresses) = call.get("addresses").and_then(Value::as_array) else { return Ok(json!({})) };
    let [one] = &addresses[..] else { return Err(Error::new("Parameter 'addresses' expects one address")) };
    let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let to = if one["type"] == "unix" {
        VncAddress::Unix(text("path").into())
    } else {
        let port = text("port").parse().map_err(|_| Error::new("Parameter 'addresses[0].port' expects a number"))?;
        VncAddress::Tcp { host: text("host"), first: port, last: port }
    };
    server.move_to(&to).map_err(|e| Error::new(format!("{to}: {}", Error::from(e))))?;
    Ok(json!({}))
}

/// When `text` is: `None` for never.
fn moment(text: &str) -> std::result::Result<Option<SystemTime>, Error> {
    let seconds = |text: &str| text.parse().ok().map(Duration::from_secs);
    let at = match (text, text.strip_prefix('+')) {
        ("never", _) => return Ok(None),
        ("now", _) => Some(SystemTime::now()),
        (_, Some(later)) => seconds(later).and_then(|d| SystemTime::now().checked_add(d)),
        (text, None) => seconds(text).and_then(|d| SystemTime::UNIX_EPOCH.checked_add(d)),
    };
    let wrong = || Error::new(format!("'{text}' is no time: now, never, +SECONDS, or seconds since 1970"));
    at.map(Some).ok_or_else(wrong)
}

fn expire_password(context: &Context, call: &mut Call<'_>) -> Result {
    let at = moment(call.required("time"))?;
    change(context, call.text("display"), |server| server.expire_password(at))
}

/// Has it told to those who listen when clients come and go.
pub fn send_events(servers: &[Arc<VncServer>], events: &Arc<Events>) {
    for server in servers {
        let (events, weak) = (events.clone(), Arc::downgrade(server));
        server.listen(move |event, peer| {
            let name = match event {
                VncEvent::Connected => "VNC_CONNECTED",
                VncEvent::Initialized => "VNC_INITIALIZED",
                VncEvent::Disconnected => "VNC_DISCONNECTED",
            };
            let Some(server) = weak.upgrade() else { return };
            events.emit(name, json!({"server": with_auth(&server), "client": address(peer)}));
        });
    }
}
