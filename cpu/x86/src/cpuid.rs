//! CPUID (vol. 2, CPUID; AMD64 APM vol. 3, appendix E).
use crate::state::X86Cpu;

impl X86Cpu {
    /// EAX, EBX, ECX, EDX of a leaf.
    pub fn cpuid(&self, _leaf: u32, _subleaf: u32) -> [u32; 4] {
        [0; 4]
    }
}
