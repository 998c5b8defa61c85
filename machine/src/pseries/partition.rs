//! The partition: what hypercalls, RTAS and the client interface work on, and how its processors are started and stopped.

pub mod saved;

use super::cas::{ClientVectors, Offer, Outcome};
use super::client::{self, Client};
use super::drc::{self, Connectors, DrcType};
use super::hpt::{self, Hpt, MAX_ORDER};
use super::memory::GuestRam;
use super::options::PseriesOptions;
use super::rtas::events::Events;
use super::rtas::{self, Rtas};
use super::tree::{self, Boot, TreeInput};
use crate::options::Smp;
use parking_lot::Mutex;
use rhea_accel::{GuestVcpu, VmControl};
use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_display::ByteOrder;
use rhea_firmware::FdtNode;
use rhea_irqchip::spapr::papr::{Args, Hypercalls, Status, hcall as h};
use rhea_irqchip::spapr::{Mode, Node, SpaprIrq};
use rhea_kvm::KvmError;
use rhea_kvm::ppc::PpcVm;
use rhea_memory::AddressSpace;
use rhea_ppc::bits::lpcr;
use rhea_ppc::{PpcConfig, PpcCpu, PpcPins};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Areas that a processor's program has registered: addresses, 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    pub vpa: u64,
    pub slb_shadow: (u64, u64),
    pub dispatch_log: (u64, u64),
}

/// One processor as the partition knows it.
#[derive(Default)]
pub struct Thread {
    /// Its core is plugged.
    pub present: AtomicBool,
    pub running: AtomicBool,
    /// Waits in H_JOIN.
    pub joined: AtomicBool,
    pub registered: Mutex<Registered>,
}

/// What is made after the processors.
pub struct Late {
    pub irq: Arc<SpaprIrq>,
    pub vcpus: Vec<Arc<dyn GuestVcpu<PpcCpu>>>,
    pub pins: Vec<Arc<PpcPins>>,
    pub sets: Vec<Arc<dyn Hypercalls>>,
    pub rtas: Rtas,
    pub events: Arc<Events>,
    /// `/vdevice` and the PCI host bridges.
    pub buses: Box<dyn Fn() -> Vec<FdtNode> + Send + Sync>,
    /// The nodes of the functions in the slot of a connector.
    pub pci_nodes: Box<dyn Fn(u32) -> Vec<Node> + Send + Sync>,
    /// Told of the index of a connector whose resource the partition has given up.
    pub released: Box<dyn Fn(u32) + Send + Sync>,
    pub boot: Boot,
    pub random: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Tells displays the order of bytes in which the partition runs.
    pub byte_order: Box<dyn Fn(ByteOrder) + Send + Sync>,
}

/// Why a processor is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    NoSuch,
    Running,
}

/// The partition.
pub struct Partition {
    pub options: PseriesOptions,
    pub name: Option<String>,
    pub uuid: [u8; 16],
    pub smp: Smp,
    pub max_ram: u64,
    pub cpu: Arc<PpcConfig>,
    pub offer: Offer,
    pub space: Arc<AddressSpace>,
    pub ram: GuestRam,
    pub control: VmControl,
    pub clock: Arc<VirtualClock>,
    pub log: Log,
    pub hpt: Hpt,
    /// Those of all cores there can be.
    pub threads: Vec<Thread>,
    pub drcs: Connectors,
    pub process_table: AtomicU64,
    pub nmi: Mutex<Option<(u64, u64)>>,
    outcome: Mutex<Outcome>,
    client: Mutex<Option<Client>>,
    input: Mutex<VecDeque<u8>>,
    /// What firmware or the client interface made of the tree.
    updated: Mutex<Option<FdtNode>>,
    rtas: Mutex<Option<u64>>,
    little_endian: AtomicBool,
    late: OnceLock<Late>,
    /// The VM, if the processors run under KVM.
    kernel: OnceLock<Arc<dyn PpcVm>>,
    /// log2 of the size of the kernel's hashed page table; 0: none.
    kernel_hpt: AtomicU32,
}

/// What a [`Partition`] is made of.
pub struct PartitionConfig {
    pub options: PseriesOptions,
    pub name: Option<String>,
    pub uuid: [u8; 16],
    pub smp: Smp,
    pub max_ram: u64,
    pub cpu: Arc<PpcConfig>,
    pub offer: Offer,
    pub space: Arc<AddressSpace>,
    pub ram: GuestRam,
    pub control: VmControl,
    pub clock: Arc<VirtualClock>,
    pub log: Log,
}

impl Partition {
    #[must_use]
    pub fn new(config: PartitionConfig) -> Arc<Self> {
        let PartitionConfig { options, name, uuid, smp, max_ram, cpu, offer, space, ram, control, clock, log } = config;
        let most = hpt::order_for(max_ram.max(ram.len())).min(MAX_ORDER);
        let hpt = Hpt::new(&ram, options.caps.max_page_shift, most);
        let outcome = offer.initial();
        let there = |n: u32| Thread { present: AtomicBool::new(n < smp.cpus), ..Thread::default() };
        let threads = (0..smp.max_cpus).map(there).collect();
        let drcs = Connectors::default();
        for first in (0..smp.max_cpus).step_by(smp.threads.max(1) as usize) {
            drcs.add(DrcType::Cpu, first, first < smp.cpus);
        }
        if offer.drmem {
            for block in tree::plug_range(ram.len(), max_ram) {
                drcs.add(DrcType::Lmb, block, false);
            }
        }
        Arc::new(Self {
            options,
            name,
            uuid,
            smp,
            max_ram,
            cpu,
            offer,
            space,
            ram,
            control,
            clock,
            log,
            hpt,
            threads,
            drcs,
            process_table: AtomicU64::new(0),
            nmi: Mutex::new(None),
            outcome: Mutex::new(outcome),
            client: Mutex::new(None),
            input: Mutex::default(),
            updated: Mutex::new(None),
            rtas: Mutex::new(None),
            little_endian: AtomicBool::new(false),
            late: OnceLock::new(),
            kernel: OnceLock::new(),
            kernel_hpt: AtomicU32::new(0),
        })
    }
    /// Completes it, once.
    pub fn complete(&self, late: Late) {
        let _ = self.late.set(late);
    }
    pub(super) fn late(&self) -> Option<&Late> {
        self.late.get()
    }
    /// The outcome of the last negotiation.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome.lock().clone()
    }

    // ---- reset ----

    /// Power-on state; before the processors are reset.
    pub fn reset(&self) {
        *self.outcome.lock() = self.offer.initial();
        self.process_table.store(0, Ordering::SeqCst);
        // Under KVM hashed page tables are made for those who ask for one. Of an error the control was told.
        let _ =
            if self.kernel.get().is_some() && self.offer.radix { self.set_radix(0, false) } else { self.set_hash() };
        *self.nmi.lock() = None;
        *self.updated.lock() = None;
        *self.client.lock() = None;
        *self.rtas.lock() = None;
        self.input.lock().clear();
        for (n, thread) in self.threads.iter().enumerate() {
            thread.running.store(n == 0, Ordering::SeqCst);
            thread.joined.store(false, Ordering::SeqCst);
            *thread.registered.lock() = Registered::default();
        }
        if let Some(late) = self.late() {
            late.events.reset();
        }
        self.set_byte_order(false);
        for index in self.drcs.reset() {
            self.released(index);
        }
    }
    /// The partition runs in this order of bytes now: displays are told.
    pub fn set_byte_order(&self, little: bool) {
        self.little_endian.store(little, Ordering::SeqCst);
        if let Some(late) = self.late() {
            (late.byte_order)(if little { ByteOrder::Little } else { ByteOrder::Big });
        }
    }
    fn initial_hpt_order(&self) -> u32 {
        hpt::order_for(self.ram.len()).min(MAX_ORDER)
    }
    /// LPCR of a processor that starts: hashed translation without tables, interrupts big-endian at their places.
    #[must_use]
    pub fn initial_lpcr(&self) -> u64 {
        let large = self.options.caps.large_decrementer && self.cpu.decrementer_bits > 32;
        if large && self.outcome.lock().compat.is_none_or(|c| c >= super::options::Compat::Power9) {
            lpcr::LD
        } else {
            0
        }
    }
    /// PCR that goes with the negotiated level.
    #[must_use]
    pub fn pcr(&self) -> u64 {
        let level = self.outcome.lock().compat;
        let compat = level.and_then(|l| rhea_ppc::models::compat_of_pvr(l.logical_pvr()));
        compat.filter(|c| c.isa < self.cpu.isa).map_or(0, |c| c.pcr)
    }

    // ---- translation ----

    /// The processors run in this VM; once.
    pub fn set_kernel(&self, vm: Arc<dyn PpcVm>) {
        let _ = self.kernel.set(vm);
    }
    /// Tells of an error of the kernel, after which the machine cannot go on.
    fn told<T>(&self, result: Result<T, KvmError>) -> Result<T, KvmError> {
        result.inspect_err(|e| self.control.guest_panic(&format!("KVM: {e}")))
    }
    /// log2 of the size in bytes of the hashed page table, 0: none.
    #[must_use]
    pub fn hpt_order(&self) -> u32 {
        if self.kernel.get().is_some() { self.kernel_hpt.load(Ordering::SeqCst) } else { self.hpt.order() }
    }
    /// An empty hashed page table takes the place of what there was.
    ///
    /// # Errors
    /// The kernel's, of which the machine's control was told.
    pub fn set_hash(&self) -> Result<(), KvmError> {
        let order = self.initial_hpt_order();
        if let Some(kernel) = self.kernel.get() {
            self.told(kernel.set_hash(order))?;
            self.kernel_hpt.store(order, Ordering::SeqCst);
        } else {
            self.hpt.reset(order);
        }
        Ok(())
    }
    /// There is no hashed page table: trees are found by the process table (0: there is none yet).
    ///
    /// # Errors
    /// As [`Self::set_hash`].
    pub fn set_radix(&self, process_table: u64, gtse: bool) -> Result<(), KvmError> {
        if let Some(kernel) = self.kernel.get() {
            self.told(kernel.set_radix(process_table, gtse))?;
            self.kernel_hpt.store(0, Ordering::SeqCst);
        } else {
            self.hpt.reset(0);
        }
        Ok(())
    }

    // ---- what comes and goes ----

    /// The partition has given up the resource of a connector.
    pub fn released(&self, index: u32) {
        if let Some(late) = self.late() {
            (late.released)(index);
        }
    }
    /// Puts a core in or takes it out; `first`: its first thread.
    pub fn set_core(&self, first: u32, present: bool) {
        let threads = self.threads.iter().skip(first as usize).take(self.smp.threads.max(1) as usize);
        for (n, thread) in (first..).zip(threads) {
            thread.present.store(present, Ordering::SeqCst);
            thread.joined.store(false, Ordering::SeqCst);
            *thread.registered.lock() = Registered::default();
            if thread.running.swap(false, Ordering::SeqCst)
                && let Some(vcpu) = self.late().and_then(|l| l.vcpus.get(n as usize))
            {
                vcpu.post(Box::new(PpcCpu::power_off));
            }
        }
    }
    /// The nodes that ibm,configure-connector tells of.
    #[must_use]
    pub fn connector_nodes(&self, index: u32) -> Vec<FdtNode> {
        let id = drc::id(index);
        if index == drc::index(DrcType::Cpu, id) {
            return self.with_input(false, |input| vec![tree::cpu_node(input, id)]);
        }
        if index == drc::index(DrcType::Lmb, id) {
            return vec![tree::memory_node(u64::from(id) * tree::LMB, tree::LMB)];
        }
        self.late().map_or_else(Vec::new, |l| (l.pci_nodes)(id).iter().map(tree::node).collect())
    }
    /// Does the guest know the interrupt of hot-plug events, and memory blocks told by their first one and their number?
    #[must_use]
    pub fn modern_events(&self) -> bool {
        let (byte, bit) = super::cas::ov5::HP_EVENT;
        self.outcome.lock().vec5.has(byte, bit)
    }
    /// A processor that is there.
    #[must_use]
    pub fn thread(&self, id: u64) -> Option<&Thread> {
        let thread = self.threads.get(usize::try_from(id).ok()?)?;
        thread.present.load(Ordering::SeqCst).then_some(thread)
    }

    // ---- processors ----

    /// Runs `f` on every processor but `except`, soon.
    pub fn on_others(&self, except: u32, f: impl Fn(&mut PpcCpu) + Send + Sync + 'static) {
        let f = Arc::new(f);
        let vcpus = self.late().map_or(&[][..], |l| &l.vcpus);
        for vcpu in vcpus.iter().filter(|v| v.index() != except) {
            let f = f.clone();
            vcpu.post(Box::new(move |cpu| f(cpu)));
        }
    }
    /// Runs `f` on the calling processor now and on the others before they run guest code again that is told of it.
    pub fn on_all(&self, me: &mut PpcCpu, f: impl Fn(&mut PpcCpu) + Send + Sync + 'static) {
        f(me);
        self.on_others(me.index, f);
    }
    /// # Errors
    /// [`Started`].
    pub fn start_cpu(&self, id: u32, entry: u64, r3: u64) -> Result<(), Started> {
        let (Some(thread), Some(vcpu)) = (self.thread(id.into()), self.late().and_then(|l| l.vcpus.get(id as usize)))
        else {
            return Err(Started::NoSuch);
        };
        if thread.running.swap(true, Ordering::SeqCst) {
            return Err(Started::Running);
        }
        if let Some(late) = self.late() {
            late.irq.reset_server(id);
        }
        vcpu.post(Box::new(move |cpu| cpu.start_at(entry, r3, false)));
        Ok(())
    }
    /// Does a processor run? `None`: there is no such processor.
    #[must_use]
    pub fn cpu_runs(&self, id: u32) -> Option<bool> {
        self.thread(id.into()).map(|t| t.running.load(Ordering::SeqCst))
    }
    /// The calling processor goes off.
    pub fn stop_self(&self, cpu: &mut PpcCpu) {
        cpu.power_off();
        if let Some(thread) = self.threads.get(cpu.index as usize) {
            thread.running.store(false, Ordering::SeqCst);
        }
    }
    /// Ends the wait of a processor; false: there is none.
    pub fn prod(&self, id: u64) -> bool {
        let Ok(index) = usize::try_from(id) else { return false };
        let (Some(thread), Some(vcpu)) = (self.thread(id), self.late().and_then(|l| l.vcpus.get(index))) else {
            return false;
        };
        thread.joined.store(false, Ordering::SeqCst);
        vcpu.post(Box::new(PpcCpu::prod));
        true
    }

    // ---- devices ----

    /// A hypercall of a device.
    pub fn device_hcall(&self, cpu: u32, number: u64, args: &Args, out: &mut Args) -> Option<Status> {
        self.late()?.sets.iter().find_map(|set| set.hcall(cpu, number, args, out))
    }
    /// The next event's log.
    #[must_use]
    pub fn take_event(&self, mask: u32) -> Option<Vec<u8>> {
        self.late()?.events.take(mask)
    }
    /// Output of firmware on the first terminal; false: there is none.
    pub fn console_write(&self, data: &[u8]) -> bool {
        for part in data.chunks(16) {
            let mut bytes = [0; 16];
            bytes[..part.len()].copy_from_slice(part);
            let word = |n: usize| bytes[8 * n..8 * n + 8].iter().fold(0u64, |v, b| v << 8 | u64::from(*b));
            let mut args = Args::default();
            (args[1], args[2], args[3]) = (part.len() as u64, word(0), word(1));
            let mut out = args;
            // A terminal that does not take it for a second has nobody at its other end.
            let mut left = 1000;
            loop {
                match self.device_hcall(0, h::H_PUT_TERM_CHAR, &args, &mut out) {
                    Some(Status::SUCCESS) => break,
                    Some(Status::BUSY) if left > 0 => {
                        left -= 1;
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    _ => return false,
                }
            }
        }
        true
    }
    fn console_read(&self) -> Option<u8> {
        let mut input = self.input.lock();
        if input.is_empty() {
            let (args, mut out) = (Args::default(), Args::default());
            if self.device_hcall(0, h::H_GET_TERM_CHAR, &args, &mut out) == Some(Status::SUCCESS) {
                let bytes = [out[1].to_be_bytes(), out[2].to_be_bytes()].concat();
                input.extend(bytes.into_iter().take(out[0] as usize));
            }
        }
        input.pop_front()
    }

    // ---- tree and negotiation ----

    /// The tree as it is now; `fresh`: with what the machine starts with.
    #[must_use]
    pub fn tree(&self, fresh: bool) -> FdtNode {
        self.with_input(fresh, tree::build)
    }
    /// Calls `f` with what trees are made of.
    fn with_input<R: Default>(&self, fresh: bool, f: impl FnOnce(&TreeInput<'_>) -> R) -> R {
        let Some(late) = self.late() else { return R::default() };
        let outcome = self.outcome();
        let mut seed = [0; 32];
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&(late.random)().to_be_bytes());
        }
        let present = |n: &u32| self.thread((*n).into()).is_some();
        let cores: Vec<u32> =
            (0..self.smp.max_cpus).step_by(self.smp.threads.max(1) as usize).filter(present).collect();
        f(&TreeInput {
            options: &self.options,
            name: self.name.as_deref(),
            uuid: self.uuid,
            ram: self.ram.len(),
            plugged: &self.ram.added(),
            max_ram: self.max_ram,
            threads: self.smp.threads,
            cores: &cores,
            max_cpus: self.smp.max_cpus,
            drcs: &self.drcs,
            pvr: self.cpu.pvr,
            isa: self.cpu.isa,
            offer: &self.offer,
            outcome: &outcome,
            hpt_order: if self.hpt_order() == 0 { self.initial_hpt_order() } else { self.hpt_order() },
            boot: &late.boot,
            fresh,
            seed: Some(seed),
            controller: late.irq.tree(tree::INTERRUPTS),
            buses: (late.buses)(),
            rtas: late.rtas.tokens(),
            rtas_size: rtas::size(self.smp.max_cpus),
        })
    }
    /// Client-architecture support: the guest's vectors are at `address`. The calling processor is `me`, if a processor's own thread
    /// asks.
    ///
    /// # Errors
    /// H_PARAMETER, H_HARDWARE.
    pub fn negotiate(&self, me: &mut PpcCpu, address: u64) -> Result<(), Status> {
        let client = ClientVectors::read(&self.ram, address)?;
        let outcome = self.offer.negotiate(&client).inspect_err(|_| {
            let mode = self.offer.ic_mode.word();
            self.log.guest_error("cas", format_args!("the guest insists on what the machine lacks (ic-mode={mode})"));
        })?;
        let (radix, xive) = (outcome.radix, outcome.xive);
        *self.outcome.lock() = outcome;
        // The hashed page table is there until the guest is known not to need it.
        if radix {
            self.set_radix(0, false).map_err(|_| Status::HARDWARE)?;
        } else if self.hpt_order() == 0 {
            self.set_hash().map_err(|_| Status::HARDWARE)?;
        }
        if let Some(late) = self.late() {
            late.irq.activate(if xive { Mode::Xive } else { Mode::Xics });
        }
        let (pcr, large) = (self.pcr(), self.initial_lpcr());
        self.on_all(me, move |cpu| {
            cpu.set_pcr(pcr);
            cpu.set_lpcr(cpu.lpcr() & !lpcr::LD | large);
        });
        Ok(())
    }
    /// A tree that firmware flattened from its own (KVMPPC_H_UPDATE_DT).
    pub fn take_tree(&self, tree: FdtNode) {
        *self.updated.lock() = Some(tree);
    }

    // ---- the client interface ----

    /// Opens the interface for a kernel that is started directly; `taken`: memory in use.
    pub fn open_client(&self, taken: &[(u64, u64)]) {
        let stdout = self.late().and_then(|l| l.boot.stdout.clone());
        *self.client.lock() = Some(Client::new(&self.tree(true), taken, stdout.as_deref()));
    }
    /// A call of the client; its arguments are at `address`. `None`: there is no such interface.
    pub fn client_call(&self, cpu: &mut PpcCpu, address: u64) -> Option<Result<client::After, ()>> {
        // Taken out while it works: services look at the partition. A second processor finds none.
        let mut client = self.client.lock().take()?;
        let services = Services { partition: self, cpu: Mutex::new(cpu) };
        let result = client.call(&services, address);
        *self.client.lock() = Some(client);
        Some(result)
    }
    /// Where the guest has RTAS: as it said to the client interface, or as firmware's tree says.
    #[must_use]
    pub fn rtas_base(&self) -> Option<u64> {
        if let Some(base) = *self.rtas.lock() {
            return Some(base);
        }
        let tree = self.updated.lock();
        let base = tree.as_ref()?.find("rtas")?.property("linux,rtas-base")?;
        base.try_into().ok().map(u32::from_be_bytes).map(u64::from)
    }
    /// Puts RTAS's code there.
    fn put_rtas(&self, address: u64) -> bool {
        let code: Vec<u8> = rtas::BLOB.iter().flat_map(|w| w.to_be_bytes()).collect();
        if !self.ram.has(address, rtas::size(self.smp.max_cpus).into()) || self.ram.write(address, &code).is_err() {
            return false;
        }
        *self.rtas.lock() = Some(address);
        true
    }
}

/// The partition and the calling processor for the client interface.
struct Services<'a> {
    partition: &'a Partition,
    cpu: Mutex<&'a mut PpcCpu>,
}

impl client::Machine for Services<'_> {
    fn ram(&self) -> &GuestRam {
        &self.partition.ram
    }
    fn rma(&self) -> u64 {
        tree::rma(self.partition.ram.len())
    }
    fn console_write(&self, data: &[u8]) {
        self.partition.console_write(data);
    }
    fn console_read(&self) -> Option<u8> {
        self.partition.console_read()
    }
    fn milliseconds(&self) -> u32 {
        (self.partition.clock.now_ns() / 1_000_000) as u32
    }
    fn negotiate(&self, address: u64) -> Result<FdtNode, ()> {
        self.partition.negotiate(&mut self.cpu.lock(), address).map_err(|_| ())?;
        Ok(self.partition.tree(false))
    }
    fn instantiate_rtas(&self, address: u64) -> bool {
        self.partition.put_rtas(address)
    }
}
