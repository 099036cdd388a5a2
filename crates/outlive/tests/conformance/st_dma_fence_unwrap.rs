//! KUnit `st-dma-fence-unwrap`. Unwrapping is [`Fence::for_each_leaf`].

use crate::{NAMES, leaves, mock_fence, pending};
use outlive::{Executor, Fence, FenceContext, Signaler, Timeline};

/// `N` fences in contexts of their own.
fn mocks<const N: usize>(executor: &Executor) -> ([Signaler; N], [Fence; N]) {
    let (signalers, fences): (Vec<_>, Vec<_>) = (0..N).map(|_| mock_fence(executor)).unzip();
    (signalers.try_into().unwrap(), fences.try_into().unwrap())
}

/// The last node of a chain of these, numbered from 1.
fn mock_chain(fences: &[Fence]) -> Fence {
    let timeline = Timeline::new("chain").unwrap();
    let nodes = (1..).zip(fences).map(|(number, fence)| timeline.add(number, fence).unwrap());
    nodes.last().unwrap()
}

/// In any order, each once, and nothing else.
#[track_caller]
fn assert_seen(container: &Fence, expected: &[Fence]) {
    let seen = leaves(container);
    assert_eq!(seen.len(), expected.len());
    for fence in expected {
        assert_eq!(seen.iter().filter(|leaf| *leaf == fence).count(), 1);
    }
}

#[test]
fn sanitycheck() {
    let executor = Executor::manual().unwrap();
    let (_signalers, fences) = mocks::<2>(&executor);
    let chain = mock_chain(&[Fence::all_of(&fences).unwrap()]);
    assert!(pending(&chain));
}

#[test]
fn array() {
    let executor = Executor::manual().unwrap();
    let (_signalers, fences) = mocks::<2>(&executor);
    assert_seen(&Fence::all_of(&fences).unwrap(), &fences);
}

#[test]
fn chain() {
    let executor = Executor::manual().unwrap();
    let (_signalers, fences) = mocks::<2>(&executor);
    assert_seen(&mock_chain(&fences), &fences);
}

#[test]
fn chain_array() {
    let executor = Executor::manual().unwrap();
    let (_signalers, fences) = mocks::<2>(&executor);
    assert_seen(&mock_chain(&[Fence::all_of(&fences).unwrap()]), &fences);
}

#[test]
fn merge() {
    let executor = Executor::manual().unwrap();
    let (_signalers, fences) = mocks::<2>(&executor);
    assert_seen(&Fence::merge(&fences).unwrap(), &fences);
}

#[test]
fn merge_duplicate() {
    let executor = Executor::manual().unwrap();
    let (_signaler, fence) = mock_fence(&executor);
    assert_seen(&Fence::merge(&[fence.clone(), fence.clone()]).unwrap(), &[fence]);
}

/// A context with two fences, older first.
fn two(executor: &Executor) -> ([Signaler; 2], [Fence; 2]) {
    let context = FenceContext::new(executor, NAMES).unwrap();
    let [(first, older), (second, newer)] = [(); 2].map(|()| context.allocate().unwrap().publish());
    ([first, second], [older, newer])
}

#[test]
fn merge_seqno() {
    let executor = Executor::manual().unwrap();
    let (_s1, [f1, f2]) = two(&executor);
    let (_s2, f3) = mock_fence(&executor);
    let merged = Fence::merge(&[f3.clone(), f1, f2.clone()]).unwrap();
    assert_eq!(leaves(&merged), [f2, f3], "the newest of each, by context");
}

#[test]
fn merge_order() {
    let executor = Executor::manual().unwrap();
    let (_signalers, [f1, f2]) = mocks::<2>(&executor);
    let forward = Fence::all_of(&[f1.clone(), f2.clone()]).unwrap();
    let backward = mock_chain(&[f1.clone(), f2.clone()]);
    assert_eq!(leaves(&backward), [f2.clone(), f1.clone()], "a chain is seen newest first");
    let merged = Fence::merge(&[forward.clone(), backward.clone()]).unwrap();
    assert_eq!(leaves(&merged), [f1.clone(), f2.clone()]);
    assert_eq!(leaves(&Fence::merge(&[backward, forward]).unwrap()), [f1, f2], "whatever came first");
}

#[test]
fn merge_complex() {
    let executor = Executor::manual().unwrap();
    let ([_s1, _s2, s3], [f1, f2, f3]) = mocks::<3>(&executor);
    let first = Fence::all_of(&[f1.clone(), f2.clone()]).unwrap();
    let second = Fence::all_of(&[f2.clone(), f3.clone()]).unwrap();
    s3.signal(Ok(()));
    let merged = Fence::merge(&[f1.clone(), Fence::stub(), first, f3, second, Fence::stub()]).unwrap();
    assert_seen(&merged, &[f1, f2]);
}

#[test]
fn merge_complex_seqno() {
    let executor = Executor::manual().unwrap();
    let (_s1, [a1, a2]) = two(&executor);
    let (_s2, [b1, b2]) = two(&executor);
    let crossed = [Fence::all_of(&[a1, b2.clone()]).unwrap(), Fence::all_of(&[a2.clone(), b1]).unwrap()];
    assert_eq!(leaves(&Fence::merge(&crossed).unwrap()), [a2, b2], "the newest of each context");
}
