//! What is in memory when the first processor starts: firmware with its device tree, kernel and initial RAM disk.

use super::client;
use super::cpu::Entry;
use super::partition::Partition;
use super::tree::{self, Boot};
use crate::config::MachineConfig;
use crate::files::{at, read};
use rhea_device::OptionError;
use rhea_firmware::power;
use rhea_firmware::x86::FirmwareFiles;
use std::path::Path;

/// Firmware when nothing else is given.
const DEFAULT_FIRMWARE: &str = "slof.bin";
/// Firmware is below kernels.
const MAX_FIRMWARE: usize = 4 << 20;
/// Where the entry of the client interface is, and the stack that grows down to it.
const CLIENT_ENTRY: u64 = 0x4000;
const STACK: u64 = 0x1_0000;
/// The tree for firmware is at the end of the first memory block, below 2 GiB, in so much room.
const TREE_LIMIT: u64 = 2 << 30;
const TREE_ROOM: u64 = 2 << 20;
/// Firmware is entered at its system reset vector.
const RESET_VECTOR: u64 = 0x100;

/// The files.
pub struct Images {
    firmware: Option<Vec<u8>>,
    kernel: Option<(power::Image, u64)>,
    initrd: Vec<u8>,
    initrd_at: u64,
    /// What the tree tells of them.
    pub boot: Boot,
    rma: u64,
}

impl Images {
    /// Reads and places the files.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn new(config: &MachineConfig, vof: bool, kernel_addr: u64) -> Result<Self, OptionError> {
        let rma = tree::rma(config.ram.size);
        let mut boot = Boot {
            append: config.append.clone(),
            menu: config.boot.menu == Some(true),
            device: config.boot.once.clone().or_else(|| config.boot.order.clone()),
            ..Boot::default()
        };
        let mut end = if vof { STACK } else { MAX_FIRMWARE as u64 };
        let kernel = match &config.kernel {
            Some(path) => {
                let fail = |e: &dyn std::fmt::Display| OptionError::new("-kernel", at(path, e));
                let image = power::Image::parse(&read("-kernel", path)?, kernel_addr).map_err(|e| fail(&e))?;
                if image.end > rma.min(TREE_LIMIT) - TREE_ROOM.min(rma / 2) {
                    return Err(fail(&format!("it ends at {:#x}: the machine has too little RAM", image.end)));
                }
                if image.start < end && !vof || image.start < STACK {
                    return Err(fail(&format!("it begins at {:#x}, where firmware is", image.start)));
                }
                boot.kernel = Some((kernel_addr, image.end - kernel_addr));
                boot.little_endian = image.little_endian;
                end = image.end;
                Some((image, kernel_addr))
            }
            None if vof => {
                return Err(OptionError::new("-M pseries", "'x-vof=on': there is no firmware: give -kernel FILE"));
            }
            None => None,
        };
        let initrd = config.initrd.as_deref().map(|p| read("-initrd", p)).transpose()?.unwrap_or_default();
        let initrd_at = (end + 0x2_0000) & !0xffff;
        if !initrd.is_empty() {
            let last = initrd_at + initrd.len() as u64;
            if last > rma.min(TREE_LIMIT) - TREE_ROOM.min(rma / 2) {
                let text = format!("{} bytes from {initrd_at:#x} on: the machine has too little RAM", initrd.len());
                return Err(OptionError::new("-initrd", text));
            }
            boot.initrd = Some((initrd_at, last));
        }
        let firmware = if vof { None } else { Some(firmware(config)?) };
        Ok(Self { firmware, kernel, initrd, initrd_at, boot, rma })
    }

    fn tree_at(&self) -> u64 {
        (self.rma.min(TREE_LIMIT) - TREE_ROOM.min(self.rma / 2)) & !0xffff
    }

    /// How the first processor starts.
    #[must_use]
    pub fn entry(&self) -> Entry {
        match (&self.firmware, &self.kernel) {
            (None, Some((kernel, _))) => {
                // Initial RAM disk, entry of the client interface.
                let (start, len) = self.boot.initrd.map_or((0, 0), |(start, end)| (start, end - start));
                Entry { pc: kernel.entry, stack: STACK - 0x100, args: [start, len, CLIENT_ENTRY, 0, 0] }
            }
            _ => Entry { pc: RESET_VECTOR, stack: 0, args: [self.tree_at(), 0, 0, 0, 0] },
        }
    }

    /// Puts everything into memory; done before each start of the machine.
    pub fn load(&self, partition: &Partition) {
        let ram = &partition.ram;
        let mut good = true;
        if let Some((kernel, _)) = &self.kernel {
            for segment in &kernel.segments {
                good &= ram.write(segment.address, &segment.data).is_ok();
                let data = segment.data.len() as u64;
                if segment.size > data {
                    good &= ram.fill(segment.address + data, segment.size - data, 0).is_ok();
                }
            }
        }
        if !self.initrd.is_empty() {
            good &= ram.write(self.initrd_at, &self.initrd).is_ok();
        }
        match &self.firmware {
            Some(firmware) => {
                good &= ram.fill(0, MAX_FIRMWARE as u64, 0).is_ok() && ram.write(0, firmware).is_ok();
                let blob = partition.tree(true).flatten();
                good &= blob.len() as u64 <= TREE_ROOM && ram.write(self.tree_at(), &blob).is_ok();
            }
            None => {
                let code: Vec<u8> = client::ENTRY.iter().flat_map(|w| w.to_be_bytes()).collect();
                good &= ram.write(CLIENT_ENTRY, &code).is_ok();
                let mut taken = vec![(0, STACK)];
                taken.extend(self.kernel.as_ref().map(|(k, _)| (k.start, k.end.next_multiple_of(0x1000))));
                taken.extend(self.boot.initrd.map(|(start, end)| (start, end.next_multiple_of(0x1000))));
                partition.open_client(&taken);
            }
        }
        if !good {
            // Everything was placed inside RAM.
            eprintln!("rhea: firmware or kernel could not be loaded into memory");
        }
    }
}

fn firmware(config: &MachineConfig) -> Result<Vec<u8>, OptionError> {
    let files = FirmwareFiles::new(&config.firmware_dirs);
    let name = config.bios.clone().unwrap_or_else(|| Path::new(DEFAULT_FIRMWARE).to_owned());
    let path = files.find(&name).ok_or_else(|| {
        let places: Vec<String> = files.directories().iter().map(|d| d.display().to_string()).collect();
        let text = format!("'{}' is not found: looked in {}", name.display(), places.join(", "));
        OptionError::new("-bios", text)
    })?;
    let data = read("-bios", &path)?;
    if data.len() > MAX_FIRMWARE || data.len() as u64 > config.ram.size / 2 {
        return Err(OptionError::new("-bios", at(&path, format!("{} bytes: at most 4 MiB fit", data.len()))));
    }
    Ok(data)
}
