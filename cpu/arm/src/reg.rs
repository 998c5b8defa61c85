//! Names of the system registers that are plain storage.

macro_rules! regs {
    ($($name:ident)*) => {
        /// Index of a register in `ArmCpu::sys`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum Reg { $($name,)* }
        impl Reg {
            pub const COUNT: usize = [$(Reg::$name),*].len();
        }
    };
}

regs! { SctlrEl1 SctlrEl2 SctlrEl3 }
