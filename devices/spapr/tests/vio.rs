//! Terminal, NVRAM, translation tables and queues.

mod board;

use board::Board;
use rhea_block::{CacheMode, Drive, MemoryBackend};
use rhea_device::Device;
use rhea_device::chardev::MemoryChar;
use rhea_memory::{BusError, Gpa};
use rhea_spapr::papr::{Status, hcall as h};
use rhea_spapr::vio::nvram::{self, Nvram};
use rhea_spapr::vio::vscsi::{self, Vscsi};
use rhea_spapr::vio::vty::{self, Vty};
use rhea_spapr::vio::{VioDevice, VioError};
use std::sync::Arc;

#[test]
fn terminal() {
    let b = Board::new();
    let backend = MemoryChar::new();
    let tty = Vty::new(b.vio.slot(vty::KIND, None).unwrap(), backend.clone());
    b.vio.attach_vty(tty.clone());
    assert_eq!(b.vio.console().as_deref(), Some("/vdevice/vty@30000000"));
    let unit = u64::from(tty.slot().unit());
    b.ok(h::H_PUT_TERM_CHAR, &[unit, 5, u64::from_be_bytes(*b"hello123"), 0]);
    b.ok(h::H_PUT_TERM_CHAR, &[0, 16, u64::from_be_bytes(*b", world "), u64::from_be_bytes(*b"again!!!")]);
    assert_eq!(backend.take_output(), b"hello, world again!!!");
    assert_eq!(b.call(h::H_PUT_TERM_CHAR, &[unit, 17, 0, 0]).0, Status::PARAMETER.0);
    assert_eq!(b.call(h::H_PUT_TERM_CHAR, &[7, 1, 0, 0]).0, Status::PARAMETER.0);
    b.enable(tty.slot().interrupt().unwrap());
    let text: Vec<u8> = (b'a'..=b'z').collect();
    backend.input(&text);
    assert_eq!(b.take(), tty.slot().interrupt());
    let state = tty.save();
    let mut seen: Vec<u8> = Vec::new();
    loop {
        let out = b.ok(h::H_GET_TERM_CHAR, &[unit]);
        if out[0] == 0 {
            break;
        }
        seen.extend(&[out[1].to_be_bytes(), out[2].to_be_bytes()].concat()[..out[0] as usize]);
    }
    assert_eq!(seen, text);
    tty.load(&state).unwrap();
    assert_eq!(b.ok(h::H_GET_TERM_CHAR, &[unit])[0], 16);
    tty.reset();
    assert_eq!(b.ok(h::H_GET_TERM_CHAR, &[unit])[0], 0);
    // The same unit address again, and a tree with the node.
    assert_eq!(b.vio.slot(vty::KIND, Some(0x3000_0000)).err(), Some(VioError::InUse(0x3000_0000)));
    let tree = b.vio.tree();
    assert_eq!(tree.children[0].get("compatible"), Some(&b"hvterm1\0"[..]));
    assert_eq!(tree.children[0].get("reg"), Some(&[0x30, 0, 0, 0][..]));
}

#[test]
fn nvram_is_kept() {
    let b = Board::new();
    let backend = Arc::new(MemoryBackend::new(vec![0; 16 << 10], false));
    let drive = Drive::new("nvram", backend.clone(), CacheMode::Writeback);
    let nv = Nvram::new(b.vio.slot(nvram::KIND, None).unwrap(), Some(drive), b.ram.clone()).unwrap();
    b.put(0x1000, b"boot-device");
    assert_eq!(b.rtas(&*nv, "nvram-store", &[0x20, 0x1000, 11], 2), [0, 11]);
    assert_eq!(&backend.content()[0x20..0x2b], b"boot-device");
    assert_eq!(b.rtas(&*nv, "nvram-fetch", &[0x25, 0x2000, 6], 2), [0, 6]);
    assert_eq!(b.get(0x2000, 6), b"device");
    for (name, args) in [
        ("nvram-store", &[16 << 10, 0x1000, 1][..]),
        ("nvram-store", &[0x3fff, 0x1000, 2]),
        ("nvram-store", &[0, 0xffff_f000, 0x100]),
        ("nvram-fetch", &[u32::MAX, 0, u32::MAX]),
        ("nvram-fetch", &[0, 0xf000_0000, 16]),
        ("nvram-fetch", &[0]),
    ] {
        assert_eq!(b.rtas(&*nv, name, args, 2)[0] as i32, -3, "{name} {args:x?}");
    }
    let tiny = Drive::new("tiny", Arc::new(MemoryBackend::new(vec![0; 512], false)), CacheMode::Writeback);
    assert!(Nvram::new(b.vio.slot(nvram::KIND, None).unwrap(), Some(tiny), b.ram.clone()).is_err());
}

#[test]
fn translation() {
    let b = Board::new();
    let scsi = Vscsi::new(b.vio.slot(vscsi::KIND, None).unwrap());
    b.vio.attach(scsi.clone());
    let (unit, dma) = (u64::from(scsi.slot().unit()), scsi.slot().dma());
    b.put(0x5000, b"data");
    let mut data = [0; 4];
    assert_eq!(dma.read(Gpa(0x1000), &mut data), Err(BusError::Refused));
    b.ok(h::H_PUT_TCE, &[unit, 0x1000, 0x5000 | 1]);
    assert_eq!(dma.read(Gpa(0x1000), &mut data), Ok(()));
    assert_eq!(&data, b"data");
    assert_eq!(dma.write(Gpa(0x1000), &data), Err(BusError::Refused));
    assert_eq!(b.ok(h::H_GET_TCE, &[unit, 0x1fff])[0], 0x5001);
    // Across two pages that are apart, in one access.
    b.ok(h::H_PUT_TCE, &[unit, 0x2000, 0x9000 | 3]);
    b.put(0x5ffe, b"ab");
    b.put(0x9000, b"cd");
    assert_eq!(dma.read(Gpa(0x1ffe), &mut data), Ok(()));
    assert_eq!(&data, b"abcd");
    let list: Vec<u8> = (0..4u64).flat_map(|n| (0x20_0000 + (n << 12) | 3).to_be_bytes()).collect();
    b.put(0x4000, &list);
    let mark = dma.watch(&[rhea_memory::GpaRange { start: Gpa(0x12000), len: 8 }]).unwrap();
    b.ok(h::H_PUT_TCE_INDIRECT, &[unit, 0x13000, 0x4000, 4]);
    assert!(!mark.load(std::sync::atomic::Ordering::SeqCst));
    b.ok(h::H_PUT_TCE_INDIRECT, &[unit, 0x10000, 0x4000, 4]);
    assert!(mark.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(b.ok(h::H_GET_TCE, &[unit, 0x12000])[0], 0x20_2003);
    b.ok(h::H_STUFF_TCE, &[unit, 0x10000, 0, 4]);
    assert_eq!(b.ok(h::H_GET_TCE, &[unit, 0x12000])[0], 0);
    for (number, args) in [
        (h::H_PUT_TCE, &[1, 0, 3][..]),
        (h::H_PUT_TCE, &[unit | 1 << 40, 0, 3]),
        (h::H_PUT_TCE, &[unit, 0x1000_0000, 3]),
        (h::H_PUT_TCE, &[unit, u64::MAX, 3]),
        (h::H_STUFF_TCE, &[unit, 0xfff_f000, 0, 2]),
        (h::H_STUFF_TCE, &[unit, 0, 0, u64::MAX]),
        (h::H_PUT_TCE_INDIRECT, &[unit, 0, 0x4000, 513]),
        (h::H_PUT_TCE_INDIRECT, &[unit, 0, 0x4008, 1]),
        (h::H_PUT_TCE_INDIRECT, &[unit, 0, board::RAM, 1]),
        (h::H_PUT_TCE_INDIRECT, &[unit, u64::MAX, 0x4000, 512]),
        (h::H_GET_TCE, &[unit, 1 << 60]),
    ] {
        assert_eq!(b.call(number, args).0, Status::PARAMETER.0, "{number:#x} {args:x?}");
    }
    assert_eq!(b.rtas(&*b.vio, "ibm,set-tce-bypass", &[unit as u32, 1], 1), [0]);
    assert_eq!(dma.read(Gpa(0x5000), &mut data), Ok(()));
    assert_eq!(b.rtas(&*b.vio, "ibm,set-tce-bypass", &[1, 1], 1)[0] as i32, -3);
    scsi.reset();
    assert_eq!(dma.read(Gpa(0x1000), &mut data), Err(BusError::Refused));
}

#[test]
fn queues() {
    let b = Board::new();
    let scsi = Vscsi::new(b.vio.slot(vscsi::KIND, None).unwrap());
    b.vio.attach(scsi.clone());
    let unit = u64::from(scsi.slot().unit());
    b.open(unit as u32);
    let init = 0xc001_0000_0000_0000u64;
    assert_eq!(b.call(h::H_SEND_CRQ, &[unit, init, 0]).0, Status::CLOSED.0);
    for (address, len) in [(0x1000, 0), (0x1001, 0x1000), (0x1000, 0x800), (0x1000, 1 << 40), (u64::MAX << 12, 0x1000)]
    {
        assert_eq!(b.call(h::H_REG_CRQ, &[unit, address, len]).0, Status::PARAMETER.0);
    }
    b.ok(h::H_REG_CRQ, &[unit, 0x1000, 0x1000]);
    assert_eq!(b.call(h::H_REG_CRQ, &[unit, 0x1000, 0x1000]).0, Status::RESOURCE.0);
    assert_eq!(b.call(h::H_VIO_SIGNAL, &[unit, 2]).0, Status::PARAMETER.0);
    b.enable(scsi.slot().interrupt().unwrap());
    b.ok(h::H_SEND_CRQ, &[unit, init, 0]);
    assert!(!b.up());
    assert_eq!(b.get(0x1000, 2), [0xc0, 2]);
    b.ok(h::H_VIO_SIGNAL, &[unit, 1]);
    b.ok(h::H_SEND_CRQ, &[unit, init, 0]);
    assert_eq!(b.take(), scsi.slot().interrupt());
    assert_eq!(b.get(0x1010, 2), [0xc0, 2]);
    // A full ring takes no more; it goes on where the guest has emptied it.
    for _ in 0..300 {
        b.ok(h::H_SEND_CRQ, &[unit, init, 0]);
    }
    b.put(0x1000, &[0; 16]);
    b.ok(h::H_SEND_CRQ, &[unit, init, 0]);
    assert_eq!(b.get(0x1000, 2), [0xc0, 2]);
    let state = scsi.save();
    b.ok(h::H_FREE_CRQ, &[unit]);
    assert_eq!(b.call(h::H_ENABLE_CRQ, &[unit]).0, Status::PARAMETER.0);
    scsi.load(&state).unwrap();
    b.ok(h::H_ENABLE_CRQ, &[unit]);
    assert_eq!(b.rtas(&*b.vio, "quiesce", &[], 1), [0]);
    assert_eq!(b.call(h::H_SEND_CRQ, &[unit, init, 0]).0, Status::CLOSED.0);
    assert_eq!(b.call(h::H_SEND_CRQ, &[1, init, 0]).0, Status::PARAMETER.0);
}

/// Whatever is in saved state: an error or a device that still answers.
#[test]
fn damaged_state() {
    let b = Board::new();
    let scsi = Vscsi::new(b.vio.slot(vscsi::KIND, None).unwrap());
    b.vio.attach(scsi.clone());
    let tty = Vty::new(b.vio.slot(vty::KIND, None).unwrap(), MemoryChar::new());
    b.vio.attach_vty(tty.clone());
    let nv = Nvram::new(b.vio.slot(nvram::KIND, None).unwrap(), None, b.ram.clone()).unwrap();
    let unit = u64::from(scsi.slot().unit());
    b.ok(h::H_PUT_TCE, &[unit, 0x1000, 0x5003]);
    b.ok(h::H_REG_CRQ, &[unit, 0x1000, 0x1000]);
    let devices: [&dyn Device; 4] = [&*scsi, &*tty, &*nv, &*b.phb];
    for device in devices {
        let rhea_device::Saved::Bytes { version, data } = device.save() else { panic!("no state") };
        for n in (0..data.len()).take(200) {
            for value in [0, 0xff, data[n] ^ 1, data[n].wrapping_add(1)] {
                let mut bad = data.clone();
                bad[n] = value;
                let _ = device.load(&rhea_device::Saved::Bytes { version, data: bad });
                let _ = b.call(h::H_SEND_CRQ, &[unit, 0xc001 << 48, 0]);
                let _ = b.call(h::H_PUT_TERM_CHAR, &[0, 1, 0, 0]);
            }
        }
        device.load(&rhea_device::Saved::Bytes { version, data }).unwrap();
        device.reset();
    }
}
