//! The command line: what is refused, and how; what is listed.

use std::time::Duration;

use rhea_tests::{Random, Run, Scratch, emulator_binary, guest_file, is_qemu, require, run};

const SHORT: Duration = Duration::from_secs(30);

/// Arguments, and what the error line must name. `{x}` stands for a file of [`Files`].
const REFUSED: &[(&str, &[&str])] = &[
    // Options
    ("-no-such-option", &["-no-such-option"]),
    ("--no-such-option", &["no-such-option"]),
    ("stray-word-that-is-no-image", &["stray-word-that-is-no-image"]),
    ("-M virt -kernel", &["-kernel"]),
    ("-M virt -append", &["-append"]),
    ("-M", &["-M"]),
    ("-M virt -display no-such-display", &["no-such-display"]),
    ("-M virt -accel no-such-accelerator", &["no-such-accelerator"]),
    ("-M virt -rtc base=yesterday", &["yesterday"]),
    ("-M virt -rtc no-such-key=1", &["no-such-key"]),
    ("-M virt -name no-such-key=a", &["no-such-key"]),
    // Machine
    ("-M no-such-machine", &["no-such-machine"]),
    ("-M virt,no-such-key=on", &["no-such-key"]),
    ("-M virt -serial null -serial null", &["-serial", "2"]),
    ("-M virt,secure=on -serial null -serial null -serial null", &["-serial", "3"]),
    ("-M virt,gic-version=9", &["gic-version"]),
    ("-M virt,virtualization=perhaps", &["virtualization", "perhaps"]),
    ("-M virt,secure=7", &["secure"]),
    // Processors
    ("-M virt -cpu no-such-cpu", &["no-such-cpu"]),
    ("-M virt -cpu max,no-such-feature=on", &["no-such-feature"]),
    ("-M virt -cpu max,pauth=perhaps", &["pauth"]),
    ("-M virt -smp 0", &["smp"]),
    ("-M virt -smp many", &["many"]),
    ("-M virt -smp 100000", &["100000"]),
    ("-M virt,gic-version=2 -smp 9", &["9", "8"]),
    ("-M virt -smp 4,maxcpus=2", &["maxcpus"]),
    ("-M virt -smp cpus=2,no-such-key=1", &["no-such-key"]),
    // Memory
    ("-M virt -m lots", &["lots"]),
    ("-M virt -m 12X", &["12X"]),
    ("-M virt -m -5", &["-5"]),
    ("-M virt -m 9999999999999999G", &["9999999999999999G"]),
    ("-M virt -m 1000000G", &["1000000G"]),
    ("-M virt -m 128M -mem-path {missing}/x", &["{missing}"]),
    ("-M virt -m 0", &["-m"]),
    ("-M virt -m size=1G,no-such-key=1", &["no-such-key"]),
    ("-M virt,highmem=off -m 8G", &["highmem"]),
    ("-M virt,memory-backend=no-such-object -m 1G", &["no-such-object"]),
    ("-M virt -object no-such-type,id=o", &["no-such-type"]),
    // Kernel, initrd, device tree
    ("-M virt -kernel {x86_image}", &["{x86_image}", "x86"]),
    ("-M virt -kernel {riscv_image}", &["{riscv_image}", "RISC-V"]),
    ("-M virt -kernel {cut_gzip}", &["{cut_gzip}", "truncated"]),
    ("-M virt -kernel {cut_pe}", &["{cut_pe}", "truncated"]),
    ("-M virt -kernel {noise}", &["{noise}"]),
    ("-M virt -kernel {image} -dtb {cut_dtb}", &["{cut_dtb}"]),
    ("-M virt -kernel {missing}", &["{missing}"]),
    ("-M virt -kernel {folder}", &["{folder}"]),
    ("-M virt -kernel {empty}", &["{empty}"]),
    ("-M virt -kernel {x86}", &["{x86}"]),
    ("-M virt -kernel {cut}", &["{cut}"]),
    ("-M virt -kernel {cut_elf}", &["{cut_elf}"]),
    ("-M virt -kernel {image} -initrd {missing}", &["{missing}"]),
    ("-M virt -kernel {image} -initrd {folder}", &["{folder}"]),
    ("-M virt -kernel {image} -dtb {missing}", &["{missing}"]),
    ("-M virt -kernel {image} -dtb {noise}", &["{noise}"]),
    ("-M virt -kernel {image} -m 64M -initrd {big}", &["initrd"]),
    ("-M virt -initrd {noise}", &["-kernel"]),
    ("-M virt -append words", &["-kernel"]),
    ("-M virt -bios {missing}", &["{missing}"]),
    ("-M virt -bios {big}", &["{big}"]),
    // Drives
    ("-M virt -drive if=none,id=d,file={missing},format=raw", &["{missing}"]),
    ("-M virt -drive if=none,id=d,file={folder},format=raw", &["{folder}"]),
    ("-M virt -drive if=no-such-bus,file={noise},format=raw", &["no-such-bus"]),
    ("-M virt -drive if=none,id=d,file={noise},format=no-such-format", &["no-such-format"]),
    ("-M virt -drive if=none,id=d,file={noise},format=raw,no-such-key=1", &["no-such-key"]),
    ("-M virt -drive if=none,id=d,file={noise},format=raw,read-only=perhaps", &["read-only"]),
    ("-M virt -drive if=none,id=d,file={noise},format=raw -drive if=none,id=d,file={noise},format=raw", &["d"]),
    ("-M virt -drive if=pflash,unit=7,file={noise},format=raw", &["unit=1"]),
    ("-M virt -drive if=pflash,unit=0,file={big},format=raw", &["{big}", "67108864"]),
    ("-M virt -drive if=virtio,format=raw", &["file"]),
    ("-M virt {missing}", &["{missing}"]),
    ("-M virt -hda {noise} -hda {noise} second", &["second"]),
    // Devices
    ("-M virt -device no-such-device", &["no-such-device"]),
    ("-M virt -device virtio-blk-pci", &["drive"]),
    ("-M virt -device virtio-blk-pci,drive=no-such-drive", &["no-such-drive"]),
    ("-M virt -device virtio-rng-pci,no-such-property=1", &["no-such-property"]),
    ("-M virt -device virtio-rng-pci,addr=77", &["addr"]),
    ("-M virt -device virtio-rng-pci,addr=5 -device virtio-rng-pci,addr=5", &["5"]),
    ("-M virt -device virtio-rng-pci,bus=no-such-bus", &["no-such-bus"]),
    ("-M virt -device virtio-net-pci,netdev=no-such-netdev", &["no-such-netdev"]),
    ("-M virt -netdev user,id=n -device virtio-net-pci,netdev=n,mac=zz:zz", &["mac"]),
    ("-M virt -device virtio-rng-pci,id=a -device virtio-rng-pci,id=a", &["a"]),
    ("-M virt -device virtconsole,chardev=no-such-chardev", &["no-such-chardev"]),
    (
        "-M virt -drive if=none,id=d,file={noise},format=raw -device virtio-blk-pci,drive=d,num-queues=0",
        &["num-queues"],
    ),
    // Network
    ("-M virt -netdev no-such-backend,id=n", &["no-such-backend"]),
    ("-M virt -netdev user", &["id"]),
    ("-M virt -netdev user,id=n,no-such-key=1", &["no-such-key"]),
    ("-M virt -netdev user,id=n,hostfwd=nonsense", &["hostfwd"]),
    ("-M virt -netdev user,id=n,hostfwd=tcp::{port}-:22", &["{port}"]),
    ("-M virt -netdev user,id=n,net=10.0.2.0/99", &["10.0.2.0/99"]),
    ("-M virt -netdev tap,id=n,ifname=no/such,script=no,downscript=no", &["n"]),
    ("-M virt -nic user,model=no-such-model", &["no-such-model"]),
    ("-M virt -nic user,no-such-key=1", &["no-such-key"]),
    ("-M virt -netdev user,id=n -netdev user,id=n", &["n"]),
    // Character devices, monitor, GDB
    ("-M virt -chardev no-such-backend,id=c", &["no-such-backend"]),
    ("-M virt -chardev stdio", &["id"]),
    ("-M virt -chardev file,id=c,path={missing}/x", &["{missing}"]),
    ("-M virt -chardev socket,id=c,host=127.0.0.1,port={port},server=on,wait=off", &["{port}"]),
    ("-M virt -serial no-such-backend", &["no-such-backend"]),
    ("-M virt -serial tcp:127.0.0.1:{port},server=on,wait=off", &["{port}"]),
    ("-M virt -monitor no-such-backend", &["no-such-backend"]),
    ("-M virt -gdb tcp:127.0.0.1:{port}", &["{port}"]),
    ("-M virt -gdb no-such-backend", &["no-such-backend"]),
    ("-M virt -D {missing}/log -d guest_errors", &["{missing}"]),
    ("-M virt -d no-such-item", &["no-such-item"]),
];

/// The same of `-M q35`.
const REFUSED_Q35: &[(&str, &[&str])] = &[
    // Machine
    ("-M q35,no-such-key=on", &["no-such-key"]),
    ("-M q35,smm=perhaps", &["smm", "perhaps"]),
    ("-M q35,hpet=7", &["hpet"]),
    ("-M q35,i8042=7", &["i8042"]),
    ("-M q35,pit=7", &["pit"]),
    ("-M q35,pic=off", &["pic"]),
    ("-M q35,sata=7", &["sata"]),
    ("-M q35,smbus=7", &["smbus"]),
    ("-M q35,vmport=on", &["vmport"]),
    ("-M q35,acpi=7", &["acpi"]),
    ("-M q35,graphics=7", &["graphics"]),
    ("-M q35,usb=perhaps", &["usb"]),
    ("-M q35,nvdimm=on", &["nvdimm"]),
    ("-M q35,confidential-guest-support=nobody -accel kvm", &["nobody", "sw-protected-vm"]),
    (
        "-M q35,confidential-guest-support=p -object sw-protected-vm,id=p -accel jit",
        &["confidential-guest-support", "kvm"],
    ),
    ("-M q35,kernel-irqchip=on", &["kernel-irqchip"]),
    ("-M q35,gic-version=3", &["gic-version"]),
    ("-M q35,pflash0=no-such-drive", &["no-such-drive"]),
    ("-M q35,memory-backend=no-such-object", &["no-such-object"]),
    ("-M q35,accel=no-such-accelerator", &["no-such-accelerator"]),
    ("-M q35-9.9", &["q35-9.9"]),
    ("-M pc", &["pc"]),
    // Processors
    ("-M q35 -cpu no-such-cpu", &["no-such-cpu"]),
    ("-M q35 -cpu cortex-a72", &["cortex-a72"]),
    ("-M q35 -cpu max,no-such-feature=on", &["no-such-feature"]),
    ("-M q35 -cpu max,+no-such-feature", &["no-such-feature"]),
    ("-M q35 -cpu max,-no-such-feature", &["no-such-feature"]),
    ("-M q35 -cpu qemu64,avx2=perhaps", &["avx2", "perhaps"]),
    ("-M q35 -cpu max,phys-bits=99", &["phys-bits"]),
    ("-M q35 -cpu max,family=9999", &["family"]),
    ("-M q35 -cpu max,vendor=no-such-vendor", &["vendor", "no-such-vendor"]),
    ("-M q35 -smp 256", &["256", "255"]),
    ("-M q35 -smp 2,clusters=2", &["clusters"]),
    ("-M q35 -smp 4,dies=3", &["dies"]),
    // Firmware
    ("-M q35 -bios {missing}", &["{missing}"]),
    ("-M q35 -bios {noise}", &["{noise}", "64 KiB"]),
    ("-M q35 -bios {empty}", &["{empty}"]),
    ("-M q35 -bios {big}", &["{big}"]),
    ("-M q35 -bios {folder}", &["{folder}"]),
    ("-M q35 -L {folder} -bios no-such-firmware", &["no-such-firmware", "{folder}"]),
    ("-M q35 -bios {bios} -drive if=pflash,format=raw,file={bios}", &["-bios", "pflash"]),
    ("-M q35 -drive if=pflash,format=raw,file={noise}", &["{noise}", "4 KiB"]),
    ("-M q35 -drive if=pflash,format=raw,file={big}", &["{big}", "16 MiB"]),
    ("-M q35 -drive if=pflash,format=raw,file={missing}", &["{missing}"]),
    ("-M q35 -drive if=pflash,unit=1,format=raw,file={bios}", &["bank 0"]),
    ("-M q35 -drive if=pflash,unit=2,format=raw,file={bios}", &["unit=1"]),
    ("-M q35 -boot order=x", &["order", "x"]),
    ("-M q35 -boot once=cz", &["once", "z"]),
    ("-M q35 -boot no-such-key=1", &["no-such-key"]),
    ("-M q35 -boot menu=perhaps", &["menu"]),
    ("-M q35 -boot splash-time=99999999", &["splash-time"]),
    ("-M q35 -boot reboot-timeout=never", &["reboot-timeout"]),
    ("-M q35 -boot strict=7", &["strict"]),
    ("-M q35 -smbios type=99", &["99"]),
    ("-M q35 -smbios no-such-word", &["-smbios"]),
    ("-M q35 -smbios type=1,no-such-key=1", &["no-such-key"]),
    ("-M q35 -smbios type=0,release=999.999", &["release"]),
    ("-M q35 -smbios type=1,uuid=x", &["uuid"]),
    ("-M q35 -smbios file={missing}", &["{missing}"]),
    ("-M q35 -smbios file={noise}", &["{noise}"]),
    ("-M q35 -fw_cfg opt/x", &["opt/x"]),
    ("-M q35 -fw_cfg opt/x,file={missing}", &["{missing}"]),
    ("-M q35 -fw_cfg opt/x,file={folder}", &["{folder}"]),
    ("-M q35 -fw_cfg opt/x,string=a,file={noise}", &["string"]),
    ("-M q35 -fw_cfg string=x", &["name"]),
    ("-M q35 -fw_cfg opt/x,no-such-key=1,string=x", &["no-such-key"]),
    ("-M q35 -fw_cfg opt/0123456789012345678901234567890123456789012345678901234567890123,string=x", &["55"]),
    ("-M q35 -uuid 1234", &["1234"]),
    ("-M q35 -global x", &["x"]),
    ("-M q35 -global no-such-device.property=1", &["no-such-device"]),
    ("-M q35 -global VGA.no-such-property=1", &["no-such-property"]),
    ("-M q35 -vga std -global VGA.vgamem_mb=3", &["vgamem_mb"]),
    ("-M q35 -global mch.extended-tseg-mbytes=9999", &["extended-tseg-mbytes"]),
    ("-M q35 -global kvm-pit.lost_tick_policy=delay", &["lost_tick_policy"]),
    ("-M q35 -global ICH9-LPC.disable_s3=2", &["disable_s3"]),
    ("-M q35 -overcommit mem-lock=on", &["mem-lock"]),
    ("-M q35 -overcommit no-such-key=1", &["no-such-key"]),
    // Display
    ("-M q35 -vga no-such-adapter", &["no-such-adapter"]),
    ("-M q35 -vnc 5", &["-vnc", "5"]),
    ("-M q35 -vnc :0,no-such-key=1", &["no-such-key"]),
    ("-M q35 -vnc :0,password=perhaps", &["password"]),
    ("-M q35 -vnc :99999", &["99999"]),
    ("-M q35 -vnc unix:{missing}/x", &["{missing}"]),
    ("-M q35 -display no-such-display", &["no-such-display"]),
    ("-M q35 -device VGA,vgamem_mb=3", &["vgamem_mb"]),
    ("-M q35 -device VGA,romfile={missing}", &["{missing}"]),
    ("-M q35 -device VGA,xres=99999", &["xres"]),
    ("-M q35 -device VGA,addr=1f.0", &["1f.0"]),
    ("-M q35 -device VGA,no-such-property=1", &["no-such-property"]),
    ("-M q35 -parallel stdio", &["-parallel"]),
    // Kernels
    ("-M q35 -kernel {missing}", &["{missing}"]),
    ("-M q35 -kernel {folder}", &["{folder}"]),
    ("-M q35 -kernel {empty}", &["{empty}"]),
    ("-M q35 -kernel {noise}", &["{noise}"]),
    ("-M q35 -kernel {image}", &["{image}", "arm64"]),
    ("-M q35 -kernel {x86_image}", &["{x86_image}"]),
    ("-M q35 -kernel {x86}", &["{x86}"]),
    ("-M q35 -kernel {cut_elf}", &["{cut_elf}"]),
    ("-M q35 -kernel {cut_bzimage}", &["{cut_bzimage}"]),
    ("-M q35 -kernel {cut_multiboot}", &["{cut_multiboot}"]),
    ("-M q35 -kernel {high_multiboot} -m 64M", &["{high_multiboot}"]),
    ("-M q35 -kernel {cut_pvh}", &["{cut_pvh}"]),
    ("-M q35 -kernel {bzimage} -initrd {missing}", &["{missing}"]),
    ("-M q35 -kernel {bzimage} -initrd {folder}", &["{folder}"]),
    ("-M q35 -kernel {bzimage} -m 64M -initrd {big}", &["initrd"]),
    ("-M q35 -kernel {bzimage} -dtb {noise}", &["-dtb"]),
    ("-M q35 -dtb {noise}", &["-dtb"]),
    ("-M q35 -initrd {noise}", &["-kernel"]),
    ("-M q35 -append words", &["-kernel"]),
    // Drives
    ("-M q35 -hda {missing}", &["{missing}"]),
    ("-M q35 -hdd {missing}", &["{missing}"]),
    ("-M q35 -hda {noise} -hda {noise}", &["-hda"]),
    ("-M q35 -cdrom {missing}", &["{missing}"]),
    ("-M q35 -cdrom {folder}", &["{folder}"]),
    ("-M q35 -hdc {noise} -cdrom {bios}", &["-cdrom"]),
    ("-M q35 -fda {noise}", &["-fda"]),
    ("-M q35 -drive if=ide,index=9,format=raw,file={noise}", &["9"]),
    ("-M q35 -drive if=ide,readonly=on,format=raw,file={noise}", &["cdrom"]),
    ("-M q35 -drive if=ide,media=tape,format=raw,file={noise}", &["tape"]),
    ("-M q35 -drive if=floppy,format=raw,file={noise}", &["floppy"]),
    ("-M q35,sata=off -drive format=raw,file={noise}", &["-drive"]),
    // Devices
    ("-M q35 -device no-such-device", &["no-such-device"]),
    ("-M q35 -device virtio-rng-device", &["virtio-rng-device", "pci"]),
    ("-M q35 -device virtio-rng-pci,bus=no-such-bus", &["no-such-bus"]),
    ("-M q35 -device virtio-net-pci,netdev=no-such-netdev", &["no-such-netdev"]),
    ("-M q35 -nic user,model=no-such-model", &["no-such-model"]),
    ("-M q35 -device e1000e,netdev=no-such-netdev", &["no-such-netdev"]),
    ("-M q35 -device e1000e,no-such-property=1", &["no-such-property"]),
    ("-M q35 -netdev user,id=n -device e1000e,netdev=n,mac=zz:zz", &["mac"]),
    ("-M q35 -netdev user,id=n -device e1000e,netdev=n,addr=1f.0", &["1f.0"]),
    ("-M q35 -serial null -serial null -serial null -serial null -serial null", &["-serial", "4"]),
    ("-M q35 -netdev no-such-backend,id=n", &["no-such-backend"]),
    ("-M q35 -device nvme", &["drive"]),
    ("-M q35 -device nvme,drive=no-such-drive", &["no-such-drive"]),
    ("-M q35 -drive if=none,id=d,format=raw,file={noise} -device nvme,drive=d", &["serial"]),
    (
        "-M q35 -drive if=none,id=d,format=raw,file={noise} -device nvme,drive=d,serial=s,max_ioqpairs=0",
        &["max_ioqpairs"],
    ),
    (
        "-M q35 -drive if=none,id=d,format=raw,file={noise} -device nvme,drive=d,serial=s,logical_block_size=777",
        &["logical_block_size"],
    ),
    ("-M q35 -device ide-hd", &["drive"]),
    (
        "-M q35 -drive if=none,id=d,format=raw,file={noise} -device ide-hd,drive=d,rotation_rate=99999",
        &["rotation_rate"],
    ),
    ("-M q35 -drive if=none,id=d,format=raw,file={noise} -device ide-hd,drive=d,wwn=x", &["wwn"]),
    ("-M q35 -drive if=none,id=d,format=raw,file={noise} -device ide-hd,drive=d -device ide-hd,drive=d", &["d"]),
    ("-M q35 -device ide-cd,bus=ide.9", &["ide.9"]),
    ("-M q35 -device ide-cd,bus=no-such-bus.0", &["no-such-bus"]),
    ("-M q35 -device ide-cd,unit=1", &["unit"]),
    ("-M q35 -device ide-cd,bus=ide.0 -device ide-cd,bus=ide.0", &["ide.0"]),
    ("-M q35 -device ahci,addr=77", &["addr"]),
    ("-M q35 -device ahci,addr=1f.2", &["1f.2"]),
    ("-M q35 -device ahci,id=a -device ahci,id=a", &["a"]),
    ("-M q35 -device pcie-root-port,id=p -device ahci,bus=p,addr=1", &["slot 0", "p"]),
    ("-M q35 -device pcie-root-port,id=p -device ahci,bus=p -device ahci,bus=p", &["p"]),
    ("-M q35 -device ahci,bus=p -device pcie-root-port,id=p", &["p", "before"]),
    ("-M q35 -device pcie-root-port,id=p -device pcie-root-port,bus=p", &["pcie-root-port", "root"]),
    ("-M q35 -device pcie-root-port,slot=8192", &["slot"]),
    ("-M q35 -device pcie-root-port,chassis=256", &["chassis"]),
    ("-M q35 -device pcie-root-port,no-such-property=1", &["no-such-property"]),
    ("-M q35 -device x3130-upstream", &["x3130-upstream", "port"]),
    ("-M q35 -device xio3130-downstream", &["x3130-upstream"]),
    ("-M q35 -device pci-bridge,shpc=on", &["shpc"]),
    ("-M q35 -device pci-bridge,chassis_nr=256", &["chassis_nr"]),
    ("-M q35 -device pci-bridge,id=b -device pcie-pci-bridge,bus=b", &["pcie-pci-bridge", "Express"]),
    ("-M q35 -device edu,dma_mask=x", &["dma_mask"]),
    ("-M q35 -device intel-iommu -device intel-iommu", &["intel-iommu", "twice"]),
    ("-M q35 -device intel-iommu,aw-bits=57", &["aw-bits"]),
    ("-M q35 -device intel-iommu,intremap=off,eim=on", &["eim"]),
    ("-M q35 -device intel-iommu,x-scalable-mode=on", &["x-scalable-mode"]),
    ("-M virt -device intel-iommu", &["intel-iommu", "q35"]),
    ("-M q35 -device isa-debug-exit,iobase=0x99999", &["iobase"]),
    ("-M q35 -device isa-debug-exit,iosize=9", &["iosize"]),
    ("-M q35 -device isa-debugcon", &["chardev"]),
    ("-M q35 -device isa-debugcon,chardev=no-such-chardev", &["no-such-chardev"]),
    ("-M q35 -device pvpanic,ioport=x", &["ioport"]),
    ("-M q35 -device pc-testdev,no-such-property=1", &["no-such-property"]),
];

/// The files that the tables speak of, by name.
fn files(scratch: &Scratch, port: u16) -> Vec<(&'static str, String)> {
    let image = {
        // The header of an arm64 Image: an endless loop and the magic number.
        let mut image = vec![0; 4096];
        image[..4].copy_from_slice(&0x1400_0000_u32.to_le_bytes());
        image[16..24].copy_from_slice(&4096_u64.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        image
    };
    let elf = |machine: u8| {
        let mut elf = vec![0; 120];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16] = 2; // ET_EXEC
        elf[18] = machine;
        elf[20] = 1;
        elf[32] = 64; // e_phoff
        elf[52] = 64; // e_ehsize
        elf[54] = 56; // e_phentsize
        elf[56] = 1; // e_phnum
        elf[64] = 1; // PT_LOAD
        elf[64 + 32] = 0xff; // p_filesz: more than there is
        elf[64 + 33] = 0xff;
        elf[64 + 40] = 0xff;
        elf[64 + 41] = 0xff;
        elf[64 + 24 + 3] = 0x40; // p_paddr: the start of memory
        elf
    };
    let riscv = {
        let mut image = vec![0; 4096];
        image[56..60].copy_from_slice(b"RSC\x05");
        image
    };
    let x86 = {
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image
    };
    let cut_pe = {
        // An Image that is a PE file of one section, which ends behind the end of the file.
        let mut pe = image.clone();
        pe[..2].copy_from_slice(b"MZ");
        pe[60] = 64;
        pe[64..68].copy_from_slice(b"PE\0\0");
        pe[70] = 1; // one section, behind an empty optional header
        pe[88 + 16..88 + 20].copy_from_slice(&0x1000_u32.to_le_bytes());
        pe[88 + 20..88 + 24].copy_from_slice(&0x800_u32.to_le_bytes());
        pe
    };
    // A bzImage of protocol 2.15 with one sector of setup and one page of code.
    let bzimage = {
        let mut image = vec![0; 0x400 + 0x1000];
        image[0x1f1] = 1;
        image[0x1f4..0x1f8].copy_from_slice(&0x100_u32.to_le_bytes());
        image[0x1fe..0x206].copy_from_slice(b"\x55\xaa\xeb\x66HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x211] = 1; // loaded high
        image[0x22c..0x230].copy_from_slice(&0x37ff_ffff_u32.to_le_bytes());
        image[0x230..0x234].copy_from_slice(&0x1000_u32.to_le_bytes());
        image[0x238..0x23c].copy_from_slice(&255_u32.to_le_bytes());
        image[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
        image[0x260..0x264].copy_from_slice(&0x1000_u32.to_le_bytes());
        image
    };
    // Multiboot headers with addresses: where the header is, where loading begins and ends, the end of zeros, the entry.
    let multiboot = |words: [u32; 5]| {
        let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
        let head = [magic, flags, 0_u32.wrapping_sub(magic.wrapping_add(flags))];
        let mut image: Vec<u8> = head.iter().chain(&words).flat_map(|w| w.to_le_bytes()).collect();
        image.resize(0x200, 0xf4);
        image
    };
    // The file ends before what is to be loaded; memory ends before what is to be loaded.
    let cut_multiboot = multiboot([0x10_0000, 0x10_0000, 0x20_0000, 0x20_0000, 0x10_0020]);
    let high_multiboot = multiboot([0xf000_0000, 0xf000_0000, 0, 0xf000_1000, 0xf000_0020]);
    // A note with the PVH entry, and a segment that the file is too short for.
    let cut_pvh = {
        let mut image = elf(62);
        image[56] = 2;
        let note = 64 + 56;
        image.resize(note + 56, 0);
        image[note] = 4; // PT_NOTE
        image[note + 8] = (note + 56) as u8;
        image[note + 32] = 24;
        image[note + 40] = 24;
        image.extend([&4_u32.to_le_bytes()[..], &8_u32.to_le_bytes(), &18_u32.to_le_bytes(), b"Xen\0"].concat());
        image.extend(0x10_0000_u64.to_le_bytes());
        image
    };
    // A gzip file of which there is the header and one byte.
    let cut_gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b";
    let big = scratch.path("big");
    let file = std::fs::File::create(&big).expect("a file");
    file.set_len(200 << 20).expect("a sparse file");
    vec![
        ("{missing}", scratch.path("missing")),
        ("{folder}", scratch.path("")),
        ("{empty}", scratch.file("empty", b"")),
        ("{noise}", scratch.file("noise", &[0x5a; 5000])),
        ("{x86}", scratch.file("x86", &elf(62))),
        ("{cut_elf}", scratch.file("cut_elf", &elf(183))),
        ("{x86_image}", scratch.file("x86_image", &x86)),
        ("{riscv_image}", scratch.file("riscv_image", &riscv)),
        ("{cut_gzip}", scratch.file("cut_gzip", cut_gzip)),
        ("{cut_pe}", scratch.file("cut_pe", &cut_pe)),
        ("{cut_dtb}", scratch.file("cut_dtb", b"\xd0\x0d\xfe\xed\0\0\x10\0")),
        ("{cut}", scratch.file("cut", &image[..60])),
        ("{image}", scratch.file("image", &image)),
        ("{bzimage}", scratch.file("bzimage", &bzimage)),
        ("{cut_bzimage}", scratch.file("cut_bzimage", &bzimage[..0x300])),
        ("{cut_multiboot}", scratch.file("cut_multiboot", &cut_multiboot)),
        ("{high_multiboot}", scratch.file("high_multiboot", &high_multiboot)),
        ("{cut_pvh}", scratch.file("cut_pvh", &cut_pvh)),
        ("{bios}", scratch.file("bios", &[0xf4; 0x1_0000])),
        ("{big}", big),
        ("{port}", port.to_string()),
    ]
}

fn fill(text: &str, files: &[(&str, String)]) -> String {
    files.iter().fold(text.to_owned(), |text, (name, path)| text.replace(name, path))
}

#[test]
fn bad_input_is_refused_with_one_line() {
    check_refusals(REFUSED);
}

#[test]
fn bad_input_for_a_pc_is_refused_with_one_line() {
    check_refusals(REFUSED_Q35);
}

fn check_refusals(table: &[(&str, &[&str])]) {
    require!();
    let scratch = Scratch::new();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let files = files(&scratch, taken.local_addr().expect("an address").port());
    assert!(table.len() >= 40);
    let mut wrong = Vec::new();
    for (args, names) in table {
        let mut words: Vec<String> = args.split(' ').map(|word| fill(word, &files)).collect();
        // An option that lacks its value has to stay the last.
        if (args.contains("-M virt ") || args.contains("-M q35"))
            && !args.ends_with("-kernel")
            && !args.ends_with("-append")
        {
            words.extend(["-S", "-display", "none", "-serial", "none", "-monitor", "none"].map(String::from));
            if args.contains("-serial") || args.contains("-monitor") || args.contains("-display") {
                words.truncate(words.len() - 6);
            }
        }
        let ended = match std::panic::catch_unwind(|| run(&words, SHORT)) {
            Ok(ended) => ended,
            Err(_) => {
                wrong.push(format!("{args}: accepted; still running"));
                continue;
            }
        };
        let stderr = ended.stderr.trim_end();
        let mut complaints = Vec::new();
        if ended.status.code() != Some(1) {
            complaints.push(format!("{} instead of exit status 1", ended.status));
        }
        if stderr.contains("os error") {
            complaints.push("a number of an error of the host".to_owned());
        }
        // A warning before the error is a line of its own.
        let lines = stderr.lines().filter(|l| !l.starts_with("rhea: warning: ")).count();
        if lines != 1 && !is_qemu() {
            complaints.push(format!("{lines} lines on standard error"));
        }
        for name in *names {
            let name = fill(name, &files);
            if !stderr.contains(&name) {
                complaints.push(format!("nothing about '{name}'"));
            }
        }
        if stderr.contains("panicked") {
            complaints.push("a panic".to_owned());
        }
        if !complaints.is_empty() {
            wrong.push(format!("{args}: {}\n    {stderr}", complaints.join(", ")));
        }
    }
    if is_qemu() {
        // Its lines differ; the table is about Rhea's.
        eprintln!("{} of {} differ:\n{}", wrong.len(), table.len(), wrong.join("\n"));
        return;
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// Whatever the words are, they end in help, or in a refusal without a crash.
fn check_end(words: &[String], ended: &Run) -> Result<(), String> {
    let stderr = ended.stderr.trim_end();
    let why = match ended.status.code() {
        _ if stderr.contains("panicked") => "a panic",
        None => "killed by a signal",
        Some(0) if ended.stdout.is_empty() && !stderr.contains("dtb dumped") => "success without any output",
        Some(0) => return Ok(()),
        Some(1) if stderr.is_empty() => "a failure without a word",
        // There may be warnings before the error.
        Some(1) if stderr.lines().count() > 4 => "many lines",
        Some(1) => return Ok(()),
        Some(_) => "an unknown exit status",
    };
    Err(format!("{}: {why}\n    {stderr}", words.join(" ")))
}

/// Values, good and bad, of the kinds that options take.
const VALUES: &[&str] = &[
    "q35",
    "q35,smm=off,sata=off",
    "q35,hpet=off,i8042=off,acpi=off",
    "Skylake-Server,+avx2,-sse4.2",
    "EPYC,vendor=GenuineIntel,phys-bits=40",
    "if=ide,index=1,format=raw,file={noise}",
    "if=ide,media=cdrom,file={noise}",
    "if=pflash,format=raw,file={bios}",
    "if=pflash,unit=1,format=raw,file={bios}",
    "ide-hd,drive=d,bus=ide.3",
    "ide-cd,bus=h.1",
    "ahci,id=h,addr=1d.7",
    "nvme,drive=d,serial=s,max_ioqpairs=2",
    "VGA,vgamem_mb=8,edid=off",
    "bochs-display,xres=640",
    "secondary-vga",
    "isa-debugcon,chardev=c,iobase=0x402",
    "isa-debug-exit,iobase=0xf4,iosize=4",
    "pvpanic,ioport=0x505",
    "pc-testdev",
    "order=dc,once=n,menu=on,splash-time=5",
    "type=1,manufacturer=a,uuid=00000000-0000-0000-0000-000000000001",
    "type=0,release=1.2",
    "opt/x,string=y",
    "VGA.vgamem_mb=32",
    "std",
    ":0,to=9",
    "",
    ",",
    "=",
    "virt",
    "max",
    "user",
    "stdio",
    "null",
    "none",
    "on",
    "off",
    "0",
    "1",
    "-1",
    "8",
    "1G",
    "4096",
    "18446744073709551616",
    "99999999999999999999999",
    "0x10",
    "é\u{1}",
    "%s%n",
    "../..",
    "a,b",
    "a=b",
    "a,,b",
    ",,,",
    "id=x",
    "help",
    "cortex-a72",
    "neoverse-n1,pmu=off",
    "max,pauth-impdef=on",
    "virt,gic-version=3",
    "virt,gic-version=2,secure=on",
    "virt,highmem=off",
    "cpus=2,cores=2",
    "cpus=4,sockets=2,cores=1",
    "2",
    "if=none,id=d,format=raw,file={noise}",
    "if=virtio,format=raw,file={noise}",
    "if=none,id=e,format=raw,file={missing}",
    "virtio-blk-pci,drive=d",
    "virtio-blk-device,drive=d,num-queues=3",
    "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56",
    "virtio-rng-pci,addr=3.0",
    "virtio-serial-pci,id=s",
    "virtconsole,chardev=c,bus=s.0",
    "virtio-balloon-device",
    "user,id=n",
    "user,id=n,net=10.1.0.0/16,dhcpstart=10.1.0.9",
    "user,id=n,hostfwd=tcp:127.0.0.1:0-:80",
    "null,id=c",
    "file,id=c,path=chardev-output",
    "pty,id=c",
    "file:serial-output",
    "chardev:c",
    "mon:stdio",
    "base=utc,clock=vm",
    "base=2020-02-30",
    "guest_errors,unimp",
    "memory-backend-ram,id=m,size=64M",
    "rng-random,id=r,filename=/dev/urandom",
];

#[test]
fn random_command_lines_end_well() {
    check_random(&[], 31);
}

#[test]
fn random_command_lines_of_a_pc_end_well() {
    // Firmware that is not there, so that no machine starts.
    check_random(&["-M", "q35", "-bios", "no-such-firmware"], 33);
}

fn check_random(first: &[&str], seed: u64) {
    require!();
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let files = files(&scratch, 1);
    // Nothing to boot, so that no machine starts; nothing that waits or takes all of the host's memory.
    const LEFT_OUT: &[&str] = &["-S", "-s", "-gdb", "-bios", "-kernel", "-mem-prealloc", "-pidfile", "-D", "-vnc"];
    let help = run(&["-help"], SHORT).stdout;
    let options: Vec<&str> = help
        .lines()
        .filter(|l| l.starts_with('-'))
        .flat_map(|l| l.split(' ').filter(|w| w.starts_with('-')))
        .filter(|o| !LEFT_OUT.contains(o))
        .collect();
    assert!(options.len() > 20, "{help}");
    let mut random = Random::new(seed);
    let mut wrong = Vec::new();
    for _ in 0..300 {
        let mut words: Vec<String> =
            ["-nodefaults", "-display", "none"].iter().chain(first).map(|w| (*w).into()).collect();
        for _ in 0..random.below(9) {
            words.push((*random.pick(&options)).to_owned());
            if random.once_in(8) {
                continue;
            }
            let mut value = fill(random.pick::<&str>(VALUES), &files);
            if random.once_in(4) {
                // One character lost, doubled or changed.
                let at = random.below(value.chars().count() as u64 + 1) as usize;
                let change = random.below(3);
                let changed = |(i, c): (usize, char)| match (i == at, change) {
                    (false, _) => vec![c],
                    (true, 0) => vec![],
                    (true, 1) => vec![c, c],
                    (true, _) => vec![char::from(33 + (i * 7 % 90) as u8)],
                };
                value = value.chars().enumerate().flat_map(changed).collect();
            }
            if random.once_in(6) {
                value = format!("{value},{}", random.pick(VALUES));
            }
            words.push(value);
        }
        let mut command = std::process::Command::new(emulator_binary());
        command.args(&words).current_dir(scratch.path(""));
        let ended = rhea_tests::run_command(command, SHORT);
        wrong.extend(check_end(&words, &ended).err());
    }
    assert!(wrong.is_empty(), "{} command lines:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn damaged_device_trees_end_well() {
    require!();
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let good = scratch.path("good.dtb");
    let dump = |to: &str| format!("virt,dumpdtb={to}");
    let ended = run(&["-M", &dump(&good)], SHORT);
    assert!(ended.status.success(), "{}", ended.stderr);
    let good = std::fs::read(good).expect("the tree");
    let (out, damaged) = (scratch.path("out.dtb"), scratch.path("damaged.dtb"));
    let mut random = Random::new(32);
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for _ in 0..100 {
        let mut blob = good.clone();
        for _ in 0..random.below(6) {
            // Most of the blob is free space; damage what comes before.
            let at = (random.below(0x1800) as usize).min(blob.len() - 4) & !3;
            let word = *random.pick(&[0_u32, 1, 2, 3, 4, 9, 0xffff, 0x7fff_ffff, u32::MAX]);
            let at = if random.once_in(3) { random.below(10) as usize * 4 } else { at };
            blob[at..at + 4].copy_from_slice(&word.to_be_bytes());
            if random.once_in(10) {
                blob.truncate(at.max(44));
            }
        }
        std::fs::write(&damaged, &blob).expect("a file");
        let words = ["-M", &dump(&out), "-dtb", &damaged].map(String::from);
        let ended = run(&words, SHORT);
        refused += usize::from(!ended.status.success());
        wrong.extend(check_end(&words, &ended).err());
    }
    assert!(wrong.is_empty(), "{} device trees:\n{}", wrong.len(), wrong.join("\n"));
    assert!((10..100).contains(&refused), "{refused} of 100 refused");
}

#[test]
fn help_is_listed() {
    require!();
    for (args, words) in [
        (&["-version"][..], &["version"][..]),
        (&["-help"], &["-kernel", "-append", "-device", "-netdev", "-drive"]),
        (&["-h"], &["-kernel"]),
        (&["-M", "help"], &["virt", "q35"]),
        (&["-M", "q35,help"], &["smm", "hpet", "sata", "pflash0"]),
        (&["-M", "q35", "-cpu", "help"], &["qemu64", "Haswell", "Skylake-Server", "EPYC-Rome", "max"]),
        (&["-M", "q35", "-device", "help"], &["nvme", "ide-hd", "ide-cd", "ahci", "VGA", "isa-debug-exit", "pvpanic"]),
        (&["-device", "nvme,help"], &["serial", "max_ioqpairs"]),
        (&["-vga", "help"], &["std"]),
        (&["-vnc", "help"], &["share"]),
        (&["-machine", "help"], &["virt"]),
        (&["-M", "virt,help"], &["gic-version"]),
        (&["-M", "virt", "-cpu", "help"], &["cortex-a53", "cortex-a72", "neoverse-n1", "max"]),
        (&["-accel", "help"], &[]),
        (&["-M", "virt", "-device", "help"], &["virtio-blk-pci", "virtio-net-device", "virtio-rng-pci"]),
        (&["-M", "virt", "-device", "virtio-blk-pci,help"], &["drive", "num-queues"]),
        (&["-M", "virt", "-netdev", "help"], &["user"]),
        (&["-M", "virt", "-chardev", "help"], &["stdio", "socket", "file"]),
        (&["-d", "help"], &["guest_errors"]),
    ] {
        let ended = run(args, SHORT);
        assert!(ended.status.success() || is_qemu(), "{args:?}: {} {}", ended.status, ended.stderr);
        for word in words {
            assert!(ended.stdout.contains(word), "{args:?} lacks {word}:\n{}", ended.stdout);
        }
    }
}

#[test]
fn called_by_the_name_of_qemu() {
    require!("kernel");
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let link = scratch.path("qemu-system-aarch64");
    let target = std::fs::canonicalize(rhea_tests::emulator_binary()).expect("the binary");
    std::os::unix::fs::symlink(target, &link).expect("a link");
    let output = std::process::Command::new(&link).arg("-version").output().expect("it starts");
    assert!(output.status.success());
    let output = std::process::Command::new(&link)
        .args(["-M", "virt", "-cpu", "no-such-cpu", "-kernel", &guest_file("kernel")])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn called_by_the_name_of_qemu_for_a_pc() {
    require!();
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let target = std::fs::canonicalize(emulator_binary()).expect("the binary");
    let start = |name: &str, args: &[&str]| {
        let link = scratch.path(name);
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        let mut command = std::process::Command::new(&link);
        command.args(args);
        rhea_tests::run_command(command, SHORT)
    };
    // Without -M it is a PC, whose processors have other names.
    let ended = start("qemu-system-x86_64", &["-cpu", "help"]);
    assert!(ended.status.success() && ended.stdout.contains("Haswell"), "{}{}", ended.stdout, ended.stderr);
    let ended = start("qemu-system-riscv64", &["-S"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("riscv64") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
}

/// A guest whose firmware or kernel is damaged may do anything, but the emulator keeps running, or ends with a line.
#[test]
fn damaged_firmware_and_kernels_of_a_pc_end_well() {
    require!();
    if is_qemu() {
        eprintln!("skipped: runs with Rhea only");
        return;
    }
    let scratch = Scratch::new();
    let made = files(&scratch, 1);
    let mut sources: Vec<(String, Vec<u8>)> = Vec::new();
    for (option, path) in [
        ("-kernel", guest_file("amd64/kernel")),
        ("-kernel", fill("{bzimage}", &made)),
        ("-kernel", fill("{cut_multiboot}", &made)),
        ("-kernel", fill("{cut_pvh}", &made)),
        ("-bios", guest_file("amd64/bios-256k.bin")),
        ("pflash", guest_file("amd64/ovmf-code.fd")),
    ] {
        // What tests/run makes may be missing.
        sources.extend(std::fs::read(&path).ok().map(|data| (option.to_owned(), data)));
    }
    let mut random = Random::new(34);
    let (mut wrong, damaged) = (Vec::new(), scratch.path("damaged"));
    for n in 0..sources.len() * 5 {
        let (option, mut data) = sources[n % sources.len()].clone();
        for _ in 0..1 + random.below(12) {
            // The headers are at the start; firmware starts at its end.
            let at = match random.below(3) {
                0 => 0x1f0 + random.below(0x90),
                1 => random.below(0x100),
                _ => (data.len() as u64 - 1).saturating_sub(random.below(0x1000)),
            };
            let at = (at as usize).min(data.len() - 4);
            data[at..at + 4].copy_from_slice(&(random.edge() as u32).to_le_bytes());
        }
        if option == "-kernel" && random.once_in(3) {
            data.truncate(random.below(data.len() as u64) as usize);
        }
        std::fs::write(&damaged, &data).expect("a file");
        let drive = format!("if=pflash,format=raw,snapshot=on,file={damaged}");
        let (option, value) = if option == "pflash" { ("-drive", &drive) } else { (option.as_str(), &damaged) };
        let words = ["-M", "q35", "-m", "256M", option, value, "-no-reboot", "-display", "none", "-serial", "null"];
        let mut command = std::process::Command::new(emulator_binary());
        command.args(words).args(["-monitor", "none"]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(700));
        let running = child.try_wait().expect("a child").is_none();
        let _ = child.kill();
        let output = child.wait_with_output().expect("its end");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let good = running || matches!(output.status.code(), Some(0 | 1));
        if !good || stderr.contains("panicked") || stderr.lines().count() > 4 {
            wrong.push(format!("{words:?}, file {n}: {}\n    {stderr}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{} files:\n{}", wrong.len(), wrong.join("\n"));
}
