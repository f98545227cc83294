//! `${…}` in values: other properties, `env:`, `sys:`, `java:`, `date:`, defaults, and the old switch that makes
//! plain names fall back to the environment.
//!
//! Rules of Flume 1.10 and later: `${name:-default}`, names may nest, `$${x}` stands for the text `${x}`, and what
//! is not defined stays as it is. Flume resolves in the order of a hash map, so a reference to a property that
//! itself has references works by chance there; here it always does.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;
use super::properties::Property;

/// How deep references may lead to references.
const MAX_DEPTH: usize = 32;
/// How many references one value may lead to in all.
const MAX_REFERENCES: usize = 10_000;
/// No value grows beyond this by substitution.
const MAX_BYTES: usize = 1 << 20;

/// Where names are looked up besides the properties themselves.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    /// System properties: what `-Dkey=value` set.
    pub system: BTreeMap<String, String>,
    /// Whether a plain name falls back to the environment
    /// (`-DpropertiesImplementation=org.apache.flume.node.EnvVarResolverProperties`).
    pub plain_names_from_environment: bool,
}

impl Lookups {
    /// The lookups that go with these system properties.
    pub fn new(system: BTreeMap<String, String>) -> Self {
        let plain = system
            .get("propertiesImplementation")
            .is_some_and(|class| class == "org.apache.flume.node.EnvVarResolverProperties");
        Self { system, plain_names_from_environment: plain }
    }

    fn prefixed(&self, name: &str) -> Option<String> {
        let (prefix, name) = name.split_once(':')?;
        match prefix.to_ascii_lowercase().as_str() {
            "env" => std::env::var(name).ok(),
            "sys" => self.system.get(name).cloned().or_else(|| builtin(name)),
            "java" => java(name),
            "date" => super::java_date::now(name),
            _ => None,
        }
    }
}

/// System properties that every Java process has.
fn builtin(name: &str) -> Option<String> {
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    match name {
        "user.dir" => std::env::current_dir().ok().map(path),
        "user.home" => std::env::var("HOME").ok(),
        "user.name" => std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok(),
        "java.io.tmpdir" => Some("/tmp".to_owned()),
        "file.separator" => Some("/".to_owned()),
        "path.separator" => Some(":".to_owned()),
        "line.separator" => Some("\n".to_owned()),
        "os.name" => Some("Linux".to_owned()),
        "os.arch" => Some(match std::env::consts::ARCH {
            "x86_64" => "amd64".to_owned(),
            other => other.to_owned(),
        }),
        _ => None,
    }
}

/// There is no Java here, so only what is true of the machine has an answer.
fn java(name: &str) -> Option<String> {
    match name {
        "os" | "hw" => Some(format!("{} {}", builtin("os.name")?, builtin("os.arch")?)),
        "locale" => std::env::var("LANG").ok().map(|lang| lang.split('.').next().unwrap_or_default().to_owned()),
        _ => None,
    }
}

/// Resolves the values of all properties. Returns the names of the properties that others refer to.
pub fn resolve(
    properties: &mut BTreeMap<String, Property>,
    lookups: &Lookups,
    findings: &mut Vec<Finding>,
) -> BTreeSet<String> {
    let raw: BTreeMap<String, String> = properties.iter().map(|(k, p)| (k.clone(), p.value.clone())).collect();
    let mut used = BTreeSet::new();
    for (key, property) in properties {
        if !property.value.contains("${") {
            continue;
        }
        let mut resolver = Resolver {
            raw: &raw,
            lookups,
            used: &mut used,
            path: vec![key.clone()],
            depth: 0,
            references: 0,
            problems: Vec::new(),
        };
        let value = resolver.expand(&property.value);
        for problem in resolver.problems {
            findings.push(problem.at(key, &property.value, &property.origin));
        }
        property.value = value.trim_matches(|c| c <= ' ').to_owned();
    }
    used
}

struct Resolver<'a> {
    raw: &'a BTreeMap<String, String>,
    lookups: &'a Lookups,
    used: &'a mut BTreeSet<String>,
    /// The properties whose values are being expanded, to see loops.
    path: Vec<String>,
    /// How deep names are nested in names.
    depth: usize,
    references: usize,
    problems: Vec<Finding>,
}

impl Resolver<'_> {
    fn expand(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                // `$${x}`: one dollar goes, the rest is text up to and with its brace.
                out.push_str(&rest[..at - 1]);
                let end = closing(&rest[at + 2..]).map_or(rest.len(), |end| at + 2 + end + 1);
                out.push_str(&rest[at..end]);
                rest = &rest[end..];
                continue;
            }
            let Some(end) = closing(&rest[at + 2..]) else { break };
            out.push_str(&rest[..at]);
            let reference = &rest[at + 2..at + 2 + end];
            let whole = &rest[at..at + 2 + end + 1];
            rest = &rest[at + 2 + end + 1..];
            // `${f1['key']}` belongs to a config filter.
            if reference.contains('[') {
                out.push_str(whole);
                continue;
            }
            match self.reference(reference) {
                Some(value) => out.push_str(&value),
                None => out.push_str(whole),
            }
            if out.len() > MAX_BYTES {
                self.problems.push(Finding::error("grows beyond 1 MiB by substitution; the value is cut"));
                return out.chars().take(MAX_BYTES / 4).collect();
            }
        }
        out.push_str(rest);
        out
    }

    fn reference(&mut self, reference: &str) -> Option<String> {
        self.references += 1;
        if self.references > MAX_REFERENCES {
            if self.references == MAX_REFERENCES + 1 {
                self.problems.push(Finding::error("leads to more than 10000 references; the rest stays as text"));
            }
            return None;
        }
        let expanded = if reference.contains("${") && self.depth < MAX_DEPTH {
            self.depth += 1;
            let expanded = self.expand(reference);
            self.depth -= 1;
            expanded
        } else {
            reference.to_owned()
        };
        let (name, default) = match expanded.split_once(":-") {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (expanded.as_str(), None),
        };
        if let Some(value) = self.lookups.prefixed(name) {
            return Some(value);
        }
        if let Some(value) = self.raw.get(name) {
            if self.path.iter().any(|seen| seen == name) || self.path.len() >= MAX_DEPTH {
                self.problems
                    .push(Finding::error(format!("refers to itself through ${{{name}}}; the reference stays as text")));
                return None;
            }
            self.used.insert(name.to_owned());
            self.path.push(name.to_owned());
            let value = self.expand(value);
            self.path.pop();
            return Some(value);
        }
        if self.lookups.plain_names_from_environment
            && let Ok(value) = std::env::var(name)
        {
            return Some(value);
        }
        if default.is_none() {
            let finding = Finding::warning(format!("${{{name}}} is not defined and stays as text"));
            let finding = if std::env::var_os(name).is_some() {
                finding.help(format!("for the environment variable write ${{env:{name}}}"))
            } else {
                finding.nearest(name, self.raw.keys().map(String::as_str))
            };
            self.problems.push(finding);
        }
        default
    }
}

/// Where the brace closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::properties;
    use super::*;

    fn resolved(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
        let mut findings = Vec::new();
        let parsed = properties::parse("f", text.as_bytes(), &mut findings);
        let mut map = parsed.into_iter().map(|p| (p.key.clone(), p)).collect();
        let lookups = Lookups::new(BTreeMap::from([("x.y".to_owned(), "system".to_owned())]));
        resolve(&mut map, &lookups, &mut findings);
        let values = map.into_iter().map(|(key, property)| (key, property.value)).collect();
        (values, findings.into_iter().map(|f| f.to_string()).collect())
    }

    #[test]
    fn all_forms() {
        let (values, findings) = resolved(
            "PORT = 44444\na.port = ${PORT}\na.deep = <${a.port}>\na.sys = ${sys:x.y}\na.default = ${NOPE:-d}\n\
             a.literal = $${PORT}\na.nested = ${${which}}\nwhich = PORT\na.filter = ${f1['key']}\na.escape = %{host}\n",
        );
        assert_eq!(values["a.port"], "44444");
        assert_eq!(values["a.deep"], "<44444>");
        assert_eq!(values["a.sys"], "system");
        assert_eq!(values["a.default"], "d");
        assert_eq!(values["a.literal"], "${PORT}");
        assert_eq!(values["a.nested"], "44444");
        assert_eq!(values["a.filter"], "${f1['key']}");
        assert_eq!(values["a.escape"], "%{host}");
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn undefined_and_circular_references_stay_and_are_named() {
        let (values, findings) = resolved("a = ${NO_SUCH_NAME}\nb = ${c}\nc = ${b}\nd = ${open\n");
        assert_eq!(values["a"], "${NO_SUCH_NAME}");
        assert_eq!(values["d"], "${open");
        assert!(findings[0].contains("f:1: warning: a") && findings[0].contains("not defined"), "{findings:?}");
        assert!(findings[1].contains("refers to itself"), "{findings:?}");
    }

    proptest! {
        #[test]
        fn no_value_panics(a in "[$ab{}:-]{0,40}", b in "[$ab{}:-]{0,40}") {
            resolved(&format!("a = {a}\nb = {b}\n"));
        }
    }
}
