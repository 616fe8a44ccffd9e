//! Who leads: one Lease in the controller's namespace.
//!
//! Another holder's Lease has run out when it did not change for its duration, as seen by a clock of ours that only goes
//! forward: clocks that differ, or jump, make no second leader.
//!
//! The Lease carries what the next leader has to know ([`Handover`]).

use std::collections::BTreeSet;
use std::net::IpAddr;
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
/// Where the addresses that rest are kept.
const RESTING: &str = "blixt.dev/resting-addresses";
/// No more of them than this: annotations have room for 256 KiB.
const MOST_RESTING: usize = 2048;
/// Each leader begins a new thousand: what the last one did after its last renewal has smaller numbers.
const THOUSAND: u64 = 1000;
/// A Lease that was not renewed for this long is anybody's.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew it for this long gives up: well before anybody else may begin.
const GIVE_UP: Duration = Duration::from_secs(10);
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

/// What a leader leaves to the next one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Handover {
    /// The number of its newest Config; to a new leader, the first that it may use.
    pub generation: u64,
    /// Addresses that a Gateway had until lately.
    pub resting: BTreeSet<IpAddr>,
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

/// For how long a leader may lead. Others count from a moment after it asked for the renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    asked: Instant,
}

impl Term {
    /// That of a renewal that was asked for then.
    pub fn of(asked: Instant) -> Self {
        Self { asked }
    }

    /// When it is over.
    pub fn end(self) -> Instant {
        self.asked + GIVE_UP
    }

    /// What it is after a renewal that was asked for then; `None`: it is over. A process that was stopped meanwhile hears of a
    /// renewal that has run out since.
    pub fn after(self, renewal: Renewal, asked: Instant, now: Instant) -> Option<Self> {
        let next = match renewal {
            Renewal::Done => Self { asked },
            Renewal::Unknown => self,
            Renewal::Lost => return None,
        };
        (now < next.end()).then_some(next)
    }
}

impl Candidate {
    /// One that is known by a name of its own.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, generation: 0, seen: None }
    }

    /// Waits until it is ours.
    pub async fn acquire(&mut self) -> Handover {
        let mut trouble = None;
        loop {
            match timeout(PATIENCE, self.try_acquire()).await {
                Ok(Ok(Some(handover))) => return handover,
                Ok(Ok(None)) => trouble = None,
                Ok(Err(error)) => note(&mut trouble, error.to_string()),
                Err(_) => note(&mut trouble, "the API server does not answer".to_owned()),
            }
            sleep(RENEW).await;
        }
    }

    /// Renews it, with what the next leader has to know.
    pub async fn renew(&mut self, handover: &Handover) -> Renewal {
        match timeout(PATIENCE, self.try_renew(handover)).await {
            Ok(Ok(renewal)) => renewal,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot renew the Lease");
                Renewal::Unknown
            }
            Err(_) => Renewal::Unknown,
        }
    }

    /// Gives it back, so that nobody has to wait.
    pub async fn release(&mut self, handover: &Handover) {
        // A renewal may have been under way.
        let Ok(Ok(Some(mut lease))) = timeout(PATIENCE, self.api.get_opt(NAME)).await else { return };
        if holder(&lease) != Some(&self.identity) {
            return;
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        handover.write(&mut lease);
        match timeout(PATIENCE, self.api.replace(NAME, &PostParams::default(), &lease)).await {
            Ok(Ok(_)) => tracing::info!("gave the Lease back"),
            _ => tracing::debug!("the Lease runs out by itself"),
        }
    }

    async fn try_acquire(&mut self) -> Result<Option<Handover>, Error> {
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

    async fn take(&mut self, mut lease: Lease) -> Result<Option<Handover>, Error> {
        let now = MicroTime(Timestamp::now());
        // Somebody may have deleted it.
        let last = Handover::read(&lease);
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(1)),
            ..LeaseSpec::default()
        });
        let first = Handover {
            generation: first_generation(last.generation.max(self.generation)),
            resting: last.resting,
        };
        first.write(&mut lease);
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

    async fn try_renew(&mut self, handover: &Handover) -> Result<Renewal, Error> {
        let Some((mut lease, _)) = self.seen.clone() else { return Ok(Renewal::Lost) };
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        handover.write(&mut lease);
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
        self.generation = self.generation.max(Handover::read(lease).generation);
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

impl Handover {
    /// What cannot be read is as if it were not there.
    fn read(lease: &Lease) -> Self {
        let annotations = lease.metadata.annotations.as_ref();
        let text = |name| annotations.and_then(|all| all.get(name)).map(String::as_str).unwrap_or_default();
        Self {
            generation: text(GENERATION).parse().unwrap_or(0),
            resting: text(RESTING).split(',').filter_map(|address| address.parse().ok()).collect(),
        }
    }

    fn write(&self, lease: &mut Lease) {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(GENERATION.to_owned(), self.generation.to_string());
        let resting: Vec<String> = self.resting.iter().take(MOST_RESTING).map(IpAddr::to_string).collect();
        if resting.is_empty() {
            annotations.remove(RESTING);
        } else {
            annotations.insert(RESTING.to_owned(), resting.join(","));
        }
    }
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

    #[test]
    fn what_a_leader_leaves_is_what_the_next_one_finds() {
        let mut lease = Lease::default();
        assert_eq!(Handover::read(&lease), Handover::default());
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
        let left = Handover { generation: 1007, resting: addresses.into() };
        left.write(&mut lease);
        assert_eq!(Handover::read(&lease), left);
        let rested = Handover { generation: 1008, ..Handover::default() };
        rested.write(&mut lease);
        assert_eq!(Handover::read(&lease), rested);
        assert!(!lease.metadata.annotations.as_ref().unwrap().contains_key(RESTING));
    }

    #[test]
    fn what_somebody_wrote_into_the_lease_is_no_more_than_nothing() {
        let mut lease = Lease::default();
        let annotations = [(GENERATION, "-7"), (RESTING, "192.0.2.1,,nobody,192.0.2.300")];
        let owned = annotations.map(|(name, text)| (name.to_owned(), text.to_owned()));
        lease.metadata.annotations = Some(owned.into());
        let found = Handover::read(&lease);
        assert_eq!(found.generation, 0);
        assert!(found.resting.iter().map(IpAddr::to_string).eq(["192.0.2.1"]));
    }

    #[test]
    fn a_renewal_that_is_heard_of_after_it_has_run_out_is_none() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let term = Term::of(began);
        assert_eq!(term.after(Renewal::Done, at(2), at(3)), Some(Term::of(at(2))));
        assert_eq!(term.after(Renewal::Unknown, at(2), at(9)), Some(term));
        assert_eq!(term.after(Renewal::Unknown, at(8), at(10)), None);
        assert_eq!(term.after(Renewal::Lost, at(2), at(3)), None);
        // Stopped between asking and hearing: somebody else leads since.
        assert_eq!(term.after(Renewal::Done, at(2), at(60)), None);
    }
}
