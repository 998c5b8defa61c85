//! Device-tree nodes as data, so that the tree can be built again after negotiation.

/// A node with its properties and children, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// With unit address, like `l-lan@71000000`.
    pub name: String,
    pub properties: Vec<(String, Vec<u8>)>,
    pub children: Vec<Node>,
}

impl Node {
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
    /// Sets a property; one of the same name is replaced.
    pub fn set(&mut self, name: &str, value: Vec<u8>) {
        match self.properties.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.properties.push((name.to_owned(), value)),
        }
    }
    /// The value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }
    #[must_use]
    pub fn bytes(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.set(name, value.into());
        self
    }
    #[must_use]
    pub fn empty(self, name: &str) -> Self {
        self.bytes(name, [])
    }
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.bytes(name, [value.as_bytes(), &[0]].concat())
    }
    /// A list of strings.
    #[must_use]
    pub fn texts(self, name: &str, values: &[&str]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.bytes().chain([0])).collect();
        self.bytes(name, bytes)
    }
    #[must_use]
    pub fn cell(self, name: &str, value: u32) -> Self {
        self.cells(name, &[value])
    }
    #[must_use]
    pub fn cells(self, name: &str, values: &[u32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        self.bytes(name, bytes)
    }
    /// 64-bit values.
    #[must_use]
    pub fn longs(self, name: &str, values: &[u64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        self.bytes(name, bytes)
    }
    #[must_use]
    pub fn child(mut self, node: Node) -> Self {
        self.children.push(node);
        self
    }
}
