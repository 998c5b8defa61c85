//! Interrupt outputs of devices that several threads drive.

use rhea_accel::IrqLine;

/// Sets `line` to what `level` computes (under the device's lock, which is free here). Threads that do so at once cannot leave a
/// stale level behind: each looks again after it has told the line.
pub(crate) fn settle(line: &IrqLine, level: impl Fn() -> bool) {
    loop {
        let now = level();
        line.set(now);
        if level() == now {
            return;
        }
    }
}
