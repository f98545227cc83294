use std::collections::BTreeMap;
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::config::{Finding, Globals, Origin, Property, Severity};

/// The path of a fixture.
fn file(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Builds from keys `key=value` and system properties; `@NAME` is the path of a fixture.
fn configure<T>(
    build: fn(&Props<'_>) -> Option<T>,
    keys: &[&str],
    system: &[(&str, &str)],
) -> (Option<T>, Vec<Finding>) {
    let value = |value: &str| value.strip_prefix('@').map_or_else(|| value.to_owned(), file);
    let origin = Origin { file: "test.conf".into(), line: 1 };
    let entries: BTreeMap<String, Property> = keys
        .iter()
        .map(|pair| {
            let (key, text) = pair.split_once('=').expect("key=value");
            (key.to_owned(), Property { key: key.to_owned(), value: value(text), origin: origin.clone() })
        })
        .collect();
    let system = system.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    let globals = Globals { system, ..Globals::default() };
    let props = Props::new("a1.sources.r1", &entries, None, &globals);
    let built = build(&props);
    let usable = props.finish(()).is_some();
    let findings = props.into_findings();
    assert_eq!(usable, !findings.iter().any(|finding| finding.severity == Severity::Error), "{findings:?}");
    assert!(usable || built.is_none(), "{findings:?}");
    (built, findings)
}

fn server(keystore: &str, more: &[&str]) -> Acceptor {
    let keystore = format!("keystore=@{keystore}");
    let keys = [&["ssl=true", &keystore, "keystore-password=changeit"], more].concat();
    let (built, findings) = configure(acceptor, &keys, &[]);
    built.unwrap_or_else(|| panic!("{findings:?}"))
}

fn client(keys: &[&str]) -> Connector {
    let (built, findings) = configure(connector, &[&["ssl=true"], keys].concat(), &[]);
    built.unwrap_or_else(|| panic!("{findings:?}"))
}

fn trusting(truststore: &str) -> Connector {
    client(&[&format!("truststore=@{truststore}"), "truststore-password=changeit"])
}

/// The only error, as `(message, what Flume says)`.
fn error(findings: Vec<Finding>) -> (String, String) {
    let errors: Vec<_> = findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    let [error] = errors.try_into().expect("one error");
    (error.message, error.flume.unwrap_or_default())
}

fn server_error(keys: &[&str]) -> (String, String) {
    error(configure(acceptor, &[&["ssl=true"], keys].concat(), &[]).1)
}

fn client_error(keys: &[&str]) -> (String, String) {
    error(configure(connector, &[&["ssl=true"], keys].concat(), &[]).1)
}

fn warnings(findings: &[Finding]) -> Vec<String> {
    assert!(findings.iter().all(|finding| finding.severity == Severity::Warning), "{findings:?}");
    findings.iter().map(|finding| finding.message.clone()).collect()
}

struct Met {
    version: ProtocolVersion,
    suite: String,
}

/// Shakes hands and sends a word. Otherwise gives what the client and the server say about it.
async fn meet(acceptor: &Acceptor, connector: &Connector) -> Result<Met, (String, String)> {
    let (near, far) = duplex(1 << 16);
    let at_server = async {
        let mut stream = acceptor.accept(far).await?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).await?;
        assert_eq!(&word, b"hello");
        Ok(())
    };
    let at_client = async {
        let mut stream = connector.connect("flume.example", near).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        let (_, connection) = stream.get_ref();
        let version = connection.protocol_version().expect("hands are shaken");
        let suite = connection.negotiated_cipher_suite().expect("hands are shaken");
        let met = Met { version, suite: format!("{:?}", suite.suite()) };
        // Open until the server has read the word.
        std::io::Result::Ok((met, stream))
    };
    let (client, server): (_, std::io::Result<()>) = tokio::join!(at_client, at_server);
    let text = |result: Option<std::io::Error>| result.map(|error| error.to_string()).unwrap_or_default();
    match (client, server) {
        (Ok((met, _)), Ok(())) => Ok(met),
        (client, server) => Err((text(client.err()), text(server.err()))),
    }
}

const VERSIONS: [(&str, ProtocolVersion); 2] =
    [("TLSv1.2", ProtocolVersion::TLSv1_2), ("TLSv1.3", ProtocolVersion::TLSv1_3)];

#[tokio::test]
async fn every_keystore_serves_both_versions() {
    let connector = trusting("trust.jks");
    let stores = ["rsa.jks", "ec.jks", "rsa.p12", "ec.p12", "rsa-legacy.p12", "rsa-openssl.p12", "rsa.pem"];
    for store in stores.iter().chain(&["rsa-pkcs1.pem", "ec-sec1.pem"]) {
        for (name, version) in VERSIONS {
            let acceptor = server(store, &[&format!("include-protocols={name}")]);
            let met = meet(&acceptor, &connector).await.unwrap_or_else(|errors| panic!("{store}: {errors:?}"));
            assert_eq!(met.version, version, "{store}");
        }
    }
}

#[tokio::test]
async fn every_truststore_lets_its_servers_in_and_no_other() {
    // A keystore trusts its own certificates.
    for store in ["trust.jks", "trust.p12", "trust-legacy.p12", "trust.pem", "rsa.jks", "rsa.p12"] {
        let connector = trusting(store);
        if let Err(errors) = meet(&server("rsa.jks", &[]), &connector).await {
            panic!("{store}: {errors:?}");
        }
        let (client, server) = meet(&server("chain.p12", &[]), &connector).await.err().expect(store);
        let why = "the server's certificate is not trusted: nobody in the truststore has signed it";
        assert_eq!(client, why, "{store}");
        assert_eq!(server, "the peer refused: it does not trust the certificate (alert UnknownCA)", "{store}");
    }
}

#[tokio::test]
async fn a_ca_vouches_for_servers_of_any_name() {
    meet(&server("chain.p12", &[]), &trusting("ca.jks")).await.map(|_| ()).expect("signed by the CA");
    let odd = ["127.0.0.1", "::1", "no name", ""];
    for host in odd {
        let (near, far) = duplex(1 << 16);
        let (acceptor, connector) = (server("chain.p12", &[]), trusting("ca.jks"));
        let (client, server) = tokio::join!(connector.connect(host, near), acceptor.accept(far));
        client.map(|_| ()).expect(host);
        server.map(|_| ()).expect(host);
    }
}

#[tokio::test]
async fn all_servers_can_be_trusted() {
    let keys = ["ssl=true", "trust-all-certs=true", "truststore=@missing"];
    let (connector, findings) = configure(connector, &keys, &[]);
    let connector = connector.expect("the truststore is not read");
    assert_eq!(warnings(&findings), ["every server is accepted, also one that only pretends to be the right one"]);
    for store in ["rsa.jks", "chain.p12", "expired.jks", "v1.pem"] {
        meet(&server(store, &[]), &connector).await.map(|_| ()).expect(store);
    }
}

#[tokio::test]
async fn a_listed_certificate_may_be_expired_or_old() {
    for store in ["expired.jks", "v1.pem"] {
        let connector = trusting(store);
        for (version, _) in VERSIONS {
            let acceptor = server(store, &[&format!("include-protocols={version}")]);
            meet(&acceptor, &connector).await.map(|_| ()).expect(store);
        }
    }
}

/// A server that shows a certificate without having its key.
#[tokio::test]
async fn a_listed_certificate_needs_its_key() {
    let own = |name: &str| Sealed::read(&file(name)).and_then(|sealed| sealed.open(Some("changeit"))).expect(name);
    let provider = rustls::crypto::ring::default_provider();
    let other = key::certified(own("rsa.jks").keys.remove(0), &provider).expect("usable");
    let stolen = CertifiedKey::new(own("v1.pem").trusted, other.key);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ServerConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[version])
            .expect("supported")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Keys(vec![Arc::new(stolen.clone())])));
        for connector in [trusting("v1.pem"), client(&["trust-all-certs=true"])] {
            let (client, _) = meet(&Acceptor::new(config.clone()), &connector).await.err().expect("refused");
            assert!(client.starts_with("the server's certificate is not trusted"), "{client}");
        }
    }
}

#[tokio::test]
async fn the_first_key_that_can_be_used_is() {
    let keys = ["ssl=true", "keystore=@mixed.jks", "keystore-password=changeit"];
    let (acceptor, findings) = configure(acceptor, &keys, &[]);
    let [warning] = warnings(&findings).try_into().expect("one warning");
    assert!(warning.starts_with("the key \"first\" cannot be used: a DSA key ("), "{warning}");
    meet(&acceptor.expect("the other key is usable"), &trusting("trust.jks")).await.map(|_| ()).expect("RSA");

    let (message, _) = server_error(&["keystore=@dsa.jks", "keystore-password=changeit"]);
    assert!(message.contains("dsa.jks: the key \"first\" cannot be used: a DSA key"), "{message}");
}

#[test]
fn says_what_is_wrong_with_a_keystore() {
    assert_eq!(server_error(&[]).1, "keystore must be specified when SSL is enabled");
    assert_eq!(server_error(&["keystore=@rsa.jks"]).1, "keystore-password must be specified when SSL is enabled");
    let both = |store: &str, password: &str| {
        let store = format!("keystore=@{store}");
        server_error(&[&store, &format!("keystore-password={password}")])
    };
    let (message, flume) = both("rsa.jks", "wrong");
    assert_eq!(flume, format!("Source r1 configured with invalid keystore: {}", file("rsa.jks")));
    assert!(message.ends_with("rsa.jks: the password is wrong, or the file was changed without it"), "{message}");
    assert!(both("rsa.p12", "wrong").0.ends_with("the password is wrong, or the file was changed without it"));
    assert!(both("missing.jks", "changeit").0.ends_with("missing.jks: No such file or directory (os error 2)"));
    assert!(both("README.md", "changeit").0.ends_with("README.md: neither JKS nor PKCS12 nor PEM"));
    assert!(both("trust.jks", "changeit").0.ends_with("trust.jks: it has no private key"));
    assert!(both("keypass.jks", "changeit").0.contains("it does not open with the keystore's password"));
    assert!(both("encrypted.pem", "changeit").0.contains("its private key is encrypted"));
}

#[test]
fn a_key_must_belong_to_its_certificate() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pair.pem");
    let text = |name: &str| std::fs::read_to_string(file(name)).expect(name);
    std::fs::write(&path, text("trust.pem") + &text("ec-sec1.pem")).expect("written");
    let (message, _) = server_error(&[&format!("keystore={}", path.display())]);
    assert!(
        message.contains("the key \"key 1\" cannot be used: it is not the key of the first certificate"),
        "{message}"
    );
}

#[test]
fn says_what_is_wrong_with_a_truststore() {
    let (message, flume) = client_error(&["truststore=@trust.p12"]);
    assert!(message.ends_with("trust.p12: it needs truststore-password"), "{message}");
    assert_eq!(flume, "Cannot create SSL channel");
    let (message, _) = client_error(&["truststore=@trust.jks", "truststore-password=wrong"]);
    assert!(message.ends_with("trust.jks: the password is wrong, or the file was changed without it"), "{message}");
    // Without a password Java does not look whether a JKS file is unchanged, and a PKCS12 file may have none.
    client(&["truststore=@trust.jks"]);
    client(&["truststore=@trust-open.p12"]);
}

#[test]
fn a_store_type_that_is_unknown_is_ignored_aloud() {
    let keys = ["ssl=true", "keystore=@rsa.p12", "keystore-password=changeit"];
    let with = |more: &str| warnings(&configure(acceptor, &[&keys[..], &[more]].concat(), &[]).1);
    assert_eq!(with("keystore-type=jks"), [""; 0]);
    assert_eq!(
        with("keystore-type=BKS"),
        ["BKS is not supported; the file is read as JKS, PKCS12 or PEM, as it begins"]
    );
}

#[test]
fn without_ssl_its_keys_are_known_and_not_looked_at() {
    let lists = ["include-protocols=x", "exclude-protocols=x", "include-cipher-suites=x", "exclude-cipher-suites=x"];
    let keys = [&lists[..], &["ssl=false", "keystore=@missing", "keystore-password=x", "keystore-type=x"]].concat();
    let (built, findings) = configure(acceptor, &keys, &[("javax.net.ssl.keyStore", "@rsa.jks")]);
    assert!(built.is_none() && findings.is_empty(), "{findings:?}");
    let stores = ["truststore=@missing", "truststore-password=x", "truststore-type=x", "trust-all-certs=true"];
    let (built, findings) = configure(connector, &[&lists[..], &stores].concat(), &[]);
    assert!(built.is_none() && findings.is_empty(), "{findings:?}");
}

#[tokio::test]
async fn protocols_are_included_and_excluded() {
    let connector = client(&["trust-all-certs=true"]);
    let version = async |lists: &[&str]| {
        let met = meet(&server("rsa.jks", lists), &connector).await;
        met.unwrap_or_else(|errors| panic!("{errors:?}")).version
    };
    assert_eq!(version(&[]).await, ProtocolVersion::TLSv1_3);
    assert_eq!(version(&["exclude-protocols=SSLv2Hello TLSv1.3"]).await, ProtocolVersion::TLSv1_2);
    let both = ["include-protocols=TLSv1.2 TLSv1.3", "exclude-protocols=TLSv1.3"];
    assert_eq!(version(&both).await, ProtocolVersion::TLSv1_2);

    let store = ["keystore=@rsa.jks", "keystore-password=changeit"];
    let findings = |lists: &[&str]| configure(acceptor, &[&["ssl=true"], &store[..], lists].concat(), &[]).1;
    assert_eq!(
        warnings(&findings(&["include-protocols=TLSv1 TLSv1.1 TLSv1.2", "exclude-protocols=SSLv3 TLSv1"])),
        ["TLSv1, TLSv1.1: not supported, ignored; there are TLSv1.2, TLSv1.3"]
    );
    assert_eq!(
        warnings(&findings(&["exclude-protocols=TLS1.2"])),
        ["TLS1.2: not supported, ignored; did you mean TLSv1.2?"]
    );
    let nothing = [&store[..], &["include-protocols=TLSv1.2", "exclude-protocols=TLSv1.2"]].concat();
    let expected = "expected include-protocols and exclude-protocols to leave at least one of TLSv1.2 or TLSv1.3";
    assert_eq!(server_error(&nothing).0, expected);
}

#[tokio::test]
async fn cipher_suites_are_included_and_excluded() {
    let connector = client(&["trust-all-certs=true", "include-protocols=TLSv1.2"]);
    let both = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
    let include = format!("include-cipher-suites={both}");
    let lists = [include.as_str(), "exclude-cipher-suites=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"];
    let met = meet(&server("rsa.jks", &lists), &connector).await.unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(met.suite, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");

    let only = |suite: &str| format!("include-cipher-suites={suite}");
    let ecdsa = server("rsa.jks", &[&only("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]);
    let (client_says, server_says) = meet(&ecdsa, &connector).await.err().expect("an RSA key cannot do ECDSA");
    assert_eq!(server_says, "no cipher suite in common with the peer");
    assert!(client_says.starts_with("the peer refused: it has nothing in common, such as a cipher suite"));

    let store = ["ssl=true", "keystore=@rsa.jks", "keystore-password=changeit"];
    let findings = |list: &str| configure(acceptor, &[&store[..], &[list]].concat(), &[]).1;
    let old = "TLS_RSA_WITH_AES_128_CBC_SHA";
    assert_eq!(warnings(&findings(&format!("exclude-cipher-suites={old}"))), [""; 0]);
    let [warning] = warnings(&findings(&only(&format!("{old} {both}")))).try_into().expect("one warning");
    assert!(warning.starts_with(&format!("{old}: not supported, ignored; there are TLS_AES_256_GCM_SHA384,")));
    let (message, _) = error(findings(&only(old)));
    assert!(message.starts_with("expected include-cipher-suites and exclude-cipher-suites to leave at least one of"));
    // There must be one for the versions that are left.
    let list = only("TLS_AES_128_GCM_SHA256");
    error(configure(acceptor, &[&store[..], &[&list, "exclude-protocols=TLSv1.3"]].concat(), &[]).1);
}

#[tokio::test]
async fn global_properties_stand_in_for_keys() {
    let system = [
        ("javax.net.ssl.keyStore", "@rsa.p12"),
        ("javax.net.ssl.keyStorePassword", "changeit"),
        ("javax.net.ssl.keyStoreType", "PKCS12"),
        ("javax.net.ssl.trustStore", "@trust.p12"),
        ("javax.net.ssl.trustStorePassword", "changeit"),
        ("flume.ssl.include.protocols", "TLSv1.2,TLSv1.1"),
        ("flume.ssl.exclude.cipherSuites", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ];
    let (acceptor, findings) = configure(acceptor, &["ssl=true"], &system);
    let from = "(from flume.ssl.include.protocols or FLUME_SSL_INCLUDE_PROTOCOLS)";
    assert_eq!(warnings(&findings), [format!("TLSv1.1: not supported, ignored {from}; there are TLSv1.2, TLSv1.3")]);
    let (connector, _) = configure(connector, &["ssl=true", "include-protocols=TLSv1.2 TLSv1.3"], &system);
    let met = meet(&acceptor.expect("complete"), &connector.expect("complete")).await;
    let met = met.unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(met.version, ProtocolVersion::TLSv1_2);
    assert_eq!(met.suite, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");

    // They do not turn TLS on, and a component's own keys come first.
    assert!(configure(super::acceptor, &[], &system).0.is_none());
    let (_, findings) = configure(super::acceptor, &["ssl=true", "keystore=@ec.jks", "keystore-password=no"], &system);
    assert!(error(findings).0.contains("ec.jks: the password is wrong"));
}

#[tokio::test]
async fn versions_that_differ_are_named() {
    let connector = client(&["trust-all-certs=true", "include-protocols=TLSv1.3"]);
    let old = server("rsa.jks", &["include-protocols=TLSv1.2"]);
    let (client, server) = meet(&old, &connector).await.err().expect("refused");
    assert_eq!(client, "the peer refused: it has no TLS version in common (alert ProtocolVersion)");
    assert_eq!(server, "no TLS version in common with the peer");
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_told_from_others() {
    async fn to_server(bytes: &[u8], close: bool) -> String {
        let acceptor = server("rsa.jks", &[]);
        let (mut near, far) = duplex(1 << 16);
        near.write_all(bytes).await.expect("room");
        let kept: Option<DuplexStream> = Some(near).filter(|_| !close);
        let error = acceptor.accept(far).await.expect_err("no TLS").to_string();
        drop(kept);
        error
    }
    // An Avro request, HTTP, and deflated TLS.
    for bytes in [&[0, 0, 0, 1, 0, 0, 0, 2][..], b"GET / HTTP/1.1\r\n\r\n", &[0x78, 0x9C, 0x62, 0x60, 0x60, 0x64]] {
        let error = to_server(bytes, false).await;
        assert!(error.starts_with("the peer does not speak TLS"), "{error}");
    }
    let closed = "the peer closed the connection during the TLS handshake; it may not speak TLS";
    assert_eq!(to_server(b"", true).await, closed);

    let (near, mut far) = duplex(1 << 16);
    far.write_all(b"220 hello\r\n").await.expect("room");
    let error = client(&["trust-all-certs=true"]).connect("localhost", near).await.expect_err("no TLS");
    assert!(error.to_string().starts_with("the peer does not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_silent_client_is_given_up() {
    let (_silent, far) = duplex(1 << 16);
    let error = server("rsa.jks", &[]).accept_within(Duration::ZERO, far).await.expect_err("no handshake");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "no TLS handshake within 0 s");
}
