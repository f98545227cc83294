//! States by key, written so that a commit costs what the batch has changed, however many keys there are.
//!
//! Each commit writes a chunk: the states that have changed, and twice as many others in turn. Once all have had their
//! turn, older chunks hold nothing that is not in newer ones as well, and are removed. So the chunks hold a few times
//! what there is, no key is looked for in the database, and nothing is ever written as a whole.

use datafusion::error::{DataFusionError, Result};
use indexmap::IndexMap;

use crate::store::Saved;

/// A chunk has about so many bytes at most.
const CHUNK: usize = 256 << 10;
/// For each state that has changed, so many others are written.
const OTHERS: usize = 2;
/// Where chunks hold more than so many entries a state, because jobs were started again before all had their turn,
/// everything is written anew.
const TOO_MANY: usize = 8;

/// A key's state.
#[derive(Debug)]
struct State {
    value: Box<[u8]>,
    /// The time of the last batch with a row of this key, in milliseconds since 1970.
    touched: i64,
    is_saved: bool,
}

impl State {
    fn set(&mut self, value: &[u8], touched: i64) {
        if self.value.len() == value.len() {
            self.value.copy_from_slice(value);
        } else {
            self.value = value.into();
        }
        self.touched = touched;
    }
}

/// States by key, all of one pane.
#[derive(Debug)]
pub struct States {
    pane: i64,
    states: IndexMap<Box<[u8]>, State>,
    /// Where states are that have changed since they were saved. A place may be there twice, or be no longer right.
    changed: Vec<usize>,
    removed: Vec<Box<[u8]>>,
    /// The state whose turn is next.
    turn: usize,
    /// How many more have their turn than usual.
    overdue: usize,
    /// The chunks: the oldest that is there, the first that was written since all began to have their turn, the one
    /// that comes next.
    oldest: i64,
    began: i64,
    next: i64,
    /// Chunks before this one are not needed.
    needed: i64,
}

impl States {
    /// No states yet.
    pub fn new(pane: i64) -> Self {
        Self {
            pane,
            states: IndexMap::new(),
            changed: Vec::new(),
            removed: Vec::new(),
            turn: 0,
            overdue: 0,
            oldest: 0,
            began: 0,
            next: 0,
            needed: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// A key as it is kept, its state, and when it was touched.
    pub fn get(&self, key: &[u8]) -> Option<(&[u8], &[u8], i64)> {
        let (key, state) = self.states.get_key_value(key)?;
        Some((key, &state.value, state.touched))
    }

    /// All keys and states.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.states.iter().map(|(key, state)| (&**key, &*state.value))
    }

    /// Sets the state of a key.
    pub fn set(&mut self, key: &[u8], value: &[u8], touched: i64) {
        match self.states.get_full_mut(key) {
            Some((place, _, state)) => {
                state.set(value, touched);
                if std::mem::replace(&mut state.is_saved, false) {
                    self.changed.push(place);
                }
            }
            None => {
                let state = State { value: value.into(), touched, is_saved: false };
                self.changed.push(self.states.insert_full(key.into(), state).0);
            }
        }
    }

    /// Removes states that have not been touched since a time. Gives how many there were.
    pub fn remove_untouched(&mut self, since: i64) -> usize {
        let before = self.states.len();
        for place in (0..before).rev() {
            if self.states[place].touched < since {
                // The last one takes its place, and might miss its turn there.
                self.removed.extend(self.states.swap_remove_index(place).map(|(key, _)| key));
                if let Some((_, moved)) = self.states.get_index_mut(place) {
                    moved.is_saved = false;
                    self.changed.push(place);
                }
            }
        }
        before - self.states.len()
    }

    /// Writes what has changed.
    pub fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()> {
        if self.changed.is_empty() && self.removed.is_empty() && self.overdue == 0 {
            return Ok(());
        }
        let first = self.next;
        let mut chunk = Chunk { saved, pane: self.pane, next: &mut self.next, bytes: Vec::new() };
        for key in self.removed.drain(..) {
            chunk.put(&key, None)?;
        }
        let others = self.changed.len() * OTHERS + std::mem::take(&mut self.overdue);
        for place in self.changed.drain(..) {
            if let Some((key, state)) = self.states.get_index_mut(place)
                && !std::mem::replace(&mut state.is_saved, true)
            {
                chunk.put(key, Some(state))?;
            }
        }
        let end = self.states.len().min(self.turn + others);
        for place in self.turn..end {
            let (key, state) = self.states.get_index(place).expect("it is before the end");
            chunk.put(key, Some(state))?;
        }
        chunk.write()?;
        self.turn = end;
        if self.turn >= self.states.len() {
            self.needed = std::mem::replace(&mut self.began, self.next);
            self.turn = 0;
        }
        // Not all at once: that would take its time, too.
        let end = self.needed.min(self.oldest + 2 * (self.next - first) + 1);
        if end > self.oldest {
            saved.remove_before(self.pane, end)?;
            self.oldest = end;
        }
        Ok(())
    }

    /// Takes in a chunk that was written; they must come in their order.
    pub fn load(&mut self, chunk: i64, bytes: &[u8]) -> Result<()> {
        if self.next == 0 {
            (self.oldest, self.needed) = (chunk, chunk);
        }
        (self.next, self.began) = (chunk + 1, chunk + 1);
        for entry in entries(bytes) {
            let (key, value, touched) = entry?;
            self.overdue += 1;
            match value {
                Some(value) => match self.states.get_mut(key) {
                    Some(state) => state.set(value, touched),
                    None => {
                        let state = State { value: value.into(), touched, is_saved: true };
                        self.states.insert(key.into(), state);
                    }
                },
                None => drop(self.states.swap_remove(key)),
            }
        }
        Ok(())
    }

    /// All chunks are there.
    pub fn loaded(&mut self) {
        if self.overdue <= TOO_MANY * (self.states.len() + 1) {
            self.overdue = 0;
        }
    }
}

/// A chunk that is being written. Others follow it when it is full.
struct Chunk<'a, 'db> {
    saved: &'a mut Saved<'db>,
    pane: i64,
    next: &'a mut i64,
    bytes: Vec<u8>,
}

impl Chunk<'_, '_> {
    fn put(&mut self, key: &[u8], state: Option<&State>) -> rusqlite::Result<()> {
        put_entry(&mut self.bytes, key, state.map(|state| (&*state.value, state.touched)));
        if self.bytes.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> rusqlite::Result<()> {
        if !self.bytes.is_empty() {
            self.saved.put(self.pane, *self.next, &self.bytes)?;
            *self.next += 1;
            self.bytes.clear();
        }
        Ok(())
    }
}

/// The length of a value that is not there.
const NONE: u32 = u32::MAX;
/// The lengths of key and value, and the time.
const HEAD: usize = 16;

/// Adds a state to a chunk's bytes, or that there is none any more.
pub fn put_entry(bytes: &mut Vec<u8>, key: &[u8], state: Option<(&[u8], i64)>) {
    let (value, touched) = state.unwrap_or_default();
    let length = if state.is_some() { value.len() as u32 } else { NONE };
    bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&touched.to_le_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
}

/// A key, its state unless it was removed, and when it was touched.
type Entry<'a> = (&'a [u8], Option<&'a [u8]>, i64);

/// The states of a chunk.
pub fn entries(mut bytes: &[u8]) -> impl Iterator<Item = Result<Entry<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let entry = entry(&mut bytes);
        if entry.is_none() {
            bytes = &[];
        }
        Some(entry.ok_or_else(|| DataFusionError::Execution("the states in the checkpoint are damaged".to_owned())))
    })
}

fn entry<'a>(bytes: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let length = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?));
    let (key, value) = (length(0)?, length(4)?);
    let touched = i64::from_le_bytes(head[8..].try_into().ok()?);
    let (key, rest) = rest.split_at_checked(key as usize)?;
    let (value, rest) = if value == NONE {
        (None, rest)
    } else {
        let (value, rest) = rest.split_at_checked(value as usize)?;
        (Some(value), rest)
    };
    *bytes = rest;
    Some((key, value, touched))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::BatchInfo;
    use crate::store::Store;
    use crate::table::RestoreError;

    fn save(store: &mut Store, states: &mut States) {
        let commit = store.commit(&BatchInfo::first(1), &BTreeMap::new(), |db| states.save(&mut Saved::new(db, "t")?));
        commit.expect("it commits");
    }

    /// The states as they were written, and how many entries the chunks have.
    fn load(store: &Store) -> (States, usize) {
        let (mut states, mut count) = (States::new(0), 0);
        let mut saved = store.saved("t").expect("it can be read");
        let take = |_, chunk, bytes: &[u8]| -> std::result::Result<(), RestoreError> {
            count += entries(bytes).count();
            Ok(states.load(chunk, bytes)?)
        };
        saved.each(take).expect("it can be read");
        states.loaded();
        (states, count)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// What was saved is what there is, through changes, removals and restarts, and the chunks stay small.
        #[test]
        fn what_was_saved_comes_back(
            batches in prop::collection::vec((prop::collection::vec((0u8..60, 0u8..4), 0..12), any::<bool>(), 0i64..9), 1..60),
        ) {
            let (mut store, _) = Store::open(None, "job").expect("it opens");
            let (mut states, mut expected) = (States::new(0), BTreeMap::new());
            for (time, (rows, restart, expire)) in batches.into_iter().enumerate() {
                let time = time as i64;
                for (key, value) in rows {
                    let value = vec![value; usize::from(value)];
                    states.set(&[key], &value, time);
                    expected.insert(vec![key], (value, time));
                }
                if expire == 0 {
                    let before = expected.len();
                    expected.retain(|_, (_, touched)| *touched >= time - 5);
                    prop_assert_eq!(states.remove_untouched(time - 5), before - expected.len());
                }
                save(&mut store, &mut states);
                let (loaded, entries) = load(&store);
                let found: BTreeMap<_, _> = loaded
                    .states
                    .iter()
                    .map(|(key, state)| (key.to_vec(), (state.value.to_vec(), state.touched)))
                    .collect();
                prop_assert_eq!(&found, &expected);
                prop_assert!(entries <= 4 * 60 + 9 * 60, "{} entries", entries);
                if restart {
                    states = loaded;
                }
            }
        }
    }

    #[test]
    fn a_commit_writes_what_has_changed_and_not_more() {
        let (mut store, _) = Store::open(None, "job").expect("it opens");
        let mut states = States::new(0);
        (0..10_000u32).for_each(|key| states.set(&key.to_le_bytes(), b"value", 1));
        save(&mut store, &mut states);
        let (_, all) = load(&store);
        let mut most = all;
        for round in 0..2_000u32 {
            (0..10).for_each(|key| states.set(&(key * 1000 + round % 1000).to_le_bytes(), b"other", 2));
            save(&mut store, &mut states);
            if round == 0 {
                assert!(load(&store).1 <= all + 10 * (1 + OTHERS));
            }
            if round % 100 == 0 {
                most = most.max(load(&store).1);
            }
        }
        assert!(most <= 5 * 10_000, "{most} entries for 10000 states");
        assert!(load(&store).0.iter().all(|(_, value)| value == b"other"));
    }

    #[test]
    fn damaged_chunks_are_an_error() {
        let mut bytes = Vec::new();
        put_entry(&mut bytes, b"key", Some((b"value", 3)));
        put_entry(&mut bytes, b"gone", None);
        let found: Result<Vec<_>> = entries(&bytes).collect();
        assert_eq!(found.expect("they are whole"), [(&b"key"[..], Some(&b"value"[..]), 3), (b"gone", None, 0)]);
        for length in 1..bytes.len() {
            let cut: Result<Vec<_>> = entries(&bytes[..length]).collect();
            assert!(cut.is_err() || length == HEAD + 8, "{length}");
        }
    }
}
