//! Programs of the host that the tests are compared with.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn temporary(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rhea-diff-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).expect("temporary file");
    path
}

/// Runs an executable under a user-mode emulator (of the package `qemu-user`) and returns what it writes; `None` if there is
/// no such emulator. `RHEA_DIFF_KEEP` keeps the executable.
pub fn reference(emulator: &str, cpu: &str, elf: &[u8], name: &str) -> Option<Vec<u8>> {
    let path = temporary(name, elf);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    let out = Command::new(emulator).args(["-cpu", cpu]).arg(&path).stderr(Stdio::inherit()).output();
    if std::env::var_os("RHEA_DIFF_KEEP").is_none() {
        let _ = std::fs::remove_file(&path);
    }
    match out {
        Ok(o) => {
            assert!(o.status.success(), "the reference failed: {}", o.status);
            Some(o.stdout)
        }
        Err(e) => {
            println!("not compared with the reference: {emulator} cannot be run ({e}); it is in the package qemu-user");
            None
        }
    }
}

/// Code in the words of an `objdump`, if there is one.
pub fn disassemble(objdump: &str, args: &[&str], code: &[u8]) -> String {
    let path = temporary("dis", code);
    let out = Command::new(objdump).args(["-D", "-bbinary"]).args(args).arg(&path).output();
    let _ = std::fs::remove_file(&path);
    let Ok(out) = out else { return String::new() };
    String::from_utf8_lossy(&out.stdout).lines().skip(7).collect::<Vec<_>>().join("\n")
}
