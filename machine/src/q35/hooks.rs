//! What the processors ask of the board: local APICs, ports, reset.

use rhea_accel::{GuestVcpu, ShutdownCause, VmControl};
use rhea_device::{Log, LogMask};
use rhea_irqchip::apic::{AcceleratedApics, ApicBus, InterruptAcknowledge};
use rhea_irqchip::i8259::I8259;
use rhea_memory::{Access, AddressSpace, Gpa};
use rhea_pc::{A20Gate, CoprocessorError};
use rhea_x86::hooks::pin;
use rhea_x86::{ApicFault, X86Cpu, X86Hooks, X86Pins};
use std::sync::{Arc, OnceLock};

/// The board's services to its CPUs.
pub struct BoardHooks {
    pub io: Arc<AddressSpace>,
    pub control: VmControl,
    pub log: Log,
    pub a20: Arc<A20Gate>,
    pub coprocessor: Arc<CoprocessorError>,
    /// Filled in while the board is wired.
    pub apic: OnceLock<Arc<ApicBus>>,
    /// Local APICs of the accelerator, and the 8259s that interrupt beside them.
    pub accelerated: OnceLock<(Arc<AcceleratedApics>, Arc<I8259>)>,
    pub vcpus: OnceLock<Vec<Arc<dyn GuestVcpu<X86Cpu>>>>,
    pub pins: OnceLock<Vec<Arc<X86Pins>>>,
}

impl BoardHooks {
    fn apic(&self) -> Result<&ApicBus, ApicFault> {
        self.apic.get().map(|a| &**a).ok_or(ApicFault)
    }
    pub fn vcpus(&self) -> &[Arc<dyn GuestVcpu<X86Cpu>>] {
        self.vcpus.get().map_or(&[], Vec::as_slice)
    }
    /// Asks for a system-management interrupt of one processor, or of all.
    pub fn smi(&self, cpu: Option<u32>) {
        let pins = self.pins.get().map_or(&[][..], Vec::as_slice);
        for (_, p) in pins.iter().enumerate().filter(|(n, _)| cpu.is_none_or(|c| c as usize == *n)) {
            p.signal(pin::SMI);
        }
    }
}

impl X86Hooks for BoardHooks {
    fn acknowledge(&self, cpu: u32) -> Option<u8> {
        match self.accelerated.get() {
            Some((_, pic)) => Some(pic.acknowledge()),
            None => self.apic().ok()?.acknowledge(cpu),
        }
    }
    fn end_of_interrupt(&self, vector: u8) {
        if let Some((apics, _)) = self.accelerated.get() {
            apics.end_of_interrupt(vector);
        }
    }
    fn apic_base(&self, cpu: u32) -> u64 {
        self.apic().map_or(0, |a| a.apic_base(cpu))
    }
    fn set_apic_base(&self, cpu: u32, value: u64) -> Result<(), ApicFault> {
        self.apic()?.set_apic_base(cpu, value).map_err(|_| ApicFault)
    }
    fn x2apic_read(&self, cpu: u32, msr: u32) -> Result<u64, ApicFault> {
        self.apic()?.x2apic_read(cpu, msr).map_err(|_| ApicFault)
    }
    fn x2apic_write(&self, cpu: u32, msr: u32, value: u64) -> Result<(), ApicFault> {
        self.apic()?.x2apic_write(cpu, msr, value).map_err(|_| ApicFault)
    }
    fn tpr(&self, cpu: u32) -> u8 {
        self.apic().map_or(0, |a| a.tpr(cpu))
    }
    fn set_tpr(&self, cpu: u32, class: u8) {
        if let Ok(apic) = self.apic() {
            apic.set_tpr(cpu, class);
        }
    }
    fn set_tsc_deadline(&self, cpu: u32, deadline_ns: Option<u64>) {
        if let Ok(apic) = self.apic() {
            apic.set_tsc_deadline(cpu, deadline_ns);
        }
    }
    fn tsc_deadline(&self, cpu: u32) -> Option<u64> {
        self.apic().ok()?.tsc_deadline(cpu)
    }
    fn pv_ipi(&self, cpu: u32, apic_id: u32, icr: u32) -> bool {
        self.apic().is_ok_and(|a| a.pv_ipi(cpu, apic_id, icr))
    }
    fn pv_kick(&self, apic_id: u32) {
        let pins = self.pins.get().map_or(&[][..], Vec::as_slice);
        let cpu = self.apic().ok().and_then(|a| a.cpu_of(apic_id));
        if let Some(p) = cpu.and_then(|n| pins.get(n as usize)) {
            p.signal(pin::WAKE);
        }
    }
    fn set_pv_eoi(&self, cpu: u32, gpa: Option<u64>) {
        if let Ok(apic) = self.apic() {
            apic.set_pv_eoi(cpu, gpa);
        }
    }
    fn port_in(&self, cpu: u32, port: u16, size: u8) -> u32 {
        // Nobody there: the bus floats high.
        self.io.load(Gpa(port.into()), Access::cpu(cpu, size)).map_or(u32::MAX, |v| v as u32)
    }
    fn port_out(&self, cpu: u32, port: u16, size: u8, value: u32) {
        if self.io.store(Gpa(port.into()), value.into(), Access::cpu(cpu, size)).is_err() {
            self.log.unimp("ports", format_args!("write to port {port:#x}"));
        }
    }
    fn a20(&self) -> bool {
        self.a20.enabled()
    }
    fn ferr(&self, _cpu: u32, level: bool) {
        self.coprocessor.set_error(level);
    }
    fn ignne(&self, _cpu: u32) -> bool {
        self.coprocessor.ignored()
    }
    fn shutdown(&self, cpu: u32) {
        self.log.guest_error("cpu", format_args!("{cpu}: triple fault"));
        self.control.reset(ShutdownCause::Guest);
    }
    fn init(&self, cpu: u32) {
        if let Ok(apic) = self.apic() {
            apic.init(cpu);
        }
    }
    fn for_others(&self, cpu: u32, f: Arc<dyn Fn(&mut X86Cpu) + Send + Sync>) {
        for (_, vcpu) in self.vcpus().iter().enumerate().filter(|(n, _)| *n != cpu as usize) {
            let f = f.clone();
            vcpu.post(Box::new(move |guest| f(guest)));
        }
    }
    fn wants_exceptions(&self) -> bool {
        self.log.enabled(LogMask::Int)
    }
    fn exception(&self, cpu: u32, message: &str) {
        self.log.line(LogMask::Int, format_args!("CPU {cpu}: {message}"));
    }
    fn guest_error(&self, cpu: u32, message: &str) {
        self.log.guest_error("cpu", format_args!("{cpu}: {message}"));
    }
    fn unimplemented(&self, cpu: u32, message: &str) {
        self.log.unimp("cpu", format_args!("{cpu}: {message}"));
    }
}
