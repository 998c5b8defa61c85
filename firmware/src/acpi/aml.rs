//! ACPI Machine Language put together from encoded pieces, so that nested objects read like ASL (ACPI specification, 19 and 20).

use acpi_tables::Aml;
use acpi_tables::aml::{self, Path};

/// An encoded term, object or list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Term(pub Vec<u8>);

impl Aml for Term {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// Encodes an object.
pub fn term(object: &dyn Aml) -> Term {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    Term(bytes)
}

fn refs(terms: &[Term]) -> Vec<&dyn Aml> {
    terms.iter().map(|t| t as &dyn Aml).collect()
}

/// A reference to a named object; the parts are four characters each.
pub fn path(name: &str) -> Term {
    term(&Path::new(name))
}
pub fn int(value: u64) -> Term {
    term(&value)
}
pub fn text(value: &str) -> Term {
    term(&value.to_owned())
}
pub fn eisa(id: &str) -> Term {
    term(&aml::EISAName::new(id))
}
pub fn local(n: u8) -> Term {
    term(&aml::Local(n))
}
pub fn arg(n: u8) -> Term {
    term(&aml::Arg(n))
}
pub fn name(name: &str, value: &Term) -> Term {
    term(&aml::Name::new(Path::new(name), value))
}
pub fn device(name: &str, children: &[Term]) -> Term {
    term(&aml::Device::new(Path::new(name), refs(children)))
}
pub fn scope(name: &str, children: &[Term]) -> Term {
    term(&aml::Scope::new(Path::new(name), refs(children)))
}
pub fn method(name: &str, args: u8, serialized: bool, body: &[Term]) -> Term {
    term(&aml::Method::new(Path::new(name), args, serialized, refs(body)))
}
pub fn package(elements: &[Term]) -> Term {
    term(&aml::Package::new(refs(elements)))
}
pub fn resources(descriptors: &[Term]) -> Term {
    term(&aml::ResourceTemplate::new(refs(descriptors)))
}
pub fn if_(condition: &Term, body: &[Term]) -> Term {
    term(&aml::If::new(condition, refs(body)))
}
pub fn else_(body: &[Term]) -> Term {
    term(&aml::Else::new(refs(body)))
}
pub fn return_(value: &Term) -> Term {
    term(&aml::Return::new(value))
}
pub fn store(target: &Term, value: &Term) -> Term {
    term(&aml::Store::new(target, value))
}
pub fn and(target: &Term, a: &Term, b: &Term) -> Term {
    term(&aml::And::new(target, a, b))
}
pub fn or(target: &Term, a: &Term, b: &Term) -> Term {
    term(&aml::Or::new(target, a, b))
}
/// No target: the result is the value of the term.
pub fn nowhere() -> Term {
    term(&aml::ZERO)
}
pub fn equal(a: &Term, b: &Term) -> Term {
    term(&aml::Equal::new(a, b))
}
pub fn not_equal(a: &Term, b: &Term) -> Term {
    term(&aml::NotEqual::new(a, b))
}
pub fn notify(object: &str, value: u64) -> Term {
    term(&aml::Notify::new(&Path::new(object), &value))
}
/// A 32-bit field at a byte offset of a buffer.
pub fn dword_field(name: &str, buffer: &Term, offset: u64) -> Term {
    term(&aml::CreateDWordField::new(&Path::new(name), buffer, &offset))
}
pub fn region(name: &str, space: aml::OpRegionSpace, offset: u64, len: u64) -> Term {
    term(&aml::OpRegion::new(Path::new(name), space, &offset, &len))
}
/// Byte-wide fields of an operation region; the number is the offset in bytes, ascending.
pub fn byte_fields(region: &str, fields: &[([u8; 4], usize)]) -> Term {
    let (mut entries, mut at) = (Vec::new(), 0);
    for (name, offset) in fields {
        if *offset > at {
            entries.push(aml::FieldEntry::Reserved((offset - at) * 8));
        }
        entries.push(aml::FieldEntry::Named(*name, 8));
        at = offset + 1;
    }
    term(&aml::Field::new(
        Path::new(region),
        aml::FieldAccessType::Byte,
        aml::FieldLockRule::NoLock,
        aml::FieldUpdateRule::Preserve,
        entries,
    ))
}

/// An I/O port range as a small resource descriptor.
pub fn io(start: u16, len: u8) -> Term {
    term(&aml::IO::new(start, start, 1, len))
}
pub fn memory32(writable: bool, start: u32, len: u32) -> Term {
    term(&aml::Memory32Fixed::new(writable, start, len))
}
/// ISA interrupts: edge, active high, exclusive (6.4.2.1).
pub fn irq(number: u8) -> Term {
    let mask = 1u16.checked_shl(u32::from(number)).unwrap_or(0);
    let [low, high] = mask.to_le_bytes();
    Term(vec![0x22, low, high])
}
/// An ISA DMA channel list: compatibility timing, not a bus master, 8 bits (6.4.2.2).
pub fn dma(mask: u8) -> Term {
    Term(vec![0x2a, mask, 0])
}
/// A consumer's level-triggered, active-high, shared interrupts (6.4.3.6); several for a choice.
pub fn interrupts(numbers: &[u32]) -> Term {
    let mut bytes = vec![0x89];
    bytes.extend_from_slice(&(2 + 4 * numbers.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&[0b1001, numbers.len() as u8]);
    numbers.iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
    Term(bytes)
}
