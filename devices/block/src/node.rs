//! A node of the block graph.

use crate::dirty::{DirtyBitmaps, Recorded};
use crate::nbd::NbdClient;
use crate::qcow2::Qcow2;
use crate::vmdk::Vmdk;
use crate::vpc::Vpc;
use crate::{BlockBackend, DetectZeroes, FileNode, NullBackend, RawNode};
use parking_lot::RwLock;
use std::sync::Arc;

/// What a node is.
#[derive(Clone)]
pub enum Kind {
    File(Arc<FileNode>),
    Raw(Arc<RawNode>),
    Qcow2(Arc<Qcow2>),
    Vmdk(Arc<Vmdk>),
    Vpc(Arc<Vpc>),
    Nbd(Arc<NbdClient>),
    Null(Arc<NullBackend>),
}

/// A node of the graph.
pub struct Node {
    name: String,
    driver: &'static str,
    filename: String,
    kind: Kind,
    /// What everybody reads and writes.
    recorded: Arc<Recorded>,
    children: RwLock<Vec<(String, Arc<Node>)>>,
    inline: bool,
    settings: RwLock<NodeSettings>,
}

/// What every node can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    pub readonly: bool,
    pub direct: bool,
    pub no_flush: bool,
    pub discard: bool,
    pub detect_zeroes: DetectZeroes,
}

/// What opening an image gives.
pub(crate) struct Parts {
    pub(crate) driver: &'static str,
    pub(crate) filename: String,
    pub(crate) kind: Kind,
    pub(crate) children: Vec<(String, Arc<Node>)>,
}

impl Node {
    pub(crate) fn new(name: String, parts: Parts, inline: bool, settings: NodeSettings) -> Self {
        let Parts { driver, filename, kind, children } = parts;
        let below: Arc<dyn BlockBackend> = match &kind {
            Kind::File(b) => b.clone(),
            Kind::Raw(b) => b.clone(),
            Kind::Qcow2(b) => b.clone(),
            Kind::Vmdk(b) => b.clone(),
            Kind::Vpc(b) => b.clone(),
            Kind::Nbd(b) => b.clone(),
            Kind::Null(b) => b.clone(),
        };
        let recorded = Arc::new(Recorded { below, bitmaps: DirtyBitmaps::default() });
        let (children, settings) = (RwLock::new(children), RwLock::new(settings));
        Self { name, driver, filename, kind, recorded, children, inline, settings }
    }
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    #[must_use]
    pub fn driver(&self) -> &'static str {
        self.driver
    }
    /// The name of the image, as it can be given again.
    #[must_use]
    pub fn filename(&self) -> &str {
        &self.filename
    }
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }
    /// What is below, by role: `file`, `backing`, `data-file`, `extents.0` and so on.
    #[must_use]
    pub fn children(&self) -> Vec<(String, Arc<Self>)> {
        self.children.read().clone()
    }
    #[must_use]
    pub fn child(&self, role: &str) -> Option<Arc<Self>> {
        self.children.read().iter().find(|(r, _)| r == role).map(|(_, n)| n.clone())
    }
    #[must_use]
    pub fn settings(&self) -> NodeSettings {
        *self.settings.read()
    }
    /// It was described with the node above it, and goes with that.
    pub(crate) fn is_inline(&self) -> bool {
        self.inline
    }
    #[must_use]
    pub fn backend(&self) -> Arc<dyn BlockBackend> {
        self.recorded.clone()
    }
    /// Does anybody read or write it, other than by the node?
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.recorded) > 1 || Arc::strong_count(&self.recorded.below) > 2
    }
    /// The bitmaps that follow what changes.
    #[must_use]
    pub fn dirty_bitmaps(&self) -> &DirtyBitmaps {
        &self.recorded.bitmaps
    }
    #[must_use]
    pub fn qcow2(&self) -> Option<&Arc<Qcow2>> {
        match &self.kind {
            Kind::Qcow2(q) => Some(q),
            _ => None,
        }
    }
    /// Is `other` this node or below it?
    #[must_use]
    pub fn contains(&self, other: &str) -> bool {
        self.name == other || self.children.read().iter().any(|(_, c)| c.contains(other))
    }
    /// Does this node write to the node called `name`?
    pub(crate) fn writes(&self, name: &str) -> bool {
        !self.settings().readonly && self.children.read().iter().any(|(role, c)| role != "backing" && c.name == name)
    }

    /// Puts another image below this one, or none. The content must be the same, or nobody may have looked yet.
    ///
    /// # Errors
    /// Images of this format have none.
    pub fn set_backing(&self, backing: Option<Arc<Self>>) -> Result<(), String> {
        let Kind::Qcow2(image) = &self.kind else {
            return Err(format!("node '{}': images of format '{}' have no backing file", self.name, self.driver));
        };
        image.set_backing(backing.as_ref().map(|b| b.backend()));
        let mut children = self.children.write();
        children.retain(|(role, _)| role != "backing");
        children.extend(backing.map(|b| ("backing".to_owned(), b)));
        Ok(())
    }

    /// Gives what is written of this node (not of those below) into the hands of another process.
    pub(crate) fn give(&self) -> Result<(), String> {
        match &self.kind {
            Kind::File(file) => file.give(),
            Kind::Qcow2(image) => {
                image.hand_over().map_err(|e| format!("'{}': {}", self.filename, crate::error_text(&e)))
            }
            _ => self.backend().flush().map_err(|e| format!("'{}': {}", self.filename, crate::error_text(&e))),
        }
    }
    /// Takes this node back; those below are there.
    pub(crate) fn take(&self) -> Result<(), String> {
        match &self.kind {
            Kind::File(file) => file.take(),
            Kind::Qcow2(image) => image.take_over().map_err(|e| format!("'{}': {e}", self.filename)),
            Kind::Raw(image) => image.measure_again().map_err(|e| format!("'{}': {e}", self.filename)),
            _ => Ok(()),
        }
    }

    /// Opens the image and what it is in again, for reading only or for writing too. Nobody may be writing.
    ///
    /// # Errors
    /// One line: it cannot be written, or somebody else uses it; it stays as it was.
    pub fn set_readonly(&self, readonly: bool) -> Result<(), String> {
        if self.settings().readonly == readonly {
            return Ok(());
        }
        let fail = |e: std::io::Error| format!("node '{}': {}", self.name, crate::error_text(&e));
        let parts = || self.children().into_iter().filter(|(role, _)| role != "backing").map(|(_, child)| child);
        match &self.kind {
            Kind::File(file) => file.set_readonly(readonly)?,
            Kind::Raw(_) | Kind::Null(_) => parts().try_for_each(|part| part.set_readonly(readonly))?,
            Kind::Qcow2(image) if readonly => {
                image.set_readonly(true).map_err(fail)?;
                parts().try_for_each(|part| part.set_readonly(true))?;
            }
            Kind::Qcow2(image) => {
                let opened = parts().try_for_each(|part| part.set_readonly(false));
                if let Err(e) = opened.and_then(|()| image.set_readonly(false).map_err(fail)) {
                    // What was opened for writing in vain is a matter of locks only.
                    let _ = parts().try_for_each(|part| part.set_readonly(true));
                    return Err(e);
                }
            }
            Kind::Vmdk(_) | Kind::Vpc(_) | Kind::Nbd(_) => {
                return Err(format!("node '{}': '{}' cannot be opened again for writing", self.name, self.driver));
            }
        }
        self.settings.write().readonly = readonly;
        Ok(())
    }
}
