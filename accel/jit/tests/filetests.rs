//! The `run` commands of the IR's file tests, by generated code.

#[path = "../../../cpu/ir/tests/support/mod.rs"]
mod support;

use rhea_accel::Vcpu;
use rhea_ir::text::parse;
use rhea_jit::{JitOptions, JitVm};
use rhea_memory::{AddressSpace, Gpa, RamBlock};
use std::time::{Duration, Instant};
use support::*;

/// One vCPU per run: memory is each one's own.
fn run(name: &str, line: usize, f: &rhea_ir::Function, rest: &str) -> Vec<String> {
    let (input, output) = rest.split_once("->").expect("'->'");
    let (input, output) = (parse_items(input), parse_items(output));
    let space = AddressSpace::new("test");
    let ram = RamBlock::anonymous("ram", MEMORY as u64).expect("memory");
    let _map = space.map_ram(Gpa(0), &ram, 0, MEMORY as u64, 0).expect("a mapping");
    let mut slots = Box::new([0; SLOT_BYTES]);
    let mut memory = vec![0; MEMORY];
    set_up(&input, &mut *slots, &mut memory);
    ram.write(0, &memory).expect("a write");
    let mut m = Machine::new(vec![f.clone()]);
    m.queue.push_back(Job { function: 0, slots, memory: Vec::new() });
    let vm = JitVm::new(&space, JitOptions { code_bytes: 1 << 20, ..JitOptions::default() }).expect("a JIT");
    let v = vm.add_vcpu(0, m);
    v.start().expect("a thread");
    v.resume();
    let start = Instant::now();
    while !v.with_guest(|m| m.finished) {
        assert!(start.elapsed() < Duration::from_secs(10), "{name}:{line} does not end");
        std::thread::sleep(Duration::from_micros(50));
    }
    v.stop();
    ram.read(0, &mut memory).expect("a read");
    v.with_guest(|m| compare(&output, &m.results[0], &memory, None))
}

#[test]
fn files() {
    let mut bad = Vec::new();
    let mut runs = 0;
    for (name, text) in &file_tests() {
        for c in commands(text).iter().filter(|c| c.name == "run") {
            let f = parse(text).expect("a function");
            runs += 1;
            let b = run(name, c.line, &f, &c.rest);
            if !b.is_empty() {
                bad.push(format!("{name}:{}: {}", c.line, b.join("; ")));
            }
        }
    }
    assert!(runs > 40, "only {runs} runs");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
