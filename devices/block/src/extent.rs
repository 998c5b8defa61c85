//! What a range of an image consists of.

/// Where the content of an extent comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Stored in this image.
    Data,
    /// Reads as zero, without data.
    Zero,
    /// Not in this image: what lies below shows, or zero if nothing does.
    Absent,
}

/// A piece of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub len: u64,
    pub kind: ExtentKind,
    /// Offset of the data in the file of the image, if it is there as it is.
    pub host: Option<u64>,
    pub compressed: bool,
}

impl Extent {
    /// Data at no known place.
    #[must_use]
    pub const fn data(len: u64) -> Self {
        Self { len, kind: ExtentKind::Data, host: None, compressed: false }
    }
    #[must_use]
    pub const fn zero(len: u64) -> Self {
        Self { len, kind: ExtentKind::Zero, host: None, compressed: false }
    }
    #[must_use]
    pub const fn absent(len: u64) -> Self {
        Self { len, kind: ExtentKind::Absent, host: None, compressed: false }
    }
}
