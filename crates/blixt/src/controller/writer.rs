//! The hands of the controller: applies what is to be written, several objects at a time, each the newest state only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blixt_core::api::ObjectKey;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::fetched::Fetched;
use super::watch::resource;

/// Who we are in `managedFields`.
pub const FIELD_MANAGER: &str = "blixt";
/// Writes under way.
const AT_ONCE: usize = 16;
/// A write that takes longer is given up, and tried again.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of a write.
#[derive(Debug)]
pub struct Outcome {
    /// Of what.
    pub key: ObjectKey,
    /// What went wrong.
    pub result: Result<(), Failure>,
}

/// Why something was not written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Somebody else wrote meanwhile.
    Conflict,
    /// The object is gone.
    Gone,
    /// Something else.
    Other(String),
}

/// Writes what comes until nobody sends any more.
pub async fn run(
    client: Client,
    mut jobs: mpsc::UnboundedReceiver<(ObjectKey, Box<str>)>,
    outcomes: mpsc::UnboundedSender<Outcome>,
) {
    let mut waiting: BTreeMap<ObjectKey, Box<str>> = BTreeMap::new();
    let mut busy: BTreeSet<ObjectKey> = BTreeSet::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < AT_ONCE {
            let Some(key) = waiting.keys().find(|key| !busy.contains(key)).cloned() else { break };
            let Some(body) = waiting.remove(&key) else { break };
            busy.insert(key.clone());
            under_way.push(apply_status(client.clone(), key, body));
        }
        tokio::select! {
            job = jobs.recv() => match job {
                Some((key, body)) => drop(waiting.insert(key, body)),
                None => return,
            },
            Some(outcome) = under_way.next() => {
                busy.remove(&outcome.key);
                if outcomes.send(outcome).is_err() {
                    return;
                }
            }
        }
    }
}

async fn apply_status(client: Client, key: ObjectKey, body: Box<str>) -> Outcome {
    let resource = resource(key.kind);
    let api: Api<Fetched> = if key.kind.namespaced() {
        Api::namespaced_with(client, &key.namespace, &resource)
    } else {
        Api::all_with(client, &resource)
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let body = RawValue::from_string(body.into()).expect("it was written as JSON");
    let patch = Patch::Apply(&body);
    let applied = timeout(PATIENCE, api.patch_status(&key.name, &params, &patch)).await;
    let result = match applied {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Error::Api(status))) if status.code == 409 => Err(Failure::Conflict),
        Ok(Err(Error::Api(status))) if status.code == 404 => Err(Failure::Gone),
        Ok(Err(error)) => Err(Failure::Other(error.to_string())),
        Err(_) => Err(Failure::Other("the API server does not answer".to_owned())),
    };
    Outcome { key, result }
}
