//! The device tree as the client interface walks it: nodes with handles.

use minicbor::{Decode, Encode};
use rhea_firmware::FdtNode;
use std::collections::BTreeMap;

/// A node.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Package {
    /// With unit address; empty for the root.
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub parent: Option<u32>,
    #[n(2)]
    pub children: Vec<u32>,
    #[n(3)]
    pub properties: Vec<(String, Vec<u8>)>,
}

impl Package {
    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }
}

/// The tree: nodes by phandle. Handles stay when the tree is built again.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Packages {
    #[n(0)]
    nodes: BTreeMap<u32, Package>,
    #[n(1)]
    root: u32,
    /// Handles that were given out, by path.
    #[n(2)]
    handles: BTreeMap<String, u32>,
    #[n(3)]
    next: u32,
    /// Bytes of names and values.
    #[n(4)]
    size: usize,
}

/// The guest may not make the tree larger than this.
const MAX_SIZE: usize = 4 << 20;
/// The first handle of a node without a phandle of its own.
const FIRST: u32 = 0x1000_0000;

impl Packages {
    /// Is every node in the tree, and the tree one? For saved state.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        const DEEPEST: usize = 64;
        let rooted = |handle: u32| {
            let mut at = handle;
            for _ in 0..DEEPEST {
                match self.nodes.get(&at).map(|n| n.parent) {
                    Some(None) => return at == self.root,
                    Some(Some(parent)) => at = parent,
                    None => return false,
                }
            }
            false
        };
        let children =
            |h: &u32, n: &Package| n.children.iter().all(|c| self.nodes.get(c).is_some_and(|c| c.parent == Some(*h)));
        self.size <= MAX_SIZE && self.nodes.iter().all(|(h, n)| rooted(*h) && children(h, n))
    }
    /// Takes the nodes of `root` in place of those there were.
    pub fn load(&mut self, root: &FdtNode) {
        self.nodes.clear();
        self.size = 0;
        self.next = self.next.max(FIRST);
        self.root = self.add(root, None, "");
    }
    fn add(&mut self, node: &FdtNode, parent: Option<u32>, path: &str) -> u32 {
        let own = node.property("phandle").and_then(|v| v.try_into().ok()).map(u32::from_be_bytes);
        let handle = own.or_else(|| self.handles.get(path).copied()).unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.handles.insert(path.to_owned(), handle);
        let mut properties = node.properties.clone();
        if !properties.iter().any(|(n, _)| n == "name") {
            let base = node.name.split('@').next().unwrap_or("");
            properties.push(("name".to_owned(), [base.as_bytes(), &[0]].concat()));
        }
        if own.is_none() {
            properties.push(("phandle".to_owned(), handle.to_be_bytes().to_vec()));
        }
        self.size += properties.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
        let package = Package { name: node.name.clone(), parent, children: Vec::new(), properties };
        self.nodes.insert(handle, package);
        let children = node.children.iter().map(|c| self.add(c, Some(handle), &format!("{path}/{}", c.name)));
        let children: Vec<u32> = children.collect();
        if let Some(package) = self.nodes.get_mut(&handle) {
            package.children = children;
        }
        handle
    }
    #[cfg(test)]
    pub fn root(&self) -> u32 {
        self.root
    }
    pub fn get(&self, handle: u32) -> Option<&Package> {
        self.nodes.get(&handle)
    }
    /// The sibling that follows; of 0 the root.
    pub fn peer(&self, handle: u32) -> Option<u32> {
        if handle == 0 {
            return Some(self.root);
        }
        let parent = self.get(handle)?.parent?;
        let mut siblings = self.get(parent)?.children.iter();
        siblings.find(|c| **c == handle)?;
        siblings.next().copied()
    }
    /// The full path; `None` if there is no such node.
    pub fn path(&self, handle: u32) -> Option<String> {
        let mut node = self.get(handle)?;
        let mut parts = Vec::new();
        while let Some(parent) = node.parent {
            parts.push(node.name.as_str());
            node = self.get(parent)?;
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    }
    /// The node of a path: each part a full name, a name without address, or `@` and an address. Arguments after a colon do not count.
    pub fn find(&self, path: &str) -> Option<u32> {
        let path = path.strip_prefix('/')?;
        let mut handle = self.root;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let part = part.split(':').next().unwrap_or(part);
            let children = &self.get(handle)?.children;
            let matches = |name: &str| {
                let (base, unit) = name.split_once('@').unwrap_or((name, ""));
                name == part || base == part || part.strip_prefix('@') == Some(unit)
            };
            let exact = children.iter().find(|c| self.get(**c).is_some_and(|n| n.name == part));
            handle = *exact.or_else(|| children.iter().find(|c| self.get(**c).is_some_and(|n| matches(&n.name))))?;
        }
        Some(handle)
    }
    /// Sets a property; false if there is no such node or too much is set.
    pub fn set(&mut self, handle: u32, name: &str, value: Vec<u8>) -> bool {
        let Some(node) = self.nodes.get_mut(&handle) else { return false };
        let old = node.properties.iter_mut().find(|(n, _)| n == name);
        let before = old.as_ref().map_or(0, |(n, v)| n.len() + v.len());
        let size = self.size - before + name.len() + value.len();
        if size > MAX_SIZE {
            return false;
        }
        self.size = size;
        match old {
            Some((_, v)) => *v = value,
            None => node.properties.push((name.to_owned(), value)),
        }
        true
    }
}
