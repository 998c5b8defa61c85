//! A vCPU: its thread, its way through generated code, its requests.
#![expect(unsafe_code, reason = "enters generated code")]

use crate::blocks::Placed;
use crate::cache::{Cache, Key, OtherPage, Ranges};
use crate::code::enter;
use crate::compiler::{Job, part_of_page, unchanged};
use crate::context::Ctx;
use crate::fetch::FetchEntry;
use crate::interpret::{device_instruction, interpret};
use crate::report::Look;
use crate::shared::{Shared, Work};
use crate::translate::{MAX_BLOCK, MAX_BLOCK_BYTES, Missing, Source};
use crate::turns::Turns;
use crate::vm::JitVm;
use crate::x64::{self, Entry, Region, reason};
use parking_lot::{Mutex, MutexGuard};
use rhea_accel::{Step, Vcpu, VcpuError};
use rhea_ir::env::{EnvHeader, PAGE_SIZE};
use rhea_ir::guest::{FpMode, Guest, NanRule, Poll, Raised, TlbFlush, request};
use rhea_memory::view::Lookup;
use smallvec::{SmallVec, smallvec};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Times that a block is begun anew because its bytes are changed meanwhile.
const ATTEMPTS: usize = 8;

/// A vCPU of the JIT.
pub struct JitVcpu<G: Guest> {
    vm: Weak<JitVm<G>>,
    shared: Arc<Shared>,
    /// Where instructions are counted.
    turns: Option<Arc<Turns>>,
    inner: Mutex<Inner<G>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    me: Weak<JitVcpu<G>>,
    /// Called when a debug event stops the vCPU.
    on_debug: Mutex<Option<Box<dyn Fn() + Send>>>,
}

pub struct Inner<G: Guest> {
    pub guest: Box<G>,
    pub ctx: Box<Ctx>,
    pub config: Arc<G::Config>,
    /// Ends a wait where instructions are counted.
    wake: Option<rhea_clock::Timer>,
}

/// Forgets translations of this vCPU.
fn flush<G: Guest>(inner: &mut Inner<G>, f: TlbFlush) {
    if f != TlbFlush::Outdated {
        return inner.ctx.flush(inner.guest.header_mut(), f);
    }
    for f in inner.guest.outdated() {
        inner.ctx.flush(inner.guest.header_mut(), f);
    }
}

impl<G: Guest> JitVcpu<G> {
    pub(crate) fn new(vm: &Arc<JitVm<G>>, index: u32, mut guest: Box<G>) -> Arc<Self> {
        let shared = Arc::new(Shared::new(index, guest.header()));
        let ctx = Box::new(Ctx::new(&vm.core, &shared, guest.header_mut(), vm.no_return));
        let turns = vm.core.turns.clone();
        guest.header_mut().counter = turns.as_ref().map(|turns| turns.counter);
        let config = guest.config();
        Arc::new_cyclic(|me| JitVcpu {
            vm: Arc::downgrade(vm),
            shared,
            turns,
            inner: Mutex::new(Inner { guest, ctx, config, wake: None }),
            thread: Mutex::new(None),
            me: me.clone(),
            on_debug: Mutex::new(None),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A handle that wakes this vCPU from any thread: interrupt pins changed.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let s = self.shared.clone();
        move || s.request(request::INTERRUPT)
    }

    /// Runs `f` on the guest; blocks until the vCPU is paused or halted by its own loop.
    pub fn with_guest<R>(&self, f: impl FnOnce(&mut G) -> R) -> R {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        fold_fp_flags::<G>(inner.guest.header_mut());
        let r = f(&mut inner.guest);
        self.drain_flushes(inner);
        r
    }

    fn drain_flushes(&self, inner: &mut Inner<G>) {
        let list = inner.guest.take_flushes();
        if list.is_empty() {
            return;
        }
        for (f, broadcast) in list {
            flush(inner, f);
            if broadcast {
                inner.ctx.core.on_others(inner.ctx.index, &|| Work::Flush(f));
            }
        }
    }

    fn do_work(&self, inner: &mut Inner<G>) {
        loop {
            let work = std::mem::take(&mut *self.shared.queue.lock());
            if work.is_empty() {
                break;
            }
            for w in work {
                match w {
                    Work::Flush(f) => flush(inner, f),
                    Work::Protect(host) => inner.ctx.protect(inner.guest.header_mut(), host),
                    Work::Call(f) => f(),
                    Work::Guest(f) => {
                        fold_fp_flags::<G>(inner.guest.header_mut());
                        f(&mut *inner.guest);
                        self.drain_flushes(inner);
                    }
                }
            }
        }
        inner.ctx.follow_memory_map(inner.guest.header_mut());
        let code = inner.ctx.core.code_generation.load(Ordering::SeqCst);
        if code != inner.ctx.code_generation {
            inner.ctx.code_generation = code;
            inner.ctx.forget_code(inner.guest.header_mut());
        }
    }

    /// The thread.
    fn run(self: Arc<Self>) {
        let mut guard = self.inner.lock();
        loop {
            // Paused or stopped, it lets others run.
            if let Some(turns) = &self.turns
                && self.shared.control.stopping()
            {
                turns.leave(self.shared.index);
            }
            // While paused others may look at the guest: `inner` is theirs, and is taken again for work that comes.
            let control = &self.shared.control;
            let step = || control.step(|| self.shared.has_work());
            match if control.running() { Step::Run } else { MutexGuard::unlocked(&mut guard, step) } {
                Step::Stop => return,
                Step::Work => {
                    self.shared.word().clear(request::ACCEL);
                    self.do_work(&mut guard);
                    continue;
                }
                Step::Run => {}
            }
            let inner = &mut *guard;
            if let Some(turns) = &self.turns {
                turns.wake(self.shared.index);
            }
            self.shared.word().clear_all();
            self.do_work(inner);
            self.drain_flushes(inner);
            if !self.take_turn(&mut guard) {
                continue;
            }
            let inner = &mut *guard;
            let context = inner.guest.context();
            inner.ctx.select_set(inner.guest.header_mut(), context);
            inner.ctx.set_flat(&mut *inner.guest);
            match inner.guest.poll() {
                Poll::Run => self.run_code(inner),
                Poll::Halt(timeout) => self.sleep(&mut guard, timeout),
                Poll::Off => self.sleep(&mut guard, None),
                Poll::Debug => {
                    self.shared.control.request_pause();
                    if let Some(f) = &*self.on_debug.lock() {
                        f();
                    }
                }
            }
        }
    }

    /// Waits until it may run, where one vCPU runs at a time; false: something else is to be done first.
    fn take_turn(&self, guard: &mut MutexGuard<'_, Inner<G>>) -> bool {
        let Some(turns) = &self.turns else { return true };
        let index = self.shared.index;
        if turns.ask(index) {
            return true;
        }
        MutexGuard::unlocked(guard, || {
            self.shared.control.sleep(|| turns.has(index) || self.shared.asked(), None);
            turns.has(index)
        })
    }

    /// Waits until a request arrives or the time has passed.
    fn sleep(&self, guard: &mut MutexGuard<'_, Inner<G>>, timeout: Option<Duration>) {
        if let Some(turns) = &self.turns {
            if let Some(timeout) = timeout {
                // It is guest time that passes.
                let timer = guard.wake.get_or_insert_with(|| turns.clock.timer(self.waker()));
                timer.arm(turns.clock.now_ns().saturating_add(timeout.as_nanos() as u64));
            }
            turns.sleep(self.shared.index);
            return self.sleep_until(guard, None);
        }
        self.sleep_until(guard, timeout);
    }

    fn sleep_until(&self, guard: &mut MutexGuard<'_, Inner<G>>, timeout: Option<Duration>) {
        MutexGuard::unlocked(guard, || self.shared.control.sleep(|| self.shared.asked(), timeout));
    }

    /// Runs guest code until requests are to be looked at and the guest is to be polled.
    fn run_code(&self, inner: &mut Inner<G>) {
        let Some(vm) = self.vm.upgrade() else { return };
        if vm.options.interpret {
            interpret(self, inner);
            self.near_limit(inner);
            return;
        }
        let env: *mut G = &raw mut *inner.guest;
        {
            let ctx: *mut Ctx = &raw mut *inner.ctx;
            let h = inner.guest.header_mut();
            h.accel[0] = ctx as u64;
            h.exit = vm.exit as u64;
            let touch: rhea_ir::raw::TouchFn<G> = crate::runtime::touch::<G>;
            h.touch = touch as *const () as u64;
            for (word, thunk) in h.accel[3..].iter_mut().zip(vm.thunks) {
                *word = thunk as u64;
            }
        }
        let mut mode = !inner.guest.header().mode;
        loop {
            // Translate (outside generated code, as far as others are concerned).
            if inner.guest.header().mode != mode {
                let h = inner.guest.header_mut();
                mode = h.mode;
                inner.ctx.select_jumps(h);
                inner.ctx.clear_returns(h);
                set_host_fp(h, G::fp_mode(mode));
            }
            if self.shared.word().load(Ordering::Relaxed) != 0 {
                return;
            }
            let pc = inner.guest.header().pc;
            let code = if inner.ctx.restart_alone {
                inner.ctx.restart_alone = false;
                inner.ctx.alone = true;
                self.alone(&vm, inner, pc)
            } else {
                match inner.ctx.probe(pc) {
                    Some(c) => {
                        self.shared.counts.look(Look::Jumps);
                        Ok(Some(c))
                    }
                    None => self.find(&vm, inner, pc),
                }
            };
            let code = match code {
                Ok(Some(c)) => c,
                Ok(None) => {
                    // Code memory was full: everything was flushed; start over.
                    return;
                }
                Err(Raised) => {
                    inner.guest.header_mut().raised = 0;
                    continue;
                }
            };
            // Enter: visible to others first, then their requests are looked at.
            self.shared.in_code.store(true, Ordering::SeqCst);
            let core = &inner.ctx.core;
            // An emptied cache that was not seen in `do_work`: `code` may be gone.
            let stale = || core.code_generation.load(Ordering::SeqCst) != inner.ctx.code_generation;
            if core.stop_world.load(Ordering::SeqCst) || stale() || self.shared.word().load(Ordering::SeqCst) != 0 {
                self.shared.in_code.store(false, Ordering::SeqCst);
                while inner.ctx.core.stop_world.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                inner.ctx.alone = false;
                return;
            }
            // SAFETY: trampoline and code are live: code is freed only by `Core::exclusively`, which waits for
            // `in_code`; `env` is this vCPU's guest, which nobody else touches while `inner` is locked.
            let r = unsafe { enter(vm.trampoline, env.cast(), code) };
            self.shared.in_code.store(false, Ordering::SeqCst);
            inner.ctx.alone = false;
            self.shared.counts.exit(r & 15);
            match r & 15 {
                reason::LOOKUP => {}
                reason::LINK => self.link(&vm, inner, (r >> 16) as u32, (r >> 4 & 0xfff) as usize),
                // A block that is asked to leave says that it is hot.
                reason::HOT if self.shared.word().load(Ordering::Relaxed) == 0 => self.optimise(&vm, inner),
                reason::PAGES => self.check_pages(&vm, inner, (r >> 16) as u32),
                reason::RAISED => inner.guest.header_mut().raised = 0,
                // Dead code leaves as if asked to: the jump cache still names it.
                reason::REQUESTED if self.shared.word().load(Ordering::Relaxed) == 0 => {
                    if self.near_limit(inner) {
                        return;
                    }
                    let pc = inner.guest.header().pc;
                    inner.ctx.forget(pc, mode);
                }
                _ => return,
            }
        }
    }

    /// Executes the last instructions that are allowed, fewer than a block has; true: all were.
    fn near_limit(&self, inner: &mut Inner<G>) -> bool {
        let Some(turns) = &self.turns else { return false };
        let left = turns.counter.left();
        if left == 0 {
            turns.spent(self.shared.index);
            return true;
        }
        if left >= u64::from(MAX_BLOCK) {
            return false;
        }
        interpret(self, inner);
        if turns.counter.spent() {
            turns.spent(self.shared.index);
        }
        true
    }

    /// Code for `pc` under the guest's current mode, translated if need be.
    fn find(&self, vm: &Arc<JitVm<G>>, inner: &mut Inner<G>, pc: u64) -> Result<Option<usize>, Raised> {
        if !inner.ctx.fetch(&mut *inner.guest, pc)? {
            return self.not_cached(vm, inner, pc);
        }
        let key = inner.ctx.set.code.at(pc).key(pc, inner.guest.header().mode);
        if let Some(c) = inner.ctx.found.get(&key) {
            self.shared.counts.look(Look::Lately);
            inner.ctx.remember(pc, c);
            return Ok(Some(c));
        }
        let found = vm.core.cache.lock().find(&key).map(|m| m.entry);
        let code = match found {
            Some(c) => {
                self.shared.counts.look(Look::Cache);
                Some(c)
            }
            None => {
                self.shared.counts.look(Look::Translated);
                let e = inner.ctx.set.code.at(pc).clone();
                self.translate(vm, inner, &e, key)?
            }
        };
        if let Some(c) = code {
            inner.ctx.found.put(key, c);
            inner.ctx.remember(pc, c);
        }
        Ok(code)
    }

    /// Has `make` make something of the block at `key`, from copies of its page and of the next one if the block goes on there, and
    /// then, if the bytes it was made of are still what they were, calls `done` with it and the locked cache.
    pub(crate) fn with_block<T, R>(
        &self,
        inner: &mut Inner<G>,
        e: &FetchEntry,
        key: Key,
        mut make: impl FnMut(&Source<G>) -> Result<(Ranges, T), Missing>,
        done: impl FnOnce(&mut Cache, T) -> R,
    ) -> Result<Option<R>, Raised> {
        let core = inner.ctx.core.clone();
        let config = inner.config.clone();
        let mut entries: SmallVec<[FetchEntry; 2]> = smallvec![e.clone()];
        for _ in 0..ATTEMPTS {
            let generation = core.code_generation.load(Ordering::SeqCst);
            let mut pages = Vec::with_capacity(entries.len());
            for (n, e) in entries.iter().enumerate() {
                let Some((block, page)) = e.page.as_ref() else { return Ok(None) };
                if core.track_page(inner.ctx.index, block, *page, e.host) {
                    inner.ctx.protect(inner.guest.header_mut(), e.host);
                }
                // What follows the block's page is only the end of an instruction.
                let from = if n == 0 { key.pc } else { (key.pc | (PAGE_SIZE - 1)).wrapping_add(1) };
                let Some(page) = part_of_page(e, from, MAX_BLOCK_BYTES) else { return Ok(None) };
                pages.push(page);
            }
            let src = Source { config: &*config, mode: key.mode, pages, counts: core.turns.is_some() };
            let (ranges, made) = match make(&src) {
                Ok(made) => made,
                Err(Missing::NextPage) if entries.len() == 1 => {
                    let va = (key.pc | (PAGE_SIZE - 1)).wrapping_add(1);
                    if !inner.ctx.fetch(&mut *inner.guest, va)? {
                        return Ok(None);
                    }
                    entries.push(inner.ctx.set.code.at(va).clone());
                    continue;
                }
                Err(_) => return Ok(None),
            };
            let mut cache = core.cache.lock();
            if core.code_generation.load(Ordering::SeqCst) == generation
                && unchanged(entries.iter(), &src.pages, &ranges)
            {
                return Ok(Some(done(&mut cache, made)));
            }
        }
        // Somebody writes to it all the time: there are requests to be looked at, too.
        Ok(None)
    }

    fn translate(
        &self,
        vm: &Arc<JitVm<G>>,
        inner: &mut Inner<G>,
        e: &FetchEntry,
        key: Key,
    ) -> Result<Option<usize>, Raised> {
        let maker = &vm.maker;
        let make = |src: &Source<G>| maker.block(src, key);
        let done =
            self.with_block(inner, e, key, make, |cache, block| (maker.install(cache, key, block), cache.soon()))?;
        match done {
            // The instruction goes on in a device's page.
            None if inner.ctx.uncached => self.not_cached(vm, inner, key.pc),
            None => Ok(None),
            Some((Placed::New(code), soon)) => {
                if let (Some(soon), Some(compiler), Some(_)) = (soon, &vm.compiler, &vm.background) {
                    compiler.submit_soon(soon);
                }
                vm.listeners.installed(&code);
                Ok(Some(code.parts[0].0))
            }
            Some((Placed::There(entry), _)) => Ok(Some(entry)),
            Some((Placed::Full, _)) => {
                vm.core.flush_code();
                Ok(None)
            }
        }
    }
    /// Code for an address whose page cannot be known: an instruction of a device's page, or nothing until the code cache has
    /// been emptied.
    fn not_cached(&self, vm: &Arc<JitVm<G>>, inner: &mut Inner<G>, pc: u64) -> Result<Option<usize>, Raised> {
        if !std::mem::take(&mut inner.ctx.uncached) {
            vm.core.flush_code();
            return Ok(None);
        }
        let Some(func) = device_instruction(inner, pc)? else { return Ok(None) };
        let entry = Entry { id: u32::MAX, ..Entry::default() };
        let region = Region { func: &func, helpers: G::HELPERS, fns: &vm.fns, entry, others: &[], sites: None };
        let code = x64::compile(&region).ok().and_then(|blob| vm.core.cache.lock().add_transient(&blob.bytes));
        if code.is_none() {
            vm.core.flush_code();
        }
        Ok(code)
    }

    /// A hot block: its region takes its place, now or soon.
    fn optimise(&self, vm: &Arc<JitVm<G>>, inner: &mut Inner<G>) {
        let Some(compiler) = &vm.compiler else { return };
        let pc = inner.guest.header().pc;
        match inner.ctx.fetch(&mut *inner.guest, pc) {
            Ok(true) => {}
            // Not hot code, then.
            Ok(false) if std::mem::take(&mut inner.ctx.uncached) => return,
            Ok(false) => return vm.core.flush_code(),
            Err(Raised) => {
                inner.guest.header_mut().raised = 0;
                return;
            }
        }
        let first = inner.ctx.set.code.at(pc).clone();
        let key = first.key(pc, inner.guest.header().mode);
        let job = || Job { key, first, pages: inner.ctx.set.code.pages(), config: inner.config.clone() };
        if vm.background.is_some() {
            return compiler.submit(&key, job);
        }
        compiler.make(&job());
        // The old entry in the jump cache still works (its head jumps on); the new one is better.
        let entry = vm.core.cache.lock().find(&key).map(|m| m.entry);
        if let Some(c) = entry {
            inner.ctx.remember(pc, c);
        }
    }

    /// A region found a further page of it unknown: look the page up, and give the region up if it is another one now.
    fn check_pages(&self, vm: &Arc<JitVm<G>>, inner: &mut Inner<G>, id: u32) {
        let others = vm.core.cache.lock().meta(id).map(|m| m.others.clone()).unwrap_or_default();
        for p in others {
            let va = p.tag & !0xfff;
            // Without side effects: the guest has not asked for this page yet.
            let same = match inner.guest.walk_debug(va) {
                Some(t) if t.executable => match inner.ctx.side(t.secure).view().lookup(t.page) {
                    Lookup::Ram { host, .. } => host as u64 == p.host,
                    _ => false,
                },
                _ => false,
            };
            // The walk may fail where a fetch would not.
            if !same || inner.ctx.fetch(&mut *inner.guest, va).is_err() {
                vm.core.cache.lock().kill(id);
                return;
            }
        }
        // Two pages of the region may share a slot, or a page has got a new number.
        let code = &inner.ctx.set.code;
        let mut cache = vm.core.cache.lock();
        let known = |p: &OtherPage| code.get(p.tag).is_some_and(|e| e.identity == p.identity);
        if !cache.meta(id).is_some_and(|m| m.others.iter().all(known)) {
            cache.kill(id);
        }
    }

    /// Resolves a direct exit and patches it to jump to its target.
    fn link(&self, vm: &Arc<JitVm<G>>, inner: &mut Inner<G>, id: u32, site: usize) {
        let pc = inner.guest.header().pc;
        let generation = vm.core.code_generation.load(Ordering::SeqCst);
        let Ok(Some(code)) = self.find(vm, inner, pc) else {
            inner.guest.header_mut().raised = 0;
            return;
        };
        let mode = inner.guest.header().mode;
        let cache = vm.core.cache.lock();
        // Only under the same mode, and if nothing was flushed meanwhile.
        if vm.core.code_generation.load(Ordering::SeqCst) == generation
            && cache.meta(id).is_some_and(|m| m.key.mode == mode)
        {
            cache.link(id, site, code, inner.ctx.set.code.at(pc));
        }
    }

    /// One instruction in a block of its own, not entered into the cache.
    fn alone(&self, vm: &Arc<JitVm<G>>, inner: &mut Inner<G>, pc: u64) -> Result<Option<usize>, Raised> {
        let known = inner.ctx.fetch(&mut *inner.guest, pc)?;
        if inner.ctx.uncached {
            return self.not_cached(vm, inner, pc);
        }
        let e = inner.ctx.set.code.at(pc).clone();
        let key = e.key(pc, inner.guest.header().mode);
        let make = |src: &Source<G>| {
            if !known {
                return Err(Missing::Other);
            }
            let t = src.single(pc, 1)?;
            let entry = Entry { id: u32::MAX, ..Entry::default() };
            // Run at once, on the pages just looked up.
            let region = Region { func: &t.func, helpers: G::HELPERS, fns: &vm.fns, entry, others: &[], sites: None };
            let blob = x64::compile(&region).map_err(|_| Missing::Other)?;
            Ok((t.ranges, blob))
        };
        let code = self.with_block(inner, &e, key, make, |cache, blob| cache.add_transient(&blob.bytes))?.flatten();
        if code.is_none() && inner.ctx.uncached {
            return self.not_cached(vm, inner, pc);
        }
        if code.is_none() {
            inner.ctx.restart_alone = true;
            vm.core.flush_code();
        }
        Ok(code)
    }
}

/// Moves sticky flags out of the host's control word.
fn fold_fp_flags<G: Guest>(h: &mut EnvHeader) {
    h.fp_flags |= crate::runtime::mxcsr_flags::<G>(h);
    h.host_fp &= !0x3f;
}

/// The host control word for a mode, keeping sticky flags; exceptions stay masked. Denormals are the host's business only
/// for a guest of its kind: for others the exact path flushes them.
fn set_host_fp(h: &mut EnvHeader, fp: FpMode) {
    let rc = match fp.rounding {
        1 => 2,
        2 => 1,
        3 => 3,
        _ => 0,
    };
    let (mut ftz, mut daz) = (0, 0);
    if fp.nan_rule == NanRule::X86 {
        ftz = (fp.flush as u32) << 15;
        daz = (fp.daz as u32) << 6;
    }
    h.host_fp = (h.host_fp & 0x3f) | 0x1f80 | rc << 13 | ftz | daz;
}

impl<G: Guest> rhea_accel::GuestVcpu<G> for JitVcpu<G> {
    fn post(&self, f: Box<dyn FnOnce(&mut G) + Send>) {
        self.shared.push(Work::Guest(Box::new(move |guest| {
            if let Some(guest) = guest.downcast_mut::<G>() {
                f(guest);
            }
        })));
    }
    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        Box::new(JitVcpu::waker(self))
    }
    fn on_debug_stop(&self, f: Box<dyn Fn() + Send>) {
        *self.on_debug.lock() = Some(f);
    }
}

impl<G: Guest> Vcpu for JitVcpu<G> {
    fn index(&self) -> u32 {
        self.shared.index
    }
    fn start(&self) -> Result<(), VcpuError> {
        let index = self.shared.index;
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        let t = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(4 << 20)
            .spawn(move || me.run())
            .map_err(|source| VcpuError::Thread { index, source })?;
        *self.thread.lock() = Some(t);
        Ok(())
    }
    fn request_pause(&self) {
        self.shared.control.request_pause();
        self.shared.request_accel();
    }
    fn wait_paused(&self, timeout: Option<Duration>) -> bool {
        self.shared.control.wait_paused(timeout)
    }
    fn resume(&self) {
        // Whose turn it is first does not depend on which thread wakes first.
        if let Some(turns) = &self.turns {
            turns.ask(self.shared.index);
        }
        self.shared.control.resume();
        self.shared.request_accel();
    }
    fn stop(&self) {
        self.shared.control.request_stop();
        self.shared.request_accel();
        let t = self.thread.lock().take();
        if let Some(t) = t {
            let _ = t.join();
        }
    }
    fn kick(&self) {
        self.shared.request(request::INTERRUPT);
    }
    fn request(&self, f: Box<dyn FnOnce() + Send>) {
        self.shared.push(Work::Call(f));
    }
}
