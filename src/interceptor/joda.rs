//! Times read by a pattern of the Joda library, as its `DateTimeFormat.forPattern` has them.
//!
//! Letters: `y` `Y` `M` `d` `D` `E` `H` `k` `K` `h` `a` `m` `s` `S` `Z` (an offset; the same as `ZZ`), in English; others
//! are refused. What a pattern does not say is the first of its kind, the year 2000 where a month or a day is given, and
//! 1970 otherwise; without an offset the time is in this machine's zone.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, Timestamp};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const HALVES: [&str; 2] = ["AM", "PM"];

/// The most digits that a year has when no other number follows it.
const YEAR_DIGITS: usize = 9;
/// Years of two digits lie between so many years before and after this one.
const YEARS_BACK: i64 = 80;

/// A pattern.
#[derive(Debug)]
pub struct TimePattern {
    text: String,
    parts: Vec<Part>,
    zone: TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    DayOfYear,
    Weekday,
    Hour,
    /// 1 to 24.
    ClockHour,
    HourOfHalf,
    /// 1 to 12.
    ClockHourOfHalf,
    Half,
    Minute,
    Second,
}

impl Field {
    fn range(self) -> (i64, i64) {
        match self {
            Self::Year => (-9999, 9999),
            Self::Month => (1, 12),
            Self::Day => (1, 31),
            Self::DayOfYear => (1, 366),
            Self::Weekday => (1, 7),
            Self::Hour => (0, 23),
            Self::ClockHour => (1, 24),
            Self::HourOfHalf => (0, 11),
            Self::ClockHourOfHalf => (1, 12),
            Self::Half => (0, 1),
            Self::Minute | Self::Second => (0, 59),
        }
    }
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Number {
        field: Field,
        digits: usize,
        signed: bool,
    },
    /// With `lenient`, other numbers of digits than two are a whole year.
    TwoDigitYear {
        lenient: bool,
    },
    /// One of the names, whole or its first `short` letters; the first name has the number `first`.
    Name {
        field: Field,
        names: &'static [&'static str],
        short: usize,
        first: i64,
    },
    Fraction {
        digits: usize,
    },
    Offset,
}

impl Part {
    /// Whether it is a number for the part before it, which then may not take more digits than it has letters.
    fn is_number(&self) -> bool {
        matches!(self, Self::Number { .. } | Self::TwoDigitYear { .. } | Self::Fraction { .. })
    }
}

impl TimePattern {
    /// Reads a pattern; an error says what was expected.
    pub fn new(text: &str) -> Result<Self, String> {
        let tokens = tokens(text);
        let mut parts: Vec<Part> = Vec::new();
        for (letter, len, literal) in tokens.into_iter().rev() {
            let Some(letter) = letter else {
                parts.push(Part::Literal(literal));
                continue;
            };
            let next_is_number = parts.last().is_some_and(Part::is_number);
            parts.push(part(letter, len, next_is_number).ok_or_else(|| {
                format!("a pattern of Joda's with the letters yYMdDEHkKhamsSZ; \"{}\" is not supported", literal)
            })?);
        }
        parts.reverse();
        Ok(Self { text: text.to_owned(), parts, zone: TimeZone::system() })
    }

    /// The milliseconds since 1970 of a time.
    pub fn millis(&self, text: &str) -> Result<i64, String> {
        self.read(text)
            .ok_or_else(|| format!("\"{}\" is not a time of the pattern \"{}\"", text.escape_debug(), self.text))
    }

    fn read(&self, text: &str) -> Option<i64> {
        let mut fields = Fields::default();
        let mut rest = text;
        for part in &self.parts {
            rest = fields.take(part, rest)?;
        }
        if !rest.is_empty() {
            return None;
        }
        fields.timestamp(&self.zone).map(Timestamp::as_millisecond)
    }
}

/// Runs of a letter, and literal texts between them. Each with its own text.
fn tokens(pattern: &str) -> Vec<(Option<char>, usize, String)> {
    let mut tokens: Vec<(Option<char>, usize, String)> = Vec::new();
    let mut chars = pattern.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        if c == '\'' && chars.next_if_eq(&'\'').is_none() {
            quoted = !quoted;
            continue;
        }
        if c.is_ascii_alphabetic() && !quoted {
            let mut run = String::from(c);
            while let Some(same) = chars.next_if_eq(&c) {
                run.push(same);
            }
            tokens.push((Some(c), run.len(), run));
            continue;
        }
        match tokens.last_mut() {
            Some((None, _, literal)) => literal.push(c),
            _ => tokens.push((None, 0, c.to_string())),
        }
    }
    tokens
}

fn part(letter: char, len: usize, next_is_number: bool) -> Option<Part> {
    let number = |field, digits| Part::Number { field, digits, signed: false };
    Some(match letter {
        'y' | 'Y' if len == 2 => Part::TwoDigitYear { lenient: !next_is_number },
        'y' | 'Y' => {
            let digits = if next_is_number { len } else { YEAR_DIGITS };
            Part::Number { field: Field::Year, digits, signed: letter == 'y' }
        }
        'M' if len < 3 => number(Field::Month, 2),
        'M' => Part::Name { field: Field::Month, names: &MONTHS, short: 3, first: 1 },
        'd' => number(Field::Day, 2),
        'D' => number(Field::DayOfYear, 3),
        'E' => Part::Name { field: Field::Weekday, names: &WEEKDAYS, short: 3, first: 1 },
        'H' => number(Field::Hour, 2),
        'k' => number(Field::ClockHour, 2),
        'K' => number(Field::HourOfHalf, 2),
        'h' => number(Field::ClockHourOfHalf, 2),
        'a' => Part::Name { field: Field::Half, names: &HALVES, short: 2, first: 0 },
        'm' => number(Field::Minute, 2),
        's' => number(Field::Second, 2),
        'S' => Part::Fraction { digits: len },
        'Z' if len < 3 => Part::Offset,
        _ => return None,
    })
}

/// What a text says.
#[derive(Default)]
struct Fields {
    values: Vec<(Field, i64)>,
    millis: i64,
    offset: Option<Offset>,
}

impl Fields {
    fn get(&self, field: Field) -> Option<i64> {
        self.values.iter().rev().find(|(known, _)| *known == field).map(|(_, value)| *value)
    }

    fn set(&mut self, field: Field, value: i64) -> Option<()> {
        let (least, most) = field.range();
        self.values.push((field, (least..=most).contains(&value).then_some(value)?));
        Some(())
    }

    /// Takes one part off the front of a text and gives the rest.
    fn take<'t>(&mut self, part: &Part, text: &'t str) -> Option<&'t str> {
        match part {
            Part::Literal(literal) => {
                let front = text.get(..literal.len())?;
                (front.to_lowercase() == literal.to_lowercase()).then(|| &text[literal.len()..])
            }
            Part::Number { field, digits, signed } => {
                let (value, rest) = number(text, *digits, *signed)?;
                self.set(*field, value)?;
                Some(rest)
            }
            Part::TwoDigitYear { lenient } => {
                let (value, rest) = number(text, if *lenient { YEAR_DIGITS } else { 2 }, *lenient)?;
                let year = match text.len() - rest.len() {
                    2 if value >= 0 => {
                        let least = i64::from(jiff::Zoned::now().year()) - YEARS_BACK;
                        least + (value - least).rem_euclid(100)
                    }
                    _ if *lenient => value,
                    _ => return None,
                };
                self.set(Field::Year, year)?;
                Some(rest)
            }
            Part::Name { field, names, short, first } => {
                let forms =
                    names.iter().zip(*first..).flat_map(|(name, number)| [(*name, number), (&name[..*short], number)]);
                let fits = |form: &&str| text.get(..form.len()).is_some_and(|front| in_one_case(front, form));
                let (name, number) = forms.filter(|(form, _)| fits(form)).max_by_key(|(form, _)| form.len())?;
                self.set(*field, number)?;
                Some(&text[name.len()..])
            }
            Part::Fraction { digits } => {
                let len = digits_of(text, *digits);
                self.millis = format!("{:0<3.3}", &text[..len]).parse().ok()?;
                Some(&text[len..])
            }
            Part::Offset => {
                let (offset, rest) = offset(text)?;
                self.offset = Some(offset);
                Some(rest)
            }
        }
    }

    fn timestamp(&self, zone: &TimeZone) -> Option<Timestamp> {
        let local = DateTime::from_parts(self.date()?, self.time()?);
        match self.offset {
            Some(offset) => offset.to_timestamp(local).ok(),
            None => {
                let ambiguous = zone.to_ambiguous_timestamp(local);
                // A time that the clocks have left out is none.
                let gap = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
                ambiguous.earlier().ok().filter(|_| !gap)
            }
        }
    }

    fn date(&self) -> Option<Date> {
        let days = [Field::Month, Field::Day, Field::DayOfYear, Field::Weekday];
        let default = if days.iter().any(|field| self.get(*field).is_some()) { 2000 } else { 1970 };
        let year = i16::try_from(self.get(Field::Year).unwrap_or(default)).ok()?;
        let small = |field, default| self.get(field).map_or(Some(default), |value| i8::try_from(value).ok());
        let mut date = Date::new(year, small(Field::Month, 1)?, small(Field::Day, 1)?).ok()?;
        if let Some(day) = self.get(Field::DayOfYear) {
            date = date.with().day_of_year(i16::try_from(day).ok()?).build().ok()?;
        }
        // Within the week that begins with Monday.
        if let Some(day) = self.get(Field::Weekday) {
            let day = Weekday::from_monday_one_offset(i8::try_from(day).ok()?).ok()?;
            let days = day.to_monday_zero_offset() - date.weekday().to_monday_zero_offset();
            date = date.checked_add(Span::new().days(days)).ok()?;
        }
        Some(date)
    }

    fn time(&self) -> Option<Time> {
        let half = self.get(Field::Half).unwrap_or(0) * 12;
        let of_half = self.get(Field::HourOfHalf).or(self.get(Field::ClockHourOfHalf).map(|hour| hour % 12));
        let of_day = self.get(Field::Hour).or(self.get(Field::ClockHour).map(|hour| hour % 24));
        let hour = of_half.map(|hour| half + hour).or(of_day).unwrap_or(half);
        let small = |value: i64| i8::try_from(value).ok();
        let (minute, second) = (self.get(Field::Minute).unwrap_or(0), self.get(Field::Second).unwrap_or(0));
        let nanoseconds = i32::try_from(self.millis * 1_000_000).ok()?;
        Time::new(small(hour)?, small(minute)?, small(second)?, nanoseconds).ok()
    }
}

/// Whether a text is the name as it is written, in small letters or in capitals.
fn in_one_case(text: &str, name: &str) -> bool {
    text == name || text == name.to_ascii_lowercase() || text == name.to_ascii_uppercase()
}

fn digits_of(text: &str, most: usize) -> usize {
    text.bytes().take(most).take_while(u8::is_ascii_digit).count()
}

/// A number of one digit to so many, and the rest of the text.
fn number(text: &str, digits: usize, signed: bool) -> Option<(i64, &str)> {
    let sign = usize::from(signed && text.starts_with(['-', '+']));
    let len = digits_of(&text[sign..], digits);
    if len == 0 {
        return None;
    }
    let (front, rest) = text.split_at(sign + len);
    Some((front.parse().ok()?, rest))
}

/// `Z`, or a sign, hours and, with or without colons, minutes and seconds.
fn offset(text: &str) -> Option<(Offset, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((Offset::UTC, rest));
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let two = |text: &str| if digits_of(text, 2) == 2 { text[..2].parse::<i32>().ok() } else { None };
    let mut rest = &text[1..];
    let mut seconds = two(rest).filter(|hours| *hours < 24)? * 3600;
    rest = &rest[2..];
    let colon = rest.starts_with(':');
    for unit in [60, 1] {
        let Some(next) = (if colon { rest.strip_prefix(':') } else { Some(rest) }) else { break };
        let Some(value) = two(next) else { break };
        seconds += Some(value).filter(|value| *value < 60)? * unit;
        rest = &next[2..];
    }
    Some((Offset::from_seconds(sign * seconds).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pattern: &str, text: &str) -> Option<String> {
        let mut pattern = TimePattern::new(pattern).expect(pattern);
        pattern.zone = TimeZone::get("Europe/Berlin").expect("a zone");
        let millis = pattern.millis(text).ok()?;
        Some(Timestamp::from_millisecond(millis).expect("a time").to_string())
    }

    fn is(pattern: &str, text: &str, expected: &str) {
        assert_eq!(read(pattern, text).as_deref(), Some(expected), "{pattern}: {text}");
    }

    #[test]
    fn times_of_logs() {
        is("yyyy-MM-dd HH:mm", "2012-10-18 18:47", "2012-10-18T16:47:00Z");
        is("yyyy-MM-dd HH:mm:ss,SSS", "2012-10-18 18:47:57,614", "2012-10-18T16:47:57.614Z");
        is("dd/MMM/yyyy:HH:mm:ss Z", "31/Jan/2030:12:00:00 -0530", "2030-01-31T17:30:00Z");
        is("yyyy-MM-dd'T'HH:mm:ssZZ", "2030-01-31t12:00:00+05:30", "2030-01-31T06:30:00Z");
        is("yyyy-MM-dd'T'HH:mm:ssZ", "2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z");
        is("yyyyMMddHHmmss", "20300131120000", "2030-01-31T11:00:00Z");
        is("EEE MMM d h:mm a yyyy", "THU january 31 12:05 pm 2030", "2030-01-31T11:05:00Z");
        is("h 'o''clock' a", "12 o'clock AM", "1969-12-31T23:00:00Z");
        is("k K a", "24 11 PM", "1970-01-01T22:00:00Z");
    }

    #[test]
    fn what_is_not_said() {
        is("MM-dd", "02-29", "2000-02-28T23:00:00Z");
        is("HH", "7", "1970-01-01T06:00:00Z");
        is("yyyy", "2030", "2029-12-31T23:00:00Z");
        is("yyyy D", "2030 32", "2030-01-31T23:00:00Z");
        is("ss.S", "1.5", "1969-12-31T23:00:01.5Z");
        is("ss.SSSSSS", "1.123456", "1969-12-31T23:00:01.123Z");
        is("yyyy-MM-dd EEEE", "2030-01-31 Monday", "2030-01-27T23:00:00Z");
    }

    #[test]
    fn years_of_two_digits() {
        let year = jiff::Zoned::now().year();
        let near = (year + 19).rem_euclid(100);
        is("yyMMdd Z", &format!("{near:02}0101 Z"), &format!("{}-01-01T00:00:00Z", year + 19));
        let far = (year + 20).rem_euclid(100);
        is("yyMMdd Z", &format!("{far:02}0101 Z"), &format!("{}-01-01T00:00:00Z", year - 80));
        is("yy Z", "1999 Z", "1999-01-01T00:00:00Z");
        assert_eq!(read("yyMM", "199901"), None);
    }

    #[test]
    fn what_is_no_time() {
        for (pattern, text) in [
            ("yyyy-MM-dd", "2030-02-30"),
            ("yyyy-MM-dd", "2030-13-01"),
            ("yyyy-MM-dd", "2030-01-01 "),
            ("yyyy-MM-dd", "2030/01/01"),
            ("yyyy-MM-dd", ""),
            ("HH:mm", "24:00"),
            ("MMM", "Jän"),
            ("MMM", "jAn"),
            ("Z", "+25"),
            ("yyyy-MM-dd HH:mm", "2030-03-31 02:30"),
        ] {
            assert_eq!(read(pattern, text), None, "{pattern}: {text}");
        }
        assert_eq!(
            TimePattern::new("yyyy GG").expect_err("eras").to_string(),
            "a pattern of Joda's with the letters yYMdDEHkKhamsSZ; \"GG\" is not supported"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(pattern in "[yMdDEHkKhamsSZ':é ]{0,12}", text in "[-+0-9A-Za-z:é ]{0,20}") {
            if let Ok(pattern) = TimePattern::new(&pattern) {
                pattern.millis(&text).ok();
            }
        }

        #[test]
        fn every_time_is_read_as_it_was_written(millis in 0i64..4_000_000_000_000) {
            let time = Timestamp::from_millisecond(millis).expect("a time");
            let text = time.strftime("%A %d %b %Y %I.%M.%S %p %3f +0000").to_string();
            let pattern = TimePattern::new("EEEE d MMM yyyy hh.mm.ss a SSS Z").expect("a pattern");
            prop_assert_eq!(pattern.millis(&text), Ok(millis), "{}", text);
        }
    }
}
