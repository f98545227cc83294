//! The search_replace interceptor: replaces what a pattern matches in the body.
//!
//! Keys: `searchPattern`, `replaceString` (nothing; `$1`, `${name}` and `\` as in Java), `charset` (UTF-8). A body in which
//! nothing matches is left as it is, to the byte; Flume replaces what its charset cannot read there too.

use std::borrow::Cow;

use tracing::error;

use super::{Edit, Interceptor, InterceptorBuilder, regex};
use crate::charset::Charset;
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::java_regex::{JavaRegex, Replacement, Unfinished};
use crate::logging::Limited;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["search_replace"],
    class: "org.apache.flume.interceptor.SearchAndReplaceInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Edits(Box::new(SearchReplace::from_props(props, prefix)?))),
};

/// The longest body that a replacement may make.
const MAX_BYTES: usize = 256 << 20;

struct SearchReplace {
    regex: JavaRegex,
    replacement: Replacement,
    charset: Charset,
    complaints: Limited,
}

impl SearchReplace {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Option<Self> {
        let key = |key: &str| format!("{prefix}.{key}");
        let flume = "Must supply a valid search pattern searchPattern (may not be empty)";
        props.required::<String>(&key("searchPattern"), "a regular expression", flume);
        let regex = regex(props, &key("searchPattern"));
        let name = props.or(&key("charset"), "UTF-8".to_owned());
        let charset = Charset::for_name(&name);
        if charset.is_none() {
            props.error(&key("charset"), "the name of a charset in which ASCII is ASCII", &name);
        }
        let text = props.text(&key("replaceString")).unwrap_or_default();
        let regex = regex?;
        let replacement = Replacement::new(text, &regex);
        let replacement = replacement
            .inspect_err(|error| props.error(&key("replaceString"), &format!("a Java replacement: {error}"), ""));
        props.finish(Self { regex, replacement: replacement.ok()?, charset: charset?, complaints: Limited::default() })
    }

    fn text<'a>(&self, body: &'a [u8]) -> Cow<'a, str> {
        if self.charset == Charset::Utf8 {
            return String::from_utf8_lossy(body);
        }
        let mut text = String::new();
        self.charset.decoder().decode(body, &mut text);
        text.into()
    }

    fn complain(&self, bytes: usize, unfinished: Unfinished) {
        let why = match unfinished {
            Unfinished::Search => "the search takes too long",
            Unfinished::Length => "it would become longer than 256 MiB",
        };
        if let Some(others) = self.complaints.permit() {
            error!("a body of {bytes} bytes stays as it is, {} is not replaced: {why}{others}", self.regex);
        }
    }
}

impl Edit for SearchReplace {
    fn edit(&self, batch: &mut Batch) {
        batch.replace_bodies(|event, out| {
            let start = out.len();
            let text = self.text(event.body());
            let replaced = self.regex.replace_all(&text, &self.replacement, out, MAX_BYTES);
            if let Err(unfinished) = replaced {
                self.complain(event.body().len(), unfinished);
            }
            let replaced = replaced.unwrap_or(false);
            if replaced && self.charset != Charset::Utf8 {
                let encoded = self.charset.encode(&String::from_utf8_lossy(&out[start..]));
                out.truncate(start);
                out.extend_from_slice(&encoded);
            }
            replaced
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn replaced(pattern: &str, text: &str, charset: &str, bodies: &[&'static [u8]]) -> Vec<Vec<u8>> {
        let regex = JavaRegex::new(pattern).expect(pattern);
        let interceptor = SearchReplace {
            replacement: Replacement::new(text, &regex).expect(text),
            regex,
            charset: Charset::for_name(charset).expect(charset),
            complaints: Limited::default(),
        };
        let mut batch: Batch = bodies.iter().map(|body| Event::new(*body)).collect();
        interceptor.edit(&mut batch);
        batch.iter().map(|event| event.body().to_vec()).collect()
    }

    #[test]
    fn every_match_is_replaced_and_other_bodies_are_left_to_the_byte() {
        let bodies: &[&[u8]] = &[b"card 1234-5678 and 9999-0000", b"no card \xff", b"\xff 1234-5678"];
        assert_eq!(
            replaced(r"\d{4}-(\d{4})", "****-$1", "UTF-8", bodies),
            [&b"card ****-5678 and ****-0000"[..], b"no card \xff", "\u{fffd} ****-5678".as_bytes()]
        );
    }

    #[test]
    fn the_charset_is_kept() {
        let bodies: &[&[u8]] = &[b"\xe9t\xe9"];
        assert_eq!(replaced("é", "è€", "ISO-8859-1", bodies), [b"\xe8?t\xe8?"], "what the charset lacks is a ?");
        assert_eq!(replaced("t", "€", "windows-1252", bodies), [b"\xe9\x80\xe9"]);
    }
}
