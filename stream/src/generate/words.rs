//! Lines of words, as one types them into `nc -lk`.

use fastrand::Rng;

use super::{Maker, Moment, one_of};

const WORDS: &[&str] =
    &["hello", "world", "spark", "flume", "kafka", "streaming", "hadoop", "storm", "data", "count", "window", "state"];

/// One to six words a line; the first ones of the list are the most frequent.
#[derive(Debug)]
pub struct Words;

impl Maker for Words {
    fn line(&mut self, rng: &mut Rng, _: &Moment, out: &mut Vec<u8>) {
        for index in 0..rng.usize(1..=6) {
            if index > 0 {
                out.push(b' ');
            }
            let most = rng.usize(1..=WORDS.len());
            out.extend_from_slice(one_of(rng, &WORDS[..most]).as_bytes());
        }
    }
}
