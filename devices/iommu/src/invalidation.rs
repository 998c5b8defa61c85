//! Invalidation through registers and through the queue (6.5).

use crate::VtdOptions;
use crate::cache::{Cache, Scope};
use crate::faults::{self, Event};
use crate::registers::{
    COMPLETION_CONTROL, COMPLETION_STATUS, FAULT_STATUS, GLOBAL_STATUS, MAX_MASK, QUEUE_ADDRESS, QUEUE_HEAD,
    QUEUE_TAIL, Registers, fault, global,
};
use crate::tables::Memory;

/// Forgets contexts: granularity 1 all, 2 of a domain, 3 of a device.
fn contexts(cache: &Cache, granularity: u64, domain: u16, source: u16, function_mask: u64) {
    // The low bits of the function that do not count.
    let mask = [0, 0b100, 0b110, 0b111][(function_mask & 3) as usize];
    match granularity {
        1 => cache.forget_contexts(|_, _| true),
        2 => cache.forget_contexts(|_, c| c.domain == domain),
        _ => cache.forget_contexts(|requester, _| (requester ^ source) & !mask == 0),
    }
}

/// Forgets translations: granularity 1 all, 2 of a domain, 3 of `1 << mask` pages.
fn translations(cache: &Cache, granularity: u64, domain: u16, address: u64, mask: u8) {
    cache.forget(match granularity {
        1 => Scope::Everything,
        2 => Scope::Domain(domain),
        // More pages than the unit takes at once: all of the domain.
        _ if mask > MAX_MASK => Scope::Domain(domain),
        _ => Scope::Pages { domain, address: address & !((0x1000 << mask) - 1), mask },
    });
}

/// The context command register (11.4.6): what it reads as afterwards.
pub fn context_command(cache: &Cache, value: u64) -> u64 {
    const START: u64 = 1 << 63;
    let granularity = value >> 61 & 3;
    if value & START == 0 || granularity == 0 {
        return value & !START;
    }
    contexts(cache, granularity, value as u16, (value >> 16) as u16, value >> 32);
    value & !(START | 3 << 59) | granularity << 59
}

/// The IOTLB invalidate register (11.4.7.1) with its address register: what it reads as afterwards.
pub fn iotlb(cache: &Cache, value: u64, address: u64) -> u64 {
    const START: u64 = 1 << 63;
    let granularity = value >> 60 & 3;
    if value & START == 0 || granularity == 0 {
        return value & !START;
    }
    translations(cache, granularity, (value >> 32) as u16, address & !0xfff, (address & 0x3f) as u8);
    value & !(START | 3 << 57) | granularity << 57
}

/// Why the queue stops: a descriptor that is none, or out of reach.
struct Wrong;

/// Descriptors that a queue has room for.
pub const MOST_DESCRIPTORS: u32 = 1 << 15;

/// Is there something in the queue that could be done?
pub fn is_behind(registers: &Registers) -> bool {
    registers.get(GLOBAL_STATUS) & global::QUEUE != 0
        && registers.get(FAULT_STATUS) & fault::QUEUE_ERROR == 0
        && registers.get(QUEUE_HEAD) != registers.get(QUEUE_TAIL)
}

/// Does what the queue holds, on the thread of the processor that wrote the tail: at most its length of descriptors. Only RAM is
/// touched, so the registers may be locked. A wait that those who follow translations have to be told before is left: then it is to be
/// called again. Were entries of interrupt remapping among what is invalidated?
pub fn run(registers: &mut Registers, cache: &Cache, memory: &Memory, o: &VtdOptions, events: &mut Vec<Event>) -> bool {
    let mut interrupts = false;
    if registers.get(FAULT_STATUS) & fault::QUEUE_ERROR != 0 {
        return false;
    }
    let place = registers.get64(QUEUE_ADDRESS);
    let (start, length) = (place & !0xfff, 0x1000u32 << (place & 7));
    let tail = registers.get(QUEUE_TAIL);
    let mut head = registers.get(QUEUE_HEAD);
    let mut good = tail < length;
    // Each descriptor once, whatever the tail says.
    let mut left = length / 16;
    while good && head != tail && left > 0 {
        left -= 1;
        let read = memory.pair(start.wrapping_add(head.into()));
        if read.is_some_and(|[low, _]| kind(low) == WAIT) && cache.followers.waiting() {
            break;
        }
        good = read
            .ok_or(Wrong)
            .and_then(|d| {
                interrupts |= d[0] & 0xe0f == 4;
                descriptor(d, registers, cache, memory, o, events)
            })
            .is_ok();
        if good {
            head = (head + 16) % length;
        }
    }
    registers.set(QUEUE_HEAD, head);
    if !good {
        events.extend(faults::status(registers, fault::QUEUE_ERROR));
    }
    interrupts
}

/// The type of a descriptor: bits 11:9 extend it.
fn kind(low: u64) -> u64 {
    low & 0xf | (low >> 9 & 7) << 4
}
const WAIT: u64 = 5;

fn descriptor(
    [low, high]: [u64; 2],
    registers: &mut Registers,
    cache: &Cache,
    memory: &Memory,
    o: &VtdOptions,
    events: &mut Vec<Event>,
) -> Result<(), Wrong> {
    let (granularity, domain) = (low >> 4 & 3, (low >> 16) as u16);
    let clear = |reserved_low: u64, reserved_high: u64| {
        if low & reserved_low == 0 && high & reserved_high == 0 { Ok(()) } else { Err(Wrong) }
    };
    match kind(low) {
        // Contexts.
        1 => {
            clear(0xfffc_0000_0000_f1c0, u64::MAX)?;
            if granularity == 0 {
                return Err(Wrong);
            }
            contexts(cache, granularity, domain, (low >> 32) as u16, low >> 48);
        }
        // Translations.
        2 => {
            clear(0xffff_ffff_0000_f100, 0xf80)?;
            let mask = (high & 0x3f) as u8;
            if granularity == 0 || granularity == 3 && mask > MAX_MASK {
                return Err(Wrong);
            }
            translations(cache, granularity, domain, high & !0xfff, mask);
        }
        // Translations that devices keep: none does.
        3 if o.device_iotlb => {}
        // Interrupt entries: the unit keeps none.
        4 if o.interrupt_remapping => {}
        // Wait.
        WAIT => {
            const INTERRUPT: u64 = 1 << 4;
            const STATUS: u64 = 1 << 5;
            clear(0xffff_f100, 3)?;
            if low & STATUS != 0 && !memory.store(high & !3, (low >> 32) as u32) {
                return Err(Wrong);
            }
            if low & INTERRUPT != 0 && registers.get(COMPLETION_STATUS) & 1 == 0 {
                registers.change(COMPLETION_STATUS, 0, 1);
                events.extend(faults::event(registers, COMPLETION_CONTROL));
            }
        }
        _ => return Err(Wrong),
    }
    Ok(())
}
