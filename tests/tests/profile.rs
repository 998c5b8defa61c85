//! What shows where the time goes: `info jit`, `-perfmap`, `-flame-graph`.

use rhea_tests::{Board, STEP, Scratch, guest_file, require, run};

#[test]
fn a_boot_is_shown() {
    require!("kernel", "initramfs");
    let scratch = Scratch::new();
    let (picture, log) = (scratch.path("guest.svg"), scratch.path("log"));
    // All of the kernel's beginning is one function, by this.
    let map = scratch.file("System.map", b"ffff800008000000 T the_kernel\n");
    let flames = format!("{picture},hz=200,symbols={map}");
    let mut guest =
        Board::Virt.start("nokaslr", &["-cpu", "max", "-flame-graph", &flames, "-perfmap", "-d", "jit", "-D", &log]);
    guest.expect("guest# ", STEP);
    let names_file = format!("/tmp/perf-{}.map", guest.pid());
    let names = std::fs::read_to_string(&names_file).expect("names for perf");
    std::fs::remove_file(names_file).expect("it was there");
    for what in ["block", "region"] {
        let line = names.lines().find(|l| l.contains(what)).expect(what);
        let words: Vec<&str> = line.split(' ').collect();
        assert!(matches!(words[..], [at, len, _, pc] if at.len() > 6 && len != "0" && pc.starts_with("0x")), "{line}");
    }
    guest.send("\x01c");
    guest.expect("(rhea)", STEP);
    guest.send("info jit\n");
    let text = guest.expect("TLB flushes", STEP);
    for word in ["code memory used", "jump cache", "indirect jump", "walked"] {
        assert!(text.contains(word), "no {word}: {text}");
    }
    guest.send("quit\n");
    assert!(guest.wait(STEP).success());
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.contains("region at 0xffff8000") && log.contains("bytes of the guest"), "{}", log.len());
    let picture = std::fs::read_to_string(&picture).expect("a picture");
    for word in ["<svg", "cpu0", "kernel", "user"] {
        assert!(picture.contains(word), "no {word}");
    }
}

#[test]
fn what_cannot_be_shown_is_said() {
    require!("kernel");
    let kernel = guest_file("kernel");
    let wrong = |args: &[&str], text: &str| {
        let r = run(&[args, &["-kernel", &kernel]].concat(), STEP);
        assert!(r.status.code() == Some(1) && r.stderr.contains(text), "{args:?}: {}", r.stderr);
    };
    wrong(&["-flame-graph", "/nowhere/guest.svg"], "-flame-graph: '/nowhere/guest.svg': No such file or directory");
    wrong(&["-flame-graph", "a.svg,symbols=/nowhere/map"], "'/nowhere/map'");
    wrong(&["-flame-graph", "hz=5"], "file=F.svg");
}
