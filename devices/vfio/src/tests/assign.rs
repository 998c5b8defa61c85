//! Opening: what is opened when, what is shared, what goes wrong.

use super::{Bench, MIB, Tree};
use crate::locate::{self, Roots};
use crate::sys::fake::{Call, FakeKernel};
use crate::sys::{ContainerInfo, DmaMap, Host, Kernel, extension};
use crate::{Iommufd, VfioError, Wanted};
use rhea_device::dma::{DmaHandle, Iommu, IommuPlace, Translation};
use rhea_memory::{AddressSpace, BusError, GpaRange};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn wanted(text: &str) -> Wanted {
    Wanted::Address(text.to_owned())
}

#[test]
fn addresses() {
    for (text, full) in [
        ("01:00.0", Some("0000:01:00.0")),
        ("0000:0A:1f.7", Some("0000:0a:1f.7")),
        ("10000:01:00.0", Some("10000:01:00.0")),
        ("1:2.3", Some("0000:01:02.3")),
        ("0000:01:00", None),
        ("0000:01:20.0", None),
        ("0000:01:00.8", None),
        ("0:1:0:0.0", None),
        ("+1:0.0", None),
        ("../../etc", None),
        ("", None),
    ] {
        assert_eq!(locate::address(text).ok().as_deref(), full, "{text}");
    }
}

/// One group, one container, for two devices one after the other; everything is closed with them.
#[test]
fn opened_once() {
    let bench = Bench::new(FakeKernel::default());
    bench.tree.device("0000:01:00.1", Some(7), Some("vfio-pci"), None);
    let first = bench.vfio.assign(wanted("01:00.0"), None, &bench.dma).expect("assigned");
    let map = DmaMap { iova: 0, len: 4 * MIB, host: bench.host(&bench.ram), write: true };
    assert_eq!(
        bench.kernel.log.take(),
        [
            Call::OpenGroup(7),
            Call::OpenContainer,
            Call::SetContainer(7),
            Call::SetIommu(extension::TYPE1_V2),
            Call::Map(map),
            Call::OpenDevice("0000:01:00.0".to_owned()),
        ]
    );
    let again = bench.vfio.assign(wanted("0000:01:00.0"), None, &bench.dma).err().expect("twice");
    assert_eq!(again.to_string(), "0000:01:00.0 is already assigned to this machine");
    let second = bench.vfio.assign(wanted("01:00.1"), None, &bench.dma).expect("assigned");
    let third = bench.vfio.assign(wanted("02:00.0"), None, &bench.dma).expect("assigned");
    assert_eq!(
        bench.kernel.log.take(),
        [
            Call::OpenDevice("0000:01:00.1".to_owned()),
            Call::OpenGroup(8),
            Call::SetContainer(8),
            Call::OpenDevice("0000:02:00.0".to_owned())
        ]
    );
    assert_eq!(third.groups(&[7, 8]).map(|g| g.len()), Some(2));
    assert_eq!(third.groups(&[7, 9]), None);
    drop(first);
    assert_eq!(bench.kernel.log.take(), [Call::Close("device")]);
    drop(third);
    assert_eq!(bench.kernel.log.take(), [Call::Close("device"), Call::UnsetContainer(8), Call::Close("group")]);
    drop(second);
    assert_eq!(
        bench.kernel.log.take(),
        [Call::Close("device"), Call::UnsetContainer(7), Call::Unmap(0, 4 * MIB), Call::Close("group")]
    );
    assert!(!bench.ram.pinned(0));
    bench.vfio.assign(wanted("01:00.0"), None, &bench.dma).expect("assigned again");
}

/// Devices share an address space, and its tables, if those can tell what is written.
#[test]
fn iommufd() {
    for tables_track in [false, true] {
        let bench = Bench::new(FakeKernel { tables_track, ..FakeKernel::default() });
        let iommufd = bench.vfio.iommufd(None).expect("an iommufd");
        let first = bench.vfio.assign(wanted("01:00.0"), Some(&iommufd), &bench.dma).expect("assigned");
        let path = bench.tree.roots().dev.join("vfio/devices/vfio3").display().to_string();
        let map = DmaMap { iova: 0, len: 4 * MIB, host: bench.host(&bench.ram), write: true };
        let to = if tables_track { 2 } else { 1 };
        assert_eq!(
            bench.kernel.log.take(),
            [
                Call::OpenIommufd,
                Call::OpenCdev(path),
                Call::BindIommufd,
                Call::IoasAlloc(1),
                Call::HwptAlloc(1),
                Call::AttachIoas(to),
                Call::Map(map)
            ]
        );
        let second = bench.vfio.assign(wanted("02:00.0"), Some(&iommufd), &bench.dma).expect("assigned");
        let calls = [Call::BindIommufd, Call::HwptAlloc(1), Call::AttachIoas(to)];
        let calls = calls.into_iter().filter(|c| !tables_track || *c != Call::HwptAlloc(1));
        assert_eq!(bench.kernel.log.take()[1..], calls.collect::<Vec<_>>());
        assert_eq!(second.groups(&[1, 2]), Some(Vec::new()));
        drop(first);
        assert_eq!(bench.kernel.log.take(), [Call::DetachIoas, Call::Close("device")]);
        drop(second);
        let calls =
            [Call::DetachIoas, Call::Destroy(2), Call::Close("device"), Call::Unmap(0, 4 * MIB), Call::Destroy(1)];
        let calls = calls.into_iter().filter(|c| tables_track || *c != Call::Destroy(2));
        assert_eq!(bench.kernel.log.take(), calls.collect::<Vec<_>>());
        another_view(&bench, &iommufd);
    }
}

fn another_view(bench: &Bench, iommufd: &Arc<Iommufd>) {
    // Another view of memory is another address space.
    let other = DmaHandle::new(AddressSpace::new("empty"), 8);
    let _first = bench.vfio.assign(wanted("01:00.0"), Some(iommufd), &bench.dma).expect("assigned");
    let _second = bench.vfio.assign(wanted("02:00.0"), Some(iommufd), &other).expect("assigned");
    let calls = bench.kernel.log.take();
    assert_eq!(calls.iter().filter(|c| matches!(c, Call::IoasAlloc(_))).count(), 2);
}

/// A kernel call that fails leaves nothing behind, whichever it is.
#[test]
fn each_call_fails() {
    for by_iommufd in [false, true] {
        for n in 0.. {
            let bench = Bench::new(FakeKernel::default());
            let iommufd = bench.vfio.iommufd(None).expect("an iommufd");
            bench.kernel.log.fail_after(n, libc::EIO);
            let result = bench.vfio.assign(wanted("01:00.0"), by_iommufd.then_some(&iommufd), &bench.dma);
            if bench.kernel.log.succeed() {
                assert!(result.is_ok() && n > 3);
                break;
            }
            let error = result.err().expect("it fails").to_string();
            assert!(error.contains("os error 5") && !error.contains('\n'), "{error}");
            assert!(!bench.ram.pinned(0), "after call {n}");
            let open = bench.kernel.devices.lock().iter().filter(|d| d.is_open()).count();
            // A group's device is there from the start in the fake, and open once asked for.
            assert!(!by_iommufd || open == 0);
            for container in bench.kernel.containers.lock().iter() {
                assert!(container.maps.lock().ranges.is_empty());
            }
            bench.vfio.assign(wanted("01:00.0"), by_iommufd.then_some(&iommufd), &bench.dma).expect("then it works");
        }
    }
}

fn refused(tree: &Tree, name: &str) -> String {
    tree.roots().by_address(name).expect_err("refused").to_string().replace(&tree.0.display().to_string(), "")
}

/// One line each, with the remedy.
#[test]
fn what_is_wrong_in_sysfs() {
    let tree = Tree::new();
    tree.device("0000:01:00.0", Some(1), Some("e1000e"), None)
        .device("0000:01:00.1", Some(1), None, None)
        .device("0000:01:00.2", None, Some("vfio-pci"), None)
        .device("0000:01:00.3", None, None, None)
        .device("0000:01:00.4", Some(1), Some("mlx5_vfio_pci"), Some(9))
        .device("0000:01:00.5", Some(1), Some("uio_pci_generic"), None);
    assert_eq!(refused(&tree, "05:00.0"), "the host has no PCI device 0000:05:00.0 (lspci -D lists them)");
    assert_eq!(
        refused(&tree, "zz"),
        "'zz' is not the address of a PCI function: expected [DOMAIN:]BUS:DEVICE.FUNCTION, as 0000:01:00.0"
    );
    assert_eq!(
        refused(&tree, "01:00.0"),
        "0000:01:00.0 is bound to the driver e1000e, not to vfio-pci: modprobe vfio-pci; echo vfio-pci > \
         /sys/bus/pci/devices/0000:01:00.0/driver_override; echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind; \
         echo 0000:01:00.0 > /sys/bus/pci/drivers_probe"
    );
    assert_eq!(
        refused(&tree, "01:00.1"),
        "0000:01:00.1 is bound to no driver, and so not to vfio-pci: modprobe vfio-pci; echo vfio-pci > \
         /sys/bus/pci/devices/0000:01:00.1/driver_override; echo 0000:01:00.1 > /sys/bus/pci/drivers_probe"
    );
    for name in ["01:00.2", "01:00.3"] {
        assert!(refused(&tree, name).contains("is behind no IOMMU: switch the IOMMU"), "{}", refused(&tree, name));
    }
    let place = tree.roots().by_address("01:00.4").expect("a driver of VFIO's own");
    assert_eq!(place.cdev, Some(tree.0.join("dev/vfio/devices/vfio9")));
    assert!(refused(&tree, "01:00.5").contains("driver uio_pci_generic, not"));
    let by_path = tree.roots().by_sysfs(&tree.0.join("sys/bus/pci/devices/0000:01:00.4"));
    assert_eq!(by_path.ok(), Some(place));
    for path in ["sys/bus/pci/drivers", "sys/nothing"] {
        assert!(tree.roots().by_sysfs(&tree.0.join(path)).is_err());
    }
    let file = std::fs::File::open("/dev/null").expect("a file");
    let error = tree.roots().by_file(std::os::fd::AsFd::as_fd(&file)).expect_err("no device").to_string();
    assert_eq!(error, "the device of the given file descriptor is no PCI function");
}

/// What the kernel refuses, in one line with the remedy.
#[test]
fn what_the_kernel_refuses() {
    let assign = |kernel: FakeKernel, set: &dyn Fn(&Bench)| {
        let bench = Bench::new(kernel);
        bench.tree.device("0000:01:00.1", Some(7), Some("e1000e"), None);
        bench.tree.device("0000:01:00.2", Some(7), Some("nvme"), None);
        bench.tree.device("0000:00:01.0", Some(7), Some("pcieport"), None);
        set(&bench);
        let error = bench.vfio.assign(wanted("01:00.0"), None, &bench.dma).err().expect("refused").to_string();
        error.replace(&bench.tree.0.display().to_string(), "")
    };
    let mut broken = FakeKernel::default();
    broken.broken_groups.insert(7);
    assert_eq!(
        assign(broken, &|_| ()),
        "0000:01:00.0: the host uses other devices of its IOMMU group 7: 0000:01:00.1 (e1000e), 0000:01:00.2 (nvme); bind those to \
         vfio-pci, too, or to no driver"
    );
    let opening = |n, errno| assign(FakeKernel::default(), &|b| b.kernel.log.fail_after(n, errno));
    assert_eq!(
        opening(0, libc::EACCES),
        "/dev/vfio/7 may not be opened: run as root, or give your user the right (chown USER /dev/vfio/7)"
    );
    assert_eq!(
        opening(0, libc::EBUSY),
        "/dev/vfio/7 is in use: another program, perhaps another virtual machine, has 0000:01:00.0 or a device of its group"
    );
    assert_eq!(
        opening(1, libc::ENOENT),
        "/dev/vfio/vfio does not exist: the host's kernel module vfio is not loaded (modprobe vfio)"
    );
    assert!(
        opening(4, libc::ENOMEM).contains("(RLIMIT_MEMLOCK): run as root")
            || opening(4, libc::ENOMEM).contains("cannot be mapped")
    );
    assert!(opening(4, libc::ENOSPC).starts_with("the host maps no more ranges"));
    let kernel = FakeKernel { extensions: [extension::TYPE1].into(), ..FakeKernel::default() };
    assert!(assign(kernel, &|_| ()).starts_with(
        "the host's kernel offers no kind of IOMMU that is known here: load its module (modprobe vfio_iommu_"
    ));
    let kernel = FakeKernel::default();
    *kernel.info.lock() =
        ContainerInfo { page_sizes: !0xfff, iova_ranges: vec![(0, MIB - 1)], ..ContainerInfo::default() };
    assert_eq!(
        assign(kernel, &|_| ()),
        "guest memory at 0x0 (0x400000 bytes) is where the host's IOMMU maps nothing (0x0-0xfffff): give the machine less memory, or a \
         lower place for it"
    );
    let bench = Bench::new(FakeKernel::default());
    bench.tree.device("0000:03:00.0", Some(9), Some("vfio-pci"), None);
    let iommufd = bench.vfio.iommufd(None).expect("an iommufd");
    let error = bench.vfio.assign(wanted("03:00.0"), Some(&iommufd), &bench.dma).err().expect("refused");
    assert!(matches!(&error, VfioError::NoCdev(name) if name == "0000:03:00.0"), "{error}");
}

/// An IOMMU that nobody can follow.
struct Alone;

impl Iommu for Alone {
    fn translate(&self, _: u32, _: u64, _: bool) -> Result<Translation, BusError> {
        Err(BusError::Refused)
    }
    fn interrupt(&self, _: u32, _: u64, _: u32) {}
    fn watch(&self, _: u32, _: &[GpaRange]) -> Arc<AtomicBool> {
        Arc::default()
    }
}

#[test]
fn guest_iommu() {
    let bench = Bench::new(FakeKernel::default());
    let place = IommuPlace::default();
    assert!(place.set(Arc::new(Alone)).is_ok());
    let dma = DmaHandle::behind(bench.memory.clone(), 8, place);
    let error = bench.vfio.assign(wanted("01:00.0"), None, &dma).err().expect("refused").to_string();
    assert_eq!(error, "the guest's IOMMU cannot have assigned devices behind it");
    bench.vfio.assign(wanted("01:00.0"), None, &bench.dma).expect("assigned without it");
}

/// The real thing, as far as a host without devices has it.
#[test]
fn real_files() {
    let tree = Tree::new();
    let kernel = Kernel::new(tree.roots().dev);
    assert_eq!(kernel.open_group(7, false).err().and_then(|e| e.raw_os_error()), Some(libc::ENOENT));
    assert_eq!(kernel.open_container().err().and_then(|e| e.raw_os_error()), Some(libc::ENOENT));
    assert!(kernel.open_iommufd(None).is_err() && kernel.open_cdev(Path::new("/nowhere")).is_err());
    // A file that is none of VFIO's refuses every call.
    std::fs::write(tree.0.join("dev/vfio/vfio"), "").expect("a file");
    let file = kernel.open_container().expect("a file");
    assert!(file.api_version() < 0 && file.info().is_err() && !file.check_extension(extension::TYPE1_V2));
    assert!(Roots::default().by_address("ffff:ff:1f.7").is_err());
}
