//! Network back ends by option text.

use rhea_device::OptionError;
use rhea_device::options::split_or_json;
use rhea_net::{Link, NetdevOptions};
use std::sync::Arc;

/// Opens the back end of a `-netdev` or of a `-nic` without the card's keys; also gives its id.
///
/// # Errors
/// [`OptionError`].
pub fn open(option: &str, text: &str) -> Result<(Option<String>, Arc<Link>), OptionError> {
    // The first word, or `type=` anywhere.
    let mut rest = split_or_json(option, text, "type")?;
    let place = match rest.first() {
        Some((_, None)) => 0,
        _ => rest.iter().position(|(k, _)| k == "type").unwrap_or(rest.len()),
    };
    if place == rest.len() {
        return Err(OptionError::new(option, format!("'{text}': expected a back end first: user or tap")));
    }
    let (word, value) = rest.remove(place);
    let kind = &value.unwrap_or(word);
    let rest = &rest;
    let options = NetdevOptions::from_pairs(option, kind, rest)?;
    Ok((options.id.clone(), Link::new(options.open()?)))
}
