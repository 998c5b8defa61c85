//! Devices that only Secure transactions reach.

use rhea_memory::{Access, AccessRules, BusError, MmioDevice, Requester};
use std::sync::Arc;

/// Shows a device to Secure accesses (and to the debugger); for others nothing answers.
pub struct SecureOnly(pub Arc<dyn MmioDevice>);

fn check(access: Access) -> Result<(), BusError> {
    if access.secure || matches!(access.requester, Requester::Debugger | Requester::Host) {
        Ok(())
    } else {
        Err(BusError::Unassigned)
    }
}

impl MmioDevice for SecureOnly {
    fn read(&self, offset: u64, access: Access) -> Result<u64, BusError> {
        check(access)?;
        self.0.read(offset, access)
    }
    fn write(&self, offset: u64, value: u64, access: Access) -> Result<(), BusError> {
        check(access)?;
        self.0.write(offset, value, access)
    }
    fn rules(&self) -> AccessRules {
        self.0.rules()
    }
    fn name(&self) -> &str {
        self.0.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Register;

    impl MmioDevice for Register {
        fn read(&self, _: u64, _: Access) -> Result<u64, BusError> {
            Ok(7)
        }
        fn write(&self, _: u64, _: u64, _: Access) -> Result<(), BusError> {
            Ok(())
        }
    }

    #[test]
    fn only_secure_accesses_arrive() {
        let device = SecureOnly(Arc::new(Register));
        let plain = Access::cpu(0, 4);
        assert_eq!(device.read(0, plain), Err(BusError::Unassigned));
        assert_eq!(device.write(0, 1, Access::device(8, 4)), Err(BusError::Unassigned));
        assert_eq!(device.read(0, Access { secure: true, ..plain }), Ok(7));
        assert_eq!(device.read(0, Access { requester: Requester::Debugger, ..plain }), Ok(7));
    }
}
