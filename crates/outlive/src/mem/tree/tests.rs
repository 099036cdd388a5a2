//! The tree against the standard map, its shape, its slots and its memory.

use super::nodes::{LEAST, WIDTH};
use super::{MOST, NIL, Slot, Tree, nodes_for};
use alloc::collections::BTreeMap as Model;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Bound::{Excluded, Unbounded};
use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::TestCaseResult;
use proptest::{prop_assert, prop_assert_eq, proptest};

type Real = Tree<u16, u16>;

/// Checks the nodes from `at` down and counts them. `before` has the last node and the last key seen of each level.
fn check_below<K: Ord + Copy, V>(tree: &Tree<K, V>, at: u32, level: u32, before: &mut Vec<(u32, Option<K>)>) -> usize {
    let node = &tree.nodes[at as usize];
    assert!(node.len() <= WIDTH);
    let least = if at != tree.root {
        LEAST
    } else if level > 0 {
        2
    } else {
        0
    };
    assert!(node.len() >= least, "{} at level {level}", node.len());
    let (neighbour, last) = &mut before[level as usize];
    assert_eq!(node.prev, *neighbour);
    assert!(*neighbour == NIL || tree.nodes[*neighbour as usize].next == at);
    *neighbour = at;
    assert!(node.keys().iter().is_sorted_by(|a, b| a < b));
    assert!(last.is_none_or(|last| last < node.keys()[0]), "a node starts where the one before has not ended");
    *last = node.keys().last().copied();
    let mut nodes = 1;
    for (key, id) in node.keys().iter().zip(node.ids()) {
        if level == 0 {
            let entry = &tree.entries[*id as usize];
            assert!(entry.value.is_some(), "a free slot is in the tree");
            assert!(entry.key == *key);
            assert_eq!(tree.homes[*id as usize], at);
        } else {
            assert!(tree.nodes[*id as usize].keys()[0] == *key, "a kid's key is that of its first entry");
            assert_eq!(tree.nodes[*id as usize].up, at);
            nodes += check_below(tree, *id, level - 1, before);
        }
    }
    nodes
}

/// Checks every invariant of the header.
fn check<K: Ord + Copy, V>(tree: &Tree<K, V>) {
    let mut before: Vec<_> = (0..=tree.levels).map(|_| (NIL, None)).collect();
    let mut nodes = 0;
    if tree.root != NIL {
        assert_eq!(tree.nodes[tree.root as usize].up, NIL);
        nodes = check_below(tree, tree.root, tree.levels, &mut before);
        assert!(before.iter().all(|(last, _)| tree.nodes[*last as usize].next == NIL));
    }
    assert!(nodes <= nodes_for(tree.len), "{nodes} nodes for {} entries", tree.len);
    let mut free = tree.free_node;
    while free != NIL {
        nodes += 1;
        free = tree.nodes[free as usize].next;
    }
    assert_eq!(nodes, tree.nodes.len());
    assert!(tree.nodes.len() <= nodes_for(tree.room) && nodes_for(tree.room) <= tree.nodes.capacity().max(1));

    let mut slots = tree.iter().count();
    assert_eq!(slots, tree.len());
    let mut free = tree.free;
    while free != NIL {
        slots += 1;
        assert!(tree.entries[free as usize].value.is_none(), "an entry is in the free list");
        free = tree.homes[free as usize];
    }
    assert_eq!(slots + tree.out, tree.entries.len());
    assert_eq!(tree.homes.len(), tree.entries.len());
    assert!(tree.entries.len() <= tree.room);
    assert!(tree.room <= tree.entries.capacity().min(tree.homes.capacity()));
}

/// Where the vectors are: what changes if one of them allocates.
fn memory<K: Copy, V>(tree: &Tree<K, V>) -> (usize, usize, usize, usize) {
    (tree.capacity(), tree.entries.as_ptr().addr(), tree.homes.as_ptr().addr(), tree.nodes.as_ptr().addr())
}

#[derive(Debug, Clone)]
enum Op {
    Reserve(usize),
    Insert(u16, u16),
    Remove(u16),
    Change(u16, u16),
    PopFirst,
    /// So many from a key on, at this distance; as far as there is room.
    InsertMany(u16, u16, u16),
    RemoveMany(u16, u16),
    /// By slot: take out and keep, as long as the next one takes.
    Detach(u16),
    /// By slot: halfway to the entry below.
    Lower(u16),
    /// By slot: right above the entry at or below a key.
    InsertAfter(u16),
}

/// Keys that make up to three levels.
const KEYS: u16 = 3_000;

fn op() -> impl Strategy<Value = Op> {
    (0..33_u8, 0..KEYS, 0..1_000_u16, 1..4_u16).prop_map(|(kind, key, value, step)| match kind {
        0 => Op::Reserve(usize::from(value)),
        1..3 => Op::PopFirst,
        3 => Op::Change(key, value),
        4..9 => Op::InsertMany(key, value, step),
        9..12 => Op::RemoveMany(key, value),
        12..15 => Op::Detach(key),
        15..18 => Op::Lower(key),
        18..21 => Op::InsertAfter(key),
        21..26 => Op::Remove(key),
        _ => Op::Insert(key, value),
    })
}

fn insert(tree: &mut Real, model: &mut Model<u16, u16>, key: u16, value: u16) -> TestCaseResult {
    if tree.room() == 0 && !model.contains_key(&key) {
        prop_assert_eq!(tree.insert(key, value), Err((key, value)));
    } else {
        prop_assert_eq!(tree.insert(key, value), Ok(model.insert(key, value)));
    }
    Ok(())
}

fn step(tree: &mut Real, model: &mut Model<u16, u16>, op: &Op) -> TestCaseResult {
    let before = memory(tree);
    let below = |model: &Model<u16, u16>, key| model.range(..=key).next_back().map(|(key, value)| (*key, *value));
    match *op {
        Op::Reserve(more) => {
            prop_assert!(tree.try_reserve(more).is_ok());
            prop_assert!(tree.room() >= more);
            return Ok(());
        }
        Op::Insert(key, value) => insert(tree, model, key, value)?,
        Op::InsertMany(from, count, step) => {
            for key in (from..).step_by(usize::from(step)).take(usize::from(count)) {
                insert(tree, model, key, count)?;
            }
        }
        Op::Remove(key) => prop_assert_eq!(tree.remove(&key), model.remove(&key)),
        Op::RemoveMany(from, count) => {
            for key in from..from + count {
                prop_assert_eq!(tree.remove(&key), model.remove(&key));
            }
        }
        Op::Change(key, value) => {
            prop_assert_eq!(tree.get_mut(&key).map(|v| *v = value), model.get_mut(&key).map(|v| *v = value));
        }
        Op::PopFirst => prop_assert_eq!(tree.pop_first(), model.pop_first()),
        Op::Detach(key) => {
            let slot = tree.floor(&key);
            let expected = below(model, key);
            prop_assert_eq!(tree.at(slot).map(|(key, value)| (*key, *value)), expected);
            let room = tree.room();
            tree.detach(slot);
            prop_assert_eq!(tree.room(), room, "it keeps its slot");
            check(tree);
            prop_assert_eq!(tree.release(slot), expected);
            expected.map(|(key, _)| model.remove(&key));
        }
        Op::Lower(key) => {
            let slot = tree.floor(&key);
            if let Some((key, value)) = below(model, key) {
                let least = key.checked_sub(1).and_then(|key| below(model, key)).map_or(0, |(key, _)| key + 1);
                let to = least + (key - least) / 2;
                tree.rekey(slot, to);
                model.remove(&key);
                model.insert(to, value);
                prop_assert_eq!(tree.at(slot), Some((&to, &value)));
            }
        }
        Op::InsertAfter(key) if !model.contains_key(&key) => {
            let inserted = tree.insert_after(tree.floor(&key), key, 0);
            prop_assert_eq!(inserted.is_ok(), model.len() < before.0);
            if let Ok(slot) = inserted {
                model.insert(key, 0);
                prop_assert_eq!(tree.at(slot), Some((&key, &0)));
            }
        }
        Op::InsertAfter(_) => {}
    }
    prop_assert_eq!(memory(tree), before);
    Ok(())
}

fn compare(tree: &Real, model: &Model<u16, u16>, key: u16) -> TestCaseResult {
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
    let slot = tree.floor(&key);
    prop_assert_eq!(tree.at(slot), model.range(..=key).next_back());
    prop_assert_eq!(tree.at(tree.after(slot)), model.range((Excluded(key), Unbounded)).next());
    if let Some((at, _)) = tree.at(slot) {
        prop_assert_eq!(tree.at(tree.before(slot)), model.range(..at).next_back());
        prop_assert!(tree.iter_from(slot).eq(model.range(at..)));
    }
    Ok(())
}

fn few() -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { 64 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_tree_is_a_map(ops in proptest::collection::vec((op(), 0..KEYS), 0..if cfg!(miri) { 20 } else { 120 })) {
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
        // Not above half full nodes, two kids at the root.
        assert!(2 * LEAST.pow(tree.levels) <= most as usize);
        for i in (0..most).step_by(3) {
            assert_eq!(tree.remove(&order(i, most)), Some(i));
        }
        check(&tree);
        while let Some((key, _)) = tree.pop_first() {
            assert!(tree.first().is_none_or(|(next, _)| key < *next));
        }
        check(&tree);
        assert_eq!((tree.levels, tree.nodes[tree.root as usize].len()), (0, 0));
    }
}

#[test]
fn reserved_room_is_used_without_allocating() {
    let mut tree = Tree::new();
    tree.try_reserve(7).unwrap();
    for round in 0..50_u32 {
        // Free slots count as room: seven are enough for ever.
        tree.try_reserve(7).unwrap();
        let before = memory(&tree);
        for key in 0..7 {
            assert_eq!(tree.insert((key * round) % 7 + 7 * key, ()), Ok(None));
        }
        assert_eq!((memory(&tree), tree.capacity()), (before, 7));
        while tree.pop_first().is_some() {}
    }
    assert_eq!((tree.entries.len(), tree.nodes.len()), (7, 1));
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
    check(&tree);
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
    for count in (0..70).chain([1_000, WIDTH * WIDTH, WIDTH * WIDTH + 1, 5_000]) {
        let tree = Tree::from_sorted(count, (0..count).map(|key| (key, ()))).unwrap();
        check(&tree);
        assert_eq!(tree.len(), count);
        assert!(count <= WIDTH.pow(tree.levels + 1) && (tree.levels == 0 || count > WIDTH.pow(tree.levels)));
    }
    let mut few = Tree::from_sorted(9, (0..3).map(|key| (key, ()))).unwrap();
    assert_eq!((few.len(), few.capacity()), (3, 9));
    few.insert(7, ()).unwrap();
    check(&few);
}
