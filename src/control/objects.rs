//! The tree of objects, and types.

use super::Context;
use super::cpus::{self, model, path, type_name};
use rhea_control::{Call, Commands, Error, Map, Value, json};
use rhea_device::options::OptionSet;
use rhea_device::{OptionDecl, OptionKind};
use rhea_machine::catalog::{DeviceKind, device_kinds, fixed_kinds};
use rhea_machine::inventory::DeviceEntry;
use rhea_machine::machine::Architecture;
use rhea_machine::options::{MACHINES, MachineKind, ObjectSpec};
use rhea_virtio::balloon::Statistics;

pub fn register(commands: &mut Commands<Context>) {
    commands.add(&[
        ("qom-list", list),
        ("qom-get", get),
        ("qom-set", set),
        ("qom-list-types", types),
        ("qom-list-properties", type_properties),
        ("device-list-properties", device_properties),
    ]);
}

/// The child of a virtio device on PCI that is the device itself.
pub const BACKEND: &str = "virtio-backend";

/// Seconds between two questions of the balloon for statistics.
const POLLING: &str = "guest-stats-polling-interval";

type Result<T = Value> = std::result::Result<T, Error>;

/// A property of an object.
struct Property {
    name: String,
    kind: String,
    value: Value,
}

impl Property {
    fn new(name: impl Into<String>, kind: impl Into<String>, value: Value) -> Self {
        Self { name: name.into(), kind: kind.into(), value }
    }
    fn child(name: &str, kind: &str, path: &str) -> Self {
        Self::new(name, format!("child<{kind}>"), json!(path))
    }
}

/// The name of the type of a kind of value.
fn kind_name(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Bool => "bool",
        OptionKind::Number { max, .. } if max <= u32::MAX.into() => "uint32",
        OptionKind::Number { .. } => "uint64",
        OptionKind::Size { .. } => "size",
        OptionKind::Text | OptionKind::Choice(_) | OptionKind::Mac => "str",
    }
}

/// The value of a property of `set`.
fn value(decl: &OptionDecl, set: &OptionSet) -> Value {
    match decl.kind {
        OptionKind::Bool => json!(set.bool(decl.key)),
        OptionKind::Number { .. } | OptionKind::Size { .. } => json!(set.number(decl.key).unwrap_or(0)),
        OptionKind::Text | OptionKind::Choice(_) => json!(set.text(decl.key).unwrap_or_default()),
        OptionKind::Mac => json!(super::network::address(&set.mac(decl.key).unwrap_or_default())),
    }
}

/// What clients are told about a property that a device takes.
fn describe(decl: &OptionDecl) -> Value {
    let mut entry = json!({"name": decl.key, "type": kind_name(decl.kind), "description": decl.help});
    let set = OptionSet::parse("", &[*decl], &[]);
    if let (Some(_), Ok(set)) = (decl.default, set) {
        entry["default-value"] = value(decl, &set);
    }
    entry
}

/// All devices, with those that nobody chooses.
fn all_kinds(architecture: Architecture) -> impl Iterator<Item = DeviceKind> {
    device_kinds(architecture).into_iter().chain(fixed_kinds(architecture))
}

fn options(context: &Context, driver: &str) -> Option<Vec<OptionDecl>> {
    all_kinds(context.machine.architecture()).find(|d| d.name == driver).map(|d| d.options)
}

/// The type of a machine.
fn machine_type(kind: &MachineKind) -> String {
    format!("{}-machine", kind.name)
}

/// The machines of an architecture.
pub fn machines(architecture: Architecture) -> impl Iterator<Item = &'static MachineKind> {
    let own = match architecture {
        Architecture::Aarch64 => "virt",
        Architecture::X86_64 => "q35",
        Architecture::Ppc64 => "pseries",
    };
    MACHINES.iter().filter(move |m| m.board == own || m.board == "none")
}

/// The device behind a virtio device's transport.
fn virtio_backend(entry: &DeviceEntry) -> Option<Property> {
    let name = entry.spec.driver.trim_end_matches("-non-transitional");
    let kind = name.strip_suffix("-pci").filter(|d| d.starts_with("virtio-"))?;
    Some(Property::child(BACKEND, &format!("{kind}-device"), &format!("{}/{BACKEND}", entry.path())))
}

fn cpu_type(context: &Context) -> String {
    type_name(context.machine.architecture(), model(context))
}

fn object_type(object: &ObjectSpec) -> &'static str {
    match object {
        ObjectSpec::Memory { backing: rhea_memory::Backing::File { .. }, .. } => "memory-backend-file",
        ObjectSpec::Memory { .. } => "memory-backend-ram",
        ObjectSpec::Rng { .. } => "rng-random",
        ObjectSpec::Iommufd { .. } => "iommufd",
        ObjectSpec::SwProtectedVm { .. } => "sw-protected-vm",
        ObjectSpec::Secret { .. } => "secret",
    }
}

fn device(context: &Context, entry: &DeviceEntry) -> Vec<Property> {
    let mut all = vec![Property::new("type", "string", json!(entry.spec.driver))];
    let decls = options(context, &entry.spec.driver).unwrap_or_default();
    // What was accepted is parsed again.
    if let Ok(set) = OptionSet::parse("", &decls, &entry.spec.pairs) {
        let known = decls.iter().filter(|d| d.default.is_some() || set.given(d.key));
        all.extend(known.map(|d| Property::new(d.key, kind_name(d.kind), value(d, &set))));
    }
    if entry.spec.driver.starts_with("virtio-balloon")
        && let Some(balloon) = context.machine.inventory().balloon()
    {
        all.push(Property::new("guest-stats", "guest statistics", statistics(&balloon.statistics())));
        all.push(Property::new(POLLING, "int", json!(balloon.polling_interval())));
    }
    all.extend(virtio_backend(entry));
    all
}

/// The balloon's statistics as clients know them (virtio 1.2, 5.5.6.3); all ones: the guest does not say.
fn statistics(known: &Statistics) -> Value {
    const NAMES: &[&str] = &[
        "stat-swap-in",
        "stat-swap-out",
        "stat-major-faults",
        "stat-minor-faults",
        "stat-free-memory",
        "stat-total-memory",
        "stat-available-memory",
        "stat-disk-caches",
        "stat-htlb-pgalloc",
        "stat-htlb-pgfail",
    ];
    let mut stats = Map::new();
    for (tag, name) in NAMES.iter().enumerate() {
        let given = known.entries.iter().find(|(t, _)| usize::from(*t) == tag).map_or(u64::MAX, |(_, v)| *v);
        stats.insert((*name).to_owned(), json!(given));
    }
    json!({"stats": stats, "last-update": known.updated})
}

/// The properties of the object at an absolute path.
fn object(context: &Context, path_text: &str) -> Result<Vec<Property>> {
    let steps: Vec<&str> = path_text.split('/').filter(|s| !s.is_empty()).collect();
    let container = || vec![Property::new("type", "string", json!("container"))];
    let machine = machine_type(context.config.board.kind());
    let devices = context.machine.inventory().devices();
    let inside = |folder: &str| {
        let mut all = container();
        if folder == "unattached" {
            let cpus = 0..context.machine.cpus().len();
            all.extend(cpus.map(|n| Property::child(&format!("device[{n}]"), &cpu_type(context), &path(n))));
        }
        all.extend(
            devices
                .iter()
                .filter(|d| d.folder() == folder)
                .map(|d| Property::child(&d.name(), &d.spec.driver, &d.path())),
        );
        all
    };
    Ok(match steps[..] {
        [] => {
            let mut all = container();
            all.push(Property::child("machine", &machine, "/machine"));
            all.push(Property::child("objects", "container", "/objects"));
            all.push(Property::child("chardevs", "container", "/chardevs"));
            all
        }
        ["machine"] => {
            let mut all = vec![Property::new("type", "string", json!(machine))];
            for folder in ["peripheral", "peripheral-anon", "unattached"] {
                all.push(Property::child(folder, "container", &format!("/machine/{folder}")));
            }
            all
        }
        ["objects"] => {
            let mut all = container();
            let one = |o: &ObjectSpec| Property::child(o.id(), object_type(o), &format!("/objects/{}", o.id()));
            all.extend(context.config.objects.iter().map(one));
            all
        }
        ["objects", id] => {
            let found =
                context.config.objects.iter().find(|o| o.id() == id).ok_or_else(|| Error::no_device(path_text))?;
            vec![Property::new("type", "string", json!(object_type(found)))]
        }
        ["chardevs"] => {
            let mut all = container();
            let one = |name: &str| Property::child(name, "chardev", &format!("/chardevs/{name}"));
            all.extend(context.chardevs.list().iter().map(|entry| one(&entry.name)));
            all.extend(context.consoles.iter().map(|(name, _)| one(name)));
            all
        }
        ["machine", folder @ ("peripheral" | "peripheral-anon" | "unattached")] => inside(folder),
        ["machine", folder, name] => {
            if let Some(entry) = devices.iter().find(|d| d.folder() == folder && d.name() == name) {
                return Ok(device(context, entry));
            }
            let cpu =
                (0..context.machine.cpus().len()).any(|n| folder == "unattached" && name == format!("device[{n}]"));
            if !cpu {
                return Err(Error::no_device(path_text));
            }
            let mut all = vec![Property::new("type", "string", json!(cpu_type(context)))];
            all.extend(
                cpus::properties(context).into_iter().map(|(name, kind, value)| Property::new(name, kind, value)),
            );
            all
        }
        ["machine", folder, name, BACKEND] => {
            let entry = devices.iter().find(|d| d.folder() == folder && d.name() == name);
            let child = entry.and_then(virtio_backend).ok_or_else(|| Error::no_device(path_text))?;
            let kind = child.kind.trim_start_matches("child<").trim_end_matches('>').to_owned();
            vec![Property::new("type", "string", json!(kind))]
        }
        _ => return Err(Error::no_device(path_text)),
    })
}

/// Completes a path that is only the end of one: the id of a device.
fn absolute(context: &Context, path: &str) -> Result<String> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let devices = context.machine.inventory().devices();
    let found = devices.iter().find(|d| d.id() == Some(path)).map(DeviceEntry::path);
    found.ok_or_else(|| Error::no_device(path))
}

fn list(context: &Context, call: &mut Call<'_>) -> Result {
    let all = object(context, &absolute(context, call.required("path"))?)?;
    Ok(all.iter().map(|p| json!({"name": p.name, "type": p.kind})).collect())
}

fn get(context: &Context, call: &mut Call<'_>) -> Result {
    let name = call.required("property");
    let all = object(context, &absolute(context, call.required("path"))?)?;
    if let Some(property) = all.iter().find(|p| p.name == name) {
        return Ok(property.value.clone());
    }
    let kind = all.first().and_then(|p| p.value.as_str()).unwrap_or_default().to_owned();
    Err(Error::new(format!("Property '{kind}.{name}' not found")))
}

/// Sets a property.
fn set(context: &Context, call: &mut Call<'_>) -> Result {
    let (path, name) = (absolute(context, call.required("path"))?, call.required("property"));
    let all = object(context, &path)?;
    let kind = all.first().and_then(|p| p.value.as_str()).unwrap_or_default().to_owned();
    if !all.iter().any(|p| p.name == name) {
        return Err(Error::new(format!("Property '{kind}.{name}' not found")));
    }
    let (POLLING, Some(balloon)) = (name, context.machine.inventory().balloon()) else {
        return Err(Error::new(format!("Property '{kind}.{name}' cannot be changed while the machine is there")));
    };
    let seconds = call.get("value").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let seconds = seconds.ok_or_else(|| Error::new(format!("'{name}' expects a number of seconds, 0: never")))?;
    balloon.set_polling_interval(seconds)?;
    Ok(json!({}))
}

/// Types with their parents; abstract ones are those that are somebody's parent.
fn all_types(context: &Context) -> Vec<(String, &'static str, bool)> {
    let architecture = context.machine.architecture();
    let mut all: Vec<(String, &'static str, bool)> = [
        ("object", ""),
        ("device", "object"),
        ("machine", "object"),
        ("cpu", "device"),
        ("accel", "object"),
        ("memory-backend", "object"),
        ("rng-backend", "object"),
        ("pci-device", "device"),
        ("isa-device", "device"),
        ("usb-device", "device"),
        ("ide-device", "device"),
        ("sys-bus-device", "device"),
        ("virtio-device", "device"),
        ("virtio-serial-port", "device"),
        ("vio-spapr-device", "device"),
    ]
    .map(|(name, parent)| (name.to_owned(), parent, true))
    .to_vec();
    all.push(("sw-protected-vm".to_owned(), "confidential-guest-support", false));
    all.extend(machines(architecture).map(|kind| (machine_type(kind), "machine", false)));
    for name in ["kvm-accel", "tcg-accel"] {
        all.push((name.to_owned(), "accel", false));
    }
    for name in ["iommufd", "secret"] {
        all.push((name.to_owned(), "object", false));
    }
    for name in ["memory-backend-ram", "memory-backend-file"] {
        all.push((name.to_owned(), "memory-backend", false));
    }
    for name in ["rng-random", "rng-builtin"] {
        all.push((name.to_owned(), "rng-backend", false));
    }
    let models = rhea_machine::cpu_models(architecture);
    all.extend(models.into_iter().map(|(name, _)| (type_name(architecture, name), "cpu", false)));
    all.extend(all_kinds(architecture).map(|d| (d.name.to_owned(), d.parent, false)));
    all
}

fn types(context: &Context, call: &mut Call<'_>) -> Result {
    let all = all_types(context);
    let wanted = call.text("implements");
    let with_abstract = call.flag("abstract");
    let implements = |name: &str| {
        let mut at = Some(name);
        while let Some(name) = at {
            if Some(name) == wanted {
                return true;
            }
            at = all.iter().find(|(n, ..)| n == name).map(|(_, parent, _)| *parent);
        }
        wanted.is_none()
    };
    let chosen = all.iter().filter(|(name, _, general)| (with_abstract || !general) && implements(name));
    let one = |(name, parent, general): &(String, &str, bool)| {
        let mut entry = json!({"name": name});
        if *general {
            entry["abstract"] = json!(true);
        }
        if !parent.is_empty() {
            entry["parent"] = json!(parent);
        }
        entry
    };
    Ok(chosen.map(one).collect())
}

fn type_properties(context: &Context, call: &mut Call<'_>) -> Result {
    let name = call.required("typename");
    if let Some(decls) = options(context, name) {
        return Ok(decls.iter().map(describe).collect());
    }
    let typed = |decl: &OptionDecl| describe(decl);
    if let Some(kind) = machines(context.machine.architecture()).find(|kind| machine_type(kind) == name) {
        return Ok(kind.properties().iter().filter(|d| d.key != "type").map(typed).collect());
    }
    let models = rhea_machine::cpu_models(context.machine.architecture());
    if models.iter().any(|(model, _)| type_name(context.machine.architecture(), model) == name) {
        return Ok(cpus::property_types(context.machine.architecture()));
    }
    if let Some(decls) = ObjectSpec::properties(name) {
        return Ok(decls.iter().map(typed).collect());
    }
    if all_types(context).iter().any(|(n, ..)| n == name) {
        return Ok(json!([{"name": "type", "type": "string"}]));
    }
    Err(Error::of(rhea_control::ErrorClass::DeviceNotFound, format!("Class '{name}' not found")))
}

fn device_properties(context: &Context, call: &mut Call<'_>) -> Result {
    let name = call.required("typename");
    let decls = options(context, name).ok_or_else(|| Error::no_device(name))?;
    Ok(decls.iter().map(describe).collect())
}
