//! A batch runs once.

fn twice<D: outlive::vm::ImmediateDriver>(bind: outlive::vm::Bind<D>, done: [outlive::Completion; 2]) {
    done.map(|done| bind.run(done));
}

fn main() {}
