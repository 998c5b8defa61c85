//! Character back ends by name: `-chardev BACKEND,id=...` and the short forms of `-serial`.

use super::{CharBackend, FileChar, NullChar, PipeChar, PtyChar, SocketAddress, SocketChar, SocketOptions, StdioChar};
use crate::options::{OptionDecl, OptionError, OptionKind, OptionSet};
use std::sync::Arc;

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChardevSpec {
    /// No device at all (`-serial none`).
    None,
    Null,
    Stdio {
        signals: bool,
        mux: bool,
    },
    File {
        path: String,
        append: bool,
    },
    Pty,
    Pipe(String),
    Socket(SocketOptions),
    /// Another `-chardev` by id (`-serial chardev:ID`).
    Id(String),
}

const ID: OptionDecl = OptionDecl::new("id", OptionKind::Text, None, "name of the back end");
const MUX: OptionDecl = OptionDecl::new("mux", OptionKind::Bool, Some("off"), "several front ends share the back end");
const SIGNAL: OptionDecl = OptionDecl::new("signal", OptionKind::Bool, Some("on"), "Ctrl-C acts on the emulator");
const PATH: OptionDecl = OptionDecl::new("path", OptionKind::Text, None, "file name");
const APPEND: OptionDecl = OptionDecl::new("append", OptionKind::Bool, Some("off"), "do not truncate");
static SOCKET: [OptionDecl; 9] = [
    ID,
    OptionDecl::new(
        "fd",
        OptionKind::Number { min: 0, max: 0x7fff_ffff },
        None,
        "listening socket that was handed over",
    ),
    OptionDecl::new("path", OptionKind::Text, None, "Unix socket"),
    OptionDecl::new("host", OptionKind::Text, None, "TCP host"),
    OptionDecl::new("port", OptionKind::Text, None, "TCP port"),
    OptionDecl::new("server", OptionKind::Bool, Some("off"), "listen"),
    OptionDecl::new("wait", OptionKind::Bool, Some("on"), "wait for the first client"),
    OptionDecl::new("telnet", OptionKind::Bool, Some("off"), "telnet protocol"),
    OptionDecl::new("nodelay", OptionKind::Bool, Some("off"), "no Nagle algorithm"),
];

impl ChardevSpec {
    /// The kinds of back ends.
    pub const KINDS: &[&str] = &["null", "stdio", "file", "pty", "pipe", "socket"];

    /// The properties of all of them.
    pub fn properties() -> impl Iterator<Item = &'static OptionDecl> {
        const OTHERS: &[OptionDecl] = &[MUX, SIGNAL, APPEND];
        SOCKET.iter().chain(OTHERS)
    }

    /// The text of `-chardev help`.
    #[must_use]
    pub fn help() -> String {
        format!("Available chardev backend types: {}\n", Self::KINDS.join(", "))
    }

    /// Parses the value of `-chardev`: the id and what to open.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse_chardev(text: &str) -> Result<(String, Self), OptionError> {
        let pairs = crate::options::split(text);
        let Some(((kind, None), rest)) = pairs.split_first() else {
            let kinds = Self::KINDS.join(", ");
            return Err(OptionError::new("-chardev", format!("'{text}': expected a backend first, one of {kinds}")));
        };
        let place = format!("-chardev {kind}");
        let parse = |decls: &[OptionDecl]| OptionSet::parse(&place, decls, rest);
        let need = |set: &OptionSet, key: &str| {
            set.text(key)
                .map(str::to_owned)
                .ok_or_else(|| OptionError::new(&place, format!("property '{key}' is missing: {key}=...")))
        };
        let (set, spec) = match kind.as_str() {
            "null" => (parse(&[ID])?, Self::Null),
            "pty" => (parse(&[ID])?, Self::Pty),
            "stdio" => {
                let set = parse(&[ID, MUX, SIGNAL])?;
                let spec = Self::Stdio { signals: set.bool("signal"), mux: set.bool("mux") };
                (set, spec)
            }
            "file" => {
                let set = parse(&[ID, PATH, APPEND])?;
                let spec = Self::File { path: need(&set, "path")?, append: set.bool("append") };
                (set, spec)
            }
            "pipe" => {
                let set = parse(&[ID, PATH])?;
                let spec = Self::Pipe(need(&set, "path")?);
                (set, spec)
            }
            "socket" => {
                let set = parse(&SOCKET)?;
                let address = match (set.text("path"), set.text("port"), set.number("fd")) {
                    (Some(path), None, None) => SocketAddress::Unix(path.to_owned()),
                    (None, Some(port), None) => {
                        SocketAddress::Tcp(format!("{}:{port}", set.text("host").unwrap_or("")))
                    }
                    // The limit of the declaration is that of the type.
                    (None, None, Some(fd)) if set.bool("server") => SocketAddress::Fd(fd as i32),
                    (None, None, Some(_)) => return Err(set.error("fd", "only with server=on")),
                    _ => {
                        let text = "expected one of path=..., host=...,port=... and fd=...";
                        return Err(OptionError::new(&place, text));
                    }
                };
                let spec = Self::Socket(socket_options(address, &set, set.bool("telnet")));
                (set, spec)
            }
            _ => {
                let kinds = Self::KINDS.join(", ");
                return Err(OptionError::new("-chardev", format!("unknown backend '{kind}': backends are {kinds}")));
            }
        };
        Ok((need(&set, "id")?, spec))
    }

    /// Parses the value of `-serial`, `-monitor` (and the like): the second value says whether `mon:` was in front.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse_short(option: &str, text: &str) -> Result<(Self, bool), OptionError> {
        let (text, mon) = match text.strip_prefix("mon:") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let socket = |telnet: bool, unix: bool| {
            let mut parts = rest.splitn(2, ',');
            let target = parts.next().unwrap_or("").to_owned();
            if target.is_empty() || (!unix && !target.contains(':')) {
                let right = if unix { "unix:PATH" } else { "tcp:HOST:PORT" };
                return Err(OptionError::new(option, format!("'{text}': expected {right}[,server=on][,wait=off]")));
            }
            // The words of old: server, wait, nowait, nodelay.
            let pairs: Vec<_> =
                crate::options::split(parts.next().unwrap_or(""))
                    .into_iter()
                    .map(|(k, v)| {
                        if k == "nowait" && v.is_none() { ("wait".to_owned(), Some("off".to_owned())) } else { (k, v) }
                    })
                    .collect();
            let set = OptionSet::parse(&format!("{option} {text}"), &SOCKET[5..], &pairs)?;
            let address = if unix { SocketAddress::Unix(target) } else { SocketAddress::Tcp(target) };
            Ok(Self::Socket(socket_options(address, &set, telnet || set.bool("telnet"))))
        };
        let spec = match kind {
            "none" => Self::None,
            "null" | "vc" => Self::Null,
            "stdio" => Self::Stdio { signals: !mon, mux: mon },
            "pty" => Self::Pty,
            "file" if !rest.is_empty() => Self::File { path: rest.to_owned(), append: false },
            "pipe" if !rest.is_empty() => Self::Pipe(rest.to_owned()),
            "chardev" if !rest.is_empty() => Self::Id(rest.to_owned()),
            "tcp" => socket(false, false)?,
            "telnet" => socket(true, false)?,
            "unix" => socket(false, true)?,
            _ => {
                let right = "expected none, null, stdio, mon:stdio, pty, file:PATH, pipe:PATH, tcp:HOST:PORT, telnet:HOST:PORT, unix:PATH or chardev:ID";
                return Err(OptionError::new(option, format!("'{text}': {right}")));
            }
        };
        Ok((spec, mon))
    }
}

fn socket_options(address: SocketAddress, set: &OptionSet, telnet: bool) -> SocketOptions {
    SocketOptions { address, server: set.bool("server"), wait: set.bool("wait"), telnet, nodelay: set.bool("nodelay") }
}

/// Opens a back end. [`ChardevSpec::Stdio`] is opened by the caller (it owns the terminal's state), [`ChardevSpec::Id`] is looked
/// up by the caller; both are errors here only if forgotten.
///
/// # Errors
/// [`OptionError`] naming `option` and what could not be opened.
pub fn open(option: &str, spec: &ChardevSpec) -> Result<Arc<dyn CharBackend>, OptionError> {
    let fail = |what: &str, e: std::io::Error| OptionError::new(option, format!("{what}: {e}"));
    Ok(match spec {
        ChardevSpec::None | ChardevSpec::Null => Arc::new(NullChar),
        ChardevSpec::Stdio { signals, .. } => StdioChar::new(*signals).map_err(|e| fail("stdio", e))?,
        ChardevSpec::File { path, append } => FileChar::new(path, *append).map_err(|e| fail(path, e))?,
        ChardevSpec::Pty => {
            let pty = PtyChar::new().map_err(|e| fail("pty", e))?;
            println!("char device redirected to {}", pty.name());
            pty
        }
        ChardevSpec::Pipe(path) => PipeChar::new(path).map_err(|e| fail(path, e))?,
        ChardevSpec::Socket(options) => {
            SocketChar::new(options.clone()).map_err(|e| fail(&options.address.to_string(), e))?
        }
        ChardevSpec::Id(id) => return Err(OptionError::new(option, format!("no -chardev with id '{id}'"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let short = |t| ChardevSpec::parse_short("-serial", t);
        assert_eq!(short("mon:stdio").unwrap(), (ChardevSpec::Stdio { signals: false, mux: true }, true));
        let unix = short("unix:/tmp/x,server,nowait").unwrap().0;
        assert!(matches!(unix, ChardevSpec::Socket(SocketOptions { server: true, wait: false, .. })));
        let (id, spec) = ChardevSpec::parse_chardev("socket,id=c,host=localhost,port=99,server=on,telnet=on").unwrap();
        assert_eq!(id, "c");
        assert!(
            matches!(spec, ChardevSpec::Socket(SocketOptions { address: SocketAddress::Tcp(a), telnet: true, .. }) if a == "localhost:99")
        );
        for bad in ["tcp:99", "file:", "what", "unix:", "tcp:a:1,x=1"] {
            assert!(short(bad).is_err(), "{bad}");
        }
        for bad in ["null", "zzz,id=a", "file,id=a", "socket,id=a", "null,id=a,x=1", ""] {
            assert!(ChardevSpec::parse_chardev(bad).is_err(), "{bad}");
        }
        assert!(open("-serial", &ChardevSpec::File { path: "/nonexistent/x".into(), append: false }).is_err());
    }
}
