//! The certificates of HTTPS listeners. They are checked and not used: TLS is not terminated here, and a listener
//! that a later data plane could not serve is told so today.

use super::grant::Grants;
use super::refusal::Refusal;
use crate::api::{Kind, Listener, ObjectKey, ObjectReference};
use crate::snapshot::Snapshot;

/// Why a listener's certificates are not as they should be, by the first of them.
pub fn refusal(
    snapshot: &Snapshot,
    grants: &Grants<'_>,
    owner: &ObjectKey,
    spec: &Listener,
) -> Option<Refusal> {
    if spec.protocol != "HTTPS" {
        return None;
    }
    let references = spec.tls.as_ref().map(|tls| &*tls.certificate_refs).unwrap_or_default();
    if references.is_empty() {
        let message = "tls.certificateRefs is empty: name a Secret with a certificate";
        return Some(Refusal::new("InvalidCertificateRef", message));
    }
    references.iter().enumerate().find_map(|(index, reference)| {
        let refusal = reference_refusal(snapshot, grants, owner, reference)?;
        let message = format!("tls.certificateRefs[{index}]: {}", refusal.message);
        Some(Refusal { message, ..refusal })
    })
}

/// `ListenerReasonInvalidCertificateRef`: the reference leads to no usable certificate.
/// `ListenerReasonRefNotPermitted`: a reference across namespaces needs a grant, which is looked at before
/// existence, so that nothing is told about other namespaces.
fn reference_refusal(
    snapshot: &Snapshot,
    grants: &Grants<'_>,
    owner: &ObjectKey,
    reference: &ObjectReference,
) -> Option<Refusal> {
    let invalid = |message: String| Some(Refusal::new("InvalidCertificateRef", message));
    if (reference.group.as_str(), reference.kind.as_str()) != (Kind::Secret.group(), Kind::Secret.name()) {
        let group = if reference.group.is_empty() { "the core group" } else { &reference.group };
        return invalid(format!(
            "{} of {group} is no certificate: refer to a Secret of the core group",
            reference.kind
        ));
    }
    let namespace = reference.namespace.as_ref().unwrap_or(&owner.namespace);
    if !grants.permit((owner.kind, &owner.namespace), (Kind::Secret, namespace, &reference.name)) {
        return Some(Refusal::new(
            "RefNotPermitted",
            format!(
                "no ReferenceGrant in namespace {namespace} lets {} of namespace {} refer to Secret {}: add one there",
                owner.kind, owner.namespace, reference.name
            ),
        ));
    }
    let key = ObjectKey { kind: Kind::Secret, namespace: namespace.clone(), name: reference.name.clone() };
    let Some(secret) = snapshot.secrets.get(&key) else { return invalid(snapshot.absence(&key)) };
    invalid(format!("{key} is no certificate: {}", secret.spec.certificate_fault.as_ref()?))
}
