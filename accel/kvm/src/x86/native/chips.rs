//! Interrupt controllers in the kernel: local APICs with 8259s and I/O APIC or without, and its table of where interrupts by number
//! (GSI) go.

use super::super::X86Chips;
use super::sys::VmFile;
use crate::error::{Context, KvmError};
use crate::routes::{Routes, Table, chip_route};
use crate::sys::{AnyVm, cap};
use kvm_bindings as kb;
use kvm_bindings::{kvm_ioapic_state, kvm_irq_routing_entry, kvm_irqchip, kvm_lapic_state, kvm_msi, kvm_pic_state};
use rhea_accel::{IrqFd, IrqLine, IrqSink, LocalApics, MsiMessage, MsiTarget};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

/// Inputs of the I/O APIC, by number.
const IO_APIC_GSI: u32 = 0;
const IO_APIC_PINS: u32 = 24;
/// Inputs of the 8259s.
const PIC_GSI: u32 = IO_APIC_GSI + IO_APIC_PINS;
const PIC_PINS: u32 = 16;
/// Lines of the machine, each at both controllers as a PC has them: the timer's is at input 2 of the I/O APIC.
const LINE_GSI: u32 = PIC_GSI + PIC_PINS;
/// The first one for messages.
pub const MSI_GSI: u32 = LINE_GSI + IO_APIC_PINS;

/// Bits of the edge/level control registers that exist.
const ELCR_MASK: [u8; 2] = [0xf8, 0xde];
const REDIRECTION_MASKED: u64 = 1 << 16;
/// `KVM_X2APIC_API_USE_32BIT_IDS` and `KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK`.
const WIDE_DESTINATIONS: u64 = 3;
const IO_APIC_BASE: u64 = 0xfec0_0000;

fn pic_route(gsi: u32, n: u32) -> kvm_irq_routing_entry {
    let chip = if n < 8 { kb::KVM_IRQCHIP_PIC_MASTER } else { kb::KVM_IRQCHIP_PIC_SLAVE };
    chip_route(gsi, chip, n % 8)
}
/// Lines of the machine, in the kernel's table.
fn lines() -> Vec<kvm_irq_routing_entry> {
    let mut table = Vec::new();
    for n in 0..IO_APIC_PINS {
        table.push(chip_route(IO_APIC_GSI + n, kb::KVM_IRQCHIP_IOAPIC, n));
    }
    for n in 0..PIC_PINS {
        table.push(pic_route(PIC_GSI + n, n));
    }
    for n in 0..IO_APIC_PINS {
        let gsi = LINE_GSI + n;
        if n < PIC_PINS {
            table.push(pic_route(gsi, n));
        }
        match n {
            0 => table.push(chip_route(gsi, kb::KVM_IRQCHIP_IOAPIC, 2)),
            2 => {}
            n => table.push(chip_route(gsi, kb::KVM_IRQCHIP_IOAPIC, n)),
        }
    }
    table
}

impl Table for Arc<dyn VmFile> {
    fn set(&self, entries: &[kvm_irq_routing_entry]) -> io::Result<()> {
        self.set_routing(entries)
    }
    fn event(&self, fd: RawFd, gsi: u32, attach: bool) -> io::Result<()> {
        AnyVm::irqfd(&**self, fd, gsi, None, attach)
    }
}

/// The controllers of one VM.
pub struct KernelChips {
    vm: Arc<dyn VmFile>,
    /// Local APICs only.
    split: bool,
    routes: Routes,
}

/// Inputs of one controller.
struct Inputs {
    vm: Arc<dyn VmFile>,
    first: u32,
    count: u32,
}

impl IrqSink for Inputs {
    fn set_level(&self, pin: u32, level: bool) {
        if pin < self.count {
            // The kernel refuses only numbers that it has no route for.
            let _ = self.vm.set_irq_line(self.first + pin, level);
        }
    }
}

impl KernelChips {
    /// # Errors
    /// [`KvmError::Call`].
    pub(super) fn new(vm: &Arc<dyn VmFile>, split: bool) -> Result<Arc<Self>, KvmError> {
        if split {
            vm.enable(kb::KVM_CAP_SPLIT_IRQCHIP, [IO_APIC_PINS.into(), 0, 0, 0]).during("KVM_CAP_SPLIT_IRQCHIP")?;
            // Messages have destinations of 32 bits, of which 0xff is none that means all.
            vm.enable(kb::KVM_CAP_X2APIC_API, [WIDE_DESTINATIONS, 0, 0, 0]).during("KVM_CAP_X2APIC_API")?;
        } else {
            vm.create_irqchip().during("KVM_CREATE_IRQCHIP")?;
        }
        let room = vm.check(kb::KVM_CAP_IRQ_ROUTING).max(0) as usize;
        let lines = if split { Vec::new() } else { lines() };
        let routes = Routes::new(lines, MSI_GSI, room, false);
        routes.begin(vm).during("KVM_SET_GSI_ROUTING")?;
        Ok(Arc::new(Self { vm: vm.clone(), split, routes }))
    }

    /// Power-on state, but for local APICs.
    pub(super) fn reset(&self) -> Result<(), KvmError> {
        if self.split {
            return Ok(());
        }
        for (chip_id, elcr_mask) in [kb::KVM_IRQCHIP_PIC_MASTER, kb::KVM_IRQCHIP_PIC_SLAVE].into_iter().zip(ELCR_MASK) {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            chip.chip.pic = kvm_pic_state { elcr_mask, ..Default::default() };
            self.vm.set_irqchip(&chip).during("KVM_SET_IRQCHIP")?;
        }
        let mut state = kvm_ioapic_state { base_address: IO_APIC_BASE, ..Default::default() };
        for entry in &mut state.redirtbl {
            entry.bits = REDIRECTION_MASKED;
        }
        let mut chip = kvm_irqchip { chip_id: kb::KVM_IRQCHIP_IOAPIC, ..Default::default() };
        chip.chip.ioapic = state;
        self.vm.set_irqchip(&chip).during("KVM_SET_IRQCHIP")
    }

    /// How many messages have a number.
    #[must_use]
    pub fn message_routes(&self) -> usize {
        self.routes.used()
    }
}

impl X86Chips for KernelChips {
    fn io_apic(&self) -> Arc<dyn IrqSink> {
        Arc::new(Inputs { vm: self.vm.clone(), first: IO_APIC_GSI, count: IO_APIC_PINS })
    }
    fn pic(&self) -> Arc<dyn IrqSink> {
        Arc::new(Inputs { vm: self.vm.clone(), first: PIC_GSI, count: PIC_PINS })
    }
    fn split(&self) -> bool {
        self.split
    }
    fn has_irqfd(&self) -> bool {
        self.vm.check(cap::IRQFD) > 0
    }
}

impl LocalApics for KernelChips {
    fn signal(&self, m: MsiMessage) -> bool {
        let msi = kvm_msi {
            address_lo: m.address as u32,
            address_hi: (m.address >> 32) as u32,
            data: m.data,
            ..Default::default()
        };
        self.vm.signal_msi(msi).unwrap_or(false)
    }
    fn set_pin(&self, pin: u32, message: MsiMessage) {
        // What pins of an I/O APIC outside the kernel send: from entries for them the kernel knows whose end it has to tell of. With an
        // old table the end of this interrupt is not told of; the kernel has refused no table of this size before.
        if pin < IO_APIC_PINS {
            let _ = self.routes.set_line(&self.vm, IO_APIC_GSI + pin, message);
        }
    }
}

impl MsiTarget for KernelChips {
    fn send(&self, m: MsiMessage) {
        // A message to nobody is lost, as on a bus.
        self.signal(m);
    }
}

impl IrqFd for KernelChips {
    fn attach(&self, line: &IrqLine, trigger: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.split {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if resample.is_some() && self.vm.check(cap::IRQFD_RESAMPLE) == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.vm.irqfd(trigger.as_raw_fd(), line_gsi(line)?, resample.map(|fd| fd.as_raw_fd()), true)
    }
    fn detach(&self, line: &IrqLine, trigger: BorrowedFd<'_>) -> io::Result<()> {
        self.vm.irqfd(trigger.as_raw_fd(), line_gsi(line)?, None, false)
    }
    fn attach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        self.routes.attach(&self.vm, message, trigger)
    }
    fn detach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> io::Result<()> {
        self.routes.detach(&self.vm, message, trigger)
    }
}

fn line_gsi(line: &IrqLine) -> io::Result<u32> {
    let number = line.number().filter(|n| *n < IO_APIC_PINS);
    number.map(|n| LINE_GSI + n).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The registers of a local APIC after reset (SDM volume 3, 11.4.7.1), in xAPIC mode; the version stays. `open`: LINT0 takes the 8259s'
/// interrupts.
pub(super) fn reset_lapic(lapic: &mut kvm_lapic_state, apic_id: u32, open: bool) {
    const ID: usize = 0x20;
    const VERSION: usize = 0x30;
    const DFR: usize = 0xe0;
    const SVR: usize = 0xf0;
    const LVT: [usize; 7] = [0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
    const LINT0: usize = 0x350;
    const MASKED: u32 = 1 << 16;
    const EXT_INT: u32 = 7 << 8;
    let mut fresh = kvm_lapic_state::default();
    let mut set = |at: usize, value: u32| {
        for (to, byte) in fresh.regs[at..at + 4].iter_mut().zip(value.to_le_bytes()) {
            *to = byte as _;
        }
    };
    // Some kernels leave it in the format of x2APIC mode when they are told to leave that.
    set(ID, apic_id << 24);
    set(DFR, u32::MAX);
    set(SVR, 0xff);
    for at in LVT {
        set(at, MASKED);
    }
    if open {
        set(LINT0, EXT_INT);
    }
    fresh.regs[VERSION..VERSION + 4].copy_from_slice(&lapic.regs[VERSION..VERSION + 4]);
    *lapic = fresh;
}
