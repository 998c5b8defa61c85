//! Interrupt controllers in the kernel: XICS and XIVE are devices, of which one is there at a time. The guest's choice makes and
//! unmakes them, while no vCPU is in guest code; each vCPU is connected by its own thread before it goes there again.

use super::abi;
use super::sys::{DeviceFile, DevicePages, VmFile};
use super::vcpu::Inner;
use super::vm::{Core, Vcpus};
use crate::host::page_size;
use crate::sys::{Region, cap};
use crate::vcpu::Work;
use parking_lot::Mutex;
use rhea_accel::spapr::{KernelIrqchip, Mode, XiveQueue, XiveTarget};
use rhea_accel::{IrqFd, IrqLine, MsiMessage};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// log2 of the size of XIVE's pages.
const PAGE_SHIFT: u32 = 16;
/// Of a source in its pages: trigger, then management.
const ESB_SHIFT: u32 = PAGE_SHIFT + 1;
/// Pages of the thread interrupt management area.
const TIMA_PAGES: u64 = 4;
/// Offset in a management page whose load tells P (2) and Q (1).
const ESB_GET: u64 = 0x800;
const ESB_P: u64 = 2;

/// Where XIVE's pages are in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub tima: u64,
    pub esb: u64,
    /// Sources there can be.
    pub sources: u32,
}

/// The controller there is.
struct Open {
    mode: Mode,
    /// Numbers of sources; are they level-sensitive?
    sources: BTreeMap<u32, bool>,
    /// Of XIVE: thread interrupt management area, event state buffers.
    pages: Option<[Box<dyn DevicePages>; 2]>,
    /// Locked while a vCPU is connected, which would keep the device although it was given up; false: it is.
    wanted: Arc<Mutex<bool>>,
    /// Dropped last.
    device: Arc<dyn DeviceFile>,
}

/// The controllers of a VM.
pub struct KernelChips {
    core: Arc<Core>,
    vcpus: Vcpus,
    places: Places,
    xics: bool,
    xive: bool,
    /// RTAS calls that the kernel carries out while its XICS is there.
    tokens: Mutex<Vec<(String, u32)>>,
    open: Mutex<Option<Open>>,
}

/// Numbers of an event queue and of its server as the kernel has them.
fn queue_id(server: u32, priority: u8) -> u64 {
    u64::from(server) << abi::KVM_XIVE_EQ_SERVER_SHIFT | u64::from(priority)
}

fn no_controller() -> Error {
    ErrorKind::NotConnected.into()
}

impl Open {
    fn claim(&mut self, irq: u32, level: bool) -> Result<()> {
        let (group, value) = match self.mode {
            Mode::Xics => {
                const LEAST_FAVOURED: u64 = 0xff << abi::KVM_XICS_PRIORITY_SHIFT;
                let kind = if level { abi::KVM_XICS_LEVEL_SENSITIVE } else { 0 };
                (abi::KVM_DEV_XICS_GRP_SOURCES, LEAST_FAVOURED | abi::KVM_XICS_MASKED | kind)
            }
            Mode::Xive => (abi::KVM_DEV_XIVE_GRP_SOURCE, if level { abi::KVM_XIVE_LEVEL_SENSITIVE } else { 0 }),
        };
        self.device.set(group, irq.into(), &value.to_ne_bytes())?;
        self.sources.insert(irq, level);
        Ok(())
    }
    fn esb(&self, irq: u32, offset: u64, store: bool) -> u64 {
        let Some([_, esb]) = &self.pages else { return u64::MAX };
        let at = (u64::from(irq) << ESB_SHIFT) + (1 << PAGE_SHIFT) + offset;
        if store {
            esb.store(at, 0);
            return u64::MAX;
        }
        // Registers are big-endian; all that there is are P and Q.
        u64::from_be(esb.load(at)) & 3
    }
    /// Has the message something pending?
    fn pending(&self, irq: u32) -> bool {
        match self.mode {
            Mode::Xics => {
                const PENDING: u64 = abi::KVM_XICS_PENDING | abi::KVM_XICS_PRESENTED | abi::KVM_XICS_QUEUED;
                let mut state = [0; 8];
                let known = self.device.get(abi::KVM_DEV_XICS_GRP_SOURCES, irq.into(), &mut state);
                known.is_ok() && u64::from_ne_bytes(state) & PENDING != 0
            }
            Mode::Xive => self.esb(irq, ESB_GET, false) & ESB_P != 0,
        }
    }
}

impl KernelChips {
    /// `None`: the kernel has none.
    pub(super) fn new(core: &Arc<Core>, vcpus: &Vcpus, places: Places) -> Option<Arc<Self>> {
        let vm = &core.file;
        let xics = vm.check(abi::KVM_CAP_IRQ_XICS) > 0
            && vm.check(abi::KVM_CAP_PPC_RTAS) > 0
            && vm.has_device(abi::KVM_DEV_TYPE_XICS);
        // Its pages are shown as they are.
        let xive = vm.check(abi::KVM_CAP_PPC_IRQ_XIVE) > 0
            && vm.has_device(abi::KVM_DEV_TYPE_XIVE)
            && page_size() == 1 << PAGE_SHIFT;
        (xics || xive).then(|| {
            Arc::new(Self {
                core: core.clone(),
                vcpus: vcpus.clone(),
                places,
                xics,
                xive,
                tokens: Mutex::default(),
                open: Mutex::default(),
            })
        })
    }
    fn vm(&self) -> &dyn VmFile {
        &*self.core.file
    }
    /// The RTAS calls of XICS, by their tokens.
    pub fn set_tokens(&self, tokens: &[(String, u32)]) {
        const OF_XICS: [&str; 4] = ["ibm,set-xive", "ibm,get-xive", "ibm,int-on", "ibm,int-off"];
        let own = tokens.iter().filter(|(name, _)| OF_XICS.contains(&name.as_str()));
        *self.tokens.lock() = own.cloned().collect();
        if self.open.lock().as_ref().is_some_and(|o| o.mode == Mode::Xics) {
            self.define_tokens(true);
        }
    }
    fn define_tokens(&self, on: bool) {
        for (name, token) in &*self.tokens.lock() {
            if let Err(e) = self.vm().define_rtas_token(name, if on { *token } else { 0 }) {
                self.core.control.guest_panic(&format!("KVM: KVM_PPC_RTAS_DEFINE_TOKEN {name}: {e}"));
            }
        }
    }
    /// Slots for pages: the last ones, which memory gets last.
    fn slot(&self, n: u32) -> u32 {
        (self.vm().check(cap::NR_MEMSLOTS).clamp(8, 0x1_0000) as u32) - 1 - n
    }
    fn show(&self, n: u32, gpa: u64, len: u64, host: u64) -> Result<()> {
        self.vm().set_memory(&Region { slot: self.slot(n), readonly: false, log: false, gpa, len, host, private: None })
    }

    fn make(&self, mode: Mode, sources: &[(u32, bool)]) -> Result<Open> {
        let kind = if mode == Mode::Xics { abi::KVM_DEV_TYPE_XICS } else { abi::KVM_DEV_TYPE_XIVE };
        let device = self.vm().create_device(kind)?;
        let (group, attribute) = match mode {
            Mode::Xics => (abi::KVM_DEV_XICS_GRP_CTRL, abi::KVM_DEV_XICS_NR_SERVERS),
            Mode::Xive => (abi::KVM_DEV_XIVE_GRP_CTRL, abi::KVM_DEV_XIVE_NR_SERVERS),
        };
        // Saves room; older kernels have it for as many as there can be.
        let servers = self.vcpus.read().len() as u32;
        let _ = device.set(group, attribute, &servers.to_ne_bytes());
        let mut open = Open { mode, sources: BTreeMap::new(), pages: None, wanted: Arc::new(Mutex::new(true)), device };
        for (irq, level) in sources {
            open.claim(*irq, *level)?;
        }
        if mode == Mode::Xive {
            let (tima_len, esb_len) = (TIMA_PAGES << PAGE_SHIFT, u64::from(self.places.sources) << ESB_SHIFT);
            let tima = open.device.map(abi::KVM_XIVE_TIMA_PAGE_OFFSET, tima_len)?;
            let esb = open.device.map(abi::KVM_XIVE_ESB_PAGE_OFFSET, esb_len)?;
            self.show(0, self.places.tima, tima_len, tima.host())?;
            if let Err(e) = self.show(1, self.places.esb, esb_len, esb.host()) {
                let _ = self.show(0, self.places.tima, 0, 0);
                return Err(e);
            }
            open.pages = Some([tima, esb]);
        }
        let capability = if mode == Mode::Xics { abi::KVM_CAP_IRQ_XICS } else { abi::KVM_CAP_PPC_IRQ_XIVE };
        for vcpu in self.vcpus.read().iter() {
            // A controller that is given up before the thread gets there is not held by it.
            let (device, wanted) = (Arc::downgrade(&open.device), open.wanted.clone());
            let connect = move |inner: &mut Inner, attached: &crate::kick::Attached| {
                let wanted = wanted.lock();
                match device.upgrade().filter(|_| *wanted) {
                    Some(device) => inner.connect(attached, capability, device.fd()),
                    None => Ok(()),
                }
            };
            vcpu.push(Work::Own(Box::new(connect)));
        }
        Ok(open)
    }
}

impl KernelIrqchip for KernelChips {
    fn open(&self, mode: Mode, sources: &[(u32, bool)]) -> bool {
        if !(if mode == Mode::Xics { self.xics } else { self.xive }) {
            return false;
        }
        let made = self.core.parts.gate.exclusively(|| {
            let made = self.make(mode, sources);
            self.core.set_kernel_irqchip(made.is_ok());
            made
        });
        match made {
            Ok(open) => {
                *self.open.lock() = Some(open);
                if mode == Mode::Xics {
                    self.define_tokens(true);
                }
                true
            }
            Err(e) => {
                let name = if mode == Mode::Xics { "XICS" } else { "XIVE" };
                eprintln!("rhea: -accel kvm: no {name} in the kernel: {e}: the machine's own is used");
                false
            }
        }
    }
    fn close(&self, carry: bool) -> Vec<u32> {
        let Some(open) = self.open.lock().take() else { return Vec::new() };
        if open.mode == Mode::Xics {
            self.define_tokens(false);
        }
        // There is no second one as long as somebody has the first.
        *open.wanted.lock() = false;
        self.core.parts.gate.exclusively(|| {
            let pending = open.sources.iter().filter(|(irq, level)| carry && !**level && open.pending(**irq));
            let pending = pending.map(|(irq, _)| *irq).collect();
            if open.pages.is_some() {
                // The kernel refuses only what it does not have.
                let _ = self.show(0, self.places.tima, 0, 0);
                let _ = self.show(1, self.places.esb, 0, 0);
            }
            self.core.set_kernel_irqchip(false);
            drop(open);
            pending
        })
    }
    fn claim(&self, irq: u32, level: bool) -> Result<()> {
        self.open.lock().as_mut().map_or(Ok(()), |open| open.claim(irq, level))
    }
    fn free(&self, irq: u32) {
        let mut open = self.open.lock();
        let Some(open) = open.as_mut().filter(|o| o.sources.contains_key(&irq)) else { return };
        // There is no call for it: it is silent, and may be claimed again.
        let (group, value) = match open.mode {
            Mode::Xics => (abi::KVM_DEV_XICS_GRP_SOURCES, abi::KVM_XICS_MASKED | 0xff << abi::KVM_XICS_PRIORITY_SHIFT),
            Mode::Xive => (abi::KVM_DEV_XIVE_GRP_SOURCE_CONFIG, abi::KVM_XIVE_SOURCE_MASKED),
        };
        let _ = open.device.set(group, irq.into(), &value.to_ne_bytes());
        open.sources.remove(&irq);
    }
    fn set_level(&self, irq: u32, level: bool) -> bool {
        // The kernel knows whether it has a controller.
        self.vm().set_irq_line(irq, level).is_ok()
    }
    fn reset_server(&self, server: u32) {
        /// CPPR 0; MFRR and the priority of what is pending least favoured.
        const RESET: u128 = 0xffff << 16;
        let xics = self.open.lock().as_ref().is_some_and(|o| o.mode == Mode::Xics);
        // XIVE's are the guest's to set up, and refuse everything when they are taken out of use.
        if let (true, Some(vcpu)) = (xics, self.vcpus.read().get(server as usize)) {
            vcpu.push(Work::Own(Box::new(|inner, attached| {
                inner.set_register(attached, abi::KVM_REG_PPC_ICP_STATE, RESET)
            })));
        }
    }
    fn set_target(&self, irq: u32, target: XiveTarget) -> Result<()> {
        let open = self.open.lock();
        let open = open.as_ref().ok_or_else(no_controller)?;
        let XiveTarget { masked, server, priority, data } = target;
        let value = u64::from(priority)
            | u64::from(server) << abi::KVM_XIVE_SOURCE_SERVER_SHIFT
            | if masked { abi::KVM_XIVE_SOURCE_MASKED } else { 0 }
            | u64::from(data) << abi::KVM_XIVE_SOURCE_EISN_SHIFT;
        open.device.set(abi::KVM_DEV_XIVE_GRP_SOURCE_CONFIG, irq.into(), &value.to_ne_bytes())
    }
    fn set_queue(&self, server: u32, priority: u8, queue: XiveQueue) -> Result<()> {
        let open = self.open.lock();
        let open = open.as_ref().ok_or_else(no_controller)?;
        let XiveQueue { shift, page, toggle, index } = queue;
        let eq = if shift == 0 {
            abi::kvm_ppc_xive_eq::default()
        } else {
            let flags = abi::KVM_XIVE_EQ_ALWAYS_NOTIFY;
            abi::kvm_ppc_xive_eq { flags, qshift: shift, qaddr: page, qtoggle: toggle, qindex: index, pad: [0; 5] }
        };
        open.device.set(abi::KVM_DEV_XIVE_GRP_EQ_CONFIG, queue_id(server, priority), &eq.to_bytes())
    }
    fn queue(&self, server: u32, priority: u8) -> Result<XiveQueue> {
        let open = self.open.lock();
        let open = open.as_ref().ok_or_else(no_controller)?;
        let mut bytes = [0; size_of::<abi::kvm_ppc_xive_eq>()];
        open.device.get(abi::KVM_DEV_XIVE_GRP_EQ_CONFIG, queue_id(server, priority), &mut bytes)?;
        let eq = abi::kvm_ppc_xive_eq::from_bytes(&bytes);
        Ok(XiveQueue { shift: eq.qshift, page: eq.qaddr, toggle: eq.qtoggle, index: eq.qindex })
    }
    fn esb(&self, irq: u32, offset: u64, store: bool) -> u64 {
        if irq >= self.places.sources || offset >= 1 << PAGE_SHIFT {
            return u64::MAX;
        }
        self.open.lock().as_ref().map_or(u64::MAX, |open| open.esb(irq, offset, store))
    }
    fn sync(&self, irq: u32) -> Result<()> {
        let open = self.open.lock();
        open.as_ref().ok_or_else(no_controller)?.device.set(abi::KVM_DEV_XIVE_GRP_SOURCE_SYNC, irq.into(), &[])
    }
    fn reset(&self) -> Result<()> {
        let open = self.open.lock();
        open.as_ref().ok_or_else(no_controller)?.device.set(abi::KVM_DEV_XIVE_GRP_CTRL, abi::KVM_DEV_XIVE_RESET, &[])
    }
}

/// Lines and messages have their interrupt's number in the kernel too.
impl KernelChips {
    fn irqfd(&self, fd: BorrowedFd<'_>, irq: u32, resample: Option<BorrowedFd<'_>>, attach: bool) -> Result<()> {
        self.vm().irqfd(fd.as_raw_fd(), irq, resample.map(|fd| fd.as_raw_fd()), attach)
    }
}

fn number(line: &IrqLine) -> Result<u32> {
    line.number().ok_or_else(|| ErrorKind::Unsupported.into())
}

impl IrqFd for KernelChips {
    fn attach(&self, line: &IrqLine, trigger: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> Result<()> {
        if resample.is_some() && self.vm().check(cap::IRQFD_RESAMPLE) == 0 {
            return Err(ErrorKind::Unsupported.into());
        }
        self.irqfd(trigger, number(line)?, resample, true)
    }
    fn detach(&self, line: &IrqLine, trigger: BorrowedFd<'_>) -> Result<()> {
        self.irqfd(trigger, number(line)?, None, false)
    }
    fn attach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> Result<()> {
        self.irqfd(trigger, message.data, None, true)
    }
    fn detach_msi(&self, message: MsiMessage, trigger: BorrowedFd<'_>) -> Result<()> {
        self.irqfd(trigger, message.data, None, false)
    }
}
