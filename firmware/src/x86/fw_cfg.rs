//! What PC firmware finds in the configuration device.

use super::bzimage::BzImage;
use super::memory::{MIB, MemoryMap, RamLayout};
use crate::acpi::{LOADER_FILE, PcAcpi, RSDP_FILE, SleepTypes, TABLES_FILE, Tables};
use crate::fw_cfg::{FwCfg, key};
use std::ops::Range;

/// The facts of the machine that have an item.
#[derive(Clone, Debug)]
pub struct PcFwCfg<'a> {
    /// Processors present at power-on.
    pub cpus: u16,
    /// One more than the largest APIC id.
    pub apic_id_limit: u16,
    pub ram: RamLayout,
    /// Ranges outside RAM that firmware must not use, for `etc/e820`.
    pub reserved: &'a [Range<u64>],
    pub uuid: [u8; 16],
    /// There is a display.
    pub graphics: bool,
    /// `-boot menu=on`.
    pub boot_menu: bool,
    /// `-boot splash-time=`: how long the menu waits, milliseconds.
    pub boot_menu_wait: Option<u16>,
    /// `-boot reboot-timeout=`: what follows a failed boot, milliseconds; -1 for never.
    pub reboot_timeout: Option<i32>,
    /// Device paths in the order of their boot index; then nothing else if `strict`.
    pub boot_order: &'a [String],
    pub strict: bool,
    pub sleep: SleepTypes,
    /// A 64-bit address firmware puts its own windows behind.
    pub reserved_memory_end: Option<u64>,
    pub hpet: Option<u32>,
    /// Domain of each processor and memory of each domain.
    pub numa: Option<(&'a [u32], &'a [u64])>,
}

impl PcFwCfg<'_> {
    /// Adds the items.
    pub fn publish(&self, fw: &FwCfg) {
        fw.add(key::UUID, self.uuid.as_slice());
        fw.add_u64(key::RAM_SIZE, self.ram.size());
        fw.add_u16(key::NO_GRAPHICS, u16::from(!self.graphics));
        fw.add_u16(key::NB_CPUS, self.cpus);
        fw.add_u16(key::MAX_CPUS, self.apic_id_limit);
        fw.add_u16(key::BOOT_MENU, u16::from(self.boot_menu));
        fw.add_u32(key::X86_IRQ0_OVERRIDE, 1);
        if let Some(base) = self.hpet {
            fw.add(key::X86_HPET, hpet(base));
        }
        if let Some((cpus, memory)) = self.numa {
            let nodes = std::iter::once(memory.len() as u64).chain(cpus.iter().map(|n| u64::from(*n)));
            let bytes: Vec<u8> = nodes.chain(memory.iter().copied()).flat_map(u64::to_le_bytes).collect();
            fw.add(key::NUMA, bytes);
        }
        let map: Vec<u8> = self.ram.firmware_map(self.reserved).iter().flat_map(|e| e.bytes()).collect();
        fw.add_file("etc/e820", map);
        fw.add_file("bootorder", self.boot_order());
        if let Some(wait) = self.boot_menu_wait {
            fw.add_file("etc/boot-menu-wait", wait.to_le_bytes().as_slice());
        }
        if let Some(timeout) = self.reboot_timeout {
            fw.add_file("etc/boot-fail-wait", timeout.to_le_bytes().as_slice());
        }
        fw.add_file("etc/system-states", self.system_states().as_slice());
        if let Some(end) = self.reserved_memory_end {
            fw.add_file("etc/reserved-memory-end", end.to_le_bytes().as_slice());
        }
    }

    /// A path a line; the last line ends with a zero.
    fn boot_order(&self) -> Vec<u8> {
        let mut lines: Vec<_> = self.boot_order.iter().map(String::as_str).collect();
        if self.strict {
            lines.push("HALT");
        }
        let mut text = lines.join("\n").into_bytes();
        text.push(0);
        text
    }

    /// S0 to S5: bit 7 the state exists, else its sleep type.
    fn system_states(&self) -> [u8; 6] {
        const EXISTS: u8 = 0x80;
        let state = |s: Option<u8>, default: u8| s.map_or(default, |kind| EXISTS | kind);
        [EXISTS, 0, 0, state(self.sleep.s3, 1), state(self.sleep.s4, 2), EXISTS | self.sleep.s5]
    }
}

/// Count, then block id, address, minimum tick and page protection of eight.
fn hpet(base: u32) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&0x8086_a201u32.to_le_bytes());
    bytes.extend_from_slice(&u64::from(base).to_le_bytes());
    bytes.extend_from_slice(&100u16.to_le_bytes());
    bytes.push(0);
    bytes.resize(1 + 8 * 15, 0);
    bytes
}

impl Tables {
    /// Adds or replaces the files from which firmware puts the tables into memory.
    pub fn publish(&self, fw: &FwCfg) {
        let files = self.files();
        fw.add_file(TABLES_FILE, files.tables);
        fw.add_file(RSDP_FILE, files.rsdp);
        fw.add_file(LOADER_FILE, files.loader);
    }
}

/// Publishes tables that follow what firmware has programmed: `board` tells the state of the chipset when the firmware asks
/// for them.
pub fn publish_acpi(fw: &FwCfg, board: impl Fn() -> PcAcpi + Send + Sync + 'static) {
    fw.add_lazy_files(&[TABLES_FILE, RSDP_FILE, LOADER_FILE], move |fw| board().build().publish(fw));
}

const REAL_MODE: u64 = 0x1_0000;
const COMMAND_LINE: u64 = 0x2_0000;
/// Loader id of the boot protocol for a virtual machine's own loader.
const LOADER_TYPE: u8 = 0xb0;

/// The number of the video mode that `vga=` on the command line asks the setup code for.
fn video_mode(command_line: &str) -> Option<u16> {
    let word = command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("vga="))?;
    match word {
        "normal" => Some(0xffff),
        "ext" => Some(0xfffe),
        "ask" => Some(0xfffd),
        _ => rhea_device::options::parse_number(word).and_then(|n| u16::try_from(n).ok()),
    }
}

/// Kernel, initrd and command line for firmware. A bzImage is split into its parts; anything else (an EFI program) is given
/// whole. With `patched`, for a boot ROM that only copies the parts and jumps, the setup header tells where they go; UEFI
/// firmware wants the file as it is.
pub fn publish_kernel(fw: &FwCfg, kernel: &[u8], initrd: &[u8], command_line: &str, ram: RamLayout, patched: bool) {
    let mut text = command_line.as_bytes().to_vec();
    text.push(0);
    let (mut setup, mut code, mut initrd_at) = (Vec::new(), kernel.to_vec(), 0);
    if let Ok(image) = BzImage::parse(kernel.to_vec()) {
        setup = image.setup().to_vec();
        code = image.code().to_vec();
        // Room for what firmware itself keeps at the top.
        let map = MemoryMap::direct(ram, &[], 0x2_8000);
        let place = map.map(|map| image.place_initrd(initrd.len() as u64, MIB, command_line, &map));
        initrd_at = place.and_then(Result::ok).unwrap_or(0);
        if patched {
            let mut put = |at: usize, bytes: &[u8]| {
                if let Some(field) = setup.get_mut(at..at + bytes.len()) {
                    field.copy_from_slice(bytes);
                }
            };
            put(0x210, &[LOADER_TYPE]);
            if let Some(mode) = video_mode(command_line) {
                put(0x1fa, &mode.to_le_bytes());
            }
            put(0x218, &(initrd_at as u32).to_le_bytes());
            put(0x21c, &(initrd.len() as u32).to_le_bytes());
            if image.protocol() >= 0x201 {
                let flags = kernel.get(0x211).copied().unwrap_or(0) | 0x80;
                put(0x211, &[flags]);
                put(0x224, &((COMMAND_LINE - REAL_MODE - 0x200) as u16).to_le_bytes());
            }
            if image.protocol() >= 0x202 {
                put(0x228, &(COMMAND_LINE as u32).to_le_bytes());
            }
        }
    }
    fw.add_u32(key::KERNEL_ADDR, MIB as u32);
    fw.add_u32(key::KERNEL_SIZE, code.len() as u32);
    fw.add(key::KERNEL_DATA, code);
    fw.add_u32(key::SETUP_ADDR, REAL_MODE as u32);
    fw.add_u32(key::SETUP_SIZE, setup.len() as u32);
    fw.add(key::SETUP_DATA, setup);
    fw.add_u32(key::CMDLINE_ADDR, COMMAND_LINE as u32);
    fw.add_u32(key::CMDLINE_SIZE, text.len() as u32);
    fw.add(key::CMDLINE_DATA, text);
    fw.add_u32(key::INITRD_ADDR, initrd_at as u32);
    fw.add_u32(key::INITRD_SIZE, initrd.len() as u32);
    fw.add(key::INITRD_DATA, initrd);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::{u16_at, u32_at};
    use rhea_device::{DmaHandle, Log};
    use rhea_memory::{Access, AddressSpace, Gpa};
    use std::sync::Arc;

    struct Guest(Arc<AddressSpace>);

    impl Guest {
        fn item(&self, key: u16, len: usize) -> Vec<u8> {
            self.0.store(Gpa(0x510), u64::from(key), Access::cpu(0, 2)).unwrap();
            (0..len).map(|_| self.0.load(Gpa(0x511), Access::cpu(0, 1)).unwrap() as u8).collect()
        }
        fn file(&self, name: &str) -> Option<Vec<u8>> {
            let count = u32::from_be_bytes(self.item(key::FILE_DIR, 4).try_into().unwrap()) as usize;
            let dir = self.item(key::FILE_DIR, 4 + count * 64);
            let entry = dir[4..].chunks(64).find(|e| e[8..].starts_with(name.as_bytes()) && e[8 + name.len()] == 0)?;
            let len = u32::from_be_bytes(entry[..4].try_into().unwrap()) as usize;
            Some(self.item(u16::from_be_bytes([entry[4], entry[5]]), len))
        }
    }

    fn device() -> (Arc<FwCfg>, Guest, rhea_memory::Mapping) {
        let io = AddressSpace::new("I/O");
        let fw = FwCfg::new(DmaHandle::new(AddressSpace::new("system"), 0x1_0000), Log::off());
        let map = io.map_mmio(Gpa(crate::fw_cfg::PORT), crate::fw_cfg::PORT_LEN, fw.ports(), 0).unwrap();
        (fw, Guest(io), map)
    }

    #[test]
    fn items() {
        let (fw, guest, _map) = device();
        let order = ["/pci@i0cf8/scsi@3/disk@0,0".to_owned(), "/rom@genroms".to_owned()];
        let pc = PcFwCfg {
            cpus: 2,
            apic_id_limit: 4,
            ram: RamLayout::q35(4 << 30),
            reserved: &[],
            uuid: [7; 16],
            graphics: true,
            boot_menu: true,
            boot_menu_wait: Some(5000),
            reboot_timeout: Some(-1),
            boot_order: &order,
            strict: true,
            sleep: SleepTypes { s3: None, s4: Some(2), s5: 0 },
            reserved_memory_end: Some(0x1_8000_0000),
            hpet: Some(0xfed0_0000),
            numa: Some((&[0, 1], &[1 << 30, 3 << 30])),
        };
        pc.publish(&fw);
        assert_eq!(guest.item(key::MAX_CPUS, 2), [4, 0]);
        assert_eq!(guest.item(key::X86_HPET, 5), [1, 1, 0xa2, 0x86, 0x80]);
        assert_eq!(guest.item(key::NUMA, 9), [2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(guest.file("bootorder").unwrap(), b"/pci@i0cf8/scsi@3/disk@0,0\n/rom@genroms\nHALT\0");
        assert_eq!(guest.file("etc/system-states").unwrap(), [0x80, 0, 0, 1, 0x82, 0x80]);
        assert_eq!(guest.file("etc/e820").unwrap().len(), 40);
        assert_eq!(guest.file("etc/e82"), None);
    }

    #[test]
    fn acpi_when_asked() {
        let (fw, guest, _map) = device();
        let base = Arc::new(std::sync::atomic::AtomicU16::new(0x600));
        let current = base.clone();
        publish_acpi(&fw, move || PcAcpi {
            pm_base: current.load(std::sync::atomic::Ordering::Relaxed),
            ..PcAcpi::default()
        });
        base.store(0x1800, std::sync::atomic::Ordering::Relaxed);
        let tables = guest.file(TABLES_FILE).unwrap();
        let fadt = tables.chunks(64).position(|c| c.starts_with(b"FACP")).unwrap() * 64;
        assert_eq!(u32_at(&tables, fadt + 56), Some(0x1800));
    }

    #[test]
    fn kernels() {
        let (fw, guest, _map) = device();
        let kernel = crate::x86::bzimage::tests::sample(0x1000);
        publish_kernel(&fw, &kernel, &[3; 100], "a vga=788", RamLayout::q35(1 << 30), true);
        assert_eq!(guest.item(key::SETUP_SIZE, 4), 2560u32.to_le_bytes());
        assert_eq!(guest.item(key::KERNEL_DATA, 0x1001)[0xffe..], [0xcc, 0xcc, 0]);
        let setup = guest.item(key::SETUP_DATA, 2560);
        assert_eq!((setup[0x210], u16_at(&setup, 0x224)), (0xb0, Some(0xfe00)));
        assert_eq!(u16_at(&setup, 0x1fa), Some(788));
        assert_eq!(guest.item(key::INITRD_ADDR, 4), setup[0x218..0x21c]);
        assert_eq!(u32_at(&setup, 0x21c), Some(100));
        publish_kernel(&fw, b"MZ program", &[], "", RamLayout::q35(1 << 30), false);
        assert_eq!(guest.item(key::SETUP_SIZE, 4), [0; 4]);
        assert_eq!(guest.item(key::KERNEL_DATA, 10), b"MZ program");
    }
}
