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
