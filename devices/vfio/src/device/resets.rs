//! Resets of the function, and its end. The host's kernel may take long over a device that does not answer: the machine does not wait
//! for ever, and does without the function then, until its reset is over after all.

use super::Inner;
use super::guest::Guest;
use crate::config::COMMAND;
use crossbeam_channel::bounded;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// How far a reset is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Pending {
    #[default]
    None,
    Waited,
    /// The machine goes on without the function.
    Late,
}

/// Does `f` on a thread of its own; a function that is not done with it in time is given up.
pub(super) fn limited(inner: &Arc<Inner>, what: &str, f: impl FnOnce(&Arc<Inner>) + Send + 'static) {
    let ((done, finished), limit) = (bounded(1), inner.environment.patience);
    let of = inner.clone();
    let spawned = std::thread::Builder::new().name("vfio-reset".to_owned()).spawn(move || {
        f(&of);
        drop(of);
        // Who waited may have given up.
        let _ = done.send(());
    });
    if spawned.is_err() {
        return inner.warn(&format!("{what} needs a thread, and the host has none"));
    }
    if finished.recv_timeout(limit).is_ok() {
        return;
    }
    // A reset that ends meanwhile sees one or the other.
    let mut pending = inner.pending.lock();
    if *pending == Pending::Waited {
        *pending = Pending::Late;
    }
    if !inner.gone.swap(true, SeqCst) {
        inner.warn(&format!("{what} takes longer than {} s: the machine goes on without it", limit.as_secs()));
        for bar in &inner.bars {
            bar.window.switch(false);
            bar.show(false);
        }
    }
}

/// The machine is reset.
pub(super) fn machine(inner: &Arc<Inner>) {
    begin_reset(inner, true);
}

/// The guest resets the function.
pub(super) fn function(inner: &Arc<Inner>) {
    begin_reset(inner, false);
}

fn begin_reset(inner: &Arc<Inner>, whole_bus: bool) {
    if !inner.gone.load(SeqCst) {
        *inner.pending.lock() = Pending::Waited;
        limited(inner, "the reset", move |inner| reset(inner, whole_bus));
    }
}

/// The machine, or the function in it, ends.
pub(super) fn give_up(inner: &Arc<Inner>) {
    inner.ended.store(true, SeqCst);
    if !inner.gone.load(SeqCst) {
        limited(inner, "giving it back", |inner| inner.release());
    }
}

fn reset(inner: &Arc<Inner>, whole_bus: bool) {
    inner.trace(format_args!("reset"));
    inner.interrupts().stop();
    // Transfers end before the function forgets them.
    let _ = inner.device.write(&inner.space, COMMAND as u64, &2u16.to_le_bytes());
    inner.trace(format_args!("reset by the host: {}", reset_host(inner, whole_bus).unwrap_or("it has none")));
    let late = std::mem::take(&mut *inner.pending.lock()) == Pending::Late;
    if late && !inner.ended.load(SeqCst) {
        inner.warn("its reset is over: the machine has it again");
        inner.gone.store(false, SeqCst);
    }
    if inner.gone.load(SeqCst) {
        // It came too late.
        return inner.interrupts().give_up();
    }
    if let Some(migration) = &inner.migration {
        migration.was_reset();
    }
    if let Some(table) = &inner.table {
        table.reset();
    }
    inner.config.reset();
    begin(inner);
}

/// Awake, with INTx, and with what the command register says; nothing is known of what the guest did before.
pub(super) fn begin(inner: &Arc<Inner>) {
    *inner.guest.lock() = Guest::default();
    inner.asleep.store(false, SeqCst);
    for bar in &inner.bars {
        bar.window.switch(true);
    }
    inner.forward_command();
    inner.rewire();
    inner.interrupts().start();
    inner.show();
}

/// A reset of the function alone; else one of its bus, if all that is on it is this machine's; else by power management, which need
/// not reset everything. Which it was.
fn reset_host(inner: &Inner, whole_bus: bool) -> Option<&'static str> {
    const NO_SOFT_RESET: u32 = 8;
    let by_power = inner.layout.pm.is_some_and(|pm| inner.config.read(pm as u16 + 4, 2) & NO_SOFT_RESET == 0);
    let own = || inner.info.reset && inner.device.reset().is_ok();
    if (inner.layout.function_reset || !by_power) && own() {
        return Some("the function");
    }
    if whole_bus && reset_bus(inner) {
        return Some("its bus");
    }
    (by_power && own()).then_some("its power state")
}

fn reset_bus(inner: &Inner) -> bool {
    let Ok(info) = inner.device.hot_reset_info() else { return false };
    if info.by_device {
        return info.owned && inner.device.hot_reset(&[]).is_ok();
    }
    let Ok(mut numbers) = info.devices.iter().map(|d| u32::try_from(d.owner)).collect::<Result<Vec<_>, _>>() else {
        return false;
    };
    numbers.sort_unstable();
    numbers.dedup();
    (inner.groups)(&numbers).is_some_and(|groups| inner.device.hot_reset(&groups).is_ok())
}
