//! The tree against the standard map, its shape, its slots and its memory.

use super::{LEFT, MOST, NIL, RIGHT, Slot, Tree};
use alloc::collections::BTreeMap as Model;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Bound::{Excluded, Unbounded};
use proptest::prelude::{ProptestConfig, Strategy, any};
use proptest::test_runner::TestCaseResult;
use proptest::{prop_assert, prop_assert_eq, proptest};

type Real = Tree<u8, u16>;

/// Checks every invariant of the header below `at` and returns the height.
fn height<K: Ord + Copy, V>(tree: &Tree<K, V>, at: u32, up: u32, seen: &mut usize) -> u8 {
    if at == NIL {
        return 0;
    }
    *seen += 1;
    let node = tree.node(at);
    assert!(tree.values[at as usize].is_some(), "a free slot is in the tree");
    assert_eq!(node.up, up);
    let [left, right] = node.kids.map(|kid| height(tree, kid, at, seen));
    assert!(left.abs_diff(right) < 2, "out of balance: {left} and {right}");
    assert_eq!(node.height, 1 + left.max(right));
    node.height
}

fn check<K: Ord + Copy, V>(tree: &Tree<K, V>) {
    let mut seen = 0;
    height(tree, tree.root, NIL, &mut seen);
    assert_eq!(seen, tree.len());
    assert!(tree.iter().is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(tree.iter().count(), seen);
    let mut free = tree.free;
    while free != NIL {
        seen += 1;
        assert!(tree.values[free as usize].is_none(), "an entry is in the free list");
        free = tree.kid(free, LEFT);
    }
    assert_eq!(seen + tree.out, tree.nodes.len());
    assert!(tree.nodes.len() <= tree.capacity());
}

#[derive(Debug, Clone)]
enum Op {
    Reserve(usize),
    Insert(u8, u16),
    Remove(u8),
    Change(u8, u16),
    PopFirst,
}

fn op() -> impl Strategy<Value = Op> {
    (0..21_u8, 0..20_usize, any::<u8>(), any::<u16>()).prop_map(|(kind, more, key, value)| match kind {
        0 => Op::Reserve(more),
        1 => Op::PopFirst,
        2 => Op::Change(key, value),
        3..9 => Op::Remove(key),
        _ => Op::Insert(key, value),
    })
}

fn step(tree: &mut Real, model: &mut Model<u8, u16>, op: &Op) -> TestCaseResult {
    let (room, memory) = (tree.capacity(), tree.nodes.as_ptr());
    match *op {
        Op::Reserve(more) => {
            prop_assert!(tree.try_reserve(more).is_ok());
            prop_assert!(tree.capacity() >= tree.len() + more);
            return Ok(());
        }
        Op::Insert(key, value) if model.len() == room && !model.contains_key(&key) => {
            prop_assert_eq!(tree.insert(key, value), Err((key, value)));
        }
        Op::Insert(key, value) => prop_assert_eq!(tree.insert(key, value), Ok(model.insert(key, value))),
        Op::Remove(key) => prop_assert_eq!(tree.remove(&key), model.remove(&key)),
        Op::Change(key, value) => {
            prop_assert_eq!(tree.get_mut(&key).map(|v| *v = value), model.get_mut(&key).map(|v| *v = value));
        }
        Op::PopFirst => prop_assert_eq!(tree.pop_first(), model.pop_first()),
    }
    prop_assert_eq!((tree.capacity(), tree.nodes.as_ptr()), (room, memory));
    Ok(())
}

fn compare(tree: &Real, model: &Model<u8, u16>, key: u8) -> TestCaseResult {
    check(tree);
    prop_assert_eq!((tree.len(), tree.is_empty()), (model.len(), model.is_empty()));
    prop_assert!(tree.iter().eq(model));
    prop_assert_eq!(tree.first(), model.first_key_value());
    prop_assert_eq!(tree.last(), model.last_key_value());
    prop_assert_eq!(tree.get(&key), model.get(&key));
    prop_assert_eq!(tree.contains(&key), model.contains_key(&key));
    prop_assert!(tree.range_from(&key).eq(model.range(key..)));
    prop_assert_eq!(tree.last_before(&key), model.range(..key).next_back());
    prop_assert_eq!(tree.next_after(&key), model.range((Excluded(key), Unbounded)).next());
    Ok(())
}

fn few() -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { 256 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_tree_is_a_map(ops in proptest::collection::vec((op(), any::<u8>()), 0..300)) {
        let (mut tree, mut model) = (Tree::new(), Model::new());
        for (op, key) in &ops {
            step(&mut tree, &mut model, op)?;
            compare(&tree, &model, *key)?;
        }
    }
}

#[test]
fn whatever_the_order_the_tree_stays_low() {
    let most = if cfg!(miri) { 100 } else { 5_000_u32 };
    // Ascending, descending, from both ends inwards, and scattered.
    let orders: [fn(u32, u32) -> u32; 4] = [
        |i, _| i,
        |i, most| most - i,
        |i, most| if i % 2 == 0 { i } else { 2 * most - i },
        |i, _| i.wrapping_mul(2_654_435_769),
    ];
    for order in orders {
        let mut tree = Tree::new();
        tree.try_reserve(most as usize).unwrap();
        for i in 0..most {
            assert_eq!(tree.insert(order(i, most), i), Ok(None));
        }
        check(&tree);
        let limit = 1.4405 * f64::from(most + 2).log2();
        assert!(f64::from(tree.height(tree.root)) < limit);
        for i in (0..most).step_by(3) {
            assert_eq!(tree.remove(&order(i, most)), Some(i));
        }
        check(&tree);
        while let Some((key, _)) = tree.pop_first() {
            assert!(tree.first().is_none_or(|(next, _)| key < *next));
        }
        check(&tree);
        assert_eq!(tree.root, NIL);
    }
}

#[test]
fn reserved_room_is_used_without_allocating() {
    let mut tree = Tree::new();
    tree.try_reserve(7).unwrap();
    for round in 0..50_u32 {
        // Free slots count as room: seven are enough for ever.
        tree.try_reserve(7).unwrap();
        let before = (tree.nodes.as_ptr(), tree.nodes.capacity());
        for key in 0..7 {
            assert_eq!(tree.insert((key * round) % 7 + 7 * key, ()), Ok(None));
        }
        assert_eq!((tree.nodes.as_ptr(), tree.nodes.capacity()), before);
        assert_eq!(tree.capacity(), 7);
        while tree.pop_first().is_some() {}
    }
    assert_eq!(tree.nodes.len(), 7);
}

#[test]
fn a_full_tree_refuses_and_is_unchanged() {
    let mut tree = Tree::new();
    assert_eq!(tree.insert(1, 1), Err((1, 1)), "no room at all");
    tree.try_reserve(5).unwrap();
    let room = i32::try_from(tree.capacity()).unwrap();
    for key in 0..room {
        assert_eq!(tree.insert(2 * key, key), Ok(None));
    }
    let before: Vec<_> = tree.iter().map(|(key, value)| (*key, *value)).collect();
    for key in -1..=room {
        assert_eq!(tree.insert(2 * key + 1, 9), Err((2 * key + 1, 9)));
    }
    check(&tree);
    assert!(tree.iter().map(|(key, value)| (*key, *value)).eq(before));
    assert_eq!(tree.insert(2, 7), Ok(Some(1)), "an entry that is there needs no room");
    assert_eq!(tree.remove(&2), Some(7));
    assert_eq!(tree.insert(3, 9), Ok(None), "what was taken out left its room");
}

#[test]
fn more_than_there_can_be_is_refused() {
    let mut tree: Tree<u64, u64> = Tree::new();
    for more in [MOST.saturating_add(1), usize::MAX] {
        assert!(tree.try_reserve(more).is_err_and(|error| error.bytes >= MOST));
    }
    tree.try_reserve(1).unwrap();
    tree.insert(1, 1).unwrap();
    assert!(tree.try_reserve(usize::MAX).is_err());
    assert_eq!((tree.len(), tree.capacity()), (1, 1));
    assert_eq!(tree.kid(tree.root, RIGHT), NIL);
}

#[test]
fn every_value_is_dropped_once_and_at_once() {
    let value = Rc::new(());
    let mut tree = Tree::new();
    tree.try_reserve(10).unwrap();
    for key in 0..10 {
        tree.insert(key, Rc::clone(&value)).unwrap();
    }
    tree.insert(3, Rc::clone(&value)).unwrap();
    assert_eq!(Rc::strong_count(&value), 11);
    for key in [3, 5, 4] {
        tree.remove(&key);
    }
    tree.pop_first();
    assert_eq!(Rc::strong_count(&value), 7, "no free slot keeps a value");
    drop(tree);
    assert_eq!(Rc::strong_count(&value), 1);
}

#[test]
fn a_slot_keeps_its_entry_whatever_happens_to_others() {
    let mut tree = Tree::new();
    tree.try_reserve(200).unwrap();
    for key in 0..200_u32 {
        tree.insert(key.wrapping_mul(77) % 200, ()).unwrap();
    }
    let slots: Vec<_> = (0..200).map(|key| (key, tree.floor(&key))).collect();
    for gone in (0..200).filter(|key| key % 3 == 1) {
        assert_eq!(tree.take_at(slots[gone as usize].1), Some((gone, ())));
        check(&tree);
        let left = slots.iter().filter(|(key, _)| key % 3 != 1 || *key > gone);
        assert!(left.clone().all(|(key, slot)| tree.at(*slot) == Some((key, &()))));
        let mut at = Slot::NONE;
        for (_, slot) in left {
            assert_eq!((tree.after(at), tree.before(*slot)), (*slot, at));
            at = *slot;
        }
    }
}

#[test]
fn what_is_detached_keeps_its_room_until_it_is_released() {
    let mut tree = Tree::new();
    tree.try_reserve(10).unwrap();
    for key in 0..10 {
        tree.insert(key, 2 * key).unwrap();
    }
    let out: Vec<_> = [4, 0, 9, 5].into_iter().map(|key| tree.floor(&key)).collect();
    for slot in &out {
        tree.detach(*slot);
        check(&tree);
    }
    assert_eq!((tree.len(), tree.at(out[0])), (6, Some((&4, &8))));
    assert_eq!(tree.insert(4, 0), Err((4, 0)), "no room before the release");
    tree.try_reserve(1).unwrap();
    assert!(tree.capacity() >= 11);
    for slot in out {
        assert!(tree.release(slot).is_some_and(|(key, value)| value == 2 * key));
        check(&tree);
    }
    assert_eq!((tree.release(Slot::NONE), tree.take_at(Slot::NONE)), (None, None));
}

#[test]
fn insertion_after_a_slot_needs_no_comparison() {
    let mut tree = Tree::new();
    tree.try_reserve(300).unwrap();
    let mut at = Slot::NONE;
    for key in 100..200 {
        at = tree.insert_after(at, key, ()).unwrap();
        check(&tree);
    }
    for key in (0..100).rev() {
        tree.insert_after(Slot::NONE, key, ()).unwrap();
    }
    assert_eq!(tree.floor(&-1), Slot::NONE);
    check(&tree);
    assert!(tree.iter().map(|(key, ())| *key).eq(0..200));
}

#[test]
fn a_tree_built_from_sorted_entries_is_as_low_as_can_be() {
    for count in (0..70).chain([1_000]) {
        let tree = Tree::from_sorted(count, (0..count).map(|key| (key, ()))).unwrap();
        check(&tree);
        assert_eq!(tree.len(), count);
        assert_eq!(u32::from(tree.height(tree.root)), usize::BITS - count.leading_zeros());
    }
    let mut few = Tree::from_sorted(9, (0..3).map(|key| (key, ()))).unwrap();
    assert_eq!((few.len(), few.capacity()), (3, 9));
    few.insert(7, ()).unwrap();
    check(&few);
}
