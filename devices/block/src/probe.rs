//! Image formats by their first bytes.

/// Formats that are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
    Vmdk,
    Vpc,
    /// Recognised, and refused by name.
    Other(&'static str),
}

impl Format {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vpc => "vpc",
            Self::Other(name) => name,
        }
    }
}

/// The format of an image whose first 512 bytes (or fewer, if it is shorter) are `head`.
#[must_use]
pub fn probe(head: &[u8]) -> Format {
    if let Some(version) = head.strip_prefix(b"QFI\xfb").and_then(|rest| rest.get(..4)) {
        return match u32::from_be_bytes([version[0], version[1], version[2], version[3]]) {
            1 => Format::Other("qcow"),
            n if n >= 2 => Format::Qcow2,
            _ => Format::Raw,
        };
    }
    if head.starts_with(b"KDMV") || vmdk_descriptor(head) {
        return Format::Vmdk;
    }
    if head.starts_with(b"conectix") {
        return Format::Vpc;
    }
    const OTHERS: &[(usize, &[u8], &str)] = &[
        (0, b"COWD", "vmdk (COWD)"),
        (0x40, &[0x7f, 0x10, 0xda, 0xbe], "vdi"),
        (0, b"vhdxfile", "vhdx"),
        (0, b"QED\0", "qed"),
        (0, b"LUKS\xba\xbe", "luks"),
        (0, b"WithoutFreeSpace", "parallels"),
        (0, b"WithouFreSpacExt", "parallels"),
        (0, b"Bochs Virtual HD Image", "bochs"),
        (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    ];
    let other = OTHERS.iter().find(|(at, magic, _)| head.get(*at..).is_some_and(|h| h.starts_with(magic)));
    other.map_or(Format::Raw, |(_, _, name)| Format::Other(name))
}

/// A text whose first line that is neither empty nor a comment is `version=1` to `version=3`.
fn vmdk_descriptor(head: &[u8]) -> bool {
    if !head.starts_with(b"#") {
        return false;
    }
    if head.starts_with(b"# Disk DescriptorFile") {
        return true;
    }
    let text: Vec<&[u8]> = head.split(|b| *b == b'\n').collect();
    let line = text.iter().map(|l| l.trim_ascii()).find(|l| !l.is_empty() && !l.starts_with(b"#"));
    matches!(line, Some(b"version=1" | b"version=2" | b"version=3"))
}
