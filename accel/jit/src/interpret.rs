//! Guest code without code for the host: the IR interpreter, and instructions that lie in a device's page.

use crate::cache::Key;
use crate::context::Ctx;
use crate::translate::{MAX_BLOCK, Source, single_instruction};
use crate::vcpu::{Inner, JitVcpu};
use rhea_ir::Function;
use rhea_ir::env::PAGE_SIZE;
use rhea_ir::guest::{Access as Kind, Guest, MemAccess, Raised};
use rhea_memory::{Access, Gpa, Requester};
use std::sync::Arc;

/// The instruction at `pc`, of bytes that are read as a processor reads a device: one after the other, as many as it has. `None`:
/// it is none.
pub fn device_instruction<G: Guest>(inner: &mut Inner<G>, pc: u64) -> Result<Option<Function>, Raised> {
    let mode = inner.guest.header().mode;
    let idx = G::fetch_index(mode);
    let counts = inner.ctx.core.turns.is_some();
    let mut code = Vec::new();
    loop {
        let va = pc.wrapping_add(code.len() as u64);
        let t = inner.guest.walk(va, Kind::Fetch, idx)?;
        let (gpa, index) = (Gpa(t.page.0 | va & (PAGE_SIZE - 1)), inner.ctx.index);
        let access = Access { size: 1, requester: Requester::Cpu(index), secure: t.secure };
        let Ok(byte) = inner.ctx.space.load(gpa, access) else {
            return Err(inner.guest.bus_fault(MemAccess { va, size: 1, kind: Kind::Fetch, mmu_idx: idx }));
        };
        code.push(byte as u8);
        if let Some(func) = single_instruction::<G>(&inner.config, mode, t.code_attrs, pc, &code, counts) {
            return Ok(func);
        }
    }
}

/// Runs an instruction of a device's page; true: the vCPU loop is to run before the next one.
fn interpret_device<G: Guest>(inner: &mut Inner<G>, pc: u64) -> bool {
    let Ok(Some(func)) = device_instruction(inner, pc) else {
        inner.guest.header_mut().raised = 0;
        return false;
    };
    run_interpreted(inner, &func)
}

/// Runs a block by the IR interpreter; true: the vCPU loop is to run before the next one.
fn run_interpreted<G: Guest>(inner: &mut Inner<G>, func: &Function) -> bool {
    let out = rhea_ir::interp::run(func, &mut *inner.guest, &mut Bus(&mut inner.ctx));
    inner.guest.header_mut().raised = 0;
    let leaves = rhea_ir::interp::Outcome::Exit(rhea_ir::ExitKind::Leave);
    out == leaves || out == rhea_ir::interp::Outcome::Requested
}

/// Memory as the IR interpreter sees it.
struct Bus<'a>(&'a mut Ctx);

impl<G: Guest> rhea_ir::interp::Memory<G> for Bus<'_> {
    fn load(&mut self, cpu: &mut G, va: u64, m: rhea_ir::MemOp) -> Result<u128, Raised> {
        self.0.load(cpu, va, m)
    }
    fn store(&mut self, cpu: &mut G, va: u64, m: rhea_ir::MemOp, x: u128) -> Result<(), Raised> {
        self.0.store(cpu, va, m, x)
    }
    fn rmw(&mut self, cpu: &mut G, va: u64, m: rhea_ir::MemOp, x: u128) -> Result<u128, Raised> {
        self.0.rmw(cpu, va, m, x)
    }
    fn cas(&mut self, cpu: &mut G, va: u64, m: rhea_ir::MemOp, e: u128, n: u128) -> Result<u128, Raised> {
        self.0.cas(cpu, va, m, e, n)
    }
    fn probe_write(&mut self, cpu: &mut G, va: u64, m: rhea_ir::MemOp) -> Result<(), Raised> {
        self.0.probe_write(cpu, va, m)
    }
}

/// Runs blocks through the IR interpreter, until something is asked of the vCPU or all instructions that are allowed were executed.
pub fn interpret<G: Guest>(v: &JitVcpu<G>, inner: &mut Inner<G>) {
    let mut blocks: rustc_hash::FxHashMap<Key, Arc<rhea_ir::Function>> = rustc_hash::FxHashMap::default();
    loop {
        if v.shared().asked() {
            return;
        }
        let left = inner.guest.header().counter.map_or(u64::MAX, rhea_clock::Counter::left);
        if left == 0 {
            return;
        }
        let most = left.min(u64::from(MAX_BLOCK)) as u32;
        let pc = inner.guest.header().pc;
        match inner.ctx.fetch(&mut *inner.guest, pc) {
            Ok(true) => {}
            Ok(false) if std::mem::take(&mut inner.ctx.uncached) => {
                inner.ctx.alone = true;
                if interpret_device(inner, pc) {
                    return;
                }
                continue;
            }
            Ok(false) => {
                inner.ctx.core.clone().flush_code();
                return;
            }
            Err(Raised) => {
                inner.guest.header_mut().raised = 0;
                continue;
            }
        }
        let e = inner.ctx.set.code.at(pc).clone();
        let key = e.key(pc, inner.guest.header().mode);
        inner.ctx.restart_alone = false;
        inner.ctx.alone = true;
        // Blocks are made anew when their page was written since.
        let Some((block, page)) = &e.page else { return };
        let tracked = block.is_code_page(*page);
        let cached = blocks.get(&key).filter(|_| tracked && most == MAX_BLOCK).cloned();
        let func = match cached {
            Some(f) => f,
            None => {
                blocks.retain(|k, _| k.host & !0xfff != e.host);
                let make = |src: &Source<G>| src.single(pc, most).map(|t| (t.ranges.clone(), t));
                let Ok(made) = v.with_block(inner, &e, key, make, |_, made| made) else {
                    inner.guest.header_mut().raised = 0;
                    continue;
                };
                if made.is_none() && std::mem::take(&mut inner.ctx.uncached) {
                    if interpret_device(inner, pc) {
                        return;
                    }
                    continue;
                }
                let Some(t) = made else { return };
                let f = Arc::new(t.func);
                // What goes on in a second page would have to follow that too.
                if t.others.is_empty() && most == MAX_BLOCK {
                    blocks.insert(key, f.clone());
                }
                f
            }
        };
        if run_interpreted(inner, &func) {
            return;
        }
    }
}
