//! The fixed tables: FADT, FACS, MADT, HPET, MCFG, WAET, SRAT, SLIT and the root tables (ACPI specification, 5.2).

use super::linker::Tables;
use super::{PcAcpi, dsdt};
use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;

pub(super) const OEM: [u8; 6] = *b"RHEA  ";
pub(super) const OEM_TABLE: [u8; 8] = *b"RHEAPC  ";
pub(super) const OEM_REVISION: u32 = 1;
/// Offsets of pointers within the FADT (5.2.9): FACS and DSDT, 32 and 64 bits.
const FADT_FACS: u32 = 36;
const FADT_DSDT: u32 = 40;
const FADT_X_DSDT: u32 = 140;

/// A table of a header and `body`.
pub(super) fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut sdt = Sdt::new(signature, 36, revision, OEM, OEM_TABLE, OEM_REVISION);
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

fn bytes(object: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    object.to_aml_bytes(&mut out);
    out
}

pub(super) fn build(board: &PcAcpi) -> Tables {
    let mut tables = Tables::default();
    let facs = tables.add(&bytes(&FACS::new()));
    tables.facs = facs;
    let dsdt = tables.add(&dsdt::build(board));
    let fadt = fadt(board, facs, dsdt);
    let mut roots = vec![tables.add_with_pointers(&fadt, &[(FADT_FACS, 4), (FADT_DSDT, 4), (FADT_X_DSDT, 8)])];
    roots.push(tables.add(&madt(board)));
    roots.extend(board.hpet.map(|base| tables.add(&hpet(base))));
    if let Some(ecam) = board.ecam {
        let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
        mcfg.add_ecam(ecam.base, 0, 0, ecam.last_bus);
        roots.push(tables.add(&bytes(&mcfg)));
    }
    if let Some(numa) = &board.numa {
        roots.push(tables.add(&srat(board, numa)));
        let nodes = numa.memory.len();
        if numa.distances.len() == nodes && numa.distances.iter().all(|row| row.len() == nodes) && nodes > 0 {
            roots.push(tables.add(&slit(&numa.distances)));
        }
    }
    roots.extend(board.dmar.map(|d| tables.add(&dmar(board, d))));
    // The power-management timer needs no rereading (Windows ACPI Emulated Devices Table).
    roots.push(tables.add(&table(*b"WAET", 1, &2u32.to_le_bytes())));
    let pointers = |size: u8| (0..roots.len() as u32).map(|n| (36 + n * u32::from(size), size)).collect::<Vec<_>>();
    let body: Vec<u8> = roots.iter().flat_map(|r| r.to_le_bytes()).collect();
    let rsdt = tables.add_with_pointers(&table(*b"RSDT", 1, &body), &pointers(4));
    let body: Vec<u8> = roots.iter().flat_map(|r| u64::from(*r).to_le_bytes()).collect();
    let xsdt = tables.add_with_pointers(&table(*b"XSDT", 1, &body), &pointers(8));
    tables.set_rsdp(OEM, rsdt, xsdt);
    tables
}

/// 5.2.9; the register blocks are those of the ICH9 datasheet, 13.8.3.
fn fadt(board: &PcAcpi, facs: u32, dsdt: u32) -> Vec<u8> {
    let port = |bits: u8, access, port: u16| GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port));
    let base = board.pm_base;
    let mut f = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION);
    f.firmware_ctrl = facs.into();
    f.dsdt = dsdt.into();
    f.x_dsdt = u64::from(dsdt).into();
    f.sci_int = u16::from(board.sci).into();
    if let Some(smi) = board.smi_command {
        f.smi_cmd = u32::from(smi.port).into();
        f.acpi_enable = smi.enable;
        f.acpi_disable = smi.disable;
    }
    let (event, control, timer, gpe) = (base, base + 4, base + 8, base + 0x20);
    f.pm1a_evt_blk = u32::from(event).into();
    f.pm1a_cnt_blk = u32::from(control).into();
    f.pm_tmr_blk = u32::from(timer).into();
    f.gpe0_blk = u32::from(gpe).into();
    (f.pm1_evt_len, f.pm1_cnt_len, f.pm_tmr_len, f.gpe0_blk_len) = (4, 2, 4, 16);
    f.x_pm1a_evt_blk = port(32, AccessSize::WordAccess, event);
    f.x_pm1a_cnt_blk = port(16, AccessSize::WordAccess, control);
    f.x_pm_tmr_blk = port(32, AccessSize::DwordAccess, timer);
    f.x_gpe0_blk = port(128, AccessSize::ByteAccess, gpe);
    // No C2 and C3.
    f.p_lvl2_lat = 0xfff.into();
    f.p_lvl3_lat = 0xfff.into();
    f.century = 0x32;
    const LEGACY_DEVICES: u16 = 1;
    const I8042: u16 = 1 << 1;
    const NO_VGA: u16 = 1 << 2;
    let boot = LEGACY_DEVICES | if board.i8042 { I8042 } else { 0 } | if board.vga { 0 } else { NO_VGA };
    f.iapc_boot_arch = boot.into();
    f.reset_reg = port(8, AccessSize::ByteAccess, 0xcf9);
    f.reset_value = 0xf;
    let mut f = f
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // The power button is a fixed one, a sleep button does not exist.
        .flag(Flags::SlpButton)
        .flag(Flags::RtcS4)
        .flag(Flags::ResetRegSup)
        .flag(Flags::UsePlatformClock);
    // Logical flat mode reaches eight processors.
    if board.processors.iter().any(|p| p.apic_id > 7) {
        f = f.flag(Flags::ForceApicPhysicalDestinationMode);
    }
    bytes(&f.finalize())
}

/// 5.2.12.
fn madt(board: &PcAcpi) -> Vec<u8> {
    const PCAT_COMPAT: u32 = 1;
    const ENABLED: u32 = 1;
    /// Active high, level-triggered.
    const LEVEL_HIGH: u16 = 0xd;
    let mut body = board.local_apic.to_le_bytes().to_vec();
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|p| body.extend_from_slice(p));
    let mut x2apic = false;
    for (uid, cpu) in board.processors.iter().enumerate() {
        match (u8::try_from(uid), u8::try_from(cpu.apic_id)) {
            (Ok(uid), Ok(id)) if id != 0xff && uid != 0xff => put(&[&[0, 8, uid, id], &ENABLED.to_le_bytes()]),
            _ => {
                x2apic = true;
                let uid = uid as u32;
                put(&[&[9, 16, 0, 0], &cpu.apic_id.to_le_bytes(), &ENABLED.to_le_bytes(), &uid.to_le_bytes()]);
            }
        }
    }
    put(&[&[1, 12, board.io_apic_id, 0], &board.io_apic.to_le_bytes(), &0u32.to_le_bytes()]);
    let mut source = |irq: u8, gsi: u32, flags: u16| put(&[&[2, 10, 0, irq], &gsi.to_le_bytes(), &flags.to_le_bytes()]);
    if board.irq0_override {
        source(0, 2, 0);
    }
    let mut level = [5, 9, 10, 11, board.sci];
    level.sort_unstable();
    for (n, irq) in level.iter().enumerate() {
        if level[..n].last() != Some(irq) {
            source(*irq, u32::from(*irq), LEVEL_HIGH);
        }
    }
    // LINT1 of every processor is NMI.
    put(&[&[4, 6, 0xff, 0, 0, 1]]);
    if x2apic {
        put(&[&[10, 12, 0, 0], &u32::MAX.to_le_bytes(), &[1, 0, 0, 0]]);
    }
    table(*b"APIC", 4, &body)
}

/// IA-PC HPET specification, 3.2.4.
fn hpet(base: u32) -> Vec<u8> {
    // Vendor, legacy replacement, 64-bit counter, 3 comparators, revision: the upper half of the capabilities' low word.
    let mut body = 0x8086_a201u32.to_le_bytes().to_vec();
    body.extend_from_slice(&bytes(&GAS::new(
        AddressSpace::SystemMemory,
        64,
        0,
        AccessSize::Undefined,
        u64::from(base),
    )));
    // Number 0, minimum tick 100, no page protection.
    body.extend_from_slice(&[0, 100, 0, 0]);
    table(*b"HPET", 1, &body)
}

/// Intel's architecture specification for directed I/O, chapter 8.
fn dmar(board: &PcAcpi, unit: super::Dmar) -> Vec<u8> {
    const ALL_FUNCTIONS: u8 = 1;
    const ALL_PORTS: u8 = 1;
    const IO_APIC: u8 = 3;
    let mut body = vec![unit.host_bits.saturating_sub(1), u8::from(unit.interrupt_remapping)];
    body.extend_from_slice(&[0; 10]);
    // The unit with the place of the I/O APIC as its only scope; segment 0.
    body.extend_from_slice(&[0, 0, 24, 0, ALL_FUNCTIONS, 0, 0, 0]);
    body.extend_from_slice(&unit.base.to_le_bytes());
    let (bus, devfn) = ((unit.io_apic >> 8) as u8, unit.io_apic as u8);
    body.extend_from_slice(&[IO_APIC, 8, 0, 0, board.io_apic_id, bus, devfn >> 3, devfn & 7]);
    if unit.device_iotlb {
        body.extend_from_slice(&[2, 0, 8, 0, ALL_PORTS, 0, 0, 0]);
    }
    table(*b"DMAR", 1, &body)
}

/// 5.2.16.
fn srat(board: &PcAcpi, numa: &super::Numa) -> Vec<u8> {
    const ENABLED: u32 = 1;
    let mut body = 1u32.to_le_bytes().to_vec();
    body.extend_from_slice(&[0; 8]);
    let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|p| body.extend_from_slice(p));
    for cpu in &board.processors {
        match u8::try_from(cpu.apic_id) {
            Ok(id) if id != 0xff => {
                let [low, high @ ..] = cpu.node.to_le_bytes();
                put(&[&[0, 16, low, id], &ENABLED.to_le_bytes(), &[0], &high, &[0; 4]]);
            }
            _ => put(&[
                &[2, 24, 0, 0],
                &cpu.node.to_le_bytes(),
                &cpu.apic_id.to_le_bytes(),
                &ENABLED.to_le_bytes(),
                &[0; 8],
            ]),
        }
    }
    for (node, ranges) in numa.memory.iter().enumerate() {
        for r in ranges.iter().filter(|r| r.start < r.end) {
            let (node, len) = (node as u32, r.end - r.start);
            put(&[
                &[1, 40],
                &node.to_le_bytes(),
                &[0; 2],
                &r.start.to_le_bytes(),
                &len.to_le_bytes(),
                &[0; 4],
                &ENABLED.to_le_bytes(),
                &[0; 8],
            ]);
        }
    }
    table(*b"SRAT", 3, &body)
}

/// 5.2.17; distances may differ by direction.
fn slit(distances: &[Vec<u8>]) -> Vec<u8> {
    let mut body = (distances.len() as u64).to_le_bytes().to_vec();
    distances.iter().for_each(|row| body.extend_from_slice(row));
    table(*b"SLIT", 1, &body)
}
