//! The remove_header interceptor: takes headers away, by name, from a list of names, or by a pattern for names.
//!
//! Keys: `withName`, `fromList` with `fromListSeparator` (`\s*,\s*`), `matching`; any of them, or none. Works once a set of
//! headers, however many events share it.

use smol_str::SmolStr;

use super::{Edit, Interceptor, InterceptorBuilder, regex};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::java_regex::JavaRegex;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["remove_header"],
    class: "org.apache.flume.interceptor.RemoveHeaderInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Edits(Box::new(RemoveHeader::from_props(props, prefix)?))),
};

const SEPARATOR: &str = r"\s*,\s*";

struct RemoveHeader {
    names: Vec<SmolStr>,
    matching: Option<JavaRegex>,
}

impl RemoveHeader {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Option<Self> {
        let key = |key: &str| format!("{prefix}.{key}");
        let separator = match props.text(&key("fromListSeparator")) {
            Some(_) => regex(props, &key("fromListSeparator")),
            None => JavaRegex::new(SEPARATOR).ok(),
        };
        let matching = regex(props, &key("matching"));
        let mut names: Vec<SmolStr> = props.text(&key("withName")).map(SmolStr::from).into_iter().collect();
        if let (Some(list), Some(separator)) = (props.text(&key("fromList")), &separator) {
            names.extend(separator.split(list).into_iter().map(SmolStr::from));
        }
        props.finish(Self { names, matching })
    }
}

impl Edit for RemoveHeader {
    fn edit(&self, batch: &mut Batch) {
        let goes = |name: &str| {
            self.names.iter().any(|known| known == name) || self.matching.as_ref().is_some_and(|m| m.matches(name))
        };
        batch.edit_headers(|headers| headers.retain(|name| !goes(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Headers};

    #[test]
    fn by_name_list_and_pattern() {
        let remove = RemoveHeader {
            names: vec!["a".into(), "b".into()],
            matching: Some(JavaRegex::new("x-[0-9]+").expect("a pattern")),
        };
        let event = Event {
            headers: Headers::from_iter([("a", "1"), ("x-1", "2"), ("ab", "3"), ("x-1y", "4")]),
            ..Event::default()
        };
        let mut batch = Batch::from_iter([event, Event::new("none")]);
        remove.edit(&mut batch);
        assert_eq!(*batch.get(0).headers(), Headers::from_iter([("ab", "3"), ("x-1y", "4")]));
        assert!(batch.get(1).headers().is_empty());
    }
}
