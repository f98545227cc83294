//! The host interceptor: sets a header to the address or the name of this machine.
//!
//! Keys: `hostHeader` (`host`), `useIP` (true), `preserveExisting` (false). The machine is looked up once; when that
//! fails no header is set.

use std::net::{IpAddr, Ipv4Addr};

use smol_str::{SmolStr, ToSmolStr as _};
use tracing::warn;

use super::{Edit, Interceptor, InterceptorBuilder};
use crate::config::{ComponentType, Props};
use crate::event::Batch;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["host"],
    class: "org.apache.flume.interceptor.HostInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Edits(Box::new(Host::from_props(props, prefix)))),
};

struct Host {
    header: SmolStr,
    host: Option<SmolStr>,
    preserve_existing: bool,
}

impl Host {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Self {
        let use_ip = props.or(&format!("{prefix}.useIP"), true);
        let address = local_address()
            .inspect_err(|error| warn!("Could not get local host address. Exception follows. {error}"))
            .ok();
        Self {
            header: props.or(&format!("{prefix}.hostHeader"), "host".to_owned()).into(),
            host: address.map(|address| if use_ip { address.to_smolstr() } else { canonical_name(address).into() }),
            preserve_existing: props.or(&format!("{prefix}.preserveExisting"), false),
        }
    }
}

/// The address that this machine's name stands for, an IPv4 one if there is one, as Java has it.
fn local_address() -> std::io::Result<IpAddr> {
    let name = dns_lookup::get_hostname()?;
    if name == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let addresses: Vec<IpAddr> = dns_lookup::lookup_host(&name)?.collect();
    let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    address.copied().ok_or_else(|| std::io::Error::other(format!("{name} has no address")))
}

/// The name of an address, if that name stands for the address too; else the address.
fn canonical_name(address: IpAddr) -> String {
    let name = dns_lookup::lookup_addr(&address).ok();
    name.filter(|name| dns_lookup::lookup_host(name).is_ok_and(|mut found| found.any(|found| found == address)))
        .unwrap_or_else(|| address.to_string())
}

impl Edit for Host {
    fn edit(&self, batch: &mut Batch) {
        if let Some(host) = &self.host {
            batch.set_header(&self.header, host, self.preserve_existing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn sets_what_was_found_and_nothing_otherwise() {
        let mut batch = Batch::from_iter([Event::new("a"), Event::new("b").with("host", "old")]);
        let mut host = Host { header: "host".into(), host: None, preserve_existing: false };
        let hosts =
            |batch: &Batch| batch.iter().map(|e| e.headers().get("host").map(str::to_owned)).collect::<Vec<_>>();
        host.edit(&mut batch);
        assert_eq!(hosts(&batch), [None, Some("old".to_owned())]);
        host.host = Some("10.0.0.1".into());
        host.preserve_existing = true;
        host.edit(&mut batch);
        assert_eq!(hosts(&batch), [Some("10.0.0.1".to_owned()), Some("old".to_owned())]);
    }

    #[test]
    fn an_address_without_a_name_is_its_own_name() {
        let documentation = IpAddr::from([203, 0, 113, 77]);
        assert_eq!(canonical_name(documentation), "203.0.113.77");
    }
}
