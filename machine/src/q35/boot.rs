//! What firmware is told, and what a kernel that starts without firmware finds.

use super::map;
use super::platform;
use crate::board::Wiring;
use crate::config::MachineConfig;
use crate::files::{at, read};
use crate::options::Q35Options;
use rhea_device::OptionError;
use rhea_firmware::acpi::{self, PcAcpi, Processor, SerialPort, Tables};
use rhea_firmware::fw_cfg::key;
use rhea_firmware::x86::{BootImage, DirectBoot, Kernel, Module, RamLayout, parse_modules};
use rhea_firmware::FwCfg;
use std::ops::Range;
use std::path::Path;

/// Everything that is told.
pub struct Firmware<'a> {
    pub config: &'a MachineConfig,
    pub options: &'a Q35Options,
    pub wiring: &'a Wiring,
    pub ram: RamLayout,
    pub apic_ids: &'a [u32],
    pub phys_bits: u32,
    pub vga: bool,
}

impl Firmware<'_> {
    fn ecam(&self) -> acpi::Ecam {
        acpi::Ecam { base: rhea_chipset::mch::ECAM_BASE, last_bus: 255 }
    }
    /// Memory the PCI host decodes, below and above 4 GiB.
    pub fn windows(&self) -> (Vec<Range<u64>>, Option<Range<u64>>) {
        acpi::pci_windows(self.ram, Some(self.ecam()), self.phys_bits)
    }
    /// The ACPI tables, unless switched off.
    pub fn acpi(&self) -> Option<Tables> {
        if !self.options.acpi {
            return None;
        }
        let (windows32, window64) = self.windows();
        let serial = platform::serial_ports(self.wiring);
        let tables = PcAcpi {
            processors: self.apic_ids.iter().map(|id| Processor { apic_id: *id, node: 0 }).collect(),
            hpet: self.options.hpet.then_some(map::HPET.start as u32),
            ecam: Some(self.ecam()),
            windows32,
            window64,
            serial: serial.into_iter().map(|(port, irq)| SerialPort { port, irq }).collect(),
            i8042: self.options.i8042,
            pvpanic: platform::pvpanic_port(self.config),
            vga: self.vga,
            sleep: acpi::SleepTypes { s3: None, s4: None, s5: rhea_chipset::lpc::pm::SLEEP_S5 },
            ..PcAcpi::default()
        };
        Some(tables.build())
    }
    /// Memory outside RAM that the memory map names as reserved.
    fn reserved(&self) -> Vec<Range<u64>> {
        let base = self.ecam().base;
        let mut ranges = vec![base..base + (256 << 20)];
        for w in [map::IO_APIC, map::LOCAL_APIC] {
            ranges.push(w.start..w.start + w.len.max(0x1000));
        }
        let root = u64::from(rhea_chipset::lpc::ROOT_COMPLEX_BASE);
        ranges.push(root..root + 0x4000);
        ranges
    }

    /// Fills the items that firmware reads.
    pub fn tell(&self, fw: &FwCfg, acpi: Option<&Tables>, firmware: bool) -> Result<(), OptionError> {
        let config = self.config;
        let cpus = config.smp.cpus as u16;
        fw.add_u16(key::NB_CPUS, cpus);
        // One more than the largest APIC id.
        let limit = self.apic_ids.iter().max().map_or(1, |m| m + 1);
        fw.add_u16(key::MAX_CPUS, limit.min(0xffff) as u16);
        fw.add_u64(key::RAM_SIZE, self.ram.size());
        fw.add_u16(key::NO_GRAPHICS, u16::from(!self.vga || !self.options.graphics));
        fw.add_u32(key::X86_IRQ0_OVERRIDE, 1);
        fw.add_u16(key::BOOT_MENU, u16::from(config.boot.menu == Some(true)));
        let mut file = |name: &str, data: Vec<u8>| {
            if fw.add_file(name, data) {
                Ok(())
            } else {
                Err(OptionError::new("-fw_cfg", format!("'{name}': the name is too long or there are too many files")))
            }
        };
        let map = self.ram.firmware_map(&[]);
        file("etc/e820", map.iter().flat_map(|e| e.bytes()).collect())?;
        // Sleep states: bit 7 = there is such a state, the rest its type. Only soft-off.
        file("etc/system-states", vec![128, 0, 0, 0, 0, 128])?;
        if let Some(ms) = config.boot.splash_time {
            file("etc/boot-menu-wait", ms.to_le_bytes().to_vec())?;
        }
        if let Some(ms) = config.boot.reboot_timeout {
            file("etc/boot-fail-wait", ms.to_le_bytes().to_vec())?;
        }
        if let Some(tables) = acpi {
            let files = tables.files();
            file(acpi::TABLES_FILE, files.tables)?;
            file(acpi::RSDP_FILE, files.rsdp)?;
            file(acpi::LOADER_FILE, files.loader)?;
        }
        for f in &config.fw_cfg {
            file(&f.name, f.data.clone())?;
        }
        if firmware {
            self.tell_kernel(fw)?;
        }
        Ok(())
    }

    /// Kernel and initrd for firmware that starts them itself.
    fn tell_kernel(&self, fw: &FwCfg) -> Result<(), OptionError> {
        let Some(path) = &self.config.kernel else { return Ok(()) };
        let kernel = read("-kernel", path)?;
        let sectors = match kernel.get(0x1f1) {
            Some(0) | None => 4,
            Some(n) => usize::from(*n),
        };
        let setup = ((sectors + 1) * 512).min(kernel.len());
        fw.add_u32(key::SETUP_SIZE, setup as u32);
        fw.add(key::SETUP_DATA, kernel[..setup].to_vec());
        fw.add_u32(key::KERNEL_SIZE, (kernel.len() - setup) as u32);
        fw.add(key::KERNEL_DATA, kernel[setup..].to_vec());
        let initrd = self.config.initrd.as_deref().map(|p| read("-initrd", p)).transpose()?.unwrap_or_default();
        fw.add_u32(key::INITRD_SIZE, initrd.len() as u32);
        fw.add(key::INITRD_DATA, initrd);
        let mut line = self.config.append.clone().unwrap_or_default().into_bytes();
        line.push(0);
        fw.add_u32(key::CMDLINE_SIZE, line.len() as u32);
        fw.add(key::CMDLINE_DATA, line);
        Ok(())
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
            smbios: None,
        };
        boot.image().map(Some).map_err(|e| fail(&e))
    }
}

/// `-initrd` may be a list of files for some kernels: is the file, or are all of them, readable?
pub fn check_initrd(path: &Path) -> bool {
    path.is_file() || parse_modules(&path.to_string_lossy()).iter().all(|(p, _)| p.is_file())
}
