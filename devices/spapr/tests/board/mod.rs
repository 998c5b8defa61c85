//! A partition: memory, interrupts on XICS, the VIO bus, a PCI host bridge; and how a guest calls them.
#![allow(dead_code, reason = "each test file uses a part")]

use rhea_accel::spapr::KernelTces;
use rhea_accel::{InterruptRouting, IrqLine, IrqSink};
use rhea_device::Log;
use rhea_irqchip::spapr::{IcMode, ServerConfig, SpaprIrqConfig};
use rhea_irqchip::xive::XivePlaces;
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock, Requester};
use rhea_spapr::guest::GuestRam;
use rhea_spapr::papr::hcall as h;
use rhea_spapr::{Args, Hypercalls, Phb, PhbConfig, Phbs, RtasCalls, SpaprIrq, TceTables, VioBus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub const RAM: u64 = 32 << 20;

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

#[derive(Default)]
struct Input(AtomicBool);

impl IrqSink for Input {
    fn set_level(&self, _: u32, level: bool) {
        self.0.store(level, SeqCst);
    }
}

pub struct Board {
    pub space: Arc<AddressSpace>,
    pub ram: GuestRam,
    pub irq: Arc<SpaprIrq>,
    pub tces: Arc<TceTables>,
    pub vio: Arc<VioBus>,
    pub phbs: Arc<Phbs>,
    pub phb: Arc<Phb>,
    input: Arc<Input>,
    _map: Mapping,
}

impl Board {
    pub fn new() -> Self {
        Self::with(None)
    }
    /// With tables that are the accelerator's.
    pub fn with(kernel: Option<Arc<dyn KernelTces>>) -> Self {
        let space = AddressSpace::new("partition");
        let block = RamBlock::anonymous("ram", RAM).unwrap();
        let map = space.map_ram(Gpa(0), &block, 0, RAM, 0).unwrap();
        let input = Arc::new(Input::default());
        let irq = SpaprIrq::new(SpaprIrqConfig {
            name: "spapr-irq".to_owned(),
            mode: IcMode::Dual,
            cpus: vec![ServerConfig { server: 0, input: IrqLine::to_sink(input.clone(), 0) }],
            memory: space.clone(),
            routing: InterruptRouting::new(),
            places: XivePlaces::default(),
            kernel: None,
            log: Log::off(),
        })
        .unwrap();
        let ram = GuestRam::new(&space);
        let tces = TceTables::new(ram.clone());
        if let Some(kernel) = kernel {
            tces.set_kernel(kernel);
        }
        let vio = VioBus::new(&space, &irq, &tces);
        let phb = Phb::new(PhbConfig { memory_end: RAM, ..PhbConfig::new(0, &space, &irq, &tces) }).unwrap();
        let phbs = Phbs::new();
        phbs.add(phb.clone());
        let board = Self { space, ram, irq, tces, vio, phbs, phb, input, _map: map };
        assert_eq!(board.call(h::H_CPPR, &[0xff]).0, 0);
        board
    }
    pub fn call(&self, number: u64, args: &[u64]) -> (i64, Args) {
        let mut all = [0; 9];
        all[..args.len()].copy_from_slice(args);
        let mut out = all;
        let sets: [&dyn Hypercalls; 3] = [&*self.irq, &*self.tces, &*self.vio];
        let status = sets.iter().find_map(|s| s.hcall(0, number, &all, &mut out));
        (status.expect("a hypercall of the board").0, out)
    }
    pub fn ok(&self, number: u64, args: &[u64]) -> Args {
        let (status, out) = self.call(number, args);
        assert_eq!(status, 0, "hypercall {number:#x} {args:x?}");
        out
    }
    pub fn rtas(&self, calls: &dyn RtasCalls, name: &str, args: &[u32], results: usize) -> Vec<u32> {
        let mut out = vec![0xdead; results];
        assert!(calls.rtas(name, args, &mut out), "{name}");
        out
    }
    /// An RTAS call to the host bridge, with its unit id after the first argument.
    pub fn pci(&self, name: &str, args: &[u32], results: usize) -> Vec<u32> {
        let buid = self.phb.buid();
        let all = [&args[..1], &[(buid >> 32) as u32, buid as u32], &args[1..]].concat();
        self.rtas(&*self.phbs, name, &all, results)
    }
    pub fn put(&self, at: u64, data: &[u8]) {
        self.space.write(Gpa(at), data, Requester::Host).unwrap();
    }
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.space.read(Gpa(at), &mut data, Requester::Host).unwrap();
        data
    }
    /// Opens the first MiB, the addresses the same, to a device.
    pub fn open(&self, liobn: u32) {
        for page in 0..256 {
            self.ok(h::H_PUT_TCE, &[liobn.into(), page << 12, page << 12 | 3]);
        }
    }
    pub fn enable(&self, irq: u32) {
        assert_eq!(self.rtas(&*self.irq, "ibm,set-xive", &[irq, 0, 5], 1), [0]);
    }
    pub fn up(&self) -> bool {
        self.input.0.load(SeqCst)
    }
    /// Waits for an interrupt, and handles it.
    pub fn take(&self) -> Option<u32> {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.up() {
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        let xirr = self.ok(h::H_XIRR, &[])[0];
        self.ok(h::H_EOI, &[xirr]);
        Some(xirr as u32 & 0xff_ffff)
    }
}
