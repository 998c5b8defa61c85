//! Return codes of hypercalls and RTAS calls, and numbers of hypercalls (LoPAPR 14.5, 7.2.8).

/// Why a hypercall did not simply succeed: the value for R3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i64);

impl Status {
    pub const SUCCESS: Self = Self(0);
    pub const BUSY: Self = Self(1);
    pub const CLOSED: Self = Self(2);
    pub const PARTIAL: Self = Self(5);
    pub const HARDWARE: Self = Self(-1);
    pub const FUNCTION: Self = Self(-2);
    pub const PRIVILEGE: Self = Self(-3);
    pub const PARAMETER: Self = Self(-4);
    pub const PERMISSION: Self = Self(-11);
    pub const DROPPED: Self = Self(-12);
    pub const S_PARM: Self = Self(-13);
    pub const D_PARM: Self = Self(-14);
    pub const RESOURCE: Self = Self(-16);
    pub const NOT_FOUND: Self = Self(-7);
    pub const ADAPTER_PARM: Self = Self(-17);
    pub const P2: Self = Self(-55);
    pub const P3: Self = Self(-56);
    pub const P4: Self = Self(-57);
    pub const P5: Self = Self(-58);
    pub const TOO_HARD: Self = Self(9999);
}

/// What a hypercall function answers.
pub type Answer<T = ()> = Result<T, Status>;

/// Results of RTAS calls.
pub mod rtas {
    pub const SUCCESS: i32 = 0;
    pub const HARDWARE_ERROR: i32 = -1;
    pub const BUSY: i32 = -2;
    pub const PARAMETER_ERROR: i32 = -3;
    pub const NOT_SUPPORTED: i32 = -3;
    /// No resources, or the function is not there (ibm,change-msi and others).
    pub const NO_SUCH_INDICATOR: i32 = -3;
    pub const NOT_AUTHORIZED: i32 = -9002;
}

/// Numbers of hypercalls: R3 on entry.
pub mod hcall {
    pub const H_GET_TCE: u64 = 0x1c;
    pub const H_PUT_TCE: u64 = 0x20;
    pub const H_GET_TERM_CHAR: u64 = 0x54;
    pub const H_PUT_TERM_CHAR: u64 = 0x58;
    pub const H_EOI: u64 = 0x64;
    pub const H_CPPR: u64 = 0x68;
    pub const H_IPI: u64 = 0x6c;
    pub const H_IPOLL: u64 = 0x70;
    pub const H_XIRR: u64 = 0x74;
    pub const H_REG_CRQ: u64 = 0xfc;
    pub const H_FREE_CRQ: u64 = 0x100;
    pub const H_VIO_SIGNAL: u64 = 0x104;
    pub const H_SEND_CRQ: u64 = 0x108;
    pub const H_COPY_RDMA: u64 = 0x110;
    pub const H_REGISTER_LOGICAL_LAN: u64 = 0x114;
    pub const H_FREE_LOGICAL_LAN: u64 = 0x118;
    pub const H_ADD_LOGICAL_LAN_BUFFER: u64 = 0x11c;
    pub const H_SEND_LOGICAL_LAN: u64 = 0x120;
    pub const H_MULTICAST_CTRL: u64 = 0x130;
    pub const H_STUFF_TCE: u64 = 0x138;
    pub const H_PUT_TCE_INDIRECT: u64 = 0x13c;
    pub const H_CHANGE_LOGICAL_LAN_MAC: u64 = 0x14c;
    pub const H_VTERM_PARTNER_INFO: u64 = 0x150;
    pub const H_REGISTER_VTERM: u64 = 0x154;
    pub const H_FREE_VTERM: u64 = 0x158;
    pub const H_FREE_LOGICAL_LAN_BUFFER: u64 = 0x1d4;
    pub const H_POLL_PENDING: u64 = 0x1d8;
    pub const H_ILLAN_ATTRIBUTES: u64 = 0x244;
    pub const H_ENABLE_CRQ: u64 = 0x2b0;
    pub const H_XIRR_X: u64 = 0x2fc;
    pub const H_RANDOM: u64 = 0x300;
    pub const H_INT_GET_SOURCE_INFO: u64 = 0x3a8;
    pub const H_INT_SET_SOURCE_CONFIG: u64 = 0x3ac;
    pub const H_INT_GET_SOURCE_CONFIG: u64 = 0x3b0;
    pub const H_INT_GET_QUEUE_INFO: u64 = 0x3b4;
    pub const H_INT_SET_QUEUE_CONFIG: u64 = 0x3b8;
    pub const H_INT_GET_QUEUE_CONFIG: u64 = 0x3bc;
    pub const H_INT_SET_OS_REPORTING_LINE: u64 = 0x3c0;
    pub const H_INT_GET_OS_REPORTING_LINE: u64 = 0x3c4;
    pub const H_INT_ESB: u64 = 0x3c8;
    pub const H_INT_SYNC: u64 = 0x3cc;
    pub const H_INT_RESET: u64 = 0x3d0;
}

/// Arguments of a hypercall: R4 to R12.
pub type Args = [u64; 9];

/// A set of hypercalls. `out` are R4 to R12 afterwards, with the arguments in them before. `None`: not one of these.
pub trait Hypercalls: Send + Sync {
    /// `server`: the interrupt server number of the calling processor.
    fn hcall(&self, server: u32, number: u64, args: &Args, out: &mut Args) -> Option<Status>;
}

/// A set of RTAS calls, by the names of their properties in `/rtas`.
pub trait RtasCalls: Send + Sync {
    /// The names.
    fn names(&self) -> &'static [&'static str];
    /// `results[0]` is the status; as many as the caller asked for. Returns false if the name is not one of these.
    fn rtas(&self, name: &str, args: &[u32], results: &mut [u32]) -> bool;
}

/// Puts a status and values in front of an RTAS call's results, as far as there is room.
pub fn rtas_return(results: &mut [u32], status: i32, values: &[u32]) {
    if let Some(first) = results.first_mut() {
        *first = status as u32;
    }
    for (place, value) in results.iter_mut().skip(1).zip(values) {
        *place = *value;
    }
}
