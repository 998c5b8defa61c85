//! Images that Rhea writes are read and checked by Debian's disk tools, and the other way round.

mod common;

use common::{Random, Scratch, check, content, good, mutate, open, raw_content, run, same, tools};
use rhea_block::image::{ImageOptions, create};
use rhea_block::qcow2::{CreateOptions, Fix};
use rhea_block::{BlockBackend, NodeOptions};

const SIZE: u64 = 8 << 20;

const SHAPES: &[&str] = &[
    "",
    "compat=0.10",
    "cluster_size=512",
    "cluster_size=2M",
    "cluster_size=4k,refcount_bits=1",
    "refcount_bits=2,cluster_size=1k",
    "refcount_bits=8",
    "refcount_bits=64,cluster_size=32k",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k,compression_type=zstd",
    "lazy_refcounts=on",
    "preallocation=metadata",
    "preallocation=full",
    "compression_type=zstd",
];

fn options(text: &str) -> CreateOptions {
    let mut o = NodeOptions::parse(text).unwrap();
    let mut c = CreateOptions::take(&mut o).unwrap();
    c.size = SIZE;
    c
}

#[test]
fn rhea_writes() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("writes");
    for (n, shape) in SHAPES.iter().enumerate() {
        let image = scratch.text("image.qcow2");
        create(image.as_ref(), &ImageOptions::Qcow2(options(shape))).unwrap();
        check(&image, false);
        let mut model = vec![0; SIZE as usize];
        let mut random = Random(n as u64 * 77 + 1);
        for _ in 0..3 {
            let node = open(&image, false);
            mutate(&*node.backend(), &mut model, &mut random, 60);
            same(&content(&*node.backend()), &model, shape);
            node.backend().close().unwrap();
            drop(node);
            check(&image, false);
            same(&raw_content(&scratch, &image), &model, shape);
        }
        let node = open(&image, true);
        let report = node.qcow2().unwrap().check(Fix::Nothing, &mut |_, text| panic!("{shape}: {text}")).unwrap();
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{shape}");
    }
}

#[test]
fn tools_write() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("tools");
    for (n, shape) in SHAPES.iter().enumerate() {
        let image = scratch.text("image.qcow2");
        let given = if shape.is_empty() { "cluster_size=64k" } else { shape };
        good("qemu-img", &["create", "-q", "-f", "qcow2", "-o", given, &image, "8M"]);
        let mut random = Random(n as u64 * 31 + 5);
        let mut commands = Vec::new();
        for _ in 0..25 {
            let at = random.below(SIZE - 600_000) & !511;
            let len = (1 + random.below(600_000)).next_multiple_of(512);
            commands.push(match random.below(8) {
                0 => format!("write -z -u {at} {len}"),
                1 => format!("write -z {at} {len}"),
                2 => format!("discard {at} {len}"),
                3 if !shape.contains("extended") => {
                    let c = 65536.max(if shape.contains("2M") { 2 << 20 } else { 0 });
                    format!("write -c -P {} {} {c}", random.below(255) + 1, at / c * c)
                }
                _ => format!("write -P {} {at} {len}", random.below(255) + 1),
            });
        }
        let mut args = vec!["-f", "qcow2"];
        commands.iter().for_each(|c| args.extend(["-c", c.as_str()]));
        args.push(&image);
        // Some of them are refused for some shapes.
        run("qemu-io", &args);
        let expected = raw_content(&scratch, &image);
        let node = open(&image, true);
        same(&content(&*node.backend()), &expected, shape);
        let report = node.qcow2().unwrap().check(Fix::Nothing, &mut |_, text| panic!("{shape}: {text}")).unwrap();
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{shape}");
        drop(node);
        // And goes on with it.
        let mut model = expected;
        let node = open(&image, false);
        mutate(&*node.backend(), &mut model, &mut random, 60);
        node.backend().close().unwrap();
        drop(node);
        check(&image, false);
        same(&raw_content(&scratch, &image), &model, shape);
    }
}

#[test]
fn backing_chains() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("chain");
    let mut random = Random(9);
    for shape in ["", "extended_l2=on", "compat=0.10", "cluster_size=4k"] {
        let base: Vec<u8> = (0..5 << 20).map(|i: u32| (i / 4096) as u8 | 1).collect();
        std::fs::write(scratch.path("base.raw"), &base).unwrap();
        let middle = CreateOptions {
            backing_file: Some("base.raw".to_owned()),
            backing_format: Some("raw".to_owned()),
            ..options(shape)
        };
        create(&scratch.path("middle.qcow2"), &ImageOptions::Qcow2(CreateOptions { size: 6 << 20, ..middle })).unwrap();
        let json = "json:{\"driver\":\"qcow2\",\"file.filename\":\"".to_owned() + &scratch.text("middle.qcow2") + "\"}";
        let top =
            CreateOptions { backing_file: Some(json), backing_format: Some("qcow2".to_owned()), ..options(shape) };
        create(&scratch.path("top.qcow2"), &ImageOptions::Qcow2(top)).unwrap();
        let mut model = base.clone();
        model.resize(6 << 20, 0);
        let node = open(&scratch.text("middle.qcow2"), false);
        mutate(&*node.backend(), &mut model, &mut random, 40);
        node.backend().close().unwrap();
        drop(node);
        check(&scratch.text("middle.qcow2"), false);
        model.resize(SIZE as usize, 0);
        let node = open(&scratch.text("top.qcow2"), false);
        same(&content(&*node.backend()), &model, shape);
        mutate(&*node.backend(), &mut model, &mut random, 60);
        same(&content(&*node.backend()), &model, shape);
        node.backend().close().unwrap();
        drop(node);
        check(&scratch.text("top.qcow2"), false);
        same(&raw_content(&scratch, &scratch.text("top.qcow2")), &model, shape);
    }
}

/// The state of a machine behind the end of the disk: kept with its snapshot, nowhere else.
#[test]
fn machine_state() {
    use rhea_block::qcow2::{VmStateReader, VmStateWriter};
    use std::io::{Read, Write};
    if !tools() {
        return;
    }
    let scratch = Scratch::new("machine_state");
    for shape in ["", "cluster_size=4k", "compat=0.10", "extended_l2=on"] {
        let image = scratch.text("image.qcow2");
        create(image.as_ref(), &ImageOptions::Qcow2(options(shape))).unwrap();
        let node = open(&image, false);
        let q = node.qcow2().unwrap();
        let mut model = vec![0; SIZE as usize];
        mutate(&*node.backend(), &mut model, &mut Random(5), 40);
        // What a writer leaves without a snapshot is gone with the next one.
        VmStateWriter::new(q).unwrap().write_all(&vec![3; 2 << 20]).unwrap();
        let states: Vec<Vec<u8>> =
            [1u8, 2].iter().map(|n| (0..3_000_000u32).map(|i| (i >> 9) as u8 ^ n).collect()).collect();
        for (name, state) in ["a", "b"].iter().zip(&states) {
            let mut writer = VmStateWriter::new(q).unwrap();
            writer.write_all(state).unwrap();
            writer.flush().unwrap();
            assert_eq!(writer.written(), state.len() as u64);
            q.create_snapshot_with(name, 1, 2, 3, writer.written()).unwrap();
            q.drop_vm_state().unwrap();
            mutate(&*node.backend(), &mut model, &mut Random(6), 40);
        }
        let read = |name: &str| {
            let mut data = Vec::new();
            VmStateReader::new(q, name).unwrap().read_to_end(&mut data).unwrap();
            data
        };
        assert!(read("a") == states[0] && read("b") == states[1]);
        same(&content(&*node.backend()), &model, shape);
        q.apply_snapshot("a").unwrap();
        q.drop_vm_state().unwrap();
        assert!(read("a") == states[0] && read("b") == states[1]);
        assert!(VmStateReader::new(q, "c").is_err());
        q.delete_snapshot("a").unwrap();
        assert!(read("b") == states[1]);
        node.backend().close().unwrap();
        drop(node);
        check(&image, false);
        assert!(good("qemu-img", &["snapshot", "-l", &image]).contains("2.86 MiB"));
    }
}

#[test]
fn snapshots() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("snapshots");
    for (n, shape) in ["", "extended_l2=on", "cluster_size=512", "compat=0.10", "refcount_bits=4"].iter().enumerate() {
        let image = scratch.text("image.qcow2");
        create(image.as_ref(), &ImageOptions::Qcow2(options(shape))).unwrap();
        let mut model = vec![0; SIZE as usize];
        let mut random = Random(n as u64 + 100);
        let node = open(&image, false);
        let q = node.qcow2().unwrap();
        mutate(&**q, &mut model, &mut random, 30);
        q.create_snapshot("one").unwrap();
        let one = model.clone();
        mutate(&**q, &mut model, &mut random, 30);
        q.create_snapshot("two").unwrap();
        let two = model.clone();
        mutate(&**q, &mut model, &mut random, 30);
        same(&content(&**q), &model, shape);
        let mut old = vec![0; SIZE as usize];
        q.read_snapshot("one", 0, &mut old).unwrap();
        same(&old, &one, shape);
        q.close().unwrap();
        drop(node);
        check(&image, false);
        let list = good("qemu-img", &["snapshot", "-l", &image]);
        assert!(list.contains("one") && list.contains("two"), "{list}");
        // The tools go back, take another, and Rhea goes on.
        good("qemu-img", &["snapshot", "-a", "one", &image]);
        same(&content(&*open(&image, true).backend()), &one, shape);
        good("qemu-img", &["snapshot", "-c", "three", &image]);
        let node = open(&image, false);
        let q = node.qcow2().unwrap();
        q.apply_snapshot("two").unwrap();
        model = two;
        same(&content(&**q), &model, shape);
        mutate(&**q, &mut model, &mut random, 30);
        q.delete_snapshot("one").unwrap();
        q.delete_snapshot("2").unwrap();
        same(&content(&**q), &model, shape);
        mutate(&**q, &mut model, &mut random, 20);
        q.close().unwrap();
        assert!(q.apply_snapshot("one").is_err());
        drop(node);
        check(&image, false);
        same(&raw_content(&scratch, &image), &model, shape);
        good("qemu-img", &["snapshot", "-d", "three", &image]);
        check(&image, false);
    }
}

#[test]
fn sizes_bitmaps_and_data_files() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("more");
    let image = scratch.text("image.qcow2");
    let mut random = Random(4);
    // Sizes.
    for shape in ["", "cluster_size=512", "compat=0.10", "extended_l2=on"] {
        create(image.as_ref(), &ImageOptions::Qcow2(options(shape))).unwrap();
        let mut model = vec![0; SIZE as usize];
        let node = open(&image, false);
        let b = node.backend();
        mutate(&*b, &mut model, &mut random, 40);
        for size in [SIZE + 1_000_448, SIZE + (64 << 20), 3 << 20, (3 << 20) - 512, 5 << 20] {
            b.resize(size).unwrap();
            model.resize(size as usize, 0);
            same(&content(&*b), &model, shape);
            mutate(&*b, &mut model, &mut random, 5);
        }
        b.close().unwrap();
        drop((b, node));
        check(&image, false);
        same(&raw_content(&scratch, &image), &model, shape);
    }
    // A bitmap records writes, and is trusted again after a clean end.
    create(image.as_ref(), &ImageOptions::Qcow2(options(""))).unwrap();
    good("qemu-img", &["bitmap", "--add", "-g", "64k", &image, "b"]);
    let node = open(&image, false);
    node.backend().write_bytes(1 << 20, &[1; 100]).unwrap();
    node.backend().flush().unwrap();
    assert!(good("qemu-img", &["info", "-U", &image]).contains("in-use"));
    node.backend().close().unwrap();
    drop(node);
    check(&image, false);
    assert!(!good("qemu-img", &["info", &image]).contains("in-use"));
    let copy = scratch.text("copy.qcow2");
    create(copy.as_ref(), &ImageOptions::Qcow2(options(""))).unwrap();
    good("qemu-img", &["bitmap", "--add", "-g", "64k", &copy, "b"]);
    good("qemu-img", &["bitmap", "--merge", "b", "-b", &image, "-F", "qcow2", &copy, "b"]);
    // External data file.
    for raw in ["", ",data_file_raw=on"] {
        let (data, image) = (scratch.text("data.raw"), scratch.text("external.qcow2"));
        let _ = std::fs::remove_file(&data);
        create(image.as_ref(), &ImageOptions::Qcow2(options(&format!("data_file={data}{raw}")))).unwrap();
        let mut model = vec![0; SIZE as usize];
        let node = open(&image, false);
        mutate(&*node.backend(), &mut model, &mut random, 60);
        same(&content(&*node.backend()), &model, raw);
        node.backend().close().unwrap();
        drop(node);
        check(&image, false);
        same(&raw_content(&scratch, &image), &model, raw);
        if !raw.is_empty() {
            same(&std::fs::read(&data).unwrap(), &model, "the data file");
        }
    }
}

#[test]
fn repair() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("repair");
    let image = scratch.text("image.qcow2");
    let mut model = vec![0; SIZE as usize];
    create(image.as_ref(), &ImageOptions::Qcow2(options("lazy_refcounts=on"))).unwrap();
    let node = open(&image, false);
    let q = node.qcow2().unwrap().clone();
    mutate(&*q, &mut model, &mut Random(3), 50);
    q.flush().unwrap();
    // As if the process had been killed.
    std::fs::copy(&image, scratch.path("dirty.qcow2")).unwrap();
    drop((q, node));
    let dirty = scratch.text("dirty.qcow2");
    assert!(good("qemu-img", &["info", &dirty]).contains("cleanly shut down: no"));
    drop(open(&dirty, false));
    check(&dirty, false);
    same(&raw_content(&scratch, &dirty), &model, "after a repair");
    // Wrecked counts.
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[(2 << 16) + 3..(2 << 16) + 40].fill(0);
    std::fs::write(&image, &bytes).unwrap();
    let inherit = rhea_block::Inherit { check: true, ..Default::default() };
    let node = rhea_block::open_image(&image, None, &inherit).unwrap();
    let report = node.qcow2().unwrap().check(Fix::All, &mut |_, _| {}).unwrap();
    assert!(report.corruptions > 0 && report.corruptions == report.corruptions_fixed, "{report:?}");
    drop(node);
    check(&image, false);
    same(&raw_content(&scratch, &image), &model, "after a repair");
    // No counts at all.
    bytes[1 << 16..(1 << 16) + 8].copy_from_slice(&0x1234_5678u64.to_be_bytes());
    std::fs::write(&image, &bytes).unwrap();
    let node = rhea_block::open_image(&image, None, &inherit).unwrap();
    let report = node.qcow2().unwrap().check(Fix::All, &mut |_, _| {}).unwrap();
    assert!(report.corruptions > 0 && report.corruptions == report.corruptions_fixed, "{report:?}");
    drop(node);
    check(&image, false);
    same(&raw_content(&scratch, &image), &model, "after a repair");
}

#[test]
fn foreign_formats() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("foreign");
    let mut model = vec![0; SIZE as usize];
    let raw = scratch.text("image.raw");
    create(raw.as_ref(), &ImageOptions::Raw { size: SIZE, preallocation: Default::default() }).unwrap();
    let node = rhea_block::open_image(&raw, Some("raw"), &Default::default()).unwrap();
    mutate(&*node.backend(), &mut model, &mut Random(8), 30);
    drop(node);
    for (format, options) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vpc", "subformat=dynamic"),
    ] {
        let image = scratch.text(&format!("image.{format}"));
        good("qemu-img", &["convert", "-f", "raw", "-O", format, "-o", options, &raw, &image]);
        let inherit = rhea_block::Inherit { readonly: true, ..Default::default() };
        let node = rhea_block::open_image(&image, Some(format), &inherit).unwrap();
        let expected = {
            let out = scratch.text("converted.raw");
            good("qemu-img", &["convert", "-f", format, "-O", "raw", &image, &out]);
            std::fs::read(out).unwrap()
        };
        same(&expected[..SIZE as usize], &model, options);
        same(&content(&*node.backend()), &expected, options);
        drop(node);
        let e = rhea_block::open_image(&image, Some(format), &Default::default()).map(|_| ()).unwrap_err();
        assert!(e.contains("only read"), "{e}");
    }
}

#[test]
fn locks_are_those_of_the_tools() {
    if !tools() {
        return;
    }
    let scratch = Scratch::new("locks");
    let image = scratch.text("image.qcow2");
    create(image.as_ref(), &ImageOptions::Qcow2(options(""))).unwrap();
    let node = open(&image, false);
    let o = run("qemu-img", &["info", &image]);
    assert!(!o.status.success() && String::from_utf8_lossy(&o.stderr).contains("lock"));
    good("qemu-img", &["info", "-U", &image]);
    let e = rhea_block::open_image(&image, None, &Default::default()).map(|_| ()).unwrap_err();
    assert!(e.contains("failed to get \"write\" lock"), "{e}");
    let reader = rhea_block::Inherit { readonly: true, ..Default::default() };
    let e = rhea_block::open_image(&image, None, &reader).map(|_| ()).unwrap_err();
    assert!(e.contains("failed to get shared \"write\" lock"), "{e}");
    drop(node);
    let node = open(&image, true);
    good("qemu-img", &["info", &image]);
    let o = run("qemu-io", &["-c", "write 0 512", &image]);
    assert!(!o.status.success() && String::from_utf8_lossy(&o.stderr).contains("lock"));
    drop(node);
}

#[test]
fn threads_at_once() {
    use rhea_block::{CacheMode, Drive, Operation};
    if !tools() {
        return;
    }
    let scratch = Scratch::new("threads");
    let image = scratch.text("image.qcow2");
    for (round, shape) in ["", "cluster_size=4k", "extended_l2=on", "compat=0.10"].iter().enumerate() {
        create(image.as_ref(), &ImageOptions::Qcow2(options(shape))).unwrap();
        let node = open(&image, false);
        let drive = Drive::new("d", node.backend(), CacheMode::Writeback);
        const THREADS: u64 = 4;
        let models: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|t| {
                    let drive = &drive;
                    scope.spawn(move || {
                        let mut random = Random((round as u64 * 16 + t) * 0x1234_5677 + 1);
                        let mut model = vec![0u8; SIZE as usize];
                        for n in 0..250u64 {
                            // Each has every fourth piece of 2 KiB: clusters are shared.
                            let at = (random.below(SIZE / 2048 / THREADS) * THREADS + t) * 2048;
                            let byte = (n * THREADS + t) as u8 | 1;
                            let now = &mut model[at as usize..at as usize + 2048];
                            match random.below(10) {
                                0 => {
                                    let mut zero =
                                        Operation::WriteZeroes { offset: at, len: 2048, may_unmap: true, flush: false };
                                    drive.run(&mut zero).unwrap();
                                    now.fill(0);
                                }
                                1 => drive.run(&mut Operation::Flush).unwrap(),
                                2 | 3 => {
                                    let mut data = [0; 2048];
                                    drive.read_bytes(at, &mut data).unwrap();
                                    same(&data, now, "read");
                                }
                                _ => {
                                    drive.write_bytes(at, &[byte; 2048]).unwrap();
                                    now.fill(byte);
                                }
                            }
                        }
                        model
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        drive.close().unwrap();
        drop((drive, node));
        let mut model = vec![0u8; SIZE as usize];
        for (t, own) in models.iter().enumerate() {
            for piece in (t * 2048..SIZE as usize).step_by(2048 * THREADS as usize) {
                model[piece..piece + 2048].copy_from_slice(&own[piece..piece + 2048]);
            }
        }
        check(&image, false);
        same(&raw_content(&scratch, &image), &model, shape);
    }
}
