//! The regex_filter interceptor: passes on the events in whose body a pattern is found, or only the others.
//!
//! Keys: `regex` (`.*`), `excludeEvents` (false). Bodies are read as UTF-8. An event for which the search takes too long is
//! passed on: none is lost for want of an answer.

use super::{Filter, Interceptor, InterceptorBuilder, regex};
use crate::config::{ComponentType, Props};
use crate::event::EventRef;
use crate::java_regex::JavaRegex;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["regex_filter"],
    class: "org.apache.flume.interceptor.RegexFilteringInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Filters(Box::new(RegexFilter::from_props(props, prefix)?))),
};

struct RegexFilter {
    /// Without one everything matches.
    regex: Option<JavaRegex>,
    exclude: bool,
}

impl RegexFilter {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Option<Self> {
        let regex = regex(props, &format!("{prefix}.regex"));
        let exclude = props.or(&format!("{prefix}.excludeEvents"), false);
        props.finish(Self { regex, exclude })
    }
}

impl Filter for RegexFilter {
    fn keeps(&self, event: EventRef<'_>) -> bool {
        let found = match &self.regex {
            Some(regex) => regex.find_in(&String::from_utf8_lossy(event.body())),
            None => Some(true),
        };
        found.is_none_or(|found| found != self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Batch, Event};

    fn kept(pattern: Option<&str>, exclude: bool, bodies: &[&'static [u8]]) -> Vec<String> {
        let filter = RegexFilter { regex: pattern.map(|pattern| JavaRegex::new(pattern).expect(pattern)), exclude };
        let mut batch: Batch = bodies.iter().map(|body| Event::new(*body)).collect();
        batch.retain(|event| filter.keeps(event));
        batch.iter().map(|event| String::from_utf8_lossy(event.body()).into_owned()).collect()
    }

    #[test]
    fn a_part_of_the_body_is_enough() {
        let bodies: &[&[u8]] = &[b"an ERROR here", b"all is well", b"ERROR", b"\xff ERROR \xfe"];
        assert_eq!(kept(Some("ERR"), false, bodies), ["an ERROR here", "ERROR", "\u{fffd} ERROR \u{fffd}"]);
        assert_eq!(kept(Some("^ERR"), true, bodies), ["an ERROR here", "all is well", "\u{fffd} ERROR \u{fffd}"]);
        assert_eq!(kept(None, false, bodies).len(), 4);
        assert_eq!(kept(None, true, bodies).len(), 0);
    }

    #[test]
    fn what_takes_too_long_to_search_is_kept() {
        let text: &[u8] = b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxzy";
        assert_eq!(kept(Some(r"^(?:(x+)\1?)+y"), false, &[text]).len(), 1);
        assert_eq!(kept(Some(r"^(?:(x+)\1?)+y"), true, &[text]).len(), 1);
    }
}
