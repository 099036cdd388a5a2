//! There is one completion per job.

fn two(done: outlive::Completion) -> (outlive::Completion, outlive::Completion) {
    (Clone::clone(&done), done)
}

fn main() {
    let _ = two;
}
