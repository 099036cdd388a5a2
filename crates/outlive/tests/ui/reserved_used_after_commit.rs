//! What is published is out of its submitter's hands, payload included.

fn later<D: outlive::Driver<Job = u32>>(mut job: outlive::Reserved<D>) {
    let _fences = job.commit();
    *job = 7;
}

fn main() {}
