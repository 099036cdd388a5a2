//! A reservation is published once.

fn twice<D: outlive::Driver>(job: outlive::Reserved<D>) -> [outlive::JobFences; 2] {
    [job.commit(), job.commit()]
}

fn main() {}
