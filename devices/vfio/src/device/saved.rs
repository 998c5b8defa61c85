//! The state of a function, saved and restored: what the guest has set up here, and what the function itself can tell of it.

use super::{Inner, resets};
use crate::migration::MigrationError;
use crate::sys::MigrationState;
use minicbor::{Decode, Encode};
use rhea_device::{LoadError, Saved, state};
use rhea_pci::PciConfigState;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

const VERSION: u32 = 1;
/// Bytes of a function's own state that are kept in memory.
const MOST: usize = 4 << 30;

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    config: PciConfigState,
    /// Entries of the MSI-X table.
    #[n(1)]
    table: Vec<[u32; 4]>,
    /// As the function's driver on the host gives it.
    #[cbor(n(2), with = "minicbor::bytes")]
    data: Vec<u8>,
}

fn damaged(e: &MigrationError) -> LoadError {
    LoadError::Damaged(e.to_string())
}

pub(super) fn blocker(inner: &Inner) -> Option<String> {
    if inner.gone.load(SeqCst) {
        return Some(format!("{} does not answer any more", inner.host));
    }
    let why = || format!("the driver of {} on the host cannot tell its state", inner.host);
    inner.migration.is_none().then(why)
}

/// One that cannot be moved has no part in it: [`blocker`] says so before.
pub(super) fn moving(inner: &Inner) -> Result<(), String> {
    inner.migration.as_ref().map_or(Ok(()), |m| m.begin()).map_err(|e| e.to_string())
}

pub(super) fn moving_data(inner: &Inner, most: usize) -> Result<Vec<u8>, String> {
    inner.migration.as_ref().map_or_else(|| Ok(Vec::new()), |m| m.part(most)).map_err(|e| e.to_string())
}

pub(super) fn moved(inner: &Inner) {
    if let Some(Err(e)) = inner.migration.as_ref().map(|m| m.end()) {
        inner.warn(&format!("it does not run on: {e}"));
    }
}

pub(super) fn take_data(inner: &Inner, data: &[u8]) -> Result<(), LoadError> {
    let Some(migration) = inner.migration.as_ref().filter(|_| !inner.gone.load(SeqCst)) else {
        return Err(stateless());
    };
    migration.take_part(data).map_err(|e| damaged(&e))
}

fn stateless() -> LoadError {
    LoadError::Mismatch("an assigned device whose driver on the host takes no state".to_owned())
}

/// The machine comes to rest, and the function with it, if it can. What it has signalled is the machine's then.
pub(super) fn rest(inner: &Arc<Inner>) {
    if inner.migration.is_none() || inner.gone.load(SeqCst) || inner.resting.swap(true, SeqCst) {
        return;
    }
    resets::limited(inner, "stopping it", |inner| {
        let Some(migration) = &inner.migration else { return };
        match inner.peers.stop(migration) {
            Ok(()) => inner.interrupts().catch_up(),
            Err(e) => inner.warn(&format!("it is not stopped: {e}")),
        }
    });
}

/// The machine goes on.
pub(super) fn run_on(inner: &Arc<Inner>) {
    if inner.resting.swap(false, SeqCst) && !inner.gone.load(SeqCst) {
        resets::limited(inner, "letting it run", |inner| {
            if let Some(Err(e)) = inner.migration.as_ref().map(|m| inner.peers.run(m)) {
                inner.warn(&format!("it does not run: {e}"));
            }
        });
    }
}

/// The function runs on after it, unless the machine is at rest; no processor does.
pub(super) fn save(inner: &Inner) -> Saved {
    let Some(migration) = inner.migration.as_ref().filter(|_| !inner.gone.load(SeqCst)) else {
        return Saved::NotMigratable(
            "the state of an assigned device is in the device, whose driver on the host cannot tell it",
        );
    };
    let mut data = Vec::new();
    let saved = migration.save(&mut |part| {
        if data.len() + part.len() > MOST {
            return Err(ErrorKind::FileTooLarge.into());
        }
        data.extend_from_slice(part);
        Ok(())
    });
    let goes_on = || if inner.resting.load(SeqCst) { Ok(()) } else { migration.go(MigrationState::Running) };
    if let Err(e) = saved.and(goes_on()) {
        inner.warn(&format!("its state cannot be saved: {e}"));
        return Saved::NotMigratable("an assigned device does not tell its state");
    }
    let table = inner.table.as_ref().map(|t| t.entries()).unwrap_or_default();
    state::encode(VERSION, &State { config: inner.config.save(), table, data })
}

/// # Errors
/// [`LoadError`]: the function is as after a reset then, or does nothing.
pub(super) fn load(inner: &Arc<Inner>, saved: &Saved) -> Result<(), LoadError> {
    let State { config, table, data } = state::decode(saved, VERSION)?;
    let Some(migration) = inner.migration.as_ref().filter(|_| !inner.gone.load(SeqCst)) else {
        return Err(stateless());
    };
    if table.len() != inner.table.as_ref().map_or(0, |t| t.vectors() as usize) {
        return Err(LoadError::Mismatch("vectors of MSI-X".to_owned()));
    }
    inner.interrupts().stop();
    inner.config.load(config)?;
    let mut rest = &data[..];
    migration
        .load(&mut |into| {
            let n = rest.len().min(into.len());
            into[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            Ok(n)
        })
        .map_err(|e| damaged(&e))?;
    if let Some(of) = &inner.table {
        of.set_entries(table);
    }
    // The function asserts its pin itself, if it does.
    if let Some(pin) = inner.config.intx() {
        pin.set(false);
    }
    resets::begin(inner);
    // The registers may say otherwise.
    inner.choose();
    inner.set_power();
    if inner.resting.load(SeqCst) { Ok(()) } else { migration.go(MigrationState::Running).map_err(|e| damaged(&e)) }
}
