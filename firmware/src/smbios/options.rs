//! `-smbios type=N,key=value` and `-smbios file=FILE`.

use rhea_device::options::{OptionDecl, OptionError, OptionKind, OptionSet, split};
use std::collections::BTreeMap;
use std::path::Path;

/// What the user says about the structures.
#[derive(Clone, Debug, Default)]
pub struct SmbiosOptions {
    types: BTreeMap<u8, OptionSet>,
    /// Port connectors, one set each.
    pub(super) ports: Vec<OptionSet>,
    /// OEM strings.
    pub(super) oem_strings: Vec<String>,
    /// Whole structures, complete with their strings.
    pub(super) raw: Vec<Vec<u8>>,
}

const fn text(key: &'static str, help: &'static str) -> OptionDecl {
    OptionDecl::new(key, OptionKind::Text, None, help)
}
const fn number(key: &'static str, max: u64, help: &'static str) -> OptionDecl {
    OptionDecl::new(key, OptionKind::Number { min: 0, max }, None, help)
}

const BIOS: &[OptionDecl] = &[
    text("vendor", "BIOS vendor"),
    text("version", "BIOS version"),
    text("date", "release date, mm/dd/yyyy"),
    text("release", "release, major.minor"),
    OptionDecl::new("uefi", OptionKind::Bool, None, "the firmware is UEFI"),
];
const SYSTEM: &[OptionDecl] = &[
    text("manufacturer", "manufacturer"),
    text("product", "product name"),
    text("version", "version"),
    text("serial", "serial number"),
    text("uuid", "UUID"),
    text("sku", "SKU number"),
    text("family", "family"),
];
const BOARD: &[OptionDecl] = &[
    text("manufacturer", "manufacturer"),
    text("product", "product name"),
    text("version", "version"),
    text("serial", "serial number"),
    text("asset", "asset tag"),
    text("location", "location in the chassis"),
];
const CHASSIS: &[OptionDecl] = &[
    text("manufacturer", "manufacturer"),
    text("version", "version"),
    text("serial", "serial number"),
    text("asset", "asset tag"),
    text("sku", "SKU number"),
];
const PROCESSOR: &[OptionDecl] = &[
    text("sock_pfx", "prefix of the socket's name"),
    text("manufacturer", "manufacturer"),
    text("version", "version"),
    text("serial", "serial number"),
    text("asset", "asset tag"),
    text("part", "part number"),
    number("max-speed", 0xffff, "MHz"),
    number("current-speed", 0xffff, "MHz"),
    number("processor-family", 0xffff, "family number"),
    number("processor-id", u64::MAX, "EDX and EAX of CPUID leaf 1"),
];
const PORT: &[OptionDecl] = &[
    text("internal_reference", "name on the board"),
    text("external_reference", "name outside"),
    number("connector_type", 0xff, "external connector"),
    number("port_type", 0xff, "port"),
];
const MEMORY: &[OptionDecl] = &[
    text("loc_pfx", "prefix of the locator"),
    text("bank", "bank locator"),
    text("manufacturer", "manufacturer"),
    text("serial", "serial number"),
    text("asset", "asset tag"),
    text("part", "part number"),
    number("speed", 0xffff, "MT/s"),
];
const OEM_STRINGS: u8 = 11;
const PORT_CONNECTOR: u8 = 8;

fn declarations(kind: u8) -> Option<&'static [OptionDecl]> {
    Some(match kind {
        0 => BIOS,
        1 => SYSTEM,
        2 => BOARD,
        3 => CHASSIS,
        4 => PROCESSOR,
        PORT_CONNECTOR => PORT,
        17 => MEMORY,
        _ => return None,
    })
}

/// The bytes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in their order.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<_> = text.split('-').collect();
    if groups.iter().map(|g| g.len()).collect::<Vec<_>>() != [8, 4, 4, 4, 12] {
        return None;
    }
    let digits = groups.concat();
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

impl SmbiosOptions {
    /// Takes the text behind one `-smbios`.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn add(&mut self, option: &str) -> Result<(), OptionError> {
        const NAME: &str = "-smbios";
        let mut pairs = split(option);
        if let Some(at) = pairs.iter().position(|(key, _)| key == "file") {
            let (_, Some(file)) = pairs.remove(at) else {
                return Err(OptionError::new(NAME, "property 'file' needs a value: file=FILE"));
            };
            if let Some((key, _)) = pairs.first() {
                return Err(OptionError::new(NAME, format!("'{key}' cannot be used together with 'file'")));
            }
            return self.add_file(Path::new(&file)).map_err(|m| OptionError::new(NAME, format!("'{file}': {m}")));
        }
        let at = pairs.iter().position(|(key, _)| key == "type");
        let at = at.ok_or_else(|| OptionError::new(NAME, "say which structure: type=N or file=FILE"))?;
        let (_, value) = pairs.remove(at);
        let value = value.unwrap_or_default();
        let kind = value.parse::<u8>().ok().filter(|k| *k == OEM_STRINGS || declarations(*k).is_some());
        let kind = kind.ok_or_else(|| {
            OptionError::new(NAME, format!("'type={value}': expected one of 0, 1, 2, 3, 4, 8, 11, 17"))
        })?;
        let name = format!("{NAME} type={kind}");
        if kind == OEM_STRINGS {
            return self.add_oem_strings(&name, &pairs);
        }
        let declared = declarations(kind).unwrap_or_default();
        let new = OptionSet::parse(&name, declared, &pairs)?;
        if let Some(uuid) = new.text("uuid").filter(|_| kind == 1)
            && parse_uuid(uuid).is_none()
        {
            return Err(new.error("uuid", "expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"));
        }
        if let Some(release) = new.text("release").filter(|_| kind == 0)
            && parse_release(release).is_none()
        {
            return Err(new.error("release", "expected MAJOR.MINOR, each 0 to 255"));
        }
        if kind == PORT_CONNECTOR {
            self.ports.push(new);
        } else if self.types.insert(kind, new).is_some() {
            return Err(OptionError::new(&name, "this structure is given twice: give all its properties at once"));
        }
        Ok(())
    }

    fn add_oem_strings(&mut self, name: &str, pairs: &[(String, Option<String>)]) -> Result<(), OptionError> {
        for (key, value) in pairs {
            let text = match (key.as_str(), value) {
                ("value", Some(text)) => text.clone(),
                ("path", Some(file)) => std::fs::read_to_string(file)
                    .map_err(|e| OptionError::new(name, format!("'path={file}': {e}")))?
                    .trim_end_matches('\n')
                    .to_owned(),
                _ => {
                    let message = format!("unknown property '{key}': properties are value=TEXT and path=FILE");
                    return Err(OptionError::new(name, message));
                }
            };
            self.oem_strings.push(text);
        }
        if self.oem_strings.len() > 255 {
            return Err(OptionError::new(name, "more than 255 strings"));
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path) -> Result<(), String> {
        let data = std::fs::read(file).map_err(|e| e.to_string())?;
        let len = data.get(1).map_or(0, |l| usize::from(*l));
        // A structure: header, formatted area, strings, two zeros at the end.
        if len < 4 || data.len() < len + 2 || !data.ends_with(&[0, 0]) || data.len() > 0xffff {
            return Err("this is not an SMBIOS structure with its strings".to_owned());
        }
        self.raw.push(data);
        Ok(())
    }

    pub(super) fn text(&self, kind: u8, key: &str) -> Option<&str> {
        self.types.get(&kind)?.text(key)
    }
    pub(super) fn number(&self, kind: u8, key: &str) -> Option<u64> {
        self.types.get(&kind)?.number(key)
    }
    pub(super) fn flag(&self, kind: u8, key: &str) -> bool {
        self.types.get(&kind).is_some_and(|t| t.bool(key))
    }
    /// Has the user said anything about the structure?
    pub(super) fn given(&self, kind: u8) -> bool {
        self.types.contains_key(&kind)
    }
    pub(super) fn has_raw(&self, kind: u8) -> bool {
        self.raw.iter().any(|r| r.first() == Some(&kind))
    }
}

pub(super) fn parse_release(text: &str) -> Option<[u8; 2]> {
    let (major, minor) = text.split_once('.')?;
    Some([major.parse().ok()?, minor.parse().ok()?])
}
