//! Where firmware files are looked for.

use std::path::{Path, PathBuf};

/// Directories that are searched after those of the user.
pub const DIRECTORIES: [&str; 6] = [
    "/usr/share/rhea",
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/lib/ipxe/qemu",
    "/usr/share/OVMF",
    "/usr/share/ovmf",
];
/// The firmware of a PC when nothing else is given.
pub const DEFAULT_BIOS: &str = "bios-256k.bin";

/// The search path of `-bios`, ROMs and other firmware files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareFiles {
    directories: Vec<PathBuf>,
}

impl FirmwareFiles {
    /// `user`: the directories of `-L` in their order.
    #[must_use]
    pub fn new(user: &[PathBuf]) -> Self {
        Self { directories: user.iter().cloned().chain(DIRECTORIES.iter().map(PathBuf::from)).collect() }
    }

    /// The file as given if it exists, else the first of that name in the directories. A name with a slash that is not
    /// found as given is searched too, relative to each.
    #[must_use]
    pub fn find(&self, name: &Path) -> Option<PathBuf> {
        if name.is_file() {
            return Some(name.to_owned());
        }
        if name.is_absolute() {
            return None;
        }
        self.directories.iter().map(|d| d.join(name)).find(|p| p.is_file())
    }

    /// The directories, for a message about what was not found.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order() {
        let dir = std::env::temp_dir().join(format!("rhea-firmware-{}", std::process::id()));
        let (a, b) = (dir.join("a"), dir.join("b"));
        std::fs::create_dir_all(&a).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        std::fs::write(b.join("x.bin"), b"b").unwrap();
        let files = FirmwareFiles::new(&[a.clone(), b.clone()]);
        assert_eq!(files.find(Path::new("x.bin")), Some(b.join("x.bin")));
        std::fs::write(a.join("x.bin"), b"a").unwrap();
        assert_eq!(files.find(Path::new("x.bin")), Some(a.join("x.bin")));
        assert_eq!(files.find(&b.join("x.bin")), Some(b.join("x.bin")));
        assert_eq!(files.find(&b.join("y.bin")), None);
        assert_eq!(files.find(Path::new("no such file.bin")), None);
        assert_eq!(files.directories()[2..], DIRECTORIES.map(PathBuf::from));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
