//! Saved state.

use super::Xics;
use super::icp::Word;
use minicbor::{Decode, Encode};
use rhea_device::LoadError;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct IcpState {
    #[n(0)]
    cppr: u8,
    #[n(1)]
    xisr: u32,
    #[n(2)]
    mfrr: u8,
    #[n(3)]
    pending: u8,
}

/// Presentation controllers by server, and sources that exist with their words.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct XicsState {
    #[n(0)]
    servers: Vec<(u32, IcpState)>,
    #[n(1)]
    sources: Vec<(u32, u64)>,
}

impl Xics {
    #[must_use]
    pub fn save(&self) -> XicsState {
        let icp = |(n, i): (usize, &Option<super::Icp>)| {
            let w = i.as_ref()?.load();
            Some((n as u32, IcpState { cppr: w.cppr, xisr: w.xisr, mfrr: w.mfrr, pending: w.pending }))
        };
        XicsState {
            servers: self.servers.iter().enumerate().filter_map(icp).collect(),
            sources: (self.base..).zip(&self.sources).filter(|(_, s)| s.exists()).map(|(n, s)| (n, s.raw())).collect(),
        }
    }
    /// # Errors
    /// Servers or sources that are not there.
    pub fn load(&self, state: XicsState) -> Result<(), LoadError> {
        let XicsState { servers, sources } = state;
        self.reset(false);
        for s in &self.sources {
            s.free();
        }
        for (n, word) in sources {
            let s = self.any_source(n).ok_or_else(|| LoadError::Mismatch(format!("interrupt source {n:#x}")))?;
            s.set_raw(word);
        }
        for (n, IcpState { cppr, xisr, mfrr, pending }) in servers {
            let icp = self.icp(n).ok_or_else(|| LoadError::Mismatch(format!("interrupt server {n}")))?;
            icp.store(Word { cppr, xisr: xisr & 0xff_ffff, mfrr, pending, ..icp.load() });
            icp.drive();
        }
        // The lists of who waits are not saved: everything is tried again.
        for (s, n) in self.sources.iter().zip(self.base..) {
            self.retry(n, s);
        }
        Ok(())
    }
}
