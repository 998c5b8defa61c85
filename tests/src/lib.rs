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
pub use files::{Scratch, check_ext4, ext4_image, guest_file, sha256, workspace};
pub use http::{HttpServer, free_port, http_get};
pub use random::Random;
pub use rsp::Rsp;

use std::time::Duration;

/// How long a guest may take for one step, such as booting to a shell. Generous: a loaded
/// machine is no failure, and a step that has come to an end returns at once.
pub const STEP: Duration = Duration::from_secs(150);

/// `-M virt` with Debian's kernel and the test initramfs, as most tests start it. `words` go
/// onto the kernel's command line.
#[must_use]
pub fn linux(words: &str) -> Vec<String> {
    let append = format!("console=ttyAMA0 quiet {words}");
    let kernel = guest_file("kernel");
    let initramfs = guest_file("initramfs");
    ["-M", "virt", "-m", "512M", "-kernel", &kernel, "-initrd", &initramfs, "-append", &append, "-nographic"]
        .map(String::from)
        .to_vec()
}

/// Runs one case of `tests/guest/cases` in Linux with `args` added, until the guest has powered
/// off; the case must pass and the emulator exit with status 0. Returns the console's text.
///
/// # Panics
/// When the case fails.
pub fn linux_case(name: &str, words: &str, args: &[&str]) -> String {
    let mut all = linux(&format!("rhea.test={name} {words}"));
    all.extend(args.iter().map(|s| (*s).to_owned()));
    let mut guest = Emulator::start(&all);
    guest.expect(&format!("RHEA-TEST {name} START"), STEP);
    let text = guest.expect_any(&[&format!("RHEA-TEST {name} PASS"), &format!("RHEA-TEST {name} FAIL")], STEP);
    assert!(text.contains("PASS"), "the case {name} failed:\n{}", guest.transcript());
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
