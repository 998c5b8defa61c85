//! Commands about processors.

use super::Context;
use super::life::target;
use crossbeam_channel::bounded;
use rhea_arm::{ArmConfig, Feature as ArmFeature};
use rhea_control::{Call, Commands, Error, Map, Value, json};
use rhea_machine::Machine;
use rhea_machine::accel::AccelKind;
use rhea_machine::machine::Architecture;
use rhea_x86::models::Parsed;
use rhea_x86::{Feature, Vendor};
use std::time::Duration;

pub fn register(commands: &mut Commands<Context>, machine: &Machine) {
    commands.add(&[
        ("query-cpus-fast", fast),
        ("query-hotpluggable-cpus", hotpluggable),
        ("query-cpu-definitions", definitions),
        ("query-iothreads", iothreads),
    ]);
    // Others have not got it.
    match machine.architecture() {
        Architecture::X86_64 => commands.add(&[("query-cpu-model-expansion", expansion)]),
        Architecture::Aarch64 => commands.add(&[("query-cpu-model-expansion", arm_expansion)]),
        Architecture::Ppc64 => {}
    }
}

type Result<T = Value> = std::result::Result<T, Error>;

/// Checks the number of a CPU.
pub fn index(context: &Context, index: i64) -> std::result::Result<usize, Error> {
    let fits = usize::try_from(index).ok().filter(|n| *n < context.machine.cpus().len());
    fits.ok_or_else(|| Error::new("Parameter 'cpu-index' expects a CPU number"))
}

/// The host's threads of the CPUs; 0: it does not answer.
fn threads(context: &Context) -> &[i32] {
    context.threads.get_or_init(|| {
        let asked: Vec<_> = context
            .machine
            .cpus()
            .iter()
            .map(|cpu| {
                let (sender, receiver) = bounded(1);
                cpu.request(Box::new(move || {
                    // Who asked may have given up.
                    let _ = sender.send(rustix::thread::gettid().as_raw_nonzero().get());
                }));
                receiver
            })
            .collect();
        asked.iter().map(|r| r.recv_timeout(Duration::from_secs(2)).unwrap_or(0)).collect()
    })
}

/// The place of a CPU in the topology.
fn place(context: &Context, number: usize) -> Value {
    let smp = &context.config.smp;
    let mut rest = number as u64;
    let mut step = |count: u32| {
        let count = u64::from(count.max(1));
        let at = rest % count;
        rest /= count;
        at
    };
    let mut props = Map::new();
    match context.machine.architecture() {
        Architecture::Ppc64 => {
            props.insert("core-id".to_owned(), json!(number as u64 / u64::from(smp.threads.max(1))));
        }
        architecture => {
            let (thread, core) = (step(smp.threads), step(smp.cores));
            let middle = if architecture == Architecture::X86_64 { smp.dies } else { smp.clusters };
            let (inner, socket) = (step(middle), step(smp.sockets));
            props.insert("socket-id".to_owned(), json!(socket));
            if architecture == Architecture::Aarch64 {
                props.insert("cluster-id".to_owned(), json!(inner));
            } else if smp.dies > 1 {
                props.insert("die-id".to_owned(), json!(inner));
            }
            props.insert("core-id".to_owned(), json!(core));
            props.insert("thread-id".to_owned(), json!(thread));
        }
    }
    Value::Object(props)
}

/// The object of a CPU.
pub fn path(number: usize) -> String {
    format!("/machine/unattached/device[{number}]")
}

/// The type of CPUs of a model.
pub fn type_name(architecture: Architecture, model: &str) -> String {
    let end = match architecture {
        Architecture::Aarch64 => "arm-cpu",
        Architecture::X86_64 => "x86_64-cpu",
        Architecture::Ppc64 => "powerpc64-cpu",
    };
    format!("{model}-{end}")
}

/// The model of this machine's CPUs.
pub fn model(context: &Context) -> &str {
    context.config.cpu.split(',').next().unwrap_or_default()
}

fn fast(context: &Context, _: &mut Call<'_>) -> Result {
    let one = |(n, thread): (usize, &i32)| {
        json!({
            "cpu-index": n,
            "qom-path": path(n),
            "thread-id": thread,
            "props": place(context, n),
            "target": target(context.machine.architecture()),
        })
    };
    let present = |n: &usize| context.machine.cpus()[*n].present();
    Ok(threads(context).iter().enumerate().filter(|(n, _)| present(n)).map(one).collect())
}

fn hotpluggable(context: &Context, _: &mut Call<'_>) -> Result {
    let architecture = context.machine.architecture();
    // On Power a core with all its threads is one place.
    let threads = if architecture == Architecture::Ppc64 { context.config.smp.threads.max(1) as usize } else { 1 };
    let one = |n: usize| {
        let mut entry = json!({
            "type": type_name(architecture, model(context)),
            "vcpus-count": threads,
            "props": place(context, n),
        });
        if context.machine.cpus()[n].present() {
            entry["qom-path"] = json!(path(n));
        }
        entry
    };
    Ok((0..context.machine.cpus().len()).rev().filter(|n| n % threads == 0).map(one).collect())
}

/// What a model should have and this machine cannot give it.
fn unavailable(context: &Context, name: &str) -> Vec<&'static str> {
    if context.machine.architecture() != Architecture::X86_64 {
        return Vec::new();
    }
    let parsed = rhea_machine::q35::cpu_model(name, &context.config.accel);
    parsed.map_or_else(|_| Vec::new(), |parsed| parsed.missing.iter().map(|f| f.name()).collect())
}

fn definitions(context: &Context, _: &mut Call<'_>) -> Result {
    let architecture = context.machine.architecture();
    let one = |(name, _): (&str, &str)| {
        json!({
            "name": name,
            "typename": type_name(architecture, name),
            "unavailable-features": unavailable(context, name),
            "migration-safe": name != "max",
            "static": name == "base",
            "deprecated": false,
        })
    };
    Ok(rhea_machine::cpu_models(architecture).into_iter().map(one).collect())
}

/// A property of a CPU: name, type, value.
type Property = (String, &'static str, Value);

/// What a model of x86 has, as its object tells.
fn x86_properties(parsed: &Parsed) -> Vec<Property> {
    let cpu = &parsed.config;
    let feature = |f: &Feature| (f.name().to_owned(), "bool", json!(cpu.has(*f)));
    let mut all: Vec<_> = Feature::ALL.iter().map(feature).collect();
    let numbers = [
        ("family", cpu.family),
        ("model", cpu.model_number),
        ("stepping", cpu.stepping),
        ("level", cpu.level),
        ("xlevel", cpu.extended_level),
        ("phys-bits", cpu.physical_bits),
    ];
    all.extend(numbers.map(|(name, n)| (name.to_owned(), "int", json!(n))));
    let vendor = match cpu.vendor {
        Vendor::Intel => "GenuineIntel",
        Vendor::Amd => "AuthenticAMD",
    };
    all.push(("vendor".to_owned(), "string", json!(vendor)));
    all.push(("model-id".to_owned(), "string", json!(cpu.brand)));
    all
}

/// The properties of this machine's CPUs.
pub fn properties(context: &Context) -> Vec<Property> {
    if context.machine.architecture() != Architecture::X86_64 {
        return Vec::new();
    }
    // It was accepted before.
    let parsed = rhea_machine::q35::cpu_model(&context.config.cpu, &context.config.accel);
    parsed.map_or_else(
        |_| Vec::new(),
        |parsed| {
            let mut all = x86_properties(&parsed);
            let missing: Vec<_> = parsed.absent.iter().map(|f| f.name()).collect();
            all.push(("unavailable-features".to_owned(), "strList", json!(missing)));
            all
        },
    )
}

/// The properties of CPU types.
pub fn property_types(architecture: Architecture) -> Value {
    let mut all = vec![json!({"name": "type", "type": "string"})];
    if architecture == Architecture::X86_64 {
        let known = |(name, kind): (&str, &str)| json!({"name": name, "type": kind});
        let parsed = rhea_x86::models::parse("max");
        all.extend(parsed.iter().flat_map(x86_properties).map(|(name, kind, _)| known((&name, kind))));
        all.push(known(("unavailable-features", "strList")));
        all.push(known(("migratable", "bool")));
    }
    json!(all)
}

/// The name of the model that a call gives, and the model with its changes as `-cpu` takes it.
fn given_model(call: &Call<'_>) -> Result<(String, String)> {
    let model = call.get("model").and_then(Value::as_object).cloned().unwrap_or_default();
    let name = model.get("name").and_then(Value::as_str).unwrap_or_default();
    let mut text = name.to_owned();
    if let Some(props) = model.get("props") {
        let props = props.as_object().ok_or_else(|| Error::new("Parameter 'model.props' expects an object"))?;
        for (key, value) in rhea_device::options::json_pairs(props, "").map_err(Error::new)? {
            let value = value.unwrap_or_default();
            if key.contains([',', '=']) || value.contains(',') {
                return Err(Error::new(format!("Parameter 'model.props.{key}': a value without commas is expected")));
            }
            text.push_str(&format!(",{key}={value}"));
        }
    }
    Ok((name.to_owned(), text))
}

/// A model with changes; what that means comes back.
fn expansion(context: &Context, call: &mut Call<'_>) -> Result {
    let (name, text) = given_model(call)?;
    let parsed = rhea_machine::q35::cpu_model(&text, &context.config.accel).map_err(|e| Error::new(e.message))?;
    let fixed = call.text("type") == Some("static");
    let mut props = Map::new();
    for (key, _, value) in x86_properties(&parsed) {
        // What differs from the model that has nothing.
        if !fixed || value != json!(false) {
            props.insert(key, value);
        }
    }
    Ok(json!({"model": {"name": if fixed { "base" } else { &name }, "props": props}}))
}

/// The same on Arm, where models have few properties.
fn arm_expansion(context: &Context, call: &mut Call<'_>) -> Result {
    if call.text("type") != Some("full") {
        return Err(Error::new("The requested expansion type is not supported"));
    }
    let (name, text) = given_model(call)?;
    if name == "host" && !matches!(context.config.accel, AccelKind::Kvm(_)) {
        return Err(Error::new("The CPU type 'host' requires KVM"));
    }
    let config = ArmConfig::from_option(&text).map_err(|e| Error::new(e.to_string()))?;
    let has = |feature| config.has(feature);
    let mut props = Map::new();
    props.insert("aarch64".to_owned(), json!(true));
    props.insert("pmu".to_owned(), json!(has(ArmFeature::Pmu)));
    // Other models have no others.
    if name == "max" {
        let pauth = has(ArmFeature::Pauth);
        props.insert("pauth".to_owned(), json!(pauth));
        props.insert("pauth-impdef".to_owned(), json!(pauth && has(ArmFeature::PauthImpdef)));
        props.insert("pauth-qarma5".to_owned(), json!(pauth && !has(ArmFeature::PauthImpdef)));
        props.insert("pauth-qarma3".to_owned(), json!(false));
        props.insert("lpa2".to_owned(), json!(has(ArmFeature::Lpa2)));
        props.insert("sve".to_owned(), json!(false));
        props.extend((1..=16).map(|n| (format!("sve{}", n * 128), json!(false))));
    }
    Ok(json!({"model": {"name": name, "props": props}}))
}

fn iothreads(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!([]))
}
