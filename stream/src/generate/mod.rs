//! Data to try jobs with: access logs, orders, reviews and words, made up as fast as is asked for.
//!
//! With a seed the same lines come every time: their times then begin at a fixed moment, and each line is as much later
//! as the rate says. Without one they have the time of the clock.

mod access_log;
mod orders;
mod output;
mod pace;
mod reviews;
mod words;

use fastrand::Rng;
use jiff::Zoned;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

pub use access_log::{AccessLog, Site};
pub use orders::Orders;
pub use output::{Output, Target};
pub use pace::{Pace, Rate};
pub use reviews::Reviews;
pub use words::Words;

/// When lines with a seed begin, by local time.
const FIRST: DateTime = DateTime::constant(2020, 5, 30, 15, 37, 59, 0);

/// When a line is said to have been written.
#[derive(Debug)]
pub struct Moment {
    /// As `2020-05-30 15:37:59`.
    pub text: String,
    /// The same.
    pub zoned: Zoned,
}

impl Moment {
    fn at(zoned: Zoned) -> Self {
        Self { text: zoned.strftime("%F %T").to_string(), zoned }
    }
}

/// Makes lines of one kind.
pub trait Maker: Send {
    /// Adds a line, without its end.
    fn line(&mut self, rng: &mut Rng, moment: &Moment, out: &mut Vec<u8>);
}

/// Makes lines one after the other.
pub struct Generator {
    maker: Box<dyn Maker>,
    rng: Rng,
    moment: Moment,
    /// When lines begin and the seconds between two, where the clock does not count.
    script: Option<(Zoned, f64)>,
    made: u64,
}

impl Generator {
    /// Makes lines; with a seed, always the same.
    pub fn new(maker: Box<dyn Maker>, seed: Option<u64>, rate: Rate) -> Self {
        let first = FIRST.to_zoned(TimeZone::system()).unwrap_or_else(|_| Zoned::now());
        Self {
            maker,
            rng: seed.map_or_else(Rng::new, Rng::with_seed),
            moment: Moment::at(first.clone()),
            script: seed.map(|_| (first, rate.step())),
            made: 0,
        }
    }

    /// Adds so many lines.
    pub fn push(&mut self, count: u64, out: &mut Vec<u8>) {
        let now = Zoned::now();
        for _ in 0..count {
            self.set_time(&now);
            self.maker.line(&mut self.rng, &self.moment, out);
            out.push(b'\n');
            self.made += 1;
        }
    }

    fn set_time(&mut self, now: &Zoned) {
        let after = |(first, step): &(Zoned, f64)| {
            let seconds = (self.made as f64 * step) as i64;
            first.saturating_add(jiff::SignedDuration::from_secs(seconds))
        };
        let time = self.script.as_ref().map(after);
        let time = time.as_ref().unwrap_or(now);
        if *time != self.moment.zoned {
            self.moment = Moment::at(time.clone());
        }
    }
}

/// One of a few.
fn one_of<'a, T: ?Sized>(rng: &mut Rng, all: &[&'a T]) -> &'a T {
    all[rng.usize(..all.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(maker: Box<dyn Maker>, seed: u64, portions: &[u64]) -> Vec<String> {
        let mut generator = Generator::new(maker, Some(seed), "2".parse().expect("it is a rate"));
        let mut out = Vec::new();
        portions.iter().for_each(|count| generator.push(*count, &mut out));
        String::from_utf8(out).expect("it is text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_seed_gives_the_same_lines_however_they_are_asked_for() {
        let makers: [fn() -> Box<dyn Maker>; 4] = [
            || Box::new(AccessLog::new(Site::Shop, true)),
            || Box::new(Orders::default()),
            || Box::new(Reviews { text_only: false }),
            || Box::new(Words),
        ];
        for make in makers {
            let whole = lines(make(), 7, &[40]);
            assert_eq!(whole.len(), 40);
            assert_eq!(whole, lines(make(), 7, &[1, 20, 3, 16]));
            assert_ne!(whole, lines(make(), 8, &[40]));
        }
    }

    #[test]
    fn access_logs_are_as_the_shop_writes_them() {
        for line in lines(Box::new(AccessLog::new(Site::Shop, false)), 1, &[200]) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [ip, time, request, status, referer] = fields.as_slice() else { panic!("{line}") };
            assert_eq!(ip.split('.').filter_map(|part| part.parse::<u8>().ok()).count(), 4, "{line}");
            assert!(time.starts_with("2020-05-30 15:3"), "{line}");
            assert!(request.starts_with("\"GET /") && request.ends_with(" HTTP/1.1\""), "{line}");
            assert!(["200", "404", "500"].contains(status), "{line}");
            assert!(*referer == "-" || referer.starts_with("https://www."), "{line}");
        }
        let two_a_second = lines(Box::new(AccessLog::new(Site::Class, true)), 1, &[3]);
        let times: Vec<&str> = two_a_second.iter().filter_map(|line| line.split('\t').nth(1)).collect();
        assert_eq!(times, ["2020-05-30 15:37:59", "2020-05-30 15:37:59", "2020-05-30 15:38:00"]);
        assert!(two_a_second.iter().all(|line| line.split('\t').count() == 6 && line.contains("\"GET /")));
    }

    #[test]
    fn orders_are_numbered_and_reviews_are_objects() {
        for (index, line) in lines(Box::new(Orders::default()), 1, &[100]).iter().enumerate() {
            let fields: Vec<&str> = line.split(',').collect();
            let [_, id, client, _, shares, price, kind] = fields.as_slice() else { panic!("{line}") };
            assert_eq!(*id, (index + 1).to_string());
            assert!(
                (1..=100).contains(&client.parse().unwrap_or(0)) && (1..=1000).contains(&shares.parse().unwrap_or(0))
            );
            assert!(price.split_once('.').is_some_and(|(_, cents)| cents.len() == 2), "{line}");
            assert!(["B", "S"].contains(kind), "{line}");
        }
        for line in lines(Box::new(Reviews { text_only: false }), 1, &[50]) {
            let review: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
            assert!(review["reviewText"].as_str().is_some_and(|text| text.contains(' ')), "{line}");
            assert!((1.0..=5.0).contains(&review["overall"].as_f64().unwrap_or(0.0)), "{line}");
        }
    }
}
