//! What Java's client reads from key stores and JAAS, for librdkafka, which reads neither.
//!
//! Stores are JKS, PKCS12 or PEM, whatever their type says; those of `-Djavax.net.ssl.trustStore` and the like stand in
//! where TLS is on and none is named. JAAS comes from `sasl.jaas.config`, or from the section `KafkaClient` of the file
//! that `-Djava.security.auth.login.config` names.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::options::Options;
use crate::config::Props;
use crate::tls::{Sealed, Store};

/// Where Flume looks for stores that the component does not name.
const TRUSTSTORE: (&str, &str) = ("javax.net.ssl.trustStore", "FLUME_SSL_TRUSTSTORE_PATH");
const TRUSTSTORE_PASSWORD: (&str, &str) = ("javax.net.ssl.trustStorePassword", "FLUME_SSL_TRUSTSTORE_PASSWORD");
const KEYSTORE: (&str, &str) = ("javax.net.ssl.keyStore", "FLUME_SSL_KEYSTORE_PATH");
const KEYSTORE_PASSWORD: (&str, &str) = ("javax.net.ssl.keyStorePassword", "FLUME_SSL_KEYSTORE_PASSWORD");
const LOGIN_CONFIG: &str = "java.security.auth.login.config";

/// Adds what a client with the keys below `family` needs to be secure as Java's would be.
pub fn read(props: &Props<'_>, family: &str, options: &mut Options) {
    let protocol = options.get("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
    let key = |name: &str| format!("{family}.{name}");
    if protocol.ends_with("ssl") {
        if props.or(&key("ssl.disableTLSHostnameVerification"), false) {
            options.set("ssl.endpoint.identification.algorithm", "none");
        }
        stores(props, &key, options);
    }
    if protocol.starts_with("sasl") {
        jaas(props, &key("sasl.jaas.config"), options);
        let mechanism = options.get("sasl.mechanism").or_else(|| options.get("sasl.mechanisms")).unwrap_or("GSSAPI");
        if mechanism == "GSSAPI" && !cfg!(feature = "gssapi") {
            let expected = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; \
                            for GSSAPI (Kerberos), the program must be built with the feature gssapi";
            props.error(&key("sasl.mechanism"), expected, "");
        }
    }
}

fn stores(props: &Props<'_>, key: &impl Fn(&str) -> String, options: &mut Options) {
    let value = |name: &str, (property, variable): (&str, &str)| {
        let own = props.text(&key(name)).map(str::to_owned);
        own.or_else(|| props.globals().property_or_variable(property, variable))
    };
    if options.get("ssl.ca.pem").is_none() && options.get("ssl.ca.location").is_none() {
        match value("ssl.truststore.location", TRUSTSTORE) {
            Some(path) => {
                let password = value("ssl.truststore.password", TRUSTSTORE_PASSWORD);
                match open(&path, password.as_deref()) {
                    Ok(store) if !store.trusted.is_empty() => {
                        let pem: String = store.trusted.iter().map(|one| pem("CERTIFICATE", one)).collect();
                        options.set("ssl.ca.pem", pem);
                    }
                    Ok(_) => refuse(props, &key("ssl.truststore.location"), "certificates", &path, "it has none"),
                    Err(why) => refuse(props, &key("ssl.truststore.location"), "certificates", &path, &why),
                }
            }
            // The machine's CAs.
            None => options.set("ssl.ca.location", "probe"),
        }
    }
    let Some(path) = value("ssl.keystore.location", KEYSTORE) else { return };
    let password = value("ssl.keystore.password", KEYSTORE_PASSWORD);
    let opened = open(&path, password.as_deref()).and_then(|store| {
        let usable = store.keys.into_iter().find_map(|key| Some((key.chain, key.key?)));
        usable.ok_or_else(|| "it has no private key that the store's password opens".to_owned())
    });
    match opened {
        Ok((chain, private)) => {
            options.set("ssl.certificate.pem", chain.iter().map(|one| pem("CERTIFICATE", one)).collect::<String>());
            let label = match private {
                rustls::pki_types::PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
                rustls::pki_types::PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
                _ => "PRIVATE KEY",
            };
            options.set("ssl.key.pem", pem(label, private.secret_der()));
        }
        Err(why) => refuse(props, &key("ssl.keystore.location"), "a private key", &path, &why),
    }
}

fn open(path: &str, password: Option<&str>) -> Result<Store, String> {
    Sealed::read(path).and_then(|sealed| sealed.open(password)).map_err(|error| error.to_string())
}

fn refuse(props: &Props<'_>, key: &str, what: &str, path: &str, why: &str) {
    props.error(key, &format!("a JKS, PKCS12 or PEM file with {what}, but {path}: {why}"), "");
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Takes user and password, or what Kerberos needs, from JAAS.
fn jaas(props: &Props<'_>, key: &str, options: &mut Options) {
    let entry = match props.text(key) {
        Some(text) => Login::parse(text).ok_or_else(|| "it is not of this form".to_owned()),
        None => match props.globals().system.get(LOGIN_CONFIG) {
            Some(path) => section(path).map_err(|why| format!("{path}, which -D{LOGIN_CONFIG} names: {why}")),
            None => return,
        },
    };
    let entry = match entry {
        Ok(entry) => entry,
        Err(why) => {
            let expected = format!("a JAAS entry: MODULE required username=\"…\" password=\"…\"; ({why})");
            return props.error(key, &expected, "");
        }
    };
    let module = entry.module.rsplit('.').next().unwrap_or_default();
    let names: &[(&str, &str)] = match module {
        "PlainLoginModule" | "ScramLoginModule" => &[("username", "sasl.username"), ("password", "sasl.password")],
        "Krb5LoginModule" => &[
            ("principal", "sasl.kerberos.principal"),
            ("keyTab", "sasl.kerberos.keytab"),
            ("serviceName", "sasl.kerberos.service.name"),
        ],
        _ => {
            let expected = "a login module of PlainLoginModule, ScramLoginModule and Krb5LoginModule; \
                            for OAUTHBEARER there is sasl.oauthbearer.config";
            return props.error(key, expected, "");
        }
    };
    for (java, native) in names {
        if let Some((_, value)) = entry.options.iter().find(|(name, _)| name == java) {
            options.set(native, value);
        }
    }
}

/// The section `KafkaClient` of a JAAS file.
fn section(path: &str) -> Result<Login, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (_, rest) = text.split_once("KafkaClient").ok_or("it has no section KafkaClient")?;
    let (_, rest) = rest.split_once('{').ok_or("the section KafkaClient has no braces")?;
    Login::parse(rest).ok_or_else(|| "the section KafkaClient has no login module".to_owned())
}

/// One entry of JAAS: `MODULE FLAG NAME=VALUE …;`.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    module: String,
    options: Vec<(String, String)>,
}

impl Login {
    /// Reads the first entry of a text.
    fn parse(text: &str) -> Option<Self> {
        let mut words = Words(text);
        let module = words.next()?;
        let flag = words.next()?;
        if !["required", "requisite", "sufficient", "optional"].contains(&flag.to_ascii_lowercase().as_str()) {
            return None;
        }
        let mut options = Vec::new();
        loop {
            match words.next()?.as_str() {
                ";" => return Some(Self { module, options }),
                name => {
                    let name = name.to_owned();
                    if words.next()? != "=" {
                        return None;
                    }
                    options.push((name, words.next()?));
                }
            }
        }
    }
}

/// The words of JAAS: quoted texts, `=`, `;`, and what is between blanks.
struct Words<'a>(&'a str);

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        let first = self.0.chars().next()?;
        if matches!(first, '=' | ';') {
            self.0 = &self.0[1..];
            return Some(first.to_string());
        }
        if !matches!(first, '"' | '\'') {
            let end = self.0.find(|c: char| c.is_whitespace() || c == '=' || c == ';').unwrap_or(self.0.len());
            let (word, rest) = self.0.split_at(end);
            self.0 = rest;
            return Some(word.to_owned());
        }
        let mut word = String::new();
        let mut rest = self.0[1..].char_indices();
        while let Some((at, next)) = rest.next() {
            match next {
                '\\' => word.push(rest.next()?.1),
                end if end == first => {
                    self.0 = &self.0[1 + at + end.len_utf8()..];
                    return Some(word);
                }
                other => word.push(other),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kafka::tests::with_props;

    fn secure(text: &str) -> (Options, Vec<String>) {
        with_props(text, |props| Options::producer(props, "b1:9092", &[]))
    }

    #[test]
    fn user_and_password_come_from_jaas() {
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule";
        let (options, findings) = secure(&format!(
            "security.protocol = SASL_PLAINTEXT\nsasl.mechanism = SCRAM-SHA-512\n\
             sasl.jaas.config = {module} required username=\"alice\" password=\"a;b \\\\\"c=\" ;"
        ));
        assert_eq!(findings, [""; 0]);
        assert_eq!(options.get("sasl.username"), Some("alice"));
        assert_eq!(options.get("sasl.password"), Some("a;b \"c="));
        options.config().create_native_config().expect("librdkafka takes them");
    }

    #[test]
    fn a_file_of_jaas_has_a_section_for_kafka() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("jaas.conf");
        let text = "Other { x required; };\nKafkaClient {\n  a.b.PlainLoginModule required\n  username='bob'\n  password=secret;\n};";
        fs::write(&path, text).expect("a file");
        let login = section(&path.display().to_string()).expect("a section");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(login.options, [pair("username", "bob"), pair("password", "secret")]);
    }

    #[test]
    fn what_is_no_jaas_is_said_to_be_none() {
        for text in ["", "x", "x required", "x required a", "x required a=", "x required a=\"b", "x maybe;"] {
            assert_eq!(Login::parse(text), None, "{text}");
        }
        let (_, findings) = secure("security.protocol = SASL_SSL\nsasl.mechanism = PLAIN\nsasl.jaas.config = x");
        assert!(findings[0].starts_with("kafka.producer.sasl.jaas.config: expected a JAAS entry"), "{findings:?}");
    }

    #[test]
    fn a_missing_store_is_an_error_and_none_at_all_means_the_machines() {
        let (options, findings) = secure("security.protocol = SSL");
        assert_eq!(findings, [""; 0]);
        assert_eq!(options.get("ssl.ca.location"), Some("probe"));
        let (_, findings) = secure("security.protocol = SSL\nssl.truststore.location = /nowhere/trust.jks");
        assert!(findings[0].contains("/nowhere/trust.jks: "), "{findings:?}");
    }

    #[test]
    fn stores_of_java_become_pem() {
        let store = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        let (options, findings) = secure(&format!(
            "security.protocol = SSL\nssl.truststore.location = {}\nssl.truststore.password = changeit\n\
             ssl.keystore.location = {}\nssl.keystore.password = changeit",
            store("trust.jks"),
            store("rsa.jks")
        ));
        assert_eq!(findings, [""; 0]);
        for (name, label) in
            [("ssl.ca.pem", "CERTIFICATE"), ("ssl.certificate.pem", "CERTIFICATE"), ("ssl.key.pem", "PRIVATE KEY")]
        {
            assert!(
                options.get(name).is_some_and(|pem| pem.starts_with(&format!("-----BEGIN {label}-----\n"))),
                "{name}"
            );
        }
        // It opens them when a client is made.
        let made: Result<rdkafka::producer::BaseProducer, _> = options.config().create();
        made.expect("OpenSSL takes them");
    }

    proptest! {
        #[test]
        fn any_text_is_a_login_or_none(text in "\\PC{0,60}") {
            Login::parse(&text);
        }
    }
}
