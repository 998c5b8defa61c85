//! What the processors ask of the board: firmware calls and the GIC's CPU interface.

use super::cpu::PowerStates;
use rhea_accel::IrqLine;
use rhea_accel::{GuestVcpu, ShutdownCause, VmControl};
use rhea_arm::hooks::{ArmHooks, Conduit, IccContext, Trap};
use rhea_arm::{ArmConfig, ArmCpu};
use rhea_device::{Log, LogMask};
use rhea_firmware::psci::{self, AffinityState, PsciPlatform, PsciResult};
use rhea_irqchip::gic::{self, GicV3, IccReg, IccTrap};
use std::sync::{Arc, OnceLock};

/// The board's services to its CPUs.
pub struct BoardHooks {
    pub config: Arc<ArmConfig>,
    pub power: Arc<PowerStates>,
    pub control: VmControl,
    pub log: Log,
    /// Filled in while the board is wired.
    pub vcpus: OnceLock<Vec<Arc<dyn GuestVcpu<ArmCpu>>>>,
    pub gic: OnceLock<Arc<GicV3>>,
    pub pmu_lines: OnceLock<Vec<IrqLine>>,
}

impl BoardHooks {
    fn vcpus(&self) -> &[Arc<dyn GuestVcpu<ArmCpu>>] {
        self.vcpus.get().map_or(&[], Vec::as_slice)
    }
}

impl PsciPlatform for BoardHooks {
    fn cpu_by_mpidr(&self, mpidr: u64) -> Option<u32> {
        const AFFINITY: u64 = 0xff_00ff_ffff;
        if mpidr & !AFFINITY != 0 {
            return None;
        }
        (0..self.vcpus().len() as u32).find(|n| self.config.mpidr(*n) & AFFINITY == mpidr)
    }
    fn state(&self, cpu: u32) -> AffinityState {
        self.power.get(cpu)
    }
    fn cpu_on(&self, cpu: u32, entry: u64, context: u64) -> bool {
        let Some(vcpu) = self.vcpus().get(cpu as usize) else { return false };
        if !self.power.begin_on(cpu) {
            return false;
        }
        let power = self.power.clone();
        vcpu.post(Box::new(move |target| {
            target.power_on(entry, context);
            power.set(cpu, AffinityState::On);
        }));
        true
    }
    fn system_off(&self) {
        self.control.power_off(ShutdownCause::Guest);
    }
    fn system_reset(&self) {
        self.control.reset(ShutdownCause::Guest);
    }
}

impl ArmHooks for BoardHooks {
    fn firmware_call(&self, cpu: &mut ArmCpu, _conduit: Conduit) -> bool {
        let args = [cpu.x[0], cpu.x[1], cpu.x[2], cpu.x[3]];
        match psci::call(self, args) {
            PsciResult::Return(value) => cpu.x[0] = value as u64,
            PsciResult::CpuOff => {
                self.power.set(cpu.index, AffinityState::Off);
                cpu.power_off();
            }
            PsciResult::Suspend => {
                cpu.x[0] = 0;
                cpu.wait_for_interrupt();
            }
            // No further instruction until the main loop has acted.
            PsciResult::Halt => cpu.power_off(),
        }
        true
    }
    fn has_icc(&self) -> bool {
        self.gic.get().is_some()
    }
    fn icc_read(&self, cpu: u32, enc: u16, context: IccContext) -> Result<u64, Trap> {
        let (gic, reg, context) = self.icc(enc, context)?;
        gic.read_sysreg(cpu as usize, reg, context).map_err(trap)
    }
    fn icc_write(&self, cpu: u32, enc: u16, context: IccContext, value: u64) -> Result<(), Trap> {
        let (gic, reg, context) = self.icc(enc, context)?;
        gic.write_sysreg(cpu as usize, reg, value, context).map_err(trap)
    }
    fn send_event(&self) {
        for vcpu in self.vcpus() {
            vcpu.post(Box::new(ArmCpu::set_event));
        }
    }
    fn power_state(&self, cpu: u32, on: bool) {
        self.power.set(cpu, if on { AffinityState::On } else { AffinityState::Off });
    }
    fn pmu_line(&self, cpu: u32, level: bool) {
        if let Some(line) = self.pmu_lines.get().and_then(|l| l.get(cpu as usize)) {
            line.set(level);
        }
    }
    fn wants_exceptions(&self) -> bool {
        self.log.enabled(LogMask::Int)
    }
    fn exception(&self, cpu: u32, message: &str) {
        self.log.line(LogMask::Int, format_args!("CPU {cpu}: {message}"));
    }
    fn guest_error(&self, cpu: u32, message: &str) {
        self.log.guest_error("cpu", format_args!("{cpu}: {message}"));
    }
}

impl BoardHooks {
    fn icc(&self, enc: u16, context: IccContext) -> Result<(&GicV3, IccReg, gic::IccContext), Trap> {
        let gic = self.gic.get().ok_or(Trap::Undefined)?;
        // op0:op1:CRn:CRm:op2, as in the instruction.
        let field = |shift: u32, mask: u16| (enc >> shift & mask) as u8;
        let reg = IccReg::decode(field(14, 3), field(11, 7), field(7, 15), field(3, 15), field(0, 7))
            .ok_or(Trap::Undefined)?;
        let IccContext { el, secure, hcr_el2, scr_el3 } = context;
        let el2_enabled = self.config.has(rhea_arm::Feature::El2) && !secure;
        Ok((gic, reg, gic::IccContext { el: el as u8, secure, el2_enabled, hcr_el2, scr_el3 }))
    }
}

fn trap(t: IccTrap) -> Trap {
    match t {
        IccTrap::Undefined => Trap::Undefined,
        IccTrap::El2 => Trap::To(2),
        IccTrap::El3 => Trap::To(3),
    }
}
