//! The human monitor (HMP): a line editor over a character back end and the commands.

mod chardevs;
mod display;
mod editor;
mod jobs;
mod migration;
mod plug;
mod tree;

use crate::control::{Control, snapshots};
use editor::{Edit, Editor};
use parking_lot::Mutex;
use rhea_accel::{ShutdownCause, VmRequest};
use rhea_control::{Value, json};
use rhea_device::chardev::{CharBackend, CharEvent, CharFrontend};
use rhea_machine::Machine;
use rhea_machine::machine::RunState;
use rhea_memory::{Gpa, Gva, Requester};
use std::fmt::Write;
use std::sync::Arc;

const PROMPT: &str = "(rhea) ";

/// A terminal's side of the monitor.
#[derive(Default)]
struct Screen {
    editor: Editor,
    greeted: bool,
}

/// The monitor on one back end.
pub struct Monitor {
    backend: Arc<dyn CharBackend>,
    screen: Mutex<Screen>,
    shell: Shell,
}

/// Carries out command lines.
pub struct Shell {
    control: Control,
    machine: Arc<Machine>,
    cpu: Mutex<usize>,
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
    ("change", "device file [format [read-only-mode]]", "put another medium into a drive"),
    ("eject", "[-f] device", "take the medium out of a drive (-f: even if the guest has locked it)"),
    ("set_password", "vnc password [keep]", "set the password that VNC clients must know"),
    ("expire_password", "vnc time", "say until when it holds: now, never, +seconds, or seconds since 1970"),
    ("screendump", "file [device] [-f ppm|png]", "save the picture of a display"),
    ("sendkey", "keys [hold_ms]", "send keys, like 'ctrl-alt-f1', held for 100 ms"),
    ("mouse_move", "dx dy [dz]", "send motion and wheel of the mouse"),
    ("mouse_button", "state", "change the buttons of the mouse (1=L, 2=M, 4=R)"),
    ("nmi", "", "send the processors a non-maskable interrupt"),
    ("balloon", "megabytes", "ask the guest to have this much memory"),
    ("memsave", "addr size file", "save virtual memory of the CPU to a file"),
    ("pmemsave", "addr size file", "save physical memory to a file"),
    ("savevm", "[tag]", "save a snapshot of machine and disks, in place of one of this name"),
    ("loadvm", "tag", "load a snapshot"),
    ("delvm", "tag", "delete a snapshot"),
    ("set_link", "name on|off", "plug the wire of a network card in, or pull it out"),
    ("watchdog_action", "action", "say what the end of a watchdog's time does"),
    ("mouse_set", "index", "choose which pointer gets events ('info mice')"),
];

/// All of them.
fn commands() -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
    COMMANDS.iter().chain(plug::COMMANDS).chain(jobs::COMMANDS).chain(chardevs::COMMANDS).chain(migration::COMMANDS)
}

const TOPICS: &[(&str, &str)] = &[
    ("version", "show the version"),
    ("name", "show the name of the machine"),
    ("status", "show the run state"),
    ("cpus", "show the CPUs"),
    ("registers", "show the CPU registers (-a: of all CPUs)"),
    ("mtree", "show the memory map (-f: those of all address spaces)"),
    ("qtree", "show the devices by their buses"),
    ("chardev", "show the character devices"),
    ("uuid", "show the UUID of the machine"),
    ("mice", "show the pointers"),
    ("vnc", "show the VNC servers"),
    ("hotpluggable-cpus", "show places for processors"),
    ("memory-devices", "show memory that was plugged"),
    ("block-jobs", "show what is done to images in the background"),
    ("snapshots", "show the snapshots that can be loaded"),
];

impl Monitor {
    /// Starts the monitor on `backend`.
    pub fn start(backend: Arc<dyn CharBackend>, control: Control, greet: bool) {
        let monitor = Arc::new(Self { backend: backend.clone(), screen: Mutex::default(), shell: Shell::new(control) });
        if greet {
            monitor.greet();
        }
        // What was typed by now is executed in this call, and may need the main loop, which has not begun.
        let attach = {
            let (backend, monitor) = (backend.clone(), monitor.clone());
            move || backend.set_frontend(monitor)
        };
        if std::thread::Builder::new().name("rhea-monitor".to_owned()).spawn(attach).is_err() {
            backend.set_frontend(monitor);
        }
    }

    fn greet(&self) {
        if !std::mem::replace(&mut self.screen.lock().greeted, true) {
            let version = env!("CARGO_PKG_VERSION");
            let title = format!("Rhea {version} monitor - type 'help' for more information\r\n");
            self.backend.write(title.as_bytes());
        }
        self.backend.write(PROMPT.as_bytes());
    }

    fn say(&self, text: &str) {
        self.backend.write(text.replace('\n', "\r\n").as_bytes());
    }

    /// Continues the line, or shows how it may go on.
    fn complete(&self, line: &str) {
        let words = self.shell.words(line);
        let mut screen = self.screen.lock();
        let list = screen.editor.complete(&words, &mut |echo| self.backend.write(echo));
        if !list.is_empty() {
            self.say(&format!("\n{}\n{PROMPT}", list.join(" ")));
            self.backend.write(screen.editor.line());
        }
    }
}

impl Shell {
    pub fn new(control: Control) -> Self {
        let machine = control.server.context().machine.clone();
        Self { control, machine, cpu: Mutex::new(0) }
    }
    /// Sets the CPU that commands about one refer to.
    pub fn select_cpu(&self, index: usize) {
        *self.cpu.lock() = index;
    }
    /// What the next word of a line may be.
    fn words(&self, line: &str) -> Vec<String> {
        let names = |list: &[(&str, &str)]| list.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut given = line.split_whitespace();
        let first = given.next().filter(|first| line.len() > first.len());
        let server = &self.control.server;
        match first {
            None | Some("help" | "?") => {
                commands().flat_map(|(names, ..)| names.split('|')).map(str::to_owned).collect()
            }
            Some("info") => {
                let mut all: Vec<String> = names(TOPICS);
                all.extend(names(migration::TOPICS));
                all.extend(self.machine.topics().map(|(name, _)| name.to_owned()));
                all
            }
            Some("sendkey") => server.schema().values("QKeyCode").to_vec(),
            Some("device_del") => {
                self.machine.inventory().devices().iter().filter_map(|d| d.id().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        }
    }
    fn change(&self, rest: &[&str]) -> String {
        let [device, file, more @ ..] = rest else {
            return "change: expected the name of a drive and a file\n".to_owned();
        };
        let mut arguments = json!({"device": device, "filename": file});
        for (key, value) in ["format", "read-only-mode"].iter().zip(more) {
            arguments[*key] = json!(value);
        }
        self.act("blockdev-change-medium", arguments)
    }
    fn password(&self, command: &str, rest: &[&str]) -> String {
        let key = if command == "set_password" { "password" } else { "time" };
        let (mut arguments, more) = match rest {
            [protocol, value, more @ ..] => (json!({"protocol": protocol, key: value}), more),
            _ => return format!("{command}: expected vnc and a {key}\n"),
        };
        if let [word] = more {
            arguments["connected"] = json!(word);
        }
        self.act(command, arguments)
    }
    /// Executes a command of the control protocol: its result, or an error as text.
    fn call(&self, command: &str, arguments: Value) -> Result<Value, String> {
        self.control.server.call(command, arguments).map_err(|e| format!("Error: {e}\n"))
    }
    /// The same for commands whose result is of no interest.
    fn act(&self, command: &str, arguments: Value) -> String {
        self.call(command, arguments).err().unwrap_or_default()
    }

    /// Runs a command line; the answer ends with a newline or is empty.
    pub fn execute(&self, line: &str) -> String {
        let words = match words(line) {
            Ok(words) => words,
            Err(e) => return format!("{e}\n"),
        };
        let Some((command, rest)) = words.split_first() else { return String::new() };
        let (command, rest) = (command.as_str(), rest.iter().map(String::as_str).collect::<Vec<_>>());
        // `x/4i` and `x /4i` are the same.
        let (command, format) = match command.split_once('/') {
            Some((c @ ("x" | "xp"), f)) => (c, Some(f)),
            _ => (command, None),
        };
        let plugged = plug::execute(&self.machine, command, &rest);
        if let Some(answer) = plugged.or_else(|| self.move_machine(command, &rest)) {
            return answer;
        }
        let done = jobs::execute(self, command, &rest).or_else(|| chardevs::execute(self, command, &rest));
        if let Some(answer) = done {
            return answer;
        }
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
                self.machine.control().request(VmRequest::End(ShutdownCause::Host));
                String::new()
            }
            "system_reset" | "system_powerdown" => self.act(command, Value::Null),
            "system_wakeup" => {
                if self.machine.run_state() != RunState::Suspended {
                    return "system_wakeup: the machine is not suspended\n".to_owned();
                }
                self.act(command, Value::Null)
            }
            "nmi" => self.act("inject-nmi", Value::Null),
            "stop" | "s" => self.act("stop", Value::Null),
            "cont" | "c" => {
                if self.machine.run_state() == RunState::Suspended {
                    return "cont: the machine is suspended: use 'system_wakeup'\n".to_owned();
                }
                self.act("cont", Value::Null)
            }
            "cpu" => {
                match rest.first().and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < self.machine.cpus().len()) {
                    Some(n) => {
                        *self.cpu.lock() = n;
                        String::new()
                    }
                    None => match self.machine.cpus().len() {
                        0 => "cpu: the machine has no CPUs\n".to_owned(),
                        n => format!("cpu: expected a number from 0 to {}\n", n - 1),
                    },
                }
            }
            "change" => self.change(&rest),
            "eject" => match rest[..] {
                ["-f", device] => self.act("eject", json!({"device": device, "force": true})),
                [device] => self.act("eject", json!({"device": device})),
                _ => "eject: expected the name of a drive ('info block' lists them)\n".to_owned(),
            },
            "set_password" | "expire_password" => self.password(command, &rest),
            "screendump" => self.screendump(&rest),
            "sendkey" => self.send_keys(&rest),
            "balloon" => match rest[..] {
                [text] => match rhea_device::options::parse_size(text, 1 << 20) {
                    Some(bytes) => self.act("balloon", json!({"value": bytes})),
                    None => "balloon: expected a size in megabytes\n".to_owned(),
                },
                _ => "balloon: expected a size in megabytes\n".to_owned(),
            },
            "set_link" => match rest[..] {
                [name, word @ ("on" | "off")] => self.act("set_link", json!({"name": name, "up": word == "on"})),
                _ => "set_link: expected name on|off\n".to_owned(),
            },
            "watchdog_action" => match rest[..] {
                [action] => self.act("watchdog-set-action", json!({"action": action})),
                _ => "watchdog_action: expected an action\n".to_owned(),
            },
            "memsave" | "pmemsave" => self.save_memory(command, &rest),
            "savevm" | "loadvm" | "delvm" if rest.len() > 1 => {
                format!("{command}: extraneous characters at the end of line\n")
            }
            "savevm" | "loadvm" | "delvm" if !self.list("query-block-jobs").is_empty() => {
                format!("Error: {command}: an image is in use by a block job\n")
            }
            "savevm" | "loadvm" | "delvm" => snapshots::human(&self.machine, command, rest.first().copied()),
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
                for (name, what) in TOPICS.iter().chain(migration::TOPICS).copied().chain(machine.topics()) {
                    let _ = writeln!(text, "info {name} -- {what}");
                }
            }
            Some("version") => text = format!("{}\n", env!("CARGO_PKG_VERSION")),
            Some("uuid") => text = self.field("query-uuid", "UUID"),
            Some("name") => text = format!("{}\n", machine.name()),
            Some("status") => text = format!("VM status: {}\n", machine.run_state().text()),
            Some("cpus") => {
                let current = *self.cpu.lock();
                for (i, cpu) in machine.cpus().iter().enumerate().filter(|(_, c)| c.present()) {
                    let mark = if i == current { '*' } else { ' ' };
                    let _ = writeln!(text, "{mark} CPU #{i}: id={:#x} {}", cpu.hardware_id(), cpu.state_word());
                }
            }
            Some("registers") => text = self.registers(rest.get(1) == Some(&"-a")),
            Some("mtree") if rest.get(1) == Some(&"-f") => text = tree::flat_views(machine),
            Some("mtree") => text = tree::ranges(machine.space()),
            Some("qtree") => text = tree::devices(machine),
            Some("chardev") => {
                for entry in self.list("query-chardev") {
                    let part = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                    let _ = writeln!(text, "{}: {}", part("label"), part("filename"));
                }
            }
            Some("block-jobs") => text = jobs::info(&self.list("query-block-jobs")),
            Some("mice") => text = self.mice(),
            Some("vnc") => text = display::vnc(&self.control.server.context().vnc),
            Some("hotpluggable-cpus") => text = machine.hotpluggable_cpus(),
            Some("snapshots") => text = snapshots::human(machine, "snapshots", None),
            Some("memory-devices") => text = plug::memory(machine),
            Some(topic) => match self.move_info(topic).or_else(|| machine.info(topic)) {
                Some(answer) => text = answer,
                None => text = format!("info: unknown topic '{topic}' ('info' lists the topics)\n"),
            },
        }
        text
    }

    /// The entries that a query returns.
    fn list(&self, query: &str) -> Vec<Value> {
        match self.call(query, Value::Null) {
            Ok(Value::Array(entries)) => entries,
            _ => Vec::new(),
        }
    }
    /// One line with a member of what a query returns.
    fn field(&self, query: &str, member: &str) -> String {
        self.call(query, Value::Null)
            .map_or_else(|e| e, |value| format!("{}\n", value[member].as_str().unwrap_or_default()))
    }
    /// Runs `f` with all CPUs paused.
    fn paused<R>(&self, f: impl FnOnce() -> R) -> R {
        self.control.server.context().paused(f)
    }

    fn save_memory(&self, command: &str, rest: &[&str]) -> String {
        let number = |text| rhea_device::options::parse_number(text);
        let &[start, size, file] = rest else { return format!("{command}: expected addr size file\n") };
        let (Some(start), Some(size)) = (number(start), number(size)) else {
            return format!("{command}: expected numbers for addr and size\n");
        };
        let mut arguments = json!({"val": start, "size": size, "filename": file});
        if command == "memsave" {
            arguments["cpu-index"] = json!(*self.cpu.lock());
        }
        self.act(command, arguments)
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
            let Some(cpu) = self.machine.cpus().get(*self.cpu.lock()).cloned() else {
                return "x: the machine has no CPUs\n".to_owned();
            };
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

/// The words of a line. One that begins with a double quote ends with the next, and may have `\"`, `\\`, `\n` and `\r` in it; what follows
/// `exec:` is a shell's.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut rest) = (Vec::new(), line.trim());
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (mut word, mut letters) = (String::new(), quoted.chars());
            loop {
                match letters.next().ok_or("unterminated string literal")? {
                    '"' => break,
                    '\\' => word.push(match letters.next() {
                        Some('n') => '\n',
                        Some('r') => '\r',
                        Some(same @ ('\\' | '"' | '\'')) => same,
                        _ => return Err("unsupported escape code in a string literal"),
                    }),
                    letter => word.push(letter),
                }
            }
            words.push(word);
            rest = letters.as_str().trim_start();
        } else if rest.starts_with("exec:") {
            words.extend(rest.split_whitespace().map(str::to_owned));
            break;
        } else {
            let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            words.push(word.to_owned());
            rest = after.trim_start();
        }
    }
    Ok(words)
}

fn help(of: Option<&str>) -> String {
    let mut text = String::new();
    for (names, arguments, what) in commands() {
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
            let edit = self.screen.lock().editor.key(byte, &mut |echo| self.backend.write(echo));
            match edit {
                Edit::None => {}
                Edit::Complete(line) => self.complete(&line),
                Edit::Line(line) => {
                    let answer = self.shell.execute(&line);
                    self.say(&answer);
                    self.backend.write(PROMPT.as_bytes());
                }
            }
        }
    }
    fn event(&self, event: CharEvent) {
        if event == CharEvent::Opened {
            self.greet();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_of_a_line() {
        let of = |line| words(line).map(|all| all.join("|"));
        assert_eq!(of("  savevm  a b\t"), Ok("savevm|a|b".to_owned()));
        assert_eq!(of(r#"savevm "a \" b\\" c"d "" "#), Ok(r#"savevm|a " b\|c"d|"#.to_owned()));
        assert_eq!(of(r#"migrate exec:cat > "a b""#), Ok(r#"migrate|exec:cat|>|"a|b""#.to_owned()));
        assert_eq!(of(r#"savevm "a"#), Err("unterminated string literal"));
        assert_eq!(of(r#"savevm "\x""#), Err("unsupported escape code in a string literal"));
        assert_eq!(of(" "), Ok(String::new()));
    }
}
