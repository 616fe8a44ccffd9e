//! The labels of an object, as small as they can be: most objects have one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use smol_str::SmolStr;

/// Labels, each key once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(from = "BTreeMap<SmolStr, SmolStr>")]
pub struct Labels(Box<[(SmolStr, SmolStr)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<SmolStr, SmolStr>> for Labels {
    fn from(labels: BTreeMap<SmolStr, SmolStr>) -> Self {
        Self(labels.into_iter().collect())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
