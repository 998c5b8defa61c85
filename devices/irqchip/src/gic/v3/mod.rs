//! GICv3 (IHI 0069): affinity routing and system registers only, one or two security states, LPIs and an ITS.
//!
//! [`dist`] and [`redist`] are the memory-mapped frames, [`icc`] and [`ich`] the CPU interfaces behind the system registers, [`lpi`]
//! and [`its`] message-signalled interrupts. Locks: see [`super::engine`]; the ITS says its own in [`its`].

mod access;
mod dist;
mod icc;
mod ich;
mod its;
mod its_spec;
mod lpi;
mod redist;
mod spec;
mod state;
mod sysreg;
#[cfg(test)]
mod tests;

pub use its::Its;
pub use sysreg::{IccContext, IccReg, IccTrap};

use super::engine::{Engine, MAX_CPUS};
use super::irqs::Place;
use super::virt::VirtualCpu;
use super::{CpuOutputs, EoiListener, GicError};
use icc::{Icc, IccRegs};
use lpi::Lpis;
use rhea_accel::{IrqLine, IrqSink};
use rhea_device::Log;
use rhea_memory::{AddressSpace, MmioDevice};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use sysreg::Levels;

/// A processor of a GICv3.
#[derive(Clone)]
pub struct GicV3Cpu {
    /// Aff3.Aff2.Aff1.Aff0, a byte each from the top.
    pub affinity: u32,
    pub outputs: CpuOutputs,
}

/// How to make a [`GicV3`].
#[derive(Clone)]
pub struct GicV3Config {
    pub name: String,
    pub cpus: Vec<GicV3Cpu>,
    /// SPIs: a multiple of 32; 988 or 992 stand for all that are possible.
    pub spis: u32,
    /// EL3 is implemented: two security states until software sets GICD_CTLR.DS.
    pub security: bool,
    /// EL2 is implemented: ICH registers, the maintenance interrupt.
    pub virtualization: bool,
    /// INTID (16 to 31) of the maintenance interrupt.
    pub maintenance_ppi: u32,
    /// The number of processors in each redistributor region.
    pub regions: Vec<usize>,
    /// Where LPI tables are; with it LPIs are implemented.
    pub memory: Option<Arc<AddressSpace>>,
    /// After reset all interrupts are in Non-secure group 1 and no processor sleeps, as firmware leaves them: for a kernel started
    /// directly in Non-secure state.
    pub nonsecure_boot: bool,
    pub eoi: Option<EoiListener>,
    pub log: Log,
}

impl GicV3Config {
    /// One region, 256 SPIs less those that are not, no options.
    #[must_use]
    pub fn new(name: &str, cpus: Vec<GicV3Cpu>) -> Self {
        Self {
            name: name.to_owned(),
            regions: vec![cpus.len()],
            cpus,
            spis: 256,
            security: false,
            virtualization: false,
            maintenance_ppi: 25,
            memory: None,
            nonsecure_boot: false,
            eoi: None,
            log: Log::off(),
        }
    }
}

/// The controller. Its pins as [`IrqSink`] are the SPIs: pin n is INTID 32 + n.
pub struct GicV3 {
    config: GicV3Config,
    engine: Engine<Icc>,
    by_affinity: FxHashMap<u32, u16>,
    /// GICD_CTLR in the Secure view ([`spec::ctlr`]).
    ctlr: AtomicU32,
}

/// The PPIs: pin 32 * cpu + INTID.
struct Ppis(Arc<GicV3>);

impl IrqSink for Ppis {
    fn set_level(&self, pin: u32, level: bool) {
        self.0.engine.set_ppi_level(pin as usize / 32, pin % 32, level);
    }
    fn import_level(&self, pin: u32, level: bool) {
        self.0.engine.import_ppi_level(pin as usize / 32, pin % 32, level);
    }
}

impl IrqSink for GicV3 {
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

impl GicV3 {
    /// # Errors
    /// [`GicError`].
    pub fn new(config: GicV3Config) -> Result<Arc<Self>, GicError> {
        let count = config.cpus.len();
        if !(1..=MAX_CPUS).contains(&count) {
            return Err(GicError::Cpus("gicv3", MAX_CPUS, count));
        }
        if !(32..=992).contains(&config.spis) || !config.spis.is_multiple_of(32) && config.spis != 988 {
            return Err(GicError::Spis(config.spis));
        }
        if config.regions.iter().sum::<usize>() < count {
            return Err(GicError::Regions(config.regions.iter().sum(), count));
        }
        let mut by_affinity = FxHashMap::default();
        for (n, cpu) in config.cpus.iter().enumerate() {
            if by_affinity.insert(cpu.affinity, n as u16).is_some() {
                return Err(GicError::Affinity(cpu.affinity));
            }
        }
        let maintenance = if config.virtualization { 1 << (config.maintenance_ppi & 31) } else { 0 };
        let ifaces = config.cpus.iter().map(|cpu| {
            let icc = Icc {
                regs: IccRegs::default(),
                virt: VirtualCpu::new(),
                lpis: Lpis::default(),
                asleep: true,
                dpg: 0,
                two_states: config.security,
                at_el3: false,
                secure: false,
                maintenance,
            };
            (icc, cpu.outputs.clone())
        });
        let engine = Engine::new(config.spis.div_ceil(32) as usize, ifaces.collect(), config.eoi.clone());
        let gic = Arc::new(Self { config, engine, by_affinity, ctlr: AtomicU32::new(0) });
        gic.reset_all();
        Ok(gic)
    }
    /// The distributor's frame of 64 KiB.
    #[must_use]
    pub fn distributor(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(dist::Distributor(self.clone()))
    }
    /// A redistributor region: 128 KiB for each processor of the region in the configuration.
    #[must_use]
    pub fn redistributors(self: &Arc<Self>, region: usize) -> Arc<dyn MmioDevice> {
        let first = self.config.regions.iter().take(region).sum();
        let len = self.config.regions.get(region).copied().unwrap_or(0);
        Arc::new(redist::Redistributors { gic: self.clone(), first, len })
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
    /// Tells the exception level and security state of a processor, which decide between IRQ and FIQ with two security states. To be
    /// called when they change; without EL3 it need not be called.
    pub fn set_pe_state(&self, cpu: usize, el: u8, secure: bool) {
        if self.two_states() {
            self.engine.with_cpu(cpu, |core| {
                core.iface.at_el3 = el == 3;
                core.iface.secure = secure;
            });
        }
    }
    /// Resets the CPU interfaces of one processor, as its own reset does (PSCI CPU_ON).
    pub fn reset_cpu_interface(&self, cpu: usize) {
        self.engine.with_cpu(cpu, |core| self.reset_icc(&mut core.iface));
    }
    fn reset_icc(&self, icc: &mut Icc) {
        icc.regs = IccRegs::default();
        icc.virt = VirtualCpu::new();
        if self.config.nonsecure_boot && self.config.security {
            // Only then may Non-secure software change the mask.
            icc.regs.pmr = 0x80;
        }
    }
    fn two_states(&self) -> bool {
        self.ctlr.load(Ordering::Acquire) & spec::ctlr::DS == 0
    }
    fn levels(&self) -> Levels {
        Levels { el2: self.config.virtualization, el3: self.config.security }
    }
    fn lpis(&self) -> bool {
        self.config.memory.is_some()
    }
    /// What a GICD_IROUTER value means.
    fn place_of(&self, route: u64) -> Place {
        if route & 1 << 31 != 0 {
            return Place::Any;
        }
        let affinity = (route & 0x00ff_ffff | route >> 8 & 0xff00_0000) as u32;
        self.by_affinity.get(&affinity).map_or(Place::Nowhere, |cpu| Place::One(*cpu))
    }
    fn reset_all(&self) {
        let (security, boot) = (self.config.security, self.config.nonsecure_boot);
        self.ctlr.store(if security { 0 } else { spec::ctlr::DS }, Ordering::Release);
        let group = if security && boot { !0 } else { 0 };
        self.engine.reset(
            |spis, _| {
                spis.irqs.two_states = security;
                spis.irqs.group = group;
                spis.target = [self.place_of(0); 32];
            },
            |_, core| {
                core.private.two_states = security;
                core.private.group = group;
                // SGIs are edge-triggered.
                core.private.edge = 0xffff;
                let icc = &mut core.iface;
                self.reset_icc(icc);
                icc.lpis = Lpis::default();
                // Firmware for a machine without Secure state does not know GICR_WAKER: it finds all processors awake.
                icc.asleep = security && !boot;
                icc.dpg = 0;
                icc.two_states = security;
                (icc.at_el3, icc.secure) = (false, false);
            },
        );
    }
    /// Text for `info pic`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}: GICv3, GICD_CTLR={:#x}, {} CPUs\n",
            self.config.name,
            self.ctlr.load(Ordering::Acquire),
            self.cpus()
        );
        for cpu in 0..self.cpus() {
            let line = self.engine.peek_cpu(cpu, |core| {
                let (icc, p) = (&core.iface, &core.private);
                let lpis = icc.lpis.all_pending();
                format!(
                    "  cpu {cpu}: out={:#x} pmr={:#x} running={:#x} groups={:#x}{} enabled={:#010x} pending={:#010x} active={:#010x} lpis={}{:?}{}\n",
                    self.engine.outputs(cpu),
                    icc.regs.pmr,
                    icc.running(),
                    icc.regs.igrpen,
                    if icc.asleep { " asleep" } else { "" },
                    p.enabled,
                    p.pending(),
                    p.active,
                    if icc.lpis.enabled { "on " } else { "off " },
                    &lpis[..lpis.len().min(16)],
                    icc.virt.describe(),
                )
            });
            text.push_str(&line.unwrap_or_default());
        }
        text.push_str(&self.engine.describe_spis());
        text
    }
}
