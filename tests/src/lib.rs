//! What whole-machine tests are made of: running the emulator and talking to its guest,
//! disk images, a web server, and the files that `tests/run` prepares.
//!
//! The emulator is the release binary of this workspace, or what the environment variable
//! `RHEA` names; the tests use only words that `qemu-system-aarch64` knows as well, so that a
//! doubtful expectation can be checked against it.

mod emulator;
mod files;
mod http;
mod random;
mod rsp;

pub use emulator::{Emulator, Run, emulator_binary, is_qemu, run, run_command};
pub use files::{Scratch, check_ext4, ext4_image, guest_file, ppm, sha256, workspace};
pub use http::{HttpServer, free_port, http_get};
pub use random::Random;
pub use rsp::Rsp;

use std::time::Duration;

/// How long a guest may take for one step, such as booting to a shell. Generous: a loaded
/// machine is no failure, and a step that has come to an end returns at once.
pub const STEP: Duration = Duration::from_secs(150);

/// A machine with Debian's kernel of its architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Board {
    Virt,
    Q35,
    Pseries,
}

impl Board {
    /// As after `-M`.
    #[must_use]
    pub fn machine(self) -> &'static str {
        match self {
            Self::Virt => "virt",
            Self::Q35 => "q35",
            Self::Pseries => "pseries",
        }
    }
    /// The first serial port, as Linux calls it.
    #[must_use]
    pub fn console(self) -> &'static str {
        match self {
            Self::Virt => "ttyAMA0",
            Self::Q35 => "ttyS0",
            Self::Pseries => "hvc0",
        }
    }
    /// QEMU's program for it.
    #[must_use]
    pub fn qemu(self) -> &'static str {
        match self {
            Self::Virt => "qemu-system-aarch64",
            Self::Q35 => "qemu-system-x86_64",
            Self::Pseries => "qemu-system-ppc64",
        }
    }
    /// The name of one of its files for [`guest_file`].
    #[must_use]
    pub fn file(self, name: &str) -> String {
        match self {
            Self::Virt => name.to_owned(),
            Self::Q35 => format!("amd64/{name}"),
            Self::Pseries => format!("ppc64el/{name}"),
        }
    }
    /// The machine with its kernel and the test initramfs, as most tests start it. `words` go onto the kernel's command line.
    #[must_use]
    pub fn linux(self, words: &str) -> Vec<String> {
        let append = format!("console={} quiet {words}", self.console());
        let (kernel, initramfs) = (guest_file(&self.file("kernel")), guest_file(&self.file("initramfs")));
        let machine = self.machine();
        ["-M", machine, "-m", "512M", "-kernel", &kernel, "-initrd", &initramfs, "-append", &append, "-nographic"]
            .map(String::from)
            .to_vec()
    }
    /// Starts it as [`Self::linux`] says, with `args` added.
    ///
    /// # Panics
    /// When the emulator can't be started.
    #[must_use]
    pub fn start(self, words: &str, args: &[&str]) -> Emulator {
        let mut all = self.linux(words);
        all.extend(args.iter().map(|s| (*s).to_owned()));
        Emulator::start(&all)
    }
    /// Runs a case of `tests/guest/cases` (or several, with commas) in Linux with `args` added, until the guest has powered off; each
    /// case must pass and the emulator exit with status 0. Returns the console's text.
    ///
    /// # Panics
    /// When the case fails.
    pub fn linux_case(self, name: &str, words: &str, args: &[&str]) -> String {
        run_case(self.linux(&format!("rhea.test={name} {words}")), name, args)
    }
}

/// [`Board::linux`] of `-M virt`.
#[must_use]
pub fn linux(words: &str) -> Vec<String> {
    Board::Virt.linux(words)
}

/// [`Board::linux_case`] of `-M virt`.
///
/// # Panics
/// When the case fails.
pub fn linux_case(name: &str, words: &str, args: &[&str]) -> String {
    Board::Virt.linux_case(name, words, args)
}

/// Bytes without a pattern, the same on every run.
#[must_use]
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    (0..bytes)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

/// Ext4 images for the case `disk`, one for each argument that names `IMAGE`.
pub struct DiskImages {
    scratch: Scratch,
    images: Vec<String>,
    args: Vec<String>,
}

impl DiskImages {
    #[must_use]
    pub fn new(args: &[&str]) -> Self {
        let scratch = Scratch::new();
        let data = noise(3 << 20);
        let sum = sha256(&scratch.file("data", &data));
        let files: [(&str, &[u8]); 3] =
            [("from-host", b"from the host"), ("host-data", &data), ("host-data.sha256", sum.as_bytes())];
        let mut images = Vec::new();
        let mut named = |arg: &&str| {
            if !arg.contains("IMAGE") {
                return (*arg).to_owned();
            }
            images.push(ext4_image(&scratch, &format!("disk-{}.img", images.len()), 256, &files));
            arg.replace("IMAGE", &images[images.len() - 1])
        };
        let args = args.iter().map(&mut named).collect();
        Self { scratch, images, args }
    }
    /// The arguments with the images' names.
    #[must_use]
    pub fn args(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }
    /// Checks the images after the guest, whose console's text is `text`, has ended.
    ///
    /// # Panics
    /// When one was not used or is damaged.
    pub fn check(&self, text: &str) {
        assert_eq!(text.matches("from the host: from the host").count(), self.images.len(), "{text}");
        self.images.iter().for_each(|image| check_ext4(image));
    }
}

/// Runs the case `disk` on ext4 images, one for each of `args` that names `IMAGE`, and checks the images afterwards. `words` go onto
/// the kernel's command line.
///
/// # Panics
/// When the case fails or an image is damaged.
pub fn disk_case(board: Board, words: &str, args: &[&str]) {
    let images = DiskImages::new(args);
    let text = board.linux_case("disk", words, &images.args());
    images.check(&text);
}

/// Runs the cases `disk`, as [`disk_case`] does, and `net` with so many `cards` in one start; the cards are connected by `args`.
///
/// # Panics
/// When a case fails or an image is damaged.
pub fn disk_and_network_case(board: Board, disks: &str, cards: usize, words: &str, args: &[&str]) {
    let images = DiskImages::new(args);
    let content = noise(4 << 20);
    let sum = sha256(&images.scratch.file("content", &content));
    let server = HttpServer::start(content);
    let words = format!("rhea.disk={disks} rhea.cards={cards} rhea.port={} rhea.sum={sum} {words}", server.port());
    let text = board.linux_case("disk,net", &words, &images.args());
    assert_eq!(text.matches("ip=10.0.2.15 router=10.0.2.2 dns=10.0.2.3").count(), cards, "{text}");
    images.check(&text);
}

fn run_case(mut all: Vec<String>, names: &str, args: &[&str]) -> String {
    all.extend(args.iter().map(|s| (*s).to_owned()));
    let mut guest = Emulator::start(&all);
    for name in names.split(',') {
        guest.expect(&format!("RHEA-TEST {name} START"), STEP);
        let text = guest.expect_any(&[&format!("RHEA-TEST {name} PASS"), &format!("RHEA-TEST {name} FAIL")], STEP);
        assert!(text.contains("PASS"), "the case {name} failed:\n{}", guest.transcript());
    }
    let status = guest.wait(STEP);
    assert!(status.success(), "exit status {status} after poweroff:\n{}", guest.transcript());
    guest.transcript()
}

/// Returns from a test with a printed reason when what it needs is not there. Under `tests/run`,
/// which prepares everything, that is a failure instead.
#[macro_export]
macro_rules! require {
    ($($file:expr),* $(,)?) => {
        for file in [$($file),*] {
            let path = $crate::guest_file(file);
            if !std::path::Path::new(&path).exists() {
                assert!(std::env::var_os("RHEA_TESTS_COMPLETE").is_none(), "{path} is missing");
                eprintln!("skipped: {path} is missing; tests/run makes it");
                return;
            }
        }
        let binary = $crate::emulator_binary();
        if !binary.exists() && binary.components().count() > 1 {
            assert!(std::env::var_os("RHEA_TESTS_COMPLETE").is_none(), "{} is missing", binary.display());
            eprintln!("skipped: {} is missing; build it with cargo build --release", binary.display());
            return;
        }
    };
}
