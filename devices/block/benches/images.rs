//! Throughput of images beside that of Debian's `qemu-img bench`: `cargo bench -p rhea-block`.
//!
//! The same requests in both: so many, so large, in steps through the image (of their size, or of a prime number of them),
//! with so many at once, through the host's page cache.

use rhea_block::image::{ImageOptions, create};
use rhea_block::qcow2::CreateOptions;
use rhea_block::{Drive, DriveOptions, NodeOptions, Operation, Segment};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

const SIZE: u64 = 512 << 20;
const DEPTH: usize = 16;

struct Case {
    name: &'static str,
    write: bool,
    len: u64,
    step: u64,
    count: u64,
}

const CASES: &[Case] = &[
    Case { name: "write 1M, new", write: true, len: 1 << 20, step: 1 << 20, count: 512 },
    Case { name: "read 1M", write: false, len: 1 << 20, step: 1 << 20, count: 512 },
    Case { name: "write 1M", write: true, len: 1 << 20, step: 1 << 20, count: 512 },
    Case { name: "read 4K random", write: false, len: 4096, step: 4096 * 10007, count: 60_000 },
    Case { name: "write 4K random", write: true, len: 4096, step: 4096 * 10007, count: 60_000 },
];

/// Seconds for all requests of a case.
fn ours(drive: &Arc<Drive>, case: &Case) -> f64 {
    let (done, finished) = channel();
    let start = Instant::now();
    let (mut sent, mut received, mut offset) = (0, 0, 0);
    let mut spare: Vec<Vec<Segment>> = (0..DEPTH).map(|_| vec![Segment::Host(vec![1; case.len as usize])]).collect();
    while received < case.count {
        while sent < case.count
            && let Some(segments) = spare.pop()
        {
            let mut operation = match case.write {
                true => Operation::Write { offset, segments, flush: false },
                false => Operation::Read { offset, segments },
            };
            sent += 1;
            offset = (offset + case.step) % (SIZE - case.len);
            // As devices do it.
            if let Some(result) = drive.try_now(&mut operation) {
                result.unwrap();
                received += 1;
                if let Operation::Read { segments, .. } = operation {
                    spare.push(segments);
                }
                continue;
            }
            let done = done.clone();
            drive.submit(operation, Box::new(move |result, segments| done.send((result, segments)).unwrap()));
        }
        if received < case.count {
            let (result, segments) = finished.recv().unwrap();
            result.unwrap();
            spare.push(segments);
            received += 1;
        }
    }
    start.elapsed().as_secs_f64()
}

fn theirs(image: &str, format: &str, case: &Case) -> Option<f64> {
    let numbers = [case.count, DEPTH as u64, case.len, case.step].map(|n| n.to_string());
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", format, "-t", "writeback", "-i", "threads"]);
    command.args(["-c", &numbers[0], "-d", &numbers[1], "-s", &numbers[2], "-S", &numbers[3]]);
    if case.write {
        command.arg("-w");
    }
    let o = command.arg(image).output().ok()?;
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    text.split("Run completed in ").nth(1)?.split(' ').next()?.parse().ok()
}

fn main() {
    let directory = std::env::temp_dir().join(format!("rhea-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    println!("{:<28} {:>12} {:>12} {:>7}", "", "Rhea", "QEMU", "ratio");
    for (format, options) in [("raw", ""), ("qcow2", ""), ("qcow2", "extended_l2=on,cluster_size=128k")] {
        let make = |name: &str| {
            let path = directory.join(name);
            let image = match format {
                "raw" => ImageOptions::Raw { size: SIZE, preallocation: Default::default() },
                _ => {
                    let mut o = NodeOptions::parse(options).unwrap();
                    ImageOptions::Qcow2(CreateOptions { size: SIZE, ..CreateOptions::take(&mut o).unwrap() })
                }
            };
            create(&path, &image).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (a, b) = (make("ours"), make("theirs"));
        for case in CASES {
            let time = {
                let drive =
                    DriveOptions::parse(&format!("file={a},format={format}")).unwrap().open("d", false).unwrap();
                let time = ours(&drive, case);
                drive.close().unwrap();
                time
            };
            let other = theirs(&b, format, case);
            let rate = |t: f64| match case.len {
                4096 => format!("{:.0} k/s", case.count as f64 / t / 1e3),
                len => format!("{:.0} MB/s", case.count as f64 * len as f64 / t / 1e6),
            };
            let extended = if options.is_empty() { "" } else { "+" };
            let other_rate = other.map_or("-".to_owned(), rate);
            let ratio = other.map_or("-".to_owned(), |t| format!("{:.2}", t / time));
            println!(
                "{:<28} {:>12} {other_rate:>12} {ratio:>7}",
                format!("{format}{extended} {}", case.name),
                rate(time)
            );
        }
    }
    let _ = std::fs::remove_dir_all(directory);
}
