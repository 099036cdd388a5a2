//! KUnit `st-dma-fence-chain`. A chain is a [`Timeline`], its nodes are the points.

use crate::{LONG, mock_fence, pending};
use outlive::{Executor, Fence, Signaler, Timeline, TimelineError};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const CHAIN_SZ: u64 = 4096;

struct Chains {
    timeline: Timeline,
    signalers: Vec<Option<Signaler>>,
    nodes: Vec<Fence>,
}

impl Chains {
    fn new(executor: &Executor, count: u64, seqno: impl Fn(u64) -> u64) -> Self {
        let mut chains = Self { timeline: Timeline::new("chain").unwrap(), signalers: Vec::new(), nodes: Vec::new() };
        for index in 0..count {
            chains.add(executor, seqno(index));
        }
        chains
    }

    fn add(&mut self, executor: &Executor, seqno: u64) {
        let (signaler, fence) = mock_fence(executor);
        self.signalers.push(Some(signaler));
        self.nodes.push(self.timeline.add(seqno, &fence).unwrap());
    }

    fn signal(&mut self, index: usize) {
        self.signalers[index].take().unwrap().signal(Ok(()));
    }

    fn find(&self, seqno: u64) -> Result<Option<usize>, TimelineError> {
        let found = self.timeline.find(seqno)?;
        Ok(found.map(|found| self.nodes.iter().position(|node| *node == found).unwrap()))
    }
}

/// Sequence numbers from 1 on.
fn inc(index: u64) -> u64 {
    index + 1
}

#[test]
fn sanitycheck() {
    let executor = Executor::manual().unwrap();
    let mut chains = Chains::new(&executor, 1, inc);
    chains.nodes[0].on_signaled(|_| {}).unwrap().keep();
    chains.signal(0);
    assert!(chains.nodes[0].is_signaled());
}

#[test]
fn find_seqno() {
    let executor = Executor::manual().unwrap();
    let mut chains = Chains::new(&executor, 0, inc);
    for index in 0..64 {
        chains.add(&executor, inc(index));
        let (at, seqno) = (usize::try_from(index).unwrap(), inc(index));
        assert_eq!(chains.find(0), Ok(None), "0 is always done");
        assert_eq!(chains.find(seqno), Ok(Some(at)), "the node itself");
        assert_eq!(chains.find(seqno + 1), Err(TimelineError::NotSubmitted { last: seqno }));
        assert_eq!(chains.find(seqno - 1), Ok(at.checked_sub(1)), "its predecessor");
    }
    for at in 0..64 {
        assert_eq!(chains.find(inc(at)), Ok(Some(usize::try_from(at).unwrap())));
    }
}

#[test]
fn find_signaled() {
    let executor = Executor::manual().unwrap();
    let mut chains = Chains::new(&executor, 2, inc);
    chains.signal(0);
    assert_eq!(chains.find(1), Ok(None), "done, and collected");
    assert!(chains.nodes[0].is_signaled());
}

#[test]
fn find_out_of_order() {
    let executor = Executor::manual().unwrap();
    let mut chains = Chains::new(&executor, 3, inc);
    chains.signal(1);
    assert_eq!(chains.find(2), Ok(Some(1)));
    assert!(pending(&chains.nodes[1]), "the node before it is pending");
}

#[test]
fn find_gap() {
    let executor = Executor::manual().unwrap();
    let chains = Chains::new(&executor, 64, |index| 2 * index + 2);
    for at in 0..64 {
        let seqno = 2 * u64::try_from(at).unwrap() + 2;
        assert_eq!(chains.find(seqno - 1), Ok(Some(at)), "the next one");
        assert_eq!(chains.find(seqno), Ok(Some(at)));
    }
}

/// All processors look up and signal at random. Upstream takes five seconds; this until all have signaled, at least 300 ms.
#[test]
fn find_race() {
    let executor = Executor::builder().threads().unwrap();
    let chains = Chains::new(&executor, CHAIN_SZ, inc);
    let Chains { timeline, signalers, nodes } = chains;
    let signalers: Vec<_> = signalers.into_iter().map(Mutex::new).collect();
    let (stop, signals) = (AtomicBool::new(false), AtomicU64::new(0));
    let threads = thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2));
    thread::scope(|scope| {
        for seed in 1..=threads {
            let (timeline, signalers, nodes, stop, signals) = (&timeline, &signalers, &nodes, &stop, &signals);
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::try_from(seed).unwrap());
                while !stop.load(SeqCst) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let seqno = (random >> 33) % CHAIN_SZ + 1;
                    let node = &nodes[usize::try_from(seqno - 1).unwrap()];
                    match timeline.find(seqno).unwrap() {
                        Some(found) => assert_eq!(found, *node),
                        None => assert!(timeline.signaled() >= seqno),
                    }
                    // Upstream signals a node that it found; here who is first has the signaler.
                    let signaler =
                        signalers[usize::try_from((random >> 20) % CHAIN_SZ).unwrap()].lock().unwrap().take();
                    if let Some(signaler) = signaler {
                        signaler.signal(Ok(()));
                        signals.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        stop.store(true, SeqCst);
    });
    assert!(signals.load(SeqCst) > 0);
    let first = signalers.iter().position(|signaler| signaler.lock().unwrap().is_some());
    let done = first.unwrap_or(signalers.len());
    assert_eq!(timeline.signaled(), u64::try_from(done).unwrap(), "up to the first that is pending");
    assert!(nodes[..done].iter().all(Fence::is_signaled) && nodes[done..].iter().all(pending));
}

#[test]
fn signal_forward() {
    let executor = Executor::manual().unwrap();
    let mut chains = Chains::new(&executor, 64, inc);
    for at in 0..64 {
        chains.signal(at);
        assert!(chains.nodes[at].is_signaled());
        assert!(at + 1 == 64 || pending(&chains.nodes[at + 1]));
    }
}

#[test]
fn signal_backward() {
    let executor = Executor::manual().unwrap();
    let mut chains = Chains::new(&executor, 64, inc);
    for at in (1..64).rev() {
        chains.signal(at);
        assert!(pending(&chains.nodes[at]));
    }
    chains.signal(0);
    assert!(chains.nodes.iter().all(Fence::is_signaled));
}

/// A thread waits for the last node while all are signaled in this order.
fn wait(order: impl Iterator<Item = usize>) {
    let executor = Executor::builder().threads().unwrap();
    let mut chains = Chains::new(&executor, CHAIN_SZ, inc);
    let last = chains.nodes.last().unwrap().clone();
    let waiter = thread::spawn(move || last.wait(LONG));
    thread::sleep(Duration::from_millis(2));
    for at in order {
        chains.signal(at);
    }
    assert_eq!(waiter.join().unwrap(), Ok(()));
}

fn all() -> core::ops::Range<usize> {
    0..usize::try_from(CHAIN_SZ).unwrap()
}

#[test]
fn wait_forward() {
    wait(all());
}

#[test]
fn wait_backward() {
    wait(all().rev());
}

#[test]
fn wait_random() {
    // Odd, so each comes once.
    wait(all().map(|at| at * 2_654_435_761 % all().len()));
}
