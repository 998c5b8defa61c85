//! `-netdev`: typed options, and opening what they describe.

use crate::NetBackend;
use crate::tap::Tap;
use crate::user::UserNet;
use rhea_device::options::{self, OptionDecl, OptionError, OptionKind, OptionSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

/// The keys of `-netdev user`; `hostfwd=` may be given several times.
pub const USER_OPTIONS: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name for -device ...,netdev="),
    OptionDecl::new("net", OptionKind::Text, Some("10.0.2.0/24"), "the guest's network"),
    OptionDecl::new("host", OptionKind::Text, None, "address of the host in it (default: x.x.x.2)"),
    OptionDecl::new("dns", OptionKind::Text, None, "address of the name server in it (default: x.x.x.3)"),
    OptionDecl::new("dhcpstart", OptionKind::Text, None, "first address handed out (default: x.x.x.15)"),
    OptionDecl::new("hostname", OptionKind::Text, None, "the guest's host name, told by DHCP"),
    OptionDecl::new("domainname", OptionKind::Text, None, "the guest's domain, told by DHCP"),
    OptionDecl::new("restrict", OptionKind::Bool, Some("off"), "the guest reaches nothing but forwarded ports"),
    OptionDecl::new("ipv4", OptionKind::Choice(&["on", "true", "yes"]), Some("on"), "IPv4"),
    OptionDecl::new("ipv6", OptionKind::Bool, Some("off"), "IPv6: not supported"),
    OptionDecl::new("dnssearch", OptionKind::Text, None, "domain to search, told by DHCP; may be given several times"),
    OptionDecl::new("tftp", OptionKind::Text, None, "folder whose files the guest may read by TFTP from host"),
    OptionDecl::new("bootfile", OptionKind::Text, None, "file to boot, told by DHCP"),
    OptionDecl::new("tftp-server-name", OptionKind::Text, None, "name of a TFTP server, told by DHCP"),
    OptionDecl::new("hostfwd", OptionKind::Text, None, "[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport"),
];

/// What other emulators' user networks have and this one does not.
const REFUSED: &[(&str, &str)] = &[
    (
        "guestfwd",
        "guest forwarding is not supported: run the service on the host and reach it at the gateway's address",
    ),
    ("smb", "there is no SMB server: share files by another way"),
    ("smbserver", "there is no SMB server: share files by another way"),
    ("ipv6-net", "IPv6 is not supported by user networking"),
    ("ipv6-host", "IPv6 is not supported by user networking"),
    ("ipv6-dns", "IPv6 is not supported by user networking"),
    ("ipv6-prefix", "IPv6 is not supported by user networking"),
    ("ipv6-prefixlen", "IPv6 is not supported by user networking"),
];

/// The keys of `-netdev tap`.
pub const TAP_OPTIONS: &[OptionDecl] = &[
    OptionDecl::new("id", OptionKind::Text, None, "name for -device ...,netdev="),
    OptionDecl::new("ifname", OptionKind::Text, None, "interface on the host"),
    OptionDecl::new(
        "fd",
        OptionKind::Number { min: 0, max: i32::MAX as u64 },
        None,
        "an open tap interface to take over",
    ),
    OptionDecl::new("script", OptionKind::Choice(&["no", ""]), None, "no script is run"),
    OptionDecl::new("downscript", OptionKind::Choice(&["no", ""]), None, "no script is run"),
    OptionDecl::new("vhost", OptionKind::Choice(&["off", "false", "no"]), None, "vhost is not used"),
    OptionDecl::new("queues", OptionKind::Number { min: 1, max: 1 }, None, "one queue"),
    OptionDecl::new("vnet_hdr", OptionKind::Bool, Some("on"), "offer offloads"),
];

/// The transport of a forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// One `hostfwd=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub protocol: Protocol,
    /// Unspecified: all of the host's addresses.
    pub host: Ipv4Addr,
    /// 0: the host chooses.
    pub host_port: u16,
    /// `None`: the first address handed out.
    pub guest: Option<Ipv4Addr>,
    pub guest_port: u16,
}

impl Forward {
    /// Parses `[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let mut parts = from.splitn(3, ':');
        let protocol = match parts.next()? {
            "tcp" | "" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let host = match parts.next()? {
            "" => Ipv4Addr::UNSPECIFIED,
            address => address.parse().ok()?,
        };
        let host_port = parts.next()?.parse().ok()?;
        let (guest, guest_port) = to.split_once(':')?;
        let guest = if guest.is_empty() { None } else { Some(guest.parse().ok()?) };
        let guest_port = guest_port.parse().ok().filter(|p| *p != 0)?;
        Some(Self { protocol, host, host_port, guest, guest_port })
    }
}

/// A parsed `-netdev user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOptions {
    /// The option as written, for messages.
    pub option: String,
    pub network: Ipv4Addr,
    pub prefix: u8,
    pub host: Ipv4Addr,
    pub dns: Ipv4Addr,
    pub dhcp_start: Ipv4Addr,
    pub hostname: Option<String>,
    pub domain: Option<String>,
    /// Domains the guest's resolver tries, told by DHCP.
    pub search: Vec<String>,
    pub restrict: bool,
    /// Folder of the TFTP server.
    pub tftp: Option<PathBuf>,
    /// Told by DHCP: what to boot, at most 127 bytes, and from which server.
    pub bootfile: Option<String>,
    pub tftp_server: Option<String>,
    pub forwards: Vec<Forward>,
    /// The host's name server; `None`: the first of /etc/resolv.conf, whatever it says at the time.
    pub nameserver: Option<SocketAddrV4>,
}

impl Default for UserOptions {
    fn default() -> Self {
        Self {
            option: "-netdev user".to_owned(),
            network: Ipv4Addr::new(10, 0, 2, 0),
            prefix: 24,
            host: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
            dhcp_start: Ipv4Addr::new(10, 0, 2, 15),
            hostname: None,
            domain: None,
            search: Vec::new(),
            restrict: false,
            tftp: None,
            bootfile: None,
            tftp_server: None,
            forwards: Vec::new(),
            nameserver: None,
        }
    }
}

/// A parsed `-netdev tap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapOptions {
    pub option: String,
    /// `None`: the host names it.
    pub interface: Option<String>,
    /// A descriptor the process inherited, instead of an interface by name.
    pub fd: Option<RawFd>,
    pub offloads: bool,
}

/// The kind of a back end and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetdevKind {
    User(UserOptions),
    Tap(TapOptions),
}

/// A parsed `-netdev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevOptions {
    pub id: Option<String>,
    pub kind: NetdevKind,
}

type Pairs = [(String, Option<String>)];

/// A domain name that DNS and DHCP can carry.
fn valid_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn user(option: &str, pairs: &Pairs) -> Result<(Option<String>, UserOptions), OptionError> {
    if let Some((key, why)) = REFUSED.iter().find(|(key, _)| pairs.iter().any(|(k, _)| k == key)) {
        return Err(OptionError::new(option, format!("'{key}': {why}")));
    }
    // Several forwards and search domains may be given; all other keys once.
    let (several, rest): (Vec<_>, Vec<_>) =
        pairs.iter().cloned().partition(|(k, v)| (k == "hostfwd" || k == "dnssearch") && v.is_some());
    let set = OptionSet::parse(option, USER_OPTIONS, &rest)?;
    let (forwards, search): (Vec<_>, Vec<_>) = several.into_iter().partition(|(k, _)| k == "hostfwd");
    for (key, text) in
        search.iter().cloned().chain(["hostname", "domainname"].map(|k| (k.to_owned(), set.text(k).map(str::to_owned))))
    {
        if let Some(text) = text.filter(|t| !valid_name(t)) {
            return Err(set.error(
                &key,
                &format!("'{text}' is not a name: labels of 1 to 63 bytes, joined by dots, 253 bytes at most"),
            ));
        }
    }
    if set.bool("ipv6") {
        return Err(set.error("ipv6", "IPv6 is not supported by user networking: leave it off"));
    }
    let network = set.text("net").unwrap_or("10.0.2.0/24");
    let bad_net = || set.error("net", &format!("'{network}': expected a network like 10.0.2.0/24"));
    let (address, prefix) = network.split_once('/').ok_or_else(bad_net)?;
    let prefix: u8 = prefix.parse().ok().filter(|p| (8..=28).contains(p)).ok_or_else(bad_net)?;
    let mask = u32::MAX << (32 - prefix);
    let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| bad_net())?) & mask;
    let address = |key: &str, offset: u32| match set.text(key) {
        None => Ok(Ipv4Addr::from(base | offset & !mask)),
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(a) if u32::from(a) & mask == base => Ok(a),
            Ok(_) => Err(set.error(key, &format!("'{text}' is not in the network {}/{prefix}", Ipv4Addr::from(base)))),
            Err(_) => Err(set.error(key, &format!("'{text}' is not an IPv4 address"))),
        },
    };
    let (host, dns) = (address("host", 2)?, address("dns", 3)?);
    if host == dns {
        return Err(set.error("dns", "must differ from host"));
    }
    let dhcp_start = address("dhcpstart", 15)?;
    if dhcp_start == host || dhcp_start == dns {
        return Err(set.error("dhcpstart", "must differ from host and dns"));
    }
    let tftp = set.text("tftp").map(PathBuf::from);
    if let Some(dir) = &tftp
        && !dir.is_dir()
    {
        return Err(set.error("tftp", &format!("'{}' is not a folder", dir.display())));
    }
    let bootfile = set.text("bootfile").map(str::to_owned);
    if bootfile.as_ref().is_some_and(|f| f.len() > 127) {
        return Err(set.error("bootfile", "is longer than the 127 bytes that DHCP can carry"));
    }
    let forwards = forwards
        .iter()
        .filter_map(|(_, v)| v.as_deref())
        .map(|text| {
            Forward::parse(text).ok_or_else(|| {
                set.error("hostfwd", &format!("'{text}': expected [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport"))
            })
        })
        .collect::<Result<_, _>>()?;
    let options = UserOptions {
        option: option.to_owned(),
        network: Ipv4Addr::from(base),
        prefix,
        host,
        dns,
        dhcp_start,
        hostname: set.text("hostname").map(str::to_owned),
        domain: set.text("domainname").map(str::to_owned),
        search: search.into_iter().filter_map(|(_, v)| v).collect(),
        restrict: set.bool("restrict"),
        tftp,
        bootfile,
        tftp_server: set.text("tftp-server-name").map(str::to_owned),
        forwards,
        nameserver: None,
    };
    Ok((set.text("id").map(str::to_owned), options))
}

impl NetdevOptions {
    /// Parses the text after `-netdev`.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let pairs = options::split(text);
        match pairs.split_first() {
            Some(((kind, None), rest)) => Self::from_pairs("-netdev", kind, rest),
            Some(((key, Some(kind)), rest)) if key == "type" => Self::from_pairs("-netdev", kind, rest),
            _ => Err(OptionError::new("-netdev", "expected a kind first: user or tap")),
        }
        .and_then(|n| match n.id {
            Some(_) => Ok(n),
            None => Err(OptionError::new("-netdev", "property 'id' is missing: give id=NAME")),
        })
    }
    /// The same from split options, for `-nic`; `option` names the place in messages.
    ///
    /// # Errors
    /// See [`Self::parse`].
    pub fn from_pairs(option: &str, kind: &str, pairs: &Pairs) -> Result<Self, OptionError> {
        let place = format!("{option} {kind}");
        match kind {
            "user" => user(&place, pairs).map(|(id, o)| Self { id, kind: NetdevKind::User(o) }),
            "tap" => {
                let set = OptionSet::parse(&place, TAP_OPTIONS, pairs)?;
                let fd = set.number("fd").and_then(|n| RawFd::try_from(n).ok());
                if fd.is_some() && set.given("ifname") {
                    return Err(set.error("fd", "names an interface that is open already: leave out ifname="));
                }
                let tap = TapOptions {
                    option: place,
                    interface: set.text("ifname").map(str::to_owned),
                    fd,
                    offloads: set.bool("vnet_hdr"),
                };
                Ok(Self { id: set.text("id").map(str::to_owned), kind: NetdevKind::Tap(tap) })
            }
            other => {
                Err(OptionError::new(option, format!("network back end '{other}' is not supported: use user or tap")))
            }
        }
    }
    /// Opens the back end.
    ///
    /// # Errors
    /// One line: a port in use, an interface that cannot be opened.
    pub fn open(&self) -> Result<Arc<dyn NetBackend>, OptionError> {
        Ok(match &self.kind {
            NetdevKind::User(options) => UserNet::new(options)?,
            NetdevKind::Tap(options) => Tap::open(options)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_options() {
        let n = NetdevOptions::parse(
            "user,id=n0,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.20:5353,restrict=on",
        )
        .unwrap();
        let NetdevKind::User(u) = n.kind else { panic!() };
        assert_eq!(n.id.as_deref(), Some("n0"));
        assert_eq!(u.forwards.len(), 2);
        assert_eq!(
            u.forwards[0],
            Forward {
                protocol: Protocol::Tcp,
                host: Ipv4Addr::UNSPECIFIED,
                host_port: 2222,
                guest: None,
                guest_port: 22
            }
        );
        assert_eq!(u.forwards[1].guest, Some(Ipv4Addr::new(10, 0, 2, 20)));
        assert!(u.restrict);
        assert_eq!(
            UserOptions {
                option: "-netdev user".into(),
                restrict: true,
                forwards: u.forwards.clone(),
                ..UserOptions::default()
            },
            u
        );
        let NetdevKind::User(u) =
            NetdevOptions::parse("user,id=a,net=192.168.76.0/24,dhcpstart=192.168.76.9").unwrap().kind
        else {
            panic!()
        };
        assert_eq!(
            (u.host, u.dns, u.dhcp_start),
            (Ipv4Addr::new(192, 168, 76, 2), Ipv4Addr::new(192, 168, 76, 3), Ipv4Addr::new(192, 168, 76, 9))
        );
    }

    #[test]
    fn errors_name_the_key() {
        for (text, word) in [
            ("socket,id=a", "'socket'"),
            ("user", "'id'"),
            ("user,id=a,hostfwd=tcp:22", "hostfwd"),
            ("user,id=a,hostfwd=tcp::99999-:22", "99999"),
            ("user,id=a,net=10.0.0.0", "'net'"),
            ("user,id=a,dns=1.2.3.4", "'dns'"),
            ("user,id=a,smb=/tmp", "'smb'"),
            ("user,id=a,guestfwd=tcp:10.0.2.100:80-cmd:cat", "'guestfwd'"),
            ("user,id=a,dhcpstart=10.0.2.2", "'dhcpstart'"),
            ("user,id=a,hostname=a..b", "'hostname'"),
            ("user,id=a,dnssearch=", "'dnssearch'"),
            ("tap,id=a,fd=3,ifname=t", "'fd'"),
            ("tap,id=a,vhost=on", "vhost"),
            ("user,id=a,ipv6=on", "'ipv6'"),
            ("tap,id=a,script=/etc/up", "script="),
            ("", "kind"),
        ] {
            let e = NetdevOptions::parse(text).unwrap_err().to_string();
            assert!(e.starts_with("-netdev") && e.contains(word), "{text}: {e}");
        }
    }
}
