//! Reset and saved state.

use super::{EDGE, LEVEL, Mode, NONE, SpaprIrq, XICS, XIVE};
use crate::xics::XicsState;
use crate::xive::XiveState;
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};
use std::sync::atomic::Ordering::SeqCst;

const VERSION: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct State {
    #[n(0)]
    xive_active: bool,
    /// Numbers in use: number, is it level-sensitive.
    #[n(1)]
    sources: Vec<(u32, bool)>,
    #[n(2)]
    xics: Option<XicsState>,
    #[n(3)]
    xive: Option<XiveState>,
}

impl SpaprIrq {
    /// The initial controller, reset; levels stay what the lines say, messages that were pending are forgotten. The board's to call, after
    /// all devices were reset: a level that such a device takes back has left nothing in the new controller then.
    pub fn restart(&self) {
        let initial = self.mode.initial();
        if self.mode() == initial && self.core.active_kernel().is_none() {
            match initial {
                Mode::Xics => self.core.xics.reset(true),
                Mode::Xive => self.core.xive.reset(true, false),
            }
        } else {
            self.change(initial, false);
        }
    }
}

impl Device for SpaprIrq {
    fn name(&self) -> &str {
        &self.name
    }
    /// Nothing yet: [`SpaprIrq::restart`].
    fn reset(&self) {}
    fn collects(&self) -> bool {
        true
    }
    fn save(&self) -> Saved {
        if self.core.active_kernel().is_some() {
            return Saved::NotMigratable("interrupt controllers in the kernel");
        }
        let kinds = (0u32..).zip(&self.core.kinds).map(|(n, k)| (n, k.load(SeqCst)));
        let active = self.mode();
        encode(
            VERSION,
            &State {
                xive_active: active == Mode::Xive,
                sources: kinds.filter(|(_, k)| *k != NONE).map(|(n, k)| (n, k == LEVEL)).collect(),
                xics: (active == Mode::Xics).then(|| self.core.xics.save()),
                xive: (active == Mode::Xive).then(|| self.core.xive.save()),
            },
        )
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { xive_active, sources, xics, xive } = decode(saved, VERSION)?;
        let mode = if xive_active { Mode::Xive } else { Mode::Xics };
        if !self.mode.offers(mode) {
            return Err(LoadError::Mismatch("the machine lacks the saved interrupt controller".to_owned()));
        }
        // Sources that a guest made (messages) come and go with it; those of devices are the same.
        for irq in super::MSI..super::TOTAL {
            self.free(irq);
        }
        for (irq, level) in sources {
            let kind = if level { LEVEL } else { EDGE };
            if self.core.kind(irq) != kind && self.claim(irq, level).is_err() {
                return Err(LoadError::Mismatch(format!("interrupt {irq:#x}")));
            }
        }
        if self.mode() != mode {
            self.change(mode, false);
        }
        match (self.core.active.load(SeqCst), xics, xive) {
            (XICS, Some(state), None) => self.core.xics.load(state),
            (XIVE, None, Some(state)) => self.core.xive.load(state),
            _ => Err(LoadError::Damaged("no state of the active interrupt controller".to_owned())),
        }
    }
}
