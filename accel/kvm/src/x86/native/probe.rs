//! Can this host's KVM run a kernel, and at the speed of its processor? It can with the processor's virtualization extensions. Some offer
//! the interface without: they may run privileged code in an emulator that lacks instructions, thousands of times slower, so it is tried.

use super::super::Irqchip;
use super::sys::{Exit, System, VmFile};
use super::vm::{check, create};
use crate::error::{Context, KvmError};
use crate::sys::Region;
use crate::{Choice, DEV_KVM, DevKvm};
use kvm_bindings as kb;
use kvm_bindings::{kvm_regs, kvm_segment, kvm_xcr, kvm_xcrs};
use rhea_memory::RamBlock;
use std::arch::x86_64::__cpuid;
use std::time::{Duration, Instant};

const LEN: u64 = 0x1_0000;
/// Tables of 4-level paging: one page each, the last one maps 2 MiB.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PAGES: u64 = 0x3000;
const CODE: u64 = 0x4000;
const AREA: u64 = 0x5000;
/// The program tells how far it came.
const PORT: u16 = 0x80;
/// Turns of its loop, and what they may take: hundreds of times what a processor needs.
const TURNS: u32 = 4000;
const LONGEST: Duration = Duration::from_millis(2);
/// A host that is busy is given another chance.
const TRIES: u32 = 3;

/// 64-bit code at CPL 0: what every kernel does early.
#[rustfmt::skip]
const PROGRAM: &[u8] = &[
    0xb0, 1, 0xe6, 0x80,                            // mov al, 1; out 0x80, al
    0x31, 0xc0, 0x31, 0xd2, 0x31, 0xdb, 0x31, 0xc9, // xor eax, eax; xor edx, edx; xor ebx, ebx; xor ecx, ecx
    0xf0, 0x48, 0x0f, 0xc7, 0x0e,                   // lock cmpxchg16b [rsi]
    0xb0, 2, 0xe6, 0x80,                            // mov al, 2; out
    0x31, 0xd2, 0xb8, 3, 0, 0, 0,                   // xor edx, edx; mov eax, 3
    0x0f, 0xae, 0x27,                               // xsave [rdi]
    0x0f, 0xae, 0x2f,                               // xrstor [rdi]
    0xb0, 3, 0xe6, 0x80,                            // mov al, 3; out
    0xb9, TURNS as u8, (TURNS >> 8) as u8, 0, 0,    // mov ecx, TURNS
    0xff, 0xc9, 0x75, 0xfc,                         // again: dec ecx; jnz again
    0xb0, 4, 0xe6, 0x80,                            // mov al, 4; out
    0xf4,
];
const STEPS: [&str; 4] = ["64-bit code", "CMPXCHG16B", "XSAVE and XRSTOR", "a loop"];

/// Has the processor VMX (CPUID 1, ECX bit 5; SDM volume 3, 24.6) or SVM (CPUID 8000_0001, ECX bit 2; APM volume 2, 15.4)? Whether they
/// are enabled is the kernel's to know.
#[must_use]
pub fn has_extensions() -> bool {
    let vmx = __cpuid(1).ecx >> 5 & 1 != 0;
    let svm = __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx >> 2 & 1 != 0;
    vmx || svm
}

/// Is it there and usable, as far as `choice` asks?
///
/// # Errors
/// [`KvmError`] that says why not.
pub fn usable(choice: Choice, irqchip: Irqchip) -> Result<(), KvmError> {
    if choice == Choice::Default && !has_extensions() {
        return Err(KvmError::Unfit("the processor has no virtualization extensions".to_owned()));
    }
    let kvm = DevKvm::open(DEV_KVM)?;
    if choice == Choice::Last { check(&kvm, irqchip) } else { probe(&kvm, irqchip) }
}

/// Is it there, complete, not taken by another hypervisor, and fit?
///
/// # Errors
/// [`KvmError`] that says why not.
pub fn probe(system: &dyn System, irqchip: Irqchip) -> Result<(), KvmError> {
    check(system, irqchip)?;
    if has_extensions() { create(system, 0).map(drop) } else { run_program(system) }
}

/// Tries it.
///
/// # Errors
/// [`KvmError`] that says why not.
pub fn run_program(system: &dyn System) -> Result<(), KvmError> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        result = attempt(system);
        // Only slowness may be the moment's.
        if !matches!(&result, Err(KvmError::Unfit(text)) if text.contains("slow")) {
            break;
        }
    }
    result
}

fn attempt(system: &dyn System) -> Result<(), KvmError> {
    let refused = |e: rhea_memory::MemoryError| KvmError::Refused(e.to_string());
    let ram = RamBlock::anonymous("probe", LEN).map_err(refused)?;
    for (at, value) in [(PML4, PDPT | 3), (PDPT, PAGES | 3), (PAGES, 0x83)] {
        // Inside of the block, as the program and its tables are.
        let _ = ram.store(at, 8, value);
    }
    let _ = ram.write(CODE, PROGRAM);
    let supported = system.supported_cpuid().during("KVM_GET_SUPPORTED_CPUID")?;
    let vm = create(system, 0)?;
    let host = ram.host_ptr().addr() as u64;
    let region = Region { slot: 0, readonly: false, log: false, gpa: 0, len: LEN, host, private: None };
    vm.set_memory(&region).during("KVM_SET_USER_MEMORY_REGION")?;
    let result = run(&*vm, &supported);
    // The kernel lets go of the memory before it is unmapped.
    let gone = Region { len: 0, ..region };
    let removed = vm.set_memory(&gone).during("KVM_SET_USER_MEMORY_REGION");
    drop(vm);
    result.and(removed)
}

fn run(vm: &dyn VmFile, supported: &[kb::kvm_cpuid_entry2]) -> Result<(), KvmError> {
    let mut vcpu = vm.create_vcpu(0).during("KVM_CREATE_VCPU")?;
    vcpu.set_cpuid(supported).during("KVM_SET_CPUID2")?;
    let mut sregs = vcpu.sregs().during("KVM_GET_SREGS")?;
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    sregs.cs = kvm_segment { selector: 8, type_: 11, l: 1, ..flat };
    let data = kvm_segment { selector: 16, type_: 3, db: 1, ..flat };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    // PE, ET, NE, PG; PAE, OSFXSR, OSXSAVE; LME, LMA.
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0031, PML4, 1 << 5 | 1 << 9 | 1 << 18, 0x500);
    vcpu.set_sregs(&sregs).during("KVM_SET_SREGS")?;
    let regs = kvm_regs { rip: CODE, rsi: AREA, rdi: AREA + 0x1000, rsp: LEN - 16, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).during("KVM_SET_REGS")?;
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: 3 };
    vcpu.set_xcrs(&xcrs).during("KVM_SET_XCRS")?;
    let mut done = 0;
    let mut since = Instant::now();
    // Each exit is a step of the program, or a signal.
    for _ in 0..64 {
        match vcpu.run().during("KVM_RUN")? {
            Exit::Io { port: PORT, .. } => {
                done = usize::from(vcpu.io_data().first().copied().unwrap_or(0));
                if done == STEPS.len() - 1 {
                    since = Instant::now();
                }
                if done == STEPS.len() {
                    let took = since.elapsed();
                    if took > LONGEST {
                        let each = took.as_nanos() / u128::from(2 * TURNS);
                        return Err(KvmError::Unfit(format!("it is slow: {each} ns for an instruction of a kernel")));
                    }
                    return Ok(());
                }
            }
            Exit::Interrupted => {}
            _ => break,
        }
    }
    Err(KvmError::Unfit(format!("it does not run {}", STEPS.get(done).unwrap_or(&"a kernel"))))
}
