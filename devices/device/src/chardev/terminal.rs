//! The emulator's own standard input and output.

use super::feed::Feed;
use super::simple::start_reader;
use super::{CharBackend, CharFrontend};
use parking_lot::Mutex;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use std::io::{Result, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Standard input and output; a terminal is put in raw mode until [`Self::restore`] or drop.
pub struct StdioChar {
    feed: Arc<Feed>,
    saved: Mutex<Option<Termios>>,
    _reader: OwnedFd,
}

impl StdioChar {
    /// `signals`: Ctrl-C and the like still act on the emulator; otherwise the guest gets them.
    ///
    /// # Errors
    /// The host's error.
    pub fn new(signals: bool) -> Result<Arc<Self>> {
        let feed = Arc::new(Feed::default());
        let mut saved = None;
        if let Ok(termios) = tcgetattr(rustix::stdio::stdin()) {
            let mut raw = termios.clone();
            raw.input_modes &= !(InputModes::IGNBRK
                | InputModes::BRKINT
                | InputModes::PARMRK
                | InputModes::ISTRIP
                | InputModes::INLCR
                | InputModes::IGNCR
                | InputModes::ICRNL
                | InputModes::IXON);
            raw.output_modes |= OutputModes::OPOST;
            raw.local_modes &= !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN);
            if !signals {
                raw.local_modes &= !LocalModes::ISIG;
            }
            raw.special_codes[SpecialCodeIndex::VMIN] = 1;
            raw.special_codes[SpecialCodeIndex::VTIME] = 0;
            // In the background the terminal is somebody else's: run without raw mode.
            if tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).is_ok() {
                saved = Some(termios);
            }
        }
        // Not through the library's buffer, which poll does not see.
        let input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let reader = start_reader(input, feed.clone())?;
        Ok(Arc::new(Self { feed, saved: Mutex::new(saved), _reader: reader }))
    }
    /// Puts the terminal back as it was; to be called before the process exits.
    pub fn restore(&self) {
        if let Some(termios) = self.saved.lock().take() {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &termios);
        }
    }
}

impl CharBackend for StdioChar {
    fn write(&self, data: &[u8]) {
        let mut out = std::io::stdout().lock();
        // Nobody reads: the guest goes on.
        let _ = out.write_all(data).and_then(|()| out.flush());
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        self.feed.set_frontend(frontend);
    }
    fn accept_input(&self) {
        self.feed.drain();
    }
    fn description(&self) -> String {
        "stdio".to_owned()
    }
}

impl Drop for StdioChar {
    fn drop(&mut self) {
        self.restore();
        self.feed.close();
    }
}
