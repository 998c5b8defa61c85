use super::*;
use proptest::prelude::*;

fn machine<'a>(options: &'a SmbiosOptions, ram: &'a [Range<u64>]) -> SmbiosMachine<'a> {
    SmbiosMachine {
        options,
        product: "Standard PC",
        version: "q35",
        uuid: [0x11; 16],
        sockets: 2,
        cores: 4,
        threads: 8,
        processor_id: 0x0781_abfd_0005_0654,
        ram,
        entry_point: EntryPoint::Auto,
        bios: true,
    }
}

fn options(list: &[&str]) -> SmbiosOptions {
    let mut o = SmbiosOptions::default();
    list.iter().for_each(|t| o.add(t).unwrap());
    o
}

/// Type, formatted area and strings of each structure.
fn walk(mut rest: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
    let mut out = Vec::new();
    while let [kind, len, ..] = *rest {
        let area = rest[..usize::from(len)].to_vec();
        rest = &rest[usize::from(len)..];
        let end = rest.windows(2).position(|w| w == [0, 0]).unwrap();
        let strings = rest[..end].split(|b| *b == 0).filter(|s| !s.is_empty());
        out.push((kind, area, strings.map(|s| String::from_utf8_lossy(s).into_owned()).collect()));
        rest = &rest[end + 2..];
    }
    out
}

#[test]
fn structures() {
    let o = options(&[
        "type=0,vendor=V,release=4.7,uefi=on",
        "type=1,manufacturer=Acme,,Inc,serial=S1,uuid=00112233-4455-6677-8899-aabbccddeeff",
        "type=2,asset=A",
        "type=4,max-speed=3000",
        "type=8,internal_reference=USB1,port_type=16",
        "type=11,value=one,value=two",
        "type=17,speed=2400",
    ]);
    let ram = [0..2 << 30, 4 << 30..40 << 30];
    let smbios = machine(&o, &ram).build();
    let all = walk(smbios.tables());
    let kinds: Vec<_> = all.iter().map(|s| s.0).collect();
    assert_eq!(kinds, [0, 1, 2, 3, 4, 4, 8, 11, 16, 17, 17, 17, 19, 19, 32, 127]);
    let lens: Vec<_> = all.iter().map(|s| s.1.len()).collect();
    assert_eq!(lens, [24, 27, 15, 22, 48, 48, 9, 5, 23, 40, 40, 40, 31, 31, 11, 4]);
    assert_eq!(all[0].1[20..22], [4, 7]);
    assert_eq!(all[1].2, ["Acme,Inc", "Standard PC", "q35", "S1"]);
    assert_eq!(all[1].1[8..16], [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66]);
    assert_eq!(all[4].1[0x14..0x16], 3000u16.to_le_bytes());
    assert_eq!(all[7].2, ["one", "two"]);
    assert_eq!(all[9].1[0x0c..0x0e], 16384u16.to_le_bytes());
    assert_eq!(all[13].1[4..8], (4u32 << 20).to_le_bytes());
    assert_eq!(all[12].1[8..12], (2u32 << 20).wrapping_sub(1).to_le_bytes());
}

#[test]
fn entry_points() {
    let sum = |b: &[u8]| b.iter().fold(0u8, |s, v| s.wrapping_add(*v));
    let none = SmbiosOptions::default();
    let ram = [0..1 << 30];
    let placed = machine(&none, &ram).build().place(0xf_0100);
    let anchor = &placed[0].1;
    assert_eq!((anchor.len(), sum(anchor), sum(&anchor[16..])), (31, 0, 0));
    assert_eq!(u64::from(crate::x86::u32_at(anchor, 24).unwrap()), placed[1].0);
    assert_eq!(usize::from(crate::x86::u16_at(anchor, 22).unwrap()), placed[1].1.len());
    let mut m = machine(&none, &ram);
    m.entry_point = EntryPoint::Bits64;
    let anchor = m.build().anchor(0x1234_5678_9abc);
    assert_eq!((anchor.len(), sum(&anchor)), (24, 0));
    assert_eq!(crate::x86::u64_at(&anchor, 16), Some(0x1234_5678_9abc));
    // Long strings need the other entry point.
    let long = options(&[&format!("type=11,value={}", "x".repeat(70_000))]);
    assert!(machine(&long, &ram).build().anchor(0).starts_with(b"_SM3_"));
}

#[test]
fn bad_options() {
    for (text, word) in [
        ("vendor=x", "type=N"),
        ("type=5", "type=5"),
        ("type=1,uuid=1", "uuid"),
        ("type=0,release=1", "release"),
        ("type=1,colour=red", "colour"),
        ("type=4,max-speed=70000", "max-speed"),
        ("type=11,valu=x", "valu"),
        ("file=/nonexistent", "/nonexistent"),
        ("file", "file"),
        ("file=x,type=1", "type"),
    ] {
        let e = SmbiosOptions::default().add(text).unwrap_err().to_string();
        assert!(e.starts_with("-smbios") && e.contains(word), "{e}");
    }
    let mut twice = options(&["type=1,serial=1"]);
    assert!(twice.add("type=1,serial=2").is_err());
}

proptest! {
    #[test]
    fn any_text(text in "[a-z0-9=,.]{0,40}") {
        let mut o = SmbiosOptions::default();
        for kind in [0, 1, 2, 3, 4, 8, 11, 17] {
            let _ = o.add(&format!("type={kind},{text}"));
        }
        let ram = [0..1 << 30];
        walk(machine(&o, &ram).build().tables());
    }
}
