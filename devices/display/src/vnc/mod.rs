//! VNC: the RFB protocol (RFC 6143). An implementation of its own, since no crate in use offers a server without an
//! asynchronous runtime.
//!
//! Each client has a thread, which sleeps until the client says something or the picture changes. It writes an update as a whole
//! before it listens again: a slow client holds one update and nobody else.

mod auth;
mod encode;
mod keysym;
mod options;
mod pixel;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use options::{SharePolicy, VncAddress, VncOptions, help};
pub use server::{VncEvent, VncServer};
