//! Who an agent is: its ServiceAccount token, looked at by the API server.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::sync::AUDIENCE;
use crate::sync::server::{Authenticate, Refused};

/// Where the API server names the node of the pod that a token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The ServiceAccount of agents.
const ACCOUNT: &str = "blixt-agent";
/// Tokens that are looked at at a time.
const AT_ONCE: usize = 8;
/// An API server that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tokens of one namespace's agents.
pub struct Tokens {
    reviews: Api<TokenReview>,
    user: String,
    turns: Semaphore,
}

impl Tokens {
    /// Of agents in a namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            reviews: Api::all(client),
            user: format!("system:serviceaccount:{namespace}:{ACCOUNT}"),
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

impl Authenticate for Tokens {
    async fn node(&self, token: &str) -> Result<String, Refused> {
        // Whoever may dial could have the API server look at made-up ones all day.
        claims_to_be(token, &self.user).map_err(Refused::Denied)?;
        let _turn =
            self.turns.acquire().await.map_err(|_| Refused::Unknown("the controller ends".to_owned()))?;
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) },
            status: None,
        };
        let unknown =
            |why: String| Refused::Unknown(format!("the API server cannot look at the token: {why}"));
        let review = timeout(PATIENCE, self.reviews.create(&PostParams::default(), &review))
            .await
            .map_err(|_| unknown("it does not answer".to_owned()))?
            .map_err(|error| unknown(error.to_string()))?;
        node(review.status.unwrap_or_default(), &self.user)
    }
}

/// A look at what a token says of itself, before anybody is asked whether that is so.
fn claims_to_be(token: &str, user: &str) -> Result<(), String> {
    let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Option<Value> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    let Some(claims) = claims else {
        return Err("the token is refused: it is none of a ServiceAccount".to_owned());
    };
    if claims.get("sub").and_then(Value::as_str) != Some(user) {
        return Err(format!("the token is not of {user}"));
    }
    let audiences = claims.get("aud").and_then(Value::as_array);
    if !audiences.into_iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(format!("the token is not for the audience {AUDIENCE}"));
    }
    Ok(())
}

/// The node that a token's claims name.
fn node(status: TokenReviewStatus, user: &str) -> Result<String, Refused> {
    let denied = |why: String| Err(Refused::Denied(why));
    if status.authenticated != Some(true) {
        let why = status.error.unwrap_or_else(|| "it is not valid".to_owned());
        return denied(format!("the token is refused: {why}"));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
        return denied(format!("the token is not for the audience {AUDIENCE}"));
    }
    let who = status.user.unwrap_or_default();
    if who.username.as_deref() != Some(user) {
        return denied(format!("the token is of {}, not of {user}", who.username.unwrap_or_default()));
    }
    let named = who.extra.and_then(|mut extra| extra.remove(NODE_NAME)).unwrap_or_default();
    match <[String; 1]>::try_from(named) {
        Ok([node]) if !node.is_empty() => Ok(node),
        _ => denied("the token names no node: it must be bound to a pod that runs on one".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    const USER: &str = "system:serviceaccount:blixt-system:blixt-agent";

    fn good() -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["blixt".into()]),
            user: Some(UserInfo {
                username: Some(USER.into()),
                extra: Some([(NODE_NAME.to_owned(), vec!["node1".to_owned()])].into()),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    #[test]
    fn the_node_is_that_of_the_tokens_claims() {
        assert_eq!(node(good(), USER), Ok("node1".to_owned()));
    }

    #[test]
    fn tokens_of_others_for_others_or_without_a_node_are_refused() {
        let bad: [fn(&mut TokenReviewStatus); 7] = [
            |status| status.authenticated = Some(false),
            |status| status.authenticated = None,
            |status| status.audiences = None,
            |status| status.audiences = Some(vec!["https://kubernetes.default.svc".into()]),
            |status| {
                status.user.as_mut().unwrap().username =
                    Some("system:serviceaccount:other:blixt-agent".into())
            },
            |status| status.user.as_mut().unwrap().extra = None,
            |status| {
                let extra = [(NODE_NAME.to_owned(), vec!["node1".to_owned(), "node2".to_owned()])];
                status.user.as_mut().unwrap().extra = Some(extra.into());
            },
        ];
        for spoil in bad {
            let mut status = good();
            spoil(&mut status);
            assert!(matches!(node(status.clone(), USER), Err(Refused::Denied(_))), "{status:?}");
        }
    }

    #[test]
    fn a_token_that_does_not_even_claim_to_be_an_agents_is_refused_without_asking() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let good = format!(r#"{{"sub":"{USER}","aud":["blixt"]}}"#);
        assert_eq!(claims_to_be(&token(&good), USER), Ok(()));
        for bad in [
            "",
            "a.b.c",
            &token("7"),
            &token(r#"{"sub":"x","aud":["blixt"]}"#),
            &token(&good.replace("blixt\"]", "x\"]")),
        ] {
            assert!(claims_to_be(bad, USER).is_err(), "{bad}");
        }
    }
}
