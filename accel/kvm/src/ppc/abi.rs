//! The kernel's interface as it is on ppc64 (`linux/kvm.h`, `asm/kvm.h`; Documentation/virt/kvm/api.rst and devices/xics.rst,
//! devices/xive.rst): what this program uses of it. `kvm-bindings` has nothing for this architecture.
//! What all architectures have in common is in [`crate::host`].

use crate::host::KVMIO;
use libc::{_IO, _IOR, _IOW, _IOWR, Ioctl};

// Capabilities.
pub const KVM_CAP_USER_MEMORY: u32 = 3;
pub const KVM_CAP_SET_GUEST_DEBUG: u32 = 23;
pub const KVM_CAP_PPC_UNSET_IRQ: u32 = 53;
pub const KVM_CAP_ENABLE_CAP: u32 = 54;
pub const KVM_CAP_PPC_IRQ_LEVEL: u32 = 58;
pub const KVM_CAP_PPC_SMT: u32 = 64;
pub const KVM_CAP_PPC_PAPR: u32 = 68;
pub const KVM_CAP_ONE_REG: u32 = 70;
pub const KVM_CAP_PPC_GET_SMMU_INFO: u32 = 78;
pub const KVM_CAP_PPC_ALLOC_HTAB: u32 = 80;
pub const KVM_CAP_PPC_HTAB_FD: u32 = 84;
pub const KVM_CAP_DEVICE_CTRL: u32 = 89;
pub const KVM_CAP_PPC_RTAS: u32 = 91;
pub const KVM_CAP_IRQ_XICS: u32 = 92;
pub const KVM_CAP_SPAPR_MULTITCE: u32 = 94;
pub const KVM_CAP_ENABLE_CAP_VM: u32 = 98;
pub const KVM_CAP_PPC_ENABLE_HCALL: u32 = 104;
pub const KVM_CAP_PPC_HWRNG: u32 = 115;
pub const KVM_CAP_SPAPR_TCE_64: u32 = 125;
pub const KVM_CAP_MAX_VCPU_ID: u32 = 128;
pub const KVM_CAP_SPAPR_RESIZE_HPT: u32 = 133;
pub const KVM_CAP_PPC_MMU_RADIX: u32 = 134;
pub const KVM_CAP_PPC_MMU_HASH_V3: u32 = 135;
pub const KVM_CAP_IMMEDIATE_EXIT: u32 = 136;
pub const KVM_CAP_PPC_FWNMI: u32 = 146;
pub const KVM_CAP_PPC_SMT_POSSIBLE: u32 = 147;
pub const KVM_CAP_PPC_GET_CPU_CHAR: u32 = 151;
pub const KVM_CAP_PPC_IRQ_XIVE: u32 = 169;
pub const KVM_CAP_PPC_GUEST_DEBUG_SSTEP: u32 = 176;
pub const KVM_CAP_PPC_DAWR1: u32 = 194;
pub const KVM_CAP_PPC_RPT_INVALIDATE: u32 = 202;
pub const KVM_CAP_PPC_AIL_MODE_3: u32 = 210;

/// The kind of VM: the hardware's hypervisor state.
pub const KVM_VM_PPC_HV: u64 = 1;

// Reasons of exits.
pub const KVM_EXIT_DEBUG: u32 = 4;
pub const KVM_EXIT_MMIO: u32 = 6;
pub const KVM_EXIT_FAIL_ENTRY: u32 = 9;
pub const KVM_EXIT_INTR: u32 = 10;
pub const KVM_EXIT_NMI: u32 = 16;
pub const KVM_EXIT_INTERNAL_ERROR: u32 = 17;
pub const KVM_EXIT_PAPR_HCALL: u32 = 19;
pub const KVM_EXIT_SYSTEM_EVENT: u32 = 24;

pub const KVM_SYSTEM_EVENT_SHUTDOWN: u32 = 1;
pub const KVM_SYSTEM_EVENT_RESET: u32 = 2;

// In `kvm_run::flags` of KVM_EXIT_NMI: what became of a machine check.
pub const KVM_RUN_PPC_NMI_DISP_MASK: u16 = 3;
pub const KVM_RUN_PPC_NMI_DISP_FULLY_RECOV: u16 = 1;

// Levels of the external interrupt.
pub const KVM_INTERRUPT_UNSET: u32 = -2i32 as u32;
pub const KVM_INTERRUPT_SET_LEVEL: u32 = -3i32 as u32;

pub const KVM_PPC_MMUV3_RADIX: u64 = 1;
pub const KVM_PPC_MMUV3_GTSE: u64 = 2;

// Debug control.
pub const KVM_GUESTDBG_ENABLE: u32 = 1;
pub const KVM_GUESTDBG_USE_SW_BP: u32 = 0x1_0000;

// Devices.
pub const KVM_DEV_TYPE_XICS: u32 = 3;
pub const KVM_DEV_TYPE_XIVE: u32 = 9;
pub const KVM_CREATE_DEVICE_TEST: u32 = 1;

pub const KVM_DEV_XICS_GRP_SOURCES: u32 = 1;
pub const KVM_DEV_XICS_GRP_CTRL: u32 = 2;
pub const KVM_DEV_XICS_NR_SERVERS: u64 = 1;
pub const KVM_XICS_PRIORITY_SHIFT: u32 = 32;
pub const KVM_XICS_LEVEL_SENSITIVE: u64 = 1 << 40;
pub const KVM_XICS_MASKED: u64 = 1 << 41;
pub const KVM_XICS_PENDING: u64 = 1 << 42;
pub const KVM_XICS_PRESENTED: u64 = 1 << 43;
pub const KVM_XICS_QUEUED: u64 = 1 << 44;

pub const KVM_DEV_XIVE_GRP_CTRL: u32 = 1;
pub const KVM_DEV_XIVE_RESET: u64 = 1;
pub const KVM_DEV_XIVE_EQ_SYNC: u64 = 2;
pub const KVM_DEV_XIVE_NR_SERVERS: u64 = 3;
pub const KVM_DEV_XIVE_GRP_SOURCE: u32 = 2;
pub const KVM_DEV_XIVE_GRP_SOURCE_CONFIG: u32 = 3;
pub const KVM_DEV_XIVE_GRP_EQ_CONFIG: u32 = 4;
pub const KVM_DEV_XIVE_GRP_SOURCE_SYNC: u32 = 5;
pub const KVM_XIVE_LEVEL_SENSITIVE: u64 = 1;
pub const KVM_XIVE_LEVEL_ASSERTED: u64 = 2;
pub const KVM_XIVE_SOURCE_SERVER_SHIFT: u32 = 3;
pub const KVM_XIVE_SOURCE_MASKED: u64 = 1 << 32;
pub const KVM_XIVE_SOURCE_EISN_SHIFT: u32 = 33;
pub const KVM_XIVE_EQ_SERVER_SHIFT: u32 = 3;
pub const KVM_XIVE_EQ_ALWAYS_NOTIFY: u32 = 1;
/// Where in the device's file its pages are: numbers of pages of the host.
pub const KVM_XIVE_TIMA_PAGE_OFFSET: u64 = 0;
pub const KVM_XIVE_ESB_PAGE_OFFSET: u64 = 4;

// Numbers of registers: architecture, size, number.
const KVM_REG_PPC: u64 = 0x1000_0000_0000_0000;
const U32: u64 = KVM_REG_PPC | 0x0020_0000_0000_0000;
const U64: u64 = KVM_REG_PPC | 0x0030_0000_0000_0000;
const U128: u64 = KVM_REG_PPC | 0x0040_0000_0000_0000;

pub const KVM_REG_PPC_DSCR: u64 = U64 | 0x9;
pub const KVM_REG_PPC_PURR: u64 = U64 | 0xa;
pub const KVM_REG_PPC_SPURR: u64 = U64 | 0xb;
pub const KVM_REG_PPC_DAR: u64 = U64 | 0xc;
pub const KVM_REG_PPC_DSISR: u64 = U32 | 0xd;
pub const KVM_REG_PPC_AMR: u64 = U64 | 0xe;
pub const KVM_REG_PPC_UAMOR: u64 = U64 | 0xf;
pub const KVM_REG_PPC_MMCR0: u64 = U64 | 0x10;
pub const KVM_REG_PPC_MMCR1: u64 = U64 | 0x11;
pub const KVM_REG_PPC_MMCRA: u64 = U64 | 0x12;
pub const KVM_REG_PPC_MMCR2: u64 = U64 | 0x13;
pub const KVM_REG_PPC_SIAR: u64 = U64 | 0x15;
pub const KVM_REG_PPC_SDAR: u64 = U64 | 0x16;
pub const KVM_REG_PPC_SIER: u64 = U64 | 0x17;
pub const KVM_REG_PPC_PMC1: u64 = U32 | 0x18;
pub const KVM_REG_PPC_FPR0: u64 = U64 | 0x20;
pub const KVM_REG_PPC_VR0: u64 = U128 | 0x40;
pub const KVM_REG_PPC_VSR0: u64 = U128 | 0x60;
pub const KVM_REG_PPC_FPSCR: u64 = U64 | 0x80;
pub const KVM_REG_PPC_VSCR: u64 = U32 | 0x81;
pub const KVM_REG_PPC_VPA_ADDR: u64 = U64 | 0x82;
pub const KVM_REG_PPC_VPA_SLB: u64 = U128 | 0x83;
pub const KVM_REG_PPC_VPA_DTL: u64 = U128 | 0x84;
pub const KVM_REG_PPC_DEBUG_INST: u64 = U32 | 0x8b;
pub const KVM_REG_PPC_ICP_STATE: u64 = U64 | 0x8c;
pub const KVM_REG_PPC_TB_OFFSET: u64 = U64 | 0x9c;
pub const KVM_REG_PPC_IAMR: u64 = U64 | 0x9f;
pub const KVM_REG_PPC_FSCR: u64 = U64 | 0xa3;
pub const KVM_REG_PPC_PSPB: u64 = U32 | 0xa4;
pub const KVM_REG_PPC_EBBHR: u64 = U64 | 0xa5;
pub const KVM_REG_PPC_EBBRR: u64 = U64 | 0xa6;
pub const KVM_REG_PPC_BESCR: u64 = U64 | 0xa7;
pub const KVM_REG_PPC_TAR: u64 = U64 | 0xa8;
pub const KVM_REG_PPC_DAWR: u64 = U64 | 0xaa;
pub const KVM_REG_PPC_DAWRX: u64 = U64 | 0xab;
pub const KVM_REG_PPC_CIABR: u64 = U64 | 0xac;
pub const KVM_REG_PPC_IC: u64 = U64 | 0xad;
pub const KVM_REG_PPC_VTB: u64 = U64 | 0xae;
pub const KVM_REG_PPC_PID: u64 = U64 | 0xb2;
pub const KVM_REG_PPC_VRSAVE: u64 = U32 | 0xb4;
pub const KVM_REG_PPC_LPCR_64: u64 = U64 | 0xb5;
pub const KVM_REG_PPC_PPR: u64 = U64 | 0xb6;
pub const KVM_REG_PPC_ARCH_COMPAT: u64 = U32 | 0xb7;
pub const KVM_REG_PPC_PSSCR: u64 = U64 | 0xbd;
pub const KVM_REG_PPC_DEC_EXPIRY: u64 = U64 | 0xbe;
pub const KVM_REG_PPC_ONLINE: u64 = U32 | 0xbf;
pub const KVM_REG_PPC_MMCR3: u64 = U64 | 0xc1;
pub const KVM_REG_PPC_SIER2: u64 = U64 | 0xc2;
pub const KVM_REG_PPC_SIER3: u64 = U64 | 0xc3;
pub const KVM_REG_PPC_DAWR1: u64 = U64 | 0xc4;
pub const KVM_REG_PPC_DAWRX1: u64 = U64 | 0xc5;

/// Bytes of a register's value.
#[must_use]
pub const fn reg_size(id: u64) -> usize {
    1 << (id >> 52 & 15)
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct kvm_regs {
    pub pc: u64,
    pub cr: u64,
    pub ctr: u64,
    pub lr: u64,
    pub xer: u64,
    pub msr: u64,
    pub srr0: u64,
    pub srr1: u64,
    pub pid: u64,
    pub sprg: [u64; 8],
    pub gpr: [u64; 32],
}

/// An entry of the segment lookaside buffer: RB with its index, and RS of slbmte.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct slb_entry {
    pub slbe: u64,
    pub slbv: u64,
}

/// The form of 64-bit server processors.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_sregs {
    pub pvr: u32,
    pub pad: u32,
    pub sdr1: u64,
    pub slb: [slb_entry; 64],
    /// To the size of the other forms.
    pub rest: [u64; REST],
}

impl Default for kvm_sregs {
    fn default() -> Self {
        Self { pvr: 0, pad: 0, sdr1: 0, slb: [slb_entry::default(); 64], rest: [0; REST] }
    }
}

/// Doublewords of `kvm_sregs` behind the lookaside buffer: other processors have more.
const REST: usize = 24;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_one_reg {
    pub id: u64,
    pub addr: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_interrupt {
    pub irq: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_irq_level {
    pub irq: u32,
    pub level: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_create_device {
    pub type_: u32,
    pub fd: u32,
    pub flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_device_attr {
    pub flags: u32,
    pub group: u32,
    pub attr: u64,
    pub addr: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_guest_debug {
    pub control: u32,
    pub pad: u32,
    /// Address, type: 16 hardware breakpoints, which server processors do not have here.
    pub bp: [[u64; 2]; 16],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_ppc_mmuv3_cfg {
    pub flags: u64,
    /// The second doubleword of a partition table entry.
    pub process_table: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct kvm_ppc_cpu_char {
    pub character: u64,
    pub behaviour: u64,
    pub character_mask: u64,
    pub behaviour_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_rtas_token_args {
    pub name: [u8; 120],
    /// 0: the call is user space's again.
    pub token: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_create_spapr_tce_64 {
    pub liobn: u64,
    pub page_shift: u32,
    pub flags: u32,
    /// In pages.
    pub offset: u64,
    /// In pages.
    pub size: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct kvm_ppc_xive_eq {
    pub flags: u32,
    pub qshift: u32,
    pub qaddr: u64,
    pub qtoggle: u32,
    pub qindex: u32,
    pub pad: [u64; 5],
}

impl kvm_ppc_xive_eq {
    /// As it is in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let words = [(0, self.flags), (4, self.qshift), (16, self.qtoggle), (20, self.qindex)];
        for (at, word) in words {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[8..16].copy_from_slice(&self.qaddr.to_ne_bytes());
        bytes
    }
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|n| bytes[at + n]));
        let qaddr = u64::from_ne_bytes(std::array::from_fn(|n| bytes[8 + n]));
        Self { flags: word(0), qshift: word(4), qaddr, qtoggle: word(16), qindex: word(20), pad: [0; 5] }
    }
}

/// The page shared with a vCPU; what belongs to the reason of the exit begins at `with`.
#[repr(C)]
#[derive(Debug)]
pub struct kvm_run {
    pub request_interrupt_window: u8,
    pub immediate_exit: u8,
    pub padding1: [u8; 6],
    pub exit_reason: u32,
    pub ready_for_interrupt_injection: u8,
    pub if_flag: u8,
    pub flags: u16,
    pub cr8: u64,
    pub apic_base: u64,
    /// KVM_EXIT_PAPR_HCALL: number, result, nine arguments. KVM_EXIT_MMIO: address, data, length and direction.
    pub with: [u64; 290],
}

pub const KVM_GET_API_VERSION: Ioctl = _IO(KVMIO, 0x00);
pub const KVM_CREATE_VM: Ioctl = _IO(KVMIO, 0x01);
pub const KVM_GET_VCPU_MMAP_SIZE: Ioctl = _IO(KVMIO, 0x04);
pub const KVM_CREATE_VCPU: Ioctl = _IO(KVMIO, 0x41);
pub const KVM_IRQ_LINE: Ioctl = _IOW::<kvm_irq_level>(KVMIO, 0x61);
pub const KVM_RUN: Ioctl = _IO(KVMIO, 0x80);
pub const KVM_GET_REGS: Ioctl = _IOR::<kvm_regs>(KVMIO, 0x81);
pub const KVM_SET_REGS: Ioctl = _IOW::<kvm_regs>(KVMIO, 0x82);
pub const KVM_GET_SREGS: Ioctl = _IOR::<kvm_sregs>(KVMIO, 0x83);
pub const KVM_SET_SREGS: Ioctl = _IOW::<kvm_sregs>(KVMIO, 0x84);
pub const KVM_INTERRUPT: Ioctl = _IOW::<kvm_interrupt>(KVMIO, 0x86);
pub const KVM_SET_GUEST_DEBUG: Ioctl = _IOW::<kvm_guest_debug>(KVMIO, 0x9b);
pub const KVM_PPC_ALLOCATE_HTAB: Ioctl = _IOWR::<u32>(KVMIO, 0xa7);
pub const KVM_CREATE_SPAPR_TCE_64: Ioctl = _IOW::<kvm_create_spapr_tce_64>(KVMIO, 0xa8);
pub const KVM_GET_ONE_REG: Ioctl = _IOW::<kvm_one_reg>(KVMIO, 0xab);
pub const KVM_SET_ONE_REG: Ioctl = _IOW::<kvm_one_reg>(KVMIO, 0xac);
pub const KVM_PPC_RTAS_DEFINE_TOKEN: Ioctl = _IOW::<kvm_rtas_token_args>(KVMIO, 0xac);
pub const KVM_PPC_CONFIGURE_V3_MMU: Ioctl = _IOW::<kvm_ppc_mmuv3_cfg>(KVMIO, 0xaf);
pub const KVM_PPC_GET_CPU_CHAR: Ioctl = _IOR::<kvm_ppc_cpu_char>(KVMIO, 0xb1);
pub const KVM_CREATE_DEVICE: Ioctl = _IOWR::<kvm_create_device>(KVMIO, 0xe0);
pub const KVM_SET_DEVICE_ATTR: Ioctl = _IOW::<kvm_device_attr>(KVMIO, 0xe1);
pub const KVM_GET_DEVICE_ATTR: Ioctl = _IOW::<kvm_device_attr>(KVMIO, 0xe2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As a C compiler has them.
    #[test]
    fn layouts() {
        assert_eq!(size_of::<kvm_regs>(), 392);
        assert_eq!((size_of::<kvm_sregs>(), offset_of!(kvm_sregs, slb)), (1232, 16));
        assert_eq!((size_of::<kvm_guest_debug>(), size_of::<kvm_ppc_xive_eq>()), (264, 64));
        assert_eq!((size_of::<kvm_rtas_token_args>(), size_of::<kvm_create_spapr_tce_64>()), (128, 32));
        assert_eq!((size_of::<kvm_run>(), offset_of!(kvm_run, flags), offset_of!(kvm_run, with)), (2352, 14, 32));
        assert_eq!((reg_size(KVM_REG_PPC_DSISR), reg_size(KVM_REG_PPC_DAR), reg_size(KVM_REG_PPC_VR0)), (4, 8, 16));
    }

    #[cfg(target_arch = "powerpc64")]
    #[test]
    fn numbers() {
        assert_eq!((KVM_CREATE_VM, KVM_SET_ONE_REG), (0x2000_ae01, 0x8010_aeac));
        assert_eq!((KVM_PPC_ALLOCATE_HTAB, KVM_GET_SREGS), (0xc004_aea7, 0x44d0_ae83));
    }
}
