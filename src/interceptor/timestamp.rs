//! The timestamp interceptor: sets a header to the present time in milliseconds since 1970.
//!
//! Keys: `headerName` (`timestamp`), `preserveExisting` (false). All events of a batch get the same time.

use smol_str::{SmolStr, ToSmolStr as _};

use super::{Edit, Interceptor, InterceptorBuilder};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::java::current_time_millis;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["timestamp"],
    class: "org.apache.flume.interceptor.TimestampInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Edits(Box::new(Timestamp::from_props(props, prefix)))),
};

struct Timestamp {
    header: SmolStr,
    preserve_existing: bool,
}

impl Timestamp {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Self {
        Self {
            header: props.or(&format!("{prefix}.headerName"), "timestamp".to_owned()).into(),
            preserve_existing: props.or(&format!("{prefix}.preserveExisting"), false),
        }
    }
}

impl Edit for Timestamp {
    fn edit(&self, batch: &mut Batch) {
        let now = current_time_millis();
        batch.set_header(&self.header, &now.to_smolstr(), self.preserve_existing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn sets_the_present_time() {
        let timestamp = Timestamp { header: "timestamp".into(), preserve_existing: true };
        let mut batch = Batch::from_iter([Event::new("a"), Event::new("b").with("timestamp", "1")]);
        timestamp.edit(&mut batch);
        let time: i64 = batch.get(0).headers().get("timestamp").expect("a header").parse().expect("a number");
        assert!(time > 1_700_000_000_000);
        assert_eq!(batch.get(1).headers().get("timestamp"), Some("1"));
    }
}
