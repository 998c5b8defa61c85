//! The differentiated description table: PCI root with routing, ISA devices, processors, sleep states, events.

use super::aml::{
    Term, and, arg, byte_fields, device, dma, dword_field, eisa, else_, equal, if_, int, interrupts, io, irq, local,
    memory32, method, name, not_equal, notify, nowhere, or, package, path, region, resources, return_, scope, store,
    term, text,
};
use super::tables::table;
use super::{PIRQS, PcAcpi, SerialPort, pirq, pirq_gsi};
use acpi_tables::aml::{AddressSpace, AddressSpaceCacheable, OpRegionSpace, Uuid};

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;
/// The ISA interrupts a PCI interrupt link may use with the 8259.
const LINK_IRQS: [u32; 3] = [5, 10, 11];
const PRESENT: u64 = 0xf;
/// Present and working, but not shown to users.
const HIDDEN: u64 = 0xb;

/// The table, with its checksum.
pub(super) fn build(board: &PcAcpi) -> Vec<u8> {
    let mut terms = vec![
        // Which interrupt model the system has chosen: 0 8259, 1 I/O APIC.
        name("PICF", &int(0)),
        method("_PIC", 1, false, &[store(&path("PICF"), &arg(0))]),
    ];
    terms.extend(sleep_states(board));
    let mut system = vec![pci_root(board)];
    system.extend((0..PIRQS).map(link));
    system.push(processors(board));
    system.push(motherboard(board));
    if let Some(base) = board.hpet {
        system.push(device(
            "HPET",
            &[
                name("_HID", &eisa("PNP0103")),
                name("_UID", &int(0)),
                name("_STA", &int(PRESENT)),
                name("_CRS", &resources(&[memory32(false, base, 0x400)])),
            ],
        ));
    }
    terms.push(scope("_SB_", &system));
    // A power-management event of a device on bus 0 (ICH9 GPE0 status bit 13).
    terms.push(scope("_GPE", &[method("_L0D", 0, false, &[notify("\\_SB_.PCI0", 2)])]));
    let body: Vec<u8> = terms.into_iter().flat_map(|t| t.0).collect();
    table(*b"DSDT", REVISION, &body)
}

fn sleep_states(board: &PcAcpi) -> Vec<Term> {
    let state = |state: &str, value: u8| {
        let value = int(u64::from(value));
        name(state, &package(&[value.clone(), value, int(0), int(0)]))
    };
    let mut out = Vec::new();
    out.extend(board.sleep.s3.map(|v| state("_S3_", v)));
    out.extend(board.sleep.s4.map(|v| state("_S4_", v)));
    out.push(state("_S5_", board.sleep.s5));
    out
}

fn pci_root(board: &PcAcpi) -> Term {
    let mut children = vec![
        name("_HID", &eisa("PNP0A08")),
        name("_CID", &eisa("PNP0A03")),
        name("_UID", &int(0)),
        name("_SEG", &int(0)),
        name("_BBN", &int(0)),
        osc(),
        name("_CRS", &root_resources(board)),
        name("PRTP", &routes(|pirq| (path(&link_name(pirq)), int(0)))),
        name("PRTA", &routes(|pirq| (int(0), int(u64::from(pirq_gsi(pirq)))))),
        method("_PRT", 0, false, &[if_(&path("PICF"), &[return_(&path("PRTA"))]), else_(&[return_(&path("PRTP"))])]),
        isa_bridge(board),
    ];
    if board.fw_cfg {
        children.push(device(
            "FWCF",
            &[name("_HID", &text("QEMU0002")), name("_STA", &int(HIDDEN)), name("_CRS", &resources(&[io(0x510, 12)]))],
        ));
    }
    device("PCI0", &children)
}

/// Control of PCI Express features: all native but what the bridge lacks (PCI Firmware Specification 3.3, 4.5.1).
fn osc() -> Term {
    const BAD_UUID: u64 = 1 << 2;
    const BAD_REVISION: u64 = 1 << 3;
    const MASKED: u64 = 1 << 4;
    /// Native hot-plug, SHPC hot-plug, power-management events, error reporting, capability structures.
    const GRANTED: u64 = 0x1f;
    let (status, control) = (path("CDW1"), path("CDW3"));
    let set = |bit: u64| or(&status, &status, &int(bit));
    let uuid = term(&Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766"));
    method(
        "_OSC",
        4,
        true,
        &[
            dword_field("CDW1", &arg(3), 0),
            if_(
                &equal(&arg(0), &uuid),
                &[
                    dword_field("CDW2", &arg(3), 4),
                    dword_field("CDW3", &arg(3), 8),
                    store(&local(0), &control),
                    and(&local(0), &local(0), &int(GRANTED)),
                    if_(&not_equal(&arg(1), &int(1)), &[set(BAD_REVISION)]),
                    if_(&not_equal(&control, &local(0)), &[set(MASKED)]),
                    store(&control, &local(0)),
                ],
            ),
            else_(&[set(BAD_UUID)]),
            return_(&arg(3)),
        ],
    )
}

/// What the bridge decodes for the bus behind it.
fn root_resources(board: &PcAcpi) -> Term {
    let last_bus = u16::from(board.ecam.map_or(255, |e| e.last_bus));
    let mut list = vec![
        term(&AddressSpace::<u16>::new_bus_number(0, last_bus)),
        // The configuration ports themselves.
        io(0xcf8, 8),
        term(&AddressSpace::<u16>::new_io(0, 0xcf7, None)),
        term(&AddressSpace::<u16>::new_io(0xd00, 0xffff, None)),
        term(&AddressSpace::<u32>::new_memory(AddressSpaceCacheable::Cacheable, true, 0xa_0000, 0xb_ffff, None)),
    ];
    let plain = AddressSpaceCacheable::NotCacheable;
    for w in &board.windows32 {
        // A window ends above its start and at 4 GiB at most, else there is no descriptor for it.
        if let (Ok(start), Some(Ok(last))) = (u32::try_from(w.start), w.end.checked_sub(1).map(u32::try_from))
            && start < last
        {
            list.push(term(&AddressSpace::<u32>::new_memory(plain, true, start, last, None)));
        }
    }
    if let Some(w) = board.window64.as_ref().filter(|w| w.start < w.end) {
        let cacheable = AddressSpaceCacheable::Cacheable;
        list.push(term(&AddressSpace::<u64>::new_memory(cacheable, true, w.start, w.end - 1, None)));
    }
    resources(&list)
}

fn link_name(pirq: u8) -> String {
    format!("LNK{}", char::from(b'A' + pirq % PIRQS))
}
fn link_register(pirq: u8) -> [u8; 4] {
    [b'P', b'R', b'Q', b'A' + pirq % PIRQS]
}

/// The interrupt pins of all slots: address, pin, source, index (6.2.13).
fn routes(target: impl Fn(u8) -> (Term, Term)) -> Term {
    let mut list = Vec::new();
    for slot in 0..32u8 {
        for pin in 0..4u8 {
            let (source, index) = target(pirq(slot, pin));
            let address = int(u64::from(slot) << 16 | 0xffff);
            list.push(package(&[address, int(u64::from(pin)), source, index]));
        }
    }
    package(&list)
}

/// A PCI interrupt link: one routing register of the ISA bridge. Bits 3:0 the interrupt, bit 7 not routed (ICH9 13.1.19).
fn link(pirq: u8) -> Term {
    const DISABLED: u64 = 0x80;
    let register = link_register(pirq);
    let register = path(&format!("\\_SB_.PCI0.ISA_.{}", String::from_utf8_lossy(&register)));
    let choice = resources(&[interrupts(&LINK_IRQS)]);
    let none = and(&nowhere(), &register, &int(DISABLED));
    device(
        &link_name(pirq),
        &[
            name("_HID", &eisa("PNP0C0F")),
            name("_UID", &int(u64::from(pirq))),
            name("_PRS", &choice),
            method("_STA", 0, false, &[if_(&none, &[return_(&int(9))]), return_(&int(HIDDEN))]),
            method("_DIS", 0, false, &[or(&register, &register, &int(DISABLED))]),
            method(
                "_CRS",
                0,
                true,
                &[
                    name("BUF0", &resources(&[interrupts(&[0])])),
                    // Behind tag, length, flags and count.
                    dword_field("IRQN", &path("BUF0"), 5),
                    if_(&equal(&none, &int(0)), &[and(&path("IRQN"), &register, &int(0xf))]),
                    return_(&path("BUF0")),
                ],
            ),
            method("_SRS", 1, true, &[dword_field("IRQN", &arg(0), 5), store(&register, &path("IRQN"))]),
        ],
    )
}

/// The LPC bridge and what is behind it.
fn isa_bridge(board: &PcAcpi) -> Term {
    let fields: Vec<_> = (0..PIRQS)
        // Registers 60h to 63h and 68h to 6Bh.
        .map(|n| (link_register(n), usize::from(n) + if n < 4 { 0 } else { 4 }))
        .collect();
    let simple = |device_name: &str, id: &str, descriptors: &[Term]| {
        device(device_name, &[name("_HID", &eisa(id)), name("_CRS", &resources(descriptors))])
    };
    let mut children = vec![
        name("_ADR", &int(0x1f_0000)),
        region("PIRQ", OpRegionSpace::PCIConfig, 0x60, 12),
        byte_fields("PIRQ", &fields),
        simple("PIC_", "PNP0000", &[io(0x20, 2), io(0xa0, 2), irq(2)]),
        simple("DMAC", "PNP0200", &[io(0, 0x20), io(0x81, 15), io(0xc0, 0x20), dma(1 << 4)]),
        simple("TIMR", "PNP0100", &timer(board)),
        simple("RTC_", "PNP0B00", &rtc(board)),
        simple("SPKR", "PNP0800", &[io(0x61, 1)]),
        simple("FPU_", "PNP0C04", &[io(0xf0, 1), irq(13)]),
    ];
    if board.i8042 {
        children.push(device(
            "KBD_",
            &[
                name("_HID", &eisa("PNP0303")),
                name("_STA", &int(PRESENT)),
                name("_CRS", &resources(&[io(0x60, 1), io(0x64, 1), irq(1)])),
            ],
        ));
        children.push(device(
            "MOU_",
            &[name("_HID", &eisa("PNP0F13")), name("_STA", &int(PRESENT)), name("_CRS", &resources(&[irq(12)]))],
        ));
    }
    children.extend(board.serial.iter().take(9).zip(1u8..).map(|(port, n)| serial(*port, n)));
    if let Some(port) = board.pvpanic {
        children.push(device(
            "PEVT",
            &[
                name("_HID", &text("QEMU0001")),
                name("_STA", &int(PRESENT)),
                name("_CRS", &resources(&[io(port, 1)])),
                region("PEOR", OpRegionSpace::SystemIO, u64::from(port), 1),
                byte_fields("PEOR", &[(*b"PEPT", 0)]),
                method("RDPT", 0, false, &[return_(&path("PEPT"))]),
                method("WRPT", 1, false, &[store(&path("PEPT"), &arg(0))]),
            ],
        ));
    }
    device("ISA_", &children)
}

/// With the HPET's legacy replacement, interrupts 0 and 8 are not these devices' own; systems that use it expect them free.
fn timer(board: &PcAcpi) -> Vec<Term> {
    let mut list = vec![io(0x40, 4)];
    if board.hpet.is_none() {
        list.push(irq(0));
    }
    list
}
fn rtc(board: &PcAcpi) -> Vec<Term> {
    let mut list = vec![io(0x70, 8)];
    if board.hpet.is_none() {
        list.push(irq(8));
    }
    list
}

fn serial(port: SerialPort, number: u8) -> Term {
    device(
        &format!("COM{number}"),
        &[
            name("_HID", &eisa("PNP0501")),
            name("_UID", &int(u64::from(number))),
            name("_STA", &int(PRESENT)),
            name("_CRS", &resources(&[io(port.port, 8), irq(port.irq)])),
        ],
    )
}

fn processors(board: &PcAcpi) -> Term {
    let mut children = vec![name("_HID", &text("ACPI0010")), name("_CID", &eisa("PNP0A05"))];
    for (uid, cpu) in board.processors.iter().enumerate().take(0x1000) {
        let mut cpu_children = vec![
            name("_HID", &text("ACPI0007")),
            name("_UID", &int(uid as u64)),
            method("_STA", 0, false, &[return_(&int(PRESENT))]),
        ];
        if board.numa.is_some() {
            cpu_children.push(name("_PXM", &int(u64::from(cpu.node))));
        }
        children.push(device(&format!("C{uid:03X}"), &cpu_children));
    }
    device("CPUS", &children)
}

/// Resources of the board that belong to no other device.
fn motherboard(board: &PcAcpi) -> Term {
    let mut list = vec![io(board.pm_base, 0x80), io(0x92, 1)];
    list.extend(board.smi_command.map(|s| io(s.port, 2)));
    list.extend(board.rcba.map(|base| memory32(true, base, 0x4000)));
    let mut out =
        device("MBRD", &[name("_HID", &eisa("PNP0C02")), name("_UID", &int(1)), name("_CRS", &resources(&list))]);
    if let Some(ecam) = board.ecam {
        let last = ecam.base + (u64::from(ecam.last_bus) << 20 | 0xf_ffff);
        let window =
            term(&AddressSpace::<u64>::new_memory(AddressSpaceCacheable::NotCacheable, true, ecam.base, last, None));
        out.0.extend(
            device(
                "ECAM",
                &[name("_HID", &eisa("PNP0C02")), name("_UID", &int(2)), name("_CRS", &resources(&[window]))],
            )
            .0,
        );
    }
    out
}
