//! The human monitor (HMP): a line editor over a character back end and the commands.

mod display;

use parking_lot::Mutex;
use rhea_accel::{ShutdownCause, VmRequest, WakeReason};
use rhea_device::chardev::{CharBackend, CharEvent, CharFrontend};
use rhea_display::VncServer;
use rhea_machine::Machine;
use rhea_machine::machine::RunState;
use rhea_memory::{FlatTarget, Gpa, Gva, Requester};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROMPT: &str = "(rhea) ";
const MAX_LINE: usize = 4096;
const MAX_HISTORY: usize = 64;

#[derive(Default)]
struct Editor {
    line: Vec<u8>,
    history: Vec<Vec<u8>>,
    /// Position in the history, counted from its end; 0 is the line being written.
    back: usize,
    /// Bytes of an escape sequence seen so far.
    escape: Vec<u8>,
    greeted: bool,
}

/// The monitor on one back end.
pub struct Monitor {
    backend: Arc<dyn CharBackend>,
    machine: Arc<Machine>,
    title: String,
    editor: Mutex<Editor>,
    cpu: Mutex<usize>,
    chardevs: Vec<(String, Arc<dyn CharBackend>)>,
    servers: Vec<Arc<VncServer>>,
}

/// A command: name, arguments, help.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("help|?", "", "show the help"),
    ("info", "topic", "show information ('info' alone lists the topics)"),
    ("quit|q", "", "quit the emulator"),
    ("system_reset", "", "reset the system"),
    ("system_powerdown", "", "send a power-button press"),
    ("system_wakeup", "", "wake a suspended machine"),
    ("stop|s", "", "stop emulation"),
    ("cont|c", "", "resume emulation"),
    ("cpu", "index", "set the default CPU"),
    ("x", "/fmt addr", "virtual memory dump starting at 'addr'"),
    ("xp", "/fmt addr", "physical memory dump starting at 'addr'"),
    ("screendump", "file [device] [-f ppm|png]", "save the picture of a display"),
    ("sendkey", "keys [hold_ms]", "send keys, like 'ctrl-alt-f1', held for 100 ms"),
    ("mouse_move", "dx dy [dz]", "send motion and wheel of the mouse"),
    ("mouse_button", "state", "change the buttons of the mouse (1=L, 2=M, 4=R)"),
    ("mouse_set", "index", "choose which pointer gets events ('info mice')"),
];

const TOPICS: &[(&str, &str)] = &[
    ("version", "show the version"),
    ("name", "show the name of the machine"),
    ("status", "show the run state"),
    ("cpus", "show the CPUs"),
    ("registers", "show the CPU registers (-a: of all CPUs)"),
    ("mtree", "show the memory map"),
    ("qtree", "show the devices"),
    ("chardev", "show the character devices"),
    ("mice", "show the pointers"),
    ("vnc", "show the VNC servers"),
];

impl Monitor {
    /// The next command finds what this one asked for; a machine that is slow or ends does not hold up the monitor.
    fn await_running(&self, running: bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while self.machine.running() != running && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    /// Starts the monitor on `backend`.
    pub fn start(
        backend: Arc<dyn CharBackend>,
        machine: Arc<Machine>,
        chardevs: Vec<(String, Arc<dyn CharBackend>)>,
        servers: Vec<Arc<VncServer>>,
        greet: bool,
    ) {
        let monitor = Arc::new(Self {
            backend: backend.clone(),
            machine,
            title: format!("Rhea {} monitor - type 'help' for more information\r\n", env!("CARGO_PKG_VERSION")),
            editor: Mutex::default(),
            cpu: Mutex::new(0),
            chardevs,
            servers,
        });
        if greet {
            monitor.greet();
        }
        backend.set_frontend(monitor);
    }

    fn greet(&self) {
        if !std::mem::replace(&mut self.editor.lock().greeted, true) {
            self.backend.write(self.title.as_bytes());
        }
        self.backend.write(PROMPT.as_bytes());
    }

    fn say(&self, text: &str) {
        self.backend.write(text.replace('\n', "\r\n").as_bytes());
    }

    /// One byte of input; a complete line is returned.
    fn key(&self, editor: &mut Editor, byte: u8) -> Option<String> {
        if !editor.escape.is_empty() {
            editor.escape.push(byte);
            match editor.escape.as_slice() {
                [27, b'[' | b'O'] => return None,
                [27, _, b'A'] => self.recall(editor, true),
                [27, _, b'B'] => self.recall(editor, false),
                [27, _, c] if c.is_ascii_digit() => return None,
                _ => {}
            }
            editor.escape.clear();
            return None;
        }
        match byte {
            b'\r' | b'\n' => {
                self.backend.write(b"\r\n");
                let line = std::mem::take(&mut editor.line);
                editor.back = 0;
                if !line.is_empty() && editor.history.last() != Some(&line) {
                    editor.history.push(line.clone());
                    if editor.history.len() > MAX_HISTORY {
                        editor.history.remove(0);
                    }
                }
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            8 | 127 if !editor.line.is_empty() => {
                editor.line.pop();
                self.backend.write(b"\x08 \x08");
            }
            // Ctrl-C, Ctrl-U: the line goes.
            3 | 21 => self.replace(editor, Vec::new()),
            27 => editor.escape.push(27),
            32..=126 | 128.. if editor.line.len() < MAX_LINE => {
                editor.line.push(byte);
                self.backend.write(&[byte]);
            }
            _ => {}
        }
        None
    }

    fn recall(&self, editor: &mut Editor, older: bool) {
        let back = if older { (editor.back + 1).min(editor.history.len()) } else { editor.back.saturating_sub(1) };
        editor.back = back;
        let line = if back == 0 { Vec::new() } else { editor.history[editor.history.len() - back].clone() };
        self.replace(editor, line);
    }

    fn replace(&self, editor: &mut Editor, line: Vec<u8>) {
        for _ in 0..editor.line.len() {
            self.backend.write(b"\x08 \x08");
        }
        self.backend.write(&line);
        editor.line = line;
    }

    /// Runs a command line; the answer ends with a newline or is empty.
    fn execute(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let Some(command) = words.next() else { return String::new() };
        let rest: Vec<&str> = words.collect();
        let control = self.machine.control();
        // `x/4i` and `x /4i` are the same.
        let (command, format) = match command.split_once('/') {
            Some((c @ ("x" | "xp"), f)) => (c, Some(f)),
            _ => (command, None),
        };
        let Some((names, arguments, _)) = COMMANDS.iter().find(|(names, ..)| names.split('|').any(|n| n == command))
        else {
            return format!("unknown command: '{command}' ('help' lists the commands)\n");
        };
        if arguments.is_empty() && !rest.is_empty() && !names.starts_with("help") {
            return format!("{command}: extraneous characters at the end of line\n");
        }
        match command {
            "help" | "?" => help(rest.first().copied()),
            "info" => self.info(&rest),
            "quit" | "q" => {
                control.request(VmRequest::Quit(0));
                String::new()
            }
            "system_reset" => {
                control.reset(ShutdownCause::Host);
                String::new()
            }
            "system_powerdown" => {
                control.request(VmRequest::PowerDown);
                String::new()
            }
            "system_wakeup" => {
                if self.machine.run_state() != RunState::Suspended {
                    return "system_wakeup: the machine is not suspended\n".to_owned();
                }
                control.request(VmRequest::Wake(WakeReason::Other));
                String::new()
            }
            "stop" | "s" => {
                control.request(VmRequest::Stop);
                self.await_running(false);
                String::new()
            }
            "cont" | "c" => {
                if self.machine.run_state() == RunState::Suspended {
                    return "cont: the machine is suspended: use 'system_wakeup'\n".to_owned();
                }
                control.request(VmRequest::Continue);
                self.await_running(true);
                String::new()
            }
            "cpu" => {
                match rest.first().and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < self.machine.cpus().len()) {
                    Some(n) => {
                        *self.cpu.lock() = n;
                        String::new()
                    }
                    None => format!("cpu: expected a number from 0 to {}\n", self.machine.cpus().len() - 1),
                }
            }
            "screendump" => display::screendump(&self.machine, &rest),
            "sendkey" => display::send_keys(&self.machine, &rest),
            "mouse_move" => display::mouse_move(&self.machine, &rest),
            "mouse_button" => display::mouse_button(&self.machine, &rest),
            "mouse_set" => display::mouse_set(&self.machine, &rest),
            "x" | "xp" => self.dump(command == "x", format, &rest),
            _ => String::new(),
        }
    }

    fn info(&self, rest: &[&str]) -> String {
        let machine = &self.machine;
        let mut text = String::new();
        match rest.first().copied() {
            None => {
                for (name, what) in TOPICS.iter().copied().chain(machine.topics()) {
                    let _ = writeln!(text, "info {name} -- {what}");
                }
            }
            Some("version") => text = format!("{}\n", env!("CARGO_PKG_VERSION")),
            Some("name") => text = format!("{}\n", machine.name()),
            Some("status") => text = format!("VM status: {}\n", machine.run_state().text()),
            Some("cpus") => {
                let current = *self.cpu.lock();
                for (i, cpu) in machine.cpus().iter().enumerate() {
                    let mark = if i == current { '*' } else { ' ' };
                    let _ = writeln!(text, "{mark} CPU #{i}: id={:#x} {}", cpu.hardware_id(), cpu.state_word());
                }
            }
            Some("registers") => text = self.registers(rest.get(1) == Some(&"-a")),
            Some("mtree") => {
                for range in machine.space().view().ranges() {
                    let what = match &range.target {
                        FlatTarget::Ram(r) => {
                            let kind = if r.writes.is_some() {
                                "romd"
                            } else if r.readonly {
                                "rom"
                            } else {
                                "ram"
                            };
                            format!("{kind}: {} @{:#x}", r.block.name(), r.offset)
                        }
                        FlatTarget::Mmio(m) => format!("i/o: {} @{:#x}", m.device.name(), m.offset),
                    };
                    let _ = writeln!(text, "  {:016x}-{:016x} {what}", range.range.start, range.range.last());
                }
            }
            Some("qtree") => {
                for device in machine.devices() {
                    let _ = writeln!(text, "  {}", device.name());
                }
            }
            Some("chardev") => {
                for (name, backend) in &self.chardevs {
                    let _ = writeln!(text, "{name}: {}", backend.description());
                }
            }
            Some("mice") => text = display::mice(machine),
            Some("vnc") => text = display::vnc(&self.servers),
            Some(topic) => match machine.info(topic) {
                Some(answer) => text = answer,
                None => text = format!("info: unknown topic '{topic}' ('info' lists the topics)\n"),
            },
        }
        text
    }

    /// Runs `f` with all CPUs paused.
    fn paused<R>(&self, f: impl FnOnce() -> R) -> R {
        // The registers of a running CPU are in the host's registers: pause for the moment of the look.
        let cpus = self.machine.cpus();
        let running = self.machine.running();
        if running {
            cpus.iter().for_each(|c| c.request_pause());
            cpus.iter().for_each(|c| {
                c.wait_paused(None);
            });
        }
        let result = f();
        if running && self.machine.running() {
            cpus.iter().for_each(|c| c.resume());
        }
        result
    }

    fn registers(&self, all: bool) -> String {
        let current = *self.cpu.lock();
        self.paused(|| {
            let mut text = String::new();
            for (i, cpu) in self.machine.cpus().iter().enumerate().filter(|(i, _)| all || *i == current) {
                let _ = writeln!(text, "\nCPU#{i}\n{}", cpu.describe().trim_end());
            }
            text
        })
    }

    fn dump(&self, virt: bool, format: Option<&str>, rest: &[&str]) -> String {
        let (format, rest) = match (format, rest.split_first()) {
            (None, Some((f, rest))) if f.starts_with('/') => (Some(&f[1..]), rest),
            _ => (format, rest),
        };
        let format = format.unwrap_or("");
        let digits = format.len() - format.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count = format[..digits].parse::<usize>().unwrap_or(1).min(4096);
        let size: usize = match format.chars().last() {
            Some('b') => 1,
            Some('h') => 2,
            Some('g') => 8,
            _ => 4,
        };
        let Some(address) = rest.first().and_then(|a| rhea_device::options::parse_number(a)) else {
            return "x: expected an address: x /4g 0x40000000\n".to_owned();
        };
        let mut data = vec![0; count * size];
        let read = if virt {
            let cpu = self.machine.cpus()[*self.cpu.lock()].clone();
            self.paused(|| cpu.read_memory(Gva(address), &mut data))
        } else {
            self.machine.space().read(Gpa(address), &mut data, Requester::Debugger)
        };
        if read.is_err() {
            return format!("Cannot access memory at {address:#x}\n");
        }
        let mut text = String::new();
        for (i, item) in data.chunks(size).enumerate() {
            if i % (16 / size) == 0 {
                let _ =
                    write!(text, "{}{:016x}:", if i == 0 { "" } else { "\n" }, address.wrapping_add((i * size) as u64));
            }
            let value = item.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
            let _ = write!(text, " 0x{value:0width$x}", width = size * 2);
        }
        text.push('\n');
        text
    }
}

fn help(of: Option<&str>) -> String {
    let mut text = String::new();
    for (names, arguments, what) in COMMANDS {
        if of.is_none_or(|o| names.split('|').any(|n| n == o)) {
            let _ = writeln!(text, "{names} {arguments}{}-- {what}", if arguments.is_empty() { "" } else { " " });
        }
    }
    if text.is_empty() { "help: unknown command\n".to_owned() } else { text }
}

impl CharFrontend for Monitor {
    fn can_receive(&self) -> usize {
        256
    }
    fn receive(&self, data: &[u8]) {
        for &byte in data {
            // Commands run without the lock: they may take a while, and may write.
            let line = self.key(&mut self.editor.lock(), byte);
            if let Some(line) = line {
                let answer = self.execute(&line);
                self.say(&answer);
                self.backend.write(PROMPT.as_bytes());
            }
        }
    }
    fn event(&self, event: CharEvent) {
        if event == CharEvent::Opened {
            self.greet();
        }
    }
}
