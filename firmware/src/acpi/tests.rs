use super::linker::File;
use super::*;
use crate::x86::RamLayout;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |s, b| s.wrapping_add(*b))
}
fn u32_at(data: &[u8], at: usize) -> usize {
    crate::x86::u32_at(data, at).unwrap() as usize
}

fn board() -> PcAcpi {
    PcAcpi {
        processors: (0..300).map(|n| Processor { apic_id: n, node: n % 2 }).collect(),
        window64: Some(0x1_8000_0000..0x80_0000_0000),
        pvpanic: Some(0x505),
        numa: Some(Numa {
            memory: vec![vec![0..1 << 20], vec![1 << 20..1 << 30]],
            distances: vec![vec![10, 20], vec![21, 10]],
        }),
        ..PcAcpi::default()
    }
}

/// Walks from the root pointer; every table must be there with a right checksum.
fn signatures(placed: &Placed, base: usize) -> Vec<String> {
    assert!(placed.rsdp.starts_with(b"RSD PTR "));
    assert_eq!((sum(&placed.rsdp[..20]), sum(&placed.rsdp)), (0, 0));
    let at = |address: usize| {
        let table = &placed.tables[address - base..];
        &table[..u32_at(table, 4)]
    };
    let (rsdt, xsdt) = (at(u32_at(&placed.rsdp, 16)), at(u32_at(&placed.rsdp, 24)));
    assert_eq!((sum(rsdt), sum(xsdt)), (0, 0));
    let mut out = Vec::new();
    for (n, entry) in xsdt[36..].chunks(8).enumerate() {
        let address = u32_at(entry, 0);
        assert_eq!(address, u32_at(rsdt, 36 + 4 * n));
        let table = at(address);
        assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(&table[..4]));
        out.push(String::from_utf8_lossy(&table[..4]).into_owned());
        if table.starts_with(b"FACP") {
            let facs = u32_at(table, 36);
            assert_eq!((facs % 64, &at(facs)[..4]), (0, &b"FACS"[..]));
            let dsdt = u32_at(table, 40);
            assert_eq!((sum(at(dsdt)), &at(dsdt)[..4]), (0, &b"DSDT"[..]));
            assert_eq!(u32_at(table, 140), dsdt);
        }
    }
    out
}

#[test]
fn placed() {
    let placed = board().build().place(0x7ffe_0000);
    let found = signatures(&placed, 0x7ffe_0000);
    assert_eq!(found, ["FACP", "APIC", "HPET", "MCFG", "SRAT", "SLIT", "WAET"]);
    let unit =
        Dmar { base: 0xfed9_0000, host_bits: 40, interrupt_remapping: true, device_iotlb: true, io_apic: 0xff00 };
    let remapped = PcAcpi { dmar: Some(unit), ..board() }.build().place(0x7ffe_0000);
    let at = remapped.tables.windows(4).position(|w| w == b"DMAR").unwrap();
    assert!(signatures(&remapped, 0x7ffe_0000).contains(&"DMAR".to_owned()));
    let table = &remapped.tables[at..];
    // Width, remapping; the unit with its registers and the I/O APIC; root ports.
    assert_eq!((u32_at(table, 4), &table[36..38]), (80, &[39, 1][..]));
    assert_eq!((&table[48..53], u32_at(table, 56)), (&[0, 0, 24, 0, 1][..], 0xfed9_0000));
    assert_eq!((&table[64..72], &table[72..77]), (&[3, 8, 0, 0, 0, 0xff, 0, 0][..], &[2, 0, 8, 0, 1][..]));
    let plain = PcAcpi { hpet: None, ecam: None, ..PcAcpi::default() }.build().place(0x10_0000);
    assert_eq!(signatures(&plain, 0x10_0000), ["FACP", "APIC", "WAET"]);
}

#[test]
fn madt() {
    let placed = board().build().place(0);
    let madt = placed.tables.chunks(64).position(|c| c.starts_with(b"APIC")).unwrap() * 64;
    let madt = &placed.tables[madt..];
    let (mut rest, mut counts) = (&madt[44..u32_at(madt, 4)], [0; 16]);
    while let [kind, len, ..] = *rest {
        counts[usize::from(kind)] += 1;
        rest = &rest[usize::from(len)..];
    }
    assert_eq!(counts[0], 255);
    assert_eq!(counts[9], 45);
    assert_eq!((counts[1], counts[2], counts[4], counts[10]), (1, 5, 1, 1));
}

/// Follows the script as firmware does; the result is that of placing.
#[test]
fn loader_script() {
    let tables = board().build();
    let mut files = tables.files();
    assert_eq!((files.tables.len() % 0x2_0000, files.loader.len() % 0x1000), (0, 0));
    let (base, name) = (0x7ff0_0000u64, |c: &[u8]| c.split(|b| *b == 0).next().unwrap().to_vec());
    let mut allocated = Vec::new();
    for c in files.loader.chunks(128) {
        match u32_at(c, 0) {
            0 => {}
            1 => allocated.push((name(&c[4..60]), u32_at(c, 60), c[64])),
            2 => {
                assert_eq!(name(&c[60..116]), TABLES_FILE.as_bytes());
                let file =
                    if name(&c[4..60]) == File::Tables.name().as_bytes() { &mut files.tables } else { &mut files.rsdp };
                let (at, size) = (u32_at(c, 116), usize::from(c[120]));
                let mut value = [0; 8];
                value[..size].copy_from_slice(&file[at..at + size]);
                let value = u64::from_le_bytes(value) + base;
                file[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
            3 => {
                let file =
                    if name(&c[4..60]) == File::Tables.name().as_bytes() { &mut files.tables } else { &mut files.rsdp };
                let (at, start, len) = (u32_at(c, 60), u32_at(c, 64), u32_at(c, 68));
                assert_eq!(file[at], 0);
                file[at] = 0u8.wrapping_sub(sum(&file[start..start + len]));
            }
            n => panic!("command {n}"),
        }
    }
    assert_eq!(allocated, [(RSDP_FILE.into(), 16, 2), (TABLES_FILE.into(), 64, 1)]);
    let placed = tables.place(base);
    assert_eq!(files.rsdp, placed.rsdp);
    assert_eq!(&files.tables[..placed.tables.len()], &placed.tables);
}

#[test]
fn routing_and_windows() {
    assert_eq!([pirq(0, 0), pirq(1, 0), pirq(3, 3), pirq(31, 1), pirq(30, 2), pirq(25, 3)], [4, 5, 6, 1, 6, 3]);
    assert_eq!(pirq_gsi(7), 23);
    let ecam = Some(Ecam { base: 0xb000_0000, last_bus: 255 });
    let (low, high) = pci_windows(RamLayout::q35(4 << 30), ecam, 40);
    assert_eq!(low, [0x8000_0000..0xb000_0000, 0xc000_0000..0xfec0_0000]);
    assert_eq!(high, Some(0x1_8000_0000..0x100_0000_0000));
    let (low, _) = pci_windows(RamLayout::q35(0xafff_f000), ecam, 40);
    assert_eq!(low, [0xc000_0000..0xfec0_0000]);
}
