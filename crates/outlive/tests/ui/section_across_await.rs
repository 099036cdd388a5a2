//! A signalling section belongs to one thread, and a `Send` future may move to another.

async fn wait(fence: outlive::Fence) {
    let _section = outlive::check::signalling();
    let _ = fence.await;
}

fn spawn(_task: impl Future<Output = ()> + Send) {}

fn main() {
    spawn(wait(outlive::Fence::stub()));
}
