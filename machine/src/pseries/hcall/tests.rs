use super::*;
use crate::options::Smp;
use crate::pseries::cas::Offer;
use crate::pseries::memory::GuestRam;
use crate::pseries::options::{Compat, IcMode};
use crate::pseries::partition::{Late, PartitionConfig};
use crate::pseries::rtas::Rtas;
use crate::pseries::rtas::events::Events;
use crate::pseries::tree::Boot;
use crate::pseries::{PseriesOptions, rtas};
use parking_lot::Mutex;
use rhea_accel::{InterruptRouting, IrqLine, VmControl, VmRequest};
use rhea_clock::VirtualClock;
use rhea_device::Log;
use rhea_display::ByteOrder;
use rhea_irqchip::spapr::{self, ServerConfig, SpaprIrq, SpaprIrqConfig};
use rhea_irqchip::xive::XivePlaces;
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use rhea_ppc::NoHooks;
use std::sync::Arc;

const RAM: u64 = 16 << 20;
const CPUS: u32 = 4;

struct Board {
    partition: Arc<Partition>,
    cpu: Box<PpcCpu>,
    requests: crossbeam_channel::Receiver<VmRequest>,
    irq: Arc<SpaprIrq>,
    /// As displays were told.
    byte_order: Arc<Mutex<Option<ByteOrder>>>,
    _ram: Mapping,
}

fn board() -> Board {
    let options = PseriesOptions::parse(&["pseries,cap-rpt-invalidate=on".to_owned()]).unwrap();
    let config = Arc::new(rhea_ppc::models::parse("power10").unwrap());
    let (space, clock) = (AddressSpace::new("system"), VirtualClock::new());
    let ram = RamBlock::anonymous("ram", RAM).unwrap();
    let mapping = space.map_ram(Gpa(0), &ram, 0, RAM, 0).unwrap();
    let (control, requests) = VmControl::new();
    let log = Log::new(0, Box::new(std::io::sink()));
    let offer = Offer {
        ic_mode: IcMode::Dual,
        radix: true,
        hash: true,
        kernel: false,
        pvr: config.pvr,
        newest: Compat::Power10,
        max_compat: None,
        hpt_resize: true,
        hotplug_events: true,
        drmem: false,
    };
    let partition = Partition::new(PartitionConfig {
        options,
        name: None,
        uuid: [7; 16],
        smp: Smp { cpus: CPUS, max_cpus: CPUS, cores: CPUS, ..Smp::ONE },
        max_ram: RAM,
        cpu: config.clone(),
        offer,
        space: space.clone(),
        ram: GuestRam::new(&ram),
        control,
        clock: clock.clone(),
        log: log.clone(),
    });
    let servers = (0..CPUS).map(|server| ServerConfig { server, input: IrqLine::unconnected() }).collect();
    let irq = SpaprIrq::new(SpaprIrqConfig {
        name: "irq".into(),
        mode: spapr::IcMode::Dual,
        cpus: servers,
        memory: space.clone(),
        routing: InterruptRouting::new(),
        places: XivePlaces::default(),
        kernel: None,
        log,
    })
    .unwrap();
    let sources: Arc<dyn spapr::papr::RtasCalls> = irq.clone();
    let byte_order = Arc::new(Mutex::new(None));
    let told = byte_order.clone();
    let late = Late {
        irq: irq.clone(),
        vcpus: Vec::new(),
        pins: (0..CPUS).map(|_| Arc::default()).collect(),
        sets: vec![irq.clone()],
        rtas: Rtas::new(&[sources]),
        events: Arc::new(Events::new(IrqLine::unconnected(), IrqLine::unconnected())),
        buses: Box::new(|| vec![FdtNode::new("vdevice")]),
        pci_nodes: Box::new(|_| Vec::new()),
        released: Box::new(|_| ()),
        boot: Boot::default(),
        random: Box::new(|| 4),
        byte_order: Box::new(move |order| *told.lock() = Some(order)),
    };
    partition.complete(late);
    partition.reset();
    let cpu = PpcCpu::new(0, &config, &space, &clock, Arc::new(NoHooks));
    Board { partition, cpu, requests, irq, byte_order, _ram: mapping }
}

impl Board {
    fn hcall(&mut self, number: u64, args: &[u64]) -> i64 {
        self.cpu.gpr[3] = number;
        (0..9).for_each(|n| self.cpu.gpr[4 + n] = args.get(n).copied().unwrap_or(0));
        call(&self.partition, &mut self.cpu);
        self.cpu.gpr[3] as i64
    }
    fn rtas(&mut self, name: &str, args: &[u32], results: usize) -> (i64, Vec<i32>) {
        let tokens = self.partition.late().unwrap().rtas.tokens();
        let token = tokens.iter().find(|t| t.0 == name).map_or(1, |t| t.1);
        let words = [&[token, args.len() as u32, results as u32], args].concat();
        for (n, word) in words.iter().enumerate() {
            self.partition.ram.set_u32(0x1000 + 4 * n as u64, *word).unwrap();
        }
        let status = self.hcall(n::H_RTAS, &[0x1000]);
        let at = 0x1000 + 4 * words.len() as u64;
        let values = (0..results as u64).map(|n| self.partition.ram.u32(at + 4 * n).unwrap() as i32);
        (status, values.collect())
    }
}

#[test]
fn statuses_of_paper() {
    let mut b = board();
    assert_eq!(b.hcall(0x3fc, &[]), Status::FUNCTION.0);
    // H_SCM_READ_METADATA and others that are not there.
    assert_eq!(b.hcall(0x3e4, &[]), Status::FUNCTION.0);
    assert_eq!(b.hcall(n::H_SET_MODE, &[2, 4]), UNSUPPORTED_FLAG.0);
    assert_eq!(b.hcall(n::H_SET_MODE, &[0, 9]), Status::P2.0);
    assert_eq!(b.hcall(n::H_SET_MODE, &[1, 4, 1]), Status::P3.0);
    assert_eq!(b.hcall(n::H_SET_MODE, &[1, 4, 0, 1]), Status::P4.0);
    assert_eq!(*b.byte_order.lock(), Some(ByteOrder::Big));
    assert_eq!(b.hcall(n::H_SET_MODE, &[1, 4]), 0);
    assert_eq!(*b.byte_order.lock(), Some(ByteOrder::Little));
    assert_ne!(b.cpu.lpcr() & rhea_ppc::bits::lpcr::ILE, 0);
    assert_eq!(b.hcall(n::H_SET_MODE, &[3, 3]), 0);
    assert_eq!(b.hcall(n::H_SET_MODE, &[1, 3]), UNSUPPORTED_FLAG.0);
    assert_eq!(b.hcall(n::H_REGISTER_PROC_TBL, &[0x1c, RAM, 0, 4]), Status::P2.0);
    assert_eq!(b.hcall(n::H_REGISTER_PROC_TBL, &[0x1c, 0x10_0000, 0, 63]), Status::P4.0);
    assert_eq!(b.hcall(n::H_REGISTER_PROC_TBL, &[0x1d, 0x10_0000, 0, 4]), 0);
    assert!(b.cpu.is_radix());
    assert_eq!(b.hcall(n::H_REGISTER_PROC_TBL, &[0x18, 0, 0, 0]), 0);
    assert!(!b.cpu.is_radix() && b.partition.hpt.order() != 0);
    assert_eq!(b.hcall(n::H_RANDOM, &[]), 0);
    assert_eq!(b.cpu.gpr[4], 4);
    b.cpu.msr |= msr::PR;
    assert_eq!(b.hcall(n::H_RANDOM, &[]), Status::PRIVILEGE.0);
}

#[test]
fn registered_areas() {
    let mut b = board();
    let vpa = |what: u64| what << 45;
    b.partition.ram.write(0x2004, &640u16.to_be_bytes()).unwrap();
    b.partition.ram.write(0x3004, &4096u32.to_be_bytes()).unwrap();
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(3), 0, 0x3000]), Status::RESOURCE.0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(1), 0, 0]), Status::HARDWARE.0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(1), 9, 0x2000]), Status::PARAMETER.0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(1), 0, 0x2008]), Status::PARAMETER.0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(1), 0, 0x2000]), 0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(3), 0, RAM - 128]), Status::PARAMETER.0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(2), 0, 0x3000]), 0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(5), 0, 0]), Status::RESOURCE.0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(6), 0, 0]), 0);
    assert_eq!(b.hcall(n::H_REGISTER_VPA, &[vpa(5), 0, 0]), 0);
}

#[test]
fn memory_calls_stay_in_memory() {
    let mut b = board();
    b.partition.ram.set_u32(0x2000, 0x1122_3344).unwrap();
    assert_eq!(b.hcall(n::H_LOGICAL_CI_LOAD, &[4, 0x2000]), 0);
    assert_eq!(b.cpu.gpr[4], 0x1122_3344);
    assert_eq!(b.hcall(n::H_LOGICAL_CI_STORE, &[2, 0x2002, 0x5566]), 0);
    assert_eq!(b.partition.ram.u32(0x2000), Ok(0x1122_5566));
    for bad in [[3, 0x2000, 0], [4, 0x2001, 0], [8, RAM, 0], [8, u64::MAX - 7, 0]] {
        assert_eq!(b.hcall(n::H_LOGICAL_CI_LOAD, &bad), Status::PARAMETER.0);
        assert_eq!(b.hcall(n::H_LOGICAL_CI_STORE, &bad), Status::PARAMETER.0);
    }
    assert_eq!(b.hcall(n::H_LOGICAL_MEMOP, &[0x2004, 0x2000, 2, 1, 1]), 0);
    assert_eq!(b.partition.ram.u32(0x2004), Ok(!0x1122_5566));
    for bad in [[0, 0, 4, 1, 0], [0, 0, 0, u64::MAX, 0], [RAM, 0, 3, 9, 0], [u64::MAX - 7, 0, 3, 9, 0], [0, 0, 0, 1, 2]]
    {
        assert_eq!(b.hcall(n::H_LOGICAL_MEMOP, &bad), Status::PARAMETER.0, "{bad:x?}");
    }
    let flags = 1 << (63 - 48);
    assert_eq!(b.hcall(n::H_PAGE_INIT, &[flags, 0x2000]), 0);
    assert_eq!(b.partition.ram.u32(0x2000), Ok(0));
    assert_eq!(b.hcall(n::H_PAGE_INIT, &[flags, RAM]), Status::PARAMETER.0);
    assert_eq!(b.hcall(n::H_PAGE_INIT, &[1 << (63 - 49), 0x2000, RAM]), Status::PARAMETER.0);
}

#[test]
fn firmware_negotiates() {
    let mut b = board();
    let mut data = Vec::new();
    for word in [0xffff_ffffu32, 0x0f00_0006, 0xffff_fffe, 0x0f00_0001] {
        data.extend(word.to_be_bytes());
    }
    data.extend([4, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
    let mut v5 = [0u8; 26];
    (v5[22], v5[23], v5[25]) = (0x40, 0x40, 0x40);
    data.extend(v5);
    b.partition.ram.write(0x2000, &data).unwrap();
    for bad in [[0x2000, RAM, 0x1000], [0x2000, 0x8000, 8], [RAM, 0x8000, 0x10_0000], [0x2000, 0x8000, 0x100]] {
        assert_eq!(b.hcall(n::H_CAS, &bad), Status::PARAMETER.0, "{bad:x?}");
    }
    assert_eq!(b.hcall(n::H_CAS, &[0x2000, 0x10_0000, 0x10_0000]), 0);
    assert_eq!(b.irq.mode(), spapr::Mode::Xive);
    assert_eq!(b.partition.hpt.order(), 0);
    let blob = b.partition.ram.bytes(0x10_0004, 0xf_fff0).unwrap();
    let tree = FdtNode::parse(&blob).unwrap();
    let vec5 = tree.find("chosen").unwrap().property("ibm,architecture-vec-5").unwrap().to_vec();
    assert_eq!((vec5[23], vec5[24], vec5[26]), (0x40, 0x40, 0x40));
    // Firmware gives its own tree back.
    assert_eq!(b.hcall(n::H_UPDATE_DT, &[0x10_0004]), 0);
    assert_eq!(b.hcall(n::H_UPDATE_DT, &[0x2000]), Status::PARAMETER.0);
    assert_eq!(b.hcall(n::H_UPDATE_DT, &[RAM - 2]), Status::PARAMETER.0);
    b.partition.reset();
    assert!(b.partition.hpt.order() != 0 && !b.partition.outcome().xive);
}

#[test]
fn rtas_calls() {
    let mut b = board();
    assert_eq!(b.rtas("no such call", &[], 1), (0, vec![rtas::HARDWARE_ERROR]));
    assert_eq!(b.rtas("query-cpu-stopped-state", &[1], 2), (0, vec![0, 0]));
    assert_eq!(b.rtas("query-cpu-stopped-state", &[0], 2), (0, vec![0, 2]));
    assert_eq!(b.rtas("query-cpu-stopped-state", &[99], 2).1[0], rtas::PARAMETER_ERROR);
    assert_eq!(b.rtas("start-cpu", &[99, 0, 0], 1).1, [rtas::PARAMETER_ERROR]);
    assert_eq!(b.rtas("start-cpu", &[0], 1).1, [rtas::PARAMETER_ERROR]);
    assert_eq!(b.rtas("get-power-level", &[u32::MAX], 2).1, [0, 100]);
    assert_eq!(b.rtas("get-sensor-state", &[9003, 0x1000_0000], 2).1, [0, 1]);
    assert_eq!(b.rtas("get-sensor-state", &[9003, 0x1000_0063], 2).1[0], rtas::PARAMETER_ERROR);
    assert_eq!(b.rtas("ibm,get-system-parameter", &[48, 0x4000, 18], 1).1, [0]);
    assert_eq!(b.partition.ram.u32(0x4000), Ok(0x0010_0707));
    assert_eq!(b.rtas("ibm,get-system-parameter", &[48, u32::MAX, 18], 1).1, [rtas::PARAMETER_ERROR]);
    assert_eq!(b.rtas("check-exception", &[0x500, 0, 0x4000_0000, 0, 0x4000, 2048], 1).1, [rtas::NO_EVENT]);
    b.partition.late().unwrap().events.power_button([2026, 1, 1, 0, 0, 0]);
    assert_eq!(b.rtas("check-exception", &[0x500, 0, 0x4000_0000, 0, u32::MAX, 2048], 1).1, [rtas::PARAMETER_ERROR]);
    assert_eq!(b.rtas("check-exception", &[0x500, 0, 0x4000_0000, 0, 0x4000, 2048], 1).1, [0]);
    assert_eq!(b.rtas("ibm,set-xive", &[0x1000, 0, 5], 1).1, [rtas::PARAMETER_ERROR]);
    for bad in [RAM - 4, u64::MAX, u64::MAX - 11, 1 << 40] {
        assert_eq!(b.hcall(n::H_RTAS, &[bad]), Status::PARAMETER.0);
    }
    // More arguments than there can be.
    b.partition.ram.set_u32(0x1004, 17).unwrap();
    assert_eq!(b.hcall(n::H_RTAS, &[0x1000]), Status::PARAMETER.0);
    assert_eq!(b.rtas("power-off", &[0, 0], 1).1, [0]);
    assert_eq!(b.requests.try_recv(), Ok(VmRequest::PowerOff(ShutdownCause::Guest)));
    assert!(b.cpu.powered_off());
}

#[test]
fn a_core_is_taken_in() {
    use crate::pseries::drc::{DrcType, index};
    let mut b = board();
    let at = index(DrcType::Cpu, 3);
    b.partition.drcs.add(DrcType::Cpu, 3, false);
    b.partition.set_core(3, false);
    assert_eq!(b.rtas("query-cpu-stopped-state", &[3], 2).1[0], rtas::PARAMETER_ERROR);
    assert_eq!(b.hcall(n::H_PROD, &[3]), Status::PARAMETER.0);
    assert_eq!(b.rtas("get-sensor-state", &[9003, at], 2).1, [0, 2]);
    assert_eq!(b.rtas("set-indicator", &[9003, at, 1], 1).1, [-3]);
    b.partition.drcs.attach(at, true).unwrap();
    b.partition.set_core(3, true);
    b.partition.ram.set_u32(0x4000, at).unwrap();
    assert_eq!(b.rtas("ibm,configure-connector", &[0x4000, 0], 1).1, [-9003]);
    assert_eq!(b.rtas("set-indicator", &[9003, at, 1], 1).1, [0]);
    assert_eq!(b.rtas("set-indicator", &[9001, at, 1], 1).1, [0]);
    assert_eq!(b.rtas("ibm,configure-connector", &[u32::MAX, 0], 1).1, [rtas::PARAMETER_ERROR]);
    let (mut names, mut server) = (Vec::new(), None);
    loop {
        let status = b.rtas("ibm,configure-connector", &[0x4000, 0], 1).1[0];
        if status == 0 {
            break;
        }
        let ram = &b.partition.ram;
        let word = |n: u64| u64::from(ram.u32(0x4000 + 4 * n).unwrap());
        let name = ram.text(0x4000 + word(2), 64).unwrap();
        if name == "ibm,ppc-interrupt-server#s" {
            assert_eq!(word(3), 4);
            server = ram.u32(0x4000 + word(4)).ok();
        }
        names.push((status, name));
    }
    assert_eq!(names[0], (2, "PowerPC,POWER10@3".to_owned()));
    assert!(names[1..].iter().all(|n| n.0 == 3) && names.len() > 20);
    assert_eq!(server, Some(3));
    assert_eq!(b.rtas("set-indicator", &[9001, at, 0], 1).1, [0]);
    assert_eq!(b.rtas("set-indicator", &[9003, at, 0], 1).1, [0]);
    assert_eq!(b.rtas("set-indicator", &[9003, 0x1000_0077, 0], 1).1, [rtas::PARAMETER_ERROR]);
    assert_eq!(b.rtas("set-indicator", &[1, at, 0], 1).1, [-3]);
}

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn word(&mut self) -> u64 {
        match self.next() % 7 {
            0 => self.next(),
            1 => self.next() % 16,
            2 => RAM - 16 + self.next() % 32,
            3 => 1 << (self.next() % 64),
            4 => u64::MAX - self.next() % 4096,
            5 => (self.next() % RAM) & !0xfff,
            _ => self.next() % RAM,
        }
    }
}

#[test]
fn calls_of_noise() {
    let mut b = board();
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..60_000 {
        let number = match r.next() % 8 {
            0 => 0xf000 + r.next() % 8,
            1 => r.next(),
            2 => n::H_RESIZE_HPT_PREPARE,
            _ => r.next() % 0x460 & !3,
        };
        let args: Vec<u64> = (0..9).map(|_| r.word()).collect();
        b.hcall(number, &args);
        if round % 64 == 0 {
            // RTAS with sensible tokens.
            let tokens = b.partition.late().unwrap().rtas.tokens();
            let name = tokens[r.next() as usize % tokens.len()].0.clone();
            let args: Vec<u32> = (0..r.next() % 17).map(|_| r.word() as u32).collect();
            b.rtas(&name, &args, r.next() as usize % 17);
            b.partition.reset();
            while b.requests.try_recv().is_ok() {}
        }
    }
}
