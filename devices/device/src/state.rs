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
    /// Is it a collector of lines (an interrupt controller)? Its state is loaded when all whose lines end in it have theirs.
    fn collects(&self) -> bool {
        false
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

    // ---- while the machine is moved to another process; all but `moving_data` are called once, whatever comes of it ----

    /// Why the machine can neither be saved nor moved as long as it has this device; asked before anything begins.
    fn blocker(&self) -> Option<String> {
        None
    }
    /// A move begins, with the guest running: from now on the device reports to the dirty log (client `Migration`) what it writes.
    ///
    /// # Errors
    /// Why it cannot; the move does not take place.
    fn moving(&self) -> Result<(), String> {
        Ok(())
    }
    /// Data that can be moved while the guest runs, about `most` bytes; nothing: there is none at the moment. Called again and again.
    ///
    /// # Errors
    /// Why not; the move fails.
    fn moving_data(&self, _most: usize) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
    /// The move is over: it was completed, failed or was given up. (Between these, `quiesce` and `save` stand for the end of the
    /// guest's run here.)
    fn moved(&self) {}
    /// The other end of [`Self::moving_data`].
    ///
    /// # Errors
    /// As of [`Self::load`].
    fn take_data(&self, _data: &[u8]) -> Result<(), LoadError> {
        Err(LoadError::Mismatch("this device has no data that comes before its state".to_owned()))
    }
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
            minicbor::decode(data).map_err(|e| LoadError::Damaged(field_error(data, &e)))
        }
        Saved::Bytes { version, .. } => Err(LoadError::Version { found: *version, newest }),
        Saved::Nothing | Saved::NotMigratable(_) => Err(LoadError::Mismatch("no state was saved".to_owned())),
    }
}

/// An error with the number of the field it is in, among those of the state struct.
#[must_use]
pub fn field_error(data: &[u8], error: &minicbor::decode::Error) -> String {
    let mut decoder = minicbor::Decoder::new(data);
    let Ok(Some(fields)) = decoder.array() else { return error.to_string() };
    for field in 0..fields {
        let start = decoder.position();
        let whole = decoder.skip().is_ok();
        let here = error.position().is_none_or(|at| at < decoder.position() || at <= start);
        if !whole || here && error.position().is_some() {
            return format!("field {field}: {error}");
        }
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field() {
        let good = encode(1, &(1u8, "text", 3u64));
        let Saved::Bytes { data, .. } = &good else { panic!() };
        assert!(decode::<(u8, String, u64)>(&good, 1).is_ok());
        let wrong = decode::<(u8, u8, u64)>(&good, 1).unwrap_err().to_string();
        assert!(wrong.contains("field 1: "), "{wrong}");
        let cut = Saved::Bytes { version: 1, data: data[..data.len() - 1].to_vec() };
        let cut = decode::<(u8, String, u64)>(&cut, 1).unwrap_err().to_string();
        assert!(cut.contains("field 2: ") || cut.contains("field 1: "), "{cut}");
        assert!(matches!(decode::<u8>(&encode(2, &1u8), 1), Err(LoadError::Version { found: 2, newest: 1 })));
    }
}
