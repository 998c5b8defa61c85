//! Virtio 1.2: rings, devices, and the MMIO and PCI transports.
//!
//! A device ([`VirtioDevice`]) knows nothing of its transport. [`VirtioCore`] joins a device, its queues ([`Queues`]) and the
//! driver-visible status; a transport ([`VirtioMmio`], [`VirtioPci`]) shows the core to the guest.

pub mod balloon;
mod beside;
pub mod blk;
pub mod catalog;
pub mod console;
mod core;
pub mod features;
mod mmio;
pub mod net;
mod pci;
mod queue;
mod queues;
pub mod rng;

pub use crate::core::{CoreState, VirtioCore, VirtioDevice, status};
pub use catalog::{DEVICES, DeviceType, Model, Resources, Transport};
pub use mmio::VirtioMmio;
pub use pci::VirtioPci;
pub use queue::{Buffer, Chain, Queue, QueueError, QueueState};
pub use queues::{Gate, InterruptSink, Queues, QueuesState};
