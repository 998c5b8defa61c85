//! The command line: what is refused, and how; what is listed.

use std::time::Duration;

use rhea_tests::{Scratch, guest_file, is_qemu, require, run};

const SHORT: Duration = Duration::from_secs(30);

/// Arguments, and what the error line must name. `{x}` stands for a file of [`Files`].
const REFUSED: &[(&str, &[&str])] = &[
    // Options
    ("-no-such-option", &["-no-such-option"]),
    ("--no-such-option", &["no-such-option"]),
    ("stray-word-that-is-no-image", &["stray-word-that-is-no-image"]),
    ("-M virt -kernel", &["-kernel"]),
    ("-M virt -append", &["-append"]),
    ("-M", &["-M"]),
    ("-M virt -display no-such-display", &["no-such-display"]),
    ("-M virt -accel no-such-accelerator", &["no-such-accelerator"]),
    ("-M virt -rtc base=yesterday", &["yesterday"]),
    ("-M virt -rtc no-such-key=1", &["no-such-key"]),
    ("-M virt -name no-such-key=a", &["no-such-key"]),
    // Machine
    ("-M no-such-machine", &["no-such-machine"]),
    ("-M virt,no-such-key=on", &["no-such-key"]),
    ("-M virt,gic-version=9", &["gic-version"]),
    ("-M virt,virtualization=perhaps", &["virtualization", "perhaps"]),
    ("-M virt,secure=7", &["secure"]),
    // Processors
    ("-M virt -cpu no-such-cpu", &["no-such-cpu"]),
    ("-M virt -cpu max,no-such-feature=on", &["no-such-feature"]),
    ("-M virt -cpu max,pauth=perhaps", &["pauth"]),
    ("-M virt -smp 0", &["smp"]),
    ("-M virt -smp many", &["many"]),
    ("-M virt -smp 100000", &["100000"]),
    ("-M virt,gic-version=2 -smp 9", &["9", "8"]),
    ("-M virt -smp 4,maxcpus=2", &["maxcpus"]),
    ("-M virt -smp cpus=2,no-such-key=1", &["no-such-key"]),
    // Memory
    ("-M virt -m lots", &["lots"]),
    ("-M virt -m 12X", &["12X"]),
    ("-M virt -m -5", &["-5"]),
    ("-M virt -m 9999999999999999G", &["9999999999999999G"]),
    ("-M virt -m 1000000G", &["1000000G"]),
    ("-M virt -m 128M -mem-path {missing}/x", &["{missing}"]),
    // Kernel, initrd, device tree
    ("-M virt -kernel {missing}", &["{missing}"]),
    ("-M virt -kernel {folder}", &["{folder}"]),
    ("-M virt -kernel {empty}", &["{empty}"]),
    ("-M virt -kernel {x86}", &["{x86}"]),
    ("-M virt -kernel {cut}", &["{cut}"]),
    ("-M virt -kernel {cut_elf}", &["{cut_elf}"]),
    ("-M virt -kernel {image} -initrd {missing}", &["{missing}"]),
    ("-M virt -kernel {image} -initrd {folder}", &["{folder}"]),
    ("-M virt -kernel {image} -dtb {missing}", &["{missing}"]),
    ("-M virt -kernel {image} -dtb {noise}", &["{noise}"]),
    ("-M virt -kernel {image} -m 64M -initrd {big}", &["initrd"]),
    ("-M virt -initrd {noise}", &["-kernel"]),
    ("-M virt -append words", &["-kernel"]),
    ("-M virt -bios {missing}", &["{missing}"]),
    ("-M virt -bios {big}", &["{big}"]),
    // Drives
    ("-M virt -drive if=none,id=d,file={missing},format=raw", &["{missing}"]),
    ("-M virt -drive if=none,id=d,file={folder},format=raw", &["{folder}"]),
    ("-M virt -drive if=no-such-bus,file={noise},format=raw", &["no-such-bus"]),
    ("-M virt -drive if=none,id=d,file={noise},format=no-such-format", &["no-such-format"]),
    ("-M virt -drive if=none,id=d,file={noise},format=raw,no-such-key=1", &["no-such-key"]),
    ("-M virt -drive if=none,id=d,file={noise},format=raw,read-only=perhaps", &["read-only"]),
    ("-M virt -drive if=none,id=d,file={noise},format=raw -drive if=none,id=d,file={noise},format=raw", &["d"]),
    ("-M virt -drive if=pflash,unit=7,file={noise},format=raw", &["7"]),
    ("-M virt -drive if=pflash,unit=0,file={noise},format=raw", &["pflash"]),
    // Devices
    ("-M virt -device no-such-device", &["no-such-device"]),
    ("-M virt -device virtio-blk-pci", &["drive"]),
    ("-M virt -device virtio-blk-pci,drive=no-such-drive", &["no-such-drive"]),
    ("-M virt -device virtio-rng-pci,no-such-property=1", &["no-such-property"]),
    ("-M virt -device virtio-rng-pci,addr=77", &["addr"]),
    ("-M virt -device virtio-rng-pci,addr=5 -device virtio-rng-pci,addr=5", &["5"]),
    ("-M virt -device virtio-rng-pci,bus=no-such-bus", &["no-such-bus"]),
    ("-M virt -device virtio-net-pci,netdev=no-such-netdev", &["no-such-netdev"]),
    ("-M virt -netdev user,id=n -device virtio-net-pci,netdev=n,mac=zz:zz", &["mac"]),
    ("-M virt -device virtio-rng-pci,id=a -device virtio-rng-pci,id=a", &["a"]),
    ("-M virt -device virtconsole,chardev=no-such-chardev", &["no-such-chardev"]),
    (
        "-M virt -drive if=none,id=d,file={noise},format=raw -device virtio-blk-pci,drive=d,num-queues=0",
        &["num-queues"],
    ),
    // Network
    ("-M virt -netdev no-such-backend,id=n", &["no-such-backend"]),
    ("-M virt -netdev user", &["id"]),
    ("-M virt -netdev user,id=n,no-such-key=1", &["no-such-key"]),
    ("-M virt -netdev user,id=n,hostfwd=nonsense", &["hostfwd"]),
    ("-M virt -netdev user,id=n,hostfwd=tcp::{port}-:22", &["{port}"]),
    ("-M virt -netdev user,id=n,net=10.0.2.0/99", &["10.0.2.0/99"]),
    ("-M virt -netdev tap,id=n,ifname=no/such,script=no,downscript=no", &["n"]),
    ("-M virt -nic user,model=no-such-model", &["no-such-model"]),
    // Character devices, monitor, GDB
    ("-M virt -chardev no-such-backend,id=c", &["no-such-backend"]),
    ("-M virt -chardev stdio", &["id"]),
    ("-M virt -chardev file,id=c,path={missing}/x", &["{missing}"]),
    ("-M virt -chardev socket,id=c,host=127.0.0.1,port={port},server=on,wait=off", &["{port}"]),
    ("-M virt -serial no-such-backend", &["no-such-backend"]),
    ("-M virt -serial tcp:127.0.0.1:{port},server=on,wait=off", &["{port}"]),
    ("-M virt -monitor no-such-backend", &["no-such-backend"]),
    ("-M virt -gdb tcp:127.0.0.1:{port}", &["{port}"]),
    ("-M virt -gdb no-such-backend", &["no-such-backend"]),
    ("-M virt -D {missing}/log -d guest_errors", &["{missing}"]),
    ("-M virt -d no-such-item", &["no-such-item"]),
];

/// The files that the table speaks of, by name.
fn files(scratch: &Scratch, port: u16) -> Vec<(&'static str, String)> {
    let image = {
        // The header of an arm64 Image: an endless loop and the magic number.
        let mut image = vec![0; 4096];
        image[..4].copy_from_slice(&0x1400_0000_u32.to_le_bytes());
        image[16..24].copy_from_slice(&4096_u64.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        image
    };
    let elf = |machine: u8| {
        let mut elf = vec![0; 120];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16] = 2; // ET_EXEC
        elf[18] = machine;
        elf[20] = 1;
        elf[32] = 64; // e_phoff
        elf[52] = 64; // e_ehsize
        elf[54] = 56; // e_phentsize
        elf[56] = 1; // e_phnum
        elf[64] = 1; // PT_LOAD
        elf[64 + 32] = 0xff; // p_filesz: more than there is
        elf[64 + 33] = 0xff;
        elf[64 + 40] = 0xff;
        elf[64 + 41] = 0xff;
        elf[64 + 24 + 3] = 0x40; // p_paddr: the start of memory
        elf
    };
    let big = scratch.path("big");
    let file = std::fs::File::create(&big).expect("a file");
    file.set_len(200 << 20).expect("a sparse file");
    vec![
        ("{missing}", scratch.path("missing")),
        ("{folder}", scratch.path("")),
        ("{empty}", scratch.file("empty", b"")),
        ("{noise}", scratch.file("noise", &[0x5a; 5000])),
        ("{x86}", scratch.file("x86", &elf(62))),
        ("{cut_elf}", scratch.file("cut_elf", &elf(183))),
        ("{cut}", scratch.file("cut", &image[..60])),
        ("{image}", scratch.file("image", &image)),
        ("{big}", big),
        ("{port}", port.to_string()),
    ]
}

fn fill(text: &str, files: &[(&str, String)]) -> String {
    files.iter().fold(text.to_owned(), |text, (name, path)| text.replace(name, path))
}

#[test]
fn bad_input_is_refused_with_one_line() {
    require!();
    let scratch = Scratch::new();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let files = files(&scratch, taken.local_addr().expect("an address").port());
    assert!(REFUSED.len() >= 40);
    let mut wrong = Vec::new();
    for (args, names) in REFUSED {
        let mut words: Vec<String> = args.split(' ').map(|word| fill(word, &files)).collect();
        // An option that lacks its value has to stay the last.
        if args.contains("-M virt ") && !args.ends_with("-kernel") && !args.ends_with("-append") {
            words.extend(["-S", "-display", "none", "-serial", "none", "-monitor", "none"].map(String::from));
            if args.contains("-serial") || args.contains("-monitor") || args.contains("-display") {
                words.truncate(words.len() - 6);
            }
        }
        let ended = match std::panic::catch_unwind(|| run(&words, SHORT)) {
            Ok(ended) => ended,
            Err(_) => {
                wrong.push(format!("{args}: accepted; still running"));
                continue;
            }
        };
        let stderr = ended.stderr.trim_end();
        let mut complaints = Vec::new();
        if ended.status.code() != Some(1) {
            complaints.push(format!("{} instead of exit status 1", ended.status));
        }
        if stderr.is_empty() || (stderr.lines().count() != 1 && !is_qemu()) {
            complaints.push(format!("{} lines on standard error", stderr.lines().count()));
        }
        for name in *names {
            let name = fill(name, &files);
            if !stderr.contains(&name) {
                complaints.push(format!("nothing about '{name}'"));
            }
        }
        if stderr.contains("panicked") {
            complaints.push("a panic".to_owned());
        }
        if !complaints.is_empty() {
            wrong.push(format!("{args}: {}\n    {stderr}", complaints.join(", ")));
        }
    }
    if is_qemu() {
        // Its lines differ; the table is about Rhea's.
        eprintln!("{} of {} differ:\n{}", wrong.len(), REFUSED.len(), wrong.join("\n"));
        return;
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), REFUSED.len(), wrong.join("\n"));
}

#[test]
fn help_is_listed() {
    require!();
    for (args, words) in [
        (&["-version"][..], &["version"][..]),
        (&["-help"], &["-kernel", "-append", "-device", "-netdev", "-drive"]),
        (&["-h"], &["-kernel"]),
        (&["-M", "help"], &["virt"]),
        (&["-machine", "help"], &["virt"]),
        (&["-M", "virt,help"], &["gic-version"]),
        (&["-M", "virt", "-cpu", "help"], &["cortex-a53", "cortex-a72", "neoverse-n1", "max"]),
        (&["-accel", "help"], &[]),
        (&["-M", "virt", "-device", "help"], &["virtio-blk-pci", "virtio-net-device", "virtio-rng-pci"]),
        (&["-M", "virt", "-device", "virtio-blk-pci,help"], &["drive", "num-queues"]),
        (&["-M", "virt", "-netdev", "help"], &["user"]),
        (&["-M", "virt", "-chardev", "help"], &["stdio", "socket", "file"]),
        (&["-d", "help"], &["guest_errors"]),
    ] {
        let ended = run(args, SHORT);
        assert!(ended.status.success() || is_qemu(), "{args:?}: {} {}", ended.status, ended.stderr);
        for word in words {
            assert!(ended.stdout.contains(word), "{args:?} lacks {word}:\n{}", ended.stdout);
        }
    }
}

#[test]
fn called_by_the_name_of_qemu() {
    require!("kernel");
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let link = scratch.path("qemu-system-aarch64");
    let target = std::fs::canonicalize(rhea_tests::emulator_binary()).expect("the binary");
    std::os::unix::fs::symlink(target, &link).expect("a link");
    let output = std::process::Command::new(&link).arg("-version").output().expect("it starts");
    assert!(output.status.success());
    let output = std::process::Command::new(&link)
        .args(["-M", "virt", "-cpu", "no-such-cpu", "-kernel", &guest_file("kernel")])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
}
