//! Commands that say what the emulator and the machine are.

use super::Context;
use super::cpus::type_name;
use super::life::target;
use rhea_control::{Call, Commands, Error, PROTOCOL, Value, json};
use rhea_machine::Machine;
use rhea_machine::accel::AccelKind;
use rhea_machine::machine::Architecture;

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
    let (name, model, ram, acpi) = match architecture {
        Architecture::Aarch64 => ("virt", "max", "mach-virt.ram", false),
        Architecture::X86_64 => ("q35", "qemu64", "pc.ram", true),
        Architecture::Ppc64 => ("pseries", "power10", "ppc_spapr.ram", false),
    };
    Ok(json!([{
        "name": name,
        "is-default": true,
        "cpu-max": rhea_machine::options::MAX_CPUS,
        "hotpluggable-cpus": architecture == Architecture::Ppc64,
        "numa-mem-supported": false,
        "deprecated": false,
        "default-cpu-type": type_name(architecture, model),
        "default-ram-id": ram,
        "acpi": acpi,
    }]))
}

fn gic(_: &Context, _: &mut Call<'_>) -> Result {
    Ok([2, 3].iter().map(|version| json!({"version": version, "emulated": true, "kernel": false})).collect())
}

/// There is no TPM device yet.
fn no_tpm(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!([]))
}
