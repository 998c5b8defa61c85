use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The path of a file under `target/guest`, which `tests/run` fills.
#[must_use]
pub fn guest_file(name: &str) -> String {
    workspace().join("target/guest").join(name).to_string_lossy().into_owned()
}

/// A folder of its own for one test, removed afterwards.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// # Panics
    /// When the folder can't be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rhea-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(path)
    }

    /// The path of a file in it, which need not exist.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    /// Writes a file in it and returns its path.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{path}: {e}"));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tool(program: &str, args: &[&str]) -> (bool, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; tests/install installs it"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Makes a raw ext4 image of `mib` MiB that holds `files`; returns its path.
///
/// # Panics
/// When `mke2fs` fails.
#[must_use]
pub fn ext4_image(scratch: &Scratch, name: &str, mib: u32, files: &[(&str, &[u8])]) -> String {
    let folder = scratch.path(&format!("{name}.files"));
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    for (file, content) in files {
        std::fs::write(Path::new(&folder).join(file), content).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    let image = scratch.path(name);
    let (ok, text) = tool("mke2fs", &["-q", "-t", "ext4", "-d", &folder, &image, &format!("{mib}M")]);
    assert!(ok, "mke2fs: {text}");
    image
}

/// Checks an ext4 image without changing it; it must be clean.
///
/// # Panics
/// When it is not.
pub fn check_ext4(image: &str) {
    let (ok, text) = tool("e2fsck", &["-f", "-n", image]);
    assert!(ok, "e2fsck: {text}");
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn sha256(path: &str) -> String {
    let (ok, text) = tool("sha256sum", &[path]);
    assert!(ok, "sha256sum: {text}");
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Width, height and pixels of a PPM image; `None` if it is none, or not whole yet.
#[must_use]
pub fn ppm(path: &str) -> Option<(usize, usize, Vec<[u8; 3]>)> {
    let data = std::fs::read(path).ok()?;
    let mut head = data.splitn(4, |b| *b == b'\n');
    let (magic, size, depth, pixels) = (head.next()?, head.next()?, head.next()?, head.next()?);
    let size = std::str::from_utf8(size).ok()?;
    let (width, height) = size.split_once(' ')?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    let (pixels, rest) = pixels.as_chunks::<3>();
    let whole = magic == b"P6" && depth == b"255" && rest.is_empty() && pixels.len() == width * height;
    whole.then(|| (width, height, pixels.to_vec()))
}
