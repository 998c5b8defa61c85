//! Compares Rhea with QEMU: the same kernel, initramfs and machine, in alternating runs.
//! `tests/bench/run` prepares the guest and starts this.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rhea_tests::{Board, Emulator, STEP, emulator_binary, guest_file, workspace};

const USAGE: &str =
    "usage: tests/bench/run [--machine M] [--programs] [--runs N] [--only PATTERNS] [--cpu MODEL] [--no-boot] [--write]
  --machine M      virt, q35, pseries or all (the default)
  --programs       Debian's programs (a compiler, gzip, zstd, OpenSSL, SQLite, Python) in place of the small ones
  --runs N         runs of each emulator (default 3); medians count
  --only PATTERNS  the programs whose names match these shell patterns, separated by commas
  --cpu MODEL      max (the default), cortex-a72, ...
  --no-boot        leaves out what is measured of a machine as a whole: the time from the start to the shell, what memory it takes
                   there, how much faster two processors are than one
  --write          puts the table into docs/performance.md";

const CLASSES: [&str; 5] = ["integer", "fp", "memory", "system", "programs"];
/// Those whose programs the host runs itself as well: the others are mostly its kernel.
const ON_THE_HOST: [&str; 3] = ["integer", "fp", "memory"];
const HOST: &str = " Host: the same source, compiled for the host with the same options and run there; behind it, how many times as \
                    long Rhea takes.";
/// For one run of all programs. An emulator that needs longer is stuck.
const PATIENCE: Duration = Duration::from_secs(900);
/// Until a guest that came to its shell rests.
const SETTLED: Duration = Duration::from_millis(500);

struct Options {
    boards: Vec<Board>,
    programs: bool,
    runs: usize,
    only: String,
    cpu: String,
    boot: bool,
    write: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        boards: vec![Board::Virt, Board::Q35, Board::Pseries],
        programs: false,
        runs: 3,
        only: "*".into(),
        cpu: "max".into(),
        boot: true,
        write: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--runs" => {
                options.runs = value()?.parse().ok().filter(|n| *n > 0).ok_or("--runs needs a positive number")?;
            }
            "--machine" => {
                options.boards = match value()?.as_str() {
                    "virt" => vec![Board::Virt],
                    "q35" => vec![Board::Q35],
                    "pseries" => vec![Board::Pseries],
                    "all" => options.boards,
                    other => return Err(format!("--machine: '{other}' is not virt, q35, pseries or all")),
                }
            }
            "--programs" => options.programs = true,
            "--only" => options.only = value()?,
            "--cpu" => options.cpu = value()?,
            "--no-boot" => options.boot = false,
            "--write" => options.write = true,
            "--help" | "-h" => return Err(USAGE.to_owned()),
            _ => return Err(format!("unknown option {word}\n{USAGE}")),
        }
    }
    Ok(options)
}

impl Options {
    /// Is the time from the start to the shell measured?
    fn boots(&self) -> bool {
        self.boot && !self.programs
    }
}

/// What one run printed: seconds and check value by program.
type Results = BTreeMap<String, (f64, String)>;

#[derive(Default)]
struct Bench {
    class: String,
    rhea: Vec<f64>,
    qemu: Vec<f64>,
    /// The same source compiled for the host and run there.
    host: Vec<f64>,
}

struct Contestant {
    name: &'static str,
    program: PathBuf,
}

/// The same interrupt controller for both, whatever their defaults.
fn machine(board: Board) -> &'static str {
    match board {
        Board::Virt => "virt,gic-version=3",
        Board::Q35 => "q35",
        Board::Pseries => "pseries",
    }
}

/// What is measured of a machine as a whole, a value for each run.
#[derive(Default)]
struct Whole {
    /// Seconds from the start of the emulator to the prompt of the guest's shell.
    boot: Vec<f64>,
    /// MiB resident then.
    resident: Vec<f64>,
    /// How often as fast two programs at once are with two processors as with one.
    two: Vec<f64>,
}

impl Contestant {
    fn start(&self, options: &Options, board: Board, initramfs: &str, cpus: &str, words: &str) -> Emulator {
        let append = format!("console={} quiet {words}", board.console());
        let (kernel, initrd) = (guest_file(&board.file("kernel")), guest_file(&board.file(initramfs)));
        let args = [
            "-M",
            machine(board),
            "-cpu",
            &options.cpu,
            "-smp",
            cpus,
            "-m",
            "1G",
            "-nic",
            "none",
            "-kernel",
            &kernel,
            "-initrd",
            &initrd,
            "-append",
            &append,
            "-nographic",
        ];
        Emulator::start_program(&self.program, &args)
    }

    fn bench(&self, options: &Options, board: Board) -> (Results, BTreeMap<String, String>) {
        let initramfs = if options.programs { "programs-initramfs" } else { "bench-initramfs" };
        let mut guest = self.start(options, board, initramfs, "1", &format!("rhea.bench={}", options.only));
        guest.expect("BENCH-START", STEP);
        let text = guest.expect("BENCH-END", PATIENCE);
        guest.wait(STEP);
        let (mut results, mut classes) = (Results::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some((name, class, seconds, check)) = result(line) {
                results.insert(name.to_owned(), (seconds, check.to_owned()));
                classes.insert(name.to_owned(), class.to_owned());
            }
        }
        (results, classes)
    }

    /// One run of what [`Whole`] has.
    fn whole(&self, options: &Options, board: Board, whole: &mut Whole) {
        let mut args = board.linux("");
        args.extend(["-M", machine(board)].map(String::from));
        args.extend(["-cpu", &options.cpu, "-smp", "1", "-nic", "none"].map(String::from));
        let start = Instant::now();
        let mut guest = Emulator::start_program(&self.program, &args);
        guest.expect("guest# ", STEP);
        whole.boot.push(start.elapsed().as_secs_f64());
        // Of what it takes while the guest starts a part is given back when the guest rests.
        std::thread::sleep(SETTLED);
        let status = std::fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap_or_default();
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        whole.resident.push(resident.unwrap_or(f64::NAN) / 1024.0);
        drop(guest);
        whole.two.push(self.two_at_once(options, board, "1") / self.two_at_once(options, board, "2"));
    }

    /// Seconds until the later of two programs that are started together has done its work.
    fn two_at_once(&self, options: &Options, board: Board, cpus: &str) -> f64 {
        let mut guest = self.start(options, board, "bench-initramfs", cpus, "");
        guest.expect("guest# ", STEP);
        guest.send("for n in 1 2; do /bench/fib & done; wait; echo BOTH END\n".replace("BOTH", "BO\"\"TH").as_str());
        let text = guest.expect("BOTH END", PATIENCE);
        let seconds =
            text.lines().filter_map(|l| l.split_once("BENCH fib integer ")?.1.split(' ').next()?.parse().ok());
        seconds.fold(0.0, f64::max)
    }
}

/// What a program printed: name, class, seconds and check value.
fn result(line: &str) -> Option<(&str, &str, f64, &str)> {
    match line.split_whitespace().collect::<Vec<&str>>()[..] {
        ["BENCH", name, class, seconds, check] => Some((name, class, seconds.parse().ok()?, check)),
        _ => None,
    }
}

/// Seconds of a program on the host, where the host is of the kind it was compiled for.
fn on_the_host(name: &str) -> Option<f64> {
    let program = guest_file("amd64/bench-root/bench");
    let output = cfg!(target_arch = "x86_64").then(|| Command::new(Path::new(&program).join(name)).output())?.ok()?;
    String::from_utf8_lossy(&output.stdout).lines().find_map(|l| Some(result(l)?.2))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn min_max(values: &[f64], digits: usize) -> String {
    let (min, max) = values.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &v| (low.min(v), high.max(v)));
    format!("{min:.digits$}–{max:.digits$}")
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp()
}

fn first_line(program: &Path, arg: &str) -> String {
    let output = Command::new(program).arg(arg).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn host() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let cpus = info.lines().filter(|l| l.starts_with("processor")).count();
    format!("{} with {cpus} processors", model.map_or("a host", |(_, name)| name))
}

fn main() -> ExitCode {
    let all = |options: Options| options.boards.iter().try_for_each(|&board| compare(&options, board));
    match options().and_then(all) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tests/bench/run: {why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options, board: Board) -> Result<(), String> {
    let rhea = Contestant { name: "Rhea", program: emulator_binary() };
    let qemu = Contestant { name: "QEMU", program: PathBuf::from(board.qemu()) };
    let mut benches: BTreeMap<String, Bench> = BTreeMap::new();
    let mut wholes = (Whole::default(), Whole::default());
    let mut checks: BTreeMap<String, String> = BTreeMap::new();
    let mut differing = Vec::new();
    for run in 0..options.runs {
        // Alternately, and each goes first as often as the other.
        let order = if run % 2 == 0 { [&rhea, &qemu] } else { [&qemu, &rhea] };
        for contestant in order {
            let is_rhea = contestant.name == rhea.name;
            eprintln!("{}, run {} of {}: {}", board.machine(), run + 1, options.runs, contestant.name);
            if options.boots() {
                contestant.whole(options, board, if is_rhea { &mut wholes.0 } else { &mut wholes.1 });
            }
            let (results, classes) = contestant.bench(options, board);
            for (name, (seconds, check)) in results {
                let bench = benches.entry(name.clone()).or_default();
                bench.class.clone_from(&classes[&name]);
                if is_rhea {
                    bench.rhea.push(seconds)
                } else {
                    bench.qemu.push(seconds)
                }
                let expected = checks.entry(name.clone()).or_insert_with(|| check.clone());
                if *expected != check {
                    differing.push(format!("{name}: {} computed {check}, before it was {expected}", contestant.name));
                }
            }
        }
    }
    for (name, bench) in benches.iter_mut().filter(|(_, b)| ON_THE_HOST.contains(&b.class.as_str())) {
        bench.host = (0..options.runs).map_while(|_| on_the_host(name)).collect();
    }
    if benches.is_empty() {
        return Err(format!("no program matches '{}'", options.only));
    }
    let table = table(options, board, &benches, &wholes, &first_line(&qemu.program, "--version"));
    println!("{table}");
    let incomplete: Vec<&str> = benches
        .iter()
        .filter(|(_, b)| b.rhea.len() != options.runs || b.qemu.len() != options.runs)
        .map(|(name, _)| name.as_str())
        .collect();
    if !incomplete.is_empty() {
        return Err(format!("without a result in some run: {}", incomplete.join(", ")));
    }
    if !differing.is_empty() {
        return Err(format!("results differ:\n  {}", differing.join("\n  ")));
    }
    if options.write { write(options, board, &table) } else { Ok(()) }
}

fn table(
    options: &Options,
    board: Board,
    benches: &BTreeMap<String, Bench>,
    (rhea, qemu): &(Whole, Whole),
    qemu_version: &str,
) -> String {
    let programs = if options.programs { " --programs" } else { "" };
    let mut command = format!(
        "tests/bench/run --machine {}{programs} --runs {} --cpu {}",
        board.machine(),
        options.runs,
        options.cpu
    );
    if options.only != "*" {
        command += &format!(" --only '{}'", options.only);
    }
    let mut text = format!(
        "`{command}` on {}; {qemu_version}. Medians of {} alternating runs, the least and the most; the ratio is QEMU's time \
         divided by Rhea's: above 1, Rhea is faster.{}\n\n\
         | program | class | Rhea (s) | min–max | QEMU (s) | min–max | ratio |{}\n|---|---|---:|---:|---:|---:|---:|{}\n",
        host(),
        options.runs,
        if options.programs { "" } else { HOST },
        if options.programs { "" } else { " host (s) | times |" },
        if options.programs { "" } else { "---:|---:|" },
    );
    let mut all = Vec::new();
    let mut means = String::new();
    for class in CLASSES {
        let (mut ratios, mut times) = (Vec::new(), Vec::new());
        for (name, bench) in benches.iter().filter(|(_, b)| b.class == class) {
            let ratio = median(&bench.qemu) / median(&bench.rhea);
            let mut last = format!("{ratio:.2} |");
            if !bench.host.is_empty() {
                times.push(median(&bench.rhea) / median(&bench.host));
                last += &format!(" {:.3} | {:.2} |", median(&bench.host), times[times.len() - 1]);
            }
            text += &row(name, class, (&bench.rhea, &bench.qemu), 3, &last);
            ratios.push(ratio);
        }
        if !ratios.is_empty() {
            let times = if times.is_empty() { String::new() } else { format!(" | {:.2} |", geometric_mean(&times)) };
            means += &format!("| geometric mean | {class} | | | | | {:.2} |{times}\n", geometric_mean(&ratios));
            all.extend(ratios);
        }
    }
    text += &means;
    if !options.programs {
        text += &format!("| **geometric mean** | **all** | | | | | **{:.2}** |\n", geometric_mean(&all));
    }
    if options.boots() {
        let ratio = |a: &[f64], b: &[f64]| format!("{:.2} |", median(b) / median(a));
        text += &row("start to shell", "boot", (&rhea.boot, &qemu.boot), 2, &ratio(&rhea.boot, &qemu.boot));
        let memory = ratio(&rhea.resident, &qemu.resident);
        text += &row("resident at the shell, MiB", "memory use", (&rhea.resident, &qemu.resident), 0, &memory);
        text += &row("two fibs, `-smp 2` against 1, times", "processors", (&rhea.two, &qemu.two), 2, " |");
    }
    text
}

fn row(name: &str, class: &str, (rhea, qemu): (&[f64], &[f64]), digits: usize, last: &str) -> String {
    let (a, b) = (median(rhea), median(qemu));
    let (of_a, of_b) = (min_max(rhea, digits), min_max(qemu, digits));
    format!("| {name} | {class} | {a:.digits$} | {of_a} | {b:.digits$} | {of_b} | {last}\n")
}

/// Replaces what is between the machine's markers of docs/performance.md.
fn write(options: &Options, board: Board, table: &str) -> Result<(), String> {
    let name = format!("{}{}", board.machine(), if options.programs { " programs" } else { "" });
    let (begin, end) = (format!("<!-- table {name}: begin -->"), format!("<!-- table {name}: end -->"));
    let path = workspace().join("docs/performance.md");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let parts = text.split_once(&begin).and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
    let (head, tail) = parts.ok_or(format!("{} has no '{begin}' and '{end}'", path.display()))?;
    std::fs::write(&path, format!("{head}{begin}\n{table}{end}{tail}")).map_err(|e| format!("{}: {e}", path.display()))
}
