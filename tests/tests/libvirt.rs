//! Debian's libvirt with Rhea as its emulator: daemons of the test's own, in folders of its own.

use rhea_tests::{Board, Emulator, Run, STEP, Scratch, emulator_binary, guest_file, require, run_command};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where a program is.
fn program(name: &str) -> Option<PathBuf> {
    let path = format!("{}:/usr/sbin:/usr/bin", std::env::var("PATH").unwrap_or_default());
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// A daemon as those of users are, and what talks to it.
struct Libvirt {
    daemon: Child,
    scratch: Scratch,
    virsh: PathBuf,
}

impl Libvirt {
    /// Starts the daemon; none if it is not installed.
    fn start() -> Option<Self> {
        let (daemon, virsh) = (program("libvirtd")?, program("virsh")?);
        let scratch = Scratch::new();
        let binary = std::path::absolute(emulator_binary()).expect("a path");
        for folder in ["bin", "run", "config", "cache", "data"] {
            std::fs::create_dir(scratch.path(folder)).expect("a folder");
        }
        for board in [Board::Q35, Board::Virt] {
            let link = scratch.path(&format!("bin/{}", board.qemu()));
            std::os::unix::fs::symlink(&binary, link).expect("a link");
        }
        let mut command = as_user(&scratch, &daemon);
        let log = std::fs::File::create(scratch.path("log")).expect("a log");
        command.args(["--timeout", "300"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut libvirt = Self { daemon, scratch, virsh };
        let end = Instant::now() + STEP;
        while !Path::new(&libvirt.scratch.path("run/libvirt/libvirt-sock")).exists() {
            let ended = libvirt.daemon.try_wait().expect("a child");
            assert!(ended.is_none() && Instant::now() < end, "libvirtd: {ended:?}\n{}", libvirt.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(libvirt)
    }
    fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path("log")).unwrap_or_default()
    }
    fn command(&self, words: &[&str]) -> Command {
        let mut command = as_user(&self.scratch, &self.virsh);
        command.args(["-c", "qemu:///session"]).args(words);
        command
    }
    fn try_run(&self, words: &[&str]) -> Run {
        run_command(self.command(words), STEP)
    }
    /// What a command of `virsh` prints; it must succeed.
    fn run(&self, words: &[&str]) -> String {
        let run = self.try_run(words);
        assert!(run.status.success(), "virsh {words:?}: {}\n{}", run.stderr, self.log());
        run.stdout
    }
    /// Waits until what a command prints does not have `word` any more.
    fn gone(&self, words: &[&str], word: &str) {
        let end = Instant::now() + STEP;
        while self.run(words).contains(word) {
            assert!(Instant::now() < end, "{word} stays: virsh {words:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        for board in [Board::Q35, Board::Virt] {
            // It may not run, or not be there.
            self.try_run(&["destroy", board.machine()]);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A program whose home is the scratch folder, and which finds no emulators but those there. libvirt serves root differently: where the
/// tests are run by root it is another user as far as it can see.
fn as_user(scratch: &Scratch, file: &Path) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new(program("unshare").unwrap_or_else(|| "unshare".into()));
        command.args(["--user", "--map-user=1000", "--map-group=1000"]).arg(file);
        command
    } else {
        Command::new(file)
    };
    command.env_clear().env("PATH", scratch.path("bin")).env("HOME", scratch.path(""));
    for (name, folder) in
        [("RUNTIME_DIR", "run"), ("CONFIG_HOME", "config"), ("CACHE_HOME", "cache"), ("DATA_HOME", "data")]
    {
        command.env(format!("XDG_{name}"), scratch.path(folder));
    }
    command.env("LC_ALL", "C").env("TERM", "dumb");
    command
}

/// A guest as its user describes it: Linux on a serial port, and free slots.
fn domain(board: Board, emulator: &str) -> String {
    let arch = board.qemu().trim_start_matches("qemu-system-");
    let (name, console) = (board.machine(), board.console());
    let (kernel, initrd) = (guest_file(&board.file("kernel")), guest_file(&board.file("initramfs")));
    let (features, cd) = match board {
        Board::Q35 => (
            "<features><acpi/><apic/></features>",
            "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>",
        ),
        _ => ("", ""),
    };
    let port = "<controller type='pci' model='pcie-root-port'/>".repeat(6);
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>\
         <os><type arch='{arch}' machine='{name}'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>\
         <cmdline>console={console} quiet</cmdline></os>{features}<cpu mode='maximum'/><devices>\
         <emulator>{emulator}</emulator><controller type='pci' model='pcie-root'/>{port}{cd}\
         <serial type='pty'/><console type='pty'/></devices></domain>"
    )
}

/// Both guests are probed, defined, started, used by their consoles, given disks and network cards, relieved of them, saved, restored,
/// moved to another daemon, and destroyed.
#[test]
fn guests_of_libvirt() {
    require!("kernel", "initramfs", "amd64/kernel", "amd64/initramfs");
    let Some(libvirt) = Libvirt::start() else {
        assert!(std::env::var_os("RHEA_TESTS_COMPLETE").is_none(), "libvirtd is missing");
        return eprintln!("skipped: libvirtd and virsh are missing; tests/install installs them");
    };
    let scratch = &libvirt.scratch;
    let boards = [(Board::Q35, "pc-q35-10.0"), (Board::Virt, "virt-10.0")];
    for (board, version) in boards {
        let (name, emulator) = (board.machine(), scratch.path(&format!("bin/{}", board.qemu())));
        let arch = board.qemu().trim_start_matches("qemu-system-");
        let can =
            ["domcapabilities", "--arch", arch, "--emulatorbin", &emulator, "--machine", name, "--virttype", "qemu"];
        let can = libvirt.run(&can);
        assert!(
            can.contains(&format!("<machine>{version}</machine>")) && can.contains("name='maximum' supported='yes'"),
            "{can}"
        );
        libvirt.run(&["define", &scratch.file(&format!("{name}.xml"), domain(board, &emulator).as_bytes())]);
        assert!(libvirt.run(&["dumpxml", name]).contains(&format!("machine='{version}'")));
        libvirt.run(&["start", name]);
    }
    let mut consoles = boards.map(|(board, _)| {
        let mut console = Emulator::start_command_on_terminal(libvirt.command(&["console", board.machine()]));
        console.expect("Escape character", STEP);
        console.send("\n");
        console.expect("guest# ", STEP);
        console
    });
    let device = |board: Board, name: &str, text: &str| {
        scratch.file(&format!("{}-{name}.xml", board.machine()), text.as_bytes())
    };
    let mut given = Vec::new();
    for (n, (board, _)) in boards.into_iter().enumerate() {
        let name = board.machine();
        let raw = scratch.file(&format!("{name}.raw"), format!("disk of {name}\n").as_bytes());
        std::fs::File::options().write(true).open(&raw).and_then(|f| f.set_len(8 << 20)).expect("a disk");
        let (format, file) = match board {
            Board::Q35 => {
                let image = scratch.path("q35.qcow2");
                let mut convert = Command::new(emulator_binary());
                convert.args(["img", "convert", "-f", "raw", "-O", "qcow2", &raw, &image]);
                let done = run_command(convert, STEP);
                assert!(done.status.success(), "{}", done.stderr);
                ("qcow2", image)
            }
            _ => ("raw", raw),
        };
        let disk = format!(
            "<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{file}'/>\
             <target dev='vda' bus='virtio'/></disk>"
        );
        let card =
            format!("<interface type='user'><mac address='52:54:00:00:00:7{n}'/><model type='virtio'/></interface>");
        let files = [device(board, "disk", &disk), device(board, "card", &card)];
        files.iter().for_each(|file| drop(libvirt.run(&["attach-device", name, file])));
        given.push(files);
    }
    for (n, (board, _)) in boards.into_iter().enumerate() {
        let (name, console) = (board.machine(), &mut consoles[n]);
        console.send(&format!(
            "until grep -q vda /proc/partitions && grep -q 52:54:00:00:00:7{n} /sys/class/net/*/address; do sleep 0.2; done\n\
             head -n 1 /dev/vda\n"
        ));
        console.expect(&format!("disk of {name}"), STEP);
        assert!(libvirt.run(&["domblkstat", name, "vda"]).contains("rd_bytes"));
    }
    libvirt.run(&["suspend", "virt"]);
    assert!(libvirt.run(&["domstate", "virt"]).contains("paused"));
    libvirt.run(&["resume", "virt"]);
    let disc = scratch.file("disc.iso", &[b'7'; 64 * 2048]);
    libvirt.run(&["change-media", "q35", "sda", &disc, "--insert", "--live"]);
    consoles[0].send("until head -c 3 /dev/sr0 | grep 777; do sleep 0.2; done; echo me''dium\n");
    consoles[0].expect("medium", STEP);
    libvirt.run(&["change-media", "q35", "sda", "--eject", "--live", "--force"]);
    // An image over that of a disk and back into it, and a disk that is copied while it is in use.
    let (over, copy) = (scratch.path("over.qcow2"), scratch.path("copy.raw"));
    let spec = format!("vda,file={over}");
    libvirt.run(&["snapshot-create-as", "q35", "snap", "--disk-only", "--no-metadata", "--diskspec", &spec]);
    assert!(libvirt.run(&["domblklist", "q35"]).contains(&over));
    libvirt.run(&["blockcommit", "q35", "vda", "--active", "--pivot", "--wait"]);
    assert!(!libvirt.run(&["domblklist", "q35"]).contains(&over));
    let words = ["blockcopy", "virt", "vda", &copy, "--format", "raw", "--transient-job", "--wait", "--pivot"];
    libvirt.run(&words);
    assert!(libvirt.run(&["domblklist", "virt"]).contains(&copy));
    for (console, name) in consoles.iter_mut().zip(["q35", "virt"]) {
        console.send("echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/vda\n");
        console.expect(&format!("disk of {name}"), STEP);
    }
    // A guest that is slow to give a device up is waited for.
    for ((board, _), files) in boards.into_iter().zip(&given) {
        files.iter().for_each(|file| drop(libvirt.run(&["detach-device", board.machine(), file])));
    }
    for (n, (board, _)) in boards.into_iter().enumerate() {
        let name = board.machine();
        libvirt.gone(&["domblklist", name], "vda");
        libvirt.gone(&["domiflist", name], "52:54");
        consoles[n].send("until ! grep vda /proc/partitions; do sleep 0.2; done; echo no''thing\n");
        consoles[n].expect("nothing", STEP);
    }
    // The same again finds everything free.
    libvirt.run(&["attach-device", "virt", &given[1][0]]);
    libvirt.run(&["attach-device", "q35", &given[0][0]]);
    // To a file and back, and back to a snapshot, each time in a new process.
    let saved = scratch.path("saved");
    libvirt.run(&["save", "q35", &saved]);
    libvirt.run(&["restore", &saved]);
    libvirt.run(&["snapshot-create-as", "q35", "internal"]);
    libvirt.run(&["snapshot-revert", "q35", "internal"]);
    libvirt.run(&["snapshot-delete", "q35", "internal"]);
    assert_eq!(libvirt.run(&["snapshot-list", "q35", "--name"]).trim(), "");
    // To another daemon: with the image where it is, and with a copy of it.
    let other = Libvirt::start().expect("another daemon");
    let to = format!("qemu+unix:///session?socket={}", other.scratch.path("run/libvirt/libvirt-sock"));
    let place = |name: &str| format!("unix://{}", other.scratch.path(name));
    let own = other.scratch.path("virt.raw");
    std::fs::File::create(&own).and_then(|f| f.set_len(8 << 20)).expect("a disk");
    let there = libvirt.run(&["dumpxml", "virt"]).replace(&scratch.path("virt.raw"), &own);
    let there = scratch.file("there.xml", there.as_bytes());
    let (way, disks) = (place("way"), place("disks"));
    libvirt.run(&["migrate", "--live", "--unsafe", "q35", &to, "--migrateuri", &way]);
    let copies = ["--copy-storage-all", "--disks-uri", &disks, "--xml", &there];
    libvirt.run(&[&["migrate", "--live", "virt", &to, "--migrateuri", &way], &copies[..]].concat());
    for (board, _) in boards {
        let name = board.machine();
        assert!(libvirt.run(&["domstate", name]).contains("shut off"));
        let mut console = Emulator::start_command_on_terminal(other.command(&["console", name]));
        console.expect("Escape character", STEP);
        // What is typed before virsh has taken over the terminal is lost.
        let end = Instant::now() + STEP;
        while Instant::now() < end {
            console.send("\n");
            if console.appears("guest# ", Duration::from_secs(1)) {
                break;
            }
        }
        console.send(
            "until grep -q vda /proc/partitions; do sleep 0.2; done; echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/vda\n",
        );
        console.expect(&format!("disk of {name}"), STEP);
        other.run(&["destroy", name]);
        libvirt.run(&["undefine", name]);
    }
    let left = libvirt.run(&["list", "--all", "--name"]);
    assert_eq!(left.trim(), "", "{}", libvirt.log());
}
