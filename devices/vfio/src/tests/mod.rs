//! Against the fake kernel and a fake sysfs.

mod assign;
mod dirty;
mod maps;
mod real;

use crate::locate::Roots;
use crate::sys::fake::FakeKernel;
use crate::{Report, Vfio};
use parking_lot::Mutex;
use rhea_device::dma::DmaHandle;
use rhea_memory::{AddressSpace, Gpa, Mapping, RamBlock};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A host's `/sys` and `/dev`, gone when it is dropped.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rhea-vfio-{}-{number}", std::process::id()));
        let tree = Self(path);
        for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/kernel/iommu_groups", "dev/vfio/devices"] {
            fs::create_dir_all(tree.0.join(folder)).expect("a folder");
        }
        tree
    }
    fn roots(&self) -> Roots {
        Roots { sys: self.0.join("sys"), dev: self.0.join("dev") }
    }
    /// A function with a group and a driver, and its own file if the kernel is one that has such.
    fn device(&self, name: &str, group: Option<u32>, driver: Option<&str>, cdev: Option<u32>) -> &Self {
        let sys = self.0.join("sys");
        let device = sys.join("bus/pci/devices").join(name);
        fs::create_dir_all(&device).expect("a device");
        if let Some(group) = group {
            let group = sys.join(format!("kernel/iommu_groups/{group}"));
            fs::create_dir_all(group.join("devices")).expect("a group");
            symlink(&device, group.join("devices").join(name)).expect("a link");
            symlink(&group, device.join("iommu_group")).expect("a link");
        }
        if let Some(driver) = driver {
            symlink(sys.join("bus/pci/drivers").join(driver), device.join("driver")).expect("a link");
        }
        if let Some(number) = cdev {
            fs::create_dir_all(device.join(format!("vfio-dev/vfio{number}"))).expect("a folder");
            fs::write(self.0.join(format!("dev/vfio/devices/vfio{number}")), "").expect("a file");
        }
        self
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A machine with memory, on a host with a fake kernel.
struct Bench {
    tree: Tree,
    kernel: Arc<FakeKernel>,
    vfio: Arc<Vfio>,
    memory: Arc<AddressSpace>,
    ram: Arc<RamBlock>,
    _low: Mapping,
    dma: DmaHandle,
    warnings: Arc<Mutex<Vec<String>>>,
}

const MIB: u64 = 1 << 20;

impl Bench {
    /// 4 MiB of RAM at 0.
    fn new(kernel: FakeKernel) -> Self {
        let tree = Tree::new();
        tree.device("0000:01:00.0", Some(7), Some("vfio-pci"), Some(3));
        tree.device("0000:02:00.0", Some(8), Some("vfio-pci"), Some(4));
        let kernel = Arc::new(kernel);
        let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = warnings.clone();
        let report: Report = Arc::new(move |text| sink.lock().push(text.to_owned()));
        let vfio = Vfio::over(kernel.clone(), tree.roots(), None, report);
        let memory = AddressSpace::new("system");
        let ram = RamBlock::anonymous("ram", 4 * MIB).expect("RAM");
        let low = memory.map_ram(Gpa(0), &ram, 0, 4 * MIB, 0).expect("room");
        let dma = DmaHandle::new(memory.clone(), 8);
        Self { tree, kernel, vfio, memory, ram, _low: low, dma, warnings }
    }
    fn host(&self, block: &RamBlock) -> u64 {
        block.host_ptr().expose_provenance() as u64
    }
}
