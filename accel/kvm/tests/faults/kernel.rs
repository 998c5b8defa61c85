//! What the fake kernels of all architectures have in common: which call fails, what capabilities there are, what is the same of every
//! VM; and how each call is refused in turn.

use parking_lot::Mutex;
use rhea_accel::{GuestVcpu, InterruptRouting, IrqFd, MsiMessage, VmRequest};
use rhea_kvm::sys::{HeldWrite, PageRing, PrivateMemory, VfioDevice, WriteRing};
use rhea_memory::{Access, AddressSpace, BusError, DirtyClient, Gpa, Mapping, MmioDevice, RamBlock};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, Result};
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Nothing here takes so long.
pub const LONG: Duration = Duration::from_secs(20);

/// A call, which time, and its error.
pub type Fail = Option<(&'static str, u32, i32)>;

/// What a fake kernel does: exits are of type `E`.
pub struct Plan<E> {
    pub fail: Fail,
    /// Capabilities that are not as they usually are.
    pub caps: BTreeMap<u32, i32>,
    /// Registers that it refuses.
    pub refused: Vec<u64>,
    pub exits: Vec<E>,
    /// `dirty-ring-size=`.
    pub dirty_ring: u32,
    /// The host's processor has no SVM.
    pub no_svm: bool,
    /// It is not of the guest's version.
    pub other_version: bool,
    /// The guest can make its RAM its own.
    pub private: bool,
    /// Components of XSAVE's state that its kernel knows; `None`: it does not know the question.
    pub components: Option<u64>,
}

impl<E> Plan<E> {
    /// A kernel without these capabilities.
    pub fn without(caps: &[u32]) -> Self {
        Self { caps: caps.iter().map(|c| (*c, 0)).collect(), ..Self::default() }
    }
}

/// The one line for a kernel that lacks what is needed.
#[track_caller]
pub fn is_too_old(text: &str) {
    assert!(text.contains("too old: it lacks") && text.lines().count() == 1, "{text}");
}

impl<E> Default for Plan<E> {
    fn default() -> Self {
        Self {
            fail: None,
            caps: BTreeMap::new(),
            refused: Vec::new(),
            exits: Vec::new(),
            dirty_ring: 0,
            no_svm: false,
            other_version: false,
            private: false,
            components: None,
        }
    }
}

pub struct Kernel<E> {
    pub plan: Plan<E>,
    usual: fn(u32) -> i32,
    pub writes: Mutex<VecDeque<HeldWrite>>,
    pub pages: Mutex<VecDeque<(u32, u64)>>,
    /// The vCPU's area of XSAVE.
    pub xsave: Mutex<Vec<u8>>,
    counts: Mutex<BTreeMap<&'static str, u32>>,
    /// What became of memory: which slots have two faces, which ranges changed hands, what was given back.
    pub told: Mutex<Vec<String>>,
    /// Files of assigned devices, by what was done with them.
    pub files: Mutex<Vec<(&'static str, RawFd)>>,
}

impl<E> Kernel<E> {
    /// `usual`: the values of capabilities, but for those of the plan.
    pub fn new(plan: Plan<E>, usual: fn(u32) -> i32) -> Arc<Self> {
        Arc::new(Self {
            plan,
            usual,
            writes: Mutex::default(),
            pages: Mutex::default(),
            xsave: Mutex::default(),
            counts: Mutex::default(),
            told: Mutex::default(),
            files: Mutex::default(),
        })
    }
    pub fn call(&self, name: &'static str) -> Result<()> {
        let mut counts = self.counts.lock();
        let n = counts.entry(name).or_default();
        *n += 1;
        match self.plan.fail {
            Some((which, at, errno)) if which == name && at == *n => Err(Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }
    pub fn check(&self, capability: u32) -> i32 {
        self.plan.caps.get(&capability).copied().unwrap_or_else(|| (self.usual)(capability))
    }
    /// How often a call was made.
    pub fn count(&self, name: &str) -> u32 {
        self.counts.lock().get(name).copied().unwrap_or(0)
    }
}

/// What is the same of every VM.
macro_rules! any_vm {
    ($vm:ty) => {
        impl AnyVm for $vm {
            fn check(&self, capability: u32) -> i32 {
                self.0.check(capability)
            }
            fn enable(&self, _: u32, _: [u64; 4]) -> Result<()> {
                self.0.call("enable")
            }
            fn set_memory(&self, r: &Region) -> Result<()> {
                if let (Some((_, offset)), true) = (r.private, r.len > 0) {
                    assert!(!r.readonly && !r.log, "the kernel refuses it");
                    self.0.told.lock().push(format!("slot {:#x} {:#x} at {offset:#x}", r.gpa, r.len));
                }
                self.0.call("set_memory")
            }
            fn create_private(&self, _: u64) -> Result<Arc<dyn PrivateMemory>> {
                self.0.call("create_private")?;
                Ok(Arc::new(FakePrivate(self.0.clone())))
            }
            fn set_private(&self, address: u64, len: u64, on: bool) -> Result<()> {
                self.0.call("set_private")?;
                self.0.told.lock().push(format!("{} {address:#x} {len:#x}", if on { "private" } else { "shared" }));
                Ok(())
            }
            fn dirty_log(&self, _: u32, len: u64) -> Result<Vec<u64>> {
                self.0.call("dirty_log")?;
                Ok(vec![u64::MAX; len.div_ceil(64 * 4096) as usize])
            }
            fn reset_dirty_rings(&self) -> Result<()> {
                self.0.call("reset_dirty_rings")
            }
            fn hold_writes(&self, _: u64, _: u32, _: bool) -> Result<()> {
                self.0.call("hold_writes")
            }
            fn irqfd(&self, _: RawFd, _: u32, _: Option<RawFd>, _: bool) -> Result<()> {
                self.0.call("irqfd")
            }
            fn ioeventfd(&self, _: &IoEvent, _: bool) -> Result<()> {
                self.0.call("ioeventfd")
            }
            fn create_vfio(&self) -> Result<Arc<dyn VfioDevice>> {
                self.0.call("create_vfio").map(|()| Arc::new(FakeVfio(self.0.clone())) as _)
            }
        }
    };
}
pub(crate) use any_vm;

pub struct FakePrivate<E>(pub Arc<Kernel<E>>);
impl<E: Send + Sync> PrivateMemory for FakePrivate<E> {
    fn fd(&self) -> RawFd {
        99
    }
    fn free(&self, offset: u64, len: u64) -> Result<()> {
        self.0.told.lock().push(format!("free {offset:#x} {len:#x}"));
        self.0.call("free_private")
    }
}

pub struct FakeVfio<E>(pub Arc<Kernel<E>>);
impl<E: Send + Sync> VfioDevice for FakeVfio<E> {
    fn add(&self, file: RawFd) -> Result<()> {
        self.0.call("vfio_add")?;
        self.0.files.lock().push(("add", file));
        Ok(())
    }
    fn remove(&self, file: RawFd) -> Result<()> {
        self.0.files.lock().push(("remove", file));
        self.0.call("vfio_remove")
    }
}

/// Its rings: what the test has put there.
pub struct Writes<E>(pub Arc<Kernel<E>>);
impl<E: Send + Sync> WriteRing for Writes<E> {
    fn pop(&mut self) -> Option<HeldWrite> {
        self.0.writes.lock().pop_front()
    }
}
pub struct Pages<E>(pub Arc<Kernel<E>>);
impl<E: Send + Sync> PageRing for Pages<E> {
    fn pop(&mut self) -> Option<(u32, u64)> {
        self.0.pages.lock().pop_front()
    }
}

/// A device with doorbells.
pub struct Bell;
impl MmioDevice for Bell {
    fn read(&self, _: u64, _: Access) -> std::result::Result<u64, BusError> {
        Ok(0)
    }
    fn write(&self, _: u64, _: u64, _: Access) -> std::result::Result<(), BusError> {
        Ok(())
    }
    fn doorbells(&self) -> Vec<u64> {
        vec![0, 4, 8]
    }
}

/// What runs of a fake vCPU end with: one exit after the other, then by being asked to return.
pub struct Run<E> {
    /// `immediate_exit`.
    pub immediate: Box<AtomicU8>,
    exits: VecDeque<E>,
}

impl<E: Clone> Run<E> {
    pub fn new(exits: &[E]) -> Self {
        Self { immediate: Box::default(), exits: exits.iter().cloned().collect() }
    }
    /// `None`: it was interrupted.
    pub fn end(&mut self) -> Option<E> {
        let asked = || self.immediate.load(Ordering::SeqCst) != 0;
        // A run that is to return at once ends an instruction and no more.
        if !asked()
            && let Some(exit) = self.exits.pop_front()
        {
            return Some(exit);
        }
        while !asked() {
            std::thread::sleep(Duration::from_micros(100));
        }
        None
    }
}

/// RAM, ROM of the same block, and a device with doorbells.
pub fn memory() -> (Arc<AddressSpace>, Arc<RamBlock>, Vec<Mapping>) {
    let space = AddressSpace::new("system");
    let ram = RamBlock::anonymous("ram", 0x10_0000).unwrap();
    let mappings = vec![
        space.map_ram(Gpa(0), &ram, 0, 0x1_0000, 0).unwrap(),
        space.map_rom(Gpa(0x2_0000), &ram, 0x2_0000, 0x1000, 0).unwrap(),
        space.map_mmio(Gpa(0xe_0000), 0x1000, Arc::new(Bell), 0).unwrap(),
    ];
    (space, ram, mappings)
}

/// Looks for dirty pages, and maps and unmaps RAM meanwhile.
pub fn use_memory(space: &Arc<AddressSpace>, ram: &Arc<RamBlock>) {
    ram.start_dirty_log(DirtyClient::Migration);
    let _ = ram.take_dirty(DirtyClient::Migration, 0, u64::MAX);
    let more = space.map_ram(Gpa(0x10_0000), ram, 0x3_0000, 0x1000, 0).unwrap();
    drop(more);
    ram.stop_dirty_log(DirtyClient::Migration);
}

/// Connects eventfds to a line and to a message, and disconnects them; could the line be?
pub fn use_eventfds(irqfd: &dyn IrqFd, message: MsiMessage) -> bool {
    // Any file does for a kernel that looks at none.
    let file = std::fs::File::open("/dev/null").unwrap();
    let fd = file.as_fd();
    let line = InterruptRouting::new().line(5);
    let attached = irqfd.attach(&line, fd, Some(fd)).is_ok();
    let _ = irqfd.detach(&line, fd);
    for _ in 0..2 {
        if irqfd.attach_msi(message, fd).is_ok() {
            let _ = irqfd.detach_msi(message, fd);
        }
    }
    attached
}

/// A machine with one processor on a fake kernel.
pub trait Machine {
    type Guest: 'static;
    fn count(&self, name: &str) -> u32;
    fn vcpu(&self) -> &dyn GuestVcpu<Self::Guest>;
    fn requests(&self) -> &crossbeam_channel::Receiver<VmRequest>;
    /// All that a machine does in its life.
    fn live(&self);

    fn runs(&self) -> u32 {
        self.count("run")
    }
    fn with<R: Send + 'static>(&self, f: impl FnOnce(&mut Self::Guest) -> R + Send + 'static) -> R {
        let (done, result) = crossbeam_channel::bounded(1);
        self.vcpu().post(Box::new(move |cpu| {
            let _ = done.send(f(cpu));
        }));
        result.recv_timeout(LONG).expect("the vCPU does not answer")
    }
    fn pause(&self) {
        self.vcpu().request_pause();
        assert!(self.vcpu().wait_paused(Some(LONG)), "it does not pause");
    }
    /// The line that it was stopped with.
    fn panicked(&self) -> String {
        match self.requests().recv_timeout(LONG) {
            Ok(VmRequest::GuestPanic(text)) => {
                assert_eq!(text.lines().count(), 1, "{text}");
                text
            }
            other => panic!("{other:?}"),
        }
    }
    fn is_well(&self) {
        assert_eq!(self.requests().try_recv().ok(), None);
    }
}

pub fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !what() {
        assert!(Instant::now() < end, "it does not happen");
        std::thread::yield_now();
    }
}

/// Has `call` fail in turn while a machine is made and lives; what comes of it is a line, unless the machine can do without
/// (`optional`, which time). How often it was told.
pub fn refuse<M: Machine>(
    call: &'static str,
    optional: impl Fn(u32) -> bool,
    make: impl Fn(Fail) -> std::result::Result<M, String>,
) -> u32 {
    let mut failed = 0;
    for (at, errno) in [(1, libc::EIO), (1, libc::EINTR), (2, libc::ENOMEM), (2, libc::EINVAL), (3, libc::EFAULT)] {
        match make(Some((call, at, errno))) {
            Err(text) => {
                assert_eq!(text.lines().count(), 1, "{call}: {text}");
                failed += 1;
            }
            Ok(machine) => {
                machine.live();
                let told = machine.requests().try_iter().any(|r| {
                    let VmRequest::GuestPanic(text) = &r else { return false };
                    assert_eq!(text.lines().count(), 1, "{text}");
                    true
                });
                if machine.count(call) >= at && !optional(at) {
                    assert!(told, "{call} ({at}) failed and nobody was told");
                    failed += 1;
                }
            }
        }
    }
    failed
}
