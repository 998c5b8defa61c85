//! A controller in the kernel (KVM) in the place of the machine's own.
//!
//! The kernel presents interrupts and knows the state of sources; what the guest configures by hypercalls goes through [`SpaprIrq`],
//! which keeps it as the machine's own controllers have it.

use super::papr::{Args, Status, hcall as h};
use super::{FIRST, LEVEL, Mode, NONE, SpaprIrq};
use rhea_accel::spapr::KernelIrqchip;
use std::io::Result;
use std::sync::atomic::Ordering::SeqCst;

/// The source is to be ended by H_INT_ESB: then it is seen whether its level is still up.
const SOURCE_H_INT_ESB: u64 = 8;
/// Offsets in a management page: a load there ends an interrupt; sets P and Q to 0.
const LOAD_EOI: u64 = 0x000;
const SET_PQ_00: u64 = 0xc00;

fn hardware<T>(result: Result<T>) -> std::result::Result<T, Status> {
    result.map_err(|_| Status::HARDWARE)
}

impl SpaprIrq {
    /// One of H_INT_* with XIVE in the kernel: the machine's own keeps what is configured, the kernel is told.
    pub(super) fn kernel_hcall(
        &self,
        kernel: &dyn KernelIrqchip,
        number: u64,
        args: &Args,
        out: &mut Args,
    ) -> Option<Status> {
        let own = match number {
            // Of the machine's own these would do something.
            h::H_INT_ESB | h::H_INT_SYNC => Status::SUCCESS,
            _ => self.core.xive.hcall(number, args, out)?,
        };
        if own != Status::SUCCESS {
            return Some(own);
        }
        Some(self.tell_kernel(kernel, number, args, out).err().unwrap_or(own))
    }
    fn tell_kernel(
        &self,
        kernel: &dyn KernelIrqchip,
        number: u64,
        args: &Args,
        out: &mut Args,
    ) -> std::result::Result<(), Status> {
        let xive = &self.core.xive;
        match number {
            h::H_INT_GET_SOURCE_INFO if self.core.kind(args[1] as u32) == LEVEL => out[0] |= SOURCE_H_INT_ESB,
            h::H_INT_SET_SOURCE_CONFIG => {
                let irq = args[1] as u32;
                let target = xive.target(irq).ok_or(Status::P2)?;
                hardware(kernel.set_target(irq, target))?;
            }
            h::H_INT_SET_QUEUE_CONFIG => {
                let (server, priority) = (args[1] as u32, args[2] as u8);
                let queue = xive.queue(server, priority).ok_or(Status::P2)?;
                hardware(kernel.set_queue(server, priority, queue))?;
            }
            h::H_INT_GET_QUEUE_CONFIG if args[0] & 1 != 0 => {
                let queue = hardware(kernel.queue(args[1] as u32, args[2] as u8))?;
                out[0] = out[0] & !2 | u64::from(queue.toggle & 1) << 1;
                out[3] = queue.index.into();
            }
            h::H_INT_ESB => {
                let (flags, irq, offset) = (args[0], args[1], args[2]);
                if flags & !1 != 0 {
                    return Err(Status::PARAMETER);
                }
                let irq = u32::try_from(irq).ok().filter(|n| xive.has_source(*n)).ok_or(Status::P2)?;
                if offset >= 1 << xive.places().page_shift {
                    return Err(Status::P3);
                }
                out[0] = self.kernel_esb(kernel, irq, offset, flags & 1 != 0);
            }
            h::H_INT_SYNC => {
                let irq = u32::try_from(args[1]).ok().filter(|n| xive.has_source(*n)).ok_or(Status::P2)?;
                if args[0] != 0 {
                    return Err(Status::PARAMETER);
                }
                hardware(kernel.sync(irq))?;
            }
            h::H_INT_RESET => hardware(kernel.reset())?,
            _ => {}
        }
        Ok(())
    }
    fn kernel_esb(&self, kernel: &dyn KernelIrqchip, irq: u32, offset: u64, store: bool) -> u64 {
        if store {
            kernel.esb(irq, offset, true);
            return u64::MAX;
        }
        if matches!(offset, LOAD_EOI | SET_PQ_00) && self.core.kind(irq) == LEVEL {
            // Q of such a source is never set: whether it comes, or comes again, is said by its line.
            let old = kernel.esb(irq, SET_PQ_00, false);
            if offset == LOAD_EOI {
                self.routing.resample(irq);
            }
            if self.routing.line(irq).level() {
                kernel.set_level(irq, true);
            }
            return if offset == LOAD_EOI { 0 } else { old };
        }
        kernel.esb(irq, offset, false)
    }
    /// Sources there are: number, is it level-sensitive. With XIVE also the interprocessor interrupts.
    pub(super) fn sources(&self, mode: Mode) -> Vec<(u32, bool)> {
        let first = if mode == Mode::Xive { 0..self.servers } else { 0..0 };
        let kinds = (FIRST..).zip(self.core.kinds.iter().skip(FIRST as usize)).map(|(n, k)| (n, k.load(SeqCst)));
        let claimed = kinds.filter(|(_, k)| *k != NONE).map(|(n, k)| (n, k == LEVEL));
        first.map(|n| (n, false)).chain(claimed).collect()
    }
}
