//! Character devices: a back end on the host (terminal, file, socket, ...) and a front end in the guest (UART, console port).

use std::sync::Arc;

/// What happens on a back end besides data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharEvent {
    /// A peer connected.
    Opened,
    /// The peer went away.
    Closed,
    /// A break was received.
    Break,
}

/// The guest side: receives input. Called from the back end's thread with no lock held.
pub trait CharFrontend: Send + Sync {
    /// How many bytes can be taken now. The back end asks again after [`CharBackend::accept_input`].
    fn can_receive(&self) -> usize;
    /// Input; never more than [`Self::can_receive`] said.
    fn receive(&self, data: &[u8]);
    fn event(&self, _event: CharEvent) {}
}

/// The host side.
pub trait CharBackend: Send + Sync {
    /// Writes output. Never blocks the guest for long: a back end whose peer is slow buffers up to 64 KiB and then drops the
    /// oldest, except files and terminals, which are written through.
    fn write(&self, data: &[u8]);
    /// Connects the guest side (one at a time; the last one set receives).
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>);
    /// The front end has room again: deliver held input now (may call `receive` on another thread).
    fn accept_input(&self);
    /// The guest sends a break, or changes line settings of a real port; ignored by most.
    fn send_break(&self) {}
    /// For `info chardev` and messages: like `stdio`, `pty:/dev/pts/3`.
    fn description(&self) -> String;
}
