//! A panic anywhere ends the emulator: a machine that lost one of its threads would hang, deaf to signals.

use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a panic says, in one line.
fn line(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("unknown cause").replace('\n', " ");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let place = info.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
    format!("rhea: internal error in thread '{thread}': {text}{place}")
}

/// Has panics call `restore` (the terminal), print one line and end the process with status 1.
pub fn end_process(restore: impl Fn() + Send + Sync + 'static) {
    let ending = AtomicBool::new(false);
    std::panic::set_hook(Box::new(move |info| {
        if ending.swap(true, Ordering::SeqCst) {
            // Another thread is about to end the process.
            loop {
                std::thread::park();
            }
        }
        restore();
        // Standard error may be a pipe that nobody reads any more.
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", line(info)));
        std::process::exit(1);
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Only has an effect in a process of its own.
    #[test]
    #[ignore = "ends the process"]
    fn child() {
        super::end_process(|| eprint!("restored "));
        let _ = std::thread::Builder::new().name("vcpu0".to_owned()).spawn(|| panic!("one\ntwo")).map(|t| t.join());
        std::thread::sleep(std::time::Duration::from_secs(60));
    }

    #[test]
    fn any_thread_ends_the_process() {
        let me = std::env::current_exe().unwrap();
        let ended = Command::new(me)
            .args(["--exact", "panics::tests::child", "--ignored", "--nocapture"])
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert!(text.starts_with("restored rhea: internal error in thread 'vcpu0': one two ("), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
