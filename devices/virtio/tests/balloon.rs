//! The balloon and the entropy device as a driver sees them.

mod driver;

use driver::{BASE, Driver, SIZE};
use rhea_device::Device;
use rhea_virtio::balloon::Balloon;
use rhea_virtio::features;
use rhea_virtio::rng::Rng;

const PLAIN: u64 = !(features::RING_PACKED | features::EVENT_IDX);
const PAGE: u64 = 4096;

fn filled(d: &Driver, gpa: u64) -> bool {
    d.get(gpa, PAGE as usize).iter().all(|b| *b == 0x5a)
}
fn empty(d: &Driver, gpa: u64) -> bool {
    d.get(gpa, PAGE as usize).iter().all(|b| *b == 0)
}

#[test]
fn inflate_statistics_report() {
    let balloon = Balloon::new(true, true);
    let mut d = Driver::new(balloon.clone());
    let own = features::BALLOON_STATS_VQ | features::BALLOON_DEFLATE_ON_OOM | features::BALLOON_REPORTING;
    assert_eq!(d.offered() & 0xff, own);
    d.start(PLAIN, SIZE);
    balloon.set_target(5 << 20);
    assert_eq!(d.config(0, 4), 5 << 8);
    assert!(d.line.level() && d.read(0x60) == 2);
    d.write(0x64, 3);
    let area = BASE + (4 << 20);
    d.ram.fill(4 << 20, 64 * PAGE, 0x5a).unwrap();
    // Three pages in a row and one apart, one pinned, one that is no memory.
    d.ram.pin((4 << 20) + PAGE, PAGE);
    let first = (area / PAGE) as u32;
    let pages: Vec<u8> = [first, first + 2, first + 1, first + 9, 7].iter().flat_map(|p| p.to_le_bytes()).collect();
    assert_eq!(d.request(0, &[&pages], &[]).0, 0);
    assert!(
        empty(&d, area)
            && filled(&d, area + PAGE)
            && empty(&d, area + 2 * PAGE)
            && filled(&d, area + 3 * PAGE)
            && empty(&d, area + 9 * PAGE)
    );
    use rhea_memory::{Access, MmioDevice};
    d.mmio.write(0x104, 4, Access::host(4)).unwrap();
    assert_eq!(balloon.actual(), 4 * PAGE);
    d.request(1, &[&pages], &[]);
    // Statistics: the buffer stays until new ones are wanted.
    let stat = |tag: u16, v: u64| [&tag.to_le_bytes()[..], &v.to_le_bytes()].concat();
    d.add(2, &[&[stat(4, 1000), stat(5, 2000)].concat()], &[]);
    d.kick(2);
    assert!(d.used(2).is_none());
    let told = balloon.statistics();
    assert!(told.entries == [(4, 1000), (5, 2000)] && told.updated != 0);
    assert!(d.used(2).is_some());
    // Reported pages: the whole ones within the buffers.
    d.ram.fill(4 << 20, 64 * PAGE, 0x5a).unwrap();
    d.add_raw(3, &[(area + 16 * PAGE, (2 * PAGE) as u32, 2), (area + 32 * PAGE + 8, (2 * PAGE) as u32, 2)]);
    d.kick(3);
    assert_eq!(d.wait_used(3), 0);
    assert!(empty(&d, area + 16 * PAGE) && empty(&d, area + 17 * PAGE) && filled(&d, area + 18 * PAGE));
    assert!(filled(&d, area + 32 * PAGE) && empty(&d, area + 33 * PAGE) && filled(&d, area + 34 * PAGE));
    // At the end of the address space.
    d.add_raw(3, &[(u64::MAX - 100, 4096, 2), (u64::MAX - 100, 50, 2), (0, u32::MAX - 5000, 2)]);
    d.kick(3);
    d.wait_used(3);
    d.mmio.quiesce();
    let saved = d.mmio.save();
    d.mmio.reset();
    assert_eq!(balloon.actual(), 0);
    d.mmio.load(&saved).unwrap();
    assert_eq!(balloon.actual(), 4 * PAGE);
}

#[test]
fn entropy() {
    let mut d = Driver::new(Rng::new(None).unwrap());
    d.start(PLAIN, SIZE);
    let (len, data) = d.request(0, &[], &[64, 64]);
    assert_eq!(len, 128);
    assert!(data.concat().iter().any(|b| *b != 0xee) && data[0] != data[1]);
    // A file at its end.
    let mut d = Driver::new(Rng::new(Some(std::path::Path::new("/dev/null"))).unwrap());
    d.start(PLAIN, SIZE);
    assert_eq!(d.request(0, &[], &[64]).0, 0);
    assert!(Rng::new(Some(std::path::Path::new("/nonexistent"))).is_err());
}
