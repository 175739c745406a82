//! The names of a folder, between the pages of a listing.
//!
//! Vault returns a folder in one response, whatever the size of a page. What a page leaves of it is
//! kept for the next page of the same walk, so that a walk costs one request and not one per page.
//! Nothing depends on it: a page without kept names lists the folder again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secret_persistence_core::Cursor;
use uuid::Uuid;

/// A slow walk lists the folder again from time to time, because its names may have been deleted.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// The managed names of any response that the client accepts.
const MAX_BYTES: usize = 40 << 20;
/// Abandoned walks are small, but not free.
const MAX_WALKS: usize = 64;

/// Sorted names. Each takes its length and eight bytes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    text: String,
    ends: Vec<usize>,
}

impl Names {
    /// Sorts and copies names.
    pub(crate) fn new(mut names: Vec<&str>) -> Self {
        names.sort_unstable();
        let mut sorted = Self {
            text: String::with_capacity(names.iter().map(|name| name.len()).sum()),
            ends: Vec::with_capacity(names.len()),
        };
        for name in names {
            sorted.text.push_str(name);
            sorted.ends.push(sorted.text.len());
        }
        sorted
    }

    /// The names after one of them, which may be gone; all names without one.
    pub(crate) fn after(&self, name: Option<&str>) -> impl Iterator<Item = &str> {
        let (mut from, mut to) = (0, self.ends.len());
        while let Some(name) = name
            && from < to
        {
            let middle = usize::midpoint(from, to);
            if self.at(middle) <= name {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        (from..self.ends.len()).map(|at| self.at(at))
    }

    fn at(&self, at: usize) -> &str {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin..self.ends[at]]
    }

    fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// The position of a walk: its last name, and the number under which its names are kept.
///
/// The number is random, so that a cursor from another process finds nothing, and no walk continues
/// with names that were listed before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position<'a> {
    pub(crate) walk: Option<Uuid>,
    pub(crate) last: &'a str,
}

impl<'a> Position<'a> {
    pub(crate) fn parse(cursor: &'a Cursor) -> Self {
        let text = cursor.as_str();
        // No managed name contains a slash.
        let (walk, last) = match text.split_once('/') {
            Some((walk, last)) => (Uuid::parse_str(walk).ok(), last),
            None => (None, text),
        };
        Self { walk, last }
    }

    pub(crate) fn cursor(walk: Uuid, last: &str) -> Cursor {
        Cursor::new(format!("{}/{last}", walk.simple()))
    }
}

/// The names of the walks under way.
#[derive(Debug, Default)]
pub(crate) struct Walks(Mutex<VecDeque<Walk>>);

#[derive(Debug)]
struct Walk {
    number: Uuid,
    names: Arc<Names>,
    listed: Instant,
}

impl Walks {
    /// The names of a walk, unless they are too old or had to make room.
    pub(crate) fn names(&self, number: Uuid, now: Instant) -> Option<Arc<Names>> {
        let mut walks = self.0.lock();
        forget_old(&mut walks, now);
        let walk = walks.iter().find(|walk| walk.number == number)?;
        Some(Arc::clone(&walk.names))
    }

    /// Keeps the names of a new walk. The oldest walks make room.
    pub(crate) fn keep(&self, names: Arc<Names>, now: Instant) -> Uuid {
        let number = Uuid::new_v4();
        let mut walks = self.0.lock();
        forget_old(&mut walks, now);
        walks.push_back(Walk {
            number,
            names,
            listed: now,
        });
        let mut bytes: usize = walks.iter().map(|walk| walk.names.bytes()).sum();
        while bytes > MAX_BYTES || walks.len() > MAX_WALKS {
            bytes -= walks.pop_front().map_or(bytes, |walk| walk.names.bytes());
        }
        number
    }

    /// Ends a walk.
    pub(crate) fn end(&self, number: Uuid) {
        self.0.lock().retain(|walk| walk.number != number);
    }
}

fn forget_old(walks: &mut VecDeque<Walk>, now: Instant) {
    walks.retain(|walk| now.saturating_duration_since(walk.listed) < MAX_AGE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Arc<Names> {
        Arc::new(Names::new(names.to_vec()))
    }

    #[test]
    fn names_are_sorted_and_continue_after_one_that_may_be_gone() {
        let names = names(&["d", "b", "f"]);
        let after = |name| names.after(name).collect::<Vec<_>>();
        assert_eq!(after(None), ["b", "d", "f"]);
        assert_eq!(after(Some("a")), ["b", "d", "f"]);
        assert_eq!(after(Some("b")), ["d", "f"]);
        assert_eq!(after(Some("c")), ["d", "f"]);
        assert_eq!(after(Some("f")), [""; 0]);
        assert_eq!(Names::default().after(Some("a")).count(), 0);
    }

    #[test]
    fn a_name_takes_its_length_and_eight_bytes() {
        let texts: Vec<String> = (0..20_000).map(|number| format!("{number:080}")).collect();
        let names = Names::new(texts.iter().map(String::as_str).collect());
        assert_eq!(names.bytes(), 20_000 * 88);
    }

    #[test]
    fn a_cursor_finds_its_walk_and_a_bare_name_finds_none() {
        let number = Uuid::new_v4();
        let cursor = Position::cursor(number, "airbyte_x_v1");
        let position = Position::parse(&cursor);
        assert_eq!(position.walk, Some(number));
        assert_eq!(position.last, "airbyte_x_v1");
        let bare = Cursor::new("airbyte_x_v1");
        assert_eq!(Position::parse(&bare).last, "airbyte_x_v1");
        assert_eq!(Position::parse(&bare).walk, None);
    }

    #[test]
    fn walks_are_kept_apart_until_they_end_or_grow_old() {
        let (walks, now) = (Walks::default(), Instant::now());
        let first = walks.keep(names(&["a"]), now);
        let second = walks.keep(names(&["b"]), now + MAX_AGE / 2);
        let found = |number, now| {
            let names = walks.names(number, now)?;
            Some(names.after(None).collect::<String>())
        };
        assert_eq!(found(first, now).as_deref(), Some("a"));
        assert_eq!(found(second, now).as_deref(), Some("b"));
        assert_eq!(found(Uuid::new_v4(), now), None);
        assert_eq!(found(first, now + MAX_AGE), None);
        assert_eq!(found(second, now + MAX_AGE).as_deref(), Some("b"));
        walks.end(second);
        assert_eq!(found(second, now), None);
        assert!(walks.0.lock().is_empty());
    }

    #[test]
    fn the_oldest_walks_make_room() {
        let (walks, now) = (Walks::default(), Instant::now());
        let large = "x".repeat(MAX_BYTES / 2);
        let first = walks.keep(names(&[&large]), now);
        let second = walks.keep(names(&["b"]), now);
        let third = walks.keep(names(&[&large]), now);
        assert!(walks.names(first, now).is_none());
        assert!(walks.names(second, now).is_some());
        assert!(walks.names(third, now).is_some());
        let too_large = walks.keep(names(&[&"x".repeat(MAX_BYTES)]), now);
        assert!(walks.names(too_large, now).is_none());
        for _ in 0..2 * MAX_WALKS {
            walks.keep(names(&["c"]), now);
        }
        assert_eq!(walks.0.lock().len(), MAX_WALKS);
    }
}
