//! Where kernel, initrd and device tree go in memory, and the stub that starts the kernel
//! (Linux, Documentation/arch/arm64/booting.rst).

use crate::kernel::{Kernel, KernelKind};
use thiserror::Error;

/// The RAM and the files to place in it.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    pub ram_base: u64,
    pub ram_size: u64,
    pub kernel: &'a Kernel,
    /// Length of the initrd, 0 for none.
    pub initrd_len: u64,
    /// Length of the device tree blob (an upper bound).
    pub dtb_len: u64,
}

/// Addresses of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    /// First instruction of the boot stub: where each CPU that boots starts.
    pub stub: u64,
    /// Added to each segment's address.
    pub kernel_offset: u64,
    pub entry: u64,
    pub initrd: u64,
    pub dtb: u64,
}

/// Why it does not fit. Messages complete "-kernel: ..." or "-initrd: ...".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    #[error(
        "the kernel needs the memory from {start:#x} to {end:#x}, the machine has {ram_base:#x} to {ram_end:#x}: use a larger -m"
    )]
    Kernel { start: u64, end: u64, ram_base: u64, ram_end: u64 },
    #[error("the initrd ({len} bytes) does not fit in memory behind the kernel: use a larger -m")]
    Initrd { len: u64 },
    #[error("the device tree ({len} bytes) does not fit in memory: use a larger -m")]
    Dtb { len: u64 },
}

const MIB: u64 = 1 << 20;
/// The stub lives at the very start of RAM.
const STUB_LEN: u64 = 0x1000;

impl BootPlan {
    /// Places everything.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn new(input: &PlanInput<'_>) -> Result<Self, LayoutError> {
        let ram_end = input.ram_base.saturating_add(input.ram_size);
        let too_big = |start, end| LayoutError::Kernel { start, end, ram_base: input.ram_base, ram_end };
        let (kernel_offset, entry, low, high) = match input.kernel.kind {
            KernelKind::LinuxImage { text_offset, image_size } => {
                // 2 MiB up, so that the stub has the start of RAM.
                let start = input.ram_base + 2 * MIB + text_offset;
                (start, start + input.kernel.entry, start, start + image_size)
            }
            KernelKind::Elf => {
                let low = input.kernel.segments.iter().map(|s| s.address).min().unwrap_or(0);
                let high = input.kernel.segments.iter().map(|s| s.address + s.size).max().unwrap_or(0);
                (0, input.kernel.entry, low, high)
            }
        };
        if low < input.ram_base || high > ram_end {
            return Err(too_big(low, high));
        }
        let overlaps = |start: u64, len: u64| start < high && low < start + len;
        // An ELF file linked to the start of RAM pushes the stub behind it.
        let stub = if overlaps(input.ram_base, STUB_LEN) { high.next_multiple_of(STUB_LEN) } else { input.ram_base };
        // Like everyone: the initrd half-way up, at most 128 MiB, and behind the kernel.
        let behind = high.max(stub + STUB_LEN).max(input.ram_base + (input.ram_size / 2).min(128 * MIB));
        let initrd = behind.next_multiple_of(4096);
        if initrd + input.initrd_len > ram_end {
            return Err(LayoutError::Initrd { len: input.initrd_len });
        }
        // The blob must not cross a 2 MiB boundary more than its own size makes it: start it at one.
        let dtb = (initrd + input.initrd_len).next_multiple_of(2 * MIB);
        if dtb + input.dtb_len > ram_end {
            return Err(LayoutError::Dtb { len: input.dtb_len });
        }
        Ok(Self { stub, kernel_offset, entry, initrd, dtb })
    }

    /// The stub: x0 = device tree, x1 to x3 = 0, jump to the kernel.
    #[must_use]
    pub fn stub_code(&self) -> Vec<u8> {
        let code: [u32; 6] = [
            0x5800_00c0, // ldr x0, dtb (24 bytes on)
            0xaa1f_03e1, // mov x1, xzr
            0xaa1f_03e2, // mov x2, xzr
            0xaa1f_03e3, // mov x3, xzr
            0x5800_0084, // ldr x4, entry (16 bytes on)
            0xd61f_0080, // br x4
        ];
        let mut bytes: Vec<u8> = code.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.extend_from_slice(&self.dtb.to_le_bytes());
        bytes.extend_from_slice(&self.entry.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::image;

    fn plan(ram_mib: u64, initrd_len: u64) -> Result<BootPlan, LayoutError> {
        let kernel = Kernel::parse(&image(0x10_0000, 40 * MIB)).unwrap();
        BootPlan::new(&PlanInput {
            ram_base: 1 << 30,
            ram_size: ram_mib * MIB,
            kernel: &kernel,
            initrd_len,
            dtb_len: 0x1_0000,
        })
    }

    #[test]
    fn layout() {
        let p = plan(1024, 30 * MIB).unwrap();
        assert_eq!((p.stub, p.entry, p.initrd), (1 << 30, (1 << 30) + 2 * MIB, (1 << 30) + 128 * MIB));
        assert_eq!(p.dtb, (1 << 30) + 158 * MIB);
        let p = plan(64, 2 * MIB).unwrap();
        assert_eq!(p.initrd, (1 << 30) + 42 * MIB);
        assert!(matches!(plan(32, 0), Err(LayoutError::Kernel { .. })));
        assert!(matches!(plan(64, 30 * MIB), Err(LayoutError::Initrd { .. })));
        assert!(matches!(plan(64, 22 * MIB), Err(LayoutError::Dtb { .. })));
        let code = p.stub_code();
        assert_eq!(code.len(), 40);
        assert_eq!(&code[24..32], &p.dtb.to_le_bytes());
    }
}
