//! Tables of translation control entries in the kernel (`KVM_CREATE_SPAPR_TCE_64`): H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE and H_GET_TCE
//! do not end guest code. What the kernel does not do with an entry (one that leads out of RAM) comes here, and is stored here.

use super::abi::kvm_create_spapr_tce_64;
use super::sys::{DeviceFile, DevicePages, VmFile};
use super::vm::Core;
use crate::host::page_size;
use crate::kick::Gate;
use rhea_accel::spapr::{KernelTable, KernelTces};
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The tables of a VM.
pub struct Tces {
    vm: Arc<dyn VmFile>,
    gate: Arc<Gate>,
    /// It was said that there is no room for a table.
    said: AtomicBool,
}

/// The fields are dropped in this order.
struct Table {
    entries: Box<dyn DevicePages>,
    _file: Arc<dyn DeviceFile>,
}

impl Tces {
    pub(super) fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { vm: core.file.clone(), gate: core.parts.gate.clone(), said: AtomicBool::new(false) })
    }
    fn make(&self, wanted: &kvm_create_spapr_tce_64) -> Result<Table> {
        let file = self.vm.create_tces(wanted)?;
        let entries = file.map(0, (wanted.size * 8).next_multiple_of(page_size()))?;
        Ok(Table { entries, _file: file })
    }
}

impl KernelTces for Tces {
    fn create(&self, liobn: u32, page_shift: u32, first: u64, pages: u64) -> Option<Box<dyn KernelTable>> {
        let wanted = kvm_create_spapr_tce_64 { liobn: liobn.into(), page_shift, flags: 0, offset: first, size: pages };
        match self.make(&wanted) {
            Ok(table) => Some(Box::new(table)),
            Err(e) => {
                // It counts as locked memory, of which there is a limit.
                if !self.said.swap(true, SeqCst) {
                    eprintln!("rhea: -accel kvm: no TCE table in the kernel: {e}: the machine's own is used");
                }
                None
            }
        }
    }
    fn exclusively(&self, f: &mut dyn FnMut()) {
        self.gate.exclusively(f);
    }
}

impl KernelTable for Table {
    fn load(&self, index: usize) -> u64 {
        self.entries.load(index as u64 * 8)
    }
    fn store(&self, index: usize, tce: u64) {
        self.entries.store(index as u64 * 8, tce);
    }
}
