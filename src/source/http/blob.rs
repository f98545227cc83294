//! The BLOB handlers: a request is one event, its body that of the request and its headers the parameters of the address.

use percent_encoding::percent_decode;

use crate::config::Props;
use crate::event::Headers;

/// What an event is made of, beside the body of a request.
#[derive(Clone, Debug, Default)]
pub struct Blob {
    /// Parameters that every request must have.
    mandatory: Vec<String>,
    /// Whether the kind of the content becomes a header.
    content_type: bool,
}

impl Blob {
    /// Flume's own handler.
    pub fn from_props(props: &Props<'_>) -> Self {
        let names = props.or("handler.mandatoryParameters", String::new());
        let mandatory = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { mandatory, content_type: false }
    }

    /// That of the morphline sink.
    pub fn of_morphline() -> Self {
        Self { mandatory: Vec::new(), content_type: true }
    }

    /// The headers of a request, or what is missing.
    pub fn headers(&self, query: Option<&str>, content_type: Option<&str>) -> Result<Headers, String> {
        let content_type = content_type.filter(|_| self.content_type);
        let first = content_type.map(|value| ("Content-Type".to_owned(), value.to_owned()));
        // Of several values of a parameter the first counts: it is set last.
        let parameters = parameters(query.unwrap_or_default()).into_iter().rev();
        let headers: Headers = first.into_iter().chain(parameters).collect();
        match self.mandatory.iter().find(|name| headers.get(name).is_none()) {
            Some(missing) => Err(format!("Please specify {missing} parameter in the request.")),
            None => Ok(headers),
        }
    }
}

/// The parameters of a query, in their order.
fn parameters(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_headers() {
        let blob = Blob::default();
        let headers = blob.headers(Some("a=1&b=two+w%20%C3%A9&a=3&c&=e"), Some("text/plain")).expect("right");
        assert_eq!(headers, Headers::from_iter([("a", "1"), ("b", "two w é"), ("c", ""), ("", "e")]));
        assert_eq!(blob.headers(None, None), Ok(Headers::new()));
        assert_eq!(
            Blob::of_morphline().headers(Some("%"), Some("text/plain")),
            Ok(Headers::from_iter([("Content-Type", "text/plain"), ("%", "")]))
        );
    }

    #[test]
    fn mandatory_ones_must_be_there() {
        let blob = Blob { mandatory: vec!["a".to_owned(), "b".to_owned()], content_type: false };
        assert!(blob.headers(Some("b=&a="), None).is_ok());
        assert_eq!(blob.headers(Some("a=1"), None), Err("Please specify b parameter in the request.".to_owned()));
    }
}
