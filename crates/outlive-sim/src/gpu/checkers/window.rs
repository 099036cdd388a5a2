//! Maps from numbers that count up, most of which go in the order in which they came: a place for each number from the oldest that
//! is there to the newest. Neighbours in number are neighbours in memory, which a table by hash is not.

use alloc::collections::VecDeque;

/// See the module. What it takes is as large as the numbers lie apart.
#[derive(Debug)]
pub(crate) struct Window<T> {
    /// The number of the first place; that one is taken.
    first: u64,
    places: VecDeque<Option<T>>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { first: 0, places: VecDeque::new() }
    }
}

impl<T> Window<T> {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        self.places.get(self.place(number)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number)?;
        self.places.get_mut(place)?.as_mut()
    }

    pub(crate) fn insert(&mut self, number: u64, value: T) {
        *self.make_place(number) = Some(value);
    }

    /// What has that number; made if nothing has.
    pub(crate) fn entry(&mut self, number: u64) -> &mut T
    where
        T: Default,
    {
        self.make_place(number).get_or_insert_default()
    }

    fn make_place(&mut self, number: u64) -> &mut Option<T> {
        if self.places.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.places.push_front(None);
            self.first -= 1;
        }
        let place = self.place(number).unwrap_or(0);
        while self.places.len() <= place {
            self.places.push_back(None);
        }
        &mut self.places[place]
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.place(number)?;
        let removed = self.places.get_mut(place)?.take()?;
        while self.places.front().is_some_and(Option::is_none) {
            self.places.pop_front();
            self.first += 1;
        }
        Some(removed)
    }

    /// All of them, the lowest number first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.first..).zip(&self.places).filter_map(|(number, place)| Some((number, place.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map() {
        let mut window = Window::default();
        for number in [7_u64, 5, 9, 8] {
            window.insert(number, number * 10);
        }
        *window.entry(9) += 1;
        assert_eq!(
            window.iter().map(|(number, value)| (number, *value)).collect::<Vec<_>>(),
            [(5, 50), (7, 70), (8, 80), (9, 91)]
        );
        assert_eq!((window.get(6), window.get(4), window.get(10), window.len()), (None, None, None, 4));
        assert_eq!((window.remove(7), window.remove(7), window.remove(5)), (Some(70), None, Some(50)));
        assert_eq!((window.first, window.places.len()), (8, 2), "what has gone takes no room");
        *window.get_mut(8).unwrap() = 3;
        assert_eq!((window.remove(8), window.remove(9), window.len(), window.places.len()), (Some(3), Some(91), 0, 0));
        assert_eq!((*window.entry(2), window.remove(1), window.len()), (0, None, 1));
    }
}
