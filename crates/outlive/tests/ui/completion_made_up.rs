//! A driver gets its completions; making one from a word is unsafe.

fn forge(cookie: u64) -> outlive::Completion {
    outlive::Completion::from_cookie(cookie)
}

fn main() {
    let _ = forge;
}
