//! The paravirtual interface of KVM.
#[derive(Clone, Default)]
pub(crate) struct Paravirtual {}
