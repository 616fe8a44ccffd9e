//! One object of any kind that Blixt reads.

use std::sync::Arc;

use super::{
    BlixtClassSpec, EndpointSliceSpec, GatewayClassSpec, GatewaySpec, Kind, L4Route, ListenerSetSpec,
    Metadata, NamespaceSpec, ObjectKey, ReferenceGrantSpec, Resource, SecretSpec, ServiceSpec,
};

/// A BlixtClass.
pub type BlixtClass = Resource<BlixtClassSpec>;
/// A GatewayClass.
pub type GatewayClass = Resource<GatewayClassSpec>;
/// A Gateway.
pub type Gateway = Resource<GatewaySpec>;
/// A ListenerSet.
pub type ListenerSet = Resource<ListenerSetSpec>;
/// A ReferenceGrant.
pub type ReferenceGrant = Resource<ReferenceGrantSpec>;
/// A Namespace.
pub type Namespace = Resource<NamespaceSpec>;
/// A Secret.
pub type Secret = Resource<SecretSpec>;
/// A Service.
pub type Service = Resource<ServiceSpec>;
/// An EndpointSlice.
pub type EndpointSlice = Resource<EndpointSliceSpec>;

/// An object of any kind that Blixt reads. Clones share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// A BlixtClass.
    BlixtClass(Arc<BlixtClass>),
    /// A GatewayClass.
    GatewayClass(Arc<GatewayClass>),
    /// A Gateway.
    Gateway(Arc<Gateway>),
    /// A ListenerSet.
    ListenerSet(Arc<ListenerSet>),
    /// A TCPRoute, a UDPRoute or an HTTPRoute.
    L4Route(Arc<L4Route>),
    /// A ReferenceGrant.
    ReferenceGrant(Arc<ReferenceGrant>),
    /// A Namespace.
    Namespace(Arc<Namespace>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::BlixtClass(_) => Kind::BlixtClass,
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::Gateway(_) => Kind::Gateway,
            Self::ListenerSet(_) => Kind::ListenerSet,
            Self::L4Route(route) => route.kind,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::Namespace(_) => Kind::Namespace,
            Self::Secret(_) => Kind::Secret,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
        }
    }

    /// Who it is.
    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey { kind: self.kind(), namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::BlixtClass(object) => &object.metadata,
            Self::GatewayClass(object) => &object.metadata,
            Self::Gateway(object) => &object.metadata,
            Self::ListenerSet(object) => &object.metadata,
            Self::L4Route(object) => &object.metadata,
            Self::ReferenceGrant(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
        }
    }

    /// Its metadata, to fill in what a source counts: generation and creation time. Unshares it if need be.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::BlixtClass(object) => &mut Arc::make_mut(object).metadata,
            Self::GatewayClass(object) => &mut Arc::make_mut(object).metadata,
            Self::Gateway(object) => &mut Arc::make_mut(object).metadata,
            Self::ListenerSet(object) => &mut Arc::make_mut(object).metadata,
            Self::L4Route(object) => &mut Arc::make_mut(object).metadata,
            Self::ReferenceGrant(object) => &mut Arc::make_mut(object).metadata,
            Self::Namespace(object) => &mut Arc::make_mut(object).metadata,
            Self::Secret(object) => &mut Arc::make_mut(object).metadata,
            Self::Service(object) => &mut Arc::make_mut(object).metadata,
            Self::EndpointSlice(object) => &mut Arc::make_mut(object).metadata,
        }
    }

    /// Whether both want the same, whatever their metadata: then the generation stays.
    pub fn same_spec(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BlixtClass(a), Self::BlixtClass(b)) => a.spec == b.spec,
            (Self::GatewayClass(a), Self::GatewayClass(b)) => a.spec == b.spec,
            (Self::Gateway(a), Self::Gateway(b)) => a.spec == b.spec,
            (Self::ListenerSet(a), Self::ListenerSet(b)) => a.spec == b.spec,
            (Self::L4Route(a), Self::L4Route(b)) => a.same_spec(b),
            (Self::ReferenceGrant(a), Self::ReferenceGrant(b)) => a.spec == b.spec,
            (Self::Namespace(a), Self::Namespace(b)) => a.spec == b.spec,
            (Self::Secret(a), Self::Secret(b)) => a.spec == b.spec,
            (Self::Service(a), Self::Service(b)) => a.spec == b.spec,
            (Self::EndpointSlice(a), Self::EndpointSlice(b)) => a.spec == b.spec,
            _ => false,
        }
    }

    /// Whether it makes no difference which of the two is there: labels count, since slices find their Service and
    /// selectors find namespaces by them, and so do our annotations.
    pub fn same_meaning(&self, other: &Self) -> bool {
        let (a, b) = (self.metadata(), other.metadata());
        self.same_spec(other) && a.labels == b.labels && a.annotations == b.annotations && a.uid == b.uid
    }
}
