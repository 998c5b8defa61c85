//! Commands that say what the emulator and the machine are.

use super::Context;
use super::cpus::type_name;
use super::life::target;
use rhea_control::{Call, Commands, Error, PROTOCOL, Value, json};
use rhea_machine::Machine;
use rhea_machine::accel::AccelKind;
use rhea_machine::machine::Architecture;
use rhea_machine::options::MachineKind;

pub fn register(commands: &mut Commands<Context>, machine: &Machine) {
    if machine.architecture() == Architecture::Aarch64 {
        commands.add(&[("query-gic-capabilities", gic)]);
    }
    commands.add(&[
        ("query-version", version),
        ("query-name", name),
        ("query-uuid", uuid),
        ("query-target", architecture),
        ("query-kvm", kvm),
        ("query-machines", machines),
        ("query-tpm-models", no_tpm),
        ("query-tpm-types", no_tpm),
    ]);
}

type Result = std::result::Result<Value, Error>;

fn version(_: &Context, _: &mut Call<'_>) -> Result {
    let (major, minor, micro) = PROTOCOL;
    let package = format!("Rhea {}", env!("CARGO_PKG_VERSION"));
    Ok(json!({"qemu": {"major": major, "minor": minor, "micro": micro}, "package": package}))
}

fn name(context: &Context, _: &mut Call<'_>) -> Result {
    Ok(context.config.name.as_ref().map_or_else(|| json!({}), |name| json!({"name": name})))
}

/// The UUID as text.
fn uuid(context: &Context, _: &mut Call<'_>) -> Result {
    let digits: String = context.config.uuid.iter().map(|b| format!("{b:02x}")).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok(json!({"UUID": parts.join("-")}))
}

fn architecture(context: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!({"arch": target(context.machine.architecture())}))
}

fn kvm(context: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!({"enabled": matches!(context.config.accel, AccelKind::Kvm(_)), "present": true}))
}

fn machines(context: &Context, _: &mut Call<'_>) -> Result {
    let architecture = context.machine.architecture();
    let (model, ram) = match architecture {
        Architecture::Aarch64 => ("max", "mach-virt.ram"),
        Architecture::X86_64 => ("qemu64", "pc.ram"),
        Architecture::Ppc64 => ("power10", "ppc_spapr.ram"),
    };
    let one = |kind: &'static MachineKind| {
        let none = kind.board == "none";
        let mut entry = json!({
            "name": kind.name,
            "cpu-max": if none { 1 } else { rhea_machine::options::MAX_CPUS },
            "hotpluggable-cpus": kind.board == "pseries",
            "numa-mem-supported": false,
            "deprecated": false,
            "acpi": kind.board == "q35",
        });
        if let Some(alias) = kind.alias {
            entry["alias"] = json!(alias);
        }
        if !none {
            entry["is-default"] = json!(true);
            entry["default-cpu-type"] = json!(type_name(architecture, model));
            entry["default-ram-id"] = json!(ram);
        }
        entry
    };
    Ok(super::objects::machines(architecture).map(one).collect())
}

fn gic(_: &Context, _: &mut Call<'_>) -> Result {
    Ok([2, 3].iter().map(|version| json!({"version": version, "emulated": true, "kernel": false})).collect())
}

/// There is no TPM device yet.
fn no_tpm(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!([]))
}
