use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::files::workspace;

/// The program under test: what `RHEA` names, else the workspace's release binary.
#[must_use]
pub fn emulator_binary() -> PathBuf {
    match std::env::var_os("RHEA") {
        Some(path) => PathBuf::from(path),
        None => workspace().join("target/release/rhea"),
    }
}

/// Whether the tests run against QEMU, to check the tests themselves.
#[must_use]
pub fn is_qemu() -> bool {
    emulator_binary().file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with("qemu"))
}

/// What a run to the end left behind.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the emulator to its end without input; it is killed after `timeout`.
///
/// # Panics
/// When it can't be started or does not end in time.
pub fn run<S: AsRef<OsStr>>(args: &[S], timeout: Duration) -> Run {
    let mut command = Command::new(emulator_binary());
    command.args(args);
    run_command(command, timeout)
}

/// Like [`run`] for a command that the caller has made.
///
/// # Panics
/// When it can't be started or does not end in time.
pub fn run_command(mut command: Command, timeout: Duration) -> Run {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let collect = |source: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut source) = source {
                let _ = source.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = collect(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = collect(child.stderr.take().map(|s| Box::new(s) as _));
    let status = wait_child(&mut child, timeout);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let Some(status) = status else {
        panic!("{command:?} did not end within {timeout:?}\nstdout: {stdout}\nstderr: {stderr}");
    };
    Run { status, stdout, stderr }
}

fn wait_child(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            _ => return None,
        }
    }
}

#[derive(Default)]
struct Output {
    text: Mutex<(Vec<u8>, u32)>, // everything so far, and how many readers are still open
    more: Condvar,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, u32)> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_from(self: &Arc<Self>, mut source: impl Read + Send + 'static) {
        self.lock().1 += 1;
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = source.read(&mut buffer) {
                if n == 0 {
                    break;
                }
                output.lock().0.extend_from_slice(&buffer[..n]);
                output.more.notify_all();
            }
            output.lock().1 -= 1;
            output.more.notify_all();
        });
    }
}

/// A running emulator whose console is driven by the test. It is killed when dropped.
pub struct Emulator {
    child: Child,
    input: Box<dyn Write + Send>,
    output: Arc<Output>,
    seen: usize, // how much of the output earlier expectations have used up
    args: String,
}

/// What these tests are about is translated, also on a host whose KVM could run the guest.
fn translated<S: AsRef<OsStr>>(args: &[S]) -> &'static [&'static str] {
    let chosen = |a: &S| a.as_ref().to_str().is_some_and(|a| a.contains("accel") || a == "-enable-kvm");
    if args.iter().any(chosen) { &[] } else { &["-accel", "tcg"] }
}

impl Emulator {
    /// Starts the emulator with its standard streams on pipes.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Self {
        Self::start_program(&emulator_binary(), args)
    }

    /// Like [`Self::start`] for another program.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start_program<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> Self {
        let mut command = Command::new(program);
        command.args(args).args(translated(args)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let output = Arc::new(Output::default());
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            output.read_from(out);
            output.read_from(err);
        }
        let input: Box<dyn Write + Send> = match child.stdin.take() {
            Some(stdin) => Box::new(stdin),
            None => Box::new(std::io::sink()),
        };
        Self { child, input, output, seen: 0, args: words(args) }
    }

    /// Starts the emulator on a terminal of its own, as a person would.
    ///
    /// # Panics
    /// When there is no pseudo terminal or the emulator can't be started.
    pub fn start_on_terminal<S: AsRef<OsStr>>(args: &[S]) -> Self {
        let mut command = Command::new(emulator_binary());
        command.args(args).args(translated(args));
        Self::start_command_on_terminal(command)
    }

    /// Like [`Self::start_on_terminal`] for a command that the caller has made.
    ///
    /// # Panics
    /// When there is no pseudo terminal or the command can't be started.
    #[must_use]
    pub fn start_command_on_terminal(mut command: Command) -> Self {
        let args = words(&command.get_args().collect::<Vec<_>>());
        let (master, slave) = terminal().unwrap_or_else(|e| panic!("no pseudo terminal: {e}"));
        let clone = |fd: &OwnedFd| fd.try_clone().unwrap_or_else(|e| panic!("dup: {e}"));
        command.stdin(clone(&slave)).stdout(clone(&slave)).stderr(slave);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        // The command keeps the slave side open; without this the end would never be seen.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let output = Arc::new(Output::default());
        output.read_from(std::fs::File::from(clone(&master)));
        Self { child, input: Box::new(std::fs::File::from(master)), output, seen: 0, args }
    }

    /// Waits until `pattern` appears after what earlier calls have matched; returns the text up
    /// to and including it.
    ///
    /// # Panics
    /// When it does not appear within `timeout`, or the emulator ends before.
    pub fn expect(&mut self, pattern: &str, timeout: Duration) -> String {
        self.expect_any(&[pattern], timeout)
    }

    /// Like [`Self::expect`] with alternatives; the earliest match counts.
    ///
    /// # Panics
    /// When none appears within `timeout`, or the emulator ends before.
    pub fn expect_any(&mut self, patterns: &[&str], timeout: Duration) -> String {
        match self.find(patterns, timeout) {
            Ok(text) => text,
            Err(why) => {
                panic!("{why} while waiting for {patterns:?}\nargs: {}\n{}", self.args, self.transcript())
            }
        }
    }

    /// Whether `pattern` appears within `timeout`; uses the output up only if so.
    pub fn appears(&mut self, pattern: &str, timeout: Duration) -> bool {
        self.find(&[pattern], timeout).is_ok()
    }

    fn find(&mut self, patterns: &[&str], timeout: Duration) -> Result<String, &'static str> {
        let end = Instant::now() + timeout;
        let mut output = self.output.lock();
        let mut from = self.seen;
        loop {
            let text = &output.0;
            let found = patterns
                .iter()
                .filter_map(|p| find_bytes(&text[from..], p.as_bytes()).map(|at| from + at + p.len()))
                .min();
            if let Some(to) = found {
                let matched = String::from_utf8_lossy(&text[self.seen..to]).into_owned();
                self.seen = to;
                return Ok(matched);
            }
            let longest = patterns.iter().map(|p| p.len()).max().unwrap_or(0);
            from = text.len().saturating_sub(longest).max(self.seen);
            if output.1 == 0 {
                return Err("the emulator ended");
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("time is up");
            }
            output = self.output.more.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Types `text`.
    ///
    /// # Panics
    /// When the emulator no longer reads.
    pub fn send(&mut self, text: &str) {
        let result = self.input.write_all(text.as_bytes()).and_then(|()| self.input.flush());
        if let Err(e) = result {
            panic!("sending {text:?}: {e}\n{}", self.transcript());
        }
    }

    /// Waits until the emulator has ended by itself.
    ///
    /// # Panics
    /// When it has not within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        match wait_child(&mut self.child, timeout) {
            Some(status) => {
                // What it wrote last may still be on its way.
                let mut output = self.output.lock();
                let end = Instant::now() + Duration::from_secs(2);
                while output.1 > 0 && Instant::now() < end {
                    let wait = self.output.more.wait_timeout(output, Duration::from_millis(100));
                    output = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
                status
            }
            None => panic!("still running after {timeout:?}\nargs: {}\n{}", self.args, self.transcript()),
        }
    }

    /// The emulator's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that the emulator has used so far.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        // Fields 14 and 15 of proc(5), in ticks of 10 ms on every Linux host.
        let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Everything that the emulator has written so far.
    #[must_use]
    pub fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().0).into_owned()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn words<S: AsRef<OsStr>>(args: &[S]) -> String {
    let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    words.join(" ")
}

fn find_bytes(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len().max(1)).position(|w| w == pattern)
}

/// A pseudo terminal of 80 columns and 25 rows: its master and its slave side.
fn terminal() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::termios::tcsetwinsize(
        &slave,
        rustix::termios::Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 },
    )?;
    Ok((master, slave))
}
