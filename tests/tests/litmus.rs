//! Memory ordering between two processors, in each architecture's own terms: tests/guest/programs/litmus.c.

use rhea_tests::{Board, require};

/// Milliseconds for each test of the suite; `RHEA_LITMUS_MS` says otherwise.
fn milliseconds() -> String {
    std::env::var("RHEA_LITMUS_MS").unwrap_or_else(|_| "60".into())
}

fn litmus(board: Board) {
    let words = format!("rhea.milliseconds={}", milliseconds());
    let text = board.linux_case("litmus", &words, &["-cpu", "max", "-smp", "2", "-nic", "none"]);
    let tests: Vec<&str> = text.lines().filter_map(|l| l.trim().strip_prefix("litmus ")).collect();
    assert!(tests.len() >= 18, "{text}");
    assert!(!text.contains("FORBIDDEN"), "{text}");
    // Every shape ran, and what is allowed everywhere (a load before an older store) can be told from what is not.
    for shape in ["corr", "whole", "locks", "sb ", "sb_full", "mp_full", "s_full", "r_full", "ww_full", "lb", "add_"] {
        assert!(tests.iter().any(|t| t.starts_with(shape)), "no {shape}: {text}");
    }
    assert!(tests.iter().filter(|t| t.contains("(allowed)")).count() >= 1, "{text}");
}

#[test]
fn arm64() {
    require!("kernel", "initramfs");
    litmus(Board::Virt);
}

#[test]
fn amd64() {
    require!("amd64/kernel", "amd64/initramfs");
    litmus(Board::Q35);
}

#[test]
fn ppc64el() {
    require!("ppc64el/kernel", "ppc64el/initramfs");
    litmus(Board::Pseries);
}
