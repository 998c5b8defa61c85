//! A machine of interrupt servers, with a guest's way to use either controller.

mod change;
mod hostile;
mod kernel;
mod xics;
mod xive;

use super::papr::{Args, Hypercalls, RtasCalls, Status, hcall as h};
use super::*;
use rhea_memory::{Access, RamBlock};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The priority a guest gives to all its sources.
const PRIORITY: u8 = 5;
const SHIFT: u32 = 16;
const QUEUE: u64 = 0x1_0000;

/// A processor's input.
#[derive(Default)]
struct Input(AtomicBool);

impl IrqSink for Input {
    fn set_level(&self, _: u32, level: bool) {
        self.0.store(level, SeqCst);
    }
}

struct Machine {
    irq: Arc<SpaprIrq>,
    space: Arc<AddressSpace>,
    inputs: Vec<(u32, Arc<Input>)>,
    /// Where each server's queue is read next, and with which generation.
    read: Mutex<Vec<(u64, u32)>>,
    _ram: Mapping,
}

impl Machine {
    fn new(mode: IcMode, servers: &[u32]) -> Self {
        Self::with(mode, servers, None)
    }
    fn with(mode: IcMode, servers: &[u32], kernel: Option<Arc<dyn KernelIrqchip>>) -> Self {
        let space = AddressSpace::new("guest");
        let ram = RamBlock::anonymous("ram", 1 << 20).unwrap();
        let map = space.map_ram(Gpa(0), &ram, 0, 1 << 20, 0).unwrap();
        let inputs: Vec<_> = servers.iter().map(|n| (*n, Arc::new(Input::default()))).collect();
        let cpus =
            inputs.iter().map(|(n, i)| ServerConfig { server: *n, input: IrqLine::to_sink(i.clone(), 0) }).collect();
        let irq = SpaprIrq::new(SpaprIrqConfig {
            name: "spapr-irq".to_owned(),
            mode,
            cpus,
            memory: space.clone(),
            routing: InterruptRouting::new(),
            places: XivePlaces::default(),
            kernel,
            log: Log::off(),
        })
        .unwrap();
        Self { irq, space, read: Mutex::new(vec![(0, 1); servers.len()]), inputs, _ram: map }
    }
    fn up(&self, cpu: usize) -> bool {
        self.inputs[cpu].1.0.load(SeqCst)
    }
    fn server(&self, cpu: usize) -> u32 {
        self.inputs[cpu].0
    }
    fn call(&self, cpu: usize, number: u64, args: &[u64]) -> (i64, Args) {
        let mut all = [0; 9];
        all[..args.len()].copy_from_slice(args);
        let mut out = all;
        let status = self.irq.hcall(self.server(cpu), number, &all, &mut out).expect("a hypercall of interrupts");
        (status.0, out)
    }
    fn ok(&self, cpu: usize, number: u64, args: &[u64]) -> Args {
        let (status, out) = self.call(cpu, number, args);
        assert_eq!(status, 0, "hypercall {number:#x} {args:x?}");
        out
    }
    fn rtas(&self, name: &str, args: &[u32]) -> (i32, u32, u32) {
        let mut results = [0; 3];
        assert!(RtasCalls::rtas(&*self.irq, name, args, &mut results));
        (results[0] as i32, results[1], results[2])
    }
    fn tima_read(&self, cpu: usize, at: u64, size: u8) -> Result<u64, rhea_memory::BusError> {
        let at = Gpa(XivePlaces::default().tima + 0x2_0000 + at);
        let value = self.space.load(at, Access::cpu(cpu as u32, size))?;
        Ok(value.swap_bytes() >> (64 - 8 * u32::from(size)))
    }
    fn set_cppr(&self, cpu: usize, cppr: u8) {
        let at = Gpa(XivePlaces::default().tima + 0x2_0011);
        self.space.store(at, cppr.into(), Access::cpu(cpu as u32, 1)).unwrap();
    }
    fn esb_load(&self, lisn: u32, at: u64) -> u64 {
        let at = Gpa(XivePlaces::default().esb + (u64::from(lisn) << (SHIFT + 1)) + (1 << SHIFT) + at);
        self.space.load(at, Access::cpu(0, 8)).unwrap().swap_bytes()
    }
    fn esb_store(&self, lisn: u32, page: u64, at: u64) {
        let at = Gpa(XivePlaces::default().esb + (u64::from(lisn) << (SHIFT + 1)) + (page << SHIFT) + at);
        self.space.store(at, 0, Access::cpu(0, 8)).unwrap();
    }
    /// What a kernel does for a processor when it comes up.
    fn start(&self, cpu: usize) {
        match self.irq.mode() {
            Mode::Xics => drop(self.ok(cpu, h::H_CPPR, &[0xff])),
            Mode::Xive => {
                let page = QUEUE * (cpu as u64 + 1);
                self.space.write(Gpa(page), &[0; QUEUE as usize], rhea_memory::Requester::Host).unwrap();
                self.read.lock()[cpu] = (0, 1);
                let args = [1, self.server(cpu).into(), PRIORITY.into(), page, 16];
                self.ok(cpu, h::H_INT_SET_QUEUE_CONFIG, &args);
                self.set_cppr(cpu, 0xff);
            }
        }
    }
    /// Directs a source to a processor, and turns it on.
    fn enable(&self, irq: u32, cpu: usize) {
        match self.irq.mode() {
            Mode::Xics => {
                assert_eq!(self.rtas("ibm,set-xive", &[irq, self.server(cpu), PRIORITY.into()]).0, 0);
            }
            Mode::Xive => {
                let args = [2, irq.into(), self.server(cpu).into(), PRIORITY.into(), irq.into()];
                self.ok(cpu, h::H_INT_SET_SOURCE_CONFIG, &args);
                self.esb_load(irq, 0xc00);
            }
        }
    }
    fn next_event(&self, cpu: usize) -> Option<u32> {
        let mut read = self.read.lock();
        let (at, generation) = &mut read[cpu];
        let address = Gpa(QUEUE * (cpu as u64 + 1) + *at * 4);
        let entry = (self.space.load(address, Access::host(4)).unwrap() as u32).swap_bytes();
        if entry >> 31 != *generation {
            return None;
        }
        *at += 1;
        if *at == QUEUE / 4 {
            (*at, *generation) = (0, *generation ^ 1);
        }
        Some(entry & 0x7fff_ffff)
    }
    /// What the interrupt handler of a kernel does; `handle` is given each interrupt.
    fn service(&self, cpu: usize, handle: &dyn Fn(u32)) {
        match self.irq.mode() {
            Mode::Xics => loop {
                let xirr = self.ok(cpu, h::H_XIRR, &[])[0];
                let irq = xirr as u32 & 0xff_ffff;
                if irq == 0 {
                    return;
                }
                handle(irq);
                self.ok(cpu, h::H_EOI, &[xirr]);
            },
            Mode::Xive => {
                let ack = self.tima_read(cpu, 0x810, 2).unwrap();
                if ack & 0x8000 == 0 {
                    return;
                }
                while let Some(irq) = self.next_event(cpu) {
                    handle(irq);
                    self.esb_store(irq, 1, 0x400);
                }
                self.set_cppr(cpu, 0xff);
            }
        }
    }
    /// The interrupts a processor gets now.
    fn take(&self, cpu: usize) -> Vec<u32> {
        let seen = Mutex::new(Vec::new());
        while self.up(cpu) {
            self.service(cpu, &|irq| seen.lock().push(irq));
        }
        seen.into_inner()
    }
    fn message(&self, irq: u32) {
        self.irq.send(MsiMessage { address: 0x400_0000_0000, data: irq, requester_id: 0 });
    }
}

#[test]
fn numbers() {
    let m = Machine::new(IcMode::Dual, &[0, 8]);
    assert_eq!(m.irq.servers(), 9);
    assert!(m.irq.claim(numbers::EPOW, false).is_ok());
    assert_eq!(m.irq.claim(numbers::EPOW, false).err(), Some(SpaprIrqError::InUse(numbers::EPOW)));
    assert_eq!(m.irq.claim(0, false).err(), Some(SpaprIrqError::Number(0)));
    assert_eq!(m.irq.claim(TOTAL, true).err(), Some(SpaprIrqError::Number(TOTAL)));
    let first = m.irq.allocate_messages(3, 1).unwrap();
    let second = m.irq.allocate_messages(8, 8).unwrap();
    assert_eq!((first, second % 8), (MSI, 0));
    assert_eq!(m.irq.allocate_messages(0, 1), None);
    assert_eq!(m.irq.allocate_messages(TOTAL, 1), None);
    let rest = m.irq.allocate_messages(TOTAL - second - 8, 1).unwrap();
    assert_eq!(rest, second + 8);
    assert_eq!(m.irq.allocate_messages(8, 8), None);
    m.irq.free_messages(second, 8);
    assert_eq!(m.irq.allocate_messages(8, 8), Some(second));
    m.irq.free_messages(0, u32::MAX);
    assert!(m.irq.claim(numbers::EPOW, false).is_err());
    assert_eq!(m.irq.allocate_messages(TOTAL - MSI, 1), Some(MSI));
}

#[test]
fn trees() {
    let m = Machine::new(IcMode::Dual, &[0, 8]);
    let (node, root) = m.irq.tree(0x1111);
    assert_eq!(node.get("compatible"), Some(&b"IBM,ppc-xicp\0"[..]));
    assert!(root.is_empty());
    assert!(m.irq.activate(Mode::Xive));
    let (node, root) = m.irq.tree(0x1111);
    assert_eq!(node.get("compatible"), Some(&b"ibm,power-ivpe\0"[..]));
    assert_eq!(node.name, "interrupt-controller@60302031b0000");
    assert_eq!(root[0].1, [0, 0, 0, 7, 0, 0, 0, 0xf8]);
    assert!(!Machine::new(IcMode::Xics, &[0]).irq.activate(Mode::Xive));
}
