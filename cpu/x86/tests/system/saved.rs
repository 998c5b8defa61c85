//! A processor whose state is taken over by another one in the middle of a program.

use super::*;
use rhea_x86::X86Saved;

/// A write here pauses the processor.
pub const PAUSE: u16 = 0xf6;

/// Integer, flags, SSE and x87 registers that depend on each other; twice the same loop, with a pause between.
fn program(pause: bool) -> Vec<u8> {
    const LOOP: &[u8] = &[
        0xb9, 0x00, 0x02, 0x00, 0x00, // mov ecx, 0x200
        0x69, 0xc0, 0xcd, 0x0d, 0x01, 0x00, // imul eax, eax, 0x10dcd
        0x11, 0xc8, // adc eax, ecx
        0x66, 0x0f, 0x6e, 0xc8, // movd xmm1, eax
        0x66, 0x0f, 0xfe, 0xc1, // paddd xmm0, xmm1
        0xdc, 0xc1, // fadd st(1), st
        0xff, 0xc9, // dec ecx
        0x75, 0xea, // jnz
    ];
    const START: &[u8] = &[
        0xb8, 0x20, 0x06, 0x00, 0x00, 0x0f, 0x22, 0xe0, // cr4 |= OSFXSR | OSXMMEXCPT
        0x66, 0xb8, 0x01, 0x00, // mov ax, 1
        0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xe8, // fninit; fld1; fld1
        0x66, 0x0f, 0xef, 0xc0, // pxor xmm0, xmm0
        0xf9, // stc
    ];
    const RESULTS: &[u8] = &[
        0xe7, 0x80, // out 0x80, eax
        0x66, 0x0f, 0x7e, 0xc0, 0xe7, 0x81, // movd eax, xmm0; out
        0xdd, 0xd8, // fstp st
        0xdb, 0x1c, 0x25, 0x00, 0x71, 0x00, 0x00, // fistp dword [0x7100]
        0x8b, 0x04, 0x25, 0x00, 0x71, 0x00, 0x00, 0xe7, 0x82, // mov eax, [0x7100]; out
        0x9f, 0x0f, 0xb6, 0xc4, 0xe7, 0x83, // lahf; movzx eax, ah; out
    ];
    let between: &[u8] = if pause { &[0xe6, PAUSE as u8] } else { &[0x90, 0x90] };
    [START, LOOP, between, LOOP, RESULTS, &[0xe6, END as u8, 0xf4, 0xeb, 0xfd]].concat()
}

fn memory(code: Vec<u8>) -> Arc<RamBlock> {
    let ram = RamBlock::anonymous("ram", 16 << 20).unwrap();
    let pieces: [(u64, Vec<u8>); 7] = [
        (0x1000, gdt()),
        (0x7000, [&[0x1f, 0][..], &0x1000_u32.to_le_bytes()].concat()),
        (PML4, words(&[PML4 + 0x1003])),
        (PML4 + 0x1000, words(&[PML4 + 0x2003])),
        (PML4 + 0x2000, words(&[0x83, 0x20_0083])),
        (0x8000, TO_LONG.to_vec()),
        (0x8200, code),
    ];
    for (at, bytes) in pieces {
        ram.write(at, &bytes).unwrap();
    }
    ram
}

/// Runs a processor on the memory from its start or a saved state; what it said, its state if it paused, and how many
/// translations were invalidated.
fn run(ram: &Arc<RamBlock>, from: Option<&X86Saved>) -> (Vec<(u16, u32)>, Option<X86Saved>, u64) {
    let space = AddressSpace::new("test");
    let _map = space.map_ram(Gpa(0), ram, 0, 16 << 20, 0).unwrap();
    let hook = Arc::new(Hook::default());
    let config = Arc::new(rhea_x86::models::parse("max").unwrap().config);
    let mut cpu = X86Cpu::new(0, 0, &config, &space, &VirtualClock::new(), hook.clone());
    assert!(hook.pins.set(cpu.pins()).is_ok());
    match from {
        Some(saved) => cpu.load_state(saved).unwrap(),
        None => {
            cpu.set_segment(Seg::Cs, Segment::real(0, 0));
            cpu.header.pc = 0x8000;
            cpu.r[4] = 0x7000;
            cpu.rebuild_mode();
        }
    }
    let vm = JitVm::new(&space, JitOptions { code_bytes: 16 << 20, hot_threshold: Some(2), ..JitOptions::default() });
    let vm = vm.unwrap();
    let vcpu = vm.add_vcpu(0, cpu);
    let (kick, pause) = (vcpu.clone(), vcpu.clone());
    hook.pins.get().unwrap().set_wake(Box::new(move || kick.kick()));
    assert!(hook.pause.set(Box::new(move || pause.request_pause())).is_ok());
    vcpu.start().unwrap();
    vcpu.resume();
    let mut ended = hook.ended.lock();
    if !*ended {
        hook.changed.wait_for(&mut ended, Duration::from_secs(10));
    }
    drop(ended);
    // A processor that is to pause does so at once.
    let saved = vcpu.wait_paused(Some(Duration::from_millis(500))).then(|| {
        let (send, receive) = std::sync::mpsc::channel();
        rhea_accel::GuestVcpu::post(&*vcpu, Box::new(move |cpu: &mut X86Cpu| send.send(cpu.save_state()).unwrap()));
        receive.recv().unwrap()
    });
    vcpu.stop();
    let said = hook.said.lock().clone();
    (said, saved, vm.stats().invalidated)
}

#[test]
fn another_processor_goes_on() {
    let (want, ..) = run(&memory(program(false)), None);
    assert_eq!(want.len(), 4, "{want:x?}");
    let ram = memory(program(true));
    let (said, saved, _) = run(&ram, None);
    assert_eq!(said, []);
    let (said, ..) = run(&ram, Some(&saved.expect("paused")));
    assert_eq!(said, want);
}

#[test]
fn stores_that_change_nothing_keep_translations() {
    let mut code = vec![
        0xb9, 0xe8, 0x03, 0x00, 0x00, // mov ecx, 1000
        0xc6, 0x04, 0x25, 0x00, 0x83, 0x00, 0x00, 0x90, // mov byte [0x8300], nop
        0xe8, 0xee, 0x00, 0x00, 0x00, // call 0x8300
        0xff, 0xc9, 0x75, 0xef, // dec ecx; jnz
        0xc6, 0x04, 0x25, 0x00, 0x83, 0x00, 0x00, 0xc3, // mov byte [0x8300], ret
        0xe8, 0xdd, 0x00, 0x00, 0x00, // call 0x8300
        0x89, 0xc8, 0xe7, 0x80, // mov eax, ecx; out 0x80, eax
        0xe6, END as u8, 0xf4, 0xeb, 0xfd,
    ];
    code.resize(0x100, 0xf4);
    // nop; inc ecx; dec ecx; ret - of which the last call runs the new first instruction only.
    code.extend([0x90, 0xff, 0xc1, 0xff, 0xc9, 0xc3]);
    let (said, _, invalidated) = run(&memory(code), None);
    assert_eq!(said, [(0x80, 0)]);
    assert!((1..50).contains(&invalidated), "{invalidated}");
}
