//! Objects as users write them: the Gateway API's, a few kinds of Kubernetes itself and Blixt's own.
//!
//! `gateway_api.rs` and the files in `schemas/` of the Gateway API's kinds are generated; the schemas of the
//! core kinds are written by hand and list what Kubernetes knows, used by Blixt or not.

mod blixt_class;
mod core;
mod gateway_api;
mod l4_route;
mod labels;
mod metadata;
mod object;
mod secret;

pub use blixt_class::{AddressPool, BlixtClassSpec, L7Listeners};
pub use core::{
    AddressType, EndpointConditions, EndpointPort, EndpointSliceSpec, NamespaceSpec, PortProtocol,
    ServicePort, ServiceSpec, SliceEndpoint,
};
pub use gateway_api::{
    AllowedListeners, AllowedRoutes, BackendRef, BackendTls, FrontendTls, FrontendTlsDefault,
    FrontendTlsPort, GatewayAddress, GatewayClassSpec, GatewaySpec, GatewayTls, HttpPathMatch,
    HttpPathMatchType, HttpRouteMatch, HttpRouteMatchMethod, HttpRouteRule, HttpRouteRuleBackendRef,
    HttpRouteSpec, Infrastructure, L4RouteRule, L4RouteSpec, Listener, ListenerNamespaces,
    ListenerNamespacesFrom, ListenerSetSpec, ListenerTls, ListenerTlsMode, LocalObjectReference,
    MatchExpression, ObjectReference, ParentReference, ReferenceGrantFrom, ReferenceGrantSpec,
    ReferenceGrantTo, RouteGroupKind, RouteNamespaces, RouteNamespacesFrom, Selector, Validation,
    ValidationMode,
};
pub use l4_route::L4Route;
pub use labels::Labels;
pub use metadata::{Kind, Metadata, ObjectKey, Resource};
pub use object::{
    BlixtClass, EndpointSlice, Gateway, GatewayClass, ListenerSet, Namespace, Object, ReferenceGrant, Secret,
    Service,
};
pub use secret::SecretSpec;
