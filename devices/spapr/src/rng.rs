//! Random numbers by H_RANDOM (LoPAPR 14.17).

use crate::Node;
use crate::papr::{Args, Hypercalls, Status, hcall as h};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// `spapr-rng`.
pub struct Rng {
    source: Mutex<Box<dyn Read + Send>>,
}

impl Rng {
    /// Numbers from `path` (`rng=`), or from the host's generator.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(path: Option<&Path>) -> io::Result<Arc<Self>> {
        Ok(Self::from_source(Box::new(File::open(path.unwrap_or(Path::new("/dev/urandom")))?)))
    }
    #[must_use]
    pub fn from_source(source: Box<dyn Read + Send>) -> Arc<Self> {
        Arc::new(Self { source: Mutex::new(source) })
    }
    /// The node `/ibm,platform-facilities`, with the generator in it.
    #[must_use]
    pub fn tree(&self) -> Node {
        Node::new("ibm,platform-facilities")
            .text("device_type", "ibm,platform-facilities")
            .cell("#address-cells", 1)
            .cell("#size-cells", 0)
            .child(
                Node::new("ibm,random-v1@0")
                    .text("device_type", "ibm,random-v1")
                    .text("compatible", "ibm,random")
                    .cell("reg", 0),
            )
    }
}

impl Hypercalls for Rng {
    fn hcall(&self, _server: u32, number: u64, _args: &Args, out: &mut Args) -> Option<Status> {
        if number != h::H_RANDOM {
            return None;
        }
        let mut bytes = [0; 8];
        Some(match self.source.lock().read_exact(&mut bytes) {
            Ok(()) => {
                out[0] = u64::from_be_bytes(bytes);
                Status::SUCCESS
            }
            Err(_) => Status::HARDWARE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random() {
        let rng = Rng::from_source(Box::new(&[1u8, 2, 3, 4, 5, 6, 7, 8, 9][..]));
        let mut out = [0; 9];
        assert_eq!(rng.hcall(0, h::H_RANDOM, &[0; 9], &mut out), Some(Status::SUCCESS));
        assert_eq!(out[0], 0x0102_0304_0506_0708);
        assert_eq!(rng.hcall(0, h::H_RANDOM, &[0; 9], &mut out), Some(Status::HARDWARE));
        assert_eq!(rng.hcall(0, h::H_EOI, &[0; 9], &mut out), None);
    }
}
