//! Who leads: one Lease in the controller's namespace.
//!
//! Another holder's Lease has run out when it did not change for its duration, as seen by a clock of ours that only goes
//! forward: clocks that differ, or jump, make no second leader.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::time::{Instant, sleep, timeout};

/// The Lease.
const NAME: &str = "blixt-controller";
/// Where the number of the last Config is kept, so that it grows from leader to leader.
const GENERATION: &str = "blixt.dev/generation";
/// Each leader begins a new thousand: what the last one did after its last renewal has smaller numbers.
const THOUSAND: u64 = 1000;
/// A Lease that was not renewed for this long is anybody's.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew it for this long gives up: well before anybody else may begin.
pub const GIVE_UP: Duration = Duration::from_secs(10);
/// It is renewed, and looked at, this often.
pub const RENEW: Duration = Duration::from_secs(2);
/// An API server that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// A candidate for the Lease, or its holder.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The largest generation that was ever seen in it.
    generation: u64,
    /// As it was seen last, and when it was first seen so.
    seen: Option<(Lease, Instant)>,
}

/// What renewing came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// It is ours for another the duration of the Lease.
    Done,
    /// Somebody else has it.
    Lost,
    /// It could not be found out.
    Unknown,
}

impl Candidate {
    /// One that is known by a name of its own.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, generation: 0, seen: None }
    }

    /// Waits until it is ours. The first generation that this leader may use.
    pub async fn acquire(&mut self) -> u64 {
        let mut trouble = None;
        loop {
            match timeout(PATIENCE, self.try_acquire()).await {
                Ok(Ok(Some(generation))) => return generation,
                Ok(Ok(None)) => trouble = None,
                Ok(Err(error)) => note(&mut trouble, error.to_string()),
                Err(_) => note(&mut trouble, "the API server does not answer".to_owned()),
            }
            sleep(RENEW).await;
        }
    }

    /// Renews it, with the number of the newest Config.
    pub async fn renew(&mut self, generation: u64) -> Renewal {
        match timeout(PATIENCE, self.try_renew(generation)).await {
            Ok(Ok(renewal)) => renewal,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot renew the Lease");
                Renewal::Unknown
            }
            Err(_) => Renewal::Unknown,
        }
    }

    /// The number that it was renewed with last.
    pub fn last_generation(&self) -> u64 {
        self.generation
    }

    /// Gives it back, so that nobody has to wait.
    pub async fn release(&mut self, generation: u64) {
        // A renewal may have been under way.
        let Ok(Ok(Some(mut lease))) = timeout(PATIENCE, self.api.get_opt(NAME)).await else { return };
        if holder(&lease) != Some(&self.identity) {
            return;
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        set_generation(&mut lease, generation);
        match timeout(PATIENCE, self.api.replace(NAME, &PostParams::default(), &lease)).await {
            Ok(Ok(_)) => tracing::info!("gave the Lease back"),
            _ => tracing::debug!("the Lease runs out by itself"),
        }
    }

    async fn try_acquire(&mut self) -> Result<Option<u64>, Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                spec: None,
            };
            return self.take(lease).await;
        };
        self.see(&lease);
        let is_free = match holder(&lease) {
            None => true,
            Some(holder) if *holder == self.identity => true,
            Some(_) => self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() > duration(&lease)),
        };
        if !is_free {
            return Ok(None);
        }
        self.take(lease).await
    }

    async fn take(&mut self, mut lease: Lease) -> Result<Option<u64>, Error> {
        let now = MicroTime(Timestamp::now());
        // Somebody may have deleted it.
        let last = generation(&lease).max(self.generation);
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(1)),
            ..LeaseSpec::default()
        });
        let first = first_generation(last);
        set_generation(&mut lease, first);
        let taken = if lease.metadata.resource_version.is_some() {
            self.api.replace(NAME, &PostParams::default(), &lease).await
        } else {
            self.api.create(&PostParams::default(), &lease).await
        };
        match taken {
            Ok(lease) => {
                self.see(&lease);
                Ok(Some(first))
            }
            // Another one was faster.
            Err(Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn try_renew(&mut self, generation: u64) -> Result<Renewal, Error> {
        let Some((mut lease, _)) = self.seen.clone() else { return Ok(Renewal::Lost) };
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        set_generation(&mut lease, generation);
        match self.api.replace(NAME, &PostParams::default(), &lease).await {
            Ok(lease) => {
                self.see(&lease);
                Ok(Renewal::Done)
            }
            Err(Error::Api(status)) if status.code == 409 || status.code == 404 => {
                let Some(lease) = self.api.get_opt(NAME).await? else { return Ok(Renewal::Lost) };
                self.see(&lease);
                Ok(if holder(&lease) == Some(&self.identity) { Renewal::Unknown } else { Renewal::Lost })
            }
            Err(error) => Err(error),
        }
    }

    fn see(&mut self, lease: &Lease) {
        self.generation = self.generation.max(generation(lease));
        let is_same = self
            .seen
            .as_ref()
            .is_some_and(|(seen, _)| seen.metadata.resource_version == lease.metadata.resource_version);
        if !is_same {
            self.seen = Some((lease.clone(), Instant::now()));
        }
    }
}

fn note(trouble: &mut Option<String>, error: String) {
    if trouble.as_ref() != Some(&error) {
        tracing::warn!(error, "cannot look at the Lease, trying again");
        *trouble = Some(error);
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    let holder = lease.spec.as_ref()?.holder_identity.as_ref()?;
    (!holder.is_empty()).then_some(holder)
}

fn duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs)
}

fn generation(lease: &Lease) -> u64 {
    let annotations = lease.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(GENERATION)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_generation(lease: &mut Lease, generation: u64) {
    lease.metadata.annotations.get_or_insert_default().insert(GENERATION.to_owned(), generation.to_string());
}

/// The first leader of all begins with 1.
fn first_generation(last: u64) -> u64 {
    if last == 0 { 1 } else { (last / THOUSAND + 1) * THOUSAND + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leader_begins_a_new_thousand() {
        let firsts: Vec<u64> = [0, 1, 7, 999, 1001, 2345].into_iter().map(first_generation).collect();
        assert_eq!(firsts, [1, 1001, 1001, 1001, 2001, 3001]);
    }
}
