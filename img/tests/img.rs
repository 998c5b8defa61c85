//! `rhea img` beside Debian's `qemu-img`, on the same images.

use rhea_img::Output;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A directory that is gone at the end, one at a time (a process that is just being made holds the locks of its parent).
struct Scratch(PathBuf, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Scratch {
    fn new(name: &str) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let there = Command::new("qemu-img").arg("--version").output().is_ok();
        assert!(there || std::env::var_os("RHEA_TESTS_COMPLETE").is_none(), "qemu-utils is not installed");
        if !there {
            eprintln!("skipped: qemu-utils is not installed");
            return None;
        }
        let path = std::env::temp_dir().join(format!("rhea-img-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Some(Self(path, turn))
    }
    /// Replaces `@` by the directory.
    fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace().map(|w| w.replace('@', self.0.to_str().unwrap())).collect()
    }
    /// Status, output and errors of `rhea img`.
    fn rhea(&self, line: &str) -> (i32, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = rhea_img::run(&self.words(line), &mut Output { out: &mut out, err: &mut err });
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }
    fn good(&self, line: &str) -> String {
        let (status, out, err) = self.rhea(line);
        assert!(status == 0, "img {line}: {status} {out}{err}");
        out
    }
    fn tool(&self, line: &str) -> (i32, String) {
        let o = Command::new("qemu-img").args(self.words(line)).output().unwrap();
        (o.status.code().unwrap(), String::from_utf8_lossy(&o.stdout).into_owned())
    }
    fn tool_good(&self, line: &str) -> String {
        let o = Command::new("qemu-img").args(self.words(line)).output().unwrap();
        assert!(o.status.success(), "qemu-img {line}: {}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8_lossy(&o.stdout).into_owned()
    }
    fn io(&self, image: &str, commands: &str) {
        let mut args = Vec::new();
        for c in commands.split(';') {
            args.extend(["-c", c]);
        }
        let image = image.replace('@', self.0.to_str().unwrap());
        args.push(&image);
        let o = Command::new("qemu-io").args(&args).output().unwrap();
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stdout));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// JSON whose order does not matter.
fn same_json(a: &str, b: &str) {
    let parse = |t: &str| serde_json::from_str::<serde_json::Value>(t).unwrap();
    let (mut a, mut b) = (parse(a), parse(b));
    for v in [&mut a, &mut b] {
        v.sort_all_objects();
    }
    assert_eq!(a, b);
}

#[test]
fn output_is_that_of_the_tools() {
    let Some(s) = Scratch::new("output") else { return };
    s.good("create -q -f raw @/base.raw 3M");
    s.io("@/base.raw", "write 0 100k;write 2M 64k");
    let line = "create -f qcow2 -b @/base.raw -F raw -o cluster_size=64k,lazy_refcounts=on";
    assert_eq!(s.good(&format!("{line} @/a.qcow2 4M")), s.tool_good(&format!("{line} @/a.qcow2 4M")));
    s.io("@/a.qcow2", "write 100k 70k;write -z 1M 256k;write 3M 1M");
    s.tool_good("snapshot -c one @/a.qcow2");
    s.tool_good("bitmap --add @/a.qcow2 bitmap");
    for image in ["@/a.qcow2", "@/base.raw"] {
        assert_eq!(s.good(&format!("info {image}")), s.tool_good(&format!("info {image}")));
        same_json(
            &s.good(&format!("info --output=json {image}")),
            &s.tool_good(&format!("info --output=json {image}")),
        );
    }
    same_json(
        &s.good("info --backing-chain --output json @/a.qcow2"),
        &s.tool_good("info --backing-chain --output json @/a.qcow2"),
    );
    assert_eq!(s.good("map @/a.qcow2"), s.tool_good("map @/a.qcow2"));
    same_json(&s.good("map --output=json @/a.qcow2"), &s.tool_good("map --output=json @/a.qcow2"));
    assert_eq!(s.good("check @/a.qcow2"), s.tool_good("check @/a.qcow2"));
    same_json(&s.good("check --output=json @/a.qcow2"), &s.tool_good("check --output=json @/a.qcow2"));
    assert_eq!(s.good("snapshot -l @/a.qcow2"), s.tool_good("snapshot -l @/a.qcow2"));
    for (a, b) in [("@/a.qcow2", "@/base.raw"), ("@/base.raw", "@/base.raw")] {
        for more in ["", "-s "] {
            let (status, out, _) = s.rhea(&format!("compare {more}{a} {b}"));
            assert_eq!((status, out), s.tool(&format!("compare {more}{a} {b}")));
        }
    }
}

#[test]
fn conversions() {
    let Some(s) = Scratch::new("convert") else { return };
    s.good("create -q -f qcow2 @/a.qcow2 20M");
    s.io("@/a.qcow2", "write -P 7 0 3M;write -P 8 5000k 1M;write -z 6M 1M;write -P 9 19M 1M");
    for (n, options) in [
        "-O raw",
        "-O raw -S 0",
        "-O qcow2",
        "-O qcow2 -c",
        "-O qcow2 -c -o compression_type=zstd,cluster_size=32k",
        "-O qcow2 -c -o cluster_size=512",
        "-O qcow2 -c -o extended_l2=on",
        "-O qcow2 -o preallocation=full",
        "-O qcow2 -o compat=0.10 -m 3",
    ]
    .iter()
    .enumerate()
    {
        s.good(&format!("convert -p {options} @/a.qcow2 @/{n}"));
        assert_eq!(s.tool(&format!("compare @/a.qcow2 @/{n}")).0, 0, "{options}");
        assert_eq!(s.rhea(&format!("compare @/a.qcow2 @/{n}")).0, 0, "{options}");
        if options.contains("qcow2") {
            s.tool_good(&format!("check @/{n}"));
            s.good(&format!("check @/{n}"));
        }
        // And back, from what the tools made of it.
        s.tool_good(&format!("convert {options} @/{n} @/tool"));
        s.good(&format!("convert -O {} @/tool @/back", if options.contains("raw") { "qcow2" } else { "raw" }));
        assert_eq!(s.tool("compare @/a.qcow2 @/back").0, 0, "{options}");
    }
    let size = |name: &str| std::fs::metadata(s.0.join(name)).unwrap().len();
    assert!(size("3") < 1 << 20 && size("2") > 5 << 20);
    // Several sources, a snapshot, a backing file.
    s.tool_good("snapshot -c old @/a.qcow2");
    s.tool_good("convert -O raw @/a.qcow2 @/old.raw");
    s.io("@/a.qcow2", "write -P 1 0 20M");
    s.good("convert -l old -O qcow2 @/a.qcow2 @/old.qcow2");
    assert_eq!(s.tool("compare @/old.raw @/old.qcow2").0, 0);
    s.good("convert -O raw @/old.raw @/a.qcow2 @/both.raw");
    assert_eq!(size("both.raw"), 40 << 20);
    s.good("convert -O qcow2 -B @/old.raw -F raw @/a.qcow2 @/over.qcow2");
    assert_eq!(s.tool("compare @/a.qcow2 @/over.qcow2").0, 0);
}

#[test]
fn rebase_resize_and_snapshots() {
    let Some(s) = Scratch::new("rebase") else { return };
    s.tool_good("create -q -f raw @/one.raw 8M");
    s.tool_good("create -q -f raw @/two.raw 6M");
    s.io("@/one.raw", "write -P 1 0 4M;write -P 2 7M 1M");
    s.io("@/two.raw", "write -P 1 0 1M;write -P 3 2M 3M");
    s.good("create -q -f qcow2 -b one.raw -F raw @/top.qcow2");
    s.io("@/top.qcow2", "write -P 9 512k 100k;write -z 3M 64k");
    s.tool_good("convert -O raw @/top.qcow2 @/content.raw");
    for backing in ["-b two.raw -F raw", "-b one.raw -F raw"] {
        s.good(&format!("rebase -p {backing} @/top.qcow2"));
        assert_eq!(s.tool("compare @/top.qcow2 @/content.raw").0, 0, "{backing}");
        s.tool_good("check @/top.qcow2");
    }
    let (status, _, err) = s.rhea("rebase -b two.raw @/top.qcow2");
    assert!(status == 1 && err.contains("-F"), "{err}");
    assert!(s.good("info @/top.qcow2").contains("backing file: one.raw"));
    s.good("rebase -u -b two.raw -F raw @/top.qcow2");
    s.good("rebase -u -b one.raw -F raw @/top.qcow2");
    s.good("rebase --backing= @/top.qcow2");
    assert!(!s.good("info @/top.qcow2").contains("backing file"));
    assert_eq!(s.tool("compare @/top.qcow2 @/content.raw").0, 0);
    assert_eq!(s.good("resize @/top.qcow2 +1M"), "Image resized.\n");
    assert!(s.tool_good("info @/top.qcow2").contains("9 MiB"));
    let (status, _, err) = s.rhea("resize @/top.qcow2 -2M");
    assert!(status == 1 && err.contains("--shrink"), "{err}");
    s.good("resize --shrink @/top.qcow2 -2M");
    s.tool_good("check @/top.qcow2");
    s.good("snapshot -c one @/top.qcow2");
    s.io("@/top.qcow2", "write -P 5 0 1M");
    s.good("snapshot -c two @/top.qcow2");
    s.good("snapshot -a one @/top.qcow2");
    s.good("resize -q @/one.raw 16M");
    s.tool_good("check @/top.qcow2");
    s.good("snapshot -d one @/top.qcow2");
    s.good("snapshot -d 2 @/top.qcow2");
    assert_eq!(s.good("snapshot @/top.qcow2"), "");
    s.tool_good("check @/top.qcow2");
    let size = std::fs::metadata(s.0.join("one.raw")).unwrap().len();
    assert_eq!(size, 16 << 20);
}

#[test]
fn errors_are_one_line() {
    let Some(s) = Scratch::new("errors") else { return };
    s.good("create -q -f qcow2 @/a.qcow2 1M");
    for (line, word) in [
        ("frobnicate", "frobnicate"),
        ("create @/x", "size"),
        ("create -f qcow2 @/x 1Q", "1Q"),
        ("create -f qed @/x 1M", "qed"),
        ("create -f qcow2 -o cluster_size=3k @/x 1M", "power of two"),
        ("create -f qcow2 -o colour=red @/x 1M", "colour"),
        ("create -f qcow2 -b @/a.qcow2 @/x", "-F"),
        ("create -f qcow2 -b @/none -F raw @/x", "none"),
        ("create -f qcow2 -o encryption=on @/x 1M", "encryption"),
        ("info @/none", "No such file"),
        ("info --output=xml @/a.qcow2", "xml"),
        ("info", "FILE"),
        ("check -r some @/a.qcow2", "some"),
        ("snapshot -a nothing @/a.qcow2", "nothing"),
        ("convert -c -O raw @/a.qcow2 @/x", "compressed"),
        ("convert -O qcow2 @/a.qcow2 @/none/x", "No such file"),
        ("resize @/a.qcow2 5X", "5X"),
        ("map -Z @/a.qcow2", "-Z"),
    ] {
        let (status, _, err) = s.rhea(line);
        assert!(status != 0 && err.contains(word) && err.lines().count() == 1, "{line}: {status} {err}");
    }
    let (status, _, err) = s.rhea("compare @/a.qcow2 @/none");
    assert!(status == 2 && err.lines().count() == 1, "{err}");
    assert_eq!(s.rhea("check -f raw @/a.qcow2").0, 63);
    assert!(s.good("-h").contains("convert") && s.good("convert -h").contains("--target-format"));
    assert!(s.good("create -f qcow2 -o help @/x").contains("cluster_size"));
}

#[test]
fn nbd_both_ways() {
    use rhea_block::nbd::{Address, Export, NbdServer};
    let Some(s) = Scratch::new("nbd") else { return };
    s.tool_good("create -q -f qcow2 @/a.qcow2 12M");
    s.io("@/a.qcow2", "write -P 7 1M 3M");
    s.tool_good("create -q -f raw @/b.raw 12M");
    // Their server, our client.
    let socket = s.0.join("theirs");
    let mut server = Command::new("qemu-nbd")
        .args(["-t", "-e", "8", "-f", "qcow2", "-x", "export", "-k"])
        .args([&socket, &s.0.join("a.qcow2")])
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let name = format!("nbd+unix:///export?socket={}", socket.display());
    let convert = s.rhea(&format!("convert -f raw -O raw {name} @/copy.raw"));
    let write = {
        let node = rhea_block::open_image(&name, Some("raw"), &Default::default()).unwrap();
        let b = node.backend();
        b.write_bytes(5_000_001, b"hello").unwrap();
        b.write_zeroes(1 << 20, 1 << 20, true).unwrap();
        b.discard(0, 1 << 20).unwrap();
        b.flush().unwrap();
        let mut data = [0; 7];
        b.read_bytes(5_000_000, &mut data).unwrap();
        data
    };
    let missing = s.rhea(&format!("info nbd:unix:{}:exportname=other", socket.display()));
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!((convert.0, write), (0, *b"\0hello\0"), "{convert:?}");
    assert!(missing.0 == 1 && missing.2.contains("'other'"), "{missing:?}");
    assert_eq!(std::fs::read(s.0.join("copy.raw")).unwrap()[2 << 20], 7);
    // Our server, their client.
    let node = rhea_block::open_image(s.0.join("a.qcow2").to_str().unwrap(), None, &Default::default()).unwrap();
    let socket = s.0.join("ours");
    let server = NbdServer::listen(&Address::Unix(socket.clone()), 0, |_| {}).unwrap();
    let export = |name: &str, readonly| Export {
        name: name.to_owned(),
        description: String::new(),
        backend: node.backend(),
        readonly,
    };
    server.add(export("export", false)).unwrap();
    server.add(export("other", true)).unwrap();
    assert!(server.add(export("other", true)).unwrap_err().contains("other"));
    let name = format!("nbd+unix:///export?socket={}", socket.display());
    s.tool_good(&format!("convert -n -f raw -O raw {name} @/b.raw"));
    let raw = std::fs::read(s.0.join("b.raw")).unwrap();
    assert!(raw[5_000_001..5_000_006] == *b"hello" && raw[1 << 20] == 0 && raw[3 << 20] == 7);
    s.io(&name, "write -P 9 9M 1M;write -z 3M 64k;discard 0 1M;flush");
    assert_eq!(s.tool(&format!("compare -f raw -F raw {name} {name}")).0, 0);
    let map = s.tool_good(&format!("map --output=json -f raw {name}"));
    assert!(map.contains("\"zero\": true") && map.contains("\"data\": true"), "{map}");
    let mut byte = [0];
    node.backend().read_bytes(9 << 20, &mut byte).unwrap();
    assert_eq!(byte, [9]);
    let list = Command::new("qemu-nbd").args(["-L", "-k"]).arg(&socket).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("'export'") && list.contains("'other'") && list.contains("base:allocation"), "{list}");
    server.remove("other", false).unwrap();
    assert_eq!(server.exports(), ["export"]);
    drop(server);
    let (status, _, err) = s.rhea(&format!("info {name}"));
    assert!(status == 1 && err.lines().count() == 1, "{err}");
    node.backend().close().unwrap();
    drop(node);
    s.tool_good("check @/a.qcow2");
}
