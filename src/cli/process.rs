//! Options about the process: its name, its messages, the files it was started with.

use super::err;
use super::words::Given;
use crate::message::Prefix;
use rhea_device::chardev::SocketAddress;
use rhea_device::options::{split, split_or_json};
use rhea_device::{OptionDecl, OptionError, OptionKind, OptionSet, fdset};

/// `-name [guest=]NAME[,process=NAME][,debug-threads=on|off]`
pub fn name(text: &str) -> Result<String, OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("guest", OptionKind::Text, Some(""), "name of the guest"),
        OptionDecl::new("process", OptionKind::Text, None, "name of the process"),
        OptionDecl::new("debug-threads", OptionKind::Bool, Some("on"), "threads have names; always on"),
    ];
    let mut pairs = split(text);
    if let Some((word, None)) = pairs.first().cloned() {
        pairs[0] = ("guest".to_owned(), Some(word));
    }
    Ok(OptionSet::parse("-name", DECLS, &pairs)?.text("guest").unwrap_or("").to_owned())
}

/// `-msg [timestamp=on|off][,guest-name=on|off]`
pub fn messages(given: &Given, guest: Option<&str>) -> Result<Prefix, OptionError> {
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("timestamp", OptionKind::Bool, Some("off"), "messages begin with the time"),
        OptionDecl::new("guest-name", OptionKind::Bool, Some("off"), "messages begin with the name of the guest"),
    ];
    let mut prefix = Prefix::default();
    for text in given.all("msg") {
        let set = OptionSet::parse("-msg", DECLS, &split(&text))?;
        prefix.time = set.bool("timestamp");
        prefix.guest = guest.filter(|_| set.bool("guest-name")).map(str::to_owned);
    }
    Ok(prefix)
}

/// `-add-fd fd=N,set=N[,opaque=TEXT]`
pub fn add_fds(given: &Given) -> Result<(), OptionError> {
    const NUMBER: OptionKind = OptionKind::Number { min: 0, max: 0x7fff_ffff };
    const DECLS: &[OptionDecl] = &[
        OptionDecl::new("fd", NUMBER, None, "descriptor that the process was started with"),
        OptionDecl::new("set", NUMBER, None, "number of the set"),
        OptionDecl::new("opaque", OptionKind::Text, None, "what query-fdsets says of it"),
    ];
    for text in given.all("add-fd") {
        let set = OptionSet::parse("-add-fd", DECLS, &split(&text))?;
        let need =
            |key| set.number(key).ok_or_else(|| err("-add-fd", format!("'{text}': property '{key}' is missing")));
        let (fd, id) = (need("fd")?, need("set")?);
        if fd < 3 {
            return Err(set.error("fd", "0, 1 and 2 are the standard streams"));
        }
        // The limit of the declaration is that of the type.
        let fd = SocketAddress::inherited(fd as i32).map_err(|e| set.error("fd", &format!("{fd}: {e}")))?;
        fdset::add(Some(id as i64), fd, set.text("opaque").map(str::to_owned));
    }
    Ok(())
}

/// `-audiodev [driver=]none,id=NAME`: sound goes nowhere. Nothing makes any.
pub fn audio(given: &Given) -> Result<(), OptionError> {
    const DECLS: &[OptionDecl] = &[OptionDecl::new("id", OptionKind::Text, None, "name")];
    let mut ids: Vec<String> = Vec::new();
    for text in given.all("audiodev") {
        let mut pairs = split_or_json("-audiodev", &text, "driver")?;
        let driver = match pairs.first().cloned() {
            Some((driver, None)) => driver,
            Some((key, Some(driver))) if key == "driver" => driver,
            _ => return Err(err("-audiodev", format!("'{text}': expected a driver first: none"))),
        };
        if driver != "none" {
            return Err(err("-audiodev", format!("the driver '{driver}' is not supported: use none")));
        }
        pairs.remove(0);
        let set = OptionSet::parse("-audiodev none", DECLS, &pairs)?;
        let id = set.text("id").ok_or_else(|| err("-audiodev none", "property 'id' is missing: id=NAME"))?;
        if ids.iter().any(|i| i == id) {
            return Err(set.error("id", &format!("'{id}' is given twice: ids must differ")));
        }
        ids.push(id.to_owned());
    }
    Ok(())
}
