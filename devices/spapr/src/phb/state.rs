//! Reset and saved state.

use super::{DMA_SIZE, Phb, msi::Given};
use crate::tce::TceTable;
use minicbor::{Decode, Encode};
use rhea_device::state::{decode, encode};
use rhea_device::{Device, LoadError, Saved};

const VERSION: u32 = 1;
/// Entries a saved window can have at most.
const MAX_ENTRIES: u64 = 1 << 22;

#[derive(Encode, Decode)]
struct WindowState {
    #[n(0)]
    liobn: u32,
    #[n(1)]
    base: u64,
    #[n(2)]
    page_shift: u32,
    #[n(3)]
    size: u64,
    #[n(4)]
    tces: Vec<(u32, u64)>,
}

#[derive(Encode, Decode)]
struct State {
    #[n(0)]
    windows: Vec<WindowState>,
    #[n(1)]
    messages: Vec<(u32, Given)>,
}

/// The bridge's own state; functions on its bus are devices of their own.
impl Device for Phb {
    fn name(&self) -> &str {
        &self.name
    }
    fn reset(&self) {
        self.give_back_all();
        let windows = self.windows.windows();
        if windows.len() == 1
            && windows[0].base() == 0
            && windows[0].size() == DMA_SIZE
            && windows[0].page_shift() == 12
        {
            windows[0].clear();
        } else {
            self.default_window();
        }
    }
    fn save(&self) -> Saved {
        let windows = self.windows.windows();
        let window = |w: &std::sync::Arc<TceTable>| WindowState {
            liobn: w.liobn(),
            base: w.base(),
            page_shift: w.page_shift(),
            size: w.size(),
            tces: w.save(),
        };
        let messages = self.messages.0.lock().iter().map(|(a, g)| (*a, *g)).collect();
        encode(VERSION, &State { windows: windows.iter().map(window).collect(), messages })
    }
    fn load(&self, saved: &Saved) -> Result<(), LoadError> {
        let State { windows, messages } = decode(saved, VERSION)?;
        for w in &windows {
            let sound = (12..=34).contains(&w.page_shift) && w.size >> w.page_shift <= MAX_ENTRIES;
            if !sound || w.liobn & !0xff != self.liobn(0) & !0xff {
                return Err(LoadError::Damaged(format!("DMA window {:#x}", w.liobn)));
            }
            if w.tces.iter().any(|(n, _)| u64::from(*n) >= w.size >> w.page_shift) {
                return Err(LoadError::Mismatch(format!("size of DMA window {:#x}", w.liobn)));
            }
        }
        let _one = self.changing.lock();
        for old in self.windows.windows().iter() {
            self.tces.remove(old.liobn());
        }
        let mut list = Vec::new();
        for w in windows {
            let table = self.tces.make(w.liobn, w.base, w.page_shift, w.size >> w.page_shift);
            table.load(&w.tces)?;
            list.push(table);
        }
        self.windows.set(list);
        // The numbers themselves are in the interrupt controller's state.
        *self.messages.0.lock() = messages.into_iter().collect();
        Ok(())
    }
}
