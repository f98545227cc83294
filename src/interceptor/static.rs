//! The static interceptor: sets one header to a fixed value.
//!
//! Keys: `key` (`key`), `value` (`value`), `preserveExisting` (true).

use smol_str::SmolStr;

use super::{Edit, Interceptor, InterceptorBuilder};
use crate::config::{ComponentType, Props};
use crate::event::Batch;

/// How the type is registered.
pub const TYPE: ComponentType<InterceptorBuilder> = ComponentType {
    aliases: &["static"],
    class: "org.apache.flume.interceptor.StaticInterceptor$Builder",
    build: |props, prefix| Some(Interceptor::Edits(Box::new(Static::from_props(props, prefix)))),
};

struct Static {
    key: SmolStr,
    value: SmolStr,
    preserve_existing: bool,
}

impl Static {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Self {
        Self {
            key: props.or(&format!("{prefix}.key"), "key".to_owned()).into(),
            value: props.or(&format!("{prefix}.value"), "value".to_owned()).into(),
            preserve_existing: props.or(&format!("{prefix}.preserveExisting"), true),
        }
    }
}

impl Edit for Static {
    fn edit(&self, batch: &mut Batch) {
        batch.set_header(&self.key, &self.value, self.preserve_existing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn keeps_what_is_there_unless_told_otherwise() {
        let mut batch = Batch::from_iter([Event::new("a"), Event::new("b").with("k", "old")]);
        let fixed = |preserve_existing| Static { key: "k".into(), value: "new".into(), preserve_existing };
        fixed(true).edit(&mut batch);
        assert_eq!(batch.iter().map(|e| e.headers().get("k")).collect::<Vec<_>>(), [Some("new"), Some("old")]);
        fixed(false).edit(&mut batch);
        assert!(batch.iter().all(|e| e.headers().get("k") == Some("new")));
    }
}
