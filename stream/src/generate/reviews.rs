//! Reviews of products: JSON objects, or their texts alone.

use fastrand::Rng;
use serde_json::json;

use super::{Maker, Moment, one_of};

const NAMES: &[&str] = &["Alice", "Bob", "Carla", "Dmitri", "Emre", "Fatima", "Gunnar", "Hiro", "Inès", "J. Smith"];
const OPENINGS: &[&str] = &[
    "I bought this for my daughter and",
    "After two weeks of use",
    "To be honest,",
    "Out of the box",
    "My old one broke, so I tried this, and",
    "As a musician I can say that",
];
const PRAISE: &[&str] =
    &["it works great", "the sound is great", "it does the job", "the quality is good", "it is worth every cent"];
const BLAME: &[&str] =
    &["it broke at once", "the cable is too short", "the sound is bad", "it does not work", "the quality is poor"];
const ENDINGS: &[&str] = &["Would buy again.", "Great price!", "Not for me.", "I \"like\" it.", "Five stars.", "Fine."];

/// Reviews.
#[derive(Debug)]
pub struct Reviews {
    /// Only the text of each, not the object.
    pub text_only: bool,
}

impl Maker for Reviews {
    fn line(&mut self, rng: &mut Rng, moment: &Moment, out: &mut Vec<u8>) {
        let stars = rng.u8(1..=5);
        let opinion = one_of(rng, if stars >= 3 { PRAISE } else { BLAME });
        let text = format!("{} {opinion}. {}", one_of(rng, OPENINGS), one_of(rng, ENDINGS));
        if self.text_only {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        let found = rng.u8(..10);
        let review = json!({
            "reviewerID": format!("A{:013X}", rng.u64(..1 << 52)),
            "asin": format!("B{:09}", rng.u32(..300)),
            "reviewerName": one_of(rng, NAMES),
            "helpful": [rng.u8(..=found), found],
            "reviewText": text,
            "overall": f64::from(stars),
            "summary": opinion,
            "unixReviewTime": moment.zoned.timestamp().as_second(),
            "reviewTime": moment.zoned.strftime("%m %d, %Y").to_string(),
        });
        out.extend_from_slice(review.to_string().as_bytes());
    }
}
