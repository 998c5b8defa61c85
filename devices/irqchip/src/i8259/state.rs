//! Saved state of the pair.

use super::chip::Chip;
use super::{I8259, Pair};
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    master: Chip,
    #[n(1)]
    slave: Chip,
}

impl Device for I8259 {
    fn name(&self) -> &str {
        &self.config.name
    }
    fn reset(&self) {
        self.with(|pair| {
            pair.master.reset();
            pair.slave.reset();
            ((), 0)
        });
    }
    fn collects(&self) -> bool {
        true
    }
    fn save(&self) -> Saved {
        let pair = self.pair.lock();
        encode(VERSION, &State { master: pair.master.clone(), slave: pair.slave.clone() })
    }
    fn load(&self, state: &Saved) -> Result<(), LoadError> {
        let State { mut master, mut slave } = decode(state, VERSION)?;
        master.sanitize(true);
        slave.sanitize(false);
        self.with(|pair| {
            *pair = Pair { master, slave };
            ((), 0)
        });
        Ok(())
    }
}
