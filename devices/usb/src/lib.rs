//! USB: an xHCI host controller, and devices that sit at its ports: keyboard, mouse, tablet, mass storage, hub.

pub mod catalog;
mod descriptor;
mod device;
pub mod hid;
pub mod hub;
pub mod storage;
pub mod xhci;

pub use descriptor::{Descriptors, EndpointKind, EndpointSpec, InterfaceSpec, Outcome, Standard};
pub use device::{Answer, Buffer, BufferError, Completion, Setup, Speed, Stall, Transfer, UsbDevice, Wake};
pub use hid::{Hid, HidKind};
pub use hub::Hub;
pub use storage::{StorageOptions, UsbStorage};
pub use xhci::{PlaceError, Xhci, XhciModel, XhciOptions};
