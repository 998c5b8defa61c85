//! The root complex register block (ICH9 chapter 10).

use super::pirq::Pirq;
use super::pm::Pm;
use parking_lot::Mutex;
use rhea_device::{LoadError, Log};
use rhea_memory::{Access, AccessRules, BusError, MmioDevice};
use std::sync::Arc;

pub const LENGTH: u64 = 0x4000;
/// Device interrupt route registers of devices 31, 30, 29, 28, 27, 26, 25: four bits for each pin.
const ROUTES: [(u8, usize); 7] =
    [(31, 0x3140), (30, 0x3142), (29, 0x3144), (28, 0x3146), (27, 0x3148), (26, 0x314c), (25, 0x3150)];
const ROUTE_RESET: u16 = 0x3210;
/// General control and status: bit 5 = do not reboot when the watchdog ends.
const GCS: usize = 0x3410;
const NO_REBOOT: u8 = 1 << 5;

struct Bytes(Box<[u8]>);

pub struct RootComplex {
    bytes: Mutex<Bytes>,
    log: Log,
}

/// May software write the byte?
fn writable(at: usize) -> u8 {
    match at {
        // Interrupt routes; other interrupt control (IO-APIC enable and address select).
        0x3140..=0x3149 | 0x314c..=0x314d | 0x3150..=0x3151 => 0x77,
        0x31fe => 0xff,
        0x31ff => 0x3,
        // RTC, HPET, general control, backed up.
        0x3400 => 0x1f,
        0x3404 => 0x83,
        0x3410 => NO_REBOOT | 1,
        0x3414 => 1,
        // Function disable.
        0x3418..=0x341b => 0xff,
        _ => 0,
    }
}

fn initial() -> Bytes {
    let mut bytes = vec![0; LENGTH as usize].into_boxed_slice();
    for (device, at) in ROUTES {
        // Device 30's register has no pins of its own devices: its slots are wired to PIRQE–H.
        let value = if device == 30 { 0x7654u16 } else { ROUTE_RESET };
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    // The board's strap: no reboot.
    bytes[GCS] = NO_REBOOT;
    Bytes(bytes)
}

impl RootComplex {
    pub fn new(log: Log) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(initial()), log })
    }
    pub fn reset(&self) {
        *self.bytes.lock() = initial();
    }
    pub fn save(&self) -> Vec<u8> {
        self.bytes.lock().0.to_vec()
    }
    pub fn load(&self, data: &[u8]) -> Result<(), LoadError> {
        let mut bytes = self.bytes.lock();
        if data.len() != bytes.0.len() {
            return Err(LoadError::Mismatch("length of the root complex registers".to_owned()));
        }
        bytes.0.copy_from_slice(data);
        Ok(())
    }
    /// Routes the pins of devices 25–31 and sets the watchdog's mode.
    pub fn apply(&self, pirq: &Pirq, pm: &Pm) {
        let (routes, no_reboot) = {
            let bytes = self.bytes.lock();
            let routes = ROUTES.map(|(device, at)| (device, u16::from_le_bytes([bytes.0[at], bytes.0[at + 1]])));
            (routes, bytes.0[GCS] & NO_REBOOT != 0)
        };
        for (device, value) in routes {
            pirq.set_device(device, [0, 4, 8, 12].map(|shift| (value >> shift & 7) as u8));
        }
        pm.set_no_reboot(no_reboot);
    }
    fn read(&self, offset: u64, size: u8) -> u64 {
        let at = offset as usize;
        let bytes = self.bytes.lock();
        bytes.0.get(at..at + usize::from(size)).map_or(0, |b| b.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
    }
    fn write(&self, offset: u64, size: u8, value: u64) {
        let at = offset as usize;
        let mut known = false;
        {
            let mut bytes = self.bytes.lock();
            for (n, new) in value.to_le_bytes().into_iter().enumerate().take(size.into()) {
                let mask = writable(at + n);
                known |= mask != 0;
                if let Some(b) = bytes.0.get_mut(at + n) {
                    *b = *b & !mask | new & mask;
                }
            }
        }
        if !known {
            self.log.unimp("root-complex", format_args!("write to {offset:#x}"));
        }
    }
}

/// The block in memory.
pub struct Window {
    pub root: Arc<RootComplex>,
    pub pirq: Arc<Pirq>,
    pub pm: Arc<Pm>,
}

impl MmioDevice for Window {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        Ok(self.root.read(offset, access.size))
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        self.root.write(offset, access.size, value);
        self.root.apply(&self.pirq, &self.pm);
        Ok(())
    }
    fn rules(&self) -> AccessRules {
        AccessRules::implemented(1, 4)
    }
    fn name(&self) -> &str {
        "root-complex"
    }
}
