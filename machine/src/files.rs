//! Files the user names.

use rhea_device::OptionError;
use std::path::Path;

/// `'PATH': what`.
pub fn at(path: &Path, what: impl std::fmt::Display) -> String {
    let text = what.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_owned();
    format!("'{}': {text}", path.display())
}

/// The whole file.
///
/// # Errors
/// [`OptionError`] that names option and file.
pub fn read(option: &str, path: &Path) -> Result<Vec<u8>, OptionError> {
    std::fs::read(path).map_err(|e| OptionError::new(option, at(path, e)))
}
