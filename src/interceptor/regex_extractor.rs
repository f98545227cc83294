//! The regex_extractor interceptor: what the groups of a pattern match in the body becomes headers.
//!
//! Keys: `regex`, `serializers` (names, one for each group in order), and for each of them `serializers.S.name` (the
//! header) and `serializers.S.type` (`default`): `default` takes the text as it is; `millis` reads it as a time by
//! `serializers.S.pattern`, a pattern of Joda, and gives the milliseconds since 1970.
//!
//! A group that takes no part in the match, and a text that is not a time, set no header; Flume fails on both and loses
//! the batch.

use smol_str::{SmolStr, ToSmolStr as _};
use tracing::warn;

use super::joda::TimePattern;
use super::{Edit, Interceptor, InterceptorBuilder, regex};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::java_regex::JavaRegex;
use crate::logging::Limited;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["regex_extractor"],
    class: "org.apache.flume.interceptor.RegexExtractorInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Edits(Box::new(RegexExtractor::from_props(props, prefix)?))),
};

/// Reads the keys of a serializer.
type SerializerBuilder = fn(&Props<'_>, prefix: &str) -> Option<Serializer>;

const SERIALIZERS: &[ComponentType<SerializerBuilder>] = &[
    ComponentType {
        aliases: &["default"],
        class: "org.apache.flume.interceptor.RegexExtractorInterceptorPassThroughSerializer",
        build: |_, _| Some(Serializer::PassThrough),
    },
    ComponentType {
        aliases: &["millis"],
        class: "org.apache.flume.interceptor.RegexExtractorInterceptorMillisSerializer",
        build: millis,
    },
];

/// What makes a header of a matched text.
enum Serializer {
    PassThrough,
    Millis(TimePattern),
}

impl Serializer {
    fn serialize(&self, text: &str) -> Result<SmolStr, String> {
        match self {
            Self::PassThrough => Ok(text.into()),
            Self::Millis(pattern) => pattern.millis(text).map(|millis| millis.to_smolstr()),
        }
    }
}

fn millis(props: &Props<'_>, prefix: &str) -> Option<Serializer> {
    let key = format!("{prefix}.pattern");
    let text: String = props.required(&key, "a pattern of Joda's for a time", "Must configure with a valid pattern");
    if text.is_empty() {
        return None;
    }
    let pattern = TimePattern::new(&text);
    pattern.inspect_err(|error| props.error(&key, error, "")).ok().map(Serializer::Millis)
}

struct RegexExtractor {
    regex: JavaRegex,
    /// The header of each group, and what makes it.
    headers: Vec<(SmolStr, Serializer)>,
    complaints: Limited,
}

impl RegexExtractor {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Option<Self> {
        let key = |key: &str| format!("{prefix}.{key}");
        props.required::<String>(&key("regex"), "a regular expression", "Must supply a valid regex string");
        let regex = regex(props, &key("regex"));
        let flume = "Must supply at least one name and serializer";
        let list: String = props.required(&key("serializers"), "the names of the serializers", flume);
        let mut headers = Vec::new();
        for name in list.split_ascii_whitespace() {
            let prefix = format!("{prefix}.serializers.{name}");
            let flume = "Supplied name cannot be empty.";
            let header: String = props.required(&format!("{prefix}.name"), "the name of a header", flume);
            headers.extend(serializer(props, &prefix).map(|serializer| (header.into(), serializer)));
        }
        let regex = regex?;
        if headers.len() > regex.groups() {
            let message =
                format!("the regular expression has {} groups; the last serializers get nothing", regex.groups());
            props.warning(&key("serializers"), &message);
        }
        props.finish(Self { regex, headers, complaints: Limited::default() })
    }

    fn complain(&self, header: &str, error: &str) {
        if let Some(others) = self.complaints.permit() {
            warn!("an event gets no header {header}: {error}{others}");
        }
    }
}

fn serializer(props: &Props<'_>, prefix: &str) -> Option<Serializer> {
    let key = format!("{prefix}.type");
    let text = props.text(&key).unwrap_or("default");
    match crate::config::resolve_type(SERIALIZERS, text) {
        Some(found) => (found.build)(props, prefix),
        None => {
            props.family(prefix);
            let known: Vec<&str> = SERIALIZERS.iter().flat_map(|known| [known.aliases[0], known.class]).collect();
            props.error_nearest(&key, &format!("one of {}", known.join(", ")), &known);
            None
        }
    }
}

impl Edit for RegexExtractor {
    fn edit(&self, batch: &mut Batch) {
        batch.replace_headers(|event| {
            let text = String::from_utf8_lossy(event.body());
            let captures = self.regex.search(&text, 0)??;
            let mut headers = event.headers().clone();
            for (group, (header, serializer)) in self.headers.iter().enumerate() {
                let Some(found) = captures.get(group + 1) else { continue };
                match serializer.serialize(found.as_str()) {
                    Ok(value) => headers.set(header.clone(), value),
                    Err(error) => self.complain(header, &error),
                }
            }
            Some(headers)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Headers};

    fn extracted(regex: &str, headers: &[&str], body: &'static [u8]) -> Headers {
        let extractor = RegexExtractor {
            regex: JavaRegex::new(regex).expect(regex),
            headers: headers.iter().map(|name| ((*name).into(), Serializer::PassThrough)).collect(),
            complaints: Limited::default(),
        };
        let mut batch = Batch::from_iter([Event::new(body).with("one", "old")]);
        extractor.edit(&mut batch);
        batch.get(0).headers().clone()
    }

    #[test]
    fn groups_become_headers_in_their_order() {
        let found = extracted(r"(\d):(\d):(\d)", &["one", "two"], b"1:2:3.4foobar5");
        assert_eq!(found, Headers::from_iter([("one", "1"), ("two", "2")]), "a group without a serializer is left");
        assert_eq!(extracted(r"(\d)", &["one"], b"none"), Headers::from_iter([("one", "old")]));
        assert_eq!(extracted(r"(a)|(b)", &["one", "two"], b"b"), Headers::from_iter([("one", "old"), ("two", "b")]));
        assert_eq!(extracted(r"=(.)", &["one"], b"=\xff").get("one"), Some("\u{fffd}"));
    }

    #[test]
    fn what_is_not_a_time_sets_no_header() {
        let pattern = TimePattern::new("yyyy").expect("a pattern");
        let extractor = RegexExtractor {
            regex: JavaRegex::new(r"(\w+)").expect("a pattern"),
            headers: vec![("year".into(), Serializer::Millis(pattern))],
            complaints: Limited::default(),
        };
        let mut batch = Batch::from_iter([Event::new("never"), Event::new("1970")]);
        extractor.edit(&mut batch);
        assert_eq!(batch.get(0).headers().get("year"), None);
        assert!(batch.get(1).headers().get("year").is_some());
    }
}
