//! Events: what a person who looks at an object should see of what happened to it.

use blixt_core::api::Object;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use super::watch::reference;
use crate::status::book::Transition;

/// Events that wait: of more at a time, nobody reads all.
const WAITING: usize = 256;

/// Where events go.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<(Object, Transition)>,
}

impl Events {
    /// Writes events as long as somebody sends them.
    pub fn start(client: Client, pod: &str) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Object, Transition)>(WAITING);
        let reporter = Reporter { controller: "blixt.dev/controller".into(), instance: Some(pod.into()) };
        tokio::spawn(async move {
            let recorder = Recorder::new(client, reporter);
            while let Some((object, transition)) = receiver.recv().await {
                if let Err(error) = recorder.publish(&event(&transition), &reference(&object)).await {
                    tracing::debug!(%error, "cannot write an Event");
                }
            }
        });
        Self { sender }
    }

    /// Events that a test looks at.
    #[cfg(test)]
    pub(super) fn kept() -> (Self, mpsc::Receiver<(Object, Transition)>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender }, receiver)
    }

    /// Tells of a condition that turned. Where too many wait it is left out: the status says it as well.
    pub fn tell(&self, object: Object, transition: Transition) {
        let _ = self.sender.try_send((object, transition));
    }
}

fn event(transition: &Transition) -> Event {
    let Transition { object: _, part, condition, status, reason, message } = transition;
    let place = if part.is_empty() { String::new() } else { format!("{part}: ") };
    Event {
        type_: if *status == "True" { EventType::Normal } else { EventType::Warning },
        reason: reason.clone(),
        note: Some(shortened(format!("{place}{condition} is {status}: {message}"))),
        action: condition.rsplit('/').next().unwrap_or_default().to_owned(),
        secondary: None,
    }
}

/// A note has at most 1024 bytes.
fn shortened(mut note: String) -> String {
    const LONGEST: usize = 1000;
    if note.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
        note.truncate(end);
        note.push_str("...");
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_which_part_turned_and_why_within_the_length_that_is_allowed() {
        let transition = Transition {
            object: blixt_core::api::ObjectKey {
                kind: blixt_core::api::Kind::Gateway,
                namespace: "a".into(),
                name: "b".into(),
            },
            part: "listener web".into(),
            condition: "Programmed".into(),
            status: "False",
            reason: "Invalid".into(),
            message: "ä".repeat(2000),
        };
        let event = event(&transition);
        let note = event.note.unwrap();
        assert!(note.starts_with("listener web: Programmed is False: ä") && note.len() <= 1024);
        assert_eq!((event.type_, event.reason.as_str()), (EventType::Warning, "Invalid"));
    }
}
