//! The initramfs of the demo: busybox, the kernel modules of the virtio devices, and an init.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::debian::{Guest, MODULES};

const INIT: &[u8] = include_bytes!("guest/init");
const DHCP: &[u8] = include_bytes!("guest/dhcp");

/// Writes the initramfs into the cache and returns its path.
pub fn write(cache: &Path, guest: &Guest) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "modules", "proc", "root", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel opens it for init before anything is mounted.
    archive.node("dev/console", Kind::CharacterDevice { major: 5, minor: 1 }, 0o600, &[]);
    archive.file("init", 0o755, INIT);
    archive.file("bin/dhcp", 0o755, DHCP);
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    archive.file("bin/busybox", 0o755, &read(&guest.busybox)?);
    archive.node("bin/sh", Kind::Link, 0o777, b"busybox");
    let mut order = String::new();
    for name in MODULES {
        if let Some(path) = guest.module(name) {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.file(&format!("modules/{file}"), 0o644, &read(&path)?);
            order += &file;
            order.push('\n');
        }
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    let path = cache.join("initramfs");
    super::replace(&path, &archive.finish())?;
    Ok(path)
}

enum Kind {
    File,
    Folder,
    Link,
    CharacterDevice { major: u32, minor: u32 },
}

/// A cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn folder(&mut self, path: &str) {
        self.node(path, Kind::Folder, 0o755, &[]);
    }

    fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.node(path, Kind::File, permissions, content);
    }

    fn node(&mut self, path: &str, kind: Kind, permissions: u32, content: &[u8]) {
        let (format, major, minor) = match kind {
            Kind::File => (0o100_000, 0, 0),
            Kind::Folder => (0o040_000, 0, 0),
            Kind::Link => (0o120_000, 0, 0),
            Kind::CharacterDevice { major, minor } => (0o020_000, major, minor),
        };
        self.entries += 1;
        self.entry(path, self.entries, format | permissions, major, minor, content);
    }

    fn entry(&mut self, path: &str, inode: u32, mode: u32, major: u32, minor: u32, content: &[u8]) {
        let (owner, links, time, device) = (0, 1, 0, 0);
        let fields = [
            inode,
            mode,
            owner,
            owner,
            links,
            time,
            content.len() as u32,
            device,
            device,
            major,
            minor,
            path.len() as u32 + 1,
            0, // no checksum in this variant
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, 0, 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn entries_are_aligned_and_ended() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"hello");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"07070100000001000081a4"));
        assert_eq!(bytes[110..112], *b"a\0");
        assert_eq!(bytes[112..117], *b"hello");
        assert_eq!(&bytes[120..126], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn cpio_lists_what_was_put_in() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/file", 0o755, &[1; 1234]);
        archive.node("bin/link", Kind::Link, 0o777, b"file");
        let listing = Command::new("cpio").arg("-itv").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut cpio) = listing else {
            eprintln!("skipped: cpio is not installed; tests/install installs it");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let listing = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<&str> = listing.lines().collect();
        assert!(lines[0].starts_with("drwxr-xr-x") && lines[0].ends_with(" bin"), "{listing}");
        assert!(lines[1].starts_with("-rwxr-xr-x") && lines[1].contains("1234"), "{listing}");
        assert!(lines[2].starts_with("lrwxrwxrwx") && lines[2].ends_with("bin/link -> file"), "{listing}");
    }
}
