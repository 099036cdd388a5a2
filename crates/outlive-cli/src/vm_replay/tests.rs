//! Scripts and what they print, line by line; and what cannot be read.

use super::replay::replay;
use super::script::Script;
use super::tables::Tables;

const HEAD: &str = "space 0x0 0x1000000000000\n";

fn printed(text: &str) -> (String, usize) {
    printed_by(text, None, 1000)
}

fn printed_by(text: &str, tables: Option<Tables>, mappings_max: usize) -> (String, usize) {
    let script = Script::parse("s.txt", text).map_err(|error| error.to_string());
    let mut printed = String::new();
    let refused = replay(&script.unwrap(), tables, mappings_max, &mut |text| {
        printed.push_str(text);
        Ok(())
    });
    (printed, refused.map_err(|_| "not printed").unwrap())
}

/// `lines` after a head of one line print `wanted`, with nothing refused.
fn prints(lines: &str, wanted: &[&str]) {
    let (text, refused) = printed(&format!("{HEAD}{lines}"));
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(refused, 0);
}

/// Of `lines` after a head of one line, the last is refused, with a message that contains `why`, and changes nothing.
fn refuses(lines: &str, why: &str) {
    let (text, refused) = printed(&format!("{HEAD}{lines}\ndump\n"));
    let number = lines.lines().count() + 1;
    let refusal = text.lines().rev().nth(1).unwrap_or_default();
    assert!(refusal.starts_with(&format!("{{\"line\":{number},\"error\":\"")), "{text}");
    assert!(refusal.contains(why), "no {why:?} in {refusal}");
    assert_eq!(refused, 1, "{text}");
    let (before, _) = printed(&format!(
        "{HEAD}{}\ndump\n",
        lines.lines().rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    ));
    let dump = |text: &str| text.lines().last().map(|line| line.split_once(',').map(|(_, rest)| rest.to_owned()));
    assert_eq!(dump(&text), dump(&before), "a refused line changes nothing");
}

/// `text` cannot be read: at `line`, for `why`.
fn unreadable(text: &str, line: usize, why: &str) {
    let error = Script::parse("s.txt", text).unwrap_err();
    assert_eq!(error.line, Some(line), "{error}");
    assert!(error.what.contains(why), "{error}");
    assert!(!error.expected.is_empty());
}

#[test]
fn the_example_of_the_contract_word_for_word() {
    let script = "bo a 0x400000\n\n\n\n\nmap 0x100000 0x3000 a 0x0\n\nunmap 0x101000 0x1000\n";
    prints(
        script,
        &[
            r#"{"line":7,"steps":[{"op":"map","va":"0x100000","len":"0x3000","bo":"a","offset":"0x0"}]}"#,
            r#"{"line":9,"steps":[{"op":"remap","unmap":{"va":"0x100000","len":"0x3000","bo":"a","offset":"0x0"},"prev":{"va":"0x100000","len":"0x1000","bo":"a","offset":"0x0"},"next":{"va":"0x102000","len":"0x1000","bo":"a","offset":"0x2000"},"keep":false}]}"#,
        ],
    );
}

#[test]
fn unmaps_come_first_and_the_map_last_with_keep() {
    prints(
        "bo a 0x10000\nmap 0x2000 0x1000 a 0x2000\nmap 0x0 0x1000 a 0x5000\nmap 0x0 0x4000 a 0x0\nmap 0x0 0x4000 a 0x0\nunmap 0x8000 0x1000",
        &[
            r#"{"line":3,"steps":[{"op":"map","va":"0x2000","len":"0x1000","bo":"a","offset":"0x2000"}]}"#,
            r#"{"line":4,"steps":[{"op":"map","va":"0x0","len":"0x1000","bo":"a","offset":"0x5000"}]}"#,
            r#"{"line":5,"steps":[{"op":"unmap","va":"0x0","len":"0x1000","bo":"a","offset":"0x5000","keep":false},{"op":"unmap","va":"0x2000","len":"0x1000","bo":"a","offset":"0x2000","keep":true},{"op":"map","va":"0x0","len":"0x4000","bo":"a","offset":"0x0"}]}"#,
            r#"{"line":6,"steps":[]}"#,
            r#"{"line":7,"steps":[]}"#,
        ],
    );
}

#[test]
fn sparse_repeated_and_read_only_survive_splits() {
    prints(
        "bo a 0x400000\nmap 0x200000 0x3000 sparse read-only\nunmap 0x200000 0x1000\nmap 0x300000 0x4000 a 0x1000 repeat=0x2000 read-only\nunmap 0x300000 0x1000\ndump",
        &[
            r#"{"line":3,"steps":[{"op":"map","va":"0x200000","len":"0x3000","bo":null,"offset":"0x0","read_only":true}]}"#,
            r#"{"line":4,"steps":[{"op":"remap","unmap":{"va":"0x200000","len":"0x3000","bo":null,"offset":"0x0","read_only":true},"next":{"va":"0x201000","len":"0x2000","bo":null,"offset":"0x0","read_only":true},"keep":false}]}"#,
            r#"{"line":5,"steps":[{"op":"map","va":"0x300000","len":"0x4000","bo":"a","offset":"0x1000","repeat":"0x2000","read_only":true}]}"#,
            r#"{"line":6,"steps":[{"op":"remap","unmap":{"va":"0x300000","len":"0x4000","bo":"a","offset":"0x1000","repeat":"0x2000","read_only":true},"next":{"va":"0x301000","len":"0x3000","bo":"a","offset":"0x1000","repeat":"0x2000","phase":"0x1000","read_only":true},"keep":false}]}"#,
            r#"{"line":7,"mappings":[{"va":"0x201000","len":"0x2000","bo":null,"offset":"0x0","read_only":true},{"va":"0x301000","len":"0x3000","bo":"a","offset":"0x1000","repeat":"0x2000","phase":"0x1000","read_only":true}]}"#,
        ],
    );
}

#[test]
fn a_batch_is_one_plan_and_prints_at_its_end() {
    prints(
        "bo a 0x10000\nbatch\nmap 0x0 0x2000 a 0x0\nunmap 0x1000 0x1000\nend\nbatch\nend\ndump",
        &[
            r#"{"line":6,"steps":[{"op":"map","va":"0x0","len":"0x2000","bo":"a","offset":"0x0"},{"op":"remap","unmap":{"va":"0x0","len":"0x2000","bo":"a","offset":"0x0"},"prev":{"va":"0x0","len":"0x1000","bo":"a","offset":"0x0"},"keep":false}]}"#,
            r#"{"line":8,"steps":[]}"#,
            r#"{"line":9,"mappings":[{"va":"0x0","len":"0x1000","bo":"a","offset":"0x0"}]}"#,
        ],
    );
}

#[test]
fn a_refused_batch_names_its_first_line_at_fault_and_changes_nothing() {
    let batch =
        |lines: &str| printed(&format!("{HEAD}bo a 0x10000\nbatch\nmap 0x0 0x2000 a 0x0\n{lines}\nend\ndump\n"));
    let line = |lines: &str| {
        let (text, refused) = batch(lines);
        assert_eq!((text.lines().count(), refused), (2, 1), "{text}");
        assert!(text.ends_with("\"mappings\":[]}\n"), "{text}");
        text.split(',').next().map(str::to_owned)
    };
    assert_eq!(line("unmap 0x0 0x0"), Some("{\"line\":5".to_owned()));
    assert_eq!(line("unmap 0x0 0x1000\nmap 0x0 0x1000 b 0x0"), Some("{\"line\":6".to_owned()));
    assert_eq!(line("map 0x0 0x1000 a 0x10000\nmap 0x0 0x1000 b 0x0"), Some("{\"line\":5".to_owned()));
}

#[test]
fn close_bo_unmaps_it_everywhere_ascending_and_frees_its_name() {
    prints(
        "bo a 0x10000\nbo b 0x10000\nbatch\nmap 0x5000 0x1000 a 0x0\nmap 0x1000 0x1000 b 0x0\nmap 0x3000 0x1000 a 0x0\nend\nclose-bo a\nbo a 0x1000\nmap 0x9000 0x1000 a 0x0\ndump\nclose-bo a\nclose-bo b\ndump",
        &[
            r#"{"line":8,"steps":[{"op":"map","va":"0x5000","len":"0x1000","bo":"a","offset":"0x0"},{"op":"map","va":"0x1000","len":"0x1000","bo":"b","offset":"0x0"},{"op":"map","va":"0x3000","len":"0x1000","bo":"a","offset":"0x0"}]}"#,
            r#"{"line":9,"steps":[{"op":"unmap","va":"0x3000","len":"0x1000","bo":"a","offset":"0x0","keep":false},{"op":"unmap","va":"0x5000","len":"0x1000","bo":"a","offset":"0x0","keep":false}]}"#,
            r#"{"line":11,"steps":[{"op":"map","va":"0x9000","len":"0x1000","bo":"a","offset":"0x0"}]}"#,
            r#"{"line":12,"mappings":[{"va":"0x1000","len":"0x1000","bo":"b","offset":"0x0"},{"va":"0x9000","len":"0x1000","bo":"a","offset":"0x0"}]}"#,
            r#"{"line":13,"steps":[{"op":"unmap","va":"0x9000","len":"0x1000","bo":"a","offset":"0x0","keep":false}]}"#,
            r#"{"line":14,"steps":[{"op":"unmap","va":"0x1000","len":"0x1000","bo":"b","offset":"0x0","keep":false}]}"#,
            r#"{"line":15,"mappings":[]}"#,
        ],
    );
}

#[test]
fn protect_changes_what_is_mapped_and_passes_over_holes() {
    prints(
        "bo a 0x10000\nmap 0x0 0x1000 a 0x0\nmap 0x2000 0x2000 a 0x2000\nprotect 0x0 0x3000 read-only\nprotect 0x0 0x1000 read-write\nprotect 0x0 0x1000 read-write",
        &[
            r#"{"line":3,"steps":[{"op":"map","va":"0x0","len":"0x1000","bo":"a","offset":"0x0"}]}"#,
            r#"{"line":4,"steps":[{"op":"map","va":"0x2000","len":"0x2000","bo":"a","offset":"0x2000"}]}"#,
            r#"{"line":5,"steps":[{"op":"unmap","va":"0x0","len":"0x1000","bo":"a","offset":"0x0","keep":false},{"op":"map","va":"0x0","len":"0x1000","bo":"a","offset":"0x0","read_only":true},{"op":"remap","unmap":{"va":"0x2000","len":"0x2000","bo":"a","offset":"0x2000"},"next":{"va":"0x3000","len":"0x1000","bo":"a","offset":"0x3000"},"keep":false},{"op":"map","va":"0x2000","len":"0x1000","bo":"a","offset":"0x2000","read_only":true}]}"#,
            r#"{"line":6,"steps":[{"op":"unmap","va":"0x0","len":"0x1000","bo":"a","offset":"0x0","read_only":true,"keep":false},{"op":"map","va":"0x0","len":"0x1000","bo":"a","offset":"0x0"}]}"#,
            r#"{"line":7,"steps":[]}"#,
        ],
    );
}

#[test]
fn numbers_are_decimal_or_hexadecimal_and_comments_are_passed_over() {
    prints(
        "page 65536 # of 64 KiB\n# nothing\n\t\nmap 0x10000 65536 sparse # here\n",
        &[r#"{"line":5,"steps":[{"op":"map","va":"0x10000","len":"0x10000","bo":null,"offset":"0x0"}]}"#],
    );
}

#[test]
fn the_last_page_of_the_64_bit_space_can_be_mapped_and_no_more() {
    let script =
        "space 0xfffffffffffff000 0x1000\nmap 0xfffffffffffff000 0x1000 sparse\nmap 0xfffffffffffff000 0x2000 sparse\n";
    let (text, refused) = printed(script);
    assert!(text.starts_with("{\"line\":2,\"steps\":[{\"op\":\"map\",\"va\":\"0xfffffffffffff000\""), "{text}");
    assert!(text.contains("{\"line\":3,\"error\":\"0xfffffffffffff000 plus 0x2000 exceeds 2^64\"}"), "{text}");
    assert_eq!(refused, 1);
}

#[test]
fn what_is_refused() {
    let bo = "bo a 0x10000\nmap 0x100000 0x4000 a 0x0\n";
    for (line, why) in [
        ("map 0x0 0x0 a 0x0", "empty"),
        ("unmap 0x0 0x0", "empty"),
        ("map 0x800 0x1000 a 0x0", "0x800 is not a multiple of the page size"),
        ("map 0x1000 0x800 a 0x0", "0x800 is not a multiple of the page size"),
        ("map 0x1000 0x1000 a 0x10", "offset 0x10 is not a multiple"),
        ("map 0x1000 0x1000 a 0x10000", "exceeds the buffer's size 0x10000"),
        ("map 0x1000 0x11000 a 0x0", "exceeds the buffer's size 0x10000"),
        ("map 0x1000 0x1000 a 0xfffffffffffff000", "exceeds the buffer's size"),
        ("map 0xffffffffff000 0x1000 sparse", "not inside the address space"),
        ("map 0x1000000000000 0x1000 sparse", "not inside the address space"),
        ("map 0x1000 0x3000 a 0x0 repeat=0x2000", "divides the length"),
        ("map 0x1000 0x3000 a 0x0 repeat=0x0", "nonzero"),
        ("map 0x1000 0x1000 b 0x0", "no BO `b`"),
        ("protect 0x1000 0x0 read-only", "empty"),
        ("close-bo b", "no BO `b`"),
        ("bo a 0x1000", "there is a BO `a` already"),
        ("bo b 0x0", "no bytes"),
        ("page 0x2000", "before all else"),
        ("reserve 0x100000 0x1000", "in use"),
        ("reserve 0x1000 0x0", "empty"),
        ("space 0x0 0x1000", "already"),
    ] {
        refuses(&format!("{bo}{line}"), why);
    }
    refuses("reserve 0x0 0x10000\nmap 0xf000 0x2000 sparse", "reserved");
    refuses("reserve 0x0 0x10000\nunmap 0x0 0x1000", "reserved");
    refuses("page 0x1800", "not a power of two");
    refuses("page 0x0", "not a power of two");
    let (text, refused) = printed("space 0x0 0x0\nbo a 0x1000\ndump\nbatch\nmap 0x0 0x1000 sparse\nend\n");
    assert_eq!(refused, 4, "{text}");
    assert!(text.starts_with("{\"line\":1,\"error\":\"the range is empty"), "{text}");
}

#[test]
fn what_cannot_be_read() {
    for (line, why) in [
        ("mapp 0x0 0x1000 sparse", "`mapp` is no operation"),
        ("map 0x0", "ends too early"),
        ("map 0x0 0x1000", "ends too early"),
        ("map 0x0 0x1000 a", "ends too early"),
        ("map 0x0 0x1000 a 0x0 0x0", "`0x0`"),
        ("map 0x0 0x1000 a 0x0 read-only read-only", "`read-only`"),
        ("map 0x0 0x1000 a 0x0 repeat=", "`` is no number"),
        ("map 0x0 0x1000 sparse repeat=0x1000", "sparse mapping with a window"),
        ("map 0x 0x1000 sparse", "`0x` is no number"),
        ("map -1 0x1000 sparse", "`-1` is no number"),
        ("map +1 0x1000 sparse", "`+1` is no number"),
        ("map 0xg 0x1000 sparse", "`0xg` is no number"),
        ("map 0x10000000000000000 0x1000 sparse", "too large"),
        ("unmap 0x0 0x1000 a", "`a` after the operation"),
        ("protect 0x0 0x1000 rw", "`rw`"),
        ("bo sparse 0x1000", "`sparse`"),
        ("bo a=b 0x1000", "`a=b`"),
        ("bo a", "ends too early"),
        ("dump all", "`all` after the operation"),
        ("end", "`end` without a batch"),
        ("batch", "a batch without an end"),
        ("batch 1", "`1` after the operation"),
    ] {
        unreadable(&format!("{HEAD}# two\n{line}\n"), 3, why);
    }
    unreadable(&format!("{HEAD}batch\ndump\nend\n"), 3, "`dump` in a batch");
    unreadable(&format!("{HEAD}batch\nbatch\nend\n"), 3, "`batch` in a batch");
    unreadable("\nbo a 0x1000\n", 2, "the script starts with `bo`");
    let error = Script::parse("s.txt", "# nothing\n").unwrap_err();
    assert_eq!(error.to_string(), "s.txt: there is nothing in it; expected `space BASE LENGTH` before all else");
}

/// A device that runs out of memory for page tables in the middle of a batch holds what it held.
#[test]
fn a_batch_for_which_there_are_no_page_tables_is_undone() {
    let script = "\
bo a 0x40001000
map 0x200000 0x200000 a 0x0
batch
map 0x0 0x400000 a 0x0
map 0x200000 0x1000 a 0x0
map 0x300000 0x1000 sparse
map 0x8000000000 0x40000000 a 0x1000
end
";
    let (printed, refused) = printed_by(&format!("{HEAD}{script}"), Some(Tables::new(1 << 20).unwrap()), 1000);
    let end: Vec<_> = printed.lines().skip(1).collect();
    let held = r#"[{"va":"0x200000","len":"0x200000","page":"0x200000","bo":"a","offset":"0x0"}]"#;
    let why = "the simulated device has no memory for more page tables";
    assert_eq!(end, [format!(r#"{{"line":8,"error":"{why}"}}"#), format!(r#"{{"line":9,"page_tables":{held}}}"#)]);
    assert_eq!(refused, 1);
}

/// A batch that would be too many changes nothing; what makes room goes on.
#[test]
fn no_more_mappings_than_the_cap() {
    let script = format!(
        "{HEAD}batch\nmap 0x0 0x1000 sparse\nmap 0x2000 0x1000 sparse\nmap 0x4000 0x1000 sparse\nend\nmap 0x0 0x3000 sparse\nunmap 0x1000 0x1000\nunmap 0x0 0x1000\ndump\n"
    );
    let (printed, refused) = printed_by(&script, None, 2);
    assert_eq!(refused, 1, "{printed}");
    assert!(printed.starts_with("{\"line\":5,\"error\":\"more than 2 mappings"), "{printed}");
    assert!(
        printed.ends_with("\"mappings\":[{\"va\":\"0x2000\",\"len\":\"0x1000\",\"bo\":null,\"offset\":\"0x0\"}]}\n"),
        "{printed}"
    );
}

/// What is long is printed in pieces, whole.
#[test]
fn long_output_is_whole() {
    let lines: String = (0..2000).map(|at| format!("map {:#x} 0x1000 sparse\n", at * 0x2000)).collect();
    let (printed, refused) = printed_by(&format!("{HEAD}{lines}"), None, 5000);
    assert_eq!((refused, printed.lines().count()), (0, 2000));
    assert!(printed.len() > 1 << 17 && printed.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
}

/// A window's pages are printed once.
#[test]
fn a_repeated_window_is_one_entry_of_the_page_tables() {
    let script = "bo a 0x10000\nmap 0x4000 0x8000 a 0x0 repeat=0x2000\nunmap 0x4000 0x1000\nunmap 0xb000 0x1000\nmap 0x20000 0x1000 a 0x0\nmap 0x21000 0x1000 a 0x0 read-only\n";
    let (printed, _) = printed_by(&format!("{HEAD}{script}"), Some(Tables::new(1 << 20).unwrap()), 1000);
    let held = [
        r#"{"va":"0x5000","len":"0x1000","page":"0x1000","bo":"a","offset":"0x1000"}"#,
        r#"{"va":"0x6000","len":"0x5000","page":"0x1000","bo":"a","offset":"0x0","repeat":"0x2000"}"#,
        r#"{"va":"0x20000","len":"0x1000","page":"0x1000","bo":"a","offset":"0x0"}"#,
        r#"{"va":"0x21000","len":"0x1000","page":"0x1000","bo":"a","offset":"0x0","read_only":true}"#,
    ];
    let end = printed.lines().last().unwrap();
    assert_eq!(end, format!(r#"{{"line":7,"page_tables":[{}]}}"#, held.join(",")));
}
