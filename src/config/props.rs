//! A component's own keys, read into a typed configuration.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;

use super::finding::{Finding, Origin};
use super::properties::Property;
use crate::java;

/// A value that a key can have.
pub trait FromText: Sized {
    /// What a right value looks like, to follow "expected".
    const EXPECTED: &'static str;
    /// Reads it.
    fn from_text(text: &str) -> Option<Self>;
    /// Why a text that can be read may not mean what was meant.
    fn doubt(_text: &str) -> Option<&'static str> {
        None
    }
}

macro_rules! from_text {
    ($($type:ty, $expected:literal, $parse:expr;)*) => {
        $(impl FromText for $type {
            const EXPECTED: &'static str = $expected;
            fn from_text(text: &str) -> Option<Self> {
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(text)
            }
        })*
    };
}

from_text! {
    String, "text", |text| Some(text.to_owned());
    PathBuf, "a path", |text| Some(text.into());
    i32, "a whole number", java::parse_int;
    i64, "a whole number", java::parse_long;
    u16, "a port between 0 and 65535", |text| java::parse_int(text).and_then(|n| n.try_into().ok());
}

/// Flume's rule: the word true in any case is true, and everything else is false.
impl FromText for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        Some(text.eq_ignore_ascii_case("true"))
    }

    fn doubt(text: &str) -> Option<&'static str> {
        let known = ["true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word));
        (!known).then_some("expected true or false; anything but true means false")
    }
}

/// What holds for all components, beside their keys: the command line's `-D` properties and the Java's heap.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// The heap that Flume's Java would have, from which some limits follow.
    pub heap_bytes: u64,
    /// System properties.
    pub system: BTreeMap<String, String>,
}

impl Globals {
    /// A system property, or else an environment variable; an empty one counts as none.
    pub fn property_or_variable(&self, property: &str, variable: &str) -> Option<String> {
        let given = self.system.get(property).cloned().or_else(|| env::var(variable).ok());
        given.filter(|value| !value.is_empty())
    }
}

/// The keys of one component. It notes what is wrong with them and remembers which were asked for, so that keys
/// that nobody knows can be named.
pub struct Props<'a> {
    prefix: String,
    entries: &'a BTreeMap<String, Property>,
    origin: Option<&'a Origin>,
    globals: &'a Globals,
    known: RefCell<BTreeSet<String>>,
    old_names: BTreeMap<&'static str, &'static str>,
    families: RefCell<BTreeSet<String>>,
    findings: RefCell<Vec<Finding>>,
    failed: RefCell<bool>,
}

impl<'a> Props<'a> {
    /// The keys of the component at `prefix` (`a1.sources.r1`), whose first property stands at `origin`.
    pub fn new(
        prefix: impl Into<String>,
        entries: &'a BTreeMap<String, Property>,
        origin: Option<&'a Origin>,
        globals: &'a Globals,
    ) -> Self {
        Self {
            prefix: prefix.into(),
            entries,
            origin,
            globals,
            known: RefCell::default(),
            old_names: BTreeMap::new(),
            families: RefCell::default(),
            findings: RefCell::default(),
            failed: RefCell::new(false),
        }
    }

    /// The component's name.
    pub fn name(&self) -> &str {
        self.prefix.rsplit('.').next().unwrap_or_default()
    }

    /// What holds for all components.
    pub fn globals(&self) -> &'a Globals {
        self.globals
    }

    /// Lets a key have another name too, which counts where the key itself is not there.
    pub fn renamed(&mut self, key: &'static str, old: &'static str) {
        self.known.borrow_mut().insert(old.to_owned());
        if !self.entries.contains_key(key) && self.entries.contains_key(old) {
            self.old_names.insert(key, old);
        }
    }

    /// The name that a key has here.
    fn name_of<'b>(&self, key: &'b str) -> &'b str {
        self.old_names.get(key).copied().unwrap_or(key)
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.known.borrow_mut().insert(key.to_owned());
        self.entries.get(self.name_of(key)).map(|property| property.value.as_str())
    }

    /// All keys below `family.`, without it.
    pub fn family(&self, family: &str) -> Vec<(&'a str, &'a Property)> {
        self.families.borrow_mut().insert(format!("{family}."));
        let below = |key: &'a String| key.strip_prefix(family)?.strip_prefix('.');
        self.entries.iter().filter_map(|(key, property)| Some((below(key)?, property))).collect()
    }

    /// The value of a key, when it is there and right.
    pub fn optional<T: FromText>(&self, key: &str) -> Option<T> {
        let text = self.text(key)?;
        let value = T::from_text(text);
        if value.is_none() {
            self.error(key, T::EXPECTED, "");
        } else if let Some(doubt) = T::doubt(text) {
            self.warning(key, doubt);
        }
        value
    }

    /// The value of a key, or its default.
    pub fn or<T: FromText>(&self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of a key that counts things, or its default; `what` it counts.
    pub fn positive(&self, key: &str, default: i32, what: &str) -> usize {
        let value = self.or(key, default);
        if value < 1 {
            self.error(key, &format!("a number of {what}, at least 1"), "");
        }
        value.max(1) as usize
    }

    /// The value of a key that must be there. Where it is not, that is noted and a placeholder returned:
    /// [`finish`](Self::finish) then gives nothing.
    pub fn required<T: FromText + Default>(&self, key: &str, expected: &str, flume: &str) -> T {
        if self.text(key).is_none() {
            let finding = Finding::error(format!("missing: expected {expected}"));
            let unknown = self.entries.keys().map(String::as_str).filter(|other| !self.known.borrow().contains(*other));
            let near = super::finding::nearest(key, unknown);
            let finding = match near {
                Some(near) => finding.help(format!("there is \"{near}\": did you mean \"{key}\"?")),
                None => finding,
            };
            self.note_failure(finding.missing(format!("{}.{key}", self.prefix), self.origin).as_flume(flume));
        }
        self.optional(key).unwrap_or_default()
    }

    /// The value of a key whose wrong values Flume replaces with the default; `flume` is what it says, or nothing.
    pub fn lenient<T: FromText + Clone + std::fmt::Display>(
        &self,
        key: &str,
        default: T,
        valid: impl Fn(&T) -> bool,
        expected: &str,
        flume: &str,
    ) -> T {
        let Some(text) = self.text(key) else { return default };
        match T::from_text(text).filter(valid) {
            Some(value) => value,
            None => {
                let finding = Finding::warning(format!("expected {expected}; the default, {default}, is used"));
                let finding = self.at(key, finding);
                self.findings.borrow_mut().push(if flume.is_empty() { finding } else { finding.as_flume(flume) });
                default
            }
        }
    }

    /// Notes that a key has a wrong value and the component cannot run; `flume` is what Flume says, or nothing.
    pub fn error(&self, key: &str, expected: &str, flume: &str) {
        let finding = self.at(key, Finding::error(format!("expected {expected}")));
        self.note_failure(if flume.is_empty() { finding } else { finding.as_flume(flume) });
    }

    /// As [`error`](Self::error), with the nearest of the values that would be right.
    pub fn error_nearest(&self, key: &str, expected: &str, candidates: &[&str]) {
        let value = self.entries.get(self.name_of(key)).map_or("", |property| &property.value);
        let finding = self.at(key, Finding::error(format!("expected {expected}")));
        self.note_failure(finding.nearest(value, candidates.iter().copied()));
    }

    /// Notes something about a key that does not keep the component from running.
    pub fn warning(&self, key: &str, message: &str) {
        let finding = self.at(key, Finding::warning(message));
        self.findings.borrow_mut().push(finding);
    }

    fn at(&self, key: &str, finding: Finding) -> Finding {
        let key = self.name_of(key);
        let full = format!("{}.{key}", self.prefix);
        match self.entries.get(key) {
            Some(property) => finding.at(full, &property.value, &property.origin),
            None => finding.missing(full, self.origin),
        }
    }

    fn note_failure(&self, finding: Finding) {
        *self.failed.borrow_mut() = true;
        self.findings.borrow_mut().push(finding);
    }

    /// The configuration, unless a key was wrong.
    pub fn finish<T>(&self, config: T) -> Option<T> {
        (!*self.failed.borrow()).then_some(config)
    }

    /// What was noted, and a warning for each key that nobody asked for.
    pub fn into_findings(self) -> Vec<Finding> {
        let mut findings = self.findings.into_inner();
        let known = self.known.into_inner();
        let families = self.families.into_inner();
        for (key, property) in self.entries {
            if known.contains(key) || families.iter().any(|family| key.starts_with(family.as_str())) {
                continue;
            }
            let finding = Finding::warning("unknown key, ignored").nearest(key, known.iter().map(String::as_str));
            findings.push(finding.at(format!("{}.{key}", self.prefix), &property.value, &property.origin));
        }
        findings
    }
}
