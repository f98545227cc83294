//! Time stamps of messages, as milliseconds since 1970.
//!
//! An RFC 3164 stamp names no year. It gets the one that puts it between eleven months before now and one month after,
//! so that stamps are right on both sides of a year's end, whichever of the two clocks is ahead.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

/// The moment that stamps are read at, and the zone of those that name none.
#[derive(Clone, Debug)]
pub struct Clock {
    now: Timestamp,
    zone: TimeZone,
}

impl Clock {
    /// The system's clock and zone.
    pub fn system() -> Self {
        Self { now: Timestamp::now(), zone: TimeZone::system() }
    }

    /// A clock that stands still.
    pub fn at(now: Timestamp, zone: TimeZone) -> Self {
        Self { now, zone }
    }

    /// Now, in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    /// An RFC 5424 stamp whose shape has been checked: `yyyy-MM-ddTHH:mm:ss`, a fraction or none, and `Z`, an offset or
    /// nothing, which means the local zone. Fields that are too large run over into the next ones, as in Flume.
    pub fn full(&self, stamp: &[u8]) -> Option<i64> {
        let (date, rest) = stamp.split_at_checked(SECONDS_END)?;
        let time = overflowing(
            number(&date[..4])?,
            number(&date[5..7])?,
            number(&date[8..10])?,
            [number(&date[11..13])?, number(&date[14..16])?, number(&date[17..19])?],
        )?;
        let (millis, zone) = fraction(rest)?;
        let seconds = match zone {
            b"" => local(time, &self.zone)?,
            zone => utc(time)?.checked_sub(offset(zone)?)?,
        };
        seconds.checked_mul(1000)?.checked_add(millis)
    }

    /// An RFC 3164 stamp whose shape has been checked, `MMM d HH:mm:ss` with one blank or two, in the local zone. `None`
    /// when there is no such month; other fields that are too large run over into the next ones, as in Flume.
    pub fn short(&self, stamp: &[u8]) -> Option<i64> {
        let Short { month, day, time } = Short::read(stamp)?;
        self.likely_year(&self.zone, |year| overflowing(year, month, day, time))
    }

    /// An RFC 5424 stamp of whatever shape, which must be right in every field and name its zone.
    pub fn strict_full(&self, stamp: &[u8]) -> Option<i64> {
        let (date, rest) = stamp.split_at_checked(SECONDS_END)?;
        let shape = |(at, byte): (usize, &u8)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        };
        if !date.iter().enumerate().all(shape) {
            return None;
        }
        let day =
            Date::new(number(&date[..4])? as i16, number(&date[5..7])? as i8, number(&date[8..10])? as i8).ok()?;
        let time = of_day(day, [number(&date[11..13])?, number(&date[14..16])?, number(&date[17..19])?])?;
        let (millis, zone) = fraction(rest)?;
        let offset = match zone {
            [] => return None,
            [b'+' | b'-', ..] => offset(zone)?,
            // Whatever else follows is passed over, as in Flume.
            _ => 0,
        };
        Some((utc(time)? - offset) * 1000 + millis)
    }

    /// An RFC 3164 stamp of whatever shape, in UTC. `None` when it is none.
    pub fn strict_short(&self, stamp: &[u8]) -> Option<i64> {
        let Short { month, day, time } = Short::read(stamp)?;
        // A year that has every day.
        Date::new(2000, month as i8, day as i8).ok()?;
        let civil = |year: i64| {
            let date = Date::new(year as i16, month as i8, day as i8);
            of_day(date.or_else(|_| Date::new(year as i16, month as i8, 28)).ok()?, time)
        };
        civil(2000)?;
        self.likely_year(&TimeZone::UTC, civil)
    }

    /// The time in the year that it most likely is of.
    fn likely_year(&self, zone: &TimeZone, civil: impl Fn(i64) -> Option<DateTime>) -> Option<i64> {
        let year = i64::from(self.now.to_zoned(TimeZone::UTC).year());
        let now = self.now.as_second();
        let this = civil(year)?;
        let year = if local(this.checked_sub(1.month()).ok()?, zone)? > now {
            year - 1
        } else if local(this.checked_add(11.months()).ok()?, zone)? < now {
            year + 1
        } else {
            year
        };
        Some(local(civil(year)?, zone)? * 1000)
    }
}

/// Where the fraction and the zone of an RFC 5424 stamp begin.
const SECONDS_END: usize = 19;

/// The fields of an RFC 3164 stamp.
struct Short {
    month: i64,
    day: i64,
    time: [i64; 3],
}

impl Short {
    fn read(stamp: &[u8]) -> Option<Self> {
        let (name, rest) = stamp.split_at_checked(3)?;
        let month = MONTHS.iter().position(|month| name.eq_ignore_ascii_case(month))? as i64 + 1;
        let rest = rest.strip_prefix(b" ")?;
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let mut fields = rest.splitn(2, |byte| *byte == b' ');
        let day = short_number(fields.next()?)?;
        let mut fields = fields.next()?.split(|byte| *byte == b':').map(short_number);
        let time = [fields.next()??, fields.next()??, fields.next()??];
        fields.next().is_none().then_some(Self { month, day, time })
    }
}

/// A number of one or two digits.
fn short_number(digits: &[u8]) -> Option<i64> {
    matches!(digits.len(), 1 | 2).then(|| number(digits)).flatten()
}

fn number(digits: &[u8]) -> Option<i64> {
    let digit = |sum: i64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'));
    digits.iter().try_fold(0, digit)
}

/// Splits `.123456Z` into milliseconds and the zone; `None` when a point has no digits behind it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else { return Some((0, text)) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = rest.split_at(digits);
    let first = number(digits.get(..digits.len().min(3)).filter(|digits| !digits.is_empty())?)?;
    Some((first * [100, 10, 1][digits.len().min(3) - 1], zone))
}

/// The seconds of `Z` or `±hh:mm`.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match zone {
        b"Z" => return Some(0),
        [sign, h, hh, b':', m, mm, ..] => (*sign, number(&[*h, *hh])?, number(&[*m, *mm])?),
        _ => return None,
    };
    let seconds = (hours * 60 + minutes) * 60;
    Some(if sign == b'-' { -seconds } else { seconds })
}

/// A date whose month, day and time may be too large, and run over then.
fn overflowing(year: i64, month: i64, day: i64, [hours, minutes, seconds]: [i64; 3]) -> Option<DateTime> {
    let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
    let first = Date::new(i16::try_from(year).ok()?, month as i8, 1).ok()?;
    let rest = (((day - 1) * 24 + hours) * 60 + minutes) * 60 + seconds;
    first.to_datetime(jiff::civil::Time::midnight()).checked_add(SignedDuration::from_secs(rest)).ok()
}

fn of_day(date: Date, [hours, minutes, seconds]: [i64; 3]) -> Option<DateTime> {
    let time = jiff::civil::Time::new(hours as i8, minutes as i8, seconds as i8, 0).ok()?;
    Some(date.to_datetime(time))
}

fn utc(time: DateTime) -> Option<i64> {
    Some(Offset::UTC.to_timestamp(time).ok()?.as_second())
}

/// Of a time that comes twice the second is meant, as in Java.
fn local(time: DateTime, zone: &TimeZone) -> Option<i64> {
    Some(zone.to_ambiguous_timestamp(time).later().ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clock(now: &str, zone: &str) -> Clock {
        Clock::at(now.parse().expect("a time"), TimeZone::get(zone).expect("a zone"))
    }

    fn shown(ms: Option<i64>) -> Option<String> {
        ms.map(|ms| Timestamp::from_millisecond(ms).expect("in range").to_string())
    }

    #[test]
    fn years_of_stamps_without_one_are_right_across_a_years_end() {
        for (now, stamp, expected) in [
            ("2027-01-01T00:00:05Z", "Dec 31 23:59:59", "2026-12-31T23:59:59Z"),
            ("2026-12-31T23:59:58Z", "Jan  1 00:00:01", "2027-01-01T00:00:01Z"),
            ("2026-11-21T00:00:00Z", "Dec 20 00:00:00", "2026-12-20T00:00:00Z"),
            ("2026-11-21T00:00:00Z", "Dec 22 00:00:00", "2025-12-22T00:00:00Z"),
            ("2026-11-21T00:00:00Z", "Oct 11 22:14:15", "2026-10-11T22:14:15Z"),
            ("2026-12-21T00:00:00Z", "Jan 20 00:00:00", "2027-01-20T00:00:00Z"),
            ("2026-12-21T00:00:00Z", "Jan 22 00:00:00", "2026-01-22T00:00:00Z"),
            ("2025-01-10T00:00:00Z", "Feb 29 12:00:00", "2024-02-29T12:00:00Z"),
            ("2024-03-01T00:00:00Z", "Feb 29 12:00:00", "2024-02-29T12:00:00Z"),
        ] {
            let clock = clock(now, "UTC");
            assert_eq!(shown(clock.short(stamp.as_bytes())).as_deref(), Some(expected), "{stamp} at {now}");
            assert_eq!(shown(clock.strict_short(stamp.as_bytes())).as_deref(), Some(expected), "{stamp} at {now}");
        }
    }

    #[test]
    fn the_year_is_that_of_the_senders_zone() {
        // In Tokyo it is the first of January already.
        let clock = clock("2026-12-31T15:30:00Z", "Asia/Tokyo");
        assert_eq!(shown(clock.short(b"Jan  1 00:30:00")).as_deref(), Some("2026-12-31T15:30:00Z"));
        assert_eq!(shown(clock.strict_short(b"Dec 31 15:30:00")).as_deref(), Some("2026-12-31T15:30:00Z"));
    }

    #[test]
    fn full_stamps() {
        let clock = clock("2026-11-21T00:00:00Z", "Europe/Berlin");
        for (stamp, expected) in [
            ("2003-10-11T22:14:15.003Z", "2003-10-11T22:14:15.003Z"),
            ("2003-08-24T05:14:15.000003-07:00", "2003-08-24T12:14:15Z"),
            ("2003-08-24T05:14:15.5+02:00", "2003-08-24T03:14:15.5Z"),
            ("2003-08-24T05:14:15.123987Z", "2003-08-24T05:14:15.123Z"),
        ] {
            assert_eq!(shown(clock.full(stamp.as_bytes())).as_deref(), Some(expected), "{stamp}");
            assert_eq!(shown(clock.strict_full(stamp.as_bytes())).as_deref(), Some(expected), "{stamp}");
        }
        assert_eq!(shown(clock.full(b"2003-08-24T05:14:15")).as_deref(), Some("2003-08-24T03:14:15Z"));
        assert_eq!(shown(clock.full(b"2003-13-45T25:61:61Z")).as_deref(), Some("2004-02-15T02:02:01Z"));
        for wrong in
            ["2003-08-24T05:14:15", "2003-08-24T05:14:15.Z", "2003-13-01T00:00:00Z", "2003-08-24T05:14:15.1", "-"]
        {
            assert_eq!(clock.strict_full(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn an_hour_that_comes_twice_or_never_is_javas() {
        let clock = clock("2026-11-01T00:00:00Z", "Europe/Berlin");
        assert_eq!(shown(clock.short(b"Oct 25 02:30:00")).as_deref(), Some("2026-10-25T01:30:00Z"));
        assert_eq!(shown(clock.short(b"Mar 29 02:30:00")).as_deref(), Some("2026-03-29T01:30:00Z"));
    }

    #[test]
    fn short_stamps_that_are_none() {
        let clock = clock("2026-11-21T00:00:00Z", "UTC");
        assert_eq!(clock.short(b"Foo 20 22:14:15"), None);
        assert_eq!(shown(clock.short(b"Feb 31 22:14:15")).as_deref(), Some("2026-03-03T22:14:15Z"));
        for wrong in ["Feb 31 22:14:15", "Feb 11 24:14:15", "Garbage text th", "Nov 1", "Nov 1 1:2:3:4", "Nov  "] {
            assert_eq!(clock.strict_short(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(stamp in prop::collection::vec(any::<u8>(), 0..40), shaped in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,6})?(Z|[+-][0-9]{2}:[0-9]{2})?", short in "[A-Z][a-z][a-z]  ?[0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2}") {
            let clock = Clock::system();
            for text in [&stamp[..], shaped.as_bytes(), short.as_bytes()] {
                clock.full(text);
                clock.short(text);
                clock.strict_full(text);
                clock.strict_short(text);
            }
        }
    }
}
