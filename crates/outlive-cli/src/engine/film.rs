//! Frames on their way to files: encoded and written by a thread of their own, so that no client waits for a disk.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::frames::{FrameWriter, Image, contact_sheet};

/// Pixels in a row, and rows, of a frame of gears: 144 KiB.
pub(super) const SIDE: u32 = 192;
/// Frames that may wait to be written. A run in real time that draws faster than files are written is held up then.
const WAITING_MAX: usize = 256;
/// A contact sheet has at most so many frames.
const SHEET_MAX: usize = 24;
const SHEET_COLUMNS: u32 = 6;
const THUMBNAIL_WIDTH: u32 = 96;

struct Frame {
    client: usize,
    number: u64,
    rgba: Vec<u8>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Into this folder, one below it for each client.
    pub folder: PathBuf,
    /// Frames.
    pub frames: u64,
}

/// Where frames go.
#[derive(Debug)]
pub(super) struct Film {
    to_writer: SyncSender<Frame>,
    writer: JoinHandle<io::Result<Written>>,
}

impl Film {
    /// Frames of the clients called `names`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(frames: FrameWriter, names: Vec<String>) -> io::Result<Self> {
        let (to_writer, incoming) = sync_channel(WAITING_MAX);
        let write = move || {
            let mut sheets: Vec<Sheet> = names.into_iter().map(Sheet::new).collect();
            let mut written = Written { folder: frames.folder().to_owned(), frames: 0 };
            for Frame { client, number, rgba } in incoming {
                let Some(image) = Image::new(SIDE, SIDE, rgba) else { continue };
                let sheet = &mut sheets[client];
                frames.write(&sheet.client, number, &image)?;
                sheet.add(&image);
                written.frames += 1;
            }
            for sheet in sheets {
                if let Some(picture) = contact_sheet(sheet.whole_rows(), SHEET_COLUMNS) {
                    frames.write_sheet(&sheet.client, &picture)?;
                }
            }
            Ok(written)
        };
        Ok(Self { to_writer, writer: thread::Builder::new().name("frames".to_owned()).spawn(write)? })
    }

    /// A frame was drawn.
    pub(super) fn add(&mut self, client: usize, number: u64, mut rgba: Vec<u8>) {
        // Buffers are whole pages.
        rgba.truncate(SIDE as usize * SIDE as usize * 4);
        // The writer stops at its first error, which `finish` gives.
        let _ = self.to_writer.send(Frame { client, number, rgba });
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// The first that came of writing.
    pub(super) fn finish(self) -> io::Result<Written> {
        drop(self.to_writer);
        self.writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer of frames panicked")))
    }
}

/// A client's frames, evenly chosen from the first to the last so far.
#[derive(Debug)]
struct Sheet {
    client: String,
    images: Vec<Image>,
    /// Each so many-th frame is kept.
    every: usize,
    seen: usize,
}

impl Sheet {
    const fn new(client: String) -> Self {
        Self { client, images: Vec::new(), every: 1, seen: 0 }
    }

    fn add(&mut self, image: &Image) {
        if self.seen.is_multiple_of(self.every) {
            if self.images.len() == SHEET_MAX {
                let mut place = 0;
                self.images.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.every *= 2;
            }
            if self.seen.is_multiple_of(self.every) {
                self.images.push(image.thumbnail(THUMBNAIL_WIDTH));
            }
        }
        self.seen += 1;
    }

    /// Without a last row that is not full; of less than a row, all.
    fn whole_rows(&self) -> &[Image] {
        let columns = SHEET_COLUMNS as usize;
        let shown = if self.images.len() < columns { self.images.len() } else { self.images.len() / columns * columns };
        &self.images[..shown]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_spans_all_frames() {
        let mut sheet = Sheet::new("a.0".to_owned());
        for number in 0..1000_u32 {
            // Frames that can be told apart.
            let rgba = number.to_le_bytes().to_vec();
            sheet.add(&Image::new(1, 1, rgba).unwrap());
        }
        let numbers: Vec<u32> =
            sheet.images.iter().map(|image| u32::from_le_bytes(image.rgba().try_into().unwrap())).collect();
        assert!((SHEET_MAX / 2..=SHEET_MAX).contains(&numbers.len()));
        let every = u32::try_from(sheet.every).unwrap();
        assert!(numbers.iter().enumerate().all(|(place, number)| *number == place as u32 * every), "{numbers:?}");
        assert!(1000 - numbers.last().unwrap() <= every);
        assert_eq!((numbers.len(), sheet.whole_rows().len()), (16, 12));
    }

    #[test]
    fn a_sheet_of_few_frames_has_them_all() {
        let mut sheet = Sheet::new("a.0".to_owned());
        for _ in 0..5 {
            sheet.add(&Image::new(1, 1, vec![0; 4]).unwrap());
        }
        assert_eq!(sheet.whole_rows().len(), 5);
    }
}
