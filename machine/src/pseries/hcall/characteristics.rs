//! What H_GET_CPU_CHARACTERISTICS and H_HOME_NODE_ASSOCIATIVITY tell (LoPAPR 14.15).

use crate::pseries::options::{Mitigation, PseriesOptions};
use crate::pseries::partition::Partition;
use rhea_irqchip::spapr::papr::{Args, Status};

const fn bit(n: u32) -> u64 {
    1 << (63 - n)
}
/// What the processor does.
const SPECULATION_BARRIER_ORI31: u64 = bit(0);
const BRANCH_TO_COUNT_SERIALISED: u64 = bit(1);
const L1D_FLUSH_ORI30: u64 = bit(2);
const L1D_FLUSH_TRIG2: u64 = bit(3);
const L1D_PRIVATE: u64 = bit(4);
const COUNT_CACHE_DISABLED: u64 = bit(7);
const COUNT_FLUSH_ASSIST: u64 = bit(9);
/// What software is to do.
const FAVOUR_SECURITY: u64 = bit(0);
const FLUSH_L1D: u64 = bit(1);
const BOUNDS_CHECK_BARRIER: u64 = bit(2);
const FLUSH_COUNT_CACHE: u64 = bit(5);

/// H_GET_CPU_CHARACTERISTICS.
pub fn of(options: &PseriesOptions, out: &mut Args) {
    if let Some((character, behaviour)) = options.host_characteristics {
        (out[0], out[1]) = (character, behaviour);
        return;
    }
    let caps = &options.caps;
    let (mut character, mut behaviour) = (0, FAVOUR_SECURITY);
    match caps.cfpc {
        Mitigation::Workaround => {
            character |= L1D_FLUSH_ORI30 | L1D_FLUSH_TRIG2 | L1D_PRIVATE;
            behaviour |= FLUSH_L1D;
        }
        Mitigation::Broken => behaviour |= FLUSH_L1D,
        _ => {}
    }
    match caps.sbbc {
        Mitigation::Workaround => {
            character |= SPECULATION_BARRIER_ORI31;
            behaviour |= BOUNDS_CHECK_BARRIER;
        }
        Mitigation::Broken => behaviour |= BOUNDS_CHECK_BARRIER,
        _ => {}
    }
    match caps.ibs {
        Mitigation::FixedCcd => character |= COUNT_CACHE_DISABLED,
        Mitigation::FixedIbs => character |= BRANCH_TO_COUNT_SERIALISED,
        Mitigation::Workaround => {
            behaviour |= FLUSH_COUNT_CACHE;
            if caps.ccf_assist {
                character |= COUNT_FLUSH_ASSIST;
            }
        }
        _ => {}
    }
    (out[0], out[1]) = (character, behaviour);
}

/// H_HOME_NODE_ASSOCIATIVITY: flags, processor. Fields of 16 bits, those with the top bit set hold 15 bits; all ones end the list.
pub fn home_node(p: &Partition, a: &Args, out: &mut Args) -> Result<(), Status> {
    if !matches!(a[0], 1 | 2) {
        return Err(Status::PARAMETER);
    }
    let id = a[1];
    if p.thread(id).is_none() {
        return Err(Status::P2);
    }
    const SHORT: u64 = 0x8000;
    out.fill(u64::MAX);
    out[0] = SHORT << 48 | SHORT << 32 | SHORT << 16 | SHORT;
    out[1] = (SHORT | id & 0x7fff) << 48 | u64::MAX >> 16;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mitigations() {
        let caps = |t: &str| PseriesOptions::parse(&[format!("pseries,{t}")]).unwrap();
        let mut out = Args::default();
        of(&caps("cap-cfpc=fixed,cap-sbbc=fixed,cap-ibs=fixed-na"), &mut out);
        assert_eq!((out[0], out[1]), (0, FAVOUR_SECURITY));
        of(&caps("cap-cfpc=workaround"), &mut out);
        assert_ne!(out[0] & L1D_FLUSH_ORI30, 0);
        assert_ne!(out[1] & FLUSH_L1D, 0);
        // What the host says is what holds there.
        let options = PseriesOptions { host_characteristics: Some((5, 6)), ..caps("cap-cfpc=fixed") };
        of(&options, &mut out);
        assert_eq!((out[0], out[1]), (5, 6));
    }
}
