//! `rhea demo`: a machine to play with, without anything to prepare.
//!
//! On a Debian machine with a network it is Debian's arm64 kernel with a busybox shell, fetched
//! once as Debian packages into the user's cache. Everywhere else it is a small guest that is
//! part of this binary (`guest/prompt.S`).

mod debian;
mod initramfs;
mod tar;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The built-in guest, an arm64 Image; `guest/prompt.S` says how it is assembled.
const BUILT_IN: &[u8] = include_bytes!("guest/prompt.bin");

/// Prepares the demo and returns the arguments that boot it, as they would follow `rhea` on the
/// command line. What happens meanwhile is told on standard error. Only a cache that can't be
/// written is an error.
pub fn run() -> Result<Vec<String>> {
    let cache = cache_folder()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let arguments = match debian::prepare(&cache) {
        Ok(guest) => {
            eprintln!("rhea demo: Linux with a busybox shell; Ctrl-A X leaves");
            linux(&guest.kernel, &initramfs::write(&cache, &guest)?)?
        }
        Err(why) => {
            eprintln!("rhea demo: no Debian guest here: {why:#}");
            eprintln!("rhea demo: starting the small guest that is part of rhea instead; Ctrl-A X leaves");
            let image = cache.join("prompt.bin");
            replace(&image, BUILT_IN)?;
            [
                "-M",
                "virt,gic-version=2",
                "-cpu",
                "max",
                "-m",
                "128M",
                "-nographic",
                "-nic",
                "none",
                "-kernel",
                utf8(&image)?,
            ]
            .map(String::from)
            .to_vec()
        }
    };
    // So that the same machine can be started by hand, and changed.
    let words: Vec<String> = arguments.iter().map(|a| quoted(a)).collect();
    eprintln!("rhea {}", words.join(" "));
    Ok(arguments)
}

fn linux(kernel: &Path, initramfs: &Path) -> Result<Vec<String>> {
    let machine = [
        ["-M", "virt"],
        ["-cpu", "max"],
        ["-smp", "2"],
        ["-m", "1G"],
        ["-netdev", "user,id=net0"],
        ["-device", "virtio-net-pci,netdev=net0"],
        ["-device", "virtio-rng-pci"],
        ["-kernel", utf8(kernel)?],
        ["-initrd", utf8(initramfs)?],
        ["-append", "console=ttyAMA0 quiet"],
    ];
    let mut arguments: Vec<String> = machine.as_flattened().iter().map(|s| (*s).to_owned()).collect();
    arguments.push("-nographic".to_owned());
    Ok(arguments)
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {} is not valid UTF-8", path.display()))
}

/// `$XDG_CACHE_HOME/rhea/demo`, by default under `~/.cache`.
fn cache_folder() -> Result<PathBuf> {
    // The specification has relative paths ignored.
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = match (absolute("XDG_CACHE_HOME"), absolute("HOME")) {
        (Some(cache), _) => cache,
        (None, Some(home)) => home.join(".cache"),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME says where the demo's files may be kept"),
    };
    Ok(base.join("rhea/demo"))
}

/// Replaces a file in one step, so that another demo that is starting never sees half of it.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(name);
    std::fs::write(&new, content)
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn built_in_guest_matches_its_source() {
        let folder = std::env::temp_dir().join(format!("rhea-demo-test-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/guest/prompt.S");
        let (object, binary) = (folder.join("prompt.o"), folder.join("prompt.bin"));
        let assembled = Command::new("aarch64-linux-gnu-as").arg("-o").arg(&object).arg(&source).status();
        let Ok(status) = assembled else {
            eprintln!("skipped: aarch64-linux-gnu-as is not installed; tests/install installs it");
            std::fs::remove_dir_all(folder).unwrap();
            return;
        };
        assert!(status.success());
        let copied =
            Command::new("aarch64-linux-gnu-objcopy").args(["-O", "binary"]).arg(&object).arg(&binary).status();
        assert!(copied.unwrap().success());
        let same = std::fs::read(&binary).unwrap() == BUILT_IN;
        std::fs::remove_dir_all(folder).unwrap();
        assert!(same, "prompt.bin is not what prompt.S assembles to");
    }

    #[test]
    fn built_in_guest_is_an_image() {
        assert_eq!(&BUILT_IN[56..60], b"ARM\x64");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("user,id=net0"), "user,id=net0");
        assert_eq!(quoted("console=ttyAMA0 quiet"), "'console=ttyAMA0 quiet'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
