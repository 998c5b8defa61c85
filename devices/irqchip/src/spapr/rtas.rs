//! The RTAS calls of XICS (LoPAPR 7.3.10.2).

use super::papr::{RtasCalls, rtas, rtas_return};
use super::{Mode, SpaprIrq};

impl RtasCalls for SpaprIrq {
    fn names(&self) -> &'static [&'static str] {
        &["ibm,set-xive", "ibm,get-xive", "ibm,int-off", "ibm,int-on"]
    }
    fn rtas(&self, name: &str, args: &[u32], results: &mut [u32]) -> bool {
        if !self.names().contains(&name) {
            return false;
        }
        if self.mode() != Mode::Xics {
            rtas_return(results, rtas::HARDWARE_ERROR, &[]);
            return true;
        }
        if self.core.active_kernel().is_some() {
            // The kernel does them; what it leaves is none of them.
            rtas_return(results, rtas::HARDWARE_ERROR, &[]);
            return true;
        }
        let xics = &self.core.xics;
        let done = match (name, args) {
            ("ibm,set-xive", &[irq, server, priority]) if !results.is_empty() => {
                u8::try_from(priority).ok().and_then(|p| xics.set_xive(irq, server, p).ok()).map(|()| None)
            }
            ("ibm,get-xive", &[irq]) if results.len() >= 3 => xics.get_xive(irq).ok().map(Some),
            ("ibm,int-off", &[irq]) => xics.int_off(irq).ok().map(|()| None),
            ("ibm,int-on", &[irq]) => xics.int_on(irq).ok().map(|()| None),
            _ => None,
        };
        match done {
            Some(Some((server, priority))) => rtas_return(results, rtas::SUCCESS, &[server, priority.into()]),
            Some(None) => rtas_return(results, rtas::SUCCESS, &[]),
            None => rtas_return(results, rtas::PARAMETER_ERROR, &[]),
        }
        true
    }
}
