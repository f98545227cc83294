//! `ipFilter`: rules for who may connect.
//!
//! A list of `allow|deny:ip|name:pattern`, separated by commas, of which the first that matches decides; where none does,
//! the client may connect. In a pattern `*` stands for any characters and `?` for one; `name:localhost` is any address
//! of this machine.

use std::net::{IpAddr, SocketAddr};

use crate::config::Props;
use crate::net;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Local,
    Ip(String),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    subject: Subject,
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let (access, rest) = text.split_once(':')?;
        let (subject, pattern) = rest.split_once(':')?;
        let allow = match access {
            "allow" => true,
            "deny" => false,
            _ => return None,
        };
        let subject = match (subject, pattern) {
            ("name", "localhost") => Subject::Local,
            ("name", pattern) => Subject::Name(pattern.to_owned()),
            ("ip", pattern) => Subject::Ip(pattern.to_owned()),
            _ => return None,
        };
        Some(Self { allow, subject })
    }
}

/// The rules of a source.
#[derive(Clone, Debug, Default)]
pub struct IpFilter(Vec<Rule>);

impl IpFilter {
    /// Reads `ipFilter` and `ipFilterRules`.
    pub fn from_props(props: &Props<'_>) -> Self {
        let wanted = props.or("ipFilter", false);
        let Some(text) = props.text("ipFilterRules").filter(|text| !text.trim().is_empty()) else {
            if wanted {
                let flume = "ipFilter is configured with true but ipFilterRules is not defined:";
                props.error("ipFilterRules", "rules such as allow:ip:10.0.*,deny:ip:*", flume);
            }
            return Self::default();
        };
        if !wanted {
            props.warning("ipFilterRules", "has no effect without ipFilter = true");
            return Self::default();
        }
        let mut rules = Vec::new();
        for text in text.split(',').map(str::trim) {
            match Rule::parse(text) {
                Some(rule) => rules.push(rule),
                None => {
                    let flume = format!(
                        "Invalid ipFilter patternRule '{text}' should look like <'allow'  or 'deny'>:<'ip' or 'name'>:<pattern>"
                    );
                    let expected = format!("<allow or deny>:<ip or name>:<pattern>, not \"{text}\"");
                    props.error("ipFilterRules", &expected, &flume);
                }
            }
        }
        Self(rules)
    }

    /// Whether a client may connect. Looks its name up when a rule asks for it.
    pub async fn admits(&self, client: SocketAddr, here: IpAddr) -> bool {
        // What comes by IPv4 to a socket of both is meant by its own address.
        let (client, here) = (client.ip().to_canonical(), here.to_canonical());
        let mut name = None;
        for rule in &self.0 {
            let matches = match &rule.subject {
                Subject::Local => client.is_loopback() || client == here,
                Subject::Ip(pattern) => {
                    let spelt = |text: String| matches(pattern.as_bytes(), text.as_bytes());
                    spelt(client.to_string()) || spelt(net::java_address(client))
                }
                Subject::Name(pattern) => {
                    if name.is_none() {
                        name = Some(net::host_name(client).await);
                    }
                    matches(pattern.as_bytes(), name.as_deref().unwrap_or_default().as_bytes())
                }
            };
            if matches {
                return rule.allow;
            }
        }
        true
    }
}

/// Whether a pattern with `*` and `?` matches a whole text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // The last star, and where it has been let to end.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, end)) => {
                    *end += 1;
                    (p, t) = (*at + 1, *end);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(rules: &str) -> IpFilter {
        IpFilter(rules.split(',').map(|rule| Rule::parse(rule).expect("a rule")).collect())
    }

    async fn admits(rules: &str, client: &str) -> bool {
        let client = SocketAddr::new(client.parse().expect("an address"), 50_000);
        filter(rules).admits(client, IpAddr::from([10, 0, 0, 9])).await
    }

    #[tokio::test]
    async fn the_first_rule_that_matches_decides() {
        assert!(admits("allow:ip:10.0.0.?,deny:ip:*", "10.0.0.7").await);
        assert!(!admits("allow:ip:10.0.0.?,deny:ip:*", "10.0.0.77").await);
        assert!(!admits("deny:ip:10.*.7,allow:ip:*", "10.1.2.7").await);
        assert!(admits("deny:ip:10.*.7", "10.1.2.8").await);
        assert!(admits("allow:name:localhost,deny:ip:*", "127.0.0.1").await);
        assert!(admits("allow:name:localhost,deny:ip:*", "10.0.0.9").await);
        assert!(!admits("allow:name:localhost,deny:ip:*", "10.0.0.8").await);
        assert!(!admits("deny:name:*", "127.0.0.1").await);
    }

    #[tokio::test]
    async fn addresses_are_matched_however_they_are_spelt() {
        assert!(!admits("deny:ip:127.*,allow:ip:*", "::ffff:127.0.0.1").await);
        assert!(!admits("deny:name:localhost", "::ffff:127.0.0.1").await);
        assert!(!admits("deny:name:localhost", "::ffff:10.0.0.9").await);
        for pattern in ["::1", "0:0:0:0:0:0:0:1", "0:*"] {
            assert!(!admits(&format!("deny:ip:{pattern}"), "::1").await, "{pattern}");
        }
        assert!(!admits("deny:ip:2001:db8:0:*", "2001:db8::7").await);
    }

    #[test]
    fn rules_that_are_none() {
        for text in ["", "allow", "allow:ip", "permit:ip:*", "allow:host:*", "allow"] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn patterns() {
        assert!(matches(b"a*b*c", b"aXbYbZc"));
        assert!(!matches(b"a*b*c", b"aXcYb"));
        assert!(matches(b"*", b""));
        assert!(!matches(b"?", b""));
        assert!(matches(b"10.0.*", b"10.0.1.2"));
        assert!(!matches(b"10.0.*", b"1000.1.2"));
    }
}
