//! What firmware is told, and what a kernel that starts without firmware finds.

use super::map;
use super::platform;
use crate::config::MachineConfig;
use crate::files::{at, read};
use crate::options::Q35Options;
use rhea_chipset::lpc::pm::SMI_FEATURES;
use rhea_chipset::{Lpc, Mch};
use rhea_device::OptionError;
use rhea_firmware::FwCfg;
use rhea_firmware::acpi::{self, PcAcpi, Processor, SerialPort, Tables};
use rhea_firmware::smbios::{EntryPoint, Smbios, SmbiosMachine, SmbiosOptions};
use rhea_firmware::x86::memory::FOUR_GIB;
use rhea_firmware::x86::{
    self, BootImage, DirectBoot, FirmwareFiles, Kernel, Module, PcFwCfg, RamLayout, parse_modules,
};
use std::ops::Range;
use std::sync::Arc;

/// Everything that is told.
pub struct Firmware<'a> {
    pub config: &'a MachineConfig,
    pub options: &'a Q35Options,
    /// Port and interrupt of each serial port.
    pub serial: Vec<(u16, u8)>,
    pub ram: RamLayout,
    pub apic_ids: &'a [u32],
    pub phys_bits: u32,
    pub vga: bool,
    pub sleep: acpi::SleepTypes,
    /// CPUID leaf 1: EAX in the lower half, EDX in the upper.
    pub processor_id: u64,
    pub dmar: Option<acpi::Dmar>,
}

impl Firmware<'_> {
    fn ecam(&self) -> acpi::Ecam {
        acpi::Ecam { base: rhea_chipset::mch::ECAM_BASE, last_bus: 255 }
    }
    /// Memory the PCI host decodes, below and above 4 GiB.
    pub fn windows(&self) -> (Vec<Range<u64>>, Option<Range<u64>>) {
        acpi::pci_windows(self.ram, Some(self.ecam()), self.phys_bits)
    }
    fn board(&self) -> PcAcpi {
        let (windows32, window64) = self.windows();
        PcAcpi {
            processors: self.apic_ids.iter().map(|id| Processor { apic_id: *id, node: 0 }).collect(),
            hpet: self.options.hpet.then_some(map::HPET.start as u32),
            ecam: Some(self.ecam()),
            windows32,
            window64,
            serial: self.serial.iter().map(|(port, irq)| SerialPort { port: *port, irq: *irq }).collect(),
            i8042: self.options.i8042 || self.config.devices.iter().any(|d| d.driver == "i8042"),
            pvpanic: platform::pvpanic_port(self.config),
            vga: self.vga,
            sleep: self.sleep,
            dmar: self.dmar,
            ..PcAcpi::default()
        }
    }
    /// The ACPI tables, unless switched off.
    pub fn acpi(&self) -> Option<Tables> {
        self.options.acpi.then(|| self.board().build())
    }
    /// Gives firmware ACPI tables that follow what it has programmed into the chipset.
    pub fn tell_acpi(&self, fw: &FwCfg, mch: &Arc<Mch>, lpc: &Arc<Lpc>) {
        if !self.options.acpi {
            return;
        }
        let (board, ram, bits) = (self.board(), self.ram, self.phys_bits);
        let (mch, lpc) = (Arc::downgrade(mch), Arc::downgrade(lpc));
        x86::publish_acpi(fw, move || {
            let mut board = board.clone();
            if let (Some(mch), Some(lpc)) = (mch.upgrade(), lpc.upgrade()) {
                let window = mch.ecam_window();
                board.ecam = window.map(|(base, len)| acpi::Ecam { base, last_bus: ((len >> 20) - 1) as u8 });
                board.pm_base = lpc.pm_base();
            }
            (board.windows32, board.window64) = acpi::pci_windows(ram, board.ecam, bits);
            board
        });
    }
    /// Lets firmware choose what software SMIs do.
    pub fn tell_smi(&self, fw: &FwCfg, lpc: &Arc<Lpc>) {
        const AGREED: &str = "etc/smi/features-ok";
        if !self.options.smm {
            return;
        }
        let (asked, shown) = (Arc::downgrade(lpc.pm()), Arc::downgrade(lpc.pm()));
        fw.add_file("etc/smi/supported-features", SMI_FEATURES.to_le_bytes().as_slice());
        let written = move |data: &[u8]| {
            if let (Some(pm), Ok(wanted)) = (asked.upgrade(), data.try_into().map(u64::from_le_bytes)) {
                pm.agree_on_smi_features(wanted);
            }
        };
        fw.add_writable_file("etc/smi/requested-features", [0u8; 8].as_slice(), written);
        fw.add_lazy_files(&[AGREED], move |fw| {
            let agreed = shown.upgrade().is_some_and(|pm| pm.smi_features_agreed());
            fw.add_file(AGREED, [u8::from(agreed)].as_slice());
        });
    }
    /// SMBIOS; `bios`: with the structure that firmware would make.
    fn smbios(&self, bios: bool) -> Result<Smbios, OptionError> {
        let mut options = SmbiosOptions::default();
        for text in &self.config.smbios {
            options.add(text)?;
        }
        let smp = &self.config.smp;
        let cores = smp.dies.saturating_mul(smp.cores);
        let above = FOUR_GIB..self.ram.end();
        let machine = SmbiosMachine {
            options: &options,
            product: "Standard PC (Q35 + ICH9, 2009)",
            version: "q35",
            uuid: self.config.uuid,
            sockets: smp.sockets,
            cores,
            threads: cores.saturating_mul(smp.threads),
            processor_id: self.processor_id,
            ram: &[0..self.ram.below_4g, above],
            entry_point: EntryPoint::Auto,
            bios,
        };
        Ok(machine.build())
    }
    /// Memory outside RAM that the memory map names as reserved.
    fn reserved(&self) -> Vec<Range<u64>> {
        let base = self.ecam().base;
        let root = u64::from(rhea_chipset::lpc::ROOT_COMPLEX_BASE);
        let windows = [(base, 256 << 20), (map::IO_APIC.start, map::IO_APIC.len)];
        let others = [(map::LOCAL_APIC.start, map::LOCAL_APIC.len), (root, 0x4000)];
        windows.into_iter().chain(others).map(|(start, len)| start..start + len).collect()
    }

    /// Fills the items that firmware reads.
    pub fn tell(&self, fw: &FwCfg, order: Vec<(u64, String)>, firmware: bool) -> Result<(), OptionError> {
        let config = self.config;
        let mut order = x86::boot_order::sorted(order);
        if firmware && let Some(rom) = self.tell_kernel(fw)? {
            order.insert(0, rom);
        }
        let pc = PcFwCfg {
            cpus: config.smp.cpus as u16,
            apic_id_limit: self.apic_ids.iter().max().map_or(1, |m| m + 1).min(0xffff) as u16,
            ram: self.ram,
            reserved: &[],
            uuid: self.config.uuid,
            graphics: self.vga && self.options.graphics && config.shown(),
            boot_menu: config.boot.menu == Some(true),
            boot_menu_wait: config.boot.splash_time,
            reboot_timeout: config.boot.reboot_timeout,
            boot_order: &order,
            strict: config.boot.strict,
            sleep: self.sleep,
            reserved_memory_end: None,
            hpet: self.options.hpet.then_some(map::HPET.start as u32),
            numa: None,
        };
        pc.publish(fw);
        self.smbios(false)?.publish(fw);
        for f in &config.fw_cfg {
            if !fw.add_file(&f.name, f.data.clone()) {
                let message = format!("'{}': the name is too long or there are too many files", f.name);
                return Err(OptionError::new("-fw_cfg", message));
            }
        }
        Ok(())
    }

    /// Kernel and initrd for firmware that starts them itself, or for a boot ROM where there is one; gives its boot entry.
    fn tell_kernel(&self, fw: &FwCfg) -> Result<Option<String>, OptionError> {
        const ROM: &str = "linuxboot_dma.bin";
        let Some(path) = &self.config.kernel else { return Ok(None) };
        let kernel = read("-kernel", path)?;
        let initrd = self.config.initrd.as_deref().map(|p| read("-initrd", p)).transpose()?.unwrap_or_default();
        let line = self.config.append.as_deref().unwrap_or("");
        // UEFI in flash starts kernels itself and wants them as they are.
        let rom =
            self.config.bios.as_ref().and_then(|_| FirmwareFiles::new(&self.config.firmware_dirs).find(ROM.as_ref()));
        x86::publish_kernel(fw, &kernel, &initrd, line, self.ram, rom.is_some());
        let Some(rom) = rom else { return Ok(None) };
        fw.add_file(&format!("genroms/{ROM}"), read("-kernel", &rom)?);
        Ok(Some(format!("/rom@genroms/{ROM}")))
    }

    /// The memory image of a start without firmware.
    pub fn direct(&self, acpi: Option<&Tables>) -> Result<Option<BootImage>, OptionError> {
        let Some(path) = &self.config.kernel else { return Ok(None) };
        let fail = |e: &dyn std::fmt::Display| OptionError::new("-kernel", at(path, e));
        let kernel = Kernel::parse(read("-kernel", path)?).map_err(|e| fail(&e))?;
        let mut modules = Vec::new();
        if let Some(initrd) = &self.config.initrd {
            let text = initrd.to_string_lossy();
            if kernel.takes_modules() {
                for (file, line) in parse_modules(&text) {
                    modules.push(Module::new(read("-initrd", &file)?, &line));
                }
            } else {
                modules.push(Module::new(read("-initrd", initrd)?, ""));
            }
        }
        let name = path.display().to_string();
        let boot = DirectBoot {
            kernel: &kernel,
            kernel_name: &name,
            command_line: self.config.append.as_deref().unwrap_or(""),
            modules: &modules,
            ram: self.ram,
            reserved: &self.reserved(),
            acpi,
            smbios: Some(&self.smbios(true)?),
            screen: x86::Screen::None,
        };
        boot.image().map(Some).map_err(|e| fail(&e))
    }
}
