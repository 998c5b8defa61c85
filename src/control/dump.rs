//! `dump-guest-memory`: RAM and registers as an ELF core file.

use super::Context;
use parking_lot::Mutex;
use rhea_accel::VmRequest;
use rhea_control::{Call, Commands, Error, Events, Value, json};
use rhea_machine::Machine;
use rhea_machine::machine::Architecture;
use rhea_memory::{FlatTarget, Gpa, Requester};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

/// How far the last dump is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    status: Option<&'static str>,
    completed: u64,
    total: u64,
}

impl Progress {
    fn to_json(&self) -> Value {
        json!({"status": self.status.unwrap_or("none"), "completed": self.completed, "total": self.total})
    }
}

pub fn register(commands: &mut Commands<Context>, machine: &Machine) {
    if layout(machine.architecture()).is_some() {
        commands.add(&[
            ("dump-guest-memory", dump),
            ("query-dump", query),
            ("query-dump-guest-memory-capability", capability),
        ]);
    }
}

type Result<T = Value> = std::result::Result<T, Error>;

fn query(context: &Context, _: &mut Call<'_>) -> Result {
    Ok(context.dump.lock().to_json())
}

fn capability(_: &Context, _: &mut Call<'_>) -> Result {
    Ok(json!({"formats": ["elf"]}))
}

/// The core files of one architecture.
struct Layout {
    /// `e_machine`.
    machine: u16,
    /// For each word of `pr_reg`, where the register is among those of GDB, and its size; 0: it is not.
    registers: Vec<(usize, usize)>,
}

fn layout(architecture: Architecture) -> Option<Layout> {
    let word = |at: usize| (at, 8);
    Some(match architecture {
        Architecture::X86_64 => Layout {
            machine: 62,
            // r15 to r12, rbp, rbx, r11 to r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss, bases of fs and gs, ds to gs.
            registers: [120, 112, 104, 96, 48, 8, 88, 80, 72, 64, 0, 16, 24, 32, 40]
                .map(word)
                .into_iter()
                .chain([(0, 0), (128, 8), (140, 4), (136, 4), (56, 8), (144, 4), (0, 0), (0, 0)])
                .chain([(148, 4), (152, 4), (156, 4), (160, 4)])
                .collect(),
        },
        Architecture::Aarch64 => Layout {
            machine: 183,
            // x0 to x30, sp, pc, pstate.
            registers: (0..33).map(|n| word(8 * n)).chain([(264, 4)]).collect(),
        },
        Architecture::Ppc64 => return None,
    })
}

/// The note with the registers of a CPU (`NT_PRSTATUS`).
fn status_note(layout: &Layout, index: usize, gdb: &[u8]) -> Vec<u8> {
    const PR_PID: usize = 32;
    const PR_REG: usize = 112;
    let mut status = vec![0; PR_REG + layout.registers.len() * 8 + 8];
    status[PR_PID..PR_PID + 4].copy_from_slice(&(index as u32 + 1).to_le_bytes());
    for (n, (at, size)) in layout.registers.iter().enumerate() {
        if let Some(value) = gdb.get(*at..at + size) {
            status[PR_REG + 8 * n..][..*size].copy_from_slice(value);
        }
    }
    let mut note = Vec::new();
    for word in [5, status.len() as u32, 1] {
        note.extend(u32::to_le_bytes(word));
    }
    note.extend(*b"CORE\0\0\0\0");
    note.extend(status);
    note
}

const EHDR: u64 = 64;
const PHDR: u64 = 56;

/// The header, the program headers and the notes for `ranges` (start, length).
fn head(layout: &Layout, notes: &[u8], ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |out: &mut Vec<u8>, n: u64| out.extend((n as u16).to_le_bytes());
    let word = |out: &mut Vec<u8>, n: u64| out.extend((n as u32).to_le_bytes());
    let long = |out: &mut Vec<u8>, n: u64| out.extend(n.to_le_bytes());
    const ET_CORE: u64 = 4;
    half(&mut out, ET_CORE);
    half(&mut out, layout.machine.into());
    word(&mut out, 1);
    for n in [0, EHDR, 0] {
        long(&mut out, n);
    }
    word(&mut out, 0);
    for n in [EHDR, PHDR, ranges.len() as u64 + 1, 0, 0, 0] {
        half(&mut out, n);
    }
    let mut offset = EHDR + PHDR * (ranges.len() as u64 + 1);
    let mut header = |kind: u64, start: u64, len: u64| {
        word(&mut out, kind);
        word(&mut out, 0);
        // Offset, virtual and physical address, sizes in the file and in memory, alignment.
        for n in [offset, 0, start, len, if kind == 1 { len } else { 0 }, 0] {
            long(&mut out, n);
        }
        offset += len;
    };
    const PT_LOAD: u64 = 1;
    const PT_NOTE: u64 = 4;
    header(PT_NOTE, 0, notes.len() as u64);
    ranges.iter().for_each(|(start, len)| header(PT_LOAD, *start, *len));
    out.extend(notes);
    out
}

/// The RAM within `window` (first and last address).
fn ram(machine: &Machine, window: (u64, u64)) -> Vec<(u64, u64)> {
    let view = machine.space().view();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for range in view.ranges() {
        let FlatTarget::Ram(ram) = &range.target else { continue };
        if ram.block.is_device() {
            continue;
        }
        let (first, last) = (range.range.start.0.max(window.0), range.range.last().min(window.1));
        if ram.readonly || ram.writes.is_some() || first > last {
            continue;
        }
        let len = last - first + 1;
        match all.last_mut().filter(|(start, length)| start + length == first) {
            Some((_, length)) => *length += len,
            None => all.push((first, len)),
        }
    }
    all
}

/// Writes the file; tells how far it is.
fn write(machine: &Machine, window: (u64, u64), file: File, told: &Mutex<Progress>) -> Result<()> {
    let layout = layout(machine.architecture()).ok_or_else(|| Error::new("there is no such format"))?;
    let registers = machine.cpus().iter().map(|cpu| cpu.read_registers());
    let notes: Vec<u8> = registers.enumerate().flat_map(|(n, gdb)| status_note(&layout, n, &gdb)).collect();
    let ranges = ram(machine, window);
    told.lock().total = ranges.iter().map(|(_, len)| len).sum();
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&head(&layout, &notes, &ranges))?;
    let mut data = vec![0; 1 << 20];
    for (start, len) in ranges {
        let mut done = 0;
        while done < len {
            let n = (len - done).min(data.len() as u64) as usize;
            let read = machine.space().read(Gpa(start + done), &mut data[..n], Requester::Debugger);
            read.map_err(|_| Error::new(format!("memory at {:#x} cannot be read", start + done)))?;
            file.write_all(&data[..n])?;
            done += n as u64;
            told.lock().completed += n as u64;
        }
    }
    Ok(file.flush()?)
}

/// Where the dump goes: `file:PATH` or `fd:NAME`.
fn target(call: &Call<'_>) -> Result<File> {
    let protocol = call.required("protocol");
    if let Some(path) = protocol.strip_prefix("file:") {
        return File::create(path).map_err(|e| Error::new(format!("Could not open '{path}': {}", Error::from(e))));
    }
    match protocol.strip_prefix("fd:") {
        Some(name) => Ok(File::from(call.named_fds().take(name)?)),
        None => Err(Error::new("Invalid parameter 'protocol': expected file:PATH or fd:NAME")),
    }
}

fn finish(result: &Result<()>, told: &Mutex<Progress>, events: &Arc<Events>) {
    let result_json = {
        let mut progress = told.lock();
        progress.status = Some(if result.is_ok() { "completed" } else { "failed" });
        progress.to_json()
    };
    let mut data = json!({"result": result_json});
    if let Err(e) = result {
        data["error"] = json!(e.text);
    }
    events.emit("DUMP_COMPLETED", data);
}

fn dump(context: &Context, call: &mut Call<'_>) -> Result {
    if call.flag("paging") {
        return Err(Error::new("paging is not supported: addresses are physical"));
    }
    let window = match (call.number("begin"), call.number("length")) {
        (None, None) => (0, u64::MAX),
        (Some(begin), Some(length)) if begin >= 0 && length > 0 => {
            (begin as u64, (begin as u64).saturating_add(length as u64 - 1))
        }
        (Some(_), Some(_)) => return Err(Error::new("Parameter 'length' expects a size")),
        (Some(_), None) => return Err(Error::new("Parameter 'length' is missing")),
        (None, Some(_)) => return Err(Error::new("Parameter 'begin' is missing")),
    };
    {
        let mut progress = context.dump.lock();
        if progress.status == Some("active") {
            return Err(Error::new("There is a dump in process, please wait."));
        }
        *progress = Progress { status: Some("active"), ..Progress::default() };
    }
    let file = match target(call) {
        Ok(file) => file,
        Err(e) => {
            context.dump.lock().status = Some("failed");
            return Err(e);
        }
    };
    let machine = context.machine.clone();
    let (told, events) = (context.dump.clone(), context.events.clone());
    let work = move || {
        let ran = machine.running();
        let stopped = !ran || {
            machine.control().request(VmRequest::Stop);
            machine.control().settle(Duration::from_secs(20))
        };
        let result = match stopped {
            true => write(&machine, window, file, &told),
            false => Err(Error::new("The machine does not respond")),
        };
        if ran {
            machine.control().request(VmRequest::Continue);
        }
        finish(&result, &told, &events);
        result
    };
    if !call.flag("detach") {
        return work().map(|()| json!({}));
    }
    std::thread::Builder::new().name("rhea-dump".to_owned()).spawn(work)?;
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_well_formed() {
        for (architecture, size, pc) in
            [(Architecture::X86_64, 336, 112 + 16 * 8), (Architecture::Aarch64, 392, 112 + 32 * 8)]
        {
            let layout = layout(architecture).unwrap();
            let gdb: Vec<u8> = (0..=255).chain(0..=255).collect();
            let note = status_note(&layout, 3, &gdb);
            assert_eq!(note.len(), 20 + size);
            assert_eq!(note[20 + 32], 4);
            // The program counter.
            let at = if architecture == Architecture::X86_64 { 128 } else { 256 };
            assert_eq!(note[20 + pc..][..8], gdb[at..at + 8]);
            let head = head(&layout, &note, &[(0x1000, 0x2000), (1 << 32, 0x1000)]);
            let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            let first = (EHDR + 3 * PHDR) as usize;
            assert_eq!(head.len(), first + note.len());
            assert_eq!(long(64 + 8), first as u64);
            let second = 64 + 56;
            assert_eq!((long(second + 8), long(second + 24), long(second + 32)), (head.len() as u64, 0x1000, 0x2000));
            assert_eq!(long(second + 56 + 8), head.len() as u64 + 0x2000);
        }
    }
}
