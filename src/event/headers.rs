//! The headers of an event.

use std::collections::HashMap;
use std::fmt;

use smol_str::SmolStr;

use crate::java;

/// So many headers are looked through faster than hashed.
const FEW: usize = 16;

/// Text headers of an event, in the order in which they were first set; a key occurs once.
///
/// Keys and values up to 23 bytes are held in place, longer ones are shared, so a clone never copies text.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(SmolStr, SmolStr)>);

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// No headers, with room for some.
    pub fn with_capacity(headers: usize) -> Self {
        Self(Vec::with_capacity(headers))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a header.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Sets a header; one that exists keeps its place.
    pub fn set(&mut self, key: impl Into<SmolStr>, value: impl Into<SmolStr>) {
        let key = key.into();
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((key, value.into())),
        }
    }

    /// Removes a header and says whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(k, _)| k != key);
        self.0.len() != before
    }

    /// Removes the headers whose names `keep` says no to.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(key, _)| keep(key));
    }

    /// Keys and values in the order in which they were set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

/// Two sets of headers are equal when they hold the same pairs, in whatever order.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || (self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value)))
    }
}

impl Eq for Headers {}

impl<K: Into<SmolStr>, V: Into<SmolStr>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs = pairs.into_iter();
        let mut headers = Self::new();
        for (key, value) in pairs.by_ref().take(FEW) {
            headers.set(key, value);
        }
        // A client may send any number, and looking through all of them for each would take it for ever.
        let mut places = HashMap::new();
        for (key, value) in pairs {
            if places.is_empty() {
                places.extend(headers.0.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)));
            }
            let key = key.into();
            match places.get(&key) {
                Some(place) => headers.0[*place].1 = value.into(),
                None => {
                    places.insert(key.clone(), headers.0.len());
                    headers.0.push((key, value.into()));
                }
            }
        }
        headers
    }
}

/// The text of a Java map, as Flume's logger sink and `header_and_text` serializer print it: `{a=1, b=2}`, in
/// the order of a Java `HashMap`.
impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (key, value)) in java::hash_map_order(self.iter()).into_iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{key}={value}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_and_remove_forgets() {
        let mut headers = Headers::from_iter([("b", "1"), ("a", "2")]);
        headers.set("b", "3");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("b", "3"), ("a", "2")]);
        assert!(headers.remove("b"));
        assert!(!headers.remove("b"));
        assert_eq!(headers.get("b"), None);
    }

    #[test]
    fn of_many_pairs_the_last_value_of_a_key_counts_and_its_first_place() {
        let pairs = || (0..100).map(|n| ((n % 40).to_string(), n.to_string()));
        let mut expected = Headers::new();
        for (key, value) in pairs() {
            expected.set(key, value);
        }
        let headers = Headers::from_iter(pairs());
        assert_eq!(headers.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        assert_eq!(headers.len(), 40);
    }

    #[test]
    fn prints_as_a_java_map() {
        assert_eq!(Headers::new().to_string(), "{}");
        assert_eq!(Headers::from_iter([("b", "1"), ("a", "2")]).to_string(), "{a=2, b=1}");
    }

    #[test]
    fn equality_ignores_order() {
        assert_eq!(Headers::from_iter([("b", "1"), ("a", "2")]), Headers::from_iter([("a", "2"), ("b", "1")]));
        assert_ne!(Headers::from_iter([("b", "1"), ("a", "2")]), Headers::from_iter([("a", "2"), ("b", "2")]));
    }
}
