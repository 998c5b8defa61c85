//! The Power State Coordination Interface 1.1 (Arm DEN 0022) and the SMC Calling Convention's own functions (DEN 0028).

/// Power state of a CPU as AFFINITY_INFO reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityState {
    On = 0,
    Off = 1,
    OnPending = 2,
}

/// What PSCI needs of the machine; implemented by the machine, callable from any vCPU's thread.
pub trait PsciPlatform: Send + Sync {
    /// The CPU with this MPIDR affinity (bits 39:32 and 23:0).
    fn cpu_by_mpidr(&self, mpidr: u64) -> Option<u32>;
    fn state(&self, cpu: u32) -> AffinityState;
    /// Starts a CPU that is off at `entry` with `context` in x0, at the caller's (non-secure) exception level. False if another
    /// CPU was faster.
    fn cpu_on(&self, cpu: u32, entry: u64, context: u64) -> bool;
    fn system_off(&self);
    fn system_reset(&self);
}

/// What the calling CPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciResult {
    /// Goes on with this value in x0 (sign-extended to 64 bits).
    Return(i64),
    /// Powers off; only CPU_ON brings it back.
    CpuOff,
    /// Waits for an interrupt, then goes on with SUCCESS in x0.
    Suspend,
    /// The machine is going down: runs no further instruction.
    Halt,
}

pub const SUCCESS: i64 = 0;
pub const NOT_SUPPORTED: i64 = -1;
pub const INVALID_PARAMETERS: i64 = -2;
pub const DENIED: i64 = -3;
pub const ALREADY_ON: i64 = -4;
pub const ON_PENDING: i64 = -5;
pub const INVALID_ADDRESS: i64 = -9;

const VERSION: u32 = 0x8400_0000;
const CPU_SUSPEND: u32 = 0x8400_0001;
const CPU_OFF: u32 = 0x8400_0002;
const CPU_ON: u32 = 0x8400_0003;
const AFFINITY_INFO: u32 = 0x8400_0004;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const FEATURES: u32 = 0x8400_000a;
const SYSTEM_RESET2: u32 = 0x8400_0012;
const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// Bit 30 of a function id: 64-bit arguments.
const SMC64: u32 = 0x4000_0000;

/// Is the function id one that exists in this convention (32- or 64-bit)?
fn known(id: u32) -> bool {
    let base = id & !SMC64;
    match base {
        CPU_SUSPEND | CPU_ON | AFFINITY_INFO | SYSTEM_RESET2 => true,
        VERSION | CPU_OFF | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET | FEATURES | SMCCC_VERSION
        | SMCCC_ARCH_FEATURES => id == base,
        _ => false,
    }
}

/// Handles a call by SMC or HVC: `args` are x0 to x3.
#[must_use]
pub fn call(platform: &dyn PsciPlatform, args: [u64; 4]) -> PsciResult {
    use PsciResult::Return;
    let id = args[0] as u32;
    if !known(id) {
        return Return(NOT_SUPPORTED);
    }
    // 32-bit calls take the low halves.
    let arg = |n: usize| if id & SMC64 != 0 { args[n] } else { args[n] & 0xffff_ffff };
    match id & !SMC64 {
        VERSION => Return(0x1_0001),
        SMCCC_VERSION => Return(0x1_0001),
        SMCCC_ARCH_FEATURES => {
            Return(if matches!(args[1] as u32, SMCCC_VERSION | SMCCC_ARCH_FEATURES) { SUCCESS } else { NOT_SUPPORTED })
        }
        FEATURES => Return(if known(args[1] as u32) { SUCCESS } else { NOT_SUPPORTED }),
        // No Trusted OS that would need migration.
        MIGRATE_INFO_TYPE => Return(2),
        CPU_OFF => PsciResult::CpuOff,
        // A power-down request may be answered as a standby that ends at once with an interrupt (5.1.2).
        CPU_SUSPEND => PsciResult::Suspend,
        CPU_ON => {
            let (target, entry, context) = (arg(1), arg(2), arg(3));
            let Some(cpu) = platform.cpu_by_mpidr(target) else {
                return Return(INVALID_PARAMETERS);
            };
            if entry & 3 != 0 {
                return Return(INVALID_ADDRESS);
            }
            match platform.state(cpu) {
                AffinityState::On => Return(ALREADY_ON),
                AffinityState::OnPending => Return(ON_PENDING),
                AffinityState::Off if platform.cpu_on(cpu, entry, context) => Return(SUCCESS),
                AffinityState::Off => Return(ON_PENDING),
            }
        }
        AFFINITY_INFO => {
            // Only level 0, single CPUs, has a meaning since version 1.0.
            if arg(2) != 0 {
                return Return(INVALID_PARAMETERS);
            }
            Return(platform.cpu_by_mpidr(arg(1)).map_or(INVALID_PARAMETERS, |cpu| platform.state(cpu) as i64))
        }
        SYSTEM_OFF => {
            platform.system_off();
            PsciResult::Halt
        }
        SYSTEM_RESET => {
            platform.system_reset();
            PsciResult::Halt
        }
        // Type 0, SYSTEM_WARM_RESET, is the architectural one; vendor types have bit 31.
        SYSTEM_RESET2 if arg(1) as u32 == 0 => {
            platform.system_reset();
            PsciResult::Halt
        }
        SYSTEM_RESET2 => Return(INVALID_PARAMETERS),
        _ => Return(NOT_SUPPORTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    struct Two(Mutex<(AffinityState, Vec<String>)>);
    impl PsciPlatform for Two {
        fn cpu_by_mpidr(&self, mpidr: u64) -> Option<u32> {
            (mpidr < 2).then_some(mpidr as u32)
        }
        fn state(&self, cpu: u32) -> AffinityState {
            if cpu == 0 { AffinityState::On } else { self.0.lock().0 }
        }
        fn cpu_on(&self, cpu: u32, entry: u64, context: u64) -> bool {
            let mut s = self.0.lock();
            s.0 = AffinityState::OnPending;
            s.1.push(format!("on {cpu} {entry:#x} {context:#x}"));
            true
        }
        fn system_off(&self) {
            self.0.lock().1.push("off".into());
        }
        fn system_reset(&self) {
            self.0.lock().1.push("reset".into());
        }
    }

    #[test]
    fn calls() {
        let p = Two(Mutex::new((AffinityState::Off, vec![])));
        let go = |a, b, c, d| call(&p, [a, b, c, d]);
        use PsciResult::*;
        assert_eq!(go(0x8400_0000, 0, 0, 0), Return(0x10001));
        assert_eq!(go(0xc400_0000, 0, 0, 0), Return(-1));
        assert_eq!(go(0xc400_0004, 1, 0, 0), Return(1));
        assert_eq!(go(0xc400_0003, 7, 0x1000, 0), Return(-2));
        assert_eq!(go(0xc400_0003, 1, 0x1001, 0), Return(-9));
        assert_eq!(go(0xc400_0003, 0, 0x1000, 0), Return(-4));
        assert_eq!(go(0x8400_0003, 0xf_0000_0001, 0x1_0000_1000, 9), Return(0));
        assert_eq!(go(0xc400_0003, 1, 0x1000, 9), Return(-5));
        assert_eq!(go(0x8400_000a, 0xc400_0003, 0, 0), Return(0));
        assert_eq!(go(0x8400_000a, 0x8400_0005, 0, 0), Return(-1));
        assert_eq!(go(0x8400_0002, 0, 0, 0), CpuOff);
        assert_eq!(go(0x8400_0001, 0, 0, 0), Suspend);
        assert_eq!(go(0x8400_0008, 0, 0, 0), Halt);
        assert_eq!(go(0x8400_0009, 0, 0, 0), Halt);
        assert_eq!(go(0x1234, 0, 0, 0), Return(-1));
        assert_eq!(p.0.lock().1, ["on 1 0x1000 0x9", "off", "reset"]);
    }
}
