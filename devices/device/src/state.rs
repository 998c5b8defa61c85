//! The device lifecycle and saved state.

use thiserror::Error;

/// What a device answers to `save`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The device holds no guest-visible state.
    Nothing,
    /// The device cannot be saved; the text says why, and stops a migration.
    NotMigratable(&'static str),
    /// Encoded state (minicbor of the device's versioned state struct).
    Bytes { version: u32, data: Vec<u8> },
}

/// Why saved state cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("state version {found} is newer than {newest}")]
    Version { found: u32, newest: u32 },
    #[error("state is damaged: {0}")]
    Damaged(String),
    #[error("state does not fit this device: {0}")]
    Mismatch(String),
}

/// A unit of the machine. All methods may be called from any thread; vCPUs are paused during `reset`, `save` and `load`.
pub trait Device: Send + Sync {
    /// The device's name in `info` and saved state: unique in a machine, like `pl011@9000000`.
    fn name(&self) -> &str;
    /// Power-on state; lowers the device's lines.
    fn reset(&self);
    /// Power comes back after suspend to RAM: the power-on state, but for what was supplied all the time.
    fn wake(&self) {
        self.reset();
    }
    fn save(&self) -> Saved;
    /// # Errors
    /// [`LoadError`]; the device is then in an undefined state and the machine is not started.
    fn load(&self, state: &Saved) -> Result<(), LoadError>;
    /// The machine ends, or the device leaves it: gives back what it has of the host, in bounded time. Nothing else follows.
    fn release(&self) {
        self.quiesce();
    }
    /// Stops own activity (threads, DMA) and returns when all is at rest; `resume` undoes it.
    fn quiesce(&self) {}
    fn resume(&self) {}
}

/// Encodes a versioned state struct.
pub fn encode<T: minicbor::Encode<()>>(version: u32, state: &T) -> Saved {
    match minicbor::to_vec(state) {
        Ok(data) => Saved::Bytes { version, data },
        // Encoding into a Vec fails only if a field's encoder says so; none of ours does.
        Err(_) => Saved::NotMigratable("the state could not be encoded"),
    }
}

/// Decodes what [`encode`] made, at most of version `newest`.
///
/// # Errors
/// [`LoadError`].
pub fn decode<T: for<'b> minicbor::Decode<'b, ()>>(saved: &Saved, newest: u32) -> Result<T, LoadError> {
    match saved {
        Saved::Bytes { version, data } if *version <= newest => {
            minicbor::decode(data).map_err(|e| LoadError::Damaged(e.to_string()))
        }
        Saved::Bytes { version, .. } => Err(LoadError::Version { found: *version, newest }),
        Saved::Nothing | Saved::NotMigratable(_) => Err(LoadError::Mismatch("no state was saved".to_owned())),
    }
}
