//! `-device intel-iommu`: between the PCI hierarchy and memory, and before the local APICs.

use crate::board::{Board, Window};
use crate::config::MachineConfig;
use rhea_device::OptionError;
use rhea_device::options::OptionSet;
use rhea_firmware::acpi::Dmar;
use rhea_iommu::{NAME, Vtd, VtdOptions, VtdWiring, declarations};
use rhea_irqchip::apic::{InterruptRemapping, MessageBus};
use rhea_pci::PciBus;
use std::sync::{Arc, Weak};

/// Does the command line ask for it?
#[must_use]
pub fn wanted(config: &MachineConfig) -> bool {
    config.devices.iter().any(|d| d.driver == NAME)
}

/// Makes the unit, if the command line asks for it; gives what ACPI tells of it.
pub fn build(
    board: &mut Board,
    config: &MachineConfig,
    bus: &Arc<PciBus>,
    apic: Option<Arc<dyn MessageBus>>,
    physical_bits: u32,
) -> Result<Option<Dmar>, OptionError> {
    let option = format!("-device {NAME}");
    let mut given = config.devices.iter().filter(|d| d.driver == NAME);
    let Some(spec) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(OptionError::new(&option, "given twice: the machine has one"));
    }
    let Some(apic) = apic else {
        let text = "its interrupt remapping needs an I/O APIC outside the kernel: use -accel kvm,kernel-irqchip=split";
        return Err(OptionError::new(&option, text));
    };
    let options = VtdOptions::of(&OptionSet::parse(&option, declarations(), &spec.pairs)?, physical_bits)?;
    let wiring = VtdWiring { memory: board.space.clone(), apic: apic.clone(), log: board.log.clone() };
    let vtd = Vtd::new(options, wiring);
    if bus.set_iommu(vtd.clone()).is_err() {
        return Err(OptionError::new(&option, "the machine has another IOMMU"));
    }
    let weak: Weak<Vtd> = Arc::downgrade(&vtd);
    apic.set_remapping(weak as Weak<dyn InterruptRemapping>);
    board.map(Window { start: Vtd::BASE, len: Vtd::LENGTH }, vtd.clone());
    let shown = vtd.clone();
    board.info.push(("iommu", "show the IOMMU", Box::new(move || shown.describe())));
    board.devices.push(vtd);
    Ok(Some(Dmar {
        base: Vtd::BASE,
        host_bits: options.host_bits,
        interrupt_remapping: options.interrupt_remapping,
        device_iotlb: options.device_iotlb,
        io_apic: Vtd::IO_APIC,
    }))
}
