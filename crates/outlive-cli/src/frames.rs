//! What clients drew, as pictures in a folder. Used by `outlive run`.
//!
//! [`FrameWriter::prepare`] is asked before the run, so that a folder that takes no files is bad input and nothing is half
//! done. Each file is there whole or not at all. A frame of an earlier run under the same name is replaced; others stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::args::shown;
use crate::error::Stop;
use crate::output;

const BYTES_PER_PIXEL: usize = 4;

/// A picture: rows of red, green, blue and opacity, a byte each, from the upper left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    rgba: Vec<u8>,
}

impl Image {
    /// Of these bytes; nothing if they are not `width` times `height` pixels, or are no pixels at all.
    #[must_use]
    pub fn new(width: u32, height: u32, rgba: Vec<u8>) -> Option<Self> {
        let bytes = usize::try_from(u64::from(width) * u64::from(height)).ok()?.checked_mul(BYTES_PER_PIXEL)?;
        (bytes > 0 && bytes == rgba.len()).then_some(Self { width, height, rgba })
    }

    /// In pixels.
    #[must_use]
    pub const fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Its bytes.
    #[must_use]
    pub fn rgba(&self) -> &[u8] {
        &self.rgba
    }

    /// As a PNG file.
    ///
    /// # Errors
    ///
    /// Never for a picture that memory holds, as far as the encoder is right.
    pub fn to_png(&self) -> io::Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        // Most frames are opaque; a quarter of their bytes would say so.
        let is_opaque = self.rgba.chunks_exact(BYTES_PER_PIXEL).all(|pixel| pixel[3] == u8::MAX);
        encoder.set_color(if is_opaque { png::ColorType::Rgb } else { png::ColorType::Rgba });
        encoder.set_depth(png::BitDepth::Eight);
        // Frames come faster than thorough compression goes.
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        if is_opaque {
            let rgb: Vec<u8> = self.rgba.chunks_exact(BYTES_PER_PIXEL).flat_map(|pixel| &pixel[..3]).copied().collect();
            writer.write_image_data(&rgb).map_err(io::Error::other)?;
        } else {
            writer.write_image_data(&self.rgba).map_err(io::Error::other)?;
        }
        writer.finish().map_err(io::Error::other)?;
        Ok(file)
    }

    /// Half as large as often as needed to be at most `width_max` wide; each pixel is the mean of those it stands for.
    #[must_use]
    pub fn thumbnail(&self, width_max: u32) -> Self {
        let mut small = self.clone();
        while small.width > width_max.max(1) && small.width > 1 && small.height > 1 {
            small = small.halved();
        }
        small
    }

    fn halved(&self) -> Self {
        let (width, height) = (self.width / 2, self.height / 2);
        let mut rgba = Vec::with_capacity(self.rgba.len() / 4);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..BYTES_PER_PIXEL {
                    let corners = [(0, 0), (1, 0), (0, 1), (1, 1)];
                    let byte = |(right, down)| self.rgba[self.offset(2 * x + right, 2 * y + down) + channel];
                    let sum: u16 = corners.into_iter().map(|corner| u16::from(byte(corner))).sum();
                    // CAST: the mean of bytes, rounded, is a byte.
                    rgba.push(((sum + 2) / 4) as u8);
                }
            }
        }
        Self { width, height, rgba }
    }

    fn offset(&self, x: u32, y: u32) -> usize {
        // CAST: u32 to usize only widens where this runs.
        (y as usize * self.width as usize + x as usize) * BYTES_PER_PIXEL
    }
}

/// All of `images` side by side, `columns` in a row, on white; nothing where there are none. Cells are as large as the
/// largest image.
#[must_use]
pub fn contact_sheet(images: &[Image], columns: u32) -> Option<Image> {
    const GAP: u32 = 4;
    let count = u32::try_from(images.len()).ok()?;
    let columns = columns.clamp(1, count.max(1));
    let cell_width = images.iter().map(|image| image.width).max()?.checked_add(GAP)?;
    let cell_height = images.iter().map(|image| image.height).max()?.checked_add(GAP)?;
    let width = cell_width.checked_mul(columns)?.checked_add(GAP)?;
    let height = cell_height.checked_mul(count.div_ceil(columns))?.checked_add(GAP)?;
    let bytes = usize::try_from(u64::from(width) * u64::from(height)).ok()?.checked_mul(BYTES_PER_PIXEL)?;
    let mut sheet = Image { width, height, rgba: vec![u8::MAX; bytes] };
    for (image, place) in images.iter().zip(0..) {
        let left = GAP + place % columns * cell_width;
        let top = GAP + place / columns * cell_height;
        for y in 0..image.height {
            let row = image.offset(0, y)..image.offset(0, y + 1);
            let to = sheet.offset(left, top + y);
            sheet.rgba[to..to + row.len()].copy_from_slice(&image.rgba[row]);
        }
    }
    Some(sheet)
}

/// Writes frames into a folder: `<client>/frame-000123.png`.
#[derive(Debug, Clone)]
pub struct FrameWriter {
    folder: PathBuf,
}

impl FrameWriter {
    /// For `folder`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made, or takes no files: bad input. What was made on the way is gone again.
    pub fn prepare(folder: &Path) -> Result<Self, Stop> {
        let missing: Vec<&Path> =
            folder.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
        fs::create_dir_all(folder).and_then(|()| output::try_folder(folder)).map_err(|error| {
            for part in missing {
                // Only what is empty goes away, and what was never made is not there.
                let _ = fs::remove_dir(part);
            }
            Stop::bad_input(format_args!(
                "{}: cannot be written to: {error}; expected a folder that takes files",
                shown(folder)
            ))
        })?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where they go.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes one frame of the client called `client`, and says where.
    ///
    /// # Errors
    ///
    /// From the operating system, as when the disk is full.
    pub fn write(&self, client: &str, number: u64, image: &Image) -> io::Result<PathBuf> {
        self.write_png(client, &format!("frame-{number:06}.png"), image)
    }

    /// Writes the client's contact sheet, and says where.
    ///
    /// # Errors
    ///
    /// From the operating system, as when the disk is full.
    pub fn write_sheet(&self, client: &str, sheet: &Image) -> io::Result<PathBuf> {
        self.write_png(client, "contact-sheet.png", sheet)
    }

    fn write_png(&self, client: &str, name: &str, image: &Image) -> io::Result<PathBuf> {
        let folder = self.folder.join(folder_name(client));
        fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        output::write_whole(&path, &image.to_png()?)?;
        Ok(path)
    }
}

/// A client's name as the name of a folder. What could mean something to a file system (`/`, `:`, `*`) becomes `%2f`, and so
/// does `%`, so that two clients never share a folder. Names end in an index, so none is `.` or `..`.
fn folder_name(client: &str) -> String {
    let mut name = String::new();
    for character in client.chars() {
        if character.is_alphanumeric() || matches!(character, '.' | '-' | '_' | ' ') {
            name.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                name.push_str(&format!("%{byte:02x}"));
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, byte: u8) -> Image {
        Image::new(width, height, vec![byte; (width * height * 4) as usize]).unwrap()
    }

    #[test]
    fn an_image_has_as_many_bytes_as_pixels() {
        assert!(Image::new(2, 2, vec![0; 15]).is_none());
        assert!(Image::new(0, 2, Vec::new()).is_none());
    }

    #[test]
    fn a_frame_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let writer = FrameWriter::prepare(&folder.path().join("out/frames")).unwrap();
        let frame = Image::new(2, 1, vec![1, 2, 3, 255, 4, 5, 6, 128]).unwrap();
        let path = writer.write("a/b:c.0", 123, &frame).unwrap();
        assert_eq!(path, folder.path().join("out/frames/a%2fb%3ac.0/frame-000123.png"));
        let mut reader = png::Decoder::new(io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height, bytes.as_slice()), (2, 1, frame.rgba()));
    }

    #[test]
    fn a_folder_that_cannot_be_is_refused_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = FrameWriter::prepare(&folder.path().join("file/below")).unwrap_err();
        assert_eq!(error.exit, crate::error::Exit::BadInput);
        assert!(error.message.contains("file/below`: cannot be written to: "), "{error}");
        // A name longer than any file system takes, below a folder that could be made.
        let long = folder.path().join("made").join("x".repeat(5000));
        assert!(FrameWriter::prepare(&long).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_thumbnail_is_the_mean() {
        let bytes: Vec<u8> = [0, 10, 20, 31].into_iter().flat_map(|byte| [byte; 4]).collect();
        let small = Image::new(2, 2, bytes).unwrap().thumbnail(1);
        // 61 / 4 is 15.25.
        assert_eq!((small.size(), small.rgba()), ((1, 1), &[15_u8; 4][..]));
        assert_eq!(image(9, 9, 7).thumbnail(4), image(4, 4, 7));
        assert_eq!(image(3, 3, 7).thumbnail(3), image(3, 3, 7));
    }

    #[test]
    fn a_contact_sheet_has_every_image_once() {
        let sheet = contact_sheet(&[image(2, 2, 1), image(2, 2, 2), image(1, 1, 3)], 2).unwrap();
        assert_eq!(sheet.size(), (4 + 2 * 6, 4 + 2 * 6));
        let count = |byte: u8| sheet.rgba().iter().filter(|found| **found == byte).count();
        assert_eq!([count(1), count(2), count(3)], [16, 16, 4]);
        assert!(contact_sheet(&[], 3).is_none());
    }

    #[test]
    fn two_clients_never_share_a_folder() {
        assert_ne!(folder_name("a/b.0"), folder_name("a%2fb.0"));
        assert_eq!(folder_name("desktop.0"), "desktop.0");
    }
}
