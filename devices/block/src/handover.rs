//! Images that pass from one process to another while a machine moves: never do two write them.

use crate::Node;
use std::sync::Arc;

/// Nodes that are written, those below others before them, each once.
fn written(node: &Arc<Node>, all: &mut Vec<Arc<Node>>) {
    node.children().iter().for_each(|(_, below)| written(below, all));
    if !node.settings().readonly && !all.iter().any(|n| Arc::ptr_eq(n, node)) {
        all.push(node.clone());
    }
}

fn all(roots: &[Arc<Node>]) -> Vec<Arc<Node>> {
    let mut all = Vec::new();
    roots.iter().for_each(|root| written(root, &mut all));
    all
}

/// Puts everything that is written below `roots` on stable storage and gives up its locks; from then on writes fail.
/// No request runs.
///
/// # Errors
/// One line; all is as it was.
pub fn give(roots: &[Arc<Node>]) -> Result<(), String> {
    let all = all(roots);
    for (n, node) in all.iter().enumerate().rev() {
        if let Err(e) = node.give() {
            // What was given a moment ago nobody has taken.
            all[n..].iter().try_for_each(|node| node.take())?;
            return Err(e);
        }
    }
    Ok(())
}

/// Takes everything that is written below `roots`, with what another process has made of it. No request runs.
///
/// # Errors
/// One line: another process has it, or left it damaged; nothing is taken.
pub fn take(roots: &[Arc<Node>]) -> Result<(), String> {
    let all = all(roots);
    for (n, node) in all.iter().enumerate() {
        if let Err(e) = node.take() {
            for taken in all[..n].iter().rev() {
                // Nothing was written to it.
                let _ = taken.give();
            }
            return Err(e);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ImageOptions, create};
    use crate::{BlockGraph, Inherit, NodeOptions};
    use std::path::Path;

    fn open(image: &Path, away: bool) -> Arc<Node> {
        let graph = BlockGraph::new();
        graph.set_away(away);
        graph.open_file(image.to_str().unwrap(), NodeOptions::default(), &Inherit::default()).unwrap()
    }
    fn read(node: &Node, at: u64) -> [u8; 4] {
        let mut data = [0; 4];
        node.backend().read_bytes(at, &mut data).unwrap();
        data
    }

    /// Two users of an image write it by turns, and each sees what the other wrote.
    fn by_turns(image: &Path) {
        let mut here = open(image, false);
        let mut there = open(image, true);
        for turn in 0..4u32 {
            let own = std::slice::from_ref(&here);
            assert!(there.backend().write_bytes(0, b"no").is_err());
            assert!(take(std::slice::from_ref(&there)).unwrap_err().contains("another process is using this image"));
            here.backend().write_bytes(u64::from(turn) << 20, &turn.to_le_bytes()).unwrap();
            give(own).unwrap();
            give(own).unwrap();
            assert!(here.backend().write_bytes(0, b"no").is_err());
            here.backend().flush().unwrap();
            // Back and forth, as when a machine does not move after all.
            take(own).unwrap();
            here.backend().write_bytes((u64::from(turn) << 20) + 8, &turn.to_be_bytes()).unwrap();
            give(own).unwrap();
            take(std::slice::from_ref(&there)).unwrap();
            for old in 0..=turn {
                assert_eq!(read(&there, u64::from(old) << 20), old.to_le_bytes());
                assert_eq!(read(&there, (u64::from(old) << 20) + 8), old.to_be_bytes());
            }
            std::mem::swap(&mut here, &mut there);
        }
        // What another has is not written at its end.
        drop(there);
        here.backend().close().unwrap();
    }

    #[test]
    fn images_are_written_by_turns() {
        let folder = std::env::temp_dir().join(format!("rhea-handover-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let options = ["size=8M", "size=8M,lazy_refcounts=on,backing_file=0.qcow2,backing_fmt=qcow2"];
        for (n, text) in options.into_iter().enumerate() {
            let image = folder.join(format!("{n}.qcow2"));
            let options = ImageOptions::parse("qcow2", NodeOptions::parse(text).unwrap()).unwrap();
            create(&image, &options).unwrap();
            by_turns(&image);
        }
        let raw = folder.join("raw");
        std::fs::File::create(&raw).and_then(|f| f.set_len(8 << 20)).unwrap();
        by_turns(&raw);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
