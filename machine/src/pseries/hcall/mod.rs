//! Hypercalls (LoPAPR chapter 14): number in R3, arguments in R4 to R12, status back in R3, values in R4 to R12.

mod characteristics;
mod memory;
mod mode;
pub mod number;
mod threads;

pub use threads::system_reset_all;

use super::client;
use super::partition::Partition;
use super::rtas::After;
use number as n;
use rhea_accel::ShutdownCause;
use rhea_firmware::FdtNode;
use rhea_irqchip::spapr::papr::{Args, Status};
use rhea_ppc::PpcCpu;
use rhea_ppc::bits::msr;

/// H_UNSUPPORTED_FLAG: the flag with this number is not known.
const UNSUPPORTED_FLAG: Status = Status(-256);

/// Carries out the call of `cpu`.
pub fn call(partition: &Partition, cpu: &mut PpcCpu) {
    let mut args: Args = std::array::from_fn(|i| cpu.gpr[4 + i]);
    let number = cpu.gpr[3];
    if cpu.msr & msr::PR != 0 {
        cpu.gpr[3] = Status::PRIVILEGE.0 as u64;
        return;
    }
    if cpu.msr & msr::SF == 0 {
        for arg in &mut args {
            *arg &= 0xffff_ffff;
        }
    }
    let number = if cpu.msr & msr::SF == 0 { number & 0xffff_ffff } else { number };
    let mut out = args;
    // Calls that make the processor wait set R3 before.
    cpu.gpr[3] = 0;
    let status = own(partition, cpu, number, &args, &mut out)
        .or_else(|| partition.device_hcall(cpu.index, number, &args, &mut out))
        .unwrap_or_else(|| {
            partition.log.unimp("hcall", format_args!("{number:#x} with {args:x?}"));
            Status::FUNCTION
        });
    cpu.gpr[3] = status.0 as u64;
    for (i, value) in out.iter().enumerate().filter(|(i, v)| args[*i] != **v) {
        cpu.gpr[4 + i] = *value;
    }
}

fn answer(result: Result<(), Status>) -> Option<Status> {
    Some(result.err().unwrap_or(Status::SUCCESS))
}

/// Of a call that sees and changes nothing of the processor but the registers of its arguments and results: how many arguments it has at
/// most.
#[must_use]
pub fn arguments(number: u64) -> Option<usize> {
    use rhea_irqchip::spapr::papr::hcall as h;
    Some(match number {
        n::H_RANDOM | h::H_XIRR => 0,
        h::H_GET_TERM_CHAR | h::H_EOI | h::H_CPPR | h::H_IPOLL | h::H_XIRR_X => 1,
        n::H_LOGICAL_CI_LOAD | h::H_GET_TCE | h::H_IPI | h::H_ADD_LOGICAL_LAN_BUFFER => 2,
        n::H_LOGICAL_CI_STORE | n::H_PAGE_INIT | h::H_PUT_TCE | h::H_SEND_CRQ => 3,
        h::H_STUFF_TCE | h::H_PUT_TCE_INDIRECT | h::H_PUT_TERM_CHAR => 4,
        n::H_LOGICAL_MEMOP => 5,
        h::H_SEND_LOGICAL_LAN => 9,
        _ if (h::H_INT_GET_SOURCE_INFO..=h::H_INT_RESET).contains(&number) => 5,
        _ => return None,
    })
}

/// The calls of the board itself; `None`: it is none of those.
fn own(p: &Partition, cpu: &mut PpcCpu, number: u64, a: &Args, out: &mut Args) -> Option<Status> {
    answer(match number {
        n::H_ENTER
        | n::H_REMOVE
        | n::H_READ
        | n::H_PROTECT
        | n::H_BULK_REMOVE
        | n::H_BLOCK_REMOVE
        | n::H_CLEAR_MOD
        | n::H_CLEAR_REF
        | n::H_RESIZE_HPT_PREPARE
        | n::H_RESIZE_HPT_COMMIT => memory::page_table(p, cpu, number, a, out),
        n::H_PAGE_INIT => memory::page_init(p, a),
        n::H_LOGICAL_CI_LOAD | n::H_LOGICAL_CACHE_LOAD => memory::load(p, cpu.index, a, out),
        n::H_LOGICAL_CI_STORE | n::H_LOGICAL_CACHE_STORE => memory::store(p, cpu.index, a),
        n::H_LOGICAL_ICBI | n::H_LOGICAL_DCBF => Ok(()),
        n::H_LOGICAL_MEMOP => memory::operation(p, cpu.index, a),
        n::H_REGISTER_PROC_TBL => mode::process_table(p, cpu, a),
        n::H_RPT_INVALIDATE if p.options.caps.rpt_invalidate => memory::invalidate_radix(p, cpu, a),
        n::H_SET_MODE => mode::set(p, cpu, a),
        n::H_SET_SPRG0 => {
            cpu.spr[rhea_ppc::spr::SPRG0 as usize] = a[0];
            Ok(())
        }
        // Processors from POWER8 on have DAWR instead.
        n::H_SET_DABR | n::H_SET_XDABR => Err(Status::HARDWARE),
        n::H_GET_CPU_CHARACTERISTICS => {
            characteristics::of(&p.options, out);
            Ok(())
        }
        n::H_HOME_NODE_ASSOCIATIVITY => characteristics::home_node(p, a, out),
        n::H_RANDOM => {
            out[0] = p.late().map_or(0, |l| (l.random)());
            Ok(())
        }
        n::H_REGISTER_VPA => threads::register_vpa(p, a),
        n::H_CEDE => {
            cpu.cede();
            Ok(())
        }
        n::H_PROD => threads::prod(p, a),
        n::H_CONFER => threads::confer(p, a),
        n::H_JOIN => threads::join(p, cpu),
        n::H_SIGNAL_SYS_RESET => threads::system_reset(p, cpu.index, a),
        n::H_RTAS => match p.late().map(|l| l.rtas.call(p, a[0])) {
            Some(Ok(after)) => {
                match after {
                    After::Continue => {}
                    After::Stop => p.stop_self(cpu),
                    After::Wait => threads::wait_for_end(cpu),
                }
                Ok(())
            }
            Some(Err(status)) => Err(status),
            None => Err(Status::HARDWARE),
        },
        n::H_CAS => client_architecture(p, cpu, a),
        n::H_UPDATE_DT => update_tree(p, a),
        client::HCALL => match p.client_call(cpu, a[0])? {
            Ok(client::After::Continue) => Ok(()),
            Ok(client::After::Exit) => {
                p.control.power_off(ShutdownCause::Guest);
                threads::wait_for_end(cpu);
                Ok(())
            }
            Ok(client::After::Boot) => {
                p.control.reset(ShutdownCause::Guest);
                threads::wait_for_end(cpu);
                Ok(())
            }
            Err(()) => Err(Status(-1)),
        },
        _ => return None,
    })
}

/// Firmware's client-architecture support: vectors, buffer for the new tree, its size. The tree comes behind a version word.
fn client_architecture(p: &Partition, cpu: &mut PpcCpu, a: &Args) -> Result<(), Status> {
    const VERSION: u32 = 1;
    const MAX_TREE: u64 = 2 << 20;
    let (vectors, buffer, size) = (a[0], a[1], a[2]);
    if !(64..=MAX_TREE).contains(&size) || !p.ram.has(buffer, size) {
        return Err(Status::PARAMETER);
    }
    p.negotiate(cpu, vectors)?;
    let blob = p.tree(false).flatten();
    if blob.len() as u64 + 4 > size {
        return Err(Status::PARAMETER);
    }
    p.ram.set_u32(buffer, VERSION).map_err(|_| Status::PARAMETER)?;
    p.ram.write(buffer + 4, &blob).map_err(|_| Status::PARAMETER)
}

/// Firmware's tree, flattened, as the guest will see it.
fn update_tree(p: &Partition, a: &Args) -> Result<(), Status> {
    const MAX_TREE: u32 = 16 << 20;
    const MAGIC: u32 = 0xd00d_feed;
    let word = |at: u64| p.ram.u32(at).map_err(|_| Status::PARAMETER);
    if word(a[0])? != MAGIC {
        return Err(Status::PARAMETER);
    }
    let len = word(a[0].wrapping_add(4))?;
    if len > MAX_TREE {
        return Err(Status::PARAMETER);
    }
    let blob = p.ram.bytes(a[0], len.into()).map_err(|_| Status::PARAMETER)?;
    p.take_tree(FdtNode::parse(&blob).map_err(|_| Status::PARAMETER)?);
    Ok(())
}

#[cfg(test)]
mod tests;
