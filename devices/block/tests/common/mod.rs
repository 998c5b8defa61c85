//! What the tests of images share: scratch files, random numbers, Debian's disk tools.
#![allow(dead_code, reason = "each test uses its part")]

use rhea_block::{BlockBackend, Inherit, Node, open_image};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A directory that is gone at the end. There is one at a time: a process that is just being made has the files, and so the
/// locks, of all tests of its parent.
pub struct Scratch(PathBuf, MutexGuard<'static, ()>);

static TURN: Mutex<()> = Mutex::new(());

impl Scratch {
    pub fn new(name: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rhea-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path, turn)
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// xorshift64*
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// Are the tools there? They must be where everything is to be tested.
pub fn tools() -> bool {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let there = Command::new("qemu-img").arg("--version").output().is_ok();
    assert!(there || std::env::var_os("RHEA_TESTS_COMPLETE").is_none(), "qemu-utils is not installed");
    if !there {
        eprintln!("skipped: qemu-utils is not installed");
    }
    there
}

pub fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

/// Runs a program that must succeed.
pub fn good(program: &str, args: &[&str]) -> String {
    let o = run(program, args);
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    assert!(o.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&o.stderr));
    text
}

/// The image is sound: no errors, and no leaks unless they are allowed.
pub fn check(image: &str, leaks: bool) {
    let o = run("qemu-img", &["check", "-f", "qcow2", image]);
    let code = o.status.code();
    let fine = code == Some(0) || (leaks && code == Some(3));
    assert!(fine, "{code:?}: {}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
}

pub fn open(image: &str, readonly: bool) -> Arc<Node> {
    open_image(image, None, &Inherit { readonly, discard: true, ..Inherit::default() }).unwrap()
}

pub fn content(b: &dyn BlockBackend) -> Vec<u8> {
    let mut data = vec![0; b.capacity() as usize];
    b.read_bytes(0, &mut data).unwrap();
    data
}

/// What the disk tools read from an image.
pub fn raw_content(scratch: &Scratch, image: &str) -> Vec<u8> {
    let out = scratch.text("converted.raw");
    good("qemu-img", &["convert", "-O", "raw", image, &out]);
    std::fs::read(Path::new(&out)).unwrap()
}

/// The first difference, told shortly.
pub fn same(a: &[u8], b: &[u8], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}: lengths");
    if let Some(at) = a.iter().zip(b).position(|(x, y)| x != y) {
        panic!("{what}: differs at {at:#x}: {:#x}, {:#x}", a[at], b[at]);
    }
}

/// Changes an image as a guest would, and the model with it.
pub fn mutate(b: &dyn BlockBackend, model: &mut [u8], random: &mut Random, steps: u32) {
    let size = model.len() as u64;
    for _ in 0..steps {
        let (shape, kind) = (random.below(4), random.below(20));
        let max = [512, 4096, 70_000, 400_000][shape as usize];
        let mut at = random.below(size);
        let mut len = 1 + random.below(max);
        if random.below(2) == 0 {
            at &= !4095;
            len = len.next_multiple_of(4096);
        }
        let len = len.min(size - at);
        let range = at as usize..(at + len) as usize;
        match kind {
            0..=11 => {
                let byte = random.next() as u8 | 1;
                let data: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8) | 1).collect();
                b.write_bytes(at, &data).unwrap();
                model[range].copy_from_slice(&data);
            }
            12..=14 => {
                b.write_zeroes(at, len, kind == 12).unwrap();
                model[range].fill(0);
            }
            15 => {
                // What was discarded may be read as anything: it is written again.
                b.discard(at, len).unwrap();
                b.write_zeroes(at, len, true).unwrap();
                model[range].fill(0);
            }
            16 => b.flush().unwrap(),
            _ => {
                let mut data = vec![0; len as usize];
                b.read_bytes(at, &mut data).unwrap();
                same(&data, &model[range], "read");
            }
        }
    }
}
