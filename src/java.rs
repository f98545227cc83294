//! The few rules of the Java platform that Flume's users see: number syntax, the order of a `HashMap`, and times in
//! milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

/// `System.currentTimeMillis()`: milliseconds since 1970.
pub fn current_time_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Parses as `Integer.parseInt(text.trim())` does: an optional sign, then decimal digits, within 32 bits.
pub fn parse_int(text: &str) -> Option<i32> {
    decimal(text)?.parse().ok()
}

/// Parses as `Long.parseLong(text.trim())` does.
pub fn parse_long(text: &str) -> Option<i64> {
    decimal(text)?.parse().ok()
}

fn decimal(text: &str) -> Option<&str> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

/// `String.hashCode`, over UTF-16 units.
fn string_hash(text: &str) -> u32 {
    text.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()))
}

/// The order in which a `java.util.HashMap` that received these keys one by one iterates over them.
///
/// Buckets ascend; inside a bucket the first inserted comes first (Flume's headers never fill a bucket so far
/// that Java turns it into a tree).
pub fn hash_map_order<'a, T>(entries: impl ExactSizeIterator<Item = (&'a str, T)>) -> Vec<(&'a str, T)> {
    let mut table = 16usize;
    while entries.len() * 4 > table * 3 {
        table *= 2;
    }
    let mut ordered: Vec<_> = entries
        .map(|(key, value)| {
            let hash = string_hash(key);
            ((hash ^ (hash >> 16)) as usize & (table - 1), (key, value))
        })
        .collect();
    ordered.sort_by_key(|(bucket, _)| *bucket);
    ordered.into_iter().map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_java() {
        assert_eq!(parse_int(" 42 "), Some(42));
        assert_eq!(parse_int("+7"), Some(7));
        assert_eq!(parse_int("-7"), Some(-7));
        for wrong in ["", "4444x", "1_000", "0x10", "2147483648", "1.0", "+", "- 1", "100 # x"] {
            assert_eq!(parse_int(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse_long("2147483648"), Some(2_147_483_648));
    }

    #[test]
    fn hash_order_is_javas() {
        // Seen in Flume's log: headers set as b, then a, print as {a=2, b=1}.
        let order = |keys: &[&'static str]| {
            hash_map_order(keys.iter().map(|k| (*k, ()))).into_iter().map(|(k, ())| k).collect::<Vec<_>>()
        };
        assert_eq!(order(&["b", "a"]), ["a", "b"]);
        // "Aa" and "BB" share a hash code, so they stay in the order of insertion.
        assert_eq!(order(&["BB", "Aa"]), ["BB", "Aa"]);
        assert_eq!(order(&["timestamp", "host"]), ["host", "timestamp"]);
    }
}
