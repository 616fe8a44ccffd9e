//! Who has which address, and the commands that make it so. Pure.
//!
//! ```text
//! blixt-cluster-client     172.30.0.1      fd00:172:30::1     the world outside: bridge, clients, the suite
//!   ├─ blixt-cluster-router 172.30.0.2     fd00:172:30::2     what clients send to a load balancer's address goes here
//!   ├─ blixt-cluster-node1 172.30.0.11     fd00:172:30::11    the control plane and a node
//!   └─ blixt-cluster-node2 172.30.0.12     fd00:172:30::12    a node
//! pods of node N           10.244.N.0/24   fd00:10:244:N::/64
//! services                 10.96.0.0/16    fd00:10:96::/112
//! load balancers           172.30.8.0/24   fd00:172:30:8::/64 routed by the router to all nodes alike
//! unusable                 172.30.9.0/24   fd00:172:30:9::/64 routed by nobody
//! ```
//!
//! Nothing of it is tied to the machine's own network: no packet can leave. So clusters of other names have the very same addresses.

use super::place;

/// Ranges of Services.
pub const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// What all pods' addresses lie in.
pub const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
/// An address that a Gateway may ask for: of the pools in `tests/cluster/conformance-class.yaml`.
pub const USABLE: &str = "172.30.8.200";
/// One that nobody routes.
pub const UNUSABLE: &str = "172.30.9.200";
/// The addresses that clients send to all nodes alike.
const BALANCED: [&str; 2] = ["172.30.8.0/24", "fd00:172:30:8::/64"];
const CLIENT_ADDRESSES: [&str; 2] = ["172.30.0.1", "fd00:172:30::1"];
const ROUTER_ADDRESSES: [&str; 2] = ["172.30.0.2", "fd00:172:30::2"];

/// What the names of all network namespaces begin with.
pub fn namespaces() -> String {
    format!("{}-", place::cluster())
}

/// The namespace of clients.
pub fn client() -> String {
    format!("{}client", namespaces())
}

/// The namespace of the router. It chooses the node for each connection by what stands in its packets. A machine that chooses
/// for its own sockets may choose anew in the midst of a connection: it does not always know its own address yet.
pub fn router() -> String {
    format!("{}router", namespaces())
}

/// A node, by its number from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node(pub u8);

impl Node {
    /// All nodes of a cluster.
    pub fn all(count: u8) -> impl Iterator<Item = Self> + Clone {
        (1..=count).map(Self)
    }

    /// What Kubernetes calls it.
    pub fn name(self) -> String {
        format!("node{}", self.0)
    }

    /// Its network namespace; the cgroup of its pods is called so as well.
    pub fn namespace(self) -> String {
        format!("{}{}", namespaces(), self.name())
    }

    /// Its address of each family.
    pub fn addresses(self) -> [String; 2] {
        let Self(number) = self;
        [format!("172.30.0.{}", 10 + number), format!("fd00:172:30::1{number}")]
    }

    /// The ranges of its pods.
    pub fn pods(self) -> [String; 2] {
        let Self(number) = self;
        [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]
    }
}

/// What `ip` is to be told, in order.
pub fn links(nodes: u8) -> Vec<String> {
    let outside = client();
    let client = |rest: String| format!("-n {outside} {rest}");
    let mut commands = vec![
        format!("netns add {outside}"),
        client("link set lo up".to_owned()),
        client("link add br0 type bridge".to_owned()),
        client(format!("addr add {}/24 dev br0", CLIENT_ADDRESSES[0])),
        client(format!("addr add {}/64 dev br0 nodad", CLIENT_ADDRESSES[1])),
        client("link set br0 up".to_owned()),
    ];
    let machines = Node::all(nodes).map(|node| (node.name(), node.namespace(), node.addresses()));
    let router = ("router".to_owned(), router(), ROUTER_ADDRESSES.map(str::to_owned));
    for (name, namespace, [v4, v6]) in machines.chain([router]) {
        let inside = |rest: String| format!("-n {namespace} {rest}");
        commands.extend([
            format!("netns add {namespace}"),
            inside("link set lo up".to_owned()),
            format!("link add eth0 netns {namespace} type veth peer name {name} netns {outside}"),
            client(format!("link set {name} master br0 up")),
            inside(format!("addr add {v4}/24 dev eth0")),
            inside(format!("addr add {v6}/64 dev eth0 nodad")),
            inside("link set eth0 up".to_owned()),
        ]);
    }
    commands
}

/// What `ip` is to be told once the nodes forward: changing that changes routes.
pub fn routes(nodes: u8) -> Vec<String> {
    let client = client();
    let mut commands = Vec::new();
    for node in Node::all(nodes) {
        let namespace = node.namespace();
        // The kubelet wants a default route. It leads to the client and no further.
        commands.extend(CLIENT_ADDRESSES.map(|via| format!("-n {namespace} route add default via {via}")));
        for (range, via) in node.pods().iter().zip(node.addresses()) {
            commands.push(format!("-n {client} route add {range} via {via}"));
            let others = Node::all(nodes).filter(|other| *other != node);
            commands
                .extend(others.map(|other| format!("-n {} route add {range} via {via}", other.namespace())));
        }
    }
    for (family, range) in BALANCED.iter().enumerate() {
        let hops = Node::all(nodes).map(|node| format!(" nexthop via {}", node.addresses()[family]));
        let flag = if family == 0 { "-4" } else { "-6" };
        commands.push(format!("{flag} -n {} route add {range}{}", router(), hops.collect::<String>()));
        commands.push(format!("-n {client} route add {range} via {}", ROUTER_ADDRESSES[family]));
    }
    commands
}

/// What a namespace's `/proc/sys/net` is to hold: files and values.
pub fn settings(namespace: &str) -> Vec<(&'static str, &'static str)> {
    // Answers to a new address are not waited for: nobody else could have it.
    let mut settings = vec![("ipv6/conf/default/accept_dad", "0")];
    if namespace == client() {
        // Nobody tells it a shorter way past the router.
        settings.extend([("ipv4/conf/all/accept_redirects", "0"), ("ipv6/conf/br0/accept_redirects", "0")]);
    } else {
        settings.extend([("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
    }
    if namespace == router() {
        // Which node a packet goes to hangs on its ports as well, or one client would only ever see one node.
        settings.extend([("ipv4/fib_multipath_hash_policy", "1"), ("ipv6/fib_multipath_hash_policy", "1")]);
        // What comes in leaves by the same wire.
        settings.extend([("ipv4/conf/all/send_redirects", "0"), ("ipv4/conf/eth0/send_redirects", "0")]);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_reach_a_load_balancers_address_by_every_node() {
        let routes = routes(2);
        let (client, router, node) = (client(), router(), Node(1).namespace());
        for (who, route) in [
            (&client, "172.30.8.0/24 via 172.30.0.2"),
            (&client, "fd00:172:30:8::/64 via fd00:172:30::2"),
            (&router, "172.30.8.0/24 nexthop via 172.30.0.11 nexthop via 172.30.0.12"),
            (&router, "fd00:172:30:8::/64 nexthop via fd00:172:30::11 nexthop via fd00:172:30::12"),
            (&node, "10.244.2.0/24 via 172.30.0.12"),
            (&client, "fd00:10:244:1::/64 via fd00:172:30::11"),
        ] {
            let expected = format!("-n {who} route add {route}");
            assert!(
                routes.iter().any(|route| route.ends_with(&expected)),
                "{expected} is not among {routes:#?}"
            );
        }
        assert!(!routes.iter().any(|route| route.contains("172.30.9.")), "the unusable range is routed");
    }

    #[test]
    fn every_device_lies_in_a_namespace_of_the_cluster() {
        for command in links(3).iter().chain(&routes(3)) {
            let inside =
                command.contains(" -n ") || command.starts_with("-n ") || command.contains(" netns ");
            assert!(inside || command.starts_with(&format!("netns add {}", namespaces())), "{command}");
        }
    }
}
