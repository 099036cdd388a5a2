//! The gears as a device draws them: looked at by numbers here, and by a person in the files that the test leaves in the
//! target folder.

#![expect(clippy::unwrap_used, reason = "tests")]

extern crate alloc;

mod common;

use alloc::collections::BTreeSet;
use common::{Host, MS, small};
use outlive_sim::gpu::{Command, PAGE_BYTES};
use std::path::Path;

const SIDE: u32 = 512;

fn frame(number: u32) -> Vec<u8> {
    let mut host = Host::new(small());
    let ring = host.ring();
    let bytes = (SIDE * SIDE * 4) as usize;
    let buffer = host.buffer(u32::try_from(bytes / PAGE_BYTES).unwrap());
    let gears = Command::Gears { va: buffer.va, width: SIDE, height: SIDE, frame: number };
    let job = host.job(&[gears], 3 * MS);
    host.submit(ring, &job);
    host.run_to(5 * MS);
    assert_eq!(host.interrupts[0].result, Ok(()));
    let pages = buffer.pages.iter();
    let picture = pages.flat_map(|page| host.memory.page(*page).unwrap().to_vec()).collect();
    assert!(host.audit().is_clean());
    picture
}

fn save(picture: &[u8], name: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(std::io::BufWriter::new(file), SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(picture).unwrap();
}

#[test]
fn a_frame_shows_three_gears_and_the_next_shows_them_turned() {
    let (first, later) = (frame(0), frame(11));
    save(&first, "gears-000.png");
    save(&later, "gears-011.png");
    let pixels = first.chunks_exact(4);
    let strongest = |channel: usize| {
        let is = |pixel: &&[u8]| {
            let others = (0..3).filter(|other| *other != channel);
            others.into_iter().all(|other| i32::from(pixel[channel]) > i32::from(pixel[other]) + 40)
        };
        pixels.clone().filter(is).count()
    };
    let all = (SIDE * SIDE) as usize;
    let (red, green, blue) = (strongest(0), strongest(1), strongest(2));
    assert!(red > all / 8 && green > all / 32 && blue > all / 32, "{red} {green} {blue}");
    assert!(red > 2 * green && red > 2 * blue, "{red} {green} {blue}");
    assert!(pixels.clone().all(|pixel| pixel[3] == 255));
    let levels: BTreeSet<u8> = pixels.map(|pixel| pixel[0]).collect();
    assert!(levels.len() > 150, "shaded and smooth, not flat: {} levels of red", levels.len());
    let differing = first.chunks_exact(4).zip(later.chunks_exact(4)).filter(|(a, b)| a != b);
    let share = differing.count() * 100 / all;
    assert!((5..70).contains(&share), "{share} % of the pixels differ");
}
