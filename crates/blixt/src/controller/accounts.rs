//! The ServiceAccount that the cluster holds for each Gateway, and that goes with it by its owner reference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blixt_core::translate::ServiceAccount;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ServiceAccount as Account;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::sleep;

use super::watch::{backoff, resource};
use super::writer::FIELD_MANAGER;

/// The label that every one of them has.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// What could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

type Name = (String, String);

/// Keeps accounts as they should be, until nobody says any more how that is.
pub async fn keep(client: Client, mut wanted: watch::Receiver<Vec<ServiceAccount>>) {
    let accounts: Api<Account> = Api::all(client.clone());
    let stream = watcher(accounts, Config::default().labels(GATEWAY_NAME)).backoff(backoff());
    let mut stream = std::pin::pin!(stream);
    let mut present: BTreeMap<Name, Account> = BTreeMap::new();
    let mut listed: BTreeSet<Name> = BTreeSet::new();
    let mut is_complete = false;
    let mut trouble = String::new();
    loop {
        let mut is_behind = false;
        if is_complete {
            let missing: Vec<ServiceAccount> = wanted
                .borrow_and_update()
                .iter()
                .filter(|account| {
                    !present.get(&name(account)).is_some_and(|present| carries(present, account))
                })
                .cloned()
                .collect();
            for account in missing {
                match apply(&client, &account).await {
                    Ok(applied) => drop(present.insert(name(&account), applied)),
                    // Its Gateway or its namespace is about to go.
                    Err(Refusal::Api(kube::Error::Api(status))) if [404, 409].contains(&status.code) => {}
                    Err(error) => {
                        is_behind = matches!(error, Refusal::Api(_));
                        let error = error.to_string();
                        if error != trouble {
                            tracing::warn!(gateway = %account.gateway, error, "cannot write its ServiceAccount, trying again");
                            trouble = error;
                        }
                    }
                }
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if is_behind => {}
            event = stream.next() => match event {
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(account))) => {
                    listed.insert(own_name(&account));
                    present.insert(own_name(&account), account);
                }
                Some(Ok(Event::InitDone)) => {
                    present.retain(|name, _| listed.contains(name));
                    is_complete = true;
                }
                Some(Ok(Event::Apply(account))) => drop(present.insert(own_name(&account), account)),
                Some(Ok(Event::Delete(account))) => drop(present.remove(&own_name(&account))),
                Some(Err(error)) => tracing::debug!(%error, "cannot watch ServiceAccounts, trying again"),
                None => return,
            },
        }
    }
}

fn name(account: &ServiceAccount) -> Name {
    (account.namespace.to_string(), account.name.clone())
}

fn own_name(account: &Account) -> Name {
    (account.namespace().unwrap_or_default(), account.name_any())
}

/// It has all that it should have, and perhaps more that is others'.
fn carries(present: &Account, wanted: &ServiceAccount) -> bool {
    let has = |all: &BTreeMap<String, String>, some: &BTreeMap<_, _>| {
        some.iter().all(|(key, value): (&SmolStr, &SmolStr)| {
            all.get(key.as_str()).map(String::as_str) == Some(value.as_str())
        })
    };
    // What it should not have any more goes when it is applied anew: the number of what is ours tells.
    has(present.labels(), &wanted.labels)
        && has(present.annotations(), &wanted.annotations)
        && count_of_ours(present) == Some((wanted.labels.len(), wanted.annotations.len()))
}

/// How many labels and annotations are ours, by `managedFields`.
fn count_of_ours(account: &Account) -> Option<(usize, usize)> {
    let entry = account
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .find(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))?;
    let fields = serde_json::to_value(entry.fields_v1.as_ref()?).ok()?;
    let count = |name: &str| {
        let of = fields.get("f:metadata").and_then(|metadata| metadata.get(name));
        of.and_then(|of| of.as_object()).map_or(0, |of| of.keys().filter(|key| key.starts_with("f:")).count())
    };
    Some((count("f:labels"), count("f:annotations")))
}

async fn apply(client: &Client, account: &ServiceAccount) -> Result<Account, Refusal> {
    let ServiceAccount { name, namespace, labels, annotations, gateway, gateway_uid } = account;
    let strings = |of: &BTreeMap<SmolStr, SmolStr>| {
        of.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let kind = resource(gateway.kind);
    let body = Account {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.to_string()),
            labels: Some(strings(labels)),
            annotations: Some(strings(annotations)),
            owner_references: Some(vec![OwnerReference {
                api_version: kind.api_version,
                kind: kind.kind,
                name: gateway.name.to_string(),
                uid: gateway_uid.to_string(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        // Nobody runs under it.
        automount_service_account_token: Some(false),
        ..Account::default()
    };
    let api: Api<Account> = Api::namespaced(client.clone(), namespace);
    if let Some(present) = api.get_opt(name).await?
        && !is_of(&present, gateway_uid)
    {
        return Err(Refusal::Foreign(format!(
            "there is a ServiceAccount {namespace}/{name} already that is not this Gateway's: rename or delete it"
        )));
    }
    Ok(api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)).await?)
}

/// It was made for this Gateway.
fn is_of(account: &Account, gateway_uid: &str) -> bool {
    account.metadata.owner_references.iter().flatten().any(|owner| owner.uid == gateway_uid)
}

/// Why an account was not written.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// Somebody else made one of that name.
    #[error("{0}")]
    Foreign(String),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

#[cfg(test)]
mod tests {
    use blixt_core::api::{Kind, ObjectKey};
    use serde_json::json;

    use super::*;

    fn wanted(labels: &[&str]) -> ServiceAccount {
        let labels = labels.iter().map(|label| ((*label).into(), "x".into())).collect();
        ServiceAccount {
            name: "web-blixt".into(),
            namespace: "default".into(),
            labels,
            annotations: BTreeMap::new(),
            gateway: ObjectKey { kind: Kind::Gateway, namespace: "default".into(), name: "web".into() },
            gateway_uid: "7".into(),
        }
    }

    #[test]
    fn an_account_with_a_label_too_few_or_too_many_of_ours_is_applied_anew() {
        let present: Account = serde_json::from_value(json!({
            "metadata": {
                "name": "web-blixt", "namespace": "default", "labels": {"a": "x", "b": "x", "theirs": "y"},
                "managedFields": [
                    {"manager": "other", "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}}},
                    {"manager": "blixt", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}, "f:b": {}}}}}
                ]
            }
        }))
        .unwrap();
        assert!(carries(&present, &wanted(&["a", "b"])));
        assert!(!carries(&present, &wanted(&["a", "b", "c"])));
        assert!(!carries(&present, &wanted(&["a"])));
    }
}
