//! Sync objects beside a naive model: random acts on two of them, and waits, must come to the same after each act.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test: it has std and may panic")]

use outlive::{Executor, Fence, FenceContext, Names, Signaler, Syncobj, SyncobjError, SyncobjWait, Until};

const UNTIL: [Until; 3] = [Until::Signaled, Until::SubmittedAndSignaled, Until::Submitted];

/// What a sync object comes down to: the fences of its points, in the order of submission.
#[derive(Clone, Default)]
struct Model {
    /// A binary payload is one of number 0.
    points: Vec<ModelPoint>,
    timeline: bool,
}

#[derive(Clone)]
struct ModelPoint {
    number: u64,
    below: u64,
    /// The fences that must have signaled: its own and those of every point before it.
    behind: Vec<usize>,
}

impl Model {
    fn submit(&mut self, number: u64, fences: &[usize]) {
        if number == 0 {
            *self = Self::default();
        }
        let last = self.points.last().map_or(0, |point| point.number);
        let in_turn = number > last;
        let mut behind = self.points.last().map_or_else(Vec::new, |point| point.behind.clone());
        behind.extend(fences);
        let below = if in_turn { last } else { 0 };
        self.points.push(ModelPoint { number: last.max(number), below, behind });
        self.timeline |= number > 0;
    }

    /// What stands for a point, if it was submitted.
    fn find(&self, number: u64) -> Option<Vec<usize>> {
        if number > 0 && !self.timeline {
            return None;
        }
        let newest = self.points.last()?;
        if number > newest.number {
            return None;
        }
        let found = self.points.iter().rev().find(|point| number == 0 || point.below < number);
        found.map(|point| point.behind.clone())
    }

    fn signaled(&self, done: &[bool]) -> u64 {
        let ended = |point: &&ModelPoint| point.behind.iter().all(|fence| done[*fence]);
        self.points.iter().take_while(ended).last().map_or(0, |point| point.number)
    }
}

/// A wait as the model has it: per entry the fences it has found.
struct ModelWait {
    wait: SyncobjWait,
    entries: Vec<(usize, u64, Option<Vec<usize>>)>,
    until: Until,
    all: bool,
    ended: bool,
}

impl ModelWait {
    /// What it finds now, and whether it has ended.
    fn look(&mut self, models: &[Model], done: &[bool]) {
        for (object, number, found) in &mut self.entries {
            *found = found.take().or_else(|| models[*object].find(*number));
        }
        let ended = |found: &Option<Vec<usize>>| {
            found.as_ref().is_some_and(|behind| self.until == Until::Submitted || behind.iter().all(|one| done[*one]))
        };
        let mut entries = self.entries.iter().map(|(_, _, found)| ended(found));
        self.ended |= if self.all { entries.all(|ended| ended) } else { entries.any(|ended| ended) };
    }
}

/// Both sides, and chance.
struct Play {
    executor: Executor,
    objects: [Syncobj; 2],
    models: [Model; 2],
    signalers: Vec<Option<Signaler>>,
    /// Which fences have signaled.
    done: Vec<bool>,
    waits: Vec<ModelWait>,
    random: u64,
}

impl Play {
    fn new(seed: u64) -> Self {
        let executor = Executor::manual().unwrap();
        let objects = [(); 2].map(|()| Syncobj::new(&executor, "object").unwrap());
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (models, signalers, done, waits) = Default::default();
        Self { executor, objects, models, signalers, done, waits, random }
    }

    fn pick(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn pick_of(&mut self, count: usize) -> usize {
        usize::try_from(self.pick(u64::try_from(count).unwrap())).unwrap()
    }

    fn fence(&mut self) -> Fence {
        let names = Names { driver: "bare", timeline: "model" };
        let (signaler, fence) = FenceContext::new(&self.executor, names).unwrap().allocate().unwrap().publish();
        self.signalers.push(Some(signaler));
        self.done.push(false);
        fence
    }

    fn act(&mut self) {
        let (at, number) = (self.pick_of(2), self.pick(6));
        match self.pick(8) {
            0..=2 => {
                let fence = self.fence();
                self.objects[at].submit(number, &fence).unwrap();
                self.models[at].submit(number, &[self.done.len() - 1]);
            }
            3 => {
                self.objects[at].signal(number).unwrap();
                self.models[at].submit(number, &[]);
            }
            4 if self.pick(3) == 0 => {
                self.objects[at].reset();
                self.models[at] = Model::default();
            }
            5 => {
                let (other, from) = (1 - at, self.pick(6));
                let found = self.models[other].find(from);
                let transferred = self.objects[at].transfer(number, &self.objects[other], from);
                assert_eq!(transferred.is_ok(), found.is_some());
                if let Some(found) = found {
                    self.models[at].submit(number, &found);
                }
            }
            6 => self.begin_to_wait(at, number),
            _ if !self.signalers.is_empty() => {
                let at = self.pick_of(self.signalers.len());
                if let Some(signaler) = self.signalers[at].take() {
                    signaler.signal(Ok(()));
                    self.done[at] = true;
                }
            }
            _ => {}
        }
    }

    fn begin_to_wait(&mut self, at: usize, number: u64) {
        let asked = [(at, number), (1 - at, self.pick(6))];
        let (until, all) = (UNTIL[self.pick_of(3)], self.pick(2) == 0);
        let make = if all { SyncobjWait::all_of } else { SyncobjWait::any_of };
        let missing = asked.iter().position(|(at, number)| self.models[*at].find(*number).is_none());
        match make(&asked.map(|(at, number)| (&self.objects[at], number)), until) {
            Ok(wait) => {
                assert!(until != Until::Signaled || missing.is_none());
                let entries = asked.iter().map(|(at, number)| (*at, *number, None)).collect();
                self.waits.push(ModelWait { wait, entries, until, all, ended: false });
            }
            Err(SyncobjError::NotSubmitted { index, .. }) => {
                assert_eq!((until, Some(index)), (Until::Signaled, missing));
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn compare(&mut self, seed: u64) {
        for wait in &mut self.waits {
            wait.look(&self.models, &self.done);
            assert_eq!(wait.wait.as_user_fence().is_signaled(), wait.ended, "seed {seed}");
        }
        for (object, model) in self.objects.iter().zip(&self.models) {
            let newest = model.points.last().map_or(0, |point| point.number);
            let expected = if model.timeline { (model.signaled(&self.done), newest) } else { (0, 0) };
            assert_eq!((object.query().signaled, object.query().submitted), expected, "seed {seed}");
            for number in 0..6 {
                let expected = model.find(number).map(|behind| behind.iter().all(|fence| self.done[*fence]));
                let found = object.find(number).ok().map(|found| found.is_none_or(|found| found.is_signaled()));
                assert_eq!(found, expected, "seed {seed}, point {number}");
            }
        }
    }
}

#[test]
fn random_acts_agree_with_a_naive_model() {
    for seed in 1..=200 {
        let mut play = Play::new(seed);
        for _ in 0..50 {
            play.act();
            play.compare(seed);
        }
        play.signalers.drain(..).flatten().for_each(|signaler| signaler.signal(Ok(())));
    }
}
