//! Plans: which components an agent has, and how they hang together.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::finding::Origin;
use super::properties::Property;

/// The kinds of component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Where events come from.
    Source,
    /// Where events wait.
    Channel,
    /// Where events go.
    Sink,
    /// Sinks that share one channel by a rule.
    SinkGroup,
    /// Where values come from.
    ConfigFilter,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Source, Self::Sink, Self::Channel, Self::SinkGroup, Self::ConfigFilter];

    /// The word in keys: `sources`, `channels` and so on.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Channel => "channels",
            Self::Sink => "sinks",
            Self::SinkGroup => "sinkgroups",
            Self::ConfigFilter => "configfilters",
        }
    }

    /// The kind of a word in keys.
    pub fn from_plural(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Channel => "channel",
            Self::Sink => "sink",
            Self::SinkGroup => "sink group",
            Self::ConfigFilter => "config filter",
        })
    }
}

/// One component: its kind, name, type and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentPlan {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
    /// Alias or class name, as it was written.
    pub type_name: String,
    /// All its keys, `type` and the wiring among them.
    pub properties: BTreeMap<String, Property>,
}

impl ComponentPlan {
    /// The first line that speaks of the component.
    pub fn origin(&self) -> Option<&Origin> {
        self.properties.get("type").or_else(|| self.properties.values().next()).map(|property| &property.origin)
    }

    /// Whether the two mean the same, wherever they are written.
    pub fn same_as(&self, other: &Self) -> bool {
        let values =
            |plan: &Self| plan.properties.iter().map(|(k, p)| (k.clone(), p.value.clone())).collect::<Vec<_>>();
        self.kind == other.kind && self.name == other.name && values(self) == values(other)
    }
}

/// A source and the channels that it fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The source.
    pub component: ComponentPlan,
    /// Its channels in the order of its `channels` key.
    pub channels: Vec<String>,
}

/// A sink and the channel that it empties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPlan {
    /// The sink.
    pub component: ComponentPlan,
    /// Its channel.
    pub channel: String,
}

/// A sink group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group; its type is that of its processor.
    pub component: ComponentPlan,
    /// Its sinks.
    pub sinks: Vec<String>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentPlan {
    /// The name.
    pub name: String,
    /// Channels, in the order of the list.
    pub channels: Vec<ComponentPlan>,
    /// Sources, in the order of the list.
    pub sources: Vec<SourcePlan>,
    /// Sinks, in the order of the list.
    pub sinks: Vec<SinkPlan>,
    /// Sink groups, in the order of the list.
    pub groups: Vec<GroupPlan>,
}
