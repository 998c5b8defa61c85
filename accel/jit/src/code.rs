//! Memory for generated code: shared anonymous memory mapped twice, writable here and executable there (W^X), filled by a bump
//! pointer and emptied as a whole while no vCPU runs generated code. Behind the executable view are cells that code counts in.
#![expect(unsafe_code, reason = "maps executable memory and writes to it through raw pointers")]

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect, mremap_fixed, munmap,
};
use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// The two views of the code memory, and the cells.
///
/// Invariant: `rw` and `rx` map the same `len` bytes until drop; `cells` elements follow `rx`, readable and writable.
struct Mapping {
    rw: NonNull<u8>,
    rx: NonNull<u8>,
    len: usize,
    cells: usize,
}

/// Code memory for each byte of cells. A block that has one takes more than 64 bytes.
const BYTES_FOR_CELLS: usize = 16;
const PAGE: usize = 4096;

/// Addresses of `len` bytes where nothing is.
fn reserve(len: usize) -> io::Result<NonNull<u8>> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a fresh mapping at an address the kernel chooses.
    let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags)? };
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap returned null"))
}

// SAFETY: the mappings are plain memory; all mutation goes through a `&mut CodeMemory` or atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: both mappings are ours and no code runs in them any more.
        unsafe {
            let _ = munmap(self.rw.as_ptr().cast(), self.len);
            let _ = munmap(self.rx.as_ptr().cast(), self.len + self.cells * size_of::<AtomicI32>());
        }
    }
}

/// Code memory.
///
/// Invariant: bytes below `used` and from `cold` on belong to finished code and change only through [`CodeMemory::patch32`],
/// [`CodeMemory::patch_displacement`] and [`CodeMemory::patch_head`].
pub struct CodeMemory {
    map: Arc<Mapping>,
    used: usize,
    /// What is rarely run fills the memory from its end: down to here.
    cold: usize,
    /// Up to here, and down to here, somebody was asked to have the host's pages ready.
    ready: usize,
    cold_ready: usize,
}

/// Where code is whose rarely run part is elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Address of the first part.
    pub hot: usize,
    /// Its bytes, and those between its end and the second part.
    split: usize,
    apart: usize,
}

impl Placed {
    /// Counted from the first part: where a byte of the code is that was at `offset`.
    pub fn offset(&self, offset: u32) -> u32 {
        if (offset as usize) < self.split { offset } else { offset + self.apart as u32 }
    }
    /// Address and bytes of both parts of code of `len` bytes.
    pub fn parts(&self, len: usize) -> [(usize, usize); 2] {
        [(self.hot, self.split), (self.hot + self.split + self.apart, len - self.split)]
    }
}

/// Code memory that is used soon.
pub struct Soon {
    map: Arc<Mapping>,
    from: usize,
    len: usize,
}

impl Soon {
    /// Has the host find and clear its pages, so that who writes and runs the code need not wait for each.
    pub fn make_ready(&self) {
        // SAFETY: inside both mappings, which `map` keeps; populating changes no contents. A host that cannot does it later.
        unsafe {
            let _ = madvise(self.map.rw.as_ptr().add(self.from).cast(), self.len, Advice::LinuxPopulateWrite);
            let _ = madvise(self.map.rx.as_ptr().add(self.from).cast(), self.len, Advice::LinuxPopulateRead);
        }
    }
}

/// Code memory that nobody writes to for a while.
pub struct Resting(Arc<Mapping>);

impl Resting {
    /// Takes the pages out of the writable view, or the process would be taken to have all of them twice. The next write to one puts
    /// it back there.
    pub fn begin(&self) {
        // SAFETY: inside the mapping; of shared memory this changes no contents. A host that cannot has them there.
        let _ = unsafe { madvise(self.0.rw.as_ptr().cast(), self.0.len, Advice::LinuxDontNeed) };
    }
}

/// Bytes made ready at a time.
const STEP: usize = 2 << 20;

impl CodeMemory {
    /// `len`: bytes, whole pages.
    ///
    /// # Errors
    /// The host's error.
    pub fn new(len: usize) -> io::Result<CodeMemory> {
        let cells = (len / BYTES_FOR_CELLS).next_multiple_of(PAGE);
        let map = Mapping { rw: reserve(len)?, rx: reserve(len + cells)?, len, cells: cells / size_of::<AtomicI32>() };
        let (rw, rx): (*mut c_void, *mut c_void) = (map.rw.as_ptr().cast(), map.rx.as_ptr().cast());
        let data = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: what is replaced was reserved above and is not used. Of a shared mapping an old size of nothing makes a second one.
        unsafe {
            // Not of a memfd: perf asks its map file (`--perf-map`) about anonymous memory only.
            mmap_anonymous(rw, len, data, MapFlags::SHARED | MapFlags::FIXED)?;
            mremap_fixed(rw, 0, len, MremapFlags::MAYMOVE, rx)?;
            mprotect(rx, len, MprotectFlags::READ | MprotectFlags::EXEC)?;
            mmap_anonymous(rx.byte_add(len), cells, data, MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE)?;
        }
        Ok(CodeMemory { map: Arc::new(map), used: 0, cold: len, ready: 0, cold_ready: len })
    }

    /// What code counts in: one is reached from wherever the code is.
    pub fn cells(&self) -> &[AtomicI32] {
        // SAFETY: mapped behind `rx` as long as `map` is, and all zero at first.
        unsafe { std::slice::from_raw_parts(self.map.rx.as_ptr().add(self.map.len).cast(), self.map.cells) }
    }

    /// What comes next at either end, once for each part, while there is still some that is ready.
    pub fn soon(&mut self) -> Option<Soon> {
        let from = self.ready.max(self.used / STEP * STEP);
        let len = STEP.min(self.cold_ready.saturating_sub(from));
        if self.used + STEP / 2 >= self.ready && len != 0 {
            self.ready = from + len;
            return Some(Soon { map: self.map.clone(), from, len });
        }
        let to = self.cold_ready.min(self.cold.next_multiple_of(STEP)).min(self.map.len);
        let len = STEP.min(to.saturating_sub(self.ready));
        if self.cold < self.cold_ready + STEP / 2 && len != 0 {
            self.cold_ready = to - len;
            return Some(Soon { map: self.map.clone(), from: to - len, len });
        }
        None
    }

    pub fn resting(&self) -> Resting {
        Resting(self.map.clone())
    }

    /// Appends code at a 64-byte boundary; its executable address, or `None` when the memory is full.
    pub fn append(&mut self, bytes: &[u8]) -> Option<usize> {
        self.append_at(bytes, 64)
    }

    /// The same at a multiple of `align`, a power of two from 16 on.
    pub fn append_at(&mut self, bytes: &[u8], align: usize) -> Option<usize> {
        let at = self.used.next_multiple_of(align);
        let end = at.checked_add(bytes.len())?;
        if end > self.cold {
            return None;
        }
        // SAFETY: `at..end` is inside the mapping and in no finished code.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.rw.as_ptr().add(at), bytes.len()) };
        self.used = end;
        Some(self.map.rx.as_ptr() as usize + at)
    }

    /// Appends code whose part from offset `cold` on is rarely run: it comes elsewhere, and the displacements at the offsets `crossings`,
    /// which lead from one part to the other, are changed accordingly. `None` when the memory is full.
    ///
    /// `cell`: offsets of displacements, one in each part, that lead to the cell of this number.
    pub fn place(
        &mut self,
        bytes: &[u8],
        cold: usize,
        crossings: &[u32],
        align: usize,
        cell: Option<([u32; 2], usize)>,
    ) -> Option<Placed> {
        let (first, second) = bytes.split_at_checked(cold)?;
        let at = self.used.next_multiple_of(align);
        // Alignment within the code holds for both parts.
        let start = self.cold.checked_sub(second.len())?;
        let start = start.checked_sub(start.wrapping_sub(cold) % 16)?;
        let apart = start.checked_sub(at.checked_add(cold)?)?;
        let mut moved = Box::<[u8]>::from(bytes);
        for &c in crossings {
            let field = moved.get_mut(c as usize..c as usize + 4)?;
            let displacement = u32::from_le_bytes((&*field).try_into().ok()?);
            let apart = apart as u32;
            let displacement =
                if (c as usize) < cold { displacement.wrapping_add(apart) } else { displacement.wrapping_sub(apart) };
            field.copy_from_slice(&displacement.to_le_bytes());
        }
        if let Some((fields, n)) = cell {
            let to = std::ptr::from_ref(self.cells().get(n)?).addr();
            for (field, part) in fields.into_iter().zip([at, start.wrapping_sub(cold)]) {
                let field = field as usize;
                let behind = (self.map.rx.as_ptr() as usize + field + 4).wrapping_add(part);
                let displacement = i32::try_from(to as i64 - behind as i64).ok()?;
                moved.get_mut(field..field + 4)?.copy_from_slice(&displacement.to_le_bytes());
            }
        }
        let hot = self.append_at(&moved[..first.len()], align)?;
        // SAFETY: `start` and the bytes from there up to `self.cold` are inside the mapping and in no finished code.
        unsafe { std::ptr::copy_nonoverlapping(moved[cold..].as_ptr(), self.map.rw.as_ptr().add(start), second.len()) };
        self.cold = start;
        Some(Placed { hot, split: cold, apart })
    }

    /// Forgets all code but the first `keep` bytes. The caller makes sure that nobody runs or will run it.
    pub fn truncate(&mut self, keep: usize) {
        self.used = self.used.min(keep);
        self.cold = self.map.len;
    }

    /// Bytes from the beginning that code was appended to.
    pub fn appended(&self) -> usize {
        self.used
    }
    pub fn used(&self) -> usize {
        self.used + (self.map.len - self.cold)
    }
    /// All of it.
    pub fn size(&self) -> usize {
        self.map.len
    }

    fn offset(&self, addr: usize, size: usize) -> Option<usize> {
        let off = addr.checked_sub(self.map.rx.as_ptr() as usize)?;
        (off + size <= self.used || off >= self.cold && off + size <= self.map.len).then_some(off)
    }

    /// Points the 4-byte displacement at executable address `at` (4-byte aligned) to `target`, atomically with regard
    /// to vCPUs executing it.
    pub fn patch_displacement(&self, at: usize, target: usize) {
        self.patch32(at, (target as i64 - (at as i64 + 4)) as u32);
    }

    /// Replaces four aligned bytes, as above.
    pub fn patch32(&self, at: usize, value: u32) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::SeqCst);
        }
    }

    pub fn read32(&self, at: usize) -> Option<u32> {
        self.word(at).map(|w| w.load(Ordering::SeqCst))
    }

    fn word(&self, at: usize) -> Option<&AtomicU32> {
        let off = self.offset(at, 4).filter(|off| off % 4 == 0)?;
        // SAFETY: in bounds and aligned; concurrent readers are instruction fetches only.
        Some(unsafe { AtomicU32::from_ptr(self.map.rw.as_ptr().add(off).cast()) })
    }

    /// Replaces the first instruction of code at `at` (8-byte aligned), which has five bytes, by a jump to `target`. Who has executed it
    /// goes on behind it.
    pub fn patch_head(&self, at: usize, target: usize) {
        let Some(off) = self.offset(at, 8) else { return };
        if off % 8 != 0 {
            return;
        }
        let displacement = (target as i64 - (at as i64 + HEAD_BYTES as i64)) as u32;
        // SAFETY: as in `patch32`.
        let word = unsafe { AtomicU64::from_ptr(self.map.rw.as_ptr().add(off).cast()) };
        let behind = word.load(Ordering::SeqCst) & !0 << (8 * HEAD_BYTES);
        word.store(behind | u64::from(displacement) << 8 | 0xe9, Ordering::SeqCst);
    }
}

/// Bytes of the instruction at the beginning of each block and region: a jump takes its place.
pub const HEAD_BYTES: usize = 5;

/// Enters generated code: `tramp` is the address of the entry trampoline, `env` the guest's CPU structure, `code` a
/// region's entry. Returns its exit reason.
///
/// # Safety
/// `tramp` and `code` are addresses of finished code for this `env`, which is exclusively borrowed by the caller.
pub unsafe fn enter(tramp: usize, env: *mut u8, code: usize) -> u64 {
    // SAFETY: the trampoline has this signature (see `x64::trampoline`).
    let f: extern "C" fn(*mut u8, usize) -> u64 = unsafe { std::mem::transmute(tramp) };
    f(env, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code of 96 bytes with jumps over its middle, forwards at 1 and backwards at 81.
    fn two_parts() -> [u8; 96] {
        let mut bytes = [0x90; 96];
        bytes[..5].copy_from_slice(&[0xe9, 59, 0, 0, 0]);
        bytes[80..85].copy_from_slice(&[0xe9, 0xb3, 0xff, 0xff, 0xff]);
        bytes
    }

    #[test]
    fn parts_apart() {
        let mut code = CodeMemory::new(8192).unwrap();
        let target = |code: &CodeMemory, at: usize| {
            let bytes: Vec<u8> = [0, 4].iter().flat_map(|n| code.read32(at + n).unwrap().to_le_bytes()).collect();
            assert_eq!(bytes[0], 0xe9);
            (at + 5).wrapping_add_signed(i32::from_le_bytes(bytes[1..5].try_into().unwrap()) as isize)
        };
        let base = code.append(&[0x90; 8]).unwrap();
        for cold in [64usize, 70] {
            let placed = code.place(&two_parts(), cold, &[1, 81], 16, None).unwrap();
            let at = |offset: u32| placed.hot + placed.offset(offset) as usize;
            assert_eq!((at(0), at(5)), (placed.hot, placed.hot + 5));
            assert_eq!(at(cold as u32) % 16, (placed.hot + cold) % 16);
            // What led to 64 and to 8 does so still, wherever they are now; 64 is before the cut in the second round.
            if cold == 64 {
                assert_eq!(target(&code, at(0)), at(64));
            }
            assert_eq!(target(&code, at(80)), at(8));
            let [hot, rare] = placed.parts(96);
            assert_eq!((hot, rare), ((placed.hot, cold), (at(cold as u32), 96 - cold)));
            assert!(rare.0 > base + 4096 && hot.0 < base + 4096);
        }
        // The two ends meet.
        let mut placed = 0;
        while code.place(&two_parts(), 64, &[1, 81], 64, None).is_some() {
            placed += 1;
        }
        assert!(placed > 50 && code.used() <= code.size(), "{placed}");
        assert!(code.append(&[0x90; 4096]).is_none());
        code.truncate(code.appended());
        assert!(code.place(&two_parts(), 64, &[1, 81], 64, None).is_none_or(|p| p.hot != base));
        // Damaged offsets.
        let mut code = CodeMemory::new(4096).unwrap();
        assert!(
            code.place(&two_parts(), 97, &[], 16, None).is_none()
                && code.place(&two_parts(), 64, &[94], 16, None).is_none()
        );
        assert_eq!(code.used(), 0);
    }

    #[test]
    fn code_counts_in_its_cell() {
        let mut code = CodeMemory::new(1 << 20).unwrap();
        let cells = code.cells().len();
        assert_eq!(cells, (1 << 20) / 64);
        for n in [0, 1, cells - 1] {
            // sub dword [rip + displacement], edi; ret. The second part: add dword [rip + displacement], edi; ret
            let bytes = [0x29, 0x3d, 0, 0, 0, 0, 0xc3, 0x90, 0x01, 0x3d, 0, 0, 0, 0, 0xc3];
            let placed = code.place(&bytes, 8, &[], 16, Some(([2, 10], n))).unwrap();
            code.cells()[n].store(7, Ordering::Relaxed);
            let mut argument = 0u8;
            let env = &raw mut argument;
            let by = env.addr() as i32;
            for (at, left) in [(placed.hot, 7i32.wrapping_sub(by)), (placed.hot + placed.offset(8) as usize, 7)] {
                // SAFETY: it is what stands above, and does nothing with the address but take its lower half as a number.
                unsafe { enter(at, env, 0) };
                assert_eq!(code.cells()[n].load(Ordering::Relaxed), left);
            }
        }
        assert!(code.place(&[0x90; 10], 5, &[], 16, Some(([1, 6], cells))).is_none(), "there is no such cell");
        assert!(code.place(&[0x90; 10], 5, &[], 16, Some(([1, 7], 0))).is_none(), "it would end behind the code");
    }

    #[test]
    fn what_rests_is_there() {
        let mut code = CodeMemory::new(1 << 20).unwrap();
        let at = code.append(&[0x90; 64]).unwrap();
        code.resting().begin();
        assert_eq!(code.read32(at), Some(0x9090_9090));
        code.patch32(at + 4, 7);
        code.resting().begin();
        assert_eq!((code.read32(at), code.read32(at + 4)), (Some(0x9090_9090), Some(7)));
        assert_eq!(code.append(&[1; 64]), Some(at + 64));
    }

    #[test]
    fn made_ready_part_by_part() {
        let mut code = CodeMemory::new(3 * STEP + 4096).unwrap();
        let part = |s: Option<Soon>| s.map(|s| (s.from, s.len));
        let first = code.soon().unwrap();
        first.make_ready();
        assert_eq!((first.from, first.len), (0, STEP));
        // And at the other end.
        assert_eq!(part(code.soon()), Some((2 * STEP + 4096, STEP)));
        assert_eq!(part(code.soon()), None);
        code.append(&vec![0x90; STEP / 2 + 1]).unwrap();
        assert_eq!(part(code.soon()), Some((STEP, STEP)));
        code.append(&vec![0x90; STEP]).unwrap();
        assert_eq!(part(code.soon()), Some((2 * STEP, 4096)));
        code.append(&vec![0x90; STEP / 2]).unwrap();
        assert_eq!(part(code.soon()), None, "there is no more");
        // What was emptied is still there.
        code.truncate(0);
        assert_eq!(part(code.soon()), None);
    }
}
