//! The word of `-vnc`.

use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet, split};
use std::path::PathBuf;

/// Display 0 is at this TCP port.
const FIRST_PORT: u64 = 5900;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VncAddress {
    /// The first free port of a range; an empty host means all addresses.
    Tcp {
        host: String,
        first: u16,
        last: u16,
    },
    Unix(PathBuf),
}

impl std::fmt::Display for VncAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, first, .. } if host.contains(':') => write!(f, "[{host}]:{first}"),
            Self::Tcp { host, first, .. } => write!(f, "{host}:{first}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What happens when a second client connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharePolicy {
    /// Clients may ask for the display for themselves; the others are then disconnected.
    #[default]
    AllowExclusive,
    /// Who asks for it is turned away.
    ForceShared,
    /// What they ask for does not matter.
    Ignore,
}

/// `-vnc`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VncOptions {
    pub address: VncAddress,
    pub share: SharePolicy,
    /// Clients at most.
    pub connections: usize,
    /// Clients must know a password, which is set later: until then none gets in.
    pub password: bool,
}

const DECLS: &[OptionDecl] = &[
    OptionDecl::new("to", OptionKind::Number { min: 0, max: 59635 }, None, "last display number to try"),
    OptionDecl::new(
        "share",
        OptionKind::Choice(&["allow-exclusive", "force-shared", "ignore"]),
        Some("allow-exclusive"),
        "what clients that want the display for themselves get",
    ),
    OptionDecl::new("connections", OptionKind::Number { min: 1, max: 256 }, Some("32"), "clients at most"),
    OptionDecl::new("password", OptionKind::Bool, Some("off"), "clients must know what set_password says"),
    OptionDecl::new("reverse", OptionKind::Bool, Some("off"), "connect to a listening client: not supported"),
];

/// The text of `-vnc help`.
#[must_use]
pub fn help() -> String {
    let mut text = rhea_device::options::help("[host]:display|unix:path|none", DECLS);
    text.push_str("Display n is at TCP port 5900 + n. There is no encryption, and a password keeps few away: use an address of this host.\n");
    text
}

impl VncOptions {
    /// Parses `[host]:display[,...]`, `unix:path[,...]`, `none` (no server).
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(text: &str) -> Result<Option<Self>, OptionError> {
        let mut pairs = split(text);
        let bad = |why: &str| OptionError::new("-vnc", format!("'{text}': {why}"));
        let expected = "expected [host]:display, unix:path or none first";
        if pairs.is_empty() {
            return Err(bad(expected));
        }
        let (word, value) = pairs.remove(0);
        // A path may have an equals sign.
        let word = match value {
            Some(value) => format!("{word}={value}"),
            None => word,
        };
        let set = OptionSet::parse("-vnc", DECLS, &pairs)?;
        if set.bool("reverse") {
            return Err(set.error("reverse", "connecting to a client is not supported: let the client connect"));
        }
        if word == "none" {
            return Ok(None);
        }
        let address = if let Some(path) = word.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(bad("expected unix:path"));
            }
            VncAddress::Unix(path.into())
        } else {
            let Some((host, display)) = word.rsplit_once(':') else { return Err(bad(expected)) };
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            let port = |display: u64| u16::try_from(FIRST_PORT + display).ok();
            let first = display.parse().ok().filter(|n: &u64| *n <= 0xffff).and_then(port);
            let Some(first) = first else {
                return Err(bad("expected a display number from 0 to 59635 after the colon"));
            };
            let last = set.number("to").and_then(port).unwrap_or(first);
            if last < first {
                return Err(set.error("to", "is less than the display number"));
            }
            VncAddress::Tcp { host: host.to_owned(), first, last }
        };
        let share = match set.text("share") {
            Some("force-shared") => SharePolicy::ForceShared,
            Some("ignore") => SharePolicy::Ignore,
            _ => SharePolicy::AllowExclusive,
        };
        let connections = set.number("connections").map_or(32, |n| n as usize);
        Ok(Some(Self { address, share, connections, password: set.bool("password") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |text| VncOptions::parse(text).map(|o| o.map(|o| o.address));
        let tcp = |host: &str, first, last| Ok(Some(VncAddress::Tcp { host: host.into(), first, last }));
        assert_eq!(parse(":1"), tcp("", 5901, 5901));
        assert_eq!(parse("localhost:0,to=9"), tcp("localhost", 5900, 5909));
        assert_eq!(parse("[::1]:2"), tcp("::1", 5902, 5902));
        assert_eq!(parse("unix:/tmp/a=b,share=ignore"), Ok(Some(VncAddress::Unix("/tmp/a=b".into()))));
        assert_eq!(parse("none"), Ok(None));
        for text in [
            "",
            "x",
            ":",
            ":x",
            ":59636",
            ":99999999999999999999",
            ":1,password=2",
            ":5,to=4",
            ":0,reverse",
            "unix:",
            ":0,foo=1",
        ] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.starts_with("-vnc: "), "{text}: {e}");
        }
    }
}
