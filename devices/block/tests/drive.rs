//! Drives over files, memory and overlays.

use rhea_block::{BlockBackend, CacheMode, Drive, DriveOptions, MemoryBackend, Operation, Overlay, Segment};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

struct Image(PathBuf);

impl Image {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("rhea-block-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
    fn options(&self, more: &str) -> DriveOptions {
        DriveOptions::parse(&format!("file={}{more}", self.0.display())).unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 256) as u8).collect()
}

#[test]
fn reads_and_writes_files() {
    let image = Image::new("rw", &pattern(1 << 20));
    for cache in ["writeback", "writethrough", "unsafe", "none", "directsync"] {
        let drive = match image.options(&format!(",format=raw,discard=unmap,cache={cache}")).open("d", false) {
            Ok(d) => d,
            Err(e) if e.to_string().contains("O_DIRECT") => continue,
            Err(e) => panic!("{e}"),
        };
        let mut data = vec![0; 3000];
        drive.read_bytes(512, &mut data).unwrap();
        assert_eq!(data, pattern(1 << 20)[512..3512]);
        drive.write_bytes(4096, b"hello").unwrap();
        drive.read_bytes(4096, &mut data[..5]).unwrap();
        assert_eq!(&data[..5], b"hello");
        drive.write_bytes(4096, &pattern(1 << 20)[4096..4101]).unwrap();
        drive.run(&mut Operation::Flush).unwrap();
    }
    let drive = image.options(",discard=unmap").open("d", false).unwrap();
    drive.run(&mut Operation::WriteZeroes { offset: 8192, len: 8192, may_unmap: true, flush: true }).unwrap();
    drive.run(&mut Operation::WriteZeroes { offset: 512, len: 512, may_unmap: false, flush: false }).unwrap();
    let mut data = vec![1; 8192];
    drive.read_bytes(8192, &mut data).unwrap();
    assert!(data.iter().all(|b| *b == 0));
    drive.read_bytes(0, &mut data[..1536]).unwrap();
    assert_eq!((data[511], data[512], data[1023], data[1024]), (pattern(512)[511], 0, 0, pattern(1025)[1024]));
    assert!(drive.read_bytes((1 << 20) - 1, &mut data[..2]).is_err());
    assert!(drive.write_bytes(u64::MAX, b"x").is_err());
}

#[test]
fn completions_and_drain() {
    let drive = Drive::new("m", Arc::new(MemoryBackend::new(vec![0; 1 << 20], false)), CacheMode::Writeback);
    let (tx, rx) = channel();
    for i in 0..100u64 {
        let tx = tx.clone();
        let operation =
            Operation::Write { offset: i * 512, segments: vec![Segment::Host(vec![i as u8; 512])], flush: false };
        drive.submit(operation, Box::new(move |r, s| tx.send((r.is_ok(), s.len())).unwrap()));
    }
    drive.drain();
    drop(tx);
    assert_eq!(rx.iter().filter(|r| *r == (true, 1)).count(), 100);
    let mut data = [0; 512];
    drive.read_bytes(99 * 512, &mut data).unwrap();
    assert_eq!(data, [99; 512]);
    assert_eq!(drive.statistics(), [1, 512, 100, 51200]);
}

#[test]
fn overlay_leaves_the_image_alone() {
    let base = Arc::new(MemoryBackend::new(pattern(200 << 10), true));
    let overlay = Overlay::new(base.clone()).unwrap();
    let drive = Drive::new("o", Arc::new(overlay), CacheMode::Writeback);
    let mut expected = pattern(200 << 10);
    for (offset, len, byte) in [(1000, 10, 1u8), (65530, 100, 2), (0, 131072, 3), (204000, 800, 4)] {
        drive.write_bytes(offset as u64, &vec![byte; len]).unwrap();
        expected[offset..offset + len].fill(byte);
    }
    drive.run(&mut Operation::WriteZeroes { offset: 100_000, len: 100_000, may_unmap: true, flush: false }).unwrap();
    expected[100_000..200_000].fill(0);
    let mut data = vec![0; 200 << 10];
    drive.read_bytes(0, &mut data).unwrap();
    assert!(data == expected);
    assert!(base.content() == pattern(200 << 10));
    assert!(!drive.readonly() && base.readonly());
}

#[test]
fn one_writer_only() {
    let image = Image::new("lock", &pattern(4096));
    let first = image.options("").open("a", false).unwrap();
    for other in ["", ",readonly=on"] {
        let e = image.options(other).open("b", false).map(|_| ()).unwrap_err().to_string();
        assert!(e.contains("lock") && e.contains("rhea-block"), "{e}");
    }
    assert!(image.options(",file.locking=off").open("b", false).is_ok());
    drop(first);
    let reader = image.options(",readonly=on").open("a", false).unwrap();
    assert!(image.options(",readonly=on").open("b", false).is_ok());
    assert!(image.options("").open("b", true).is_ok(), "a snapshot only reads");
    assert!(image.options("").open("b", false).is_err());
    assert!(reader.write_bytes(0, b"x").is_err());
}

#[test]
fn odd_and_foreign_images() {
    let odd = Image::new("odd", &pattern(1000));
    let drive = odd.options("").open("d", false).unwrap();
    assert_eq!(drive.capacity(), 1024);
    let mut data = vec![9; 1024];
    drive.read_bytes(0, &mut data).unwrap();
    assert!(data[..1000] == pattern(1000) && data[1000..] == [0; 24]);
    let vdi = [&[0; 64][..], &[0x7f, 0x10, 0xda, 0xbe]].concat();
    for (content, word) in [(&b""[..], "empty"), (&b"QFI\xfb\0\0\0\x03"[..], "qcow2"), (&vdi, "vdi")] {
        let image = Image::new("foreign", content);
        let e = image.options("").open("d", false).map(|_| ()).unwrap_err().to_string();
        assert!(e.starts_with("-drive: ") && e.contains(word), "{e}");
    }
}

#[test]
fn option_errors() {
    for (text, word) in [
        ("file=x,format=qed", "'qed'"),
        ("file=x,throttling.bps-total=1,throttling.bps-read=1", "bps-total"),
        ("file=x,aio=io_uring", "aio=io_uring"),
        ("file=x,if=floppy", "'floppy'"),
        ("file=x,colour=red", "'colour'"),
        ("file=x,cache=maybe", "cache=maybe"),
    ] {
        let e = DriveOptions::parse(text).unwrap_err().to_string();
        assert!(e.starts_with("-drive: ") && e.contains(word), "{e}");
    }
    let e = DriveOptions::parse("file=/nonexistent/disk.img")
        .unwrap()
        .open("d", false)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(e.contains("/nonexistent/disk.img") && e.contains("No such file"), "{e}");
    assert!(DriveOptions::parse("if=none,id=x").unwrap().open("d", false).is_err());
    for (text, word) in [("file=ftp://host", "'ftp'"), ("file=/dev/null,file.colour=red", "'file.colour'")] {
        let e = DriveOptions::parse(text).unwrap().open("d", false).map(|_| ()).unwrap_err().to_string();
        assert!(e.starts_with("-drive: ") && e.contains(word), "{e}");
    }
    let ok = DriveOptions::parse("file=f,if=pflash,unit=1,readonly,id=fw,snapshot=off").unwrap();
    assert_eq!((ok.index, ok.readonly, ok.snapshot, ok.id.as_deref()), (Some(1), true, Some(false), Some("fw")));
}
