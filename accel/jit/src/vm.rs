//! One machine's JIT: the code cache and what concerns all vCPUs.

use crate::blocks::Maker;
use crate::cache::{Cache, PageId, Stats};
use crate::compiler::{Background, Compiler};
use crate::fetch::Identities;
use crate::report::{self, CompileListener, InstallListener, Listeners};
use crate::runtime;
use crate::shared::{Shared, Work};
use crate::turns::Turns;
use crate::vcpu::JitVcpu;
use crate::x64::{self, RuntimeFns};
use parking_lot::{Mutex, RwLock};
use rhea_accel::{Accelerator, GuestAccelerator, GuestVcpu, Services, Vcpu, VcpuError};
use rhea_clock::VirtualClock;
use rhea_ir::env::{PAGE_SIZE, Requests};
use rhea_ir::guest::{Guest, TlbFlush};
use rhea_memory::ram::CodeWriteListener;
use rhea_memory::{
    AddressSpace, ChangeListener, DirtyClient, DirtySource, FlatTarget, MemoryChange, RamBlock, Subscription,
};
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Settings of the JIT.
#[derive(Clone, Debug)]
pub struct JitOptions {
    /// Bytes of code memory.
    pub code_bytes: usize,
    /// Entries of a block before its region is optimised; `None`: never.
    pub hot_threshold: Option<i32>,
    /// Interpret the IR instead of generating code.
    pub interpret: bool,
    /// Optimise regions on a thread of their own, while the guest runs on.
    pub background: bool,
    /// The machine's clock, if it counts instructions: one vCPU runs at a time, as far as the clock says.
    pub counting: Option<Arc<VirtualClock>>,
}

impl Default for JitOptions {
    fn default() -> Self {
        JitOptions {
            code_bytes: 256 << 20,
            hot_threshold: Some(1500),
            interpret: !x64::host_is_supported(),
            background: true,
            counting: None,
        }
    }
}

/// Host pages that may have a writable mapping in some TLB: a bit per hash, never cleared but by a flush of all TLBs.
pub struct WrittenPages {
    bits: Box<[AtomicU64]>,
}

impl WrittenPages {
    const BITS: usize = 1 << 20;
    fn new() -> WrittenPages {
        WrittenPages { bits: (0..Self::BITS / 64).map(|_| AtomicU64::new(0)).collect() }
    }
    fn slot(host: u64) -> (usize, u64) {
        let page = host / PAGE_SIZE;
        let h = (page ^ page >> 20) as usize % Self::BITS;
        (h / 64, 1 << (h % 64))
    }
    pub fn set(&self, host: u64) {
        let (w, b) = Self::slot(host);
        if self.bits[w].load(Ordering::Relaxed) & b == 0 {
            self.bits[w].fetch_or(b, Ordering::SeqCst);
        }
    }
    fn get(&self, host: u64) -> bool {
        let (w, b) = Self::slot(host);
        self.bits[w].load(Ordering::SeqCst) & b != 0
    }
}

/// A wait for what a vCPU that runs does at once. One that is not running needs the processor that this thread waits on; to give
/// it up at once would give it to any other program.
#[derive(Default)]
struct Wait(u32);

impl Wait {
    /// Some microseconds.
    const SPINS: u32 = 200;
    fn pause(&mut self) {
        if self.0 < Self::SPINS {
            self.0 += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// The parts of the JIT that do not depend on the guest architecture's types.
pub struct Core {
    pub space: Arc<AddressSpace>,
    pub cache: Mutex<Cache>,
    pub written: Arc<WrittenPages>,
    pub identities: Identities,
    /// Rises with each change of the memory map.
    pub map_generation: AtomicU64,
    /// Rises with each flush of the code cache: jump caches older than it are stale.
    pub code_generation: AtomicU64,
    shareds: RwLock<Vec<Arc<Shared>>>,
    exclusive: Mutex<()>,
    /// Held while a page is made a code page: nobody takes it for tracked before all vCPUs know.
    pub tracking: Mutex<()>,
    me: Weak<Core>,
    /// Set while somebody waits for all vCPUs to be outside generated code.
    pub stop_world: AtomicBool,
    /// Instructions are counted.
    pub turns: Option<Arc<Turns>>,
}

impl Core {
    /// Runs `f` while no vCPU runs generated code. The caller must not be counted as running it.
    pub fn exclusively<R>(&self, f: impl FnOnce(&Core) -> R) -> R {
        let guard = loop {
            // Do not sleep on the lock: the holder waits for nobody here, since we are outside generated code.
            if let Some(g) = self.exclusive.try_lock() {
                break g;
            }
            std::thread::yield_now();
        };
        self.stop_world.store(true, Ordering::SeqCst);
        let all = self.shareds.read().clone();
        for s in &all {
            s.request_accel();
        }
        for s in &all {
            let mut wait = Wait::default();
            while s.in_code.load(Ordering::SeqCst) {
                wait.pause();
            }
        }
        let r = f(self);
        self.stop_world.store(false, Ordering::SeqCst);
        drop(guard);
        r
    }

    /// Empties the code cache.
    pub fn flush_code(&self) {
        self.exclusively(|c| {
            // Under the lock: who holds it sees the cache and its generation as they belong together.
            let mut cache = c.cache.lock();
            cache.flush();
            c.identities.clear();
            c.code_generation.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// Gives work to all other vCPUs and returns when each has done it or is outside generated code (and will do it
    /// before it enters again). The caller must not be counted as running generated code.
    pub fn on_others(&self, me: u32, work: &dyn Fn() -> Work) {
        let all = self.shareds.read().clone();
        let mut waiting = Vec::new();
        for s in all.iter().filter(|s| s.index != me) {
            s.push_quietly(work());
            if s.in_code.load(Ordering::SeqCst) {
                // What comes after the work says that it was done: a vCPU may leave, do it, and be back before it is
                // looked at here.
                let done = Arc::new(AtomicBool::new(false));
                let tell = done.clone();
                s.push_quietly(Work::Call(Box::new(move || tell.store(true, Ordering::SeqCst))));
                waiting.push((s, done));
            }
        }
        for (s, done) in waiting {
            let mut wait = Wait::default();
            while s.in_code.load(Ordering::SeqCst) && !done.load(Ordering::SeqCst) {
                wait.pause();
            }
        }
    }

    /// Marks a page as holding code and makes sure that no vCPU can write to it unseen.
    pub fn track_page(&self, me: u32, block: &Arc<RamBlock>, page: u64, host: u64) -> bool {
        let _tracking = self.tracking.lock();
        if block.is_code_page(page) {
            return false;
        }
        // Devices' writes and those of slow paths are told from there.
        block.set_code_listener(self.me.clone());
        block.set_code_page(page);
        std::sync::atomic::fence(Ordering::SeqCst);
        if !self.written.get(host) {
            return false;
        }
        self.on_others(me, &|| Work::Protect(host));
        true
    }

    /// Kills translations of written bytes; true if there were any.
    pub fn code_write(&self, block: &RamBlock, offset: u64, len: u64) -> bool {
        let mut hit = false;
        let mut cache = self.cache.lock();
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let page = at / PAGE_SIZE;
            let next = ((page + 1) * PAGE_SIZE).min(end);
            let id: PageId = (std::ptr::from_ref(block) as usize, page);
            let (from, to) = (at % PAGE_SIZE, (next - 1) % PAGE_SIZE + 1);
            if block.is_code_page(page) {
                hit |= cache.overlaps(id, from, to);
                if cache.invalidate(id, from, to) {
                    block.clear_code_page(page);
                }
            }
            at = next;
        }
        hit
    }
}

impl CodeWriteListener for Core {
    fn code_written(&self, block: &RamBlock, offset: u64, len: u64) {
        self.code_write(block, offset, len);
    }
}

impl DirtySource for Core {
    fn track(&self, block: &RamBlock, on: bool) {
        if on {
            // Mappings made before are writable for good.
            self.collect(block);
        }
    }
    fn collect(&self, block: &RamBlock) {
        // A page opened after this is of the next time; what is written to those here before all TLBs are empty is seen by who reads
        // them after the call.
        let pages = block.take_open();
        self.on_others(u32::MAX, &|| Work::Flush(TlbFlush::All));
        for page in pages {
            block.mark_dirty(page * PAGE_SIZE, 1, &DirtyClient::ALL);
        }
    }
}

impl Core {
    /// Is asked for what guest code writes, from now on.
    fn follow_dirty(&self) {
        for space in std::iter::once(self.space.clone()).chain(self.space.secure_side()) {
            for range in space.view().ranges() {
                if let FlatTarget::Ram(ram) = &range.target
                    && !ram.block.is_device()
                {
                    ram.block.add_dirty_source(self.me.clone(), &DirtyClient::ALL);
                }
            }
        }
    }
}

struct MapFollower(Weak<Core>);

impl ChangeListener for MapFollower {
    fn memory_changed(&self, _: &MemoryChange) {
        if let Some(c) = self.0.upgrade() {
            c.follow_dirty();
            c.map_generation.fetch_add(1, Ordering::SeqCst);
            for s in c.shareds.read().iter() {
                s.request_accel();
            }
        }
    }
}

/// The JIT of one machine.
pub struct JitVm<G: Guest> {
    pub core: Arc<Core>,
    pub(crate) options: JitOptions,
    pub(crate) fns: RuntimeFns,
    pub(crate) maker: Arc<Maker<G>>,
    pub(crate) trampoline: usize,
    pub(crate) exit: usize,
    pub(crate) no_return: usize,
    pub(crate) listeners: Arc<Listeners>,
    /// Makes regions, if they are wanted.
    pub(crate) compiler: Option<Arc<Compiler<G>>>,
    /// Its thread, if it has one.
    pub(crate) background: Option<Background<G>>,
    pub(crate) thunks: [usize; x64::Thunk::COUNT],
    vcpus: RwLock<Vec<Arc<JitVcpu<G>>>>,
    _follow: Vec<Subscription>,
}

impl<G: Guest> JitVm<G> {
    /// # Errors
    /// The host's error when executable memory cannot be had.
    pub fn new(space: &Arc<AddressSpace>, options: JitOptions) -> io::Result<Arc<JitVm<G>>> {
        let mut cache = Cache::new(options.code_bytes)?;
        let fns = runtime::fns::<G>();
        let shared = x64::trampoline(&fns);
        let trampoline =
            cache.add_permanent(&shared.bytes).ok_or_else(|| io::Error::other("code memory is too small"))?;
        let core = Arc::new_cyclic(|me| Core {
            space: space.clone(),
            cache: Mutex::new(cache),
            written: Arc::new(WrittenPages::new()),
            identities: Identities::new(),
            map_generation: AtomicU64::new(0),
            code_generation: AtomicU64::new(0),
            shareds: RwLock::new(Vec::new()),
            exclusive: Mutex::new(()),
            tracking: Mutex::new(()),
            me: me.clone(),
            stop_world: AtomicBool::new(false),
            turns: options.counting.as_ref().and_then(Turns::new).map(Arc::new),
        });
        core.follow_dirty();
        let follow = std::iter::once(space.clone()).chain(space.secure_side());
        let follow = follow.map(|s| s.subscribe(Arc::new(MapFollower(Arc::downgrade(&core))))).collect();
        let listeners = Arc::new(Listeners::default());
        let threshold = options.hot_threshold.map(|n| n.clamp(0, Requests::MOST));
        let guest = PhantomData;
        let maker = Arc::new(Maker { core: core.clone(), fns, threshold, listeners: listeners.clone(), guest });
        let compiler = threshold.map(|n| Compiler::new(&maker, n));
        let background = match &compiler {
            // What is compiled when depends on the host then, and with it where a vCPU looks at requests.
            Some(c) if options.background && !options.interpret && core.turns.is_none() => Some(Background::start(c)?),
            _ => None,
        };
        Ok(Arc::new(JitVm {
            core,
            options,
            compiler,
            background,
            fns,
            trampoline,
            exit: trampoline + shared.exit,
            no_return: trampoline + shared.no_return,
            maker,
            listeners,
            thunks: shared.thunks.map(|at| trampoline + at),
            vcpus: RwLock::new(Vec::new()),
            _follow: follow,
        }))
    }

    /// Adds a vCPU with its guest; its thread starts with [`Vcpu::start`].
    pub fn add_vcpu(self: &Arc<Self>, index: u32, guest: Box<G>) -> Arc<JitVcpu<G>> {
        let v = JitVcpu::new(self, index, guest);
        self.core.shareds.write().push(v.shared().clone());
        if let Some(turns) = &self.core.turns {
            turns.add(v.shared());
        }
        self.vcpus.write().push(v.clone());
        v
    }

    /// Sets what is called with the intermediate code of all that is compiled from now on; once.
    pub fn on_compile(&self, f: CompileListener) {
        // The first one stays.
        let _ = self.listeners.compiled.set(f);
    }
    /// Sets what is called with all code that is made from now on; once.
    pub fn on_install(&self, f: InstallListener) {
        let _ = self.listeners.installed.set(f);
    }

    pub fn stats(&self) -> Stats {
        self.core.cache.lock().stats()
    }
    /// The text of `info jit`.
    pub fn describe(&self) -> String {
        let shareds = self.core.shareds.read().clone();
        report::describe(&self.stats(), shareds.iter().map(|s| (s.index, &*s.counts)))
    }
}

impl<G: Guest> Accelerator for JitVm<G> {
    fn name(&self) -> &'static str {
        "jit"
    }
    fn services(&self) -> Services {
        Services::default()
    }
    fn vcpus(&self) -> Vec<Arc<dyn Vcpu>> {
        self.vcpus.read().iter().map(|v| v.clone() as Arc<dyn Vcpu>).collect()
    }
    fn flush(&self) {
        self.core.flush_code();
    }
}

impl<G: Guest> GuestAccelerator<G> for JitVm<G> {
    fn add_vcpu(self: Arc<Self>, index: u32, guest: Box<G>) -> Result<Arc<dyn GuestVcpu<G>>, VcpuError> {
        Ok(JitVm::add_vcpu(&self, index, guest))
    }
}
