//! The disks of a machine that moves: the process that runs it has them.

use super::stream::{Result, StateError};
use crate::machine::Machine;
use rhea_block::{Node, handover};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The other process may take this long to close what it has opened.
const PATIENCE: Duration = Duration::from_secs(5);

impl Machine {
    /// Can the disks be used by another process when the machine is there?
    ///
    /// # Errors
    /// [`StateError::Blocked`]: a disk is only here.
    pub(super) fn check_moved_disks(&self) -> Result<()> {
        for drive in self.inventory().drives().iter().filter(|d| !d.readonly()) {
            let why = match drive.node() {
                Some(_) if drive.is_temporary() => "what is written with 'snapshot=on' is only here",
                None => "it is no image that another process could open",
                Some(_) => continue,
            };
            return Err(StateError::Blocked(format!("drive '{}': {why}", drive.id())));
        }
        Ok(())
    }
    fn disk_nodes(&self) -> Vec<Arc<Node>> {
        let of_drives = self.inventory().drives().into_iter().filter_map(|d| d.node());
        of_drives.chain(self.block_nodes()).collect()
    }
    fn set_disks_away(&self, away: bool) {
        self.disks_away.store(away, Ordering::SeqCst);
        if let Ok(graph) = self.block_graph() {
            graph.set_away(away);
        }
    }
    /// Lets go of the images of all disks, which hold all that was written; devices are at rest.
    ///
    /// # Errors
    /// [`StateError`]: the host's; all is as it was.
    pub(super) fn give_disks(&self) -> Result<()> {
        if !self.disks_away.load(Ordering::SeqCst) {
            handover::give(&self.disk_nodes()).map_err(StateError::Other)?;
            self.set_disks_away(true);
        }
        Ok(())
    }
    /// Takes the images of all disks as they are now, if they are not here; devices are at rest.
    ///
    /// # Errors
    /// [`StateError`]: another process has them, or has left them damaged.
    pub fn take_disks(&self) -> Result<()> {
        if !self.disks_away.load(Ordering::SeqCst) {
            return Ok(());
        }
        handover::take(&self.disk_nodes()).map_err(StateError::Other)?;
        self.set_disks_away(false);
        Ok(())
    }
    /// The same when the other process has failed, and may have to end first.
    pub(super) fn take_disks_back(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            match self.take_disks() {
                Err(_) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
                done => return done,
            }
        }
    }
}
