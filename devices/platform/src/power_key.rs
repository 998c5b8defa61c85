//! Buttons and outputs on GPIO pins that concern the machine's power.

use crate::Pl061;
use rhea_accel::{IrqSink, ShutdownCause, VmControl};
use rhea_clock::{Timer, VirtualClock};
use std::sync::Arc;

/// How long a press lasts, in ns: longer than the guest's debouncing.
const PRESS_NS: u64 = 100_000_000;

/// A key on a GPIO pin, active high.
pub struct GpioKey {
    gpio: Arc<Pl061>,
    pin: u32,
    clock: Arc<VirtualClock>,
    release: Timer,
}

impl GpioKey {
    #[must_use]
    pub fn new(gpio: &Arc<Pl061>, pin: u32, clock: &Arc<VirtualClock>) -> Self {
        let held = gpio.clone();
        let release = clock.timer(move || held.set_pin(pin, false));
        Self { gpio: gpio.clone(), pin, clock: clock.clone(), release }
    }
    /// Presses the key; it is released a moment later.
    pub fn press(&self) {
        self.gpio.set_pin(self.pin, true);
        self.release.arm(self.clock.now_ns().saturating_add(PRESS_NS));
    }
}

/// What the Secure world's GPIO drives: pin 0 resets the machine, pin 1 switches it off.
pub struct PowerSwitch(pub VmControl);

impl IrqSink for PowerSwitch {
    fn set_level(&self, pin: u32, level: bool) {
        match (pin, level) {
            (0, true) => self.0.reset(ShutdownCause::Guest),
            (1, true) => self.0.power_off(ShutdownCause::Guest),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhea_accel::IrqLine;
    use rhea_device::Log;
    use rhea_memory::{Access, MmioDevice};
    use std::time::{Duration, Instant};

    #[test]
    fn press_and_release() {
        let clock = VirtualClock::new();
        let gpio = Pl061::new("pl061", IrqLine::unconnected(), [const { None }; 8], Log::off());
        let key = GpioKey::new(&gpio, 3, &clock);
        let pin = || gpio.read(0x3fc, Access::cpu(0, 4)).unwrap();
        clock.start();
        key.press();
        assert_eq!(pin(), 8);
        let end = Instant::now() + Duration::from_secs(10);
        while pin() != 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(pin(), 0);
    }
}
