//! Registers of the 82574 (datasheet, 10): offsets, fields, and which of them are plain storage.

pub const CTRL: u64 = 0x0000;
pub const CTRL_COPY: u64 = 0x0004;
pub const STATUS: u64 = 0x0008;
pub const EECD: u64 = 0x0010;
pub const EERD: u64 = 0x0014;
pub const CTRL_EXT: u64 = 0x0018;
pub const MDIC: u64 = 0x0020;
pub const VET: u64 = 0x0038;
pub const ICR: u64 = 0x00c0;
pub const ICS: u64 = 0x00c8;
pub const IMS: u64 = 0x00d0;
pub const IMC: u64 = 0x00d8;
pub const EIAC: u64 = 0x00dc;
pub const IAM: u64 = 0x00e0;
pub const IVAR: u64 = 0x00e4;
pub const RCTL: u64 = 0x0100;
pub const TCTL: u64 = 0x0400;
pub const TIPG: u64 = 0x0410;
pub const EXTCNF_CTRL: u64 = 0x0f00;
pub const PBA: u64 = 0x1000;
pub const EEMNGCTL: u64 = 0x1010;
pub const EEWR: u64 = 0x102c;
pub const PSRCTL: u64 = 0x2170;
/// Receive and transmit rings of queue 0; queue 1 is [`QUEUE`] further.
pub const RDBAL: u64 = 0x2800;
pub const RDBAH: u64 = 0x2804;
pub const RDLEN: u64 = 0x2808;
pub const RDH: u64 = 0x2810;
pub const RDT: u64 = 0x2818;
pub const TDBAL: u64 = 0x3800;
pub const TDBAH: u64 = 0x3804;
pub const TDLEN: u64 = 0x3808;
pub const TDH: u64 = 0x3810;
pub const TDT: u64 = 0x3818;
pub const QUEUE: u64 = 0x100;
pub const RXCSUM: u64 = 0x5000;
pub const RLPML: u64 = 0x5004;
pub const RFCTL: u64 = 0x5008;
pub const MTA: u64 = 0x5200;
pub const RAL: u64 = 0x5400;
pub const RAH: u64 = 0x5404;
pub const VFTA: u64 = 0x5600;
pub const SWSM: u64 = 0x5b50;

pub const CTRL_GIO_MASTER_DISABLE: u32 = 1 << 2;
pub const CTRL_RESET: u32 = 1 << 26;
pub const CTRL_VME: u32 = 1 << 30;
pub const CTRL_PHY_RESET: u32 = 1 << 31;
/// Full duplex, link set up, 1000 Mb/s.
pub const CTRL_INITIAL: u32 = 1 | 1 << 6 | 2 << 8 | 1 << 20;
/// Link up.
pub const STATUS_LU: u32 = 1 << 1;
/// Full duplex, link up, 1000 Mb/s as set and as detected.
pub const STATUS_LINK: u32 = 1 | STATUS_LU | 2 << 6 | 2 << 8;
pub const STATUS_PHY_RESET: u32 = 1 << 10;
pub const STATUS_GIO_MASTER: u32 = 1 << 19;

/// Auto-read done, present; the size field says 128 words.
pub const EECD_FIXED: u32 = 1 << 9 | 1 << 8 | 1 << 11;
pub const EECD_REQUEST: u32 = 1 << 6;
pub const EECD_GRANT: u32 = 1 << 7;
/// Chip select, clock, data in, flash write enable, update enable.
pub const EECD_WRITABLE: u32 = 0x7 | 3 << 4 | EECD_REQUEST | 1 << 20;
pub const EERD_START: u32 = 1;
pub const EERD_DONE: u32 = 2;

pub const CTRL_EXT_EE_RESET: u32 = 1 << 13;
pub const CTRL_EXT_EIAME: u32 = 1 << 24;
pub const CTRL_EXT_IAME: u32 = 1 << 27;
pub const CTRL_EXT_PBA_CLEAR: u32 = 1 << 31;

/// Interrupt causes.
pub const INT_TXDW: u32 = 1;
pub const INT_TXQE: u32 = 1 << 1;
pub const INT_LSC: u32 = 1 << 2;
pub const INT_RXDMT0: u32 = 1 << 4;
pub const INT_RXT0: u32 = 1 << 7;
pub const INT_MDAC: u32 = 1 << 9;
pub const INT_RXQ0: u32 = 1 << 20;
pub const INT_TXQ0: u32 = 1 << 22;
pub const INT_OTHER: u32 = 1 << 24;
pub const INT_ASSERTED: u32 = 1 << 31;
pub const INT_ALL: u32 = 0x01f7_82d7;
/// Causes that OTHER stands for: link, overrun, MDIO, low transmit ring, small packet, ACK, management.
pub const INT_OTHERS: u32 = INT_LSC | 1 << 6 | INT_MDAC | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18;

pub const RCTL_ENABLE: u32 = 1 << 1;
pub const RCTL_UNICAST: u32 = 1 << 3;
pub const RCTL_MULTICAST: u32 = 1 << 4;
pub const RCTL_LONG: u32 = 1 << 5;
pub const RCTL_BROADCAST: u32 = 1 << 15;
pub const RCTL_VLAN_FILTER: u32 = 1 << 18;
pub const RCTL_BSEX: u32 = 1 << 25;
pub const RCTL_STRIP_CRC: u32 = 1 << 26;
pub const TCTL_ENABLE: u32 = 1 << 1;
pub const TCTL_PAD: u32 = 1 << 3;
pub const RFCTL_EXTENDED: u32 = 1 << 15;
pub const RXCSUM_IP: u32 = 1 << 8;
pub const RXCSUM_L4: u32 = 1 << 9;
pub const RXCSUM_PCSD: u32 = 1 << 13;
pub const RAH_VALID: u32 = 1 << 31;

pub const SWSM_SMBI: u32 = 1;
pub const EEMNGCTL_DONE: u32 = 3 << 18;

/// Statistics.
pub const STATISTICS: std::ops::Range<u64> = 0x4000..0x4128;
pub const MPC: u64 = 0x4010;
pub const PRC64: u64 = 0x405c;
pub const GPRC: u64 = 0x4074;
pub const BPRC: u64 = 0x4078;
pub const MPRC: u64 = 0x407c;
pub const GPTC: u64 = 0x4080;
pub const GORC: u64 = 0x4088;
pub const GOTC: u64 = 0x4090;
pub const ROC: u64 = 0x40ac;
pub const TOR: u64 = 0x40c0;
pub const TOT: u64 = 0x40c8;
pub const TPR: u64 = 0x40d0;
pub const TPT: u64 = 0x40d4;
pub const PTC64: u64 = 0x40d8;
pub const MPTC: u64 = 0x40f0;
pub const BPTC: u64 = 0x40f4;
pub const TSCTC: u64 = 0x40f8;

/// Bytes of the register space with registers in it.
pub const SPACE: u64 = 0x6000;

/// The bits of a register without side effects that software may write; `None`: no such register.
#[must_use]
pub fn writable(offset: u64) -> Option<u32> {
    Some(match offset {
        // Flow control, LED, VLAN type.
        0x0028 | 0x002c | 0x0030 | 0x0170 | 0x0e00 | 0x0f08 | 0x2160 | 0x2168 => !0,
        VET => 0xffff,
        EIAC => 0x01f0_0000,
        IAM => !0,
        IVAR => 0x800f_ffff,
        // Throttling: ITR and EITR of the vectors.
        0x00c4 | 0x00e8 | 0x00ec | 0x00f0 | 0x00f4 | 0x00f8 => 0xffff,
        // Gap, adaptive spacing, split receive; then buffer sizes, delays, descriptor controls, arbitration.
        TIPG | PSRCTL | 0x0458 | 0x2008 => !0,
        EXTCNF_CTRL => 0x0fff_002f,
        PBA => 0x003f_003f,
        0x1008 | 0x100c | 0x2c00 | 0x2c08 => !0,
        0x2820 | 0x2828 | 0x282c | 0x2920 | 0x2928 | 0x292c => !0,
        0x3820 | 0x3828 | 0x382c | 0x3840 | 0x3920 | 0x3928 | 0x392c | 0x3940 => !0,
        RXCSUM => 0x3fff,
        RLPML => 0x3fff,
        RFCTL => !0,
        MTA..0x5480 | VFTA..0x5800 => !0,
        // Wake-up, management, host interface: stored, without an effect while the machine is on.
        0x5800 | 0x5808 | 0x5810 | 0x5820 | 0x5838 | 0x5840..0x5860 | 0x5900 => !0,
        // Table and key of receive side scaling, which stays off.
        0x5c00..0x5ca8 => !0,
        // PCIe controls, software semaphore 2.
        0x5b00 | 0x5b08 | 0x5b10..0x5b20 | 0x5b58 | 0x5b64 => !0,
        _ => return None,
    })
}

/// Bits of a ring register; `None`: it is none. Offsets are of queue 0.
#[must_use]
pub fn ring_writable(offset: u64) -> Option<u32> {
    Some(match offset {
        RDBAL | TDBAL => !0xf,
        RDBAH | TDBAH => !0,
        RDLEN | TDLEN => 0x000f_ff80,
        RDH | RDT | TDH | TDT => 0xffff,
        _ => return None,
    })
}
