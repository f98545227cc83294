//! The UUID interceptor: gives every event an identifier of its own, a random UUID.
//!
//! Keys: `headerName` (`id`), `preserveExisting` (true), `prefix` (none). Flume has no alias for it; `uuid` is ours.

use smol_str::{SmolStr, format_smolstr};
use tracing::error;
use uuid::Builder;

use super::{Edit, Interceptor, InterceptorBuilder};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::logging::Limited;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["uuid"],
    class: "org.apache.flume.sink.solr.morphline.UUIDInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Edits(Box::new(Uuid::from_props(props, prefix)))),
};

const UUID_BYTES: usize = 16;

struct Uuid {
    header: SmolStr,
    preserve_existing: bool,
    prefix: String,
    complaints: Limited,
}

impl Uuid {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Self {
        Self {
            header: props.or(&format!("{prefix}.headerName"), "id".to_owned()).into(),
            preserve_existing: props.or(&format!("{prefix}.preserveExisting"), true),
            prefix: props.or(&format!("{prefix}.prefix"), String::new()),
            complaints: Limited::default(),
        }
    }
}

impl Edit for Uuid {
    fn edit(&self, batch: &mut Batch) {
        // The system is asked once a batch.
        let mut random = vec![0; UUID_BYTES * batch.len()];
        if let Err(error) = getrandom::fill(&mut random) {
            if let Some(others) = self.complaints.permit() {
                error!("{} events get no {}: no random numbers: {error}{others}", batch.len(), self.header);
            }
            return;
        }
        let (mut random, _) = random.as_chunks::<UUID_BYTES>();
        batch.replace_headers(|event| {
            let bytes = random.split_off_first()?;
            if self.preserve_existing && event.headers().get(&self.header).is_some() {
                return None;
            }
            let uuid = Builder::from_random_bytes(*bytes).into_uuid();
            let mut headers = event.headers().clone();
            headers.set(self.header.clone(), format_smolstr!("{}{uuid}", self.prefix));
            Some(headers)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn every_event_gets_its_own_unless_it_has_one() {
        let uuid = Uuid {
            header: "id".into(),
            preserve_existing: true,
            prefix: "p-".to_owned(),
            complaints: Limited::default(),
        };
        let mut batch = Batch::from_iter([Event::new("a"), Event::new("b").with("id", "old"), Event::new("c")]);
        uuid.edit(&mut batch);
        let ids: Vec<&str> = batch.iter().filter_map(|event| event.headers().get("id")).collect();
        assert_eq!(ids[1], "old");
        assert_ne!(ids[0], ids[2]);
        let shape = regex_of("p-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
        assert!(shape.matches(ids[0]) && shape.matches(ids[2]), "{ids:?}");
    }

    fn regex_of(pattern: &str) -> crate::java_regex::JavaRegex {
        crate::java_regex::JavaRegex::new(pattern).expect("a pattern")
    }
}
