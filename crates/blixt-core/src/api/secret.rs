//! Secrets, as far as a listener refers to one as its certificate.
//!
//! A certificate is only checked, never used: what is in a Secret is forgotten as soon as it was looked at, so it
//! cannot be shown, logged or written anywhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

/// The type of Secrets that hold a certificate and its key.
const TLS: &str = "kubernetes.io/tls";

/// What there is to know of a Secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretSpec {
    /// Why it cannot be a listener's certificate.
    pub certificate_fault: Option<String>,
}

impl SecretSpec {
    /// Looks at a Secret: its type, and the values of its keys `tls.crt` and `tls.key`, decoded.
    pub fn new(secret_type: &str, certificate: Option<&[u8]>, key: Option<&[u8]>) -> Self {
        Self { certificate_fault: certificate_fault(secret_type, certificate, key) }
    }

    /// A Secret as a manifest has it. `stringData` takes precedence over `data`.
    pub(crate) fn of_manifest(fields: &Value) -> Self {
        let decoded = |name: &str| match fields["stringData"][name].as_str() {
            Some(text) => Some(text.as_bytes().to_vec()),
            // Line breaks are allowed there, as long values have them. What is no base64 is no PEM either.
            None => fields["data"][name].as_str().map(|text| {
                let text: String = text.split_whitespace().collect();
                STANDARD.decode(text).unwrap_or_default()
            }),
        };
        let (certificate, key) = (decoded("tls.crt"), decoded("tls.key"));
        let secret_type = fields["type"].as_str().unwrap_or("Opaque");
        Self::new(secret_type, certificate.as_deref(), key.as_deref())
    }
}

fn certificate_fault(secret_type: &str, certificate: Option<&[u8]>, key: Option<&[u8]>) -> Option<String> {
    if secret_type != TLS {
        return Some(format!("its type is {secret_type}: use one of type {TLS}"));
    }
    let Some(certificate) = certificate else { return Some("it has no tls.crt: add a certificate".into()) };
    let Some(key) = key else { return Some("it has no tls.key: add the certificate's key".into()) };
    let mut certificates = CertificateDer::pem_slice_iter(certificate);
    if certificates.next().is_none_or(|first| first.is_err()) || certificates.any(|other| other.is_err()) {
        return Some("its tls.crt holds no PEM certificates: give the certificate, then its chain".into());
    }
    if PrivateKeyDer::from_pem_slice(key).is_err() {
        return Some("its tls.key holds no PEM private key: give the certificate's key".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";

    fn fault(fields: Value) -> String {
        SecretSpec::of_manifest(&fields).certificate_fault.unwrap_or_default()
    }

    #[test]
    fn a_certificate_is_a_chain_in_pem_and_a_key_in_a_secret_of_its_type() {
        let chain = format!("{CERTIFICATE}{CERTIFICATE}");
        let encoded = json!({ "tls.crt": STANDARD.encode(&chain), "tls.key": STANDARD.encode(KEY) });
        assert_eq!(fault(json!({ "type": TLS, "data": encoded.clone() })), "");
        assert_eq!(fault(json!({ "type": TLS, "stringData": { "tls.crt": chain, "tls.key": KEY } })), "");
        let cases = [
            (json!({ "data": encoded }), "its type is Opaque"),
            (json!({ "type": TLS }), "it has no tls.crt"),
            (json!({ "type": TLS, "stringData": { "tls.crt": CERTIFICATE } }), "it has no tls.key"),
            (
                json!({ "type": TLS, "stringData": { "tls.crt": "hello", "tls.key": KEY } }),
                "its tls.crt holds",
            ),
            (json!({ "type": TLS, "stringData": { "tls.crt": KEY, "tls.key": KEY } }), "its tls.crt holds"),
            (
                json!({ "type": TLS, "stringData": { "tls.crt": CERTIFICATE, "tls.key": "hello" } }),
                "its tls.key holds",
            ),
            (json!({ "type": TLS, "data": { "tls.crt": "*", "tls.key": "*" } }), "its tls.crt holds"),
        ];
        for (fields, start) in cases {
            assert!(fault(fields.clone()).starts_with(start), "{fields}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_kept() {
        let fields = json!({ "type": TLS, "stringData": { "tls.crt": "hello", "tls.key": "sesame" } });
        let shown = format!("{:?}", SecretSpec::of_manifest(&fields));
        assert!(!shown.contains("hello") && !shown.contains("sesame"), "{shown}");
    }
}
