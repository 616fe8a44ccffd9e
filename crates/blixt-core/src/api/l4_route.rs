//! TCPRoute, UDPRoute and HTTPRoute as one: rules that share connections out among backends.

use super::{BackendRef, HttpPathMatchType, HttpRouteMatch, HttpRouteSpec, Kind, L4RouteRule};
use super::{L4RouteSpec, Metadata, Resource};
use crate::config::Protocol;

/// A TCPRoute, a UDPRoute, or what can be said of an HTTPRoute at layer 4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct L4Route {
    /// Which of them.
    pub kind: Kind,
    /// Who it is.
    pub metadata: Metadata,
    /// What its author wants.
    pub spec: L4RouteSpec,
    /// What else its author wants and layer 4 cannot do: the field, and what to do about it.
    pub beyond_layer_4: Option<Box<str>>,
}

impl L4Route {
    /// A TCPRoute.
    pub fn tcp(route: Resource<L4RouteSpec>) -> Self {
        Self { kind: Kind::TcpRoute, metadata: route.metadata, spec: route.spec, beyond_layer_4: None }
    }

    /// A UDPRoute.
    pub fn udp(route: Resource<L4RouteSpec>) -> Self {
        Self { kind: Kind::UdpRoute, metadata: route.metadata, spec: route.spec, beyond_layer_4: None }
    }

    /// An HTTPRoute.
    pub fn http(route: Resource<HttpRouteSpec>) -> Self {
        let HttpRouteSpec { hostnames: _, parent_refs, rules: _ } = &route.spec;
        let parent_refs = parent_refs.clone();
        let beyond_layer_4 = beyond_layer_4(&route.spec).map(String::into_boxed_str);
        // The backends of a route that asks for more are looked at all the same: `ResolvedRefs` speaks of them.
        let rules = route.spec.rules.into_iter().map(|rule| L4RouteRule {
            name: rule.name,
            backend_refs: rule
                .backend_refs
                .into_iter()
                .map(|reference| BackendRef {
                    group: reference.group,
                    kind: reference.kind,
                    name: reference.name,
                    namespace: reference.namespace,
                    port: reference.port,
                    weight: reference.weight,
                })
                .collect(),
        });
        Self {
            kind: Kind::HttpRoute,
            metadata: route.metadata,
            spec: L4RouteSpec { parent_refs, rules: rules.collect() },
            beyond_layer_4,
        }
    }

    /// What its backends are sent.
    pub fn protocol(&self) -> Protocol {
        if self.kind == Kind::UdpRoute { Protocol::Udp } else { Protocol::Tcp }
    }

    /// Whether both want the same, as far as Blixt can tell them apart.
    pub fn same_spec(&self, other: &Self) -> bool {
        self.kind == other.kind && self.spec == other.spec && self.beyond_layer_4 == other.beyond_layer_4
    }
}

/// The first thing that a balancer which looks at no request cannot do.
fn beyond_layer_4(spec: &HttpRouteSpec) -> Option<String> {
    let cannot = |field: &str, what: &str| {
        Some(format!("{field} is set: HTTP is balanced as opaque TCP, {what}, remove it"))
    };
    if !spec.hostnames.is_empty() {
        return cannot("spec.hostnames", "hostnames are not looked at");
    }
    if let [_, _, ..] = &*spec.rules {
        return Some(
            "spec.rules has several entries: HTTP is balanced as opaque TCP, which one rule without conditions \
             describes, keep one"
                .into(),
        );
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let field = |name: &str| format!("spec.rules[{index}].{name}");
        // Alternatives: one that takes everything makes the others meaningless.
        if !rule.matches.is_empty() && !rule.matches.iter().any(matches_all) {
            return cannot(&field("matches"), "requests are not looked at");
        }
        if !rule.filters.is_empty() {
            return cannot(&field("filters"), "nothing in it is changed");
        }
        if rule.timeouts.is_some() {
            return cannot(&field("timeouts"), "requests are not looked at");
        }
        if let Some(place) = rule.backend_refs.iter().position(|reference| !reference.filters.is_empty()) {
            return cannot(&field(&format!("backendRefs[{place}].filters")), "nothing in it is changed");
        }
    }
    None
}

/// The path prefix `/`, and nothing else.
fn matches_all(condition: &HttpRouteMatch) -> bool {
    let HttpRouteMatch { headers, method, path, query_params } = condition;
    headers.is_empty()
        && method.is_none()
        && query_params.is_empty()
        && path.r#type == HttpPathMatchType::PathPrefix
        && path.value == "/"
}
