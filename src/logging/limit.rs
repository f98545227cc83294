//! A bound on how often one place may speak, for what clients or a full channel can cause at any rate.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Lines of one place in a second.
const LINES_A_SECOND: u32 = 10;

/// Lets through a few lines a second and counts the rest.
#[derive(Debug, Default)]
pub struct Limited(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    second: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// How many lines were kept back since the last one: nothing, or a remark to go behind a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (1 line like this was left out before it)"),
            n => write!(f, " ({n} lines like this were left out before it)"),
        }
    }
}

impl Limited {
    /// Whether a line may be logged now.
    pub fn permit(&self) -> Option<Suppressed> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<Suppressed> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.second.is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
            state.second = Some(now);
            state.lines = 0;
        }
        if state.lines == LINES_A_SECOND {
            state.suppressed += 1;
            return None;
        }
        state.lines += 1;
        Some(Suppressed(std::mem::take(&mut state.suppressed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_and_a_count_of_the_rest() {
        let limited = Limited::default();
        let now = Instant::now();
        let permitted = (0..25).filter(|_| limited.permit_at(now).is_some()).count();
        assert_eq!(permitted, 10);
        let later = limited.permit_at(now + Duration::from_secs(1)).expect("a new second");
        assert_eq!(later.to_string(), " (15 lines like this were left out before it)");
        assert_eq!(limited.permit_at(now + Duration::from_secs(1)).expect("the same second").to_string(), "");
    }
}
