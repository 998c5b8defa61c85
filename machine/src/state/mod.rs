//! The state of a whole machine: saved, restored, moved to another process.

mod background;
mod disks;
mod machine;
mod migrate;
mod multifd;
mod pace;
mod postcopy;
mod ram;
mod snapshots;
mod stream;
mod throttle;

pub use background::check_background_host;
pub use machine::{Life, Rest};
pub use migrate::{Channel, Migration, MigrationParameters, MigrationStatus, Progress, Source};
pub use multifd::{Accepting, Dial};
pub use postcopy::check_postcopy_host;
pub use snapshots::SnapshotNodes;
pub use stream::StateError;
pub use throttle::ThrottleParameters;
