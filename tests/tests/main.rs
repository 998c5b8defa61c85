//! The whole-machine tests: `cargo test --release -p rhea-tests -- q35::` runs those of one file.

mod command_line;
mod demo;
mod devices;
mod firmware;
mod gdb;
mod hostile;
mod interrupts;
mod libvirt;
mod linux;
mod litmus;
mod pci;
mod profile;
mod pseries;
mod pseries_interrupts;
mod q35;
mod qmp;
mod state;
mod usb;
