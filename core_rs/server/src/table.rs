//! What is known of many, in bounded memory: whoever has too many addresses must not get too much of
//! ours.
//!
//! When it is full, the one that came first gives way, unless it says that it must stay: then it goes
//! to the end of the line and the next one is asked. If a few in a row must stay, the newcomer is not
//! known at all, which errs on the client's side.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

/// So many are asked to give way to one newcomer, so that its price is bounded too.
const ASKED: usize = 16;

/// What a table keeps.
pub(crate) trait Entry: Default {
    /// Forgetting it now would let somebody off.
    fn must_stay(&self, now: Instant) -> bool;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<E> {
    entries: HashMap<u128, E>,
    /// The keys as they came.
    line: VecDeque<u128>,
    capacity: usize,
}

impl<E: Entry> Table<E> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            line: VecDeque::new(),
            capacity,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn known(&mut self, key: u128) -> Option<&mut E> {
        self.entries.get_mut(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, &E)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }

    /// `None`: there is no room for one more.
    pub(crate) fn entry(&mut self, key: u128, now: Instant) -> Option<&mut E> {
        if !self.entries.contains_key(&key) {
            if self.entries.len() >= self.capacity && !self.make_room(now) {
                return None;
            }
            self.line.push_back(key);
        }
        Some(self.entries.entry(key).or_default())
    }

    fn make_room(&mut self, now: Instant) -> bool {
        for _ in 0..ASKED {
            let Some(oldest) = self.line.pop_front() else {
                break;
            };
            let stays = self
                .entries
                .get(&oldest)
                .is_some_and(|entry| entry.must_stay(now));
            if !stays {
                self.entries.remove(&oldest);
                return true;
            }
            self.line.push_back(oldest);
        }
        false
    }
}

/// A measure that fills by what happens and empties by itself.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    level: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// How full it is, having lost `per_second` since it was last looked at.
    pub(crate) fn level(&mut self, per_second: f64, now: Instant) -> f64 {
        let gone = self
            .at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.level = (self.level - gone * per_second).max(0.0);
        self.at = Some(now);
        self.level
    }

    /// To be called after [`Bucket::level`].
    pub(crate) fn add(&mut self, amount: f64) {
        self.level = (self.level + amount).max(0.0);
    }
}

impl Entry for Bucket {
    fn must_stay(&self, _: Instant) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Pinned(bool);

    impl Entry for Pinned {
        fn must_stay(&self, _: Instant) -> bool {
            self.0
        }
    }

    #[test]
    fn a_million_keys_take_the_room_of_a_thousand() {
        let (mut table, now) = (Table::<Bucket>::new(1000), Instant::now());
        for key in 0..1_000_000 {
            assert!(table.entry(key, now).is_some());
        }
        assert_eq!((table.len(), table.line.len()), (1000, 1000));
        assert!(table.known(0).is_none() && table.known(999_999).is_some());
        assert!(table.entries.capacity() <= 4000 && table.line.capacity() <= 4000);
    }

    #[test]
    fn who_must_stay_does_and_if_all_must_the_newcomer_is_unknown() {
        let (mut table, now) = (Table::<Pinned>::new(20), Instant::now());
        for key in 0..20 {
            if let Some(entry) = table.entry(key, now) {
                entry.0 = key != 3;
            }
        }
        assert!(table.entry(100, now).is_some() && table.known(3).is_none());
        if let Some(entry) = table.known(100) {
            entry.0 = true;
        }
        assert!(table.entry(101, now).is_none());
        assert!(table.entry(0, now).is_some());
        assert_eq!((table.len(), table.line.len()), (20, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_by_itself() {
        let mut bucket = Bucket::default();
        assert!(bucket.level(2.0, Instant::now()) < 0.01);
        bucket.add(10.0);
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
        assert!((bucket.level(2.0, Instant::now()) - 4.0).abs() < 0.01);
        tokio::time::advance(std::time::Duration::from_secs(30)).await;
        assert!(bucket.level(2.0, Instant::now()) < 0.01);
    }
}
