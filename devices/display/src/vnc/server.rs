//! The listening end, and the clients.

use super::{VncAddress, VncOptions};
use crate::Console;
use rhea_pc::InputHub;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

/// A VNC server of one display.
pub struct VncServer {
    address: String,
}

impl VncServer {
    /// Listens.
    ///
    /// # Errors
    /// The host's error.
    pub fn start(
        options: &VncOptions,
        _console: &Arc<Console>,
        _input: &Arc<InputHub>,
        _name: &str,
    ) -> Result<Arc<Self>> {
        let _ = VncAddress::Unix;
        let _ = options;
        Err(Error::from(ErrorKind::Unsupported))
    }
    /// The text of `info vnc`.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("Server: {}\n", self.address)
    }
}
