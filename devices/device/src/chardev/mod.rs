//! Character devices: a back end on the host (terminal, file, socket, ...) and a front end in the guest (UART, console port).

mod feed;
mod memory;
mod mux;
mod named;
mod outbox;
mod simple;
mod socket;
mod spec;
mod terminal;

pub use memory::MemoryChar;
pub use mux::{Mux, MuxKey, MuxPort};
pub use named::{ChardevEntry, Chardevs};
pub use simple::{FileChar, NullChar, PipeChar, PtyChar};
pub use socket::{SocketAddress, SocketChar, SocketOptions};
pub use spec::{ChardevSpec, open};
pub use terminal::StdioChar;

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

/// The guest side: receives input. Called from the back end's threads, or inside [`CharBackend::accept_input`]; never by two
/// threads at once.
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
    /// newest, except files and terminals, which are written through.
    fn write(&self, data: &[u8]);
    /// Connects the guest side (one at a time; the last one set receives).
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>);
    /// The front end has room again: delivers held input now. The caller must hold no lock that its `receive` takes.
    fn accept_input(&self);
    /// Is somebody at the other side? Changes are told by [`CharEvent::Opened`] and [`CharEvent::Closed`].
    fn connected(&self) -> bool {
        true
    }
    /// The guest sends a break; ignored by most.
    fn send_break(&self) {}
    /// For `info chardev` and messages: like `stdio`, `pty:/dev/pts/3`.
    fn description(&self) -> String;
}
