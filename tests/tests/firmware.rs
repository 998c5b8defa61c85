//! UEFI firmware and the network installer of Debian.

use std::io::Write;
use std::time::Duration;

use rhea_tests::{Emulator, STEP, Scratch, guest_file, require, run};

/// Copies a firmware image into a file of the size of a flash bank, 64 MiB.
fn flash_bank(scratch: &Scratch, name: &str, from: &str) -> String {
    let content = std::fs::read(guest_file(from)).expect("the firmware");
    let path = scratch.file(name, &content);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the copy");
    file.set_len(64 << 20).expect("64 MiB of disk");
    path
}

fn uefi(scratch: &Scratch, args: &[&str]) -> Emulator {
    let code = flash_bank(scratch, "code.fd", "aavmf-code.fd");
    let vars = flash_bank(scratch, "vars.fd", "aavmf-vars.fd");
    let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={code}");
    let vars = format!("if=pflash,unit=1,format=raw,file={vars}");
    let fixed = ["-M", "virt", "-cpu", "cortex-a72", "-m", "1G", "-drive", &code, "-drive", &vars, "-nographic"];
    Emulator::start(&[&fixed, args].concat())
}

/// Firmware initialises and decompresses itself, which takes longer than a kernel.
const LONG: Duration = Duration::from_secs(240);

#[test]
fn uefi_reaches_its_boot_manager() {
    require!("aavmf-code.fd", "aavmf-vars.fd");
    let scratch = Scratch::new();
    let mut guest = uefi(&scratch, &["-nic", "none"]);
    // Nothing to boot: it ends in the shell or the manager, and Escape interrupts the countdown.
    guest.expect_any(&["Press ESCAPE", "Start boot option", "BdsDxe", "Shell>"], LONG);
    let mut found = false;
    for _ in 0..120 {
        guest.send("\x1b");
        if guest.appears("Boot Manager", Duration::from_secs(2)) {
            found = true;
            break;
        }
        if guest.appears("Shell>", Duration::from_millis(10)) {
            guest.send("exit\r");
        }
    }
    assert!(found, "{}", guest.transcript());
}

#[test]
fn uefi_starts_a_kernel_through_grub() {
    require!("aavmf-code.fd", "aavmf-vars.fd", "grub.img");
    let scratch = Scratch::new();
    let drive = format!("if=none,id=d,format=raw,snapshot=on,file={}", guest_file("grub.img"));
    let mut guest = uefi(&scratch, &["-drive", &drive, "-device", "virtio-blk-pci,drive=d", "-nic", "none"]);
    guest.expect("Rhea test guest", LONG);
    guest.expect("RHEA-TEST features START", LONG);
    guest.expect("RHEA-TEST features PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
    assert!(guest.transcript().contains("efi: EFI v"), "{}", guest.transcript());
}

#[test]
fn installer_shows_its_first_screen() {
    require!("installer-kernel", "installer-initrd");
    let mut guest = Emulator::start_on_terminal(&[
        "-M",
        "virt",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1G",
        "-kernel",
        &guest_file("installer-kernel"),
        "-initrd",
        &guest_file("installer-initrd"),
        "-append",
        "console=ttyAMA0 quiet",
        "-nographic",
        "-netdev",
        "user,id=n",
        "-device",
        "virtio-net-pci,netdev=n",
    ]);
    guest.expect("Select a language", LONG);
    guest.expect("English", STEP);
    guest.send("\x01x");
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn device_tree_can_be_dumped_and_given_back() {
    require!("kernel", "initramfs");
    let scratch = Scratch::new();
    let dtb = scratch.path("virt.dtb");
    let ended = run(&["-M", &format!("virt,dumpdtb={dtb}"), "-cpu", "max", "-m", "512M", "-display", "none"], STEP);
    assert!(ended.status.success(), "{}", ended.stderr);
    let blob = std::fs::read(&dtb).expect("the device tree");
    assert_eq!(blob[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    for node in ["pl011@9000000", "intc@8000000", "psci", "virtio_mmio@a000000", "pcie@10000000", "fw-cfg@9020000"] {
        assert!(blob.windows(node.len()).any(|w| w == node.as_bytes()), "no {node} in the device tree");
    }
    // Without the free space behind it, as the device tree compiler would write it: the kernel
    // takes no more than 2 MiB.
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().expect("four bytes"));
    let used = (word(8) + word(36)).max(word(12) + word(32));
    let mut packed = blob[..used as usize].to_vec();
    packed[4..8].copy_from_slice(&used.to_be_bytes());
    let dtb = scratch.file("packed.dtb", &packed);
    let mut args = rhea_tests::linux("rhea.test=smp rhea.cpus=1");
    args.extend(["-cpu", "max", "-dtb", &dtb].map(String::from));
    let mut guest = Emulator::start(&args);
    guest.expect("RHEA-TEST smp PASS", STEP);
    assert!(guest.wait(STEP).success(), "{}", guest.transcript());
}

#[test]
fn kernel_may_be_compressed() {
    require!("kernel", "initramfs");
    let scratch = Scratch::new();
    let packed = scratch.path("kernel.gz");
    let output = std::process::Command::new("gzip").args(["-1", "-c"]).arg(guest_file("kernel")).output();
    let mut file = std::fs::File::create(&packed).expect("a file");
    file.write_all(&output.expect("gzip").stdout).expect("room for the kernel");
    let mut args = rhea_tests::linux("rhea.test=smp rhea.cpus=1");
    for arg in &mut args {
        if *arg == guest_file("kernel") {
            arg.clone_from(&packed);
        }
    }
    args.extend(["-cpu", "max"].map(String::from));
    let mut guest = Emulator::start(&args);
    guest.expect("RHEA-TEST smp PASS", STEP);
}

/// The 32-bit and the 64-bit PC, and arm64.
#[test]
fn u_boot_comes_to_its_prompt() {
    let file = |name: &str| format!("amd64/debian/u-boot-qemu/usr/lib/u-boot/{name}");
    for (machine, image) in
        [("q35", "qemu-x86/u-boot.rom"), ("q35", "qemu-x86_64/u-boot.rom"), ("virt", "qemu_arm64/u-boot.bin")]
    {
        let image = file(image);
        require!(&image);
        let cpu = if machine == "virt" { "cortex-a57" } else { "max" };
        let bios = guest_file(&image);
        let args = ["-M", machine, "-cpu", cpu, "-m", "512M", "-nic", "none", "-nographic", "-bios", &bios];
        let mut guest = Emulator::start(&args);
        guest.expect("Hit any key", LONG);
        guest.send("\n");
        guest.expect("=> ", STEP);
        guest.send("echo u-boot-$cpu-is-here\n");
        guest.expect("u-boot-", STEP);
        guest.expect("-is-here", STEP);
    }
}
