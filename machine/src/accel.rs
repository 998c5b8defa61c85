//! Which accelerator runs the machine: `-accel`, `-M accel=`, or what fits.

use crate::board::Board;
use crate::config::MachineConfig;
use crate::machine::Architecture;
use parking_lot::Mutex;
use rhea_device::options::{self, OptionDecl, OptionKind, OptionSet};
use rhea_device::{Device, LoadError, LogMask, OptionError, Saved};
use rhea_ir::guest::Guest;
use rhea_jit::{Installed, JitOptions, JitVm};
use rhea_kvm::{Choice, KvmError, arm, ppc, x86};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

/// What a KVM that was chosen lacks.
pub fn kvm_error(e: &KvmError) -> OptionError {
    OptionError::new("-accel kvm", e.to_string())
}

/// The JIT of a machine, or the interpreter of what it compiles.
///
/// # Errors
/// The host has no memory or thread for it, or no file for what is to be written.
pub fn jit<G: Guest>(board: &mut Board, config: &MachineConfig) -> Result<Arc<JitVm<G>>, OptionError> {
    let counting = board.clock.counter().map(|_| board.clock.clone());
    let mut options = JitOptions { counting, ..JitOptions::default() };
    options.interpret |= config.accel == AccelKind::Interpreter;
    options.code_bytes = match config.accel {
        AccelKind::Jit { code_bytes: Some(bytes) } => bytes as usize,
        _ => usual_code_bytes(),
    };
    let jit = JitVm::new(&board.space, options).map_err(|e| OptionError::new("-accel", format!("jit: {e}")))?;
    if board.log.enabled(LogMask::Op) {
        let log = board.log.clone();
        jit.on_compile(Box::new(move |func| log.line(LogMask::Op, format_args!("{func}"))));
    }
    let map = config.perf_map.then(PerfMap::create).transpose()?;
    let log = Some(board.log.clone()).filter(|log| log.enabled(LogMask::Jit));
    if map.is_some() || log.is_some() {
        jit.on_install(Box::new(move |code| {
            if let Some(map) = &map {
                map.add(code);
            }
            if let Some(log) = &log {
                log.line(LogMask::Jit, format_args!("{code}"));
            }
        }));
    }
    let shown = jit.clone();
    board.info.push(("jit", "show what the JIT has done", Box::new(move || shown.describe())));
    board.info.push(("kvm", "show what runs the processors", Box::new(|| "kvm support: disabled\n".to_owned())));
    board.keep.push(Box::new(jit.clone()));
    Ok(jit)
}

/// Bytes of code memory unless told: an eighth of the host's memory, within bounds. It is taken as it fills; a guest in which programs are
/// started again and again fills any, and what is translated is forgotten then.
fn usual_code_bytes() -> usize {
    let host = rustix::system::sysinfo();
    let bytes = (host.totalram as u64).saturating_mul(host.mem_unit.into());
    (bytes / 8).clamp(64 << 20, 512 << 20) as usize & !0xf_ffff
}

/// Where `perf` looks for the names of code that a process makes (perf's jit-interface.txt): address and size in hexadecimal, name.
struct PerfMap(Mutex<File>);

impl PerfMap {
    fn create() -> Result<Self, OptionError> {
        let path = format!("/tmp/perf-{}.map", std::process::id());
        let file = File::create(&path).map_err(|e| OptionError::new("-perfmap", format!("{path}: {e}")))?;
        Ok(Self(Mutex::new(file)))
    }
    fn add(&self, code: &Installed) {
        let [hot, cold] = code.parts;
        let mut lines = format!("{:x} {:x} {} {:#x}\n", hot.0, hot.1, code.what(), code.pc);
        if cold.1 != 0 {
            lines += &format!("{:x} {:x} {} {:#x} (rare)\n", cold.0, cold.1, code.what(), code.pc);
        }
        // Names for a profile: without them the guest runs on.
        let _ = self.0.lock().write_all(lines.as_bytes());
    }
}

/// What of a machine is in the kernel, such as interrupt controllers, as a device.
pub struct KernelChips {
    pub name: &'static str,
    pub reset: Box<dyn Fn() -> Result<(), KvmError> + Send + Sync>,
}

impl Device for KernelChips {
    fn name(&self) -> &str {
        self.name
    }
    fn reset(&self) {
        if let Err(e) = (self.reset)() {
            eprintln!("rhea: warning: {}: it is not reset: {e}", self.name);
        }
    }
    fn blocker(&self) -> Option<String> {
        Some("its state is in the kernel: use -accel kvm,kernel-irqchip=off".to_owned())
    }
    fn save(&self) -> Saved {
        Saved::NotMigratable("state in the kernel")
    }
    fn load(&self, _: &Saved) -> Result<(), LoadError> {
        Err(LoadError::Mismatch("state in the kernel".to_owned()))
    }
}

/// The accelerator that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccelKind {
    Jit {
        /// Of code memory, if it was said.
        code_bytes: Option<u64>,
    },
    /// The IR interpreter.
    Interpreter,
    Kvm(KvmOptions),
}

/// What KVM is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmOptions {
    /// Which interrupt controllers are in the kernel, or as it fits the machine.
    pub irqchip: Option<KernelIrqchip>,
    /// Entries of each vCPU's ring of pages that were written to; 0: bitmaps.
    pub dirty_ring: u32,
}

/// `kernel-irqchip=`: which interrupt controllers are in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelIrqchip {
    /// All.
    On,
    /// Local APICs.
    Split,
    /// None.
    Off,
}

/// The text of `-accel help`.
pub const ACCEL_HELP: &str = "Accelerators supported:\nkvm\njit (also called tcg)\ninterp\n";

const JIT_OPTIONS: &[OptionDecl] = &[
    OptionDecl::new(
        "thread",
        OptionKind::Choice(&["single", "multi"]),
        Some("multi"),
        "vCPUs run in threads of their own",
    ),
    OptionDecl::new("tb-size", OptionKind::Size { unit: 1 << 20 }, None, "size of the code cache"),
];
const KVM_OPTIONS: &[OptionDecl] = &[
    OptionDecl::new(
        "kernel-irqchip",
        OptionKind::Choice(&["on", "off", "split"]),
        None,
        "interrupt controllers in the kernel",
    ),
    OptionDecl::new(
        "dirty-ring-size",
        OptionKind::Number { min: 0, max: 1 << 20 },
        Some("0"),
        "entries of each vCPU's ring of dirty pages, a power of two; 0: bitmaps",
    ),
];

/// Bytes of code memory that may be asked for: an x86-64 jump reaches 2 GiB, and a region does not fit into less than these.
const CODE_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=2047 << 20;

fn jit_options(set: &OptionSet, icount: bool) -> Result<AccelKind, OptionError> {
    match set.text("thread") {
        // Nothing a guest does depends on it.
        Some("single") if !icount => {
            eprintln!("rhea: {}: thread=single: vCPUs run in threads of their own all the same", set.option());
        }
        Some("multi") if icount && set.given("thread") => {
            return Err(set.error("thread", "'multi': with -icount vCPUs run one at a time: use thread=single"));
        }
        _ => {}
    }
    let code_bytes = set.number("tb-size").filter(|n| *n != 0);
    if code_bytes.is_some_and(|n| !CODE_BYTES.contains(&n)) {
        return Err(set.error("tb-size", "expected 1 to 2047 (MiB), or 0 for what is usual"));
    }
    Ok(AccelKind::Jit { code_bytes })
}

fn kvm_options(set: &OptionSet) -> Result<KvmOptions, OptionError> {
    let irqchip = set.text("kernel-irqchip").map(|text| match text {
        "on" => KernelIrqchip::On,
        "split" => KernelIrqchip::Split,
        _ => KernelIrqchip::Off,
    });
    let dirty_ring = set.number("dirty-ring-size").unwrap_or(0) as u32;
    if dirty_ring != 0 && !dirty_ring.is_power_of_two() {
        return Err(OptionError::new("-accel kvm", format!("dirty-ring-size={dirty_ring}: is not a power of two")));
    }
    Ok(KvmOptions { irqchip, dirty_ring })
}

/// Walks the `-accel` values (or the colon-separated `-M accel=` list): the first that works for the guest; a line is printed for one
/// that does not. Without any it is KVM where the host's processor has virtualization extensions for the guest and KVM works, else the
/// JIT, or the interpreter on a host that the JIT makes no code for; then nothing is said. A machine that runs nothing (`runs`: `-M none`)
/// has the KVM of a list if it works at all: programs ask it whether they could use it, and libvirt asks again and again where it is
/// not used although its device file can be opened.
///
/// # Errors
/// [`OptionError`]: an unknown name or property, or nothing on the list works, with `-icount` if that is given.
pub fn select(texts: &[String], guest: Architecture, icount: bool, runs: bool) -> Result<AccelKind, OptionError> {
    let kvm = |choice, irqchip| {
        if icount {
            return Err(KvmError::Refused("it does not count instructions (-icount): use jit".to_owned()));
        }
        usable(guest, choice, irqchip)
    };
    let kind = select_with(texts, &kvm, rhea_jit::HAS_BACK_END, icount, runs)?;
    match kind {
        AccelKind::Kvm(KvmOptions { dirty_ring: 1.., .. }) if guest != Architecture::X86_64 => {
            Err(OptionError::new("-accel kvm", "'dirty-ring-size' is of x86-64 guests only"))
        }
        kind => Ok(kind),
    }
}

/// Does KVM work, with these controllers in the kernel?
type Usable<'a> = &'a dyn Fn(Choice, KernelIrqchip) -> Result<(), KvmError>;

fn select_with(texts: &[String], kvm: Usable, jit: bool, icount: bool, runs: bool) -> Result<AccelKind, OptionError> {
    let mut wanted = Vec::new();
    for text in texts {
        let pairs = options::split(text);
        let Some(((names, None), rest)) = pairs.split_first() else {
            return Err(OptionError::new("-accel", format!("'{text}': expected kvm, jit or interp")));
        };
        for name in names.split(':') {
            let option = format!("-accel {name}");
            wanted.push(match name {
                "jit" | "tcg" | "interp" => {
                    let set = OptionSet::parse(&option, JIT_OPTIONS, rest)?;
                    let jit = jit_options(&set, icount)?;
                    if name == "interp" { AccelKind::Interpreter } else { jit }
                }
                "kvm" => {
                    let set = OptionSet::parse(&option, KVM_OPTIONS, rest)?;
                    AccelKind::Kvm(kvm_options(&set)?)
                }
                "hvf" | "whpx" | "xen" => {
                    // Of other systems: never there.
                    if texts.len() == 1 && !names.contains(':') {
                        return Err(OptionError::new("-accel", format!("'{name}' is not available: use kvm or jit")));
                    }
                    continue;
                }
                _ => {
                    let text = format!("unknown accelerator '{name}': accelerators are kvm, jit and interp");
                    return Err(OptionError::new("-accel", text));
                }
            });
        }
    }
    if texts.is_empty() {
        return Ok(match kvm(Choice::Default, KernelIrqchip::On) {
            Ok(()) => AccelKind::Kvm(KvmOptions::default()),
            Err(_) if jit => AccelKind::Jit { code_bytes: None },
            Err(_) => AccelKind::Interpreter,
        });
    }
    let count = wanted.len();
    for (n, kind) in wanted.into_iter().enumerate() {
        let last = n + 1 == count;
        let (name, why) = match kind {
            AccelKind::Kvm(options) => {
                let irqchip = options.irqchip;
                let choice = if last || !runs { Choice::Last } else { Choice::Listed };
                match kvm(choice, irqchip.unwrap_or(KernelIrqchip::On)) {
                    Ok(()) => return Ok(kind),
                    Err(why) => ("kvm", why.to_string()),
                }
            }
            AccelKind::Jit { .. } if !jit => {
                ("jit", "it makes no code for this host's processor: use kvm or interp".to_owned())
            }
            AccelKind::Jit { .. } | AccelKind::Interpreter => return Ok(kind),
        };
        if last {
            return Err(OptionError::new(&format!("-accel {name}"), why));
        }
        eprintln!("rhea: -accel {name}: {why}: trying the next");
    }
    Err(OptionError::new("-accel", "none of them is available: use jit"))
}

fn usable(guest: Architecture, choice: Choice, irqchip: KernelIrqchip) -> Result<(), KvmError> {
    match guest {
        Architecture::X86_64 => x86::usable(
            choice,
            match irqchip {
                KernelIrqchip::On => x86::Irqchip::Kernel,
                KernelIrqchip::Split => x86::Irqchip::Split,
                KernelIrqchip::Off => x86::Irqchip::Machine,
            },
        ),
        Architecture::Aarch64 if irqchip != KernelIrqchip::On => Err(KvmError::Refused(
            "of aarch64 the interrupt controller is in the kernel: use kernel-irqchip=on".to_owned(),
        )),
        Architecture::Aarch64 => arm::usable(choice),
        Architecture::Ppc64 => ppc::usable(choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(texts: &[&str], works: &[&str]) -> Result<AccelKind, String> {
        choose_for(texts, works, true)
    }
    fn choose_for(texts: &[&str], works: &[&str], runs: bool) -> Result<AccelKind, String> {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        let absent = || KvmError::Absent(rhea_kvm::DEV_KVM.to_owned());
        let slow = || KvmError::Unfit("it is slow".to_owned());
        select_with(
            &texts,
            &|choice, _| match works {
                ["slow"] if choice != Choice::Last => Err(slow()),
                ["kvm" | "slow"] => Ok(()),
                _ => Err(absent()),
            },
            works != ["interp"],
            false,
            runs,
        )
        .map_err(|e| e.to_string())
    }

    #[test]
    fn properties_of_the_jit() {
        let choose = |text: &str, icount| {
            select(&[text.to_owned()], Architecture::X86_64, icount, true).map_err(|e| e.to_string())
        };
        assert_eq!(choose("tcg,tb-size=64", false), Ok(AccelKind::Jit { code_bytes: Some(64 << 20) }));
        assert_eq!(choose("tcg,tb-size=0", false), Ok(AccelKind::Jit { code_bytes: None }));
        for icount in [false, true] {
            assert_eq!(choose("tcg,thread=single", icount), Ok(AccelKind::Jit { code_bytes: None }));
        }
        for (text, icount, word) in [("jit,thread=multi", true, "thread=single"), ("jit,tb-size=4096", false, "2047")] {
            assert!(choose(text, icount).is_err_and(|e| e.contains(word)), "{text}");
        }
    }

    #[test]
    fn the_first_that_works() {
        let [on, split, off] = [KernelIrqchip::On, KernelIrqchip::Split, KernelIrqchip::Off]
            .map(|k| Ok(AccelKind::Kvm(KvmOptions { irqchip: Some(k), dirty_ring: 0 })));
        let ring = Ok(AccelKind::Kvm(KvmOptions { irqchip: None, dirty_ring: 4096 }));
        let (kvm, jit) = (Ok(AccelKind::Kvm(KvmOptions::default())), Ok(AccelKind::Jit { code_bytes: None }));
        for (texts, works, expected) in [
            (&["tcg"][..], &["kvm"][..], &jit),
            (&["kvm:tcg"], &[], &jit),
            (&["kvm:tcg"], &["kvm"], &kvm),
            (&["kvm", "interp"], &[], &Ok(AccelKind::Interpreter)),
            (&["kvm,kernel-irqchip=on"], &["kvm"], &on),
            (&["kvm,kernel-irqchip=split"], &["kvm"], &split),
            (&["kvm,kernel-irqchip=off", "jit"], &["kvm"], &off),
            (&["kvm,dirty-ring-size=4096"], &["kvm"], &ring),
            (&["kvm,dirty-ring-size=0"], &["kvm"], &kvm),
            (&["xen", "kvm"], &["kvm"], &kvm),
            // One that is slow is used if nothing else is asked for.
            (&["kvm"], &["slow"], &kvm),
            (&["kvm", "jit"], &["slow"], &jit),
            (&[], &["kvm"], &kvm),
            (&[], &["slow"], &jit),
            (&[], &[], &jit),
            // A host that the JIT has no back end for.
            (&[], &["interp"], &Ok(AccelKind::Interpreter)),
            (&["jit", "interp"], &["interp"], &Ok(AccelKind::Interpreter)),
        ] {
            assert_eq!(&choose(texts, works), expected, "{texts:?} {works:?}");
        }
        // Nothing is to be run: what matters is that it works.
        assert_eq!(choose_for(&["kvm:tcg"], &["slow"], false), kvm);
        assert_eq!(choose_for(&["kvm:tcg"], &[], false), jit);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (texts, says) in [
            (&["kvm"][..], "/dev/kvm does not exist"),
            (&["turbo"], "unknown accelerator 'turbo'"),
            (&["kvm,kernel-irqchip=maybe"], "kernel-irqchip"),
            (&["kvm,dirty-ring-size=4095"], "dirty-ring-size=4095: is not a power of two"),
            (&["kvm,dirty-ring-size=many"], "dirty-ring-size"),
            (&["kvm,thread=single"], "thread"),
            (&["jit,kernel-irqchip=on"], "kernel-irqchip"),
            (&["whpx"], "'whpx' is not available"),
            (&["hvf:xen"], "none of them"),
        ] {
            let e = choose(texts, &[]).unwrap_err();
            assert!(e.contains(says) && e.lines().count() == 1, "{texts:?}: {e}");
        }
        let e = choose(&["kvm:tcg"], &["interp"]).unwrap_err();
        assert_eq!(e, "-accel jit: it makes no code for this host's processor: use kvm or interp");
        // Other guests are not run by this host.
        let e = select(&["kvm".into()], Architecture::Aarch64, false, true).unwrap_err().to_string();
        assert!(e.contains("does not run aarch64 guests"), "{e}");
        assert_eq!(
            select(&["kvm:jit".into()], Architecture::Ppc64, false, true).ok(),
            Some(AccelKind::Jit { code_bytes: None })
        );
        assert_eq!(select(&[], Architecture::Ppc64, false, true).ok(), Some(AccelKind::Jit { code_bytes: None }));
        assert_eq!(select(&[], Architecture::X86_64, true, true).ok(), Some(AccelKind::Jit { code_bytes: None }));
        let e = select(&["kvm".into()], Architecture::X86_64, true, true).unwrap_err().to_string();
        assert!(e.contains("does not count instructions"), "{e}");
    }
}
