//! The control protocol (QMP): what its commands, events and types are, and sessions with those who use it.
//!
//! `schema/*.qmp` declares everything once. From the declaration come the checking of arguments, the answer of
//! `query-qmp-schema` and the page `docs/qmp.md`; what a command does is a function registered under its name.

mod check;
mod declaration;
mod error;
mod events;
mod introspect;
mod jobs;
mod json;
mod page;
mod sample;
mod server;
mod session;
mod transport;

pub use declaration::Schema;
pub use error::{Error, ErrorClass};
pub use events::Events;
pub use jobs::{Cancelled, Finish, Job, JobSettings, Jobs, Status, Work};
pub use json::Splitter;
pub use sample::Chance;
pub use serde_json::{Map, Value, json};
pub use server::{Call, Commands, Handler, Server};
pub use session::Fds;
pub use transport::{Address, Listener};

/// The version of the protocol that is spoken: what clients derive their expectations from.
pub const PROTOCOL: (u32, u32, u32) = (10, 0, 2);

/// The declaration of the protocol.
#[must_use]
pub fn schema() -> Schema {
    const TEXTS: &[(&str, &str)] = &[
        ("control.qmp", include_str!("../schema/control.qmp")),
        ("machine.qmp", include_str!("../schema/machine.qmp")),
        ("devices.qmp", include_str!("../schema/devices.qmp")),
        ("storage.qmp", include_str!("../schema/storage.qmp")),
        ("jobs.qmp", include_str!("../schema/jobs.qmp")),
        ("interface.qmp", include_str!("../schema/interface.qmp")),
    ];
    Schema::parse(TEXTS).unwrap_or_else(|e| panic!("the declaration of the protocol: {e}"))
}

/// The page that documents the protocol, as `docs/qmp.md` has it.
#[must_use]
pub fn documentation() -> String {
    page::write(&schema())
}
