//! Functions of the host (`-device vfio-pci`).

use super::Plugger;
use crate::config::DeviceSpec;
use crate::options::ObjectSpec;
use crate::rom::with_rom;
use parking_lot::Mutex;
use rhea_accel::VmRequest;
use rhea_device::OptionError;
use rhea_device::options::OptionSet;
use rhea_firmware::x86::boot_order::unit;
use rhea_vfio::{Environment, Iommufd, Opened, Vfio, VfioPci, Watcher, catalog};
use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub use rhea_vfio::Status;

#[derive(Default)]
struct Parts {
    vfio: Option<Arc<Vfio>>,
    all: Vec<Watcher>,
    /// Opened iommufds, by the ids of their objects.
    iommufds: Vec<(String, Weak<Iommufd>)>,
}

/// What the machine has of the host's.
#[derive(Clone, Default)]
pub struct AssignedDevices(Arc<Mutex<Parts>>);

impl AssignedDevices {
    fn add(&self, function: &VfioPci) {
        let mut parts = self.0.lock();
        parts.all.retain(|w| w.status().is_some());
        parts.all.push(function.watcher());
    }
    /// Of those that are there.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let all = self.0.lock().all.clone();
        all.iter().filter_map(Watcher::status).collect()
    }
    /// The text of `info vfio`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.status().iter().map(Status::to_string).collect()
    }
}

impl Plugger<'_> {
    /// Groups, containers and address spaces, from when they are needed.
    fn shared_vfio(&self) -> Arc<Vfio> {
        let accelerator = || self.board.accelerator.as_ref().and_then(Weak::upgrade);
        let new = || Vfio::new(accelerator().and_then(|a| a.services().assigned));
        self.plugs.assigned.0.lock().vfio.get_or_insert_with(new).clone()
    }
    /// A function of the host.
    pub(super) fn vfio(&mut self, spec: &DeviceSpec) -> Result<(), OptionError> {
        let option = format!("-device {}", catalog::NAME);
        let set = OptionSet::parse(&option, catalog::options(), &self.with_globals(catalog::NAME, &spec.pairs))?;
        self.take_id(&set)?;
        let fail = |e: String| OptionError::new(&option, e);
        if self.board.private_memory {
            let text =
                "with confidential-guest-support= no device of the host can be assigned: it would reach all memory";
            return Err(fail(text.to_owned()));
        }
        let slot = with_rom(self.config, &set, self.pci_slot(&option, &set)?, None)?;
        let apart = slot.dma().iommu().is_some_and(|i| i.domain(0) != i.domain(1));
        if apart && slot.bus().upstream().is_some() {
            // A guest numbers the buses behind bridges, and with that requesters and their tables, when it likes.
            return Err(fail(
                "behind the machine's IOMMU it has to be on the bus pcie.0, not behind a bridge".to_owned(),
            ));
        }
        let wanted = catalog::wanted(&set)?;
        let iommufd = set.text("iommufd").map(|id| self.iommufd(&set, id)).transpose()?;
        let vfio = self.shared_vfio();
        let assigned = vfio.assign(wanted, iommufd.as_ref(), slot.dma()).map_err(|e| fail(e.to_string()))?;
        let assigned = Arc::new(assigned);
        let of_groups = assigned.clone();
        let opened = Opened {
            device: assigned.device().clone(),
            name: assigned.place().name.clone(),
            peers: assigned.peers().clone(),
            groups: Box::new(move |numbers| of_groups.groups(numbers)),
            keep: Box::new(assigned),
        };
        let function = VfioPci::new(opened, &slot, catalog::choices(&set), self.environment(set.text("id")))
            .map_err(|e| fail(format!("'{}': {e}", spec.value("host").or(spec.value("sysfsdev")).unwrap_or("fd"))))?;
        if set.bool("multifunction") {
            rhea_pci::PciFunction::config(&*function).set_multifunction();
        }
        self.plugs.assigned.add(&function);
        self.attach(&set, function.clone())?;
        if let Some(index) = set.number("bootindex").filter(|_| self.hot.is_none()) {
            self.board.add_boot_entry(index, &*function, unit::NETWORK);
        }
        Ok(())
    }
    /// The iommufd of an object, opened when the first device wants it.
    fn iommufd(&self, set: &OptionSet, id: &str) -> Result<Arc<Iommufd>, OptionError> {
        let fd = self.plugs.objects.iter().find_map(|o| match o {
            ObjectSpec::Iommufd { id: i, fd } if i == id => Some(*fd),
            _ => None,
        });
        let wrong = |text: &str| set.error("iommufd", &format!("'{id}': {text}"));
        let fd = fd.ok_or_else(|| wrong("no iommufd -object has this id"))?;
        let vfio = self.shared_vfio();
        let known = &mut self.plugs.assigned.0.lock().iommufds;
        if let Some(open) = known.iter().find(|(i, _)| i == id).and_then(|(_, open)| open.upgrade()) {
            return Ok(open);
        }
        let file = fd.map(catalog::inherited).transpose().map_err(|e| wrong(&e.to_string()))?;
        let open = vfio.iommufd(file).map_err(|e| wrong(&e.to_string()))?;
        known.retain(|(_, open)| open.strong_count() > 0);
        known.push((id.to_owned(), Arc::downgrade(&open)));
        Ok(open)
    }
    fn environment(&self, id: Option<&str>) -> Environment {
        let board = &*self.board;
        let (accelerator, control) = (board.accelerator.clone(), board.control.clone());
        let id = id.map(str::to_owned);
        Environment {
            routing: board.routing.clone(),
            clock: board.clock.clone(),
            log: board.log.clone(),
            control: board.control.clone(),
            release: Arc::new(move |memory| release(accelerator.as_ref().and_then(Weak::upgrade), memory)),
            // Longer than any reset of a function that works (PCI Express base specification 6.6.1), with what the kernel tries.
            // The host's kernel waits 60 s for a function to come back from a reset (pci_dev_wait).
            patience: Duration::from_secs(65),
            requested: Arc::new(move || match &id {
                Some(id) => control.request(VmRequest::Unplug(id.clone())),
                None => eprintln!("rhea: the host wants an assigned device back, which has no id= to be unplugged by"),
            }),
        }
    }
}

/// Processors may be about to use the host's addresses: they go when all have left generated code, which the one that calls here is
/// waited for as well.
fn release(accelerator: Option<Arc<dyn rhea_accel::Accelerator>>, memory: Box<dyn Any + Send>) {
    let Some(accelerator) = accelerator else { return };
    std::thread::spawn(move || {
        accelerator.flush();
        drop(memory);
    });
}
