//! The command line: what is refused, and how; what is listed.

use std::time::Duration;

use rhea_tests::{Random, Run, Scratch, emulator_binary, guest_file, is_qemu, require, run};

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
    ("-M virt -m 0", &["-m"]),
    ("-M virt -m size=1G,no-such-key=1", &["no-such-key"]),
    ("-M virt,highmem=off -m 8G", &["highmem"]),
    ("-M virt,memory-backend=no-such-object -m 1G", &["no-such-object"]),
    ("-M virt -object no-such-type,id=o", &["no-such-type"]),
    // Kernel, initrd, device tree
    ("-M virt -kernel {x86_image}", &["{x86_image}", "x86"]),
    ("-M virt -kernel {riscv_image}", &["{riscv_image}", "RISC-V"]),
    ("-M virt -kernel {cut_gzip}", &["{cut_gzip}", "truncated"]),
    ("-M virt -kernel {cut_pe}", &["{cut_pe}", "truncated"]),
    ("-M virt -kernel {noise}", &["{noise}"]),
    ("-M virt -kernel {image} -dtb {cut_dtb}", &["{cut_dtb}"]),
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
    ("-M virt -drive if=pflash,unit=7,file={noise},format=raw", &["unit=1"]),
    ("-M virt -drive if=pflash,unit=0,file={big},format=raw", &["{big}", "67108864"]),
    ("-M virt -drive if=virtio,format=raw", &["file"]),
    ("-M virt {missing}", &["{missing}"]),
    ("-M virt -hda {noise} -hda {noise} second", &["second"]),
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
    ("-M virt -nic user,no-such-key=1", &["no-such-key"]),
    ("-M virt -netdev user,id=n -netdev user,id=n", &["n"]),
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
    let riscv = {
        let mut image = vec![0; 4096];
        image[56..60].copy_from_slice(b"RSC\x05");
        image
    };
    let x86 = {
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image
    };
    let cut_pe = {
        // An Image that is a PE file of one section, which ends behind the end of the file.
        let mut pe = image.clone();
        pe[..2].copy_from_slice(b"MZ");
        pe[60] = 64;
        pe[64..68].copy_from_slice(b"PE\0\0");
        pe[70] = 1; // one section, behind an empty optional header
        pe[88 + 16..88 + 20].copy_from_slice(&0x1000_u32.to_le_bytes());
        pe[88 + 20..88 + 24].copy_from_slice(&0x800_u32.to_le_bytes());
        pe
    };
    // A gzip file of which there is the header and one byte.
    let cut_gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b";
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
        ("{x86_image}", scratch.file("x86_image", &x86)),
        ("{riscv_image}", scratch.file("riscv_image", &riscv)),
        ("{cut_gzip}", scratch.file("cut_gzip", cut_gzip)),
        ("{cut_pe}", scratch.file("cut_pe", &cut_pe)),
        ("{cut_dtb}", scratch.file("cut_dtb", b"\xd0\x0d\xfe\xed\0\0\x10\0")),
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

/// Whatever the words are, they end in help, or in a refusal without a crash.
fn check_end(words: &[String], ended: &Run) -> Result<(), String> {
    let stderr = ended.stderr.trim_end();
    let why = match ended.status.code() {
        _ if stderr.contains("panicked") => "a panic",
        None => "killed by a signal",
        Some(0) if ended.stdout.is_empty() && !stderr.contains("dtb dumped") => "success without any output",
        Some(0) => return Ok(()),
        Some(1) if stderr.is_empty() => "a failure without a word",
        // There may be warnings before the error.
        Some(1) if stderr.lines().count() > 4 => "many lines",
        Some(1) => return Ok(()),
        Some(_) => "an unknown exit status",
    };
    Err(format!("{}: {why}\n    {stderr}", words.join(" ")))
}

/// Values, good and bad, of the kinds that options take.
const VALUES: &[&str] = &[
    "",
    ",",
    "=",
    "virt",
    "max",
    "user",
    "stdio",
    "null",
    "none",
    "on",
    "off",
    "0",
    "1",
    "-1",
    "8",
    "1G",
    "4096",
    "18446744073709551616",
    "99999999999999999999999",
    "0x10",
    "é\u{1}",
    "%s%n",
    "../..",
    "a,b",
    "a=b",
    "a,,b",
    ",,,",
    "id=x",
    "help",
    "cortex-a72",
    "neoverse-n1,pmu=off",
    "max,pauth-impdef=on",
    "virt,gic-version=3",
    "virt,gic-version=2,secure=on",
    "virt,highmem=off",
    "cpus=2,cores=2",
    "cpus=4,sockets=2,cores=1",
    "2",
    "if=none,id=d,format=raw,file={noise}",
    "if=virtio,format=raw,file={noise}",
    "if=none,id=e,format=raw,file={missing}",
    "virtio-blk-pci,drive=d",
    "virtio-blk-device,drive=d,num-queues=3",
    "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56",
    "virtio-rng-pci,addr=3.0",
    "virtio-serial-pci,id=s",
    "virtconsole,chardev=c,bus=s.0",
    "virtio-balloon-device",
    "user,id=n",
    "user,id=n,net=10.1.0.0/16,dhcpstart=10.1.0.9",
    "user,id=n,hostfwd=tcp:127.0.0.1:0-:80",
    "null,id=c",
    "file,id=c,path=chardev-output",
    "pty,id=c",
    "file:serial-output",
    "chardev:c",
    "mon:stdio",
    "base=utc,clock=vm",
    "base=2020-02-30",
    "guest_errors,unimp",
    "memory-backend-ram,id=m,size=64M",
    "rng-random,id=r,filename=/dev/urandom",
];

#[test]
fn random_command_lines_end_well() {
    require!();
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let files = files(&scratch, 1);
    // Nothing to boot, so that no machine starts; nothing that waits or takes all of the host's memory.
    const LEFT_OUT: &[&str] = &["-S", "-s", "-gdb", "-bios", "-kernel", "-mem-prealloc", "-pidfile", "-D"];
    let help = run(&["-help"], SHORT).stdout;
    let options: Vec<&str> = help
        .lines()
        .filter(|l| l.starts_with('-'))
        .flat_map(|l| l.split(' ').filter(|w| w.starts_with('-')))
        .filter(|o| !LEFT_OUT.contains(o))
        .collect();
    assert!(options.len() > 20, "{help}");
    let mut random = Random::new(31);
    let mut wrong = Vec::new();
    for _ in 0..300 {
        let mut words = vec!["-nodefaults".to_owned(), "-display".to_owned(), "none".to_owned()];
        for _ in 0..random.below(9) {
            words.push((*random.pick(&options)).to_owned());
            if random.once_in(8) {
                continue;
            }
            let mut value = fill(random.pick::<&str>(VALUES), &files);
            if random.once_in(4) {
                // One character lost, doubled or changed.
                let at = random.below(value.chars().count() as u64 + 1) as usize;
                let change = random.below(3);
                let changed = |(i, c): (usize, char)| match (i == at, change) {
                    (false, _) => vec![c],
                    (true, 0) => vec![],
                    (true, 1) => vec![c, c],
                    (true, _) => vec![char::from(33 + (i * 7 % 90) as u8)],
                };
                value = value.chars().enumerate().flat_map(changed).collect();
            }
            if random.once_in(6) {
                value = format!("{value},{}", random.pick(VALUES));
            }
            words.push(value);
        }
        let mut command = std::process::Command::new(emulator_binary());
        command.args(&words).current_dir(scratch.path(""));
        let ended = rhea_tests::run_command(command, SHORT);
        wrong.extend(check_end(&words, &ended).err());
    }
    assert!(wrong.is_empty(), "{} command lines:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn damaged_device_trees_end_well() {
    require!();
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let good = scratch.path("good.dtb");
    let dump = |to: &str| format!("virt,dumpdtb={to}");
    let ended = run(&["-M", &dump(&good)], SHORT);
    assert!(ended.status.success(), "{}", ended.stderr);
    let good = std::fs::read(good).expect("the tree");
    let (out, damaged) = (scratch.path("out.dtb"), scratch.path("damaged.dtb"));
    let mut random = Random::new(32);
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for _ in 0..100 {
        let mut blob = good.clone();
        for _ in 0..random.below(6) {
            // Most of the blob is free space; damage what comes before.
            let at = (random.below(0x1800) as usize).min(blob.len() - 4) & !3;
            let word = *random.pick(&[0_u32, 1, 2, 3, 4, 9, 0xffff, 0x7fff_ffff, u32::MAX]);
            let at = if random.once_in(3) { random.below(10) as usize * 4 } else { at };
            blob[at..at + 4].copy_from_slice(&word.to_be_bytes());
            if random.once_in(10) {
                blob.truncate(at.max(44));
            }
        }
        std::fs::write(&damaged, &blob).expect("a file");
        let words = ["-M", &dump(&out), "-dtb", &damaged].map(String::from);
        let ended = run(&words, SHORT);
        refused += usize::from(!ended.status.success());
        wrong.extend(check_end(&words, &ended).err());
    }
    assert!(wrong.is_empty(), "{} device trees:\n{}", wrong.len(), wrong.join("\n"));
    assert!((10..100).contains(&refused), "{refused} of 100 refused");
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
