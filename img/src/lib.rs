//! `rhea img` and `rhea nbd`: work on disk images from the command line, with the words of the tools that users know.

mod args;
mod check;
mod compare;
mod convert;
mod create;
mod info;
mod map;
mod nbd;
mod rebase;
mod resize;
mod size;
mod snapshot;

use args::{Args, Spec};
use rhea_block::{Inherit, Node, NodeOptions};
use std::io::{IsTerminal, Write};
use std::sync::Arc;

pub use info::snapshots as snapshot_table;
pub use nbd::run as nbd;

/// Where output goes.
pub struct Output<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

impl Output<'_> {
    /// Prints; a closed pipe is nobody's error.
    fn print(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
    }
    fn complain(&mut self, text: &str) {
        let _ = writeln!(self.err, "rhea: {text}");
    }
}

type Command = fn(&mut Args, &mut Output<'_>) -> Result<i32, String>;

const COMMANDS: &[(&str, &Spec, Command)] = &[
    ("check", &check::SPEC, check::run),
    ("compare", &compare::SPEC, compare::run),
    ("convert", &convert::SPEC, convert::run),
    ("create", &create::SPEC, create::run),
    ("info", &info::SPEC, info::run),
    ("map", &map::SPEC, map::run),
    ("rebase", &rebase::SPEC, rebase::run),
    ("resize", &resize::SPEC, resize::run),
    ("snapshot", &snapshot::SPEC, snapshot::run),
];

fn help() -> String {
    let mut text =
        "usage: rhea img COMMAND [options] FILE...\n\nCommands ('rhea img COMMAND -h' shows its options):\n".to_owned();
    for (name, spec, _) in COMMANDS {
        text.push_str(&format!("  {name:<10} {}\n", spec.about));
    }
    text.push_str("\nFormats: raw, qcow2; read only: vmdk, vpc\nA FILE may be nbd://HOST[:PORT][/EXPORT], nbd+unix:///[EXPORT]?socket=PATH or json:{...}\n");
    text
}

/// Runs `rhea img ARGUMENTS`; the exit status.
pub fn run(arguments: &[String], output: &mut Output<'_>) -> i32 {
    let Some((name, rest)) = arguments.split_first() else {
        output.print(&help());
        return 1;
    };
    if matches!(name.as_str(), "-h" | "--help" | "help") {
        output.print(&help());
        return 0;
    }
    let Some((name, spec, command)) = COMMANDS.iter().find(|(n, _, _)| n == name) else {
        output.complain(&format!("img: unknown command '{name}' ('rhea img -h' lists them)"));
        return 1;
    };
    let result = Args::parse(spec, rest).and_then(|mut args| {
        if args.flag('h') {
            output.print(&spec.help(name));
            return Ok(0);
        }
        command(&mut args, output)
    });
    match result {
        Ok(status) => status,
        Err(text) => {
            output.complain(&format!("img {name}: {text}"));
            // What cannot be compared is neither the same nor different.
            if *name == "compare" { 2 } else { 1 }
        }
    }
}

/// Opens an image as the options `-f`, `--image-opts` and `-U` say.
fn open(args: &Args, name: &str, format: Option<&str>, inherit: Inherit) -> Result<Arc<Node>, String> {
    let inherit = Inherit { force_share: inherit.force_share || args.flag('U'), ..inherit };
    if args.flag('I') {
        if format.is_some() {
            return Err("--image-opts and a format cannot be given together".to_owned());
        }
        return rhea_block::BlockGraph::new().open(NodeOptions::parse(name)?, &inherit);
    }
    rhea_block::open_image(name, format, &inherit)
}

/// `-t`, `-T`: what they say about the host's cache.
fn cache(args: &Args, option: char, inherit: Inherit) -> Result<Inherit, String> {
    let (direct, no_flush) = match args.value(option) {
        None => return Ok(inherit),
        Some("writeback" | "writethrough") => (false, false),
        Some("none" | "directsync") => (true, false),
        Some("unsafe") => (false, true),
        Some(other) => return Err(format!("invalid cache mode '{other}'")),
    };
    Ok(Inherit { direct, no_flush, ..inherit })
}

/// Runs `work` with a progress bar if one was asked for and somebody can see it.
fn with_progress<T>(args: &Args, work: impl FnOnce(&mut dyn FnMut(u64, u64) -> bool) -> T) -> T {
    if !args.flag('p') || args.flag('q') || !std::io::stderr().is_terminal() {
        return work(&mut |_, _| true);
    }
    let bar = indicatif::ProgressBar::new(1);
    if let Ok(style) = indicatif::ProgressStyle::with_template(
        "{percent:>3}% [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    ) {
        bar.set_style(style.progress_chars("=> "));
    }
    let result = work(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        true
    });
    bar.finish_and_clear();
    result
}

fn host(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
