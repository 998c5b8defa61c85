//! The kernel's own VFIO, with the device `edu` that is at RHEA_VFIO (0000:01:00.0), bound to vfio-pci: in a lab machine.

use super::MIB;
use super::maps::{Silent, Tables};
use crate::sys::{IrqAction, IrqData, irq, region};
use crate::{Assigned, Report, Vfio, Wanted};
use parking_lot::Mutex;
use rhea_device::dma::{DmaHandle, DmaWindow, IommuPlace};
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

struct Machine {
    address: String,
    vfio: Arc<Vfio>,
    space: Arc<AddressSpace>,
    ram: Arc<RamBlock>,
    _map: Mapping,
}

impl Machine {
    fn new() -> Self {
        let address = std::env::var("RHEA_VFIO").expect("RHEA_VFIO=0000:01:00.0");
        let vfio = Vfio::new(None);
        let space = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", 64 * MIB).expect("RAM");
        let map = space.map_ram(Gpa(0), &ram, 0, 64 * MIB, 0).expect("room");
        Self { address, vfio, space, ram, _map: map }
    }
    fn assign(&self, dma: &DmaHandle) -> Edu {
        let wanted = Wanted::Address(self.address.clone());
        let edu = Edu(self.vfio.assign(wanted, None, dma).expect("it is assigned"));
        let config = edu.0.device().region_info(region::CONFIG).expect("configuration space");
        // Memory and bus mastering on.
        edu.0.device().write(&config, 4, &[6, 0]).expect("the command register");
        edu
    }
}

struct Edu(Assigned);

/// In the emulated Power machine its registers are big-endian.
fn ordered(value: u32, identification: u32) -> u32 {
    if identification & 0xff == 0xed { value } else { value.swap_bytes() }
}

impl Edu {
    fn put(&self, register: u64, value: u32) {
        let bar = self.0.device().region_info(0).expect("a BAR");
        let value = ordered(value, self.read(0));
        self.0.device().write(&bar, register, &value.to_le_bytes()).expect("a register");
    }
    fn get(&self, register: u64) -> u32 {
        ordered(self.read(register), self.read(0))
    }
    fn read(&self, register: u64) -> u32 {
        let bar = self.0.device().region_info(0).expect("a BAR");
        let mut data = [0; 4];
        self.0.device().read(&bar, register, &mut data).expect("a register");
        u32::from_le_bytes(data)
    }
    /// Copies between memory and the device's buffer.
    fn copy(&self, iova: u32, len: u32, to_memory: bool) {
        let (from, to) = if to_memory { (0x40000, iova) } else { (iova, 0x40000) };
        for (register, value) in [(0x80, from), (0x88, to), (0x90, len), (0x98, if to_memory { 3 } else { 1 })] {
            self.put(register, value);
        }
        let end = Instant::now() + Duration::from_secs(10);
        while self.get(0x98) & 1 != 0 {
            assert!(Instant::now() < end, "the transfer ends");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn words(ram: &RamBlock, at: u64) -> [u8; 8] {
    let mut data = [0; 8];
    ram.read(at, &mut data).expect("RAM");
    data
}

#[test]
#[ignore = "needs a device that is bound to vfio-pci"]
fn dma_and_interrupts() {
    let machine = Machine::new();
    let (ram, space) = (&machine.ram, &machine.space);
    let edu = machine.assign(&DmaHandle::new(space.clone(), 8));
    let dma = edu.0.space().expect("an address space");
    println!("{:?}: {}", edu.0.place(), dma.describe());
    println!("{:?}\n{:?}", edu.0.device().info(), edu.0.device().region_info(0));
    println!("{:?}", edu.0.device().hot_reset_info());
    assert_eq!(edu.get(0) & 0xff, 0xed, "the identification of edu");
    ram.write(0x1000, b"one way\n").expect("RAM");
    edu.copy(0x1000, 8, false);
    edu.copy(0x2000, 8, true);
    assert_eq!(&words(ram, 0x2000), b"one way\n");
    // Other memory at the same address, in the middle: the rest stays where it is.
    let other = RamBlock::anonymous("other", MIB).expect("RAM");
    let over = space.map_ram(Gpa(MIB), &other, 0, MIB, 1).expect("room");
    edu.copy((MIB + 0x3000) as u32, 8, true);
    edu.copy(0x4000, 8, true);
    assert_eq!((&words(&other, 0x3000), &words(ram, 0x4000)), (b"one way\n", b"one way\n"));
    println!("{}", dma.describe());
    drop(over);
    edu.copy((MIB + 0x5000) as u32, 8, true);
    assert_eq!(&words(ram, MIB + 0x5000), b"one way\n");
    // Where nothing is, nothing is written.
    let hole = space.map_mmio(Gpa(2 * MIB), MIB, Arc::new(Silent), 1).expect("room");
    edu.copy((2 * MIB) as u32, 8, true);
    assert_eq!(words(ram, 2 * MIB), [0; 8]);
    drop(hole);
    // INTx, masked by the kernel until it is let go; then MSI.
    let event = EventFd::new(libc::EFD_NONBLOCK).expect("an eventfd");
    let wait = || {
        let end = Instant::now() + Duration::from_secs(10);
        while event.read().is_err() {
            assert!(Instant::now() < end, "the interrupt comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let fds = [Some(event.as_raw_fd())];
    for index in [irq::INTX, irq::MSI, irq::INTX] {
        let set = |action, data| edu.0.device().set_irqs(index, action, 0, data).expect("interrupts");
        println!("{:?}", edu.0.device().irq_info(index));
        set(IrqAction::Trigger, IrqData::EventFds(&fds));
        for _ in 0..2 {
            edu.put(0x60, 1);
            wait();
            edu.put(0x64, 1);
            if index == irq::INTX {
                set(IrqAction::Unmask, IrqData::None(1));
            }
        }
        set(IrqAction::Trigger, IrqData::None(0));
    }
    assert!(ram.pinned(0));
    drop(edu);
    assert!(!ram.pinned(0));
}

/// As a guest's own IOMMU translates, in a window of its own.
#[test]
#[ignore = "needs a device that is bound to vfio-pci"]
fn translated() {
    let machine = Machine::new();
    let ram = &machine.ram;
    let low = DmaWindow { base: 0, len: 1 << 30, page_shift: 12 };
    let tables = Tables::new(Some(vec![low]));
    let place = IommuPlace::default();
    assert!(place.set(tables.clone()).is_ok());
    tables.put(0x5000, Some((0x1_1000, false)));
    let edu = machine.assign(&DmaHandle::behind(machine.space.clone(), 8, place));
    let dma = edu.0.space().expect("an address space");
    ram.write(0x1_1000, b"two ways").expect("RAM");
    edu.copy(0x5000, 8, false);
    tables.put(0x7000, Some((0x2_3000, true)));
    edu.copy(0x7000, 8, true);
    assert_eq!(&words(ram, 0x2_3000), b"two ways");
    tables.put(0x7000, Some((0x2_4000, true)));
    edu.copy(0x7000, 8, true);
    assert_eq!(&words(ram, 0x2_4000), b"two ways");
    ram.write(0x2_4000, &[0; 8]).expect("RAM");
    tables.put(0x7000, None);
    edu.copy(0x7000, 8, true);
    assert_eq!(words(ram, 0x2_4000), [0; 8]);
    println!("{}", dma.describe());
    // Another window beside it, out of this device's reach.
    let high = DmaWindow { base: 1 << 59, len: 64 * MIB, page_shift: 16 };
    *tables.windows.lock() = Some(vec![low, high]);
    tables.tell(None);
    tables.put(0x8000, Some((0x2_5000, true)));
    edu.copy(0x8000, 8, true);
    assert_eq!(&words(ram, 0x2_5000), b"two ways");
    *tables.windows.lock() = Some(vec![low]);
    tables.tell(None);
    println!("{}", dma.describe());
    assert_eq!(dma.counters().failed.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// What goes wrong on a host with a device: one line each.
#[test]
#[ignore = "needs a device that is bound to vfio-pci"]
fn refused() {
    let machine = Machine::new();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = lines.clone();
    let report: Report = Arc::new(move |text| sink.lock().push(text.to_owned()));
    let roots = crate::locate::Roots::default();
    let other = Vfio::over(Arc::new(crate::sys::Kernel::new(&roots.dev)), roots.clone(), None, report);
    let dma = DmaHandle::new(machine.space.clone(), 8);
    let edu = machine.assign(&dma);
    let error = other.assign(Wanted::Address(machine.address.clone()), None, &dma).err().expect("it is in use");
    println!("{error}");
    assert!(error.to_string().contains("is in use"));
    println!("{:?}", roots.used_by_host(edu.0.place()));
    match other.iommufd(None) {
        Ok(iommufd) => {
            drop(edu);
            match other.assign(Wanted::Address(machine.address.clone()), Some(&iommufd), &dma) {
                Ok(edu) => {
                    println!("iommufd: {}", edu.space().map(|s| s.describe()).unwrap_or_default());
                    let edu = Edu(edu);
                    let config = edu.0.device().region_info(region::CONFIG).expect("configuration space");
                    edu.0.device().write(&config, 4, &[6, 0]).expect("the command register");
                    machine.ram.write(0x1000, b"iommufd\n").expect("RAM");
                    edu.copy(0x1000, 8, false);
                    edu.copy(0x2000, 8, true);
                    assert_eq!(&words(&machine.ram, 0x2000), b"iommufd\n");
                }
                Err(e) => println!("{e}"),
            }
        }
        Err(e) => println!("{e}"),
    }
}
