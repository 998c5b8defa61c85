//! The device tree of `virt`, with the bindings of Linux (Documentation/devicetree/bindings).

use super::map::{self, Map, Window};
use crate::options::{Smp, VirtOptions};
use rhea_firmware::FdtNode;

/// What the tree depends on besides the options.
#[derive(Clone, Debug)]
pub struct FdtInput<'a> {
    pub options: &'a VirtOptions,
    pub map: &'a Map,
    pub smp: &'a Smp,
    /// The GIC is a GICv3.
    pub v3: bool,
    /// `compatible` of the CPUs, like `arm,cortex-a72`.
    pub cpu_compatible: &'a str,
    /// How PSCI is called; `None` if the firmware of the guest provides it.
    pub psci_method: Option<&'a str>,
    /// The CPUs have the PMU.
    pub pmu: bool,
    /// The CPUs have the EL2 virtual timer (FEAT_VHE).
    pub vhe: bool,
    /// Random bytes for `rng-seed` and `kaslr-seed`.
    pub seed: Option<[u8; 40]>,
}

mod phandle {
    pub const GIC: u32 = 1;
    pub const MSI: u32 = 2;
    pub const CLOCK: u32 = 3;
    pub const GPIO: u32 = 4;
    pub const SECURE_GPIO: u32 = 5;
    /// The first CPU; the others follow.
    pub const CPU0: u32 = 0x1000;
}

const SPI: u32 = 0;
const PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;

fn named(name: &str, w: Window) -> String {
    format!("{name}@{:x}", w.start)
}

/// The MPIDR affinity of CPU `index`: 16 CPUs (8 with GICv2) share an Aff1.
#[must_use]
pub fn mpidr(index: u32, v3: bool) -> u64 {
    let per_cluster = if v3 { 16 } else { 8 };
    u64::from(index / per_cluster) << 8 | u64::from(index % per_cluster)
}

/// The tree without what depends on the kernel: see [`add_boot`].
#[must_use]
pub fn build(input: &FdtInput<'_>) -> FdtNode {
    let mut root = FdtNode::default();
    root.u32("interrupt-parent", phandle::GIC).string("model", "linux,dummy-virt").flag("dma-coherent");
    root.string("compatible", "linux,dummy-virt").u32("#size-cells", 2).u32("#address-cells", 2);
    let chosen = root.child("chosen");
    chosen.string("stdout-path", &format!("/{}", named("pl011", map::UART)));
    if let Some(seed) = &input.seed {
        chosen.set("rng-seed", seed[..32].to_vec()).set("kaslr-seed", seed[32..].to_vec());
    }
    let memory = root.child(named("memory", input.map.ram));
    memory.string("device_type", "memory").u64s("reg", &[input.map.ram.start, input.map.ram.len]);
    cpus(&mut root, input);
    if let Some(method) = input.psci_method {
        let psci = root.child("psci");
        psci.strings("compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]).string("method", method);
        psci.u32("cpu_suspend", 0xc400_0001)
            .u32("cpu_off", 0x8400_0002)
            .u32("cpu_on", 0xc400_0003)
            .u32("migrate", 0xc400_0005);
    }
    timers(&mut root, input);
    interrupts(&mut root, input);
    let clock = root.child("apb-pclk");
    clock.string("compatible", "fixed-clock").u32("#clock-cells", 0).u32("clock-frequency", 24_000_000);
    clock.string("clock-output-names", "clk24mhz").u32("phandle", phandle::CLOCK);
    platform(&mut root, input);
    pcie(&mut root, input);
    root
}

fn cpus(root: &mut FdtNode, input: &FdtInput<'_>) {
    let smp = input.smp;
    let cpus = root.child("cpus");
    cpus.u32("#address-cells", 1).u32("#size-cells", 0);
    let map = cpus.child("cpu-map");
    let mut index = 0;
    for socket in 0..smp.sockets {
        let socket = map.child(format!("socket{socket}"));
        for cluster in 0..smp.clusters {
            let cluster = socket.child(format!("cluster{cluster}"));
            for core in 0..smp.cores {
                let core = cluster.child(format!("core{core}"));
                for thread in 0..smp.threads {
                    let node = if smp.threads > 1 { core.child(format!("thread{thread}")) } else { &mut *core };
                    node.u32("cpu", phandle::CPU0 + index);
                    index += 1;
                }
            }
        }
    }
    for index in 0..smp.cpus {
        let affinity = mpidr(index, input.v3) as u32;
        let cpu = cpus.child(format!("cpu@{affinity:x}"));
        cpu.string("device_type", "cpu").string("compatible", input.cpu_compatible).u32("reg", affinity);
        if input.psci_method.is_some() {
            cpu.string("enable-method", "psci");
        }
        cpu.u32("phandle", phandle::CPU0 + index);
    }
}

/// Flags of a PPI: GICv2 wants the mask of CPUs in bits 15:8.
fn ppi_flags(input: &FdtInput<'_>) -> u32 {
    let mask = if input.v3 { 0 } else { ((1u32 << input.smp.cpus.min(8)) - 1) << 8 };
    LEVEL_HIGH | mask
}

fn timers(root: &mut FdtNode, input: &FdtInput<'_>) {
    let flags = ppi_flags(input);
    let timer = root.child("timer");
    timer.strings("compatible", &["arm,armv8-timer", "arm,armv7-timer"]).flag("always-on");
    let mut cells = Vec::new();
    for ppi in [map::PPI_TIMER_SECURE, map::PPI_TIMER_PHYS, map::PPI_TIMER_VIRT, map::PPI_TIMER_HYP] {
        cells.extend([PPI, ppi, flags]);
    }
    if input.vhe {
        cells.extend([PPI, map::PPI_TIMER_HYP_VIRT, flags]);
    }
    timer.cells("interrupts", &cells);
    if input.pmu {
        let pmu = root.child("pmu");
        pmu.string("compatible", "arm,armv8-pmuv3").cells("interrupts", &[PPI, map::PPI_PMU, flags]);
    }
}

fn interrupts(root: &mut FdtNode, input: &FdtInput<'_>) {
    let gic = root.child(named("intc", map::GIC_DIST));
    gic.u32("phandle", phandle::GIC).u32("#interrupt-cells", 3).flag("interrupt-controller");
    gic.u32("#address-cells", 2).u32("#size-cells", 2).flag("ranges");
    let dist = map::GIC_DIST;
    if input.v3 {
        gic.string("compatible", "arm,gic-v3");
        let low = map::GIC_REDIST;
        let mut reg = vec![dist.start, dist.len, low.start, low.len];
        if let Some(high) = input.map.high_redist {
            reg.extend([high.start, high.len]);
            gic.u32("#redistributor-regions", 2);
        } else {
            gic.u32("#redistributor-regions", 1);
        }
        gic.u64s("reg", &reg);
        if input.options.virtualization {
            gic.cells("interrupts", &[PPI, map::PPI_MAINTENANCE, LEVEL_HIGH]);
        }
        if input.options.its {
            let its = gic.child(named("its", map::GIC_ITS));
            its.string("compatible", "arm,gic-v3-its").flag("msi-controller").u32("#msi-cells", 1);
            its.u64s("reg", &[map::GIC_ITS.start, map::GIC_ITS.len]).u32("phandle", phandle::MSI);
        }
    } else {
        gic.string("compatible", "arm,cortex-a15-gic");
        let cpu = map::GIC_CPU;
        let mut reg = vec![dist.start, dist.len, cpu.start, cpu.len];
        if input.options.virtualization {
            reg.extend([map::GIC_HYP.start, map::GIC_HYP.len, map::GIC_VCPU.start, map::GIC_VCPU.len]);
            gic.cells("interrupts", &[PPI, map::PPI_MAINTENANCE, ppi_flags(input)]);
        }
        gic.u64s("reg", &reg);
        let v2m = gic.child(named("v2m", map::GIC_V2M));
        v2m.string("compatible", "arm,gic-v2m-frame").flag("msi-controller");
        v2m.u64s("reg", &[map::GIC_V2M.start, map::GIC_V2M.len]).u32("phandle", phandle::MSI);
    }
}

fn primecell(root: &mut FdtNode, name: &str, w: Window, compatible: &str, spi: u32, clocks: &[&str]) {
    let node = root.child(named(name, w));
    node.strings("compatible", &[compatible, "arm,primecell"]).u64s("reg", &[w.start, w.len]);
    node.cells("interrupts", &[SPI, spi, LEVEL_HIGH]);
    node.cells("clocks", &vec![phandle::CLOCK; clocks.len()]).strings("clock-names", clocks);
}

/// Both banks; with EL3 the first one holds the Secure firmware and is hidden from the other world.
fn flash(root: &mut FdtNode, secure: bool) {
    let bank = |n: u64| Window { start: map::FLASH.start + n * map::FLASH_BANK, len: map::FLASH_BANK };
    let (first, second) = (bank(0), bank(1));
    let describe = |node: &mut FdtNode, reg: &[u64]| {
        node.string("compatible", "cfi-flash").u32("bank-width", 4).u64s("reg", reg);
    };
    if secure {
        let node = root.child(named("secflash", first));
        describe(node, &[first.start, first.len]);
        node.string("status", "disabled").string("secure-status", "okay");
        describe(root.child(named("flash", second)), &[second.start, second.len]);
    } else {
        describe(root.child(named("flash", first)), &[first.start, first.len, second.start, second.len]);
    }
}

/// The GPIO through which Secure firmware resets the machine or switches it off.
fn secure_gpio(root: &mut FdtNode) {
    primecell(root, "pl061", map::SECURE_GPIO, "arm,pl061", map::SECURE_GPIO_SPI, &["apb_pclk"]);
    let gpio = root.child_mut(&named("pl061", map::SECURE_GPIO));
    gpio.u32("#gpio-cells", 2).flag("gpio-controller").u32("phandle", phandle::SECURE_GPIO);
    gpio.string("status", "disabled").string("secure-status", "okay");
    for (name, pin) in [("gpio-restart", 0), ("gpio-poweroff", 1)] {
        let node = root.child(name);
        node.string("compatible", name).cells("gpios", &[phandle::SECURE_GPIO, pin, 0]);
        node.string("status", "disabled").string("secure-status", "okay");
    }
}

fn platform(root: &mut FdtNode, input: &FdtInput<'_>) {
    flash(root, input.options.secure);
    primecell(root, "pl011", map::UART, "arm,pl011", map::UART_SPI, &["uartclk", "apb_pclk"]);
    if input.options.secure {
        primecell(root, "pl011", map::SECURE_UART, "arm,pl011", map::SECURE_UART_SPI, &["uartclk", "apb_pclk"]);
        let uart = root.child_mut(&named("pl011", map::SECURE_UART));
        uart.string("status", "disabled").string("secure-status", "okay");
        let mem = root.child(named("secram", map::SECURE_MEM));
        mem.string("device_type", "memory").u64s("reg", &[map::SECURE_MEM.start, map::SECURE_MEM.len]);
        mem.string("status", "disabled").string("secure-status", "okay");
        secure_gpio(root);
    }
    primecell(root, "pl031", map::RTC, "arm,pl031", map::RTC_SPI, &["apb_pclk"]);
    primecell(root, "pl061", map::GPIO, "arm,pl061", map::GPIO_SPI, &["apb_pclk"]);
    let gpio = root.child_mut(&named("pl061", map::GPIO));
    gpio.u32("#gpio-cells", 2).flag("gpio-controller").u32("phandle", phandle::GPIO);
    let keys = root.child("gpio-keys");
    keys.string("compatible", "gpio-keys");
    let key = keys.child("poweroff");
    key.string("label", "GPIO Key Poweroff").u32("linux,code", 116).cells("gpios", &[phandle::GPIO, 3, 0]);
    let fw = root.child(named("fw-cfg", map::FW_CFG));
    fw.string("compatible", "qemu,fw-cfg-mmio").u64s("reg", &[map::FW_CFG.start, map::FW_CFG.len]).flag("dma-coherent");
    for i in 0..map::VIRTIO_COUNT {
        let start = map::VIRTIO.start + i * map::VIRTIO.len;
        let virtio = root.child(format!("virtio_mmio@{start:x}"));
        virtio.string("compatible", "virtio,mmio").u64s("reg", &[start, map::VIRTIO.len]);
        virtio.cells("interrupts", &[SPI, map::VIRTIO_SPI + i as u32, LEVEL_HIGH]).flag("dma-coherent");
    }
}

fn pcie(root: &mut FdtNode, input: &FdtInput<'_>) {
    let ecam = input.map.ecam;
    let pcie = root.child(named("pcie", map::PCIE_MMIO));
    pcie.string("compatible", "pci-host-ecam-generic").string("device_type", "pci");
    pcie.u32("#address-cells", 3).u32("#size-cells", 2).u32("linux,pci-domain", 0);
    pcie.cells("bus-range", &[0, ((ecam.len >> 20) - 1) as u32]).flag("dma-coherent");
    if input.v3 && input.options.its {
        pcie.cells("msi-map", &[0, phandle::MSI, 0, 0x1_0000]);
    } else if !input.v3 {
        pcie.u32("msi-parent", phandle::MSI);
    }
    pcie.u64s("reg", &[ecam.start, ecam.len]);
    // phys.hi of a range: 01 I/O, 02 32-bit memory, 03 64-bit memory.
    let hi_lo = |v: u64| [(v >> 32) as u32, v as u32];
    let mut ranges = Vec::new();
    let mut range = |kind: u32, bus: u64, w: Window| {
        ranges.push(kind << 24);
        for v in [bus, w.start, w.len] {
            ranges.extend(hi_lo(v));
        }
    };
    range(1, 0, map::PCIE_PIO);
    range(2, map::PCIE_MMIO.start, map::PCIE_MMIO);
    if let Some(high) = input.map.high_mmio {
        range(3, high.start, high);
    }
    pcie.cells("ranges", &ranges);
    pcie.u32("#interrupt-cells", 1).cells("interrupt-map-mask", &[0x1800, 0, 0, 7]);
    let mut routes = Vec::new();
    for slot in 0..4u32 {
        for pin in 0..4u32 {
            let spi = map::PCIE_SPI + (pin + slot) % 4;
            routes.extend([slot << 11, 0, 0, pin + 1, phandle::GIC, 0, 0, SPI, spi, LEVEL_HIGH]);
        }
    }
    pcie.cells("interrupt-map", &routes);
}

/// Adds what the kernel is told: command line and initrd (start and end address).
pub fn add_boot(root: &mut FdtNode, append: Option<&str>, initrd: Option<(u64, u64)>) {
    let chosen = root.child_mut("chosen");
    if let Some(append) = append {
        chosen.string("bootargs", append);
    }
    if let Some((start, end)) = initrd {
        chosen.u64s("linux,initrd-start", &[start]).u64s("linux,initrd-end", &[end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_complete() {
        let options = VirtOptions::parse(&["virt,secure=on".to_owned()]).unwrap();
        let map = Map::new(1 << 31, 200, &options, true).unwrap();
        let smp = Smp::parse("200,sockets=2,threads=2").unwrap();
        let input = FdtInput {
            options: &options,
            map: &map,
            smp: &smp,
            v3: true,
            cpu_compatible: "arm,cortex-a72",
            psci_method: Some("hvc"),
            pmu: true,
            vhe: true,
            seed: Some([1; 40]),
        };
        let mut root = build(&input);
        add_boot(&mut root, Some("console=ttyAMA0"), Some((0x4800_0000, 0x4900_0000)));
        let again = FdtNode::parse(&root.to_blob().unwrap()).unwrap();
        assert_eq!(again, root);
        let cpus = again.find("cpus").unwrap();
        assert_eq!(cpus.children.len(), 201);
        assert_eq!(cpus.children[17 + 1].property("reg"), Some(0x101u32.to_be_bytes().as_slice()));
        for name in [
            "intc@8000000",
            "pcie@10000000",
            "virtio_mmio@a003e00",
            "pl011@9040000",
            "gpio-keys",
            "timer",
            "psci",
            "pmu",
            "secflash@0",
            "flash@4000000",
            "pl061@90b0000",
            "gpio-poweroff",
        ] {
            assert!(again.find(name).is_some(), "{name}");
        }
        assert_eq!(again.find("chosen").unwrap().property("bootargs"), Some(b"console=ttyAMA0\0".as_slice()));
    }
}
