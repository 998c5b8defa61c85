//! Network back ends by option text.

use rhea_device::OptionError;
use rhea_device::options::split;
use rhea_net::{NetBackend, NetdevOptions};
use std::sync::Arc;

/// Opens the back end of a `-netdev` or of a `-nic` without the card's keys; also gives its id.
///
/// # Errors
/// [`OptionError`].
pub fn open(option: &str, text: &str) -> Result<(Option<String>, Arc<dyn NetBackend>), OptionError> {
    let pairs = split(text);
    let Some(((kind, None), rest)) = pairs.split_first() else {
        return Err(OptionError::new(option, format!("'{text}': expected a back end first: user or tap")));
    };
    let options = NetdevOptions::from_pairs(option, kind, rest)?;
    Ok((options.id.clone(), options.open()?))
}
