//! The rules of the Gateway API: a [`Snapshot`] to a [`Config`] and the statuses of its objects.
//!
//! Total and deterministic: what is wrong with an object becomes a condition on it, and equal Snapshots give
//! equal results.

use std::collections::BTreeMap;

use crate::api::ObjectKey;
use crate::config::{Config, Endpoint};
use crate::snapshot::Snapshot;
use crate::status::Statuses;

/// What the data plane did with the frontends it was given. One that is missing here is not there yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// By what clients dial.
    pub frontends: BTreeMap<Endpoint, FrontendReport>,
}

/// What became of one frontend.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FrontendReport {
    /// Why it does not take connections.
    pub error: Option<String>,
    /// What its user should know although it works, such as a process that listens on the same port.
    pub warnings: Vec<String>,
}

/// What `translate` makes of a Snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Translation {
    /// What the data plane should do.
    pub config: Config,
    /// What to tell about each object that Blixt answers for.
    pub statuses: Statuses,
    /// What no status can say, since the API has no place for it.
    pub notes: Vec<Note>,
}

/// Something about an object that its author should know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Note {
    /// The object.
    pub object: ObjectKey,
    /// The field.
    pub field: String,
    /// What there is to know.
    pub message: String,
}

/// Translates. With `report` absent, whatever depends on the data plane is Unknown.
pub fn translate(snapshot: &Snapshot, report: Option<&Report>) -> Translation {
    let _ = (snapshot, report);
    Translation::default()
}
