//! Signals that end the emulator do so through the main loop, so that disks are flushed and the terminal is restored.
#![expect(unsafe_code, reason = "signal masks have no safe interface")]

use rhea_accel::{ShutdownCause, VmControl, VmRequest};

/// The signals that are blocked in all threads and waited for in one.
pub struct Blocked(libc::sigset_t);

/// Blocks the signals in this thread and those it starts from now on.
pub fn block() -> Blocked {
    // SAFETY: a sigset_t is plain data that sigemptyset initialises; the calls only touch it and the thread's mask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        // A peer that went away is seen by the write that fails.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        // So is a file that would become too long (RLIMIT_FSIZE).
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        Blocked(set)
    }
}

/// Turns the first signal into a request to quit; a second one ends the process at once.
pub fn watch(set: Blocked, control: VmControl) {
    let wait = move || {
        for round in 0.. {
            let mut signal = 0;
            // SAFETY: both pointers are to live values.
            if unsafe { libc::sigwait(&raw const set.0, &raw mut signal) } != 0 {
                return;
            }
            if round > 0 {
                std::process::exit(128 + signal);
            }
            control.request(VmRequest::End(ShutdownCause::Signal));
            // Standard error may be a pipe that nobody reads any more.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("rhea: terminating on signal {signal}\n"),
            );
        }
    };
    // Without the thread the signals stay blocked; SIGKILL remains.
    if let Err(e) = std::thread::Builder::new().name("rhea-signals".to_owned()).spawn(wait) {
        eprintln!("rhea: signals: {e}");
    }
}
