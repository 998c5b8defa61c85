//! The virtual I/O bus: devices with a unit address, an interrupt, and a DMA window of their own (LoPAPR 17.2).

pub mod crq;
pub mod nvram;
pub mod vlan;
pub mod vscsi;
pub mod vty;

use crate::papr::{Answer, Args, Hypercalls, RtasCalls, Status, hcall as h, rtas, rtas_return};
use crate::tce::{DmaWindows, TceTable, TceTables};
use crate::{Node, SpaprIrq};
use crq::Crq;
use parking_lot::{Mutex, RwLock};
use rhea_accel::IrqLine;
use rhea_device::{Device, DmaHandle};
use rhea_irqchip::spapr::{SpaprIrqError, numbers};
use rhea_memory::AddressSpace;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use thiserror::Error;
use vty::Vty;

/// Unit addresses are given from here on; the vty's have their own.
const FIRST_UNIT: u32 = 0x7100_0000;
const FIRST_VTY: u32 = 0x3000_0000;
const PAGE_SHIFT: u32 = 12;
/// Requester ids of VIO devices.
const FIRST_REQUESTER: u32 = 0x1_1000;
/// Queued messages and packets signal.
const SIGNAL: u64 = 1;

/// Why a device cannot be put on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VioError {
    #[error("the VIO unit address {0:#x} is in use")]
    InUse(u32),
    #[error("there are too many VIO devices")]
    Full,
    #[error("{0}")]
    Interrupt(SpaprIrqError),
}

/// What a kind of device is called in the device tree and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VioKind {
    pub name: &'static str,
    pub device_type: &'static str,
    pub compatible: &'static str,
    /// Signals H_VIO_SIGNAL can switch.
    pub signals: u64,
    /// Bytes of the DMA window, 0: none.
    pub window: u64,
    pub interrupt: bool,
}

/// A device's place on the bus: unit address, interrupt, way to memory.
#[derive(Clone)]
pub struct VioSlot {
    inner: Arc<Slot>,
}

struct Slot {
    kind: VioKind,
    unit: u32,
    interrupt: Option<(u32, IrqLine)>,
    signals: AtomicU64,
    windows: Arc<DmaWindows>,
    dma: DmaHandle,
}

impl VioSlot {
    /// The unit address, `reg` in the device tree.
    #[must_use]
    pub fn unit(&self) -> u32 {
        self.inner.unit
    }
    /// The number of the interrupt.
    #[must_use]
    pub fn interrupt(&self) -> Option<u32> {
        self.inner.interrupt.as_ref().map(|(n, _)| *n)
    }
    #[must_use]
    pub fn dma(&self) -> &DmaHandle {
        &self.inner.dma
    }
    /// Makes an interrupt, if the guest wants it.
    pub fn signal(&self) {
        if self.inner.signals.load(SeqCst) & SIGNAL != 0 {
            self.interrupt_now();
        }
    }
    /// Makes an interrupt.
    pub fn interrupt_now(&self) {
        if let Some((_, line)) = &self.inner.interrupt {
            line.pulse();
        }
    }
    /// `name@unit`, for messages and saved state.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{:x}", self.inner.kind.name, self.inner.unit)
    }
    fn table(&self) -> Option<Arc<TceTable>> {
        self.inner.windows.windows().first().cloned()
    }
    /// Power-on state: signals off, nothing translated.
    pub fn reset(&self) {
        self.inner.signals.store(0, SeqCst);
        self.inner.windows.set_bypass(false);
        if let Some(table) = self.table() {
            table.clear();
        }
    }
    /// For the device's saved state: signals, bypass, entries of the DMA window.
    #[must_use]
    pub fn save(&self) -> SlotState {
        SlotState {
            signals: self.inner.signals.load(SeqCst),
            bypass: self.inner.windows.bypassed(),
            tces: self.table().map(|t| t.save()).unwrap_or_default(),
        }
    }
    /// # Errors
    /// The window is of another size.
    pub fn load(&self, state: &SlotState) -> Result<(), rhea_device::LoadError> {
        let SlotState { signals, bypass, tces } = state;
        self.inner.signals.store(signals & self.inner.kind.signals, SeqCst);
        self.inner.windows.set_bypass(*bypass);
        match self.table() {
            Some(table) => table.load(tces),
            None => Ok(()),
        }
    }
}

/// Saved state of a [`VioSlot`].
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct SlotState {
    #[n(0)]
    signals: u64,
    #[n(1)]
    bypass: bool,
    #[n(2)]
    tces: Vec<(u32, u64)>,
}

/// A device on the bus.
pub trait VioDevice: Device {
    fn slot(&self) -> &VioSlot;
    /// Adds properties of its own to its node.
    fn describe(&self, node: Node) -> Node {
        node
    }
    /// The queue for messages, for devices that have one.
    fn crq(&self) -> Option<&Crq> {
        None
    }
    /// The guest sent a message on the queue. Called without locks.
    fn message(&self, _message: [u8; 16]) -> Answer {
        Err(Status::PARAMETER)
    }
    /// The guest connected or disconnected the queue.
    fn connected(&self, _on: bool) {}
    /// H_REGISTER_LOGICAL_LAN and others of one kind of device only, the unit address in `args[0]`.
    fn hcall(&self, _number: u64, _args: &Args, _out: &mut Args) -> Answer {
        Err(Status::PARAMETER)
    }
}

/// The bus.
pub struct VioBus {
    memory: Arc<AddressSpace>,
    irq: Arc<SpaprIrq>,
    tces: Arc<TceTables>,
    devices: RwLock<BTreeMap<u32, Arc<dyn VioDevice>>>,
    ttys: RwLock<BTreeMap<u32, Arc<Vty>>>,
    /// Unit addresses in use.
    units: Mutex<Vec<u32>>,
}

impl VioBus {
    #[must_use]
    pub fn new(memory: &Arc<AddressSpace>, irq: &Arc<SpaprIrq>, tces: &Arc<TceTables>) -> Arc<Self> {
        Arc::new(Self {
            memory: memory.clone(),
            irq: irq.clone(),
            tces: tces.clone(),
            devices: RwLock::default(),
            ttys: RwLock::default(),
            units: Mutex::default(),
        })
    }
    /// A place for a device: at unit address `unit` (`reg=`), or the next free one.
    ///
    /// # Errors
    /// The unit address or all interrupts are in use.
    pub fn slot(&self, kind: VioKind, unit: Option<u32>) -> Result<VioSlot, VioError> {
        let unit = {
            let mut units = self.units.lock();
            let first = if kind.device_type == "serial" { FIRST_VTY } else { FIRST_UNIT };
            let unit = match unit {
                Some(unit) => unit,
                None => (first..first + 0x1000).find(|n| !units.contains(n)).ok_or(VioError::Full)?,
            };
            if units.contains(&unit) {
                return Err(VioError::InUse(unit));
            }
            units.push(unit);
            unit
        };
        let mut interrupt = None;
        if kind.interrupt {
            for number in numbers::VIO..numbers::LSI {
                match self.irq.claim(number, false) {
                    Ok(line) => {
                        interrupt = Some((number, line));
                        break;
                    }
                    Err(SpaprIrqError::InUse(_)) => (),
                    Err(e) => return Err(VioError::Interrupt(e)),
                }
            }
            if interrupt.is_none() {
                return Err(VioError::Full);
            }
        }
        let windows = DmaWindows::new(None);
        if kind.window != 0 {
            // The bus number is the unit address.
            windows.set(vec![self.tces.make(unit, 0, PAGE_SHIFT, kind.window >> PAGE_SHIFT)]);
        }
        let place = rhea_device::dma::IommuPlace::default();
        // A fresh place is empty.
        let _ = place.set(windows.clone());
        let requester = FIRST_REQUESTER + self.units.lock().len() as u32;
        let dma = DmaHandle::behind(self.memory.clone(), requester, place);
        let signals = AtomicU64::new(0);
        Ok(VioSlot { inner: Arc::new(Slot { kind, unit, interrupt, signals, windows, dma }) })
    }
    /// Puts a device on the bus.
    pub fn attach(&self, device: Arc<dyn VioDevice>) {
        self.devices.write().insert(device.slot().unit(), device);
    }
    /// Puts a terminal on the bus.
    pub fn attach_vty(&self, vty: Arc<Vty>) {
        self.ttys.write().insert(vty.slot().unit(), vty.clone());
        self.attach(vty);
    }
    /// All devices, in the order of their unit addresses.
    #[must_use]
    pub fn devices(&self) -> Vec<Arc<dyn VioDevice>> {
        self.devices.read().values().cloned().collect()
    }
    fn device(&self, unit: u64) -> Answer<Arc<dyn VioDevice>> {
        u32::try_from(unit).ok().and_then(|n| self.devices.read().get(&n).cloned()).ok_or(Status::PARAMETER)
    }
    /// The terminal at a unit address; 0 means the first one.
    fn vty(&self, unit: u64) -> Answer<Arc<Vty>> {
        let ttys = self.ttys.read();
        let found = if unit == 0 { ttys.values().next() } else { u32::try_from(unit).ok().and_then(|n| ttys.get(&n)) };
        found.cloned().ok_or(Status::PARAMETER)
    }
    /// The path of the first terminal, for `/chosen/linux,stdout-path`.
    #[must_use]
    pub fn console(&self) -> Option<String> {
        self.ttys.read().values().next().map(|t| format!("/vdevice/{}", t.slot().name()))
    }
    /// The node `/vdevice` with all devices.
    #[must_use]
    pub fn tree(&self) -> Node {
        let mut bus = Node::new("vdevice")
            .text("device_type", "vdevice")
            .text("compatible", "IBM,vdevice")
            .cell("#address-cells", 1)
            .cell("#size-cells", 0)
            .cell("#interrupt-cells", 2)
            .empty("interrupt-controller");
        for device in self.devices() {
            let slot = device.slot();
            let kind = slot.inner.kind;
            let mut node = Node::new(slot.name()).cell("reg", slot.unit());
            if !kind.device_type.is_empty() {
                node = node.text("device_type", kind.device_type);
            }
            node = node.text("compatible", kind.compatible);
            if let Some(number) = slot.interrupt() {
                // Edge.
                node = node.cells("interrupts", &[number, 0]);
            }
            if let Some(table) = slot.table() {
                let size = table.size();
                node = node
                    .cells("ibm,my-dma-window", &[table.liobn(), 0, 0, (size >> 32) as u32, size as u32])
                    .cell("ibm,#dma-address-cells", 2)
                    .cell("ibm,#dma-size-cells", 2);
            }
            bus = bus.child(device.describe(node));
        }
        bus
    }
    fn call(&self, number: u64, args: &Args, out: &mut Args) -> Option<Answer> {
        let crq = |run: &dyn Fn(&dyn VioDevice, &Crq) -> Answer| {
            self.device(args[0]).and_then(|d| match d.crq() {
                Some(crq) => run(&*d, crq),
                None => Err(Status::PARAMETER),
            })
        };
        Some(match number {
            h::H_GET_TERM_CHAR => self.vty(args[0]).map(|t| t.get(out)),
            h::H_PUT_TERM_CHAR => self.vty(args[0]).and_then(|t| t.put(args[1], args[2], args[3])),
            h::H_VIO_SIGNAL => self.device(args[0]).and_then(|d| {
                let slot = &d.slot().inner;
                if args[1] & !slot.kind.signals != 0 {
                    return Err(Status::PARAMETER);
                }
                slot.signals.store(args[1], SeqCst);
                Ok(())
            }),
            h::H_REG_CRQ => crq(&|d, q| {
                q.register(args[1], args[2])?;
                d.connected(true);
                Ok(())
            }),
            h::H_FREE_CRQ => crq(&|d, q| {
                q.free();
                d.connected(false);
                Ok(())
            }),
            h::H_ENABLE_CRQ => crq(&|_, q| if q.registered() { Ok(()) } else { Err(Status::PARAMETER) }),
            h::H_SEND_CRQ => crq(&|d, q| {
                if !q.registered() {
                    return Err(Status::CLOSED);
                }
                let mut message = [0; 16];
                message[..8].copy_from_slice(&args[1].to_be_bytes());
                message[8..].copy_from_slice(&args[2].to_be_bytes());
                d.message(message)
            }),
            h::H_REGISTER_LOGICAL_LAN
            | h::H_FREE_LOGICAL_LAN
            | h::H_ADD_LOGICAL_LAN_BUFFER
            | h::H_SEND_LOGICAL_LAN
            | h::H_MULTICAST_CTRL
            | h::H_CHANGE_LOGICAL_LAN_MAC
            | h::H_FREE_LOGICAL_LAN_BUFFER
            | h::H_ILLAN_ATTRIBUTES => self.device(args[0]).and_then(|d| d.hcall(number, args, out)),
            _ => return None,
        })
    }
}

impl Hypercalls for VioBus {
    fn hcall(&self, _server: u32, number: u64, args: &Args, out: &mut Args) -> Option<Status> {
        Some(self.call(number, args, out)?.err().unwrap_or(Status::SUCCESS))
    }
}

impl RtasCalls for VioBus {
    fn names(&self) -> &'static [&'static str] {
        &["ibm,set-tce-bypass", "quiesce"]
    }
    fn rtas(&self, name: &str, args: &[u32], results: &mut [u32]) -> bool {
        match (name, args) {
            ("ibm,set-tce-bypass", &[unit, on]) => {
                let device = self.device(unit.into()).ok().filter(|d| d.slot().table().is_some());
                let status = match device {
                    Some(d) if on <= 1 => {
                        d.slot().inner.windows.set_bypass(on == 1);
                        rtas::SUCCESS
                    }
                    _ => rtas::PARAMETER_ERROR,
                };
                rtas_return(results, status, &[]);
            }
            ("quiesce", &[]) => {
                // Firmware is done with the devices: queues are closed, and nothing is translated any more.
                for device in self.devices() {
                    if let Some(crq) = device.crq() {
                        crq.free();
                        device.connected(false);
                    }
                    let windows = &device.slot().inner.windows;
                    windows.set_bypass(false);
                    if let Some(table) = device.slot().table() {
                        table.clear();
                    }
                }
                rtas_return(results, rtas::SUCCESS, &[]);
            }
            _ if self.names().contains(&name) => rtas_return(results, rtas::PARAMETER_ERROR, &[]),
            _ => return false,
        }
        true
    }
}
