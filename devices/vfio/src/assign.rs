//! Devices of the host that this machine has, and what they share: groups, containers, address spaces.

use crate::backing::Backing;
use crate::error::Context;
use crate::locate::{Place, Roots};
use crate::migration::Peers;
use crate::space::DmaSpace;
use crate::sys::{API_VERSION, ContainerFile, DeviceFile, GroupFile, Host, IommuFile, Kernel, extension};
use crate::{Report, VfioError};
use parking_lot::Mutex;
use rhea_accel::AssignedFiles;
use rhea_device::dma::{DmaHandle, Iommu};
use rhea_memory::AddressSpace;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// Which device is to be assigned.
#[derive(Debug)]
pub enum Wanted {
    /// By its address, `0000:01:00.0`; the domain may be left out.
    Address(String),
    /// By its folder in sysfs.
    Sysfs(PathBuf),
    /// By its own file, which somebody else opened (`/dev/vfio/devices/vfio<N>`); needs an iommufd.
    File(OwnedFd),
}

/// `/dev/iommu`, as an object of the machine.
pub struct Iommufd {
    file: Arc<dyn IommuFile>,
}

/// All assigned devices of a machine.
pub struct Vfio {
    host: Arc<dyn Host>,
    roots: Roots,
    report: Report,
    watcher: Option<Arc<dyn AssignedFiles>>,
    peers: Arc<Peers>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    groups: Vec<Arc<Group>>,
    /// Names of all devices that are assigned.
    devices: Vec<String>,
    spaces: Vec<Weak<IommufdSpace>>,
}

/// Which memory a device is to see.
#[derive(Clone)]
struct View {
    memory: Arc<AddressSpace>,
    iommu: Option<(Arc<dyn Iommu>, u32)>,
}

impl View {
    fn of(dma: &DmaHandle) -> Self {
        let iommu = dma.iommu().map(|iommu| (iommu.clone(), iommu.domain(dma.requester_id())));
        Self { memory: dma.space(), iommu }
    }
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
            && match (&self.iommu, &other.iommu) {
                (None, None) => true,
                (Some((a, m)), Some((b, n))) => Arc::ptr_eq(a, b) && m == n,
                _ => false,
            }
    }
}

/// A container with what is mapped in it. The fields are dropped in this order.
struct Container {
    space: Arc<DmaSpace>,
    file: Arc<dyn ContainerFile>,
    view: View,
}

/// A group that is open: once, however many of its devices are assigned.
struct Group {
    number: u32,
    users: Mutex<usize>,
    container: Arc<Container>,
    file: Arc<dyn GroupFile>,
    watcher: Option<Arc<dyn AssignedFiles>>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.removed(self.file.fd());
        }
        // With somebody still in it the group leaves when its file is closed, after the last device's.
        let _ = self.file.unset_container();
    }
}

/// An address space of an iommufd with the devices attached to it.
struct IommufdSpace {
    space: Arc<DmaSpace>,
    file: Arc<dyn IommuFile>,
    view: View,
}

/// How a device got to its address space.
enum Way {
    Group(Arc<Group>),
    /// With its number in the iommufd.
    Iommufd(Arc<IommufdSpace>, u32),
}

/// An assigned device: closed when this is dropped, and all others have dropped the file.
pub struct Assigned {
    vfio: Arc<Vfio>,
    /// `None` while it is dropped.
    device: Option<Arc<dyn DeviceFile>>,
    way: Option<Way>,
    place: Place,
}

impl Vfio {
    /// Over this host's kernel.
    #[must_use]
    pub fn new(watcher: Option<Arc<dyn AssignedFiles>>) -> Arc<Self> {
        let roots = Roots::default();
        let host = Arc::new(Kernel::new(&roots.dev));
        Self::over(host, roots, watcher, Arc::new(|text| eprintln!("rhea: warning: vfio: {text}")))
    }
    /// Over another kernel, with other files, and with warnings elsewhere.
    #[must_use]
    pub fn over(
        host: Arc<dyn Host>,
        roots: Roots,
        watcher: Option<Arc<dyn AssignedFiles>>,
        report: Report,
    ) -> Arc<Self> {
        Arc::new(Self { host, roots, report, watcher, peers: Arc::default(), state: Mutex::default() })
    }
    /// Opens `/dev/iommu`, or takes that file from somebody else.
    ///
    /// # Errors
    /// [`VfioError`].
    pub fn iommufd(&self, fd: Option<OwnedFd>) -> Result<Arc<Iommufd>, VfioError> {
        let path = self.roots.dev.join("iommu");
        let file = self.host.open_iommufd(fd).map_err(|e| opening(e, path, "iommufd", "the IOMMU"))?;
        Ok(Arc::new(Iommufd { file }))
    }
    /// Opens a device, and lets it see the memory that `dma` leads to: through what groups and containers there are, or an iommufd.
    ///
    /// # Errors
    /// [`VfioError`].
    pub fn assign(
        self: &Arc<Self>,
        wanted: Wanted,
        iommufd: Option<&Arc<Iommufd>>,
        dma: &DmaHandle,
    ) -> Result<Assigned, VfioError> {
        let (place, fd) = match wanted {
            Wanted::Address(address) => (self.roots.by_address(&address)?, None),
            Wanted::Sysfs(path) => (self.roots.by_sysfs(&path)?, None),
            Wanted::File(fd) => (self.roots.by_file(fd.as_fd())?, Some(fd)),
        };
        if place.noiommu {
            return Err(VfioError::NoIommu(place.name));
        }
        let view = View::of(dma);
        let mut state = self.state.lock();
        if state.devices.contains(&place.name) {
            return Err(VfioError::Twice { name: place.name });
        }
        let (device, way) = match iommufd {
            Some(iommufd) => self.by_iommufd(&mut state, &place, fd, iommufd, dma, view)?,
            None => self.by_group(&mut state, &place, dma, view)?,
        };
        state.devices.push(place.name.clone());
        drop(state);
        let assigned = Assigned { vfio: self.clone(), device: Some(device), way: Some(way), place };
        if let Some(space) = assigned.space() {
            space.joined(assigned.device());
        }
        Ok(assigned)
    }

    // ---- groups and containers ----

    fn by_group(
        &self,
        state: &mut State,
        place: &Place,
        dma: &DmaHandle,
        view: View,
    ) -> Result<(Arc<dyn DeviceFile>, Way), VfioError> {
        let group = match state.groups.iter().find(|g| g.number == place.group) {
            Some(group) if group.container.view.same(&view) => group.clone(),
            Some(_) => return Err(VfioError::Views { name: place.name.clone(), group: place.group }),
            None => {
                let group = self.open_group(state, place, dma, view)?;
                state.groups.push(group.clone());
                group
            }
        };
        match group
            .file
            .device(&place.name)
            .map_err(|e| opening(e, self.roots.group_file(place), "vfio-pci", &place.name))
        {
            Ok(device) => {
                *group.users.lock() += 1;
                Ok((device, Way::Group(group)))
            }
            Err(e) => {
                drop(group);
                state.groups.retain(|g| *g.users.lock() != 0);
                Err(e)
            }
        }
    }
    fn open_group(&self, state: &State, place: &Place, dma: &DmaHandle, view: View) -> Result<Arc<Group>, VfioError> {
        let path = self.roots.group_file(place);
        let file = self.host.open_group(place.group, false).map_err(|e| opening(e, path, "vfio-pci", &place.name))?;
        if !file.status().during("the state of an IOMMU group")?.viable {
            let used = self.roots.used_by_host(place);
            let others: Vec<_> = used.iter().map(|(name, driver)| format!("{name} ({driver})")).collect();
            let others = if others.is_empty() { "unknown".to_owned() } else { others.join(", ") };
            return Err(VfioError::NotViable { name: place.name.clone(), group: place.group, others });
        }
        let made = |container| {
            if let Some(watcher) = &self.watcher {
                watcher.added(file.fd());
            }
            let watcher = self.watcher.clone();
            Arc::new(Group { number: place.group, users: Mutex::new(0), container, file: file.clone(), watcher })
        };
        // One that shows the same memory, if the kernel lets this group into it.
        for other in &state.groups {
            if other.container.view.same(&view) && file.set_container(&*other.container.file).is_ok() {
                other.container.space.refresh().during("what the host's IOMMU can map")?;
                return Ok(made(other.container.clone()));
            }
        }
        let path = self.roots.dev.join("vfio/vfio");
        let container = self.host.open_container().map_err(|e| opening(e, path, "vfio", &place.name))?;
        let version = container.api_version();
        if version != API_VERSION {
            return Err(VfioError::Version(version));
        }
        file.set_container(&*container).during("putting an IOMMU group into a container")?;
        let space = self.set_up(container.clone(), dma).inspect_err(|_| {
            let _ = file.unset_container();
        })?;
        Ok(made(Arc::new(Container { space, file: container, view })))
    }
    /// Chooses the kind of IOMMU of a container with a group in it.
    fn set_up(&self, container: Arc<dyn ContainerFile>, dma: &DmaHandle) -> Result<Arc<DmaSpace>, VfioError> {
        let backing = if container.check_extension(extension::SPAPR_TCE_V2) {
            container.set_iommu(extension::SPAPR_TCE_V2).during("the host's IOMMU (spapr TCE)")?;
            Backing::tce(container)
        } else if container.check_extension(extension::TYPE1_V2) {
            container.set_iommu(extension::TYPE1_V2).during("the host's IOMMU (type 1)")?;
            Backing::type1(container)
        } else {
            let power = cfg!(target_arch = "powerpc64");
            return Err(VfioError::NoKind { module: if power { "vfio_iommu_spapr_tce" } else { "vfio_iommu_type1" } });
        };
        DmaSpace::new(Arc::new(backing.during("what the host's IOMMU can map")?), dma, self.report.clone())
    }

    // ---- iommufd ----

    fn by_iommufd(
        &self,
        state: &mut State,
        place: &Place,
        fd: Option<OwnedFd>,
        iommufd: &Arc<Iommufd>,
        dma: &DmaHandle,
        view: View,
    ) -> Result<(Arc<dyn DeviceFile>, Way), VfioError> {
        let device = match (fd, &place.cdev) {
            (Some(fd), _) => self.host.adopt_cdev(fd).during("the given file descriptor")?,
            (None, None) => return Err(VfioError::NoCdev(place.name.clone())),
            (None, Some(path)) => {
                self.host.open_cdev(path).map_err(|e| opening(e, path.clone(), "vfio-pci", &place.name))?
            }
        };
        if let Some(watcher) = &self.watcher {
            watcher.added(device.fd());
        }
        let attached = self.attach(state, place, &*device, &iommufd.file, dma, view);
        if attached.is_err()
            && let Some(watcher) = &self.watcher
        {
            watcher.removed(device.fd());
        }
        let (space, number) = attached?;
        Ok((device, Way::Iommufd(space, number)))
    }
    fn attach(
        &self,
        state: &mut State,
        place: &Place,
        device: &dyn DeviceFile,
        file: &Arc<dyn IommuFile>,
        dma: &DmaHandle,
        view: View,
    ) -> Result<(Arc<IommufdSpace>, u32), VfioError> {
        let path = place.cdev.clone().unwrap_or_default();
        let number = device.bind_iommufd(file.fd()).map_err(|e| opening(e, path, "vfio-pci", &place.name))?;
        state.spaces.retain(|s| s.strong_count() > 0);
        for space in state.spaces.iter().filter_map(Weak::upgrade) {
            let same = Arc::ptr_eq(&space.file, file) && space.view.same(&view);
            if same && space.space.backing().attach(device, number).is_ok() {
                space.space.refresh().during("what the host's IOMMU can map")?;
                return Ok((space, number));
            }
        }
        let ioas = file.ioas_alloc().during("an address space of the iommufd")?;
        let backing = Backing::iommufd(file.clone(), ioas, device, number)
            .during("putting the device into an address space of the iommufd")?;
        let backing = Arc::new(backing);
        let space =
            DmaSpace::new(backing.clone(), dma, self.report.clone()).inspect_err(|_| backing.detach(device, number))?;
        let space = Arc::new(IommufdSpace { space, file: file.clone(), view });
        state.spaces.push(Arc::downgrade(&space));
        Ok((space, number))
    }
}

impl Assigned {
    #[must_use]
    pub fn device(&self) -> &Arc<dyn DeviceFile> {
        self.device.as_ref().expect("it is taken out only when this is dropped")
    }
    /// `0000:01:00.0`, its group, its folder in sysfs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
    /// All functions of the machine that can migrate.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.vfio.peers
    }
    /// What it may reach.
    #[must_use]
    pub fn space(&self) -> Option<&Arc<DmaSpace>> {
        match self.way.as_ref()? {
            Way::Group(group) => Some(&group.container.space),
            Way::Iommufd(space, _) => Some(&space.space),
        }
    }
    /// Descriptors of this machine's groups with these numbers, for a bus reset; `None` if one is not this machine's. Empty with an
    /// iommufd. Open as long as devices of them are assigned.
    #[must_use]
    pub fn groups(&self, numbers: &[u32]) -> Option<Vec<RawFd>> {
        if matches!(self.way, Some(Way::Iommufd(..))) {
            return Some(Vec::new());
        }
        let state = self.vfio.state.lock();
        let find = |n: &u32| state.groups.iter().find(|g| g.number == *n).map(|g| g.file.fd());
        numbers.iter().map(find).collect()
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        if let (Some(space), Some(device)) = (self.space(), &self.device) {
            space.left(device);
        }
        let mut state = self.vfio.state.lock();
        let device = self.device.take();
        match self.way.take() {
            Some(Way::Group(group)) => {
                drop(device);
                *group.users.lock() -= 1;
                drop(group);
                // With the last device the group goes, and with the last group its container.
                state.groups.retain(|g| *g.users.lock() != 0);
            }
            Some(Way::Iommufd(space, number)) => {
                if let Some(device) = device {
                    if let Some(watcher) = &self.vfio.watcher {
                        watcher.removed(device.fd());
                    }
                    space.space.backing().detach(&*device, number);
                }
                drop(space);
            }
            None => {}
        }
        state.devices.retain(|name| *name != self.place.name);
    }
}

/// Why a file of VFIO cannot be opened.
fn opening(error: io::Error, path: PathBuf, module: &'static str, name: &str) -> VfioError {
    let path = path.display().to_string();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => VfioError::NoModule { path, module },
        Some(libc::EACCES | libc::EPERM) => VfioError::Denied { path },
        Some(libc::EBUSY) => VfioError::InUse { path, name: name.to_owned() },
        _ => VfioError::Call { what: path, source: error },
    }
}
