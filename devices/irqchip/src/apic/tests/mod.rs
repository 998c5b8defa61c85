//! A machine of local APICs and one I/O APIC, and what their processors saw.

mod delivery;
mod ioapic;
mod local;
mod random;
mod x2apic;

use super::*;
use parking_lot::Mutex;
use rhea_accel::{MsiMessage, MsiTarget};
use rhea_memory::{Access, MmioDevice};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What reached a processor.
#[derive(Default)]
struct Cpu {
    intr: AtomicBool,
    events: Mutex<Vec<String>>,
}

struct Machine {
    clock: Arc<VirtualClock>,
    bus: Arc<ApicBus>,
    window: Arc<dyn MmioDevice>,
    ioapic: Arc<IoApic>,
    cpus: Vec<Arc<Cpu>>,
    /// Pins whose level interrupts were ended.
    ended: Arc<Mutex<Vec<u32>>>,
}

/// Offsets in the window.
const TPR: u64 = 0x80;
const PPR: u64 = 0xa0;
const EOI: u64 = 0xb0;
const LDR: u64 = 0xd0;
const DFR: u64 = 0xe0;
const SVR: u64 = 0xf0;
const ISR: u64 = 0x100;
const TMR: u64 = 0x180;
const IRR: u64 = 0x200;
const ESR: u64 = 0x280;
const ICR: u64 = 0x300;
const ICR_HIGH: u64 = 0x310;
const LVT_TIMER: u64 = 0x320;
const LVT_LINT0: u64 = 0x350;
const LVT_LINT1: u64 = 0x360;
const LVT_ERROR: u64 = 0x370;
const INITIAL: u64 = 0x380;
const CURRENT: u64 = 0x390;
const DIVIDE: u64 = 0x3e0;

impl Machine {
    /// APIC ids 0 up, all software-enabled, LINT0 masked.
    fn new(cpus: u32) -> Self {
        Self::with_ids(&(0..cpus).collect::<Vec<_>>(), |_| ())
    }
    fn with_ids(ids: &[u32], change: impl FnOnce(&mut ApicConfig)) -> Self {
        let clock = VirtualClock::new();
        let cpus: Vec<Arc<Cpu>> = ids.iter().map(|_| Arc::default()).collect();
        let config = |(cpu, id): (&Arc<Cpu>, &u32)| {
            let event = |text: &'static str| {
                let cpu = cpu.clone();
                move || cpu.events.lock().push(text.to_owned())
            };
            let (level, started) = (cpu.clone(), cpu.clone());
            let outputs = LapicOutputs {
                intr: Box::new(move |up| level.intr.store(up, SeqCst)),
                nmi: Box::new(event("nmi")),
                smi: Box::new(event("smi")),
                init: Box::new(event("init")),
                sipi: Box::new(move |vector| started.events.lock().push(format!("sipi {vector}"))),
            };
            LapicConfig { apic_id: *id, outputs }
        };
        let mut config = ApicConfig::new("apic", cpus.iter().zip(ids).map(config).collect(), clock.clone());
        config.virtual_wire = false;
        change(&mut config);
        let bus = ApicBus::new(config).unwrap();
        let ended = Arc::new(Mutex::new(vec![]));
        let listener = ended.clone();
        let eoi: crate::EoiListener = Arc::new(move |pin| listener.lock().push(pin));
        let ioapic = IoApicConfig { name: "ioapic".to_owned(), eoi: Some(eoi), log: Log::off() };
        let ioapic = IoApic::new(ioapic, bus.clone()).unwrap();
        let machine = Self { clock, window: bus.window(), bus, ioapic, cpus, ended };
        for n in 0..ids.len() as u32 {
            machine.write(n, SVR, 0x1ff);
        }
        machine
    }
    fn read(&self, cpu: u32, offset: u64) -> u32 {
        self.window.read(offset, Access::cpu(cpu, 4)).unwrap() as u32
    }
    fn write(&self, cpu: u32, offset: u64, value: u32) {
        self.window.write(offset, value.into(), Access::cpu(cpu, 4)).unwrap();
    }
    /// Is `vector` set in IRR, ISR or TMR?
    fn has(&self, cpu: u32, set: u64, vector: u8) -> bool {
        self.read(cpu, set + u64::from(vector / 32) * 16) >> (vector % 32) & 1 != 0
    }
    fn intr(&self, cpu: u32) -> bool {
        self.cpus[cpu as usize].intr.load(SeqCst)
    }
    fn events(&self, cpu: u32) -> Vec<String> {
        std::mem::take(&mut self.cpus[cpu as usize].events.lock())
    }
    /// Sends an IPI by ICR in xAPIC mode.
    fn icr(&self, cpu: u32, destination: u32, low: u32) {
        self.write(cpu, ICR_HIGH, destination << 24);
        self.write(cpu, ICR, low);
    }
    /// The processors that have `vector` in IRR; takes and ends it there.
    fn took(&self, vector: u8) -> Vec<u32> {
        let all = 0..self.cpus.len() as u32;
        let took: Vec<u32> = all.filter(|n| self.bus.lapics[*n as usize].irr.contains(vector)).collect();
        for cpu in &took {
            assert!(self.intr(*cpu));
            assert_eq!(self.bus.acknowledge(*cpu), Some(vector));
            if self.bus.lapics[*cpu as usize].x2apic() {
                self.bus.x2apic_write(*cpu, 0x80b, 0).unwrap();
            } else {
                self.write(*cpu, EOI, 0);
            }
            assert!(!self.intr(*cpu));
        }
        took
    }
    fn msi(&self, address: u64, data: u32) {
        self.bus.send(MsiMessage { address, data, requester_id: 0 });
    }
    fn to_x2apic(&self, cpu: u32) {
        let base = self.bus.apic_base(cpu);
        self.bus.set_apic_base(cpu, base | 1 << 10).unwrap();
    }
    fn redirect(&self, pin: u32, entry: u64) {
        self.ioapic_write(0x11 + pin * 2, (entry >> 32) as u32);
        self.ioapic_write(0x10 + pin * 2, entry as u32);
    }
    fn entry(&self, pin: u32) -> u64 {
        u64::from(self.ioapic_read(0x11 + pin * 2)) << 32 | u64::from(self.ioapic_read(0x10 + pin * 2))
    }
    fn ioapic_write(&self, register: u32, value: u32) {
        self.ioapic.write(0, register.into(), Access::cpu(0, 4)).unwrap();
        self.ioapic.write(0x10, value.into(), Access::cpu(0, 4)).unwrap();
    }
    fn ioapic_read(&self, register: u32) -> u32 {
        self.ioapic.write(0, register.into(), Access::cpu(0, 4)).unwrap();
        self.ioapic.read(0x10, Access::cpu(0, 4)).unwrap() as u32
    }
}
