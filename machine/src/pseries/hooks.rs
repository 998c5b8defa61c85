//! What the processors ask of the board.

use super::hcall;
use super::partition::Partition;
use super::rtas;
use rhea_device::LogMask;
use rhea_ppc::hooks::{PpcHooks, Pte, pin};
use rhea_ppc::{PpcCpu, Vector};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The board's services to its CPUs.
pub struct BoardHooks(pub Arc<Partition>);

impl PpcHooks for BoardHooks {
    fn hcall(&self, cpu: &mut PpcCpu) -> bool {
        hcall::call(&self.0, cpu);
        true
    }
    fn hcall_arguments(&self, number: u64) -> Option<usize> {
        hcall::arguments(number)
    }
    fn hpt_order(&self) -> u32 {
        self.0.hpt.order()
    }
    fn hpt_group(&self, group: u64) -> [Pte; 8] {
        self.0.hpt.group(group)
    }
    fn hpt_update(&self, index: u64, old: Pte, set: u64) -> bool {
        self.0.hpt.update(index, old, set)
    }
    fn process_table(&self) -> u64 {
        self.0.process_table.load(Ordering::SeqCst)
    }
    fn random(&self) -> u64 {
        self.0.late().map_or(0, |l| (l.random)())
    }
    fn doorbell(&self, cpu: u32, thread: u32) {
        let threads = self.0.smp.threads.max(1);
        let target = (cpu / threads).wrapping_mul(threads).wrapping_add(thread % threads);
        if let Some(pins) = self.0.late().and_then(|l| l.pins.get(target as usize)) {
            pins.signal(pin::DOORBELL);
        }
    }
    fn checkstop(&self, cpu: &mut PpcCpu) {
        self.0.control.guest_panic(&format!("CPU {}: machine check while MSR.ME is 0", cpu.index));
        cpu.power_off();
    }
    fn nonmaskable(&self, cpu: &mut PpcCpu, vector: Vector) {
        rtas::nonmaskable(&self.0, cpu, vector);
    }
    fn dispatched(&self, cpu: u32, running: bool) {
        /// Where the area has the dispatch count.
        const COUNT: u64 = 0x100;
        let Some(thread) = self.0.threads.get(cpu as usize) else { return };
        let area = thread.registered.lock().vpa;
        if area == 0 {
            return;
        }
        if let Ok(count) = self.0.ram.u32(area + COUNT) {
            // Even while it runs.
            let next = count.wrapping_add(1 + u32::from((count & 1 != 0) != running));
            // Memory that the partition registered: it was there, and stays.
            let _ = self.0.ram.set_u32(area + COUNT, next);
        }
    }
    fn wants_exceptions(&self) -> bool {
        self.0.log.enabled(LogMask::Int)
    }
    fn exception(&self, cpu: u32, message: &str) {
        self.0.log.line(LogMask::Int, format_args!("CPU {cpu}: {message}"));
    }
    fn guest_error(&self, cpu: u32, message: &str) {
        self.0.log.guest_error("cpu", format_args!("{cpu}: {message}"));
    }
}
