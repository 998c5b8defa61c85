//! `-fw_cfg [name=]NAME,file=FILE|string=TEXT`: files of the user's own in the configuration device.

use rhea_device::options::{OptionError, split};

/// A file the user adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFile {
    pub name: String,
    pub data: Vec<u8>,
}

impl UserFile {
    /// Names of the user's own files start so; others may stand in the way of the machine's.
    pub const PREFIX: &'static str = "opt/";

    /// Takes the text behind `-fw_cfg`.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let error = |message: String| OptionError::new("-fw_cfg", message);
        let (mut name, mut file, mut string) = (None, None, None);
        for (n, (key, value)) in split(text).into_iter().enumerate() {
            let (field, value) = match (key.as_str(), value) {
                ("name", Some(v)) => (&mut name, v),
                ("file", Some(v)) => (&mut file, v),
                ("string", Some(v)) => (&mut string, v),
                ("name" | "file" | "string", None) => return Err(error(format!("property '{key}' needs a value"))),
                (_, None) if n == 0 => (&mut name, key.clone()),
                _ => {
                    return Err(error(format!("unknown property '{key}': properties are name, file, string")));
                }
            };
            if field.replace(value).is_some() {
                return Err(error(format!("property '{key}' is given twice: give it once")));
            }
        }
        let name = name.filter(|n| !n.is_empty()).ok_or_else(|| error("property 'name' is missing".to_owned()))?;
        if name.len() > 55 || !name.is_ascii() {
            return Err(error(format!("name '{name}': expected at most 55 ASCII characters")));
        }
        let data = match (file, string) {
            (Some(file), None) => std::fs::read(&file).map_err(|e| error(format!("'{file}': {e}")))?,
            (None, Some(string)) => string.into_bytes(),
            _ => return Err(error(format!("'{name}': give either file=FILE or string=TEXT"))),
        };
        Ok(Self { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse() {
        let file = UserFile::parse("name=opt/x,string=a,,b=c").unwrap();
        assert_eq!((file.name.as_str(), file.data.as_slice()), ("opt/x", &b"a,b=c"[..]));
        assert_eq!(UserFile::parse("opt/y,string=").unwrap().data, b"");
        for bad in
            ["", "string=x", "opt/x", "opt/x,file=/nonexistent", "opt/x,string=1,file=2", "opt/x,q=1", "name,string=1"]
        {
            assert!(UserFile::parse(bad).unwrap_err().to_string().starts_with("-fw_cfg: "), "{bad}");
        }
        assert!(UserFile::parse(&format!("{},string=1", "x".repeat(56))).is_err());
    }
}
