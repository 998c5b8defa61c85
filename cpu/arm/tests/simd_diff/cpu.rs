//! A processor for the tests.

use rhea_arm::{ArmConfig, ArmCpu};
use std::sync::Arc;

pub fn new(config: &Arc<ArmConfig>) -> Box<ArmCpu> {
    todo!()
}
