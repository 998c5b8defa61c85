//! VNC: the RFB protocol (RFC 6143). An implementation of its own, since no crate in use offers a server without an
//! asynchronous runtime.

mod options;

pub use options::{SharePolicy, VncAddress, VncOptions, help};
mod server;
pub use server::VncServer;
