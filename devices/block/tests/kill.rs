//! A writer that is killed at any moment leaves a sound image with everything that it flushed.
//!
//! `RHEA_KILLS=200 cargo test -p rhea-block --test kill` kills as often.

mod common;

use common::{Random, Scratch, check, open, raw_content, same, tools};
use rhea_block::image::{ImageOptions, create};
use rhea_block::qcow2::CreateOptions;
use rhea_block::{BlockBackend, NodeOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const SIZE: u64 = 24 << 20;
/// The unit of writes: each is named by its number.
const PIECE: u64 = 4096;

/// The content of a piece after the `n`th step of the writer.
fn pattern(piece: u64, n: u64) -> [u8; PIECE as usize] {
    let mut data = [0; PIECE as usize];
    if n != 0 {
        for (i, word) in data.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *word = (n << 32 | piece << 8 | (i as u64 & 0xff)).to_le_bytes();
        }
    }
    data
}

/// The `n`th step: pieces from, how many, and whether they become zero.
fn step(seed: u64, n: u64) -> (u64, u64, bool) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9) ^ n << 8 | 1);
    random.next();
    let pieces = SIZE / PIECE;
    let first = random.below(pieces);
    let count = (1 + random.below(40)).min(pieces - first);
    (first, count, random.below(5) == 0)
}

/// The other process: writes, and says after each flush which steps it has done.
fn writer(image: &str, seed: u64, from: u64) {
    let node = open(image, false);
    let b = node.backend();
    let mut out = std::io::stdout();
    for n in from.. {
        let (first, count, zero) = step(seed, n);
        if zero {
            b.write_zeroes(first * PIECE, count * PIECE, n % 2 == 0).unwrap();
        } else {
            let data: Vec<u8> = (first..first + count).flat_map(|p| pattern(p, n)).collect();
            b.write_bytes(first * PIECE, &data).unwrap();
        }
        if n % 7 == 0 {
            b.flush().unwrap();
            writeln!(out, "flushed {n}").unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn sound_after_kill() {
    if let Ok(text) = std::env::var("RHEA_KILL_WRITER") {
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        writer(words[2], words[0].parse().unwrap(), words[1].parse().unwrap());
        return;
    }
    if !tools() {
        return;
    }
    let kills = std::env::var("RHEA_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20u64);
    let scratch = Scratch::new("kill");
    let shapes = ["", "cluster_size=512", "extended_l2=on", "compat=0.10", "cluster_size=4k,refcount_bits=8"];
    let mut random = Random(1);
    for round in 0..kills {
        let shape = shapes[(round / 4 % shapes.len() as u64) as usize];
        let image = scratch.text("image.qcow2");
        let mut o = NodeOptions::parse(shape).unwrap();
        let c = CreateOptions { size: SIZE, ..CreateOptions::take(&mut o).unwrap() };
        create(image.as_ref(), &ImageOptions::Qcow2(c)).unwrap();
        if round % 3 == 1 {
            // What is there belongs to a snapshot.
            let node = open(&image, false);
            let data: Vec<u8> = (0..SIZE / PIECE).flat_map(|p| pattern(p, 0xffff)).collect();
            node.backend().write_bytes(0, &data).unwrap();
            node.qcow2().unwrap().create_snapshot("s").unwrap();
            node.backend().write_zeroes(0, SIZE, true).unwrap();
            node.backend().close().unwrap();
        }
        let seed = round + 1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sound_after_kill", "--nocapture"])
            .env("RHEA_KILL_WRITER", format!("{seed} 1 {image}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let mut last = 0;
            for line in lines.lines().map_while(Result::ok) {
                if let Some(n) = line.rsplit("flushed ").next().and_then(|n| n.trim().parse().ok())
                    && line.contains("flushed ")
                {
                    last = n;
                }
            }
            last
        });
        std::thread::sleep(Duration::from_micros(30_000 + random.below(250_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let flushed: u64 = reader.join().unwrap();
        check(&image, true);
        let data = raw_content(&scratch, &image);
        // What was written after the last flush that is known may be there or not.
        let mut allowed: Vec<Vec<u64>> = vec![vec![0]; (SIZE / PIECE) as usize];
        for n in 1..=flushed + 2000 {
            let (first, count, zero) = step(seed, n);
            for versions in &mut allowed[first as usize..(first + count) as usize] {
                if n <= flushed {
                    versions.clear();
                }
                versions.push(if zero { 0 } else { n });
            }
        }
        for (p, versions) in allowed.iter().enumerate() {
            let piece = &data[p * PIECE as usize..][..PIECE as usize];
            // Sectors are written whole.
            let good = piece
                .chunks(512)
                .enumerate()
                .all(|(i, sector)| versions.iter().any(|n| pattern(p as u64, *n)[i * 512..][..512] == *sector));
            assert!(good, "round {round} ({shape}): piece {p} lost what was flushed with step {flushed}");
        }
        // Rhea repairs what is left, and goes on.
        let node = open(&image, false);
        let q = node.qcow2().unwrap();
        q.check(rhea_block::qcow2::Fix::Leaks, &mut |_, _| {}).unwrap();
        let mut again = vec![0; SIZE as usize];
        q.read_bytes(0, &mut again).unwrap();
        same(&again, &data, "read by both");
        q.write_bytes(0, &[7; 70_000]).unwrap();
        q.close().unwrap();
        drop(node);
        check(&image, false);
    }
}
