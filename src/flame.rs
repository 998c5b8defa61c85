//! `-flame-graph`: where the guest spends its time, as a picture.

use crate::cli::file_error;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use inferno::flamegraph;
use rhea_device::OptionError;
use rhea_device::options::{self, OptionDecl, OptionKind, OptionSet};
use rhea_machine::{Machine, Sample};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const OPTION: &str = "-flame-graph";

/// What the option says.
#[derive(Clone, Debug)]
pub struct FlameGraph {
    file: PathBuf,
    /// Samples of each processor in a second.
    hz: u64,
    symbols: Option<PathBuf>,
}

impl FlameGraph {
    /// # Errors
    /// [`OptionError`].
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        const DECLS: &[OptionDecl] = &[
            OptionDecl::new("file", OptionKind::Text, None, "the picture (SVG), written when the emulator ends"),
            OptionDecl::new(
                "hz",
                OptionKind::Number { min: 1, max: 10_000 },
                Some("499"),
                "samples of each CPU in a second",
            ),
            OptionDecl::new(
                "symbols",
                OptionKind::Text,
                None,
                "names of the guest's kernel: a System.map or an ELF file",
            ),
        ];
        let mut pairs = options::split(text);
        if let Some((file, None)) = pairs.first().cloned() {
            pairs[0] = ("file".to_owned(), Some(file));
        }
        let set = OptionSet::parse(OPTION, DECLS, &pairs)?;
        let Some(file) = set.text("file").filter(|f| !f.is_empty()) else {
            return Err(set.error("file", "where the picture is to go is missing: file=F.svg"));
        };
        Ok(Self {
            file: file.into(),
            hz: set.number("hz").unwrap_or(1),
            symbols: set.text("symbols").map(PathBuf::from),
        })
    }

    /// Takes samples from now on.
    ///
    /// # Errors
    /// [`OptionError`]: the symbols cannot be read, or the picture cannot be written.
    pub fn start(self, machine: &Arc<Machine>) -> Result<Profiler, OptionError> {
        let wrong = |path: &PathBuf, e: &std::io::Error| OptionError::new(OPTION, file_error(path, e));
        let symbols = match &self.symbols {
            None => Symbols::default(),
            Some(path) => {
                let bytes = std::fs::read(path).map_err(|e| wrong(path, &e))?;
                Symbols::parse(&bytes).ok_or_else(|| {
                    let text = "neither a System.map nor an ELF file with symbols";
                    OptionError::new(OPTION, format!("symbols={}: {text}", path.display()))
                })?
            }
        };
        let file = File::create(&self.file).map_err(|e| wrong(&self.file, &e))?;
        let (stop, stopped) = bounded::<()>(0);
        let machine = Arc::downgrade(machine);
        let period = Duration::from_nanos(1_000_000_000 / self.hz);
        let run = move || {
            let mut stacks = Stacks { symbols, counts: HashMap::new() };
            let mut next = Instant::now();
            loop {
                next = (next + period).max(Instant::now());
                if stopped.recv_deadline(next) != Err(RecvTimeoutError::Timeout) {
                    return stacks;
                }
                let Some(machine) = machine.upgrade() else { return stacks };
                if !machine.running() {
                    continue;
                }
                for (n, cpu) in machine.cpus().iter().enumerate().filter(|(_, cpu)| cpu.present()) {
                    if let Some(sample) = cpu.sample() {
                        stacks.add(n, &sample);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("rhea-profiler".into())
            .spawn(run)
            .map_err(|e| OptionError::new(OPTION, format!("no thread: {e}")))?;
        Ok(Profiler { stop, thread, file, path: self.file })
    }
}

/// A profile that is being made.
pub struct Profiler {
    /// Dropped to end.
    stop: Sender<()>,
    thread: JoinHandle<Stacks>,
    file: File,
    path: PathBuf,
}

impl Profiler {
    /// Ends it and writes the picture; tells what went wrong.
    pub fn finish(self) {
        drop(self.stop);
        // A panic has been reported.
        let Ok(stacks) = self.thread.join() else { return };
        let lines = stacks.lines();
        if lines.is_empty() {
            eprintln!("rhea: {OPTION}: the guest did nothing: there is no picture");
            return;
        }
        let mut options = flamegraph::Options::default();
        options.title = "Guest".to_owned();
        options.count_name = "samples".to_owned();
        let lines = lines.iter().map(String::as_str);
        if let Err(e) = flamegraph::from_lines(&mut options, lines, BufWriter::new(self.file)) {
            eprintln!("rhea: {OPTION}: {}: {e}", self.path.display());
        }
    }
}

/// How often the processors were where.
struct Stacks {
    symbols: Symbols,
    /// By frames as they are drawn, separated by semicolons, outer ones first.
    counts: HashMap<String, u64>,
}

impl Stacks {
    fn add(&mut self, cpu: usize, sample: &Sample) {
        let mut line = format!("cpu{cpu};{}", if sample.user { "user" } else { "kernel" });
        for (n, address) in sample.addresses.iter().enumerate().rev() {
            line.push(';');
            // What is returned to is behind the call.
            let address = if n == 0 { *address } else { address.wrapping_sub(1) };
            match self.symbols.find(address).filter(|_| !sample.user) {
                Some(name) => line.push_str(name),
                // Functions are near each other; each address by itself would be a picture of nothing.
                None => line.push_str(&format!("{:#x}", address & !0xfff)),
            }
        }
        *self.counts.entry(line).or_default() += 1;
    }
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.counts.iter().map(|(stack, n)| format!("{stack} {n}")).collect();
        lines.sort_unstable();
        lines
    }
}

/// Names of functions by their addresses.
#[derive(Default)]
struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Of an ELF file or a System.map; `None` if it is neither, or says nothing.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut list = if bytes.starts_with(b"\x7fELF") { Self::elf(bytes)? } else { Self::map(bytes) };
        list.sort();
        list.dedup_by_key(|s| s.0);
        (!list.is_empty()).then_some(Self(list))
    }
    fn elf(bytes: &[u8]) -> Option<Vec<(u64, String)>> {
        let elf = goblin::elf::Elf::parse(bytes).ok()?;
        let functions = elf.syms.iter().filter(|s| s.is_function() && s.st_value != 0);
        Some(functions.filter_map(|s| Some((s.st_value, elf.strtab.get_at(s.st_name)?.to_owned()))).collect())
    }
    /// Lines of address, kind, name.
    fn map(bytes: &[u8]) -> Vec<(u64, String)> {
        let text = String::from_utf8_lossy(bytes);
        let symbol = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
            let code = matches!(kind, "t" | "T" | "w" | "W");
            Some((u64::from_str_radix(address, 16).ok().filter(|_| code)?, name.to_owned()))
        };
        text.lines().filter_map(symbol).collect()
    }
    /// The function an address is in: the last one that begins before, if it is not far away.
    fn find(&self, address: u64) -> Option<&str> {
        const LARGEST: u64 = 1 << 20;
        let n = self.0.partition_point(|s| s.0 <= address);
        let (start, name) = self.0.get(n.checked_sub(1)?)?;
        (address - start < LARGEST).then_some(name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_map() {
        let map = b"ffffffff81000000 T _text\nffffffff81000100 t inner\nffffffff82000000 D data\nnonsense\n";
        let symbols = Symbols::parse(map).unwrap();
        assert_eq!(symbols.find(0xffff_ffff_8100_00ff), Some("_text"));
        assert_eq!(symbols.find(0xffff_ffff_8100_0100), Some("inner"));
        assert_eq!(symbols.find(0xffff_ffff_8200_0000), None);
        assert_eq!(symbols.find(0x40_0000), None);
        assert!(Symbols::parse(b"no symbols\n").is_none());
        assert!(Symbols::parse(b"\x7fELF, but not really").is_none());
    }

    #[test]
    fn stacks_are_counted_outer_calls_first() {
        let symbols = Symbols::parse(b"1000 T outer\n2000 T inner\n").unwrap();
        let mut stacks = Stacks { symbols, counts: HashMap::new() };
        for _ in 0..2 {
            // The call at the very end of `outer` returns to what follows it.
            stacks.add(0, &Sample { user: false, addresses: vec![0x2010, 0x2000] });
        }
        stacks.add(1, &Sample { user: true, addresses: vec![0x2010] });
        assert_eq!(stacks.lines(), ["cpu0;kernel;outer;inner 2", "cpu1;user;0x2000 1"]);
    }

    #[test]
    fn option() {
        let parse = |text| FlameGraph::parse(text).map_err(|e| e.to_string());
        assert!(parse("out.svg").is_ok_and(|f| f.hz == 499 && f.file.as_os_str() == "out.svg"));
        assert!(parse("file=a.svg,hz=99,symbols=System.map").is_ok_and(|f| f.hz == 99 && f.symbols.is_some()));
        for (text, word) in [("hz=99", "file"), ("a.svg,hz=0", "hz"), ("a.svg,to=b", "to")] {
            assert!(parse(text).is_err_and(|e| e.contains(word)), "{text}");
        }
    }
}
