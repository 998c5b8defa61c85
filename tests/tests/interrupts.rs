//! The interrupts of `edu` and `e1000e` in a program without an operating system: INTx, MSI, INTx, MSI-X and so on, each one counted.

use rhea_tests::{Board, Emulator, STEP, guest_file, require};

const ROUNDS: u32 = 1000;
const RAISES: u32 = 3;
const REROUTES: u32 = 1000;

fn toggle(board: Board, program: &str, args: &[&str]) {
    let kernel = guest_file(program);
    let reroutes = if board == Board::Q35 { REROUTES } else { 0 };
    let words = format!("rounds={ROUNDS} raises={RAISES} reroutes={reroutes}");
    let common = ["-m", "512M", "-nographic", "-vga", "none", "-kernel", &kernel, "-append", &words];
    let devices = ["-netdev", "user,id=n", "-device", "edu", "-device", "e1000e,netdev=n"];
    let mut guest = Emulator::start(&[&["-M", board.machine()][..], &common, &devices, args].concat());
    guest.expect_any(&["RHEA-BARE PASS", "RHEA-BARE FAIL"], STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    // Two phases of the pin around messages, one more for MSI-X; every fourth round one interrupt that is pending meanwhile. What is
    // rerouted interrupts once, and once before in half of the turns.
    let (messages, across, rerouted) = (ROUNDS * RAISES, ROUNDS / 4, reroutes / 2 * 3 / 2);
    for (device, phases, msix) in [("edu", 2, 0), ("e1000e", 3, messages)] {
        let pin = phases * messages + across + rerouted;
        let line = format!("RHEA-BARE {device} pin={pin} msi={messages} msix={msix}");
        assert!(guest.transcript().contains(&line), "{line}: {}", guest.transcript());
    }
    assert!(guest.transcript().contains("RHEA-BARE PASS"), "{}", guest.transcript());
}

#[test]
fn q35_pins_and_messages_in_turn() {
    require!("amd64/bare-toggle");
    toggle(Board::Q35, "amd64/bare-toggle", &[]);
}

#[test]
fn virt_pins_and_messages_in_turn() {
    require!("bare-toggle");
    toggle(Board::Virt, "bare-toggle", &["-cpu", "max"]);
}

#[test]
fn pseries_pins_and_messages_in_turn() {
    require!("ppc64el/bare-toggle-big.elf", "ppc64el/bare-toggle-little.elf");
    for order in ["big", "little"] {
        toggle(Board::Pseries, &format!("ppc64el/bare-toggle-{order}.elf"), &["-M", "pseries,x-vof=on"]);
    }
}
