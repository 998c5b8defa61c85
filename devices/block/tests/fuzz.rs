//! Damaged images: whatever they say, nothing panics, waits forever or takes memory without bound.
//!
//! `RHEA_FUZZ=100 cargo test -p rhea-block --test fuzz` tries a hundred times as long.

mod common;

use common::{Random, Scratch, mutate};
use rhea_block::image::{ImageOptions, create};
use rhea_block::qcow2::{CreateOptions, Fix};
use rhea_block::{BlockBackend, Inherit, NodeOptions, open_image};

fn rounds(n: u64) -> u64 {
    n * std::env::var("RHEA_FUZZ").ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(1)
}

const SIZE: u64 = 1 << 20;

/// An image with everything: data, zeroes, compressed clusters, snapshots.
fn sample(scratch: &Scratch, options: &str) -> Vec<u8> {
    let image = scratch.text("sample");
    let mut o = NodeOptions::parse(options).unwrap();
    let c = CreateOptions { size: SIZE, ..CreateOptions::take(&mut o).unwrap() };
    create(image.as_ref(), &ImageOptions::Qcow2(c)).unwrap();
    let node = common::open(&image, false);
    let q = node.qcow2().unwrap();
    let mut model = vec![0; SIZE as usize];
    mutate(&**q, &mut model, &mut Random(5), 10);
    let packed = q.compressor().pack(&vec![7; q.cluster() as usize]).unwrap();
    for n in 0..4 {
        q.write_packed(n * q.cluster() * 2, &packed).unwrap();
    }
    q.create_snapshot("one").unwrap();
    mutate(&**q, &mut model, &mut Random(6), 5);
    q.create_snapshot("two").unwrap();
    q.close().unwrap();
    drop(node);
    std::fs::read(&image).unwrap()
}

/// Places of the header, and of tables, are damaged more often than others.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let len = bytes.len() as u64;
        let at = match random.below(4) {
            0 => random.below(120),
            1 => random.below(600),
            _ => {
                // A place that something refers to.
                let word = random.below(len / 8) as usize * 8;
                let start = (0..len as usize / 8)
                    .map(|i| (word + i * 8) % (len as usize / 8 * 8))
                    .find(|w| bytes[*w + 7] != 0 || bytes[*w] != 0);
                start.unwrap_or(0) as u64 + random.below(8)
            }
        } as usize;
        let Some(byte) = bytes.get_mut(at) else { continue };
        match random.below(6) {
            0 => *byte = 0,
            1 => *byte = 0xff,
            2 => *byte ^= 1 << random.below(8),
            3 => *byte = byte.wrapping_add(1),
            4 => *byte = random.next() as u8,
            _ => {
                let value = [0, u64::MAX, 1 << 63, 1 << 62, len, len - 1, 1 << 56, 512][random.below(8) as usize];
                let at = at & !7;
                if at + 8 <= bytes.len() {
                    bytes[at..at + 8].copy_from_slice(&u64::to_be_bytes(value));
                }
            }
        }
    }
    if random.below(16) == 0 {
        let keep = random.below(bytes.len() as u64) as usize;
        bytes.truncate(keep);
    }
}

/// An error must be one short line.
fn is_line(text: &str) {
    assert!(!text.contains('\n') && text.len() < 1000, "{text:?}");
}

fn use_image(image: &str, format: &str, readonly: bool, random: &mut Random) {
    let inherit = Inherit { readonly, discard: true, ..Inherit::default() };
    let node = match open_image(image, Some(format), &inherit) {
        Ok(node) => node,
        Err(e) => return is_line(&e),
    };
    let b = node.backend();
    let size = b.capacity();
    for _ in 0..20 {
        let at = random.below(size.min(2 << 20));
        let len = (1 + random.below(100_000)).min(size.saturating_sub(at));
        if len == 0 {
            break;
        }
        let result = match random.below(if readonly { 3 } else { 8 }) {
            0 | 1 => b.read_bytes(at, &mut vec![0; len as usize]),
            2 => b.status(at, len).map(|e| assert!(e.len > 0 && e.len <= len)),
            3..=5 => b.write_bytes(at, &vec![3; len as usize]),
            6 => b.write_zeroes(at, len, true),
            _ => b.flush(),
        };
        if let Err(e) = result {
            is_line(&e.to_string());
        }
    }
    if let Some(q) = node.qcow2() {
        let _ = q.read_snapshot("one", 0, &mut [0; 5000]);
        let _ = q.bitmaps();
        if !readonly {
            let result = match random.below(4) {
                0 => q.create_snapshot("three").map(|_| ()),
                1 => q.apply_snapshot("one"),
                2 => q.delete_snapshot("two"),
                _ => Ok(()),
            };
            if let Err(e) = result {
                is_line(&e.to_string());
            }
        }
    }
    let _ = b.close();
}

#[test]
fn damaged_qcow2() {
    let scratch = Scratch::new("fuzz");
    let image = scratch.text("image");
    let mut random = Random(42);
    for options in [
        "cluster_size=4k",
        "cluster_size=512,compat=0.10",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,refcount_bits=64",
    ] {
        let good = sample(&scratch, options);
        for _ in 0..rounds(40) {
            let mut bytes = good.clone();
            damage(&mut bytes, &mut random);
            std::fs::write(&image, &bytes).unwrap();
            use_image(&image, "qcow2", true, &mut random);
            use_image(&image, "qcow2", false, &mut random);
            std::fs::write(&image, &bytes).unwrap();
            // A check ends, and a repair leaves what a check finds sound, or says that it does not.
            let inherit = Inherit { check: true, no_backing: true, ..Inherit::default() };
            let node = match open_image(&image, Some("qcow2"), &inherit) {
                Ok(node) => node,
                Err(e) => {
                    is_line(&e);
                    continue;
                }
            };
            let q = node.qcow2().unwrap();
            match q.check(Fix::All, &mut |_, text| is_line(text)) {
                Ok(report) if report.corruptions == report.corruptions_fixed => {
                    let mut left = String::new();
                    let again = q.check(Fix::Nothing, &mut |_, text| left.push_str(text)).unwrap();
                    assert_eq!((again.corruptions, again.leaks), (0, 0), "{options}: {report:?}: {left}");
                }
                Ok(_) => {}
                Err(e) => is_line(&e.to_string()),
            }
        }
    }
}

#[test]
fn damaged_foreign_images() {
    if !common::tools() {
        return;
    }
    let scratch = Scratch::new("fuzz-foreign");
    let (raw, image) = (scratch.text("raw"), scratch.text("image"));
    let data: Vec<u8> = (0..3u32 << 20).map(|i| (i >> 14) as u8).collect();
    std::fs::write(&raw, data).unwrap();
    let mut random = Random(43);
    for (format, options) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vpc", "subformat=dynamic"),
        ("vpc", "subformat=fixed"),
    ] {
        common::good("qemu-img", &["convert", "-f", "raw", "-O", format, "-o", options, &raw, &image]);
        let good = std::fs::read(&image).unwrap();
        for _ in 0..rounds(60) {
            let mut bytes = good.clone();
            damage(&mut bytes, &mut random);
            std::fs::write(&image, &bytes).unwrap();
            use_image(&image, format, true, &mut random);
        }
    }
}

#[test]
fn refused_by_name() {
    let scratch = Scratch::new("refused");
    let image = scratch.text("image");
    let good = sample(&scratch, "cluster_size=4k");
    let cases: [(usize, &[u8], &str); 8] = [
        (4, &[0, 0, 0, 9], "version 9"),
        (20, &[0, 0, 0, 60], "cluster size"),
        (32, &[0, 0, 0, 1], "encrypted (AES)"),
        (32, &[0, 0, 0, 2], "encrypted (LUKS)"),
        (72, &[0x80, 0, 0, 0], "unknown incompatible feature 0x8000000000000000"),
        (96, &[0, 0, 0, 9], "width"),
        (36, &[0xff, 0xff, 0xff, 0xff], "L1 table"),
        (56, &[0xff, 0xff, 0xff, 0xff], "reference count table"),
    ];
    for (at, value, word) in cases {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        std::fs::write(&image, bytes).unwrap();
        let e = open_image(&image, None, &Inherit::default()).map(|_| ()).unwrap_err();
        is_line(&e);
        assert!(e.contains(word) && e.contains(&image), "{e}");
    }
    // A chain that leads to itself.
    let mut o = NodeOptions::parse("backing_fmt=qcow2").unwrap();
    let c =
        CreateOptions { size: SIZE, backing_file: Some("image".to_owned()), ..CreateOptions::take(&mut o).unwrap() };
    create(image.as_ref(), &ImageOptions::Qcow2(c)).unwrap();
    let e = open_image(&image, None, &Inherit { readonly: true, ..Inherit::default() }).map(|_| ()).unwrap_err();
    assert!(e.contains("loop"), "{e}");
}
