//! Snapshots of the machine in the images of its disks: `savevm` and what goes with it.

use super::stream::{Result, StateError};
use crate::machine::{Machine, RunState};
use rhea_block::qcow2::{Qcow2, Snapshot, VmStateReader, VmStateWriter};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which images take part; by default all that are written to, and the first of them has the state.
#[derive(Clone, Debug, Default)]
pub struct SnapshotNodes {
    /// The node whose image has the machine's state.
    pub vmstate: Option<String>,
    /// All nodes that take part.
    pub devices: Option<Vec<String>>,
}

/// Images by the names of their nodes; which one has the state.
struct Images {
    all: Vec<(String, Arc<Qcow2>)>,
    state: usize,
}

fn other(text: impl Into<String>) -> StateError {
    StateError::Other(text.into())
}

impl Images {
    fn of_state(&self) -> &Arc<Qcow2> {
        &self.all[self.state].1
    }
    /// The snapshots that are in all images, with the machine's state.
    fn snapshots(&self) -> Vec<Snapshot> {
        let mut list = self.of_state().snapshots();
        list.retain(|s| s.vm_state_size > 0 && self.all.iter().all(|(_, q)| q.snapshot(&s.name).is_ok()));
        list
    }
    fn delete(&self, name: &str) -> Result<bool> {
        let mut found = false;
        for (node, image) in &self.all {
            if image.snapshot(name).is_ok() {
                let fail = |e| other(format!("Error while deleting snapshot on device '{node}': {e}"));
                image.delete_snapshot(name).map_err(fail)?;
                found = true;
            }
        }
        Ok(found)
    }
}

/// All of this is for the main loop's thread: the machine is stopped meanwhile.
impl Machine {
    fn images(&self, nodes: &SnapshotNodes) -> Result<Images> {
        let mut all: Vec<(String, Arc<Qcow2>)> = Vec::new();
        let nodes_by_name = self.block_nodes();
        let mut add = |name: &str, image: Option<Arc<Qcow2>>| match image {
            Some(image) => {
                if !all.iter().any(|(_, q)| Arc::ptr_eq(q, &image)) {
                    all.push((name.to_owned(), image));
                }
                Ok(())
            }
            None => Err(other(format!("Device '{name}' is writable but does not support snapshots"))),
        };
        match &nodes.devices {
            Some(names) => {
                for name in names {
                    let node = nodes_by_name.iter().find(|n| n.name() == name);
                    let node = node.ok_or_else(|| other(format!("No block device node '{name}'")))?;
                    add(name, node.qcow2().cloned())?;
                }
            }
            None => {
                for drive in self.inventory().drives().iter().filter(|d| !d.readonly()) {
                    add(drive.id(), drive.node().and_then(|n| n.qcow2().cloned()))?;
                }
            }
        }
        let state = match &nodes.vmstate {
            None => 0,
            Some(name) => {
                let image = nodes_by_name.iter().find(|n| n.name() == name).and_then(|n| n.qcow2().cloned());
                let image = image.ok_or_else(|| other(format!("vmstate block device '{name}' does not exist")))?;
                let place = all.iter().position(|(_, q)| Arc::ptr_eq(q, &image));
                place.ok_or_else(|| other(format!("vmstate block device '{name}' is not among the devices")))?
            }
        };
        if all.is_empty() {
            return Err(other("No block device can accept snapshots"));
        }
        Ok(Images { all, state })
    }
    /// The snapshots that can be loaded.
    ///
    /// # Errors
    /// [`StateError`]: a disk can have none.
    pub fn snapshots(&self, nodes: &SnapshotNodes) -> Result<Vec<Snapshot>> {
        Ok(self.images(nodes)?.snapshots())
    }
    /// Saves the machine as a snapshot; `overwrite`: in place of one of this name. The name, which may be made up.
    ///
    /// # Errors
    /// [`StateError`]; the machine is as it was.
    pub fn save_snapshot(&self, name: Option<&str>, overwrite: bool, nodes: &SnapshotNodes) -> Result<String> {
        self.check_blockers()?;
        let before = self.run_state();
        if let Some(why) = before.held() {
            return Err(other(why));
        }
        self.take_disks()?;
        let images = self.images(nodes)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = name.map_or_else(|| format!("vm-{}", now.as_secs()), str::to_owned);
        if name.is_empty() || name.len() > 255 {
            return Err(other("the name of a snapshot has 1 to 255 bytes"));
        }
        if !overwrite && images.all.iter().any(|(_, q)| q.snapshot(&name).is_ok()) {
            return Err(other(format!("Snapshot '{name}' already exists in one or more devices")));
        }
        self.stop(RunState::SaveVm);
        let clock = self.clock().now_ns();
        let saved = self.at_rest(|| {
            images.delete(&name)?;
            let mut writer = self.save_state(VmStateWriter::new(images.of_state())?, before.runs())?;
            std::io::Write::flush(&mut writer)?;
            for (n, (node, image)) in images.all.iter().enumerate() {
                let size = if n == images.state { writer.written() } else { 0 };
                let fail = |e| other(format!("Error while creating snapshot on '{node}': {e}"));
                image
                    .create_snapshot_with(&name, now.as_secs() as u32, now.subsec_nanos(), clock, size)
                    .map_err(fail)?;
            }
            Ok(())
        });
        if saved.is_err() {
            // Half a snapshot is none. Of a second error there is nothing more to say.
            let _ = images.delete(&name);
        }
        let dropped = images.of_state().drop_vm_state();
        self.go_on(before);
        saved?;
        dropped?;
        Ok(name)
    }
    /// Back to where the machine was.
    pub(super) fn go_on(&self, before: RunState) {
        if before.runs() {
            self.start();
        } else {
            self.set_run_state(before);
        }
    }
    /// Loads a snapshot, by id or name, into disks and machine, which runs on if it ran.
    ///
    /// # Errors
    /// [`StateError`]; the machine is as it was, or stands still until it is reset or another is loaded.
    pub fn load_snapshot(&self, which: &str, nodes: &SnapshotNodes) -> Result<()> {
        self.check_blockers()?;
        let before = self.run_state();
        if matches!(before, RunState::InMigrate | RunState::FinishMigrate) {
            return Err(other(before.held().unwrap_or_default()));
        }
        self.take_disks()?;
        let images = self.images(nodes)?;
        let missing = |node: &str| other(format!("Device '{node}' does not have the requested snapshot '{which}'"));
        for (node, image) in &images.all {
            image.snapshot(which).map_err(|_| missing(node))?;
        }
        let snapshot = images.of_state().snapshot(which)?;
        if snapshot.vm_state_size == 0 {
            return Err(other("This is a disk-only snapshot. Revert to it offline using qemu-img"));
        }
        self.stop(RunState::RestoreVm);
        let open = || Ok(VmStateReader::new(images.of_state(), which)?);
        let restored = self.restore_state(open, || {
            for (node, image) in &images.all {
                let fail = |e| other(format!("Error while applying snapshot on '{node}': {e}"));
                image.apply_snapshot(which).map_err(fail)?;
            }
            Ok(images.of_state().drop_vm_state()?)
        });
        match restored {
            Ok(_) if before.runs() => self.start(),
            Ok(_) => self.set_run_state(RunState::Paused),
            Err((e, false)) => {
                self.go_on(before);
                return Err(e);
            }
            Err((e, true)) => return Err(e),
        }
        Ok(())
    }
    /// Deletes a snapshot, by id or name.
    ///
    /// # Errors
    /// [`StateError`]: there is none, or the host's.
    pub fn delete_snapshot(&self, which: &str, nodes: &SnapshotNodes) -> Result<()> {
        let images = self.images(nodes)?;
        // An id is one image's own.
        let name = images.of_state().snapshot(which).map_or_else(|_| which.to_owned(), |s| s.name);
        match images.delete(&name)? {
            true => Ok(()),
            false => Err(other(format!("Snapshot '{which}' does not exist in one or more devices"))),
        }
    }
}
