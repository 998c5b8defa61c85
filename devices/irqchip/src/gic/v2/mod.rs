//! GICv2 (IHI 0048B): up to 8 processors, memory-mapped CPU interfaces, optional Security and Virtualization Extensions; and the
//! GICv2m frame for message-signalled interrupts.
//!
//! Locks: see [`super::engine`].

mod cpu;
mod dist;
mod hyp;
mod msi;
mod spec;
mod state;
#[cfg(test)]
mod tests;

pub use msi::GicV2m;

use super::banks::View;
use super::engine::Engine;
use super::irqs::Place;
use super::virt::VirtualCpu;
use super::{CpuOutputs, EoiListener, GicError};
use cpu::{CpuIface, CpuRegs};
use rhea_accel::{IrqLine, IrqSink};
use rhea_device::Log;
use rhea_memory::{Access, MmioDevice, Requester};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How to make a [`GicV2`].
#[derive(Clone)]
pub struct GicV2Config {
    pub name: String,
    /// One for each processor, 1 to 8.
    pub cpus: Vec<CpuOutputs>,
    /// SPIs: a multiple of 32; 988 or 992 stand for all that are possible.
    pub spis: u32,
    /// The Security Extensions.
    pub security: bool,
    /// The Virtualization Extensions.
    pub virtualization: bool,
    /// INTID (16 to 31) of the maintenance interrupt.
    pub maintenance_ppi: u32,
    /// After reset all interrupts are in group 1, as firmware leaves them: for a kernel started directly in Non-secure state.
    pub nonsecure_boot: bool,
    pub eoi: Option<EoiListener>,
    pub log: Log,
}

impl GicV2Config {
    /// 256 SPIs, no extensions.
    #[must_use]
    pub fn new(name: &str, cpus: Vec<CpuOutputs>) -> Self {
        Self {
            name: name.to_owned(),
            cpus,
            spis: 256,
            security: false,
            virtualization: false,
            maintenance_ppi: 25,
            nonsecure_boot: false,
            eoi: None,
            log: Log::off(),
        }
    }
}

/// The controller. Its pins as [`IrqSink`] are the SPIs: pin n is INTID 32 + n.
pub struct GicV2 {
    config: GicV2Config,
    engine: Engine<CpuIface>,
    /// GICD_CTLR: EnableGrp0, EnableGrp1.
    ctlr: AtomicU8,
}

/// The PPIs: pin 32 * cpu + INTID.
struct Ppis(Arc<GicV2>);

impl IrqSink for Ppis {
    fn set_level(&self, pin: u32, level: bool) {
        self.0.engine.set_ppi_level(pin as usize / 32, pin % 32, level);
    }
    fn import_level(&self, pin: u32, level: bool) {
        self.0.engine.import_ppi_level(pin as usize / 32, pin % 32, level);
    }
}

impl IrqSink for GicV2 {
    fn set_level(&self, pin: u32, level: bool) {
        self.engine.set_spi_level(pin.saturating_add(32), level);
    }
    fn import_level(&self, pin: u32, level: bool) {
        self.engine.import_spi_level(pin.saturating_add(32), level);
    }
    fn tells_end(&self, _pin: u32) -> bool {
        self.config.eoi.is_some()
    }
}

impl GicV2 {
    /// # Errors
    /// [`GicError`].
    pub fn new(config: GicV2Config) -> Result<Arc<Self>, GicError> {
        let count = config.cpus.len();
        if !(1..=spec::MAX_CPUS).contains(&count) {
            return Err(GicError::Cpus("gicv2", spec::MAX_CPUS, count));
        }
        if !(32..=992).contains(&config.spis) || !config.spis.is_multiple_of(32) && config.spis != 988 {
            return Err(GicError::Spis(config.spis));
        }
        let maintenance = if config.virtualization { 1 << (config.maintenance_ppi & 31) } else { 0 };
        let ifaces = config.cpus.iter().map(|out| (CpuIface::new(maintenance), out.clone())).collect();
        let engine = Engine::new(config.spis.div_ceil(32) as usize, ifaces, config.eoi.clone());
        let gic = Arc::new(Self { config, engine, ctlr: AtomicU8::new(0) });
        gic.reset_all();
        Ok(gic)
    }
    /// The distributor, 4 KiB.
    #[must_use]
    pub fn distributor(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(dist::Distributor(self.clone()))
    }
    /// The CPU interface of whichever processor accesses it, 8 KiB.
    #[must_use]
    pub fn cpu_interface(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(cpu::CpuFrame(self.clone()))
    }
    /// The hypervisor's virtual interface control (GICH), 4 KiB.
    #[must_use]
    pub fn virtual_control(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(hyp::ControlFrame(self.clone()))
    }
    /// The virtual CPU interface (GICV), 8 KiB.
    #[must_use]
    pub fn virtual_cpu_interface(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(hyp::VirtualFrame(self.clone()))
    }
    /// The line into a processor's PPI (INTID 16 to 31).
    #[must_use]
    pub fn ppi(self: &Arc<Self>, cpu: usize, intid: u32) -> IrqLine {
        IrqLine::to_sink(Arc::new(Ppis(self.clone())), cpu as u32 * 32 + (intid & 31))
    }
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.engine.cpus()
    }
    /// Resets the CPU interfaces of one processor, as its own reset does.
    pub fn reset_cpu_interface(&self, cpu: usize) {
        self.engine.with_cpu(cpu, |core| self.reset_iface(&mut core.iface));
    }
    /// What an access may see. Without the Security Extensions every access is like a Secure one.
    fn view(&self, access: Access) -> View {
        View {
            full: access.secure
                || !self.config.security
                || matches!(access.requester, Requester::Host | Requester::Debugger),
        }
    }
    /// The processor whose banked registers are meant; other masters see those of processor 0.
    fn cpu_of(&self, access: Access) -> usize {
        access.cpu_index().map_or(0, |n| n as usize).min(self.cpus() - 1)
    }
    /// What a GICD_ITARGETSR byte means.
    fn place_of(&self, mask: u64) -> Place {
        let existing = ((1u16 << self.cpus()) - 1) as u8;
        match (self.cpus(), mask as u8 & existing) {
            (1, _) => Place::One(0),
            (_, 0) => Place::Nowhere,
            (_, mask) => Place::Mask(mask),
        }
    }
    fn reset_iface(&self, iface: &mut CpuIface) {
        iface.regs = CpuRegs::default();
        iface.virt = VirtualCpu::new();
        if self.config.nonsecure_boot && self.config.security {
            // Only then may Non-secure software change the mask.
            iface.regs.pmr = 0x80;
        }
    }
    fn reset_all(&self) {
        self.ctlr.store(0, Ordering::Release);
        let group = if self.config.security && self.config.nonsecure_boot { !0 } else { 0 };
        self.engine.reset(
            |spis, _| {
                spis.irqs.group = group;
                spis.target = [self.place_of(0); 32];
            },
            |_, core| {
                core.private.group = group;
                // SGIs are edge-triggered and always enabled.
                core.private.edge = 0xffff;
                core.private.enabled = 0xffff;
                core.iface.sgi_sources = [0; 16];
                self.reset_iface(&mut core.iface);
            },
        );
    }
    /// Text for `info pic`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}: GICv2, GICD_CTLR={:#x}, {} CPUs\n",
            self.config.name,
            self.ctlr.load(Ordering::Acquire),
            self.cpus()
        );
        for cpu in 0..self.cpus() {
            let line = self.engine.peek_cpu(cpu, |core| {
                let (regs, p) = (&core.iface.regs, &core.private);
                format!(
                    "  cpu {cpu}: out={:#x} ctlr={:#x} pmr={:#x} running={:#x} enabled={:#010x} pending={:#010x} active={:#010x}{}\n",
                    self.engine.outputs(cpu),
                    regs.ctlr,
                    regs.pmr,
                    core.iface.running(),
                    p.enabled,
                    p.pending(),
                    p.active,
                    core.iface.virt.describe(),
                )
            });
            text.push_str(&line.unwrap_or_default());
        }
        text.push_str(&self.engine.describe_spis());
        text
    }
}
