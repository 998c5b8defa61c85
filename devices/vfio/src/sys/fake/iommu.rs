//! Groups, containers and iommufds, with what is mapped in them.

use super::*;

/// Ranges that are mapped in one address space.
#[derive(Default)]
pub(crate) struct Maps {
    pub ranges: BTreeMap<u64, DmaMap>,
    /// Pages of 4 KiB that may be mapped at a time (the limit of locked memory).
    pub limit: Option<u64>,
}

impl Maps {
    fn map(&mut self, map: &DmaMap, info: &ContainerInfo) -> Result<()> {
        let page = 1u64 << info.page_sizes.trailing_zeros().min(63);
        if map.len == 0 || !(map.iova | map.len | map.host).is_multiple_of(page) {
            return error(libc::EINVAL);
        }
        let Some(last) = map.iova.checked_add(map.len - 1) else { return error(libc::EINVAL) };
        let allowed = info.iova_ranges.iter().any(|(first, end)| *first <= map.iova && last <= *end);
        if !info.iova_ranges.is_empty() && !allowed {
            return error(libc::EINVAL);
        }
        if self.ranges.values().any(|m| m.iova <= last && map.iova <= m.iova + (m.len - 1)) {
            return error(libc::EEXIST);
        }
        if info.dma_available.is_some_and(|n| self.ranges.len() >= n as usize) {
            return error(libc::ENOSPC);
        }
        let locked: u64 = self.ranges.values().map(|m| m.len).sum();
        if self.limit.is_some_and(|limit| locked + map.len > limit) {
            return error(libc::ENOMEM);
        }
        self.ranges.insert(map.iova, *map);
        Ok(())
    }
    /// Type 1 v2: a range is unmapped as a whole, or not touched.
    fn unmap(&mut self, iova: u64, len: u64) -> Result<u64> {
        let Some(last) = len.checked_sub(1).and_then(|len| iova.checked_add(len)) else { return error(libc::EINVAL) };
        let hit: Vec<DmaMap> =
            self.ranges.values().filter(|m| m.iova <= last && iova <= m.iova + (m.len - 1)).copied().collect();
        if hit.iter().any(|m| m.iova < iova || m.iova + (m.len - 1) > last) {
            return error(libc::EINVAL);
        }
        for m in &hit {
            self.ranges.remove(&m.iova);
        }
        Ok(hit.iter().map(|m| m.len).sum())
    }
    /// Is nothing that is mapped cut by the edges of this range?
    fn whole(&self, iova: u64, len: u64) -> bool {
        let last = iova + (len - 1);
        let cut =
            |m: &DmaMap| (m.iova < iova && iova - m.iova < m.len) || (m.iova <= last && last - m.iova < m.len - 1);
        !self.ranges.values().any(cut)
    }
    fn writable(&self, iova: u64) -> bool {
        self.resolve(iova).is_some_and(|(_, write)| write)
    }
    /// Where an address of the device leads in this process, and whether it may write there.
    pub(crate) fn resolve(&self, iova: u64) -> Option<(u64, bool)> {
        let (start, m) = self.ranges.range(..=iova).next_back()?;
        (iova - start < m.len).then(|| (m.host + (iova - start), m.write))
    }
}

pub(super) struct FakeGroup {
    pub number: u32,
    pub viable: bool,
    pub log: Arc<Log>,
    pub inside: Mutex<bool>,
    pub device: Arc<FakeDevice>,
}

impl GroupFile for FakeGroup {
    fn fd(&self) -> RawFd {
        200 + self.number as RawFd
    }
    fn status(&self) -> Result<GroupStatus> {
        Ok(GroupStatus { viable: self.viable, container_set: *self.inside.lock() })
    }
    fn set_container(&self, _container: &dyn ContainerFile) -> Result<()> {
        self.log.note(Call::SetContainer(self.number))?;
        *self.inside.lock() = true;
        Ok(())
    }
    fn unset_container(&self) -> Result<()> {
        self.log.note(Call::UnsetContainer(self.number))?;
        *self.inside.lock() = false;
        Ok(())
    }
    fn device(&self, name: &str) -> Result<Arc<dyn DeviceFile>> {
        self.log.note(Call::OpenDevice(name.to_owned()))?;
        Ok(Arc::new(Handle(self.device.clone())))
    }
}

impl Drop for FakeGroup {
    fn drop(&mut self) {
        self.log.tell(Call::Close("group"));
    }
}

pub(crate) struct FakeContainer {
    pub(super) fd: RawFd,
    pub log: Arc<Log>,
    pub(super) extensions: BTreeSet<u32>,
    pub(super) info: ContainerInfo,
    pub(super) tce: TceInfo,
    pub maps: Mutex<Maps>,
    pub written: Mutex<Written>,
    /// Registered memory: start and length.
    pub registered: Mutex<BTreeMap<u64, u64>>,
    /// Windows by their start: page shift and length.
    pub windows: Mutex<BTreeMap<u64, (u32, u64)>>,
}

impl FakeContainer {
    /// May a device write the page? Then it does.
    pub(super) fn written_by_device(&self, page: u64) -> bool {
        let may = self.maps.lock().writable(page);
        if may {
            self.written.lock().note(page);
        }
        may
    }
    /// The smallest page, in which alone dirty ones are told, if they are and their log is on.
    fn tells(&self, dirty: &DirtyBitmap<'_>) -> Result<()> {
        let page = 1 << self.info.page_sizes.trailing_zeros().min(63);
        let good = self.written.lock().on && dirty.page_size == page;
        let room = self.info.dirty.map_or(0, |d| d.max_bitmap);
        if good && size_of_val(dirty.words) as u64 <= room { Ok(()) } else { error(libc::EINVAL) }
    }
}

impl ContainerFile for FakeContainer {
    fn fd(&self) -> RawFd {
        self.fd
    }
    fn api_version(&self) -> i32 {
        API_VERSION
    }
    fn check_extension(&self, extension: u32) -> bool {
        self.extensions.contains(&extension)
    }
    fn set_iommu(&self, kind: u32) -> Result<()> {
        self.log.note(Call::SetIommu(kind))
    }
    fn info(&self) -> Result<ContainerInfo> {
        Ok(self.info.clone())
    }
    fn map(&self, map: &DmaMap) -> Result<()> {
        self.log.note(Call::Map(*map))?;
        if !self.extensions.contains(&extension::SPAPR_TCE_V2) {
            return self.maps.lock().map(map, &self.info);
        }
        let last = map.iova + (map.len - 1);
        let windows = self.windows.lock();
        let shift = windows.iter().find(|(start, (_, len))| **start <= map.iova && last - **start < *len);
        let Some((_, (shift, _))) = shift else { return error(libc::EINVAL) };
        let pinned =
            self.registered.lock().iter().any(|(host, len)| *host <= map.host && map.host - host + map.len <= *len);
        if !pinned || !(map.iova | map.len | map.host).is_multiple_of(1 << shift) {
            return error(libc::EINVAL);
        }
        // Entries of the table: what was there is replaced.
        let mut maps = self.maps.lock();
        for at in (map.iova..=last).step_by(1 << shift) {
            let entry = DmaMap { iova: at, len: 1 << shift, host: map.host + (at - map.iova), write: map.write };
            maps.ranges.insert(at, entry);
        }
        Ok(())
    }
    fn unmap(&self, iova: u64, len: u64) -> Result<u64> {
        self.log.note(Call::Unmap(iova, len))?;
        self.maps.lock().unmap(iova, len)
    }
    fn unmap_all(&self) -> Result<()> {
        self.log.note(Call::UnmapAll)?;
        self.maps.lock().ranges.clear();
        Ok(())
    }
    fn unmap_dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<u64> {
        self.log.note(Call::UnmapDirty(iova, len))?;
        self.tells(dirty)?;
        let unmapped = self.maps.lock().unmap(iova, len)?;
        self.written.lock().take(iova, len, dirty)?;
        Ok(unmapped)
    }
    fn track_dirty(&self, on: bool) -> Result<()> {
        self.log.note(Call::TrackDirty(on))?;
        if self.info.dirty.is_none() {
            return error(libc::ENOTTY);
        }
        self.written.lock().switch(on);
        Ok(())
    }
    fn dirty(&self, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        self.log.note(Call::Dirty(iova, len))?;
        self.tells(dirty)?;
        if !self.maps.lock().whole(iova, len) {
            return error(libc::EINVAL);
        }
        self.written.lock().take(iova, len, dirty)
    }
    fn tce_info(&self) -> Result<TceInfo> {
        Ok(self.tce)
    }
    fn register_memory(&self, host: u64, len: u64) -> Result<()> {
        self.log.note(Call::Register(host, len))?;
        let mut registered = self.registered.lock();
        if registered.iter().any(|(h, l)| *h < host + len && host < h + l) {
            return error(libc::EBUSY);
        }
        registered.insert(host, len);
        Ok(())
    }
    fn unregister_memory(&self, host: u64, len: u64) -> Result<()> {
        self.log.note(Call::Unregister(host, len))?;
        if self.maps.lock().ranges.values().any(|m| m.host < host + len && host < m.host + m.len) {
            return error(libc::EBUSY);
        }
        match self.registered.lock().remove(&host) {
            Some(l) if l == len => Ok(()),
            _ => error(libc::ENOENT),
        }
    }
    fn tce_create(&self, page_shift: u32, len: u64, _levels: u32) -> Result<u64> {
        self.log.note(Call::TceCreate(page_shift, len))?;
        let mut windows = self.windows.lock();
        // Where the real one has them: the first at 0, the second high up.
        let Some(start) = [0, 1 << 59].into_iter().find(|start| !windows.contains_key(start)) else {
            return error(libc::ENOSPC);
        };
        windows.insert(start, (page_shift, len));
        Ok(start)
    }
    fn tce_remove(&self, start: u64) -> Result<()> {
        self.log.note(Call::TceRemove(start))?;
        let Some((_, len)) = self.windows.lock().remove(&start) else { return error(libc::EINVAL) };
        self.maps.lock().ranges.retain(|iova, _| *iova < start || *iova - start >= len);
        Ok(())
    }
}

pub(crate) struct FakeIommufd {
    pub(super) log: Arc<Log>,
    pub(super) info: ContainerInfo,
    pub spaces: Mutex<BTreeMap<u32, Maps>>,
    /// Tables by their number: of which address space, and what was written by them.
    pub tables: Mutex<BTreeMap<u32, (u32, Written)>>,
    pub(super) tables_track: bool,
    pub(super) next: Mutex<u32>,
}

impl FakeIommufd {
    /// As for a container.
    pub(super) fn written_by_device(&self, page: u64) -> bool {
        let spaces = self.spaces.lock();
        for (ioas, written) in self.tables.lock().values_mut() {
            if spaces.get(ioas).is_some_and(|maps| maps.writable(page)) {
                written.note(page);
            }
        }
        spaces.values().any(|maps| maps.writable(page))
    }
    fn number(&self) -> u32 {
        let mut next = self.next.lock();
        *next += 1;
        *next - 1
    }
}

impl IommuFile for FakeIommufd {
    fn fd(&self) -> RawFd {
        300
    }
    fn ioas_alloc(&self) -> Result<u32> {
        self.log.note(Call::IoasAlloc(*self.next.lock()))?;
        let number = self.number();
        self.spaces.lock().insert(number, Maps::default());
        Ok(number)
    }
    fn destroy(&self, id: u32) -> Result<()> {
        self.log.note(Call::Destroy(id))?;
        self.spaces.lock().remove(&id);
        self.tables.lock().remove(&id);
        Ok(())
    }
    fn ioas_info(&self, _ioas: u32) -> Result<ContainerInfo> {
        Ok(self.info.clone())
    }
    fn ioas_map(&self, ioas: u32, map: &DmaMap) -> Result<()> {
        self.log.note(Call::Map(*map))?;
        match self.spaces.lock().get_mut(&ioas) {
            Some(maps) => maps.map(map, &self.info),
            None => error(libc::ENOENT),
        }
    }
    fn ioas_unmap(&self, ioas: u32, iova: u64, len: u64) -> Result<u64> {
        self.log.note(Call::Unmap(iova, len))?;
        let mut spaces = self.spaces.lock();
        let Some(maps) = spaces.get_mut(&ioas) else { return error(libc::ENOENT) };
        match maps.unmap(iova, len) {
            Ok(0) | Err(_) => error(libc::ENOENT),
            unmapped => {
                // What was told goes with the entries of the tables.
                for (of, written) in self.tables.lock().values_mut() {
                    if *of == ioas {
                        written.forget(iova, len);
                    }
                }
                unmapped
            }
        }
    }
    fn hwpt_alloc(&self, _device: u32, ioas: u32) -> Result<u32> {
        self.log.note(Call::HwptAlloc(ioas))?;
        if !self.tables_track {
            return error(libc::EOPNOTSUPP);
        }
        let number = self.number();
        self.tables.lock().insert(number, (ioas, Written::default()));
        Ok(number)
    }
    fn hwpt_track_dirty(&self, hwpt: u32, on: bool) -> Result<()> {
        self.log.note(Call::HwptTrack(hwpt, on))?;
        let mut tables = self.tables.lock();
        let Some((_, written)) = tables.get_mut(&hwpt) else { return error(libc::ENOENT) };
        written.switch(on);
        Ok(())
    }
    fn hwpt_dirty(&self, hwpt: u32, iova: u64, len: u64, dirty: &mut DirtyBitmap<'_>) -> Result<()> {
        self.log.note(Call::HwptDirty(hwpt, iova, len))?;
        match self.tables.lock().get_mut(&hwpt) {
            Some((_, written)) if written.on => written.take(iova, len, dirty),
            Some(_) => error(libc::EINVAL),
            None => error(libc::ENOENT),
        }
    }
}
