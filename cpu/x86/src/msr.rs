//! Model-specific registers.
use crate::exception::Exception;
use crate::state::X86Cpu;

#[derive(Clone, Default)]
pub(crate) struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_aux: u64,
    pub debugctl: u64,
}

impl X86Cpu {
    pub(crate) fn reset_msrs(&mut self) {}
    pub fn read_msr(&mut self, _msr: u32) -> Result<u64, Exception> {
        Err(Exception::gp(0))
    }
    pub fn write_msr(&mut self, _msr: u32, _value: u64) -> Result<(), Exception> {
        Err(Exception::gp(0))
    }
}
