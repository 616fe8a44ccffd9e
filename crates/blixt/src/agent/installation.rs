//! What an agent belongs to: it stays at work between two versions of itself, and goes with the installation.
//!
//! It keeps an eye on its DaemonSet. Who deletes all of Blixt in one step takes the right to look away before agents are told to
//! end; a watch that has begun goes on and says what became of it.

use std::time::Duration;

use anyhow::bail;
use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::node::signals::End;

/// An API server that takes longer is not waited for: forwarding stays.
const PATIENCE: Duration = Duration::from_secs(3);
/// A namespace that is deleted loses pods and DaemonSet in any order: an agent may be told to end first.
const MOMENT: Duration = Duration::from_secs(1);
/// Where there is no way to the API server, it is looked for again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// The DaemonSet that it is of, if any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    daemon_set: Option<(String, String)>,
}

impl Installation {
    /// From `NAMESPACE/NAME`.
    pub fn new(daemon_set: Option<&str>) -> anyhow::Result<Self> {
        let Some(text) = daemon_set else { return Ok(Self { daemon_set: None }) };
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self { daemon_set: Some((namespace.to_owned(), name.to_owned())) })
            }
            _ => bail!("--daemon-set {text}: write it as NAMESPACE/NAME"),
        }
    }

    /// Keeps an eye on it from now on.
    pub fn follow(self) -> Followed {
        let (is_deleted, known) = watch::channel(false);
        if let Some((namespace, name)) = self.daemon_set.clone() {
            tokio::spawn(keep_looking(namespace, name, is_deleted));
        }
        Followed { daemon_set: self.daemon_set, is_deleted: known }
    }
}

/// A DaemonSet that is kept an eye on.
pub struct Followed {
    daemon_set: Option<(String, String)>,
    is_deleted: watch::Receiver<bool>,
}

impl Followed {
    /// What becomes of forwarding when the agent is to end: it stays, unless the whole installation goes.
    pub async fn end(&mut self) -> End {
        let Some((namespace, name)) = &self.daemon_set else { return End::Leave };
        let is_seen = timeout(MOMENT, self.is_deleted.wait_for(|is_deleted| *is_deleted)).await;
        let is_gone = match is_seen {
            Ok(Ok(_)) => Ok(Ok(true)),
            _ => timeout(PATIENCE, is_gone(namespace, name)).await,
        };
        match is_gone {
            Ok(Ok(true)) => {
                tracing::info!(namespace, name, "the DaemonSet is deleted: forwarding goes with it");
                End::Remove
            }
            Ok(Ok(false)) => End::Leave,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot tell whether the DaemonSet is deleted; forwarding stays");
                End::Leave
            }
            Err(_) => {
                tracing::warn!(
                    "the API server does not say whether the DaemonSet is deleted; forwarding stays"
                );
                End::Leave
            }
        }
    }
}

async fn is_gone(namespace: &str, name: &str) -> kube::Result<bool> {
    let client = Client::try_default().await?;
    let found = Api::<DaemonSet>::namespaced(client, namespace).get_opt(name).await?;
    Ok(found.is_none_or(|daemon_set| is_being_deleted(&daemon_set)))
}

/// Says at any time what is known last.
async fn keep_looking(namespace: String, name: String, is_deleted: watch::Sender<bool>) {
    let client = loop {
        match Client::try_default().await {
            Ok(client) => break client,
            Err(_) => sleep(AGAIN).await,
        }
    };
    // Every node has such a watch: it says no more than is wanted.
    let api = Api::<PartialObjectMeta<DaemonSet>>::namespaced(client, &namespace);
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(watcher(api, config).default_backoff());
    let mut is_listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Some(now) = deleted(&event, &mut is_listed) {
                    is_deleted.send_replace(now);
                }
            }
            Err(error) => tracing::debug!(%error, "cannot watch the DaemonSet, trying again"),
        }
    }
}

/// What an event says of whether it is deleted, if anything; `is_listed`: the list that is under way has named it.
fn deleted<K: Resource>(event: &Event<K>, is_listed: &mut bool) -> Option<bool> {
    match event {
        Event::Init => {
            *is_listed = false;
            None
        }
        Event::InitApply(found) | Event::Apply(found) => {
            *is_listed = true;
            Some(is_being_deleted(found))
        }
        Event::InitDone if *is_listed => None,
        Event::InitDone | Event::Delete(_) => Some(true),
    }
}

fn is_being_deleted(found: &impl Resource) -> bool {
    found.meta().deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn a_daemon_set_is_named_with_its_namespace() {
        assert!(Installation::new(Some("blixt-system/blixt-agent")).unwrap().daemon_set.is_some());
        for wrong in ["blixt-agent", "/blixt-agent", "blixt-system/", ""] {
            assert!(Installation::new(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn without_a_daemon_set_forwarding_stays() {
        assert!(matches!(Installation::new(None).unwrap().follow().end().await, End::Leave));
    }

    #[tokio::test]
    async fn a_daemon_set_that_was_seen_to_go_takes_forwarding_with_it_though_nobody_may_ask_any_more() {
        let daemon_set = Some(("blixt-system".to_owned(), "blixt-agent".to_owned()));
        let (seen, is_deleted) = watch::channel(false);
        let mut followed = Followed { daemon_set, is_deleted };
        seen.send_replace(true);
        assert!(matches!(followed.end().await, End::Remove));
        // Here is no API server that could be asked: what is not known to be deleted stays.
        seen.send_replace(false);
        assert!(matches!(followed.end().await, End::Leave));
    }

    #[test]
    fn what_is_deleted_or_missing_in_a_whole_list_is_gone_and_what_is_made_anew_is_not() {
        let there = DaemonSet::default();
        let mut leaving = DaemonSet::default();
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let mut is_listed = false;
        let mut says = |event: Event<DaemonSet>| deleted(&event, &mut is_listed);
        for (event, expected) in [
            (Event::Init, None),
            (Event::InitApply(there.clone()), Some(false)),
            (Event::InitDone, None),
            (Event::Apply(there.clone()), Some(false)),
            (Event::Apply(leaving.clone()), Some(true)),
            (Event::Delete(leaving), Some(true)),
            (Event::Apply(there.clone()), Some(false)),
            // A watch that was cut and begins anew.
            (Event::Init, None),
            (Event::InitDone, Some(true)),
            (Event::Apply(there), Some(false)),
        ] {
            let what = format!("{event:?}");
            assert_eq!(says(event), expected, "{what}");
        }
    }
}
