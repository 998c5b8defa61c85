//! The interrupt controller in the kernel: a GICv2, or a GICv3 with its ITS.

use super::super::{ArmGic, Gic};
use super::abi as kb;
use super::abi::{kvm_irq_routing_entry, kvm_msi};
use super::sys::{DeviceFile, VmFile};
use crate::error::{Context, KvmError};
use crate::routes::{Routes, Table, chip_route};
use crate::sys::{AnyVm, cap};
use rhea_accel::{IrqFd, IrqLine, IrqSink, MsiMessage, MsiTarget};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

const DISTRIBUTOR: u32 = kb::KVM_DEV_ARM_VGIC_GRP_DIST_REGS;
const REDISTRIBUTOR: u32 = kb::KVM_DEV_ARM_VGIC_GRP_REDIST_REGS;
const CPU_INTERFACE: u32 = kb::KVM_DEV_ARM_VGIC_GRP_CPU_REGS;
const ICC: u32 = kb::KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS;
const CONTROL: u32 = kb::KVM_DEV_ARM_VGIC_GRP_CTRL;
const ADDRESS: u32 = kb::KVM_DEV_ARM_VGIC_GRP_ADDR;

/// Interrupts that each processor has for itself.
const PRIVATE: u32 = 32;
/// Registers of a distributor or a frame of a redistributor (IHI 0069, 12.8).
const CTLR: u64 = 0;
const IGROUPR: u64 = 0x80;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ICACTIVER: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const ICFGR: u64 = 0xc00;
const IROUTER: u64 = 0x6000;
/// Redistributor: base registers of LPI tables; the frame of private interrupts.
const PROPBASER: u64 = 0x70;
const PENDBASER: u64 = 0x78;
const SGI_FRAME: u64 = 0x1_0000;
/// CPU interface of a GICv2 (IHI 0048, 4.4).
const GICC_CTLR: u64 = 0;
const GICC_PMR: u64 = 4;
const GICC_BPR: u64 = 8;
const GICC_APR: [u64; 4] = [0xd0, 0xd4, 0xd8, 0xdc];

/// An ICC register as attributes name it: op0, op1, CRn, CRm, op2.
const fn icc(op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    3 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}
const PMR: u64 = icc(0, 4, 6, 0);
const BPR0: u64 = icc(0, 12, 8, 3);
const BPR1: u64 = icc(0, 12, 12, 3);
const AP0R0: u64 = icc(0, 12, 8, 4);
const AP1R0: u64 = icc(0, 12, 9, 0);
const IGRPEN0: u64 = icc(0, 12, 12, 6);
const IGRPEN1: u64 = icc(0, 12, 12, 7);

/// How often, and how far apart, a call is made again.
const TRIES: u32 = 5000;
const PAUSE: Duration = Duration::from_micros(200);

/// A call that the kernel refuses while a processor's thread is in a call of its own: none of them runs its guest, so that ends soon.
fn patiently(call: impl Fn() -> io::Result<()>) -> io::Result<()> {
    for _ in 0..TRIES {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    call()
}

/// The controller of one VM.
pub struct KernelGic {
    vm: Arc<dyn VmFile>,
    gic: Gic,
    spis: u32,
    device: Box<dyn DeviceFile>,
    its: Option<Box<dyn DeviceFile>>,
    routes: Routes,
}

impl Table for Arc<dyn VmFile> {
    fn set(&self, entries: &[kvm_irq_routing_entry]) -> io::Result<()> {
        self.set_routing(entries)
    }
    fn event(&self, fd: RawFd, gsi: u32, attach: bool) -> io::Result<()> {
        AnyVm::irqfd(&**self, fd, gsi, None, attach)
    }
}

impl KernelGic {
    /// Before processors are made.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub(super) fn new(vm: &Arc<dyn VmFile>, gic: &Gic, spis: u32) -> Result<Arc<Self>, KvmError> {
        let kind = match gic {
            Gic::V2 { .. } => kb::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2,
            Gic::V3 { .. } => kb::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
        };
        let device = vm.create_device(kind).during("KVM_CREATE_DEVICE of the GIC")?;
        let place = |attribute: u32, value: u64| {
            device.set(ADDRESS, attribute.into(), value).during("KVM_SET_DEVICE_ATTR of the GIC's place")
        };
        let mut its = None;
        match gic {
            Gic::V2 { distributor, cpu_interface } => {
                place(kb::KVM_VGIC_V2_ADDR_TYPE_DIST, *distributor)?;
                place(kb::KVM_VGIC_V2_ADDR_TYPE_CPU, *cpu_interface)?;
            }
            Gic::V3 { distributor, redistributors, its: at } => {
                place(kb::KVM_VGIC_V3_ADDR_TYPE_DIST, *distributor)?;
                for (n, (base, count)) in redistributors.iter().enumerate() {
                    let region = u64::from(*count) << 52 | base | n as u64;
                    place(kb::KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, region)?;
                }
                if let Some(at) = at {
                    let kind = kb::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS;
                    let device = vm.create_device(kind).during("KVM_CREATE_DEVICE of the ITS")?;
                    let attribute = kb::KVM_VGIC_ITS_ADDR_TYPE.into();
                    device.set(ADDRESS, attribute, *at).during("KVM_SET_DEVICE_ATTR of the ITS's place")?;
                    its = Some(device);
                }
            }
        }
        let count = u64::from(spis + PRIVATE);
        device.set(kb::KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, count).during("KVM_SET_DEVICE_ATTR of the GIC's interrupts")?;
        let room = vm.check(kb::KVM_CAP_IRQ_ROUTING).max(0) as usize;
        let lines = (0..spis).map(|n| chip_route(n, 0, n)).collect();
        let routes = Routes::new(lines, spis, room, true);
        Ok(Arc::new(Self { vm: vm.clone(), gic: gic.clone(), spis, device, its, routes }))
    }
    /// All processors are there.
    pub(super) fn complete(&self) -> Result<(), KvmError> {
        let init = kb::KVM_DEV_ARM_VGIC_CTRL_INIT.into();
        self.device.command(CONTROL, init).during("KVM_DEV_ARM_VGIC_CTRL_INIT")?;
        if let Some(its) = &self.its {
            its.command(CONTROL, init).during("KVM_DEV_ARM_VGIC_CTRL_INIT of the ITS")?;
        }
        // Else messages without a line end nowhere: devices do without the fast path.
        if self.has_irqfd() { self.routes.begin(&self.vm).during("KVM_SET_GSI_ROUTING") } else { Ok(()) }
    }
    pub(super) fn has_irqfd(&self) -> bool {
        self.vm.check(cap::IRQFD) > 0 && self.vm.check(kb::KVM_CAP_IRQ_ROUTING) > 0
    }

    // ---- reset ----

    fn set(&self, group: u32, attribute: u64, value: u64) -> Result<(), KvmError> {
        patiently(|| self.device.set(group, attribute, value)).during("KVM_SET_DEVICE_ATTR of the GIC's registers")
    }
    /// Registers with a field of `bits` for each interrupt in `range`.
    fn fill(&self, group: u32, at: u64, bits: u32, range: std::ops::Range<u32>, value: u64) -> Result<(), KvmError> {
        let per = 32 / bits;
        for word in range.start / per..range.end.div_ceil(per) {
            self.set(group, at + 4 * u64::from(word), value)?;
        }
        Ok(())
    }
    /// Interrupts `range` of a distributor or a redistributor: not enabled, pending or active.
    fn quiet(&self, group: u32, at: u64, range: std::ops::Range<u32>, v3: bool) -> Result<(), KvmError> {
        let all = u64::from(u32::MAX);
        self.fill(group, at + ICENABLER, 1, range.clone(), all)?;
        self.fill(group, at + ICACTIVER, 1, range.clone(), all)?;
        // Of a GICv3 the kernel takes what is written to the first for the state, of a GICv2 the second.
        self.fill(group, at + ISPENDR, 1, range.clone(), 0)?;
        self.fill(group, at + ICPENDR, 1, range.clone(), all)?;
        self.fill(group, at + IPRIORITYR, 8, range.clone(), 0)?;
        self.fill(group, at + IGROUPR, 1, range.clone(), if v3 { all } else { 0 })?;
        // Those of SGIs cannot be changed.
        self.fill(group, at + ICFGR, 2, range.start.max(16)..range.end, 0)
    }
    /// The reset state; `affinities` are the processors', Aff3 to Aff0 in 32 bits.
    pub(super) fn reset(&self, affinities: &[u64]) -> Result<(), KvmError> {
        let shared = PRIVATE..PRIVATE + self.spis;
        for spi in 0..self.spis {
            self.set_level(spi, false);
        }
        self.set(DISTRIBUTOR, CTLR, 0)?;
        match &self.gic {
            Gic::V2 { .. } => {
                self.quiet(DISTRIBUTOR, 0, shared, false)?;
                for cpu in 0..affinities.len() as u64 {
                    let of = cpu << kb::KVM_DEV_ARM_VGIC_CPUID_SHIFT;
                    self.quiet(DISTRIBUTOR, of, 0..PRIVATE, false)?;
                    for register in [GICC_CTLR, GICC_PMR, GICC_BPR].into_iter().chain(GICC_APR) {
                        self.set(CPU_INTERFACE, of | register, 0)?;
                    }
                }
            }
            Gic::V3 { .. } => {
                self.quiet(DISTRIBUTOR, 0, shared.clone(), true)?;
                for n in shared {
                    for half in [0, 4] {
                        self.set(DISTRIBUTOR, IROUTER + 8 * u64::from(n) + half, 0)?;
                    }
                }
                if let Some(its) = &self.its {
                    let reset = kb::KVM_DEV_ARM_ITS_CTRL_RESET.into();
                    patiently(|| its.command(CONTROL, reset)).during("KVM_DEV_ARM_ITS_CTRL_RESET")?;
                }
                for affinity in affinities {
                    let of = affinity << kb::KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;
                    for register in [CTLR, PROPBASER, PROPBASER + 4, PENDBASER, PENDBASER + 4] {
                        self.set(REDISTRIBUTOR, of | register, 0)?;
                    }
                    self.quiet(REDISTRIBUTOR, of + SGI_FRAME, 0..PRIVATE, true)?;
                    for register in [IGRPEN0, IGRPEN1, PMR, BPR0, BPR1, AP0R0, AP1R0] {
                        self.set(ICC, of | register, 0)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl IrqSink for KernelGic {
    fn set_level(&self, pin: u32, level: bool) {
        if pin < self.spis {
            let irq = kb::KVM_ARM_IRQ_TYPE_SPI << kb::KVM_ARM_IRQ_TYPE_SHIFT | (pin + PRIVATE);
            // The kernel refuses only numbers that its controller has not.
            let _ = self.vm.set_irq_line(irq, level);
        }
    }
}

impl MsiTarget for KernelGic {
    fn send(&self, m: MsiMessage) {
        let msi = kvm_msi {
            address_lo: m.address as u32,
            address_hi: (m.address >> 32) as u32,
            data: m.data,
            flags: kb::KVM_MSI_VALID_DEVID,
            devid: m.requester_id,
            ..Default::default()
        };
        // A message that is not mapped is lost, as in an ITS.
        let _ = self.vm.signal_msi(msi);
    }
}

impl ArmGic for KernelGic {}

impl IrqFd for KernelGic {
    fn attach(&self, line: &IrqLine, trigger: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if resample.is_some() && self.vm.check(cap::IRQFD_RESAMPLE) == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let resample = resample.map(|fd| fd.as_raw_fd());
        AnyVm::irqfd(&*self.vm, trigger.as_raw_fd(), self.gsi(line)?, resample, true)
    }
    fn detach(&self, line: &IrqLine, trigger: BorrowedFd<'_>) -> io::Result<()> {
        AnyVm::irqfd(&*self.vm, trigger.as_raw_fd(), self.gsi(line)?, None, false)
    }
    fn attach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        // Without an ITS the kernel knows no messages.
        if self.its.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.routes.attach(&self.vm, message, trigger)
    }
    fn detach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        self.routes.detach(&self.vm, message, trigger)
    }
}

impl KernelGic {
    /// How many messages have a number.
    #[must_use]
    pub fn message_routes(&self) -> usize {
        self.routes.used()
    }
    fn gsi(&self, line: &IrqLine) -> io::Result<u32> {
        line.number().filter(|n| *n < self.spis).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}
