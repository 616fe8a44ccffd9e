//! Both ends over a loopback connection, with real certificates.

use std::sync::Arc;
use std::time::Duration;

use blixt_core::config::{Config, Endpoint, Forwarding, Frontend, Generation, Pool, Protocol};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::certificate;
use super::client::{self, Door, Ended};
use super::report::NodeReport;
use super::server::{self, Authenticate, Connected, Published, Refused, Service};

/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes `token-of-NODE`.
struct Names;

impl Authenticate for Names {
    async fn node(&self, token: &str) -> Result<String, Refused> {
        match token.strip_prefix("token-of-") {
            Some(node) => Ok(node.to_owned()),
            None => Err(Refused::Denied("the token is refused: it is not valid".to_owned())),
        }
    }
}

struct Controller {
    published: watch::Sender<Published>,
    connected: Connected,
    news: mpsc::Receiver<()>,
    door: Door,
}

async fn controller() -> Controller {
    let (published, to_publish) = watch::channel(Published::default());
    let connected = Connected::default();
    let (heard, news) = mpsc::channel(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let certificate = certificate::make().unwrap();
    let door = Door { url, authority: certificate.authority.clone(), token: "token-of-node1".to_owned() };
    let service = Service { authenticate: Names, published: to_publish, connected: connected.clone(), heard };
    tokio::spawn(server::serve(service, listener, certificate, std::future::pending()));
    Controller { published, connected, news, door }
}

impl Controller {
    fn publish(&self, ports: std::ops::Range<u16>, generation: u64) -> Config {
        let frontend = Arc::new(Frontend {
            listener: "a/b/c".into(),
            route: None,
            forwarding: Forwarding::Nat,
            pool: Pool::default(),
        });
        let endpoint = |port| Endpoint { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Tcp };
        let config = Config {
            frontends: ports.map(|port| (endpoint(port), Arc::clone(&frontend))).collect(),
            addresses: [[10, 0, 0, 1].into()].into(),
        };
        let published = Published { generation: Generation(generation), config: Arc::new(config.clone()) };
        self.published.send_replace(published);
        config
    }

    async fn hears(&mut self, so: impl Fn(&Connected) -> bool) {
        let heard = async {
            while !so(&self.connected) {
                // Levels: that there was news before says nothing of what comes.
                let _ = timeout(Duration::from_millis(50), self.news.recv()).await;
            }
        };
        timeout(PATIENCE, heard).await.expect("the controller hears it");
    }
}

#[tokio::test]
async fn an_agent_gets_the_whole_config_then_what_changed_and_its_reports_arrive() {
    let mut controller = controller().await;
    let first = controller.publish(1..60_000, 1);
    let (configs, mut received) = mpsc::channel(1);
    let (reports, reported) = watch::channel(None);
    let following = tokio::spawn(client::follow(controller.door.clone(), configs, reported));
    assert!(timeout(PATIENCE, received.recv()).await.unwrap() == Some((first, Generation(1))));
    let second = controller.publish(5..60_000, 2);
    assert!(timeout(PATIENCE, received.recv()).await.unwrap() == Some((second, Generation(2))));

    let report = NodeReport { generation: Generation(2), ..NodeReport::default() };
    reports.send_replace(Some(report.clone()));
    controller
        .hears(|connected| connected.said().get("node1").is_some_and(|said| *said.report == report))
        .await;
    assert_eq!((controller.connected.count(), controller.connected.said()["node1"].away_since), (1, None));

    // What it said holds while it is away, and that it is away is known.
    following.abort();
    controller.hears(|connected| connected.said()["node1"].away_since.is_some()).await;
    assert_eq!(*controller.connected.said()["node1"].report, report);
}

#[tokio::test]
async fn peers_without_a_good_token_or_a_trusted_authority_are_refused() {
    let controller = controller().await;
    controller.publish(1..2, 1);
    let ended = |door: Door| async {
        let (configs, mut received) = mpsc::channel(1);
        let (_reports, reported) = watch::channel(None);
        let ended = timeout(PATIENCE, client::follow(door, configs, reported)).await.expect("it is refused");
        assert!(received.try_recv().is_err(), "it got a Config");
        ended
    };
    let wrong_token = ended(Door { token: "something".to_owned(), ..controller.door.clone() }).await;
    assert!(wrong_token.to_string().contains("token is refused"), "{wrong_token}");
    let no_token = ended(Door { token: String::new(), ..controller.door.clone() }).await;
    assert!(matches!(no_token, Ended::Status { .. }), "{no_token}");
    let authority = certificate::make().unwrap().authority;
    let wrong_authority = ended(Door { authority, ..controller.door.clone() }).await;
    assert!(matches!(wrong_authority, Ended::Connect { .. }), "{wrong_authority}");
    assert_eq!(controller.connected.count(), 0);
}

#[tokio::test]
async fn a_controller_that_accepts_and_says_nothing_is_given_up() {
    let stopped = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", stopped.local_addr().unwrap());
    let door = Door { url, ..controller().await.door };
    let (configs, _received) = mpsc::channel(1);
    let (_reports, reported) = watch::channel(None);
    let ended = timeout(PATIENCE, client::follow(door, configs, reported)).await.expect("it is given up");
    assert!(matches!(ended, Ended::Connect { .. }), "{ended}");
}

#[tokio::test]
async fn one_authority_may_stand_beside_another_while_certificates_are_replaced() {
    let controller = controller().await;
    let config = controller.publish(1..2, 1);
    let other = certificate::make().unwrap().authority;
    let door = Door { authority: format!("{other}{}", controller.door.authority), ..controller.door.clone() };
    let (configs, mut received) = mpsc::channel(1);
    let (_reports, reported) = watch::channel(None);
    tokio::spawn(client::follow(door, configs, reported));
    assert!(timeout(PATIENCE, received.recv()).await.unwrap() == Some((config, Generation(1))));
}

#[tokio::test]
async fn the_newest_stream_of_a_node_speaks_for_it() {
    let mut controller = controller().await;
    controller.publish(1..2, 1);
    let report =
        |generation| Some(NodeReport { generation: Generation(generation), ..NodeReport::default() });
    let says = |generation| {
        move |connected: &Connected| {
            connected.said().get("node1").is_some_and(|said| said.report.generation == Generation(generation))
        }
    };
    let (configs, _old) = mpsc::channel(1);
    let (old_reports, reported) = watch::channel(report(1));
    tokio::spawn(client::follow(controller.door.clone(), configs, reported));
    controller.hears(says(1)).await;
    let (configs, _new) = mpsc::channel(1);
    let (_reports, reported) = watch::channel(report(7));
    tokio::spawn(client::follow(controller.door.clone(), configs, reported));
    controller.hears(says(7)).await;
    old_reports.send_replace(report(3));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(says(7)(&controller.connected), "{:?}", controller.connected.said());
}

#[tokio::test]
async fn when_the_certificate_is_replaced_agents_are_let_go_and_come_again() {
    let (published, to_publish) = watch::channel(Published::default());
    let config = Arc::new(Config { addresses: [[10, 0, 0, 1].into()].into(), ..Config::default() });
    published.send_replace(Published { generation: Generation(1), config: Arc::clone(&config) });
    let mut address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    for _ in 0..2 {
        let (heard, _news) = mpsc::channel(1);
        let connected = Connected::default();
        let service = Service {
            authenticate: Names,
            published: to_publish.clone(),
            connected: connected.clone(),
            heard,
        };
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        address = listener.local_addr().unwrap();
        let certificate = certificate::make().unwrap();
        let door = Door {
            url: format!("https://{address}"),
            authority: certificate.authority.clone(),
            token: "token-of-node1".to_owned(),
        };
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let serving =
            tokio::spawn(server::serve(service, listener, certificate, async { drop(ended.await) }));
        let (configs, mut received) = mpsc::channel(1);
        let (_reports, reported) = watch::channel(Some(NodeReport::default()));
        let following = tokio::spawn(client::follow(door, configs, reported));
        assert!(
            timeout(PATIENCE, received.recv()).await.unwrap() == Some(((*config).clone(), Generation(1)))
        );
        end.send(()).unwrap();
        timeout(PATIENCE, serving).await.expect("the server ends").unwrap().unwrap();
        timeout(PATIENCE, following).await.expect("the agent is let go").unwrap();
        assert_eq!(connected.count(), 0);
    }
}
