//! `rhea demo`, as a person starts it.

use std::process::Command;
use std::time::Duration;

use rhea_tests::{Emulator, STEP, Scratch, emulator_binary, guest_file, is_qemu, require};

/// The first time packages are fetched.
const FETCH: Duration = Duration::from_secs(600);

#[test]
fn demo_boots_debians_kernel_to_a_shell() {
    require!("kernel");
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let mut command = Command::new(emulator_binary());
    // The cache is kept with everything else that is fetched for the tests.
    command.arg("demo").env("XDG_CACHE_HOME", guest_file("demo-cache"));
    let mut guest = Emulator::start_command_on_terminal(command);
    guest.expect("Ctrl-A X leaves", FETCH);
    assert!(!guest.transcript().contains("no Debian guest here"), "{}", guest.transcript());
    guest.expect("# ", STEP);
    guest.send("echo $((6 * 7)) $(uname -m)\n");
    guest.expect("42 aarch64", STEP);
    guest.send("\x01x");
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn demo_without_debian_starts_the_built_in_guest() {
    require!();
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let mut command = Command::new(emulator_binary());
    command.arg("demo").env("XDG_CACHE_HOME", scratch.path("cache")).env("PATH", scratch.path("no-tools"));
    let mut guest = Emulator::start_command_on_terminal(command);
    guest.expect("no Debian guest here", STEP);
    guest.expect("starting the small guest that is part of rhea", STEP);
    guest.expect("rhea> ", STEP);
    guest.send("help\r");
    guest.expect("poweroff  switches the machine off", STEP);
    guest.expect("rhea> ", STEP);
    guest.send("\x01x");
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}
