//! What is put into memory before the CPUs start: kernel, initrd, device tree, boot stub.

use super::cpu::Start;
use super::fdt;
use super::map::Map;
use crate::config::MachineConfig;
use crate::files::{at, read};
use crate::options::VirtOptions;
use rhea_device::OptionError;
use rhea_firmware::fw_cfg::key;
use rhea_firmware::{BootPlan, FdtNode, FwCfg, Kernel, KernelKind, LayoutError, PlanInput};
use rhea_memory::{AddressSpace, BusError, Gpa, RamBlock};
use std::path::Path;
use std::sync::Arc;

/// The files of a direct kernel start, or none, and the tree.
pub struct Images {
    tree: FdtNode,
    randomize: bool,
    boot: Option<(Kernel, Vec<u8>, BootPlan)>,
    ram_base: u64,
}

/// Random bytes for the seeds of the tree.
#[must_use]
pub fn seed() -> [u8; 40] {
    use std::io::Read;
    let mut bytes = [0; 40];
    // Without the host's source the guest has no seed but its own: zeros tell it nothing.
    if std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).is_err() {
        bytes = [0; 40];
    }
    bytes
}

/// The tree the user gave instead of the board's own, with the board's memory in it.
///
/// # Errors
/// [`OptionError`].
pub fn user_tree(path: &Path, map: &Map) -> Result<FdtNode, OptionError> {
    let mut tree = FdtNode::parse(&read("-dtb", path)?).map_err(|e| OptionError::new("-dtb", at(path, e)))?;
    tree.children.retain(|c| c.name != "memory" && !c.name.starts_with("memory@"));
    let memory = tree.child(format!("memory@{:x}", map.ram.start));
    memory.string("device_type", "memory").u64s("reg", &[map.ram.start, map.ram.len]);
    Ok(tree)
}

impl Images {
    /// Reads the files; `firmware`: the flash holds firmware, which gets kernel and initrd through `fw_cfg`.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn new(
        config: &MachineConfig,
        options: &VirtOptions,
        tree: FdtNode,
        map: &Map,
        firmware: bool,
        fw_cfg: &FwCfg,
    ) -> Result<Self, OptionError> {
        let mut images = Self {
            tree,
            randomize: config.dtb.is_none() && options.dtb_randomness,
            boot: None,
            ram_base: map.ram.start,
        };
        let append = config.append.as_deref();
        let Some(path) = &config.kernel else {
            fdt::add_boot(&mut images.tree, append, None);
            return Ok(images);
        };
        let initrd = config.initrd.as_deref().map(|p| read("-initrd", p)).transpose()?.unwrap_or_default();
        if firmware {
            let kernel = read("-kernel", path)?;
            fw_cfg.add_u32(key::KERNEL_SIZE, kernel.len() as u32);
            fw_cfg.add(key::KERNEL_DATA, kernel);
            fw_cfg.add_u32(key::INITRD_SIZE, initrd.len() as u32);
            fw_cfg.add(key::INITRD_DATA, initrd);
            let mut text = append.unwrap_or("").as_bytes().to_vec();
            text.push(0);
            fw_cfg.add_u32(key::CMDLINE_SIZE, text.len() as u32);
            fw_cfg.add(key::CMDLINE_DATA, text);
            return Ok(images);
        }
        let kernel = Kernel::load(path).map_err(|e| OptionError::new("-kernel", at(path, e)))?;
        // Room for the addresses of the initrd, which are not known yet.
        fdt::add_boot(&mut images.tree, append, (!initrd.is_empty()).then_some((0, 0)));
        let dtb_len = images.blob()?.len() as u64 + 4096;
        let input = PlanInput {
            ram_base: map.ram.start,
            ram_size: map.ram.len,
            kernel: &kernel,
            initrd_len: initrd.len() as u64,
            dtb_len,
        };
        let plan = BootPlan::new(&input).map_err(|e| {
            let option = match e {
                LayoutError::Kernel { .. } => "-kernel",
                LayoutError::Initrd { .. } => "-initrd",
                LayoutError::Dtb { .. } => "-dtb",
            };
            OptionError::new(option, e.to_string())
        })?;
        if !initrd.is_empty() {
            fdt::add_boot(&mut images.tree, None, Some((plan.initrd, plan.initrd + initrd.len() as u64)));
        }
        images.boot = Some((kernel, initrd, plan));
        Ok(images)
    }

    fn blob(&self) -> Result<Vec<u8>, OptionError> {
        self.tree.to_blob().map_err(|e| OptionError::new("-dtb", e.to_string()))
    }

    /// How the boot CPU starts.
    #[must_use]
    pub fn start(&self) -> Start {
        match &self.boot {
            Some((Kernel { kind: KernelKind::LinuxImage { .. }, .. }, _, plan)) => Start::Boot(plan.stub),
            Some((_, _, plan)) => Start::Bare(plan.stub),
            None => Start::Reset,
        }
    }

    /// Writes everything into memory; done before each start of the machine.
    pub fn load(&mut self, space: &AddressSpace, ram: &Arc<RamBlock>) {
        if self.randomize {
            let seed = seed();
            self.tree.child_mut("chosen").set("rng-seed", seed[..32].to_vec()).set("kaslr-seed", seed[32..].to_vec());
        }
        // The tree was written once before: it can be written.
        let blob = self.tree.to_blob().unwrap_or_default();
        let put = |address: u64, data: &[u8]| space.write_rom(Gpa(address), data);
        let all = || -> Result<(), BusError> {
            let Some((kernel, initrd, plan)) = &self.boot else {
                return put(self.ram_base, &blob);
            };
            for segment in &kernel.segments {
                let start = segment.address + plan.kernel_offset;
                put(start, &segment.data)?;
                let data = segment.data.len() as u64;
                if kernel.kind == KernelKind::Elf && segment.size > data {
                    ram.fill(start + data - self.ram_base, segment.size - data, 0)?;
                }
            }
            put(plan.initrd, initrd)?;
            put(plan.dtb, &blob)?;
            put(plan.stub, &plan.stub_code())
        };
        if all().is_err() {
            // The plan placed everything inside RAM.
            eprintln!("rhea: the kernel could not be loaded into memory");
        }
    }
}
