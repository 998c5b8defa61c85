//! The CPUs of the board: a [`PpcCpu`] as machine and debugger see it.

use super::partition::Partition;
use crate::cpu::{BoardCpu, BoardGuest};
use crate::profile::{Frame, FrameLink};
use rhea_accel::{DebugStop, GuestVcpu, WatchKind};
use rhea_device::{LoadError, Saved, state};
use rhea_memory::{AddressSpace, Gva};
use rhea_ppc::PpcCpu;
use rhea_ppc::bits::msr;
use rhea_ppc::debug::{DebugEvent, HostWatch};
use std::fmt::Write;
use std::sync::Arc;

/// The text of `-cpu help`.
#[must_use]
pub fn help() -> String {
    let mut text = "Available CPUs:\n".to_owned();
    for (name, model) in rhea_ppc::models::MODELS {
        let _ = writeln!(text, "  {name:<16} {}", model.description);
    }
    text
}

/// How the first CPU starts: 64-bit, big-endian, in real mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub pc: u64,
    /// R1 and R3 to R7.
    pub stack: u64,
    pub args: [u64; 5],
}

/// One CPU; the first one starts so, the others wait for start-cpu.
#[must_use]
pub fn start(
    vcpu: Arc<dyn GuestVcpu<PpcCpu>>,
    space: &Arc<AddressSpace>,
    partition: &Arc<Partition>,
    entry: Entry,
) -> Arc<BoardCpu<PpcCpu>> {
    let index = vcpu.index();
    let (of_reset, of_word) = (partition.clone(), partition.clone());
    let reset = move |cpu: &mut PpcCpu| {
        let (lpcr, pcr) = (of_reset.initial_lpcr(), of_reset.pcr());
        cpu.set_thread(index % of_reset.smp.threads.max(1));
        cpu.reset_off();
        cpu.set_lpcr(lpcr);
        cpu.set_pcr(pcr);
        if index == 0 {
            cpu.start_at(entry.pc, entry.args[0], false);
            cpu.gpr[1] = entry.stack;
            entry.args.iter().enumerate().for_each(|(n, arg)| cpu.gpr[3 + n] = *arg);
        }
    };
    let word = move |halted| match (of_word.cpu_runs(index), halted) {
        (Some(false), _) => "(off)",
        (_, true) => "(halted)",
        _ => "",
    };
    let of_presence = partition.clone();
    let present = move || of_presence.thread(index.into()).is_some();
    BoardCpu::pluggable(vcpu, space, Arc::new(reset), Box::new(word), index.into(), Box::new(present))
}

impl BoardGuest for PpcCpu {
    fn describe(&mut self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "NIP {:016x}   LR {:016x} CTR {:016x} XER {:016x} CPU#{}",
            self.pc(),
            self.lr,
            self.ctr,
            self.read_xer(),
            self.index
        );
        let _ = writeln!(text, "MSR {:016x}   CR {:08x} LPCR {:016x}", self.msr, self.read_cr(), self.lpcr());
        for (n, value) in self.gpr.all().into_iter().enumerate() {
            if n % 4 == 0 {
                let _ = write!(text, "GPR{n:02}");
            }
            let _ = write!(text, " {value:016x}{}", if n % 4 == 3 { "\n" } else { "" });
        }
        use rhea_ppc::spr;
        for (name, number) in [
            ("SRR0", spr::SRR0),
            ("SRR1", spr::SRR1),
            ("DAR", spr::DAR),
            ("DSISR", spr::DSISR),
            ("SPRG0", spr::SPRG0),
            ("CFAR", spr::CFAR),
        ] {
            let _ = write!(
                text,
                "{name:>5} {:016x}{}",
                self.spr[number as usize],
                if number == spr::DAR { "\n" } else { " " }
            );
        }
        text.push('\n');
        text
    }
    /// GPRs, FPRs, pc, MSR, CR, LR, CTR, XER, FPSCR: the order of GDB's powerpc64 core.
    fn gdb_registers(&mut self) -> Vec<u8> {
        let mut data = Vec::with_capacity(580);
        for value in self.gpr.all() {
            data.extend_from_slice(&value.to_be_bytes());
        }
        for n in 0..32 {
            data.extend_from_slice(&(self.vsr[n] as u64).to_be_bytes());
        }
        data.extend_from_slice(&self.pc().to_be_bytes());
        data.extend_from_slice(&self.msr.to_be_bytes());
        data.extend_from_slice(&self.read_cr().to_be_bytes());
        data.extend_from_slice(&self.lr.to_be_bytes());
        data.extend_from_slice(&self.ctr.to_be_bytes());
        data.extend_from_slice(&(self.read_xer() as u32).to_be_bytes());
        data.extend_from_slice(&(self.fpscr as u32).to_be_bytes());
        data
    }
    fn set_gdb_registers(&mut self, data: &[u8]) {
        let word = |at: usize| data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        let half = |at: usize| data.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        for n in 0..32 {
            self.gpr[n] = word(8 * n).unwrap_or(self.gpr[n]);
            if let Some(v) = word(256 + 8 * n) {
                self.vsr[n] = self.vsr[n] & !u128::from(u64::MAX) | u128::from(v);
            }
        }
        if let Some(pc) = word(512) {
            self.set_pc(pc);
        }
        if let Some(v) = word(520) {
            self.debugger_set_msr(v);
        }
        if let Some(v) = half(528) {
            self.set_cr(v);
        }
        self.lr = word(532).unwrap_or(self.lr);
        self.ctr = word(540).unwrap_or(self.ctr);
        if let Some(v) = half(548) {
            self.set_xer(v.into());
        }
    }
    fn frame(&self) -> Frame {
        Frame {
            pointer: self.gpr[1],
            link: FrameLink::InCaller,
            big_endian: self.msr & msr::LE == 0,
            user: self.msr & msr::PR != 0,
        }
    }
    fn instruction(&self) -> u64 {
        self.pc()
    }
    fn set_instruction(&mut self, pc: u64) {
        self.set_pc(pc);
    }
    fn is_halted(&self) -> bool {
        self.halted() || self.powered_off()
    }
    fn add_breakpoint(&mut self, address: u64) {
        self.add_host_breakpoint(address);
    }
    fn remove_breakpoint(&mut self, address: u64) {
        self.remove_host_breakpoint(address);
    }
    fn add_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) {
        self.add_host_watch(watch(address, len, kind));
    }
    fn remove_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) {
        self.remove_host_watch(watch(address, len, kind));
    }
    fn set_step(&mut self, on: bool) {
        self.set_host_step(on);
    }
    fn save_state(&mut self) -> Saved {
        state::encode(rhea_ppc::saved::VERSION, &self.save())
    }
    fn load_state(&mut self, saved: &Saved) -> Result<(), LoadError> {
        let saved: rhea_ppc::PpcSaved = state::decode(saved, rhea_ppc::saved::VERSION)?;
        self.load(&saved);
        Ok(())
    }
    fn take_stop(&mut self) -> DebugStop {
        match self.take_debug_event() {
            Some(DebugEvent::Breakpoint) => DebugStop::Breakpoint,
            Some(DebugEvent::Watchpoint { va, write }) => {
                let kind = if write { WatchKind::Write } else { WatchKind::Read };
                DebugStop::Watchpoint { address: Gva(va), kind }
            }
            Some(DebugEvent::Step) => DebugStop::Step,
            None => DebugStop::Pause,
        }
    }
}

fn watch(address: u64, len: u64, kind: WatchKind) -> HostWatch {
    HostWatch { va: address, len, read: kind != WatchKind::Write, write: kind != WatchKind::Read }
}
