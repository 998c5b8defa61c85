//! Processors: their registered areas, waiting and waking (LoPAPR 14.11.3, 14.12).

use crate::pseries::partition::{Partition, Registered};
use rhea_irqchip::spapr::papr::{Args, Status};
use rhea_ppc::PpcCpu;
use rhea_ppc::bits::msr;
use rhea_ppc::hooks::pin;
use std::sync::atomic::Ordering;

/// H_CONTINUE of H_JOIN: the caller is the last one that runs.
const CONTINUE: Status = Status(18);
/// H_BAD_MODE.
const BAD_MODE: Status = Status(-5);

/// H_REGISTER_VPA: what to do, processor, address.
pub fn register_vpa(p: &Partition, a: &Args) -> Result<(), Status> {
    const PAGE: u64 = 4096;
    const LINE: u64 = 128;
    const SHARED_PROCESSOR: u64 = 9;
    let (what, id, address) = (a[0] >> 45 & 7, a[1], a[2]);
    let thread = p.thread(id).ok_or(Status::PARAMETER)?;
    let area = |offset_bits: u32, least: u64| -> Result<u64, Status> {
        if address == 0 {
            return Err(Status::HARDWARE);
        }
        if address % LINE.min(1 << offset_bits) != 0 || !p.ram.has(address, least) {
            return Err(Status::PARAMETER);
        }
        // The length is part of the area.
        let len = if offset_bits == 7 {
            u64::from(p.ram.u32(address + 4).map_err(|_| Status::PARAMETER)?)
        } else {
            u64::from(p.ram.u32(address + 4).map_err(|_| Status::PARAMETER)? >> 16)
        };
        if len < least || !p.ram.has(address, len) {
            return Err(Status::PARAMETER);
        }
        Ok(len)
    };
    let mut r = thread.registered.lock();
    match what {
        1 => {
            // The virtual processor area: 640 bytes, aligned and within a page; its length has 16 bits.
            let len = area(6, 640).and_then(|len| {
                let fits = address % LINE == 0 && address / PAGE == (address + len - 1) / PAGE;
                if fits { Ok(len) } else { Err(Status::PARAMETER) }
            });
            len?;
            let mut byte = [0];
            let at = address + SHARED_PROCESSOR;
            p.ram.read(at, &mut byte).map_err(|_| Status::PARAMETER)?;
            p.ram.write(at, &[byte[0] | 2]).map_err(|_| Status::PARAMETER)?;
            r.vpa = address;
        }
        2 if r.vpa == 0 => return Err(Status::RESOURCE),
        2 => r.dispatch_log = (address, area(3, 48).or_else(|e| long_area(p, address, 48).ok_or(e))?),
        3 if r.vpa == 0 => return Err(Status::RESOURCE),
        3 => {
            let len = area(7, 8)?;
            if address / PAGE != (address + len - 1) / PAGE {
                return Err(Status::PARAMETER);
            }
            r.slb_shadow = (address, len);
        }
        5 if r.slb_shadow.0 != 0 || r.dispatch_log.0 != 0 => return Err(Status::RESOURCE),
        5 => *r = Registered::default(),
        6 => r.dispatch_log = (0, 0),
        7 => r.slb_shadow = (0, 0),
        _ => return Err(Status::PARAMETER),
    }
    Ok(())
}

/// An area whose length has 32 bits and that may cross pages.
fn long_area(p: &Partition, address: u64, least: u64) -> Option<u64> {
    let len = u64::from(p.ram.u32(address.checked_add(4)?).ok()?);
    (address != 0 && len >= least && p.ram.has(address, len)).then_some(len)
}

/// H_PROD: processor.
pub fn prod(p: &Partition, a: &Args) -> Result<(), Status> {
    if p.prod(a[0]) { Ok(()) } else { Err(Status::PARAMETER) }
}

/// H_CONFER: processor (all ones: any), dispatch count of it. The host's scheduler decides who runs.
pub fn confer(p: &Partition, a: &Args) -> Result<(), Status> {
    if a[0] as i64 != -1 && p.thread(a[0]).is_none() {
        return Err(Status::PARAMETER);
    }
    std::thread::yield_now();
    Ok(())
}

/// H_JOIN: waits until the last of all processors has joined, which goes on.
pub fn join(p: &Partition, cpu: &mut PpcCpu) -> Result<(), Status> {
    if cpu.msr & msr::EE != 0 {
        return Err(BAD_MODE);
    }
    let Some(me) = p.threads.get(cpu.index as usize) else { return Err(Status::PARAMETER) };
    me.joined.store(true, Ordering::SeqCst);
    let last = p.threads.iter().all(|t| !t.running.load(Ordering::SeqCst) || t.joined.load(Ordering::SeqCst));
    if last {
        me.joined.store(false, Ordering::SeqCst);
        return Err(CONTINUE);
    }
    cpu.wait_for_prod();
    Ok(())
}

/// H_SIGNAL_SYS_RESET: processor; all (-1), all others (-2).
pub fn system_reset(p: &Partition, me: u32, a: &Args) -> Result<(), Status> {
    let pins = p.late().map_or(&[][..], |l| &l.pins);
    let one = usize::try_from(a[0]).ok().filter(|n| *n < pins.len() && p.thread(a[0]).is_some());
    let wanted = |n: usize| match a[0] as i64 {
        -1 => true,
        -2 => n != me as usize,
        _ => Some(n) == one,
    };
    if one.is_none() && !matches!(a[0] as i64, -1 | -2) {
        return Err(Status::PARAMETER);
    }
    for (_, pin) in pins.iter().enumerate().filter(|(n, _)| wanted(*n) && p.thread(*n as u64).is_some()) {
        pin.signal(pin::SYSTEM_RESET);
    }
    Ok(())
}

/// Sends all processors that run a system reset, as the operator's console does.
pub fn system_reset_all(p: &Partition) {
    let pins = p.late().map_or(&[][..], |l| &l.pins);
    for (pin, thread) in pins.iter().zip(&p.threads) {
        if thread.present.load(Ordering::SeqCst) && thread.running.load(Ordering::SeqCst) {
            pin.signal(pin::SYSTEM_RESET);
        }
    }
}

/// The machine is about to end or start anew: the processor runs no more until then.
pub fn wait_for_end(cpu: &mut PpcCpu) {
    cpu.power_off();
}
