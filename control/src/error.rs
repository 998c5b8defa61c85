//! Errors as clients see them.

use serde_json::{Value, json};

/// What clients tell errors apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    GenericError,
    CommandNotFound,
    DeviceNotActive,
    DeviceNotFound,
    KvmMissingCap,
}

impl ErrorClass {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::KvmMissingCap => "KVMMissingCap",
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub class: ErrorClass,
    /// For people.
    pub text: String,
}

impl Error {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { class: ErrorClass::GenericError, text: text.into() }
    }
    #[must_use]
    pub fn of(class: ErrorClass, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }
    /// There is no device (object, path) of this name.
    #[must_use]
    pub fn no_device(name: &str) -> Self {
        Self::of(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"))
    }
    #[must_use]
    pub fn no_command(name: &str) -> Self {
        Self::of(ErrorClass::CommandNotFound, format!("The command {name} has not been found"))
    }
    /// The value of `error` in a reply.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"class": self.class.name(), "desc": self.text})
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let text = e.to_string();
        Self::new(text.split(" (os error").next().unwrap_or(&text))
    }
}
