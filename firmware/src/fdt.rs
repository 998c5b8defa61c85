//! The flattened device tree as a tree that can be built, changed, written and read (Devicetree Specification 0.4).

use std::collections::BTreeMap;
use thiserror::Error;
use vm_fdt::FdtWriter;

/// One node: properties and children in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdtNode {
    /// `name` or `name@unit-address`; empty for the root.
    pub name: String,
    pub properties: Vec<(String, Vec<u8>)>,
    pub children: Vec<FdtNode>,
}

/// What is wrong with a blob or a tree.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FdtError {
    #[error("not a device tree blob: the magic number d00dfeed is missing")]
    Magic,
    #[error("the device tree blob is truncated or its header is wrong")]
    Truncated,
    #[error("the device tree blob is damaged: {0}")]
    Damaged(&'static str),
    #[error("the device tree cannot be written: {0}")]
    Write(String),
}

/// Deeper trees are refused.
const MAX_DEPTH: usize = 64;
/// Longer names are refused; the specification allows 31 bytes.
const MAX_NAME: usize = 1024;

impl FdtNode {
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
    /// The raw value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }
    /// Sets a raw value.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) -> &mut Self {
        let value = value.into();
        match self.properties.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.properties.push((name.to_owned(), value)),
        }
        self
    }
    pub fn remove(&mut self, name: &str) {
        self.properties.retain(|(n, _)| n != name);
    }
    /// An empty property (a flag).
    pub fn flag(&mut self, name: &str) -> &mut Self {
        self.set(name, Vec::new())
    }
    pub fn string(&mut self, name: &str, value: &str) -> &mut Self {
        self.strings(name, &[value])
    }
    pub fn strings(&mut self, name: &str, values: &[&str]) -> &mut Self {
        let mut bytes = Vec::new();
        for v in values {
            bytes.extend_from_slice(v.as_bytes());
            bytes.push(0);
        }
        self.set(name, bytes)
    }
    pub fn u32(&mut self, name: &str, value: u32) -> &mut Self {
        self.cells(name, &[value])
    }
    pub fn cells(&mut self, name: &str, cells: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|c| c.to_be_bytes()).collect();
        self.set(name, bytes)
    }
    pub fn u64s(&mut self, name: &str, values: &[u64]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|c| c.to_be_bytes()).collect();
        self.set(name, bytes)
    }
    /// Adds a child and returns it.
    pub fn child(&mut self, name: impl Into<String>) -> &mut FdtNode {
        let index = self.children.len();
        self.children.push(FdtNode::new(name));
        &mut self.children[index]
    }
    /// The child of that full name, made at the end if it is missing.
    pub fn child_mut(&mut self, name: &str) -> &mut FdtNode {
        match self.children.iter().position(|c| c.name == name) {
            Some(i) => &mut self.children[i],
            None => self.child(name),
        }
    }
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&FdtNode> {
        self.children.iter().find(|c| c.name == name)
    }

    /// Writes the tree with this node as root.
    ///
    /// # Errors
    /// [`FdtError::Write`] for names the format does not allow.
    pub fn to_blob(&self) -> Result<Vec<u8>, FdtError> {
        fn write(node: &FdtNode, fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
            let this = fdt.begin_node(&node.name)?;
            for (name, value) in &node.properties {
                fdt.property(name, value)?;
            }
            for child in &node.children {
                write(child, fdt)?;
            }
            fdt.end_node(this)
        }
        let mut fdt = FdtWriter::new().map_err(|e| FdtError::Write(e.to_string()))?;
        write(self, &mut fdt).map_err(|e| FdtError::Write(e.to_string()))?;
        fdt.finish().map_err(|e| FdtError::Write(e.to_string()))
    }

    /// Writes the tree with this node as root, whatever the names: those of Open Firmware's trees are longer than the
    /// specification of flattened ones allows.
    #[must_use]
    pub fn flatten(&self) -> Vec<u8> {
        const HEADER: usize = 40;
        /// An empty list of reserved memory.
        const RESERVED: usize = 16;
        fn pad(data: &mut Vec<u8>) {
            data.resize(data.len().next_multiple_of(4), 0);
        }
        fn write(node: &FdtNode, structs: &mut Vec<u8>, strings: &mut Vec<u8>, places: &mut BTreeMap<String, u32>) {
            structs.extend(1u32.to_be_bytes());
            structs.extend(node.name.bytes().chain([0]));
            pad(structs);
            for (name, value) in &node.properties {
                let place = *places.entry(name.clone()).or_insert_with(|| {
                    let place = strings.len() as u32;
                    strings.extend(name.bytes().chain([0]));
                    place
                });
                for word in [3, value.len() as u32, place] {
                    structs.extend(word.to_be_bytes());
                }
                structs.extend(value);
                pad(structs);
            }
            for child in &node.children {
                write(child, structs, strings, places);
            }
            structs.extend(2u32.to_be_bytes());
        }
        let (mut structs, mut strings, mut places) = (Vec::new(), Vec::new(), BTreeMap::new());
        write(self, &mut structs, &mut strings, &mut places);
        structs.extend(9u32.to_be_bytes());
        let at_strings = HEADER + RESERVED + structs.len();
        let total = (at_strings + strings.len()).next_multiple_of(8);
        let mut blob = Vec::with_capacity(total);
        for word in [0xd00d_feed, total, HEADER + RESERVED, at_strings, HEADER, 17, 16, 0, strings.len(), structs.len()]
        {
            blob.extend((word as u32).to_be_bytes());
        }
        blob.extend([0; RESERVED]);
        blob.extend(structs);
        blob.extend(strings);
        blob.resize(total, 0);
        blob
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// [`FdtError`]; any input is handled.
    pub fn parse(blob: &[u8]) -> Result<Self, FdtError> {
        let word = |at: usize| -> Result<u32, FdtError> {
            let bytes = at.checked_add(4).and_then(|end| blob.get(at..end)).ok_or(FdtError::Truncated)?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        if word(0)? != 0xd00d_feed {
            return Err(FdtError::Magic);
        }
        let total = word(4)? as usize;
        if total > blob.len() {
            return Err(FdtError::Truncated);
        }
        let blob = &blob[..total];
        let (structs, strings) = (word(8)? as usize, word(12)? as usize);
        let text = |at: usize| -> Result<String, FdtError> {
            let bytes = blob.get(at..).ok_or(FdtError::Damaged("a string lies outside"))?;
            let bytes = &bytes[..bytes.len().min(MAX_NAME)];
            let end =
                bytes.iter().position(|b| *b == 0).ok_or(FdtError::Damaged("a name does not end, or is too long"))?;
            String::from_utf8(bytes[..end].to_vec()).map_err(|_| FdtError::Damaged("a name is not text"))
        };
        let mut stack: Vec<FdtNode> = Vec::new();
        let mut at = structs;
        loop {
            if at > total {
                return Err(FdtError::Truncated);
            }
            let token = word(at)?;
            at += 4;
            match token {
                1 => {
                    let name = text(at)?;
                    at = (at + name.len() + 1).next_multiple_of(4);
                    if stack.len() >= MAX_DEPTH {
                        return Err(FdtError::Damaged("it is nested too deeply"));
                    }
                    stack.push(FdtNode::new(name));
                }
                2 => {
                    let node = stack.pop().ok_or(FdtError::Damaged("a node ends that never began"))?;
                    match stack.last_mut() {
                        Some(parent) => parent.children.push(node),
                        None => return Ok(node),
                    }
                }
                3 => {
                    let (len, name) = (word(at)? as usize, word(at + 4)? as usize);
                    let value =
                        at.checked_add(8).and_then(|s| blob.get(s..s.checked_add(len)?)).ok_or(FdtError::Truncated)?;
                    let name = text(strings.checked_add(name).ok_or(FdtError::Truncated)?)?;
                    let node = stack.last_mut().ok_or(FdtError::Damaged("a property is outside any node"))?;
                    node.properties.push((name, value.to_vec()));
                    at = (at + 8 + len).next_multiple_of(4);
                }
                4 => {}
                _ => return Err(FdtError::Damaged("an unknown token")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> FdtNode {
        let mut root = FdtNode::default();
        root.u32("#address-cells", 2).string("compatible", "linux,dummy-virt").flag("dma-coherent");
        root.child("memory@40000000").u64s("reg", &[0x4000_0000, 1 << 30]);
        let soc = root.child("soc");
        soc.child("uart@9000000").strings("clock-names", &["uartclk", "apb_pclk"]);
        root
    }

    #[test]
    fn write_and_read() {
        let blob = sample().to_blob().unwrap();
        assert_eq!(FdtNode::parse(&blob).unwrap(), sample());
        let mut long = sample();
        long.u32("a-name-that-has-more-than-31-characters", 1);
        assert_eq!(FdtNode::parse(&long.flatten()).unwrap(), long);
        assert_eq!(FdtNode::parse(&blob[..blob.len() - 1]), Err(FdtError::Truncated));
        assert_eq!(FdtNode::parse(b"hello world"), Err(FdtError::Magic));
        assert_eq!(FdtNode::parse(&[]), Err(FdtError::Truncated));
    }

    proptest! {
        #[test]
        fn damaged_input_is_refused_not_fatal(at in 0usize..200, byte in any::<u8>(), cut in 0usize..400) {
            let mut blob = sample().to_blob().unwrap();
            let n = blob.len();
            blob[at % n] = byte;
            blob.truncate(cut.max(4));
            let _ = FdtNode::parse(&blob);
        }
    }
}
