//! A published job never depends on a user fence; `commit_when` publishes it after one.

fn submit<D>(queue: &outlive::JobQueue<D>, user: outlive::UserFence)
where
    D: outlive::Driver<Job = u32>,
{
    let _ = queue.reserve_after(1, [user]);
}

fn main() {}
