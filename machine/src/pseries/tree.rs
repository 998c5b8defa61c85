//! The device tree of the partition (LoPAPR appendix B).

use super::cas::{Offer, Outcome, ov5};
use super::drc::{self, Connectors, DrcType};
use super::options::{Compat, PseriesOptions};
use super::rtas;
use rhea_firmware::FdtNode;
use rhea_irqchip::spapr::{Node, numbers};
use rhea_ppc::Isa;

/// The interrupt controller's phandle.
pub const INTERRUPTS: u32 = 0x1111;
/// Ticks of the time base in a second.
pub const TIMEBASE: u32 = 512_000_000;
/// Logical memory blocks.
pub const LMB: u64 = 256 << 20;
/// The first memory block, which firmware and kernels can use with translation off.
pub const MAX_RMA: u64 = 16 << 30;

/// A kernel in memory, or what firmware is to boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    pub append: Option<String>,
    /// Address and length.
    pub kernel: Option<(u64, u64)>,
    pub little_endian: bool,
    /// First and one past the last address.
    pub initrd: Option<(u64, u64)>,
    /// `-boot order=`.
    pub device: Option<String>,
    pub menu: bool,
    /// Paths of boot devices in order.
    pub list: Vec<String>,
    /// A display is there and wanted.
    pub graphics: bool,
    pub stdout: Option<String>,
}

/// What the tree is made of.
pub struct TreeInput<'a> {
    pub options: &'a PseriesOptions,
    pub name: Option<&'a str>,
    pub uuid: [u8; 16],
    pub ram: u64,
    /// Addresses and lengths of memory behind it.
    pub plugged: &'a [(u64, u64)],
    pub max_ram: u64,
    /// Threads of a core.
    pub threads: u32,
    /// First threads of the cores there are.
    pub cores: &'a [u32],
    pub max_cpus: u32,
    pub drcs: &'a Connectors,
    pub pvr: u32,
    pub isa: Isa,
    pub offer: &'a Offer,
    pub outcome: &'a Outcome,
    /// log2 of the hashed page table's size.
    pub hpt_order: u32,
    pub boot: &'a Boot,
    /// The machine starts: not so after negotiation, when what boot loaders have put into `/chosen` stays.
    pub fresh: bool,
    pub seed: Option<[u8; 32]>,
    /// The interrupt controller and properties of the root that go with it.
    pub controller: (Node, Vec<(String, Vec<u8>)>),
    /// `/vdevice` and the PCI host bridges.
    pub buses: Vec<FdtNode>,
    pub rtas: Vec<(String, u32)>,
    pub rtas_size: u32,
}

/// A node of the irqchip's and the devices' form.
#[must_use]
pub fn node(from: &Node) -> FdtNode {
    FdtNode {
        name: from.name.clone(),
        properties: from.properties.clone(),
        children: from.children.iter().map(node).collect(),
    }
}

/// The processor's level: that it is in, or its own.
fn level(input: &TreeInput<'_>) -> Compat {
    input.outcome.compat.unwrap_or(input.offer.newest)
}

/// The attributes of the processor (LoPAPR B.6.2.1, `ibm,pa-features`): number of bytes, type 0, bytes.
#[must_use]
pub fn pa_features(level: Compat, vsx: bool, dawr1: bool) -> Vec<u8> {
    const V2_07: &[(usize, u8)] = &[
        // MMU, FPU, SLB, RUN, data breakpoints, no-execute; rounding, DABRX, SPRG3, SLB fields, PP 0b110.
        (0, 0xf6),
        (1, 0x1f),
        // Virtualized partition memory, data stream 2.05, PPR, 2.02, 2.06; large segment and page sizes.
        (2, 0xc7),
        (3, 0xc0),
        // Little-endian, CFAR, event-based branch, load-store quadword.
        (5, 0xf0),
        // Data stream 2.07.
        (6, 0x80),
        (16, VECTOR),
        (18, VECTOR),
        // Vector XOR.
        (20, 0x80),
    ];
    const V3_0: &[(usize, u8)] = &[
        // Large decrementer, 64-bit features, performance monitor.
        (24, 0x80),
        (26, 0x80),
        (28, 0x80),
        // Little-endian atomics, event-based branches.
        (32, 0x80),
        (34, 0xc0),
        // Radix.
        (40, 0x80),
        // Performance monitor 3.0, addpcis, scv.
        (42, 0x80),
        (44, 0x80),
        (46, 0x80),
        // SIMD, quad precision, strings.
        (48, 0x80),
        (50, 0x80),
        (52, 0x80),
        // Decimal floating point and integers, SHA.
        (54, 0x80),
        (56, 0x80),
        (58, 0x80),
        // Atomic memory operations, random numbers.
        (60, 0x80),
        (62, 0x80),
    ];
    const VECTOR: u8 = 0x80;
    const VSX: usize = 18;
    const DAWR1: usize = 64;
    let len = match level {
        Compat::Power8 => 24,
        Compat::Power9 => 66,
        Compat::Power10 => 74,
    };
    let mut bytes = vec![0; len + 2];
    bytes[0] = len as u8;
    let more = if level >= Compat::Power9 { V3_0 } else { &[] };
    for (n, value) in V2_07.iter().chain(more) {
        if *n != VSX || vsx {
            bytes[n + 2] = *value;
        }
    }
    if level >= Compat::Power10 && dawr1 {
        bytes[DAWR1 + 2] = 0x80;
    }
    bytes
}

/// Segment base page sizes with the page sizes each allows (LoPAPR, `ibm,segment-page-sizes`), up to a page of `1 << max`.
#[must_use]
pub fn segment_page_sizes(max: u8) -> Vec<u32> {
    /// Base page shift, SLB encoding, pages: shift and encoding in the entry.
    const SIZES: &[(u8, u32, &[(u8, u32)])] = &[
        (12, 0, &[(12, 0), (16, 7), (24, 0x38)]),
        (16, 0x110, &[(16, 1), (24, 8)]),
        (24, 0x100, &[(24, 0)]),
        (34, 0x120, &[(34, 3)]),
    ];
    let mut cells = Vec::new();
    for (shift, slb, pages) in SIZES.iter().filter(|s| s.0 <= max) {
        let pages: Vec<_> = pages.iter().filter(|p| p.0 <= max).collect();
        cells.extend([u32::from(*shift), *slb, pages.len() as u32]);
        for (shift, encoding) in pages {
            cells.extend([u32::from(*shift), *encoding]);
        }
    }
    cells
}

/// The node of the core whose first thread is `first`.
#[must_use]
pub fn cpu_node(input: &TreeInput<'_>, first: u32) -> FdtNode {
    let (level, caps) = (level(input), &input.options.caps);
    let name = match input.isa {
        Isa::V2_07 => "PowerPC,POWER8",
        Isa::V3_0 => "PowerPC,POWER9",
        Isa::V3_1 => "PowerPC,POWER10",
    };
    let version = input.outcome.compat.map_or(input.pvr, Compat::logical_pvr);
    let threads: Vec<u32> = (first..(first + input.threads.max(1)).min(input.max_cpus)).collect();
    let mut cpu = FdtNode::new(format!("{name}@{first:x}"));
    cpu.string("device_type", "cpu").u32("reg", first).string("status", "okay").flag("64-bit");
    cpu.u32("cpu-version", version);
    for kind in ["d", "i"] {
        cpu.u32(&format!("{kind}-cache-block-size"), 128).u32(&format!("{kind}-cache-line-size"), 128);
        cpu.u32(&format!("{kind}-cache-size"), 0x8000).u32(&format!("{kind}-cache-sets"), 32);
    }
    cpu.u32("timebase-frequency", TIMEBASE).u32("clock-frequency", 1_000_000_000);
    cpu.u64s("ibm,extended-clock-frequency", &[1_000_000_000]);
    cpu.u32("slb-size", 32).u32("ibm,slb-size", 32);
    cpu.cells("ibm,processor-segment-sizes", &[28, 40, u32::MAX, u32::MAX]);
    cpu.cells("ibm,segment-page-sizes", &segment_page_sizes(caps.max_page_shift));
    cpu.u32("ibm,vmx", if caps.vsx { 2 } else { 1 });
    if caps.dfp {
        cpu.u32("ibm,dfp", 1);
    }
    cpu.flag("ibm,purr").flag("ibm,spurr");
    cpu.set("ibm,pa-features", pa_features(level, caps.vsx, caps.dawr1));
    if input.offer.radix {
        // log2 of the page size below, encoding for tlbie above (Book III, table of AP).
        cpu.cells("ibm,processor-radix-AP-encodings", &[0x0000_000c, 0xa000_0010, 0x2000_0015, 0x4000_001e]);
    }
    if caps.large_decrementer && level >= Compat::Power9 {
        cpu.u32("ibm,dec-bits", 56);
    }
    cpu.cells("ibm,pft-size", &[0, input.hpt_order]);
    cpu.cells("ibm,ppc-interrupt-server#s", &threads);
    let pairs: Vec<u32> = threads.iter().flat_map(|t| [*t, 0]).collect();
    cpu.cells("ibm,ppc-interrupt-gserver#s", &pairs);
    cpu.cells("ibm,associativity", &[5, 0, 0, 0, 0, first]);
    cpu.u32("ibm,chip-id", 0).u32("ibm,my-drc-index", drc::index(DrcType::Cpu, first));
    cpu
}

fn cpus(root: &mut FdtNode, input: &TreeInput<'_>) {
    let cpus = root.child("cpus");
    cpus.u32("#address-cells", 1).u32("#size-cells", 0);
    input.drcs.describe(cpus, |kind, _| kind == DrcType::Cpu);
    cpus.children.extend(input.cores.iter().map(|first| cpu_node(input, *first)));
}

/// The part of RAM that is usable with translation off.
#[must_use]
pub fn rma(ram: u64) -> u64 {
    ram.min(MAX_RMA)
}

/// Numbers of the memory blocks in which memory can be plugged.
#[must_use]
pub fn plug_range(ram: u64, max_ram: u64) -> std::ops::Range<u32> {
    (ram.div_ceil(LMB) as u32)..(max_ram.max(ram) / LMB) as u32
}

const ASSOCIATIVITY: [u32; 5] = [4, 0, 0, 0, 0];

/// A range of memory.
#[must_use]
pub fn memory_node(start: u64, len: u64) -> FdtNode {
    let mut node = FdtNode::new(format!("memory@{start:x}"));
    node.string("device_type", "memory").u64s("reg", &[start, len]);
    node.cells("ibm,associativity", &ASSOCIATIVITY);
    node
}

/// Memory that is always there: the real mode area, then naturally aligned blocks of a power of two.
fn memory(root: &mut FdtNode, input: &TreeInput<'_>) {
    let mut start = 0;
    let mut end = rma(input.ram);
    loop {
        root.children.push(memory_node(start, end - start));
        if end >= input.ram {
            break;
        }
        start = end;
        let block = 1u64 << start.trailing_zeros().min(63 - (input.ram - start).leading_zeros());
        end = start + block;
    }
    let knows = |(byte, bit): (usize, u32)| input.outcome.vec5.has(byte, bit);
    if input.offer.drmem && knows(ov5::DRCONF_MEMORY) {
        reconfigurable(root, input, knows(ov5::DRMEM_V2));
    }
}

/// Memory in blocks that come and go (LoPAPR B.6.6.2); `sets`: as `ibm,dynamic-memory-v2`.
fn reconfigurable(root: &mut FdtNode, input: &TreeInput<'_>, sets: bool) {
    /// Flags: assigned to the partition, without a connector, reserved.
    const ASSIGNED: u32 = 8;
    const NO_CONNECTOR: u32 = 0x20;
    const RESERVED: u32 = 0x80;
    const NO_ASSOCIATIVITY: u32 = u32::MAX;
    let node = root.child("ibm,dynamic-reconfiguration-memory");
    node.u64s("ibm,lmb-size", &[LMB]).u32("ibm,memory-flags-mask", 0xff).u32("ibm,memory-preservation-time", 0);
    // One associativity list.
    node.cells("ibm,associativity-lookup-arrays", &[1, 4, 0, 0, 0, 0]);
    let range = plug_range(input.ram, input.max_ram);
    let assigned = |block: u32| {
        let at = u64::from(block) * LMB;
        input.plugged.iter().any(|(start, len)| at >= *start && at - start < *len)
    };
    // Runs of blocks with the same flags: first one, number, connector of the first, index of the list, flags.
    let mut runs = vec![(0, range.start, 0, NO_ASSOCIATIVITY, RESERVED | NO_CONNECTOR)];
    for block in range {
        let flags = if assigned(block) { ASSIGNED } else { 0 };
        match runs.last_mut() {
            Some((_, count, connector, _, last)) if *last == flags && *connector != 0 => *count += 1,
            _ => runs.push((block, 1, drc::index(DrcType::Lmb, block), 0, flags)),
        }
    }
    let mut cells = Vec::new();
    if sets {
        cells.push(runs.len() as u32);
        for (first, count, connector, list, flags) in runs {
            let at = u64::from(first) * LMB;
            cells.extend([count, (at >> 32) as u32, at as u32, connector, list, flags]);
        }
        node.cells("ibm,dynamic-memory-v2", &cells);
        return;
    }
    cells.push(runs.iter().map(|r| r.1).sum());
    for (first, count, connector, list, flags) in runs {
        for n in 0..count {
            let at = u64::from(first + n) * LMB;
            let connector = if connector == 0 { 0 } else { connector + n };
            cells.extend([(at >> 32) as u32, at as u32, connector, 0, list, flags]);
        }
    }
    node.cells("ibm,dynamic-memory", &cells);
}

fn chosen(root: &mut FdtNode, input: &TreeInput<'_>) {
    let (boot, chosen) = (input.boot, root.child("chosen"));
    chosen.set("ibm,architecture-vec-5", input.outcome.vec5.encode(ov5::LEN));
    chosen.set("ibm,arch-vec-5-platform-support", input.offer.platform_support());
    if !input.fresh {
        return;
    }
    chosen.string("bootargs", boot.append.as_deref().unwrap_or(""));
    if let Some((start, end)) = boot.initrd {
        // Firmware reads one cell; it is all below 2 GiB.
        chosen.u32("linux,initrd-start", start as u32).u32("linux,initrd-end", end as u32);
    }
    if let Some((address, len)) = boot.kernel {
        chosen.u64s("qemu,boot-kernel", &[address, len]);
        if boot.little_endian {
            chosen.flag("qemu,boot-kernel-le");
        }
    }
    if boot.menu {
        chosen.u32("qemu,boot-menu", 1);
    }
    if boot.graphics {
        chosen.u32("qemu,graphic-width", 800).u32("qemu,graphic-height", 600).u32("qemu,graphic-depth", 32);
    }
    if !boot.list.is_empty() {
        chosen.string("qemu,boot-list", &boot.list.join(" "));
    }
    if let Some(device) = &boot.device {
        chosen.string("qemu,boot-device", device);
    }
    if let Some(stdout) = boot.stdout.as_deref().filter(|_| !boot.graphics) {
        chosen.string("linux,stdout-path", stdout).string("stdout-path", stdout);
    }
    if let Some(seed) = input.seed {
        chosen.set("rng-seed", seed.to_vec());
    }
}

/// Sets of hypercalls, by the names of LoPAPR table 14.4.
fn functions(input: &TreeInput<'_>) -> Vec<&'static str> {
    let mut names = vec![
        "hcall-pft",
        "hcall-term",
        "hcall-dabr",
        "hcall-interrupt",
        "hcall-tce",
        "hcall-vio",
        "hcall-splpar",
        "hcall-bulk",
        "hcall-set-mode",
        "hcall-sprg0",
        "hcall-copy",
        "hcall-debug",
        "hcall-vphn",
        "hcall-multi-tce",
    ];
    if !input.offer.kernel {
        // The kernel's page table has no such call, and its processors wait for its own H_PROD only.
        names.extend(["hcall-join", "hcall-block-remove"]);
    }
    if input.offer.hpt_resize {
        names.push("hcall-hpt-resize");
    }
    if input.options.caps.rpt_invalidate {
        names.push("hcall-rpt-invalidate");
    }
    names
}

fn rtas_node(root: &mut FdtNode, input: &TreeInput<'_>) {
    let functions = functions(input);
    let node = root.child("rtas");
    node.strings("ibm,hypertas-functions", &functions);
    node.strings("qemu,hypertas-functions", &["hcall-memop1"]);
    node.cells("ibm,associativity-reference-points", &[4, 3, 2, 1]);
    node.cells("ibm,max-associativity-domains", &[4, 1, 1, 1, 1]);
    node.u32("rtas-size", input.rtas_size).u32("rtas-version", 1);
    node.u32("rtas-error-log-max", rtas::ERROR_LOG_MAX).u32("rtas-event-scan-rate", 1);
    node.flag("ibm,change-msix-capable").flag("ibm,extended-os-term");
    let max = input.max_ram.max(input.ram);
    node.cells(
        "ibm,lrdr-capacity",
        &[
            (max >> 32) as u32,
            max as u32,
            (LMB >> 32) as u32,
            LMB as u32,
            input.max_cpus.div_ceil(input.threads.max(1)),
        ],
    );
    for (name, token) in &input.rtas {
        node.u32(name, *token);
    }
}

fn events(root: &mut FdtNode, input: &TreeInput<'_>) {
    let node = root.child("event-sources");
    node.flag("interrupt-controller").u32("#interrupt-cells", 2);
    let mut sources = vec![("epow-events", numbers::EPOW)];
    if input.offer.hotplug_events {
        sources.push(("hot-plug-events", numbers::HOT_PLUG));
    }
    let ranges: Vec<u32> = sources.iter().flat_map(|(_, irq)| [*irq, 1]).collect();
    node.cells("interrupt-ranges", &ranges);
    for (name, irq) in sources {
        node.child(name).cells("interrupts", &[irq, 0]);
    }
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Builds the tree.
#[must_use]
pub fn build(input: &TreeInput<'_>) -> FdtNode {
    let mut root = FdtNode::default();
    root.string("device_type", "chrp").string("model", "IBM pSeries (emulated by rhea)");
    root.string("compatible", "qemu,pseries").u32("#address-cells", 2).u32("#size-cells", 2);
    if let Some(model) = &input.options.host_model {
        root.string("host-model", model);
    }
    if let Some(serial) = &input.options.host_serial {
        root.string("host-serial", serial);
    }
    let uuid = uuid_text(&input.uuid);
    root.string("vm,uuid", &uuid);
    if input.uuid != [0; 16] {
        root.string("system-id", &uuid);
    }
    if let Some(name) = input.name {
        root.string("ibm,partition-name", name);
    }
    for (name, value) in &input.controller.1 {
        root.set(name, value.clone());
    }
    root.u32("interrupt-parent", INTERRUPTS);
    memory(&mut root, input);
    input.drcs.describe(&mut root, |kind, _| kind == DrcType::Lmb);
    root.children.push(node(&input.controller.0));
    root.children.extend(input.buses.iter().cloned());
    events(&mut root, input);
    rtas_node(&mut root, input);
    chosen(&mut root, input);
    cpus(&mut root, input);
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pseries::options::IcMode;

    #[test]
    fn the_tree_is_complete() {
        let options = PseriesOptions::parse(&["pseries".to_owned()]).unwrap();
        let offer = Offer {
            ic_mode: IcMode::Dual,
            radix: true,
            hash: true,
            kernel: false,
            pvr: 0x0080_0200,
            newest: Compat::Power10,
            max_compat: None,
            hpt_resize: true,
            hotplug_events: true,
            drmem: true,
        };
        let drcs = Connectors::default();
        drcs.add(DrcType::Cpu, 4, true);
        let boot = Boot { append: Some("quiet".into()), initrd: Some((1, 2)), ..Boot::default() };
        let input = TreeInput {
            options: &options,
            name: Some("guest"),
            uuid: [1; 16],
            ram: 20 << 30,
            plugged: &[(21 << 30, 1 << 30)],
            max_ram: 64 << 30,
            threads: 4,
            cores: &[0, 4],
            max_cpus: 16,
            drcs: &drcs,
            pvr: offer.pvr,
            isa: Isa::V3_1,
            outcome: &offer.initial(),
            offer: &offer,
            hpt_order: 24,
            boot: &boot,
            fresh: true,
            seed: Some([1; 32]),
            controller: (Node::new("interrupt-controller"), vec![]),
            buses: vec![FdtNode { children: vec![FdtNode::new("vty@71000000")], ..FdtNode::new("vdevice") }],
            rtas: vec![("display-character".to_owned(), 0x2000)],
            rtas_size: 4096,
        };
        let tree = build(&input);
        let again = FdtNode::parse(&tree.flatten()).unwrap();
        assert_eq!(again, tree);
        let cpus = tree.find("cpus").unwrap();
        assert_eq!(cpus.children.len(), 2);
        assert_eq!(cpus.children[1].name, "PowerPC,POWER10@4");
        assert_eq!(cpus.children[1].property("ibm,ppc-interrupt-server#s").unwrap().len(), 16);
        let memory = tree.find("ibm,dynamic-reconfiguration-memory").unwrap();
        // What is always there, free, plugged, free.
        assert_eq!(memory.property("ibm,dynamic-memory-v2").unwrap().len(), 4 + 4 * 24);
        assert_eq!(memory.property("ibm,dynamic-memory-v2").unwrap()[4 + 2 * 24..][..4], [0, 0, 0, 4]);
        assert!(cpus.property("ibm,drc-indexes").is_some());
        assert_eq!(tree.find("memory@0").unwrap().property("reg").unwrap()[8..], (16u64 << 30).to_be_bytes());
        let again = build(&TreeInput {
            fresh: false,
            controller: input.controller.clone(),
            buses: vec![],
            rtas: vec![],
            ..input
        });
        assert!(again.find("chosen").is_some_and(|c| c.property("bootargs").is_none()));
        // Without places for more: blocks of a power of two.
        let offer = Offer { drmem: false, ..offer };
        let tree = build(&TreeInput { max_ram: 20 << 30, offer: &offer, ..input });
        assert!(tree.find("memory@400000000").is_some() && tree.find("ibm,dynamic-reconfiguration-memory").is_none());
        for name in ["chosen", "rtas", "event-sources", "vdevice", "interrupt-controller"] {
            assert!(tree.find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn processor_attributes() {
        let p10 = pa_features(Compat::Power10, true, true);
        assert_eq!((p10[0], p10.len(), p10[42], p10[66]), (74, 76, 0x80, 0x80));
        let p8 = pa_features(Compat::Power8, false, true);
        assert_eq!((p8.len(), p8[20]), (26, 0));
        assert_eq!(segment_page_sizes(16), [12, 0, 2, 12, 0, 16, 7, 16, 0x110, 1, 16, 1]);
        assert_eq!(segment_page_sizes(24).len(), 3 + 6 + 3 + 4 + 3 + 2);
    }
}
