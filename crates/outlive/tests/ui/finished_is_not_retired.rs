//! `finished` never means that memory may be touched.

fn reuse_after(_memory: outlive::Retired) {}

fn misuse(job: &outlive::JobFences) {
    reuse_after(job.finished());
}

fn main() {
    let _ = misuse;
}
