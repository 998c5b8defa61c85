//! Pictures as files.

use crate::Surface;
use std::io::{Error, Result};

/// A format of `screendump`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    /// Portable pixmap, binary (P6).
    #[default]
    Ppm,
    Png,
}

impl ImageFormat {
    /// The format called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ppm" => Some(Self::Ppm),
            "png" => Some(Self::Png),
            _ => None,
        }
    }
}

/// The picture as a file of a format.
///
/// # Errors
/// The encoder's error.
pub fn encode(surface: &Surface, format: ImageFormat) -> Result<Vec<u8>> {
    let (width, height) = (surface.width(), surface.height());
    let mut rgb = Vec::with_capacity(width * height * 3 + 32);
    if format == ImageFormat::Ppm {
        rgb.extend_from_slice(format!("P6\n{width} {height}\n255\n").as_bytes());
    }
    for y in 0..height {
        for pixel in surface.line(y) {
            let [_, r, g, b] = pixel.to_be_bytes();
            rgb.extend_from_slice(&[r, g, b]);
        }
    }
    if format == ImageFormat::Ppm {
        return Ok(rgb);
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(Error::other)?;
    writer.write_image_data(&rgb).map_err(Error::other)?;
    writer.finish().map_err(Error::other)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let mut s = Surface::default();
        s.resize(2, 1);
        s.put(0, 0, &[0x0012_3456, 0x00ff_0001]);
        assert_eq!(encode(&s, ImageFormat::Ppm).unwrap(), b"P6\n2 1\n255\n\x12\x34\x56\xff\x00\x01");
        let file = encode(&s, ImageFormat::Png).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut data).unwrap();
        assert_eq!((info.width, info.height), (2, 1));
        assert_eq!(&data[..6], b"\x12\x34\x56\xff\x00\x01");
    }
}
