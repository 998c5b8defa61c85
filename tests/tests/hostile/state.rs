//! Saved state that is well formed as far as checksums go, and otherwise anything: it is refused or taken, and the devices work after a
//! reset.

use super::{devices_work, machine, pseries, q35, storm, times, watched};
use rhea_device::Saved;
use rhea_machine::Machine;
use rhea_tests::{Random, Scratch};

/// The bytes with some of them changed.
fn damaged(data: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = data.to_vec();
    if data.is_empty() {
        return data;
    }
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() as u64) as usize;
        data[at] = match random.below(4) {
            // A bit: a number that is a little different.
            0 | 1 => data[at] ^ 1 << random.below(8),
            2 => *random.pick(&[0, 0xff, 0x7f, 0x80, 0x17, 0xf6]),
            _ => random.bits() as u8,
        };
    }
    if random.once_in(16) {
        data.truncate(random.below(data.len() as u64) as usize);
    }
    data
}

fn load_garbage(machine: &Machine, random: &mut Random, rounds: u32) {
    let mut taken = 0;
    for _ in 0..rounds {
        for device in machine.devices() {
            let good = device.save();
            let Saved::Bytes { version, data } = &good else { continue };
            device.quiesce();
            let bad = Saved::Bytes { version: *version, data: damaged(data, random) };
            taken += u32::from(device.load(&bad).is_ok());
            device.resume();
            if random.once_in(4) {
                device.reset();
                let _ = device.load(&good);
            }
        }
    }
    assert!(taken > rounds, "nothing was taken");
}

#[test]
fn states_of_virt_take_garbage() {
    watched(|| {
        let scratch = Scratch::new();
        let mut random = Random::new(31);
        for options in ["gic-version=3", "gic-version=2"] {
            let (machine, _requests) = machine(&scratch, options, 2);
            load_garbage(&machine, &mut random, times(40));
            storm(&machine, &mut random, 2, 2_000);
            machine.reset();
            machine.clock().start();
            devices_work(&machine);
            machine.shut_down();
        }
    });
}

#[test]
fn states_of_q35_take_garbage() {
    watched(|| {
        let scratch = Scratch::new();
        let mut random = Random::new(32);
        let (machine, _requests) = q35::q35(&scratch, "smm=on", 2);
        load_garbage(&machine, &mut random, times(40));
        machine.reset();
        machine.shut_down();
    });
}

#[test]
fn states_of_pseries_take_garbage() {
    watched(|| {
        let scratch = Scratch::new();
        let mut random = Random::new(33);
        let partition = pseries::Partition::new(&scratch, "");
        load_garbage(&partition.machine, &mut random, times(40));
        partition.machine.reset();
        partition.machine.shut_down();
    });
}
