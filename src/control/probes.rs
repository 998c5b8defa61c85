//! Commands with which programs find out what an emulator can do, where the answer here is that it cannot.

use super::Context;
use rhea_control::{Call, Commands, Error, Value, json};
use rhea_machine::accel::AccelKind;
use rhea_machine::machine::Architecture;
use rhea_machine::{Machine, MachineConfig};

pub fn register(commands: &mut Commands<Context>, machine: &Machine, config: &MachineConfig) {
    if machine.architecture() == Architecture::X86_64 {
        commands.add(&[
            ("query-sev", sev),
            ("query-sev-capabilities", sev_capabilities),
            ("query-sgx", sgx),
            ("query-sgx-capabilities", sgx_capabilities),
        ]);
    }
    // The kernel's statistics are not read: with KVM an empty list would be untrue.
    if !is_kvm(config) {
        commands.add(&[("query-stats", nothing), ("query-stats-schemas", nothing)]);
    }
    commands.add(&[
        ("query-vcpu-dirty-limit", nothing),
        ("set-vcpu-dirty-limit", set_dirty_limit),
        ("cancel-vcpu-dirty-limit", cancel_dirty_limit),
    ]);
}

type Result = std::result::Result<Value, Error>;

fn is_kvm(config: &MachineConfig) -> bool {
    matches!(config.accel, AccelKind::Kvm(_))
}

fn nothing(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!([]))
}

fn sev(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!({
        "enabled": false, "api-major": 0, "api-minor": 0, "build-id": 0, "state": "uninit",
        "sev-type": "sev", "policy": 0, "handle": 0,
    }))
}

fn sev_capabilities(context: &Context, _: &mut Call<'_>) -> Result {
    Err(Error::new(if is_kvm(&context.config) { "SEV guests are not supported" } else { "KVM not enabled" }))
}

fn sgx(_: &Context, _: &mut Call<'_>) -> Result {
    Err(Error::new("No EPC regions defined, SGX not available"))
}

fn sgx_capabilities(_: &Context, _: &mut Call<'_>) -> Result {
    Err(Error::new("SGX is not supported"))
}

fn set_dirty_limit(context: &Context, _: &mut Call<'_>) -> Result {
    Err(Error::new(if is_kvm(&context.config) {
        "dirty page limit feature is not supported"
    } else {
        "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set"
    }))
}

/// No limit was ever set.
fn cancel_dirty_limit(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!({}))
}
